"""Collaborative representation: a pixel that its surroundings cannot be mixed to is an anomaly.

Li & Du, IEEE TGRS 2015: the spectrum is written as a combination of those between two windows around it, in which
distant ones are penalised more, and the length of what remains is the score.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..core.bounds import OddSide, Positive
from ..core.context import Scenes
from ..core.data import Batch, Data
from ..core.detector import Detector
from ..core.modality import SPECTRUM
from ..core.registry import register
from .components import cubic_cost
from .components.dual_window import Strip, check_windows, scores_by_strip

_BLOCK = 32


@register("detector", "collaborative")
class Collaborative(Detector):
    """Length of what remains of a spectrum after the best mixture, of weights that add up to about 1, of its window.

    Nothing is learnt from the training pixels. The weights a of the background X minimise |y - X a|^2 + (1 - sum a)^2 +
    regularisation * sum of (a_i |y - x_i|)^2. Spectra are divided by their mean length first, so that the
    regularisation does not depend on their units of measure.

    Args:
        inner: side of the window that is left out, in pixels.
        outer: side of the window that is the background.
        regularisation: how much distant spectra are penalised.
    """

    modalities = (SPECTRUM,)
    needs_context = Scenes
    ignores_weights = "it compares each pixel with those around it"

    def __init__(self, inner: OddSide = 5, outer: OddSide = 11, regularisation: Positive = 1e-2) -> None:
        super().__init__()
        check_windows("Collaborative", inner, outer)
        self.inner = inner
        self.outer = outer
        self.regularisation = regularisation

    def build(self, sample_shape: tuple[int, ...]) -> None:
        self.register_buffer("bands", torch.tensor(sample_shape[1]))  # the file of a state cannot be empty

    def solve(self, data: Data, w: Tensor) -> None:
        """Nothing to learn; scoring may take long."""
        around = self.outer**2 - self.inner**2
        what = f"scoring {len(data):,} pixels by the {around:,} around each"
        cubic_cost.announce(what, around, len(data), cubic_cost.SOLUTION, "of these, by a smaller outer")

    def score(self, batch: Batch) -> Tensor:
        return scores_by_strip(batch, self.inner, self.outer, self._scores, "Collaborative")

    def _scores(self, strip: Strip) -> np.ndarray:
        parts = np.split(np.arange(len(strip.row)), range(_BLOCK, len(strip.row), _BLOCK))
        return np.concatenate([self._residuals(*strip.background(part)) for part in parts])

    def _residuals(self, spectra: np.ndarray, background: np.ndarray) -> np.ndarray:
        """[k] of spectra [k, d] and their backgrounds [k, m, d]."""
        lacks = np.isnan(background[:, :, 0])  # [k, m], pixels that hold no data
        count = np.maximum((~lacks).sum(1), 1)
        background = np.where(lacks[:, :, None], 0, background)
        length = np.linalg.norm(background, axis=2).sum(1) / count
        length = np.where(length > 0, length, 1)
        y, x = spectra / length[:, None], background / length[:, None, None]
        # |y - x|^2 is the penalty's scale; equal spectra need a little of it, or the system has no single solution.
        distance = np.where(lacks, 0, np.square(x - y[:, None]).sum(2))
        floor = 1e-6 * np.maximum(distance.sum(1, keepdims=True) / count[:, None], 1e-12)
        # An entry of 1 at the end of each spectrum asks for weights that add up to 1.
        x, y = (np.concatenate([part, np.ones((*part.shape[:-1], 1))], axis=-1) for part in (x, y))
        x[lacks] = 0  # what is nothing takes no part in the mixture
        system = x @ x.transpose(0, 2, 1)
        np.einsum("kmm->km", system)[:] += self.regularisation * (distance + floor)
        mixture = np.linalg.solve(system, x @ y[:, :, None])  # [k, m, 1]
        remains = y - (mixture.transpose(0, 2, 1) @ x)[:, 0]
        return np.where(lacks.all(1), np.nan, np.linalg.norm(remains[:, :-1], axis=1))

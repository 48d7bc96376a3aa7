"""Scores of training units by detectors that have not learnt them: every unit can calibrate, and every unit trains.

The units are dealt into parts; for each a detector is trained on all the others and scores it. A detector trained on
all units gives new normals scores like these, a little lower in the mean, since it has learnt more. That new normals
keep a threshold made of these scores is what stable detectors give, not a theorem of every one (Barber et al. 2021);
`thresholds.cross_p_values` has one, and needs the detectors of all parts for every new unit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from . import scoring
from .alignment import Aligned
from .detector import Detector
from .errors import InputError
from .problem import Data
from .refine import Fit, Fitted

# As many trainings as pay: of 5 each learns 80 % of the units.
USUAL = 5


def parts_of(units: int, parts: int, seed: int = 0) -> Tensor:
    """The part [n] of each unit, dealt at random, their sizes equal up to 1.

    Raises:
        InputError: there are not 2 units for every part.
    """
    if parts < 2 or units < 2 * parts:
        raise InputError(f"at least 2 parts of 2 units or more are needed: got {parts} for {units} units")
    order = torch.randperm(units, generator=torch.Generator().manual_seed(seed))
    return torch.empty(units, dtype=torch.long).index_copy_(0, order, torch.arange(units) % parts)


@dataclass(frozen=True, eq=False)
class Crossed:
    """Scores [n] (float64) of each unit by a detector that has not learnt it; the detector of the last part, and the
    units that it has not seen."""

    scores: np.ndarray
    detector: Detector
    unseen: Data


def left_out(fit: Fit, data: Data, base: Tensor, part: Tensor, seed: int, final: Fitted | None = None) -> Crossed:
    """Each unit scored by the detector that was trained without its part [n].

    With `final`, which was trained on all units, scores are put on the scale of its own.
    """
    scores = np.empty(len(data))
    for number in range(int(part.max()) + 1):
        inside, outside = (part != number).nonzero().flatten(), (part == number).nonzero().flatten()
        fitted, unseen = fit(data.take(inside), base[inside], seed + number + 1), data.take(outside)
        factor = 1.0 if final is None else _on_scale(fitted, final)
        scores[outside.numpy()] = factor * scoring.score(fitted.detector, unseen).double().numpy()
    return Crossed(scores, fitted.detector, unseen)


def _on_scale(fitted: Fitted, final: Fitted) -> float:
    """Put the scores of one training on the scale of another; by what they still have to be multiplied.

    Networks of one-class losses choose their own scale. Mode-fair scores count in deviations of the training units'
    cues: of few units with many features these are small, and differ much between trainings, where new units' do not.
    """
    if isinstance(fitted.detector, Aligned) and isinstance(final.detector, Aligned):
        fitted.detector.count_as(final.detector)
        return 1.0
    middles = [float(each.scores.double().median()) for each in (final, fitted)]
    positive = min(float(each.scores.min()) for each in (final, fitted)) >= 0 and min(middles) > 0
    return middles[0] / middles[1] if positive else 1.0

"""A weighted Gaussian of the samples: Mahalanobis distance on rows, RX on spectra (Reed & Yu, IEEE TASSP 1990)."""

from __future__ import annotations

import torch
from torch import Tensor

from ..core.bounds import Share
from ..core.data import Batch, Data
from ..core.detector import Detector
from ..core.modality import SPECTRUM
from ..core.registry import register
from ..errors import InputError
from .components.covariance import distances, weighted_moments, whitening

# Neighbouring bands are nearly collinear and their small differences carry the signal, so spectra are barely shrunk.
_SHRINKAGE, _SHRINKAGE_OF_SPECTRA = 0.05, 1e-6


@register("detector", "gaussian")
class Gaussian(Detector):
    """Squared Mahalanobis distance to the weighted mean; of an image, the largest over its positions.

    The covariance is shrunk towards its own diagonal, (1 - a) S + a diag(S), so that the units of measure of the
    features do not matter and S can be inverted with fewer samples than features.

    Images get a Gaussian at each position with all channels in it: for pixels and maps of few channels. Where a
    backbone's features have many, `padim` needs less memory and fewer images.

    Args:
        shrinkage: a in 0 to 1; None chooses by the sample's shape (rows and images 0.05, spectra 1e-6).
    """

    mean: Tensor
    whitening: Tensor

    def __init__(self, shrinkage: Share | None = None) -> None:
        super().__init__()
        self.shrinkage = shrinkage

    def build(self, sample_shape: tuple[int, ...]) -> None:
        self.register_buffer("mean", torch.zeros(1, dtype=torch.float64))  # [positions, d]
        self.register_buffer("whitening", torch.zeros(1, dtype=torch.float64))  # [positions, d, d]

    def solve(self, data: Data, w: Tensor) -> None:
        """One pass over the data, in double precision."""
        mean, covariance = weighted_moments(data, w, self._vectors, self._step)
        self.mean = mean.to(self.mean.device)
        self.whitening = whitening(self._shrunk(covariance)).to(self.mean.device)

    def score(self, batch: Batch) -> Tensor:
        return self._distances(batch).amax(1).float()

    def score_map(self, batch: Batch) -> Tensor:
        if not self.modality.spatial:
            raise InputError(f"Gaussian has maps for images only: got samples of shape {list(self.sample_shape)}")
        return self._distances(batch).unflatten(1, self.sample_shape[1:]).float()

    def _vectors(self, batch: Batch) -> Tensor:
        return self.modality.by_place(batch.samples.double())

    def _distances(self, batch: Batch) -> Tensor:
        return distances(self._vectors(batch), self.mean, self.whitening)  # [n, p]

    def _shrunk(self, covariance: Tensor) -> Tensor:
        usual = _SHRINKAGE_OF_SPECTRA if self.modality == SPECTRUM else _SHRINKAGE
        shrinkage = usual if self.shrinkage is None else self.shrinkage
        diagonal = covariance.diagonal(dim1=1, dim2=2)
        # A constant feature would have no inverse; against this floor any departure from it still scores high.
        floor = 1e-6 * diagonal.mean(1, keepdim=True).clamp_min(1e-12)
        return (1 - shrinkage) * covariance + torch.diag_embed(shrinkage * diagonal + floor * (diagonal < floor))

    @property
    def _step(self) -> int:
        return 32 if self.modality.spatial else 4_096

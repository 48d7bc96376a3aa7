"""A weighted Gaussian of the samples: Mahalanobis distance on rows, RX on spectra (Reed & Yu, IEEE TASSP 1990)."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from ..core.bounds import Share
from ..core.data import Batch, Data
from ..core.detector import Detector, Reading
from ..core.modality import SPECTRUM, Modality
from ..core.registry import register
from ..errors import InputError
from .components import cubic_cost
from .components.covariance import directions_of_few, distances, distances_of_few, weighted_moments, whitening

# Neighbouring bands are nearly collinear and their small differences carry the signal, so spectra are barely shrunk.
_SHRINKAGE, _SHRINKAGE_OF_SPECTRA = 0.05, 1e-6
# Up to so many features their covariance is inverted in a second or two; with more than the most it takes 2 GB.
_MANY_FEATURES, _MOST_FEATURES = 1_000, 16_000


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

    weights_add_to = (("own", SPECTRUM), ("local", SPECTRUM))
    mean: Tensor
    whitening: Tensor
    scale: Tensor
    directions: Tensor

    def __init__(self, shrinkage: Share | None = None) -> None:
        super().__init__()
        self.shrinkage = shrinkage

    def build(self, sample_shape: tuple[int, ...]) -> None:
        self.register_buffer("mean", torch.zeros(1, dtype=torch.float64))  # [positions, d]
        self.register_buffer("whitening", torch.zeros(1, dtype=torch.float64))  # [positions, d, d]
        # In place of the whitening, where samples are few for their features.
        self.register_buffer("scale", torch.zeros(0, dtype=torch.float64))  # [d]
        self.register_buffer("directions", torch.zeros(0, dtype=torch.float64))  # [d, r]

    def restore(
        self, sample_shape: tuple[int, ...], state: Mapping[str, Tensor], modality: Modality | None = None
    ) -> None:
        # Runs of earlier versions have a whitening, however few their samples were.
        earlier = {} if "scale" in state else {name: torch.zeros(0) for name in ("scale", "directions")}
        super().restore(sample_shape, {**state, **earlier}, modality)

    def solve(self, data: Data, w: Tensor) -> None:
        """One pass over the data, in double precision.

        Raises:
            InputError: the samples have more features than a covariance can be kept of.
        """
        features = self._vectors(data.batch(torch.zeros(1, dtype=torch.long))).shape[2]
        if features > _MANY_FEATURES and len(data) < features and not self.modality.spatial and self._share > 0:
            return self._solve_few(data, w)
        if features > _MOST_FEATURES:
            raise InputError(
                f"a Gaussian of {features:,} features needs {8 * features**2 / 1e9:.0f} GB for its covariance: at most "
                f"{_MOST_FEATURES:,} are possible",
                "choose fewer columns, or another detector such as autoencoder or nearest-neighbours",
            )
        cubic_cost.announce(f"a covariance of {features:,} features", features, self._positions)
        mean, covariance = weighted_moments(data, w, self._vectors, self._step)
        self.mean = mean.to(self.mean.device)
        self.whitening = whitening(self._shrunk(covariance)).to(self.mean.device)
        self.scale = self.directions = torch.zeros_like(self.mean[:0, 0])

    def _solve_few(self, data: Data, w: Tensor) -> None:
        """The same by way of the fewer samples: the cube of the number of features would take minutes, its square
        gigabytes."""
        cubic_cost.announce(f"a covariance of {len(data):,} samples", len(data))
        rows = torch.cat([self._vectors(batch)[:, 0].cpu() for batch in data.batches(self._step)])
        share = (w.double() / w.double().sum()).cpu()
        mean = share @ rows
        rows = (rows - mean) * share.sqrt()[:, None]
        diagonal = rows.square().sum(0)
        added = self._share * diagonal + self._floor(diagonal)
        device = self.mean.device
        self.mean, self.scale = mean[None].to(device), added.sqrt().to(device)
        self.directions = directions_of_few((1 - self._share) ** 0.5 * rows, added).to(device)

    def score(self, batch: Batch) -> Tensor:
        return self.read(batch).score

    def score_map(self, batch: Batch) -> Tensor:
        return self.read(batch, score=False, map=True).map

    def read(self, batch: Batch, score: bool = True, map: bool = False, embedding: bool = False) -> Reading:
        """One distance a position is for score and map."""
        read: dict[str, Tensor] = {}
        if score or map:
            apart = self._distances(self._vectors(batch))  # [n, p]
            if score:
                read["score"] = apart.amax(1).float()
            if map:
                if not self.modality.spatial:
                    raise InputError(f"Gaussian has maps of images only: got {self.modality.plural}")
                read["map"] = apart.unflatten(1, self.sample_shape[1:]).float()
        if embedding:
            read["embedding"] = self.embed(batch)
        return Reading(**read)

    def _distances(self, vectors: Tensor) -> Tensor:
        if len(self.scale):
            return distances_of_few(vectors, self.mean, self.scale, self.directions)
        return distances(vectors, self.mean, self.whitening)

    def _vectors(self, batch: Batch) -> Tensor:
        return self.modality.by_place(batch.samples.double())

    def _shrunk(self, covariance: Tensor) -> Tensor:
        diagonal = covariance.diagonal(dim1=1, dim2=2)
        return (1 - self._share) * covariance + torch.diag_embed(self._share * diagonal + self._floor(diagonal))

    @staticmethod
    def _floor(diagonal: Tensor) -> Tensor:
        """What is added to variances [..., d]: a constant feature would have no inverse, and against this floor any
        departure from it still scores high."""
        floor = 1e-6 * diagonal.mean(-1, keepdim=True).clamp_min(1e-12)
        return floor * (diagonal < floor)

    @property
    def _positions(self) -> int:
        return math.prod(self.sample_shape[1:]) if self.modality.spatial else 1

    @property
    def _share(self) -> float:
        """How much the covariance is shrunk."""
        usual = _SHRINKAGE_OF_SPECTRA if self.modality == SPECTRUM else _SHRINKAGE
        return usual if self.shrinkage is None else self.shrinkage

    @property
    def _step(self) -> int:
        return 32 if self.modality.spatial else 4_096

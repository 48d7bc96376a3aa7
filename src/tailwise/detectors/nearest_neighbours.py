"""Distance to the nearest normal samples in a weighted memory (Ramaswamy et al. 2000; Angiulli & Pizzuti 2002)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ..core import inference
from ..core.bounds import Count
from ..core.data import Batch, Data
from ..core.detector import Detector
from ..core.modality import ROW, SPECTRUM, Modality
from ..core.registry import register
from ..numerics.neighbours import coinciding, nearest
from .components.standardise import Standardise

# A sample surrounded by feather-light ones would look through the whole memory for its neighbours' mass.
_MOST_NEIGHBOURS = 1_000
# Of more memory samples, one hardly moves the scale that all are measured on.
_MOVES_THE_SCALE = 1_000


@register("detector", "nearest-neighbours")
class NearestNeighbours(Detector):
    """Mean distance to the nearest memory samples whose weights add up to `neighbours` average weights.

    Equal samples are stored once with their weights added, so k copies are the same memory as a weight of k. A kind
    that is weighed up is met sooner and scores lower.

    Args:
        neighbours: the mass to look for, in average weights of distinct samples.
    """

    weights_add_to = (("own", ROW), ("own", SPECTRUM), ("local", SPECTRUM))
    left_out_is_new = True
    memory: Tensor
    mass: Tensor

    def __init__(self, neighbours: Count = 5) -> None:
        super().__init__()
        self.neighbours = neighbours

    def build(self, sample_shape: tuple[int, ...]) -> None:
        self.standardise = Standardise(sample_shape, self.modality)
        self.register_buffer("memory", torch.zeros(1, 1))  # [m, d]
        self.register_buffer("mass", torch.ones(1))  # [m], mean 1
        self._reach = 1  # how far the search goes

    def solve(self, data: Data, w: Tensor) -> None:
        self.standardise.learn(data, w)
        device = self.memory.device
        kept = (w > 0).nonzero().flatten().cpu()
        size = inference.batch_size_for(data.sample_shape)
        samples = torch.cat([self.embed(batch.to(device)) for batch in data.take(kept).batches(size)])
        memory, place = torch.unique(samples, dim=0, return_inverse=True)
        mass = torch.zeros(len(memory), dtype=torch.float64, device=device)
        mass.index_add_(0, place, w[kept.to(w.device)].double().to(device))
        self.memory = memory
        self.mass = (mass / mass.mean()).float()
        self._reach = self._sure_to_hold()

    def restore(
        self, sample_shape: tuple[int, ...], state: Mapping[str, Tensor], modality: Modality | None = None
    ) -> None:
        super().restore(sample_shape, state, modality)
        self._reach = self._sure_to_hold()

    def embed(self, batch: Batch) -> Tensor:
        return self.standardise(batch.samples).flatten(1)

    def prototypes(self) -> Tensor:
        """The memory."""
        return self.memory

    def parts(self, samples: Tensor) -> Tensor:
        """Each sample is one part [b, 1, d]."""
        return self.standardise(samples).flatten(1)[:, None]

    def score(self, batch: Batch) -> Tensor:
        return self._mean_distance(*nearest(self.embed(batch), self.memory, self._reach))

    def score_left_out(self, batch: Batch) -> Tensor:
        """Scores of training samples, each without its own place in the memory.

        Of few, each has no say in the scale of features either: in many dimensions samples lie clearly nearer to each
        other than new ones do, where distances are measured by a scale that they made.
        """
        reach = min(self._reach + 1, len(self.memory))
        points = self.embed(batch)
        if len(self.memory) <= _MOVES_THE_SCALE:
            distances, indices = self._nearest_without_a_say(points.view_as(batch.samples), reach)
        else:
            distances, indices = nearest(points, self.memory, reach)
        same = coinciding(distances, points)
        # One place is its own: others that differ by rounding count when new samples are scored, too.
        own = same & (same.cumsum(1) == 1)
        return self._mean_distance(distances, indices, torch.where(own, 0, self.mass[indices]))

    def _nearest_without_a_say(self, samples: Tensor, reach: int) -> tuple[Tensor, Tensor]:
        """As `nearest`, each standardised sample [n, *sample] measuring by the scale that features have without it."""
        points = samples.flatten(1)
        distances, indices = nearest(points, self.memory, 1)
        share = torch.where(coinciding(distances, points), self.mass[indices], 0)[:, 0] / self.mass.sum()
        by = self.standardise.variance_without(samples, share).flatten(1).reciprocal()
        points, memory = points.double(), self.memory.double()
        squares = (by * points.square()).sum(1, keepdim=True) - 2 * (by * points) @ memory.T + by @ memory.square().T
        found = squares.clamp_min(0).sqrt().topk(reach, dim=1, largest=False)
        return found.values.to(self.memory), found.indices

    def _sure_to_hold(self) -> int:
        """How many memory samples are sure to hold the mass: the lightest ones, until they add up."""
        lightest = self.mass.double().sort().values.cumsum(0)
        needed = int((lightest < self.neighbours).sum()) + 1
        return min(needed, len(self.memory), max(_MOST_NEIGHBOURS, self.neighbours))

    def _mean_distance(self, distances: Tensor, indices: Tensor, mass: Tensor | None = None) -> Tensor:
        """Distances [n, k] averaged over the nearest mass; the last sample counts with the part that is still
        needed."""
        mass = self.mass[indices] if mass is None else mass
        before = mass.cumsum(1) - mass
        counted = torch.minimum(mass, (self.neighbours - before).clamp_min(0))
        return (counted * distances.to(counted)).sum(1) / counted.sum(1).clamp_min(1e-12)

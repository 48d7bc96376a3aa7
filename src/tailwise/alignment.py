"""Mode-fair scores: a unit is read against the training units most like it, so that rare kinds are not outvoted.

One threshold for all kinds is fair only if their scores live on one scale, and they do not: a rare kind is rebuilt
worse, and a sparse kind lies farther apart. An alignment wraps a fitted detector and needs no labels of the kinds.
The rule was chosen on development draws of six sources; LOG.md has the figures, of what was left out too.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from . import neighbours, scoring
from .detector import Detector
from .errors import InputError
from .problem import Data
from .registry import Value, parse_one, register
from .weights import Importance

# A random part of a larger training set is searched: kinds that matter have more than one unit in it.
_MOST_UNITS = 20_000
_MOST_AXES = 512
# Share of the mean variance added to each axis before whitening, so that empty axes do not drown the others.
_SHRINKAGE = 0.05
# Consistent for the standard deviation of a Gaussian.
_MAD_TO_STD = 1.4826


@register("alignment", "ModeFair")
@dataclass(frozen=True, repr=False)
class ModeFair(Value):
    """The mean of three standardised cues, each a log quantity of the unit less its mean over training neighbours.

    The detector's score; the distance to the `nearest`-th neighbour among the units (features standardised); and the
    same among whitened units. Each is centred and scaled by median and median absolute deviation over the training
    units, so the result is about 0 for a usual normal of any kind and 3 is far out.

    Args:
        neighbours: how many training units a score is read against.
        nearest: which neighbour's distance is taken, and how many such distances it is read against.
    """

    neighbours: int = 20
    nearest: int = 5

    def __post_init__(self) -> None:
        self.check_numbers()
        if not 1 <= self.nearest <= self.neighbours:
            raise InputError(f"ModeFair needs 1 <= nearest <= neighbours: got {self.nearest} and {self.neighbours}")

    def fit(self, detector: Detector, data: Data, seed: int = 0) -> Aligned:
        """Look at the training units with a detector that is fitted on them.

        Raises:
            InputError: fewer than 3 units.
        """
        if len(data) < 3:
            raise InputError(f"at least 3 training units are needed to compare with: got {len(data)}")
        generator = torch.Generator().manual_seed(seed)
        data = data.take(torch.randperm(len(data), generator=generator)[:_MOST_UNITS].sort().values)
        return Aligned(self, detector, data)


# The alignment that serves pixels and features, autoencoders and Deep SVDD alike.
AUTO = ModeFair()


def parse(text: str) -> ModeFair | None:
    """The alignment that prints as `text`; "" is none and "auto" the library's default."""
    if not text.strip():
        return None
    return AUTO if text.strip() == "auto" else parse_one(text, "alignment")


class Aligned:
    """A detector whose scores are mode-fair."""

    def __init__(self, rule: ModeFair, detector: Detector, data: Data) -> None:
        self.rule, self.detector = rule, detector
        self.spaces = Spaces(_flat(data), standardise=len(data.unit_shape) == 1)
        self.raw_scores = scoring.over_batches(detector, data, getattr(detector, "score_left_out", detector.score))
        self.scores = self._scaled(self.raw_scores)
        self.memories = [Memory(points, rule) for points in self.spaces(_flat(data))]
        near = self.memories[0].own
        self.cues = [_Cue(self.scores - self.scores[near].mean(1)), *(_Cue(memory.local) for memory in self.memories)]

    def score(self, data: Data) -> Tensor:
        """[n], higher is more anomalous."""
        scores = self._scaled(scoring.score(self.detector, data))
        values = []
        for number, (memory, points) in enumerate(zip(self.memories, self.spaces(_flat(data)), strict=True)):
            local, near = memory(points)
            if number == 0:
                values.append(scores - self.scores[near].mean(1))
            values.append(local)
        return torch.stack([cue(value) for cue, value in zip(self.cues, values, strict=True)]).mean(0)

    def _scaled(self, scores: Tensor) -> Tensor:
        """On a logarithmic scale where no training score is negative."""
        return Importance().scale(scores, self.raw_scores)[0]


class Spaces:
    """Where distances are taken: among the units, features standardised, and among whitened units."""

    def __init__(self, units: Tensor, standardise: bool) -> None:
        self.mean = units.mean(0)
        std = units.std(0, correction=0)
        # Features differ in their units of measure; pixels and bands do not.
        useful = (std > 1e-6 * std.max().clamp_min(1e-30)) & standardise
        self.scale = torch.where(useful, std, 1.0)
        standard = (units - self.mean) / self.scale
        values, axes = _principal(standard)
        self.whitening = axes / (values + _SHRINKAGE * values.sum() / standard.shape[1]).clamp_min(1e-12).sqrt()

    def __call__(self, units: Tensor) -> tuple[Tensor, Tensor]:
        """[n, d] -> [n, d] and [n, axes]."""
        standard = (units - self.mean) / self.scale
        return standard, standard @ self.whitening


class Memory:
    """The training units in one space, and how far each lies from its neighbours compared with how far those do."""

    def __init__(self, points: Tensor, rule: ModeFair) -> None:
        self.points = points
        self.many = min(rule.neighbours, len(points) - 1)
        self.few = min(rule.nearest, len(points) - 1)
        distances, near = neighbours.nearest(points, points, self.many + 1)
        # A unit is among its own neighbours, at distance 0; duplicates may come before it and are as good.
        distances, self.own = distances[:, 1:], near[:, 1:]
        reach = distances[:, self.few - 1]
        # A duplicate's distance of zero has no logarithm: a hundredth of the usual one stands in for less than that.
        self.floor = 0.01 * float(reach.median()) or 1e-12
        self.reach = reach.clamp_min(self.floor).log()
        self.local = self.reach - self.reach[self.own[:, : self.few]].mean(1)

    def __call__(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Local log distance [n] and the indices [n, many] of the nearest training units."""
        distances, near = neighbours.nearest(points, self.points, self.many)
        reach = distances[:, self.few - 1].clamp_min(self.floor).log()
        return reach - self.reach[near[:, : self.few]].mean(1), near


class _Cue:
    """Values centred and scaled by those of the training units."""

    def __init__(self, training: Tensor) -> None:
        self.middle = training.median()
        spread = _MAD_TO_STD * (training - self.middle).abs().median()
        self.spread = spread if float(spread) > 0 else training.std(correction=0).clamp_min(1e-12)

    def __call__(self, values: Tensor) -> Tensor:
        return (values - self.middle) / self.spread


def _flat(data: Data) -> Tensor:
    return torch.cat([scoring.shrunk(batch.units).flatten(1) for batch in data.batches(1_024)])


def _principal(standard: Tensor) -> tuple[Tensor, Tensor]:
    """Variances [k], falling, and axes [d, k] of the leading principal components."""
    sample = standard[:: max(1, len(standard) // 5_000)]
    _, singular, axes = torch.linalg.svd(sample, full_matrices=False)
    kept = min(_MOST_AXES if standard.shape[1] > 2 * _MOST_AXES else len(singular), len(singular))
    return singular[:kept].square() / len(sample), axes[:kept].T

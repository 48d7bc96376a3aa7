"""From anomaly scores to weights of a training loss.

Normal data with rare kinds has a right-skewed score distribution: training follows the frequent kinds and the rare
ones keep high scores. Drawn from the density q, a sample with the weight g(s) / q(s) counts as if it had been drawn
from the target g, so the weighted training set has scores distributed as the target (importance sampling; the
importance-weighted loss, Lee et al., IJCNN 2025, arXiv 2601.02440). No labels of the kinds are needed. The paper's
estimator, constants and schedule are not public in a form that we could read: those here are ours, chosen on our own
benchmark.

A weighting is a chain of small steps, each a frozen value from weights to weights, and prints as itself.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from ..core.bounds import Bounds, Chance, Count, Positive, Share
from ..core.registry import Value, kind_of, register
from ..errors import InputError
from ..numerics.neighbours import walk_spread
from .densities import KDE, Fit, Gaussian, crossing
from .weighting import Context, effective_sample_size, unit_mean

# A score of zero has no logarithm; this share of the median score stands in for anything smaller.
_LOG_FLOOR = 1e-3


@register("step", "Importance")
@dataclass(frozen=True, repr=False)
class Importance(Value):
    """Multiply by the relative density ratio g / ((1 - alpha) q + alpha g), never above 1 / alpha (Yamada et al. 2011).

    `density` estimates q and `target` makes g, both from the reference scores. `alpha` 0 is the plain ratio, which
    explodes where q vanishes. `log` reads the scores on a logarithmic scale; None does so whenever none is negative.

    The default target lies to the right of the scores and is wide: one as narrow as they are has no mass where the
    farthest of the rare kinds are, and would damp them most of all.
    """

    density: Fit = KDE()  # noqa: RUF009 (a frozen value)
    target: Fit = Gaussian(shift=2.0, scale=2.0)  # noqa: RUF009
    alpha: Share = 0.1
    log: bool | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("density", "target"):
            fit = getattr(self, name)
            if not callable(fit) or kind_of(fit) == "step":
                raise InputError(f"Importance {name} must be a density: got {fit!r}", "as in KDE() or Gaussian()")

    def __call__(self, w: Tensor, context: Context) -> Tensor:
        scores, reference = self.scale(context.scores, context.reference)
        low, high = reference.aminmax()
        if float(high - low) <= 1e-6 * max(abs(float(low)), abs(float(high)), 1e-30):
            warnings.warn("the scores are constant: every weight is 1", RuntimeWarning, stacklevel=2)
            return w
        surplus = self.density(reference).log_prob(scores) - self.target(reference).log_prob(scores)
        # Its exponential must stay finite: at alpha 1 it is multiplied by 0.
        surplus = surplus.clamp_max(math.log(torch.finfo(surplus.dtype).max) - 1)
        return w / ((1 - self.alpha) * surplus.exp() + self.alpha)

    def scale(self, scores: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
        """Both on the scale, raw or logarithmic, that the densities are fitted on."""
        floor = self.floor(reference)
        if floor is None:
            return scores, reference
        return scores.clamp_min(floor).log(), reference.clamp_min(floor).log()

    def floor(self, reference: Tensor) -> float | None:
        """What lower scores are raised to before logarithms are taken; None where the scale is the raw one."""
        smallest, median = float(reference.min()), float(reference.median())
        possible = smallest >= 0 and median > 0
        if self.log and not possible:
            raise InputError(f"log scores need scores above 0: the smallest is {smallest:.3g}", "use log=False")
        return _LOG_FLOOR * median if possible and self.log is not False else None


@register("step", "Smooth")
@dataclass(frozen=True, repr=False)
class Smooth(Value):
    """Average each weight with those of the sample's nearest others in the embedding.

    A kind of normal is raised as a whole; a lone outlier among light neighbours is not.
    """

    needs_embedding: ClassVar[bool] = True
    neighbours: Count = 20

    def __call__(self, w: Tensor, context: Context) -> Tensor:
        near = context.neighbours(self.neighbours)  # [n, k]
        return (w + w[near].sum(1)) / (near.shape[1] + 1)


@register("step", "Rarity")
@dataclass(frozen=True, repr=False)
class Rarity(Value):
    """Divide by the size of the sample's kind, to the power `power`.

    The size is the share of samples that a random walk between neighbours of the embedding spreads over in 2^doublings
    steps (`walk_spread`). It sees rare kinds that are not hard, which a score does not. A long walk leaves every kind
    that is not cut off from the others. With `common`, kinds of at least this share of the median sample's kind all
    count as common; where everything falls into small pieces, no piece is rare.
    """

    needs_embedding: ClassVar[bool] = True
    power: float = 0.25
    doublings: Annotated[int, Bounds(at_least=0, at_most=20)] = 5
    common: Annotated[float, Bounds(above=0, at_most=1)] | None = None

    def __call__(self, w: Tensor, context: Context) -> Tensor:
        spread = context.of_embedding(("walk", self.doublings), lambda places: walk_spread(places, self.doublings))
        if self.common is not None:
            spread = spread.clamp_max(self.common * spread.median())
        return w / spread.to(w) ** self.power


@register("step", "InverseDensity")
@dataclass(frozen=True, repr=False)
class InverseDensity(Value):
    """Multiply by the mean distance to the nearest others in the embedding, to the power `power`. A yardstick."""

    needs_embedding: ClassVar[bool] = True
    neighbours: Count = 20
    power: float = 1.0

    def __call__(self, w: Tensor, context: Context) -> Tensor:
        near = context.neighbours(self.neighbours)
        assert context.embedding is not None  # or there were no neighbours
        distance = (context.embedding[:, None] - context.embedding[near]).norm(dim=2).mean(1)
        return w * (distance / distance.mean().clamp_min(1e-30)).clamp_min(1e-3).to(w) ** self.power


@register("step", "Accumulate")
@dataclass(frozen=True, repr=False)
class Accumulate(Value):
    """Weights of the rounds before, to the power `memory`, times this round's to the power `rate`.

    The first round counts whole. With a memory below 1 the weights settle near this round's to the power
    rate / (1 - memory); with a memory of 1 they go on growing until they are clipped.
    """

    needs_past: ClassVar[bool] = True
    rate: float = 0.3
    memory: float = 0.9

    def __call__(self, w: Tensor, context: Context) -> Tensor:
        return w if context.previous is None else w**self.rate * context.previous**self.memory


@register("step", "Focal")
@dataclass(frozen=True, repr=False)
class Focal(Value):
    """Multiply by score ** gamma: hard samples count more. Scores must not be negative."""

    gamma: float = 1.0

    def __call__(self, w: Tensor, context: Context) -> Tensor:
        if bool((context.scores < 0).any()):
            raise InputError(f"Focal needs scores of 0 and more: the smallest is {context.scores.min():.3g}")
        return w * (context.scores / context.scores.mean().clamp_min(1e-30)) ** self.gamma


@register("step", "Clip")
@dataclass(frozen=True, repr=False)
class Clip(Value):
    """Keep each weight, measured against their mean before, between `low` and `high`.

    No weight is more than high / low times another. Their mean is 1 again afterwards, so where many were cut the
    largest may lie above `high`.
    """

    low: Share = 0.1
    high: Annotated[float, Bounds(at_least=1)] = 10.0

    def __call__(self, w: Tensor, context: Context) -> Tensor:
        return unit_mean(w).clamp(self.low, min(self.high, torch.finfo(w.dtype).max))


@register("step", "Guard")
@dataclass(frozen=True, repr=False)
class Guard(Value):
    """Make every weight 1 where they are all but equal: where the effective share of samples is at least `share`.

    So little can be gained from such weights that what a network does differently with them is chance.
    """

    share: Share = 0.99

    def __call__(self, w: Tensor, context: Context) -> Tensor:
        return torch.ones_like(w) if effective_sample_size(w) >= self.share * len(w) else w


@register("step", "Trim")
@dataclass(frozen=True, repr=False)
class Trim(Value):
    """Drop the `share` of samples with the highest scores. Cleans contaminated data, and cuts rare normals off."""

    share: Annotated[float, Bounds(at_least=0, below=1)] = 0.05

    def __call__(self, w: Tensor, context: Context) -> Tensor:
        dropped = _share_of(len(context.scores), self.share)
        if not dropped:
            return w
        factor = torch.ones_like(w)
        factor[context.scores.topk(dropped).indices] = 0
        return w * factor


@register("step", "Logistic")
@dataclass(frozen=True, repr=False)
class Logistic(Value):
    """Multiply by a falling logistic curve of the score: the weights of IRAD (Kim et al., TNNLS 2024).

    The curve is 1/2 at the quantile `normals` of the scores (the median as published, which takes half of the data for
    contaminated; the share of normals where it is known or estimated), and spans a width of 1, times 1 / `tau`, on the
    shorter side of the scores. Made for `cleaning.Iterate`. Rare kinds of normal are weighed down with the anomalies.
    """

    normals: Chance = 0.5
    tau: Positive = 1.0

    def __call__(self, w: Tensor, context: Context) -> Tensor:
        low, high = context.reference.aminmax()
        middle = context.reference.double().quantile(self.normals).to(low)
        shorter = torch.minimum(middle - low, high - middle)
        if float(shorter) <= 0:
            return w
        return w * torch.sigmoid((middle - context.scores) / (self.tau * shorter))


@register("step", "AlphaDivergence")
@dataclass(frozen=True, repr=False)
class AlphaDivergence(Value):
    """Multiply by ((1 - alpha) s + spread)^(1 / (alpha - 1)) of the score s over its mean; exp(-s / spread) at alpha 1.

    The weights, within an alpha-divergence of uniform ones, that make the weighted mean of losses smallest: those of
    Adaptive Deviation Learning (Das et al., WACV 2025), whose constants these are. High scores count little. Scores
    are divided by their mean so that their sample does not matter; the published form takes them as they are.
    """

    alpha: Share = 0.1
    spread: Positive = 0.1

    def __call__(self, w: Tensor, context: Context) -> Tensor:
        if bool((context.scores < 0).any()):
            raise InputError(f"AlphaDivergence needs scores of 0 and more: the smallest is {context.scores.min():.3g}")
        relative = context.scores / context.reference.mean().clamp_min(1e-30)
        if self.alpha == 1:
            return w * (-relative / self.spread).exp()
        return w * ((1 - self.alpha) * relative + self.spread) ** (1 / (self.alpha - 1))


@register("step", "LatentOutliers")
@dataclass(frozen=True, repr=False)
class LatentOutliers(Value):
    """Push the `share` of samples with the highest scores away instead of learning them: LOE (Qiu et al., ICML 2022).

    LOE trains them on a loss for anomalies, here m^2 / l with m the median score, as it does for one-class networks;
    the gradient of that is that of l times -(m / l)^2, so it is a weight. `soft` gives half of each loss, which the
    paper prefers where the two sorts overlap; without it weights are negative, and only detectors that learn by
    gradient steps can take them. Ranks are over all samples, not over a batch.
    """

    share: Annotated[float, Bounds(at_least=0, below=0.5)] = 0.1
    soft: bool = True

    def __call__(self, w: Tensor, context: Context) -> Tensor:
        if bool((context.scores < 0).any()):
            raise InputError(f"LatentOutliers needs scores of 0 and more: the smallest is {context.scores.min():.3g}")
        count = _share_of(len(context.scores), self.share)
        if not count:
            return w
        worst = context.scores.topk(count).indices
        away = (context.reference.median() / context.scores[worst].clamp_min(1e-30)).square()
        factor = torch.ones_like(w)
        factor[worst] = (0.5 * (1 - away) if self.soft else -away).to(w)
        return w * factor


@register("step", "Reject")
@dataclass(frozen=True, repr=False)
class Reject(Value):
    """Drop samples whose score is out of line, however many: no share to guess (after AAR, Lee et al., 2511.21378).

    Out is a modified z-score, 0.6745 (s - median) / MAD, above `limit` (Iglewicz & Hoaglin 1993), and whatever two
    Gaussians fitted to the scores give to the upper one, where they are far enough apart to be two. The paper's own
    constants are unknown to us.
    """

    limit: Positive = 3.5

    def __call__(self, w: Tensor, context: Context) -> Tensor:
        return w * (context.scores <= rejection_threshold(context.reference, self.limit)).to(w)


def _share_of(count: int, share: float) -> int:
    """How many of so many samples are this share; .29 of 100 are 29, whatever rounding makes of the product."""
    return math.floor(share * count + 1e-9)


def rejection_threshold(scores: Tensor, limit: float = 3.5) -> float:
    """The score [of n] above which a sample is out of line, as `Reject` says; infinity where none is."""
    deviation = usual_deviation(scores)
    if float(deviation) <= 0:
        return math.inf
    threshold = float(scores.median() + limit * deviation / 0.6745)
    # The mixture sees what the outermost samples hide when they are left in.
    return min(threshold, crossing(scores[scores <= threshold]))


def usual_deviation(scores: Tensor) -> Tensor:
    """The median absolute deviation [] from the median of scores [n]; where half of the scores are equal, .845 of the
    mean one, which is as much for a Gaussian (after Iglewicz & Hoaglin 1993). 0 where all are equal."""
    apart = (scores - scores.median()).abs()
    median = apart.median()
    return median if float(median) > 0 else 0.845 * apart.mean()

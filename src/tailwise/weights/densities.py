"""One-dimensional densities of anomaly scores.

An estimate of the scores' own density and the target that they should follow are the same kind of thing: a `Fit`,
which looks at reference scores and returns a `Density`. Each class below is a Fit: a frozen value, callable on
reference scores [m].
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Protocol

import torch
from torch import Tensor

from ..core.bounds import Bounds, Positive
from ..core.registry import Value, register
from ..errors import InputError


class Density(Protocol):
    """What a Fit returns."""

    def log_prob(self, scores: Tensor) -> Tensor:
        """Natural log of the density at `scores` [n] -> [n]."""
        ...


Fit = Callable[[Tensor], Density]
_LOG_SQRT_2PI = 0.5 * math.log(2 * math.pi)
# A grid step of a quarter bandwidth keeps linear binning's error below 1 % of the peak (Hall & Wand 1996).
_STEPS_PER_BANDWIDTH = 4
_MOST_BINS = 65_536
_QUARTILE_SAMPLE = 16_384
# Scores this many robust standard deviations from the median are no part of a mixture's bulk.
_FAR = 30.0


@dataclass(frozen=True)
class Normal:
    """The Gaussian density with this mean and standard deviation."""

    mean: Tensor
    std: Tensor

    def log_prob(self, scores: Tensor) -> Tensor:
        return -0.5 * ((scores - self.mean) / self.std).square() - self.std.log() - _LOG_SQRT_2PI


@register("density", "Gaussian")
@dataclass(frozen=True, repr=False)
class Gaussian(Value):
    """Gaussian by the reference's moments: mean + `shift` std, width `scale` std.

    As a target its place decides between help and harm: at shift 0 it damps the tail of a skewed distribution, that
    is, it rejects rare normals; from shift 1 on it raises them.
    """

    shift: float = 0.0
    scale: Positive = 1.0

    def __call__(self, reference: Tensor) -> Normal:
        std, mean = torch.std_mean(reference)
        return Normal(mean + self.shift * std, _positive(self.scale * std))


@dataclass(frozen=True)
class LogNormalDensity:
    """Density of exp(z) with z Gaussian; 0 at and below zero."""

    of_log: Normal

    def log_prob(self, scores: Tensor) -> Tensor:
        logs = scores.clamp_min(torch.finfo(scores.dtype).tiny).log()
        return torch.where(scores > 0, self.of_log.log_prob(logs) - logs, -torch.inf)


@register("density", "LogNormal")
@dataclass(frozen=True, repr=False)
class LogNormal(Value):
    """Log-normal by the moments of the log scores, shifted and scaled in units of their std. Scores must be above 0."""

    shift: float = 0.0
    scale: Positive = 1.0

    def __call__(self, reference: Tensor) -> LogNormalDensity:
        if not bool((reference > 0).all()):
            raise InputError(
                f"LogNormal needs scores above 0: got {reference.min():.3g}",
                "use Gaussian(), which on a logarithmic scale is the same; or Importance(log=False)",
            )
        return LogNormalDensity(Gaussian(self.shift, self.scale)(reference.log()))


@dataclass(frozen=True)
class Grid:
    """A density tabulated on an even grid, read by linear interpolation; `outside` is its value beyond the grid."""

    start: float
    step: float
    values: Tensor  # [bins]
    outside: float

    def log_prob(self, scores: Tensor) -> Tensor:
        place = (scores - self.start) / self.step
        inside = (place >= 0) & (place <= len(self.values) - 1)
        left = place.clamp(0, len(self.values) - 2).int()
        table = torch.stack([self.values[:-1], self.values.diff()], 1)
        base, slope = table[left].unbind(1)
        value = torch.where(inside, base + slope * (place - left), self.outside)
        return value.clamp_min(torch.finfo(scores.dtype).tiny).log()


@register("density", "KDE")
@dataclass(frozen=True, repr=False)
class KDE(Value):
    """Gaussian kernel density by linear binning, O(n): the scores are counted on a grid and the grid is smoothed.

    `bandwidth` is in units of Silverman's rule, 0.9 min(std, IQR / 1.34) n^(-1/5) (Silverman 1986, eq. 3.31).
    Scores farther out than the grid reaches are given the density of one lone kernel.
    """

    bandwidth: Annotated[float, Bounds(at_least=0.001, at_most=1_000)] = 1.0

    def __call__(self, reference: Tensor) -> Grid:
        width = self.bandwidth * silverman(reference)
        step = width / _STEPS_PER_BANDWIDTH
        middle = float(_part(reference).median())
        half_width = step * _MOST_BINS / 2
        low, high = (float(x) for x in reference.aminmax())
        # Four bandwidths of margin, so that the smoothed counts fall to nothing inside the grid.
        start = max(low, middle - half_width) - 4 * width
        bins = min(int((min(high, middle + half_width) + 4 * width - start) / step) + 2, _MOST_BINS + 64)
        counts = _linear_counts(reference, start, step, bins)
        kernel = _kernel(counts)
        smooth = torch.nn.functional.conv1d(counts[None, None], kernel[None, None], padding="same")[0, 0]
        lone = 1 / (len(reference) * width * math.sqrt(2 * math.pi))
        return Grid(start, step, smooth / (len(reference) * step), lone)


@register("density", "Histogram")
@dataclass(frozen=True, repr=False)
class Histogram(Value):
    """Equal-width histogram between the smallest and the largest reference score, joined at the bin centres."""

    bins: Annotated[int, Bounds(at_least=2, at_most=1_000_000)] = 100

    def __call__(self, reference: Tensor) -> Grid:
        low, high = (float(x) for x in reference.aminmax())
        step = max((high - low) / self.bins, _tiny_width(max(abs(low), abs(high)), reference.dtype))
        counts = torch.histc(reference, self.bins, low, low + step * self.bins)
        # One bin of margin on each side carries the edge value out to the edges themselves.
        padded = torch.cat([counts[:1], counts, counts[-1:]])
        return Grid(low - step / 2, step, padded / (len(reference) * step), 1 / (len(reference) * step))


@dataclass(frozen=True)
class MixtureDensity:
    """Sum of Gaussians with these shares [k], means [k] and standard deviations [k]."""

    share: Tensor
    normal: Normal

    def log_prob(self, scores: Tensor) -> Tensor:
        return (self.normal.log_prob(scores[:, None]) + self.share.log()).logsumexp(1)


@register("density", "Mixture")
@dataclass(frozen=True, repr=False)
class Mixture(Value):
    """Gaussian mixture by expectation-maximisation, started at evenly spaced quantiles."""

    components: Annotated[int, Bounds(at_least=1, at_most=1_000)] = 2
    iterations: Annotated[int, Bounds(at_least=0, at_most=10_000)] = 50

    def __call__(self, reference: Tensor) -> MixtureDensity:
        part = _part(reference)
        centre = part.median()
        # Measured in robust samples, so that neither the size of the scores nor a far one sets the widths.
        spread = _positive(_spread(part))
        part = (part - centre) / spread
        part = part[part.abs() <= _FAR]  # likelihood would spend a component on a lone far score
        share, means, stds = self._maximised(part)
        return MixtureDensity(share, Normal(means * spread + centre, stds * spread))

    def _maximised(self, part: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Shares, means and standard deviations, [k] each."""
        levels = (torch.arange(self.components, device=part.device, dtype=part.dtype) + 0.5) / self.components
        means = part.quantile(levels)
        stds = torch.full_like(means, 1 / self.components)
        share = torch.full_like(means, 1 / self.components)
        for _ in range(self.iterations):
            joint = Normal(means, stds).log_prob(part[:, None]) + share.log()  # [m, k]
            belongs = joint.softmax(1)
            mass = belongs.sum(0).clamp_min(torch.finfo(part.dtype).tiny)
            share = mass / mass.sum()
            means = (belongs * part[:, None]).sum(0) / mass
            # A floor on the width keeps a component from closing on a single score.
            stds = ((belongs * (part[:, None] - means).square()).sum(0) / mass).sqrt().clamp_min(0.01)
        return share, means, stds


def crossing(scores: Tensor) -> float:
    """From which score on the upper of two Gaussians fitted to scores [n] is the likelier; infinity for one lump.

    Two are told apart where their means differ by more than twice the root mean square of their standard deviations.
    """
    fitted = Mixture()(scores)
    low, high = fitted.normal.mean.argsort().tolist()
    mean, std = fitted.normal.mean, fitted.normal.std
    if float(mean[high] - mean[low]) <= 2 * float(std.square().mean().sqrt()):
        return math.inf
    grid = torch.linspace(float(mean[low]), float(mean[high]), 1_001, dtype=mean.dtype, device=mean.device)
    joint = fitted.normal.log_prob(grid[:, None]) + fitted.share.log()
    likelier = (joint[:, high] > joint[:, low]).nonzero()
    return float(grid[likelier[0, 0]]) if len(likelier) else math.inf


def silverman(reference: Tensor) -> float:
    """Silverman's rule-of-thumb bandwidth for these scores [m]."""
    part = _part(reference)
    std = float(reference.std())
    spread = min(std, float(_spread(part)) or std)
    # The floor follows the bulk: one far score must not widen it.
    return max(0.9 * spread * len(reference) ** -0.2, _tiny_width(float(part.abs().median()), reference.dtype))


def _spread(part: Tensor) -> Tensor:
    """Standard deviation by the quartiles, or by the moments where those coincide; a scalar."""
    quartiles = part.quantile(torch.tensor([0.25, 0.75], dtype=part.dtype, device=part.device))
    iqr = quartiles[1] - quartiles[0]
    return torch.where(iqr > 0, iqr / 1.34, part.std())


def _part(reference: Tensor) -> Tensor:
    """Every k-th score, few enough that sorting them costs nothing; quartiles need no more."""
    return reference[:: max(1, len(reference) // _QUARTILE_SAMPLE)]


def _tiny_width(size: float, dtype: torch.dtype) -> float:
    """The smallest width that the floating-point spacing of scores of this size can resolve."""
    return 64 * torch.finfo(dtype).eps * max(size, 1e-30)


def _positive(width: Tensor) -> Tensor:
    return width.clamp_min(torch.finfo(width.dtype).tiny ** 0.5)


def _linear_counts(reference: Tensor, start: float, step: float, bins: int) -> Tensor:
    """Each score shared between its two neighbouring grid points in proportion to closeness -> [bins]."""
    place = (reference - start) / step
    place = place[(place >= 0) & (place < bins - 1)]
    left = place.int()
    part = place - left
    counts = torch.bincount(left, minlength=bins).to(part.dtype)
    right = torch.bincount(left, weights=part, minlength=bins).to(part.dtype)
    return counts - right + right.roll(1)


def _kernel(like: Tensor) -> Tensor:
    half_width = 4 * _STEPS_PER_BANDWIDTH
    offsets = torch.arange(-half_width, half_width + 1, dtype=like.dtype, device=like.device) / _STEPS_PER_BANDWIDTH
    bell = (-0.5 * offsets.square()).exp()
    return bell / bell.sum()

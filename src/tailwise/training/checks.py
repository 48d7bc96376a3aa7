"""Self-checks after every fit: has this detector learnt anything, and may its scores be believed?"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..core import inference
from ..core.data import Batch, Data
from ..core.detector import Contrasting, Detector, SelfChecked, Trainable
from ..numerics import metrics
from ..weights.densities import Density
from ..weights.steps import Importance
from ..weights.weighting import Weighting, effective_sample_size

_SAMPLE = 1_024
# Where a score costs many times as much as a loss, fewer will do.
_COSTLY_SAMPLE = 128
# A detector that has learnt stays far from each limit; one that has not exceeds it.
_LEAST_FALL = 0.02
_MOST_RISE = 1.5
_WINDOW = 0.05
_LEAST_AGREEMENT = 0.5
_LEAST_CONTRAST = 0.6
_LEAST_SPREAD = 1e-4
_LEAST_EFFECTIVE_SHARE = 0.05
# Fewer scores have no shape that weights could be seen to change.
_FEWEST_OF_A_DISTRIBUTION = 100
_GRID, _ROUNDING = 16_385, 1e-3
# A little is chance, and told without failing the fit.
_CLEARLY_FARTHER = 0.1


@dataclass(frozen=True)
class Check:
    """One question, whether the answer is good, the figure behind it (None where there is none) and a sentence."""

    name: str
    ok: bool
    value: float | None
    message: str

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def run_checks(detector: Detector, data: Data, weighting: Weighting, outcome: Any) -> list[Check]:
    """All checks that apply. `outcome` is a `loop.Outcome`."""
    checks = [_finite(outcome.scores), _distinct(outcome.scores)]
    if isinstance(detector, Trainable):
        most = _COSTLY_SAMPLE if detector.weighed_by_loss else _SAMPLE
        chosen = torch.randperm(len(data), generator=torch.Generator().manual_seed(0))[:most]
        batch = data.batch(chosen).to(inference.device_of(detector))
        # A detector that had learnt before need not get better.
        checks += [] if outcome.continues else [_loss_fell(outcome.history, outcome.unweighted_epochs)]
        if isinstance(detector, SelfChecked):
            # Its score is not of what its steps are about.
            checks += [Check(*found) for found in detector.self_checks(batch)]
        elif isinstance(detector, Contrasting):
            checks += _contrast(detector, batch)
        else:
            checks += [_agreement(*_losses_and_scores(detector, batch))]
        checks += [_collapse(detector, batch)]
    if weighting.steps:
        checks += [_effective(outcome.weights), *_approach(weighting, outcome)]
    return checks


def _finite(scores: Tensor) -> Check:
    bad = int((~torch.isfinite(scores)).sum())
    return Check("scores are finite", bad == 0, bad, f"{bad} of {len(scores)} scores are not finite numbers")


def _distinct(scores: Tensor) -> Check:
    distinct = len(scores.unique())
    needed = min(10, len(scores) // 2)
    return Check("scores are distinct", distinct >= needed, distinct, f"{distinct} distinct scores of {len(scores)}")


def _loss_fell(history: list[dict[str, float]], unweighted: int | None) -> Check:
    """Down from the first epoch to the last, and not far up again before weights, which may raise it, came in.

    Of many epochs means over a twentieth of them are compared: an epoch may be one step, whose loss is much of chance.
    """
    name = "the loss fell"
    if len(history) < 2:
        return Check(name, True, None, "one epoch only: nothing to compare")
    each = np.array([row["score_mean"] for row in history])
    width = math.ceil(_WINDOW * len(each))
    first, last = float(each[0]), float(each[-width:].mean())
    fall = (first - last) / max(abs(first), 1e-30)
    way = "up" if fall < 0 else "down"
    message = f"the mean score went from {first:.4g} to {last:.4g}: {100 * abs(fall):.1f} % {way}"
    plain = _means(each[:unweighted], width)
    rise = float(plain[-1] / max(plain.min(), 1e-30))
    if rise > _MOST_RISE:
        message += f"; before weighting started it rose to {rise:.1f} times its lowest value"
    return Check(name, fall >= _LEAST_FALL and rise <= _MOST_RISE, fall, message)


def _means(values: np.ndarray, width: int) -> np.ndarray:
    """Means over every so many neighbouring values, or over all."""
    width = min(width, len(values))
    return np.convolve(values, np.full(width, 1 / width), "valid")


@torch.no_grad()
def _losses_and_scores(detector: Any, batch: Batch) -> tuple[Tensor, Tensor]:
    return detector.losses(batch).cpu(), detector.score(batch).cpu()


def _agreement(losses: Tensor, scores: Tensor) -> Check:
    if bool((losses == scores).all()):
        rank = 1.0
    else:
        rank = metrics.rank_correlation(losses.numpy(), scores.numpy()) if losses.std() > 0 else 0.0
    ok = math.isfinite(rank) and rank >= _LEAST_AGREEMENT
    return Check("loss and score agree", ok, rank, f"rank correlation of loss and score: {rank:.2f}")


@torch.no_grad()
def _contrast(detector: Any, batch: Batch) -> list[Check]:
    """Known or made anomalies must score higher than the samples; those of another sort may not.

    Where losses make the weights they must rank as scores do, over both: samples that are much alike differ by chance.
    """
    anomalies = detector.contrast(batch)
    beside = Batch(anomalies, torch.arange(len(anomalies), device=anomalies.device))
    samples, stood_against = detector.score(batch).cpu(), detector.score(beside).cpu()
    labels = np.repeat([False, True], [len(samples), len(stood_against)])
    scores = torch.cat([samples, stood_against])
    above = metrics.auroc(labels, scores.numpy())
    message = f"the AUROC of known or made anomalies against the samples is {above:.2f}"
    checks = [Check("known or made anomalies stand out", above >= _LEAST_CONTRAST, above, message)]
    if detector.weighed_by_loss:
        checks.append(_agreement(torch.cat([detector.losses(each).cpu() for each in (batch, beside)]), scores))
    return checks


@torch.no_grad()
def _collapse(detector: Detector, batch: Batch) -> Check:
    codes = detector.embed(batch).flatten(1)
    size = codes.square().mean(0).sum().sqrt().clamp_min(1e-12)
    spread = float(codes.std(0, correction=0).norm() / size)
    message = f"codes vary by {100 * spread:.3g} % of their size over the samples"
    return Check("the representation did not collapse", spread >= _LEAST_SPREAD, spread, message)


def _effective(weights: Tensor) -> Check:
    share = effective_sample_size(weights) / len(weights)
    message = f"the {len(weights)} weighted samples are worth {share * len(weights):.0f} equally weighted ones"
    return Check("enough samples carry weight", share >= _LEAST_EFFECTIVE_SHARE, share, message)


def _approach(weighting: Weighting, outcome: Any) -> list[Check]:
    """Whether the weights drew the scores towards their target; no check where they moved a little away, which is told
    by `doubt_of_weights`."""
    moved = _moved(weighting, outcome)
    if moved is None:
        return []
    (before, after), text = moved
    farther = after - before
    if _ROUNDING < farther <= _CLEARLY_FARTHER:
        return []
    return [Check("weighted scores approach their target", farther <= _ROUNDING, after, text)]


def doubt_of_weights(weighting: Weighting, outcome: Any) -> str:
    """A sentence where the weights moved the scores away from their target; "" where not, or where few tell nothing."""
    moved = _moved(weighting, outcome)
    return "" if moved is None or moved[0][1] <= moved[0][0] + _ROUNDING else moved[1]


def _moved(weighting: Weighting, outcome: Any) -> tuple[tuple[float, float], str] | None:
    """Kolmogorov distance of the scores, on the scale that the weights are made on, to the weights' target, before and
    after, and in words."""
    step = next((step for step in weighting.steps if isinstance(step, Importance)), None)
    few = len(outcome.scores) < _FEWEST_OF_A_DISTRIBUTION
    no_say = 0 < len(outcome.history) <= (outcome.unweighted_epochs or 0)
    if step is None or few or no_say or not bool(torch.isfinite(outcome.scores).all()):
        return None
    scores = step.scale(outcome.scores, outcome.scores)[0].double()
    weights = outcome.weights.double()
    target = step.target(scores)
    before, after = (_distance(scores, w, target) for w in (torch.ones_like(weights), weights))
    way = {-1: "nearer to", 0: "neither nearer to nor away from", 1: "farther away from"}[int(np.sign(after - before))]
    return (before, after), (
        f"weighting moved the scores {way} their target {step.target!r}: the largest distance of their distribution "
        f"to it is {before:.2f} unweighted and {after:.2f} weighted"
    )


def _distance(scores: Tensor, w: Tensor, target: Density) -> float:
    """The largest distance between the distributions of weighted scores [n] and of a target."""
    around = 12 * float(scores.std())
    grid = torch.linspace(float(scores.min()) - around, float(scores.max()) + around, _GRID, dtype=scores.dtype)
    total = target.log_prob(grid).exp().cumsum(0)
    order = scores.argsort()
    places = (torch.searchsorted(grid, scores[order]) - 1).clamp_min(0)
    expected = total[places] / total[-1].clamp_min(1e-300)
    above = (w / w.sum())[order].cumsum(0)
    below = torch.cat([above.new_zeros(1), above[:-1]])
    return float(torch.maximum((above - expected).abs(), (below - expected).abs()).max())

"""How training scores are distributed, before and after, and the target that weighing draws them towards."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from ...weights.default import parse_weighting
from ...weights.densities import KDE, Fit, Gaussian, silverman
from ...weights.steps import Importance
from ...weights.weighting import effective_sample_size
from ..contents import Drawing, Tables, figures, section
from ..numbers import number
from ..selection import as_tensor, known_values

_GRID = 240
_RESAMPLED = 20_000


@section
def scores(tables: Tables) -> dict[str, Any]:
    """Densities and skewness of the training scores."""
    return {"scores": score_densities(tables.train, str(tables.settings.get("weighting") or ""))}


@figures
def densities(summary: Mapping[str, Any]) -> dict[str, Drawing]:
    """The density of scores before weighing and after training."""
    from .. import plots

    scores = summary["scores"]
    drawn: dict[str, Drawing] = {}
    for name, when in (("before", "before weighing"), ("after", "after training")):
        if curves := scores[name]:
            skewness = number(scores[f"skewness_{name}"])
            cut = threshold_of_own_scores(summary) if name == "after" else None
            draw = functools.partial(plots.score_density, curves, log=scores["log"], threshold=cut)
            drawn[name] = f"Density of training scores {when}, with the target. Skewness {skewness}.", draw
    return drawn


def threshold_of_own_scores(summary: Mapping[str, Any]) -> float | None:
    """The threshold on the scale of the detector's own scores; None where it is of local scores or of each kind."""
    # Local scores, which the threshold is of, are on another scale than the detector's own.
    by_kind = summary["own"]["threshold"] is None
    return None if summary["settings"].get("scores", "own") != "own" or by_kind else summary["threshold"]


def score_densities(train: pd.DataFrame, weighting: str) -> dict[str, Any]:
    """Skewness and densities of the scores before and after, on the scale that the weighting's densities see."""
    step = next((step for step in parse_weighting(weighting).steps if isinstance(step, Importance)), None)
    # Held-out samples are not what the densities were fitted on.
    fitted = train[~train["held_out"].astype(bool)]
    after, weights = as_tensor(fitted["trained_score"]), known_values(fitted["weight"]) if step else None
    before = known_values(fitted["first_score"])
    both = [after] if before is None else [before, after]
    # Both on one scale: the logarithm only if it is possible for both.
    log = step.log if step else None
    log = all(_has_log(scores) for scores in both) and log is not False
    scaled = [Importance(log=log).scale(scores, scores)[0] for scores in both]
    target = step.target if step else Gaussian()
    grid = _grid(scaled)
    return {
        "log": log,
        "target": repr(target),
        "targeted": step is not None,
        "skewness_before": None if before is None else _skewness(scaled[0]),
        "skewness_after": _skewness(scaled[-1]),
        "skewness_weighted": None if weights is None else _skewness(scaled[-1], weights),
        "before": None if before is None or grid is None else _curves(scaled[0], grid, log, target, None),
        "after": None if grid is None else _curves(scaled[-1], grid, log, target, weights),
    }


def _has_log(scores: Tensor) -> bool:
    return float(scores.min()) >= 0 and float(scores.median()) > 0


def _grid(scaled: Sequence[Tensor]) -> Tensor | None:
    """Even grid [m] over the bulk of all scores, or None where scores are too equal to have a density."""
    if any(float(s.max() - s.min()) <= 1e-6 * max(float(s.abs().max()), 1e-30) for s in scaled):
        return None
    low = min(float(s.quantile(0.002)) for s in scaled)
    high = max(float(s.quantile(0.998)) for s in scaled)
    margin = 0.12 * (high - low) or 1e-6 * max(abs(low), 1.0)
    return torch.linspace(low - margin, high + margin, _GRID, dtype=torch.float64)


def _curves(scaled: Tensor, grid: Tensor, log: bool, target: Fit, weights: Tensor | None) -> dict[str, Any]:
    curves = {
        "x": (grid.exp() if log else grid).tolist(),
        "scores": _density(scaled, grid).tolist(),
        "target": target(scaled).log_prob(grid).exp().tolist(),
    }
    if weights is not None:
        repeated = _resampled(scaled, weights)
        # Repeating a score adds no knowledge: the width follows the effective sample size, not the count.
        wider = max(1.0, len(repeated) / effective_sample_size(weights)) ** 0.2
        curves["weighted"] = _density(repeated, grid, wider).tolist()
    return curves


def _density(scores: Tensor, grid: Tensor, wider: float = 1.0) -> Tensor:
    """Kernel density of the scores at the grid, none where no score is near: there KDE would give its floor."""
    reach = 4 * wider * silverman(scores)
    near = (grid >= scores.min() - reach) & (grid <= scores.max() + reach)
    return KDE(wider)(scores).log_prob(grid).exp() * near


def _resampled(scores: Tensor, weights: Tensor) -> Tensor:
    """Scores repeated in proportion to their weights, by systematic sampling: as even as it can be, no chance in it."""
    scores, order = scores.sort()
    cumulative = weights[order].cumsum(0)
    count = min(max(len(scores), 2_000), _RESAMPLED)
    wanted = (torch.arange(count, dtype=torch.float64) + 0.5) / count * cumulative[-1]
    return scores[torch.searchsorted(cumulative, wanted).clamp_max(len(scores) - 1)]


def _skewness(values: Tensor, weights: Tensor | None = None) -> float | None:
    w = torch.ones_like(values) if weights is None else weights
    centred = values - (w * values).sum() / w.sum()
    second = float((w * centred.square()).sum() / w.sum())
    if second <= (1e-7 * float(values.abs().max())) ** 2:
        return None
    return float((w * centred**3).sum() / w.sum()) / second**1.5

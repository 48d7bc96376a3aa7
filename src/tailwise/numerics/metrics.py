"""How well scores tell anomalies from normals: overall, for each kind of normal, and with intervals.

`labels` [n] are True for anomalies; `scores` [n] are higher for more anomalous. Values agree with scikit-learn's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..errors import InputError

Metric = Callable[[np.ndarray, np.ndarray], float]


def auroc(labels: np.ndarray, scores: np.ndarray) -> float:
    """Area under the ROC curve: the chance that an anomaly scores above a normal, ties counted half."""
    labels, scores = _checked(labels, scores)
    rank = _mid_ranks(scores)
    anomalies, n = int(labels.sum()), len(labels)
    return float((rank[labels].sum() - anomalies * (anomalies + 1) / 2) / (anomalies * (n - anomalies)))


def aupr(labels: np.ndarray, scores: np.ndarray) -> float:
    """Area under precision-recall by average precision; ties share one threshold."""
    labels, scores = _checked(labels, scores)
    hits, alarms = _cumulative(labels, scores)
    gained = np.diff(hits, prepend=0)
    return float((gained * hits / (hits + alarms)).sum() / labels.sum())


def rank_correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Spearman's correlation of numbers [n] and [n], NaN where either are all equal; `scipy.stats`, which has it, takes
    most of a second to import."""
    one, other = (_mid_ranks(each) - (len(each) + 1) / 2 for each in (one, other))
    spread = float((one @ one) * (other @ other))
    return float(one @ other) / spread**0.5 if spread > 0 else float("nan")


def fpr_at_tpr(labels: np.ndarray, scores: np.ndarray, tpr: float = 0.95) -> float:
    """Share of normals at or above the highest threshold that catches at least `tpr` of the anomalies."""
    labels, scores = _checked(labels, scores)
    hits, alarms = _cumulative(labels, scores)
    at = int(np.argmax(hits >= tpr * labels.sum() - 1e-9))
    return float(alarms[at] / (len(labels) - labels.sum()))


def per_group(metric: Metric, labels: np.ndarray, scores: np.ndarray, groups: np.ndarray) -> dict[Any, float]:
    """`metric` on each group's normals against all anomalies; `groups` [n] of anomalies are ignored."""
    labels, scores = _checked(labels, scores)
    groups = np.asarray(groups)
    return {
        group: metric(labels[chosen], scores[chosen])
        for group in np.unique(groups[~labels]).tolist()
        if (chosen := labels | (groups == group)).any()
    }


def bootstrap_interval(
    metric: Metric, labels: np.ndarray, scores: np.ndarray, *, level: float = 0.95, draws: int = 1_000, seed: int = 0
) -> tuple[float, float]:
    """Percentile interval of `metric`, normals and anomalies resampled apart so that both stay present."""
    labels, scores = _checked(labels, scores)
    order = np.argsort(-scores, kind="stable")
    place, ordered = np.argsort(order), (labels[order], scores[order])

    def value(chosen: np.ndarray) -> float:
        # In order: a metric sorts what is sorted already in a fraction of the time.
        falling = np.sort(place[chosen])
        return metric(ordered[0][falling], ordered[1][falling])

    return _resampled(value, labels, level, draws, seed)


def bootstrap_difference(
    metric: Metric, labels: np.ndarray, first: np.ndarray, second: np.ndarray,
    *, level: float = 0.95, draws: int = 1_000, seed: int = 0,
) -> tuple[float, float]:  # fmt: skip
    """Percentile interval of metric(second) - metric(first) on the same samples, which are resampled together.

    What is hard or easy for both cancels, so the interval is narrower than those of the two values suggest.
    """
    labels, first = _checked(labels, first)
    _, second = _checked(labels, second)
    return _resampled(
        lambda chosen: metric(labels[chosen], second[chosen]) - metric(labels[chosen], first[chosen]),
        labels, level, draws, seed,
    )  # fmt: skip


def _resampled(
    value: Callable[[np.ndarray], float], labels: np.ndarray, level: float, draws: int, seed: int
) -> tuple[float, float]:
    """Percentile interval of a value of the chosen samples, normals and anomalies drawn apart."""
    generator = np.random.default_rng(seed)
    parts = [np.flatnonzero(labels), np.flatnonzero(~labels)]
    values = [
        value(np.concatenate([part[generator.integers(0, len(part), len(part))] for part in parts]))
        for _ in range(draws)
    ]
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _mid_ranks(values: np.ndarray) -> np.ndarray:
    """Ranks [n] from 1 of numbers [n], the mean of theirs for equal ones."""
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(count) - (count - 1) / 2)[place]


def _cumulative(labels: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Anomalies and normals at or above each distinct score, from the highest down."""
    order = np.argsort(-scores, kind="stable")
    last = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))
    hits = np.cumsum(labels[order])[last]
    return hits, last + 1 - hits


def _checked(labels: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    labels, scores = np.asarray(labels).astype(bool), np.asarray(scores, dtype=float)
    if labels.shape != scores.shape or labels.ndim != 1:
        raise InputError(f"one label a score: got {labels.shape} and {scores.shape}")
    if not np.isfinite(scores).all():
        raise InputError(f"scores must be finite: {int((~np.isfinite(scores)).sum())} of {len(scores)} are not")
    if not labels.any() or labels.all():
        raise InputError(f"both normals and anomalies are needed: got {int(labels.sum())} anomalies of {len(labels)}")
    return labels, scores

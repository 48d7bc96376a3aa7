"""What the report shows of a fit, computed: rejection shares, score densities, weights, kinds of normal, test metrics.

Tables come as the `train` and `test` of `report.summarise`, with finite scores only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ..numerics import metrics, pixel_metrics
from ..numerics.intervals import share_of
from ..runs.table import (
    by_size,
    calibrating,
    cross_fitted,
    deciding_scores,
    found_cluster,
    kind_name,
    over,
    rejected,
    with_finite_scores,
)
from ..weights.default import parse_weighting
from ..weights.densities import KDE, Fit, Gaussian, silverman
from ..weights.steps import Importance
from ..weights.weighting import effective_sample_size

TOP_SAMPLES = 12
KINDS_SHOWN = 20
WEIGHED_SAMPLES = 6
_SMALL_KIND = 0.15
_LISTED = 6
_EXAMPLES = 4
_POINTS = 1_500
_GRID = 240
_RESAMPLED = 20_000
_BOOTSTRAP_WORK = 2_000_000


def score_densities(train: pd.DataFrame, weighting: str) -> dict[str, Any]:
    """Skewness and densities of the scores before and after, on the scale that the weighting's densities see."""
    step = next((step for step in parse_weighting(weighting).steps if isinstance(step, Importance)), None)
    # Held-out samples are not what the densities were fitted on.
    fitted = train[~train["held_out"].astype(bool)]
    after, weights = _tensor(fitted["trained_score"]), _known(fitted["weight"]) if step else None
    before = _known(fitted["first_score"])
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


def decision_histogram(train: pd.DataFrame, test: pd.DataFrame | None, threshold: float) -> dict[str, Any] | None:
    """Shares of the scores that the threshold is held against: test normals and anomalies, or training samples.

    None where all scores are equal. `edges` [m + 1] are logarithmic where no score is zero or below. Where every kind
    has a threshold of its own, scores are taken less it: those `above` 0 are rejected, and `own` says so.
    """
    own_threshold = "threshold" in train or (test is not None and "threshold" in test)
    known = None if test is None else test[test["label"].notna()]
    if known is not None and len(known):
        label = known["label"].astype(bool)
        parts = {"test normals": known[~label], "labelled anomalies": known[label]}
    elif cross_fitted(train):
        parts = {"normals by a detector without them": calibrating(train)}
    else:
        held = train["held_out"].astype(bool)
        parts = {"fitted normals": train[~held], "held-out normals": train[held]}
    parts = {name: part for name, part in parts.items() if len(part)}
    shift = {name: part.get("threshold", threshold) if own_threshold else 0.0 for name, part in parts.items()}
    groups = {name: (deciding_scores(part) - shift[name]).to_numpy(dtype=float) for name, part in parts.items()}
    limit = 0.0 if own_threshold else threshold
    every = np.concatenate(list(groups.values()))
    # A few far away would press all others into one bar: the bars at the ends hold them.
    low, high = float(np.quantile(every, 0.005)), max(float(np.quantile(every, 0.995)), min(limit, float(every.max())))
    low = min(low, limit) if float(every.min()) <= limit else low
    if not low < high:
        return None
    log = low > 0 and high > 4 * low
    edges = (np.geomspace if log else np.linspace)(low, high, 41)
    return {
        "log": log,
        "own": own_threshold,
        "edges": edges.tolist(),
        "groups": [
            {
                "name": name,
                "shares": (np.histogram(np.clip(own, edges[0], edges[-1]), edges)[0] / len(own)).tolist(),
                "above": share_of(own > limit),
            }
            for name, own in groups.items()
        ],
    }


def weight_curve(train: pd.DataFrame) -> dict[str, Any]:
    """Weight against score over the samples that were trained on, and the effective sample size."""
    fitted = train[np.isfinite(train["weight"].to_numpy(dtype=float)) & ~train["held_out"].astype(bool)]
    w = _tensor(fitted["weight"])
    if not len(w) or float(w.sum()) <= 0:
        return {"uniform": True, "samples": len(w), "effective": None, "share": None, "score": [], "weight": []}
    effective = effective_sample_size(w)
    # Even ranks keep both ends, where weights differ most.
    order = np.argsort(fitted["trained_score"].to_numpy(), kind="stable")
    order = order[np.unique(np.linspace(0, len(order) - 1, min(_POINTS, len(order))).round().astype(int))]
    return {
        "uniform": float(w.max() - w.min()) <= 1e-6 * float(w.max()),
        "samples": len(w),
        "effective": effective,
        "share": effective / len(w),
        "smallest": float(w.min()),
        "largest": float(w.max()),
        "score": fitted["trained_score"].to_numpy(dtype=float)[order].tolist(),
        "weight": w.numpy()[order].tolist(),
    }


def weighed(train: pd.DataFrame) -> dict[str, list[dict[str, Any]]]:
    """The samples weighed `up` and `down` most, the farthest from 1 first; empty where all weigh the same."""
    fitted = train[np.isfinite(train["weight"].to_numpy(dtype=float)) & ~train["held_out"].astype(bool)]
    if not len(fitted) or float(fitted["weight"].max() - fitted["weight"].min()) < 1e-6:
        return {"up": [], "down": []}
    columns = ["sample", "score", "weight", "cluster", *(["group"] if "group" in train else [])]
    ordered = fitted[columns].sort_values("weight", ascending=False, kind="stable")
    up, down = ordered[ordered["weight"] > 1], ordered[ordered["weight"] < 1][::-1]
    return {"up": up.head(WEIGHED_SAMPLES).to_dict("records"), "down": down.head(WEIGHED_SAMPLES).to_dict("records")}


def rare_or_hidden(train: pd.DataFrame) -> str:
    """The doubt about small clusters, which may be rare or hidden anomalies; "" if there are none."""
    kind = found_cluster(train)
    small = [name for name in by_size(kind) if (kind == name).sum() < _SMALL_KIND * len(train)]
    if not small:
        return ""
    listed = ", ".join(f"{int(name)} ({int((kind == name).sum())} samples)" for name in small[:_LISTED])
    more = f" and {len(small) - _LISTED} more" if len(small) > _LISTED else ""
    return (
        f"some clusters are small: {listed}{more}. Without labels a rare kind of normal looks the same as hidden "
        "anomalies of one sort. tailwise treats both as normal, so look at these samples"
    )


def typical(samples: pd.DataFrame) -> list[str]:
    """A few samples spread over the kind's range of scores, lowest first."""
    ordered = samples.sort_values("score", kind="stable")["sample"].tolist()
    places = np.linspace(0, len(ordered) - 1, min(_EXAMPLES, len(ordered)) * 2 + 1)[1::2].round().astype(int)
    return [ordered[place] for place in dict.fromkeys(places.tolist())]


def kinds(train: pd.DataFrame, kind: pd.Series, threshold: float, pictured: set[str]) -> list[dict[str, Any]]:
    """Each kind of normal, largest first: size, mean score, shares rejected, and typical samples with a picture."""
    rows: list[dict[str, Any]] = []
    unseen = calibrating(train).index
    for name in by_size(kind):
        part = train[kind == name]
        rows.append(
            {
                "name": kind_name(name),
                "size": len(part),
                "share": len(part) / len(train),
                "mean_score": float(part["score"].mean()),
                "mean_weight": _mean(part.loc[~part["held_out"].astype(bool), "weight"]),
                "rejected": rejected(part, threshold),
                "held_out": rejected(part[part.index.isin(unseen)], threshold),
                "examples": [sample for sample in typical(part) if sample in pictured]
                if len(rows) < KINDS_SHOWN
                else [],
            }
        )
    return rows


def highest(train: pd.DataFrame) -> pd.DataFrame:
    """The samples with the highest scores, by detectors that have not learnt them where there are such, highest
    first."""
    scored = train.assign(score=deciding_scores(train))
    return scored.sort_values("score", ascending=False, kind="stable").head(TOP_SAMPLES)


def highest_rows(train: pd.DataFrame, threshold: float) -> list[dict[str, Any]]:
    """The highest-scored samples as rows of a table, each with the threshold that it is held to."""
    found = highest(train)
    columns = ["sample", "score", "weight", "cluster", "held_out", *(["group"] if "group" in train else [])]
    rows = found[columns].assign(threshold=found.get("threshold", threshold), rejected=over(found, threshold))
    return rows.to_dict("records")


def test_results(test: pd.DataFrame, threshold: float) -> dict[str, Any] | None:
    """What the run says of labelled test samples: shares caught and rejected, per group, and metrics."""
    if not len(test):
        return None
    known = test[test["label"].notna()]
    labels = known["label"].astype(bool).to_numpy()
    scores = known["score"].to_numpy(dtype=float)
    normals = known[~labels]
    groups = by_size(normals["group"]) if "group" in known else []
    found: dict[str, Any] = {
        "samples": len(test),
        "flagged": rejected(test, threshold),
        "normals": len(normals),
        "anomalies": int(labels.sum()),
        "caught": rejected(known[labels], threshold),
        "rejected": rejected(normals, threshold),
        "groups": [
            {"name": str(name), "size": len(part), "rejected": rejected(part, threshold)}
            for name in groups
            for part in [normals[normals["group"] == name]]
        ],
        "metrics": {},
    }
    if labels.any() and not labels.all():
        found["metrics"] = _test_metrics(labels, scores)
    return found


def pixel_results(pixels: pixel_metrics.Pixels, clean: np.ndarray, threshold: float) -> dict[str, Any]:
    """How well maps find the defects: over all thresholds, and at that of the maps.

    `clean` [m] are the largest pixels of the samples without a defect.
    """
    value, at = pixel_metrics.best_f1(pixels)
    return {
        "metrics": {
            "Pixel AUROC": pixel_metrics.pixel_auroc(pixels),
            "Pixel AUPR": pixel_metrics.pixel_aupr(pixels),
            "AUPRO, at most 30 % of normal pixels": pixel_metrics.aupro(pixels, 0.3),
            "AUPRO, at most 5 % of normal pixels": pixel_metrics.aupro(pixels, 0.05),
            "Best pixel F1": value,
        },
        "best_f1_threshold": at,
        "threshold": threshold,
        "regions": share_of(pixel_metrics.regions_found(pixels, threshold)),
        "clean": share_of(clean > threshold),
    }


def _test_metrics(labels: np.ndarray, scores: np.ndarray) -> dict[str, Any]:
    draws = int(np.clip(_BOOTSTRAP_WORK / len(labels), 100, 1_000))
    rows = {}
    for name, metric in (("AUROC", metrics.auroc), ("AUPR", metrics.aupr), ("FPR at 95 % TPR", metrics.fpr_at_tpr)):
        low, high = metrics.bootstrap_interval(metric, labels, scores, draws=draws)
        rows[name] = {"value": metric(labels, scores), "low": low, "high": high}
    return rows


def _mean(column: pd.Series) -> float | None:
    known = column[np.isfinite(column.to_numpy(dtype=float))]
    return float(known.mean()) if len(known) else None


def _known(column: pd.Series) -> Tensor | None:
    """The column's numbers, or None where any is missing."""
    values = _tensor(column)
    return values if bool(values.isfinite().all()) else None


def _tensor(column: pd.Series) -> Tensor:
    return torch.from_numpy(column.to_numpy(dtype=float, na_value=np.nan).copy())


def samples_to_show(train: pd.DataFrame) -> list[str]:
    """Names of the training samples whose picture or text the report shows: the highest-scored, those weighed up and
    down most, and some of each kind."""
    train = with_finite_scores(train)[0]
    shown = highest(train)["sample"].tolist()
    shown += [row["sample"] for rows in weighed(train).values() for row in rows]
    for kind in [found_cluster(train), *([train["group"]] if "group" in train else [])]:
        for name in by_size(kind)[:KINDS_SHOWN]:
            shown += typical(train[kind == name])
    return list(dict.fromkeys(shown))

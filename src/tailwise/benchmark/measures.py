"""What a row says of the scores: overall, for the rarest, the worst and the most frequent kind, and at thresholds.

Every kind of normal counts the same in the overall figures; those `at_training_frequencies` count a kind as often as
it was trained on.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score

from ..calibration.conformal import conformal_threshold
from ..errors import InputError
from ..numerics import metrics
from .draws import Draw

FALSE_ALARMS = 0.05
CAUGHT = 0.8


def measure(draw: Draw, scores: np.ndarray, held_scores: np.ndarray | None) -> dict[str, Any]:
    """The figures of one row, and `groups`: a list with the kinds' own, frequent first.

    Raises:
        InputError: scores are not finite, or the test lacks normals or anomalies.
    """
    labels = draw.labels
    plain = {"auroc": metrics.auroc(labels, scores), "aupr": metrics.aupr(labels, scores)}  # checks its input
    threshold = None if held_scores is None else conformal_threshold(_finite(held_scores), FALSE_ALARMS)
    caught = float(np.quantile(scores[labels], 1 - CAUGHT, method="lower"))
    if threshold is not None:
        plain["detected"] = float((scores[labels] > threshold).mean())
        plain["false_alarms"] = float((scores[~labels] > threshold).mean())
    if not draw.order or draw.test_groups is None:
        return {"metrics": plain, "groups": []}
    groups = [_group(draw, scores, group, threshold, caught) for group in draw.order]
    even = _weights(draw, np.ones(len(groups)))
    trained = _weights(draw, np.array([group["train"] for group in groups], dtype=float))
    figures = plain | {
        "auroc": float(roc_auc_score(labels, scores, sample_weight=even)),
        "aupr": float(average_precision_score(labels, scores, sample_weight=even)),
        "auroc_at_training_frequencies": float(roc_auc_score(labels, scores, sample_weight=trained)),
        "aupr_at_training_frequencies": float(average_precision_score(labels, scores, sample_weight=trained)),
        "auroc_head": groups[0]["auroc"],
        "auroc_rarest": groups[-1]["auroc"],
        "auroc_worst": min(group["auroc"] for group in groups),
        "rejected_head_at_80": groups[0]["rejected_at_80"],
        "rejected_rarest_at_80": groups[-1]["rejected_at_80"],
    }
    if threshold is not None:
        shares = [group["false_alarms"] for group in groups]
        figures |= {"false_alarms": float(np.mean(shares)), "false_alarms_head": shares[0]}
        figures |= {"false_alarms_rarest": shares[-1], "false_alarms_worst": max(shares)}
    return {"metrics": figures, "groups": groups}


def at_threshold(draw: Draw, scores: np.ndarray, threshold: float, prefix: str) -> dict[str, float]:
    """Share of anomalies detected and of normals of each kind rejected at this threshold: mean and worst kind."""
    normal = ~draw.labels
    shares = [float((scores[normal & (draw.test_groups == group)] > threshold).mean()) for group in draw.order]
    return {
        f"{prefix}detected": float((scores[draw.labels] > threshold).mean()),
        f"{prefix}false_alarms": float(np.mean(shares)),
        f"{prefix}false_alarms_worst": max(shares),
    }


def _group(draw: Draw, scores: np.ndarray, group: str, threshold: float | None, caught: float) -> dict[str, Any]:
    assert draw.test_groups is not None
    assert draw.train_groups is not None
    normals = ~draw.labels & (draw.test_groups == group)
    chosen = normals | draw.labels
    figures = {
        "group": group,
        "train": int((draw.train_groups == group).sum()),
        "test": int(normals.sum()),
        "auroc": metrics.auroc(draw.labels[chosen], scores[chosen]),
        "rejected_at_80": float((scores[normals] >= caught).mean()),
    }
    return figures if threshold is None else figures | {"false_alarms": float((scores[normals] > threshold).mean())}


def _weights(draw: Draw, shares: np.ndarray) -> np.ndarray:
    """Weights of the test samples: the normals of each kind share out `shares`, their mean weight is 1."""
    weights = np.ones(len(draw.labels))
    normal = ~draw.labels
    for group, share in zip(draw.order, shares / shares.sum(), strict=True):
        of_group = normal & (draw.test_groups == group)
        weights[of_group] = share * normal.sum() / of_group.sum()
    return weights


def _finite(scores: np.ndarray) -> np.ndarray:
    if not np.isfinite(scores).all():
        raise InputError(f"{int((~np.isfinite(scores)).sum())} scores of held-out normals are not finite")
    return scores

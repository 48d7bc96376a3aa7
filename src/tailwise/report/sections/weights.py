"""What training weighed up and down."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from ...weights.weighting import effective_sample_size
from ..contents import Drawing, Tables, figures, section
from ..numbers import number
from ..selection import as_tensor, weighed
from .scores import threshold_of_own_scores

_POINTS = 1_500


@section
def weights(tables: Tables) -> dict[str, Any]:
    """The weights, and the samples that were weighed most."""
    return {"weights": weight_curve(tables.train), "weighed": weighed(tables.train)}


@figures
def against_scores(summary: Mapping[str, Any]) -> dict[str, Drawing]:
    """Weight against score, where weights differ."""
    from .. import plots

    scores, weights = summary["scores"], summary["weights"]
    if not weights["weight"] or weights["uniform"]:
        return {}
    alternative = f"Weight against score: from {number(weights['smallest'])} to {number(weights['largest'])}."
    log = scores["log"] and min(weights["score"]) > 0
    points, cut = (weights["score"], weights["weight"]), threshold_of_own_scores(summary)
    return {"weights": (alternative, functools.partial(plots.weight_curve, *points, log=log, threshold=cut))}


def weight_curve(train: pd.DataFrame) -> dict[str, Any]:
    """Weight against score over the samples that were trained on, and the effective sample size."""
    fitted = train[np.isfinite(train["weight"].to_numpy(dtype=float)) & ~train["held_out"].astype(bool)]
    w = as_tensor(fitted["weight"])
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

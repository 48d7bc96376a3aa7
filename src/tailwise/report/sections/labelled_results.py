"""What the run says of labelled test data: samples, and pixels where there are masks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from ...numerics import metrics, pixel_metrics
from ...numerics.intervals import share_of
from ...runs.table import by_size, rejected
from ..contents import Tables, section

_BOOTSTRAP_WORK = 2_000_000


@section
def test(tables: Tables) -> dict[str, Any]:
    """Results on the test samples and on their pixels; None where there are none."""
    return {
        "test": None if tables.test is None else test_results(tables.test, tables.threshold, tables.copies),
        "pixels": None if tables.pixels is None else dict(tables.pixels),
    }


def test_results(test: pd.DataFrame, threshold: float, copies: int) -> dict[str, Any] | None:
    """What the run says of labelled test samples: shares caught and rejected, per group, and metrics.

    `copies` is how many equal a training sample: as many as there are where those of `test` do, else besides them.
    """
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
        "copies": copies,
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

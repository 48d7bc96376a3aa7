"""Kinds of normal: how large each is, and how often it is rejected."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from ...runs.table import by_size, calibrating, found_cluster, kind_name, rejected
from ..contents import Tables, section
from ..selection import KINDS_SHOWN, typical


@section
def kinds_of_normal(tables: Tables) -> dict[str, Any]:
    """The clusters that were found, and the groups that are known."""
    train, threshold, pictured = tables.train, tables.threshold, set(tables.thumbnails)
    return {
        "clusters": kinds(train, found_cluster(train), threshold, pictured),
        "groups": kinds(train, train["group"], threshold, pictured) if "group" in train else [],
    }


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


def _mean(column: pd.Series) -> float | None:
    known = column[np.isfinite(column.to_numpy(dtype=float))]
    return float(known.mean()) if len(known) else None

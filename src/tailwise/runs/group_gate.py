"""--max-group-fpr: false alarms of each group, compared with a limit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from ..core import messages
from .table import by_size, found_cluster, kind_name, rejected


def shares(table: pd.DataFrame, threshold: float) -> list[dict[str, Any]]:
    """False alarms of each kind, largest first, among the calibration scores: groups, else clusters.

    `name`, and `count`, `of`, `share`, `low` and `high` as `intervals.share_of`.
    """
    used = table[np.isfinite(table["calibration"].to_numpy(dtype=float))]
    kind = used["group"] if "group" in used else found_cluster(used)
    parts = {kind_name(name): used[kind == name] for name in by_size(kind)}
    return [{"name": name} | rejected(part, threshold) for name, part in parts.items()]


def _shares_of_test(test: pd.DataFrame | None, threshold: float) -> list[dict[str, Any]]:
    """False alarms of each group among labelled test normals; [] if there are none."""
    if test is None or "group" not in test:
        return []
    normals = test[(~test["label"].astype("boolean")).fillna(False).astype(bool)]
    parts = {name: normals[normals["group"] == name] for name in by_size(normals["group"])}
    return [{"name": f"{name} in the test"} | rejected(part, threshold) for name, part in parts.items()]


def broken(rows: list[dict[str, Any]], limit: float) -> list[dict[str, Any]]:
    """The kinds that are falsely rejected more often than the limit.

    Of a kind with fewer samples than 1 / limit a single one would break it, so that only counts which no such share
    explains: the 95 % interval must lie above.
    """
    return [
        row for row in rows
        if row["of"] and row["share"] > limit and (row["of"] * limit >= 1 or row["low"] > limit)
    ]  # fmt: skip


def check_group_fpr(
    table: pd.DataFrame, test: pd.DataFrame | None, threshold: float, limit: float | None
) -> dict[str, Any] | None:
    """What the settings say of `--max-group-fpr`, and the same to the user where it is broken.

    Calibration scores are counted, and test normals with groups, of which chance must not explain it. Where kinds
    have their own thresholds, made of the former, these keep any limit that is not below the share asked for.
    """
    if limit is None:
        return None
    rows = shares(table, threshold)
    tested = _shares_of_test(test, threshold)
    over = broken(rows, limit) + [row for row in tested if row["low"] > limit]
    few = [row["name"] for row in rows if row["of"] * limit < 1]
    for row in over:
        share = f"{100 * row['share']:.1f} % ({row['count']} of {row['of']})"
        messages.error(f"kind {row['name']!r} has {share} false alarms, above --max-group-fpr {100 * limit:g} %")
    if over:
        messages.hint("--per-cluster or --per-group sets a threshold for each kind; the run stays, marked as failed")
    if "held_to" in table and not tested:
        messages.note(
            "thresholds always hold on the samples that set them; test normals with groups would be a better check"
        )
    if few:
        messages.note(f"too few samples to check {', '.join(few[:6])} against --max-group-fpr {100 * limit:g} %")
    return {"limit": limit, "kinds": rows, "test": tested, "broken": [row["name"] for row in over], "too_few": few}

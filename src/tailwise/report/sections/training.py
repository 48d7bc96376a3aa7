"""How training went, epoch by epoch, and the checks of it and of the data."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from ..contents import Drawing, Tables, figures, section
from ..numbers import number


@section
def training(tables: Tables) -> dict[str, Any]:
    """The history of training and the checks."""
    return {
        "history": [dict(row) for row in tables.history],
        "checks": [dict(check) for check in tables.checks],
        "data_checks": [dict(check) for check in tables.data_checks],
    }


@figures
def by_epoch(summary: Mapping[str, Any]) -> dict[str, Drawing]:
    """Curves over the epochs."""
    from .. import plots

    drawn: dict[str, Drawing] = {}
    # Every sample counts once: a weighted loss steps up where weights begin to favour high scores.
    for name, label in (("score_mean", "mean score"), ("effective_sample_share", "effective sample share")):
        rows = [row for row in summary["history"] if row.get(name) is not None and row.get("epoch") is not None]
        if len(rows) > 1:
            values = [row[name] for row in rows]
            alternative = f"{label} by epoch: from {number(values[0])} to {number(values[-1])} in {len(rows)} epochs."
            draw = functools.partial(plots.training_curve, [row["epoch"] for row in rows], values, name=label)
            drawn[name] = alternative.capitalize(), draw
    return drawn

"""The training samples with the highest scores."""

from __future__ import annotations

from typing import Any

import pandas as pd

from ...runs.table import over
from ..contents import Tables, section
from ..selection import highest


@section
def top(tables: Tables) -> dict[str, Any]:
    """Rows of the highest-scored training samples."""
    return {"top": highest_rows(tables.train, tables.threshold)}


def highest_rows(train: pd.DataFrame, threshold: float) -> list[dict[str, Any]]:
    """The highest-scored samples as rows of a table, each with the threshold that it is held to."""
    found = highest(train)
    columns = ["sample", "score", "weight", "cluster", "held_out", *(["group"] if "group" in train else [])]
    rows = found[columns].assign(threshold=found.get("threshold", threshold), rejected=over(found, threshold))
    return rows.to_dict("records")

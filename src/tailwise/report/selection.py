"""Which training samples a report shows: the highest-scored, those weighed most, and typical ones of each kind.

Tables come as the `train` of `contents.Tables`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ..runs.table import (
    by_size,
    deciding_scores,
    found_cluster,
    with_finite_scores,
)

TOP_SAMPLES = 12
KINDS_SHOWN = 20
WEIGHED_SAMPLES = 6
_SMALL_KIND = 0.15
_LISTED = 6
_EXAMPLES = 4


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


def highest(train: pd.DataFrame) -> pd.DataFrame:
    """The samples with the highest scores, by detectors that have not learnt them where there are such, highest
    first."""
    scored = train.assign(score=deciding_scores(train))
    return scored.sort_values("score", ascending=False, kind="stable").head(TOP_SAMPLES)


def known_values(column: pd.Series) -> Tensor | None:
    """The column's numbers, or None where any is missing."""
    values = as_tensor(column)
    return values if bool(values.isfinite().all()) else None


def as_tensor(column: pd.Series) -> Tensor:
    """The column's numbers, NaN where missing."""
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

"""What a review says of samples: its words, the sheet and the scores that a triage leaves, and what it came to."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from ..calibration import score_maps
from ..core.detector import Detector
from ..core.problem import Problem, Source

# What a person writes into the column `verdict`, and the library's own guesses there, which decide nothing.
ANOMALY, NORMAL = "anomaly", "normal"
PROBABLY_ANOMALY, PROBABLY_RARE, PROBABLY_NORMAL = (
    "probably an anomaly",
    "probably a rare kind of normal",
    "probably normal",
)
_ODDEST = 5


@dataclass(frozen=True, eq=False)
class Triage:
    """What a triage found.

    `sheet` is for review: a row a sample, in the order in which to look at them. Columns: `sample`, `order` from 1,
    `score` (higher is odder; about 0 is usual), `verdict`, `cluster` (number of the cluster, -1 is none), `alike`
    (samples in that kind), `nearest` (the most similar other sample). Anomalies of an earlier review come last, without
    a score, so that the newest sheet holds all decisions.

    `ranked_by` says what gave the scores; above the score `limit` a sample is suspicious.

    `usual` maps where images are unlike the samples that are probably normal, which it was trained on, and `scale` says
    from where on their pixels stand out; None where the detector has no maps.
    """

    sheet: pd.DataFrame
    problem: Problem
    source: Source
    ranked_by: str
    limit: float
    smoothing: float
    usual: Detector | None = None
    scale: score_maps.Scale | None = None

    @property
    def scores(self) -> pd.DataFrame:
        """A row a sample, in the order of the data: `sample`, `score`, `rank` (1 is the highest score), `verdict` and
        `cluster`, as in the sheet."""
        place = self.problem.train.places
        table = self.sheet.sort_values("sample", key=lambda names: names.map(place), kind="stable", ignore_index=True)
        ranks = table["score"].rank(ascending=False, method="min").astype("Int64")
        return table.assign(rank=ranks)[["sample", "score", "rank", "verdict", "cluster"]]


def outcome(found: Triage, sheet: str, page: str, scores: str, following: str) -> dict[str, Any]:
    """What a triage came to: what was looked at, the oddest samples, the paths of what was written ("" is nothing), and
    what to do next; plain numbers, text and lists."""
    counts = found.sheet["verdict"].value_counts()
    oddest = found.sheet.nlargest(_ODDEST, "score")
    return {
        "looked_at": int(found.sheet["score"].notna().sum()),
        "samples": found.problem.facts.samples,
        "probable_anomalies": int(counts.get(PROBABLY_ANOMALY, 0)),
        "probably_rare": int(counts.get(PROBABLY_RARE, 0)),
        "ranked_by": found.ranked_by,
        "limit": found.limit if math.isfinite(found.limit) else None,
        "oddest": [{"sample": row["sample"], "score": row["score"]} for row in oddest.to_dict("records")],
        "review": sheet,
        "page": page,
        "scores": scores,
        "next": following,
    }


def lines(came: Mapping[str, Any]) -> list[str]:
    """`outcome` in five lines, the paths only where something was written."""
    called = f"{came['probable_anomalies']} probably anomalies, {came['probably_rare']} probably of a rare kind"
    oddest = ", ".join(f"{row['sample']!r} ({row['score']:.3g})" for row in came["oddest"])
    limit = "none stands out" if came["limit"] is None else f"above {came['limit']:.3g} is suspicious"
    written = f"review: {came['review']} and {came['page']}; all scores: {came['scores']}"
    return [
        f"looked at {came['looked_at']} {came['samples']}, which nobody vouches for: {called}",
        f"ranked by: {came['ranked_by']}",
        f"oddest: {oddest}; 0 is usual, {limit}",
        *([written] if came["review"] else []),
        f"next: {came['next']}",
    ]

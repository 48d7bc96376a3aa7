"""What a review says of samples: its words, and the sheet that a triage leaves."""

from __future__ import annotations

from dataclasses import dataclass

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


@dataclass(frozen=True, eq=False)
class Triage:
    """A review sheet: a row a sample, the most suspicious first.

    Columns: `sample`, `rank` from 1, `score` (out of fold; 0 is usual, in median absolute deviations), `verdict`,
    `cluster` (number of the cluster, -1 is none), `alike` (samples in that kind), `nearest` (the most
    similar other sample). Anomalies of an earlier review come last, without a score, so that the newest sheet holds all
    decisions.

    `usual` maps where images are unlike the samples that are probably normal, which it was trained on, and `scale` says
    from where on their pixels stand out; None where the detector has no maps.
    """

    sheet: pd.DataFrame
    problem: Problem
    source: Source
    detector: str
    smoothing: float
    usual: Detector | None = None
    scale: score_maps.Scale | None = None

"""Where the threshold could be: what each promise of false alarms costs and brings, and the scores it is held against.

Shares are those of `intervals.share_of`.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from ...calibration.by_kind import Calibration
from ...numerics.intervals import share_of
from ...runs.table import (
    by_size,
    calibrating,
    cross_fitted,
    deciding_scores,
    far_out,
    found_cluster,
    kind_name,
    of_table,
    rejected,
)
from ..contents import Drawing, Tables, figures, section
from ..numbers import counted, number

# The promises that every report shows, beside the run's own.
SHARES = (0.01, 0.02, 0.05, 0.1)
# The threshold of all, or the kinds' own: see `threshold_rows`.
_OWN = ("threshold", "lowest", "highest")


@section
def thresholds(tables: Tables) -> dict[str, Any]:
    """Rows of thresholds, the run's own, what it comes from, and whom it rejects."""
    train, threshold = tables.train, tables.threshold
    rows = threshold_rows(train, tables.test, threshold, tables.false_alarms)
    return {
        "thresholds": rows,
        "own": next({name: row[name] for name in _OWN} for row in rows if row["chosen"]),
        "basis": basis(train),
        "rejected": rejected(train, threshold),
        "held_out": rejected(calibrating(train), threshold),
        "raised": far_out(train, tables.false_alarms),
        "decision": decision_histogram(train, tables.test, threshold),
    }


@figures
def histogram(summary: Mapping[str, Any]) -> dict[str, Drawing]:
    """The scores that the threshold is held against."""
    from .. import plots

    if not (decision := summary["decision"]):
        return {}
    threshold = summary["threshold"]
    by_kind = summary["own"]["threshold"] is None
    shares = "; ".join(f"{group['name']}: {counted(group['above'])} above it" for group in decision["groups"])
    said = "minus the threshold of each kind" if by_kind else f"with the threshold {number(threshold)}"
    limit = 0.0 if by_kind else threshold
    draw = functools.partial(plots.decision_histogram, decision, threshold=limit, own=by_kind)
    return {"decision": (f"Histogram of scores {said}. {shares}.", draw)}


def basis(train: pd.DataFrame) -> str:
    """What the thresholds come from, in words that follow a number."""
    if cross_fitted(train):
        return "normals, each scored by a detector that was trained without it"
    return "held-out normals" if len(calibrating(train)) else ""


def threshold_rows(
    train: pd.DataFrame, test: pd.DataFrame | None, threshold: float, false_alarms: float
) -> list[dict[str, Any]]:
    """What each promise of false alarms costs and brings, the strictest first; the run's own is `chosen`.

    `threshold` is None where kinds have their own, which then lie between `lowest` and `highest`; the run's own row
    lists them in `kinds`. What is promised is as of `Calibration.together`: `promised` says whether the calibration
    scores are enough for the promise, `smallest` is what they can promise at best, and `expected` is the interval that
    the share of false alarms among new normals like these lies in with a chance of 95 %; None without any of these
    where no sample is scored by a detector that has not learnt it. `held_out` is the share of the calibration samples
    that is rejected, `worst` the kind of normal that is rejected most; `caught` and `normals` are of labelled test
    samples.
    """
    calibration = of_table(train)
    known = None if test is None else test[test["label"].notna()]
    kinds_are_known = known is not None and "held_to" in known
    rows = []
    for share in sorted({*SHARES, false_alarms}):
        chosen = share == false_alarms
        fitted, judged, limit = train, known, threshold
        if not chosen:
            limit = calibration.threshold(share)
            fitted = _held_to(calibration, train, share)
            judged = None if known is None else _held_to(calibration, known, share)
        rows.append(
            {"false_alarms": share, "chosen": chosen, **_limits(fitted, judged, limit)}
            | _promise(calibration.together(share), fitted, limit)
            | {"worst": _most_rejected(fitted, judged, limit), **_on_test(judged, limit)}
        )
        if chosen and "held_to" in train:
            rows[-1]["kinds"] = [
                _of_kind(row, fitted, judged if kinds_are_known else None) for row in calibration.table(share)
            ]
    return rows


def _held_to(calibration: Calibration, samples: pd.DataFrame, share: float) -> pd.DataFrame:
    """The samples with the thresholds for another promise, where they have some of their own."""
    if "threshold" not in samples:
        return samples
    kinds = samples["held_to"].to_numpy().astype(str) if "held_to" in samples else None
    return samples.assign(threshold=calibration.thresholds_of(kinds, share, len(samples)))


def _limits(train: pd.DataFrame, test: pd.DataFrame | None, threshold: float) -> dict[str, Any]:
    """The threshold of all, or between which the kinds' own lie."""
    own = [table["threshold"] for table in (train, test) if table is not None and "threshold" in table]
    if not own:
        return {"threshold": threshold, "lowest": threshold, "highest": threshold}
    every = pd.concat(own)
    return {"threshold": None, "lowest": float(every.min()), "highest": float(every.max())}


def _promise(row: Mapping[str, Any], train: pd.DataFrame, threshold: float) -> dict[str, Any]:
    """What `Calibration` says of a promise, nothing where every sample was learnt, and what is counted."""
    unseen = calibrating(train)
    if not len(unseen):
        return {"promised": False, "smallest": None, "expected": None, "held_out": None}
    return {
        "promised": row["guaranteed"],
        "smallest": row["reachable"],
        "expected": {"low": row["low"], "high": row["high"]},
        "held_out": rejected(unseen, threshold),
    }


def _on_test(test: pd.DataFrame | None, threshold: float) -> dict[str, Any]:
    if test is None:
        return {"normals": None, "caught": None}
    anomalous = test["label"].astype(bool)
    return {"normals": _some(test[~anomalous], threshold), "caught": _some(test[anomalous], threshold)}


def _of_kind(row: Mapping[str, Any], train: pd.DataFrame, test: pd.DataFrame | None) -> dict[str, Any]:
    """The row of one kind's own threshold, which its samples carry."""
    own = train[train["held_to"].astype(str) == row["kind"]]
    tested = None if test is None else test[test["held_to"].astype(str) == row["kind"]]
    found = {"name": row["kind"], "size": row["normals"], "threshold": row["threshold"]}
    return found | _promise(row, own, row["threshold"]) | _on_test(tested, row["threshold"])


def _most_rejected(train: pd.DataFrame, test: pd.DataFrame | None, threshold: float) -> dict[str, Any] | None:
    """The kind of normal that is surely rejected most, on the basis of the sentence; None where there is one kind."""
    if test is not None and "group" in test:
        normals = test[~test["label"].astype(bool)]
        if normals["group"].nunique() > 1:
            return _worst_of(normals, normals["group"], threshold)
    if "group" in train and train["group"].nunique() > 1:
        return _worst_of(train, train["group"], threshold)
    kind = found_cluster(train)
    if kind.nunique() < 2:
        return None
    worst = _worst_of(train, kind, threshold)
    return worst | {"name": f"kind {worst['name']}"}


def _worst_of(samples: pd.DataFrame, kind: pd.Series, threshold: float) -> dict[str, Any]:
    shares = {kind_name(name): rejected(samples[kind == name], threshold) for name in by_size(kind)}
    # By the lower end of the interval: of two samples one may be rejected by chance.
    name = max(shares, key=lambda name: shares[name]["low"])
    return {"name": name} | shares[name]


def _some(samples: pd.DataFrame, threshold: float) -> dict[str, Any] | None:
    return rejected(samples, threshold) if len(samples) else None


def decision_histogram(train: pd.DataFrame, test: pd.DataFrame | None, threshold: float) -> dict[str, Any] | None:
    """Shares of the scores that the threshold is held against: test normals and anomalies, or training samples.

    None where all scores are equal. `edges` [m + 1] are logarithmic where no score is zero or below. Where every kind
    has a threshold of its own, scores are taken less it: those `above` 0 are rejected, and `own` says so.
    """
    own_threshold = "threshold" in train or (test is not None and "threshold" in test)
    known = None if test is None else test[test["label"].notna()]
    if known is not None and len(known):
        label = known["label"].astype(bool)
        parts = {"test normals": known[~label], "labelled anomalies": known[label]}
    elif cross_fitted(train):
        parts = {"normals by a detector without them": calibrating(train)}
    else:
        held = train["held_out"].astype(bool)
        parts = {"fitted normals": train[~held], "held-out normals": train[held]}
    parts = {name: part for name, part in parts.items() if len(part)}
    shift = {name: part.get("threshold", threshold) if own_threshold else 0.0 for name, part in parts.items()}
    groups = {name: (deciding_scores(part) - shift[name]).to_numpy(dtype=float) for name, part in parts.items()}
    limit = 0.0 if own_threshold else threshold
    every = np.concatenate(list(groups.values()))
    # A few far away would press all others into one bar: the bars at the ends hold them.
    low, high = float(np.quantile(every, 0.005)), max(float(np.quantile(every, 0.995)), min(limit, float(every.max())))
    low = min(low, limit) if float(every.min()) <= limit else low
    if not low < high:
        return None
    log = low > 0 and high > 4 * low
    edges = (np.geomspace if log else np.linspace)(low, high, 41)
    return {
        "log": log,
        "own": own_threshold,
        "edges": edges.tolist(),
        "groups": [
            {
                "name": name,
                "shares": (np.histogram(np.clip(own, edges[0], edges[-1]), edges)[0] / len(own)).tolist(),
                "above": share_of(own > limit),
            }
            for name, own in groups.items()
        ],
    }

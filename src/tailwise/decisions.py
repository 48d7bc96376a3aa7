"""The decision that a report is for: where the threshold is, what it finds, and which kind of normal pays for it.

Tables are those of `report.summarise`, with finite scores only; shares are those of `findings.share_of`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import betaincinv

from . import findings, thresholds
from .wording import counted, percent

# The promises that every report shows, beside the run's own.
SHARES = (0.01, 0.02, 0.05, 0.1)


def threshold_rows(
    train: pd.DataFrame, test: pd.DataFrame | None, threshold: float, false_alarms: float
) -> list[dict[str, Any]]:
    """What each promise of false alarms costs and brings, the strictest first; the run's own has its `threshold`.

    `promised` says whether there are enough held-out normals for the promise. `expected` is the interval that the share
    of false alarms among new normals like these lies in with a chance of 95 %. `worst` is the kind of normal that is
    rejected most, and `caught` and `normals` are of labelled test units.
    """
    held = train[train["held_out"].astype(bool)]
    basis = (held if len(held) else train)["score"].to_numpy(dtype=float)
    known = None if test is None else test[test["label"].notna()]
    anomalous = None if known is None else known["label"].astype(bool)
    rows = []
    for share in sorted({*SHARES, false_alarms}):
        at = threshold if share == false_alarms else thresholds.conformal_threshold(basis, share)
        rows.append(
            {
                "false_alarms": share,
                "chosen": share == false_alarms,
                "threshold": at,
                "promised": bool(len(held)) and thresholds.reachable(len(held)) <= share + 1e-12,
                "smallest": thresholds.reachable(len(held)) if len(held) else None,
                "held_out": findings.rejected(held, at) if len(held) else None,
                "expected": expected_false_alarms(basis, at) if len(held) else None,
                "worst": _most_rejected(train, known, at),
                "normals": None if known is None or anomalous is None else _some(known[~anomalous], at),
                "caught": None if known is None or anomalous is None else _some(known[anomalous], at),
            }
        )
    return rows


def expected_false_alarms(held_out: np.ndarray, threshold: float) -> dict[str, float]:
    """The 95 % interval of the share of new normals above a threshold that was chosen on these held-out scores.

    Above the k-th smallest of m exchangeable scores lies a share that is distributed as Beta(m + 1 - k, k), whatever
    the scores' own distribution (Vovk 2012). Between two of them the interval reaches from the lower end at the one to
    the upper end at the other.
    """
    m, above = len(held_out), int((held_out > threshold).sum())
    least = above + 1 if bool((held_out == threshold).any()) else above
    low = float(betaincinv(least, m - least + 1, 0.025)) if least else 0.0
    return {"low": low, "high": float(betaincinv(above + 1, m - above, 0.975)) if above < m else 1.0}


def sentence(summary: Mapping[str, Any]) -> str:
    """The decision in plain words: what was asked for, what is found, what it costs, and who pays for it."""
    units = summary["settings"].get("units") or "units"
    text = f"Set for {percent(summary['false_alarms'])} false alarms, this detector {_found(summary, units)}"
    payer = _who_pays(summary)
    text += f"; {payer}." if payer else "."
    judged = summary["test"]
    if not judged or not judged["anomalies"]:
        text += " No labelled anomalies were given, so what share it finds is not known."
    return text


def _found(summary: Mapping[str, Any], units: str) -> str:
    judged, held_out, promised = summary["test"], summary["held_out"], summary["false_alarms"]
    if judged and judged["anomalies"]:
        text = f"finds {counted(judged['caught'])} of the labelled anomalies"
        if not judged["normals"]:
            return text
        text += f" and rejects {counted(judged['rejected'])} of the good test {units}"
        return text + (", more than asked for" if judged["rejected"]["low"] > promised else "")
    if judged and judged["normals"]:
        text = f"rejects {counted(judged['rejected'])} of the good test {units}"
        return text + (", more than asked for" if judged["rejected"]["low"] > promised else "")
    if held_out["of"]:
        return f"rejects {counted(held_out)} of the held-out normals that its threshold was chosen on"
    return f"rejects {counted(summary['rejected'])} of the {units} it was trained on; none was held out, so expect more"


def _who_pays(summary: Mapping[str, Any]) -> str:
    """The kind of normal that is rejected clearly more often than the others.

    All kinds are compared on one basis: on test normals of known kinds where there are any, otherwise on fitted and
    held-out normals together, known kinds first.
    """
    judged = summary["test"] or {"groups": []}
    if len(judged["groups"]) > 1:
        views, basis = [(judged["groups"], "'")], "the test normals"
    else:
        views, basis = [(summary["groups"], "'"), (summary["modes"], "")], "your normals"
    for rows, quote in views:
        if found := worst_kind(rows):
            row, others = found
            share = percent(row["rejected"]["of"] / (row["rejected"]["of"] + others["of"]))
            share += f" of them{_trained(summary, rows, row)}"
            kind = f"kind {quote}{row['name']}{quote} of {basis}, {share}, is rejected"
            if not others["count"]:
                return f"{kind} in {counted(row['rejected'])}, the others never"
            ratio = row["rejected"]["share"] / others["share"]
            often = f"{ratio:.{1 if ratio < 3 else 0}f} times as often as the others"
            return f"{kind} {often} ({percent(row['rejected']['share'])} against {percent(others['share'])})"
    if any(len(rows) > 1 for rows, _ in views):
        return f"no kind of {basis} is rejected clearly more often than the others"
    return ""


def _trained(summary: Mapping[str, Any], rows: Sequence[Any], row: Mapping[str, Any]) -> str:
    """How much of the training data a kind of the test normals is, which may be why it is rejected."""
    if rows is summary["groups"] or rows is summary["modes"]:
        return ""
    known = next((group for group in summary["groups"] if group["name"] == row["name"]), None)
    share = known["share"] if known else 0.0 if summary["groups"] else None
    return "" if share is None else f" and {percent(share)} of the training data"


def worst_kind(rows: Sequence[Mapping[str, Any]]) -> tuple[Mapping[str, Any], dict[str, Any]] | None:
    """The row most often rejected, and the share of the others, if its 95 % interval lies above that."""
    worse = []
    for row in rows:
        others = [other["rejected"] for other in rows if other is not row]
        rest: dict[str, Any] = {"count": sum(o["count"] for o in others), "of": sum(o["of"] for o in others)}
        rest["share"] = rest["count"] / rest["of"] if rest["of"] else None
        if rest["of"] and row["rejected"]["low"] > rest["share"]:
            worse.append((row, rest))
    return max(worse, key=lambda pair: pair[0]["rejected"]["share"], default=None)


def _most_rejected(train: pd.DataFrame, test: pd.DataFrame | None, threshold: float) -> dict[str, Any] | None:
    """The kind of normal that is surely rejected most, on the basis of the sentence; None where there is one kind."""
    if test is not None and "group" in test:
        normals = test[~test["label"].astype(bool)]
        if normals["group"].nunique() > 1:
            return _worst_of(normals, normals["group"], threshold)
    if "group" in train and train["group"].nunique() > 1:
        return _worst_of(train, train["group"], threshold)
    kind = findings.found_kind(train)
    return _worst_of(train, kind, threshold) if kind.nunique() > 1 else None


def _worst_of(units: pd.DataFrame, kind: pd.Series, threshold: float) -> dict[str, Any]:
    shares = {
        findings.kind_name(name): findings.rejected(units[kind == name], threshold) for name in findings.by_size(kind)
    }
    # By the lower end of the interval: of two units one may be rejected by chance.
    name = max(shares, key=lambda name: shares[name]["low"])
    return {"name": name} | shares[name]


def _some(units: pd.DataFrame, threshold: float) -> dict[str, Any] | None:
    return findings.rejected(units, threshold) if len(units) else None

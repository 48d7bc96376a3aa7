"""The decision that a report is for: where the threshold is, what it finds, and which kind of normal pays for it.

Tables are those of `report.summarise`, with finite scores only; shares are those of `findings.share_of`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import scipy

from ..calibration.by_kind import Calibration
from ..runs.table import by_size, calibrating, cross_fitted, found_cluster, kind_name, of_table, rejected
from .numbers import counted, percent

# The promises that every report shows, beside the run's own.
SHARES = (0.01, 0.02, 0.05, 0.1)
_LISTED = 6
_CHANCE = 0.05


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


def gate(summary: Mapping[str, Any]) -> dict[str, Any] | None:
    """What `--max-group-fpr` asked for and whether it is kept: `ok` and a `text`; None where it was not asked."""
    said = summary["settings"].get("group_fpr")
    if not said:
        return None
    rows, limit = [*said["kinds"], *said.get("test", [])], percent(said["limit"])
    over = [row for row in rows if row["name"] in said["broken"]]
    text = f"No kind of normal has clearly more than {limit} of false alarms (--max-group-fpr)"
    if over:
        listed = ", ".join(f"'{row['name']}' with {counted(row)}" for row in over[:_LISTED])
        more = f" and {len(over) - _LISTED} more" if len(over) > _LISTED else ""
        text = f"More than the {limit} of false alarms allowed (--max-group-fpr): kind {listed}{more}"
    elif told := [row for row in rows if row["of"] and row["name"] not in said["too_few"]]:
        most = max(told, key=lambda row: row["share"])
        text += f". Kind '{most['name']}' has the most, {counted(most)}"
    if few := said["too_few"]:
        listed = ", ".join(few[:_LISTED]) + (f" and {len(few) - _LISTED} more" if len(few) > _LISTED else "")
        text += f". Too few samples to judge kind {listed}"
    return {"ok": not over, "text": text}


def basis(train: pd.DataFrame) -> str:
    """What the thresholds come from, in words that follow a number."""
    if cross_fitted(train):
        return "normals, each scored by a detector that was trained without it"
    return "held-out normals" if len(calibrating(train)) else ""


def sentence(summary: Mapping[str, Any]) -> str:
    """The decision in plain words: what was asked for, what is found, what it costs, and who pays for it."""
    samples = summary["settings"].get("samples") or "samples"
    own = {"per_cluster": " in every cluster", "per_group": " in every group"}
    among = next((said for name, said in own.items() if summary["settings"].get(name)), "")
    text = f"Set for {percent(summary['false_alarms'])} false alarms{among}, this detector {_found(summary, samples)}"
    payer = _who_pays(summary)
    text += f". {payer}." if payer else "."
    judged = summary["test"]
    if not judged or not judged["anomalies"]:
        text += " No labelled anomalies were given, so we cannot say what share it finds."
    return text


def _found(summary: Mapping[str, Any], samples: str) -> str:
    judged, held_out, promised = summary["test"], summary["held_out"], summary["false_alarms"]
    if judged and judged["anomalies"]:
        text = f"finds {counted(judged['caught'])} of the labelled anomalies"
        if not judged["normals"]:
            return text
        text += f" and rejects {counted(judged['rejected'])} of the good test {samples}"
        return text + (", more than asked for" if judged["rejected"]["low"] > promised else "")
    if judged and judged["normals"]:
        text = f"rejects {counted(judged['rejected'])} of the good test {samples}"
        return text + (", more than asked for" if judged["rejected"]["low"] > promised else "")
    if held_out["of"] and summary["basis"].startswith("normals"):
        return f"rejects {counted(held_out)} of its training normals, each scored by a detector trained without it"
    if held_out["of"]:
        return f"rejects {counted(held_out)} of the held-out normals, which also set its threshold"
    return f"rejects {counted(summary['rejected'])} of its training {samples}. No sample was held out, so expect more"


def _who_pays(summary: Mapping[str, Any]) -> str:
    """The kind of normal that is rejected clearly more often than the others.

    All kinds are compared on one basis: on test normals of known kinds where there are any, otherwise on fitted and
    held-out normals together, known kinds first.
    """
    judged = summary["test"] or {"groups": []}
    if len(judged["groups"]) > 1:
        views, basis = [(judged["groups"], "'")], "the test normals"
    else:
        views, basis = [(summary["groups"], "'"), (summary["clusters"], "")], "your normals"
    for rows, quote in views:
        if found := worst_kind(rows):
            row, others = found
            share = percent(row["rejected"]["of"] / (row["rejected"]["of"] + others["of"]))
            size = f"It makes up {share} of {basis}{_trained(summary, rows, row)}"
            kind = f"Kind {quote}{row['name']}{quote} is rejected"
            if not others["count"]:
                return f"{kind} in {counted(row['rejected'])}, the other kinds never. {size}"
            ratio = row["rejected"]["share"] / others["share"]
            often = f"{ratio:.{1 if ratio < 3 else 0}f} times as often as the other kinds"
            return f"{kind} {often}: {percent(row['rejected']['share'])} against {percent(others['share'])}. {size}"
    if any(len(rows) > 1 for rows, _ in views):
        return f"No kind of {basis} is rejected clearly more often than the others"
    return ""


def _trained(summary: Mapping[str, Any], rows: Sequence[Any], row: Mapping[str, Any]) -> str:
    """How much of the training data a kind of the test normals is, which may be why it is rejected."""
    if rows is summary["groups"] or rows is summary["clusters"]:
        return ""
    known = next((group for group in summary["groups"] if group["name"] == row["name"]), None)
    share = known["share"] if known else 0.0 if summary["groups"] else None
    return "" if share is None else f" and {percent(share)} of the training data"


def worst_kind(rows: Sequence[Mapping[str, Any]]) -> tuple[Mapping[str, Any], dict[str, Any]] | None:
    """The row most often rejected clearly more often than the others, and the share of these.

    Clearly is a chance of at most 5 % that any of the rows would stand out so (Fisher's exact test, Bonferroni).
    """
    worse = []
    for row in rows:
        others = [other["rejected"] for other in rows if other is not row]
        rest: dict[str, Any] = {"count": sum(o["count"] for o in others), "of": sum(o["of"] for o in others)}
        rest["share"] = rest["count"] / rest["of"] if rest["of"] else None
        table = [[each["count"], each["of"] - each["count"]] for each in (row["rejected"], rest)]
        if rest["of"] and scipy.stats.fisher_exact(table, alternative="greater").pvalue <= _CHANCE / len(rows):
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

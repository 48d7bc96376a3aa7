"""The decision that a report is for, in plain words: what the threshold finds, and which kind of normal pays for it.

Shares are those of `intervals.share_of`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import listed
from ..numerics import intervals
from .numbers import counted, number, percent

_CHANCE = 0.05


def sentence(summary: Mapping[str, Any]) -> str:
    """The decision in plain words: what was asked for, what is found, what it costs, and who pays for it."""
    samples = summary["settings"].get("samples") or "samples"
    own = {"per_cluster": " in every cluster", "per_group": " in every group"}
    among = next((said for name, said in own.items() if summary["settings"].get(name)), "")
    text = f"Set for {percent(summary['false_alarms'])} false alarms{among}, this detector {_found(summary, samples)}"
    payer = _who_pays(summary)
    text += f". {payer}." if payer else "."
    if summary["raised"]["suspects"]:
        text += f" {_raised(summary['raised'])}"
    judged = summary["test"]
    if not judged or not judged["anomalies"]:
        text += " No labelled anomalies were given, so we cannot say what share it finds."
    return text


def _raised(raised: Mapping[str, Any]) -> str:
    """That the threshold is set by samples far above the others."""
    names, without, threshold = raised["suspects"], number(raised["without"]), number(raised["threshold"])
    who, they = (
        ("samples that set the threshold lie", "they are")
        if len(names) > 1
        else (
            "sample that sets the threshold lies",
            "it is",
        )
    )
    return (
        f"{len(names)} {who} far above the others ({listed(names, 3)}): if {they} anomalous, the threshold should be "
        f"{without} instead of {threshold}."
    )


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

    All kinds are compared on one basis: on test normals with groups if there are any, otherwise on fitted and
    held-out normals together, groups first.
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
        counts = [each[name] for each in (row["rejected"], rest) for name in ("count", "of")]
        if rest["of"] and intervals.chance_of_more(*counts) <= _CHANCE / len(rows):
            worse.append((row, rest))
    return max(worse, key=lambda pair: pair[0]["rejected"]["share"], default=None)

"""Runs side by side: what they were asked, what each decides, and whether the difference is more than chance.

Test scores are compared in pairs, on the samples that both runs were tested on. Nothing here goes back into a fit.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..core.problem import OnDisk
from ..numerics import intervals, metrics
from ..runs.plain_json import plain
from ..runs.scorer import Run
from ..runs.table import by_size, kind_name, over
from . import page as report_page
from . import plots
from .numbers import counted, fraction, percent
from .page import figure, page

# What no two runs need to share, or what is shown elsewhere.
_NOT_SETTINGS = {
    "created",
    "seconds",
    "digests",
    "seal",
    "status",
    "format",
    "checks",
    "threshold",
    "rounds",
    "command",
    "thresholds",
    "group_fpr",
}
_NOT_SETTINGS |= {"thresholds", "group_fpr"}
_NOT_SETTINGS |= {"fingerprint", "test_fingerprint", "notes", "features", "licence", "citation"}
_CAUGHT, _REJECTED = "Anomalies caught at the run's threshold", "Normals rejected at the run's threshold"
_POINTS = 200
_BOOTSTRAP_WORK = 1_000_000


def compare(runs: Sequence[Run]) -> dict[str, Any]:
    """Everything that a comparison shows, as a plain dict of finite numbers, text and None."""
    names = _names([run.path for run in runs])
    reports = [run.report() for run in runs]
    tested = [_flagged(run) for run in runs]
    common, reasons = _common(runs, tested)
    asked = runs[0].settings.false_alarms
    paired = [] if common is None else _paired(names, common, asked)
    found = {
        "names": names,
        "warnings": _warnings(runs, names, reasons),
        "runs": [_decision(name, run, said) for name, run, said in zip(names, runs, reports, strict=True)],
        "samples": next((said["settings"].get("samples") for said in reports), None) or "samples",
        "paired": paired,
        "paired_on": None if common is None else _counts(common),
        "kinds": _kinds(runs, reports, common),
        "trade_offs": [] if common is None else _trade_offs(names, common),
        **_settings(runs),
    }
    return plain({"sentence": _sentence(found)} | found)


def to_html(compared: Mapping[str, Any]) -> str:
    """The comparison as one page that loads nothing and runs no script."""
    figures = {}
    if lines := compared["trade_offs"]:
        said = "; ".join(f"{line['name']}: {percent(line['at'][1])} at {percent(line['at'][0])}" for line in lines)
        alternative = f"Anomalies caught against normals rejected, at the runs' own thresholds: {said}."
        figures["trade_offs"] = figure(lambda axes: plots.trade_offs(lines, axes), "tradeoffs", alternative)
    return page("compare.html", {**compared, "figures": figures})


def to_markdown(compared: Mapping[str, Any]) -> str:
    """The comparison as Markdown."""
    return report_page.text("compare.md", compared)


def _names(paths: Sequence[Path]) -> list[str]:
    """The folders' names, or as much of their paths as tells them apart."""
    parts = [path.resolve().parts for path in paths]
    for length in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-length:]) for part in parts]
        if len(set(names)) == len(names):
            break
    return names


def _decision(name: str, run: Run, said: Mapping[str, Any]) -> dict[str, Any]:
    settings, test = run.settings, said.get("test") or {}
    return {
        "name": name,
        "detector": settings.detector,
        "weighting": settings.weighting or "uniform",
        "scores": settings.scores,
        "false_alarms": settings.false_alarms,
        "threshold": settings.threshold,
        "own": said.get("own"),
        "held_out": said.get("held_out"),
        "caught": test.get("caught"),
        "rejected": test.get("rejected"),
        "metrics": test.get("metrics") or {},
        "effective": (said.get("weights") or {}).get("share"),
        "failed": settings.failed_checks,
        "seconds": settings.seconds,
        "command": settings.command,
    }


def _settings(runs: Sequence[Run]) -> dict[str, Any]:
    """The settings that differ, each with its values, and those that are the same."""
    listed = [run.settings.as_dict() for run in runs]
    every = {name: None for settings in listed for name in settings if name not in _NOT_SETTINGS}
    rows = {name: [_spoken(settings.get(name)) for settings in listed] for name in every}
    return {
        "differs": [{"name": name, "values": values} for name, values in rows.items() if len(set(values)) > 1],
        "same": {name: values[0] for name, values in rows.items() if len(set(values)) == 1 and values[0]},
    }


def _spoken(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {item}" for key, item in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return "" if value is None else str(value)


def _warnings(runs: Sequence[Run], names: Sequence[str], reasons: Sequence[str]) -> list[str]:
    found = []
    if len({run.settings.fingerprint for run in runs}) > 1:
        found.append(
            "the runs did not train on the same values: the data, or the way it was read, may explain a difference "
            "as well as the other settings"
        )
    if len({run.settings.seed for run in runs}) > 1:
        found.append("the runs have different seeds, so held-out samples and the start of the training differ too")
    found += [
        f"{name} failed its self-checks ({', '.join(failed)})"
        for name, run in zip(names, runs, strict=True)
        if (failed := run.settings.failed_checks)
    ]
    return [*found, *reasons]


def _common(runs: Sequence[Run], tested: Sequence[pd.DataFrame | None]) -> tuple[list[pd.DataFrame] | None, list[str]]:
    """The labelled test samples that all runs were tested on, a table a run in one order; or why there are none."""
    if any(table is None for table in tested):
        which = "no run" if all(table is None for table in tested) else "not every run"
        return None, [f"{which} has stored test scores, so test samples cannot be compared in pairs"]
    tables = [_labelled(table) for table in tested if table is not None]
    same_values = len({run.settings.test_fingerprint for run in runs}) == 1
    if not same_values and not _same_place(runs):
        return None, ["the runs were tested on different data, so their test results cannot be compared in pairs"]
    shared = tables[0].index
    for table in tables[1:]:
        shared = shared.intersection(table.index, sort=False)
    tables = [table.loc[shared] for table in tables]
    if any(not table["label"].equals(tables[0]["label"]) for table in tables):
        return None, ["the runs have different test labels, so their test results cannot be compared in pairs"]
    if not len(shared) or tables[0]["label"].nunique() < 2:
        return None, ["the runs do not share test samples of both labels, so nothing can be compared in pairs"]
    most = max(len(table) for table in tested if table is not None)
    reasons = [] if same_values else ["the test samples were read differently; they are paired by their names"]
    if len(shared) < most:
        reasons.append(
            f"the pairs use the {len(shared)} test samples that have labels in all runs, out of up to {most}"
        )
    return tables, reasons


def _flagged(run: Run) -> pd.DataFrame | None:
    """The run's test samples and whether its threshold rejects each."""
    table = run.test_scores()
    return None if table is None else table.assign(flagged=over(table, run.settings.threshold))


def _labelled(table: pd.DataFrame) -> pd.DataFrame:
    known = table[table["label"].notna() & np.isfinite(table["score"].to_numpy(dtype=float))]
    known = known.assign(label=known["label"].astype(bool), sample=known["sample"].astype(str))
    return known.drop_duplicates("sample").set_index("sample")


def _same_place(runs: Sequence[Run]) -> bool:
    """Whether the sources read the same path, so that a sample's name is the same thing in all."""
    sources = [run.source() for run in runs]
    places = {(type(source).__name__, source.path if isinstance(source, OnDisk) else "") for source in sources}
    # Rows are named by their number: in another selection of columns they are the same, in another split too.
    return len(places) == 1


def _counts(common: Sequence[pd.DataFrame]) -> dict[str, int]:
    labels = common[0]["label"]
    return {"samples": len(labels), "anomalies": int(labels.sum()), "normals": int((~labels).sum())}


def _paired(names: Sequence[str], common: Sequence[pd.DataFrame], asked: float) -> list[dict[str, Any]]:
    """Each run's test figures on the common samples, and their differences to the first run's with a 95 % interval.

    Runs whose thresholds reject different shares of the test normals are held against each other where all reject the
    share `asked` of them.
    """
    labels = common[0]["label"].to_numpy(dtype=bool)
    draws = int(np.clip(_BOOTSTRAP_WORK / len(labels), 200, 1_000))
    rows = []
    for title, column, metric in (
        ("AUROC", "score", metrics.auroc),
        ("AUPR", "score", metrics.aupr),
        (f"Caught where {percent(asked)} of these normals are rejected", "score", functools.partial(_caught_at, asked)),
        (_CAUGHT, "flagged", _caught),
        (_REJECTED, "flagged", _rejected),
    ):
        values = [table[column].to_numpy(dtype=float) for table in common]
        row: dict[str, Any] = {
            "name": title,
            "share": metric not in (metrics.auroc, metrics.aupr),
            "values": [metric(labels, value) for value in values],
        }
        row["differences"] = []
        for other, value in zip(names[1:], values[1:], strict=True):
            low, high = metrics.bootstrap_difference(metric, labels, values[0], value, draws=draws)
            change = metric(labels, value) - metric(labels, values[0])
            row["differences"].append({"name": other, "value": change, "low": low, "high": high})
        rows.append(row)
    return rows


def _caught_at(share: float, labels: np.ndarray, scores: np.ndarray) -> float:
    return float((scores[labels] > np.quantile(scores[~labels], 1 - share)).mean())


def _caught(labels: np.ndarray, flagged: np.ndarray) -> float:
    return float(flagged[labels].mean())


def _rejected(labels: np.ndarray, flagged: np.ndarray) -> float:
    return float(flagged[~labels].mean())


def _kinds(
    runs: Sequence[Run], reports: Sequence[Mapping[str, Any]], common: Sequence[pd.DataFrame] | None
) -> list[dict[str, Any]]:
    """False alarms of each kind of normal in every run, on one basis a table."""
    tables = []
    if common is not None and all("group" in table for table in common):
        normals = ~common[0]["label"].to_numpy(dtype=bool)
        group = common[0]["group"].fillna("").astype(str).to_numpy()[normals]
        flagged = [table["flagged"].to_numpy(dtype=bool)[normals] for table in common]
        tables.append(_kinds_of("Groups, test normals", group, flagged))
    scores = [run.scores() for run in runs]
    if all(list(table["sample"]) == list(scores[0]["sample"]) for table in scores):
        flagged = [
            over(table, run.settings.threshold).to_numpy(dtype=bool) for table, run in zip(scores, runs, strict=True)
        ]
        if "group" in scores[0]:
            tables.append(
                _kinds_of("Groups, training normals", scores[0]["group"].fillna("").astype(str).to_numpy(), flagged)
            )
        cluster = scores[0]["cluster"].to_numpy()
        title = "Clusters of the first run, training normals"
        tables.append(_kinds_of(title, cluster[cluster >= 0], [hits[cluster >= 0] for hits in flagged]))
    return [table for table in tables if len(table["rows"]) > 1]


def _kinds_of(title: str, kind: np.ndarray, flagged: Sequence[np.ndarray]) -> dict[str, Any]:
    names = by_size(pd.Series(kind))
    rows = [
        {
            "name": kind_name(name),
            "size": int((kind == name).sum()),
            "shares": [intervals.share_of(hits[kind == name]) for hits in flagged],
        }
        for name in names
    ]
    return {"title": title, "rows": rows}


def _trade_offs(names: Sequence[str], common: Sequence[pd.DataFrame]) -> list[dict[str, Any]]:
    """Shares of normals rejected and anomalies caught at up to 200 thresholds, and at the run's own."""
    labels = common[0]["label"].to_numpy(dtype=bool)
    lines = []
    for name, table in zip(names, common, strict=True):
        scores = table["score"].to_numpy(dtype=float)
        limits = np.unique(np.quantile(scores, np.linspace(0, 1, _POINTS)))
        lines.append(
            {
                "name": name,
                "rejected": [1.0, *[float((scores[~labels] > limit).mean()) for limit in limits]],
                "caught": [1.0, *[float((scores[labels] > limit).mean()) for limit in limits]],
                "at": [
                    _rejected(labels, table["flagged"].to_numpy(float)),
                    _caught(labels, table["flagged"].to_numpy(float)),
                ],
            }
        )
    return lines


def _sentence(found: Mapping[str, Any]) -> str:
    """What a reader should take home: which run finds more, at which cost, and whether it is more than chance."""
    if not found["paired"]:
        decisions = [
            f"{run['name']} rejects {counted(run['held_out'])} of its normals, each scored by a detector that had not "
            "trained on it"
            for run in found["runs"]
            if run["held_out"] and run["held_out"]["of"]
        ]
        return (
            f"The runs share no labelled test samples, so it is open which finds more. {'; '.join(decisions)}".strip()
            + "."
        )
    rows = {row["name"]: row for row in found["paired"]}
    first, on = found["names"][0], found["paired_on"]
    text = f"On the same {on['anomalies']} anomalies and {on['normals']} normals, {first} has an AUROC of "
    text += f"{fraction(rows['AUROC']['values'][0])}, catches {percent(rows[_CAUGHT]['values'][0])} and rejects "
    text += f"{percent(rows[_REJECTED]['values'][0])} of the normals at its threshold."
    for place, name in enumerate(found["names"][1:]):
        caught, rejected = (rows[row]["values"][place + 1] for row in (_CAUGHT, _REJECTED))
        auroc, difference = rows["AUROC"]["values"][place + 1], rows["AUROC"]["differences"][place]
        text += f" {name} has {fraction(auroc)} ({_verdict(difference)}), "
        text += f"catches {percent(caught)} and rejects {percent(rejected)}."
    return text


def _verdict(difference: Mapping[str, float]) -> str:
    if difference["low"] > 0:
        return "better by more than chance"
    return "worse by more than chance" if difference["high"] < 0 else "a difference within chance"

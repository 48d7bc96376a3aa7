"""The sections of the benchmark's page: each makes a Markdown table, and what must be said of it, from rows.

Changes are paired: a method less the plain detector on the same draw, with intervals over draws.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from .comparisons import (
    AUTO,
    ORACLE,
    PLAIN,
    WEIGHTED,
    Choice,
    Row,
    by_cell,
    change,
    in_order,
    is_of,
    long_tailed,
    mean_over_sources,
    name_of,
    recovered,
)
from .suites import YARDSTICKS

# How a page says that it is ours, in its third line.
SIGNED = "Written by `tailwise bench` from"
NEURAL = ("autoencoder", "deep-svdd")
_WORTH = 0.02
_ROW = ("detector", "weighting", "scores")
_GROUP = 3
_LOCAL = {"weighting": "uniform", "scores": "auto"}


def _by_source(rows: list[Row]) -> str:
    """AUPR of every method on every long-tailed source."""
    return _pivoted(long_tailed(rows), "aupr", lambda row: row["source"])


def _rarest(rows: list[Row]) -> str:
    return _pivoted(long_tailed(rows), "auroc_rarest", lambda row: row["source"])


def _without_kinds(rows: list[Row]) -> str:
    return _pivoted([row for row in rows if not row["groups"]], "aupr", lambda row: row["source"])


def _false_alarms(rows: list[Row]) -> str:
    tail = long_tailed(rows)
    figures = ("false_alarms_head", "false_alarms_rarest", "false_alarms_worst", "detected")
    rejected = ("rejected_head_at_80", "rejected_rarest_at_80")
    chosen = [m for m in _methods(tail) if m[1] in ("", "uniform", "auto", "oracle")]
    lines = []
    for method in chosen:
        of_method = [row for row in tail if name_of(row) == method]
        means = [mean_over_sources(of_method, metric) for metric in (*figures, *rejected)]
        lines.append([*_shown(method), *("" if np.isnan(m) else f"{m:.1%}" for m in means)])
    head = ["head", "rarest kind", "worst kind", "detected", "head, 80 % detected", "rarest kind, 80 % detected"]
    return table([*_ROW, *head], lines)


def _conditions(rows: list[Row]) -> str:
    """Change by auto at each imbalance and contamination."""
    rows = [row for row in rows if row["groups"]]
    lines = []
    for imbalance, contamination in sorted({(r["imbalance"], r["contamination"]) for r in rows}, key=str):
        at_condition = [r for r in rows if (r["imbalance"], r["contamination"]) == (imbalance, contamination)]
        for detector in in_order(r["detector"] for r in at_condition if r["detector"] not in YARDSTICKS):
            of_detector = [r for r in at_condition if r["detector"] == detector]
            changes = [change(of_detector, "aupr", method) for method in (WEIGHTED, AUTO, ORACLE)]
            shown = [str(each) if each.count else "" for each in changes]
            lines.append([str(imbalance), f"{contamination:.0%}", detector, *shown])
    return table(["imbalance", "hidden anomalies", "detector", "weighting", "default", "oracle"], lines)


def _cells(rows: list[Row]) -> str:
    """Change in AUPR of each source and detector, and how much of the oracle's gain weighting alone reaches."""
    tail = long_tailed(rows)
    changes = [by_cell(tail, method) for method in (WEIGHTED, AUTO, ORACLE)]
    pairs = in_order(pair for each in changes for pair in each)
    shares = {pair: f"{each.gained / each.possible:.0%}" for pair, each in recovered(rows, AUTO).items()}
    lines = [
        [*pair, *(str(each[pair]) if pair in each else "" for each in changes), shares.get(pair, "")] for pair in pairs
    ]
    text = table(["source", "detector", "weighting", "default", "oracle", "recovered by default"], lines)
    if shares:
        text += "\n\n*Recovered* is of what balanced training data give the plain detector, where that is .02 or more."
    weighted, _, oracle = changes
    gained = [pair for pair, each in oracle.items() if each.mean >= _WORTH and pair in weighted]
    for name, method, each in (("Weighting alone", WEIGHTED, weighted), ("Default", AUTO, changes[1])):
        if each:
            pair, lowest = min(each.items(), key=lambda item: item[1].mean)
            text += f"\n\n{name}, mean over all: {say(tail, 'aupr', method)}; "
            text += f"lowest: {' with '.join(pair)} {lowest}."
    if (beside := change(tail, "aupr", AUTO, _LOCAL)).count:
        text += f"\n\nSuspects left out, mean over all: {beside} AUPR against local scores alone."
    if not gained:
        return text
    ours, theirs = (float(np.mean([each[pair].mean for pair in gained])) for each in (weighted, oracle))
    return (
        f"{text}\n\nWhere the oracle gains {_WORTH} or more ({len(gained)} of {len(oracle)}), it gains {theirs:+.3f} "
        f"and weighting alone {ours:+.3f}: {ours / theirs:.0%} of it."
    )


def _cells_of_rarest(rows: list[Row]) -> str:
    """Change in AUROC of the rarest kind, of each source and detector."""
    tail = long_tailed(rows)
    changes = [by_cell(tail, method, "auroc_rarest") for method in (WEIGHTED, AUTO, ORACLE)]
    pairs = in_order(pair for each in changes for pair in each)
    lines = [[*pair, *(str(each[pair]) if pair in each else "" for each in changes)] for pair in pairs]
    return table(["source", "detector", "weighting", "default", "oracle"], lines)


def _caught(rows: list[Row]) -> str:
    """Good samples rejected at the threshold that catches 80 % of the anomalies, where two kinds are known."""
    rows = [row for row in long_tailed(rows) if len(row["groups"]) == 2]
    lines = []
    for source, detector in in_order((row["source"], row["detector"]) for row in rows):
        of_cell = [row for row in rows if (row["source"], row["detector"]) == (source, detector)]
        cells = []
        for method in (PLAIN, WEIGHTED, _LOCAL, AUTO, ORACLE):
            of_method = [row for row in of_cell if is_of(row, method)]
            head, rare = (mean_over_sources(of_method, f"rejected_{group}_at_80") for group in ("head", "rarest"))
            cells.append("" if np.isnan(rare) else f"{head:.1%} / {rare:.1%}")
        if cells[1]:
            lines.append([source, detector, *cells])
    return table(["source", "detector", "plain", "weighting", "local scores", "default", "oracle"], lines)


def _hidden(rows: list[Row]) -> str:
    """AUPR that hidden anomalies cost uniform training and `auto`, and which of them is ahead then."""
    hidden = sorted({row["contamination"] for row in rows if row["contamination"]})
    lines = []
    for source, detector, share in (
        (s, d, c) for s in in_order(r["source"] for r in rows if r["contamination"]) for d in NEURAL for c in hidden
    ):
        of_cell = [r for r in rows if (r["source"], r["detector"]) == (source, detector)]
        paired = {(r["draw"], r["imbalance"]) for r in of_cell if r["contamination"] == share}
        of_cell = [r for r in of_cell if r["contamination"] in (0, share) and (r["draw"], r["imbalance"]) in paired]
        values = {}
        for name, method in (("uniform", PLAIN), ("auto", AUTO)):
            of_method = [r for r in of_cell if is_of(r, method)]
            for c in (0, share):
                values[name, bool(c)] = mean_over_sources([r for r in of_method if r["contamination"] == c], "aupr")
        if np.isnan([*values.values()]).any():
            continue
        lost = {name: values[name, True] - values[name, False] for name in ("uniform", "auto")}
        lines.append([
            source, detector, f"{share:.0%}", *(f"{values[n, True]:.3f} ({lost[n]:+.3f})" for n in lost),
            f"{values['auto', True] - values['uniform', True]:+.3f}", f"{lost['auto'] - lost['uniform']:+.3f}",
        ])  # fmt: skip
    head = ["source", "detector", "hidden", "uniform (change)", "auto (change)", "auto less uniform", "further loss"]
    return table(head, lines)


def generated_tables(rows: list[Row]) -> str:
    """AUROC against the three rarest and the three most frequent kinds, and what the threshold does."""
    lines = []
    for source in in_order(row["source"] for row in rows):
        of_source = [row for row in rows if row["source"] == source]
        for method in _methods(of_source):
            shown = [row for row in of_source if name_of(row) == method]
            groups = [[group["auroc"] for group in row["groups"]] for row in shown]
            alarms = [[group["false_alarms"] for group in row["groups"]] for row in shown]
            lines.append([
                source, *_shown(method), f"{np.mean([each[-_GROUP:] for each in groups]):.3f}",
                f"{np.mean([each[:_GROUP] for each in groups]):.3f}", f"{np.mean(alarms):.1%}",
                f"{np.max(np.mean(alarms, axis=0)):.1%}", f"{np.mean([r['metrics']['detected'] for r in shown]):.3f}",
                *_by_kind(shown), f"{np.median([row['seconds_fit'] for row in shown]):.1f}", str(len(shown)),
            ])  # fmt: skip
    head = [
        "AUROC rare kinds", "head kinds", "false alarms", "worst kind", "detected",
        "worst kind (worst draw), raised threshold", "detected, raised threshold", "CPU s of fit", "draws",
    ]  # fmt: skip
    note = (
        "\n\nThe raised threshold is one for all samples, raised until it holds for every cluster of the training "
        "scores (`methods.per_cluster_threshold`). It is not that of `--per-cluster`, which gives every kind its own."
    )
    return table(["table", *_ROW, *head], lines) + note


def _by_kind(rows: list[Row]) -> list[str]:
    """Worst kind's false alarms, mean over draws and worst draw, and detection, at the threshold that is raised."""
    worst = [
        row["metrics"]["per_cluster_false_alarms_worst"] for row in rows if "per_cluster_detected" in row["metrics"]
    ]
    if not worst:
        return ["", ""]
    return [f"{np.mean(worst):.1%} ({max(worst):.1%})", f"{mean_over_sources(rows, 'per_cluster_detected'):.3f}"]


def cubes(rows: list[Row]) -> str:
    """AUROC over all pixels, and against those of the rare legitimate material."""
    lines = []
    for source, *method in in_order((row["source"], *name_of(row)) for row in rows):
        of_method = [row for row in rows if (row["source"], *name_of(row)) == (source, *method)]
        figures = [mean_over_sources(of_method, name) for name in ("auroc_at_training_frequencies", "auroc_rarest")]
        lines.append([source, *method[:2], *(f"{x:.3f}" for x in figures)])
    return table(["cube", "detector", "weighting", "AUROC, all pixels", "AUROC, against the rare material"], lines)


def _cost(rows: list[Row]) -> str:
    lines = []
    for method in _methods(rows):
        of_method = [row for row in rows if name_of(row) == method]
        seconds = float(np.median([row["seconds_fit"] for row in of_method]))
        memory = float(np.median([row["peak_memory_mb"] for row in of_method]))
        lines.append([*_shown(method), f"{seconds:.2f}", f"{memory:.0f}"])
    return table([*_ROW, "CPU seconds of fit", "peak memory, MB"], lines)


SECTIONS: dict[str, Callable[[list[Row]], str]] = {
    "AUPR by source, long tail": _by_source,
    "AUROC of the rarest kind, long tail": _rarest,
    "Good samples rejected, long tail": _false_alarms,
    "Change in AUPR by source and detector, long tail": _cells,
    "Change in AUROC of the rarest kind by source and detector, long tail": _cells_of_rarest,
    "Change in AUPR by imbalance and hidden anomalies": _conditions,
    "Good samples rejected where 80 % of the defects are caught (frequent kind / rare kind)": _caught,
    "AUPR with anomalies hidden in training": _hidden,
    "AUPR where no kinds are known": _without_kinds,
    "Cost (medians over all rows)": _cost,
}


def _pivoted(rows: list[Row], metric: str, column: Callable[[Row], str]) -> str:
    """A line for each method, a column for each source, and the mean over those that every method has."""
    rows = [row for row in rows if metric in row["metrics"]]
    columns = in_order(map(column, rows))
    values: dict[tuple[tuple[str, ...], str], list[float]] = {}
    for row in rows:
        values.setdefault((name_of(row), column(row)), []).append(row["metrics"][metric])
    means = {key: float(np.mean(each)) for key, each in values.items()}
    best = {c: max(means[m, c] for m in _methods(rows) if (m, c) in means) for c in columns}
    lines = []
    for method in _methods(rows):
        cells = [means.get((method, c)) for c in columns]
        shown = [
            "" if x is None else f"**{x:.3f}**" if x == best[c] else f"{x:.3f}"
            for c, x in zip(columns, cells, strict=True)
        ]
        present = [x for x in cells if x is not None]
        lines.append([*_shown(method), *shown, f"{np.mean(present):.3f}" if len(present) == len(columns) else ""])
    return table([*_ROW, *columns, "mean"], lines)


def say(rows: list[Row], metric: str, method: Choice) -> str:
    """The change by a method against the plain detector, with its interval."""
    return str(change(rows, metric, method))


def _methods(rows: list[Row]) -> list[tuple[str, ...]]:
    """Detectors in the rows' order, yardsticks last; of each the plain one first."""
    names = in_order(map(name_of, rows))
    detectors = in_order(method[0] for method in names)
    weightings = ["uniform", "auto", *in_order(method[1] for method in names)]
    order = {method: (method[0] in YARDSTICKS, detectors.index(method[0]), method[2] != "own") for method in names}
    return sorted(names, key=lambda method: (order[method], weightings.index(method[1])))


def _shown(method: tuple[str, ...]) -> list[str]:
    detector, weighting, scores = method
    return [detector, weighting, "local" if scores != "own" else ""]


def table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table; "" without lines."""
    if not lines:
        return ""
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in rows)

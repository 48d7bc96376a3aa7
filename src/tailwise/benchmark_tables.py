"""The benchmark's page: tables, plots and plain answers, all computed from rows.

Changes are paired: a method less the plain detector on the same draw. Their intervals are bootstrapped over draws,
within each source.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from . import benchmark, plots, storage
from .benchmark import rows as kept_rows
from .benchmark.comparisons import (
    AUTO,
    ORACLE,
    PLAIN,
    WEIGHTED,
    Change,
    Choice,
    Row,
    by_cell,
    change,
    has,
    in_order,
    long_tailed,
    mean_over_sources,
    name_of,
    reported,
)
from .benchmark.suites import YARDSTICKS

NEURAL = ("autoencoder", "deep-svdd")
_HEAD = "# Benchmarks\n\nWritten by `tailwise bench` from the rows in results/, which say how each figure was made.\n"
PAGE, PICTURE = "README.md", "changes.svg"
_BRACKETS = "In brackets: 95 % intervals over draws, paired with the plain detector."
_HARM, _WORTH, _NEAR = -0.005, 0.02, 0.01
_STEEP = 100
_ROW = ("detector", "weighting", "scores")
# Suites of generated data have sections of their own and no say in what is said of real data.
TABLES, CUBES = "long-tail-tables", "rare-material"
_GROUP = 3
_MODE_FAIR = {"weighting": "uniform", "alignment": "auto"}
_SHOWN = {"plain": PLAIN, "weighting": WEIGHTED, "weighting and scores": AUTO}


def run_suite(suite: Path, profile: str, part: str, rows: Path | None, data: Path | None, processes: int) -> Path:
    """Run a suite and write its page; the file of rows. See `commands.bench`."""
    path = suite if suite.suffix else Path("benchmarks", "suites", f"{suite}.toml")
    read, home = benchmark.read_suite(path), benchmark.home_of(path)
    place = home / ("results" if read.reported else ".cache") / f"{read.name}.jsonl"
    benchmark.run(read, profile, part, rows or place, home / ".cache", processes, str(data or ""))
    if rows is None and read.reported:
        write_page(home)
    return rows or place


def write_page(home: Path) -> Path:
    """Write README.md and its picture in `home` from the rows in its results/."""
    rows = [row for path in sorted((home / "results").glob("*.jsonl")) for row in kept_rows.read_rows(path)]
    storage.write(home / PAGE, tables(rows).encode())
    real = [row for row in reported(rows) if row["suite"] not in (TABLES, CUBES)]
    if drawn := _draws(real):
        height = 1 + 0.2 * len(in_order((row["source"], row["detector"]) for row in long_tailed(real)))
        storage.write(home / "results" / PICTURE, plots.picture(drawn, (9.2, height)))
    return home / PAGE


def tables(rows: Sequence[Row]) -> str:
    """The page as Markdown."""
    shown = reported(rows)
    real = [row for row in shown if row["suite"] not in (TABLES, CUBES)]
    parts = [
        _HEAD,
        _first_screen(real),
        *[_section(title, write(real)) for title, write in _SECTIONS.items()],
        _section("Generated tables, ten kinds, 100:1", _generated_tables([r for r in shown if r["suite"] == TABLES])),
        _section("Cubes with a rare legitimate material", _cubes([r for r in shown if r["suite"] == CUBES])),
        _section("What did not run", _not_run(rows)),
        _section("How it is measured", _PROTOCOL),
    ]
    return "\n".join(part for part in parts if part).rstrip() + "\n"


def _first_screen(rows: list[Row]) -> str:
    tail = long_tailed(rows)
    neural = [row for row in tail if row["detector"] in NEURAL]
    steep = [row for row in neural if row["imbalance"] == _STEEP]
    if not neural:
        return "There are no finished rows with a long tail yet: `make bench` makes them.\n"
    auto, name = (AUTO, "weighting and mode-fair scores") if has(neural, AUTO) else (WEIGHTED, "weighting")
    lines = [
        f"**Does it help?** Left on (`auto`: {name}), autoencoder and deep-svdd change by "
        f"{_say(neural, 'aupr', auto)} AUPR and {_say(neural, 'auroc_rarest', auto)} AUROC of the rarest kind, "
        f"in the mean over {len({row['source'] for row in neural})} long-tailed sources. Weighting alone: "
        f"{_say(neural, 'aupr', WEIGHTED)} AUPR; with the kinds told (the oracle): {_say(neural, 'aupr', ORACLE)}. "
        f"At {_STEEP}:1 alone, {len({row['source'] for row in steep})} sources: {_say(steep, 'aupr', auto)} AUPR and "
        f"{_say(steep, 'auroc_rarest', auto)} AUROC of the rarest kind.",
        f"**Where?** {_where(tail, auto)}",
        f"**By how much?** {_against_yardsticks(tail, auto)}",
        f"**When should I not use it?** {_when_not(rows, auto)}",
    ]
    picture = f"![Change in AUPR by auto, by source and detector, with intervals](results/{PICTURE})\n"
    return "\n\n".join(lines) + f"\n\n{_PART_NOTES[rows[0]['part']]} {_BRACKETS}\n\n{picture}"


def _say(rows: list[Row], metric: str, method: Choice) -> str:
    return str(change(rows, metric, method))


def _where(rows: list[Row], auto: Choice) -> str:
    changes = by_cell(rows, auto)
    best = sorted(changes.items(), key=lambda item: -item[1].mean)[:3]
    gained = sum(each.low > 0 for each in changes.values())
    return (
        f"In {gained} of {len(changes)} pairs of source and detector the whole interval is above 0. Most: "
        + "; ".join(f"{source} with {detector} {each}" for (source, detector), each in best)
        + "."
    )


def _when_not(rows: list[Row], auto: Choice) -> str:
    conditions = sorted({(row["imbalance"], row["contamination"]) for row in rows}, key=str)
    harmed = []
    for imbalance, contamination in conditions:
        here = [row for row in rows if (row["imbalance"], row["contamination"]) == (imbalance, contamination)]
        told = f"imbalance {imbalance}" + (
            f", {contamination:.0%} anomalies hidden in training" if contamination else ""
        )
        harmed += [
            f"{source} with {detector} ({told}) {each}"
            for (source, detector), each in by_cell(here, auto).items()
            if each.mean < _HARM
        ]
    balanced = [row for row in rows if row["imbalance"] == 1]
    even = (
        f" Where all kinds are equally frequent the mean change is {_say(balanced, 'aupr', auto)}." if balanced else ""
    )
    if not harmed:
        return f"No pair of source and detector loses more than {-_HARM} AUPR in the mean.{even}"
    listed = "; ".join(sorted(harmed, key=lambda text: float(text.rpartition(" [")[0].rpartition(" ")[2]))[:5])
    told = f"{len(harmed)} pairs of source and detector lose more than {-_HARM} AUPR in the mean"
    return f"{told}, the worst: {listed}.{even}"


def _against_yardsticks(rows: list[Row], auto: Choice) -> str:
    """One detector of ours, the best in the mean over sources, against LOF, kNN and per-group kNN."""
    own = [row for row in rows if all(row[name] == value for name, value in auto.items())]
    sources = in_order(row["source"] for row in rows)
    names = [
        d
        for d in in_order(r["detector"] for r in own)
        if {r["source"] for r in own if r["detector"] == d} == {*sources}
    ]
    if not names or not any(row["detector"] in YARDSTICKS for row in rows):
        return "There are no rows of LOF, kNN and per-group kNN to compare with yet."
    ours = max(names, key=lambda d: mean_over_sources([r for r in own if r["detector"] == d], "aupr"))
    mean = mean_over_sources([row for row in own if row["detector"] == ours], "aupr")
    theirs = {y: mean_over_sources([row for row in rows if row["detector"] == y], "aupr") for y in YARDSTICKS}
    behind = []
    for source in sources:
        best = _best([row for row in rows if row["source"] == source and row["detector"] in YARDSTICKS])
        here = _best([row for row in own if row["source"] == source and row["detector"] == ours])
        if best and here and here[1] < best[1] - _NEAR:
            behind.append(f"{source} ({here[1]:.3f} against {best[1]:.3f} of {best[0]})")
    told = ", ".join(f"{name} {value:.3f}" for name, value in theirs.items())
    where = (
        "; it is behind by more than 0.01 on " + ", ".join(behind) if behind else ", nowhere behind by more than 0.01"
    )
    return f"{ours} with `auto` has a mean AUPR of {mean:.3f}, against {told} (which is told the kinds){where}."


def _best(rows: list[Row]) -> tuple[str, float] | None:
    means = {
        detector: float(np.mean([row["metrics"]["aupr"] for row in rows if row["detector"] == detector]))
        for detector in in_order(row["detector"] for row in rows)
    }
    return max(means.items(), key=lambda item: item[1]) if means else None


def _by_source(rows: list[Row]) -> str:
    """AUPR of every method on every long-tailed source."""
    return _crossed(long_tailed(rows), "aupr", lambda row: row["source"])


def _rarest(rows: list[Row]) -> str:
    return _crossed(long_tailed(rows), "auroc_rarest", lambda row: row["source"])


def _without_kinds(rows: list[Row]) -> str:
    return _crossed([row for row in rows if not row["modes"]], "aupr", lambda row: row["source"])


def _false_alarms(rows: list[Row]) -> str:
    tail = long_tailed(rows)
    figures = ("false_alarms_head", "false_alarms_rarest", "false_alarms_worst", "detected")
    rejected = ("rejected_head_at_80", "rejected_rarest_at_80")
    chosen = [m for m in _methods(tail) if m[1] in ("", "uniform", "auto", "oracle")]
    lines = []
    for method in chosen:
        here = [row for row in tail if name_of(row) == method]
        means = [mean_over_sources(here, metric) for metric in (*figures, *rejected)]
        lines.append([*_shown(method), *("" if np.isnan(m) else f"{m:.1%}" for m in means)])
    head = ["head", "rarest kind", "worst kind", "detected", "head, 80 % detected", "rarest kind, 80 % detected"]
    return _table([*_ROW, *head], lines)


def _conditions(rows: list[Row]) -> str:
    """Change by auto at each imbalance and contamination."""
    rows = [row for row in rows if row["modes"]]
    lines = []
    for imbalance, contamination in sorted({(r["imbalance"], r["contamination"]) for r in rows}, key=str):
        here = [r for r in rows if (r["imbalance"], r["contamination"]) == (imbalance, contamination)]
        for detector in in_order(r["detector"] for r in here if r["detector"] not in YARDSTICKS):
            own = [r for r in here if r["detector"] == detector]
            changes = [change(own, "aupr", method) for method in (WEIGHTED, AUTO, ORACLE)]
            shown = [str(each) if each.count else "" for each in changes]
            lines.append([str(imbalance), f"{contamination:.0%}", detector, *shown])
    return _table(["imbalance", "hidden anomalies", "detector", "weighting", "weighting and scores", "oracle"], lines)


def _cells(rows: list[Row]) -> str:
    """Change in AUPR of each source and detector, and how much of the oracle's gain weighting alone reaches."""
    tail = long_tailed(rows)
    changes = [by_cell(tail, method) for method in (WEIGHTED, AUTO, ORACLE)]
    pairs = in_order(pair for each in changes for pair in each)
    lines = [[*pair, *(str(each[pair]) if pair in each else "" for each in changes)] for pair in pairs]
    table = _table(["source", "detector", "weighting", "weighting and scores", "oracle"], lines)
    weighted, _, oracle = changes
    gained = [pair for pair, each in oracle.items() if each.mean >= _WORTH and pair in weighted]
    for name, method, each in (("Weighting alone", WEIGHTED, weighted), ("Weighting and scores", AUTO, changes[1])):
        if each:
            pair, lowest = min(each.items(), key=lambda item: item[1].mean)
            table += f"\n\n{name}, mean over all: {_say(tail, 'aupr', method)}; "
            table += f"lowest: {' with '.join(pair)} {lowest}."
    if not gained:
        return table
    ours, theirs = (float(np.mean([each[pair].mean for pair in gained])) for each in (weighted, oracle))
    return (
        f"{table}\n\nWhere the oracle gains {_WORTH} or more ({len(gained)} of {len(oracle)}), it gains {theirs:+.3f} "
        f"and weighting alone {ours:+.3f}: {ours / theirs:.0%} of it."
    )


def _caught(rows: list[Row]) -> str:
    """Good units rejected at the threshold that catches 80 % of the anomalies, where two kinds are known."""
    rows = [row for row in long_tailed(rows) if len(row["modes"]) == 2]
    lines = []
    for source, detector in in_order((row["source"], row["detector"]) for row in rows):
        here = [row for row in rows if (row["source"], row["detector"]) == (source, detector)]
        cells = []
        for method in (PLAIN, WEIGHTED, _MODE_FAIR, AUTO, ORACLE):
            own = [row for row in here if all(row[name] == value for name, value in method.items())]
            head, rare = (mean_over_sources(own, f"rejected_{kind}_at_80") for kind in ("head", "rarest"))
            cells.append("" if np.isnan(rare) else f"{head:.1%} / {rare:.1%}")
        if cells[1]:
            lines.append([source, detector, *cells])
    return _table(["source", "detector", "plain", "weighting", "scores", "weighting and scores", "oracle"], lines)


def _hidden(rows: list[Row]) -> str:
    """AUPR that hidden anomalies cost uniform training and `auto`, and which of them is ahead then."""
    hidden = sorted({row["contamination"] for row in rows if row["contamination"]})
    lines = []
    for source, detector, share in (
        (s, d, c) for s in in_order(r["source"] for r in rows if r["contamination"]) for d in NEURAL for c in hidden
    ):
        here = [r for r in rows if (r["source"], r["detector"]) == (source, detector)]
        here = [r for r in here if r["contamination"] in (0, share) and r["imbalance"] not in (1, 20)]
        draws = {r["draw"] for r in here if r["contamination"] == share}
        here = [r for r in here if r["draw"] in draws]
        values = {}
        for name, method in (("uniform", PLAIN), ("auto", AUTO)):
            own = [r for r in here if all(r[key] == value for key, value in method.items())]
            for c in (0, share):
                values[name, bool(c)] = mean_over_sources([r for r in own if r["contamination"] == c], "aupr")
        if np.isnan([*values.values()]).any():
            continue
        lost = {name: values[name, True] - values[name, False] for name in ("uniform", "auto")}
        lines.append([
            source, detector, f"{share:.0%}", *(f"{values[n, True]:.3f} ({lost[n]:+.3f})" for n in lost),
            f"{values['auto', True] - values['uniform', True]:+.3f}", f"{lost['auto'] - lost['uniform']:+.3f}",
        ])  # fmt: skip
    head = ["source", "detector", "hidden", "uniform (change)", "auto (change)", "auto less uniform", "further loss"]
    return _table(head, lines)


def _generated_tables(rows: list[Row]) -> str:
    """AUROC against the three rarest and the three most frequent kinds, and what the threshold does."""
    lines = []
    for source in in_order(row["source"] for row in rows):
        here = [row for row in rows if row["source"] == source]
        for method in _methods(here):
            own = [row for row in here if name_of(row) == method]
            kinds = [[mode["auroc"] for mode in row["modes"]] for row in own]
            alarms = [[mode["false_alarms"] for mode in row["modes"]] for row in own]
            lines.append([
                source, *_shown(method), f"{np.mean([each[-_GROUP:] for each in kinds]):.3f}",
                f"{np.mean([each[:_GROUP] for each in kinds]):.3f}", f"{np.mean(alarms):.1%}",
                f"{np.max(np.mean(alarms, axis=0)):.1%}", f"{np.mean([r['metrics']['detected'] for r in own]):.3f}",
                *_per_kind(own), f"{np.median([row['seconds_fit'] for row in own]):.1f}", str(len(own)),
            ])  # fmt: skip
    head = [
        "AUROC rare kinds", "head kinds", "false alarms", "worst kind", "detected",
        "worst kind (worst draw), threshold per kind", "detected, threshold per kind", "CPU s of fit", "draws",
    ]  # fmt: skip
    return _table(["table", *_ROW, *head], lines)


def _per_kind(rows: list[Row]) -> list[str]:
    """Worst kind's false alarms, the mean over draws and the worst draw, and detection, at the threshold per kind."""
    worst = [row["metrics"]["per_kind_false_alarms_worst"] for row in rows if "per_kind_detected" in row["metrics"]]
    if not worst:
        return ["", ""]
    return [f"{np.mean(worst):.1%} ({max(worst):.1%})", f"{mean_over_sources(rows, 'per_kind_detected'):.3f}"]


def _cubes(rows: list[Row]) -> str:
    lines = []
    for source, *method in in_order((row["source"], *name_of(row)) for row in rows):
        own = [row for row in rows if (row["source"], *name_of(row)) == (source, *method)]
        figures = [mean_over_sources(own, name) for name in ("auroc_at_training_frequencies", "auroc_rarest")]
        lines.append([source, *method[:2], *(f"{x:.3f}" for x in figures)])
    return _table(["cube", "detector", "weighting", "AUROC, all pixels", "AUROC, against the rare material"], lines)


def _cost(rows: list[Row]) -> str:
    lines = []
    for method in _methods(rows):
        here = [row for row in rows if name_of(row) == method]
        seconds = float(np.median([row["seconds_fit"] for row in here]))
        memory = float(np.median([row["peak_memory_mb"] for row in here]))
        lines.append([*_shown(method), f"{seconds:.2f}", f"{memory:.0f}"])
    return _table([*_ROW, "CPU seconds of fit", "peak memory, MB"], lines)


_SECTIONS: dict[str, Callable[[list[Row]], str]] = {
    "AUPR by source, long tail": _by_source,
    "AUROC of the rarest kind, long tail": _rarest,
    "Good units rejected, long tail": _false_alarms,
    "Change in AUPR by source and detector, long tail": _cells,
    "Change in AUPR by imbalance and hidden anomalies": _conditions,
    "Good units rejected where 80 % of the defects are caught (frequent kind / rare kind)": _caught,
    "AUPR with anomalies hidden in training": _hidden,
    "AUPR where no kinds are known": _without_kinds,
    "Cost (medians over all rows)": _cost,
}
_PART_NOTES = {
    "confirmation": "Reported are confirmation draws, on which nothing was chosen.",
    "development": "Reported are development draws, on which defaults are chosen; none to confirm them have been run.",
}
_PROTOCOL = """On one draw every method gets the same units, seed and budget. Kinds
of normal are drawn anew, and thinned so that their sizes fall off geometrically; *imbalance* is the largest over the
smallest. The test holds equally many normals of each kind, or weighs them so. Thresholds for *good units rejected* are
taken at 5 % from training units that were held out; the last two columns use the threshold that catches 80 % of the
anomalies instead. *oracle* trains with the kinds' labels, each kind weighed the same; *per-group kNN* is told them too.
*median-rejection* drops the half with the highest scores. Spectra are never mode-fair by `auto`, whatever a row says:
its scores are then the detector's own. Rows hold settings, versions, commit, seconds and memory."""


def _not_run(rows: Sequence[Row]) -> str:
    told: dict[tuple[str, ...], int] = {}
    for row in rows:
        if row["status"] != "ok":
            key = (row["suite"], row["status"], row["error"])
            told[key] = told.get(key, 0) + 1
    if not told:
        return "Nothing: every cell has its figures."
    lines = [[suite, status, str(count), error] for (suite, status, error), count in sorted(told.items())]
    return _table(["suite", "status", "cells", "reason"], lines)


def _crossed(rows: list[Row], metric: str, column: Callable[[Row], str]) -> str:
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
        known = [x for x in cells if x is not None]
        lines.append([*_shown(method), *shown, f"{np.mean(known):.3f}" if len(known) == len(columns) else ""])
    return _table([*_ROW, *columns, "mean"], lines)


def _draws(rows: list[Row]) -> dict[str, Callable[[Axes], Axes]]:
    """What is drawn, by title; nothing without a change to show."""
    tail = long_tailed(rows)
    auto = AUTO if has(tail, AUTO) else WEIGHTED
    titles = {"aupr": "AUPR", "auroc_rarest": "AUROC of the rarest kind"}
    found = {title: by_cell(tail, auto, metric) for metric, title in titles.items()}
    return {title: partial(_draw_changes, changes) for title, changes in found.items() if changes}


def _draw_changes(changes: dict[tuple[str, str], Change], axes: Axes) -> Axes:
    places = np.arange(len(changes))[::-1]
    axes.axvline(0, color=plots.GREY, linewidth=1, linestyle=(0, (4, 2)), label="plain detector")
    for place, each in zip(places, changes.values(), strict=True):
        colour = plots.BLUE if each.low > 0 else plots.RED if each.high < 0 else plots.GREY
        axes.plot([each.low, each.high], [place, place], color=colour, linewidth=1.6)
        axes.plot([each.mean], [place], "o", color=colour, markersize=4)
    axes.set_yticks(places, [f"{source}, {detector}" for source, detector in changes])
    axes.set_ylim(-0.6, len(changes) - 0.4)
    axes.set_xlabel("auto less plain")
    return axes


def _methods(rows: list[Row]) -> list[tuple[str, ...]]:
    """Detectors in the rows' order, yardsticks last; of each the plain one first."""
    found = in_order(map(name_of, rows))
    detectors = in_order(method[0] for method in found)
    weightings = ["uniform", "auto", *in_order(method[1] for method in found)]
    return sorted(found, key=lambda m: (m[0] in YARDSTICKS, detectors.index(m[0]), m[2], weightings.index(m[1])))


def _shown(method: tuple[str, ...]) -> list[str]:
    detector, weighting, alignment = method
    return [detector, weighting, "mode-fair" if alignment else ""]


def _section(title: str, text: str) -> str:
    return f"## {title}\n\n{text}\n" if text else ""


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    if not lines:
        return ""
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in rows)

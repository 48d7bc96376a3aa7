"""The benchmark's page: plain answers, the sections and a picture, all computed from rows.

Changes are paired: a method less the plain detector on the same draw. Their intervals are bootstrapped over draws,
within each source.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from ..report import plots
from ..runs import files
from . import contamination_page, runner, suites
from . import rows as kept_rows
from .comparisons import (
    AUTO,
    ORACLE,
    WEIGHTED,
    Change,
    Choice,
    Row,
    by_cell,
    has,
    in_order,
    long_tailed,
    mean_over_sources,
    reported,
)
from .suites import YARDSTICKS
from .tables import NEURAL, SECTIONS, cubes, generated_tables, say, table

_HEAD = "# Benchmarks\n\nWritten by `tailwise bench` from the rows in results/, which say how each figure was made.\n"
PAGE, PICTURE, CONTAMINATION_PAGE = "README.md", "changes.svg", "contamination.md"
_BRACKETS = "In brackets: 95 % intervals over draws, paired with the plain detector."
_HARM, _NEAR = -0.005, 0.01
_STEEP = 100
# Suites of generated data have sections of their own and no say in what is said of real data.
TABLES, CUBES = "long-tail-tables", "rare-material"


@dataclass(frozen=True)
class Finished:
    """A suite that was run: the file of its rows, and how many of the cells asked for have a failure as their row."""

    rows: Path
    failed: int

    def __str__(self) -> str:
        return str(self.rows)


def run_suite(suite: Path, profile: str, part: str, rows: Path | None, data: Path | None, processes: int) -> Finished:
    """Run a suite and write its page. See `commands.bench`."""
    path = suite if suite.suffix else Path("benchmarks", "suites", f"{suite}.toml")
    read, home = suites.read_suite(path), runner.home_of(path)
    place = home / ("results" if read.reported else ".cache") / f"{read.name}.jsonl"
    runner.run(read, profile, part, rows or place, processes, str(data or ""))
    if rows is None and read.reported:
        write_page(home)
    return Finished(rows or place, runner.count_failed(read, profile, part, rows or place))


def write_page(home: Path) -> Path:
    """Write README.md and its picture in `home` from the rows in its results/."""
    every = [row for path in sorted((home / "results").glob("*.jsonl")) for row in kept_rows.read_rows(path)]
    rows = [row for row in every if row["suite"] != contamination_page.SUITE]
    if contaminated := [row for row in every if row["suite"] == contamination_page.SUITE]:
        files.write(home / CONTAMINATION_PAGE, contamination_page.page(contaminated).encode())
        if panels := contamination_page.panels(contaminated):
            files.write(home / "results" / contamination_page.PICTURE, plots.picture(panels, (11, 4)))
    files.write(home / PAGE, tables(rows).encode())
    real = [row for row in reported(rows) if row["suite"] not in (TABLES, CUBES)]
    if changed := _draws(real):
        height = 1 + 0.2 * len(in_order((row["source"], row["detector"]) for row in long_tailed(real)))
        files.write(home / "results" / PICTURE, plots.picture(changed, (9.2, height)))
    return home / PAGE


def tables(rows: Sequence[Row]) -> str:
    """The page as Markdown."""
    shown = reported(rows)
    real = [row for row in shown if row["suite"] not in (TABLES, CUBES)]
    parts = [
        _HEAD,
        _first_screen(real),
        *[_section(title, write(real)) for title, write in SECTIONS.items()],
        _section("Generated tables, ten kinds, 100:1", generated_tables([r for r in shown if r["suite"] == TABLES])),
        _section("Cubes with a rare legitimate material", cubes([r for r in shown if r["suite"] == CUBES])),
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
    auto, name = (AUTO, "weighting and local scores") if has(neural, AUTO) else (WEIGHTED, "weighting")
    lines = [
        f"**Does it help?** Left on (`auto`: {name}), autoencoder and deep-svdd change by "
        f"{say(neural, 'aupr', auto)} AUPR and {say(neural, 'auroc_rarest', auto)} AUROC of the rarest kind, "
        f"in the mean over {len({row['source'] for row in neural})} long-tailed sources. Weighting alone: "
        f"{say(neural, 'aupr', WEIGHTED)} AUPR; with the kinds told (the oracle): {say(neural, 'aupr', ORACLE)}. "
        f"At {_STEEP}:1 alone, {len({row['source'] for row in steep})} sources: {say(steep, 'aupr', auto)} AUPR and "
        f"{say(steep, 'auroc_rarest', auto)} AUROC of the rarest kind.",
        f"**Where?** {_where(tail, auto)}",
        f"**By how much?** {_against_yardsticks(tail, auto)}",
        f"**When should I not use it?** {_when_not(rows, auto)}",
    ]
    picture = f"![Change in AUPR by auto, by source and detector, with intervals](results/{PICTURE})\n"
    return "\n\n".join(lines) + f"\n\n{_PART_NOTES[rows[0]['part']]} {_BRACKETS}\n\n{picture}"


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
        at_condition = [row for row in rows if (row["imbalance"], row["contamination"]) == (imbalance, contamination)]
        sentence = f"imbalance {imbalance}" + (
            f", {contamination:.0%} anomalies hidden in training" if contamination else ""
        )
        harmed += [
            f"{source} with {detector} ({sentence}) {each}"
            for (source, detector), each in by_cell(at_condition, auto).items()
            if each.mean < _HARM
        ]
    balanced = [row for row in rows if row["imbalance"] == 1]
    even = (
        f" Where all kinds are equally frequent the mean change is {say(balanced, 'aupr', auto)}." if balanced else ""
    )
    if not harmed:
        return f"No pair of source and detector loses more than {-_HARM} AUPR in the mean.{even}"
    listed = "; ".join(sorted(harmed, key=lambda text: float(text.rpartition(" [")[0].rpartition(" ")[2]))[:5])
    sentence = f"{len(harmed)} pairs of source and detector lose more than {-_HARM} AUPR in the mean"
    return f"{sentence}, the worst: {listed}.{even}"


def _against_yardsticks(rows: list[Row], auto: Choice) -> str:
    """One detector of ours, the best in the mean over sources, against LOF, kNN and per-group kNN."""
    auto_rows = [row for row in rows if all(row[name] == value for name, value in auto.items())]
    sources = in_order(row["source"] for row in rows)
    names = [
        d
        for d in in_order(r["detector"] for r in auto_rows)
        if {r["source"] for r in auto_rows if r["detector"] == d} == {*sources}
    ]
    if not names or not any(row["detector"] in YARDSTICKS for row in rows):
        return "There are no rows of LOF, kNN and per-group kNN to compare with yet."
    ours = max(names, key=lambda d: mean_over_sources([r for r in auto_rows if r["detector"] == d], "aupr"))
    mean = mean_over_sources([row for row in auto_rows if row["detector"] == ours], "aupr")
    theirs = {y: mean_over_sources([row for row in rows if row["detector"] == y], "aupr") for y in YARDSTICKS}
    behind = []
    for source in sources:
        best = _best([row for row in rows if row["source"] == source and row["detector"] in YARDSTICKS])
        our_best = _best([row for row in auto_rows if row["source"] == source and row["detector"] == ours])
        if best and our_best and our_best[1] < best[1] - _NEAR:
            behind.append(f"{source} ({our_best[1]:.3f} against {best[1]:.3f} of {best[0]})")
    yardsticks = ", ".join(f"{name} {value:.3f}" for name, value in theirs.items())
    where = (
        "; it is behind by more than 0.01 on " + ", ".join(behind) if behind else ", nowhere behind by more than 0.01"
    )
    return f"{ours} with `auto` has a mean AUPR of {mean:.3f}, against {yardsticks} (which is told the kinds){where}."


def _best(rows: list[Row]) -> tuple[str, float] | None:
    means = {
        detector: float(np.mean([row["metrics"]["aupr"] for row in rows if row["detector"] == detector]))
        for detector in in_order(row["detector"] for row in rows)
    }
    return max(means.items(), key=lambda item: item[1]) if means else None


_PART_NOTES = {
    "confirmation": "Reported are confirmation draws, on which nothing was chosen.",
    "development": "Reported are development draws, on which defaults are chosen; none to confirm them have been run.",
}
_PROTOCOL = """On one draw every method gets the same samples, seed and budget. Kinds of normal are drawn anew, and
thinned so that their sizes fall off geometrically; *imbalance* is the largest over the smallest. The test holds equally
many normals of each kind, or weighs them so. Thresholds for *good samples rejected* are taken at 5 % from training
samples that were held out; the last two columns use the threshold that catches 80 % of the anomalies instead. *oracle*
trains with the kinds' labels, each kind weighed the same; *per-group kNN* is told them too. *median-rejection* drops
the half with the highest scores. Spectra are never local by `auto`, whatever a row says: its scores are then the
detector's own. Rows hold settings, versions, commit, seconds and memory."""


def _not_run(rows: Sequence[Row]) -> str:
    counts: dict[tuple[str, ...], int] = {}
    for row in rows:
        if row["status"] != "ok":
            key = (row["suite"], row["status"], row["error"])
            counts[key] = counts.get(key, 0) + 1
    if not counts:
        return "Nothing: every cell has its figures."
    lines = [[suite, status, str(count), error] for (suite, status, error), count in sorted(counts.items())]
    return table(["suite", "status", "cells", "reason"], lines)


def _draws(rows: list[Row]) -> dict[str, Callable[[Axes], Axes]]:
    """What is drawn, by title; nothing without a change to show."""
    tail = long_tailed(rows)
    auto = AUTO if has(tail, AUTO) else WEIGHTED
    titles = {"aupr": "AUPR", "auroc_rarest": "AUROC of the rarest kind"}
    changes_of = {title: by_cell(tail, auto, metric) for metric, title in titles.items()}
    return {title: partial(_draw_changes, changes) for title, changes in changes_of.items() if changes}


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


def _section(title: str, text: str) -> str:
    return f"## {title}\n\n{text}\n" if text else ""

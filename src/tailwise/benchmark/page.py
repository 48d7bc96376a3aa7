"""The benchmark's page: plain answers, the sections and a picture, all computed from rows.

Changes are paired: a method less the plain detector on the same draw. Their intervals are bootstrapped over draws,
within each source.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import quote

import numpy as np
from matplotlib.axes import Axes

from ..core.modality import ROW
from ..errors import InputError
from ..report import plots
from ..report.page import in_markdown
from ..runs import files
from ..training import local_scores
from . import contamination_page, runner, suites
from . import rows as rows_file
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
    is_of,
    long_tailed,
    mean_over_sources,
    recovered,
    reported,
)
from .suites import YARDSTICKS
from .tables import NEURAL, SECTIONS, SIGNED, cubes, generated_tables, say, table

_BRACKETS = "In brackets: 95 % intervals over draws, paired with the plain detector."
_HARM, _NEAR = -0.005, 0.01
_STEEP = 100
# Suites of generated data have sections of their own and no say in what is said of real data.
TABLES, CUBES = "long-tail-tables", "rare-material"


@dataclass(frozen=True)
class Finished:
    """A suite that was run: the file of its rows, its page, and how many of the cells asked for failed.

    A cell has failed where its newest row is a failure.
    """

    rows: Path
    page: Path | None
    failed: int

    def __str__(self) -> str:
        return "\n".join(str(path) for path in (self.rows, self.page) if path is not None)


def run_suite(
    suite: Path,
    profile: str,
    part: str,
    rows: Path | None,
    data: Path | None,
    processes: int,
    workers: Callable[[], AbstractContextManager[runner.Workers]] | None = None,
) -> Finished:
    """Run a suite and write its page. See `commands.bench`."""
    path = suite if suite.suffix else Path("benchmarks", "suites", f"{suite}.toml")
    read, home = suites.read_suite(path), runner.home_of(path)
    rows = rows or home / ("results" if read.reported else ".cache") / f"{read.name}.jsonl"
    if read.reported:
        check_place(rows)
    runner.run(read, profile, part, rows, processes, str(data or ""), workers)
    page = write_page(rows) if read.reported else None
    return Finished(rows, page, runner.count_failed(read, profile, part, rows))


def page_of(rows: Path) -> Path:
    """Where the page of these rows lies: beside them."""
    return rows.with_suffix(".md")


def picture_of(rows: Path) -> Path:
    """Where the picture of that page lies."""
    return rows.with_suffix(".svg")


def check_place(rows: Path) -> None:
    """Raise an InputError where the page of these rows, or its picture, would replace what bench did not write."""
    page, picture = page_of(rows), picture_of(rows)
    before = _text_of(page)
    if page.exists() and SIGNED not in "".join(before.splitlines(keepends=True)[:3]):
        raise InputError(f"{page} was not written by tailwise bench", "rename it, or name other rows with --rows")
    if picture.exists() and link_to(picture) not in before:
        raise InputError(f"{picture} was not drawn by tailwise bench", "rename it, or name other rows with --rows")


def write_page(rows: Path) -> Path:
    """Write the page of a suite, and its picture, beside its rows.

    Raises:
        InputError: files of these names are there that bench did not write.
    """
    check_place(rows)
    page, picture, every = page_of(rows), picture_of(rows), rows_file.read_rows(rows)
    contaminated = any(row["suite"] == contamination_page.SUITE for row in every)
    text, drawn = (_contamination if contaminated else _comparison)(every, rows.stem, link_to(picture))
    # The page first: a picture that no page shows would be taken for somebody else's.
    files.write(page, text.encode("utf-8", "backslashreplace"))
    if drawn is not None:
        files.write(picture, drawn)
    return page


def link_to(path: Path) -> str:
    """How Markdown names a file beside the page."""
    return f"({quote(path.name)})"


def _text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8", errors="replace") if page.is_file() else ""


def _contamination(rows: Sequence[Row], name: str, picture: str) -> tuple[str, bytes | None]:
    panels = contamination_page.panels(rows)
    text = contamination_page.page(rows, name, picture if panels else "")
    return text, plots.picture(panels, (11, 4)) if panels else None


def _comparison(rows: Sequence[Row], name: str, picture: str) -> tuple[str, bytes | None]:
    compared = [row for row in reported(rows) if row["suite"] not in (TABLES, CUBES)]
    panels = _draws(compared)
    height = 1 + 0.2 * len(in_order((row["source"], row["detector"]) for row in long_tailed(compared)))
    text = tables(rows, name, picture if panels else "")
    return text, plots.picture(panels, (9.2, height)) if panels else None


def tables(rows: Sequence[Row], name: str = "", picture: str = "") -> str:
    """The page as Markdown: of the suite `name`, with the link `picture`."""
    shown = reported(rows)
    compared = [row for row in shown if row["suite"] not in (TABLES, CUBES)]
    title = in_markdown(name)
    parts = [
        f"# Benchmark {title}\n\n{SIGNED} {title}.jsonl, whose rows say how each figure was made.\n",
        _first_screen(compared, picture) if compared or not shown else "",
        *[_section(title, write(compared)) for title, write in SECTIONS.items()],
        *[_section(title, write(of)) for suite, (title, write) in _GENERATED.items() if (of := _of(shown, suite))],
        _section("What did not run", _not_run(rows)),
        _section("How it is measured", f"{_PROTOCOL} {_local_scores(compared)}".strip()),
    ]
    return "\n".join(part for part in parts if part).rstrip() + "\n"


_GENERATED = {
    TABLES: ("Generated tables, ten kinds, 100:1", generated_tables),
    CUBES: ("Cubes with a rare legitimate material", cubes),
}


def _of(rows: Sequence[Row], suite: str) -> list[Row]:
    return [row for row in rows if row["suite"] == suite]


def _first_screen(rows: list[Row], picture: str) -> str:
    tail = long_tailed(rows)
    neural = [row for row in tail if row["detector"] in NEURAL]
    steep = [row for row in neural if row["imbalance"] == _STEEP]
    shown = f"![Change in AUPR by auto, by source and detector, with intervals]{picture}\n" if picture else ""
    if not tail:
        return "There are no finished rows with a long tail yet.\n"
    if not neural:
        return f"Neither {' nor '.join(NEURAL)} was run: the tables say what the others do. {_BRACKETS}\n\n{shown}"
    told = f"; with the kinds told (the oracle): {say(neural, 'aupr', ORACLE)}"
    oracle = told if has(neural, ORACLE) else ""
    auto, name = (AUTO, "As `tailwise fit` sets them") if has(neural, AUTO) else (WEIGHTED, "Weighted")
    lines = [
        f"**Does it help?** {name}, autoencoder and deep-svdd change by "
        f"{say(neural, 'aupr', auto)} AUPR and {say(neural, 'auroc_rarest', auto)} AUROC of the rarest kind, "
        f"in the mean over {len({row['source'] for row in neural})} long-tailed sources. Weighting alone: "
        f"{say(neural, 'aupr', WEIGHTED)} AUPR{oracle}. "
        f"At {_STEEP}:1 alone, {len({row['source'] for row in steep})} sources: {say(steep, 'aupr', auto)} AUPR and "
        f"{say(steep, 'auroc_rarest', auto)} AUROC of the rarest kind.{_recovered(rows, auto)}",
        f"**Where?** {_where(tail, auto)}",
        f"**By how much?** {_against_yardsticks(tail, auto)}",
        f"**When should I not use it?** {_when_not(rows, auto)}",
    ]
    lines.append(f"{_PART_NOTES[rows[0]['part']]} {_BRACKETS}")
    return "\n\n".join([*lines, shown]) if shown else "\n\n".join(lines) + "\n"


def _recovered(rows: list[Row], auto: Choice) -> str:
    shares = recovered([row for row in rows if row["detector"] in NEURAL], auto)
    if not shares:
        return ""
    gained, possible = (sum(values) for values in zip(*((s.gained, s.possible) for s in shares.values()), strict=True))
    return (
        f" In the {len(shares)} pairs of source and detector to which balanced training data give .02 AUPR or more, it "
        f"gains {gained / possible:.0%} of that."
    )


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
    """One detector of ours, the default one if it is there, or else the best in the mean, against the yardsticks."""
    auto_rows = [row for row in rows if is_of(row, auto)]
    sources = in_order(row["source"] for row in rows)
    names = [
        d
        for d in in_order(r["detector"] for r in auto_rows)
        if {r["source"] for r in auto_rows if r["detector"] == d} == {*sources}
    ]
    if not names or not any(row["detector"] in YARDSTICKS for row in rows):
        return "There are no rows of yardsticks to compare with yet."
    best = max(names, key=lambda d: mean_over_sources([r for r in auto_rows if r["detector"] == d], "aupr"))
    ours = ROW.detector if ROW.detector in names else best
    mean = mean_over_sources([row for row in auto_rows if row["detector"] == ours], "aupr")
    measured = [name for name in YARDSTICKS if any(row["detector"] == name for row in rows)]
    theirs = {y: mean_over_sources([row for row in rows if row["detector"] == y], "aupr") for y in measured}
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
    name = f"The default detector, {ours}," if ours == ROW.detector else f"{ours} with `auto`"
    return f"{name} has a mean AUPR of {mean:.3f}, against {yardsticks} (which is told the kinds){where}."


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
trains with the kinds' labels, each kind weighed the same; *per-group kNN* is told them too. *normalised kNN* divides by
the neighbours' own distances (Wilkinghoff et al. 2025). *auto* with *local* scores is what `tailwise fit` does without
options: local scores, suspects left out, and no weights. *median-rejection* drops
the half with the highest scores. Spectra are never local by `auto`, whatever a row says: its scores are then the
detector's own. Rows hold settings, versions, commit, seconds and memory."""


def _local_scores(rows: Sequence[Row]) -> str:
    """Which rule the rows of local scores were measured with, and whether it is the default of this version."""
    rules = in_order(row["settings"]["scores"] for row in rows if row["settings"].get("scores", "own") != "own")
    if not rules:
        return ""
    text = f"Local scores of these rows are {' and '.join(f'`{rule}`' for rule in rules)}"
    if rules == [repr(local_scores.AUTO)]:
        return f"{text}."
    return f"{text}; `tailwise fit` without options takes `{local_scores.AUTO!r}` by now."


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

"""The page of what weighting adds: paired differences and their intervals, from every file of rows that holds pairs.

    python benchmarks/weighting_adds.py page > benchmarks/weighting-adds.md

Rows are those of results/weighting-adds.jsonl and, of long-tail-weightings, long-tail-tables and rare-material, those
whose weights and scores are spelled as the library spells them now: pairs of local scores from before their share was
chosen are left out. `asked_for` is the rule of the default, which tests/test_weighting_default.py holds the code to.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tailwise.benchmark import comparisons, rows
from tailwise.benchmark.suites import AS_GIVEN
from tailwise.core import registry
from tailwise.core.modality import FEATURE_MAP, IMAGE, ROW, SPECTRUM, Modality
from tailwise.training.local_scores import LocalScores
from tailwise.weights.default import AUTO, AUTO_SPECTRA, choose_weighting

RESULTS = Path(__file__).parent / "results"
REUSED = ("long-tail-weightings", "long-tail-tables", "rare-material")
LOSS = "Importance()"
# A fit with weights takes 1.3 to 9 times as long: less than this of the AUPR is not worth it.
WORTH = 0.005
ON, OFF = {"weighting": "on"}, {"weighting": "off"}


@dataclass(frozen=True)
class Kind:
    """A kind of data: what a sample is (None where the user asks for weights and there is no default), and whether
    there is a long tail."""

    modality: Modality | None
    long_tailed: bool = True


KINDS = {
    "rows, long-tailed": Kind(ROW),
    "generated tables, long-tailed": Kind(ROW),
    "rows, balanced": Kind(ROW, long_tailed=False),
    "rows, long-tailed, 5 % hidden anomalies": Kind(ROW, long_tailed=False),
    "images": Kind(IMAGE),
    "feature maps": Kind(FEATURE_MAP),
    "spectra with a rare material": Kind(SPECTRUM),
    "generated cubes with a rare material": Kind(SPECTRUM),
    "scenes": Kind(SPECTRUM, long_tailed=False),
    "one's own loop, and estimators": Kind(None),
}
HEADINGS = ("detector", "scores", "sets", "pairs", "AUPR, on less off", "rarest kind's AUROC", "fit without, s",
            "with, times that", "by default", "as the interval says")  # fmt: skip
FEWEST_PAIRS = 3
Row = dict[str, Any]


def gathered(own: Path) -> list[Row]:
    """The rows of pairs, each with its `kind`; weighting is "on" or "off", scores "own" or "local"."""
    every = [row for path in (*(RESULTS / f"{name}.jsonl" for name in REUSED), own) for row in rows.read_rows(path)]
    pairs: dict[str, Row] = {}
    for row in every:
        if "seconds_off" in row:
            pairs[rows.key(row["settings"])] = row
        elif (one := _as_pair(row)) is not None:
            pairs[rows.key({name: one[name] for name in (*_CELL, "weighting")})] = one
    return list(pairs.values())


_CELL = ("kind", "source", "imbalance", "contamination", "draw", "detector", "scores")


def _as_pair(row: Row) -> Row | None:
    """The row as one side of a pair, None where it is no such thing now."""
    spelled, kind = row["settings"], None if row["status"] != "ok" or row.get("refinement") else _kind(row)
    spectra = kind is not None and KINDS[kind].modality is SPECTRUM
    weights = (repr(AUTO_SPECTRA if spectra else AUTO), LOSS, "")
    scores = {"own": "own", repr(LocalScores()): "local"}
    if kind is None or spelled.get("weighting") not in weights or spelled.get("scores") not in scores:
        return None
    if not row["weighting"] and row["detector"] in ("LOF", "kNN", "per-group kNN"):
        return None
    weighting = "on" if spelled["weighting"] else "off"
    pair = row | {"kind": kind, "weighting": weighting, "scores": scores[spelled["scores"]]}
    # Each of these cubes was drawn once: they are the draws of one set, or an interval would know of no chance.
    return pair | {"source": "rare material", "draw": row["source"]} if row["suite"] == "rare-material" else pair


def _kind(row: Row) -> str | None:
    if row["detector"].startswith(("own loop", "Reweighted")):
        return "one's own loop, and estimators"
    if row["source"].startswith("solar cells as"):
        return "feature maps" if row["source"].endswith("maps") else "images"
    if row["source"].startswith("generated cube"):
        return "generated cubes with a rare material"
    if row["suite"] == "rare-material":
        return "spectra with a rare material"
    if row["source"].startswith("abu-"):
        return "scenes"
    if row["suite"] == "long-tail-tables":
        return "generated tables, long-tailed"
    if row["contamination"]:  # a cost of the default, whatever the tail
        return "rows, long-tailed, 5 % hidden anomalies" if row["contamination"] == 0.05 else None
    return "rows, balanced" if row["imbalance"] == 1 else "rows, long-tailed"


def page(every: list[Row]) -> str:
    """The rows as a page: a table for each kind of data, cells in which the default is not what the interval says, and
    what a fit without weights costs."""
    pairs = [row for row in every if "kind" in row]
    draws = ", ".join(map(str, sorted({row["draw"] for row in pairs if isinstance(row["draw"], int)})))
    lines = [
        "# What weighting adds, and what it costs", "",
        "Written by benchmarks/weighting_adds.py, whose two files say how each figure is made, from "
        "results/weighting-adds.jsonl",
        "and from pairs of long-tail-weightings, long-tail-tables and rare-material. Draws: " + draws + ".",
        "A pair is one draw with weights and without; in brackets 95 % intervals, bootstrapped over draws within each",
        "set; sets of fewer than three pairs have no say and no interval. Every kind of normal counts the same. Times",
        "are CPU seconds of the two trainings: the median without weights, and the median ratio.",
        "`by default` says whether weights are on there; the last column whether the interval of the AUPR asks for",
        f"it: on if it lies above 0 and its middle at {WORTH} or above, else off. The {WORTH} was set after these",
        "rows had been seen; it keeps them off for nearest-neighbours and deep-svdd beside local scores. A fit",
        "cannot tell whether data has a long tail, so one default serves all rows, and one all spectra: on where",
        "every kind of data with a long tail asks for it, off where one does not, and where there is none. local-rx",
        "and collaborative cannot be weighed.",
        "",
    ]  # fmt: skip
    against: list[str] = []
    for kind in KINDS:
        of_kind = [row for row in pairs if row["kind"] == kind]
        if not of_kind:
            continue
        lines += [f"## {kind[0].upper()}{kind[1:]}", "", f"| {' | '.join(HEADINGS)} |", "|" + "---|" * len(HEADINGS)]
        for cell in cells(of_kind):
            lines.append(_line(cell))
            if cell.default not in ("", cell.says):
                against.append(f"- {kind}, {cell.detector}, {cell.scores} scores: {cell.default}, {cell.aupr}")
        lines += ["", "By set, AUPR:", "", *_by_set(_ordered(of_kind)), ""]
    lines += ["## Where the default is not what this kind of data asks for", "", *(against or ["- nowhere"]), ""]
    return "\n".join(lines + _cost(every))


@dataclass(frozen=True)
class Cell:
    """A detector with one way to read scores on one kind of data, and its rows of sets with enough pairs."""

    kind: str
    detector: str
    scores: str
    rows: list[Row]

    @property
    def aupr(self) -> comparisons.Change:
        return _change(self.rows, "aupr")

    @property
    def says(self) -> str:
        return "on" if self.aupr.low > 0 and self.aupr.mean >= WORTH else "off"

    @property
    def default(self) -> str:
        """What the library does: "on", "off", or "" where there is no default."""
        modality = KINDS[self.kind].modality
        if modality is None:
            return ""
        detector = registry.parse_one(self.detector, "detector")
        return "on" if choose_weighting("auto", detector, modality, self.scores == "local").steps else "off"


def cells(pairs: list[Row]) -> Iterator[Cell]:
    """Those that have an interval."""
    for kind, detector, scores in comparisons.in_order(
        (row["kind"], row["detector"], row["scores"]) for row in _ordered(pairs)
    ):
        place = (kind, detector, scores)
        enough = _of_enough([row for row in pairs if (row["kind"], row["detector"], row["scores"]) == place])
        if _change(enough, "aupr").count:
            yield Cell(*place, enough)


def asked_for(every: list[Row]) -> set[tuple[str, str, Modality]]:
    """The detectors, scores and samples for which every kind of data with a long tail asks for weights."""
    says: dict[tuple[str, str, Modality], list[str]] = {}
    for cell in cells([row for row in every if "kind" in row]):
        kind = KINDS[cell.kind]
        if kind.modality is not None and kind.long_tailed:
            says.setdefault((cell.detector, cell.scores, kind.modality), []).append(cell.says)
    return {place for place, each in says.items() if set(each) == {"on"}}


def _ordered(of_kind: list[Row]) -> list[Row]:
    return sorted(of_kind, key=lambda row: (row["scores"] != "own", row["detector"]))


def _of_enough(cell: list[Row]) -> list[Row]:
    """The rows of sets of which so many pairs are there that an interval says something."""
    sets = comparisons.in_order((row["source"], row["imbalance"]) for row in cell)
    parts = [[row for row in cell if (row["source"], row["imbalance"]) == each] for each in sets]
    return [row for part in parts if _change(part, "aupr").count >= FEWEST_PAIRS for row in part]


def _change(cell: Iterable[Row], metric: str) -> comparisons.Change:
    return comparisons.change(cell, metric, ON, OFF)


def _line(cell: Cell) -> str:
    """The line of a table."""
    rarest = _change(cell.rows, "auroc_rarest")
    entries = [
        cell.detector,
        cell.scores,
        len({(row["source"], row["imbalance"]) for row in cell.rows}),
        cell.aupr.count,
        cell.aupr,
        rarest if rarest.count else "",
        *(f"{time:.3g}" for time in _times(cell.rows)),
        cell.default,
        cell.says,
    ]
    return f"| {' | '.join(map(str, entries))} |"


def _times(cell: list[Row]) -> tuple[float, float]:
    """The median over pairs of seconds without weights, and of seconds with them by seconds without."""
    seconds: dict[tuple[Any, ...], dict[str, float]] = {}
    for row in cell:
        seconds.setdefault((row["source"], row["imbalance"], row["draw"]), {})[row["weighting"]] = row["seconds_fit"]
    pairs = [pair for pair in seconds.values() if len(pair) == 2 and pair["off"] > 0]
    ratios = [pair["on"] / pair["off"] for pair in pairs]
    return float(np.median([pair["off"] for pair in pairs])), float(np.median(ratios))


def _by_set(of_kind: list[Row]) -> list[str]:
    """A line for each set, a column for each detector and way to read scores."""
    columns = comparisons.in_order((row["detector"], row["scores"]) for row in of_kind)
    lines = [f"| set | {' | '.join(f'{detector}, {scores}' for detector, scores in columns)} |"]
    lines.append("|" + "---|" * (1 + len(columns)))
    for source, imbalance in comparisons.in_order((row["source"], row["imbalance"]) for row in of_kind):
        cells = [f"{source}{'' if imbalance == AS_GIVEN else f' {imbalance}:1'}"]
        for column in columns:
            place = (source, imbalance, *column)
            own = [r for r in of_kind if (r["source"], r["imbalance"], r["detector"], r["scores"]) == place]
            change = _change(own, "aupr")
            cells.append(str(change) if change.count >= FEWEST_PAIRS else f"{change.mean:+.3f}" if change.count else "")
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _cost(every: list[Row]) -> list[str]:
    timed = [row for row in every if "seconds_off" in row]
    if not timed:
        return []
    lines = [
        "## A fit without weights costs what plain costs", "",
        '`tailwise.fit` as it is on 500 rows of 32 numbers, its weights off, and with `weighting=""`; medians of '
        "CPU seconds, the two in turn.", "", "| detector | default, s | plain, s | ratio | repeats |",
        "|" + "---|" * 5,
    ]  # fmt: skip
    for row in timed:
        off, plain = (float(np.median(row[name])) for name in ("seconds_off", "seconds_plain"))
        what = f"| {row['settings']['cost of']} | {off:.2f} | {plain:.2f} | {off / plain:.3f} |"
        lines.append(f"{what} {len(row['seconds_off'])} |")
    return [*lines, ""]

"""What rows say when they are held against each other: paired changes with their intervals.

A change is a method less another on the same draw; its interval is bootstrapped over draws, within each cell.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from .rows import key
from .suites import AS_GIVEN

_BOOTSTRAPS = 2_000
_WORTH_RECOVERING = 0.02
_WHERE = ("suite", "source", "imbalance", "contamination")
_METHOD = ("detector", "weighting", "scores")
Row = dict[str, Any]
Choice = dict[str, str]
PLAIN = {"weighting": "uniform", "scores": "own"}
WEIGHTED = {"weighting": "auto", "scores": "own"}
AUTO = {"weighting": "auto", "scores": "auto"}
ORACLE = {"weighting": "oracle", "scores": "own"}


@dataclass(frozen=True)
class Change:
    """A mean of paired differences and its 95 % interval; `count` draws."""

    mean: float
    low: float
    high: float
    count: int

    def __str__(self) -> str:
        return f"{self.mean:+.3f} [{self.low:+.3f}, {self.high:+.3f}]" if self.count else "no pairs yet"


def reported(rows: Iterable[Row]) -> list[Row]:
    """Finished rows of the part that is reported: confirmation draws, or development draws while there are none.

    Of a method whose settings have changed only the newest settings count.
    """
    rows = list(rows)
    part = part_of(rows)
    newest = {_cell(row): _spelled(row) for row in rows if row["status"] == "ok" and row["part"] == part}
    finished = [row for row in rows if row["status"] == "ok" and row["part"] == part]
    return [row for row in finished if _spelled(row) == newest[_cell(row)]]


def change(rows: Iterable[Row], metric: str, method: Choice, base: Choice = PLAIN) -> Change:
    """How `method` differs from `base`, paired by draw and detector.

    Every source and its conditions count the same; draws are resampled within them, with all their detectors.
    """
    sides: dict[tuple[Any, ...], dict[str, float]] = {}
    for row in rows:
        for side, wanted in (("method", method), ("base", base)):
            if metric in row["metrics"] and is_of(row, wanted):
                place = (tuple(row[name] for name in _WHERE), row["draw"], row["detector"])
                sides.setdefault(place, {})[side] = row["metrics"][metric]
    by_draw: dict[tuple[Any, ...], dict[int, list[float]]] = {}
    for (where, draw, _), pair in sides.items():
        if len(pair) == 2:
            by_draw.setdefault(where, {}).setdefault(draw, []).append(pair["method"] - pair["base"])
    return bootstrapped([np.array([np.mean(each) for each in draws.values()]) for draws in by_draw.values()])


def bootstrapped(cells: list[np.ndarray]) -> Change:
    """The mean over cells of the mean over their draws, which are resampled within each cell."""
    if not cells:
        return Change(float("nan"), float("nan"), float("nan"), 0)
    generator = np.random.default_rng(0)
    means = np.mean([generator.choice(cell, (_BOOTSTRAPS, len(cell))).mean(1) for cell in cells], axis=0)
    low, high = np.quantile(means, [0.025, 0.975])
    return Change(float(np.mean([cell.mean() for cell in cells])), float(low), float(high), sum(map(len, cells)))


def by_cell(rows: list[Row], method: Choice, metric: str = "aupr") -> dict[tuple[str, str], Change]:
    """The change against the plain detector for each (source, detector)."""
    changes = {}
    for source, detector in in_order((row["source"], row["detector"]) for row in rows):
        of_cell = [row for row in rows if (row["source"], row["detector"]) == (source, detector)]
        if (each := change(of_cell, metric, method)).count:
            changes[source, detector] = each
    return changes


def long_tailed(rows: list[Row]) -> list[Row]:
    """Rows of each source at its strongest imbalance, without hidden anomalies; sources that know no kinds are out."""
    rows = [row for row in rows if not row["contamination"] and row["groups"] and row["imbalance"] != 1]
    strongest = {row["source"]: 0.0 for row in rows}
    for row in rows:
        if row["imbalance"] != AS_GIVEN:
            strongest[row["source"]] = max(strongest[row["source"]], row["imbalance"])
    return [row for row in rows if row["imbalance"] in (AS_GIVEN, strongest[row["source"]])]


@dataclass(frozen=True)
class Recovered:
    """What a method gains on a long tail, and what balanced training data would give the plain detector, in AUPR."""

    gained: float
    possible: float


def recovered(rows: list[Row], method: Choice) -> dict[tuple[str, str], Recovered]:
    """For each (source, detector) with balanced draws, on the draws that have them; where they give .02 or more."""
    shares = {}
    tail, balanced = long_tailed(rows), [row for row in rows if row["imbalance"] == 1 and not row["contamination"]]
    for source, detector in in_order((row["source"], row["detector"]) for row in tail):
        cell = {"source": source, "detector": detector}
        sides = [
            {row["draw"]: row["metrics"]["aupr"] for row in side if is_of(row, {**cell, **wanted})}
            for side, wanted in ((tail, method), (tail, PLAIN), (balanced, PLAIN))
        ]
        shared = set.intersection(*(set(side) for side in sides))
        if shared:
            ours, plain, even = (float(np.mean([side[draw] for draw in shared])) for side in sides)
            if even - plain >= _WORTH_RECOVERING:
                shares[source, detector] = Recovered(ours - plain, even - plain)
    return shares


def mean_over_sources(rows: list[Row], metric: str) -> float:
    """Mean over sources of the mean over rows; NaN where no row has it."""
    values: dict[str, list[float]] = {}
    for row in rows:
        if metric in row["metrics"]:
            values.setdefault(row["source"], []).append(row["metrics"][metric])
    return float(np.mean([np.mean(each) for each in values.values()])) if values else float("nan")


def has(rows: list[Row], method: Choice) -> bool:
    """Whether any row is of this method."""
    return any(is_of(row, method) for row in rows)


def is_of(row: Row, choice: Choice) -> bool:
    """Whether a row has all these values."""
    return all(row[name] == value for name, value in choice.items())


def part_of(rows: Iterable[Row]) -> str:
    """The part that is reported: "confirmation" if it has finished rows, else "development"; "" without any."""
    parts = {row["part"] for row in rows if row["status"] == "ok"}
    return "confirmation" if "confirmation" in parts else "development" if parts else ""


def name_of(row: Row) -> tuple[str, ...]:
    """(detector, weighting, scores)."""
    return tuple(row[name] for name in _METHOD)


def _cell(row: Row) -> tuple[Any, ...]:
    return (*(row[name] for name in _WHERE), *name_of(row), row.get("refinement", ""))


def _spelled(row: Row) -> tuple[str, ...]:
    settings = {name: value for name, value in row["settings"].items() if name != "draw"}
    return (key(settings),)


def in_order(items: Iterable[Any]) -> list[Any]:
    """The distinct items, in the order of their first appearance."""
    return list(dict.fromkeys(items))

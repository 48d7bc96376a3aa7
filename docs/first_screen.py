"""Tables of the README and of docs/theory.md, from the rows of benchmarks/results.

The README's has the defaults beside their peers.

Three things that a reader cares for: a long tail (confirmation draws at 100:1), ordinary tables, and tables with 1, 2
and 5 % of hidden anomalies in the training data. Means over sources or tables of the means over their draws. That of
docs/theory.md has what weighting and local scores add, each alone.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from tailwise.benchmark import comparisons
from tailwise.benchmark.rows import read_all
from tailwise.core import modality

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"
DEFAULT = "tailwise fit"
METHODS = (DEFAULT, "plain", "kNN", "LOF", "isolation forest")
THINGS = ("long tail, 100:1", "ordinary tables", "hidden anomalies")
FIGURES = ("auroc", "aupr")
_WHERE = {
    THINGS[0]: "[{count} image and feature sets](benchmarks/results/long-tail.md)",
    THINGS[1]: "[{count} tables](benchmarks/defaults.md)",
    THINGS[2]: "[the same, 1, 2 and 5 %](benchmarks/defaults.md)",
}
_LOCAL = {"weighting": "uniform", "scores": "auto"}
Row = dict[str, Any]
# Of one thing and figure: by method, by set, by draw.
Values = dict[str, dict[str, dict[Any, float]]]


def table() -> str:
    """The table in Markdown; a method without rows of every set of a thing has a dash there."""
    things = {thing: {figure: values(thing, figure) for figure in FIGURES} for thing in THINGS}
    counts = {thing: len(each["auroc"].get(DEFAULT, {})) for thing, each in things.items()}
    lines = [
        f"| AUROC / AUPR | {' | '.join(THINGS)} |",
        "|---|" + "---:|" * len(THINGS),
        *(f"| {name} | {' | '.join(cell(things[thing], name) for thing in THINGS)} |" for name in METHODS),
    ]
    where = ", ".join(_WHERE[thing].format(count=counts[thing]) for thing in THINGS)
    return "\n".join([*lines, "", f"Bold: the best. {_ahead(things)}", f"From {where}.{_measured_before()}"])


def _ahead(things: dict[str, dict[str, Values]]) -> str:
    """Which methods are better than the default by more than the interval."""
    better = [
        f"{name} in {figure.upper()}, {thing}"
        for thing, figures in things.items()
        for figure, each in figures.items()
        for name in METHODS[1:]
        if _is_whole(each, name) and difference(each[name], each[DEFAULT])[0] > 0
    ]
    said = ", ".join(better) if better else "Nothing"
    return f"{said} is better than `{DEFAULT}` without options by more than the 95 % interval."


def _measured_before() -> str:
    """That rows of the long tail are of other defaults, where they are."""
    now = all(row["settings"].get("suspects") for row in _tails() if _name(row) == DEFAULT)
    return "" if now else " The long tail was measured with local scores of all of the level, and weights."


def cell(thing: dict[str, Values], name: str) -> str:
    """The means of a method, the best ones bold."""
    return " / ".join(_cell(each, name) for each in thing.values())


def _cell(values: Values, name: str) -> str:
    if not _is_whole(values, name):
        return "-"
    means = {other: round(mean(values[other]), 3) for other in METHODS if _is_whole(values, other)}
    text = f"{means[name]:.3f}"
    return f"**{text}**" if means[name] == max(means.values()) else text


def _is_whole(values: Values, name: str) -> bool:
    """Whether a method has rows of every set that the default has rows of."""
    return bool(values.get(name)) and values[name].keys() == values[DEFAULT].keys()


def mean(of_sets: dict[str, dict[Any, float]]) -> float:
    return float(np.mean([np.mean([*draws.values()]) for draws in of_sets.values()]))


def difference(ours: dict[str, dict[Any, float]], theirs: dict[str, dict[Any, float]]) -> tuple[float, float]:
    """The 95 % interval of the mean of ours less theirs over sets: each set is one observation."""
    less = [np.mean([ours[name][draw] - theirs[name][draw] for draw in ours[name]]) for name in ours]
    half = 1.96 * float(np.std(less, ddof=1)) / math.sqrt(len(less))
    return float(np.mean(less)) - half, float(np.mean(less)) + half


def values(thing: str, figure: str) -> Values:
    """The rows of one thing, by method, set and draw."""
    return _of_tails(figure) if thing == THINGS[0] else _of_tables(figure, hidden=thing == THINGS[2])


def _of_tables(figure: str, hidden: bool) -> Values:
    names = {"default": DEFAULT} | {name: name for name in METHODS[1:]}
    held: Values = {}
    for row in _rows("defaults.jsonl"):
        if row["task"] == "fit" and bool(row["hidden"]) == hidden and row["method"] in names:
            draws = held.setdefault(names[row["method"]], {}).setdefault(row["table"], {})
            draws[row["hidden"], row["seed"]] = row[figure]
    return held


def _of_tails(figure: str) -> Values:
    """On the draws that the default has rows of."""
    held: Values = {}
    for row in _tails():
        if name := _name(row):
            held.setdefault(name, {}).setdefault(row["source"], {})[row["draw"]] = row["metrics"][figure]
    wanted = {source: [*draws] for source, draws in held[DEFAULT].items()}
    return {
        name: {source: {draw: sets[source][draw] for draw in draws} for source, draws in wanted.items()}
        for name, sets in held.items()
        if all({*draws} <= {*sets.get(source, {})} for source, draws in wanted.items())
    }


def _tails() -> list[Row]:
    rows = comparisons.reported(_rows("long-tail.jsonl"))
    return [row for row in rows if (row["imbalance"], row["contamination"]) == (100, 0)]


def _name(row: Row) -> str:
    """What the table calls the method of a row; "" where it shows none."""
    if row["detector"] in METHODS[2:]:
        return str(row["detector"])
    spelled = row["settings"]["source"]
    are_rows = spelled["features"] or spelled["flatten"] or spelled["source"].startswith("Table")
    if row["detector"] != (modality.ROW if are_rows else modality.IMAGE).detector:
        return ""
    ways = {("auto", "auto"): DEFAULT, ("uniform", "own"): METHODS[1]}
    return ways.get((row["weighting"], row["scores"]), "")


def _rows(name: str) -> list[Row]:
    return read_all(RESULTS / name)


def apart() -> str:
    """What weighting alone and local scores alone add to each detector on the long tails, in Markdown."""
    rows = comparisons.long_tailed(comparisons.reported(_rows("long-tail.jsonl")))
    lines = ["| | weighting: AUPR | rarest kind | local scores: AUPR | rarest kind |", "|---|" + "---:|" * 4]
    for name in comparisons.in_order(row["detector"] for row in rows if row["scores"] == "auto"):
        mine = [row for row in rows if row["detector"] == name]
        cells = [
            str(comparisons.change(mine, figure, way))
            for way in (comparisons.WEIGHTED, _LOCAL)
            for figure in ("aupr", "auroc_rarest")
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    rules = sorted({row["settings"]["scores"] for row in rows if comparisons.is_of(row, _LOCAL)})
    return "\n".join([*lines, "", f"Local scores of these rows: {', '.join(f'`{rule}`' for rule in rules)}."])

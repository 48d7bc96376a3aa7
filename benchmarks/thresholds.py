"""How far can a small folder's threshold be relied on, and what do two unnoticed defects in it do?

    python benchmarks/thresholds.py run --rows benchmarks/results/thresholds.jsonl
    python benchmarks/thresholds.py page --rows benchmarks/results/thresholds.jsonl > benchmarks/thresholds.md

A seed draws 60 good solar cells (the package elpv-dataset), writes them to a folder, and fits it as a person does:
`tailwise.fit(FOLDER)`. That is done with the default, whose threshold is cross-fitted, and with --cross 0, whose
threshold rests on the 18 cells that it holds out; with the cells alone, and with two defective ones among them. 600
other good cells and 200 other defective ones test, so that most of the spread is the threshold's own. Rows are
appended; a fit that has its row is not done again. The defaults were chosen on other draws (LOG.md).
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import logging
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import tailwise
from tailwise.benchmark.rows import append, commit, read_all
from tailwise.sources.auto import open_source
from tailwise.sources.solar import SolarCells

GOOD, PLANTED, MOST_GOOD, MOST_BAD = 60, 2, 600, 200
SEEDS = tuple(range(330, 360))
DETECTORS = ("auto", "gaussian")
WAYS: dict[str, int | None] = {"default": None, "held out": 0}
ALPHA = 0.05
LOW, HIGH = 0.1, 0.9
Rows = list[dict[str, Any]]


@dataclass(frozen=True, eq=False)
class Cells:
    """Files of cells, and what a fit of a folder reads of them: pooled features [n, d], or maps [n, d, h, w]."""

    files: Sequence[Path]
    features: np.ndarray

    def take(self, index: np.ndarray) -> Cells:
        return Cells([self.files[i] for i in index], self.features[index])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "page"))
    parser.add_argument("--rows", type=Path, required=True)
    parser.add_argument("--detectors", nargs="+", default=list(DETECTORS))
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    options = parser.parse_args()
    if options.what == "page":
        print(page(read_all(options.rows)), end="")
        return
    torch.set_num_threads(1)
    logging.getLogger("tailwise").setLevel(logging.ERROR)  # what it says of small sets is what is measured here
    rows = read_all(options.rows)
    for detector in options.detectors:
        good, bad = solar_cells(maps=detector == "auto")
        for seed in options.seeds:
            for row in rows_of(good, bad, seed, [detector], [place_of(row) for row in rows]):
                append(options.rows, row)
                print(*place_of(row), file=sys.stderr)


def place_of(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in ("seed", "detector", "threshold_by", "planted"))


def solar_cells(maps: bool) -> tuple[Cells, Cells]:
    """All good cells, and all defective ones."""
    everything = SolarCells().load_all()
    package = importlib.util.find_spec("elpv_dataset")
    assert package is not None  # the source has read it
    assert package.origin is not None
    folder = Path(package.origin).parent / "data"
    files = [folder / str(name) for name in everything.data.names]
    labels = np.asarray(everything.labels, dtype=bool)
    # Read as a fit of a folder reads them.
    found = open_source(str(folder), maps=None if maps else False).load_all().data
    place = {Path(name).name: i for i, name in enumerate(found.names)}
    order = torch.tensor([place[file.name] for file in files])
    features = torch.cat([found.read(part) for part in order.split(256)]).numpy()
    cells = Cells(files, features)
    return cells.take(np.flatnonzero(~labels)), cells.take(np.flatnonzero(labels))


def rows_of(good: Cells, bad: Cells, seed: int, detectors: Sequence[str], done: Sequence[tuple[Any, ...]] = ()) -> Any:
    """A row for each detector, way to a threshold and number of defects among the training images."""
    generator = np.random.default_rng(seed)
    order, bad_order = generator.permutation(len(good.files)), generator.permutation(len(bad.files))
    train, new = good.take(order[:GOOD]), good.take(order[GOOD:][:MOST_GOOD])
    planted, defects = bad.take(bad_order[:PLANTED]), bad.take(bad_order[PLANTED:][:MOST_BAD])
    for detector, way, count in itertools.product(detectors, WAYS, (0, PLANTED)):
        place = (seed, detector, way, count)
        if place not in done:
            names = ("seed", "detector", "threshold_by", "planted")
            with tempfile.TemporaryDirectory() as folder:
                files = [*train.files, *planted.files[:count]]
                figures = measure(Path(folder), files, planted.files[:count], new, defects, detector, WAYS[way])
            yield dict(zip(names, place, strict=True)) | figures


def measure(
    folder: Path, files: Sequence[Path], planted: Sequence[Path], new: Cells, defects: Cells, detector: str,
    cross: int | None,
) -> dict[str, Any]:  # fmt: skip
    """What a fit of the files came to: rates on new cells and defects, and where the planted ones are named."""
    images = folder / "images"
    images.mkdir()
    for file in files:
        shutil.copyfile(file, images / file.name)
    run = tailwise.fit(images, detector=detector, cross=cross, out=folder / "run")
    outcome, names = run.outcome(), [file.name for file in planted]
    flagged, caught = (run.score(cells.features)["flagged"].mean() for cells in (new, defects))
    report = (folder / "run" / "report.html").read_text()
    suspects = {Path(name).name for name in outcome["suspects"]}
    raises = {Path(name).name for name in outcome["sets_the_threshold"]}
    table = run.scores().sort_values("calibration", ascending=False, na_position="last")
    highest = [Path(name).name for name in table["sample"].head(5)]
    return {
        "false_alarms": round(float(flagged), 5), "caught": round(float(caught), 5),
        "threshold": outcome["threshold"], "calibrated_on": outcome["calibrated_on"],
        "promised": outcome["promised"], "range": [round(end, 5) for end in outcome["range"]],
        "suspects": sum(name in suspects for name in names), "raising": sum(name in raises for name in names),
        "highest": sum(name in highest for name in names), "in_report": sum(name in report for name in names),
        "falsely_named": len((suspects | raises) - set(names)), "tested": len(new.files), "commit": commit(),
    }  # fmt: skip


def page(rows: Rows) -> str:
    """The rows as a page: the spread of false alarms, and what two planted defects cost."""
    seeds = sorted({row["seed"] for row in rows})
    lines = [
        "# How far can a small folder's threshold be relied on?", "",
        "Written from results/thresholds.jsonl by benchmarks/thresholds.py, which says how each figure is made: "
        f"{len(seeds)} seeds, {seeds[0]} to {seeds[-1]}.",
        "60 good solar cells train; 5 % false alarms are asked for. The spread is the 90 % quantile less the 10 %",
        "quantile over seeds. `auto` is the default detector.", "", "## The cells alone", "",
        "| detector | threshold | rests on | false alarms | 10 % | 90 % | spread | spread by held out's | caught |",
        "|" + "---|" * 9,
    ]  # fmt: skip
    detectors = list(dict.fromkeys(row["detector"] for row in rows))
    for detector, way in itertools.product(detectors, WAYS):
        lines.append(_spread_line(rows, detector, way))
    lines += ["", "## Two defects among them", "",
              "Detection is in the mean over seeds; the fall is that of the mean. A planted defect is named where the",
              "fit calls it a suspect, which does not train, or says that it raises the threshold. It is among the",
              "highest where its score is one of the five that a look at the scores shows first.", "",
              "| detector | threshold | caught without | with | fall | false alarms with | a planted one is named | "
              "among the highest | good ones named, mean |", "|" + "---|" * 9]  # fmt: skip
    for detector, way in itertools.product(detectors, WAYS):
        lines.append(_planted_line(rows, detector, way))
    return "\n".join([*lines, "", *_bounds(rows, detectors), ""])


def _of(rows: Rows, detector: str, way: str, planted: int) -> Rows:
    return [row for row in rows if (row["detector"], row["threshold_by"], row["planted"]) == (detector, way, planted)]


def _mean(rows: Rows, name: str) -> float:
    return float(np.mean([row[name] for row in rows])) if rows else float("nan")


def _spread(rows: Rows) -> float:
    low, high = np.quantile([row["false_alarms"] for row in rows], [LOW, HIGH])
    return float(high - low)


def _spread_line(rows: Rows, detector: str, way: str) -> str:
    own, held = _of(rows, detector, way, 0), _of(rows, detector, "held out", 0)
    low, high = np.quantile([row["false_alarms"] for row in own], [LOW, HIGH])
    return (
        f"| {detector} | {way} | {own[0]['calibrated_on']} | {_mean(own, 'false_alarms'):.3f} | {low:.3f} | {high:.3f}"
        f" | {high - low:.3f} | {_spread(own) / _spread(held):.2f} | {_mean(own, 'caught'):.3f} |"
    )


def _fall(rows: Rows, detector: str, way: str) -> float:
    """The share of detection that planted defects cost."""
    return 1 - _mean(_of(rows, detector, way, PLANTED), "caught") / _mean(_of(rows, detector, way, 0), "caught")


def _planted_line(rows: Rows, detector: str, way: str) -> str:
    without, own = _of(rows, detector, way, 0), _of(rows, detector, way, PLANTED)
    named = np.mean([row["suspects"] + row["raising"] > 0 for row in own])
    return (
        f"| {detector} | {way} | {_mean(without, 'caught'):.3f} | {_mean(own, 'caught'):.3f} | "
        f"{100 * _fall(rows, detector, way):.0f} % | {_mean(own, 'false_alarms'):.3f} | {100 * named:.0f} % of seeds | "
        f"{100 * np.mean([row['highest'] > 0 for row in own]):.0f} % of seeds | {_mean(own, 'falsely_named'):.2f} |"
    )


def _bounds(rows: Rows, detectors: Sequence[str]) -> list[str]:
    """Whether the default's spread is at most half of held out's, and its detection falls by at most a tenth."""
    lines = ["## Bounds", ""]
    for detector in detectors:
        ratio = _spread(_of(rows, detector, "default", 0)) / _spread(_of(rows, detector, "held out", 0))
        fall = _fall(rows, detector, "default")
        lines += [
            f"- {detector}: spread {ratio:.2f} times held out's (at most .5): {'kept' if ratio <= 0.5 else 'missed'}",
            f"- {detector}: detection falls by {100 * fall:.1f} % with two defects (at most 10 %): "
            f"{'kept' if fall <= 0.1 else 'missed'}",
        ]
    return lines


if __name__ == "__main__":
    main()

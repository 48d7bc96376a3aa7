"""What patches, positions and pooled features cannot see, on made pictures: a wrong number of parts, turned ones.

    python benchmarks/image_limits.py run
    python benchmarks/image_limits.py page > benchmarks/image_limits.md

A picture shows six discs in free places on a plate, or, for the turned ones, in fixed places. Each seed makes 100 good
pictures to fit on, and 40 of each kind to test: good, one disc missing, one too many, one with a scratch; and good ones
turned by a half and by a quarter. Every detector reads EfficientNet-Lite0, weighs nothing, and takes its threshold from
good pictures that it holds out.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import scipy
from PIL import Image, ImageDraw
from sklearn.metrics import roc_auc_score

import tailwise
from tailwise.benchmark.rows import append, commit, read_all

ROWS = Path(__file__).parent / "results" / "image_limits.jsonl"
DETECTORS = ("auto", "patch-memory", "padim", "nearest-neighbours")
SEEDS = (0, 1)
TRAIN, TEST, SIDE, DISCS, RADIUS = 100, 40, 224, 6, 17
FIXED = ((50, 50), (112, 60), (170, 45), (60, 150), (120, 120), (175, 170))
FREE = {"good": (6, 0), "one missing": (5, 0), "one too many": (7, 0), "scratched": (6, 1)}
TURNED = {"upright": 0, "turned by a half": 2, "turned by a quarter": 1}


def drawn(generator: np.random.Generator, places: Any, scratches: int = 0) -> np.ndarray:
    """A plate [side, side, 3] with discs in these places."""
    image = Image.new("RGB", (SIDE, SIDE), (90, 95, 100))
    draw = ImageDraw.Draw(image)
    for number, (x, y) in enumerate(places):
        draw.ellipse(
            (x - RADIUS, y - RADIUS, x + RADIUS, y + RADIUS), fill=(190, 170, 90), outline=(60, 50, 20), width=3
        )
        draw.ellipse((x - 5, y - 5, x + 5, y + 5), fill=(60, 50, 20))
        if number < scratches:
            draw.line((x - 13, y - 9, x + 12, y + 11), fill=(235, 235, 235), width=3)
    noise = scipy.ndimage.gaussian_filter(generator.normal(0, 25, (SIDE, SIDE)), 1)[..., None]
    return (np.asarray(image) + noise + generator.normal(0, 2, 3)).clip(0, 255).astype(np.uint8)


def free_places(generator: np.random.Generator, count: int) -> list[tuple[int, int]]:
    """Places of discs that do not touch."""
    places: list[tuple[int, int]] = []
    while len(places) < count:
        x, y = (int(value) for value in generator.integers(RADIUS + 4, SIDE - RADIUS - 4, 2))
        if all((x - a) ** 2 + (y - b) ** 2 > (2 * RADIUS + 4) ** 2 for a, b in places):
            places.append((x, y))
    return places


def fixed_places(generator: np.random.Generator) -> list[tuple[int, int]]:
    return [
        (x + int(dx), y + int(dy)) for (x, y), (dx, dy) in zip(FIXED, generator.integers(-2, 3, (6, 2)), strict=True)
    ]


def write(folder: Path, pictures: list[np.ndarray]) -> Path:
    folder.mkdir(parents=True)
    for number, picture in enumerate(pictures):
        Image.fromarray(picture).save(folder / f"{number:03}.png")
    return folder


def rows_of(seed: int, place: Path) -> Any:
    generator = np.random.default_rng(seed)
    write(place / "free", [drawn(generator, free_places(generator, DISCS)) for _ in range(TRAIN)])
    write(place / "fixed", [drawn(generator, fixed_places(generator)) for _ in range(TRAIN)])
    for kind, (count, scratches) in FREE.items():
        write(place / kind, [drawn(generator, free_places(generator, count), scratches) for _ in range(TEST)])
    for kind, quarters in TURNED.items():
        write(place / kind, [np.rot90(drawn(generator, fixed_places(generator)), quarters) for _ in range(TEST)])
    for detector in DETECTORS:
        for training, kinds in (("free", FREE), ("fixed", TURNED)):
            run = tailwise.fit(
                place / training,
                detector=detector,
                weighting="",
                cross=0,
                out=place / f"{training} {detector}",
                seed=seed,
            )
            tables = {kind: run.score(str(place / kind)) for kind in kinds}
            usual = tables[next(iter(kinds))]["score"]
            for kind, table in tables.items():
                labels = np.repeat([0, 1], [len(usual), len(table)])
                auroc = roc_auc_score(labels, np.concatenate([usual, table["score"]]))
                yield {
                    "seed": seed, "detector": detector, "kind": kind, "auroc": float(auroc),
                    "rejected": float(table["flagged"].mean()), "commit": commit(),
                }  # fmt: skip


def page(rows: list[dict[str, Any]]) -> str:
    lines = [
        "# What detectors of images cannot see", "",
        "Written by `benchmarks/image_limits.py` from results/image_limits.jsonl: made pictures of six discs on a",
        f"plate, {TRAIN} good ones to fit on, {TEST} of each kind to test, {len({row['seed'] for row in rows})} seeds.",
        "Image AUROC against good ones, and the share rejected at the run's own threshold, for 5 % of good ones. The",
        "discs lie in any place; those of the turned pictures lie in fixed ones.", "",
    ]  # fmt: skip
    kinds = [*list(FREE)[1:], *list(TURNED)[1:]]
    lines += ["| detector | good rejected | " + " | ".join(kinds) + " |", "| --- " * (len(kinds) + 2) + "|"]
    for detector in DETECTORS:
        of = [row for row in rows if row["detector"] == detector]
        good = np.mean([row["rejected"] for row in of if row["kind"] in ("good", "upright")])
        cells = []
        for kind in kinds:
            own = [row for row in of if row["kind"] == kind]
            said = np.mean([row["auroc"] for row in own]), np.mean([row["rejected"] for row in own])
            cells.append(f"{said[0]:.3f}, rejected {said[1]:.0%}")
        lines.append(f"| {detector} | {good:.0%} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "page"))
    options = parser.parse_args()
    if options.what == "page":
        print(page(read_all(ROWS)), end="")
        return
    for seed in SEEDS:
        with tempfile.TemporaryDirectory() as folder:
            for row in rows_of(seed, Path(folder)):
                append(ROWS, row)
                print(row, flush=True)


if __name__ == "__main__":
    main()

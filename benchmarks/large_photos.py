"""200 photos of 12 megapixels with planted defects of 20 pixels: time, memory and AUROC of a fit and a scoring.

python benchmarks/large_photos.py run [--size SIZE] [--folder FOLDER]
python benchmarks/large_photos.py page

140 good photos train; 30 good ones and 30 with one defect each are scored. The photos are generated: plates of brushed
metal with holes, no two alike in light, grain, place and tint; a defect is a pit, a scratch or a drop somewhere on one.
Both commands run as a user runs them, in processes of their own, with an empty cache. Rows go to
benchmarks/results/large_photos.jsonl, the page to benchmarks/large-photos.md.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

# Set before torch is imported: afterwards it is too late.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pandas as pd
from PIL import Image

import tailwise
from tailwise.benchmark import rows
from tailwise.benchmark.tables import table
from tailwise.numerics import metrics
from tailwise.runs import files

RESULTS = Path(__file__).parent / "results" / "large_photos.jsonl"
PAGE = Path(__file__).parent / "large-photos.md"
SHAPE = (3_000, 4_000)
# Folder, how many photos, and whether they have a defect.
PARTS = (("train", 140, False), ("test/good", 30, False), ("test/bad", 30, True))
DEFECT = 20
HEAD = """# Photos of 12 megapixels

Written by `python benchmarks/large_photos.py page` from results/large_photos.jsonl. 200 generated photos of 4000 x 3000
pixels (JPEG): 140 good ones are fitted, 30 good ones and 30 with one planted defect of 20 pixels are scored, by the
commands as they come, one thread, nothing in the cache. Seconds are of the CPU, both commands together; memory is the
larger peak of the two. The contrast of the defects is 40 to 80 grey levels, that of the grain about 10.

"""
HEADINGS = ["read at", "image AUROC", "good flagged", "defects flagged", "CPU s, fit", "CPU s, score", "peak MB"]


def photo(seed: int, defect: bool, shape: tuple[int, int] = SHAPE) -> tuple[Image.Image, tuple[int, int] | None]:
    """A plate, and the row and column of its defect, None where there is none."""
    generator = np.random.default_rng(seed)
    height, width = shape
    grey = np.full(shape, 150 + generator.normal(0, 6), np.float32)
    for strength, cell in ((10, 500), (5, 60), (5, 12)):
        grey += strength * _octave(generator, cell, shape)
    lines = generator.normal(size=(height, width // 200 + 3)).astype(np.float32)
    grey += 6 * np.asarray(Image.fromarray(lines).resize((width, height), Image.Resampling.BICUBIC))
    grey += 6 * generator.standard_normal((height, width), dtype=np.float32)
    _drill(grey, generator)
    where = _damage(grey, generator) if defect else None
    tint = (np.array([1.0, 0.98, 0.94]) + generator.normal(0, 0.01, 3)).astype(np.float32)
    return Image.fromarray(np.clip(grey[..., None] * tint, 0, 255).astype(np.uint8)), where


def _octave(generator: np.random.Generator, cell: int, shape: tuple[int, int]) -> np.ndarray:
    """Noise whose blotches are so many pixels wide."""
    rows_, columns = (side // cell + 3 for side in shape)
    small = Image.fromarray(generator.normal(size=(rows_, columns)).astype(np.float32))
    large = small.resize((columns * cell, rows_ * cell), Image.Resampling.BICUBIC)
    return np.asarray(large)[: shape[0], : shape[1]]


def _drill(grey: np.ndarray, generator: np.random.Generator) -> None:
    """A lattice of holes, all moved by the same few pixels."""
    height, width = grey.shape
    down, right = generator.integers(-25, 26, 2)
    for row in range(300, height, 600):
        for column in range(400, width, 800):
            radius = 60 + generator.normal(0, 1)
            y, x = row + down, column + right
            part = slice(max(0, y - 80), min(height, y + 80)), slice(max(0, x - 80), min(width, x + 80))
            apart = np.hypot(np.arange(height)[part[0], None] - y, np.arange(width)[part[1]] - x)
            hole = np.where(apart < radius, 50 + 0.2 * (grey[part] - 150), grey[part])
            grey[part] = hole + 25 * np.exp(-(((apart - radius) / 4) ** 2))


def _damage(grey: np.ndarray, generator: np.random.Generator) -> tuple[int, int]:
    """A pit, a scratch or a drop 20 pixels long; where."""
    kind = int(generator.integers(3))
    row, column = (int(generator.integers(3 * DEFECT, side - 3 * DEFECT)) for side in grey.shape)
    places = np.arange(-DEFECT, DEFECT)
    strength = generator.uniform(40, 80)
    round_ = 1 / (1 + np.exp(np.hypot(places[:, None], places) - 9))
    if kind == 1:
        angle = generator.uniform(0, np.pi)
        along = places[:, None] * np.sin(angle) + places * np.cos(angle)
        across = places[:, None] * np.cos(angle) - places * np.sin(angle)
        round_ = ((np.abs(along) < DEFECT / 2) & (np.abs(across) < 2)).astype(float)
    part = slice(row - DEFECT, row + DEFECT), slice(column - DEFECT, column + DEFECT)
    grey[part] += (-strength if kind == 0 else strength) * round_
    return row, column


def make(folder: Path) -> None:
    """The photos that are not there yet."""
    for number, (part, count, defect) in enumerate(PARTS):
        (folder / part).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            path = folder / part / f"{i:03d}.jpg"
            if not path.exists():
                photo(1_000 * number + i, defect)[0].save(path, quality=90)


def command(*words: str, cache: str) -> dict[str, float]:
    """CPU seconds, wall seconds and peak MB of a command of tailwise."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, "-m", "tailwise", *words], check=True, env={**os.environ, "TAILWISE_CACHE": cache})
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "cpu": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "wall": time.perf_counter() - started,
        # Of the largest child so far, so of the larger of two.
        "peak_mb": after.ru_maxrss / 1_000,
    }


def measure(folder: Path, size: str) -> dict[str, Any]:
    """A row."""
    make(folder)
    with tempfile.TemporaryDirectory() as scratch:
        run, out = f"{scratch}/run", f"{scratch}/scores.csv"
        options = ["--size", size] if size else []
        fitted = command("fit", str(folder / "train"), "--out", run, *options, cache=f"{scratch}/cache")
        scored = command("score", run, str(folder / "test"), "--out", out, cache=f"{scratch}/cache")
        found = pd.read_csv(out)
        shape = tailwise.open_run(run).settings.sample_shape
    bad = found["sample"].str.startswith("bad").to_numpy()
    flagged = found["flagged"].to_numpy(dtype=bool)
    return {
        "status": "ok",
        "sample_shape": list(shape),
        "image_auroc": metrics.auroc(bad, found["score"].to_numpy()),
        "good_flagged": float(flagged[~bad].mean()),
        "bad_flagged": float(flagged[bad].mean()),
        "fit": fitted,
        "score": scored,
        "peak_mb": max(fitted["peak_mb"], scored["peak_mb"]),
    }


def page() -> str:
    """The rows as a table."""
    lines = []
    for row in rows.read_rows(RESULTS):
        shares = [f"{row[name]:.2f}" for name in ("good_flagged", "bad_flagged")]
        cost = [f"{value:.0f}" for value in (row["fit"]["cpu"], row["score"]["cpu"], row["peak_mb"])]
        lines.append([row["settings"]["size"] or "default (768x1024)", f"{row['image_auroc']:.3f}", *shares, *cost])
    return f"{HEAD}{table(HEADINGS, lines)}\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "page"))
    parser.add_argument("--size", default="", help="as --size of tailwise fit; the default is the library's")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "large-photos")
    asked = parser.parse_args()
    if asked.what == "run":
        row = measure(asked.folder, asked.size)
        rows.append(
            RESULTS, {"settings": {"size": asked.size}, **row, "commit": rows.commit(), "versions": rows.versions()}
        )
    files.write(PAGE, page().encode())


if __name__ == "__main__":
    main()

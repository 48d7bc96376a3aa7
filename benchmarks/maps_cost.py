"""What do score maps cost? CPU of `tailwise score --maps` beside that of `tailwise score`, of one run on one folder.

    python benchmarks/maps_cost.py --images 40 --size 128 --repeats 3

Both commands run in processes of their own, in turns, and share one run of patch-memory. With `--cold` every scoring
computes the backbone's features anew; otherwise they come from the cache, as when a folder is scored again.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image


def write_images(folder: Path, count: int, size: int) -> None:
    """Pictures of smooth colours with some noise, each with a ring somewhere."""
    folder.mkdir()
    generator = np.random.default_rng(0)
    down, right = np.mgrid[:size, :size] / size
    for number in range(count):
        centre, radius = generator.uniform(0.3, 0.7, 2), generator.uniform(0.15, 0.3)
        ring = np.exp(-((np.hypot(down - centre[0], right - centre[1]) - radius) ** 2) / 0.002)
        colours = np.stack([down, right, ring], 2) * 180 + generator.normal(30, 8, (size, size, 3))
        Image.fromarray(colours.clip(0, 255).astype(np.uint8)).save(folder / f"{number:03d}.png")


def cpu_seconds(*command: object, cache: Path) -> float:
    """User and system time of `python -m tailwise COMMAND`, with this folder for features; "off" keeps none."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = os.environ | {"TAILWISE_CACHE": str(cache)}
    subprocess.run(
        [sys.executable, "-m", "tailwise", *map(str, command)], check=True, capture_output=True, env=environment
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=40)
    parser.add_argument("--size", type=int, default=128, help="side of the pictures in pixels")
    parser.add_argument("--read", default="efficientnet-lite0")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--cold", action="store_true", help="compute features anew each time")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        folder, cache = Path(made), Path("off") if asked.cold else Path(made) / "cache"
        write_images(folder / "images", asked.images, asked.size)
        fit = ["--detector", "patch-memory", "--read", asked.read, "--size", asked.size, "--out", folder / "run"]
        cpu_seconds("fit", folder / "images", *fit, cache=cache)
        score = ["score", folder / "run", folder / "images"]
        alone, with_maps = [], []
        for turn in range(asked.repeats):
            alone.append(cpu_seconds(*score, cache=cache))
            with_maps.append(cpu_seconds(*score, "--maps", folder / f"maps{turn}", cache=cache))
    first, second = statistics.median(alone), statistics.median(with_maps)
    print(
        f"score {first:.2f} s, score --maps {second:.2f} s of CPU for {asked.images} images: {second / first:.2f} times"
    )


if __name__ == "__main__":
    main()

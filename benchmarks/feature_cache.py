"""How much faster is a second fit on the same images? CPU seconds from files to a run, a JSON line a detector.

    python benchmarks/feature_cache.py IMAGES

The cache of features is a new one for each detector: the first fit fills it, the second reads it, the third follows a
change of one image. What the first and the second leave is the same. One thread.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import time
from pathlib import Path

# Set before torch is imported: afterwards it is too late.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from PIL import Image, ImageOps

from tailwise.runs import store
from tailwise.sources.auto import open_source
from tailwise.sources.image_files import SUFFIXES
from tailwise.workflows.fit import fit_run
from tailwise.workflows.request import Request, make_detector

BACKBONE = "efficientnet-lite0"
# The first two read pooled features, the others maps.
DETECTORS = ("gaussian", "autoencoder", "padim", "patch-memory")


def fit(images: Path, out: Path, detector: str) -> tuple[float, store.Run]:
    """CPU seconds of a fit, and its run."""
    started = time.process_time()
    maps = make_detector(detector).wants_maps
    request = Request(source=open_source(str(images), read=BACKBONE, maps=maps), detector=detector)
    run = fit_run(request, out)
    return time.process_time() - started, run


def measure(detector: str, images: Path, folder: Path) -> dict[str, object]:
    """Three fits of a detector on a copy of the images, one of which is changed before the third."""
    warm_up(images, folder)
    copy = folder / "images"
    shutil.copytree(images, copy)
    os.environ["TAILWISE_CACHE"] = str(folder / "cache")
    first, run = fit(copy, folder / "first", detector)
    entries = kept(folder)
    second, again = fit(copy, folder / "second", detector)
    changed = pictures_of(copy)[0]
    ImageOps.invert(Image.open(changed).convert("RGB")).save(changed)
    third, _ = fit(copy, folder / "third", detector)
    digests = [one.settings.digests["model.safetensors"] for one in (run, again)]
    return {
        "detector": detector, "first_cpu_s": round(first, 2), "second_cpu_s": round(second, 2),
        "times_as_fast": round(first / second, 1), "same_model": digests[0] == digests[1],
        "after_a_change_cpu_s": round(third, 2),
        "computed_after_a_change": len(kept(folder) - entries),
    }  # fmt: skip


def kept(folder: Path) -> set[Path]:
    """The entries of the cache."""
    return {path for path in (folder / "cache" / "features").rglob("*") if path.is_file()}


def pictures_of(images: Path) -> list[Path]:
    """The training images."""
    return sorted(path for path in (images / "train").rglob("*") if path.suffix in SUFFIXES)


def warm_up(images: Path, folder: Path) -> None:
    """A fit of a few images, so that what is imported when first needed is not taken for the first fit's work."""
    few = folder / "few"
    few.mkdir()
    for path in pictures_of(images)[:4]:
        shutil.copy(path, few)
    os.environ["TAILWISE_CACHE"] = "off"
    fit(few, folder / "warm", "gaussian")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path)
    parser.add_argument("--detectors", nargs="+", default=DETECTORS, choices=DETECTORS)
    asked = parser.parse_args()
    for name in asked.detectors:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(measure(name, asked.images, Path(folder))), flush=True)


if __name__ == "__main__":
    main()

"""Image detectors on sets of images: image AUROC, pixel AUROC, AUPRO and AUPR, seconds and memory, a JSON line a row.

python benchmarks/image_detectors.py [DETECTOR ...] [--sets SET ...] [--seeds SEED ...]

Rows go to benchmarks/results/images/rows.jsonl too. One that is there is not computed again, and a failure is a row
(computed again once the code has changed). Sets that are not found are skipped with a line on stderr; they are looked
for in TAILWISE_DATA. One thread, weights uniform; test labels and masks are read by the metrics only.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import time
import traceback
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

# Set before torch is imported: afterwards it is too late.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from torch import Tensor, nn

from tailwise import backbones, metrics, pixel_metrics, registry, scoring, training
from tailwise.benchmark import rows
from tailwise.detector import Detector, Mapping2d
from tailwise.errors import InputError
from tailwise.problem import Labelled, Problem
from tailwise.sources.images import ImageFolder
from tailwise.sources.solar import SolarCells

RESULTS = Path(__file__).parent / "results" / "images" / "rows.jsonl"
BACKBONE = "efficientnet-lite0"
# Maps and masks are compared at this many pixels a side, whatever the picture's shape.
SIDE = 128

DETECTORS = {
    "autoencoder": {"spelling": "autoencoder", "read": "pixels", "size": 128},
    "student-teacher": {
        "spelling": f"StudentTeacher(teacher={BACKBONE!r})",
        "read": "pixels", "size": 128, "batch_size": 8, "epochs": 30,
    },
    "gaussian": {"spelling": "gaussian"},
    "padim": {"spelling": "padim"},
    "feature-autoencoder": {"spelling": "feature-autoencoder"},
    "feature-svdd": {"spelling": "feature-svdd"},
    "patch-memory": {"spelling": "patch-memory"},
}  # fmt: skip
FOLDERS = {"magnetic-tile": "magnetic_tile", "tire": "mvtec3d_tire", "deeppcb": "deeppcb"}
CHANNELS = {"tire": 3}
SETS = (*FOLDERS, "solar-cells")
OF_PIXELS = {
    "pixel_auroc": pixel_metrics.pixel_auroc,
    "pixel_aupr": pixel_metrics.pixel_aupr,
    "aupro_0.3": pixel_metrics.aupro,
    "aupro_0.05": lambda pixels: pixel_metrics.aupro(pixels, 0.05),
}


def load(name: str, read: str = BACKBONE, size: int = 224) -> Problem:
    """A set as pixels, or as the backbone's usual maps."""
    layers = () if read == "pixels" else backbones.map_layers(read)
    if name == "solar-cells":
        return SolarCells(read=read, layers=layers, size=size).load()
    path = f"images/{FOLDERS[name]}"
    return ImageFolder(
        path, read=read, layers=layers, size=size, channels=CHANNELS.get(name, 1 if not layers else 3)
    ).load()


def measure(detector: Detector, problem: Problem, options: dict[str, Any], seed: int) -> dict[str, Any]:
    """Fit, score and judge; seconds are of the CPU, with images decoded and features cached."""
    start = time.process_time()
    outcome = training.fit(detector, problem.train, seed=seed, **options)
    fitted = time.process_time()
    assert problem.test is not None
    scores = scoring.score(detector, problem.test.data).double().numpy()
    done = time.process_time()
    row = {
        "image_auroc": metrics.auroc(problem.test.labels, scores),
        "image_aupr": metrics.aupr(problem.test.labels, scores),
        "fit_seconds": round(fitted - start, 2),
        "score_ms": round(1_000 * (done - fitted) / len(scores), 2),
        "epochs": len(outcome.history),
        "failed_checks": [check.message for check in outcome.checks if not check.ok],
    }
    if problem.test.masks is not None and isinstance(detector, Mapping2d):
        pixels = pixel_metrics.gather(maps_and_masks(detector, problem.test))
        row |= {metric: function(pixels) for metric, function in OF_PIXELS.items()}
    return row


def maps_and_masks(detector: Detector, test: Labelled) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    """Every test image's map and mask, SIDE pixels a side."""
    assert isinstance(detector, Mapping2d)
    maps = scoring.over_batches(detector, test.data, lambda batch: resized(detector.score_map(batch)), 32)
    assert test.masks is not None
    for scores, mask in zip(maps.numpy(), test.masks, strict=True):
        yield scores, None if mask is None else nearest(mask)


def resized(maps: Tensor) -> Tensor:
    return nn.functional.interpolate(maps[:, None], (SIDE, SIDE), mode="bilinear")[:, 0]


def nearest(mask: np.ndarray) -> np.ndarray:
    """A mask at SIDE pixels a side: what lies at the middle of each pixel."""
    rows, columns = (((np.arange(SIDE) + 0.5) * side / SIDE).astype(int) for side in mask.shape)
    return mask[rows][:, columns]


def run(name: str, of: str, seed: int) -> dict[str, Any]:
    """One row, whatever happens; a set or package that is not there makes it a skipped one."""
    options = dict(DETECTORS[name])
    reading = {key: options.pop(key) for key in ("read", "size") if key in options}
    start = time.process_time()
    try:
        detector = registry.parse_one(str(options.pop("spelling")), "detector")
        problem = load(of, **reading)
    except InputError as error:
        return {"status": "skipped", "error": str(error)}
    try:
        assert problem.test is not None
        for data in (problem.train, problem.test.data):
            for _ in data.batches(32):
                pass  # features are computed, or found in the cache, when they are first asked for
        row = {"status": "ok", "reading_seconds": round(time.process_time() - start, 2), "train": len(problem.train)}
        rows.reset_peak_memory()
        return row | measure(detector, problem, options, seed) | {"peak_memory_mb": rows.peak_memory_mb()}
    except Exception as error:
        return failed(error) | {"trace": traceback.format_exc(limit=-3)}


def run_apart(name: str, of: str, seed: int) -> dict[str, Any]:
    """The row by a process of its own, so that its memory is its own and its end is not ours."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(run, name, of, seed).result()
        except BrokenProcessPool as error:
            return failed(error)


def failed(error: Exception) -> dict[str, Any]:
    return {"status": "failed", "error": f"{type(error).__name__}: {error}"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("detectors", nargs="*", default=list(DETECTORS), metavar="DETECTOR")
    parser.add_argument("--sets", nargs="+", default=SETS, choices=SETS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    asked = parser.parse_args()
    rows.mend(RESULTS)
    done = {rows.key(row["settings"]) for row in rows.read_rows(RESULTS) if rows.is_done(row)}
    for of in asked.sets:
        for name in asked.detectors:
            for seed in asked.seeds:
                settings = {"detector": name, "set": of, "seed": seed, **DETECTORS[name]}
                if rows.key(settings) in done:
                    continue
                row = run_apart(name, of, seed)
                if row["status"] == "skipped":
                    print(f"skipped {name} on {of}: {row['error']}", file=sys.stderr)
                    continue
                row = {"settings": settings, **row, "commit": rows.commit(), "versions": rows.versions()}
                rows.append(RESULTS, row)
                print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()

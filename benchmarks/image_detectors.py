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
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

# Set before torch is imported: afterwards it is too late.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch

from tailwise.backbones import networks
from tailwise.benchmark import rows
from tailwise.benchmark.tables import table
from tailwise.calibration import score_maps
from tailwise.core import inference, registry
from tailwise.core.data import Data
from tailwise.core.detector import Detector, Mapping2d
from tailwise.core.problem import Problem
from tailwise.errors import InputError
from tailwise.numerics import metrics, pixel_metrics
from tailwise.runs import files
from tailwise.sources.images import ImageFolder
from tailwise.sources.solar import SolarCells
from tailwise.training import local_scores
from tailwise.training.fit import fit
from tailwise.training.options import Training

RESULTS = Path(__file__).parent / "results" / "images" / "rows.jsonl"
BACKBONE = "efficientnet-lite0"

DETECTORS: dict[str, dict[str, Any]] = {
    "autoencoder": {"spelling": "autoencoder", "read": "pixels", "size": 128, "batch_size": 32, "epochs": 30},
    "student-teacher": {
        "spelling": f"StudentTeacher(teacher={BACKBONE!r})",
        "read": "pixels", "size": 128, "batch_size": 8, "epochs": 30,
    },
    "gaussian": {"spelling": "gaussian"},
    "padim": {"spelling": "padim"},
    "feature-autoencoder": {"spelling": "feature-autoencoder"},
    "feature-svdd": {"spelling": "feature-svdd"},
    "patch-memory": {"spelling": "patch-memory"},
    "patch-ensemble": {"spelling": "patch-ensemble"},
    "patch-ensemble, local scores": {"spelling": "patch-ensemble", "scores": "auto"},
    "patch-memory, block 10": {"spelling": "PatchMemory(share=0.04)", "layers": (10,)},
    "patch-memory, 5 x 5 of blocks 10, 15": {
        "spelling": "PatchMemory(share=0.02, neighbourhood=5)", "layers": (10, 15), "size": 320, "smoothing": 0.05,
    },
}  # fmt: skip
FOLDERS = {"magnetic-tile": "magnetic_tile", "tire": "mvtec3d_tire", "deeppcb": "deeppcb"}
CHANNELS = {"tire": 3}
SETS = (*FOLDERS, "solar-cells")
HEAD = """# Detectors of images

Written by `benchmarks/image_detectors.py` from results/images/rows.jsonl. Full test sets, weights uniform, scores as
they are but where a row says that they are local, one thread; seconds are of the CPU, with images decoded and features
in the cache. Detectors read feature
maps of EfficientNet-Lite0 at 224 pixels but for `autoencoder` and `student-teacher`, which read 128 pixels. Test
labels and masks are read by the metrics only; but block 10, and blocks 10 and 15 (at 320 pixels, maps smoothed by
.05), were chosen on half of the magnetic tiles' test images, and what counts outside a map and the share of places that
makes an image's score on half of the test images of tiles, boards and cells and on all of the tires'. Maps are
smoothed by a width that was chosen on the masks of tires and boards. The last column is the share of good images whose
highest place lies at the border, of the border's share of the places.
"""
HEADINGS = [
    "detector", "seeds", "image AUROC", "range", "pixel AUROC", "pixel AP", "AUPRO 0.3", "AUPRO 0.05", "fit, CPU s",
    "ms an image", "peak MB", "highest at the border",
]  # fmt: skip
OF_PIXELS = {
    "pixel_auroc": pixel_metrics.pixel_auroc,
    "pixel_aupr": pixel_metrics.pixel_aupr,
    "aupro_0.3": pixel_metrics.aupro,
    "aupro_0.05": lambda pixels: pixel_metrics.aupro(pixels, 0.05),
}


def load(name: str, read: str = BACKBONE, size: int = 224, layers: tuple[int, ...] = ()) -> Problem:
    """A set as pixels, or as maps, by default the backbone's usual ones."""
    layers = layers or (() if read == "pixels" else networks.map_layers(read))
    if name == "solar-cells":
        return SolarCells(read=read, layers=layers, size=size).load()
    path = f"images/{FOLDERS[name]}"
    return ImageFolder(
        path, read=read, layers=layers, size=size, channels=CHANNELS.get(name, 1 if not layers else 3)
    ).load()


def measure(detector: Detector, problem: Problem, options: dict[str, Any], seed: int) -> dict[str, Any]:
    """Fit, score and judge; seconds are of the CPU, with images decoded and features cached."""
    smoothing, reading = options.pop("smoothing", score_maps.SMOOTHING), options.pop("scores", "own")
    start = time.process_time()
    outcome = fit(detector, problem.train, training=Training(**options), seed=seed)
    rule = local_scores.choose(reading, problem.train.modality, detector)
    detector = detector if rule is None else rule.fit(detector, problem.train)
    fitted = time.process_time()
    assert problem.test is not None
    assert problem.test.labels is not None
    scores = inference.score(detector, problem.test.data).double().numpy()
    done = time.process_time()
    good = problem.test.data.take(np.flatnonzero(np.asarray(problem.test.labels) == 0).tolist())
    row = {
        "image_auroc": metrics.auroc(problem.test.labels, scores),
        "image_aupr": metrics.aupr(problem.test.labels, scores),
        "fit_seconds": round(fitted - start, 2),
        "score_ms": round(1_000 * (done - fitted) / len(scores), 2),
        "epochs": len(outcome.history),
        "failed_checks": [check.message for check in outcome.checks if not check.ok],
    }
    if detector.has_maps:
        row |= at_border(detector, good)
    known = score_maps.gather_known(detector, problem.test, smoothing) if detector.has_maps else None
    if known is not None:
        row |= {metric: function(known[0]) for metric, function in OF_PIXELS.items()}
    return row


def at_border(detector: Detector, good: Data) -> dict[str, float]:
    """How many good images have their highest place in the outer part of the map, and how many places lie there.

    The outer part is one place wide in a map of up to 28 places a side, and as wide a share of the side in a finer one.
    """
    assert isinstance(detector, Mapping2d)
    highest = inference.over_batches(detector, good, detector.score_map)
    height, width = highest.shape[1:]
    wide = max(1, round(max(height, width) / 28))
    outer = torch.ones(height, width, dtype=torch.bool)
    outer[wide:-wide, wide:-wide] = False
    found = outer.flatten()[highest.flatten(1).argmax(1)]
    return {"good_highest_at_border": float(found.float().mean()), "border_share": float(outer.float().mean())}


def run(name: str, of: str, seed: int) -> dict[str, Any]:
    """One row, whatever happens; a set or package that is not there makes it a skipped one."""
    options = dict(DETECTORS[name])
    reading = {key: options.pop(key) for key in ("read", "size", "layers") if key in options}
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


def page() -> str:
    """The rows as tables, one a set: means over seeds, and the range of the image AUROC."""
    found = [row for row in rows.read_rows(RESULTS) if row["status"] == "ok"]
    text = HEAD
    for of in SETS:
        lines = []
        for name in DETECTORS:
            here = [row for row in found if (row["settings"]["set"], row["settings"]["detector"]) == (of, name)]
            if here:
                own = [row["image_auroc"] for row in here]
                quality = ["image_auroc", *OF_PIXELS]
                shown = [mean(here, figure, 3) for figure in quality]
                cost = [mean(here, figure, 0) for figure in ("fit_seconds", "score_ms", "peak_memory_mb")]
                spread = f"{min(own):.3f} to {max(own):.3f}"
                border = [mean(here, figure, 2) for figure in ("good_highest_at_border", "border_share")]
                beside = " of ".join(border) if border[0] else ""
                lines.append([name, str(len(here)), shown[0], spread, *shown[1:], *cost, beside])
        text += f"\n## {of}\n\n{table(HEADINGS, lines)}\n" if lines else ""
    return text


def mean(here: list[dict[str, Any]], figure: str, digits: int) -> str:
    """The mean over rows as text; nothing where the set has no masks."""
    return f"{np.mean([row[figure] for row in here]):.{digits}f}" if figure in here[0] else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("detectors", nargs="*", default=list(DETECTORS), metavar="DETECTOR")
    parser.add_argument("--sets", nargs="+", default=SETS, choices=SETS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    asked = parser.parse_args()
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
                files.write(RESULTS.parents[2] / "images.md", page().encode())


if __name__ == "__main__":
    main()

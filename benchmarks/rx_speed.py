"""RX against the package spectral: values, CPU seconds in one process and in turn, and AUROC on real scenes.

python benchmarks/rx_speed.py [--repeats 7] [--rows 10] [--scenes FOLDER [--local]] [--cube SCRIPT]

One line of JSON a measurement. Global RX takes a cube of 150 x 150 x 120 (mixtures with noise), fit and scores
together. Local RX, windows 3 and 15, takes all pixels of it here, and in spectral --rows rows (10 or more), whose cost
is that per pixel. Values are compared with spectral's on double precision input, because on single precision it forms
the mean in single precision. --scenes is a folder of .mat scenes with masks, on which the weighting `auto` is compared
too, and with --local the detectors that look around a pixel; --cube is a script that makes a scene `Y` with materials
`lab` and anomalies `an` before it measures anything, run once for each of five seeds.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

# Set before numpy is imported: the package compared with uses its threads.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import spectral
import torch
from spectral.algorithms.detectors import RX
from spectral.algorithms.spatial import map_outer_window_stats

from tailwise.core import inference, registry
from tailwise.core.context import Scenes
from tailwise.core.data import Data
from tailwise.numerics.metrics import auroc
from tailwise.sources.auto import open_source
from tailwise.training.fit import fit
from tailwise.weights.default import parse_weighting

SHAPE = (150, 150, 120)
WINDOW = (3, 15)
AROUND = ("local-rx", "collaborative")


def cube(seed: int = 0) -> np.ndarray:
    """Mixtures of five smooth spectra with noise, float32."""
    generator = np.random.default_rng(seed)
    share = generator.dirichlet(np.ones(5), SHAPE[:2])
    mixed = share @ (generator.random((5, SHAPE[2])).cumsum(1) / SHAPE[2])
    return (mixed + 0.02 * generator.standard_normal(SHAPE)).astype(np.float32)


def data_of(pixels: np.ndarray) -> Data:
    height, width, bands = pixels.shape
    samples = torch.from_numpy(pixels.reshape(-1, 1, bands))
    return Data(samples, range(len(samples)), context=Scenes(samples, ((height, width),)))  # type: ignore[arg-type]


def scores(name: str, data: Data) -> np.ndarray:
    return fit_and_score(registry.find("detector", name)(), data)


def fit_and_score(detector: Any, data: Data) -> np.ndarray:
    detector.start(data.sample_shape, data.modality)
    detector.solve(data, torch.ones(len(data)))
    return inference.score(detector, data).numpy()


def weighed(data: Data, weighting: str) -> np.ndarray:
    chosen = parse_weighting(weighting, data.modality)
    return fit(registry.find("detector", "rx")(), data, chosen).scores.numpy()


def in_rows(pixels: np.ndarray, rows: tuple[int, int]) -> np.ndarray:
    """Local RX of spectral, in some rows only."""
    detector = RX()

    def distance(background: Any, pixel: np.ndarray) -> Any:
        detector.set_background(background)
        return detector(pixel)

    return map_outer_window_stats(distance, pixels, *WINDOW, dim_out=1, dtype=np.float64, rslice=rows)


def timed(function: Callable[[], Any]) -> tuple[float, Any]:
    started = time.process_time()
    result = function()
    return time.process_time() - started, result


def gap(ours: np.ndarray, theirs: np.ndarray) -> float:
    return float(np.abs(ours.ravel() / theirs.ravel() - 1).max())


def measure_global(repeats: int) -> None:
    pixels = cube()
    seconds: dict[str, list[float]] = {"ours": [], "spectral": []}
    data = data_of(pixels)
    for _ in range(repeats):
        detector = registry.find("detector", "rx")()
        seconds["ours"].append(timed(partial(fit_and_score, detector, data))[0])
        seconds["spectral"].append(timed(lambda: spectral.rx(pixels))[0])
    found = scores("rx", data)
    show(
        "global rx",
        **{f"{name}_cpu_seconds": round(float(np.median(each)), 4) for name, each in seconds.items()},
        ratio=round(float(np.median(seconds["spectral"]) / np.median(seconds["ours"])), 3),
        largest_relative_difference=gap(found, spectral.rx(pixels.astype(np.float64))),
        against_its_single_precision=gap(found, spectral.rx(pixels)),
    )


def measure_local(repeats: int, rows: int) -> None:
    pixels = cube()
    data, middle = data_of(pixels), (SHAPE[0] // 2, SHAPE[0] // 2 + rows)
    for _ in range(repeats):
        ours, found = timed(lambda: scores("local-rx", data))
        theirs, _ = timed(lambda: in_rows(pixels, middle))
        expected, edge = (in_rows(pixels.astype(np.float64), part) for part in (middle, (0, rows)))
        per_pixel = 1e3 * ours / len(data), 1e3 * theirs / expected.size
        found = found.reshape(SHAPE[:2])
        show(
            "local rx",
            ours_cpu_milliseconds_a_pixel=round(per_pixel[0], 4),
            spectral_cpu_milliseconds_a_pixel=round(per_pixel[1], 4),
            ratio=round(per_pixel[1] / per_pixel[0], 1),
            largest_relative_difference=max(gap(found[slice(*middle)], expected), gap(found[:rows], edge)),
        )


def measure_scenes(folder: Path, around: bool) -> None:
    for path in sorted(folder.glob("*.mat")):
        everything = open_source(path).load_all()
        data, labels = everything.data, everything.labels
        assert labels is not None
        assert isinstance(data.context, Scenes)
        pixels = data.read(torch.arange(len(data))).double().numpy().reshape(*data.context.sizes[0], -1)
        show(
            "scene",
            scene=path.stem,
            spectral=round(auroc(labels, spectral.rx(pixels).ravel()), 4),
            ours=round(auroc(labels, weighed(data, "")), 4),
            weighted=round(auroc(labels, weighed(data, "auto")), 4),
            **{name: round(auroc(labels, scores(name, data)), 4) for name in AROUND if around},
        )


def measure_rare(script: Path) -> None:
    code = script.read_text().partition("from spectral import rx")[0].replace("resource, spectral,", "resource,")
    for seed in range(5):
        made: dict[str, Any] = {}
        exec(compile(code.replace("RandomState(0)", f"RandomState({seed})"), str(script), "exec"), made)
        data, anomalous, material = data_of(made["Y"]), made["an"].ravel(), made["lab"].ravel()
        rarest = material == np.bincount(material).argmin()
        for name, found in (
            ("spectral", spectral.rx(made["Y"]).ravel()),
            ("plain", weighed(data, "")),
            ("weighted", weighed(data, "auto")),
        ):
            against = anomalous | rarest
            show(
                "rare material",
                seed=seed,
                method=name,
                auroc=round(auroc(anomalous, found), 4),
                auroc_against_it=round(auroc(anomalous[against], found[against]), 4),
            )


def show(what: str, **facts: object) -> None:
    print(json.dumps({"what": what, **facts}), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--rows", type=int, default=10)
    parser.add_argument("--scenes", type=Path)
    parser.add_argument("--local", action="store_true")
    parser.add_argument("--cube", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    measure_global(options.repeats)
    measure_local(max(1, options.repeats // 3), options.rows)
    if options.scenes:
        measure_scenes(options.scenes, options.local)
    if options.cube:
        measure_rare(options.cube)

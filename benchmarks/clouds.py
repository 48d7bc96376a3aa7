"""Long-tailed kinds of point clouds with planted dents, bumps and holes: plain against `auto`.

    TAILWISE_DATA=DIRECTORY python benchmarks/clouds.py [--part confirmation] [--draws 5]

Normals are furniture of ModelNet10, whose eight kinds are thinned to 20:1; anomalies are clouds that no draw takes for
normal, in a place of which the surface was pushed in, pulled out or taken away. A cloud is read three ways: as a row
of point feature histograms, as a row of what a PointNet says of its points, and as the histograms of its points. Rows
go to results/long-tail-clouds.jsonl, beside which the page is written.
"""

from __future__ import annotations

import argparse
import itertools
import os
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from scipy.spatial import cKDTree

from tailwise.backbones import pointnet
from tailwise.benchmark import rows
from tailwise.benchmark.draws import Pool, make
from tailwise.benchmark.page import write_page
from tailwise.benchmark.runner import Job, run_methods
from tailwise.benchmark.suites import YARDSTICKS, Conditions, Method, SourceSettings, Suite, read_suite
from tailwise.core.data import Data
from tailwise.core.modality import POINT_CLOUD, ROW
from tailwise.numerics import organised_scans, point_features
from tailwise.sources.numpy_files import read_numpy
from tailwise.sources.paths import find_path

HOME = Path(__file__).parent
RESULTS = HOME / "results" / "long-tail-clouds.jsonl"
CLOUDS, WEIGHTS = "points/modelnet10.npz", "weights/pointnet_modelnet40.safetensors"
ON_ROWS = ("autoencoder", "deep-svdd", "gaussian", "nearest-neighbours")
# What is read of a cloud, and by which detectors; rows by yardsticks too.
READINGS = {"clouds-fpfh": ON_ROWS, "clouds-pointnet": ON_ROWS, "clouds-points": ("patch-memory",)}
IMBALANCE, HELD_OUT, TESTED = 20, 0.1, 200
DEFECTS = ("dent", "bump", "hole")
# Of a kind's 180 clouds so many get a defect; the others are normals.
SPOILT = 30
# In units of the cloud's unit sphere.
RADII, DEPTHS = (0.3, 0.45), (0.15, 0.3)
# A point's histogram is the mean of those of its nearest, itself among them; so many points are kept.
AVERAGED, POINTS = 9, 384


def spoilt(points: np.ndarray, defect: str, generator: np.random.Generator) -> np.ndarray:
    """Points [n, 3] with a defect about one of them: pushed in or pulled out along its normal, or taken away.

    Of a hole fewer points are left. The other two leave their border where it is.
    """
    centre = points[generator.integers(len(points))]
    radius, depth = generator.uniform(*RADII), generator.uniform(*DEPTHS)
    apart = np.linalg.norm(points - centre, axis=1)
    if defect == "hole":
        return points[apart > radius]
    normals = point_features.normals_of(points, point_features.NORMAL_SPACINGS * point_features.spacing_of(points))
    height = depth * np.cos(np.pi / 2 * np.clip(apart / radius, 0, 1)) ** 2
    outwards = normals[apart.argmin()] * (1 if defect == "bump" else -1)
    return points + height[:, None] * outwards


def described(points: np.ndarray) -> dict[str, np.ndarray]:
    """What each reading says of points [n, 3]: the highest of each bin, the means of 128 numbers, and 384 points."""
    around = cKDTree(points).query(points, k=AVERAGED)[1]
    histograms = organised_scans.point_fpfh(points - points.mean(0), None)[around].mean(1)
    kept = np.linspace(0, len(points) - 1, POINTS).astype(int)
    said = (histograms.max(0), pointnet.point_features(points).mean(0), histograms[kept].T[..., None])
    return dict(zip(READINGS, said, strict=True))


@lru_cache(maxsize=1)
def pools() -> dict[str, Pool]:
    """Every cloud in each reading, with its kind, and whether it has a defect."""
    os.environ[pointnet.FILE] = str(find_path(WEIGHTS))
    held = read_numpy(find_path(CLOUDS))
    found, labels, groups = [], [], []
    for number, kind in enumerate(sorted({name.split("/")[0] for name in held})):
        generator = np.random.default_rng(number)
        clouds = np.concatenate([held[f"{kind}/train"], held[f"{kind}/test"]]).astype(np.float64)
        for place, points in enumerate(clouds):
            anomalous = place >= len(clouds) - SPOILT
            changed = spoilt(points, DEFECTS[place % len(DEFECTS)], generator) if anomalous else points
            found.append(described(np.unique(changed, axis=0)))
            labels.append(anomalous)
            groups.append(kind)
    return {name: _pool(np.array([each[name] for each in found]), labels, groups) for name in READINGS}


def _pool(samples: np.ndarray, labels: list[bool], groups: list[str]) -> Pool:
    kind = POINT_CLOUD if samples.ndim > 2 else ROW
    data = Data(torch.from_numpy(samples.astype(np.float32)), range(len(samples)), modality=kind)  # type: ignore[arg-type]
    return Pool(data, np.array(labels), np.array(groups))


def methods(reading: str) -> list[Method]:
    """Plain and `auto`, with the detectors' own scores and local ones, and the yardsticks of rows."""
    ours = [Method(*each) for each in itertools.product(READINGS[reading], ("uniform", "auto"), ("own", "auto"))]
    return [*ours, *(Method(name) for name in YARDSTICKS if READINGS[reading] == ON_ROWS)]


def run(part: str, draws: int) -> None:
    """Append the rows that are missing, and write the page."""
    given = read_suite(HOME / "suites" / "long_tail.toml")
    sources = {name: SourceSettings(f"{name} of {CLOUDS}", test=TESTED) for name in READINGS}
    suite = Suite("long-tail-clouds", {}, sources, given.weightings, (), {}, given.detectors, HELD_OUT)
    done = {rows.key(row["settings"]) for row in rows.read_rows(RESULTS) if rows.is_done(row)}
    for draw, name in itertools.product(given.draws[part][:draws], READINGS):
        conditions = Conditions(name, part, draw, IMBALANCE, 0.0)
        left = tuple(m for m in methods(name) if rows.key(suite.settings(conditions, m)) not in done)
        if left:
            made = make(pools()[name], sources[name], conditions, HELD_OUT)
            run_methods(Job(suite, conditions, left, RESULTS), made)
            print(f"draw {draw} of {name}: {len(left)} rows", flush=True)
    write_page(RESULTS)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=("development", "confirmation"), default="confirmation")
    parser.add_argument("--draws", type=int, default=5)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    run(asked.part, asked.draws)

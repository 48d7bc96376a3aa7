"""FPFH beside Open3D's: values and seconds on generated clouds; says so and ends where Open3D is not installed.

    python benchmarks/point_features.py [--clouds 20] [--points 1024]

One line of JSON a cloud, and one for all: the largest difference of a bin (histograms that add up to 1), and CPU
seconds of both for normals and histograms together. `pip install open3d-cpu==0.20.0` brings 600 MB: use an environment
of its own, with numpy and scipy, and name src/ in PYTHONPATH.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import time
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from tailwise.numerics import point_features as own


def cloud(seed: int, points: int) -> np.ndarray:
    """A closed surface with waves and dents, evenly covered, with noise."""
    generator = np.random.default_rng(seed)
    u = generator.normal(size=(8 * points, 3))
    u /= np.linalg.norm(u, axis=1, keepdims=True)
    waves = generator.uniform(1, 6, 3)
    stretch = generator.uniform(0.3, 1, 3)
    surface = stretch * u * (1 + 0.15 * np.sin(u @ waves)[:, None]) + generator.normal(0, 0.003, u.shape)
    return surface[own.farthest_points(surface, points, seed)]


def compared(open3d: Any, points: np.ndarray) -> dict[str, float]:
    """Differences and seconds on one cloud. Open3D leaves the side of its normals open: it is given ours."""
    spacing = own.spacing_of(points)
    near, far = own.NORMAL_SPACINGS * spacing, own.FEATURE_SPACINGS * spacing
    began = time.process_time()
    normals = own.normals_of(points, near)
    found = own.fpfh(points, normals, far)
    middle = time.process_time()
    held = open3d.geometry.PointCloud(open3d.utility.Vector3dVector(points))
    within = open3d.geometry.KDTreeSearchParamHybrid
    held.estimate_normals(within(near, 30))
    theirs = np.asarray(held.normals).copy()
    between = time.process_time()
    sides = np.sign((theirs * normals).sum(1, keepdims=True))
    held.normals = open3d.utility.Vector3dVector(theirs * sides)
    again = time.process_time()
    histograms = open3d.pipelines.registration.compute_fpfh_feature(held, within(far, 100)).data
    ended = time.process_time()
    return {
        "difference": float(np.abs(np.asarray(histograms).T / 600 - found).max()),
        "seconds": middle - began,
        "open3d_seconds": between - middle + ended - again,
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--clouds", type=int, default=20)
    parser.add_argument("--points", type=int, default=1024)
    asked = parser.parse_args()
    try:
        open3d = importlib.import_module("open3d")
    except (ImportError, OSError) as error:
        sys.exit(f"open3d cannot be imported, so nothing is compared: {error}")
    rows = [compared(open3d, cloud(seed, asked.points)) for seed in range(asked.clouds)]
    for row in rows:
        print(json.dumps(row))
    times = {name: float(np.median([row[name] for row in rows])) for name in ("seconds", "open3d_seconds")}
    largest = max(row["difference"] for row in rows)
    print(json.dumps({"clouds": len(rows), "points": asked.points, "largest_difference": largest, **times}))


if __name__ == "__main__":
    main()

"""What fit and score cost as tables grow: CPU seconds, peak memory and AUROC, beside PyOD's detectors.

python benchmarks/scale.py run [--sizes 1000 10000 100000 1000000] [--methods ...] [--seed 0]
python benchmarks/scale.py wide [--methods ...]
python benchmarks/scale.py graph [--methods ...]
python benchmarks/scale.py page

Tables of 32 numbers hold five kinds of normal, each half as frequent as the one before; as many new rows are scored, of
which one in a hundred is an anomaly: its noise is half again as wide. `wide` takes 5,000 x 2,000 and 300 x 20,000,
`graph` 100,000 such nodes with 1,000,000 edges, eight of ten within a kind; half of its normals are fitted, all nodes
are scored.
tailwise is timed as its commands, one process each, start and files included; PyOD (`pip install pyod`) from fit to
scores, without start and files. Methods that a row exists for are left out. Rows go to benchmarks/results/scale.jsonl,
the page to benchmarks/scale.md.
"""

from __future__ import annotations

import argparse
import importlib
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# Set before torch is imported: afterwards it is too late.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pandas as pd

from tailwise.benchmark import rows
from tailwise.benchmark.tables import table
from tailwise.numerics import metrics
from tailwise.runs import files

RESULTS = Path(__file__).parent / "results" / "scale.jsonl"
PAGE = Path(__file__).parent / "scale.md"
KINDS, COLUMNS, ODD, WIDER = 5, 32, 0.01, 1.5
SIZES = (1_000, 10_000, 100_000, 1_000_000)
WIDE = ((5_000, 2_000), (300, 20_000))
NODES, EDGES, WITHIN = 100_000, 1_000_000, 0.8
DETECTORS = ("gaussian", "autoencoder", "nearest-neighbours")
# Modules of PyOD's detectors, each with one class.
PEERS = {"KNN": "knn", "ECOD": "ecod", "IForest": "iforest", "AutoEncoder": "auto_encoder"}
HEAD = """# What fit and score cost as tables grow

Written by `python benchmarks/scale.py page` from results/scale.jsonl. Generated tables of five kinds of normal; as
many new rows are scored as were fitted, 1 % of them anomalies; of a graph half of the normals are fitted. CPU seconds
of one thread on a machine that other work shared, which raises them (rows have the load); peak memory is the larger of
fit and score. tailwise: whole commands, their start (3 to 4 s) and files included. PyOD: from fit to scores. The
exponent is that of the growth of CPU seconds from the size before.

"""
HEADINGS = ["method", "rows x columns", "fit, CPU s", "exponent", "score, CPU s", "exponent", "peak MB", "AUROC"]


def generated(count: int, columns: int, seed: int, odd: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Rows [n, d] and which of them [n] are anomalies. The kinds do not depend on the seed."""
    centres = 4 * np.random.default_rng(0).normal(size=(KINDS, columns))
    generator = np.random.default_rng((seed, count, round(1 / odd) if odd else 0))
    share = 0.5 ** np.arange(KINDS)
    anomalous = generator.random(count) < odd
    samples = generator.standard_normal((count, columns), dtype=np.float32)
    samples[anomalous] *= WIDER
    samples += centres.astype(np.float32)[generator.choice(KINDS, count, p=share / share.sum())]
    return samples, anomalous


def graph(seed: int) -> dict[str, Any]:
    """The arrays of a graph file."""
    x, anomalous = generated(NODES, COLUMNS, seed, ODD)
    centres = 4 * np.random.default_rng(0).normal(size=(KINDS, COLUMNS))
    kind = ((x[:, None] - centres.astype(np.float32)) ** 2).sum(2).argmin(1)
    generator = np.random.default_rng(seed)
    start, end = generator.integers(0, NODES, (2, EDGES))
    order, first = np.argsort(kind, kind="stable"), np.searchsorted(np.sort(kind), np.arange(KINDS + 1))
    drawn = first[kind[start]] + (generator.random(EDGES) * (first[kind[start] + 1] - first[kind[start]])).astype(int)
    end = np.where(generator.random(EDGES) < WITHIN, order[drawn], end)
    return {"x": x, "edge_index": np.stack([start, end]), "y": anomalous.astype(np.int64)}


def process(*words: str) -> dict[str, float]:
    """CPU seconds and peak MB of one process."""
    child = subprocess.Popen([sys.executable, *words], stdout=subprocess.DEVNULL, env=os.environ)
    _, status, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise RuntimeError(f"{' '.join(words)} ended with {child.returncode}")
    return {"cpu": round(used.ru_utime + used.ru_stime, 2), "peak_mb": round(used.ru_maxrss / 1_000)}


def by_commands(detector: str, folder: Path) -> dict[str, Any]:
    """`tailwise fit` and `tailwise score` on the tables in the folder."""
    run, out = str(folder / "run"), folder / "scores.parquet"
    fitted = process("-m", "tailwise", "fit", str(folder / "train.npz"), "--detector", detector, "--out", run)
    scored = process("-m", "tailwise", "score", run, str(folder / "test.npz"), "--out", str(out))
    scores = pd.read_parquet(out, columns=["score"])["score"].to_numpy()
    return {"fit": fitted["cpu"], "score": scored["cpu"], "peak_mb": max(fitted["peak_mb"], scored["peak_mb"]),
            "scores": scores}  # fmt: skip


def by_peer(name: str, folder: Path) -> dict[str, Any]:
    """A detector of PyOD in a process of its own."""
    used = process(str(Path(__file__)), "peer", "--methods", name, "--folder", str(folder))
    return {**json.loads((folder / "seconds.json").read_text()), "peak_mb": used["peak_mb"],
            "scores": np.load(folder / "scores.npy")}  # fmt: skip


def measure_peer(name: str, folder: Path) -> None:
    train, test = (np.load(folder / f"{part}.npz")["x"] for part in ("train", "test"))
    detector = getattr(importlib.import_module(f"pyod.models.{PEERS[name]}"), name)()
    seconds = [time.process_time()]
    detector.fit(train)
    seconds.append(time.process_time())
    scores = detector.decision_function(test)
    seconds.append(time.process_time())
    fit, score = np.diff(seconds).round(2).tolist()
    (folder / "seconds.json").write_text(json.dumps({"fit": fit, "score": score}))
    np.save(folder / "scores.npy", scores)


def measure(method: str, shape: tuple[int, int], seed: int, edges: int = 0) -> dict[str, Any]:
    """What a row holds beside its settings."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        if edges:
            arrays = graph(seed)
            anomalous = arrays["y"] == 1
            for part in ("train", "test"):
                np.savez(folder / f"{part}.npz", **arrays)
        else:
            np.savez(folder / "train.npz", x=generated(*shape, seed)[0])
            samples, anomalous = generated(*shape, seed + 1, ODD)
            np.savez(folder / "test.npz", x=samples)
        try:
            found = (by_peer if method in PEERS else by_commands)(method, folder)
        except RuntimeError as error:
            return {"status": "failed", "error": str(error).replace(scratch, "").replace(str(Path(__file__)), "peer")}
    return {"status": "ok", "auroc": metrics.auroc(anomalous, found.pop("scores")), **found}


def append(shapes: Sequence[tuple[int, int]], methods: Sequence[str], seed: int, edges: int = 0) -> None:
    """Rows of the methods and sizes that have none yet."""
    done = {rows.key(row["settings"]) for row in rows.read_rows(RESULTS)} if RESULTS.exists() else set()
    for shape, method in itertools.product(shapes, methods):
        settings = {"method": method, "rows": shape[0], "columns": shape[1], "seed": seed}
        settings |= {"edges": edges} if edges else {}
        if rows.key(settings) in done:
            continue
        row = {"settings": settings, **measure(method, shape, seed, edges), "load": round(os.getloadavg()[0], 1)}
        rows.append(RESULTS, row | {"commit": rows.commit(), "versions": rows.versions()})
        print(json.dumps(row), flush=True)


def exponent(row: dict[str, Any], before: dict[str, Any] | None, what: str) -> str:
    if before is None or not min(row[what], before[what]):
        return ""
    grown = row["settings"]["rows"] / before["settings"]["rows"]
    return f"{np.log(row[what] / before[what]) / np.log(grown):.2f}"


def page(every: list[dict[str, Any]]) -> str:
    """The rows as one table; of the sizes of a method the smaller first."""
    order = [*DETECTORS, *(row["settings"]["method"] for row in every)]
    every = sorted(
        every,
        key=lambda row: (
            "edges" in row["settings"],
            row["settings"]["columns"],
            order.index(row["settings"]["method"]),
            row["settings"]["rows"],
        ),
    )
    lines: list[list[str]] = []
    before: dict[str, Any] | None = None
    for row in every:
        settings = row["settings"]
        joined = f", {settings['edges']:,} edges" if "edges" in settings else ""
        named = [settings["method"], f"{settings['rows']:,} x {settings['columns']:,}{joined}"]
        if row["status"] != "ok":
            lines.append([*named, row["error"], *[""] * 5])
            continue
        alike = before is not None and all(
            before["settings"].get(k) == settings.get(k) for k in ("method", "columns", "edges")
        )
        last = before if alike else None
        fit, score = ([f"{row[what]:.1f}", exponent(row, last, what)] for what in ("fit", "score"))
        lines.append([*named, *fit, *score, f"{row['peak_mb']:,}", f"{row['auroc']:.3f}"])
        before = row
    return f"{HEAD}{table(HEADINGS, lines)}\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "wide", "graph", "peer", "page"))
    parser.add_argument("--sizes", nargs="+", type=int, default=SIZES)
    parser.add_argument("--methods", nargs="+", default=[*DETECTORS, *PEERS])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="of the tables of a peer")
    asked = parser.parse_args()
    if asked.what == "peer":
        return measure_peer(asked.methods[0], asked.folder)
    if asked.what == "run":
        append([(size, COLUMNS) for size in asked.sizes], asked.methods, asked.seed)
    if asked.what == "wide":
        append(WIDE, [method for method in asked.methods if method not in PEERS], asked.seed)
    if asked.what == "graph":
        append([(NODES, COLUMNS)], [method for method in asked.methods if method not in PEERS], asked.seed, EDGES)
    files.write(PAGE, page(rows.read_rows(RESULTS)).encode())


if __name__ == "__main__":
    main()

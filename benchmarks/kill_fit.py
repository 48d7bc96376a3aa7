"""Kills `tailwise fit` with SIGKILL at random moments, resumes it by the same command, and compares the scores.

python benchmarks/kill_fit.py [--kills 20] [--seed 0] [--rows 20000] [--epochs 120]

The moments are drawn evenly over the time that a whole fit takes, start of the program included. A fit that ends before
its moment is not counted and drawn again. One line of JSON: how many were `killed`; of these, how many had left no run
(`absent`), an unfinished one (`resumable`; `from_a_checkpoint`, if it had got that far), a `complete` or a `corrupt`
one; and how many were in the end `equal`, bit for bit in scores and weights, to the fit that nobody killed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from tailwise.errors import InputError
from tailwise.runs import store

_MOST_DRAWS_PER_KILL = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--epochs", type=int, default=120)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        table = write_table(Path(folder) / "parts.csv", options.rows)
        counts, seconds = kill_and_resume(table, options.kills, random.Random(options.seed), options.epochs)
    facts = {"seed": options.seed, "rows": options.rows, "epochs": options.epochs, "torch": torch.__version__}
    print(json.dumps({"benchmark": "kill_fit", **counts, "seconds_of_a_fit": round(seconds, 2), **facts}))


def write_table(path: Path, rows: int) -> Path:
    """Three kinds of normal rows, 100 : 10 : 1."""
    generator = np.random.default_rng(0)
    kind = generator.choice(3, rows, p=np.array([100, 10, 1]) / 111)
    samples = generator.normal(size=(3, 16))[kind] * 3 + generator.normal(size=(rows, 16))
    pd.DataFrame(samples, columns=[f"x{i}" for i in range(16)]).to_csv(path, index=False)
    return path


def kill_and_resume(table: Path, kills: int, moments: random.Random, epochs: int) -> tuple[dict[str, int], float]:
    """The counts, and the seconds of a fit that is not killed."""
    whole = table.parent / "whole"
    started = time.perf_counter()
    fit(table, whole, epochs)
    seconds = time.perf_counter() - started
    expected = store.open_run(whole).scores()
    counts = dict.fromkeys(("killed", "absent", "resumable", "from_a_checkpoint", "complete", "corrupt", "equal"), 0)
    for draw in range(kills * _MOST_DRAWS_PER_KILL):
        out = table.parent / f"run{draw}"
        if not killed(table, out, epochs, moments.uniform(0, seconds)):
            continue
        counts["killed"] += 1
        counts["from_a_checkpoint"] += (out / store.CHECKPOINT).exists()
        left = state(out)
        counts[left] += 1
        if left in ("absent", "resumable"):
            fit(table, out, epochs)
        counts["equal"] += equal(out, expected)
        if counts["killed"] == kills:
            break
    return counts, seconds


def state(out: Path) -> str:
    """What a killed fit has left: "absent", "resumable", "complete" or "corrupt"."""
    if not (out / store.SETTINGS).exists():
        return "absent"
    try:
        return "complete" if store.is_complete(out) else "resumable"
    except InputError:
        return "corrupt"


def equal(out: Path, expected: pd.DataFrame) -> bool:
    """Whether the run is whole, nothing half-written is left, and each of its numbers is that of `expected`."""
    if state(out) != "complete" or any(out.glob(".writing*")) or (out / store.CHECKPOINT).exists():
        return False
    run = store.open_run(out)
    run.detector()
    return run.scores().equals(expected)


def fit(table: Path, out: Path, epochs: int) -> None:
    """Run the real command to its end."""
    with start(table, out, epochs) as process:
        process.wait()


def killed(table: Path, out: Path, epochs: int, moment: float) -> bool:
    """Whether the command was still running, and so was killed, `moment` seconds after its start."""
    with start(table, out, epochs) as process:
        try:
            process.wait(moment)
        except subprocess.TimeoutExpired:
            process.kill()
    return process.returncode < 0


def start(table: Path, out: Path, epochs: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tailwise", "fit", str(table), "--epochs", str(epochs), "--out", str(out)]
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, **silent)


if __name__ == "__main__":
    main()

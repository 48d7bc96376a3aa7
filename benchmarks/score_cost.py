"""What it costs to score: imports and reopening on the command line, and one row by a run that is open.

python benchmarks/score_cost.py [--repeats 7]

CPU seconds of processes that take turns, each ratio of one interleaved run: `tailwise score` of a 1,000 x 32 table
against `import torch, pandas` (at most 1.5), `import tailwise` and its weightings against `import torch` (at most
1.2), `tailwise --help` (below half a second). Then the milliseconds of one row, by a run of a 5,000 x 20 table with a
threshold for each cluster (at most 6).
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import timing  # before numpy and torch, whose threads it sets

# isort: split
import numpy as np
import pandas as pd

import tailwise


def table(path: Path, rows: int, columns: int, kinds: int = 5) -> Path:
    """Kinds of normal, each half as frequent as the one before."""
    generator = np.random.default_rng(0)
    share = 0.5 ** np.arange(kinds)
    kind = generator.choice(kinds, rows, p=share / share.sum())
    samples = 4 * generator.normal(size=(kinds, columns))[kind] + generator.normal(size=(rows, columns))
    pd.DataFrame(samples, columns=[f"f{column}" for column in range(columns)]).to_csv(path, index=False)
    return path


def cpu_seconds() -> float:
    """Of the processes that have ended, whatever else the machine does."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def process(*words: str) -> partial[subprocess.CompletedProcess[bytes]]:
    return partial(subprocess.run, [sys.executable, *words], check=True, stdout=subprocess.DEVNULL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        small = table(Path(folder) / "small.csv", 1_000, 32)
        run = tailwise.fit(small, detector="gaussian", out=Path(folder) / "small-run")
        jobs = {
            "tailwise score": process("-m", "tailwise", "score", str(run.path), str(small)),
            "torch, pandas": process("-c", "import torch, pandas"),
            "tailwise": process("-c", "import tailwise; tailwise.Weighting, tailwise.importance_weights"),
            "torch": process("-c", "import torch"),
            "help": process("-m", "tailwise", "--help"),
        }
        seconds = timing.interleaved(jobs, options.repeats, cpu_seconds)
        timing.show("score_command", seconds, ("tailwise score", "torch, pandas"), clock="cpu")
        timing.show("import", seconds, ("tailwise", "torch"), clock="cpu")
        timing.show("help", seconds, ("help", "torch"), clock="cpu")

        large = table(Path(folder) / "large.csv", 5_000, 20)
        fitted = tailwise.fit(large, detector="gaussian", per_cluster=True, out=Path(folder) / "large-run")
        opened = tailwise.open_run(fitted.path)
        rows = pd.read_csv(large).to_numpy(np.float32) + 0.01
        turn = iter(range(10**9))

        def one_row() -> None:
            at = next(turn) % len(rows)
            opened.score(rows[at : at + 1])

        data = opened.samples(rows[:1]).data
        both = {"one row": one_row, "its detector": lambda: opened.scores_of(data)}
        for clock, clock_name in ((time.perf_counter, "wall"), (time.process_time, "cpu")):
            seconds = timing.interleaved(both, 200, clock, untimed_rounds=5)
            timing.show("one_row", seconds, ("one row", "its detector"), clock=clock_name)


if __name__ == "__main__":
    main()

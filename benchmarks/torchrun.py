"""Do two processes of torchrun train what one trains, also when they are killed, and in how much time?

    python benchmarks/torchrun.py [--epochs 12] [--rows 300]

The same weighted autoencoder is trained by one process, by two, by two that are killed after half of the epochs and
started again, and by one whose data are moved by 1e-7: any other order of sums differs by as much. Prints the largest
and the median differences of scores, as shares of the scores' standard deviation, and the seconds of both, without
their start.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import timing  # before torch, whose threads it sets

# isort: split
import torch
from torch import Tensor

from tailwise.core.data import Data
from tailwise.detectors.autoencoder import AutoEncoder
from tailwise.runs.store import Checkpoint
from tailwise.training import processes, torchrun
from tailwise.training.fit import fit
from tailwise.training.options import Training
from tailwise.weights.default import parse_weighting

NUDGE = 1e-7
LAUNCHER = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


def kept_in(work: Path) -> Checkpoint:
    """Keeps an unfinished training after each epoch."""
    return Checkpoint(work / "kept.safetensors", settings="", every=0.0)


def rows(count: int, nudge: float) -> Data:
    """Rows of six numbers, a tenth of them of a rare kind."""
    samples = torch.randn(count, 6, generator=torch.Generator().manual_seed(0))
    samples += 4 * (torch.arange(count) >= 0.9 * count)[:, None]
    return Data(samples + nudge, [str(row) for row in range(count)])


def train(options: argparse.Namespace) -> None:
    """What each process does: leave scores and seconds, or die in the epoch that it is told to."""

    def die(done: int, *rest: Any) -> None:
        if done == options.die_in:
            os.kill(os.getpid(), signal.SIGKILL)

    torch.set_num_threads(1)
    keeper = processes.SharedKeeper(kept_in(options.work)) if options.keep else None
    training = Training(epochs=options.epochs, batch_size=64)
    with processes.together():
        started = time.perf_counter()
        outcome = fit(
            AutoEncoder(), rows(options.rows, options.nudge), parse_weighting("Importance()"), training,
            keeper=keeper, progress=die,
        )  # fmt: skip
        seconds = time.perf_counter() - started
    if not torchrun.helps():
        torch.save((outcome.scores, seconds), options.work / "result.pt")


def run(options: argparse.Namespace, *more: str, launcher: tuple[str, ...] = (), work: Path) -> int:
    """The status of a training in processes of their own; it leaves `result.pt` in `work`."""
    words = ["--work", str(work), "--epochs", str(options.epochs), "--rows", str(options.rows), *more]
    environment = {"GLOO_SOCKET_IFNAME": "lo"} | os.environ
    command = [sys.executable, *launcher, __file__, *words]
    return subprocess.run(command, env=environment, check=False, stderr=subprocess.DEVNULL).returncode


def compare(options: argparse.Namespace) -> None:
    trained: dict[str, tuple[Tensor, float]] = {}
    killed_after = 0
    with tempfile.TemporaryDirectory() as folder:
        for name, launcher, more in (
            ("one", (), ()),
            ("two", LAUNCHER, ()),
            ("killed", LAUNCHER, ("--keep",)),
            ("nudged", (), ("--nudge", str(NUDGE))),
        ):
            work = Path(folder) / name
            work.mkdir()
            if name == "killed":
                half = str(options.epochs // 2)
                killed = run(options, *more, "--die-in", half, launcher=launcher, work=work)
                kept = kept_in(work).load()
                if not killed or kept is None or (work / "result.pt").exists():
                    sys.exit("the processes were not killed within their training")
                killed_after = len(kept[1]["history"])
            if status := run(options, *more, launcher=launcher, work=work):
                sys.exit(f"the training of {name} ended with status {status}")
            trained[name] = torch.load(work / "result.pt")
    spread = trained["one"][0].std()
    pairs = (("killed", "two"), ("two", "one"), ("nudged", "one"))
    shares = {f"{a} - {b}": (trained[a][0] - trained[b][0]).abs() / spread for a, b in pairs}
    timing.show(
        "torchrun",
        {name: [trained[name][1]] for name in ("one", "two")},
        ("two", "one"),
        rows=options.rows,
        epochs=options.epochs,
        killed_after=killed_after,
        largest_difference={pair: float(f"{share.max():.3g}") for pair, share in shares.items()},
        median_difference={pair: float(f"{share.median():.3g}") for pair, share in shares.items()},
        torch=torch.__version__,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--rows", type=int, default=300)
    # What the processes that it starts are told.
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--nudge", type=float, default=0.0, help=argparse.SUPPRESS)
    parser.add_argument("--keep", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--die-in", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work is None:
        compare(options)
    else:
        train(options)


if __name__ == "__main__":
    main()

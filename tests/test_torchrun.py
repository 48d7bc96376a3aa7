"""`torchrun -m tailwise fit` in two processes leaves the run that one process leaves, also when it was killed."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import tailwise
from tailwise.core import processes
from tailwise.runs.files import CHECKPOINT, MODEL
from tailwise.training import torchrun

ROWS = 300


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    generator = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("torchrun") / "parts.csv"
    kinds = 4 * (np.arange(ROWS) >= 0.9 * ROWS)[:, None]
    pd.DataFrame(generator.normal(size=(ROWS, 6)) + kinds).to_csv(path, index=False)
    return path


def words(table: Path, out: Path, detector: str, *more: str) -> list[str]:
    return ["-m", "tailwise", "fit", str(table), "--detector", detector, "--out", str(out), "--no-report", *more]


def in_two(*command: str) -> str:
    """What torchrun's processes print, once they are done."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    ended = subprocess.run([*launcher, *command], env=environment, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def start_two(*command: str) -> list[subprocess.Popen[bytes]]:
    """Two processes as torchrun starts them, which the test itself can kill."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "test"}
    environment = os.environ | meeting | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    return [
        subprocess.Popen([sys.executable, *command], env=environment | {"RANK": str(rank)}, stderr=subprocess.DEVNULL)
        for rank in range(2)
    ]


def scores(run: Path, table: Path) -> np.ndarray:
    return tailwise.open_run(run).score(str(table))["score"].to_numpy()


EPOCHS = ("--epochs", "12", "--batch-size", "64")


@pytest.mark.parametrize(
    ("detector", "more"),
    [
        ("autoencoder", (*EPOCHS, "--scores", "own", "--weighting", "Importance()", "--cross", "3")),
        ("gaussian", ()),
    ],
)
def test_two_processes_leave_the_run_of_one(table: Path, tmp_path: Path, detector: str, more: tuple[str, ...]) -> None:
    subprocess.run([sys.executable, *words(table, tmp_path / "one", detector, *more)], check=True, capture_output=True)
    told = in_two(*words(table, tmp_path / "two", detector, *more))
    assert told.split() == [str(tmp_path / "two")]
    alone, together = (tailwise.open_run(tmp_path / name) for name in ("one", "two"))
    assert np.abs(scores(together.path, table) - scores(alone.path, table)).max() < 1e-5
    assert together.settings.threshold == pytest.approx(alone.settings.threshold, abs=1e-5)
    assert {p.name for p in together.path.iterdir()} == {p.name for p in alone.path.iterdir()}


def test_killed_processes_go_on_together(table: Path, tmp_path: Path) -> None:
    """Killed once a checkpoint is there, what goes on ends like one process that was never killed."""
    more = ("--epochs", "1200", "--batch-size", "32", "--scores", "own", "--cross", "0")
    command = words(table, tmp_path / "two", "autoencoder", *more)
    running = start_two(*command)
    deadline = time.monotonic() + 120
    try:
        while not (tmp_path / "two" / CHECKPOINT).exists():
            assert [each.poll() for each in running] == [None, None]
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        for each in running:
            each.kill()
            each.wait()
    assert not (tmp_path / "two" / MODEL).exists()
    in_two(*command)
    subprocess.run(
        [sys.executable, *words(table, tmp_path / "one", "autoencoder", *more)], check=True, capture_output=True
    )
    assert np.abs(scores(tmp_path / "two", table) - scores(tmp_path / "one", table)).max() < 1e-5


def test_a_process_that_nobody_started_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert torchrun.started() == 1
    assert not torchrun.helps()
    assert not processes.shares()
    parts = [torch.ones(2, 3), torch.zeros(1, 3)]
    assert torch.equal(processes.joined(parts, [2, 1]), torch.cat(parts))

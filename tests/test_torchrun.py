"""`torchrun -m tailwise fit` in two processes leaves the run that one process leaves, also when it was killed."""

from __future__ import annotations

import multiprocessing
import os
import socket
import subprocess
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

import tailwise
from tailwise import Data, Training
from tailwise.cli import main
from tailwise.core import processes
from tailwise.detectors.autoencoder import AutoEncoder
from tailwise.integrations import trackers
from tailwise.runs.store import Checkpoint
from tailwise.training import processes as training_processes
from tailwise.training import torchrun
from tailwise.training.fit import fit
from tailwise.training.loop import Keeper, Progress
from tailwise.weights.default import parse_weighting

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


def in_two(*command: str, **settings: str) -> str:
    """What torchrun's processes print, once they are done."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"} | settings
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    ended = subprocess.run([*launcher, *command], env=environment, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


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


MINE = '''
from tailwise.core.registry import register
from tailwise.detectors.gaussian import Gaussian

print("imported")


@register("detector", "mine")
class Mine(Gaussian):
    """A Gaussian of somebody's own."""
'''


def test_every_process_imports_what_the_user_names(table: Path, tmp_path: Path) -> None:
    (tmp_path / "my_detectors.py").write_text(MINE, encoding="utf-8")
    path = os.pathsep.join([*sys.path, str(tmp_path)])
    told = in_two(*words(table, tmp_path / "run", "mine"), PYTHONPATH=path, TAILWISE_IMPORT="my_detectors")
    assert told.split() == ["imported", str(tmp_path / "run")]


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Where the fits of a process that helps log to."""
    for name, value in {"TORCHELASTIC_RUN_ID": "test", "RANK": "1", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    places: list[str] = []

    def tracking(where: str, out: Path) -> AbstractContextManager[trackers.Tracker]:
        places.append(where)
        return nullcontext(trackers.Tracker(None))

    monkeypatch.setattr(training_processes, "together", nullcontext)
    monkeypatch.setattr(trackers, "tracking", tracking)
    monkeypatch.setitem(sys.modules, "mlflow", ModuleType("mlflow"))
    return places


def test_a_process_that_helps_leaves_nothing(
    table: Path, tmp_path: Path, logged: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    """No run, no log, no line but of what went wrong, for torchrun may end the process that tells before it has."""
    assert main.run(words(table, tmp_path / "run", "gaussian", "--log", "mlflow")[2:]) == 0
    assert logged == [""]
    assert main.run(["score", str(tmp_path / "run"), str(table)]) == 0
    assert capfd.readouterr() == ("", "")
    assert main.run(["fit", str(table), "--detector", "none"]) == 2
    out, error = capfd.readouterr()
    assert out == ""
    assert [line.split(":")[0] for line in error.splitlines()] == ["error", "hint"]
    assert not list(tmp_path.iterdir())


def kept_of(folder: Path, rank: int) -> Checkpoint:
    """What a process keeps of each epoch."""
    return Checkpoint(folder / f"kept {rank}.safetensors", settings="", every=0.0)


def trained(keeper: Keeper | None, progress: Progress | None = None) -> Tensor:
    """Scores after a weighted training of ten epochs."""
    generator = torch.Generator().manual_seed(0)
    data = Data(torch.randn(101, 4, generator=generator), [str(row) for row in range(101)])
    training = Training(epochs=10, batch_size=20, lr=5e-3)  # the last batch is one sample: one process has none of it
    weighting = parse_weighting("Importance(), Accumulate(0.5)")
    detector = AutoEncoder(hidden=(8,), code=2)
    return fit(detector, data, weighting, training, keeper=keeper, progress=progress).scores


def process(rank: int, folder: Path, killed: bool) -> None:
    os.environ |= {"TORCHELASTIC_RUN_ID": "test", "RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
    os.environ |= {"MASTER_PORT": (folder / "port").read_text(), "GLOO_SOCKET_IFNAME": "lo"}
    torch.set_num_threads(1)

    def kill(done: int, *rest: Any) -> None:
        if killed and done == 4:
            os._exit(9)

    with training_processes.together():
        found = trained(training_processes.SharedKeeper(kept_of(folder, rank)), kill)
    torch.save(found, folder / f"scores {rank}.pt")


def run_two(folder: Path, killed: bool) -> list[int | None]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        (folder / "port").write_text(str(free.getsockname()[1]))
    context = multiprocessing.get_context("spawn")
    running = [context.Process(target=process, args=(rank, folder, killed)) for rank in range(2)]
    for each in running:
        each.start()
    try:
        for each in running:
            each.join(120)
        return [each.exitcode for each in running]
    finally:
        for each in running:
            each.kill()


def test_killed_processes_go_on_together(tmp_path: Path) -> None:
    """Killed in the fourth epoch, they end to the bit like two that were never killed: the first has kept it for both.
    In so few epochs that is also what one process comes to; rounding grows with epochs (benchmarks/torchrun.py)."""
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    killed.mkdir()
    whole.mkdir()
    assert 9 in run_two(killed, killed=True)
    assert not (killed / "scores 0.pt").exists()
    assert not (killed / "kept 1.safetensors").exists()
    assert len(kept_of(killed, 0).load()[1]["history"]) >= 3  # type: ignore[index]
    assert run_two(killed, killed=False) == [0, 0]
    assert run_two(whole, killed=False) == [0, 0]
    alone = trained(None)
    for rank in range(2):
        resumed = torch.load(killed / f"scores {rank}.pt")
        assert torch.equal(resumed, torch.load(whole / f"scores {rank}.pt"))
        assert float((resumed - alone).abs().max()) < 1e-5


def test_a_process_that_nobody_started_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert torchrun.started() == 1
    assert not torchrun.helps()
    assert not processes.shares()
    parts = [torch.ones(2, 3), torch.zeros(1, 3)]
    assert torch.equal(processes.joined(parts, [2, 1]), torch.cat(parts))

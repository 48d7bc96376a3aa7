"""The smoke profile of benchmarks/kill_commands.py: ended commands leave the old result or the new one, and no rest."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from tailwise.runs import files

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "kill_commands.jsonl"

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
forked = pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")


@pytest.fixture(scope="module")
def script(module_of: Callable[[Path], ModuleType]) -> ModuleType:
    return module_of(ROOT / "benchmarks" / "kill_commands.py")


@forked
def test_a_few_moments(script: ModuleType) -> None:
    for row in script.measure(("fit --overwrite", "score --maps"), script.ENDINGS, 2, seed=1):
        assert row["moments"] == row["equal"] == row["old"] + row["new"] == 2, row
        assert row["broken"] == row["left_for_good"] == row["notes_lost"] == row["tracebacks"] == 0, row


@forked
def test_a_careless_writer_would_be_seen(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    def careless(path: Path, content: bytes) -> None:
        path.unlink(missing_ok=True)
        path.write_bytes(content)

    monkeypatch.setattr(files, "write", careless)
    (row,) = script.measure(("score --out",), (script.KILLED,), 4, seed=1)
    assert row["broken"] > 0


def test_the_page_is_that_of_the_rows(script: ModuleType) -> None:
    rows = [json.loads(line) for line in RESULTS.read_text().splitlines()]
    assert (ROOT / "benchmarks" / "kill_commands.md").read_text() == script.page(rows)
    assert {(row["command"], row["ending"]) for row in rows} == {
        (c, e) for c in script.COMMANDS for e in script.ENDINGS
    }
    assert all(row["moments"] >= 20 for row in rows)
    for key in ("broken", "left_for_good", "notes_lost", "tracebacks"):
        assert not [row for row in rows if row[key]], key
    assert all(row["old"] + row["new"] + row["resumed"] == row["equal"] == row["moments"] for row in rows)


_BENCH = """
from multiprocessing import Pipe
from pathlib import Path
import os, sys, time
from tailwise.benchmark import runner

if __name__ == "__main__":
    lifeline = Pipe(duplex=False)
    executor = runner._executor(1, lifeline)
    print(executor.submit(os.getpid).result(), flush=True)
    executor.submit(time.sleep, 600)
    if sys.argv[1] == "closes":
        lifeline[1].close()
    time.sleep(600)
"""


@pytest.mark.parametrize("how", ["killed", "closes"])
def test_the_processes_of_a_benchmark_end_with_it(how: str, tmp_path: Path) -> None:
    (tmp_path / "bench.py").write_text(_BENCH)
    command = [sys.executable, str(tmp_path / "bench.py"), how]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        worker = int(first.stdout.readline())
        if how == "killed":
            first.kill()
        ended = time.monotonic() + 30
        while _runs(worker) and time.monotonic() < ended:
            time.sleep(0.05)
        still = _runs(worker)
        if still:
            os.kill(worker, signal.SIGKILL)
        first.kill()
    assert not still


def _runs(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False

"""Processes that run commands of tailwise one after another, watched by the one that hands them out.

A process that takes longer than allowed, grows beyond a bound or dies is replaced, and its case says so. Time is that
of the processor, and only for a process that waits that of the clock: on a busy machine nothing hangs for that.
"""

from __future__ import annotations

import contextlib
import io
import logging
import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

GIGABYTE = 1 << 30
# So many times longer than it may work a process may take, on a machine that is busy with others.
_WAITS = 6
# The library's modules, which the first case would otherwise pay for.
_IMPORTED = (
    "cli.commands", "workflows.fit", "workflows.triage", "workflows.pages", "integrations.onnx", "sources.auto",
)  # fmt: skip


@dataclass
class Outcome:
    """What a command did: its exit status, None if an exception left it, and what it printed.

    `noise` is what did not pass through tailwise: lines of libraries on stderr.
    """

    status: int | None
    output: str = ""
    raised: str = ""
    noise: str = ""
    peak: int = 0


def run_command(argv: list[str]) -> Outcome:
    """Run a command here, its output caught at the level of the system, where libraries in C write."""
    out, err = io.TextIOWrapper(io.BytesIO(), "utf-8"), io.StringIO()
    foreign = _Foreign()
    logging.getLogger().addHandler(foreign)
    status, raised = None, ""
    try:
        with _noise() as noise, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                status = _call(argv)
            except SystemExit as error:
                status = error.code if isinstance(error.code, int) else 2
            except BaseException:
                raised = traceback.format_exc()
    finally:
        logging.getLogger().removeHandler(foreign)
    out.flush()
    printed = out.buffer.getvalue().decode("utf-8", "replace")
    return Outcome(status, printed + err.getvalue(), raised, "".join(noise + foreign.lines))


def _call(argv: list[str]) -> int:
    if argv[0] == "runtime":
        from tailwise_runtime.__main__ import main

        return main(argv[1:])
    from tailwise.cli.main import run

    return run(argv)


class _Foreign(logging.Handler):
    """Records of loggers that are not tailwise's, which Python prints where nobody handles them."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(f"{record.name}: {record.getMessage()}\n")


@contextlib.contextmanager
def _noise() -> Iterator[list[str]]:
    """What is written to the process's stdout and stderr by others than Python, filled in at the end."""
    lines: list[str] = []
    sys.stdout.flush()
    sys.stderr.flush()
    before = os.dup(1), os.dup(2)
    taken = os.memfd_create("noise")
    os.dup2(taken, 1)
    os.dup2(taken, 2)
    try:
        yield lines
    finally:
        for place, kept in enumerate(before, 1):
            os.dup2(kept, place)
            os.close(kept)
        os.lseek(taken, 0, os.SEEK_SET)
        with os.fdopen(taken, "rb") as file:
            lines.append(file.read().decode("utf-8", "replace"))


@dataclass
class _Worker:
    process: Any
    pipe: Connection
    case: Any = None
    started: float = 0.0
    used: float = 0.0
    size: int = 0


@dataclass
class Pool:
    """Runs `work(case)` for each case in processes of its own.

    Args:
        work: called in the processes; what it returns is yielded with the case.
        start: called first in each process, with `home`.
        seconds, growth: what a case may take, and by how many bytes its process may grow.
    """

    work: Callable[[Any], Any]
    start: Callable[[Path], None]
    home: Path
    processes: int = 2
    seconds: float = 10.0
    growth: int = 2 * GIGABYTE
    _workers: list[_Worker] = field(default_factory=list)

    def run(self, cases: Sequence[Any]) -> Iterator[tuple[Any, Any]]:
        """Each case with its result, or with "hang", "memory" or "crash", as they come."""
        waiting = list(reversed(cases))
        self._workers = [self._started() for _ in range(min(self.processes, len(cases)))]
        try:
            while waiting or any(worker.case is not None for worker in self._workers):
                for worker in self._workers:
                    if worker.case is None and waiting:
                        worker.case, worker.started, worker.size = waiting.pop(), time.monotonic(), 0
                        worker.used = _processor_time(worker.process.pid)
                        worker.pipe.send(worker.case)
                wait([worker.pipe for worker in self._workers if worker.case is not None], 0.1)
                for place, worker in enumerate(self._workers):
                    if worker.case is None:
                        continue
                    result = self._result(worker)
                    if result is None:
                        continue
                    case, worker.case = worker.case, None
                    if isinstance(result, str):
                        self._end(worker)
                        self._workers[place] = self._started()
                    yield case, result
        finally:
            for worker in self._workers:
                self._end(worker)

    def _started(self) -> _Worker:
        here, there = multiprocessing.Pipe()
        context = multiprocessing.get_context("spawn")
        process = context.Process(target=_serve, args=(there, self.work, self.start, self.home), daemon=False)
        process.start()
        there.close()
        with contextlib.suppress(EOFError):
            here.recv()  # it is ready
        return _Worker(process, here)

    def _result(self, worker: _Worker) -> Any:
        """The result of its case, if there is one yet."""
        try:
            if worker.pipe.poll():
                return worker.pipe.recv()
        except (EOFError, OSError):
            return "crash"
        waited = time.monotonic() - worker.started
        if waited > self.seconds * _WAITS or _processor_time(worker.process.pid) - worker.used > self.seconds:
            return "hang"
        size = _resident(worker.process.pid)
        worker.size = worker.size or size
        return "memory" if size - worker.size > self.growth else None

    @staticmethod
    def _end(worker: _Worker) -> None:
        worker.pipe.close()
        # Its group: a command may have started processes of its own.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(worker.process.pid, signal.SIGKILL)
        worker.process.join()


def _serve(pipe: Connection, work: Callable[[Any], Any], start: Callable[[Path], None], home: Path) -> None:
    os.setpgid(0, 0)
    import importlib

    for name in _IMPORTED:
        importlib.import_module(f"tailwise.{name}")
    start(home)
    pipe.send("ready")
    while True:
        try:
            case = pipe.recv()
        except EOFError:
            return
        pipe.send(work(case))


def _processor_time(process: int) -> float:
    """Seconds that a process and its threads have worked."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    except (OSError, IndexError, ValueError):
        return 0.0


def _resident(process: int) -> int:
    try:
        return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError, ValueError):
        return 0

"""Benchmarks: every method on the same draws, one row a cell, in parallel processes that can be interrupted.

Rows are appended as they are done and never filtered: a failure is a row. A cell whose row is there is not done
again. `suites` says what is run, `draws` on what, `methods` with what, `measures` what is written.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict, dataclass, field, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..core import messages
from ..errors import InputError
from ..training.environment import environment
from ..weights.weighting import effective_sample_size
from . import draws, measures
from . import methods as benchmark_methods
from . import rows as benchmark_rows
from .methods import Missing, check, fit, per_cluster_threshold, with_scores, yardstick
from .rows import check_place, commit, is_done, key, peak_memory_mb, read_rows, reset_peak_memory, versions
from .suites import Conditions, Method, Suite

__all__ = ["Job", "Workers", "home_of", "jobs", "run", "run_job", "run_methods"]
_MOST_PROCESSES = 1_024
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True)
class Job:
    """The cells of one draw that are still to be done, and where rows go.

    `told` are the reasons for which cells were skipped before: a resumed run does not repeat them.
    """

    suite: Suite
    conditions: Conditions
    methods: tuple[Method, ...]
    rows: Path
    reasons: Mapping[str, str] = field(default_factory=dict)

    def append(self, method: Method, status: str, facts: dict[str, Any]) -> None:
        """Add the row of one cell."""
        settings = self.suite.settings(self.conditions, method)
        if status == "skipped" and self.reasons.get(key(settings)) == facts["error"]:
            return
        row = {
            "suite": self.suite.name, "status": status, **asdict(self.conditions), **asdict(method), **facts,
            "commit": commit(), "versions": versions(),
            "settings": settings,
        }  # fmt: skip
        benchmark_rows.append(self.rows, row)


class Workers(Protocol):
    """Who does jobs in place of processes of ours, as `integrations.engines` starts them."""

    def each(self, task: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        """The number of each item as it is done, and what gives its `result()`, or raises an InputError."""
        ...


def run(
    suite: Suite,
    profile: str,
    part: str,
    rows_path: Path,
    processes: int = 2,
    data: str = "",
    workers: Callable[[], AbstractContextManager[Workers]] | None = None,
) -> int:
    """Do every cell that has no row yet; the number of cells done. Whoever `workers` starts does them, in place of
    processes of ours: then the rows are in the order of the jobs.

    Raises:
        InputError: no such profile or part, `rows_path` holds something else, or the disk takes no more rows.
    """
    if not 1 <= processes <= _MOST_PROCESSES:
        raise InputError(f"processes must be from 1 to {_MOST_PROCESSES}: got {processes}", "2 is usual")
    check_place(rows_path)
    todo = jobs(suite, profile, part, rows_path)
    cells = sum(len(job.methods) for job in todo)
    messages.progress(f"{cells} cells of {len(todo)} draws to do")
    variables = dict.fromkeys(_ONE_THREAD, "1") | ({"TAILWISE_DATA": data} if data else {})
    with environment(variables):
        work = _in_processes(todo, processes) if workers is None or not todo else _by_workers(todo, workers)
        for done, job in enumerate(work, 1):
            messages.progress(f"{done}/{len(todo)}  {_text_of(job.conditions)}")
    return cells


def jobs(suite: Suite, profile: str, part: str, rows_path: Path) -> list[Job]:
    """What is left to do: the cells that have no row, or one that does not stand."""
    rows = read_rows(rows_path)
    done = {key(row["settings"]) for row in rows if is_done(row)}
    skipped = {key(row["settings"]): row["error"] for row in rows if row["status"] == "skipped"}
    todo = []
    for conditions, each in suite.cells(profile, part).items():
        keys = {m: key(suite.settings(conditions, m)) for m in each}
        left = tuple(m for m in each if keys[m] not in done)
        reasons = {keys[m]: skipped[keys[m]] for m in left if keys[m] in skipped}
        if left:
            todo.append(Job(suite, conditions, left, rows_path, reasons))
    return todo


def count_failed(suite: Suite, profile: str, part: str, rows_path: Path) -> int:
    """How many of the cells have a failure as their newest row."""
    newest = {key(row["settings"]): row["status"] for row in read_rows(rows_path)}
    asked = [key(suite.settings(c, m)) for c, methods in suite.cells(profile, part).items() for m in methods]
    return sum(newest.get(cell) == "failed" for cell in asked)


def run_job(job: Job) -> None:
    """Build the draw once, and append a row for each of its methods."""
    conditions = job.conditions
    settings = job.suite.sources[conditions.source]
    try:
        pool = draws.load(settings, draws.scene_of(settings, conditions.draw))
    except (InputError, OSError) as error:
        return _append_all(job, "skipped", error)
    try:
        draw = draws.make(pool, settings, conditions, job.suite.calibration, job.suite.labelled)
    except Exception as error:
        return _append_all(job, "failed", error)
    return run_methods(job, draw)


def run_methods(job: Job, draw: draws.Draw) -> None:
    """Append a row for each of the job's methods on a draw, which may come from anywhere."""
    fitted: dict[Method, Any] = {}
    for method in sorted(job.methods, key=_order):
        # Own and local scores are of the same fit; only the newest is kept.
        same = _same_fit(method)
        fitted = {same: fitted[same]} if same in fitted else {}
        _run_method(job, draw, method, fitted)


def _order(method: Method) -> tuple[str, ...]:
    return method.detector, method.weighting, method.refinement, method.scores


def _same_fit(method: Method) -> Method:
    """What the methods that share a fit have in common: rounds and defaults read local scores, others know of none."""
    return method if method.refinement or method.is_default else replace(method, scores="own")


def home_of(suite: Path) -> Path:
    """The folder above suites/: rows go to its results/."""
    folder = suite.resolve().parent
    return folder.parent if folder.name == "suites" else folder


def _run_method(job: Job, draw: draws.Draw, method: Method, fitted: dict[Method, Any]) -> None:
    facts: dict[str, Any] = {
        "n_train": len(draw.train), "n_test": len(draw.labels), "n_anomalies": int(draw.labels.sum())
    }  # fmt: skip
    reset_peak_memory()
    try:
        check(job.suite, draw, method)
        started = time.process_time()
        if method.is_yardstick:
            scorer = yardstick(draw, method.detector)
            facts["seconds_fit"] = time.process_time() - started
        else:
            same = _same_fit(method)
            if same not in fitted:
                made = fit(job.suite, draw, method, job.conditions.draw)
                fitted[same] = made, time.process_time() - started
            made, facts["seconds_fit"] = fitted[same]
            weights = made.outcome.weights
            facts["effective_sample_share"] = effective_sample_size(weights) / len(weights)
            started = time.process_time()
            scorer = benchmark_methods.scorer(with_scores(made, draw.train, method.scores))
        scores = scorer(None if draw.in_sample else draw.test)
        held = None if draw.held is None else scorer(draw.held)
        facts["seconds_score"] = time.process_time() - started
        facts |= measures.measure(draw, np.asarray(scores, dtype=float), held)
        if job.suite.per_cluster and method.scores != "own" and held is not None:
            limit = per_cluster_threshold(draw, held, scorer(None))
            facts["metrics"] |= measures.at_threshold(draw, np.asarray(scores, dtype=float), limit, "per_cluster_")
    except Missing as error:
        return job.append(method, "skipped", {"error": error.message})
    except Exception as error:
        return job.append(method, "failed", facts | {"error": _error_text(error)})
    facts["peak_memory_mb"] = peak_memory_mb()
    return job.append(method, "ok", _rounded(facts))


def _append_all(job: Job, status: str, error: Exception) -> None:
    for method in job.methods:
        job.append(method, status, {"error": _error_text(error)})


def _in_processes(todo: Sequence[Job], processes: int) -> Iterator[Job]:
    """Run jobs and yield each when it is done. Only as many as there are processes are handed out at a time, so that
    the death of a process is known to be the doing of one of them."""
    waiting: list[Job] = list(todo)
    running: dict[Future[None], Job] = {}
    lifeline = multiprocessing.Pipe(duplex=False)
    executor = _executor(processes, lifeline)
    try:
        while waiting or running:
            while waiting and len(running) < processes:
                job = waiting.pop(0)
                running[executor.submit(run_job, job)] = job
            finished, _ = wait(running, return_when=FIRST_COMPLETED)
            dead = [future for future in finished if isinstance(future.exception(), BrokenProcessPool)]
            for future in [*finished] if not dead else [*running]:
                job = running.pop(future)
                if dead and (rest := _after_death(job, future)):
                    waiting.insert(0, rest)
                else:
                    future.result()
                    yield job
            if dead:
                executor.shutdown()
                executor = _executor(processes, lifeline)
    except BaseException:
        lifeline[1].close()  # nobody waits for the cells that were begun
        raise
    finally:
        executor.shutdown(cancel_futures=True)
        for end in lifeline:
            end.close()


def rows_of(job: Job) -> list[dict[str, Any]]:
    """The rows of a job, for whoever dealt it out to append. A task: any process may do it, at any time."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "rows.jsonl"
        run_job(replace(job, rows=place))
        return benchmark_rows.read_all(place)


def _by_workers(todo: Sequence[Job], workers: Callable[[], AbstractContextManager[Workers]]) -> Iterator[Job]:
    """Run jobs and yield each when its rows are appended: in order, so that they wait for those of earlier jobs, but
    an interruption loses none."""
    waiting, first = dict[int, Any](), 0
    try:
        with workers() as engine:
            for number, done in engine.each(rows_of, todo):
                waiting[number] = done
                while first in waiting:
                    _append_rows(todo[first], waiting.pop(first))
                    yield todo[first]
                    first += 1
    finally:
        for number in sorted(waiting):
            _append_rows(todo[number], waiting[number])


def _append_rows(job: Job, done: Any) -> None:
    try:
        made = done.result()
    except InputError as error:  # its workers died again and again
        return _append_all(job, "failed", error)
    for row in made:
        benchmark_rows.append(job.rows, row)


def _after_death(job: Job, future: Future[None]) -> Job | None:
    """A process that was killed takes those beside it along: each leaves a row, and its job goes on after it."""
    if future.done() and future.exception() is None:
        return None
    done = {key(row["settings"]) for row in read_rows(job.rows)}
    left = [m for m in job.methods if key(job.suite.settings(job.conditions, m)) not in done]
    if not left:
        return replace(job, methods=())
    first, *rest = sorted(left, key=_order)
    job.append(first, "failed", {"error": "the process was killed (out of memory?) in this cell or in one beside it"})
    return replace(job, methods=tuple(rest))


def _executor(processes: int, lifeline: tuple[Connection, Connection]) -> ProcessPoolExecutor:
    """Processes that end with this one, or when it closes its end of `lifeline`, the second."""
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(processes, context, initializer=_end_with, initargs=lifeline)


def _end_with(heard: Connection, spoken: Connection) -> None:
    """End this process as soon as the first one has closed its `spoken`, as a kill of it does too."""
    spoken.close()  # ours
    # A terminal sends Ctrl-C to every process; the first one answers it for all.
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def wait_for_the_end() -> None:
        with suppress(OSError):
            heard.poll(None)
        os._exit(1)

    threading.Thread(target=wait_for_the_end, daemon=True).start()


def _error_text(error: Exception) -> str:
    """The error without this machine's folders: rows are for everyone."""
    text = error.message if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
    for folder, name in ((os.environ.get("TAILWISE_DATA"), "TAILWISE_DATA"), (os.getcwd(), "."), (Path.home(), "~")):
        text = text.replace(str(folder), name) if folder else text
    return text.splitlines()[0][:500] if text else type(error).__name__


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 5)
    if isinstance(value, dict):
        return {name: _rounded(each) for name, each in value.items()}
    return [_rounded(each) for each in value] if isinstance(value, list) else value


def _text_of(conditions: Conditions) -> str:
    return (
        f"{conditions.source}, draw {conditions.draw}, imbalance {conditions.imbalance}, "
        f"contamination {conditions.contamination:g}"
    )

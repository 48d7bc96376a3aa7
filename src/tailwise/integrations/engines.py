"""Tasks done one after another here, or by the workers of Dask or Ray: the engine deals them out and repeats them.

A task is a function of a module, given one value; it leaves its result in files of its own, so that it may be repeated
at any time. Nothing here schedules: what a killed worker leaves undone is the engine's to do again.
"""

from __future__ import annotations

import functools
import logging
import os
import re
import secrets
import socket
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from ..core import messages
from ..errors import InputError
from ..training.environment import environment
from .extras import need
from .named_modules import import_named

T = TypeVar("T")
R = TypeVar("R")

NAMES = ("local", "dask", "ray")
# How often the engine does a task again whose worker died.
_AGAIN = 3
_MOST_WORKERS = 1_024
_LOOPBACK = "127.0.0.1"
# How long a scheduler may take to answer.
_SECONDS = 10.0
# What Ray keeps of values that tasks give; ours are small. It takes no less.
_STORE_BYTES = 80_000_000
# Nothing is reported, this machine alone can connect, and other packages' variables stay as they are.
_RAY_ALONE = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
_DIED = "a worker died again and again in the same part", "use fewer workers, or larger ones, and repeat the command"


class WorkersLost(InputError):
    """A task whose workers died: it may succeed the next time, and what others came to is good."""


@dataclass(frozen=True)
class Done(Generic[R]):
    """What a task came to: a value, or why it was refused as (kind of error, message, hint), and what it said as
    (level, text)."""

    value: R | None
    refused: tuple[type[InputError], str, str] | None = None
    said: tuple[tuple[int, str], ...] = ()

    def result(self) -> R:
        """The value.

        Raises:
            InputError: the task was refused, or its worker died too often.
        """
        if self.refused is not None:
            kind, message, hint = self.refused
            raise kind(message, hint)
        return self.value  # type: ignore[return-value]


class Engine(Protocol):
    """Who does tasks."""

    def each(self, task: Callable[[T], R], items: Sequence[T]) -> Iterator[tuple[int, Done[R]]]:
        """What `task` comes to for each item, with the item's number, in the order in which they are done."""
        ...


@dataclass(frozen=True)
class Options:
    """Who does the work. Each of these is an option.

    Attributes:
        engine: "local" does one part after another; "dask" and "ray" deal parts out to workers, and repeat those of a
            worker that dies. They need tailwise[engines].
        workers: how many workers Dask or Ray start on this machine.
        scheduler: use the workers of a running cluster instead: the address of Dask's scheduler (tcp://HOST:8786) or of
            Ray. They must see the same files under the same paths.
    """

    engine: str = "local"
    workers: int = 2
    scheduler: str | None = None

    def check(self) -> None:
        """Raise an InputError unless these options can be used."""
        if self.engine not in NAMES:
            raise InputError(f"there is no engine {self.engine!r}", f"choose one of: {', '.join(NAMES)}")
        if not 1 <= self.workers <= _MOST_WORKERS:
            raise InputError(f"workers must be from 1 to {_MOST_WORKERS}: got {self.workers}", "2 is usual")
        if self.scheduler is not None and self.engine == "local":
            raise InputError("a scheduler is that of dask or ray, and the engine is local", "say --engine dask or ray")
        if self.engine != "local":
            need(f"the engine {self.engine}", (_PACKAGES[self.engine],), "engines")


@contextmanager
def started(options: Options = Options()) -> Iterator[Engine]:
    """The engine that is asked for, with its workers; they end with the block.

    Workers take one thread each, listen on this machine alone, and report to nobody. Where a program has started Ray
    before, its workers do the tasks, as it has set them up.

    Raises:
        InputError: there is no such engine, its package is missing, or nobody answers at the scheduler's address.

    Examples:
        >>> with started() as engine:
        ...     [done.result() for _, done in engine.each(abs, [-1, 2])]
        [1, 2]
    """
    options.check()
    if options.scheduler is not None:
        _check_answers(options.scheduler)
    with _STARTERS[options.engine](options) as engine:
        yield engine


def _check_answers(address: str) -> None:
    """Raise an InputError where nobody listens at HOST:PORT: the engines would ask for minutes."""
    parts = re.fullmatch(r"(?:\w+://)?([^/]+):(\d{1,5})", address)
    if parts is None:
        raise InputError(f"a scheduler's address is HOST:PORT or tcp://HOST:PORT: got {address}", "check the address")
    try:
        socket.create_connection((parts[1].strip("[]"), int(parts[2])), _SECONDS).close()
    except (OSError, OverflowError) as error:
        raise WorkersLost(f"nobody answers at {address}: {error}", "is that scheduler running?") from error


def attempted(task: Callable[[T], R], item: T) -> Done[R]:
    """What a task comes to, wherever it runs; a refusal, which another attempt would meet too, is a result."""
    with messages.gathered() as said, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what is read, which whoever deals tasks out has read too
        try:
            import_named()
            return Done(task(item), said=tuple(said))
        except InputError as error:
            return Done(None, (type(error), error.message, error.hint), tuple(said))


class _Local:
    def each(self, task: Callable[[T], R], items: Sequence[T]) -> Iterator[tuple[int, Done[R]]]:
        for number, item in enumerate(items):
            yield number, attempted(task, item)


@contextmanager
def _local(options: Options) -> Iterator[Engine]:
    yield _Local()


class _Dask:
    def __init__(self, client: Any) -> None:
        self.client = client

    def each(self, task: Callable[[T], R], items: Sequence[T]) -> Iterator[tuple[int, Done[R]]]:
        from distributed import as_completed
        from distributed.scheduler import KilledWorker

        futures = self.client.map(attempted, [task] * len(items), items, retries=_AGAIN, pure=False)
        numbers = {future.key: number for number, future in enumerate(futures)}
        for future in as_completed(futures, loop=self.client.loop):
            try:
                done = future.result()
            except KilledWorker:
                done = Done(None, (WorkersLost, *_DIED))
            yield numbers[future.key], done
            future.release()


@contextmanager
def _dask(options: Options) -> Iterator[Engine]:
    import dask
    from distributed import Client, LocalCluster

    quiet = {"distributed.scheduler.allowed-failures": _AGAIN, "distributed.admin.tick.limit": "1h"}
    with dask.config.set(quiet), tempfile.TemporaryDirectory(prefix="tailwise-", ignore_cleanup_errors=True) as folder:
        if options.scheduler is not None:
            try:
                client = Client(options.scheduler, set_as_default=False)
            except OSError as error:
                message = f"no scheduler of dask answers at {options.scheduler}: {error}"
                raise WorkersLost(message, "check the address") from error
            with client:
                yield _Dask(client)
            return
        try:
            cluster = LocalCluster(
                n_workers=options.workers,
                threads_per_worker=1,
                memory_limit=None,
                host=_LOOPBACK,
                dashboard_address=f"{_LOOPBACK}:0",
                local_directory=folder,
                silence_logs=logging.CRITICAL,
            )
        except RuntimeError as error:
            raise WorkersLost(f"the workers of dask did not start: {error}", "repeat the command") from error
        with cluster, Client(cluster, set_as_default=False) as client:
            yield _Dask(client)


class _Ray:
    def each(self, task: Callable[[T], R], items: Sequence[T]) -> Iterator[tuple[int, Done[R]]]:
        import ray

        remote: Any = ray.remote(num_cpus=1, max_retries=_AGAIN)(attempted)
        numbers = {remote.remote(task, item): number for number, item in enumerate(items)}
        while numbers:
            (ready,), _ = ray.wait(list(numbers))
            try:
                done = ray.get(ready)
            except (ray.exceptions.WorkerCrashedError, ray.exceptions.OutOfMemoryError):
                done = Done(None, (WorkersLost, *_DIED))
            yield numbers.pop(ready), done


@contextmanager
def _ray(options: Options) -> Iterator[Engine]:
    own = _token() if options.scheduler is None else {}
    with environment(_RAY_ALONE | own), redirect_stdout(sys.stderr):  # it tells of lost workers where results go
        import ray

        if ray.is_initialized():  # a program's own
            yield _Ray()
            return
        with tempfile.TemporaryDirectory(prefix="tw-", ignore_cleanup_errors=True) as folder:
            settings: dict[str, Any] = {"address": options.scheduler}
            if options.scheduler is None:
                settings = {
                    "num_cpus": options.workers, "num_gpus": 0, "include_dashboard": False,
                    "object_store_memory": _STORE_BYTES, "_temp_dir": folder,
                }  # fmt: skip
            try:
                _start_ray(settings)
                yield _Ray()
            finally:
                ray.shutdown()


@functools.cache
def _token() -> dict[str, str]:
    """What workers of Ray ask for, made for this process; left alone, Ray keeps one at home. It reads these variables
    once: a program that has imported it before keeps its own settings."""
    if "ray" in sys.modules:
        return {}
    return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": os.environ.get("RAY_AUTH_TOKEN") or secrets.token_hex(32)}


def _start_ray(settings: dict[str, Any]) -> None:
    import ray

    try:
        ray.init(log_to_driver=False, configure_logging=False, **settings)
    except Exception as error:  # what it raises is no closed list, and some of it no kind of its own
        where = settings.get("address")
        what = f"no cluster of ray answers at {where}" if where else "the workers of ray did not start"
        raise WorkersLost(f"{what}: {error}", "check the address" if where else "repeat the command") from error


_STARTERS = {"local": _local, "dask": _dask, "ray": _ray}
_PACKAGES = {"dask": "distributed", "ray": "ray"}

"""Rows: one JSON line a cell, appended as it is done."""

from __future__ import annotations

import errno
import importlib.metadata
import json
import os
import subprocess
import sys
from contextlib import suppress
from functools import cache
from io import FileIO
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..runs import files

_VERSIONS_OF = ("tailwise", "torch", "numpy", "scipy", "scikit-learn")
_RESET_PEAK = "5"
# What a row of each status says beside its settings; whatever lacks it is no row.
_FIELDS = {"ok": (), "failed": ("commit",), "skipped": ("error",)}
_START = b'{"suite": '
_BLOCK = 1 << 16


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The newest row of every cell, oldest first; half-written lines are left out."""
    rows: dict[str, dict[str, Any]] = {}
    for line in path.read_text("utf-8", "replace").splitlines() if path.is_file() else ():
        with suppress(ValueError, RecursionError, KeyError, TypeError):
            row = json.loads(line)
            cell = key(row["settings"])
            if isinstance(row["settings"], dict) and all(name in row for name in _FIELDS[row["status"]]):
                rows.pop(cell, None)
                rows[cell] = row
    return list(rows.values())


def read_all(path: Path) -> list[dict[str, Any]]:
    """Every row of a file of JSON lines, whatever it holds; none where there is no file."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.is_file() else []


def key(settings: dict[str, Any]) -> str:
    """The same text for the same settings."""
    return json.dumps(settings, sort_keys=True)


def append(path: Path, row: dict[str, Any]) -> None:
    """Add one line whole or not at all; processes may share the file.

    Raises:
        InputError: the disk is full, or the file cannot be written.
    """
    line = (json.dumps(row, allow_nan=False) + "\n").encode()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "a+b", buffering=0) as file:
            files.lock(file.fileno())
            end = _mend(file)
            try:
                written = file.write(line)
                if written != len(line):  # the disk took a part of it
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError:
                file.truncate(end)
                raise
    except OSError as error:
        raise files.cannot_write(path, error) from error


def check_place(path: Path) -> None:
    """Raise an InputError where rows would be added to a file that holds something else."""
    if path.suffix != ".jsonl":
        raise InputError(f"rows are written as .jsonl: got {path.name}", "choose another --rows")
    if not path.exists():
        return
    if not path.is_file() or not all(_is_row(line) or _is_broken_row(line) for line in path.read_bytes().splitlines()):
        raise InputError(f"{path} holds something else than rows of a benchmark", "choose another --rows")


def _is_row(line: bytes) -> bool:
    row = _content(line)
    return isinstance(row, dict) and {"settings", "status"} <= row.keys()


def _is_broken_row(line: bytes) -> bool:
    """Whether a line begins as our rows do, and a kill has left the rest out."""
    return _content(line) is None and line[: len(_START)] == _START[: len(line)]


def _content(line: bytes) -> Any:
    with suppress(ValueError, RecursionError):
        return json.loads(line)


def _mend(file: FileIO) -> int:
    """End the last line, or take it away where a kill left it unfinished; where the file ends then."""
    end = start = file.seek(0, os.SEEK_END)
    tail = b""
    while start and b"\n" not in tail:
        start = max(0, start - _BLOCK)
        file.seek(start)
        tail = file.read(end - start)
    line = tail.rpartition(b"\n")[2]
    if not line:
        return end
    if _is_row(line):  # somebody's editor has left the end of line out
        return end + file.write(b"\n")
    return file.truncate(end - len(line))


def is_done(row: dict[str, Any]) -> bool:
    """Whether a row stands for its cell: a skipped one never does, a failed one until the code has changed."""
    if row["status"] == "failed":
        return row["commit"] == commit() and not commit().endswith("-dirty")
    return row["status"] == "ok"


@cache
def commit() -> str:
    """The commit of the code, with "-dirty" after it where files differ from it; "" outside a repository."""
    folder = Path(__file__).parent
    command = ["git", "describe", "--always", "--abbrev=12", "--exclude=*", "--dirty"]
    with suppress(OSError):
        return subprocess.run(command, cwd=folder, capture_output=True, text=True).stdout.strip()
    return ""


@cache
def versions() -> dict[str, str]:
    """Versions of Python and of the packages that results depend on."""
    packages = {"python": ".".join(map(str, sys.version_info[:3]))}
    for name in _VERSIONS_OF:
        with suppress(importlib.metadata.PackageNotFoundError):
            packages[name] = importlib.metadata.version(name)
    return packages


def reset_peak_memory() -> None:
    """Forget the process's peak, where the system can (Linux); elsewhere the peak is that of the process so far."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text(_RESET_PEAK)


def peak_memory_mb() -> float:
    """The process's peak resident memory since the last reset, in MB; 0 where it cannot be known."""
    with suppress(OSError, ValueError, StopIteration):
        status = Path("/proc/self/status").read_text().splitlines()
        return round(int(next(line for line in status if line.startswith("VmHWM")).split()[1]) / 1024, 1)
    try:
        import resource
    except ImportError:  # not on Windows
        return 0.0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1024**2 if sys.platform == "darwin" else 1024), 1)

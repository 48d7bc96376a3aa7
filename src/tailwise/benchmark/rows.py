"""Rows: one JSON line a cell, appended as it is done."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

_VERSIONS_OF = ("tailwise", "torch", "numpy", "scipy", "scikit-learn")
_RESET_PEAK = "5"


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The newest row of every cell, oldest first; half-written lines are left out."""
    rows: dict[str, dict[str, Any]] = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        with suppress(json.JSONDecodeError, KeyError, TypeError):
            row = json.loads(line)
            rows.pop(key(row["settings"]), None)
            rows[key(row["settings"])] = row
    return list(rows.values())


def key(settings: dict[str, Any]) -> str:
    """The same text for the same settings."""
    return json.dumps(settings, sort_keys=True)


def append(path: Path, row: dict[str, Any]) -> None:
    """Add one line, in one write, so that processes can share the file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    line = json.dumps(row, allow_nan=False) + "\n"
    target = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(target, line.encode())
    finally:
        os.close(target)


def mend(path: Path) -> None:
    """End a line that was left unfinished, so that the next row starts on its own."""
    if path.is_file() and path.stat().st_size and not path.read_bytes().endswith(b"\n"):
        with path.open("ab") as file:
            file.write(b"\n")


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

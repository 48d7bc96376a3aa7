"""A finished run is exchanged for its successor whole: the old one or the new one is there at every moment.

The successor is made in `.next`, inside the run's folder. When it is whole, `.next` is renamed to `.ready`: that one
step decides. Then its files move to their places, the settings last. Whoever opens the run after a crash in between
finishes the move first.
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path

from ..errors import InputError
from .files import LOCK, REPORT_PAGE, SETTINGS, cannot_write, read_json, refuse_link

NEXT, READY = ".next", ".ready"
_SECONDS_TO_WAIT = 10.0


def staging(home: Path) -> Path:
    """The folder in which a successor is made; what an interrupted fit left there may be resumed.

    Raises:
        InputError: it cannot be made, or is a link.
    """
    path = home / NEXT
    refuse_link(path)
    try:
        path.mkdir(exist_ok=True)
    except OSError as error:
        raise cannot_write(path, error) from error
    return path


def commit(home: Path, names: frozenset[str]) -> None:
    """Make the whole run in `.next` the run of this folder; `names` are the files that a run may have."""
    try:
        os.rename(home / NEXT, home / READY)
    except OSError as error:
        raise cannot_write(home, error) from error
    move(home, names)


def move(home: Path, names: frozenset[str]) -> None:
    """Move what is ready to its place, the settings last; call it with the lock held."""
    ready = home / READY
    refuse_link(ready)
    if not ready.is_dir():
        return
    try:
        new = {name for name in os.listdir(ready) if name in names}
        if SETTINGS in new:
            for name in sorted(new - {SETTINGS}):
                os.replace(ready / name, home / name)
            # The new run has no file of this name: before its settings stand, the old one's must go.
            settled = set(os.listdir(home)) & names
            for name in settled - _named_by(ready / SETTINGS) - {SETTINGS, LOCK}:
                (home / name).unlink(missing_ok=True)
            os.replace(ready / SETTINGS, home / SETTINGS)
        shutil.rmtree(ready)
    except OSError as error:
        raise cannot_write(home, error) from error


def settle(home: Path, names: frozenset[str]) -> None:
    """Finish an exchange that a crash interrupted; nothing where there is none.

    Raises:
        InputError: another process is at it for longer than ten seconds, or the folder cannot be written to.
    """
    if not os.path.lexists(home / READY):
        return
    from filelock import FileLock, Timeout

    check_lock(home)
    try:
        with FileLock(home / LOCK, timeout=_SECONDS_TO_WAIT):
            move(home, names)
    except Timeout as error:
        raise InputError(f"{home} is being exchanged for its successor", "wait for the other command") from error
    except OSError as error:
        raise cannot_write(home, error) from error


def discard(path: Path) -> None:
    """Take an unfinished successor away."""
    with suppress(OSError):
        shutil.rmtree(path)


def check_lock(home: Path) -> None:
    """Refuse a lock that is a link: opening it would touch another file."""
    refuse_link(home / LOCK)


def _named_by(settings: Path) -> set[str]:
    """The files that belong to the new run, as its settings list them, and those without a digest."""
    content = read_json(settings)
    digests = content.get("digests", {}) if isinstance(content, dict) else {}
    return {str(name) for name in digests} | {REPORT_PAGE}

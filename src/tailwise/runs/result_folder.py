"""A folder of results that takes its place whole, in one step."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .files import CannotWrite, cannot_write, clear, lock, temporary

_RELATIVE_TO_CURRENT, _EXCHANGE = -100, 2  # AT_FDCWD; RENAME_EXCHANGE of Linux, RENAME_SWAP of macOS


@contextmanager
def made_whole(place: Path) -> Iterator[Path]:
    """An empty folder to fill. When the block ends it becomes `place`; other files that were there stay.

    It is made beside `place` and takes its name in one step, so that a kill, Ctrl-C, a full disk or an error in the
    block leaves the old folder or the new one. Where the system cannot exchange two folders, the old one is set aside
    first, and a kill between the two steps leaves it as `<place>.before-<number>`. Where the folder cannot be renamed
    (a mounted disk, the current folder, no right to write above it), the new one is made inside it, and its files move
    one after another: then each file is whole.

    The caller says whether files of the same names may be replaced.

    Raises:
        InputError: the folder cannot be written to, something else lies in its place, or the disk is full.
    """
    place = place.resolve()
    if place.exists() and not place.is_dir():
        raise CannotWrite(f"{place} is no folder: results would take its place", "choose another folder")
    inside = place.is_dir() and not _can_be_renamed(place)
    missing = [folder for folder in place.parents if not folder.exists()]
    beside = temporary(place / place.name if inside else place)
    try:
        _begin(beside, place)
        with _held(beside):
            yield beside
            try:
                _move(beside, place) if inside else _exchange(beside, place)
            except OSError as error:
                raise cannot_write(place, error) from error
    finally:
        _discard(beside)
        _remove(missing)


def _begin(beside: Path, place: Path) -> None:
    try:
        beside.parent.mkdir(parents=True, exist_ok=True)
        clear(beside.parent)
        beside.mkdir()
    except OSError as error:
        raise cannot_write(place, error) from error


def _discard(folder: Path) -> None:
    """Take a folder away, also where Ctrl-C comes meanwhile."""
    try:
        shutil.rmtree(folder, ignore_errors=True)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Keep others from taking the folder for one that was abandoned."""
    try:
        opened = os.open(folder, os.O_RDONLY)
    except OSError:  # Windows opens no folders
        yield
        return
    try:
        lock(opened)
        yield
    finally:
        os.close(opened)


def _can_be_renamed(place: Path) -> bool:
    if place.is_mount() or Path.cwd().is_relative_to(place):
        return False
    return os.access(place.parent, os.W_OK)


def _exchange(new: Path, place: Path) -> None:
    """Give `new` the name `place`; the old folder of that name, if there is one, gets the name of `new`."""
    if not place.exists() and _renamed(new, place):
        return
    shutil.copymode(place, new)
    _take_over(place, new)
    if not _exchanged(new, place):
        aside = place.with_name(f"{place.name}.before-{os.getpid()}")
        os.rename(place, aside)
        try:
            os.rename(new, place)
        except BaseException:
            os.rename(aside, place)
            raise
        os.rename(aside, new)
    # What another process has put into the old folder meanwhile.
    _take_over(new, place)


def _renamed(new: Path, place: Path) -> bool:
    """Give `new` the name `place`; False where another process has made a folder of that name meanwhile."""
    try:
        os.rename(new, place)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            return False
        raise
    return True


def _exchanged(one: Path, other: Path) -> bool:
    """Let two folders change their names in one step; False where the system cannot."""
    names = os.fsencode(one), os.fsencode(other)
    if sys.platform == "win32":
        return False
    library = ctypes.CDLL(None)
    if hasattr(library, "renameat2"):
        here = _RELATIVE_TO_CURRENT
        return bool(library.renameat2(here, names[0], here, names[1], _EXCHANGE) == 0)
    if hasattr(library, "renamex_np"):
        return bool(library.renamex_np(*names, _EXCHANGE) == 0)
    return False


def _take_over(old: Path, new: Path) -> None:
    """Put those files of `old` that `new` lacks into `new` as well."""
    for path in sorted(old.rglob("*")):
        target = new / path.relative_to(old)
        if os.path.lexists(target):
            continue
        if path.is_dir() and not path.is_symlink():
            target.mkdir()
            shutil.copymode(path, target)
            continue
        try:
            os.link(path, target, follow_symlinks=False)
        except (OSError, NotImplementedError):  # not every file system has links
            shutil.copy2(path, target, follow_symlinks=False)


def _move(new: Path, place: Path) -> None:
    """Move each file of `new` into `place`."""
    for path in sorted(new.rglob("*")):
        target = place / path.relative_to(new)
        if path.is_dir():
            target.mkdir(exist_ok=True)
        else:
            os.replace(path, target)


def _remove(folders: list[Path]) -> None:
    """Take away folders, innermost first, that nothing was put into."""
    with suppress(OSError):
        for folder in folders:
            folder.rmdir()

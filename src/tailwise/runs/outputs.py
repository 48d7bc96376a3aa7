"""Where a result may be written: looked at before any work, so that none is lost and nothing else is in its place."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ..errors import InputError
from .files import FILES, SETTINGS, CannotWrite, refuse_device
from .places import paths_of


def check_file(out: Path, *read: Any) -> None:
    """As `check_place`, of a result that is one file: no folder is in its place."""
    check_place(out, *read)
    if out.is_dir():
        raise InputError(
            f"{out} is there already, and a folder is not written over", "remove it, or choose another --out"
        )


def check_place(out: Path, *read: Any) -> None:
    """Raise an InputError where a result cannot be written at a path, or must not be.

    Args:
        out: its path; the folder above must be there. No name of a run's file, where a run is.
        read: as for `check_apart`.
    """
    if not out.parent.is_dir():
        raise CannotWrite(f"cannot write {out}: there is no folder {out.parent}", "make it, or choose another --out")
    if not os.access(out.parent, os.W_OK):
        raise CannotWrite(f"cannot write to {out.parent}", "choose a folder that you may write to")
    refuse_device(out)
    check_apart(out, *read)
    if out.name in FILES and (out.parent / SETTINGS).is_file():
        raise InputError(f"{out} is a file of the run {out.parent}", "choose another --out")


def check_apart(out: Path, *read: Any) -> None:
    """Raise an InputError where a result would take the place of what it is made from, or lie in a folder of it, where
    it would be read with the data the next time.

    Args:
        out: its path.
        read: the sources and files that it is made from.
    """
    for each in read:
        for place in [each] if isinstance(each, Path) else paths_of(each).values():
            if out.exists() and out.samefile(place):
                raise InputError(f"{out} would take the place of the data itself", "choose another --out")
            if place.is_dir() and out.resolve().is_relative_to(place.resolve()) and _may_be_read(each, out):
                raise InputError(f"{out} lies in the data, {place}", "choose a place outside of it for --out")


def _may_be_read(each: Any, out: Path) -> bool:
    """Whether a source may take a file for data; a table among pictures is none."""
    endings = getattr(getattr(each, "source", each), "endings", None)
    return endings is None or not out.suffix or out.suffix.lower() in endings

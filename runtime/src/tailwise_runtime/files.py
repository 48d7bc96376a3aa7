"""Files that are whole or not there, and places that they may take."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from . import ModelError


def check_file(path: Path, option: str, *read: Path) -> None:
    """Raise a ModelError, before any work, where a file cannot be written at a path, or would replace what is read."""
    if not path.parent.is_dir():
        raise ModelError(f"there is no folder {path.parent}", f"make it, or choose another {option}")
    if path.is_dir():
        raise ModelError(f"{path} is a folder: a file was needed", f"choose another {option}")
    for place in read:
        if path.exists() and place.exists() and path.samefile(place):
            raise ModelError(f"{path} would take the place of what is read", f"choose another {option}")
        if place.is_dir() and path.resolve().is_relative_to(place.resolve()):
            raise ModelError(f"{path} lies in the data, {place}", f"choose a place outside of it for {option}")


def replace(path: Path, content: bytes) -> None:
    """Write a file whole or not at all, and never through a link that lies in its place."""
    beside = _beside(path)
    try:
        with open(beside, "xb") as file:
            file.write(content)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


@contextmanager
def gathered(folder: Path) -> Iterator[Path]:
    """An empty folder to fill. When the block ends its files move to `folder`, all of them; none does if it fails."""
    missing = [above for above in folder.parents if not above.exists()]
    # Inside, because not every folder that is there can be replaced by another: the current one cannot.
    inside = folder.exists()
    beside = _beside(folder / folder.name if inside else folder)
    try:
        beside.mkdir(parents=True)
        yield beside
        if inside:
            _move(beside, folder)
        else:
            os.rename(beside, folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
        with suppress(OSError):  # what something was put into stays
            for above in missing:
                above.rmdir()


def _move(new: Path, folder: Path) -> None:
    for path in sorted(new.rglob("*")):
        target = folder / path.relative_to(new)
        if path.is_dir():
            target.mkdir(exist_ok=True)
        else:
            os.replace(path, target)


def _beside(path: Path) -> Path:
    return path.with_name(f".writing-{os.getpid()}-{secrets.token_hex(8)}")

"""Where data lies: as given, or in the data directory."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from ..errors import InputError, did_you_mean

# Sets that people ask for by name, and where they come from.
_KNOWN_SETS = {
    "mnist": "the four IDX files of MNIST",
    "fashion-mnist": "the four IDX files in github.com/zalandoresearch/fashion-mnist",
    "deeppcb": "github.com/tangsanli5201/DeepPCB",
    "magnetic_tile": "github.com/abin24/Magnetic-tile-defect-datasets",
    "adbench": "github.com/Minqi824/ADBench",
    "abu": "the Airport-Beach-Urban scenes of Kang et al. 2017",
    "elpv": "nothing to download: pip install 'tailwise[demo]', then SolarCells()",
}
# Folders that are one thing.
_STORES = (".zarr",)


def data_directory(given: str | Path | None = None) -> Path | None:
    """The directory where relative paths are also looked for: `given`, or the environment's TAILWISE_DATA, or None."""
    chosen = given or os.environ.get("TAILWISE_DATA")
    return Path(chosen).expanduser() if chosen else None


def find_path(path: str | Path, directory: str | Path | None = None) -> Path:
    """The existing file or folder `path`, as given or in the data directory.

    Raises:
        InputError: it is in neither place; both are named.
    """
    if not str(path):
        raise InputError("no path was given", "a file or folder was needed; . is the current folder")
    asked, home = Path(path).expanduser(), data_directory(directory)
    places = [asked] if asked.is_absolute() or home is None else [asked, home / asked]
    for place in places:
        if os.path.exists(place):
            return place
    looked = " and ".join(str(place.absolute()) for place in places)
    raise InputError(f"no file or folder {str(path)!r}: looked for {looked}", _how_to_get(asked, places, home))


def _how_to_get(asked: Path, places: list[Path], home: Path | None) -> str:
    for place in places:
        siblings = [p.name for p in place.parent.iterdir()] if place.parent.is_dir() else []
        guess = did_you_mean(place.name, siblings)
        if guess.startswith("did you mean"):
            return guess
    known = next((get for name, get in _KNOWN_SETS.items() if name in {part.lower() for part in asked.parts}), "")
    setting = (
        "the data directory is TAILWISE_DATA" if home else "set TAILWISE_DATA to the directory that holds your data"
    )
    return f"{setting}; {asked.name} is: {known}" if known else f"check the spelling; {setting}"


def list_files(root: Path, suffixes: tuple[str, ...], leave_out: tuple[str, ...] = ()) -> list[str]:
    """Paths below `root` of the files with these suffixes, with forward slashes, in natural order.

    Hidden files and the folders `leave_out` directly below `root` are left out. Folders are followed through links,
    each only once; a zarr store, which is a folder, is listed as a file.
    """
    return sorted(_walk(root, "", suffixes, leave_out, set()), key=natural)


def natural(name: str) -> tuple[list[str | int], str]:
    """A sorting key in which 2 comes before 10."""
    return [int(part) if part.isdecimal() else part.lower() for part in re.split(r"(\d+)", name)], name


def _walk(
    folder: Path, prefix: str, suffixes: tuple[str, ...], leave_out: tuple[str, ...], seen: set[str]
) -> Iterator[str]:
    real = os.path.realpath(folder)
    if real in seen:
        return
    seen.add(real)
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if entry.name.startswith(".") or (not prefix and entry.name in leave_out):
            continue
        if entry.is_dir() and not entry.name.lower().endswith(_STORES):
            yield from _walk(Path(entry.path), f"{prefix}{entry.name}/", suffixes, leave_out, seen)
        elif entry.name.lower().endswith(suffixes):
            yield f"{prefix}{entry.name}"

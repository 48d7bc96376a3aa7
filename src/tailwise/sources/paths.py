"""Where data lies: as given, or in the data directory."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..core import messages
from ..errors import InputError, did_you_mean, printable

# Sets that people ask for by name, and where they come from.
_KNOWN_SETS = {
    "mnist": "the four IDX files of MNIST",
    "fashion-mnist": "the four IDX files in github.com/zalandoresearch/fashion-mnist",
    "deeppcb": "github.com/tangsanli5201/DeepPCB",
    "magnetic_tile": "github.com/abin24/Magnetic-tile-defect-datasets",
    "adbench": "github.com/Minqi824/ADBench",
    "abu": "the Airport-Beach-Urban scenes of Kang et al. 2017",
    "elpv": "nothing to download: pip install 'tailwise[solar]', then SolarCells()",
}
# Folders that are one thing.
_STORES = (".zarr",)


def data_directory(given: str | Path | None = None) -> Path | None:
    """The directory where relative paths are also looked for: `given`, or the environment's TAILWISE_DATA, or None."""
    chosen = given or os.environ.get("TAILWISE_DATA")
    return Path(os.path.expanduser(chosen)) if chosen else None


def find_path(path: str | Path, directory: str | Path | None = None) -> Path:
    """The existing file or folder `path`, as given or in the data directory.

    Raises:
        InputError: it is in neither place, both are named; or it is a pipe, a socket or a device.
    """
    if not str(path):
        raise InputError("no path was given", "a file or folder was needed; . is the current folder")
    if "\0" in str(path):
        raise InputError(f"{str(path)!r} holds a zero byte, which no path does", "check the spelling")
    asked, home = Path(os.path.expanduser(path)), data_directory(directory)
    places = [asked] if asked.is_absolute() or home is None else [asked, home / asked]
    for place in places:
        if os.path.exists(place):
            if not (os.path.isdir(place) or os.path.isfile(place)):
                raise InputError(f"{place} is {_special(os.stat(place).st_mode)}", "a file or folder was needed")
            return place
    looked = " and ".join(str(place.absolute()) for place in places)
    raise InputError(f"no file or folder {str(path)!r}: looked for {looked}", _how_to_get(asked, places, home))


def regular_file(path: Path) -> Path:
    """The path, where a regular file is there: reading anything else may wait for ever.

    Raises:
        InputError: nothing is there, or a folder, a pipe, a socket or a device.
    """
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError) as error:
        raise InputError(f"there is no file {str(path)!r}", "check the spelling") from error
    if not stat.S_ISREG(mode):
        raise InputError(f"{path} is {'a folder' if stat.S_ISDIR(mode) else _special(mode)}", "a file was needed")
    return path


def check_store(folder: Path) -> None:
    """Refuse a folder that is read as one file where anything in it is no regular file, or a link that leads out.

    Raises:
        InputError: there is such a thing.
    """
    real_root, folders = os.path.realpath(folder), [os.fspath(folder)]
    while folders:
        with os.scandir(folders.pop()) as entries:
            for entry in entries:
                if entry.is_symlink() and not is_inside(os.path.realpath(entry.path), real_root):
                    raise InputError(f"{entry.path} is {LINK_OUT}", "copy what it leads to into the folder")
                # A store may have a million files: what the folder says of an entry needs no look at the file.
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                elif not entry.is_file() and os.path.exists(entry.path) and not entry.is_dir():
                    regular_file(Path(entry.path))


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


def list_files(
    root: Path,
    suffixes: tuple[str, ...],
    leave_out: tuple[str, ...] = (),
    *,
    follow_links: bool = False,
    refused: dict[str, str] | None = None,
) -> list[str]:
    """Paths below `root` of the files with these suffixes, with forward slashes, in natural order.

    Hidden files and the folders `leave_out` directly below `root` are left out. Folders are followed through links,
    each only once; a zarr store, which is a folder, is listed as a file. Links that lead out of `root` are left out
    unless `follow_links`; pipes, sockets and devices always are, as reading them may wait for ever. `refused` takes
    the names of these, with what they are.
    """
    refused = {} if refused is None else refused
    walk = _Walk(os.path.realpath(root), suffixes, leave_out, follow_links, refused, set())
    return sorted(walk.below(root, ""), key=natural)


def say_refused(root: Path, refused: dict[str, str], way_on: str = "--follow-links reads them") -> None:
    """Warn of what `list_files` left out; `way_on` says how to read what links lead to."""
    for what in dict.fromkeys(refused.values()):
        names = [name for name, is_what in refused.items() if is_what == what]
        shown = ", ".join(printable(name) for name in names[:5]) + (" and others" if len(names) > 5 else "")
        then = f"; {way_on}" if what == LINK_OUT else ""
        messages.warning(f"{root}: {len(names)} left out, {what}: {shown}{then}")


def natural(name: str) -> tuple[list[str | int], str]:
    """A sorting key in which 2 comes before 10."""
    return [int(part) if part.isdecimal() else part.lower() for part in re.split(r"(\d+)", name)], name


LINK_OUT = "a link that leads out of the folder"


@dataclass(frozen=True)
class _Walk:
    real_root: str
    suffixes: tuple[str, ...]
    leave_out: tuple[str, ...]
    follow_links: bool
    refused: dict[str, str]
    seen: set[str]

    def below(self, folder: Path, prefix: str) -> Iterator[str]:
        real = os.path.realpath(folder)
        if real in self.seen:
            return
        self.seen.add(real)
        for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
            if entry.name.startswith(".") or (not prefix and entry.name in self.leave_out):
                continue
            name = f"{prefix}{entry.name}"
            is_folder = entry.is_dir() and not entry.name.lower().endswith(_STORES)
            if not (is_folder or entry.name.lower().endswith(self.suffixes)):
                continue
            if self._leads_out(entry):
                self.refused[name] = LINK_OUT
            elif is_folder:
                yield from self.below(Path(entry.path), f"{name}/")
            elif what := _special_of(entry):
                self.refused[name] = what
            else:
                yield name

    def _leads_out(self, entry: os.DirEntry[str]) -> bool:
        if self.follow_links or not entry.is_symlink():
            return False
        return not is_inside(os.path.realpath(entry.path), self.real_root)


def is_inside(real: str, real_root: str) -> bool:
    """Whether a path without links lies in a folder without links."""
    return os.path.commonpath((real, real_root)) == real_root


def _special_of(entry: os.DirEntry[str]) -> str:
    try:
        mode = entry.stat().st_mode
    except OSError:
        return ""  # a link to nothing: reading it says so
    return "" if stat.S_ISREG(mode) or stat.S_ISDIR(mode) else _special(mode)


def _special(mode: int) -> str:
    kinds = {stat.S_ISFIFO: "a named pipe", stat.S_ISSOCK: "a socket"}
    return next((name for is_kind, name in kinds.items() if is_kind(mode)), "a device")

"""ENVI cubes: a text header (.hdr) and beside it a file of plain numbers, mapped from disk.

Headers are read as GDAL and other programs read them: names and words in any capitals, in UTF-8, UTF-16 or Latin-1,
with the low byte first where no byte order is stated. A header that does not describe its data file to the byte is
refused.
"""

from __future__ import annotations

import math
import os
import re
from pathlib import Path

import numpy as np

from ..errors import InputError
from .paths import LINK_OUT, is_inside

SUFFIX = ".hdr"
# What data files are called behind the header's name, besides nothing at all.
_DATA_SUFFIXES = ("img", "dat", "raw", "bin", "cube", "hyspex", "bil", "bip", "bsq", "sli")
_TYPES = {1: "u1", 2: "i2", 3: "i4", 4: "f4", 5: "f8", 12: "u2", 13: "u4", 14: "i8", 15: "u8"}
_COMPLEX = (6, 9)
# Axes of the file, and what makes [height, width, bands] of them.
_ORDERS = {"bip": (0, 1, 2), "bil": (0, 2, 1), "bsq": (1, 2, 0)}
_MARKS = {b"\xef\xbb\xbf": "utf-8-sig", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
# Longer numbers are no sizes; Python itself refuses to print much longer ones.
_WHOLE = re.compile(r"[+-]?[0-9]{1,100}(\.0*)?", re.ASCII)
_LONGEST = 50_000_000


def header_of(path: Path) -> Path | None:
    """The header of a cube that is given by its header or by its data file; None where there is none."""
    if path.suffix.lower() == SUFFIX:
        return path if path.is_file() else None
    bases = (path.with_suffix(""), path)
    beside = (base.with_name(base.name + end) for end in (".hdr", ".HDR", ".Hdr") for base in bases)
    return next((header for header in beside if header.is_file()), None)


def read_header(path: Path) -> dict[str, str]:
    """The entries of a header by their names in small letters, with the values as they are written.

    Raises:
        InputError: it cannot be read, or it is no ENVI header.
    """
    try:
        if path.stat().st_size > _LONGEST:
            raise InputError(f"{path} is no ENVI header: it is {path.stat().st_size:,} bytes long")
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    lines = iter(re.split(r"\r\n|\r|\n", _text(data)))
    if next(lines).strip().upper() != "ENVI":
        raise InputError(
            f"cannot read {path}: an ENVI header begins with the line ENVI", "is it the header of another format?"
        )
    entries: dict[str, str] = {}
    for line in lines:
        name, equals, value = line.partition("=")
        if not equals or line.lstrip().startswith(";"):
            continue
        parts = [value.strip()]
        if parts[0].startswith("{"):
            while "}" not in parts[-1]:
                following = next(lines, None)
                if following is None:
                    raise InputError(f"cannot read {path}: the brace after {name.strip()!r} is never closed")
                parts.append(following)
            parts[-1] = parts[-1].partition("}")[0] + "}"
        entries[" ".join(name.lower().split())] = "\n".join(parts).strip()
    return entries


def list_of(value: str) -> list[str]:
    """The parts of a value in braces, or of a single value."""
    return [part.strip() for part in value.strip().strip("{}").split(",") if part.strip()]


def number_of(path: Path, entries: dict[str, str], name: str, default: float) -> float:
    """The finite number of this name.

    Raises:
        InputError: it is something else.
    """
    try:
        number = float(entries.get(name) or default)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise InputError(f"{path}: {name} = {_short(entries[name])} is no number")
    return number


def map_data(path: Path, entries: dict[str, str]) -> np.ndarray:
    """The cube [height, width, bands] that a header describes, mapped from its data file.

    Raises:
        InputError: the header lacks something or says what cannot be, or the data file is missing or of another length.
    """
    height, width, bands = (_whole(path, entries, name, least=1) for name in ("lines", "samples", "bands"))
    offset = _whole(path, entries, "header offset", least=0, default=0)
    dtype = _dtype(path, entries)
    word = entries.get("interleave", "bsq" if bands == 1 else "")
    order = _ORDERS.get(word.lower())
    if order is None:
        raise InputError(
            f"{path}: interleave = {_short(word)} is not known" if word else f"{path} has no line for its interleave",
            "it is bil, bip or bsq",
        )
    if entries.get("file compression", "0") not in ("0", ""):
        raise InputError(f"{path} describes a compressed file", "unpack it, and write file compression = 0")
    if "classification" in entries.get("file type", "").lower():
        raise InputError(f"{path} describes a map of classes: a cube was needed", "leave it out of the data")
    if "spectral library" in entries.get("file type", "").lower():
        raise InputError(f"{path} describes a spectral library: a cube was needed")
    data = _data_file(path)
    # A header says which file is read: in a folder from somebody else it must not be one of the reader's.
    folders = (os.path.realpath(path.parent), os.path.dirname(os.path.realpath(path)))
    if not any(is_inside(os.path.realpath(data), folder) for folder in folders):
        raise InputError(
            f"{data} is {LINK_OUT}", f"copy {os.path.realpath(data)} into the folder, or give its own header"
        )
    needed = offset + height * width * bands * dtype.itemsize
    holds = data.stat().st_size
    if holds != needed:
        raise InputError(
            f"{data} holds {holds:,} bytes, and {path.name} describes {needed:,}: {height:,} x {width:,} pixels of "
            f"{bands:,} bands of {dtype.itemsize} bytes" + (f", behind {offset:,} bytes" if offset else ""),
            "the file is cut, or the header is wrong or of another file: correct it, or fetch both again",
        )
    in_file = [(height, width, bands)[_ORDERS[word.lower()].index(axis)] for axis in range(3)]
    try:
        return np.memmap(data, dtype, "r", offset, tuple(in_file)).transpose(order)
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {data}: {error}") from error


def _text(data: bytes) -> str:
    mark = next((name for mark, name in _MARKS.items() if data.startswith(mark)), None)
    for encoding in (mark,) if mark else ("utf-8",):
        try:
            return data.decode(encoding)
        except UnicodeDecodeError:
            break
    return data.decode("latin-1")  # every byte is a letter of it


def _data_file(path: Path) -> Path:
    """The file beside a header that holds its numbers."""
    base = path.with_suffix("")
    ends = [change(end) for end in _DATA_SUFFIXES for change in (str.lower, str.upper, str.capitalize)]
    places = [base, *(base.with_name(f"{base.name}.{end}") for end in ends)]
    for place in places:
        if place.is_file() and place.suffix.lower() != SUFFIX:
            return place
    raise InputError(
        f"cannot find the data of {path}: looked for {base.name} and {base.name}.img, .dat, .raw and so on",
        "the data file lies beside its .hdr, under the same name",
    )


def _dtype(path: Path, entries: dict[str, str]) -> np.dtype:
    code = _whole(path, entries, "data type", least=0)
    if code not in _TYPES:
        what = "complex numbers, which have no order" if code in _COMPLEX else "not known"
        raise InputError(f"{path}: data type = {code} is {what}", f"readable are {', '.join(map(str, _TYPES))}")
    order = _whole(path, entries, "byte order", least=0, default=0)
    if order > 1:
        raise InputError(f"{path}: byte order = {order} is not known", "0 is low byte first, 1 is high byte first")
    return np.dtype("<>"[order] + _TYPES[code])


def _whole(path: Path, entries: dict[str, str], name: str, least: int, default: int | None = None) -> int:
    text = entries.get(name, "")
    if not text and default is not None:
        return default
    if not text:
        raise InputError(f"{path} has no line for its {name}", f"add the line that its maker left out: {name} = ...")
    if not _WHOLE.fullmatch(text):
        raise InputError(f"{path}: {name} = {_short(text)} is no whole number that can be")
    number = int(text.partition(".")[0])
    if number < least:
        raise InputError(f"{path}: {name} = {number} cannot be", f"it is at least {least}")
    return number


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else f"{text[:40]}...")

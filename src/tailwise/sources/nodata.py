"""Which pixels of a cube hold no data: those at a value that the file declares, or at NaN, in all bands.

A value of 0 is also what a dark band measures: in single bands it is read as measured. Any other declared value in
single bands is refused, as NaN is, because nobody can tell what the pixel would have measured there.
"""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError

# Attributes and names of numbers by which formats say it, in small letters.
NAMES = ("_fillvalue", "missing_value", "nodata", "no_data", "nodata_value", "data_ignore_value", "fill_value")


def values_of(path: Path, name: str, values: Iterable[Any]) -> tuple[float, ...]:
    """The values that an entry `name` of a file declares; whole numbers stay whole.

    Raises:
        InputError: one of them is no number.
    """
    return tuple(_value(path, name, value) for value in values)


def declared(path: Path, facts: dict[str, Any]) -> tuple[float, ...]:
    """The values that attributes, or numbers beside a cube, declare by one of the usual names."""
    found: list[float] = []
    for name, value in facts.items():
        if name.lower() in NAMES and value is not None:
            found += values_of(path, name, [value] if isinstance(value, (str, bytes)) else np.ravel(value).tolist())
    return tuple(dict.fromkeys(found))


def lacking(stored: np.ndarray, values: Iterable[float]) -> np.ndarray:
    """Where numbers of a file [n, bands] are NaN or one of the values -> bool [n, bands]."""
    result = np.isnan(stored) if stored.dtype.kind == "f" else np.zeros(stored.shape, dtype=bool)
    for value in values:
        with np.errstate(all="ignore"):
            same = _as_stored(value, stored.dtype)
        if same is not None:
            result |= stored == same
    return result


def possible(dtype: np.dtype, values: Iterable[float]) -> bool:
    """Whether numbers of this type can say that there is no data."""
    return dtype.kind == "f" or any(_as_stored(value, dtype) is not None for value in values)


def _as_stored(value: float, dtype: np.dtype) -> Any:
    """The value in the type of a file, None where no number of it is equal."""
    if math.isnan(value):
        return None  # NaN is looked for in any case
    if dtype.kind == "f":
        return dtype.type(value)
    if not math.isfinite(value) or value != int(value):
        return None
    limits = np.iinfo(dtype) if dtype.kind in "iu" else None
    return dtype.type(int(value)) if limits is not None and limits.min <= value <= limits.max else None


def _value(path: Path, name: str, value: Any) -> float:
    if isinstance(value, bytes):
        value = value.decode("latin-1")
    text = str(value).strip().strip("\0").strip()
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError:
        pass
    try:  # xarray writes the bytes of a float so into zarr stores of version 3
        return float(struct.unpack("<d", base64.b64decode(text, validate=True))[0])
    except (ValueError, struct.error):
        shown = text if len(text) <= 40 else f"{text[:40]}..."
        raise InputError(f"{path}: {name} = {shown!r} is no number", "correct it, or remove it") from None

"""Cubes in zarr stores, as zarr and xarray write them, read a block of rows at a time."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from . import nodata
from .numpy_files import ALWAYS_READ, MOST_PACKED
from .paths import check_store

SUFFIX = ".zarr"
# Rows that are stored together are kept until others are asked for, if they take no more than this.
_HELD_BYTES = 256_000_000
_BAND_NAMES = ("wav", "band", "channel", "spectral")


class ZarrCube:
    """A cube [height, width, bands] of a store, whose rows are read when they are asked for.

    Args:
        array: of zarr, with 3 axes.
        path: of the store, for messages.
        bands: the axis of the array that holds the bands.
    """

    def __init__(self, array: Any, path: Path, bands: int) -> None:
        self.array, self.path, self.bands = array, path, bands
        shape = tuple(int(side) for side in array.shape)
        self.shape = (*shape[:bands], *shape[bands + 1 :], shape[bands])
        self.ndim, self.size = len(shape), math.prod(shape)
        self.dtype = array.dtype
        # What is stored together is read together.
        self.step = max(1, int(array.chunks[0 if bands else 1]))
        self._held: tuple[int, np.ndarray] | None = None

    def with_bands(self, axis: int) -> ZarrCube:
        """The cube whose bands are along this axis of `shape` as it is now."""
        axes = [place for place in range(3) if place != self.bands] + [self.bands]
        return ZarrCube(self.array, self.path, axes[axis])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self[0 : self.shape[0]].astype(dtype or self.dtype)

    def __getitem__(self, index: Any) -> np.ndarray:
        """Rows by a slice -> [rows, width, bands]; or pixels by two arrays of rows and columns -> [n, bands]."""
        if isinstance(index, slice):
            return self._rows(*index.indices(self.shape[0])[:2])
        rows, columns = index
        result = np.empty((len(rows), self.shape[2]), dtype=self.dtype)
        block = rows // self.step
        for number in np.unique(block):
            chosen = block == number
            first = int(number) * self.step
            result[chosen] = self._rows(first, first + self.step)[rows[chosen] - first, columns[chosen]]
        return result

    def _rows(self, first: int, last: int) -> np.ndarray:
        """Rows [rows, width, bands]; of those stored together all are decoded once."""
        begin = first - first % self.step
        size = self.step * self.shape[1] * self.shape[2] * self.dtype.itemsize
        if last > begin + self.step or size > _HELD_BYTES:
            return self._decoded(first, last)
        if self._held is None or self._held[0] != begin:
            self._held = None  # before others take their place: both might not fit
            self._held = begin, self._decoded(begin, begin + self.step)
        return self._held[1][first - begin : last - begin]

    def _decoded(self, first: int, last: int) -> np.ndarray:
        try:
            rows = self.array[first:last] if self.bands else self.array[:, first:last]
            return np.moveaxis(np.asarray(rows), self.bands, 2)
        except Exception as error:  # codecs raise many kinds on broken chunks
            raise InputError(
                f"cannot read {self.path}: {error}", "a chunk is damaged: fetch the store again"
            ) from error


def read_zarr(path: Path) -> tuple[dict[str, Any], dict[str, tuple[float, ...]]]:
    """The arrays of a store by their names, those of 3 axes as ZarrCube, and their values of no data.

    Raises:
        InputError: zarr is not installed, it is no store, part of it is no regular file or lies outside, or an array is
            larger than what is stored of it can be.
    """
    try:
        import zarr
    except ImportError as error:
        raise InputError("zarr cubes need the package zarr", "pip install 'tailwise[zarr]'") from error
    check_store(path)
    try:
        opened = zarr.open(str(path), mode="r")
        arrays = dict(opened.arrays()) if isinstance(opened, zarr.Group) else {path.stem: opened}
        numbers = {name: array for name, array in arrays.items() if array.dtype.kind in "buif"}
        for name, array in numbers.items():
            _check_claim(path, name, array)
        empty = {name: _nodata(path, array) for name, array in numbers.items()}
        values = {
            name: ZarrCube(array, path, 0 if _bands_first(array) else 2) if array.ndim == 3 else np.asarray(array[...])
            for name, array in numbers.items()
        }
    except InputError:
        raise
    except Exception as error:  # its errors share no base but Exception
        raise InputError(f"cannot open {path}: {str(error) or type(error).__name__}", "is it a zarr store?") from error
    return values, empty


def _check_claim(path: Path, name: str, array: Any) -> None:
    size = math.prod(int(side) for side in array.shape) * array.dtype.itemsize
    stored = array.nbytes_stored() if size > ALWAYS_READ else size
    if size > MOST_PACKED * stored:
        raise InputError(
            f"{path}: {name} of shape {list(array.shape)} is {size:,} bytes, and {stored:,} are stored of it",
            "the store is damaged or not yet written",
        )


def _nodata(path: Path, array: Any) -> tuple[float, ...]:
    """The attributes say it; else what zarr gives for chunks that were never written."""
    declared = nodata.declared(path, array.attrs.asdict())
    fill = array.fill_value
    return declared if declared or fill is None else nodata.values_of(path, "fill_value", [fill])


def scale_of(cube: ZarrCube) -> float:
    """What the stored values are divided by, from xarray's `scale_factor`.

    Raises:
        InputError: they are also moved by an offset.
    """
    facts = cube.array.attrs.asdict()
    try:
        factor, offset = float(facts.get("scale_factor", 1)), float(facts.get("add_offset", 0))
    except (TypeError, ValueError):
        factor = offset = math.nan
    if not (math.isfinite(factor) and math.isfinite(offset) and factor):
        raise InputError(f"{cube.path}: scale_factor and add_offset are no numbers to scale by", "correct them")
    if offset:
        raise InputError(
            f"{cube.path} stores values moved by {facts['add_offset']}", "write them without add_offset, or as floats"
        )
    return 1 / factor


def _bands_first(array: Any) -> bool:
    """Whether the first axis is named as the bands, and the last is not."""
    names = getattr(array.metadata, "dimension_names", None) or array.attrs.asdict().get("_ARRAY_DIMENSIONS") or ()
    bands = [str(name).lower().startswith(_BAND_NAMES) for name in names]
    return len(bands) == 3 and bands[0] and not bands[2]

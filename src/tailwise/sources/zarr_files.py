"""Cubes in zarr stores, as zarr and xarray write them, read a block of rows at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError

SUFFIX = ".zarr"
_BAND_NAMES = ("wav", "band", "channel", "spectral")


class ZarrCube:
    """A cube [height, width, bands] of a store, whose rows are read when they are asked for.

    Args:
        array: of zarr, with 3 axes.
        path: of the store, for messages.
    """

    def __init__(self, array: Any, path: Path) -> None:
        self.array, self.path = array, path
        self.bands_first = _bands_first(array)
        shape = tuple(int(side) for side in array.shape)
        self.shape = (*shape[1:], shape[0]) if self.bands_first else shape
        self.ndim = len(shape)
        self.dtype = array.dtype
        # What is stored together is read together.
        self._step = max(1, int(array.chunks[1 if self.bands_first else 0]))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self[0 : self.shape[0]].astype(dtype or self.dtype)

    def __getitem__(self, index: Any) -> np.ndarray:
        """Rows by a slice -> [rows, width, bands]; or pixels by two arrays of rows and columns -> [n, bands]."""
        if isinstance(index, slice):
            return self._rows(*index.indices(self.shape[0])[:2])
        rows, columns = index
        result = np.empty((len(rows), self.shape[2]), dtype=self.dtype)
        block = rows // self._step
        for number in np.unique(block):
            chosen = block == number
            first = int(number) * self._step
            result[chosen] = self._rows(first, first + self._step)[rows[chosen] - first, columns[chosen]]
        return result

    def _rows(self, first: int, last: int) -> np.ndarray:
        try:
            if self.bands_first:
                return np.moveaxis(self.array[:, first:last], 0, 2)
            return np.asarray(self.array[first:last])
        except Exception as error:  # codecs raise many kinds on broken chunks
            raise InputError(
                f"cannot read {self.path}: {error}", "a chunk is damaged: fetch the store again"
            ) from error


def read_zarr(path: Path) -> dict[str, Any]:
    """The arrays of a store by their names, those of 3 axes as ZarrCube.

    Raises:
        InputError: zarr is not installed, or it is no store.
    """
    try:
        import zarr
    except ImportError as error:
        raise InputError("zarr cubes need the package zarr", "pip install 'tailwise[zarr]'") from error
    try:
        found = zarr.open(str(path), mode="r")
        arrays = dict(found.arrays()) if isinstance(found, zarr.Group) else {path.stem: found}
    except Exception as error:  # its errors share no base but Exception
        raise InputError(f"cannot open {path}: {str(error) or type(error).__name__}", "is it a zarr store?") from error
    numbers = {name: array for name, array in arrays.items() if array.dtype.kind in "buif"}
    return {name: ZarrCube(array, path) if array.ndim == 3 else array[...] for name, array in numbers.items()}


def scale_of(cube: ZarrCube) -> float:
    """What the stored values are divided by, from xarray's `scale_factor`.

    Raises:
        InputError: they are also moved by an offset.
    """
    facts = cube.array.attrs.asdict()
    if float(facts.get("add_offset", 0)):
        raise InputError(
            f"{cube.path} stores values moved by {facts['add_offset']}", "write them without add_offset, or as floats"
        )
    return 1 / float(facts.get("scale_factor", 1))


def _bands_first(array: Any) -> bool:
    """Whether the first axis is named as the bands, and the last is not."""
    names = getattr(array.metadata, "dimension_names", None) or array.attrs.asdict().get("_ARRAY_DIMENSIONS") or ()
    bands = [str(name).lower().startswith(_BAND_NAMES) for name in names]
    return len(bands) == 3 and bands[0] and not bands[2]

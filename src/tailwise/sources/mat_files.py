"""MATLAB files up to version 7, whose damage is found before scipy meets it; version 7.3 is HDF5, see `hdf5`."""

from __future__ import annotations

import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

from ..errors import InputError

_HDF5 = b"\x89HDF\r\n\x1a\n"
# Types that elements of a MATLAB 5 file may be of; scipy ends the process at others.
_MAT_TYPES = {1, 2, 3, 4, 5, 6, 7, 9, 12, 13, 14, 16, 17, 18}
_MATRIX, _COMPRESSED = 14, 15
_MAT_HEADER, _LOOKED_AT = 128, 1 << 16


def _check_mat(path: Path) -> None:
    """Raise a ValueError at an element of a MATLAB 5 file whose type is none, in the beginning of each variable."""
    with path.open("rb") as file:
        header = file.read(_MAT_HEADER)
        order = {b"IM": "<", b"MI": ">"}.get(header[126:128])
        while order and len(tag := file.read(8)) == 8:
            kind, size = struct.unpack(f"{order}II", tag)
            start = file.tell()
            content = file.read(min(size, _LOOKED_AT))
            if kind == _COMPRESSED:
                content = zlib.decompressobj().decompress(content, _LOOKED_AT)[8:]
            if kind in (_MATRIX, _COMPRESSED):
                _check_elements(content, order)
            file.seek(start + size)


def _check_elements(content: bytes, order: str) -> None:
    place = 0
    while len(content) >= place + 8:
        kind, size = struct.unpack_from(f"{order}II", content, place)
        # Up to four bytes lie beside their size, in the tag itself.
        small = kind >> 16
        kind, size, begins = (kind & 0xFFFF, 0, place + 8) if small else (kind, size, place + 8)
        if kind not in _MAT_TYPES:
            raise ValueError(f"an element is of the type {kind}, which there is not")
        if kind == _MATRIX:
            _check_elements(content[begins : begins + size], order)
        place = begins + -(-size // 8) * 8


def is_hdf5(path: Path) -> bool:
    """Whether a file is of MATLAB 7.3: HDF5 behind a block of 512 bytes, which other programs leave out.

    Raises:
        InputError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            start = file.read(520)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    return _HDF5 in (start[:8], start[512:])


def read_mat(path: Path) -> dict[str, Any]:
    """The variables of a MATLAB file by name: arrays, and sparse matrices of scipy.

    Raises:
        InputError: broken, or no MATLAB file.
    """
    import scipy.io

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of variables that are left out; whoever needs them misses them
            _check_mat(path)
            found = scipy.io.loadmat(path, appendmat=False)
    except Exception as error:  # scipy raises many kinds on broken files
        raise InputError(f"cannot read {path}: {str(error) or type(error).__name__}", "is it a MATLAB file?") from error
    return {name: value for name, value in found.items() if not name.startswith("__")}


def names_in_mat(path: Path) -> frozenset[str]:
    """The names of the variables, unread; none where the file is of another version or broken."""
    import scipy.io

    try:
        _check_mat(path)
        return frozenset(name for name, _, _ in scipy.io.whosmat(path, appendmat=False))
    except Exception:  # as above; whoever reads the file says what is wrong
        return frozenset()

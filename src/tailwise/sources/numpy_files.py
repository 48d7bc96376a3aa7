"""npz and npy files, without ever unpickling."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..errors import InputError

SUFFIXES = (".npz", ".npy")
# What graphs call the attributes of their nodes and the matrix of their edges.
ATTRIBUTES, ADJACENCY = ("x", "X", "Attributes"), ("Network", "A", "adj")
# What deflate packs into a byte at most is 1,032; other codecs pack what repeats itself further.
MOST_PACKED = 2_000
# Arrays up to this size are read whatever the size of the file.
ALWAYS_READ = 1_000_000_000


def read_numpy(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an npz file by name, or of an npy file as "X".

    Raises:
        InputError: broken, or it holds Python objects, which are never unpickled.
    """
    try:
        _check_sizes(path)
        with path.open("rb") as file:
            loaded: Any = np.load(file, allow_pickle=False)
            return {"X": loaded} if isinstance(loaded, np.ndarray) else {key: loaded[key] for key in loaded.files}
    except (InputError, MemoryError):
        raise
    except Exception as error:  # what numpy raises on broken files is not a closed list
        objects = "pickle" in str(error).lower() or "object arrays" in str(error).lower()
        raise InputError(
            f"cannot read {path}: {'it holds Python objects' if objects else error}",
            "save plain numbers: np.savez(path, X=X, y=y)",
        ) from error


def numpy_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """The shapes of the arrays in an npz file by name, or of an npy file as "X", without reading their values.

    Raises:
        InputError: broken.
    """
    try:
        if path.suffix.lower() == ".npy":
            with path.open("rb") as file:
                return {"X": _header(file)[0]}
        with zipfile.ZipFile(path) as archive:
            shapes = {}
            for name in archive.namelist():
                with archive.open(name) as member:
                    shapes[name.removesuffix(".npy")] = _header(member)[0]
            return shapes
    except MemoryError:
        raise
    except Exception as error:  # as above
        raise InputError(
            f"cannot read {path}: {error or type(error).__name__}", "save plain numbers: np.savez(path, X=X, y=y)"
        ) from error


def numpy_layout(path: Path) -> Literal["parts", "graph", "cube", "rows"]:
    """What the arrays of an npz or npy file are by their names and shapes: two parts, a graph, a cube, or rows.

    Raises:
        InputError: broken.
    """
    shapes = numpy_shapes(path)
    if "x_train" in shapes:
        return "parts"
    if "edge_index" in shapes or _has_adjacency(shapes):
        return "graph"
    axes = {len(shape) for shape in shapes.values()}
    return "cube" if 3 in axes and not {"X", "x"} & {name for name, s in shapes.items() if len(s) == 2} else "rows"


def _has_adjacency(shapes: dict[str, tuple[int, ...]]) -> bool:
    """Whether beside attributes [n, d] lies a matrix [n, n] under a name of adjacencies."""
    rows = {shape[0] for name, shape in shapes.items() if name in ATTRIBUTES and len(shape) == 2}
    return any((n, n) == shapes.get(name) for n in rows for name in ADJACENCY)


def check_claim(path: Path, claimed: int) -> None:
    """Refuse a file that says it holds more bytes than it can, before they are asked for.

    Raises:
        InputError: it is so.
    """
    holds = path.stat().st_size
    if claimed > ALWAYS_READ and claimed > MOST_PACKED * holds:
        raise InputError(
            f"{path} says that it holds an array of {claimed:,} bytes, and is {holds:,} bytes long", "it is damaged"
        )


def _check_sizes(path: Path) -> None:
    """numpy asks for the memory that a header names before it reads on."""
    with path.open("rb") as file:
        packed = file.read(2) == b"PK"
        if not packed:
            file.seek(0)
            shape, dtype = _header(file)
            _check_size(path, "", shape, dtype, path.stat().st_size - file.tell())
            return
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            if entry.filename.endswith(".npy"):
                with archive.open(entry) as member:
                    shape, dtype = _header(member)
                    check_claim(path, entry.file_size)
                    _check_size(path, f": {entry.filename}", shape, dtype, entry.file_size - member.tell())


def _check_size(path: Path, name: str, shape: tuple[int, ...], dtype: np.dtype, holds: int) -> None:
    needed = math.prod(shape) * dtype.itemsize
    if not dtype.hasobject and needed > holds:
        raise InputError(
            f"cannot read {path}{name}: an array of shape {list(shape)} is {needed:,} bytes, and {holds:,} are there",
            "the file is cut or damaged: fetch it again",
        )


def _header(file: Any) -> tuple[tuple[int, ...], np.dtype]:
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    return shape, dtype

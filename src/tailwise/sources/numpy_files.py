"""npz and npy files, without ever unpickling."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..errors import InputError

SUFFIXES = (".npz", ".npy")


def read_numpy(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an npz file by name, or of an npy file as "X".

    Raises:
        InputError: broken, or it holds Python objects, which are never unpickled.
    """
    try:
        with path.open("rb") as file:
            loaded: Any = np.load(file, allow_pickle=False)
            return {"X": loaded} if isinstance(loaded, np.ndarray) else {key: loaded[key] for key in loaded.files}
    except MemoryError:
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
                return {"X": _shape(file)}
        with zipfile.ZipFile(path) as archive:
            shapes = {}
            for name in archive.namelist():
                with archive.open(name) as member:
                    shapes[name.removesuffix(".npy")] = _shape(member)
            return shapes
    except MemoryError:
        raise
    except Exception as error:  # as above
        raise InputError(
            f"cannot read {path}: {error or type(error).__name__}", "save plain numbers: np.savez(path, X=X, y=y)"
        ) from error


def numpy_layout(path: Path) -> Literal["parts", "cube", "rows"]:
    """What the arrays of an npz or npy file are by their shapes: a training and a test part, a cube, or rows.

    Raises:
        InputError: broken.
    """
    shapes = numpy_shapes(path)
    if "x_train" in shapes:
        return "parts"
    axes = {len(shape) for shape in shapes.values()}
    return "cube" if 3 in axes and not {"X", "x"} & {name for name, s in shapes.items() if len(s) == 2} else "rows"


def _shape(file: Any) -> tuple[int, ...]:
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    return read(file)[0]

"""The files that point clouds come in: each becomes points [n, 3] in double precision, in the file's own unit.

Meshes (.stl, .off, .obj) become points drawn evenly from their surface. Nothing of colours, normals or faces of other
files is read. Large offsets, as of surveys, are kept: whoever makes single precision of points takes them off before.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError, reading
from .numpy_files import read_numpy

TEXT = (".xyz", ".txt", ".csv", ".pts", ".asc")
MESHES = (".stl", ".off", ".obj")
SCANNED = (".ply", ".pcd", ".las", ".laz")
# Tables and arrays may hold anything else: they are clouds only where somebody says so.
SURE, POSSIBLE = (*SCANNED, *MESHES, ".xyz", ".pts"), (".txt", ".csv", ".asc", ".npz", ".npy")
SUFFIXES = (*SURE, *POSSIBLE)
# Points drawn from a mesh.
_DRAWN = 20_000
_PCD_HEAD = 4_096
_PCD_TYPES = {"F": "f", "U": "u", "I": "i"}
_AXES = ("x", "y", "z")


def read_columns(path: Path) -> np.ndarray:
    """The points [n, 3 or more] float64 of a file with what else its rows of text hold, such as labels.

    Raises:
        InputError: broken, or it holds no points.
    """
    suffix = path.suffix.lower()
    readers: dict[str, Callable[[Path], np.ndarray]] = {
        ".ply": _ply, ".pcd": _pcd, ".las": _las, ".laz": _las, ".npz": _arrays, ".npy": _arrays,
        **dict.fromkeys(TEXT, _text), **dict.fromkeys(MESHES, _mesh),
    }  # fmt: skip
    if suffix not in readers:
        raise InputError(f"{path.name} is no point cloud that can be read", f"readable are {', '.join(SUFFIXES)}")
    with reading(path, f"a point cloud was needed, as {suffix} files hold one"):
        values = np.asarray(readers[suffix](path), np.float64)
    if values.ndim != 2 or values.shape[1] < 3 or not len(values):
        raise InputError(f"{path} holds {list(values.shape)} numbers: points [n, 3] were needed")
    return values


def _ply(path: Path) -> np.ndarray:
    from plyfile import PlyData

    held = PlyData.read(str(path), mmap=False)
    if "vertex" not in held:
        raise InputError(f"{path} has no element 'vertex'")
    return np.stack([np.asarray(held["vertex"][axis], np.float64) for axis in _AXES], 1)


def _las(path: Path) -> np.ndarray:
    import laspy

    return np.asarray(laspy.read(str(path)).xyz, np.float64)


def _mesh(path: Path) -> np.ndarray:
    import trimesh

    mesh = trimesh.load_mesh(str(path), process=False, skip_materials=True)
    if not len(getattr(mesh, "faces", ())):
        return np.asarray(mesh.vertices, np.float64)
    return np.asarray(trimesh.sample.sample_surface(mesh, _DRAWN, seed=0)[0], np.float64)


def _arrays(path: Path) -> np.ndarray:
    """The one array [n, 3 or more] of numpy's files, or that which is called points or xyz."""
    arrays = read_numpy(path)
    fits = {
        name: each
        for name, each in arrays.items()
        if each.ndim == 2 and each.shape[1] >= 3 and each.dtype.kind in "fiu"
    }
    named = [name for name in ("points", "xyz", "pos", "X") if name in fits]
    if not named and len(fits) != 1:
        raise InputError(f"{path} has the arrays {', '.join(arrays) or 'none'}", "call the points [n, 3] points")
    return fits[named[0] if named else next(iter(fits))]


def _text(path: Path) -> np.ndarray:
    """Rows of numbers, separated by commas, semicolons or white space, after a head that is no numbers: its names x, y
    and z say which columns are coordinates. A first row of one number is a count, as .pts files have one."""
    lines = path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    first = next((i for i, line in enumerate(lines) if _is_numbers(line, 2)), None)
    if first is None:
        raise InputError(f"{path} has no row of three numbers")
    separator = next((mark for mark in ",;" if mark in lines[first]), None)
    values = np.loadtxt(lines[first:], delimiter=separator, dtype=np.float64, ndmin=2, comments=("#", "//"))
    names = [
        name.strip().lower().strip("/#")
        for name in (lines[first - 1] if first else "").replace(";", ",").split(separator and ",")
    ]
    places = [names.index(axis) for axis in _AXES] if set(_AXES) <= set(names) and len(names) == values.shape[1] else []
    return values[:, places] if places else values


def _is_numbers(line: str, least: int) -> bool:
    parts = line.replace(",", " ").replace(";", " ").split()
    try:
        return len([float(part) for part in parts]) > least
    except ValueError:
        return False


def _pcd(path: Path) -> np.ndarray:
    """PCD version 0.7, ascii or binary (the Point Cloud Library's own format)."""
    content = path.read_bytes()
    head: dict[str, list[str]] = {}
    at = 0
    while "DATA" not in head:
        end = content.find(b"\n", at)
        if end < 0 or at > _PCD_HEAD:
            raise InputError(f"{path} has no head of a PCD file", "its lines FIELDS, SIZE, TYPE, POINTS and DATA")
        words = content[at:end].decode("ascii", "replace").split()
        at = end + 1
        if words and not words[0].startswith("#"):
            head[words[0].upper()] = words[1:]
    counts = [int(each) for each in head.get("COUNT", ["1"] * len(head["FIELDS"]))]
    points = int(head["POINTS"][0])
    sort = head["DATA"][0].lower()
    if sort not in ("ascii", "binary"):
        raise InputError(f"{path} is packed ({sort})", f"pcl_convert_pcd_ascii_binary {path.name} OUT.pcd 1 unpacks it")
    return _pcd_points(path, head, counts, points, sort, content[at:])


def _pcd_points(
    path: Path, head: dict[str, list[str]], counts: list[int], points: int, sort: str, content: bytes
) -> np.ndarray:
    names = [name.lower() for name in head["FIELDS"]]
    if not set(_AXES) <= set(names):
        raise InputError(f"{path} has the fields {', '.join(names)}: x, y and z were needed")
    if sort == "ascii":
        starts = np.concatenate([[0], np.cumsum(counts)])
        values = np.loadtxt(content.decode("ascii", "replace").splitlines()[:points], dtype=np.float64, ndmin=2)
        return np.stack([values[:, starts[names.index(axis)]] for axis in _AXES], 1)
    types = [f"<{_PCD_TYPES[sort]}{size}" for sort, size in zip(head["TYPE"], head["SIZE"], strict=True)]
    # Padding may repeat a name, such as "_".
    fields: Any = [
        (f"{i} {name}", kind, (count,)) for i, (name, kind, count) in enumerate(zip(names, types, counts, strict=True))
    ]
    rows = np.frombuffer(content, dtype=np.dtype(fields), count=points)
    return np.stack([rows[f"{names.index(axis)} {axis}"][:, 0].astype(np.float64) for axis in _AXES], 1)


def write_ply(points: np.ndarray, scores: np.ndarray | None = None) -> bytes:
    """A PLY file (binary, little endian) of points [n, 3], and of the `score` of each where there are scores [n].

    Examples:
        >>> write_ply(np.zeros((2, 3)), np.ones(2))[:32]
        b'ply\\nformat binary_little_endian '
    """
    names = [(axis, "<f8") for axis in _AXES] + ([] if scores is None else [("score", "<f4")])
    rows = np.empty(len(points), dtype=names)
    for place, axis in enumerate(_AXES):
        rows[axis] = points[:, place]
    if scores is not None:
        rows["score"] = scores
    said = "".join(f"property {'double' if kind == '<f8' else 'float'} {name}\n" for name, kind in names)
    head = f"ply\nformat binary_little_endian 1.0\nelement vertex {len(points)}\n{said}end_header\n"
    return head.encode("ascii") + rows.tobytes()

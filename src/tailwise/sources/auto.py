"""Sources, one kind a file, and `open_source`, which finds the right one for what is there."""

from __future__ import annotations

import os
import re
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from ..core.problem import Source
from ..core.registry import entries, find, parse
from ..errors import InputError
from .paths import data_directory, find_path, list_files

__all__ = ["data_directory", "find_path", "open_source", "spelled"]
_TABLES = (".csv", ".tsv", ".txt", ".parquet", ".pq")
_CUBES = (".mat", ".hdr", ".zarr")
_OPTIONS = (
    "labels", "groups", "columns", "read", "layers", "size", "channels", "skip_bad", "bad_bands", "white", "dark",
)  # fmt: skip
# A stack of at least this many pages is a cube; fewer are the pages or channels of a picture.
_FEWEST_BANDS = 5


def open_source(
    where: str | Path | Source,
    *,
    labels: str | None = None,
    groups: str | None = None,
    columns: tuple[str, ...] = (),
    read: str | None = None,
    layers: tuple[int, ...] = (),
    maps: bool = False,
    size: int | str | tuple[int, int] | None = None,
    channels: int | None = None,
    skip_bad: bool = False,
    bad_bands: tuple[int | tuple[int, int], ...] = (),
    white: str | None = None,
    dark: str | None = None,
) -> Source:
    """The source for what is at a path, or that a spelling such as "SolarCells(mono=400, poly=40)" names.

    Args:
        where: a table, a folder of images, a cube or a folder of cubes, IDX files, npz arrays; a source or its
            spelling. Relative paths are also looked for in the data directory (TAILWISE_DATA).
        labels: tables: the label column; cubes: a mask's path or its name in the file.
        groups: the column, or the file of an image folder, that names the known kinds of normal.
        columns: tables: exactly these feature columns; () takes all but labels and groups.
        read: images: "pixels" or a backbone; None is efficientnet-lite0 where its packages are installed.
        layers: images: blocks of the backbone whose maps are the samples; () pools.
        maps: take the backbone's usual maps where neither layers are named nor pixels asked for.
        size: images are resized to size x size, or to height and width as in (256, 512) or "256x512".
        channels: images are read as pixels of so many channels: 1 is grey, 3 colour, others the bands of the files.
        skip_bad: leave out unreadable images.
        bad_bands: cubes: bands to leave out, or (first, last), from 0.
        white, dark: cubes: reference files for calibration.

    Raises:
        InputError: nothing is there, it is of no known kind, or an option does not apply to its kind.
    """
    given: dict[str, Any] = {"labels": labels, "groups": groups, "columns": tuple(columns), "read": read}
    given |= {"layers": tuple(layers), "size": size, "channels": channels}
    given |= {"skip_bad": skip_bad, "bad_bands": tuple(bad_bands), "white": white, "dark": dark}
    options = {name: value for name, value in given.items() if value is not None and value is not False and value != ()}
    if not isinstance(where, (str, Path)):
        return _as_maps(_with(where, options), maps)
    if spelled(str(where)):
        return _as_maps(_with(_parsed(str(where)), options), maps)
    path = find_path(where)
    if channels is not None and _may_be_images(path):
        # What would be a cube, of pixels that are samples, is now an image: its bands are channels.
        kind = "ImageFolder"
        options.setdefault("read", "pixels")
    else:
        kind = _folder_kind(path) if path.is_dir() and path.suffix.lower() != ".zarr" else _file_kind(path)
    source = find("source", kind)(str(where))
    if "read" in {field.name for field in fields(source)} and "read" not in options:
        options["read"] = _default_reading()
    return _as_maps(_with(source, options), maps)


def spelled(where: str) -> bool:
    """Whether this is the spelling of a source rather than a path."""
    home = data_directory()
    # os.path, because a long spelling is too long for a file's name, which Path.exists would raise.
    if os.path.exists(where) or (home is not None and os.path.exists(home / where)):
        return False
    return bool(re.fullmatch(r"\s*[A-Za-z]\w*\s*\(.*\)\s*", where, re.DOTALL)) or where in entries("source")


def _parsed(text: str) -> Source:
    found = parse(text, ("source",))
    if len(found) != 1:
        raise InputError(f"one source is needed: {text!r} spells {len(found)}")
    return found[0]


def _with(source: Any, options: dict[str, Any]) -> Source:
    """The source with these options.

    Raises:
        InputError: it has no such option.
    """
    if not options:
        return source
    known = {field.name for field in fields(source)}
    for name in options:
        if name not in known:
            kind = type(source).__name__
            takes = sorted(known & set(_OPTIONS))
            raise InputError(f"{name} does not apply to {kind}", f"{kind} takes {', '.join(takes) or 'none of these'}")
    return replace(source, **options)


def _as_maps(source: Any, maps: bool) -> Source:
    """The source with its backbone's usual maps, if maps are wanted and it reads by a backbone and names no layers."""
    if not maps or getattr(source, "layers", None) != () or source.read == "pixels":
        return source
    from .image_samples import backbones

    return replace(source, layers=backbones().map_layers(source.read))


def _default_reading() -> str:
    from .image_samples import backbones

    return "efficientnet-lite0" if backbones().installed("efficientnet-lite0") else "pixels"


def _may_be_images(path: Path) -> bool:
    from . import image_files

    return path.is_dir() or path.suffix.lower() in (*image_files.SUFFIXES, *image_files.ARRAYS)


def _folder_kind(path: Path) -> str:
    from . import image_files

    if any(_is_idx(entry.name.lower()) for entry in path.iterdir()):
        return "Idx"
    files = [name.lower() for name in list_files(path, ("",))]
    images = list_files(path, image_files.SUFFIXES, leave_out=("ground_truth",))
    images = [name for name in images if not Path(name).stem.endswith("_mask")]
    cubes = sum(name.endswith(_CUBES) for name in files)
    if cubes > len(images) or (images and all(_is_stack(path / name) for name in images[:3])):
        return "Cube"
    if images:
        return "ImageFolder"
    if _all_cubes(path):
        return "Cube"
    found = sorted({Path(name).suffix for name in files if "." in name})
    raise InputError(
        f"{path} holds nothing that can be read: {len(files)} files of kinds {', '.join(found) or 'none'}",
        "needed are images, cubes (.mat, .hdr, .zarr) or IDX files; a table is given by its own path",
    )


def _file_kind(path: Path) -> str:
    from . import image_files

    suffix = path.suffix.lower()
    if _is_idx(path.name.lower()):
        return "Idx"
    if suffix in _TABLES:
        return "Table"
    if suffix in (".npz", ".npy"):
        return _numpy_kind(path)
    if suffix in _CUBES or path.with_suffix(".hdr").is_file() or Path(f"{path}.hdr").is_file():
        return "Cube"
    if suffix in image_files.SUFFIXES:
        return "Cube" if _is_stack(path) else "ImageFolder"
    raise InputError(
        f"{path} is of no kind that can be read",
        "a table (.csv, .parquet, .npz), a folder of images, a cube (.mat, .hdr, .zarr, .npz, .tif) or IDX files",
    )


def _is_idx(name: str) -> bool:
    return re.search(r"idx\d-(ubyte|byte)(\.gz)?$", name) is not None


def _numpy_kind(path: Path) -> str:
    from .numpy_files import numpy_shapes

    shapes = numpy_shapes(path)
    if "x_train" in shapes:
        return "ArrayFile"
    axes = {len(shape) for shape in shapes.values()}
    return "Cube" if 3 in axes and not {"X", "x"} & {name for name, s in shapes.items() if len(s) == 2} else "Table"


def _all_cubes(path: Path) -> bool:
    names = [name for name in list_files(path, (".npy", ".npz")) if not Path(name).stem.endswith("_mask")]
    return bool(names) and all(_numpy_kind(path / name) == "Cube" for name in names)


def _is_stack(path: Path) -> bool:
    if path.suffix.lower() not in (".tif", ".tiff"):
        return False
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as file:
            return getattr(file, "n_frames", 1) >= _FEWEST_BANDS
    except (UnidentifiedImageError, OSError):
        return _tiff_bands(path) >= _FEWEST_BANDS


def _tiff_bands(path: Path) -> int:
    """The smaller of a 3-D TIFF's outer axes, 1 for anything else."""
    try:
        import tifffile

        with tifffile.TiffFile(path) as file:
            shape = file.series[0].shape
    except (ImportError, ValueError, OSError, IndexError):  # tifffile's own error is a ValueError
        return 1
    return min(shape[0], shape[2]) if len(shape) == 3 else 1

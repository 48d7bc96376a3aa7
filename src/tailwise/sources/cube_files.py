"""The file formats of hyperspectral cubes: each becomes a Scene."""

from __future__ import annotations

import importlib.util
import mmap
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..core import messages
from ..errors import InputError, did_you_mean
from . import envi, hdf5, nodata, tiff_files, zarr_files
from .mat_files import is_hdf5, read_mat
from .numpy_files import check_claim, read_numpy
from .wavelengths import check_wavelengths

# A stack of at least this many pages is a cube; fewer are the pages or channels of a picture.
_FEWEST_BANDS = 5
_MASK_NAMES = ("map", "gt", "mask", "labels", "ground_truth")
# The beginnings of units of measure in ENVI's headers: nanometres in each, and what is no length.
_LENGTHS = {"nano": 1.0, "nm": 1.0, "micro": 1e3, "um": 1e3, "µm": 1e3, "μm": 1e3, "ang": 0.1, "milli": 1e6, "mm": 1e6}
_NO_LENGTHS = ("wavenumber", "1/cm", "cm-1", "cm^-1", "ghz", "mhz", "thz", "index")
# A tag of TIFF.
_GDAL_NODATA = 42113


@dataclass(frozen=True, eq=False)
class Scene:
    """One cube as it is in its file.

    Attributes:
        cube: [height, width, bands], in memory, mapped from disk, or read by rows.
        wavelengths: [bands] in nanometres, where the file has them and all are finite.
        bad: [bands] bool, True where the file itself calls a band bad.
        scale: what the file's values are divided by.
        mask: [height, width] bool, True is an anomaly, under one of the usual names.
        maps: the file's other arrays of the cube's height and width, as masks.
        nodata: the values by which the file says that a pixel holds no data, as they are stored. NaN always says so.
        axes_in_doubt: the axes were reversed as MATLAB has them, and nothing says that it wrote the file.
    """

    path: Path
    cube: np.ndarray
    wavelengths: np.ndarray | None = None
    bad: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=bool))
    scale: float = 1.0
    mask: np.ndarray | None = None
    maps: dict[str, np.ndarray] = field(default_factory=dict)
    nodata: tuple[float, ...] = ()
    axes_in_doubt: bool = False

    def __post_init__(self) -> None:
        if not len(self.bad):
            object.__setattr__(self, "bad", np.zeros(self.bands, dtype=bool))

    def release(self) -> None:
        """Give back the memory through which a mapped file was read; otherwise it grows to the size of the file."""
        mapped = getattr(self.cube, "_mmap", None)
        if mapped is not None and hasattr(mmap, "MADV_DONTNEED"):
            mapped.madvise(mmap.MADV_DONTNEED)

    @property
    def height(self) -> int:
        return int(self.cube.shape[0])

    @property
    def width(self) -> int:
        return int(self.cube.shape[1])

    @property
    def bands(self) -> int:
        return int(self.cube.shape[2])


def open_scene(path: Path, key: str | None = None) -> Scene:
    """The cube in a file; `key` names its array where there are several.

    Raises:
        InputError: of no known format, broken, or without one array of 3 axes.
    """
    if path.suffix.lower() not in _OPENERS:
        header = envi.header_of(path)
        if header is None:
            raise InputError(f"{path} is not a cube that can be read", f"readable are {', '.join(SUFFIXES)}")
        return _open_envi(header, key)
    return _OPENERS[path.suffix.lower()](path, key)


def read_reference(path: Path, scene: Scene) -> np.ndarray:
    """A white or dark reference, averaged over its lines -> float32 [width or 1, bands], in the cube's samples.

    Raises:
        InputError: its bands or its width are not those of the cube.
    """
    measured_at = None
    if path.suffix.lower() == ".npy" and (array := read_numpy(path)["X"]).ndim in (1, 2):
        mean = np.atleast_2d(array).astype(np.float32)
    else:
        reference = open_scene(path)
        measured_at = reference.wavelengths
        mean = np.asarray(reference.cube).mean(0, dtype=np.float64).astype(np.float32) / np.float32(reference.scale)
    if mean.shape[1] != scene.bands:
        raise InputError(f"the reference {path} has {mean.shape[1]} bands, {scene.path} has {scene.bands}")
    check_wavelengths(scene.wavelengths, measured_at, str(scene.path), f"the reference {path}")
    if len(mean) not in (1, scene.width):
        raise InputError(
            f"the reference {path} is {len(mean)} pixels wide, {scene.path} is {scene.width}",
            "give one of the same width, or average it to a single pixel",
        )
    if not np.isfinite(mean).all():
        raise InputError(f"the reference {path} holds NaN or infinity")
    return mean


def is_stack(path: Path) -> bool:
    """Whether the file is a TIFF of so many pages or bands that it is a cube rather than a picture."""
    if path.suffix.lower() not in (".tif", ".tiff"):
        return False
    if not path.is_file():
        return False
    try:
        with tiff_files.opened(path, warns=False) as file:
            series = file.series[0]
            sides = [side for side, axis in zip(series.shape, series.axes, strict=True) if axis not in "YX"]
            return max(sides, default=1) >= _FEWEST_BANDS
    except ImportError:
        return _pages(path) >= _FEWEST_BANDS
    except Exception:  # tifffile raises many kinds on broken files, which are no cubes
        return False


def _pages(path: Path) -> int:
    """How many pages of a TIFF are as large as its first; smaller ones are copies for looking at from afar."""
    from PIL import Image

    from .image_decoding import pages_of

    try:
        with Image.open(path, formats=("TIFF",)) as file:
            return pages_of(file)
    except Exception:  # as above
        return 1


def _open_envi(path: Path, key: str | None) -> Scene:
    entries = envi.read_header(path)
    cube = envi.map_data(path, entries)
    bands = cube.shape[2]
    good = _header_list(path, entries, "bbl", bands)
    ignored = envi.list_of(entries.get("data ignore value", ""))
    for name, unit in (("data gain values", 1), ("data offset values", 0)):
        values = _header_list(path, entries, name, bands)
        if values is not None and (values != unit).any():
            messages.warning(f"{path}: {name} are not applied: values are as they are stored")
    return Scene(
        path,
        cube,
        _nanometres(_header_list(path, entries, "wavelength", bands), entries.get("wavelength units", "")),
        np.zeros(bands, dtype=bool) if good is None else good == 0,
        envi.number_of(path, entries, "reflectance scale factor", 1.0) or 1.0,
        nodata=nodata.values_of(path, "data ignore value", ignored),
    )


def _header_list(path: Path, entries: dict[str, str], name: str, bands: int) -> np.ndarray | None:
    """A header's list of one number a band; None where there is none, or it is one of words."""
    values = envi.list_of(entries.get(name, ""))
    if values and len(values) != bands:
        raise InputError(
            f"{path}: {name} has {len(values)} entries for {bands} bands", "correct the header, or remove these lines"
        )
    return _numbers(values) if values else None


def _open_mat(path: Path, key: str | None) -> Scene:
    if is_hdf5(path):
        arrays, empty, by_matlab = hdf5.read_arrays(path)
        scene = _among(path, arrays, empty, key)
        return replace(scene, axes_in_doubt=not by_matlab and scene.wavelengths is None)
    return _among(path, read_mat(path), {}, key)


def _open_numpy(path: Path, key: str | None) -> Scene:
    return _among(path, read_numpy(path), {}, key)


def _open_tiff(path: Path, key: str | None) -> Scene:
    if importlib.util.find_spec("tifffile") is None:
        raise InputError("TIFF cubes need the package tifffile", "pip install 'tailwise[hyperspectral]'")
    try:
        with tiff_files.opened(path) as file:
            # Smaller copies of the pages are other levels of the series, or series of their own.
            series = file.series[0]
            check_claim(path, series.size * series.dtype.itemsize)
            tag = series.keyframe.tags.get(_GDAL_NODATA)
            empty = () if tag is None else nodata.values_of(path, "GDAL_NODATA", [tag.value])
            stack, axes, shape = series.asarray(), series.axes, tuple(series.shape)
    except InputError:
        raise
    except Exception as error:  # tifffile raises many kinds on broken files
        raise InputError(f"cannot read {path}: {str(error) or type(error).__name__}", "is it a TIFF file?") from error
    three = stack.ndim == len(axes) == 3 and stack.shape == shape
    if not three or axes.count("Y") != 1 or axes.count("X") != 1:
        raise InputError(f"{path} has shape {list(stack.shape)}: a stack of pages, one a band, was needed")
    (bands,) = (place for place, axis in enumerate(axes) if axis not in "YX")
    return Scene(path, _bands_last(path, stack, bands), nodata=empty)


def _bands_last(path: Path, cube: Any, bands: int) -> Any:
    """The cube with its axis `bands` moved to the end.

    Raises:
        InputError: nothing is in it, or no numbers.
    """
    if 0 in cube.shape or cube.dtype.kind not in "buif":
        raise InputError(f"{path}: the cube has shape {list(cube.shape)} of {cube.dtype}: real numbers were needed")
    if bands == 2:
        return cube
    return cube.with_bands(bands) if isinstance(cube, zarr_files.ZarrCube) else np.moveaxis(cube, bands, 2)


def _open_zarr(path: Path, key: str | None) -> Scene:
    scene = _among(path, *zarr_files.read_zarr(path), key)
    return replace(scene, scale=zarr_files.scale_of(scene.cube))  # type: ignore[arg-type]


_OPENERS: dict[str, Callable[[Path, str | None], Scene]] = {
    ".mat": _open_mat,
    ".hdr": _open_envi,
    ".npz": _open_numpy,
    ".npy": _open_numpy,
    ".tif": _open_tiff,
    ".tiff": _open_tiff,
    zarr_files.SUFFIX: _open_zarr,
}
SUFFIXES = tuple(_OPENERS)


def _among(path: Path, arrays: dict[str, Any], empty: dict[str, tuple[float, ...]], key: str | None) -> Scene:
    """The cube among a file's arrays, with its wavelengths, masks and the values of no data by the array's name."""
    arrays = {name: value for name, value in arrays.items() if isinstance(value, (np.ndarray, zarr_files.ZarrCube))}
    numbers = {name: value for name, value in arrays.items() if value.dtype.kind in "buif"}
    cubes = [name for name, value in numbers.items() if value.ndim == 3]
    if key is not None:
        if key not in cubes:
            raise InputError(f"{path} has no array {key!r} with 3 axes", did_you_mean(key, cubes or numbers))
        cubes = [key]
    if not cubes:
        shapes = ", ".join(f"{name} {list(value.shape)}" for name, value in arrays.items())
        raise InputError(f"{path} has no array with 3 axes [height, width, bands]: it holds {shapes or 'nothing'}")
    if len(cubes) > 1:
        raise InputError(f"{path} has several arrays with 3 axes: {', '.join(sorted(cubes))}", "name one with key=")
    cube = numbers[cubes[0]]
    if 0 in cube.shape:
        raise InputError(f"{path}: the cube {cubes[0]} has shape {list(cube.shape)}: nothing is in it")
    wavelengths, bands = _wavelengths(path, numbers, cubes[0])
    cube = _bands_last(path, cube, bands)
    for name, value in numbers.items():
        if name.lower() in _MASK_NAMES and value.shape != cube.shape[:2] and name != cubes[0]:
            raise InputError(
                f"{path}: {name} is {list(value.shape)}: the cube is {cube.shape[0]} x {cube.shape[1]}",
                "save the cube as [height, width, bands] and this as [height, width], for example in a .npz file",
            )
    maps = {name: value != 0 for name, value in numbers.items() if value.shape == cube.shape[:2]}
    masks = [name for name in maps if name.lower() in _MASK_NAMES]
    beside = nodata.declared(path, {name: value for name, value in numbers.items() if value.size == 1})
    return Scene(
        path,
        cube,
        _nanometres(wavelengths),
        mask=maps[masks[0]] if masks else None,
        maps=maps,
        nodata=(*empty.get(cubes[0], ()), *beside),
    )


def _wavelengths(path: Path, numbers: dict[str, Any], cube: str) -> tuple[np.ndarray | None, int]:
    """A file's wavelengths, and the axis of the cube that they are along: the last, where there are none.

    Raises:
        InputError: they are as many as no axis is long, or as two are that are not the last.
    """
    shape = tuple(numbers[cube].shape)
    lists = {n: np.ravel(v) for n, v in numbers.items() if n.lower().startswith("wav") and n != cube and v.ndim < 3}
    lists = {name: values for name, values in lists.items() if values.size > 1 or shape[2] == 1}
    for values in lists.values():
        if values.size == shape[2]:
            return values.astype(float), 2
    for name, values in lists.items():
        fits = [axis for axis, side in enumerate(shape) if side == values.size]
        if len(fits) == 1:
            return values.astype(float), fits[0]
        raise InputError(
            f"{path}: {name} has {values.size} entries, and {cube} is {list(shape)}: "
            f"{'two axes are' if fits else 'no axis is'} as long",
            "save the cube as [height, width, bands] with one wavelength a band, or without wavelengths",
        )
    return None, 2


def _numbers(values: Any) -> np.ndarray | None:
    try:
        return np.array([float(value) for value in values])
    except ValueError:
        return None


def _nanometres(wavelengths: np.ndarray | None, measure: str = "") -> np.ndarray | None:
    if wavelengths is None or not np.isfinite(wavelengths).all():
        return None
    measure = measure.strip().lower()
    if measure.startswith(_NO_LENGTHS):
        return None
    for start, nanometres in _LENGTHS.items():
        if measure.startswith(start):
            return wavelengths * nanometres
    # Where the unit of measure is not stated: no sensor works at 100 nm, and none at 100 micrometres.
    return wavelengths * 1_000 if wavelengths.max() < 100 else wavelengths

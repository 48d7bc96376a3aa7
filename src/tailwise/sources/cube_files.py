"""The file formats of hyperspectral cubes: each becomes a Scene."""

from __future__ import annotations

import math
import mmap
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError, did_you_mean
from . import zarr_files
from .numpy_files import read_numpy

# A stack of at least this many pages is a cube; fewer are the pages or channels of a picture.
_FEWEST_BANDS = 5
_MASK_NAMES = ("map", "gt", "mask", "labels", "ground_truth")
_HDF5 = b"\x89HDF\r\n\x1a\n"


@dataclass(frozen=True, eq=False)
class Scene:
    """One cube as it is in its file.

    Attributes:
        cube: [height, width, bands], in memory, mapped from disk, or read by rows.
        wavelengths: [bands] in nanometres, where the file has them.
        bad: [bands] bool, True where the file itself calls a band bad.
        scale: what the file's values are divided by.
        mask: [height, width] bool, True is an anomaly, under one of the usual names.
        maps: the file's other arrays of the cube's height and width, as masks.
    """

    path: Path
    cube: np.ndarray
    wavelengths: np.ndarray | None = None
    bad: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=bool))
    scale: float = 1.0
    mask: np.ndarray | None = None
    maps: dict[str, np.ndarray] = field(default_factory=dict)

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
        for header in (path.with_suffix(".hdr"), Path(f"{path}.hdr")):
            if header.is_file():
                return _open_envi(header, key)
        raise InputError(f"{path} is not a cube that can be read", f"readable are {', '.join(SUFFIXES)}")
    return _OPENERS[path.suffix.lower()](path, key)


def read_reference(path: Path, scene: Scene) -> np.ndarray:
    """A white or dark reference, averaged over its lines -> float32 [width or 1, bands], in the cube's samples.

    Raises:
        InputError: its bands or its width are not those of the cube.
    """
    if path.suffix.lower() == ".npy" and (array := read_numpy(path)["X"]).ndim in (1, 2):
        mean = np.atleast_2d(array).astype(np.float32)
    else:
        reference = open_scene(path)
        mean = np.asarray(reference.cube).mean(0, dtype=np.float64).astype(np.float32) / np.float32(reference.scale)
    if mean.shape[1] != scene.bands:
        raise InputError(f"the reference {path} has {mean.shape[1]} bands, {scene.path} has {scene.bands}")
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


def _open_envi(path: Path, key: str | None) -> Scene:
    try:
        from spectral.io import envi
    except ImportError as error:
        raise InputError("ENVI cubes need the package spectral", "pip install 'tailwise[hyperspectral]'") from error
    with warnings.catch_warnings():
        # spectral warns of capital letters in headers, which are common and harmless.
        warnings.simplefilter("ignore")
        try:
            image = envi.open(str(path))
            _check_size(image)
            cube = image.open_memmap(interleave="bip", writable=False)
        except InputError:
            raise
        except Exception as error:  # its errors share no base but Exception
            raise InputError(
                f"cannot open {path}: {str(error) or type(error).__name__}", "the data file lies beside its .hdr"
            ) from error
    header = image.metadata
    bands = cube.shape[2]
    good = _per_band(header.get("bbl"), bands)
    measure = str(header.get("wavelength units", ""))
    return Scene(
        path,
        cube,
        _nanometres(_per_band(header.get("wavelength"), bands), measure),
        np.zeros(bands, dtype=bool) if good is None else good == 0,
        float(image.scale_factor or 1.0),
    )


def _check_size(image: Any) -> None:
    """A file that is cut short cannot be mapped, and spectral says so in words about axes."""
    needed = image.offset + math.prod((image.nrows, image.ncols, image.nbands)) * image.sample_size
    found = Path(image.filename).stat().st_size
    if found < needed:
        raise InputError(
            f"{image.filename} holds {found} bytes: {image.nrows} x {image.ncols} pixels of {image.nbands} bands "
            f"are {needed}",
            "it is cut or its .hdr is of another file: fetch both again",
        )


def _open_mat(path: Path, key: str | None) -> Scene:
    import scipy.io

    with path.open("rb") as file:
        # A MATLAB 7.3 file is HDF5 behind a block of 512 bytes; other programs write it without the block.
        start = file.read(520)
    if _HDF5 in (start[:8], start[512:]):
        found = _read_hdf5(path)
    else:
        try:
            found = scipy.io.loadmat(path, appendmat=False)
        except Exception as error:  # scipy raises many kinds on broken files
            raise InputError(f"cannot read {path}: {error}", "is it a MATLAB file?") from error
    return _among(path, {name: value for name, value in found.items() if not name.startswith("__")}, key)


def _read_hdf5(path: Path) -> dict[str, Any]:
    """MATLAB 7.3 files are HDF5 with the axes in reverse."""
    try:
        import h5py
    except ImportError as error:
        raise InputError(
            f"{path} is a MATLAB 7.3 file: it needs h5py", "pip install 'tailwise[hyperspectral]'"
        ) from error
    try:
        with h5py.File(path) as file:
            return {name: np.asarray(value).T for name, value in file.items() if isinstance(value, h5py.Dataset)}
    except OSError as error:
        raise InputError(f"cannot read {path}: {error}", "is it a MATLAB file?") from error


def _open_numpy(path: Path, key: str | None) -> Scene:
    return _among(path, read_numpy(path), key)


def _open_tiff(path: Path, key: str | None) -> Scene:
    try:
        import tifffile
    except ImportError as error:
        raise InputError("TIFF cubes need the package tifffile", "pip install 'tailwise[hyperspectral]'") from error
    try:
        stack = tifffile.imread(path)
    except Exception as error:  # tifffile raises many kinds on broken files
        raise InputError(f"cannot read {path}: {error}", "is it a TIFF file?") from error
    if stack.ndim != 3:
        raise InputError(f"{path} has shape {list(stack.shape)}: a stack of pages, one a band, was needed")
    # Pages are bands; a single page of many samples already has them last.
    with tifffile.TiffFile(path) as file:
        pages = len(file.pages)
    return Scene(path, np.moveaxis(stack, 0, 2) if pages == stack.shape[0] > 1 else stack)


def _open_zarr(path: Path, key: str | None) -> Scene:
    scene = _among(path, zarr_files.read_zarr(path), key)
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


def _among(path: Path, arrays: dict[str, Any], key: str | None) -> Scene:
    """The cube among a file's arrays, with its wavelengths and masks."""
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
    for name, value in numbers.items():
        if name.lower() in _MASK_NAMES and value.shape != cube.shape[:2] and name != cubes[0]:
            raise InputError(f"{path}: {name} is {list(value.shape)}: the cube is {cube.shape[0]} x {cube.shape[1]}")
    maps = {name: value != 0 for name, value in numbers.items() if value.shape == cube.shape[:2]}
    masks = [name for name in maps if name.lower() in _MASK_NAMES]
    waves = [name for name in numbers if name.lower().startswith("wav")]
    wavelengths = _per_band(numbers[waves[0]].ravel(), cube.shape[2]) if waves else None
    return Scene(path, cube, _nanometres(wavelengths), mask=maps[masks[0]] if masks else None, maps=maps)


def _per_band(values: Any, bands: int) -> np.ndarray | None:
    """A header's list as numbers, or None where it is not one number a band."""
    if values is None or len(values) != bands:
        return None
    try:
        return np.array([float(value) for value in values])
    except ValueError:
        return None


def _nanometres(wavelengths: np.ndarray | None, measure: str = "") -> np.ndarray | None:
    if wavelengths is None:
        return None
    # Where the unit of measure is not stated: no sensor works at 100 nm, and none at 100 micrometres.
    micrometres = measure.lower().startswith(("micro", "um", "µm")) or (
        not measure.lower().startswith("nano") and wavelengths.max() < 100
    )
    return wavelengths * 1_000 if micrometres else wavelengths

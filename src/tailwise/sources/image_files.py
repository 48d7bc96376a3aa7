"""One image file -> float32 in 0..1, whatever its depth, mode, orientation or number of bands."""

from __future__ import annotations

import re
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from ..errors import InputError
from .paths import list_files

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".ppm", ".pgm", ".pbm", ".jp2")
# Also read, but in a folder only where there are no others: such a file is more often something else.
ARRAYS = (".npy",)
Size = int | tuple[int, int] | None
# What Pillow's plug-ins raise on broken files.
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error, zlib.error)


class BadPicture(InputError):
    """A file with an image's name that is not a readable image."""


def read_picture(path: Path, size: Size, channels: int) -> Tensor:
    """One image, upright, resized to a side or (height, width); None keeps its own -> float32 [channels, h, w] in 0..1.

    For 1 and 3 channels transparent images are laid on white; colour becomes grey by Rec. 601; grey is repeated for 3.
    Any other number takes the bands of the file as they are: 4 are red, green, blue and opacity of a PNG (opaque where
    it has none), or the four bands of a TIFF or npy; 5 and more those of a TIFF, bands last or a page each, or an npy.

    Raises:
        BadPicture: broken, truncated, no image, or too large.
        InputError: a float or 32-bit image outside 0..1 (0..65535 for integers), or another number of bands.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            picture = _open(path) if channels in (1, 3) else _open_bands(path, channels)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise BadPicture(
            f"{path} has more than {Image.MAX_IMAGE_PIXELS:,} pixels, the most that is decoded",
            "cut it into tiles or scale it down first",
        ) from error
    except _OutOfRange as error:
        raise InputError(
            f"{path} holds values from {error.low:g} to {error.high:g}: needed are 0..1 (float) or 0..65535 (integers)",
            "divide the images by their largest possible value first",
        ) from error
    except _OtherBands as error:
        raise InputError(
            f"{path} has {error.bands} bands: asked for were {error.asked}", f"choose channels={error.bands}"
        ) from error
    except _BROKEN as error:
        raise BadPicture(
            f"cannot read {path} as an image: {str(error) or type(error).__name__}",
            "replace or remove it, or leave out unreadable images with skip_bad=True (--skip-bad)",
        ) from error
    return torch.from_numpy(_fitted(picture, size, channels))


def list_pictures(folder: Path) -> list[str]:
    """Paths below the folder of its images, less defect masks."""
    names = list_files(folder, SUFFIXES, leave_out=("ground_truth",))
    return [name for name in names if not Path(name).stem.endswith("_mask")]


def check_picture(path: Path, channels: int) -> None:
    """Decode and forget.

    Raises:
        BadPicture: it cannot be decoded.
    """
    read_picture(path, 8, channels)


def check_size(size: Size) -> Size:
    """A side, or height and width, each from 8 to 4096 pixels; also spelled as "256x512"."""
    spelled = re.fullmatch(r"(\d+)(?:x(\d+))?", size) if isinstance(size, str) else None
    if spelled:
        size = (int(spelled[1]), int(spelled[2])) if spelled[2] else int(spelled[1])
    sides = size if isinstance(size, tuple) else (size,)
    if size is not None and not (len(sides) <= 2 and all(type(side) is int and 8 <= side <= 4_096 for side in sides)):
        raise InputError(
            f"size must be from 8 to 4096 pixels: got {size!r}", "give a side, or height and width as in 256x512"
        )
    return size


def sides(size: int | tuple[int, int]) -> tuple[int, int]:
    """Height and width."""
    return (size, size) if isinstance(size, int) else size


def read_mask(path: Path) -> np.ndarray:
    """A defect mask in its own size -> bool [h, w]; a pixel above half of the mask's largest value is a defect."""
    mask = read_picture(path, None, 1)[0].numpy()
    return mask > mask.max() / 2


def _open(path: Path) -> Image.Image | np.ndarray:
    """A decoded, upright image in mode L, RGB, I or F; or float [h, w, 3] for what Pillow has no mode for."""
    if path.suffix.lower() in ARRAYS:
        return _as_colour(_scaled(_read_npy(path)))
    try:
        with Image.open(path) as file:
            file.load()
            picture: Image.Image = ImageOps.exif_transpose(file)
            return _plain(picture)
    except UnidentifiedImageError:
        if path.suffix.lower() in (".tif", ".tiff"):
            return _open_tiff(path)
        raise


def _plain(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I;16"):
        return Image.fromarray(np.asarray(picture).astype(np.float32) / 65_535)
    if picture.mode == "I":
        return Image.fromarray(_in_range(np.asarray(picture), 65_535))
    if picture.mode == "F":
        return Image.fromarray(_in_range(np.asarray(picture)))
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        return Image.alpha_composite(white, picture).convert("RGB")
    if picture.mode in ("1", "L"):
        return picture.convert("L")
    return picture.convert("RGB")


def _open_tiff(path: Path) -> Image.Image | np.ndarray:
    """Deep colour TIFF, which Pillow does not know: [h, w, 3] of 16-bit or float values."""
    return _as_colour(_scaled(_read_tiff(path)))


def _open_bands(path: Path, channels: int) -> np.ndarray:
    """Every band of an image as it is: float [h, w, channels]."""
    suffix = path.suffix.lower()
    if suffix in ARRAYS:
        values = _read_npy(path)
    elif suffix in (".tif", ".tiff"):
        values = _read_tiff(path)
    else:
        with Image.open(path) as file:
            file.load()
            picture: Image.Image = ImageOps.exif_transpose(file)
            values = np.asarray(picture.convert("RGBA") if channels == 4 and picture.mode in _TO_RGBA else picture)
    if values.ndim == 2:
        values = values[..., None]
    if values.ndim != 3:
        raise ValueError(f"an array of shape {list(values.shape)} is not an image")
    if values.shape[2] != channels and values.shape[0] == channels:
        values = np.moveaxis(values, 0, 2)  # a page or plane for each band
    if values.shape[2] != channels:
        raise _OtherBands(min(values.shape[0], values.shape[2]), channels)
    return _scaled(values)


# Modes of 8-bit images that have colours or an opacity, or may be given them.
_TO_RGBA = ("1", "L", "LA", "P", "PA", "RGB")


def _read_tiff(path: Path) -> np.ndarray:
    try:
        import tifffile
    except ImportError as error:
        raise ValueError("this kind of TIFF needs tifffile: pip install 'tailwise[hyperspectral]'") from error
    try:
        values: np.ndarray = tifffile.imread(path)
    except Exception as error:
        # tifffile raises a kind of its own for what is no TIFF, and others for what is broken.
        raise ValueError(str(error)) from error
    return values


def _read_npy(path: Path) -> np.ndarray:
    values: np.ndarray = np.load(path, allow_pickle=False)
    if values.dtype.kind not in "buif" or not values.size:
        raise ValueError(f"an array of {values.dtype} with shape {list(values.shape)} is not an image")
    return values


def _as_colour(values: np.ndarray) -> Image.Image | np.ndarray:
    if values.ndim == 3 and values.shape[2] == 1:
        values = values[..., 0]
    if values.ndim == 2:
        return Image.fromarray(values)
    if values.ndim == 3 and values.shape[2] in (3, 4):
        colour = values[..., :3]
        return colour if values.shape[2] == 3 else colour * values[..., 3:] + 1 - values[..., 3:]
    raise ValueError(
        f"an array of shape {list(values.shape)} is no grey or colour image; choose channels to take its bands"
    )


def _scaled(values: np.ndarray) -> np.ndarray:
    """Samples of any depth in 0..1: whole numbers are divided by the largest that their type holds."""
    if values.dtype == bool:
        return values.astype(np.float32)
    return _in_range(values, float(np.iinfo(values.dtype).max) if values.dtype.kind in "ui" else 1.0)


def _in_range(values: np.ndarray, largest: float = 1.0) -> np.ndarray:
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= largest):
        raise _OutOfRange(low, high)
    return values.astype(np.float32) / np.float32(largest)


class _OutOfRange(Exception):
    def __init__(self, low: float, high: float) -> None:
        super().__init__(low, high)
        self.low, self.high = low, high


class _OtherBands(Exception):
    def __init__(self, bands: int, asked: int) -> None:
        super().__init__(bands, asked)
        self.bands, self.asked = bands, asked


def _fitted(picture: Image.Image | np.ndarray, size: Size, channels: int) -> np.ndarray:
    """Resized, in float, with the right number of channels -> [channels, h, w]."""
    if isinstance(picture, np.ndarray):
        planes = [Image.fromarray(np.ascontiguousarray(picture[..., channel])) for channel in range(picture.shape[2])]
        if channels == 1:
            grey = picture @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
            planes = [Image.fromarray(grey)]
    else:
        planes = [picture.convert("L") if channels == 1 and picture.mode == "RGB" else picture]
    arrays: list[np.ndarray] = []
    for plane in planes:
        if size is not None and plane.size != sides(size)[::-1]:
            plane = plane.resize(sides(size)[::-1], Image.Resampling.BILINEAR)
        values = np.asarray(plane, dtype=np.float32) / np.float32(1 if plane.mode == "F" else 255)
        arrays.append(np.moveaxis(values, -1, 0) if values.ndim == 3 else values[None])
    result = np.concatenate(arrays)
    return np.array(np.broadcast_to(result, (channels, *result.shape[1:])))

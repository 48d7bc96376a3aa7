"""One image file -> float32 in 0..1, whatever its depth, mode or orientation."""

from __future__ import annotations

import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from ..errors import InputError

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".ppm", ".pgm", ".pbm", ".jp2")
# What Pillow's plug-ins raise on broken files.
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error, zlib.error)


class BadPicture(InputError):
    """A file with an image's name that is not a readable image."""


def read_picture(path: Path, size: int | None, channels: int) -> Tensor:
    """One image, upright, resized to `size` x `size` (None keeps its own size) -> float32 [channels, h, w] in 0..1.

    Transparent images are laid on white; colour becomes grey by Rec. 601; grey is repeated for 3 channels.

    Raises:
        BadPicture: broken, truncated, no image, or too large.
        InputError: a float or 32-bit image outside 0..1 (0..65535 for integers).
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            picture = _open(path)
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
    except _BROKEN as error:
        raise BadPicture(
            f"cannot read {path} as an image: {str(error) or type(error).__name__}",
            "replace or remove it, or leave out unreadable images with skip_bad=True (--skip-bad)",
        ) from error
    return torch.from_numpy(_fitted(picture, size, channels))


def check_picture(path: Path) -> None:
    """Decode and forget.

    Raises:
        BadPicture: it cannot be decoded.
    """
    read_picture(path, 8, 1)


def read_mask(path: Path) -> np.ndarray:
    """A defect mask in its own size -> bool [h, w]; a pixel above half of the mask's largest value is a defect."""
    mask = read_picture(path, None, 1)[0].numpy()
    return mask > mask.max() / 2


def _open(path: Path) -> Image.Image | np.ndarray:
    """A decoded, upright image in mode L, RGB, I or F; or float [h, w, 3] for what Pillow has no mode for."""
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
    """Deep colour TIFF, which Pillow does not know: [h, w, 3] of 16-bit or float samples."""
    try:
        import tifffile
    except ImportError as error:
        raise ValueError("this kind of TIFF needs tifffile: pip install 'tailwise[hyperspectral]'") from error
    try:
        samples = tifffile.imread(path)
    except Exception as error:
        # tifffile raises a kind of its own for what is no TIFF, and others for what is broken.
        raise ValueError(str(error)) from error
    scale = float(np.iinfo(samples.dtype).max) if np.issubdtype(samples.dtype, np.integer) else 1.0
    samples = _in_range(samples, scale)
    if samples.ndim == 2:
        return Image.fromarray(samples)
    if samples.ndim == 3 and samples.shape[2] in (3, 4):
        colour = samples[..., :3]
        return colour if samples.shape[2] == 3 else colour * samples[..., 3:] + 1 - samples[..., 3:]
    raise ValueError(f"a TIFF of shape {list(samples.shape)} is not an image; is it a cube?")


def _in_range(samples: np.ndarray, largest: float = 1.0) -> np.ndarray:
    low, high = float(samples.min()), float(samples.max())
    if not (low >= 0 and high <= largest):
        raise _OutOfRange(low, high)
    return samples.astype(np.float32) / np.float32(largest)


class _OutOfRange(Exception):
    def __init__(self, low: float, high: float) -> None:
        super().__init__(low, high)
        self.low, self.high = low, high


def _fitted(picture: Image.Image | np.ndarray, size: int | None, channels: int) -> np.ndarray:
    """Resized, in float, with the right number of channels -> [channels, h, w]."""
    if isinstance(picture, np.ndarray):
        planes = [Image.fromarray(np.ascontiguousarray(picture[..., channel])) for channel in range(3)]
        if channels == 1:
            grey = picture @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
            planes = [Image.fromarray(grey)]
    else:
        planes = [picture.convert("L") if channels == 1 and picture.mode == "RGB" else picture]
    arrays: list[np.ndarray] = []
    for plane in planes:
        if size is not None and plane.size != (size, size):
            plane = plane.resize((size, size), Image.Resampling.BILINEAR)
        samples = np.asarray(plane, dtype=np.float32) / np.float32(1 if plane.mode == "F" else 255)
        arrays.append(np.moveaxis(samples, -1, 0) if samples.ndim == 3 else samples[None])
    result = np.concatenate(arrays)
    return np.array(np.broadcast_to(result, (channels, *result.shape[1:])))

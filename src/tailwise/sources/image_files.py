"""One image file -> float32 in 0..1, whatever its depth, mode, orientation or number of bands."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..core.bounds import shown
from ..errors import InputError
from .image_decoding import Samples, bands_of, decode, is_array
from .paths import list_files

T = TypeVar("T")

JPEG = (".jpg", ".jpeg", ".jpe", ".jfif")
SUFFIXES = (".png", *JPEG, ".bmp", ".tif", ".tiff", ".webp", ".gif", ".ppm", ".pgm", ".pbm", ".jp2")
# Also read, but in a folder only where there are no others: such a file is more often something else.
ARRAYS = (".npy",)
Size = int | tuple[int, int] | None


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

    def read() -> np.ndarray:
        return _fitted(_open(path) if channels in (1, 3) else _open_bands(path, channels), size, channels)

    return torch.from_numpy(_decoded(path, read))


def read_within(path: Path, side: int | None, channels: int) -> Tensor:
    """As `read_picture`, in the image's own shape, the longer side at most `side` pixels; None keeps its own size."""

    def read() -> np.ndarray:
        picture = _open(path) if channels in (1, 3) else _open_bands(path, channels)
        height, width = picture.shape[:2] if isinstance(picture, np.ndarray) else picture.size[::-1]
        share = 1.0 if side is None else min(1.0, side / max(height, width))
        return _fitted(picture, (max(1, round(share * height)), max(1, round(share * width))), channels)

    return torch.from_numpy(_decoded(path, read))


def _decoded(path: Path, read: Callable[[], T]) -> T:
    """What `read` gives; whatever it raises names the file and says what to do."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            return read()
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
    except Exception as error:
        # What decoders raise on broken files is no closed list.
        raise BadPicture(
            f"cannot read {path} as an image: {str(error) or type(error).__name__}",
            "replace or remove it, or leave out unreadable images with skip_bad=True (--skip-bad)",
        ) from error


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
    spelled = re.fullmatch(r"(\d{1,9})(?:x(\d{1,9}))?", size) if isinstance(size, str) else None
    if spelled:
        size = (int(spelled[1]), int(spelled[2])) if spelled[2] else int(spelled[1])
    sides = size if isinstance(size, tuple) else (size,)
    if size is not None and not (len(sides) <= 2 and all(type(side) is int and 8 <= side <= 4_096 for side in sides)):
        raise InputError(
            f"size must be from 8 to 4096 pixels: got {shown(size)}", "give a side, or height and width as in 256x512"
        )
    return size


def sides(size: int | tuple[int, int]) -> tuple[int, int]:
    """Height and width."""
    return (size, size) if isinstance(size, int) else size


def read_mask(path: Path) -> np.ndarray:
    """A defect mask in its own size -> bool [h, w].

    Where the opacity varies it is the mask. Numbers of classes, of a palette too, and several colours: what is not 0,
    or black, is a defect. Other pictures, whose edges are soft or whose values a JPEG blurred: what is above half of
    the largest value.

    Raises:
        BadPicture: it cannot be read.
    """
    return _decoded(path, lambda: _mask_of(decode(path)))


def _mask_of(picture: Image.Image | Samples) -> np.ndarray:
    if isinstance(picture, Image.Image):
        lossy = picture.format in ("JPEG", "MPO", "WEBP", "JPEG2000")
        if picture.mode in ("P", "PA") and not _is_ramp(picture) and not picture.has_transparency_data:
            return _classes_of_palette(picture)
        opacity = picture.has_transparency_data
        if opacity:
            picture = picture.convert("RGBA")
        elif picture.mode not in ("1", "L", "RGB"):
            picture = picture.convert("L" if picture.mode in ("P", "PA") else "RGB")
        samples = Samples(np.asarray(picture), opacity=opacity)
    else:
        lossy, samples = False, picture
    values = samples.values
    if values.dtype == bool:
        values = values.astype(np.uint8)
    if samples.opacity:
        opaque = values[..., -1]
        if opaque.min() != opaque.max():
            return opaque > opaque.max() / 2
        values = values[..., :-1]
    level = values.max(2) if values.ndim == 3 else values
    if not lossy and _holds_classes(level):
        return level != 0
    return level > level.max() / 2


def _is_ramp(picture: Image.Image) -> bool:
    """Whether the palette is that of grey, entry by entry."""
    colours = np.array(picture.getpalette("RGB") or [], np.int64).reshape(-1, 3)
    used = int(np.asarray(picture.getchannel(0)).max()) + 1
    ramp = np.arange(len(colours))[:, None]
    return len(colours) >= max(used, 256) and bool((colours == ramp).all())


def _classes_of_palette(picture: Image.Image) -> np.ndarray:
    """What is no background: number 0, unless of two colours only another is black."""
    number = np.asarray(picture.getchannel(0))
    colours = np.array(picture.getpalette("RGB") or [], np.int64).reshape(-1, 3).sum(1)
    used = np.unique(number)
    if len(used) == 2 and used.max() < len(colours) and colours[used[0]] > colours[used[1]] == 0:
        return number != used[1]
    return number != 0


# Numbers of classes are at most so many, or so few, beside which what is soft has more.
_LARGEST_CLASS, _MOST_CLASSES = 32, 16


def _holds_classes(level: np.ndarray) -> bool:
    """Whether these values number classes rather than say how much of a pixel is defect.

    Small whole numbers do; so do two values, and a few whose pixels lie in patches: between black and white a soft edge
    is a line of one pixel.
    """
    if level.min() < 0 or not np.isfinite(level).all() or (level != np.floor(level)).any():
        return False
    values = np.unique(level)
    if values[-1] <= _LARGEST_CLASS and not (level.dtype.kind == "f" and values[-1] <= 1):
        return True
    if len(values) > _MOST_CLASSES or values[0] != 0:
        return False
    between = (level > 0) & (level < values[-1])
    if not between.any():
        return True
    corners = [level[:-1, :-1], level[1:, :-1], level[:-1, 1:], level[1:, 1:]]
    even = np.logical_and.reduce([corner == corners[0] for corner in corners])
    patched = np.zeros_like(between)
    for rows, columns in ((slice(None, -1), slice(None, -1)), (slice(1, None), slice(None, -1)),
                          (slice(None, -1), slice(1, None)), (slice(1, None), slice(1, None))):  # fmt: skip
        patched[rows, columns] |= even
    return bool((patched & between).sum() >= between.sum() / 2)


def _open(path: Path) -> Image.Image | np.ndarray:
    """A decoded, upright image in mode L, RGB or F; or float [h, w, 3] for what Pillow has no mode for."""
    picture = decode(path)
    return _plain(picture) if isinstance(picture, Image.Image) else _as_colour(picture)


def _plain(picture: Image.Image) -> Image.Image:
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        return Image.alpha_composite(white, picture).convert("RGB")
    if picture.mode in ("1", "L"):
        return picture.convert("L")
    return picture.convert("RGB")


def _as_colour(samples: Samples) -> Image.Image | np.ndarray:
    values = _scaled(samples)
    if samples.opacity:
        opacity = values[..., -1:]
        values = values[..., :-1] if samples.premultiplied else values[..., :-1] * opacity
        values = np.minimum(values + 1 - opacity, 1)
        values = values[..., 0] if values.shape[2] == 1 else values
    return Image.fromarray(values) if values.ndim == 2 else values


def _open_bands(path: Path, channels: int) -> np.ndarray:
    """Every band of an image as it is: float [h, w, channels]."""
    picture = bands_of(path)
    if isinstance(picture, Image.Image):
        picture = Samples(
            np.asarray(picture.convert("RGBA") if channels == 4 and picture.mode in _TO_RGBA else picture)
        )
    values = picture.values
    if values.ndim == 2:
        values = values[..., None]
    if values.ndim != 3:
        raise ValueError(f"an array of shape {list(values.shape)} is not an image")
    if values.shape[2] != channels and values.shape[0] == channels and is_array(path):
        values = np.moveaxis(values, 0, 2)
    if values.shape[2] in (1, 2, 3) and channels == 4 and picture.largest and path.suffix.lower() == ".png":
        colours = values[..., : values.shape[2] - picture.opacity]
        opacity = values[..., -1:] if picture.opacity else np.full_like(values[..., :1], picture.largest)
        values = np.concatenate([*[colours] * (3 // colours.shape[2]), opacity], 2)
    if values.shape[2] != channels:
        raise _OtherBands(min(values.shape[0], values.shape[2]), channels)
    return _scaled(replace(picture, values=values))


# Modes of 8-bit images that have colours or an opacity, or may be given them.
_TO_RGBA = ("1", "L", "LA", "P", "PA", "RGB")


def _scaled(samples: Samples) -> np.ndarray:
    """Samples of any depth in 0..1: whole numbers are divided by the largest that their type holds."""
    values, largest = samples.values, samples.largest
    if values.dtype == bool:
        return values.astype(np.float32)
    if largest is None:
        largest = float(np.iinfo(values.dtype).max) if values.dtype.kind in "ui" else 1.0
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

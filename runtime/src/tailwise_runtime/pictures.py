"""Picture files as the fit read them: decoded and resized by Pillow, byte for byte."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from . import ModelError

_JPEG = (".jpg", ".jpeg", ".jpe", ".jfif")
SUFFIXES = (".png", *_JPEG, ".bmp", ".tif", ".tiff", ".webp", ".gif", ".ppm", ".pgm", ".pbm", ".jp2")
# By what is in a file: Pillow would also take PostScript, for which it starts another program.
_FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "GIF", "PPM", "JPEG2000")
_MASK_FOLDERS = ("ground_truth", "mask", "masks", "gt")
_DEEP_MODES = ("I", "F")
_TIFF_BITS, _TIFF_PLANES = 258, 284


def find(folder: Path) -> list[str]:
    """Paths below the folder of its pictures, with forward slashes, in natural order.

    Hidden files and masks of defects are left out, and links that lead out of the folder.
    """
    root, names = os.path.realpath(folder), []
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".") and name.lower() not in _MASK_FOLDERS]
        for name in files:
            path = Path(place) / name
            shown = name.lower().endswith(SUFFIXES) and not name.startswith(".") and not path.stem.endswith("_mask")
            if shown and path.is_file() and os.path.commonpath((os.path.realpath(path), root)) == root:
                names.append(path.relative_to(folder).as_posix())
    return sorted(names, key=_natural)


def decode(path: Path, channels: int) -> Image.Image:
    """A picture file in its own size, upright: grey where there is one channel, else grey or colour of 8 bits.

    Transparent pictures are laid on white.

    Raises:
        ModelError: it is broken, too large, no picture, or holds more than 8 bits a channel.
    """
    if not path.is_file():
        raise ModelError(f"{path} is no regular file" if path.exists() else f"no file {path}", "check the path")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=_FORMATS) as file:
                deep = _is_deep(file, path)
                picture: Image.Image = ImageOps.exif_transpose(file)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ModelError(f"{path} has more than {Image.MAX_IMAGE_PIXELS:,} pixels", "scale it down first") from error
    except Exception as error:  # what decoders raise on broken files is no closed list
        reason = str(error) or type(error).__name__
        raise ModelError(f"cannot read {path} as a picture: {reason}", "replace or remove it") from error
    if deep:
        raise ModelError(
            f"{path} is not stored in 8 bits a channel, and the model takes pictures of 8 bits",
            "save it as a PNG or JPEG of 8 bits, or score it with tailwise score",
        )
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")
    picture = picture.convert("L" if picture.mode in ("1", "L") else "RGB")
    return picture.convert("L") if channels == 1 else picture


def fitted(picture: Image.Image, shape: Sequence[int]) -> np.ndarray:
    """A decoded picture as the model takes it: [height, width, channels] uint8, whatever its own shape is."""
    height, width, channels = shape
    if picture.size != (width, height):
        picture = picture.resize((width, height), Image.Resampling.BILINEAR)
    values = np.asarray(picture)
    return np.repeat(values[..., None], channels, axis=2) if values.ndim == 2 else values


def _is_deep(file: Image.Image, path: Path) -> bool:
    """Whether Pillow would lose bits of it, or hand over other numbers than 0 to 255."""
    if file.mode in _DEEP_MODES or file.mode.startswith("I;"):
        return True
    with path.open("rb") as opened:
        head = opened.read(100_000)
    if file.format == "PNG":
        return head[24] == 16
    if file.format == "TIFF":
        tags = file.tag_v2  # type: ignore[attr-defined]
        return max(tags.get(_TIFF_BITS, (1,))) > 8 or tags.get(_TIFF_PLANES, 1) == 2
    if file.format == "PPM":
        text = re.sub(rb"#[^\n]*\n", b"\n", head[:2_000])
        largest = re.match(rb"P[2356]\s+\d+\s+\d+\s+(\d+)", text) or re.search(rb"MAXVAL\s+(\d+)", text)
        return largest is not None and int(largest[1]) > 255
    size = head.find(b"\xff\x51") if file.format == "JPEG2000" else -1
    return size >= 0 and len(head) > size + 40 and (head[size + 40] & 127) + 1 > 8


def _natural(name: str) -> tuple[list[tuple[bool, int, str]], str]:
    """A sorting key in which 2 comes before 10."""
    parts = re.split(r"(\d+)", name)
    return [(not part.isdecimal(), int(part) if part.isdecimal() else 0, part.lower()) for part in parts], name

"""Image files -> their samples in whole depth, upright. Pillow alone cuts deep colour to 8 bits without a word.

What is in a file decides how it is read, not its suffix, among the formats named here: Pillow would also take
PostScript, for which it starts another program.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
import sys
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from PIL import Image, ImageOps
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from . import tiff_files
from .tiff_files import without_lines_of_libtiff

FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "GIF", "PPM", "JPEG2000")
# Raised with every change to how files become samples: what was kept of images before is then not taken for theirs.
_VERSION = 2
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_ORIENTATION = 0x0112
# A TIFF's tag for pages that are a smaller copy (1) or a mask (4) of another.
_SUBFILE, _NO_PAGE = 254, 5
# Photometric interpretations of a TIFF, and what its extra samples are.
_MIN_IS_WHITE, _MIN_IS_BLACK, _RGB = 0, 1, 2
_PREMULTIPLIED, _OPACITY = 1, 2


@dataclass(frozen=True)
class Samples:
    """A decoded image in whole depth.

    Attributes:
        values: [height, width] or [height, width, channels], as the file holds them.
        largest: the value of white; None where the file does not say and the values have to fit in what is usual.
        opacity: whether the last channel is the opacity.
        premultiplied: whether colours were multiplied by it.
    """

    values: np.ndarray
    largest: float | None = None
    opacity: bool = False
    premultiplied: bool = False


def described() -> str:
    """What samples depend on besides their file: the code that decodes it."""
    tifffile = importlib.metadata.version("tifffile") if importlib.util.find_spec("tifffile") else "none"
    return f"decoding {_VERSION}, Pillow {PIL.__version__}, tifffile {tifffile}"


def open_image(path: Path) -> Image.Image:
    """A file opened by Pillow, by its content, as one of the formats that are read."""
    return Image.open(path, formats=FORMATS)


def pages_of(file: Any, most: int = 10) -> int:
    """How many pages or frames an image that Pillow has opened has, counted up to `most`.

    Pages of a TIFF count if they are as large as the first; smaller ones are copies for looking at from afar. The
    second picture of a JPEG is a phone's own.
    """
    if file.format in ("GIF", "PNG", "WEBP"):
        return min(file.n_frames, most) if getattr(file, "is_animated", False) else 1
    if file.format != "TIFF":
        return 1
    size, count = file.size, 1
    for page in range(1, min(getattr(file, "n_frames", 1), most)):
        file.seek(page)
        count += file.size == size and not int(file.tag_v2.get(_SUBFILE, 0)) & _NO_PAGE
    file.seek(0)
    return count


def decode(path: Path) -> Image.Image | Samples:
    """An upright image: by Pillow where that loses nothing, else its samples.

    Raises:
        ValueError: reading it would lose part of its depth; or what Pillow and tifffile raise on broken files.
    """
    kind = _kind_of(path)
    if kind == "npy":
        return _of_array(read_npy(path))
    if kind == "tiff":
        return _decode_tiff(path)
    if kind == "png":
        deep = _deep_png(path)
        if deep is not None:
            return deep
    if kind == "pnm":
        _refuse_deep_pnm(path)
    if kind == "jp2":
        _refuse_deep_jp2(path)
    return _by_pillow(path)


def bands_of(path: Path) -> Image.Image | Samples:
    """As `decode`, with every band of a TIFF or array, last: those of planes and pages too."""
    if is_array(path):
        return Samples(read_npy(path))
    if _kind_of(path) != "tiff":
        return decode(path)
    tags = _tags(path)
    try:
        return _scaled_as(_tiff_bands(path), tags)
    except Exception:
        if max(tags.bits) > 8:
            raise
        # Codecs that tifffile lacks.
        return _by_pillow(path)


def is_array(path: Path) -> bool:
    """Whether the file holds a bare array, which does not say which axis is that of its bands."""
    return _kind_of(path) == "npy"


def read_npy(path: Path) -> np.ndarray:
    """An array file of numbers."""
    # Mapped first: a header that claims more than the file holds must not ask for memory.
    values: np.ndarray = np.array(np.load(path, mmap_mode="r", allow_pickle=False))
    if values.dtype.kind not in "buif" or not values.size:
        raise ValueError(f"an array of {values.dtype} with shape {list(values.shape)} is not an image")
    return values


def _kind_of(path: Path) -> str:
    if not path.is_file():
        raise ValueError("it is no regular file" if path.exists() else "there is no such file")
    with path.open("rb") as file:
        head = file.read(12)
    for kind, starts in _STARTS.items():
        if head.startswith(starts):
            return kind
    if head[4:8] == b"jP  " or head.startswith(b"\xff\x4f\xff\x51"):
        return "jp2"
    return "other"


_STARTS: dict[str, tuple[bytes, ...]] = {
    "npy": (b"\x93NUMPY",),
    "tiff": _TIFF,
    "png": (b"\x89PNG\r\n\x1a\n",),
    "pnm": (b"P6", b"P3", b"P7"),
}


def _by_pillow(path: Path) -> Image.Image | Samples:
    with open_image(path) as file:
        with without_lines_of_libtiff() if file.format == "TIFF" else nullcontext():
            file.load()
        picture: Image.Image = ImageOps.exif_transpose(file)
        picture.format = file.format
    if picture.mode.startswith("I;16"):
        return Samples(np.asarray(picture).astype(np.uint16))
    if picture.mode in ("I", "F"):
        return Samples(np.asarray(picture), 65_535.0 if picture.mode == "I" else 1.0)
    return picture


def _of_array(values: np.ndarray) -> Samples:
    if values.ndim == 3 and values.shape[2] == 1:
        values = values[..., 0]
    if values.ndim != 2 and not (values.ndim == 3 and values.shape[2] in (3, 4)):
        raise ValueError(
            f"an array of shape {list(values.shape)} is no grey or colour image; choose channels to take its bands"
        )
    return Samples(values, opacity=values.ndim == 3 and values.shape[2] == 4)


def _deep_png(path: Path) -> Samples | None:
    """A PNG of 16 bits. Pillow keeps its high bytes; asked for the other byte order, it keeps the low ones."""
    with path.open("rb") as file:
        head = file.read(26)
    if len(head) < 26 or head[24] != 16:
        return None
    kind = head[25]
    if kind == 4:
        # Grey and opacity have as many bytes as 8-bit colour and opacity.
        values = _as_decoded(path, "RGBA", "RGBA").view(">u2").astype(np.uint16)
    elif kind in (2, 6):
        values = np.uint16(256) * _as_decoded(path) + _as_decoded(path, swapped=True)
    elif kind == 0:
        with open_image(path) as file:
            values = np.asarray(file).astype(np.uint16)
    else:
        raise ValueError(f"a PNG has no colours of kind {kind} in 16 bits")
    with open_image(path) as file:
        transparent, orientation = file.info.get("transparency"), file.getexif().get(_ORIENTATION, 1)
    opacity = kind in (4, 6)
    if transparent is not None and not opacity:
        values = values.reshape(*values.shape[:2], -1)
        clear = (values == np.array(transparent, dtype=np.int64)).all(2)
        values = np.dstack([values, np.where(clear, 0, 65_535).astype(np.uint16)])
        opacity = True
    return Samples(_upright(values, orientation), 65_535.0, opacity)


def _as_decoded(path: Path, mode: str = "", raw: str = "", swapped: bool = False) -> np.ndarray:
    """Bytes [h, w, channels] as Pillow decodes them, where they are to be taken for another kind of pixels."""
    with open_image(path) as opened:
        file: Any = opened
        codec, extents, offset, form, *_ = file.tile[0]
        layout, *more = form if isinstance(form, tuple) else (form,)
        if swapped:
            order = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}[layout[-1]]
            layout = layout[:-1] + order
        if mode:
            file._mode = mode
        form = (raw or layout, *more) if isinstance(form, tuple) else raw or layout
        tile = file.tile[0]
        file.tile = [tile._replace(args=form) if hasattr(tile, "_replace") else (codec, extents, offset, form)]
        return np.array(file)


def _refuse_deep_pnm(path: Path) -> None:
    with path.open("rb") as file:
        head = re.sub(rb"#[^\n]*\n", b"\n", file.read(2_000))
    words = head.split(None, 4)
    named = re.search(rb"MAXVAL\s+(\d+)", head)
    largest = named[1] if named else words[3] if len(words) > 3 else b"0"
    if largest.isdigit() and int(largest) > 255:
        raise ValueError(f"its colours of {int(largest).bit_length()} bits would be cut to 8: save it as PNG or TIFF")


def _refuse_deep_jp2(path: Path) -> None:
    with path.open("rb") as file:
        head = file.read(100_000)
    size = head.find(b"\xff\x51")
    if size < 0 or len(head) < size + 41:
        return
    channels, bits = int.from_bytes(head[size + 38 : size + 40], "big"), (head[size + 40] & 127) + 1
    if channels > 1 and bits > 8:
        raise ValueError(f"its colours of {bits} bits would be cut to 8: save it as PNG or TIFF")


@dataclass(frozen=True)
class _Tags:
    """What a TIFF's first page says of its samples."""

    bits: tuple[int, ...]
    kinds: tuple[int, ...]  # 1 whole, 2 signed, 3 float
    channels: int
    colours: int
    apart: bool
    extra: tuple[int, ...]
    orientation: int


def _tags(path: Path) -> _Tags:
    with path.open("rb") as file:
        head = file.read(8)
        if head[2:3] in b"\x2b" or head[3:4] == b"\x2b":
            head += file.read(8)
        tags = ImageFileDirectory_v2(head)
        file.seek(tags.next)
        tags.load(file)
    channels = int(tags.get(277, 1))
    return _Tags(
        bits=tuple(map(int, tags.get(258, (1,)))), kinds=tuple(map(int, tags.get(339, (1,)))), channels=channels,
        colours=int(tags.get(262, _MIN_IS_BLACK)), apart=tags.get(284, 1) == 2 and channels > 1,
        extra=tuple(map(int, tags.get(338, ()))), orientation=int(tags.get(_ORIENTATION, 1)),
    )  # fmt: skip


def _decode_tiff(path: Path) -> Image.Image | Samples:
    tags = _tags(path)
    plain = tags.colours in (_MIN_IS_BLACK, _RGB) and set(tags.bits) == {8}
    if max(tags.bits) <= 8 and set(tags.kinds) <= {1, 4} and not (tags.apart and plain):
        return _by_pillow(path)
    if len(set(tags.bits)) > 1 or len(set(tags.kinds)) > 1:
        raise ValueError(f"its channels have {tags.bits} bits: they must all have as many")
    if tags.colours not in (_MIN_IS_WHITE, _MIN_IS_BLACK, _RGB):
        raise ValueError(
            f"its colours (photometric interpretation {tags.colours}) of {tags.bits[0]} bits are not read: save it in "
            "RGB or grey"
        )
    colours = 3 if tags.colours == _RGB else 1
    opacity = len(tags.extra) == 1 and tags.extra[0] in (_PREMULTIPLIED, _OPACITY)
    if tags.channels == 1 and colours == 1:
        return _grey_tiff(path, tags)
    if tags.channels not in (colours, colours + opacity):
        raise ValueError(
            f"it has {tags.channels} bands, of which {colours} are colours; choose channels={tags.channels} to take all"
        )
    try:
        values = _tiff_page(path, tags)
    except Exception:
        if set(tags.bits) != {8}:
            raise
        return _by_pillow(path)
    if values.ndim != 3 or values.shape[2] != tags.channels:
        raise ValueError(f"its first page is of shape {list(values.shape)}: {tags.channels} channels were announced")
    largest = _largest(values, tags)
    if tags.colours == _MIN_IS_WHITE:
        values = np.concatenate([_inverted(values[..., :1], largest), values[..., 1:]], 2)
    return Samples(values, largest, opacity, opacity and tags.extra[0] == _PREMULTIPLIED)


def _grey_tiff(path: Path, tags: _Tags) -> Samples:
    try:
        values = _upright(_by_tifffile(path, tags), tags.orientation)
    except Exception:
        if tags.bits[0] == 64:
            raise  # Pillow takes some for the other byte order
        samples = _by_pillow(path)
        if not isinstance(samples, Samples):
            raise
        values = samples.values
    largest = _largest(values, tags)
    if values.dtype.kind in "ui" and values.dtype != np.uint16:
        largest = 65_535.0
    return Samples(_inverted(values, largest) if tags.colours == _MIN_IS_WHITE else values, largest)


def _inverted(values: np.ndarray, largest: float) -> np.ndarray:
    inverted: np.ndarray = values.dtype.type(largest) - values
    return inverted


def _largest(values: np.ndarray, tags: _Tags) -> float:
    if values.dtype.kind == "f":
        return 1.0
    return float(2 ** tags.bits[0] - 1) if values.dtype.kind == "u" else float(np.iinfo(values.dtype).max)


def _scaled_as(values: np.ndarray, tags: _Tags) -> Samples:
    if values.dtype.kind != "u":
        return Samples(values)
    largest = _largest(values, tags)
    return Samples(_inverted(values, largest) if tags.colours == _MIN_IS_WHITE else values, largest)


def _tiff_page(path: Path, tags: _Tags) -> np.ndarray:
    """The first page, upright, channels last."""
    try:
        values = _by_tifffile(path, tags)
    except Exception:
        # Codecs that tifffile lacks, or no tifffile: Pillow's two halves of 16 bits.
        if tags.apart or set(tags.bits) != {16} or set(tags.kinds) != {1} or tags.colours != _RGB:
            raise
        halves = _as_decoded(path), _as_decoded(path, swapped=True)
        values = np.uint16(256) * halves[0] + halves[1]
    return _upright(values, tags.orientation)


def _by_tifffile(path: Path, tags: _Tags, pages: bool = False) -> np.ndarray:
    if importlib.util.find_spec("tifffile") is None:
        raise ValueError("this kind of TIFF needs tifffile: pip install 'tailwise[hyperspectral]'")
    with tiff_files.opened(path) as file:
        first: Any = file.pages[0]
        _refuse_bomb(first.imagewidth * first.imagelength)
        values: np.ndarray = first.asarray()
        if values.ndim == 3 and tags.apart:
            values = np.moveaxis(values, 0, 2)
        elif pages and values.ndim == 2 and len(file.pages) > 1:
            values = np.moveaxis(np.stack([page.asarray() for page in file.pages]), 0, 2)  # type: ignore[union-attr]
    return values


def _tiff_bands(path: Path) -> np.ndarray:
    tags = _tags(path)
    return _upright(_by_tifffile(path, tags, pages=True), tags.orientation)


def _refuse_bomb(pixels: int) -> None:
    if Image.MAX_IMAGE_PIXELS is not None and pixels > Image.MAX_IMAGE_PIXELS:
        raise Image.DecompressionBombError(f"{pixels} pixels")


def _upright(values: np.ndarray, orientation: int) -> np.ndarray:
    """[h, w, ...] turned as EXIF and TIFF ask."""
    if orientation in (5, 6, 7, 8):
        values = np.swapaxes(values, 0, 1)
    if orientation in (3, 4, 7, 8):
        values = values[::-1]
    if orientation in (2, 3, 6, 7):
        values = values[:, ::-1]
    return values

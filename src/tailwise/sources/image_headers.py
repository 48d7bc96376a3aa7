"""What the headers of images say before any is read: shapes that resizing squeezes, and depth maps beside photos."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import printable
from .image_decoding import open_image, pages_of
from .image_files import sides

# Above this ratio of sides what is thin across the longer one is lost.
_SQUEEZED = 1.5
# Below this share they are a few odd ones among others.
_FEWEST_SHARE = 0.1
# An image whose sides are so many times those of the others, or a part of them, is odd too.
_OTHER_SIZE = 2.0
# Pixels of an image that is read as it is. LOG.md says what photos of 12 million need.
LARGEST = 1024 * 768
# A defect has to be so many pixels wide in what is read (LOG.md), and so much smaller images are told.
SEEN, _SHRUNK = 5, 1.25
_DEEP, _COLOUR = ("I;16", "I;16B", "I;16L", "I", "F"), ("RGB", "RGBA", "P", "CMYK", "YCbCr")
_ORIENTATION, _ON_ITS_SIDE = 274, (5, 6, 7, 8)


@dataclass(frozen=True)
class Header:
    """What the header of an image says.

    Attributes:
        size: height and width of the upright image.
        mode: Pillow's.
        pages: how many pages or frames there are, counted to ten.
        orientation: how a camera turned it, by the numbers of EXIF; 1 is upright as stored.
    """

    size: tuple[int, int]
    mode: str
    pages: int = 1
    orientation: int = 1

    @property
    def on_its_side(self) -> bool:
        """Whether its stored sides are exchanged to show it upright."""
        return self.orientation in _ON_ITS_SIDE


def headers(root: Path, names: Sequence[str]) -> dict[str, Header]:
    """The header of each image that Pillow knows; reading the others says what is wrong with them."""
    found = {}
    for name in names:
        try:
            with open_image(root / name) as picture:
                width, height = picture.size
                orientation = picture.getexif().get(_ORIENTATION, 1)
                size = (width, height) if orientation in _ON_ITS_SIDE else (height, width)
                found[name] = Header(size, picture.mode, pages_of(picture), orientation)
        except Exception:
            continue
    return found


def depth_maps(known: dict[str, Header], root: Path) -> str:
    """A sentence that names images with one channel of more than 8 bits where others have 8; "" where all are alike."""
    maps = [name for name, header in known.items() if header.mode in _DEEP]
    if not maps or not any(header.mode in (*_COLOUR, "L") for header in known.values()):
        return ""
    shown = ", ".join(map(printable, maps[:3])) + (" and others" if len(maps) > 3 else "")
    return (
        f"{len(maps)} of {len(known)} images in {root} hold one channel of more than 8 bits, as depth or height maps "
        f"do, beside photos: {shown}"
    )


def of_pages(known: dict[str, Header]) -> str:
    """A sentence where images have several pages or frames, of which the first is read; or ""."""
    several = [name for name, header in known.items() if header.pages > 1]
    shown = ", ".join(map(printable, several[:3])) + (" and others" if len(several) > 3 else "")
    return (
        f"{len(several)} of {len(known)} images have several pages or frames, and only the first is read: {shown}. "
        "If the others matter, save each as a file"
        if several
        else ""
    )


def has_colour(known: dict[str, Header]) -> bool:
    """Whether some are in colour."""
    return any(header.mode in _COLOUR for header in known.values())


def squeezed(known: dict[str, Header], size: int | tuple[int, int], multiple: int) -> str:
    """A sentence where images are resized to clearly other proportions, with a size that keeps theirs; or "".

    Args:
        size: what they are resized to.
        multiple: of what the sides of the size that is named are.
    """
    height, width = sides(size)
    odd = Counter(header.size for header in known.values() if _ratio(header.size, (height, width)) > _SQUEEZED)
    count = sum(odd.values())
    if not known or count < _FEWEST_SHARE * len(known):
        return ""
    (high, wide), _ = odd.most_common(1)[0]
    fitting = fitted((high, wide), size, multiple)
    return (
        f"{count} of {len(known)} images, such as of {wide} x {high} pixels, are squeezed to {width} x {height}: what "
        f"is thin may be lost; --size {fitting[0]}x{fitting[1]} (height x width) keeps their shape"
    )


def odd_ones(known: dict[str, Header], usual: tuple[int, int] | None = None) -> str:
    """A sentence that names a few images of another shape or size than most; or "".

    With `usual`, the height and width that a run reads: a few of another shape, or nearly all; where shapes are mixed,
    those that trained may have been too.
    """
    shape = usual or median_shape(known)
    if shape is None:
        return ""
    odd = {
        name: header.size
        for name, header in known.items()
        if _ratio(header.size, shape) > _SQUEEZED or (usual is None and _times(header.size, shape) > _OTHER_SIZE)
    }
    few, nearly_all = len(odd) < _FEWEST_SHARE * len(known), len(odd) > (1 - _FEWEST_SHARE) * len(known)
    if not odd or not (few or (nearly_all and usual is not None)):
        return ""
    listed = ", ".join(f"{printable(name)} ({wide} x {high})" for name, (high, wide) in list(odd.items())[:3])
    more = f" and {len(odd) - 3} more" if len(odd) > 3 else ""
    what = "the others are about" if usual is None else "the run reads"
    return (
        f"{len(odd)} of {len(known)} images are of another shape or size: {listed}{more}; {what} {shape[1]} x "
        f"{shape[0]} pixels. All are resized to one size, so what these show looks stretched, finer or coarser there, "
        "and scores high for that: cut or photograph them as the others"
    )


def shape_of_maps(known: dict[str, Header], side: int, multiple: int) -> tuple[int, int] | None:
    """Height and width at which images are read as maps, in the shape that most have; None where that is a square of
    `side`, or none are known.

    As they are, up to `LARGEST` pixels; smaller ones are enlarged to as many as a square of `side` has.
    """
    shape = median_shape(known)
    if shape is None:
        return None
    pixels = min(max(shape[0] * shape[1], side**2), LARGEST)
    found = fitted(shape, math.isqrt(pixels), multiple)
    return None if found == (side, side) else found


def median_shape(known: dict[str, Header]) -> tuple[int, int] | None:
    """Height and width of the image of the median shape, which a few odd ones do not choose; None of no images."""
    shapes = sorted((header.size for header in known.values()), key=lambda shape: shape[0] / shape[1])
    return shapes[len(shapes) // 2] if shapes else None


def shrunk(known: dict[str, Header], size: tuple[int, int], multiple: int) -> Shrunk | None:
    """How much smaller than they are most images are read; None where no detail is lost."""
    shape = median_shape(known)
    if shape is None:
        return None
    factor = math.sqrt(shape[0] * shape[1] / (size[0] * size[1]))
    whole = fitted(shape, math.isqrt(shape[0] * shape[1]), multiple)
    return Shrunk(shape, size, factor, whole) if factor > _SHRUNK else None


@dataclass(frozen=True)
class Shrunk:
    """Images of one shape that are read smaller.

    Attributes:
        shape: height and width of the median image.
        size: of what is read.
        factor: how many times smaller each side is.
        whole: the size at which nothing is lost, or the largest that can be read.
    """

    shape: tuple[int, int]
    size: tuple[int, int]
    factor: float
    whole: tuple[int, int]

    @property
    def smallest(self) -> int:
        """Sides in pixels of the smallest defects that are seen."""
        return math.ceil(SEEN * self.factor)

    def sentence(self) -> str:
        """What is lost, and what loses less: twice the sides, where the image has them."""
        double = min(2 * self.size[0], self.whole[0]), min(2 * self.size[1], self.whole[1])
        finer = SEEN * math.sqrt(self.shape[0] * self.shape[1] / (double[0] * double[1]))
        return (
            f"images such as of {self.shape[1]} x {self.shape[0]} pixels are read at {self.size[1]} x {self.size[0]}, "
            f"{self.factor:.1f} times smaller: a defect of less than {self.smallest} pixels of yours is hardly seen; "
            f"--size {double[0]}x{double[1]} (height x width) shows those of {max(SEEN, math.ceil(finer))}, and takes "
            f"{double[0] * double[1] / (self.size[0] * self.size[1]):.0f} times as long"
        )


def fitted(shape: tuple[int, int], size: int | tuple[int, int], multiple: int) -> tuple[int, int]:
    """Height and width of about as many pixels as `size`, in these proportions, each a multiple of `multiple`."""
    height, width = sides(size)
    longer = math.sqrt(height * width * shape[0] / shape[1])
    high, wide = (min(max(multiple * round(side / multiple), 8), 4_096) for side in (longer, height * width / longer))
    return high, wide


def _times(one: tuple[int, int], other: tuple[int, int]) -> float:
    """How many times as long the sides of one are as those of the other, or the other way round: at least 1."""
    times = math.sqrt(one[0] * one[1] / (other[0] * other[1]))
    return max(times, 1 / times)


def _ratio(one: tuple[int, int], other: tuple[int, int]) -> float:
    """How much more one is stretched than the other, at least 1."""
    ratio = one[0] * other[1] / (one[1] * other[0])
    return max(ratio, 1 / ratio)

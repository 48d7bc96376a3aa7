"""Defect masks of images: read when they are asked for, and doubted where they cannot mean what they show."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from ..errors import InputError, printable
from . import image_files
from .image_headers import Header, headers

# So many masks say what all are like.
_LOOKED_AT = 50
# What makes a mask that is drawn on the stored pixels upright, by the orientations of EXIF that exchange sides.
_UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    5: np.transpose,
    6: lambda mask: np.rot90(mask, -1),
    7: lambda mask: np.rot90(mask, 2).T,
    8: np.rot90,
}
# A mask is of its image's shape to this share of a side, or to a pixel of its own.
_SHARE = 0.01


class Masks(Sequence[np.ndarray | None]):
    """Defect masks, each read in its own size when it is asked for; None where there is none.

    Args:
        root: the folder of the data.
        files: the mask files of each image that has some; of several, a pixel of any is a defect.
        names: the images, in order.
    """

    def __init__(self, root: Path, files: Mapping[str, Sequence[str]], names: Sequence[str] = ()) -> None:
        self.root, self.files, self.names = root, files, names

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, place):  # type: ignore[no-untyped-def]
        if isinstance(place, slice):
            return [self[i] for i in range(*place.indices(len(self)))]
        name = self.names[place]
        return self.of(name) if self.files.get(name) else None

    def of(self, name: str) -> np.ndarray:
        """The defects [height, width] of an image that has masks, upright as the image is.

        Raises:
            InputError: its masks are of several sizes.
        """
        paths = [self.root / file for file in self.files[name]]
        masks = [image_files.read_mask(path) for path in paths]
        for path, mask in zip(paths, masks, strict=True):
            if mask.shape != masks[0].shape:
                raise InputError(
                    f"the masks of {name} are of several sizes: {path} is {list(mask.shape)}, {paths[0]} "
                    f"{list(masks[0].shape)}",
                    "save all masks of an image in its size",
                )
        mask = np.logical_or.reduce(masks)
        image = headers(self.root, [name]).get(name)
        return _UPRIGHT[image.orientation](mask) if image and _as_stored(mask.shape, image) else mask


def of_other_shape(root: Path, files: Mapping[str, Sequence[str]]) -> str:
    """A sentence that names masks of another shape than their image, with both sizes; or ""."""
    images = headers(root, list(files))
    masks = headers(root, [files[name][0] for name in images])
    pairs = {file: (masks[file], image) for name, image in images.items() if (file := files[name][0]) in masks}
    odd = {
        file: (mask.size, image.size)
        for file, (mask, image) in pairs.items()
        if not (_alike(mask.size, image.size) or _as_stored(mask.size, image))
    }
    if not odd:
        return ""
    shown = ", ".join(
        f"{printable(file)} ({mask[1]} x {mask[0]}, of an image of {image[1]} x {image[0]})"
        for file, (mask, image) in list(odd.items())[:3]
    )
    return (
        f"{len(odd)} of {len(files)} masks are of another shape than their image, and are stretched over it: {shown}"
        f"{' and others' if len(odd) > 3 else ''}. Figures by pixels are wrong where they do not fit: save masks in "
        "the size of their image"
    )


def _as_stored(shape: tuple[int, ...], image: Header) -> bool:
    """Whether a mask has the sides of an image that a camera turned, as they were before."""
    return image.on_its_side and not _alike(shape, image.size) and _alike(shape, image.size[::-1])


def _alike(one: tuple[int, ...], other: tuple[int, ...]) -> bool:
    """Whether the first fits over the second without being stretched."""
    stretched = (one[0] * other[1]) / (one[1] * other[0])
    return abs(stretched - 1) <= max(_SHARE, 1 / min(one))


def inverted(root: Path, files: Mapping[str, Sequence[str]]) -> str:
    """A sentence where more than half of the masks mark most of their image and of its border, as masks do whose
    defects are black on white; or ""."""
    names = list(files)[:: max(1, len(files) // _LOOKED_AT)]
    masks = Masks(root, files)
    count = sum(_marks_most(masks, name) for name in names)
    if 2 * count <= len(names):
        return ""
    return (
        f"{count} of {len(names)} masks mark most of their image and its border: are they inverted? What is not black "
        "is a defect; if that is the background, save them with black and white exchanged"
    )


def _marks_most(masks: Masks, name: str) -> bool:
    try:
        mask = masks.of(name)
    except InputError:  # evaluation says what is wrong
        return False
    border = np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]])
    return bool(mask.mean() > 0.5 and border.mean() > 0.5)

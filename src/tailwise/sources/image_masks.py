"""Defect masks of images: read when they are asked for, and doubted where they cannot mean what they show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ..errors import InputError
from . import image_files

# So many masks say what all are like.
_LOOKED_AT = 50


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
        """The defects [height, width] of an image that has masks.

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
        return np.logical_or.reduce(masks)


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

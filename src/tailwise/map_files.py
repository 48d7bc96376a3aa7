"""Score maps as files: the scores, an overlay for people, and the mask of what is flagged, one set a unit."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from PIL import Image

from . import overlays
from .errors import InputError
from .files import cannot_write, write
from .maps import Scale
from .problem import Data
from .sources import find_path
from .sources.pictures import for_people

MAP, OVERLAY, MASK = ".map.tiff", ".overlay.png", ".mask.png"


def check_folder(folder: Path, source: Any) -> None:
    """Raise an InputError where maps would land among the data, and be taken for some of it the next time."""
    path = getattr(source, "path", None)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file: a folder was needed for the maps")
    if path is None:
        return
    root = find_path(path)
    root = (root if root.is_dir() else root.parent).resolve()
    if folder.resolve().is_relative_to(root):
        raise InputError(f"{folder} lies in the data, {root}", "choose a folder outside of it for --maps")


def write_maps(
    folder: Path, data: Data, scores: Iterable[np.ndarray], scale: Scale, picture: Callable[[int], np.ndarray]
) -> None:
    """Write `<unit>.map.tiff` (float scores), `.overlay.png` and `.mask.png` (255 where flagged) in the picture's size.

    Args:
        folder: made if it is missing, with the folders in the units' names; each file is whole or absent.
        data: the units, for their names.
        scores: their maps.
        scale: the threshold, and the colours.
        picture: the picture [h, w, 3] (0 to 255) of the unit at a place.
    """
    for place, (name, found) in enumerate(zip(data.names, scores, strict=True)):
        background = picture(place)
        found = overlays.fitted(found, background.shape[:2])
        base = folder / _inside(name)
        try:
            base.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise cannot_write(base.parent, error) from error
        drawn = overlays.with_bar(overlays.overlay(background, found, scale), scale)
        flagged = Image.fromarray((found > scale.threshold).astype(np.uint8) * 255)
        for image, ending in ((Image.fromarray(found), MAP), (drawn, OVERLAY), (flagged, MASK)):
            write(base.with_name(base.name + ending), _encoded(image, ending))


def pictures_of(source: Any, data: Data) -> Callable[[int], np.ndarray]:
    """A function from a unit's place to its picture [h, w, 3] (0 to 255): the source's own, or else the unit itself."""

    def picture(place: int) -> np.ndarray:
        if hasattr(source, "picture"):
            shown = source.picture(data.names[place])
        else:
            shown = for_people(data.read(torch.tensor([place]))[0])
        return (shown.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()

    return picture


def _inside(name: str) -> PurePosixPath:
    """A unit's name as a path that stays in its folder."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.name:
        raise InputError(f"the unit {name!r} cannot name a file", "rename it")
    return path


def _encoded(image: Image.Image, ending: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "TIFF" if ending == MAP else "PNG")
    return buffer.getvalue()

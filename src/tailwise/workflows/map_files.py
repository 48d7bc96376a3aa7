"""Score maps as files: the scores, an overlay for people, and the mask of what is flagged, one set a sample."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from ..calibration.score_maps import Scale
from ..core.data import Data
from ..core.problem import OnDisk, Source
from ..errors import InputError
from ..numerics.surfaces import Surface
from ..report import heat_maps
from ..report.pictures import Backdrop
from ..runs.file_names import path_inside
from ..runs.files import cannot_write, write_new
from ..runs.result_folder import made_whole
from ..sources.cloud_files import write_ply
from ..sources.paths import find_path

ENDINGS = MAP, OVERLAY, MASK = ".map.tiff", ".overlay.png", ".mask.png"
# Of what has a surface too: its points, each with its score.
POINTS = ".map.ply"


def check_folder(folder: Path, source: Source) -> None:
    """Raise an InputError where maps would land among the data, and be taken for some of it the next time."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file: a folder was needed for the maps")
    if not isinstance(source, OnDisk):
        return
    root = find_path(source.path)
    root = (root if root.is_dir() else root.parent).resolve()
    if folder.resolve().is_relative_to(root):
        raise InputError(f"{folder} lies in the data, {root}", "choose a folder outside of it for --maps")


def check_names(folder: Path, names: Sequence[str]) -> list[PurePosixPath]:
    """Where the maps of each sample lie in the folder, without their endings.

    Raises:
        InputError: a name cannot be a file's, or a file is there under a map's name that is not one of a set of maps.
    """
    places = [path_inside(str(name)) for name in names]
    for place in places:
        files = [folder / f"{place}{ending}" for ending in ENDINGS]
        present = [file for file in files if os.path.lexists(file)]
        if 0 < len(present) < len(files):
            raise InputError(f"{present[0]} is there already, and is no map of tailwise's", "choose another --maps")
    return places


def write_maps(
    folder: Path, data: Data, scores: Iterable[np.ndarray], scale: Scale, backdrop: Callable[[int, None], Backdrop]
) -> None:
    """Write `<sample>.map.tiff` (float scores), `.overlay.png` and `.mask.png` (255 where flagged) in the picture's
    size; of scans and clouds also `.map.ply`, every measured point with its score.

    Args:
        folder: made if it is missing, with the folders in the samples' names. All maps appear in it at once, when the
            last one is written; until then it is as it was. Maps of these samples are replaced, other files stay.
        data: the samples, for their names.
        scores: their maps.
        scale: the threshold, and the colours.
        backdrop: what the map of the sample at a place is drawn over, in its own size.
    """
    places = check_names(folder, data.names)
    with made_whole(folder) as unfinished:
        for index, (place, found) in enumerate(zip(places, scores, strict=True)):
            base = unfinished / place
            try:
                base.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise cannot_write(folder / place, error) from error
            for ending, content in contents(found, scale, backdrop(index, None)).items():
                write_new(base.with_name(base.name + ending), content)


def contents(scores: np.ndarray, scale: Scale, over: Backdrop) -> dict[str, bytes]:
    """The files of one map [h, w], by their endings."""
    points = {} if over.surface is None else {POINTS: _points(over.surface, scores)}
    found = over.laid(scores)
    drawn = heat_maps.with_bar(heat_maps.overlay(over.picture, found, scale), scale)
    flagged = Image.fromarray((found > scale.threshold).astype(np.uint8) * 255)
    images = {MAP: Image.fromarray(found), OVERLAY: drawn, MASK: flagged}
    return points | {ending: _encoded(image, ending) for ending, image in images.items()}


def _points(surface: Surface, scores: np.ndarray) -> bytes:
    """A PLY file of the measured points with their scores."""
    kept = np.isfinite(surface.points).all(1)
    return write_ply(surface.points[kept], heat_maps.fitted(scores, surface.grid).reshape(-1)[kept])


def _encoded(image: Image.Image, ending: str) -> bytes:
    buffer = io.BytesIO()
    if ending == MAP:
        image.save(buffer, "TIFF")
    else:
        # Level 6, the default, packs a drawing a little tighter and costs more than scoring its image.
        image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()

"""Scores of the pictures in a folder, a batch at a time, with the map, overlay and mask of each."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from . import Model, ModelError, overlays, pictures
from .files import gathered, replace


def score(model: Model, place: Path, maps: Path | None = None) -> tuple[list[str], np.ndarray]:
    """Names and scores [n] of a picture, or of all below a folder.

    Args:
        model: it takes pictures.
        place: a folder or a file.
        maps: a folder for `<name>.map.tiff` (float scores), `.overlay.png` and `.mask.png` (255 where flagged), in each
            picture's own size; None writes none. All maps appear in it when the last one is made, or none does.

    Raises:
        ModelError: there is no picture, one cannot be read, or maps would land among the pictures.
    """
    root, names = _listed(place)
    if maps is None:
        return names, _scores(model, root, names)
    _check_maps(model, root if place.is_dir() else None, maps)
    with gathered(maps.resolve()) as unfinished:
        return names, _scores(model, root, names, unfinished)


def _scores(model: Model, root: Path, names: list[str], maps: Path | None = None) -> np.ndarray:
    """The scores [n] of pictures below a folder; their maps go to another, which is there."""
    scores = np.zeros(len(names), np.float32)
    for part in model.batches(len(names)):
        decoded = [pictures.decode(root / name, model.sample_shape[2]) for name in names[part]]
        samples = np.stack([pictures.fitted(picture, model.sample_shape) for picture in decoded])
        if maps is None:
            scores[part] = model.score(samples)
            continue
        scores[part], found = model.scores_and_maps(samples)
        for name, picture, each in zip(names[part], decoded, found, strict=True):
            _write_maps(maps / name, model, picture, each)
    return scores


def _listed(place: Path) -> tuple[Path, list[str]]:
    if not place.is_dir():
        return place.parent, [place.name]
    names = pictures.find(place)
    if not names:
        raise ModelError(f"{place} holds no pictures", f"readable are {', '.join(pictures.SUFFIXES)}")
    return place, names


def _check_maps(model: Model, root: Path | None, maps: Path) -> None:
    if not model.has_maps or model.map_threshold is None or model.map_usual is None:
        raise ModelError(f"{model.facts['detector']} was exported without maps", "leave --maps out")
    if maps.exists() and not maps.is_dir():
        raise ModelError(f"{maps} is a file: a folder was needed for the maps", "choose another --maps")
    if root is not None and maps.resolve().is_relative_to(root.resolve()):
        raise ModelError(f"{maps} lies among the pictures of {root}", "choose a folder outside of it for --maps")


def _write_maps(base: Path, model: Model, picture: Image.Image, scores: np.ndarray) -> None:
    assert model.map_threshold is not None
    assert model.map_usual is not None
    base.parent.mkdir(parents=True, exist_ok=True)
    shown = overlays.enlarged(scores, (picture.height, picture.width))
    background = np.asarray(picture.convert("RGB"))
    drawn = overlays.drawn(background, shown, model.map_usual, model.map_threshold)
    mask = (shown > model.map_threshold).astype(np.uint8) * 255
    for values, ending in ((shown, ".map.tiff"), (drawn, ".overlay.png"), (mask, ".mask.png")):
        buffer = io.BytesIO()
        options = {"format": "TIFF"} if ending.endswith("tiff") else {"format": "PNG", "compress_level": 1}
        Image.fromarray(values).save(buffer, **options)  # type: ignore[arg-type]
        replace(base.with_name(base.name + ending), buffer.getvalue())

"""Small pictures, or lines of text, of the training samples that a report shows."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from PIL import Image

from ..calibration import score_maps
from ..core.data import Data
from ..core.modality import ROW
from ..core.problem import Pictured, Previewed, Source, Surfaced
from ..errors import InputError
from ..numerics.surfaces import Surface
from . import heat_maps, selection
from .page import PICTURE_BYTES

# Pixels of the longer side: of a picture in a list, from and to, and of one that a score map is laid over.
_LEAST_SIDE, _MOST_SIDE, _MAPPED_SIDE = 96, 360, 280
# What a pixel of a photo takes as a JPEG inside a page.
_BYTES_A_PIXEL = 0.35
_FEATURES = 8


def of_samples(source: Source, data: Data, table: pd.DataFrame) -> tuple[dict[str, str], dict[str, str]]:
    """Pictures, or the features as text, of the samples that the report shows."""
    return of_named(source, data, selection.samples_to_show(table))


def of_named(source: Source, data: Data, shown: Sequence[str]) -> tuple[dict[str, str], dict[str, str]]:
    """Pictures, or the features as text, of the samples of these names, as large as a page has room for."""
    place, side = data.places, side_for(len(shown))
    pictures, texts = {}, {}
    for name in shown:
        if isinstance(source, Previewed):
            with suppress(InputError):  # a file that went away since; the report can do without its picture
                pictures[name] = _thumbnail(source.preview(name, _MOST_SIDE).permute(1, 2, 0).numpy(), side)
        elif (picture := data.modality.picture(data.read(torch.tensor([place[name]]))[0])) is not None:
            pictures[name] = _thumbnail(picture.permute(1, 2, 0).numpy(), side)
        elif data.modality == ROW and data.features:
            values = data.original(data.read(torch.tensor([place[name]])))[0].tolist()
            # What was read about a centre differs in later digits.
            digits = 4 if data.centre is None else 12
            named = list(zip(data.features, values, strict=True))[:_FEATURES]
            texts[name] = ", ".join(f"{feature} {value:.{digits}g}" for feature, value in named)
    return pictures, texts


def side_for(count: int, room: int = PICTURE_BYTES // 2) -> int:
    """Pixels of the longer side of each of so many pictures that share these bytes: a report shows most twice."""
    return int(np.clip(np.sqrt(room / (max(1, count) * _BYTES_A_PIXEL)), _LEAST_SIDE, _MOST_SIDE))


def _thumbnail(picture: np.ndarray, side: int) -> str:
    """A picture [height, width, 1 or 3] of values 0 to 1 as a JPEG inside a URI."""

    pixels = (np.clip(picture, 0, 1) * 255).astype(np.uint8)
    image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    image.thumbnail((side, side))
    return data_uri(np.asarray(image))


def data_uri(picture: np.ndarray) -> str:
    """A picture [height, width] or [height, width, 3] of bytes as a JPEG inside a URI."""

    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=82)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def small(picture: np.ndarray, side: int = _MAPPED_SIDE) -> np.ndarray:
    """A picture [h, w, 3] with its longer side made so many pixels."""

    image = Image.fromarray(picture)
    share = side / max(image.size)
    return np.asarray(image.resize((max(1, round(image.width * share)), max(1, round(image.height * share)))))


def small_pictures_of(source: Source, data: Data) -> Callable[[int], np.ndarray]:
    """As `pictures_of`, with the longer side made so many pixels as one that a score map is laid over has; no photo is
    held in its own size."""
    whole = pictures_of(source, data)

    def picture(place: int) -> np.ndarray:
        if not isinstance(source, Previewed):
            return small(whole(place))
        shown = source.preview(data.names[place], _MAPPED_SIDE)
        return small(_bytes(shown.expand(3, -1, -1)))

    return picture


def _bytes(picture: torch.Tensor) -> np.ndarray:
    """A picture [3, h, w] of 0 to 1 as [h, w, 3] of 0 to 255."""
    return (picture.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()


def pictures_of(source: Source, data: Data) -> Callable[[int], np.ndarray]:
    """A function from a sample's place to its picture [h, w, 3] (0 to 255): the source's own, or else the sample
    itself."""

    def picture(place: int) -> np.ndarray:
        if isinstance(source, Pictured):
            shown = source.picture(data.names[place])
        else:
            own = data.modality.picture(data.read(torch.tensor([place]))[0])
            assert own is not None  # only images have maps, and only maps are drawn over pictures
            shown = own.expand(3, -1, -1)
        return _bytes(shown)

    return picture


@dataclass(frozen=True, eq=False)
class Backdrop:
    """What a map is drawn over: a picture [h, w, 3] (0 to 255), or that of a surface, on whose points scores lie."""

    picture: np.ndarray
    surface: Surface | None = None

    def laid(self, scores: np.ndarray) -> np.ndarray:
        """A map at each pixel of the picture [h, w]."""
        if self.surface is None:
            return heat_maps.fitted(scores, (self.picture.shape[0], self.picture.shape[1]))
        return self.surface.laid(heat_maps.fitted(scores, self.surface.grid)).astype(np.float32)

    def marked(self, mask: np.ndarray | None) -> np.ndarray | None:
        """A mask of a cloud's points at each pixel of the picture [h, w]; one of a photograph's pixels as it is."""
        if mask is None or self.surface is None or self.surface.grid[1] > 1:
            return mask
        found = self.surface.laid(score_maps.nearest(mask, self.surface.grid))
        return found & (self.surface.place >= 0)


def backdrops_of(source: Source, data: Data) -> Callable[[int, np.ndarray | None], Backdrop]:
    """A function from a sample's place to what its map is drawn over: the shaded surface where the source has one, or
    else its picture. A picture of the sample [h, w, 3] that is at hand says how large."""
    picture = pictures_of(source, data)

    def backdrop(place: int, beside: np.ndarray | None) -> Backdrop:
        if isinstance(source, Surfaced):
            with suppress(InputError):  # a photograph without a scan
                surface = source.surface(data.names[place])
                if beside is not None:
                    surface = surface.resized((beside.shape[0], beside.shape[1]))
                return Backdrop(surface.picture, surface)
        return Backdrop(picture(place) if beside is None else beside)

    return backdrop

"""Score maps drawn over pictures: cool below the threshold, warm above it, lines around what is flagged or marked."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import scipy
import torch
from PIL import Image, ImageDraw, ImageFont

from ..calibration import score_maps
from ..calibration.score_maps import Scale
from . import numbers

_COOL = (64, 110, 190)
_MOST_COOL = 0.4
# From the threshold to the full scale.
_WARM = ((255, 225, 60), (255, 150, 20), (225, 40, 30), (120, 0, 40))
_LEAST_WARM, _MOST_WARM = 0.55, 0.8
_LINE, _TRUTH = (255, 40, 40), (0, 200, 120)
# Pixels of a picture's side for each pixel of a line's width.
_LINE_SHARE = 300
_INK, _PAPER = (32, 36, 42), (253, 253, 252)


def colours(scores: np.ndarray, scale: Scale) -> np.ndarray:
    """Red, green, blue (0 to 255) and opacity (0 to 1) [..., 4] of scores [...]."""
    below = np.clip((scores - scale.usual) / max(scale.threshold - scale.usual, 1e-30), 0, 1)
    above = np.clip((scores - scale.threshold) / (scale.full - scale.threshold), 0, 1)
    steps = np.linspace(0, 1, len(_WARM))
    channels = [np.interp(above, steps, [colour[channel] for colour in _WARM]) for channel in range(3)]
    warm = np.stack([*channels, _LEAST_WARM + (_MOST_WARM - _LEAST_WARM) * above], -1)
    cool = np.stack([*(np.full(below.shape, channel) for channel in _COOL), _MOST_COOL * (2 * below - 1).clip(0)], -1)
    return np.where((scores > scale.threshold)[..., None], warm, cool)


def overlay(picture: np.ndarray, scores: np.ndarray, scale: Scale) -> np.ndarray:
    """The map [h, w] on the picture [h, w, 3] (0 to 255) -> [h, w, 3]."""
    found = colours(scores, scale)
    opacity = found[..., 3:]
    drawn = (1 - opacity) * _grey(picture)[..., None] + opacity * found[..., :3]
    return _outlined(drawn.round().astype(np.uint8), scores > scale.threshold, _LINE)


def ringed(picture: np.ndarray, scores: np.ndarray, scale: Scale) -> np.ndarray:
    """The picture [h, w, 3] with a line around what its map [h', w'] flags."""
    return _outlined(picture, fitted(scores, picture.shape[:2]) > scale.threshold, _LINE)


def truth(picture: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    """The picture [h, w, 3] with a line around the defect that its mask marks."""
    if mask is None:
        return picture
    return _outlined(picture, score_maps.nearest(mask, picture.shape[:2]), _TRUTH)


def fitted(scores: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A map [h, w] at the height and width of a picture."""
    return score_maps.resized(torch.from_numpy(scores)[None], size)[0].numpy()


def with_bar(drawn: np.ndarray, scale: Scale) -> Image.Image:
    """A drawing [h, w, 3] with a bar of the colours beside it, in scores."""
    height = max(96, len(drawn))
    bar = colour_bar(scale, height)
    page = Image.new("RGB", (drawn.shape[1] + bar.width, height), _PAPER)
    page.paste(Image.fromarray(drawn), (0, 0))
    page.paste(bar, (drawn.shape[1], 0))
    return page


@lru_cache(maxsize=8)  # the maps of a folder share one
def colour_bar(scale: Scale, height: int) -> Image.Image:
    """The bar of colours, its scores written beside it: usual, the threshold, and where colours end."""
    margin = int(np.clip(height / 18, 11, 28))
    font = ImageFont.load_default(float(margin))
    wide = max(12, margin)
    shown = np.linspace(scale.full, scale.usual, height - 2 * margin)
    found = colours(shown, scale)
    strip = (1 - found[:, 3:]) * 128 + found[:, 3:] * found[:, :3]
    texts = {
        scale.full: f"{numbers.number(scale.full)} or more",
        scale.threshold: f"{numbers.number(scale.threshold)} threshold",
        scale.usual: f"{numbers.number(scale.usual)} usual",
    }
    width = 2 * margin + wide + int(max(font.getlength(text) for text in texts.values()))
    page = Image.new("RGB", (width, height), _PAPER)
    page.paste(Image.fromarray(np.repeat(strip.round().astype(np.uint8)[:, None], wide, 1)), (margin // 2, margin))
    draw = ImageDraw.Draw(page)
    for score, text in texts.items():
        place = margin + (scale.full - score) / (scale.full - scale.usual) * (height - 2 * margin)
        draw.line((margin // 2, place, margin // 2 + wide + 3, place), fill=_INK)
        draw.text((margin + wide, place), text.replace("\N{NARROW NO-BREAK SPACE}", " "), _INK, font, anchor="lm")
    return page


def _grey(picture: np.ndarray) -> np.ndarray:
    return picture @ np.array([0.299, 0.587, 0.114])


def _outlined(picture: np.ndarray, mask: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """A line just outside of the mask."""
    if not mask.any():
        return picture
    width = max(1, round(max(mask.shape) / _LINE_SHARE))
    line = scipy.ndimage.binary_dilation(mask, np.ones((3, 3), dtype=bool), iterations=width) & ~mask
    return np.where(line[..., None], np.array(colour, dtype=np.uint8), picture)

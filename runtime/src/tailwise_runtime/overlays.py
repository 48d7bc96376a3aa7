"""Score maps over pictures, as tailwise score draws them: cool below the threshold, warm above it, with an outline."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageFilter

_COOL, _MOST_COOL = (64, 110, 190), 0.4
# From the threshold to the full scale.
_WARM = ((255, 225, 60), (255, 150, 20), (225, 40, 30), (120, 0, 40))
_LEAST_WARM, _MOST_WARM = 0.55, 0.8
_LINE = (255, 40, 40)
# Pixels of a picture's side for each pixel of a line's width.
_LINE_SHARE = 300


def enlarged(scores: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A map [h, w] at the height and width of a picture, float32."""
    return np.asarray(Image.fromarray(scores.astype(np.float32)).resize(size[::-1], Image.Resampling.BILINEAR))


def drawn(picture: np.ndarray, scores: np.ndarray, usual: float, threshold: float) -> np.ndarray:
    """A map [h, w] over its picture [h, w, 3] (0 to 255) -> [h, w, 3].

    Args:
        picture: in colour or grey, of the map's height and width.
        scores: the map.
        usual: the median pixel of normals; colours end three times as far above the threshold as it lies below.
        threshold: pixels above it are flagged.
    """
    warm = scores > threshold
    span = max(threshold - usual, 1e-6 * abs(threshold), 1e-12)
    below = np.clip((scores - usual) / span, 0, 1)
    above = np.clip((scores - threshold) / (3 * span), 0, 1)
    steps = np.linspace(0, 1, len(_WARM))
    colour = np.stack([np.interp(above, steps, channel) for channel in zip(*_WARM, strict=True)], -1)
    colour = np.where(warm[..., None], colour, _COOL)
    opacity = np.where(warm, _LEAST_WARM + (_MOST_WARM - _LEAST_WARM) * above, _MOST_COOL * (2 * below - 1).clip(0))
    grey = picture @ np.array([0.299, 0.587, 0.114])
    result = ((1 - opacity) * grey)[..., None] + opacity[..., None] * colour
    return _outlined(result.round().astype(np.uint8), warm)


def _outlined(picture: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """A line just outside of the mask."""
    width = max(1, round(max(mask.shape) / _LINE_SHARE))
    grown = np.asarray(Image.fromarray(mask.astype(np.uint8) * 255).filter(ImageFilter.MaxFilter(2 * width + 1)))
    return np.where(((grown > 0) & ~mask)[..., None], np.array(_LINE, np.uint8), picture)

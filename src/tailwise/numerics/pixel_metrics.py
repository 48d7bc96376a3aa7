"""How well score maps find the defect: per pixel, and per defect region.

Maps and masks come one picture at a time and are kept as two lists: the scores of normal pixels, sorted, and those of
defect pixels with the region that each belongs to. Every figure follows from where a defect pixel's score falls among
the normal ones, so nothing is as large as the normal pixels but their scores in single precision: 33 million pixels
(500 maps of 256 x 256) take 130 MB, twice that while they are sorted.

AUPRO: Bergmann et al., IJCV 2021, the mean share of each defect region that is found, over the share of normal pixels.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import scipy

from ..errors import InputError

# Pixels that touch at a corner are of one region.
_TOUCHING = np.ones((3, 3), dtype=bool)


@dataclass(frozen=True, eq=False)
class Pixels:
    """The scores of many maps, as far as the figures here need them.

    Attributes:
        normal: [p] float32, of the pixels outside every mask, sorted.
        defect: [q] float32, of the pixels inside, sorted.
        region: [q], the number of the region that each is in, from 0: connected, also over corners, in one map.
    """

    normal: np.ndarray
    defect: np.ndarray
    region: np.ndarray

    def __post_init__(self) -> None:
        if not len(self.normal) or not len(self.defect):
            raise OneSided(
                f"both normal and defect pixels are needed: got {len(self.normal)} and {len(self.defect)}",
                "give test data with masks",
            )


class OneSided(InputError):
    """There is no defect in the masks, or nothing else."""


def gather(maps: Iterable[tuple[np.ndarray, np.ndarray | None]]) -> Pixels:
    """Pairs of a score map [h, w] and its mask [h, w], True in a defect; None is a picture without any.

    Raises:
        OneSided: there is no defect or no normal pixel.
        InputError: shapes differ, or a score is not finite.
    """
    normal: list[np.ndarray] = []
    defect: list[np.ndarray] = []
    region: list[np.ndarray] = []
    regions = 0
    for scores, mask in maps:
        scores = np.asarray(scores, dtype=np.float32)
        mask = np.zeros(scores.shape, dtype=bool) if mask is None else np.asarray(mask, dtype=bool)
        if scores.shape != mask.shape or scores.ndim != 2:
            raise InputError(f"one mask [h, w] a map: got {list(mask.shape)} for a map {list(scores.shape)}")
        if not np.isfinite(scores).all():
            raise InputError(
                f"maps must be finite: {int((~np.isfinite(scores)).sum())} of {scores.size} pixels are not"
            )
        numbers, count = scipy.ndimage.label(mask, _TOUCHING)
        normal.append(scores[~mask])
        defect.append(scores[mask])
        region.append(numbers[mask] - 1 + regions)
        regions += count
    if not normal:
        raise InputError("no maps were given")
    together = np.concatenate(normal)
    normal.clear()
    together.sort()
    defect_scores, numbers = np.concatenate(defect), np.concatenate(region)
    # In order, because looking up ordered scores among the normal ones is several times as fast.
    order = defect_scores.argsort(kind="stable")
    return Pixels(together, defect_scores[order], numbers[order])


def pixel_auroc(pixels: Pixels) -> float:
    """The chance that a defect pixel scores above a normal one, ties counted half."""
    above, level = _false_alarms(pixels, pixels.defect)
    return float(1 - (above + level).mean() / 2)


def pixel_aupr(pixels: Pixels) -> float:
    """Area under precision-recall by average precision; ties share one threshold."""
    _, hits, alarms = _thresholds(pixels)
    return float((np.diff(hits, prepend=0) * hits / (hits + alarms)).sum() / hits[-1])


def best_f1(pixels: Pixels) -> tuple[float, float]:
    """The largest F1 that any threshold gives, and that threshold: pixels at or above it are flagged."""
    scores, hits, alarms = _thresholds(pixels)
    values = 2 * hits / (hits + alarms + hits[-1])
    best = int(values.argmax())
    return float(values[best]), float(scores[best])


def aupro(pixels: Pixels, limit: float = 0.3) -> float:
    """Area under the mean share found of each region, over shares of normal pixels up to `limit`, divided by it.

    The curve is followed exactly, straight between thresholds, and cut at the limit.
    """
    if not 0 < limit <= 1:
        raise InputError(f"the limit must lie above 0 and up to 1: got {limit}")
    # A defect pixel is found from the share `above` on, with ties gradually up to `level`: the area is a sum of those
    # of single pixels, each with the weight that it has in its region.
    above, level = _false_alarms(pixels, pixels.defect)
    tied = np.maximum(level - above, np.finfo(float).tiny)
    reached = np.clip(limit - above, 0, tied)
    areas = np.maximum(limit - level, 0) + reached**2 / (2 * tied)
    size = np.bincount(pixels.region)
    return float((areas / size[pixels.region]).sum() / len(size) / limit)


def regions_found(pixels: Pixels, threshold: float) -> np.ndarray:
    """[region], whether any pixel of it scores above the threshold."""
    highest = np.full(int(pixels.region.max()) + 1, -np.inf)
    np.maximum.at(highest, pixels.region, pixels.defect)
    return highest > threshold


def _false_alarms(pixels: Pixels, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Shares of normal pixels above each score, and at or above it."""
    many = len(pixels.normal)
    above = many - np.searchsorted(pixels.normal, scores, "right")
    level = many - np.searchsorted(pixels.normal, scores, "left")
    return above / many, level / many


def _thresholds(pixels: Pixels) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Each distinct score of a defect pixel, falling, and the defect and normal pixels at or above it."""
    scores, counts = np.unique(pixels.defect, return_counts=True)
    alarms = len(pixels.normal) - np.searchsorted(pixels.normal, scores, "left")
    return scores[::-1], counts[::-1].cumsum(), alarms[::-1]

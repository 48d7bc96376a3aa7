"""Where is the defect? Score maps of a whole data set, and the threshold above which a pixel of them is flagged.

Maps are the detector's own, on its own scale: local scores change how a sample's score is read, and how far its map may
reach by that, not where in the sample it comes from. A coarse grid (feature maps) is enlarged, and every map is
smoothed a little, before anything else is done with it, so that the threshold, the figures and what is drawn are of the
same map.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy
import torch
from torch import Tensor
from torch.nn import functional

from ..core import inference
from ..core.data import Data
from ..core.detector import Detector
from ..core.problem import Labelled
from ..errors import InputError
from ..numerics import pixel_metrics
from . import conformal

# Standard deviation of the smoothing as a share of a map's longer side: 2 pixels of 224, half of PatchCore's (Roth et
# al., CVPR 2022); LOG.md says what other widths gave.
SMOOTHING = 0.009
# Coarser grids are enlarged to at least this side before they are smoothed.
_SMOOTH_SIDE = 224
# Figures are computed on maps of at most this side.
_MEASURED_SIDE = 256
_BATCH_ENTRIES, _MOST_AT_ONCE = 4_000_000, 32


@dataclass(frozen=True)
class Scale:
    """What a pixel's score means, from normals that were not trained on.

    Attributes:
        usual: the median pixel of normals.
        threshold: pixels that score above it are flagged.
    """

    usual: float
    threshold: float

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Scale | None:
        """What a run's settings hold; None where its detector has no maps."""
        usual, threshold = settings.get("map_usual"), settings.get("map_threshold")
        return None if usual is None or threshold is None else cls(float(usual), float(threshold))

    def settings(self) -> dict[str, float]:
        """As a run's settings hold it."""
        return {"map_usual": self.usual, "map_threshold": self.threshold}

    @property
    def full(self) -> float:
        """Where colours end: as far above the threshold as three times the usual pixel lies below it."""
        return self.threshold + 3 * max(self.threshold - self.usual, 1e-6 * abs(self.threshold), 1e-12)


def of_data(detector: Detector, data: Data, smoothing: float = SMOOTHING) -> Iterator[np.ndarray]:
    """The smoothed map [h, w] of each sample, float32, in the data's order, one at a time.

    Args:
        detector: fitted, with maps.
        data: images or feature maps; only a batch of them is read at a time.
        smoothing: standard deviation as a share of the map's longer side; 0 is none.
    """
    _check(detector, smoothing)
    size = max(1, min(_MOST_AT_ONCE, _BATCH_ENTRIES // math.prod(data.sample_shape)))
    for reading in inference.readings(detector, data, size, score=False, map=True):
        yield from _finished(detector, reading.map, smoothing).numpy()


def with_scores(
    detector: Detector, data: Data, smoothing: float = SMOOTHING, batch_size: int | None = None
) -> Iterator[tuple[float, np.ndarray]]:
    """The score of each sample and its smoothed map, as `inference.score` and `of_data` give them, in one pass."""
    _check(detector, smoothing)
    for reading in inference.readings(detector, data, batch_size, map=True):
        parts = (_finished(detector, part, smoothing).numpy() for part in reading.map.split(_MOST_AT_ONCE))
        yield from zip(reading.score.tolist(), (found for part in parts for found in part), strict=True)


def _finished(detector: Detector, maps: Tensor, smoothing: float) -> Tensor:
    """Maps as everything else sees them: smoothed, unless their places have no order."""
    return maps.contiguous() if detector.modality.scattered else smoothed(maps, smoothing)


def smoothed(maps: Tensor, smoothing: float = SMOOTHING) -> Tensor:
    """Maps [n, h, w], enlarged to at least 224 pixels by a whole factor, and smoothed.

    What lies outside a map counts as its median. Deviations from it are divided by the root of the filter's share that
    lies inside, so that pixels at the border vary about as much as others. With the border's own values outside, two to
    four times too many of the highest pixels of noise are at the border.
    """
    factor, width = enlargement((maps.shape[1], maps.shape[2]), smoothing)
    usual = maps.flatten(1).median(1).values[:, None, None]
    maps = resized(maps, (maps.shape[1] * factor, maps.shape[2] * factor))
    if not width:
        return maps
    inside = _filtered(torch.ones_like(maps[:1]), width)
    return _filtered(maps - usual, width) / inside.sqrt() + usual


def _filtered(maps: Tensor, width: float) -> Tensor:
    """Maps [n, h, w] under a Gaussian of this deviation in pixels, 0 outside."""
    return torch.from_numpy(scipy.ndimage.gaussian_filter(maps.numpy(), (0, width, width), mode="constant"))


def enlargement(size: tuple[int, int], smoothing: float) -> tuple[int, float]:
    """How many times a map of this height and width is enlarged, and the deviation in pixels that smooths it then."""
    factor = math.ceil(_SMOOTH_SIDE / max(size))
    return factor, smoothing * max(size) * factor


def resized(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps [n, h, w] at another height and width, bilinear: no value is above the largest or below the smallest."""
    if tuple(maps.shape[1:]) == size:
        return maps
    return functional.interpolate(maps[:, None], size, mode="bilinear", align_corners=False, antialias=True)[:, 0]


def learn_scale(detector: Detector, normals: Data, false_alarms: float = 0.05, smoothing: float = SMOOTHING) -> Scale:
    """The threshold that leaves at most this share of new normal images with any flagged pixel.

    It is the conformal threshold of the largest pixel of each map of `normals`, which were not trained on.
    """
    return scale_of([peaks(detector, normals, smoothing)], false_alarms)


def peaks(detector: Detector, normals: Data, smoothing: float = SMOOTHING) -> np.ndarray:
    """The largest and the median pixel [n, 2] of the map of each normal, which the detector was not trained on."""
    return np.array([(scores.max(), np.median(scores)) for scores in of_data(detector, normals, smoothing)], float)


def scale_of(parts: Sequence[np.ndarray], false_alarms: float = 0.05) -> Scale:
    """The scale of maps whose `peaks` these are, those of each part by a detector that was trained without it."""
    largest, middle = np.concatenate(parts).T
    return Scale(float(np.median(middle)), conformal.conformal_threshold(largest, false_alarms))


def gather_known(
    detector: Detector, test: Labelled, smoothing: float = SMOOTHING
) -> tuple[pixel_metrics.Pixels, np.ndarray] | None:
    """The pixels of the test samples whose defects are known, and the largest of each of those without a defect.

    None where no defect has a mask. Samples that are anomalous without one are left out. Maps and masks are compared on
    the map's grid, at most 256 pixels a side, so that every picture has the same say.
    """
    if test.masks is None or test.labels is None:
        return None
    masks, anomalous = test.masks, np.asarray(test.labels).astype(bool)
    known = [i for i in range(len(anomalous)) if not anomalous[i] or masks[i] is not None]
    if not known:
        return None
    clean: list[float] = []

    def pairs() -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
        for i, scores in zip(known, of_data(detector, test.data.take(known), smoothing), strict=True):
            if not anomalous[i]:
                clean.append(float(scores.max()))
            mask = masks[i] if anomalous[i] else None
            if detector.modality.scattered:
                yield _defect_first(scores, mask)
                continue
            scores = _measured(scores)
            yield scores, None if mask is None else nearest(mask, scores.shape)

    try:
        return pixel_metrics.gather(pairs()), np.array(clean)
    except pixel_metrics.OneSided:
        return None


def _defect_first(scores: np.ndarray, mask: np.ndarray | None) -> tuple[np.ndarray, np.ndarray | None]:
    """Scores and defects [points, 1] in an order in which all of a cloud's defects are one region."""
    if mask is None:
        return scores, None
    order = np.argsort(~np.asarray(mask, bool)[:, 0], kind="stable")
    return scores[order], np.asarray(mask, bool)[order]


def nearest(mask: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """A mask [h, w] at another height and width, by the nearest pixel."""
    rows, columns = (
        ((np.arange(new) + 0.5) * old / new).astype(int) for new, old in zip(size, mask.shape, strict=True)
    )
    return mask[rows[:, None], columns]


def check_smoothing(smoothing: float) -> None:
    """Raise an InputError unless it is a share of a side that leaves something to see."""
    if not 0 <= smoothing <= 0.25:
        raise InputError(f"smoothing must be from 0 to 0.25 of a map's side: got {smoothing}")


def _check(detector: Detector, smoothing: float) -> None:
    check_smoothing(smoothing)
    if not detector.has_maps:
        raise InputError(
            f"{type(detector).__name__} has no score maps of samples of shape {list(detector.sample_shape)}"
        )


def _measured(scores: np.ndarray) -> np.ndarray:
    share = _MEASURED_SIDE / max(scores.shape)
    if share >= 1:
        return scores
    size = tuple(max(1, round(side * share)) for side in scores.shape)
    return resized(torch.from_numpy(scores)[None], (size[0], size[1]))[0].numpy()

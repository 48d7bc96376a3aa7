"""Local RX: how far a spectrum lies from the pixels around it, measured by their own covariance.

Reed & Yu, IEEE TASSP 1990, with two concentric windows: the inner one keeps an anomaly of a few pixels out of its own
background.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy
import torch
from torch import Tensor

from ..core.bounds import OddSide
from ..core.context import Scenes
from ..core.data import Batch, Data
from ..core.detector import Detector
from ..core.modality import SPECTRUM
from ..core.registry import register
from ..errors import InputError
from .components import cubic_cost
from .components.dual_window import Strip, Windows, check_windows, scores_by_strip

# A background without spread in some direction, such as a filled border, is measured in the others only.
_LEAST_SHARE = 1e-12


@register("detector", "local-rx")
class LocalRX(Detector):
    """Squared Mahalanobis distance of a pixel to the mean of its dual window, by their unbiased covariance.

    Nothing is learnt from the training pixels: every pixel is compared with its own surroundings, in whatever cube is
    scored. So weights have no say, and a material that is rare in the scene is no anomaly inside its own field.
    Pixels that hold no data are no background; a pixel around which no more hold data than there are bands scores NaN.

    Args:
        inner: side of the window that is left out, in pixels.
        outer: side of the window that is the background; it must hold more pixels than there are bands.
    """

    modalities = (SPECTRUM,)
    needs_context = Scenes
    ignores_weights = "it compares each pixel with those around it"

    def __init__(self, inner: OddSide = 3, outer: OddSide = 15) -> None:
        super().__init__()
        check_windows("LocalRX", inner, outer)
        self.inner = inner
        self.outer = outer

    def build(self, sample_shape: tuple[int, ...]) -> None:
        pixels, bands = self.outer**2 - self.inner**2, sample_shape[1]
        if pixels <= bands:
            side = int(np.ceil(np.sqrt(bands + self.inner**2 + 1))) | 1
            raise InputError(
                f"LocalRX: the {pixels} pixels between the windows {self.inner} and {self.outer} have no covariance of "
                f"{bands} bands",
                f"take outer={side} or more, or leave bands out (--bad-bands)",
            )
        self.register_buffer("bands", torch.tensor(bands))  # the file of a state cannot be empty

    def solve(self, data: Data, w: Tensor) -> None:
        """Nothing to learn; scoring may take long."""
        bands = data.sample_shape[1]
        what = f"scoring {len(data):,} pixels of {bands:,} bands"
        cubic_cost.announce(what, bands, len(data), cubic_cost.SOLUTION, "bands")

    def score(self, batch: Batch) -> Tensor:
        return scores_by_strip(batch, self.inner, self.outer, _scores, "LocalRX")


def _scores(strip: Strip) -> np.ndarray:
    """[k]. The distances do not change when all spectra are whitened alike, and their digits are safer so.

    A vector is [1, spectrum, 0], so that the sum of outer products over a background holds its number of pixels, their
    sum and their products. Such a sum, one for each row, moves along the columns: what enters is added, what leaves is
    taken away. The vector of a pixel that holds no data is zero.
    """
    whitened, scale = _whitened(strip.pixels)
    if not len(scale):  # all pixels are the same
        return np.zeros(len(strip.row))
    pixels = whitened.transpose(1, 0, 2).copy()  # [width, rows, size]
    down, across, bands = strip.down, strip.across, pixels.shape[2] - 2
    if (most := down.outer * across.outer - down.inner * across.inner) <= bands:
        raise InputError(
            f"LocalRX: {most} pixels lie between the windows in this scene, for {bands} bands",
            "score a larger scene, or leave bands out (--bad-bands)",
        )
    rows = np.unique(strip.row)
    outer, inner = (
        (start[rows] - strip.first)[:, None] + np.arange(side)
        for start, side in ((down.outer_start, down.outer), (down.inner_start, down.inner))
    )  # [rows, side]
    result = np.empty(len(strip.row))
    place = np.full((len(pixels), len(rows)), -1)
    place[strip.column, np.searchsorted(rows, strip.row)] = np.arange(len(strip.row))
    first, last = int(strip.column.min()), int(strip.column.max())
    sums = np.zeros((len(rows), bands + 2, bands + 2))
    # Written over and over: memory that is asked for anew each time costs as much as what is done in it.
    room = np.empty_like(sums)
    for start, side, windows, sign in _both(across, outer, inner):
        for column in range(start[first], start[first] + side):
            _add(sums, pixels[column][windows], np.full(1, sign), room)
    for column in range(first, last + 1):
        if column > first:
            _move(sums, pixels, column, _both(across, outer, inner), room)
        asked = np.flatnonzero(place[column] >= 0)
        if len(asked):
            spectra = pixels[column, rows[asked] - strip.first]
            result[place[column, asked]] = _distances(sums, asked, spectra, scale, room)
    return result


def _both(
    across: Windows, outer: np.ndarray, inner: np.ndarray
) -> tuple[tuple[np.ndarray, int, np.ndarray, float], ...]:
    """The outer and the inner windows: first columns, side, rows, and whether they count or are left out."""
    return (across.outer_start, across.outer, outer, 1.0), (across.inner_start, across.inner, inner, -1.0)


def _move(sums: np.ndarray, pixels: np.ndarray, column: int, both: Any, room: np.ndarray) -> None:
    """From the sums of the column before to those of this one: add what enters the windows, take away what leaves."""
    parts, signs = [], []
    for start, side, rows, sign in both:
        before, now = start[column - 1], start[column]
        if before != now:
            parts += [pixels[before][rows], pixels[now + side - 1][rows]]
            signs += [-sign] * rows.shape[1] + [sign] * rows.shape[1]
    if parts:
        _add(sums, np.concatenate(parts, axis=1), np.array(signs), room)


def _add(sums: np.ndarray, vectors: np.ndarray, signs: np.ndarray, room: np.ndarray) -> None:
    """Add the outer products of vectors [rows, k, size], counted by `signs`, to sums [rows, size, size].

    They are symmetric, so the block left of the diagonal and below is not formed.
    """
    half, left = sums.shape[1] // 2, vectors.transpose(0, 2, 1)
    signed = vectors * signs[:, None]
    np.matmul(left[:, :half], signed, out=room[:, :half])
    np.matmul(left[:, half:], signed[:, :, half:], out=room[:, half:, half:])
    sums[:, :half] += room[:, :half]
    sums[:, half:, half:] += room[:, half:, half:]


def _distances(
    sums: np.ndarray, asked: np.ndarray, spectra: np.ndarray, scale: np.ndarray, room: np.ndarray
) -> np.ndarray:
    """[k] of pixels [k, size] of the rows `asked` [k] with these sums of outer products [rows, size, size].

    The last row is given to the pixel itself: the Cholesky factor's last row is then the pixel solved against the
    factor, of which the first entry is the mean's part and the others are the whitened distance to the mean.
    """
    count = sums[asked, 0, 0]  # [k], how many pixels of the background hold data
    few = count <= spectra.shape[1] - 2
    factors = np.take(sums, asked, axis=0, out=room[: len(asked)], mode="clip")
    factors[:, :, -1] = spectra
    # Any number above the pixel's own product with the inverse will do: it is not read.
    factors[:, -1, -1] = 1e150
    # In place and one by one: numpy's copies into and out of the order of LAPACK cost as much as the factorisation.
    failed = [scipy.linalg.lapack.dpotrf(matrix.T, lower=1, clean=0, overwrite_a=1)[1] != 0 for matrix in factors]
    whitened = factors[:, 1:-1, -1]
    found = (count - 1) * np.einsum("kd,kd->k", whitened, whitened)
    diagonal = np.einsum("kdd->kd", factors)[:, 1:-1] ** 2
    flat = failed | ~(diagonal.min(1) >= _LEAST_SHARE * diagonal.max(1))
    if flat.any():
        found[flat] = _by_pseudo_inverse(sums[asked[flat]], spectra[flat], count[flat], scale)
    return np.where(few, np.nan, found)


def _by_pseudo_inverse(sums: np.ndarray, spectra: np.ndarray, count: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """[k] where a background has no spread in some directions, which are then left out.

    Which directions are at right angles to those depends on the scales, so they are those of the spectra again.
    """
    count = np.maximum(count, 2)[:, None, None]  # of fewer there is no covariance, whatever comes of them here
    mean = sums[:, 0, 1:-1] / count[:, 0]
    upper = np.triu(sums)[:, 1:-1, 1:-1]
    covariance = upper + np.triu(upper, 1).transpose(0, 2, 1) - count * mean[:, :, None] * mean[:, None]
    values, vectors = np.linalg.eigh(covariance / (count - 1) * scale[:, None] * scale)
    along = np.einsum("kd,kde->ke", (spectra[:, 1:-1] - mean) * scale, vectors)
    kept = values > _LEAST_SHARE * scale.max() ** 2
    return np.where(kept, along**2 / np.where(kept, values, 1), 0).sum(1)


def _whitened(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[rows, width, 1 + d + 1]: a one, the spectra in d whitened directions that have any spread, and a zero.
    Pixels without data are zeros.

    And the standard deviations [d] along these directions, that they were divided by.
    """
    every = pixels.reshape(-1, pixels.shape[2])
    valid = ~np.isnan(every[:, 0])
    flat = every if valid.all() else every[valid]
    centred = flat - flat.mean(0)
    values, vectors = np.linalg.eigh(centred.T @ centred / len(flat))
    kept = values > max(values[-1] * 1e-14, 1e-300)
    scale = np.sqrt(values[kept])
    result = np.zeros((len(every), len(scale) + 2))
    result[valid, 0] = 1
    result[valid, 1:-1] = centred @ (vectors[:, kept] / scale)
    return result.reshape(*pixels.shape[:2], -1), scale

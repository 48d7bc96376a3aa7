"""Numbers whose spread is small beside their size keep their digits in float32 only about a centre."""

from __future__ import annotations

import numpy as np

# float32 has 24 binary digits. Rounding to them may be a thousandth of a column's spread and no more.
_DIGITS, _OF_SPREAD = 2.0**-24, 1e-3
# A constant column says nothing of its spread; it is taken for one in which a step of 1 would count.
_SPREAD_OF_CONSTANTS = 1.0


def centre_of(values: np.ndarray) -> np.ndarray:
    """What to take off the columns of finite numbers [n, d] before they become float32: [d] float64.

    0 where float32 holds a column's spread well enough, else a round number near its median. The spread is that between
    quartiles, so that a few values far out do not hide how close the others lie.

    >>> centre_of(np.array([[1e7, 1.0], [1e7 + 1, 2.0], [1e7 + 2, 3.0]]))
    array([10000001.,        0.])
    """
    if not len(values):
        return np.zeros(values.shape[1])
    low, median, high = np.quantile(values, [0.25, 0.5, 0.75], axis=0, method="nearest")
    spread = high - low
    spread = np.where(spread > 0, spread, np.ptp(values, axis=0))
    spread = np.where(spread > 0, spread, _SPREAD_OF_CONSTANTS)
    needed = np.abs(median) * _DIGITS > _OF_SPREAD * spread
    step = 10.0 ** np.floor(np.log10(spread))
    return np.where(needed, np.round(median / step) * step, 0.0)


def about(values: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """Values [n, d] less their centre [d], in double precision and then as float32."""
    return (np.asarray(values, dtype=np.float64) - centre).astype(np.float32)


# A spread of fewer steps of double precision is one whose digits were lost before, at the latest in the file's reader.
# Smaller numbers so close together are one number that was computed in two ways.
_FEWEST_STEPS, _LARGE = 16, 1e9


def lost(values: np.ndarray) -> np.ndarray:
    """Which columns of finite numbers [n, d] are so large that double precision loses their spread: [d] bool."""
    if not len(values):
        return np.zeros(values.shape[1], bool)
    steps = np.spacing(np.abs(values).max(0))
    extent = np.ptp(values, axis=0)
    large = np.abs(values).max(0) >= _LARGE
    return large & (extent > 0) & (extent < _FEWEST_STEPS * steps)

"""What a run knows of new normals: scores of normals that its detector has not learnt, kind by kind.

A kind is held to its own scores as far as they reach (Mondrian conformal prediction, Vovk 2003): among m of them no
chance below 1 / (m + 1) can be told. Farther out a kind borrows from all the others: scores are put on one scale by
each kind's own middle and spread, drawn towards those of all where the kind is small. A sample of a small kind must lie
beyond its kind's own scores by as much as makes its chance small enough where chances fall exponentially, as they do in
the outermost scores of all, and beyond the usual of all kinds: of two guesses the more careful one.

What is guaranteed, for kinds that are given or were found without the calibration samples: of new normals of a kind, at
most alpha are flagged for every alpha of at least 1 / (m + 1), and at most 1 / (m + 1) for every other. What is
borrowed is a choice of ours without a guarantee.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import scipy

from ..errors import InputError
from . import conformal

ALL = "all"
# A kind of so many samples has its own middle and spread in equal parts with those of all.
_PRIOR = 10
_MAD_TO_STD = 1.4826
# Beyond the last score chances fall as they do in the outermost part of the known ones, at least so many.
_OUTERMOST, _FEWEST_OUTERMOST = 0.1, 5


@dataclass(frozen=True, eq=False)
class Calibration:
    """Scores [m] of normals that were not trained on, and their kinds [m], where thresholds are to be of kinds.

    A kind is any value that numpy can sort. Samples of a kind that is not among those here are held to all scores.
    Where each sample was left out in turn, none held out, the scores are `crossed`.
    """

    scores: np.ndarray
    kinds: np.ndarray | None = None
    crossed: bool = False

    def __post_init__(self) -> None:
        if not len(self.scores) or not np.isfinite(self.scores).all():
            raise InputError(f"calibration needs finite scores of normals: got {len(self.scores)}")
        if self.kinds is not None and len(self.kinds) != len(self.scores):
            raise InputError(f"one kind a calibration score: got {len(self.kinds)} for {len(self.scores)}")

    def threshold(self, false_alarms: float, kind: Any = None) -> float:
        """Above it a new normal of this kind is flagged."""
        return self._read(kind).threshold(false_alarms)

    def thresholds_of(self, kinds: np.ndarray | None, false_alarms: float, samples: int) -> np.ndarray:
        """A threshold [n] for each of so many samples of these kinds."""
        return self._each(kinds, samples, lambda reading, place: np.full(len(place), reading.threshold(false_alarms)))

    def p_values(self, scores: np.ndarray, kinds: np.ndarray | None = None) -> np.ndarray:
        """The chance [n] that a normal of the sample's kind scores at least as high.

        At most alpha for a sample above the threshold for alpha, and for no other, if all m scores together reach
        alpha: no p-value is below 1 / (m + 1).
        """
        return self._each(kinds, len(scores), lambda reading, place: reading.p_values(scores[place]))

    def standardised(self, scores: np.ndarray, kinds: np.ndarray | None = None) -> np.ndarray:
        """Scores [n] on one scale for every detector and kind: that of a standard Gaussian's upper tail.

        3.0 is exceeded by .00135 of normals. Between calibration scores the scale is interpolated. Beyond them it is
        extrapolated, chances falling exponentially as they do in the outermost tenth of the known scores. It rises
        with the score within a kind, always.
        """
        return self._each(kinds, len(scores), lambda reading, place: reading.standardised(scores[place]))

    def table(self, false_alarms: float, per_day: float | None = None) -> list[dict[str, Any]]:
        """A row for each kind, the largest first, or the one for all: what its threshold is and what it promises.

        `promised` is the share of false alarms in the mean over calibrations, `low` and `high` hold that of one
        calibration in 95 % of them, `low` being 0 where the threshold is borrowed; `guaranteed` is whether the kind's
        own scores reach the share that was asked for, so that nothing was borrowed. With `per_day` samples a day, in
        the shares that kinds have here, the expected false alarms a day.
        """
        rows = []
        for name, reading in self._rows():
            size = len(reading.scores)
            low, high = conformal.range_of_false_alarms(size, false_alarms, crossed=self.crossed)
            # Beyond its own scores a kind's false alarms are known to be no more than beyond the highest of them.
            low = low if reading.borrows_nothing(false_alarms) else 0.0
            row: dict[str, Any] = {
                "kind": name, "normals": size, "false_alarms": false_alarms,
                "threshold": reading.threshold(false_alarms), "promised": conformal.promised(size, false_alarms),
                "low": low, "high": high, "reachable": conformal.reachable(size),
                "guaranteed": conformal.reachable(size) <= false_alarms,
            }  # fmt: skip
            rows.append(
                row if per_day is None else row | {"per_day": row["promised"] * per_day * size / len(self.scores)}
            )
        return rows

    def together(self, false_alarms: float) -> dict[str, Any]:
        """A row as of `table` for new normals of all kinds, in the shares that they have here.

        Where thresholds are of kinds there is no single `threshold`, and the interval is that of a Beta law with the
        mean and variance of the kinds' own, each by its share: exact for a single kind. Its low end takes kinds that
        borrow for ones without false alarms.
        """
        rows = self.table(false_alarms)
        if self.kinds is None:
            return rows[0]
        share = np.array([row["normals"] for row in rows]) / len(self.scores)
        laws = [conformal.law_of_false_alarms(row["normals"], false_alarms, self.crossed) for row in rows]
        sure = np.array([row["guaranteed"] for row in rows])
        low = _quantile(0.025, share[sure], [law for law, own in zip(laws, sure, strict=True) if own])
        high = _quantile(0.975, share, laws)
        return {
            "kind": ALL, "normals": len(self.scores), "false_alarms": false_alarms, "threshold": None,
            "promised": float(sum(part * row["promised"] for part, row in zip(share, rows, strict=True))),
            "low": low, "high": high,
            "reachable": float(sum(part * row["reachable"] for part, row in zip(share, rows, strict=True))),
            "guaranteed": all(row["guaranteed"] for row in rows),
        }  # fmt: skip

    def _rows(self) -> list[tuple[str, _Reading]]:
        if self.kinds is None:
            return [(ALL, self._all)]
        largest = sorted(self._readings, key=lambda kind: -len(self._readings[kind].scores))
        return [(str(kind), self._readings[kind]) for kind in largest]

    def _each(self, kinds: np.ndarray | None, samples: int, of: Any) -> np.ndarray:
        if self.kinds is None or kinds is None:
            return of(self._all, np.arange(samples))
        if len(kinds) != samples:
            raise InputError(f"one kind a sample: got {len(kinds)} for {samples}")
        values = np.empty(samples)
        for kind in np.unique(kinds):
            place = np.flatnonzero(kinds == kind)
            values[place] = of(self._read(kind), place)
        return values

    def _read(self, kind: Any) -> _Reading:
        return self._all if self.kinds is None or kind is None else self._readings.get(kind, self._all)

    @cached_property
    def _all(self) -> _Reading:
        ordered = np.sort(self.scores)
        return _Reading(ordered, ordered)

    @cached_property
    def _readings(self) -> dict[Any, _Reading]:
        names, place = np.unique(np.asarray(self.kinds), return_inverse=True)
        middle, spread = _middle_and_spread(self.scores)
        at = np.array([_shrunken(self.scores[place == number], middle, spread) for number in range(len(names))])
        common = np.sort((self.scores - at[place, 0]) / at[place, 1])
        return {
            name: _Reading(np.sort(self.scores[place == number]), common * at[number, 1] + at[number, 0])
            for number, name in enumerate(names.tolist())
        }


@dataclass(frozen=True, eq=False)
class _Reading:
    """A kind's own scores [m] and those of all kinds [M] on its scale, both rising."""

    scores: np.ndarray
    borrowed: np.ndarray

    def threshold(self, false_alarms: float) -> float:
        of_kind = conformal.conformal_threshold(self.scores, false_alarms)
        reachable = conformal.reachable(len(self.scores))
        if self.borrows_nothing(false_alarms):
            return of_kind
        farther = of_kind + _outermost(self.borrowed, 1) * math.log(reachable / false_alarms)
        return max(farther, conformal.conformal_threshold(self.borrowed, false_alarms))

    def borrows_nothing(self, false_alarms: float) -> bool:
        return conformal.reachable(len(self.scores)) <= false_alarms or self.borrowed is self.scores

    def p_values(self, scores: np.ndarray) -> np.ndarray:
        of_kind, reachable = conformal.p_values(self.scores, scores), conformal.reachable(len(self.scores))
        above = np.maximum(scores - self.scores[-1], 0)
        falling = reachable * np.exp(-above / _outermost(self.borrowed, 1))
        beyond = np.minimum(reachable, np.maximum(falling, conformal.p_values(self.borrowed, scores)))
        return np.where(above > 0, beyond, of_kind)

    def standardised(self, scores: np.ndarray) -> np.ndarray:
        at, heights = self._curve
        middle = np.interp(scores, at, heights)
        above, below = np.maximum(scores - at[-1], 0), np.maximum(at[0] - scores, 0)
        upper, lower = (_outermost(self.borrowed, sign) for sign in (1, -1))
        # In logarithms, where chances of 1e-300 still differ.
        high = -scipy.special.ndtri_exp(scipy.special.log_ndtr(-heights[-1]) - above / upper)
        low = scipy.special.ndtri_exp(scipy.special.log_ndtr(heights[0]) - below / lower)
        return np.where(above > 0, high, np.where(below > 0, low, middle))

    @cached_property
    def _curve(self) -> tuple[np.ndarray, np.ndarray]:
        """Scores and the standardised values of what lies just above them, both strictly rising."""
        at = np.unique(np.concatenate([self.scores, self.borrowed[self.borrowed > self.scores[-1]]]))
        chance = self.p_values(np.nextafter(at, math.inf))
        heights = -scipy.special.ndtri(chance)
        first = np.append(True, np.diff(heights) > 0)
        return at[first], heights[first]


def _quantile(level: float, shares: np.ndarray, laws: list[Any]) -> float:
    """A quantile of the sum of independent shares with these laws, by the Beta law with its mean and variance."""
    if not laws:
        return 0.0
    mean = float(sum(share * law.mean() for share, law in zip(shares, laws, strict=True)))
    variance = float(sum(share**2 * law.var() for share, law in zip(shares, laws, strict=True)))
    size = mean * (1 - mean) / variance - 1
    return float(scipy.stats.beta(mean * size, (1 - mean) * size).ppf(level))


def _middle_and_spread(scores: np.ndarray) -> tuple[float, float]:
    middle = float(np.median(scores))
    spread = _MAD_TO_STD * float(np.median(np.abs(scores - middle)))
    return middle, spread if spread > 0 else float(scores.std()) or 1.0


def _shrunken(scores: np.ndarray, middle: float, spread: float) -> tuple[float, float]:
    """The middle and spread of a kind, drawn towards those of all by as much as it is small."""
    share = len(scores) / (len(scores) + _PRIOR)
    its_middle, its_spread = _middle_and_spread(scores) if np.ptp(scores) > 0 else (float(scores[0]), spread)
    return share * its_middle + (1 - share) * middle, spread * (its_spread / spread) ** share


def _outermost(rising: np.ndarray, sign: int) -> float:
    """Mean excess of the outermost scores over the innermost of them, upwards or downwards."""
    count = max(math.ceil(_OUTERMOST * len(rising)), min(_FEWEST_OUTERMOST, len(rising)))
    outer = rising[-count:] if sign > 0 else rising[:count]
    excess = float(np.mean(outer - outer[0]) if sign > 0 else np.mean(outer[-1] - outer))
    return excess if excess > 0 else float(np.std(rising)) or 1.0

"""Has normal changed? Tests that may be looked at after every sample: conformal test martingales.

Each new value is ranked among all that came before it, ties drawn. If nothing has changed (the values could as well
have come in any other order), these p-values are independent and uniform, whatever the values are (Vovk, Gammerman &
Shafer, Algorithmic Learning in a Random World, 2005, theorem 8.1). Whoever starts with 1 and bets on each p-value at
fair odds then has 1 / alpha or more at any time with a chance of at most alpha (Ville 1939). So the first time that
this happens is an alarm, however often one looks. Ranks are among all earlier values and not among the calibration
samples alone, because the luck of these would in time be taken for a change.

A bet is on a step: a share `r a` of the p-values below `a`, where `a` is fair. Nobody knows when a change begins, so
the stake is spread over all starts: half of it is at stake from the first sample on, because much may have happened
since the training, and of the rest (1 + t / 100) ** -.5 is not yet at stake after t values. Several tests share
the chance of a false alarm. Each has its own part of it, so their sum bounds the chance that any is called (Bonferroni,
which asks nothing of how they depend on each other).
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right, insort
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..core.validation import check_share
from .drift import Population, name_of

# Steps (a, r): high scores, that is small p-values, more often than usual, and low ones.
_HIGHER = ((0.02, 4.0), (0.02, 20.0), (0.1, 3.0), (0.3, 1.8))
_LOWER = tuple((1 - a, (1 - a * r) / (1 - a)) for a, r in _HIGHER)
# How often a kind may come, and samples unlike all others may: at so many times their usual share below so many times
# it. What is beyond 1 counts where earlier samples have changed already.
_SHARES = ((1.0, 0.1), (1.0, 0.4), (1.0, 0.7), (1.0, 1.5), (1.0, 3.0))
_MORE = ((1.0, 2.0), (1.5, 2.0), (1.5, 4.0), (2.0, 1.5), (3.0, 2.0))
# Of what is usual, at least this: a share of none could become no multiple.
_LEAST = 0.01
_MOST_AT_STAKE = 0.9
# What is at stake from the start, and the samples in which a third of the rest follows.
_AT_START, _STARTS = 0.5, 100
_ALL = slice(None)
_KEPT = ("logs", "counts", "highest", "called")
SCORE, SHARE, UNKNOWN, PLACE = "score", "share", "unknown", "place"


@dataclass(frozen=True)
class SequentialTest:
    """A question asked of every sample, or of every sample of one kind.

    Attributes:
        aspect: "score", "share", "unknown" or "place".
        cluster: the kind in question, -1 being none; None for all samples.
        steps: the bets (a, r) on its p-values.
        level: its part of the chance of a false alarm.
        axis: of places, along which.
    """

    aspect: str
    cluster: int | None
    steps: tuple[tuple[float, float], ...]
    level: float
    axis: int | None = None

    @property
    def name(self) -> str:
        """What people call it."""
        along = "" if self.axis is None else f" along axis {self.axis + 1}"
        return f"{self.aspect} of {name_of(self.cluster)}{along}"


def planned(usual: Mapping[int, float], unknown: float, level: float, axes: int = 0) -> tuple[SequentialTest, ...]:
    """Tests of scores and unlike samples of all and of each kind, and of the share of each kind and where it lies. All
    samples have half of the level; the kinds share the other half, one part by their size and as much evenly.

    Args:
        usual: the share of each kind among training samples.
        unknown: the share of these that is unlike all others.
        level: the chance that any test is ever called where nothing has changed.
        axes: along how many it is looked where the samples of a kind lie.
    """
    check_share(level, "level")
    scores, more = (*_HIGHER, *_LOWER), _multiples(unknown, _MORE)
    found = [SequentialTest(SCORE, None, scores, level / 4), SequentialTest(UNKNOWN, None, more, level / 4)]
    for cluster, share in usual.items():
        part = level / 2 * (share / sum(usual.values()) + 1 / len(usual)) / 2
        steps = {UNKNOWN: more, SCORE: scores}
        if len(usual) > 1:
            steps[SHARE] = _multiples(share, _SHARES)
        part /= len(steps) + (axes > 0)
        found += [SequentialTest(aspect, cluster, bets, part) for aspect, bets in steps.items()]
        found += [SequentialTest(PLACE, cluster, scores, part / axes, axis) for axis in range(axes)]
    return tuple(found)


def _multiples(share: float, times: Sequence[tuple[float, float]]) -> tuple[tuple[float, float], ...]:
    """Steps at these multiples of a share."""
    usual = min(max(share, _LEAST), 1 - _LEAST)
    return tuple((m * usual, r) for m, r in times if m * usual < 1 and m * usual * r <= _MOST_AT_STAKE)


class Martingales:
    """The tests, and what was seen so far.

    Args:
        tests: the questions.
        seed: draws where a value stands among equal ones. The draws of a sample depend on how many came before it,
            not on how these arrived.

    Attributes:
        logs: [test, bet], the logarithm of what each bet has.
        counts: [test], of how many p-values.
        highest: [test], the logarithm of the most that a test ever had.
        called: [test], the sample, counted from 1, at which it was called; 0 where it was not.
        samples: how many were observed.

    Examples:
        >>> random = np.random.default_rng(0)
        >>> watch = Martingales(planned({0: 1.0}, 0.05, 0.05))
        >>> usual = Population(np.zeros(500, int), np.zeros(500, bool), random.normal(size=500))
        >>> [test.name for test in watch.observe(usual)]
        []
        >>> higher = Population(np.zeros(500, int), np.zeros(500, bool), random.normal(size=500) + 1)
        >>> [test.name for test in watch.observe(higher)]
        ['score of all samples', 'score of kind 0']
    """

    def __init__(self, tests: Sequence[SequentialTest], seed: int = 0) -> None:
        self.tests, self._seed = tuple(tests), seed
        most = max(len(test.steps) for test in self.tests)
        # A bet that a test does not have is never at stake.
        self._steps = np.array([[*test.steps, *[(0.5, 1.0)] * (most - len(test.steps))] for test in self.tests])
        self._stakes = np.array(
            [[1 / len(test.steps)] * len(test.steps) + [0.0] * (most - len(test.steps)) for test in self.tests]
        )
        with np.errstate(divide="ignore"):
            self._stakes = np.log(self._stakes)
        a, r = self._steps[..., 0], self._steps[..., 1]
        self._below, self._above = np.log(r), np.log1p(-r * a) - np.log1p(-a)
        self.logs = np.full(self._steps.shape[:2], -np.inf)
        self.counts = np.zeros(len(self.tests), dtype=np.int64)
        self.highest = np.zeros(len(self.tests))
        self.called = np.zeros(len(self.tests), dtype=np.int64)
        self.samples = 0
        self._limits = np.array([-math.log(test.level) for test in self.tests])
        self._seen = _Seen()
        # What is asked of every sample, and what of those of a kind.
        self._of_all = [i for i, test in enumerate(self.tests) if test.cluster is None or test.aspect == SHARE]
        self._of_kind: dict[int | None, list[int]] = {}
        for i, test in enumerate(self.tests):
            if i not in self._of_all:
                self._of_kind.setdefault(test.cluster, []).append(i)

    def remember(self, earlier: Population) -> None:
        """Samples that new ones are ranked among, without a bet: training samples as if they were new, with scores
        where they were held out."""
        for sample in _rows(earlier):
            self._seen.add(*sample)

    def observe(self, new: Population) -> list[SequentialTest]:
        """Bet on new samples in their order; the tests that are called, each once."""
        before = self.called.copy()
        draws = self._draws(len(new))
        for sample, drawn in zip(_rows(new), draws, strict=True):
            self._seen.add(*sample)
            self.samples += 1
            self._bet(self._p_values(*sample, drawn))
        return [test for test, now, then in zip(self.tests, self.called, before, strict=True) if now and not then]

    @property
    def state(self) -> dict[str, Any]:
        """What `restore` needs beside the samples that were seen."""
        return {name: getattr(self, name).tolist() for name in _KEPT} | {"samples": self.samples}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave; what was seen before has to be remembered too."""
        for name in _KEPT:
            setattr(self, name, np.array(state[name], dtype=getattr(self, name).dtype))
        self.samples = int(state["samples"])

    def evidence(self) -> np.ndarray:
        """What each test has [test], as the logarithm by what it needs to be called: 0 is enough."""
        return self._wealth() - self._limits

    def _draws(self, count: int) -> np.ndarray:
        """Uniform numbers [count, test], which depend on the places of the samples in the stream alone."""
        blocks = -(-len(self.tests) // 4)  # a step of Philox gives four
        stream = np.random.Philox(key=self._seed).advance(self.samples * blocks)
        return np.random.Generator(stream).random((count, 4 * blocks))[:, : len(self.tests)]

    def _p_values(
        self, cluster: int, unknown: bool, score: float, place: Sequence[float], drawn: np.ndarray
    ) -> np.ndarray:
        """[test], NaN where a test asks nothing of such a sample."""
        found, seen = np.full(len(self.tests), np.nan), self._seen
        for i in self._of_all + self._of_kind.get(cluster, []):
            test = self.tests[i]
            of = test.cluster
            if test.aspect == SHARE:
                found[i] = _of_share(of == cluster, seen.counts[of], seen.counts[None], drawn[i])
            elif test.aspect == UNKNOWN:
                found[i] = _of_share(unknown, seen.unknown[of], seen.counts[of], drawn[i])
            elif not math.isnan(value := score if test.axis is None else place[test.axis]):
                found[i] = seen.rank((of, test.axis), value, drawn[i])
        return found

    def _bet(self, p: np.ndarray) -> None:
        asked = np.flatnonzero(~np.isnan(p))
        t = self.counts[asked] + 1
        woken = np.log(_unspent(t - 1) - _unspent(t))[:, None] + self._stakes[asked]
        won = np.where(p[asked, None] <= self._steps[asked, :, 0], self._below[asked], self._above[asked])
        self.logs[asked] = np.logaddexp(self.logs[asked], woken) + won
        self.counts[asked] = t
        wealth = self._wealth(asked)
        self.highest[asked] = np.maximum(self.highest[asked], wealth)
        self.called[asked[(wealth >= self._limits[asked]) & (self.called[asked] == 0)]] = self.samples

    def _wealth(self, of: np.ndarray | slice = _ALL) -> np.ndarray:
        """The logarithm of what these tests have [test], what is not yet at stake included."""
        return np.logaddexp(np.logaddexp.reduce(self.logs[of], axis=1), np.log(_unspent(self.counts[of])))


class _Seen:
    """What new values are ranked among."""

    def __init__(self) -> None:
        # By kind, None being all samples.
        self.counts: Counter[int | None] = Counter()
        self.unknown: Counter[int | None] = Counter()
        # By kind and axis, None being the score.
        self._values: dict[tuple[int | None, int | None], list[float]] = {}

    def add(self, cluster: int, unknown: bool, score: float, place: Sequence[float]) -> None:
        for of in (None, cluster):
            self.counts[of] += 1
            self.unknown[of] += unknown
            self._add((of, None), score)
        for axis, value in enumerate(place):
            self._add((cluster, axis), value)

    def _add(self, key: tuple[int | None, int | None], value: float) -> None:
        if not math.isnan(value):
            insort(self._values.setdefault(key, []), value)

    def rank(self, key: tuple[int | None, int | None], value: float, drawn: float) -> float:
        """The share of values above one that is among them, its place among equals drawn."""
        values = self._values[key]
        low, high = bisect_left(values, value), bisect_right(values, value)
        return (len(values) - high + drawn * (high - low)) / len(values)


def _rows(samples: Population) -> Iterator[tuple[int, bool, float, Sequence[float]]]:
    """Cluster, whether unlike all, score and place of each sample."""
    places: Any = [()] * len(samples) if samples.places is None else samples.places.tolist()
    columns = (part.tolist() for part in (samples.clusters, samples.unknown, samples.scores))
    return zip(*columns, places, strict=True)


def _of_share(is_one: bool, ones: int, total: int, drawn: float) -> float:
    """The p-value of a sample that is one of `ones` among `total`, itself included, or is not."""
    return drawn * ones / total if is_one else (ones + drawn * (total - ones)) / total


def _unspent(t: np.ndarray) -> np.ndarray:
    """What is not yet at stake after t values."""
    return np.where(t > 0, (1 - _AT_START) * (1 + t / _STARTS) ** -0.5, 1.0)

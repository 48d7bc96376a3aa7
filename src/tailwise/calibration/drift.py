"""Has normal changed? A scored batch held against the training data, kind by kind, with tests.

For every kind of normal: its share, by Fisher's exact test; its scores, by Mann and Whitney's (1947); how many of its
samples are unlike every training sample, by Fisher's test too, but for more of them only; and where its samples lie in
the middle, by Student's along the axis that they moved most along, corrected for the number of axes. Scores and unlike
samples for all together too. Holm's correction (1979) holds the chance that anything is named without cause to the
level.

One reference serves every batch, and its luck must not become every batch's alarm: in the tests of scores and places
the spreads of reference and batch are added, where the usual tests add their squares. Scores of samples that were
trained on are too low to be compared with, and have none here. What the reference has nothing of is not tested.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy

from ..errors import InputError
from ..numerics import intervals
from .clusters import NONE

LEVEL = 0.05
_ASPECTS = ("share", "score", "unknown", "place")
# Means of fewer samples say nothing of where a kind lies.
_FEWEST = 5


@dataclass(frozen=True, eq=False)
class Population:
    """Samples to compare.

    Attributes:
        clusters: [n] the cluster of the training sample nearest to each as a new sample, -1 being none.
        unknown: [n] bool, whether it is unlike every training sample.
        scores: [n], NaN where they cannot be compared, as of samples that were trained on.
        places: [n, k], coordinates, NaN where they are not known; None where none are.
    """

    clusters: np.ndarray
    unknown: np.ndarray
    scores: np.ndarray
    places: np.ndarray | None = None

    def __post_init__(self) -> None:
        if not len(self.clusters) == len(self.unknown) == len(self.scores) > 0:
            raise InputError(
                f"drift needs a cluster, a flag and a score for at least one sample: got {len(self.clusters)}, "
                f"{len(self.unknown)} and {len(self.scores)}"
            )

    def __len__(self) -> int:
        return len(self.clusters)


def name_of(cluster: int | None) -> str:
    """What people call a kind, `NONE` being none; None is all samples."""
    return "all samples" if cluster is None else "no kind" if cluster == NONE else f"kind {cluster}"


@dataclass(frozen=True)
class ClusterDrift:
    """One kind, or all samples, then (the reference) and now (the batch).

    Attributes:
        cluster: the number of a cluster, -1 for samples of none; None for all samples.
        counts, shares, medians, unknown: then and now: samples; of all samples; the median score, None without any; the
            share of these samples that is unlike every training sample.
        p_values: by aspect ("share", "score", "unknown", "place"), each corrected for how many are looked at (Holm).
        moved: how far the mean of its samples moved, by the spread of one sample then; None where it cannot be told.
        drifted: the aspects in which it is called drifted.
        examples: names of samples of this kind, to know it by: new ones where it has any.
    """

    cluster: int | None
    counts: tuple[int, int]
    shares: tuple[float, float]
    medians: tuple[float | None, float | None]
    unknown: tuple[float | None, float | None]
    p_values: Mapping[str, float]
    drifted: tuple[str, ...]
    moved: float | None = None
    examples: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """What people call it."""
        return name_of(self.cluster)


@dataclass(frozen=True)
class Visible:
    """The smallest changes of all samples together that a batch of this size would have shown.

    Attributes:
        samples: in the batch.
        unlike: the share of the batch that is unlike every training sample; None where not even all of it would do.
        higher: the chance that a new sample scores above a held-out one, .5 being no change; None where not even 1
            would do, or no scores are compared.
    """

    samples: int
    unlike: float | None
    higher: float | None

    def __str__(self) -> str:
        rows = f"{self.samples:,} {'sample' if self.samples == 1 else 'samples'}"
        said = []
        if self.unlike is not None:
            said.append(f"{_percent(self.unlike)} of them unlike every training sample")
        if self.higher is not None:
            said.append(f"scores above those of held-out samples in {_percent(self.higher)} of pairs (50 % is usual)")
        if not said:
            return f"{rows} could not have shown any change; give a larger batch"
        return f"{rows} could not have shown a change smaller than {', or '.join(said)}"


@dataclass(frozen=True)
class Drift:
    """What changed between the training data and a batch: all samples first, then the kinds, the surest first."""

    level: float
    rows: tuple[ClusterDrift, ...]
    visible: Visible | None = None

    @property
    def alarm(self) -> bool:
        """Whether anything is called drifted."""
        return any(row.drifted for row in self.rows)

    @property
    def named(self) -> tuple[ClusterDrift, ...]:
        """The kinds that are called drifted, the surest first."""
        return tuple(row for row in self.rows if row.drifted and row.cluster is not None)

    def as_dict(self) -> dict[str, Any]:
        """Everything, as plain data."""
        rows = [{"name": row.name, **vars(row), "p_values": dict(row.p_values)} for row in self.rows]
        return {"level": self.level, "alarm": self.alarm, "named": [row.name for row in self.named], "rows": rows}

    def table(self) -> list[list[str]]:
        """The rows as text: name, samples, share, score and unlike samples then and now, how far it moved, in what it
        drifted, and examples."""
        lines = []
        for row in self.rows:
            what = ", ".join(f"{aspect} ({row.p_values[aspect]:.2g})" for aspect in row.drifted)
            cells = [row.name, *map(str, row.counts), *map(_percent, row.shares), *map(_number, row.medians)]
            lines.append([*cells, *map(_percent, row.unknown), _number(row.moved), what, ", ".join(row.examples)])
        return lines

    def __str__(self) -> str:
        if not self.alarm:
            size = "" if self.visible is None else f": {self.visible}"
            return f"no drift was seen at the level {self.level:g}{size}"
        lines = [f"drift at the level {self.level:g}: {', '.join(row.name for row in self.rows if row.drifted)}"]
        for row in self.rows:
            lines += [f"  {row.name}: {_said(row, aspect)}" for aspect in row.drifted]
        return "\n".join(lines)


def drift(
    reference: Population,
    batch: Population,
    *,
    level: float = LEVEL,
    examples: Mapping[int, Sequence[str]] | None = None,
) -> Drift:
    """What changed from the reference to the batch.

    Args: reference: the training samples, each placed as if it were new (`Clusters.training_as_new`), with scores where
            they were held out.
        batch: the samples in question.
        level: the chance that anything is named where nothing has changed.
        examples: names of samples by kind, to show.

    Raises:
        InputError: the level is no share, or a score of the batch is not a number.
    """
    if not 0 < level < 1:
        raise InputError(f"level must lie between 0 and 1: got {level}")
    if not np.isfinite(batch.scores).all():
        raise InputError(f"{int((~np.isfinite(batch.scores)).sum())} scores of the batch are not finite numbers")
    clusters: list[int | None] = [None, *np.union1d(reference.clusters, batch.clusters).tolist()]
    raw: dict[tuple[int | None, str], float] = {}
    for cluster in clusters:
        then, now = _members(reference, cluster), _members(batch, cluster)
        if cluster is not None:
            raw[cluster, "share"] = _share_p(then, now)
            if len(before := _places(reference, then)) >= _FEWEST:
                raw[cluster, "place"] = _place_p(before, _places(batch, now))
        if np.isfinite(reference.scores[then]).any():
            raw[cluster, "score"] = _score_p(reference.scores[then], batch.scores[now])
        raw[cluster, "unknown"] = _more_p(reference.unknown[then], batch.unknown[now])
    corrected = dict(zip(raw, _holm(np.array([*raw.values()])).tolist(), strict=True))
    rows = []
    for cluster in clusters:
        p_values = {aspect: corrected[cluster, aspect] for aspect in _ASPECTS if (cluster, aspect) in corrected}
        drifted = tuple(aspect for aspect, p in p_values.items() if p <= level)
        names = () if cluster is None or examples is None else tuple(examples.get(cluster, ()))
        rows.append(_row(reference, batch, cluster, p_values, drifted, names))
    least = {row.cluster: min(raw[row.cluster, aspect] for aspect in row.p_values) for row in rows}
    ordered = (rows[0], *sorted(rows[1:], key=lambda row: least[row.cluster]))
    return Drift(level, ordered, _visible(reference, batch, level / len(raw)))


def _visible(reference: Population, batch: Population, level: float) -> Visible:
    """What the tests of all samples would call drifted at this level, which is corrected for how many they are."""
    new, held = len(batch), int(np.isfinite(reference.scores).sum())
    low, high = 0, new + 1
    while low < high:  # more unlike samples are never less significant
        count = (low + high) // 2
        shows = count <= new and _more_p(reference.unknown, np.arange(new) < count) <= level
        low, high = (low, count) if shows else (count + 1, high)
    higher = 0.5 + _spread_of_pairs(new, held) * float(scipy.stats.norm.isf(level / 2)) if held else 2.0
    return Visible(new, low / new if low <= new else None, higher if higher <= 1 else None)


def _row(
    reference: Population,
    batch: Population,
    cluster: int | None,
    p_values: Mapping[str, float],
    drifted: tuple[str, ...],
    examples: tuple[str, ...],
) -> ClusterDrift:
    members = [(population, _members(population, cluster)) for population in (reference, batch)]
    counts = tuple(int(of.sum()) for _, of in members)
    shares = tuple(float(of.mean()) for _, of in members)
    medians = tuple(_median(population.scores[of]) for population, of in members)
    unknown = tuple(float(population.unknown[of].mean()) if of.any() else None for population, of in members)
    moved = _moved(*(_places(population, of) for population, of in members)) if "place" in p_values else None
    return ClusterDrift(cluster, counts, shares, medians, unknown, p_values, drifted, moved, examples)  # type: ignore[arg-type]


def _members(population: Population, cluster: int | None) -> np.ndarray:
    return np.full(len(population), True) if cluster is None else population.clusters == cluster


def _share_p(then: np.ndarray, now: np.ndarray) -> float:
    """Whether a share of `then` is another than that of `now`, both bool: Fisher's exact test, two-sided."""
    return float(scipy.stats.fisher_exact([[now.sum(), (~now).sum()], [then.sum(), (~then).sum()]]).pvalue)


def _more_p(then: np.ndarray, now: np.ndarray) -> float:
    """Whether a share grew: Fisher's exact test, one-sided."""
    return intervals.chance_of_more(int(now.sum()), len(now), int(then.sum()), len(then))


def _score_p(then: np.ndarray, now: np.ndarray) -> float:
    """Whether scores are higher or lower than they were, 1 where there are none: Mann and Whitney's statistic over the
    sum of its spreads from either side."""
    then = then[np.isfinite(then)]
    if not len(then) or not len(now):
        return 1.0
    higher = scipy.stats.mannwhitneyu(now, then, method="asymptotic").statistic / (len(now) * len(then))
    return float(2 * scipy.stats.norm.sf(abs(higher - 0.5) / _spread_of_pairs(len(now), len(then))))


def _spread_of_pairs(now: int, then: int) -> float:
    """The spreads of Mann and Whitney's share of pairs from either side, added."""
    return (1 / (12 * now)) ** 0.5 + (1 / (12 * then)) ** 0.5


def _places(population: Population, members: np.ndarray) -> np.ndarray:
    """Known coordinates [m, k] of these samples."""
    if population.places is None:
        return np.empty((0, 0))
    places = population.places[members].astype(float)
    return places[np.isfinite(places).all(1)]


def _place_p(then: np.ndarray, now: np.ndarray) -> float:
    """Whether the mean of places [n, k] is another than it was: Student's statistic with both spreads added, on the
    axis where it is largest; 1 where there are too few to say."""
    if len(now) < _FEWEST or not then.shape[1]:
        return 1.0
    spread = sum(places.std(0, ddof=1) / len(places) ** 0.5 for places in (then, now))
    # Along an axis in which nothing differs there is only rounding.
    spread = np.maximum(spread, max(1e-4 * float(spread.max()), 1e-12))
    largest = float((np.abs(now.mean(0) - then.mean(0)) / spread).max())
    return min(1.0, float(2 * then.shape[1] * scipy.stats.t.sf(largest, min(len(then), len(now)) - 1)))


def _moved(then: np.ndarray, now: np.ndarray) -> float | None:
    """How far the mean moved, by the root mean square distance of a sample from it then."""
    if not len(now):
        return None
    usual = float(np.sqrt(then.var(0).sum()))
    return float(np.linalg.norm(now.mean(0) - then.mean(0))) / usual if usual > 0 else None


def _holm(p_values: np.ndarray) -> np.ndarray:
    """Each p-value corrected for their number (Holm 1979)."""
    order = p_values.argsort(kind="stable")
    stepped = np.maximum.accumulate((len(p_values) - np.arange(len(p_values))) * p_values[order])
    corrected = np.empty_like(p_values)
    corrected[order] = np.minimum(stepped, 1)
    return corrected


def _median(scores: np.ndarray) -> float | None:
    finite = scores[np.isfinite(scores)]
    return float(np.median(finite)) if len(finite) else None


def _said(row: ClusterDrift, aspect: str) -> str:
    like = f", such as {', '.join(row.examples)}" if row.examples else ""
    if aspect == "place":
        return f"its middle moved by {_number(row.moved)} spreads (p = {row.p_values[aspect]:.2g}){like}"
    show, what, values = {
        "share": (_percent, "share of all samples", row.shares),
        "score": (_number, "median score", row.medians),
        "unknown": (_percent, "unlike every training sample", row.unknown),
    }[aspect]
    return f"{what} {show(values[0])} -> {show(values[1])} (p = {row.p_values[aspect]:.2g}){like}"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"

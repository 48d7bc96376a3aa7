"""Which kind of normal is a sample of? Clusters found among training samples, kept with what places new samples among
them.

A new sample is of the cluster of its nearest training sample. It is unlike every training sample where it lies far from
those nearest to it and from the flat through them (as in local hyperplane distances, Vincent & Bengio 2001), by what is
usual where it lies. How far is calibrated on the training samples, each left out in turn, so that no more than a given
share of new normals is called unlike (conformal prediction, Vovk et al. 2005). Where they are few for the axes that
samples are placed along, they are left out of these too. No labels are used.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from ..core import inference
from ..core.data import Batch, Data
from ..core.modality import Modality
from ..errors import InputError
from ..numerics import counter_rng, image_filters, left_out, neighbours
from . import clustering, conformal

NONE, UNKNOWN = -1, -2
# Centre [d], scale [d] and axes [d, k] of a space.
_Axes: TypeAlias = tuple[Tensor, Tensor, Tensor]
# Fields of `Clusters` that are no part of its state.
_UNSAVED = ("modality", "training", "training_as_new")
# A random part of a larger training set is kept to compare with.
_MOST_SAMPLES = 10_000
# Clusters are found among fewer axes than samples are placed by, as everywhere; what a new kind differs in may lie in
# any. But axes that a few samples fill lie closer to these than to new ones: one for every so many samples is enough.
_AXES, _AXES_OF_MODES, _SAMPLES_PER_AXIS = 256, 32, 4
# Chosen on development draws (benchmarks/clusters.py): a flat through 40 samples and the distance to the third, held to
# a power of the distance to the tenth around the 10 nearest.
_FLAT, _NEAR, _USUAL = 40, 3, 10
_SHARE_OF_USUAL = 0.8
# Of images that are shrunk to at most 32 pixels a side, chosen likewise: the standard deviation of their blur, and how
# much their pixels say beside what is drawn. Pixels alone call few of the ones unknown that are new among digits.
_BLUR, _PIXELS = 1.0, 0.5
# Whether a kind moved is looked at along so many axes.
_LEADING = 16
# Samples of which axes lose no more than this share of the variance are held by them.
_LOST = 0.02
# So far below the limit, as a share, rounding does not matter.
_SURE = 0.999
# Samples that differ by less, as a share of their distance from the centre, are the same sample.
_ROUNDING = 1e-5


@dataclass(frozen=True, eq=False)
class Placed:
    """Where samples were placed: the cluster of the `nearest` training sample [n], whether they are `unknown` [n], and
    their leading coordinates `along` [n, k], NaN where they were not kept."""

    nearest: Tensor
    unknown: Tensor
    along: Tensor

    @property
    def cluster(self) -> Tensor:
        """[n] (int64) of each sample, as `Clusters` numbers them."""
        return torch.where(self.unknown, UNKNOWN, self.nearest)


@dataclass(eq=False)
class Clusters:
    """Found clusters, ready to say of which kind any sample is.

    A kind is the number of a cluster, from 0 by falling size; `NONE` (-1) for a sample that belongs to no found
    cluster, as a few alike do; `UNKNOWN` (-2) for one that is unlike every training sample.

    Attributes:
        sample_shape: int64, the shape of a sample.
        modality: what a sample is; no part of the state, which is tensors.
        centre, scale, axes: [d], [d], [d, k]: the principal components that samples are placed by.
        places: [m, k + 1] of training samples, at most 10,000; the last is how far a sample lies off these components.
        rows: [m] int64, which of the training samples these are.
        clusters: [m] int64, their clusters.
        usual: [m], how far each lies from its tenth nearest other.
        limit: [], how far a new sample may lie from it, on the scale of `_strangeness`.
        training: [n] int64, kinds of the training samples: their clusters. None where restored.
        training_as_new: where they would be placed as new samples, each left out. None where restored.
    """

    sample_shape: Tensor
    centre: Tensor
    scale: Tensor
    axes: Tensor
    places: Tensor
    rows: Tensor
    clusters: Tensor
    usual: Tensor
    limit: Tensor
    modality: Modality
    training: Tensor | None = None
    training_as_new: Placed | None = None

    @classmethod
    def learn(cls, data: Data, seed: int = 0, unknown: float = 0.05) -> Clusters:
        """Find the clusters of training samples and what it takes to place others.

        Training samples keep their cluster when they are asked for again. Copies of a sample count once. Beyond 10,000
        a random part is kept; the others have the cluster of the nearest in it, and as many of them as of new normals
        are called unknown.

        Args:
            data: the training samples.
            seed: draws the parts.
            unknown: the share of new normals that may be called unknown. Fewer than 1 / unknown samples cannot promise
                it: then nothing is unknown that lies no farther out than the farthest of them.

        Raises:
            InputError: a sample holds a number that is not finite, or `unknown` is no share.
        """
        if len(data) < 2:
            raise InputError(f"kinds are found among at least 2 samples: got {len(data)}")
        if not 0 < unknown < 1:
            raise InputError(f"unknown must lie between 0 and 1: got {unknown}")
        order = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed))
        chosen = order[:_MOST_SAMPLES].sort().values
        samples = torch.cat([_compared(batch.samples, data.modality) for batch in _batches(data.take(chosen))])
        # Of equal samples the first stands for all: a copy beside it would make what is new look farther out than it
        # is.
        distinct, standing = _distinct(samples)
        samples, rows = samples[distinct], chosen[distinct]
        small = data.modality.small
        pixels = data.modality.shrunk(data.read(chosen[:1])).numel() if small.spatial else 0
        # Without some samples as many axes as with all: distances along more of them are others.
        axes_of = functools.partial(_axes_of, count=_axes_for(len(samples)), small=small, pixels=pixels, seed=seed)
        centre, scale, axes = axes_of(samples)
        places = _placed(samples, centre, scale, axes)
        cluster_of = clustering.find(places[:, : min(_AXES_OF_MODES, axes.shape[1])], seed=seed, rare=True)
        distances, near = _others(places, places, torch.arange(len(places)))
        usual = _at(distances, _USUAL)
        fold = left_out.folds_of(len(samples), axes.shape[1])
        if fold is None:
            strangeness = _strangeness_of_known(places, distances, near)
        else:
            strangeness = _strangeness_left_out(samples, fold, axes_of)
        limit = torch.tensor(conformal.conformal_threshold(strangeness.numpy(), unknown), dtype=torch.float64)
        shape = torch.tensor(data.sample_shape)
        clusters = cls(shape, centre, scale, axes, places, rows, cluster_of, usual, limit, data.modality)
        training = torch.empty(len(data), dtype=torch.long)
        as_new = Placed(training.clone(), torch.zeros(len(data), dtype=torch.bool), clusters.along(len(data)))
        each = cluster_of, cluster_of[near[:, 0]], strangeness > limit
        training[chosen], as_new.nearest[chosen], as_new.unknown[chosen] = (values[standing] for values in each)
        rest = order[_MOST_SAMPLES:]
        if len(rest):
            others = clusters.place(data.take(rest))
            training[rest], as_new.nearest[rest], as_new.unknown[rest] = others.nearest, others.nearest, others.unknown
        clusters.training, clusters.training_as_new = training, as_new
        return clusters

    @classmethod
    def restore(cls, state: Mapping[str, Tensor], modality: Modality) -> Clusters:
        """What `state` gave, of samples of this modality.

        Raises: InputError: a tensor is missing or more than is known, or an earlier version compared such samples
            otherwise.
        """
        names = [name for name in cls.__dataclass_fields__ if name not in _UNSAVED]
        if set(state) != set(names):
            raise InputError(f"kinds are kept as {', '.join(names)}: got {', '.join(sorted(state))}", "fit again")
        restored = {name: state[name] for name in names}
        _check_state(restored)
        entries = _compared(torch.zeros(1, *state["sample_shape"].tolist()), modality).flatten(1).shape[1]
        if len(state["axes"]) != entries:
            raise InputError(
                f"kinds compare these samples by {entries} entries: got axes of {len(state['axes'])}",
                "an earlier version of tailwise made them: fit again",
            )
        return cls(**restored, modality=modality)  # type: ignore[arg-type]

    @property
    def state(self) -> dict[str, Tensor]:
        """Everything that `restore` needs."""
        return {name: value for name, value in vars(self).items() if name not in _UNSAVED}

    @property
    def count(self) -> int:
        """How many clusters were found."""
        return int(self.clusters.max()) + 1

    def along(self, count: int) -> Tensor:
        """Leading coordinates [count, k] of the training samples, as many as there were, NaN where they were not
        kept."""
        coordinates = torch.full((count, min(_LEADING, self.axes.shape[1])), torch.nan)
        coordinates[self.rows] = self.places[:, : coordinates.shape[1]]
        return coordinates

    def samples(self) -> Tensor | None:
        """The kept training samples [m, d] of rows, read back from their places; None where the axes do not hold
        them."""
        off, along = self.places[:, -1], self.places[:, :-1]
        # Squares, for what is off the axes and what is along them add up.
        held = bool(off.square().sum() <= _LOST * along.square().sum())
        return (along @ self.axes.T * self.scale + self.centre) if held else None

    def of(self, data: Data) -> Tensor:
        """The kind [n] (int64) of each sample.

        Raises:
            InputError: the samples are not of the shape of the training samples.
        """
        return self.place(data).cluster

    def place(self, data: Data) -> Placed:
        """Where each sample lies among the training samples; of one that is unlike all, the cluster of the nearest
        too."""
        if data.sample_shape != tuple(self.sample_shape.tolist()) or data.modality != self.modality:
            raise InputError(
                f"kinds were found among {self.modality.plural} of shape {self.sample_shape.tolist()}: got "
                f"{data.modality.plural} of shape {list(data.sample_shape)}",
                "give data of the same kind",
            )
        parts = [self._place(batch.samples) for batch in _batches(data)]
        return Placed(*(torch.cat([getattr(part, name) for part in parts]) for name in ("nearest", "unknown", "along")))

    def _place(self, samples: Tensor) -> Placed:
        places = _placed(_compared(samples, self.modality), self.centre, self.scale, self.axes)
        everywhere = bool(self.limit.isinf())  # no sample is too far from its nearest, which is then all that counts
        searched = neighbours.nearest(places, self.places, 1 if everywhere else _searched(self.places))
        distance, nearest = (column[:, 0] for column in searched)
        size = places.norm(dim=1)
        itself = torch.where((distance <= _ROUNDING * size) & size.isfinite(), nearest, -1)
        if everywhere:
            return Placed(self.clusters[nearest], ~distance.isfinite() & (itself < 0), places[:, :-1][:, :_LEADING])
        distances, near = neighbours.without_self(*searched, itself)
        unknown = _are_stranger(self.limit, places, self.places, self.usual, distances, near) & (itself < 0)
        return Placed(self.clusters[nearest], unknown, places[:, :-1][:, :_LEADING])


def _check_state(state: Mapping[str, Tensor]) -> None:
    """Raise an InputError unless these tensors can be the state of clusters: of fitting shapes, types and ranges."""
    kept, entries = len(state["rows"].flatten()), len(state["centre"].flatten())
    axes = state["axes"].shape[-1] if state["axes"].dim() else 0
    shapes = {
        "centre": (entries,), "scale": (entries,), "axes": (entries, axes), "places": (kept, axes + 1), "rows": (kept,),
        "clusters": (kept,), "usual": (kept,), "limit": (), "sample_shape": (state["sample_shape"].numel(),),
    }  # fmt: skip
    whole = ("rows", "clusters", "sample_shape")
    wrong = [
        name for name, value in state.items()
        if tuple(value.shape) != shapes[name]
        or value.dtype == torch.bool or value.is_floating_point() == (name in whole)
        or not (name in whole or name == "limit" or bool((value.abs() < _LARGEST).all()))
    ]  # fmt: skip
    if wrong or not kept or not entries or not axes:
        raise InputError(f"clusters are kept with unusable {', '.join(wrong or shapes)}", "fit again")
    ends = state["rows"].min(), state["clusters"].min() + 1, kept - 1 - state["clusters"].max(), state["scale"].min()
    if min(map(float, ends)) < 0 or not float(state["scale"].min()) or bool(state["limit"].isnan()):
        raise InputError("clusters are kept with numbers out of range", "fit again")


# Beyond it a square is no finite number in single precision.
_LARGEST = 1e18
_FARTHEST = 1e300


def names_of(clusters: Tensor) -> list[str]:
    """Kinds [n] as words for people: the number of a cluster, "none" or "unknown"."""
    words = {NONE: "none", UNKNOWN: "unknown"}
    return [words.get(cluster, str(cluster)) for cluster in clusters.tolist()]


def _placed(samples: Tensor, centre: Tensor, scale: Tensor, axes: Tensor) -> Tensor:
    """Coordinates [n, k] of samples [n, ...] along k axes, and how far each lies off them: [n, k + 1]."""
    standard = (samples.flatten(1).float() - centre) / scale
    along = standard @ axes
    return torch.cat([along, (standard - along @ axes.T).norm(dim=1, keepdim=True)], 1)


def _distinct(samples: Tensor) -> tuple[Tensor, Tensor]:
    """Places of the samples without their copies, in order, and for each sample [n] which of these it equals; all
    samples where fewer than 2 differ."""
    _, standing = torch.unique(counter_rng.seeds_of(samples), return_inverse=True)
    count = int(standing.max()) + 1
    if count < 2:
        return torch.arange(len(samples)), torch.arange(len(samples))
    first = torch.full((count,), len(samples)).scatter_reduce(0, standing, torch.arange(len(samples)), "amin")
    order = first.argsort()
    return first[order], order.argsort()[standing]


def _axes_for(samples: int) -> int:
    return min(_AXES, max(_AXES_OF_MODES, samples // _SAMPLES_PER_AXIS))


def _others(points: Tensor, samples: Tensor, itself: Tensor) -> tuple[Tensor, Tensor]:
    """Distances [n, k] of points [n, d] to the nearest among samples [m, d], and which these are [n, k], nearest first.

    None is its own neighbour: `itself` [n] says which of the samples each point is itself, -1 being none.
    """
    return neighbours.without_self(*neighbours.nearest(points, samples, _searched(samples)), itself)


def _searched(samples: Tensor) -> int:
    """How many neighbours are looked up, the sample itself being perhaps among them."""
    return min(_FLAT, len(samples) - 1) + 1


def _at(distances: Tensor, place: int) -> Tensor:
    """Distances [n] to the neighbours of this place, from 1, or to the last."""
    return distances[:, min(place, distances.shape[1]) - 1]


def _remoteness(points: Tensor, samples: Tensor, distances: Tensor, near: Tensor) -> Tensor:
    """How far points [n, d] lie from the samples that are nearest [n, k]: the geometric mean of the distances to the
    third and to the flat through all, for in few dimensions a flat is everywhere."""
    # In single precision, whose rounding is far below what tells a stranger.
    return (_at(distances, _NEAR) * neighbours.beyond(points, samples, near, torch.float32)).sqrt()


def _strangeness(distance: Tensor, around: Tensor, usual: Tensor) -> Tensor:
    """How far samples reach [n] by what is usual around them [n] (float64), higher is stranger; `usual` [m] is of
    all."""
    # Among duplicates nothing is far: a hundredth of the usual distance stands in for less than that.
    floor = (0.01 * usual.median()).clamp_min(1e-12).double()
    return torch.maximum(distance.double(), floor) / torch.maximum(around.double(), floor) ** _SHARE_OF_USUAL


def _strangeness_of_new(points: Tensor, samples: Tensor, usual: Tensor, distances: Tensor, near: Tensor) -> Tensor:
    """`_strangeness` of points [n, d] that lie so far [n, k] from the nearest samples [n, k]; `usual` [m] is of the
    samples [m, d]."""
    around = usual[near[:, :_USUAL]].mean(1)
    return _strangeness(_remoteness(points, samples, distances, near), around, usual)


def _are_stranger(
    limit: Tensor, points: Tensor, samples: Tensor, usual: Tensor, distances: Tensor, near: Tensor
) -> Tensor:
    """Which points [n, d] have a `_strangeness_of_new` above the limit.

    A flat through samples lies no farther from a point than these do in the mean, so that most need no flat.
    """
    no_flat = (_at(distances, _NEAR) * distances.square().mean(1).sqrt()).sqrt()
    strangeness = _strangeness(no_flat, usual[near[:, :_USUAL]].mean(1), usual)
    asked = (~(strangeness < _SURE * limit)).nonzero().flatten()
    strangeness[asked] = _strangeness_of_new(points[asked], samples, usual, distances[asked], near[asked])
    # Nothing finite can be said of what lies beyond single precision.
    return (strangeness > limit) | ~strangeness.isfinite()


def _strangeness_of_known(places: Tensor, distances: Tensor, near: Tensor) -> Tensor:
    """`_strangeness` [m] of samples at these places [m, d], so far [m, k] from the nearest others [m, k]."""
    usual, next_usual = (_at(distances, place) for place in (_USUAL, _USUAL + 1))
    around = near[:, :_USUAL]
    # What is usual around a sample is so without it: where it is among the ten, the next takes its place.
    among = (near[around][:, :, :_USUAL] == torch.arange(len(near))[:, None, None]).any(2)
    without = torch.where(among, next_usual[around], usual[around]).mean(1)
    return _strangeness(_remoteness(places, places, distances, near), without, usual)


def _strangeness_left_out(samples: Tensor, fold: Tensor, axes_of: Callable[[Tensor], _Axes]) -> Tensor:
    """`_strangeness` [m] of compared samples [m, ...] as new ones among the others, those of their fold [m] left out:
    few samples lie closer to their own axes, and to each other along them, than new ones do."""
    strangeness = torch.empty(len(samples), dtype=torch.float64)
    nobody = torch.full((len(samples),), -1)
    for each in range(int(fold.max()) + 1):
        axes = axes_of(samples[fold != each])
        known, new = (_placed(samples[part], *axes) for part in (fold != each, fold == each))
        usual = _at(_others(known, known, torch.arange(len(known)))[0], _USUAL)
        others = _others(new, known, nobody[: len(new)])
        strangeness[fold == each] = _strangeness_of_new(new, known, usual, *others)
    # What cannot be told in single precision is farther out than anything.
    return strangeness.nan_to_num(_FARTHEST, _FARTHEST)


def _compared(samples: Tensor, modality: Modality) -> Tensor:
    """Samples as they are compared: rows as they are, spectra [n, 1, bands] by their angle, and images shrunk, as [n,
    1, d] of their oriented gradients and then their pixels, both blurred: moved by a pixel it is much the same
    image."""
    small = modality.shrunk(samples)
    if modality.small.spatial:
        parts = image_filters.oriented(small), image_filters.blurred(small.float(), _BLUR)
        return torch.cat([part.flatten(1) for part in parts], 1)[:, None]
    return modality.compared(small)


def _axes_of(samples: Tensor, *, count: int, small: Modality, pixels: int, seed: int) -> _Axes:
    """`neighbours.principal_axes` of compared samples; of images the last `pixels` entries are scaled to vary a quarter
    as much, in all, as what comes before."""
    if not pixels:
        return neighbours.principal_axes(samples, count, seed, standardise=small.units_differ)
    variances = samples[:, 0].var(0, correction=0)
    gradients, bright = variances[:-pixels].sum(), variances[-pixels:].sum()
    scale = torch.ones_like(variances)
    if gradients > 0 and bright > 0:
        scale[-pixels:] = (bright / gradients).sqrt() / _PIXELS
    centre, _, axes = neighbours.principal_axes(samples / scale, count, seed, standardise=False)
    return centre * scale, scale, axes


def _batches(data: Data) -> Iterator[Batch]:
    return data.batches(inference.batch_size_for(data.sample_shape, 4_096))

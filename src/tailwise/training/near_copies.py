"""Samples that are all but copies of another: bursts of one part, frames of one film, a photo saved twice.

They make a threshold too low where one is trained on and its copy is held out, so both are held out together.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..core import embedding, inference
from ..core.context import Graph
from ..core.data import Data
from ..core.identity import digests
from ..core.modality import IMAGE
from ..core.problem import Previewed, Source
from ..errors import InputError
from ..numerics import neighbours

# Near copies are looked for among at most so many samples, because the search is exact.
_MOST_SAMPLES = 8_000
# Reading a picture again takes some milliseconds.
_MOST_PICTURES = 4_000
# Pictures of any shape are compared at so many pixels a side.
_SIDE = 32
# A sample is held against its tenth neighbour, so that a burst of up to nine pictures of one thing is found.
_NEIGHBOURS = 10
# Of a hundred sets without copies one may name some.
_CHANCE = 0.01
# Two of a rare kind are alone together, and yet no copies: those are also closer than usual samples are.
_CLOSE = 0.2
# Where most samples have near copies, the next neighbour after these is so many times as far.
_GAP = 2.5


def pairs(train: Data, test: Data | None, distinct: Tensor) -> list[tuple[int, int]] | None:
    """Pairs of a sample and the training sample that it is all but a copy of; exact copies are left out.

    A sample is a near copy if it lies closer to its nearest neighbour than chance would have it. Where samples lie
    evenly in d dimensions, the d-th powers of the distances to the first and the k-th neighbour have a ratio that is
    distributed as the smallest of k - 1 uniform numbers, whatever the density; d comes from the median ratio of the
    first two (after Facco et al. 2017). Where most samples have copies, as many photos of each part, these two are
    those beyond the copies. Distances are between principal components of all the samples.

    Args:
        distinct: places [m] of the training samples without their copies.

    Returns:
        The places of both, those of test samples counted on from the training samples. None where there are too few or
        too many samples to say, and for pixels and nodes, whose neighbours are alike anyway.
    """
    tested = 0 if test is None else len(test)
    alike = train.modality.continuum or isinstance(train.context, Graph)
    if alike or not 5 * _NEIGHBOURS <= len(distinct) <= _MOST_SAMPLES or tested > _MOST_SAMPLES:
        return None
    places = embedding.embedding_of(train if test is None else _joined(train, test))
    own, others = places[: len(train)][distinct], places[len(train) :]
    among, at = neighbours.without_self(*neighbours.nearest(own, own, _NEIGHBOURS + 2), torch.arange(len(own)))
    copies = _usual_copies(among)
    usual, next_ = float(among[:, copies].median()), among[:, copies + 1]
    ratio = float((next_ / among[:, copies].clamp_min(1e-30)).log().median())
    if usual <= 0 or ratio <= 0:
        return None
    dimension = math.log(2) / ratio
    close = _CLOSE * usual if not copies else math.sqrt(usual * float(among[:, copies - 1].median()))
    near = [
        (i, k)
        for k in range(max(1, copies))
        for i in _nearer_than_chance(among[:, k : k + _NEIGHBOURS], dimension, close)
    ]
    linked = [(int(distinct[i]), int(distinct[at[i, k]])) for i, k in near]
    found = [pair for place, pair in enumerate(linked) if pair[::-1] not in linked[:place]]
    if test is not None and tested:
        apart, at = neighbours.nearest(others, own, _NEIGHBOURS)
        near_test = [i for i in _nearer_than_chance(apart, dimension, close) if float(apart[i, 0]) > 0]
        found += [(len(train) + i, int(distinct[at[i, 0]])) for i in near_test]
    return found


def together(data: Data, source: Source | None) -> Tensor | None:
    """The number [n] of the thing that each sample shows: copies and near copies show one. None where all differ, where
    the source has no pictures, and where they are more than 4,000."""
    if not isinstance(source, Previewed) or len(data) > _MOST_PICTURES:
        return None
    seen = as_seen(source, data, None)[0]
    first: dict[bytes, int] = {}
    thing = torch.tensor([first.setdefault(digest, place) for place, digest in enumerate(digests(seen))])
    for one, other in pairs(seen, None, thing.unique()) or []:
        thing[thing == thing[one]] = int(thing[other])
    numbers = thing.unique(return_inverse=True)[1]
    return None if int(numbers.max()) + 1 == len(numbers) else numbers


def as_seen(source: Source | None, train: Data, test: Data | None) -> tuple[Data, Data | None]:
    """The samples as small pictures, where the source has them: features take traces of compression for content."""
    wanted = [train] if test is None else [train, test]
    if not isinstance(source, Previewed) or sum(map(len, wanted)) > _MOST_PICTURES:
        return train, test
    try:
        seen = [
            Data(torch.stack([_even(source.preview(name)) for name in data.names]), data.names, modality=IMAGE)
            for data in wanted
        ]
    except InputError:  # a file that went away since
        return train, test
    return seen[0], None if test is None else seen[1]


def _usual_copies(distances: Tensor) -> int:
    """How many copies most samples have, by the gap after them in the distances [n, k] to the neighbours."""
    middle = distances.median(0).values.clamp_min(1e-30)
    ratio = middle[1:_NEIGHBOURS] / middle[: _NEIGHBOURS - 1]
    return int(ratio.argmax()) + 1 if float(ratio.max()) > _GAP else 0


def _nearer_than_chance(distances: Tensor, dimension: float, close: float) -> list[int]:
    """Places of the rows [n, k] of distances whose first is smaller than chance gives among so many, and `close`."""
    power = (distances[:, 0] / distances[:, -1].clamp_min(1e-30)).double() ** dimension
    chance = -torch.expm1((distances.shape[1] - 1) * torch.log1p(-power.clamp_max(1 - 1e-12)))
    near = (len(distances) * chance < _CHANCE) & (distances[:, 0] < close)
    return [int(i) for i in near.nonzero()[:, 0]]


def _even(picture: Tensor) -> Tensor:
    """A picture [channels, height, width] of any shape at one size."""
    return nn.functional.adaptive_avg_pool2d(picture, _SIDE)


def _joined(train: Data, test: Data) -> Data:
    """Both as one, in memory, made small where they are images."""
    size = inference.batch_size_for(train.sample_shape, 64)
    parts = [train.modality.shrunk(batch.samples) for data in (train, test) for batch in data.batches(size)]
    return Data(torch.cat(parts), [*train.names, *test.names], modality=train.modality.small)

"""Means around each place of a map.

A mean over fewer places varies more. If a neighbourhood at the border were what lies inside of it, the farthest patches
of good images would lie there. So every mean here is over side x side values, in one of two ways.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import pad


def means_around(samples: Tensor, side: int) -> Tensor:
    """Means of side x side neighbourhoods, shifted inside at the border.

    Maps [b, channels, h, w] become [b, positions, channels].
    """
    height, width = samples.shape[2:]
    rows, columns = min(side, height), min(side, width)
    # Sums along one axis, then the other: half the time of avg_pool2d.
    means = _sums(_sums(samples, rows, 2), columns, 3) / (rows * columns)
    around = (*_missing(columns, side), *_missing(rows, side))
    return pad(means, around, mode="replicate").flatten(2).transpose(1, 2)


def padded_means(samples: Tensor, side: int) -> Tensor:
    """Means of side x side neighbourhoods, 0 outside the map: [b, channels, h, w] -> [b, positions, channels]."""
    far = side // 2
    sums = _sums(_sums(pad(samples, (far, far, far, far)), side, 2), side, 3)
    return sums.div_(side**2).flatten(2).transpose(1, 2)


def _missing(reach: int, side: int) -> tuple[int, int]:
    """How many places before and after those of whole neighbourhoods have none."""
    before = min(side // 2, reach - 1)
    return before, reach - 1 - before


def _sums(samples: Tensor, side: int, axis: int) -> Tensor:
    """The sums of `side` neighbours along an axis, wherever there are so many."""
    length = samples.shape[axis] - side + 1
    if side == 1:
        return samples.clone()
    found = samples.narrow(axis, 0, length) + samples.narrow(axis, 1, length)
    for place in range(2, side):
        found += samples.narrow(axis, place, length)
    return found

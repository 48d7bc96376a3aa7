"""Means around each place of a map."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad


def means_around(samples: Tensor, side: int) -> Tensor:
    """Means of side x side neighbourhoods, inside the map: [b, channels, h, w] -> [b, positions, channels]."""
    # Sums along one axis, then the other: half the time of avg_pool2d.
    inside = _sums(_sums(torch.ones_like(samples[:1, :1]), side, 2), side, 3)
    return (_sums(_sums(samples, side, 2), side, 3) / inside).flatten(2).transpose(1, 2)


def _sums(samples: Tensor, side: int, axis: int) -> Tensor:
    """The sum of each value and those around it along an axis, `side` in all, where there are so many."""
    far, length = side // 2, samples.shape[axis]
    around = pad(samples, (0, 0, far, far) if axis == 2 else (far, far))
    found = around.narrow(axis, 0, length)
    for place in range(1, side):
        found = found + around.narrow(axis, place, length)
    return found

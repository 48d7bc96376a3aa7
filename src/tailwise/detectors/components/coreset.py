"""A few samples that cover many: k-centres (Gonzalez 1985)."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from ...numerics import export_ops

# Numbers held at once: more than 32 MiB, which Linux takes back as soon as it is free; what is smaller leaves gaps
# between what is kept, a few tens of MB for each block of images.
BLOCK_ENTRIES = 9_000_000
# What float32 leaves of a squared distance between equal points, as a share of their squared length.
_ROUNDING = 1e-6
# Distances for the choice are taken along so many random directions where there are more than twice as many channels.
# They are about 4 % off then, one in sqrt(2 * 256). At 152 channels the exact choice is as fast as one along 128.
_DIRECTIONS = 256
_CANDIDATES = 512


def k_centres(points: Tensor, stretch: Tensor, count: int, first: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Indices of `count` points [n, d], each the farthest from those before, distances times its `stretch` [n]; and the
    largest distance that is left. The first are those at `first`, or that farthest from the mean. Fewer where points
    are equal.

    The choice is that of one pass over all points a choice, made in fewer: distances only fall, so as long as the
    farthest of some candidates is no nearer than every point outside them was, it is the farthest of all.
    """
    norms = points.square().sum(1)
    factor = stretch.square()
    near = torch.full_like(norms, torch.inf)
    new = first
    if new is None:
        new = ((points - points.mean(0)).square().sum(1) * factor).argmax().reshape(1)
    chosen: list[Tensor] = []
    while len(new):
        chosen.append(new)
        _approach(near, points, norms, factor, new)
        left = count - sum(map(len, chosen))
        new = _farthest(near, points, norms, factor, left) if left > 0 else new[:0]
    return torch.cat(chosen), (near / factor).max().sqrt()


def _approach(near: Tensor, points: Tensor, norms: Tensor, factor: Tensor, new: Tensor) -> None:
    """Take the new centres into each point's stretched squared distance [n] to its nearest centre."""
    start = 0
    for block, relative in relative_squares(points, points[new], norms[new]):
        part = slice(start, start + len(block))
        squared = relative.amin(1).add_(norms[part])
        torch.minimum(near[part], _told(squared, norms[part]).mul_(factor[part]), out=near[part])
        start = part.stop
    near[new] = 0


def relative_squares(points: Tensor, others: Tensor, norms: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Blocks [b, d] of points, and their squared distances [b, m] to others [m, d] of these squared norms [m], less
    each point's own; the next block overwrites them."""
    if export_ops.tracing():
        yield points, torch.addmm(norms, points, others.T, alpha=-2)
        return
    step = max(1, BLOCK_ENTRIES // len(others))
    # One buffer for all: to map so much memory anew takes as long as to fill it.
    held = points.new_empty(min(step, len(points)), len(others))
    for block in points.split(step):
        # A buffer takes no gradients: of a detector that is still to be trained on points may ask for some.
        yield block, torch.addmm(norms, block.detach(), others.T, alpha=-2, out=held[: len(block)])


def _told(squared: Tensor, norms: Tensor) -> Tensor:
    """Squared distances, 0 where rounding leaves equal points a little apart, by how much depends on the processor."""
    return squared.masked_fill_(squared <= _ROUNDING * norms, 0)


def _farthest(near: Tensor, points: Tensor, norms: Tensor, factor: Tensor, most: int) -> Tensor:
    """The next centres that are certain before all distances are brought up to date."""
    top = near.topk(min(_CANDIDATES, len(near)))
    outside = float(top.values[-1]) if len(top.values) < len(near) else 0.0
    candidates = points[top.indices]
    between = _told(torch.cdist(candidates, candidates).square(), norms[top.indices][:, None])
    between *= factor[top.indices][:, None]
    distances = top.values.clone()
    found: list[int] = []
    while len(found) < most:
        farthest = int(distances.argmax())
        value = float(distances[farthest])
        if value <= 0 or value < outside:
            break
        found.append(farthest)
        torch.minimum(distances, between[:, farthest], out=distances)
        distances[farthest] = 0
    return top.indices[found]


def directed(points: Tensor) -> Tensor:
    """Points [n, d] along random directions where there are many channels; otherwise the points themselves."""
    count = directions(points.shape[1])
    if not count:
        return points
    generator = torch.Generator().manual_seed(0)
    along = torch.randn(points.shape[1], count, generator=generator) / math.sqrt(count)
    return points @ along.to(points)


def directions(channels: int) -> int:
    """How many random directions stand for so many channels; 0 where distances are exact."""
    return _DIRECTIONS if channels > 2 * _DIRECTIONS else 0

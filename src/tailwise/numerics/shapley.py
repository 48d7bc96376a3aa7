"""Which parts of a sample drive its score: for any detector, from nothing but its scores.

A sample is walked from a reference, such as the average of its nearest normals, to itself in small even steps, and in
each step its parts move one after another, in an order that is drawn at random. What the score gains while a part
moves is that part's. One step is Shapley's value by sampling (Castro et al. 2009; Strumbelj & Kononenko 2014); many
steps come to that of Aumann & Shapley (1974), which integrated gradients compute (Sundararajan et al., ICML 2017),
without a gradient and without samples that are half one thing and half another. Each order is also taken in reverse
(as in Mitchell et al., JMLR 2022), which is exact for scores that are quadratic in the sample.

Whatever the detector, the parts' contributions add up to the sample's score less the reference's.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..errors import InputError

# So many entries of samples are scored for one explanation at most, while there is more than one step.
_ENTRIES = 40_000_000
_SCORED, _MOST_STEPS = 20_000, 16
_CHUNK_ENTRIES = 4_000_000


def contributions(
    score: Callable[[Tensor], Tensor], sample: Tensor, reference: Tensor, part: Tensor, steps: int, seed: int = 0
) -> Tensor:
    """Contribution [parts] of each part to score(sample) - score(reference), float64.

    Args:
        score: of samples [b, *sample] -> [b].
        sample, reference: [*sample].
        part: [*sample] which part each entry belongs to, counted from 0.
        steps: even steps from the reference to the sample; each costs two scores a part.
        seed: of the orders.
    """
    if not sample.shape == reference.shape == part.shape:
        shapes = ", ".join(str(list(tensor.shape)) for tensor in (sample, reference, part))
        raise InputError(f"sample, reference and part must have one shape: got {shapes}")
    if steps < 1:
        raise InputError(f"at least 1 step is needed: got {steps}")
    generator = torch.Generator().manual_seed(seed)
    count = int(part.max()) + 1
    totals = torch.zeros(count, dtype=torch.float64)
    for step in range(steps):
        low, high = (reference + (sample - reference) * ((step + end) / steps) for end in (0, 1))
        # The product above need not give the sample to the last digit.
        high = sample if step == steps - 1 else high
        order = torch.randperm(count, generator=generator)
        for one in (order, order.flip(0)):
            totals[one] += _gains(score, low, high, part, one) / 2
    return totals


def _gains(score: Callable[[Tensor], Tensor], low: Tensor, high: Tensor, part: Tensor, order: Tensor) -> Tensor:
    """What the score gains [parts] as the parts move from `low` to `high`, in this order."""
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order))
    moved = rank[part]  # [*sample], as how many-th each entry moves
    counts = torch.arange(len(order) + 1).view(-1, *[1] * low.dim())
    scores = [
        score(torch.where(moved < block, high, low)).double()
        for block in counts.split(max(1, _CHUNK_ENTRIES // max(1, low.numel())))
    ]
    return torch.cat(scores).diff()


def steps_for(parts: int, entries: int) -> int:
    """How many steps can be afforded for samples of so many parts and entries."""
    scored = 2 * (parts + 1)
    return max(1, min(_MOST_STEPS, _SCORED // scored, _ENTRIES // (scored * entries)))


def grid(height: int, width: int, side: int) -> Tensor:
    """[height, width]: which of at most side x side cells of an even grid each place lies in, row by row."""
    rows, columns = (torch.arange(length) * min(side, length) // length for length in (height, width))
    return rows[:, None] * min(side, width) + columns[None]


def windows(length: int, most: int) -> Tensor:
    """[length]: which of at most `most` even windows of neighbours each place lies in."""
    return torch.arange(length) * min(most, length) // length

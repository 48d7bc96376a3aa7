"""Kinds of normal, found in an embedding without labels, for thresholds and reports.

Units that share nearest neighbours are joined, the closest groups first, for as long as two groups are tied to each
other more than a small share of what chance would give them: average linkage on the shared-nearest-neighbour graph
(Jarvis & Patrick 1973) with the resolution of modularity (Reichardt & Bornholdt 2006) as its stop rule. Both the
number of modes and their sizes come from the data; a kind of five units is a mode like any other.
"""

from __future__ import annotations

import heapq

import numpy as np
import torch
from scipy.sparse import csr_matrix
from torch import Tensor

from . import neighbours
from .errors import InputError
from .weights import check_finite

# Chosen on development draws (long-tailed MNIST and Fashion-MNIST, digits, pooled object features, Gaussian blobs).
_RESOLUTION = 0.05
# Joining is a loop over edges in Python; beyond this many units it sees a sample, and the rest follow their nearest.
_MOST_UNITS = 4_000


def find(embedding: Tensor, *, smallest: int = 5, seed: int = 0) -> Tensor:
    """Found modes [n] (int64) of embedded units [n, d], numbered from 0 by falling size; -1 belongs to none.

    Modes with fewer than `smallest` units are none. Of more than 4,000 units a sample is searched, so the smallest
    kind that can be found grows in proportion. Not every kind is found: one of about 20 units that overlaps another
    is merged into it, and a large, uneven kind may come out as several.

    Raises:
        InputError: the embedding is not [n, d] or holds a number that is not finite.
    """
    if embedding.dim() != 2:
        raise InputError(f"modes are found in an embedding [n, d]: got shape {list(embedding.shape)}", "flatten it")
    if smallest < 2:
        raise InputError(f"a mode needs at least 2 units: got smallest={smallest}")
    check_finite(embedding, "the embedding's rows")
    points = embedding.detach().float().cpu()
    points = points - points.mean(0)
    if len(points) < smallest:
        return torch.full((len(points),), -1)
    if len(points) <= _MOST_UNITS:
        return _numbered(_joined(neighbours.ties(points, seed)), smallest)
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(points), generator=generator)[:_MOST_UNITS]
    found = _numbered(_joined(neighbours.ties(points[chosen], seed)), smallest)
    return _numbered(assign(points, points[chosen], found).numpy(), smallest)


def assign(embedding_new: Tensor, embedding: Tensor, modes: Tensor) -> Tensor:
    """Modes [q] of new units [q, d]: each takes that of its nearest among units [n, d] of known modes [n]."""
    if len(modes) != len(embedding) or embedding_new.shape[1:] != embedding.shape[1:]:
        raise InputError(
            f"one mode a unit in one embedding: got {len(modes)} modes for {list(embedding.shape)}, "
            f"new units {list(embedding_new.shape)}"
        )
    points, new = embedding.detach().float().cpu(), embedding_new.detach().float().cpu()
    centre = points.mean(0)
    return modes.cpu()[neighbours.nearest(new - centre, points - centre, 1)[1][:, 0]]


def _joined(ties: csr_matrix) -> np.ndarray:
    """Group of each unit [n]: pairs are joined by falling tie / (degree x degree), down to the resolution."""
    tied = [dict(zip(ties[i].indices.tolist(), ties[i].data.tolist(), strict=True)) for i in range(ties.shape[0])]
    degree = [sum(row.values(), 0.0) for row in tied]
    total = max(sum(degree), 1e-30)
    queue = [(-tie / (degree[a] * degree[b]), a, b) for a, row in enumerate(tied) for b, tie in row.items() if a < b]
    heapq.heapify(queue)
    into = list(range(len(tied)))
    while queue and -queue[0][0] * total > _RESOLUTION:
        _, a, b = heapq.heappop(queue)
        # A joined group gets a new number, so pairs queued with an old number are out of date.
        if into[a] == a and into[b] == b:
            _join(a, b, tied, degree, into, queue)
    for group in reversed(range(len(into))):
        into[group] = into[into[group]]
    return np.array(into[: ties.shape[0]])


def _join(
    a: int,
    b: int,
    tied: list[dict[int, float]],
    degree: list[float],
    into: list[int],
    queue: list[tuple[float, int, int]],
) -> None:
    new = len(tied)
    few, many = sorted((tied[a], tied[b]), key=len)
    for other, tie in few.items():
        many[other] = many.get(other, 0.0) + tie
    del many[a], many[b]
    tied.append(many)
    degree.append(degree[a] + degree[b])
    into.append(new)
    into[a] = into[b] = new
    for other, tie in many.items():
        tied[other].pop(a, None)
        tied[other].pop(b, None)
        tied[other][new] = tie
        heapq.heappush(queue, (-tie / (degree[new] * degree[other]), other, new))


def _numbered(groups: np.ndarray, smallest: int) -> Tensor:
    """Numbers 0, 1, ... by falling size, the earliest member first among equals; -1 for groups below `smallest`."""
    _, first, group, size = np.unique(groups, return_index=True, return_inverse=True, return_counts=True)
    kept = (size >= smallest) & (groups[first] >= 0)
    order = [g for g in np.lexsort((first, -size)) if kept[g]]
    number = np.full(len(size), -1)
    number[order] = np.arange(len(order))
    return torch.from_numpy(number[group].astype(np.int64))

"""Kinds of normal, found in an embedding without labels, for thresholds and reports.

Samples that share nearest neighbours are joined, the closest groups first, for as long as two groups are tied to each
other more than a small share of what chance would give them: average linkage on the shared-nearest-neighbour graph
(Jarvis & Patrick 1973) with the resolution of modularity (Reichardt & Bornholdt 2006) as its stop rule. Both the
number of clusters and their sizes come from the data; a kind of five samples is a cluster like any other.

Chance gives a rare kind few ties with anything, so that a few more than that join it to its neighbour. Where rare kinds
matter more than whole ones, groups that keep most of their ties to themselves (a low conductance) are parted off again.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterator

import numpy as np
import scipy
import torch
from torch import Tensor

from ..core.validation import check_finite
from ..errors import InputError
from ..numerics import neighbours

# Chosen on development draws (long-tailed MNIST and Fashion-MNIST, digits, pooled object features, Gaussian blobs).
_RESOLUTION = 0.05
# A rare kind is parted off where it has at most this share of the samples, and gives at most this share of its ties
# away.
_RARE, _GIVEN_AWAY = 0.02, 0.1
_FEW = 8
# Joining is a loop over edges in Python; beyond this many samples it sees a random part, and the rest follow their
# nearest.
_MOST_SAMPLES = 4_000


def find(embedding: Tensor, *, smallest: int = 5, seed: int = 0, rare: bool = False) -> Tensor:
    """Found clusters [n] (int64) of embedded samples [n, d], numbered from 0 by falling size; -1 belongs to none.

    Clusters with fewer than `smallest` samples are none. Of more than 4,000 samples a random part is searched, so the
    smallest kind that can be found grows in proportion. Not every kind is found: one of about 20 samples that overlaps
    another is merged into it, and a large, uneven kind may come out as several.

    With `rare`, groups of at most 2 % that keep nine tenths of their ties to themselves are clusters of their own: more
    rare kinds are found, and more small clusters that are parts of a kind.

    Raises:
        InputError: the embedding is not [n, d] or holds a number that is not finite.
    """
    if embedding.dim() != 2:
        raise InputError(f"clusters are found in an embedding [n, d]: got shape {list(embedding.shape)}", "flatten it")
    if smallest < 2:
        raise InputError(f"a cluster needs at least 2 samples: got smallest={smallest}")
    check_finite(embedding, "the embedding's rows")
    points = embedding.detach().float().cpu()
    points = points - points.mean(0)
    if len(points) < smallest:
        return torch.full((len(points),), -1)
    if len(points) <= _MOST_SAMPLES:
        return _clusters_of(points, smallest, seed, rare)
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(points), generator=generator)[:_MOST_SAMPLES]
    clusters = _clusters_of(points[chosen], smallest, seed, rare)
    return _numbered(assign(points, points[chosen], clusters).numpy(), smallest)


def assign(embedding_new: Tensor, embedding: Tensor, clusters: Tensor) -> Tensor:
    """Clusters [q] of new samples [q, d]: each takes that of its nearest among samples [n, d] of known clusters [n]."""
    if len(clusters) != len(embedding) or embedding_new.shape[1:] != embedding.shape[1:]:
        raise InputError(
            f"one cluster a sample in one embedding: got {len(clusters)} clusters for {list(embedding.shape)}, "
            f"new samples {list(embedding_new.shape)}"
        )
    points, new = embedding.detach().float().cpu(), embedding_new.detach().float().cpu()
    centre = points.mean(0)
    return clusters.cpu()[neighbours.nearest(new - centre, points - centre, 1)[1][:, 0]]


def _clusters_of(points: Tensor, smallest: int, seed: int, rare: bool) -> Tensor:
    ties = neighbours.ties(points, seed)
    groups = _joined(ties)
    if rare:
        for members in _parted(ties, smallest, max(_FEW, int(_RARE * len(points)))):
            around, counts = np.unique(groups[members], return_counts=True)
            # What is most of a group already is a cluster as it is.
            if counts.max() <= (groups == around[counts.argmax()]).sum() / 2:
                groups[members] = groups.max() + 1
    return _numbered(groups, smallest)


def _joined(ties: scipy.sparse.csr_matrix) -> np.ndarray:
    """Group of each sample [n]: pairs are joined by falling tie / (degree x degree), down to the resolution."""
    into = list(range(ties.shape[0]))
    least = _RESOLUTION / max(float(ties.sum()), 1e-30)
    for a, b, _ in _joins(ties, lambda tie, one, other: tie / (one * other), least):
        into[a] = into[b] = len(into)
        into.append(len(into))
    for group in reversed(range(len(into))):
        into[group] = into[into[group]]
    return np.array(into[: ties.shape[0]])


def _parted(ties: scipy.sparse.csr_matrix, smallest: int, most: int) -> list[list[int]]:
    """Groups of `smallest` to `most` samples that give few of their ties away, the largest first, without overlap:
    among those that form when pairs are joined by falling share of the smaller one's ties."""
    members: list[list[int]] = [[i] for i in range(ties.shape[0])]
    degree: list[float] = np.asarray(ties.sum(1)).ravel().tolist()
    inner = [0.0] * len(members)
    for a, b, tie in _joins(ties, lambda tie, one, other: tie / min(one, other), 0.0):
        whole = members[a] and members[b] and len(members[a]) + len(members[b]) <= most
        members.append(members[a] + members[b] if whole else [])
        degree.append(degree[a] + degree[b])
        inner.append(inner[a] + inner[b] + 2 * tie)
    parts: list[list[int]] = []
    placed: set[int] = set()
    for group in sorted(range(len(members)), key=lambda each: -len(members[each])):
        held = inner[group] >= (1 - _GIVEN_AWAY) * degree[group]
        if len(members[group]) >= smallest and held and placed.isdisjoint(members[group]):
            parts.append(members[group])
            placed.update(members[group])
    return parts


def _joins(
    ties: scipy.sparse.csr_matrix, closeness: Callable[[float, float, float], float], least: float
) -> Iterator[tuple[int, int, float]]:
    """The groups that are joined, the closest first, while closer than `least`, and the tie between them; the k-th two
    become group n + k. `closeness` is of a tie and the degrees of its two groups, and falls as these grow.

    A joined group keeps the place of the one with more ties, so that only the ties of the other are moved. What waits
    in the queue is as close as it was, or less: it is looked at again when its turn comes.
    """
    place, tie_of = ties.indices.tolist(), ties.data.tolist()
    tied = [dict(zip(place[i:j], tie_of[i:j], strict=True)) for i, j in itertools.pairwise(ties.indptr.tolist())]
    degree = [sum(row.values(), 0.0) for row in tied]
    group = list(range(len(tied)))

    def waiting(a: int, b: int) -> tuple[float, int, int, int, int]:
        a, b = (a, b) if group[a] < group[b] else (b, a)
        return -closeness(tied[a][b], degree[a], degree[b]), group[a], group[b], a, b

    queue = [waiting(a, b) for a, row in enumerate(tied) for b in row if a < b]
    heapq.heapify(queue)
    joined = len(tied)
    while queue and -queue[0][0] > least:
        first = heapq.heappop(queue)
        a, b = first[3:]
        if b not in tied[a]:
            continue
        now = waiting(a, b)
        if now != first:
            heapq.heappush(queue, now)
            continue
        yield group[a], group[b], tied[a][b]
        few, many = sorted((a, b), key=lambda each: len(tied[each]))
        del tied[few][many], tied[many][few]
        degree[many] = degree[a] + degree[b]
        group[many] = joined
        joined += 1
        for other, tie in tied[few].items():
            del tied[other][few]
            tied[many][other] = tied[other][many] = tied[many].get(other, 0.0) + tie
            heapq.heappush(queue, waiting(many, other))
        tied[few] = {}


def _numbered(groups: np.ndarray, smallest: int) -> Tensor:
    """Numbers 0, 1, ... by falling size, the earliest member first among equals; -1 for groups below `smallest`."""
    _, first, group, size = np.unique(groups, return_index=True, return_inverse=True, return_counts=True)
    large_enough = (size >= smallest) & (groups[first] >= 0)
    order = [g for g in np.lexsort((first, -size)) if large_enough[g]]
    number = np.full(len(size), -1)
    number[order] = np.arange(len(order))
    return torch.from_numpy(number[group].astype(np.int64))

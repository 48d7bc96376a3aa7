"""Nearest neighbours and the embedding they are looked up in.

Distances are Euclidean. Small sets are searched exactly, in blocks; within a set too large for that, neighbours are
searched inside the leaves of a few random-projection trees (Dasgupta & Freund 2008), which costs O(n log n).
"""

from __future__ import annotations

import torch
from torch import Tensor

# Above this many units the search within one set goes through trees: exact search is quadratic.
_EXACT_UNITS = 8_000
_BLOCK_ENTRIES = 4_000_000
_LEAF = 200
_TREES = 3
_SAMPLE = 5_000


def nearest(query: Tensor, reference: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Distances [q, k] and indices [q, k] of the k nearest reference rows, nearest first. Exact.

    `query` is [q, d], `reference` [m, d] with m >= k.
    """
    distances, indices = [], []
    for block in query.split(max(1, _BLOCK_ENTRIES // len(reference))):
        near = _distances(block, reference).topk(k, largest=False)
        # Recomputed from the differences: the product form above loses digits for close rows.
        exact = (block[:, None] - reference[near.indices]).square().sum(2).sqrt()
        exact, order = exact.sort(1)
        distances.append(exact)
        indices.append(near.indices.gather(1, order))
    if not distances:
        return query.new_empty(0, k), query.new_empty(0, k, dtype=torch.long)
    return torch.cat(distances), torch.cat(indices)


def nearest_within(points: Tensor, k: int, seed: int = 0) -> Tensor:
    """Indices [n, k] of each point's k nearest other points; k is cut to n - 1."""
    k = min(k, len(points) - 1)
    if len(points) <= _EXACT_UNITS:
        return _leaf_neighbours(points, k)[1]
    generator = torch.Generator(points.device).manual_seed(seed)
    distances = points.new_full((len(points), k), torch.inf)
    indices = torch.zeros(len(points), k, dtype=torch.long, device=points.device)
    for _ in range(_TREES):
        for leaf in _leaves(points, max(_LEAF, 4 * k), generator):
            near, place = _leaf_neighbours(points[leaf], k)
            distances[leaf], indices[leaf] = _merge(distances[leaf], indices[leaf], near, leaf[place])
    return indices


def principal_components(units: Tensor, dims: int = 32, seed: int = 0) -> Tensor:
    """Coordinates [n, min(dims, ...)] of units [n, ...] along the leading principal components of a sample of them.

    Features of vectors [n, d] are standardised first, because their units of measure differ; pixels and bands are not.
    """
    flat = units.flatten(1).float()
    generator = torch.Generator(flat.device).manual_seed(seed)
    chosen = torch.randperm(len(flat), generator=generator, device=flat.device)[:_SAMPLE]
    sample = flat[chosen]
    centre = sample.mean(0)
    scale = sample.std(0, correction=0).clamp_min(1e-6) if units.dim() == 2 else torch.ones_like(centre)
    sample = (sample - centre) / scale
    dims = min(dims, *sample.shape)
    if sample.shape[1] <= 2_048:
        axes = torch.linalg.eigh(sample.T @ sample).eigenvectors.flip(1)[:, :dims]  # [d, dims]
    else:
        # Wide units: the small Gram matrix has the same spectrum.
        gram = torch.linalg.eigh(sample @ sample.T)
        axes = sample.T @ gram.eigenvectors.flip(1)[:, :dims]
        axes = axes / axes.norm(dim=0).clamp_min(1e-12)
    return (flat - centre) / scale @ axes


def _distances(a: Tensor, b: Tensor) -> Tensor:
    """Squared distances [a, b] up to a constant per row: enough to rank."""
    return b.square().sum(1) - 2 * a @ b.T


def _leaf_neighbours(points: Tensor, k: int) -> tuple[Tensor, Tensor]:
    distances, indices = [], []
    rows = torch.arange(len(points), device=points.device)
    for block in rows.split(max(1, _BLOCK_ENTRIES // len(points))):
        squared = _distances(points[block], points) + points[block].square().sum(1, keepdim=True)
        squared[torch.arange(len(block), device=points.device), block] = torch.inf
        near = squared.topk(k, largest=False)
        distances.append(near.values)
        indices.append(near.indices)
    return torch.cat(distances), torch.cat(indices)


def _leaves(points: Tensor, size: int, generator: torch.Generator) -> list[Tensor]:
    """Split at the median along random directions until no part holds more than `size` points."""
    parts, done = [torch.arange(len(points), device=points.device)], []
    while parts:
        part = parts.pop()
        if len(part) <= size:
            done.append(part)
            continue
        # A direction between two members follows the data where an isotropic one would mostly see noise.
        ends = torch.randint(len(part), (2,), generator=generator, device=points.device)
        direction = points[part[ends[0]]] - points[part[ends[1]]]
        order = (points[part] @ direction).argsort()
        half = len(part) // 2
        parts += [part[order[:half]], part[order[half:]]]
    return done


def _merge(a: Tensor, a_index: Tensor, b: Tensor, b_index: Tensor) -> tuple[Tensor, Tensor]:
    """The k nearest of two candidate lists, without naming a neighbour twice."""
    repeated = (b_index[:, :, None] == a_index[:, None, :]).any(2) & b.isfinite()
    both = torch.cat([a, b.masked_fill(repeated, torch.inf)], 1)
    near = both.topk(a.shape[1], largest=False)
    return near.values, torch.cat([a_index, b_index], 1).gather(1, near.indices)

"""Local outlier factors of a memory (Breunig et al., SIGMOD 2000)."""

from __future__ import annotations

import torch
from torch import Tensor

from .coreset import BLOCK_ENTRIES


def outlier_factors(points: Tensor, k: int) -> Tensor:
    """Local outlier factors [g, n] of the points of each group [g, n, d] (Breunig et al. 2000), by k neighbours."""
    k = min(k, points.shape[1] - 1)
    step = max(1, BLOCK_ENTRIES // (points.shape[1] * points.shape[1]))
    return torch.cat([_outlier_factors(part, k) for part in points.split(step)])


def _outlier_factors(points: Tensor, k: int) -> Tensor:
    between = torch.cdist(points, points)
    between.diagonal(dim1=1, dim2=2).fill_(torch.inf)
    distances, near = between.topk(k, dim=2, largest=False)  # [g, n, k]
    reach = torch.maximum(distances, _of(distances[..., -1], near))
    density = 1 / reach.mean(2).clamp_min(1e-12)  # [g, n]
    return _of(density, near).mean(2) / density


def _of(values: Tensor, near: Tensor) -> Tensor:
    """Values [g, n] of the neighbours [g, n, k]."""
    return values.gather(1, near.flatten(1)).reshape(near.shape)

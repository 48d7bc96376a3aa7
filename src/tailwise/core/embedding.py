"""Where samples lie: principal components, which do not move while a detector trains."""

from __future__ import annotations

import torch
from torch import Tensor

from ..numerics import neighbours
from .data import Data
from .modality import by_angle, is_map, shrunk


def embedding_of(data: Data, dims: int = 32) -> Tensor:
    """Where weightings look for neighbours: principal components [n, dims] of the samples themselves.

    They told kinds apart better than a detector's own bottleneck, and they stand still while it trains. Spectra are
    compared by their angle, as materials are (Kruse et al. 1993): brightness is light and shade.
    """
    return neighbours.principal_components(_small(data), dims)


def embedding_beside(new: Data, data: Data, dims: int = 32) -> tuple[Tensor, Tensor]:
    """Places of new samples [q, dims] and of `data` [n, dims], both in the embedding of `data`."""
    small = _small(data)
    return neighbours.principal_components(_small(new), dims, of=small), neighbours.principal_components(small, dims)


def _small(data: Data) -> Tensor:
    if data.in_memory and not is_map(data.sample_shape):
        small = data.samples
        assert isinstance(small, Tensor)
    else:
        small = torch.cat([shrunk(batch.samples) for batch in data.batches(64)])
    return by_angle(small) if len(data.sample_shape) == 2 else small

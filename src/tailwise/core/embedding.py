"""Where samples lie: principal components, which do not move while a detector trains."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..numerics import neighbours
from . import inference
from .data import Data


def embedding_of(
    data: Data, dims: int = 32, gather: Callable[[Tensor], Tensor] | None = None, base: Tensor | None = None
) -> Tensor:
    """Where weightings look for neighbours: principal components [n, dims] of the samples themselves.

    They told kinds apart better than a detector's own bottleneck, and they stand still while it trains. Spectra are
    compared by their angle, as materials are (Kruse et al. 1993): brightness is light and shade. `gather` makes of the
    samples of one process those of all, whose places are then given. The components are those of samples whose base
    weight [n] is not 0.
    """
    small = _small(data) if gather is None else gather(_small(data))
    present = None if base is None or bool((base != 0).all()) else small[base != 0]
    return neighbours.principal_components(small, dims, of=present, standardise=data.modality.small.units_differ)


def embedding_beside(new: Data, data: Data, dims: int = 32) -> tuple[Tensor, Tensor]:
    """Places of new samples [q, dims] and of `data` [n, dims], both in the embedding of `data`."""
    small, standardise = _small(data), data.modality.small.units_differ
    beside = neighbours.principal_components(_small(new), dims, of=small, standardise=standardise)
    return beside, neighbours.principal_components(small, dims, standardise=standardise)


def _small(data: Data) -> Tensor:
    modality = data.modality
    if isinstance(data.samples, Tensor) and modality.small == modality:
        return modality.compared(data.samples)  # what fits into memory need not be shrunk
    batches = data.batches(inference.batch_size_for(data.sample_shape, 64))
    return modality.compared(torch.cat([modality.shrunk(batch.samples) for batch in batches]))

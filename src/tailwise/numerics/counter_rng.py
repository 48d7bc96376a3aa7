"""Random numbers that depend on a counter alone: the same on every device and in every batch."""

from __future__ import annotations

import math

import torch
from torch import Tensor

# Constants of SplitMix64 (Steele, Lea & Flood, OOPSLA 2014), as signed numbers of 64 bits.
_GOLDEN = 0x9E3779B97F4A7C15 - 2**64
_FIRST = 0xBF58476D1CE4E5B9 - 2**64
_SECOND = 0x94D049BB133111EB - 2**64


def seeds_of(samples: Tensor, step: int = 0) -> Tensor:
    """[n] int64 from the numbers of each sample and the training step: equal samples have equal seeds."""
    bits = (samples.float() + 0.0).contiguous().view(torch.int32).flatten(1).long()
    places = _mixed(torch.arange(bits.shape[1], device=samples.device) * _GOLDEN)
    return _mixed(_mixed(bits ^ places).sum(1) + step * 0x632BE5AB)


def uniforms(seeds: Tensor, count: int, stream: int) -> Tensor:
    """[n, count] in 0..1 (1 excluded), a function of each seed; different streams are unrelated."""
    start = _mixed(seeds + (stream + 1) * 0x2545F491)
    bits = _mixed(start[:, None] + torch.arange(1, count + 1, device=seeds.device) * _GOLDEN)
    return ((bits >> 40) & (2**24 - 1)).float() / 2**24


def normals(seeds: Tensor, count: int, stream: int) -> Tensor:
    """[n, count] of a standard Gaussian, a function of each seed."""
    return math.sqrt(2) * torch.erfinv(2 * uniforms(seeds, count, stream) - 1 + 2**-24)


def _mixed(x: Tensor) -> Tensor:
    """SplitMix64's finaliser: any change of the 64 bits changes half of the result's."""
    x = (x ^ ((x >> 30) & (2**34 - 1))) * _FIRST
    x = (x ^ ((x >> 27) & (2**37 - 1))) * _SECOND
    return x ^ ((x >> 31) & (2**33 - 1))

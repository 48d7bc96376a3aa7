"""Weighted Gaussians of vectors, one at each position of an image or a single one: moments, whitening, distances."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

# Variances below this share of the largest are not told from zero.
_ROUNDING = 1e-12


def vectors(units: Tensor) -> Tensor:
    """[n, *unit] -> [n, positions, d]: an image has a vector of channels at each position, anything else is one."""
    return units.flatten(2).transpose(1, 2) if units.dim() == 4 else units.flatten(1)[:, None]


def moments(batches: Callable[[], Iterable[tuple[Tensor, Tensor]]]) -> tuple[Tensor, Tensor]:
    """Weighted mean [positions, d] and covariance [positions, d, d] in two passes, on the CPU in double precision.

    Each call of `batches` starts a pass over (vectors [b, positions, d], their shares [b]); all shares sum to 1.
    """
    parts = (torch.einsum("n,npd->pd", share.cpu().double(), part.cpu().double()) for part, share in batches())
    mean = sum(parts, torch.zeros((), dtype=torch.float64))
    covariance = torch.zeros(*mean.shape, mean.shape[1], dtype=torch.float64)
    for part, share in batches():
        # Positions lead, so that the outer products are one batched matrix product.
        centred = (part.cpu().double() - mean).transpose(0, 1)  # [p, n, d]
        covariance += (centred * share.cpu().double()[:, None]).transpose(1, 2) @ centred
    return mean, covariance


def whitening(covariance: Tensor) -> Tensor:
    """[positions, d, d] -> matrices of that shape after which vectors have the identity as their covariance."""
    values, axes = torch.linalg.eigh(covariance)
    return axes * values.clamp_min(values.amax(1, keepdim=True) * _ROUNDING).rsqrt()[:, None, :]


def distances(part: Tensor, mean: Tensor, whitened_by: Tensor) -> Tensor:
    """Squared Mahalanobis distances [n, positions] of vectors [n, positions, d]."""
    centred = (part - mean).transpose(0, 1)  # [p, n, d]
    return (centred @ whitened_by).square().sum(2).T

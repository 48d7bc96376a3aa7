"""Weighted Gaussians of vectors, one at each position of an image or a single one: moments, whitening, distances."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from ...core.data import Batch, Data

# Variances below this share of the largest are not told from zero.
_ROUNDING = 1e-12


def weighted_moments(data: Data, w: Tensor, read: Callable[[Batch], Tensor], batch_size: int) -> tuple[Tensor, Tensor]:
    """Mean [p, d] and covariance [p, d, d] of what `read` makes of the samples [n, p, d], weighed by `w` [n].

    It may make several vectors of a sample, one after the other: [n * m, p, d]. In one pass and in double precision, on
    the CPU; what `read` makes is overwritten. The covariance is divided by the sum of the weights.
    """
    share = (w.double() / w.double().sum()).cpu()
    origin, first, second = torch.empty(0), torch.empty(0), np.empty(0)
    for batch in data.batches(batch_size):
        values = read(batch).cpu().double().transpose(0, 1)  # [p, n, d]
        several = values.shape[1] // len(batch.index)
        part = share[batch.index].repeat_interleave(several) / several
        if not bool(part.any()):
            continue
        if not len(origin):
            # Sums are taken about the mean of some samples that count, so that a large offset does not eat the digits
            # of the spread.
            origin = values[:, part != 0].mean(1, keepdim=True)
            first = torch.zeros(len(values), values.shape[2], dtype=torch.float64)
            second = np.zeros((*first.shape, first.shape[1]))
        centred = values.sub_(origin)
        first += torch.einsum("n,pnd->pd", part, centred)
        # numpy sees that both factors are the same memory and forms half of the symmetric product.
        scaled = centred.mul_(part.sqrt()[:, None]).numpy()
        second += scaled.transpose(0, 2, 1) @ scaled
    return origin[:, 0] + first, torch.from_numpy(second) - first[:, :, None] * first[:, None]


def whitening(covariance: Tensor) -> Tensor:
    """[positions, d, d] -> matrices of that shape after which vectors have the identity as their covariance."""
    values, axes = torch.linalg.eigh(covariance)
    return axes * values.clamp_min(values.amax(1, keepdim=True) * _ROUNDING).rsqrt()[:, None, :]


def directions_of_few(rows: Tensor, added: Tensor) -> Tensor:
    """Directions [d, r] in which the covariance rows' rows + diag(added) is wider than diag(added), from rows [n, d]
    fewer than they are long, for `distances_of_few`.

    Eigenvectors come from the n x n side, rows rows' on the scale of `added` [d], all above 0: time grows with n^2 d
    and memory with n d.
    """
    scaled = rows * added.rsqrt()
    values, axes = torch.linalg.eigh(scaled @ scaled.T)
    inside = values > values.amax() * _ROUNDING
    # Axes [d, r] of length 1 are scaled' axes / sqrt(values), and of the distance along each v / (1 + v) is taken off.
    return scaled.T @ (axes[:, inside] * (1 + values[inside]).rsqrt())


def distances_of_few(part: Tensor, mean: Tensor, scale: Tensor, directions: Tensor) -> Tensor:
    """Squared Mahalanobis distances [n, 1] of vectors [n, 1, d] by a covariance that is wider than the squares of
    `scale` [d] in some directions."""
    centred = (part - mean)[:, 0] / scale
    along = centred @ directions
    return (centred.square().sum(1) - along.square().sum(1)).clamp_min(0)[:, None]


def distances(part: Tensor, mean: Tensor, whitened_by: Tensor) -> Tensor:
    """Squared Mahalanobis distances [n, positions] of vectors [n, positions, d]."""
    centred = (part - mean).transpose(0, 1)  # [p, n, d]
    return (centred @ whitened_by).square().sum(2).T

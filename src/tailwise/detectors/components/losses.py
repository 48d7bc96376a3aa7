"""Losses and distances that keep one number a sample."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def squared_error(samples: Tensor, rebuilt: Tensor) -> Tensor:
    """Mean squared difference over each sample's own axes: [n, ...], [n, ...] -> [n]."""
    # One operation where the formula spelled out is two; small networks feel each.
    return nn.functional.mse_loss(rebuilt, samples, reduction="none").flatten(1).mean(1)


def absolute_error(samples: Tensor, rebuilt: Tensor) -> Tensor:
    """Mean absolute difference over each sample's own axes: [n, ...], [n, ...] -> [n]."""
    return (samples - rebuilt).abs().flatten(1).mean(1)


def spectral_angle(samples: Tensor, rebuilt: Tensor) -> Tensor:
    """Angle in radians between two spectra: [n, ...], [n, ...] -> [n]; blind to brightness (Kruse et al. 1993)."""
    cosine = torch.cosine_similarity(samples.flatten(1), rebuilt.flatten(1), dim=1)
    # arccos has an infinite slope at 1, which a perfect reconstruction would meet.
    return cosine.clamp(-1 + 1e-6, 1 - 1e-6).arccos()


def distance_to(centre: Tensor, codes: Tensor) -> Tensor:
    """Mean squared distance of codes [n, d] to the centre [d] -> [n]."""
    return (codes - centre).square().mean(1)


def deviation_loss(deviation: Tensor, target: Tensor | float, margin: float) -> Tensor:
    """(1 - t) |dev| + t max(0, margin - dev): deviations [n] in standard deviations of the prior, t [n] in 0..1 -> [n].

    t is 0 for a normal sample, 1 for an anomaly (Pang et al., KDD 2019), and between for soft targets (Das et al.
    2025).
    """
    return (1 - target) * deviation.abs() + target * (margin - deviation).clamp_min(0)


def focal_loss(logits: Tensor, truth: Tensor, gamma: float = 2.0) -> Tensor:
    """Mean of (1 - q)^gamma (-ln q), q the probability of the truth: logits and truth (0 or 1) [n, ...] -> [n].

    Easy places count little, so that the many untouched ones do not drown the few that matter (Lin et al. 2017).
    """
    cross_entropy = nn.functional.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    return ((1 - (-cross_entropy).exp()) ** gamma * cross_entropy).flatten(1).mean(1)


def top_mean(maps: Tensor, share: float = 0.1) -> Tensor:
    """Mean of the highest `share` of each map's positions, at least one: [n, ...] -> [n].

    Multiple-instance learning: an image is as anomalous as its most anomalous places.
    """
    flat = maps.flatten(1)
    return flat.topk(top_count(flat.shape[1], share), dim=1).values.mean(1)


def top_count(positions: int, share: float) -> int:
    """How many positions are the highest `share`."""
    return max(1, int(share * positions))

"""Decoded pictures to samples in one module, for graphs that an exported file holds."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .networks import Features

_HALF_ENDS = torch.finfo(torch.float16).max


class OfPictures(nn.Module):
    """Pictures [n, height, width, 1 or 3] uint8 -> pixels [n, channels, height, width] in 0..1, or their features.

    Args:
        features: what is made of the pixels; None leaves them.
    """

    def __init__(self, features: Features | None = None) -> None:
        super().__init__()
        self.features = features

    def forward(self, pictures: Tensor) -> Tensor:
        pixels = pictures.permute(0, 3, 1, 2).float() / 255
        return pixels if self.features is None else _as_cached(self.features(pixels))


def _as_cached(features: Tensor) -> Tensor:
    """Features as the cache keeps them (`cache._small`): maps in half precision where their range allows it."""
    if features.dim() == 2:
        return features
    fits = features.abs().amax((1, 2, 3), keepdim=True) < _HALF_ENDS
    return torch.where(fits, features.half().float(), features)

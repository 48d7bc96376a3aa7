"""Oriented gradients of small pictures, which say what is drawn, however bright (Dalal & Triggs, CVPR 2005)."""

from __future__ import annotations

import scipy
import torch
from torch import Tensor
from torch.nn import functional

# Standard deviations in pixels: of what gradients are taken of, and of where they may lie. Chosen on development draws
# of benchmarks/clusters.py.
_FINE, _COARSE = 0.5, 1.5


def oriented(images: Tensor) -> Tensor:
    """Images [n, channels, h, w] -> [n, 4, about h/2, about w/2]: how much brighter it grows to the right, to the left,
    downwards and upwards around each second pixel. Of each image the length is 1, or 0 where it is constant."""
    grey = blurred(images.float().mean(1, keepdim=True), _FINE)
    padded = functional.pad(grey, (1, 1, 1, 1), mode="replicate")
    across = padded[:, :, 1:-1, 2:] - padded[:, :, 1:-1, :-2]
    down = padded[:, :, 2:, 1:-1] - padded[:, :, :-2, 1:-1]
    # A pixel's rise and fall apart, so that dark on light is not light on dark.
    parts = blurred(torch.cat([across, -across, down, -down], 1).relu(), _COARSE)
    height, width = images.shape[2:]
    small = functional.adaptive_avg_pool2d(parts, ((height + 1) // 2, (width + 1) // 2))
    return functional.normalize(small.flatten(1), dim=1).view_as(small)


def blurred(images: Tensor, deviation: float) -> Tensor:
    """Images [n, channels, h, w] under a Gaussian of this deviation in pixels."""
    return torch.from_numpy(scipy.ndimage.gaussian_filter(images.cpu().numpy(), (0, 0, deviation, deviation))).to(
        images
    )

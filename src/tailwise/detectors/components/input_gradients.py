"""Where in a sample a score comes from, by its gradient."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ...core.modality import Modality


def gradients(function: Callable[[Tensor], Tensor], samples: Tensor) -> Tensor:
    """d function / d samples for a function [n, *sample] -> [n], also where gradients are switched off: [n,
    *sample]."""
    with torch.enable_grad():
        samples = samples.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(function(samples).sum(), samples)
    return gradient


def localised(gradient: Tensor, scores: Tensor, modality: Modality, blur: float = 0.01) -> Tensor:
    """Where a score [n] comes from, of the gradient [n, *sample]: magnitudes, of images summed over channels and
    smoothed; see `with_top`. `blur` is the Gaussian's deviation in shares of the side."""
    maps = gradient.abs()
    if modality.spatial:
        maps = maps.sum(1)
        flat = maps.flatten(1)
        highest = flat.quantile(0.99, dim=1)
        highest = torch.where(highest > 0, highest, flat.amax(1))  # the whole of a map may be one place
        maps = _blurred(torch.minimum(maps, highest[:, None, None]), blur * min(maps.shape[1:]))
    return with_top(maps, scores)


def with_top(maps: Tensor, scores: Tensor) -> Tensor:
    """Maps [n, ...] of which the largest value is the sample's score [n], below 0 too, so that they can be compared.

    The published codes stretch each map onto 0..1, a good sample's too.
    """
    top = maps.flatten(1).amax(1).clamp_min(1e-30)
    each = (-1, *(1,) * (maps.dim() - 1))
    return scores.view(each) + scores.abs().view(each) * (maps / top.view(each) - 1)


def _blurred(maps: Tensor, deviation: float) -> Tensor:
    """Maps [n, h, w] under a Gaussian of this deviation in pixels; below half a pixel nothing changes."""
    if deviation < 0.5:
        return maps
    reach = min(int(3 * deviation), min(maps.shape[1:]) - 1)
    kernel = (-0.5 * (torch.arange(-reach, reach + 1, device=maps.device) / deviation) ** 2).exp()
    kernel = kernel / kernel.sum()
    padded = nn.functional.pad(maps[:, None], [reach] * 4, mode="reflect")
    down = nn.functional.conv2d(padded, kernel.view(1, 1, -1, 1))
    return nn.functional.conv2d(down, kernel.view(1, 1, 1, -1))[:, 0]

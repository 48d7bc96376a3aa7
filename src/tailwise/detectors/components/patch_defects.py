"""Defects made on patches of points: a fragment of another surface laid on, or a piece taken away.

After 3DzAL (Wang, Peng & Fu, WACV 2025), whose code is not published: what is written here is our reconstruction. A
fragment is what lies around a place that the activation of an untrained network favours: its inductive bias alone finds
edges and corners. Patches are those of `numerics.point_patches`: of radius 1, about the origin, with the normal as z.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from ...numerics.counter_rng import uniforms

# Channels of the untrained network's layers.
_WIDTHS = (16, 32)
# A defect covers so much of a patch's radius, and is so far off its surface at most.
_SIDES, _MOST_OFFSET = (0.3, 0.7), 0.3
_REMOVED = 0.3


def salience(places: Tensor, seen: Tensor, seed: int = 0) -> Tensor:
    """[b, h, w]: activations of an untrained network on the points [b, 3, h, w] of a scan's cells; 0 where not `seen`.

    Each scan's coordinates are brought to mean 0 and variance 1 first, or large ones would be all that it sees.
    """
    generator = torch.Generator().manual_seed(seed)
    mask = seen[:, None].to(places)
    count = mask.sum((2, 3), keepdim=True).clamp_min(1)
    middle = (places * mask).sum((2, 3), keepdim=True) / count
    spread = ((places - middle).square() * mask).sum((2, 3), keepdim=True) / count
    values = (places - middle) / spread.sqrt().clamp_min(1e-6) * mask
    for width in _WIDTHS:
        kernel = torch.randn(width, values.shape[1], 3, 3, generator=generator) / math.sqrt(9 * values.shape[1])
        values = functional.conv2d(functional.pad(values, (1, 1, 1, 1), "replicate"), kernel.to(values)).relu()
    return values.mean(1) * mask[:, 0]


def turned(patches: Tensor, seeds: Tensor, stream: int) -> Tensor:
    """Patches [n, m, points, 3] of samples with these seeds [n], each turned about z and half of them mirrored."""
    draws = uniforms(seeds, 2 * patches.shape[1], stream).unflatten(1, (2, -1)).to(patches)
    angle, mirror = 2 * math.pi * draws[:, 0], torch.where(draws[:, 1] < 0.5, -1.0, 1.0)
    cos, sin = angle.cos(), angle.sin()
    x, y, z = patches.unbind(3)
    x = x * mirror[..., None]
    return torch.stack([cos[..., None] * x - sin[..., None] * y, sin[..., None] * x + cos[..., None] * y, z], 3)


def with_defects(patches: Tensor, fragments: Tensor, seeds: Tensor) -> Tensor:
    """Patches [n, m, points, 3] of samples with these seeds [n], each with one defect.

    Most get one of the fragments [k, points, 3], smaller and a little off the surface; of the others what lies at the
    same place is gone, and the points that are left are there more than once.
    """
    many, points = patches.shape[1], patches.shape[2]
    draws = uniforms(seeds, 7 * many, 41).unflatten(1, (7, -1)).to(patches)
    which, out, angle, side, offset, kind, sign = draws.unbind(1)
    side = _SIDES[0] + (_SIDES[1] - _SIDES[0]) * side
    reach, angle = 0.6 * out.sqrt(), 2 * math.pi * angle
    at = torch.stack([reach * angle.cos(), reach * angle.sin()], 2)  # [n, m, 2]
    flat = patches[..., :2] - at[:, :, None]
    inside = flat.square().sum(3) < side[..., None].square()  # [n, m, points]
    fragment = turned(fragments[(which * len(fragments)).long()], seeds, 42)
    nearest = torch.cdist(flat / side[..., None, None], fragment[..., :2]).argmin(3)
    height = fragment[..., 2].gather(2, nearest) * side[..., None]
    offset = (0.05 + (_MOST_OFFSET - 0.05) * offset) * torch.where(sign < 0.5, -1.0, 1.0)
    height = (height + offset[..., None]).clamp(-_MOST_OFFSET, _MOST_OFFSET)
    added = torch.cat([patches[..., :2], (patches[..., 2] + height * inside)[..., None]], 3)
    left = ~inside | inside.all(2, keepdim=True)
    order = (~left).to(torch.uint8).sort(dim=2, stable=True).indices
    place = torch.arange(points, device=patches.device) % left.sum(2, keepdim=True)
    kept = order.gather(2, place)[..., None].expand_as(patches)
    return torch.where((kind < _REMOVED)[..., None, None], patches.gather(2, kept), added)

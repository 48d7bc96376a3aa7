"""Anomalies made from normal samples: patches of foreign texture in images, foreign values in rows.

Images after DRAEM (Zavrtanik et al., ICCV 2021), as Adaptive Deviation Learning uses it: Perlin noise above a threshold
is a mask, and inside it the image gives way to a texture. Theirs is a folder of photographs; here textures are
generated, or moved parts of other samples, so that nothing is downloaded. The form for rows is ours.

All randomness is a function of seeds, one a sample, that are made from the sample's own numbers: copies of a sample get
the same pseudo-anomaly, whatever batch they are in, and whoever runs it.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ...numerics.counter_rng import normals, uniforms

# A cell of Perlin noise keeps at least so many pixels, or there would be no blobs in small images.
_LEAST_CELL = 4
_LARGEST_EXPONENT = 5
_THRESHOLD = 0.5
_LEAST_MASK = 0.05
_MOST_OPACITY = 0.8
# Colours of textures are drawn this wide, in standard deviations of the channel.
_COLOURS = 1.5


def altered_rows(rows: Tensor, seeds: Tensor, low: Tensor, high: Tensor, widen: float = 0.5) -> tuple[Tensor, Tensor]:
    """Rows [n, d] with some features replaced, and where (bool [n, d]).

    The share of features differs from row to row, evenly over 0..1, and one at least is replaced. A value comes from
    anywhere between the feature's `low` and `high` [d], widened by `widen` of their distance at either end.
    """
    draws = uniforms(seeds, rows.shape[1], 1)
    replaced = (draws < uniforms(seeds, 1, 0)) | (draws == draws.amin(1, keepdim=True))
    reach = widen * (high - low)
    values = torch.lerp(low - reach, high + reach, uniforms(seeds, rows.shape[1], 2).to(rows))
    return torch.where(replaced, values, rows), replaced


def altered_images(images: Tensor, seeds: Tensor, bank: Tensor) -> tuple[Tensor, Tensor]:
    """Standardised images [n, c, h, w] with a texture shining through a mask, and the mask (bool [n, h, w])."""
    mask = perlin_masks(seeds, images.shape[2:])
    opacity = 1 - _MOST_OPACITY * uniforms(seeds, 1, 10)[:, :, None, None]
    blended = images + opacity * (textures(seeds, images.shape[1:], bank) - images)
    return torch.where(mask[:, None], blended, images), mask


def perlin_masks(seeds: Tensor, size: torch.Size | tuple[int, ...]) -> Tensor:
    """[n, h, w] bool: where Perlin noise, turned by a random angle, is above 0.5; never less than 5 % of the pixels.

    The noise has 2^U{0..5} cells along each axis, fewer where cells would be below 4 pixels.
    """
    noise = perlin_noise(seeds, size)
    flat = noise.flatten(1)
    least = max(1, int(_LEAST_MASK * flat.shape[1]))
    reached = flat.topk(least, dim=1).values[:, -1:]
    return (flat >= reached.clamp_max(_THRESHOLD)).view_as(noise)


def perlin_noise(seeds: Tensor, size: torch.Size | tuple[int, ...]) -> Tensor:
    """[n, h, w]: gradient noise (Perlin, SIGGRAPH 1985) within -1..1, with random cells and angle for each seed."""
    along = _turned_grid(size, 2 * math.pi * uniforms(seeds, 1, 3))  # [n, 2, h, w], -0.5..0.5 before the turn
    cells = torch.stack([_cells(side, u) for side, u in zip(size, uniforms(seeds, 2, 4).T, strict=True)], 1)  # [n, 2]
    # Shifted, so that the centre is not always on a corner, where the noise is 0.
    at = along * cells[:, :, None, None] + uniforms(seeds, 2, 5)[:, :, None, None]
    corner = at.floor()
    inside = at - corner
    lattice = max(4, 2 ** (1 + max(_exponent(side) for side in size)))
    angles = 2 * math.pi * uniforms(seeds, lattice * lattice, 6)

    def slope(down: int, right: int) -> Tensor:
        """Height of the plane that the gradient at one of a cell's corners gives."""
        place = ((corner[:, 0] + down) % lattice * lattice + (corner[:, 1] + right) % lattice).long()
        angle = angles.gather(1, place.flatten(1)).view_as(place)
        return angle.cos() * (inside[:, 0] - down) + angle.sin() * (inside[:, 1] - right)

    fade = inside**3 * (inside * (inside * 6 - 15) + 10)
    upper = torch.lerp(slope(0, 0), slope(0, 1), fade[:, 1])
    lower = torch.lerp(slope(1, 0), slope(1, 1), fade[:, 1])
    return math.sqrt(2) * torch.lerp(upper, lower, fade[:, 0])


def textures(seeds: Tensor, shape: torch.Size | tuple[int, ...], bank: Tensor) -> Tensor:
    """[n, c, h, w] of standardised textures: stripes, chequers, noise of some spectrum, or a moved sample of `bank`."""
    channels, *size = shape
    kinds = (uniforms(seeds, 1, 20)[:, 0] * (len(_PATTERNS) + 1)).long()
    ends = _COLOURS * normals(seeds, 2 * channels, 21).view(-1, 2, channels, 1, 1)
    made = torch.empty(len(seeds), *shape, device=seeds.device, dtype=bank.dtype)
    for kind, pattern in enumerate(_PATTERNS):
        own = (kinds == kind).nonzero().flatten()
        if len(own):
            made[own] = torch.lerp(ends[own, 0], ends[own, 1], pattern(seeds[own], tuple(size))[:, None]).to(made)
    own = (kinds == len(_PATTERNS)).nonzero().flatten()
    if len(own):
        made[own] = _moved(bank, seeds[own])
    return made


def _stripes(seeds: Tensor, size: tuple[int, ...]) -> Tensor:
    return 0.5 + 0.5 * (2 * math.pi * _ramps(seeds, size)[:, 0]).sin()


def _chequers(seeds: Tensor, size: tuple[int, ...]) -> Tensor:
    return (_ramps(seeds, size).floor().sum(1) % 2).abs()


def _coloured_noise(seeds: Tensor, size: tuple[int, ...]) -> Tensor:
    """Noise whose spectrum falls as a power between 0 (white) and 2 of the frequency, each image within 0..1."""
    height, width = size
    white = normals(seeds, height * width, 30).view(-1, height, width)
    down, right = (torch.fft.fftfreq(height), torch.fft.rfftfreq(width))
    frequency = (down[:, None].square() + right.square()).sqrt().clamp_min(1 / max(size)).to(seeds.device)
    spectrum = torch.fft.rfft2(white) * frequency ** -(2 * uniforms(seeds, 1, 31)[:, :, None])
    noise = torch.fft.irfft2(spectrum, s=(height, width))
    low, high = noise.amin((1, 2), keepdim=True), noise.amax((1, 2), keepdim=True)
    return (noise - low) / (high - low).clamp_min(1e-12)


_PATTERNS = (_stripes, _chequers, _coloured_noise)


def _ramps(seeds: Tensor, size: tuple[int, ...]) -> Tensor:
    """[n, 2, h, w]: two turned coordinates at a right angle, counted in waves; 1 to a quarter of the side fit."""
    most = max(2.0, min(size) / _LEAST_CELL)
    waves = 1 + (most - 1) * uniforms(seeds, 1, 32)
    shift = uniforms(seeds, 2, 33)
    return _turned_grid(size, 2 * math.pi * uniforms(seeds, 1, 34)) * waves[:, :, None, None] + shift[:, :, None, None]


def _moved(bank: Tensor, seeds: Tensor) -> Tensor:
    """A random sample of the bank for each seed, shifted around its edges and half of the time mirrored."""
    height, width = bank.shape[2:]
    sample, down, right, mirrored = uniforms(seeds, 4, 35).T
    rows = (torch.arange(height, device=bank.device) + (down * height).long()[:, None]) % height
    columns = (torch.arange(width, device=bank.device) + (right * width).long()[:, None]) % width
    columns = torch.where((mirrored < 0.5)[:, None], columns, columns.flip(1))
    chosen = bank[(sample * len(bank)).long()]
    at = torch.arange(len(seeds), device=bank.device)[:, None, None]
    return chosen[at, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def _turned_grid(size: torch.Size | tuple[int, ...], angle: Tensor) -> Tensor:
    """Coordinates of the pixels, -0.5..0.5 along each axis, turned by each angle [n, 1]: [n, 2, h, w]."""
    axes = [(torch.arange(side, device=angle.device) + 0.5) / side - 0.5 for side in size]
    down, right = torch.meshgrid(*axes, indexing="ij")
    cos, sin = angle.cos()[:, :, None], angle.sin()[:, :, None]
    return torch.stack([cos * down + sin * right, cos * right - sin * down], 1)


def _cells(side: int, u: Tensor) -> Tensor:
    return 2 ** (u * (_exponent(side) + 1)).floor()


def _exponent(side: int) -> int:
    return min(_LARGEST_EXPONENT, max(0, int(math.log2(max(1, side / _LEAST_CELL)))))

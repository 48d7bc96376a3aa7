"""Parts of detectors that rebuild images by diffusion: the denoiser, its noise schedule, and how two images differ.

The networks and the schedule are those of the package diffusers, which is imported when a detector is built.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate, normalize, pad

from ...core.seeding import seeded, threads
from ...errors import InputError
from .nets import Crop, Pad
from .pseudo_anomalies import textures

# Steps of the noise schedule, and that of Stable Diffusion, in which GLAD was published.
STEPS = 1_000
_SCHEDULE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
# Channels of the denoiser are normalised in so many groups.
GROUPS = 8
# How far away, in places, the same part may lie in the other image.
_REACH = 2
# A channel beside all others: places where nothing is seen are alike, and unlike those where something is.
_NOTHING = 1e-3
# The texture network: channels and strides of its layers, and its training.
_CHANNELS, _STRIDES = (16, 32, 64), (1, 2, 2)
_TEXTURE_STEPS, _TEXTURES, _SIDE, _TEMPERATURE = 250, 32, 32, 0.1


def cumulative_alphas() -> Tensor:
    """[STEPS]: the share of an image's variance that is left at each step, of images of variance 1."""
    scheduler = _of_diffusers("schedulers.scheduling_ddim", "DDIMScheduler")
    return scheduler(STEPS, **_SCHEDULE, clip_sample=False).alphas_cumprod.clone()


class Denoiser(nn.Module):
    """Predicts the noise in images [n, c, h, w] at steps [n] of the schedule: a U-Net with attention at its bottom.

    Args:
        sample_shape: channels, height and width; sides of any length, which are padded.
        widths: channels at each resolution, each of which is half of the one before.
    """

    def __init__(self, sample_shape: tuple[int, ...], widths: Sequence[int]) -> None:
        super().__init__()
        channels, *size = sample_shape
        halved = len(widths) - 1
        if max(size) <= 2**halved:
            raise InputError(
                f"images of {size[0]} x {size[1]} pixels are too small: one side must have more than {2**halved}",
                "read larger images, or name fewer widths",
            )
        self.pad = Pad(tuple(math.ceil(side / 2**halved) for side in size), 2**halved)
        self.crop = Crop(tuple(size))
        unet = _of_diffusers("models.unets.unet_2d", "UNet2DModel")
        self.network = unet(
            in_channels=channels, out_channels=channels, layers_per_block=1, block_out_channels=(*widths,),
            norm_num_groups=GROUPS, down_block_types=("DownBlock2D",) * halved + ("AttnDownBlock2D",),
            up_block_types=("AttnUpBlock2D",) + ("UpBlock2D",) * halved,
        )  # fmt: skip

    def forward(self, images: Tensor, steps: Tensor) -> Tensor:
        return self.crop(self.network(self.pad(images), steps, return_dict=False)[0])


def _of_diffusers(module: str, name: str) -> Callable[..., Any]:
    """By the module that holds it: the package's own face takes twice as long to import."""
    return getattr(importlib.import_module(f"diffusers.{module}"), name)


class TextureNetwork(nn.Module):
    """Maps of images [n, c, h, w] at three resolutions, by a small network that tells generated textures apart.

    It is the same for all images of as many channels, and is frozen.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        sizes = zip((channels, *_CHANNELS), _CHANNELS, _STRIDES, strict=False)
        self.layers = nn.ModuleList(nn.Conv2d(a, b, 3, stride, 1, padding_mode="replicate") for a, b, stride in sizes)
        self.requires_grad_(False)

    def learn(self) -> None:
        """Take over the weights that tell textures apart."""
        self.load_state_dict(_texture_weights(self.layers[0].in_channels))

    def forward(self, images: Tensor) -> list[Tensor]:
        maps = []
        for layer in self.layers:
            images = layer(images).relu()
            maps.append(images)
        return maps


@cache
def _texture_weights(channels: int) -> dict[str, Tensor]:
    """The halves of one texture are to be alike, and unlike those of others (van den Oord et al. 2018).

    By one thread: the weights are kept, and are to be the same whatever fit asks for them first.
    """
    with threads(1), seeded(0), torch.enable_grad():
        network = TextureNetwork(channels).requires_grad_(True)
        optimizer = torch.optim.Adam(network.parameters(), 2e-3)
        bank = torch.randn(2, channels, 2 * _SIDE, _SIDE)
        same = torch.arange(_TEXTURES)
        for step in range(_TEXTURE_STEPS):
            made = textures(same + step * _TEXTURES, (channels, 2 * _SIDE, _SIDE), bank)
            upper, lower = (_pooled(network(half)) for half in made.split(_SIDE, dim=2))
            optimizer.zero_grad()
            cross_entropy(upper @ lower.T / _TEMPERATURE, same).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return {name: value.detach() for name, value in network.state_dict().items()}


def _pooled(maps: list[Tensor]) -> Tensor:
    """[n, d] of length 1: the channels' means, each layer's of length 1 first."""
    return normalize(torch.cat([normalize(each.mean((2, 3))) for each in maps], 1))


def unlikeness(one: Tensor, other: Tensor) -> Tensor:
    """[n, h, w] from maps [n, c, h, w]: one less the largest cosine between a place of one and those near it in the
    other."""
    height, width = one.shape[2:]
    one, other = (normalize(torch.cat([maps, maps.new_full(maps[:, :1].shape, _NOTHING)], 1)) for maps in (one, other))
    other = pad(other, [_REACH] * 4, mode="replicate")
    nearest = torch.full_like(one[:, 0], -1.0)
    for down in range(2 * _REACH + 1):
        for right in range(2 * _REACH + 1):
            moved = other[:, :, down : down + height, right : right + width]
            nearest = torch.maximum(nearest, (one * moved).sum(1))
    return 1 - nearest


def resized(maps: Tensor, size: tuple[int, ...]) -> Tensor:
    """Maps [n, h, w] in another size."""
    return interpolate(maps[:, None], size, mode="bilinear", align_corners=False)[:, 0]


def weighted_quantile(values: Tensor, w: Tensor, level: float) -> Tensor:
    """The smallest of values [n] that `level` of the weight [n] does not exceed: weight k is as k copies."""
    ordered, order = values.sort()
    reached = w.to(values)[order].cumsum(0)
    return ordered[int((reached < level * reached[-1] * (1 - 1e-6)).sum())]

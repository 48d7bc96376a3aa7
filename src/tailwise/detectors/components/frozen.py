"""Frozen networks inside detectors: neither trained nor saved with them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from ...backbones.networks import backbone, map_layers
from ...errors import InputError


class Unsaved(nn.Module):
    """A network that moves between devices with its owner but is no part of it: neither trained nor saved."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = (network,)  # in a tuple, where nn.Module does not find it

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> Unsaved:
        self.network[0]._apply(fn)
        return super()._apply(fn, recurse)

    def forward(self, images: Tensor) -> list[Tensor]:
        return self.network[0](images)


def frozen_backbone(name: str, sample_shape: tuple[int, ...], role: str, hint: str) -> Unsaved:
    """The backbone of this name, for the maps of images of this shape.

    Raises:
        InputError: the images have other channels than the backbone, which is called `role`.
    """
    if sample_shape[0] not in (1, 3):
        raise InputError(
            f"{role} {name!r} takes images of 1 or 3 channels: got samples of shape {list(sample_shape)}", hint
        )
    # A copy, because the original serves others, who may need it on another device.
    return Unsaved(copy.deepcopy(backbone(name, map_layers(name))))

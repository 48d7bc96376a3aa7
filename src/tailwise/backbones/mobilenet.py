"""MobileNetV2 (Sandler et al., CVPR 2018) as stem and blocks, from a file of weights under their published names."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ..errors import InputError
from .folding import folded

# Channels, blocks and first stride of each stage; every block but those of the first widens six times inside.
_STAGES = ((16, 1, 1), (24, 2, 2), (32, 3, 2), (64, 4, 2), (96, 3, 1), (160, 3, 2), (320, 1, 1))
_STEM, _WIDENED = 32, 6


class InvertedResidual(nn.Module):
    """Widen, filter each channel, narrow; with a shortcut where the shape stays."""

    def __init__(self, before: int, after: int, stride: int, widened: int) -> None:
        super().__init__()
        inside = before * widened
        wide = [_convolution(before, inside, 1)] if widened > 1 else []
        narrow = [nn.Conv2d(inside, after, 1, bias=False), nn.BatchNorm2d(after)]
        self.conv = nn.Sequential(*wide, _convolution(inside, inside, 3, stride, inside), *narrow)
        self.shortcut = stride == 1 and before == after

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.shortcut else self.conv(x)


def parts(path: str) -> tuple[nn.Module, nn.ModuleList]:
    """The stem and 17 blocks with the weights of a file, normalisations folded in, for images scaled as ImageNet's are.

    Raises:
        InputError: the file does not hold the weights of a MobileNetV2 of width 1, under torchvision's names.
    """
    features = nn.Sequential(_convolution(3, _STEM, 3, 2))
    before = _STEM
    for after, count, stride in _STAGES:
        for place in range(count):
            widened = _WIDENED if len(features) > 1 else 1
            features.append(InvertedResidual(before, after, stride if place == 0 else 1, widened))
            before = after
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        features.load_state_dict(_of_blocks(state, len(features)))
    except Exception as error:  # what a wrong file raises shares no class but this
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(f"{path} does not hold the weights of a MobileNetV2: {reason}") from error
    features.eval()
    for module in features.modules():
        if isinstance(module, nn.Sequential):
            _fuse(module)
    return features[0], nn.ModuleList(list(features)[1:])


def _of_blocks(state: Mapping[str, Tensor], blocks: int) -> dict[str, Tensor]:
    """The part of the published state that is of the blocks, without the head."""
    named = {name.removeprefix("features."): value for name, value in state.items() if name.startswith("features.")}
    return {name: value for name, value in named.items() if int(name.split(".")[0]) < blocks}


def _convolution(before: int, after: int, side: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(before, after, side, stride, side // 2, groups=groups, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(after), nn.ReLU6())


def _fuse(parts: nn.Sequential) -> None:
    """Fold each normalisation into the convolution before it."""
    for place in range(1, len(parts)):
        if isinstance(parts[place], nn.BatchNorm2d):
            parts[place - 1] = folded(parts[place - 1], parts[place])
            parts[place] = nn.Identity()

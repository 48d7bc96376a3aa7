"""Batch norms of a frozen network, which are folded into its convolutions: their statistics made anew, or moved.

What a convolution gives after folding is y = gamma (z - mean) / sqrt(variance + eps) + beta of each channel. So other
statistics, and another gamma and beta, are a scale and a shift of y, which go into the same convolution.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ..errors import InputError
from . import networks
from .folding import norm_of
from .pictures import OfPictures

# Statistics are of pictures of at most so many pixels in all: all maps of all of them are needed at once.
_PIXELS, _FEWEST = 3_200_000, 4


def of(network: OfPictures) -> networks.Backbone:
    """The network that makes maps of pictures, whose batch norms are known.

    Raises:
        InputError: pixels are read, or a network of others whose norms nobody knows.
    """
    found = None if network.features is None else network.features.network
    if not isinstance(found, networks.Backbone):
        raise InputError(
            "batch norms are known of EfficientNet-Lite and MobileNetV2 alone, and this run reads its samples by none",
            f"fit with --read {networks.names()[0]}, or leave statistics and norms as they are",
        )
    return found


@torch.no_grad()
def estimated(network: OfPictures, pictures: Tensor, old: Tensor, share: float = 1.0) -> OfPictures:
    """The network with batch norms that give these pictures the means and deviations that `old` ones have.

    So does a network whose statistics are made anew, where those before were of the old pictures (Schneider et al.,
    NeurIPS 2020).

    Args:
        pictures, old: [n, height, width, 1 or 3] uint8.
        share: what counts as statistics of the pictures; the old ones' are the rest.
    """
    made = copy.deepcopy(network)
    inner = of(made)
    convolutions = _convolutions(inner).values()
    reference: dict[nn.Module, tuple[Tensor, Tensor]] = {}

    def measure(convolution: nn.Module, _: tuple[Tensor, ...], found: Tensor) -> None:
        reference[convolution] = _statistics(found)

    def correct(convolution: nn.Module, _: tuple[Tensor, ...], found: Tensor) -> Tensor:
        assert isinstance(convolution, nn.Conv2d)
        return _corrected(convolution, found, *reference[convolution], share)

    for some, hook in ((old, measure), (pictures, correct)):
        hooks = [convolution.register_forward_hook(hook) for convolution in convolutions]
        inner.maps(_pixels(_few(some)))
        for each in hooks:
            each.remove()
    return made


def _corrected(convolution: nn.Conv2d, found: Tensor, mean: Tensor, variance: Tensor, share: float) -> Tensor:
    """What a convolution made, brought to this mean and variance [channels]; so does the convolution from now on."""
    assert convolution.bias is not None
    now, spread = _statistics(found)
    now, spread = share * now + (1 - share) * mean, share * spread + (1 - share) * variance
    of_eps = norm_of(convolution)[2]
    scale = ((variance + of_eps) / (spread + of_eps).clamp_min(1e-12)).sqrt()
    convolution.weight.mul_(scale[:, None, None, None])
    convolution.bias.copy_((convolution.bias - now) * scale + mean)
    return (found - now[:, None, None]) * scale[:, None, None] + mean[:, None, None]


def _statistics(found: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance [channels] of [n, channels, height, width]."""
    return found.mean((0, 2, 3)), found.var((0, 2, 3), correction=0)


def _few(pictures: Tensor) -> Tensor:
    """As many of the pictures as there is room for, far apart in their order."""
    room = max(_FEWEST, _PIXELS // math.prod(pictures.shape[1:3]))
    return pictures[:: max(1, math.ceil(len(pictures) / room))]


@dataclass(frozen=True, eq=False)
class Pictured:
    """Pictures, and the network that makes samples of them.

    Attributes:
        pictures: [n, height, width, 1 or 3] uint8.
        network: one of ours, whose batch norms are known.
        old: [k, height, width, 1 or 3] uint8, of some of the normals of before; None where none are known.

    Raises:
        InputError: pixels are read, or a network of others.
    """

    pictures: Tensor
    network: OfPictures
    old: Tensor | None = None

    def __post_init__(self) -> None:
        of(self.network)

    def __len__(self) -> int:
        return len(self.pictures)

    def samples(self, index: Tensor) -> Tensor:
        """Samples of the pictures at `index` [b]."""
        made: Tensor = self.network(self.pictures[index])
        return made

    def with_statistics(self, share: float) -> Pictured:
        """The same by a network of whose statistics these pictures set this share, and the old ones the rest.

        Raises:
            InputError: no old ones are known.
        """
        if self.old is None:
            raise InputError("the run keeps no pictures of its normals to hold statistics against", "fit it again")
        return replace(self, network=estimated(self.network, self.pictures, self.old, share))

    def moving(self) -> Moved:
        """The same, while gamma and beta of the batch norms move."""
        return Moved(self)


class Moved(nn.Module):
    """Pictures by a network whose batch norms' gamma and beta move; all else is frozen.

    Args:
        pictured: the pictures and what makes samples of them; it stays as it is.
    """

    def __init__(self, pictured: Pictured) -> None:
        super().__init__()
        self.pictured, self.network = pictured, copy.deepcopy(pictured.network)
        self.places = _convolutions(of(self.network))
        self.stretch = nn.ParameterList(torch.zeros(each.out_channels) for each in self.places.values())
        self.shift = nn.ParameterList(torch.zeros(each.out_channels) for each in self.places.values())

    def samples(self, index: Tensor) -> Tensor:
        """Samples of the pictures at `index` [b], with gradients."""
        pixels, features = _pixels(self.pictured.pictures[index]), self.network.features
        assert features is not None
        maps: list[Tensor] = functional_call(_WithGradients(of(self.network)), self._tensors(), (pixels,))
        return features.together(maps)

    def _tensors(self) -> dict[str, Tensor]:
        """The convolutions' weights and biases by name: y about beta times 1 + stretch, plus gamma times shift."""
        tensors = {}
        for (name, each), stretch, shift in zip(self.places.items(), self.stretch, self.shift, strict=True):
            gamma, beta, _ = norm_of(each)
            assert each.bias is not None
            tensors[f"network.{name}.weight"] = each.weight * (1 + stretch)[:, None, None, None]
            tensors[f"network.{name}.bias"] = (each.bias - beta) * (1 + stretch) + beta + gamma * shift
        return tensors

    @torch.no_grad()
    def fixed(self) -> Pictured:
        """The pictures by the network with its norms as they are now."""
        made = copy.deepcopy(self.network)
        of(made).load_state_dict({name.removeprefix("network."): value for name, value in self._tensors().items()})
        return replace(self.pictured, network=made)


class _WithGradients(nn.Module):
    def __init__(self, network: networks.Backbone) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> list[Tensor]:
        return self.network.maps(images)


def _convolutions(network: networks.Backbone) -> dict[str, nn.Conv2d]:
    """Those with a norm in them, by name."""
    return {
        name: each for name, each in network.named_modules() if isinstance(each, nn.Conv2d) and hasattr(each, "norm")
    }


def _pixels(pictures: Tensor) -> Tensor:
    """[n, height, width, channels] uint8 -> [n, channels, height, width] in 0..1."""
    return pictures.permute(0, 3, 1, 2).float() / 255

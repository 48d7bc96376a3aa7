"""Small networks whose form follows the sample's shape: dense for rows, 1-D convolutions for spectra, 2-D for images.

`dense` makes them fully connected over the whole sample whatever its shape, which is fast for small images.

None of them couples the samples of a batch (no batch normalisation), so a weight of k is the same as k copies.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from ...core.modality import Modality

# Widths and code sizes when the user names none, by the axes of the grid that is convolved over: features of rows (0),
# channels of spectra (1) and of images (2).
_WIDTHS = {0: (64,), 1: (16, 32), 2: (16, 32, 64)}
_CODES = {0: 32, 1: 8, 2: 64}
# A code as large as the sample would let everything through.
_LARGEST_CODE = 0.5
Activation = Callable[[], nn.Module]


@dataclass(frozen=True)
class Body:
    """The form of an encoder for samples of one shape, and of the decoder that mirrors it.

    `grid` is along how many axes it convolves; 0 is fully connected.
    """

    sample_shape: tuple[int, ...]
    widths: tuple[int, ...]
    code: int
    grid: int = 0

    @staticmethod
    def of(
        sample_shape: tuple[int, ...],
        modality: Modality,
        widths: Sequence[int] | None = None,
        code: int | None = None,
        dense: bool = False,
    ) -> Body:
        """The given widths and code size, or the default for such samples."""
        grid = 0 if dense else modality.grid
        default = max(1, min(_CODES[grid], math.ceil(_LARGEST_CODE * math.prod(sample_shape))))
        return Body(tuple(sample_shape), (*(widths or _WIDTHS[grid]),), code or default, grid)

    @property
    def small(self) -> tuple[int, ...]:
        """The spatial size after every halving, rounded up."""
        return tuple(math.ceil(side / 2 ** len(self.widths)) for side in self.sample_shape[1:])

    def encoder(self, bias: bool = True, activation: Activation = nn.ReLU) -> nn.Module:
        """[n, *sample] -> [n, code]."""
        if not self.grid:
            sizes = (math.prod(self.sample_shape), *self.widths, self.code)
            return nn.Sequential(nn.Flatten(), *_dense(sizes, bias, activation))
        convolution = nn.Conv1d if self.grid == 1 else nn.Conv2d
        layers: list[nn.Module] = [Pad(self.small, 2 ** len(self.widths))]
        for before, after in zip((self.sample_shape[0], *self.widths), self.widths, strict=False):
            layers += [convolution(before, after, 4, stride=2, padding=1, bias=bias), activation()]
        return nn.Sequential(*layers, nn.Flatten(), nn.Linear(self._flat, self.code, bias=bias))

    def decoder(self, activation: Activation = nn.ReLU) -> nn.Module:
        """[n, code] -> [n, *sample]."""
        layers: list[nn.Module]
        if not self.grid:
            sizes = (self.code, *reversed(self.widths), math.prod(self.sample_shape))
            layers = _dense(sizes, True, activation)
            # The output is not rectified: PyTorch's own, smaller start leaves it closer to zero, the mean of the
            # samples.
            layers[-1] = nn.Linear(sizes[-2], sizes[-1])
            return nn.Sequential(*layers, nn.Unflatten(1, self.sample_shape))
        convolution = nn.ConvTranspose1d if self.grid == 1 else nn.ConvTranspose2d
        layers = [nn.Linear(self.code, self._flat), activation()]
        layers.append(nn.Unflatten(1, (self.widths[-1], *self.small)))
        downwards = tuple(reversed(self.widths))
        for before, after in itertools.pairwise(downwards):
            layers += [convolution(before, after, 4, stride=2, padding=1), activation()]
        layers.append(convolution(downwards[-1], self.sample_shape[0], 4, stride=2, padding=1))
        return nn.Sequential(*layers, Crop(self.sample_shape[1:]))

    @property
    def _flat(self) -> int:
        return self.widths[-1] * math.prod(self.small)


class Pad(nn.Module):
    """Zeros at the far ends, so that every halving is exact."""

    def __init__(self, small: tuple[int, ...], factor: int) -> None:
        super().__init__()
        self.size = tuple(side * factor for side in small)

    def forward(self, samples: Tensor) -> Tensor:
        ends = [(0, full - side) for full, side in zip(self.size, samples.shape[2:], strict=True)]
        return nn.functional.pad(samples, [end for pair in reversed(ends) for end in pair])


class Crop(nn.Module):
    """The first part of each spatial axis: undoes `Pad`."""

    def __init__(self, size: tuple[int, ...]) -> None:
        super().__init__()
        self.size = size

    def forward(self, samples: Tensor) -> Tensor:
        kept: tuple[Any, ...] = (..., *(slice(side) for side in self.size))
        return samples[kept]


def _dense(sizes: Sequence[int], bias: bool, activation: Activation) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(sizes):
        layers += [_started(nn.Linear(before, after, bias=bias)), activation()]
    return layers[:-1]


def _started(layer: nn.Linear) -> nn.Linear:
    """Weights of the variance that rectified layers keep (He et al. 2015); PyTorch's own start a sixth of it."""
    nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu")
    return layer

"""The network of deviation detectors: features, trunk, heads."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ...core.modality import Modality
from .losses import top_mean
from .nets import Body

# Below this a map of places would be too coarse to point at anything.
_SMALLEST_MAP = 8
# How many numbers of a row the largest magnitude is taken of.
_VIEWS = 10


@dataclass(frozen=True)
class Features:
    """What a trunk gives: at each place [n, c, ...] and of the whole sample [n, d]."""

    places: Tensor
    whole: Tensor


class Trunk(nn.Module):
    """Dense for rows and spectra; for images strided convolutions whose levels are brought to one size and stacked."""

    def __init__(self, sample_shape: tuple[int, ...], modality: Modality, hidden: tuple[int, ...]) -> None:
        super().__init__()
        self.dense = not modality.spatial
        if self.dense:
            body = Body(sample_shape, hidden[:-1], hidden[-1])
            self.layers: nn.Module = nn.Sequential(body.encoder(), nn.ReLU())
            self.places = hidden[-1]
            return
        self.levels = nn.ModuleList()
        side = min(sample_shape[1:])
        for before, after in zip((sample_shape[0], *hidden), hidden, strict=False):
            stride = 2 if side > _SMALLEST_MAP else 1
            self.levels.append(nn.Sequential(started(nn.Conv2d(before, after, 3, stride, 1)), nn.ReLU()))
            side = -(-side // stride)
        self.places = sum(hidden)

    def forward(self, samples: Tensor) -> Features:
        if self.dense:
            whole = self.layers(samples)
            return Features(whole, whole)
        levels = []
        for layer in self.levels:
            samples = layer(samples)
            levels.append(samples)
        # The second level is fine enough to tell places and a quarter of the cost of the first.
        height, width = levels[min(1, len(levels) - 1)].shape[2:]
        return Features(torch.cat([_resized(level, (height, width)) for level in levels], 1), levels[-1].mean((2, 3)))


class DeviationHead(nn.Module):
    """One number from each place of an image, of which the mean of the highest tenth of magnitudes is taken.

    A row or spectrum gives one signed number, or, with `views`, the largest magnitude of so many: one number's own
    magnitude would be next to nothing wherever it changes its sign.
    """

    def __init__(self, trunk: Trunk, views: int = 0) -> None:
        super().__init__()
        self.signed = trunk.dense and not views
        self.layer = nn.Linear(trunk.places, views or 1) if trunk.dense else nn.Conv2d(trunk.places, 1, 1)

    def forward(self, features: Features) -> Tensor:
        """[n]"""
        places = self.layer(features.places)
        return places.squeeze(1) if self.signed else top_mean(places.abs())


@dataclass(frozen=True)
class HeadOutputs:
    """What three heads say: deviation [n] of 0 and more, logit of being anomalous [n], logits of places [n, ...]."""

    deviation: Tensor
    logit: Tensor
    places: Tensor

    def split(self, count: int) -> tuple[HeadOutputs, HeadOutputs]:
        """The first `count` samples, and the others."""
        parts = zip(*(value.tensor_split([count]) for value in (self.deviation, self.logit, self.places)), strict=True)
        first, second = (HeadOutputs(*part) for part in parts)
        return first, second


class ThreeHeads(nn.Module):
    """Deviation, probability and segmentation on one trunk (Das et al., WACV 2025)."""

    def __init__(self, sample_shape: tuple[int, ...], modality: Modality, hidden: tuple[int, ...]) -> None:
        super().__init__()
        self.sample_shape = sample_shape
        self.trunk = Trunk(sample_shape, modality, hidden)
        self.deviation = DeviationHead(self.trunk, _VIEWS)
        self.probability = nn.Linear(hidden[-1], 1)
        if self.trunk.dense:
            width = torch.Size(sample_shape).numel()
            self.segmentation: nn.Module = nn.Sequential(nn.Linear(hidden[-1], width), nn.Unflatten(1, sample_shape))
        else:
            middle = started(nn.Conv2d(self.trunk.places, hidden[0], 3, 1, 1))
            self.segmentation = nn.Sequential(middle, nn.ReLU(), nn.Conv2d(hidden[0], 1, 1))

    def forward(self, samples: Tensor) -> HeadOutputs:
        """Of standardised samples [n, *sample]."""
        features = self.trunk(samples)
        places = self.segmentation(features.places)
        if not self.trunk.dense:
            places = nn.functional.interpolate(places, self.sample_shape[1:], mode="bilinear")[:, 0]
        return HeadOutputs(self.deviation(features), self.probability(features.whole)[:, 0], places)


def widths(
    sample_shape: tuple[int, ...], modality: Modality, hidden: tuple[int, ...] | None, rows: tuple[int, ...] = (64,)
) -> tuple[int, ...]:
    """The widths (rows, spectra) or channels (images) asked for, or the default for such samples."""
    default = (16, 32, 64) if modality.spatial else rows
    return Body.of(sample_shape, modality, hidden or default).widths


def started(layer: nn.Conv2d) -> nn.Conv2d:
    """Weights of the variance that rectified layers keep (He et al. 2015)."""
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    return layer


def _resized(level: Tensor, size: tuple[int, int]) -> Tensor:
    if level.shape[2] > size[0] or level.shape[3] > size[1]:
        return nn.functional.adaptive_avg_pool2d(level, size)
    return nn.functional.interpolate(level, size) if tuple(level.shape[2:]) != size else level

"""Weighted standardisation of samples."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...core import inference
from ...core.data import Data
from ...core.modality import Modality

# Of a variance of 1, what rounding leaves.
_CONSTANT = 1e-9


class Standardise(nn.Module):
    """Weighted mean and standard deviation: of each feature or band, or of each channel of an image."""

    mean: Tensor
    scale: Tensor

    def __init__(self, sample_shape: tuple[int, ...], modality: Modality) -> None:
        super().__init__()
        self.axes = (1, 2) if modality.spatial else ()
        shape = (sample_shape[0], 1, 1) if modality.spatial else sample_shape
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("scale", torch.ones(shape))

    def learn(self, data: Data, w: Tensor) -> None:
        """One pass over the data. A constant feature keeps scale 1."""
        total = float(w.double().sum())
        first = torch.zeros(self.mean.shape, dtype=torch.float64)
        second = torch.zeros_like(first)
        # Sums are taken about the first sample that counts, so that a large offset does not eat the digits of a small
        # spread.
        origin = data.read(first_present(w))[0].double()
        origin = origin.mean(self.axes, keepdim=True) if self.axes else origin
        # In double precision: 64 large maps would take gigabytes.
        for batch in data.batches(inference.batch_size_for(data.sample_shape, 64) if self.axes else 4_096):
            part = w[batch.index.to(w.device)].double().cpu()
            samples = batch.samples.double().sub_(origin)
            first += _weighted_sum(samples.mean(self.axes_of_batch, keepdim=True) if self.axes else samples, part)
            squares = samples.square_()
            second += _weighted_sum(squares.mean(self.axes_of_batch, keepdim=True) if self.axes else squares, part)
        mean = first / total
        variance = (second / total - mean.square()).clamp_min(0)
        constant = variance <= 1e-10 * (origin + mean).square().clamp_min(1e-20)
        self.mean = (mean + origin).to(self.mean)
        self.scale = torch.where(constant, 1.0, variance.sqrt()).to(self.scale)

    @property
    def axes_of_batch(self) -> tuple[int, ...]:
        return tuple(axis + 1 for axis in self.axes)

    def forward(self, samples: Tensor) -> Tensor:
        return (samples - self.mean) / self.scale

    def some(self, samples: Tensor, kept: Tensor) -> Tensor:
        """The features, bands or channels `kept` [d] of samples, standardised."""
        return (samples[:, kept] - self.mean[kept]).div_(self.scale[kept])

    def variance_without(self, samples: Tensor, share: Tensor) -> Tensor:
        """What the variance of standardised features would be, which is 1, without each of these standardised samples
        [n, *sample] of shares [n] of the weight: [n, *sample], in double precision.

        A feature that is then constant has the scale of 1 that `learn` gives it.
        """
        samples = samples.double()
        share = share.double().clamp_max(1 - 1e-6).view(-1, *[1] * (samples.dim() - 1))
        first, second = samples, samples.square()
        if self.axes:
            first, second = (each.mean(self.axes_of_batch, keepdim=True) for each in (first, second))
        left = (1 - share * second) / (1 - share) - (share * first / (1 - share)).square()
        scale = self.scale.double()
        return torch.where(left > _CONSTANT, left, scale.square().reciprocal()).expand_as(samples)

    def undo(self, samples: Tensor) -> Tensor:
        """Standardised samples in their own measure again."""
        return samples * self.scale + self.mean


def first_present(w: Tensor) -> Tensor:
    """The place [1] of the first sample with a weight [n]."""
    return (w != 0).nonzero()[:1, 0].cpu()


def _weighted_sum(samples: Tensor, w: Tensor) -> Tensor:
    return torch.tensordot(w, samples, dims=1)

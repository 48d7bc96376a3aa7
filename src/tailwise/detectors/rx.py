"""RX: how far a spectrum lies from the weighted mean, measured by the inverse covariance.

Reed & Yu, IEEE TASSP 1990. Without the leading principal components, in which bright and dark surfaces differ, it is
sub-space RX (Schaum, SPIE 2004). On random features of a Gaussian kernel (Rahimi & Recht 2007) it approximates kernel
RX (Kwon & Nasrabadi, IEEE TGRS 2005).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import scipy
import torch
from torch import Tensor

from ..core.bounds import CountFromZero
from ..core.data import Batch, Data
from ..core.detector import Detector
from ..core.modality import SPECTRUM
from ..core.registry import register
from ..errors import InputError
from ..numerics import export_ops
from .components import cubic_cost
from .components.covariance import weighted_moments

_BATCH = 4_096
# Blocks that stay in the processor's cache.
_BLOCK = 512
# Bands that tell different samples apart.
_TOLD_BY = 8
# A direction with less than this share of the largest variance holds rounding only, as of a band that is a copy.
_LEAST_SHARE = 1e-14
# Random features are many and nearly collinear: below this share of the largest variance they are noise.
_LEAST_SHARE_OF_FEATURES = 1e-6


@register("detector", "rx")
class RX(Detector):
    """Squared Mahalanobis distance of a spectrum to the weighted mean, by the whole, unshrunk covariance.

    With equal weights these are the scores of global RX with the unbiased covariance (`spectral.rx`). A direction in
    which no training pixel differs is given the least variance that numbers can tell, so that leaving it scores high.

    Args:
        leading: how many leading principal components to leave out.
        features: how many random features of a Gaussian kernel stand in for the bands; 0 takes the bands themselves.
    """

    modalities = (SPECTRUM,)
    weights_add_to = (("own", SPECTRUM), ("local", SPECTRUM))
    mean: Tensor
    whitening: Tensor
    centre: Tensor
    directions: Tensor
    phases: Tensor

    def __init__(self, leading: CountFromZero = 0, features: CountFromZero = 0) -> None:
        super().__init__()
        self.leading = leading
        self.features = features

    def build(self, sample_shape: tuple[int, ...]) -> None:
        bands = math.prod(sample_shape)
        size = self.features or bands
        if self.leading >= size:
            raise InputError(f"RX cannot leave {self.leading} of {size} components out", "choose a smaller leading")
        self.register_buffer("mean", torch.zeros(size, dtype=torch.float64))
        self.register_buffer("whitening", torch.zeros(size, size - self.leading, dtype=torch.float64))
        self.register_buffer("centre", torch.zeros(bands if self.features else 0, dtype=torch.float64))
        self.register_buffer("directions", torch.zeros(len(self.centre), self.features, dtype=torch.float64))
        # Drawn from a generator of their own, so that two detectors with the same settings use the same features.
        phases = torch.rand(self.features, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        self.register_buffer("phases", 2 * math.pi * phases)

    def solve(self, data: Data, w: Tensor) -> None:
        device = self.mean.device
        if self.features:
            mean, covariance = weighted_moments(data, w, lambda batch: batch.samples.double(), _BATCH)
            generator = torch.Generator().manual_seed(1)
            drawn = torch.randn(self.directions.shape, generator=generator, dtype=torch.float64)
            # The kernel is as wide as the spectra are spread.
            self.centre = mean[0].to(device)
            self.directions = (drawn / covariance[0].trace().clamp_min(1e-300).sqrt()).to(device)
        size = len(self.whitening)
        cubic_cost.announce(f"a covariance of {size:,} bands", size, fewer="features" if self.features else "bands")
        mean, covariance = weighted_moments(data, w, lambda batch: self._vectors(batch.samples)[:, None], _BATCH)
        samples = _distinct(data, w)
        self.mean = mean[0].to(device)
        self.whitening = self._whitening(covariance[0] * (samples / max(samples - 1, 1))).to(device)

    def score(self, batch: Batch) -> Tensor:
        return torch.cat([self._distances(samples) for samples in export_ops.blocks(batch.samples, _BLOCK)]).float()

    def _distances(self, samples: Tensor) -> Tensor:
        """[n] of samples [n, 1, bands]."""
        centred = self._vectors(samples).sub_(self.mean)
        if self.leading or centred.device.type != "cpu" or export_ops.tracing():
            return (centred @ self.whitening).square_().sum(1)
        # The whitening is zero below its diagonal: this product, in place, takes half of the time.
        whitened = scipy.linalg.blas.dtrmm(1.0, self.whitening.numpy().T, centred.numpy().T, lower=1, overwrite_b=1).T
        return torch.from_numpy(whitened).square_().sum(1)

    def _vectors(self, samples: Tensor) -> Tensor:
        """[n, d]: the bands, or random features of them."""
        bands = samples.flatten(1).to(torch.float64, copy=True)  # it is written to
        if not self.features:
            return bands
        return ((bands - self.centre) @ self.directions + self.phases).cos()

    def _whitening(self, covariance: Tensor) -> Tensor:
        values, vectors = torch.linalg.eigh(covariance)
        share = _LEAST_SHARE_OF_FEATURES if self.features else _LEAST_SHARE
        # Where all samples are the same, what is beyond rounding is far out, and yet a finite score.
        rounding = (_LEAST_SHARE * self.mean.square().max()).clamp_min(1e-30)
        least = torch.where(values[-1] > rounding, values[-1] * share, rounding.to(values))
        scaled = vectors * values.clamp_min(least).rsqrt()
        kept = scaled[:, : len(values) - self.leading]
        # Distances do not feel a rotation, and the one of this decomposition leaves zeros below the diagonal.
        return torch.linalg.qr(kept.flip(0).T, mode="r").R.T.flip(0, 1)


def _distinct(data: Data, w: Tensor) -> int:
    """How many different samples carry weight: the n of the unbiased covariance, in which copies are one sample.

    A few bands tell them apart; two samples that agree in these count as one, which n hardly feels.
    """
    every = math.ceil(data.sample_shape[-1] / _TOLD_BY)
    factors = torch.randint(2**62, (_TOLD_BY,), generator=torch.Generator().manual_seed(0)).tolist()
    digests: list[Any] = []
    for batch in data.batches(_BATCH):
        bits = batch.samples[:, 0, ::every].contiguous().view(torch.int32).T.contiguous().long()
        digests.append(sum(row * factor for row, factor in zip(bits, factors, strict=False)))
    kept = np.sort(torch.cat(digests)[w.cpu() > 0].numpy())
    return 1 + int(np.count_nonzero(np.diff(kept)))

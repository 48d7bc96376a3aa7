"""Deep SVDD: a network that draws normal samples towards one centre (Ruff et al., ICML 2018)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..core.bounds import Count, Widths
from ..core.data import Batch, Data
from ..core.detector import Detector, Reading
from ..core.registry import register
from .components.losses import distance_to
from .components.nets import Body
from .components.standardise import Standardise

# A centre coordinate near zero can be met by zero weights (Ruff et al. 2018, proposition 1 and their code's 0.1).
_AWAY_FROM_ZERO = 0.1


@register("detector", "deep-svdd")
class DeepSVDD(Detector):
    """Squared distance of a sample's code to the centre, averaged over the code's dimensions.

    The collapse to a constant map is guarded as in the paper: no biases, activations that do not saturate, and a
    fixed centre whose coordinates keep away from zero.

    Args:
        hidden: widths (rows) or channels (spectra, images), outermost first. None chooses by the sample's shape.
        code: size of the code; None chooses by the sample's shape.
        dense: fully connected over the whole sample, also for spectra and images: fast for small ones.
    """

    loss_is_score = True
    centre: Tensor

    def __init__(self, hidden: Widths | None = None, code: Count | None = None, dense: bool = False) -> None:
        super().__init__()
        self.hidden = hidden
        self.code = code
        self.dense = dense

    def build(self, sample_shape: tuple[int, ...]) -> None:
        body = Body.of(sample_shape, self.modality, self.hidden, self.code, self.dense)
        self.standardise = Standardise(sample_shape, self.modality)
        self.encoder = body.encoder(bias=False, activation=nn.LeakyReLU)
        self.register_buffer("centre", torch.zeros(body.code))

    @torch.no_grad()
    def prepare(self, data: Data, w: Tensor) -> None:
        """Standardise, then fix the centre at the mean code of the untrained network."""
        self.standardise.learn(data, w)
        device = self.centre.device
        total = torch.zeros_like(self.centre, dtype=torch.float64)
        for batch in data.batches(1_024):
            total += w[batch.index].double().to(device) @ self.embed(batch.to(device)).double()
        mean = (total / w.double().sum().to(device)).to(self.centre)
        away = torch.where(mean < 0, -_AWAY_FROM_ZERO, _AWAY_FROM_ZERO)
        self.centre = torch.where(mean.abs() < _AWAY_FROM_ZERO, away, mean)

    def losses(self, batch: Batch) -> Tensor:
        return distance_to(self.centre, self.embed(batch))

    def score(self, batch: Batch) -> Tensor:
        return self.losses(batch)

    def read(self, batch: Batch, score: bool = True, map: bool = False, embedding: bool = False) -> Reading:
        """The score is a distance of the place."""
        if map:
            return super().read(batch, score, map, embedding)
        code = self.embed(batch)
        read = {"score": distance_to(self.centre, code)} if score else {}
        return Reading(**read, **({"embedding": code} if embedding else {}))

    def embed(self, batch: Batch) -> Tensor:
        return self.encoder(self.standardise(batch.samples))

"""Autoencoder: what was not learnt cannot be rebuilt, so the reconstruction error is the score.

Dense, convolutional or 1-D spectral by the sample's shape (Sakurada & Yairi 2014 for the use of the error).
"""

from __future__ import annotations

from torch import Tensor

from ..core.bounds import Count, Widths
from ..core.data import Batch, Data
from ..core.detector import Detector, Reading
from ..core.modality import ROW
from ..core.registry import register
from .components.losses import squared_error
from .components.nets import Body
from .components.standardise import Standardise


@register("detector", "autoencoder")
class AutoEncoder(Detector):
    """Mean squared reconstruction error of the standardised sample.

    Args:
        hidden: widths (rows) or channels (spectra, images) of the encoder, outermost first; the decoder mirrors it.
            None chooses by the sample's shape.
        code: size of the bottleneck; None chooses by the sample's shape.
        dense: fully connected over the whole sample, also for spectra and images: fast for small ones.
    """

    loss_is_score = True
    weights_add_to = (("own", ROW),)

    def __init__(self, hidden: Widths | None = None, code: Count | None = None, dense: bool = False) -> None:
        super().__init__()
        self.hidden = hidden
        self.code = code
        self.dense = dense

    def build(self, sample_shape: tuple[int, ...]) -> None:
        body = Body.of(sample_shape, self.modality, self.hidden, self.code, self.dense)
        self.standardise = Standardise(sample_shape, self.modality)
        self.encoder = body.encoder()
        self.decoder = body.decoder()

    def prepare(self, data: Data, w: Tensor) -> None:
        self.standardise.learn(data, w)

    def losses(self, batch: Batch) -> Tensor:
        samples = self.standardise(batch.samples)
        return squared_error(samples, self.decoder(self.encoder(samples)))

    def score(self, batch: Batch) -> Tensor:
        return self.losses(batch)

    def embed(self, batch: Batch) -> Tensor:
        return self.encoder(self.standardise(batch.samples))

    def score_map(self, batch: Batch) -> Tensor:
        """Squared error at each feature, band or pixel, averaged over channels."""
        return self.read(batch, score=False, map=True).map

    def read(self, batch: Batch, score: bool = True, map: bool = False, embedding: bool = False) -> Reading:
        """The sample is rebuilt once."""
        samples = self.standardise(batch.samples)
        code = self.encoder(samples)
        read = {"embedding": code} if embedding else {}
        if score or map:
            rebuilt = self.decoder(code)
            read |= {"score": squared_error(samples, rebuilt)} if score else {}
            read |= {"map": self.modality.over_channels((samples - rebuilt).square())} if map else {}
        return Reading(**read)

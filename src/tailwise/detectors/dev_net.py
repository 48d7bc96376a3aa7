"""Deviation network: a few labelled anomalies are pushed beyond a margin, all other samples drawn to a prior's mean.

Rows: Pang, Shen & van den Hengel, KDD 2019. Images: Pang et al., arXiv 2108.00462.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..core.bounds import CountFromZero, Positive, Widths
from ..core.data import Batch, Data
from ..core.detector import Detector
from ..core.problem import Labelled
from ..core.registry import register
from ..errors import InputError
from .components import adaptive_deviation, deviation_network, input_gradients
from .components.standardise import Standardise


@register("detector", "dev-net")
class DevNet(Detector):
    """A score of its own for each sample, trained on |dev| of the samples and max(0, margin - dev) of known anomalies.

    dev is the score in standard deviations of a standard Gaussian prior. A sample's loss holds both terms, the second
    as a mean over the anomalies, so the two sorts balance at any batch size without drawing anomalies again and again.
    The score of an image is the mean of the highest tenth of its places.

    Args:
        hidden: widths (rows, spectra) or channels (images). None is (20,) as published, or (16, 32, 64) for images.
        margin: how many standard deviations anomalies must be away.
        prior_draws: draw so many numbers of the prior and take their mean and deviation, as published (5,000), which
            adds an error of 1.4 % and nothing else; 0 takes those of the prior itself.
    """

    needs_labels = True
    maps_are_gradients = True
    prior: Tensor  # [2]: mean and standard deviation
    steps: Tensor

    def __init__(self, hidden: Widths | None = None, margin: Positive = 5.0, prior_draws: CountFromZero = 0) -> None:
        super().__init__()
        if prior_draws == 1:
            raise InputError("DevNet prior_draws cannot be 1, which has no spread", "0 is the prior itself")
        self.hidden = hidden
        self.margin = margin
        self.prior_draws = prior_draws

    def build(self, sample_shape: tuple[int, ...]) -> None:
        self.standardise = Standardise(sample_shape, self.modality)
        self.trunk = deviation_network.Trunk(
            sample_shape,
            self.modality,
            deviation_network.widths(sample_shape, self.modality, self.hidden, rows=(20,)),
        )
        self.head = deviation_network.DeviationHead(self.trunk)
        self.known = adaptive_deviation.Known(sample_shape, self.modality)
        draws = torch.randn(self.prior_draws)
        prior = torch.stack([draws.mean(), draws.std()]) if self.prior_draws else torch.tensor([0.0, 1.0])
        self.register_buffer("prior", prior)
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    def know(self, anomalies: Labelled) -> None:
        self.known.keep(anomalies)

    def prepare(self, data: Data, w: Tensor) -> None:
        self.standardise.learn(data, w)

    def losses(self, batch: Batch) -> Tensor:
        anomalies = self.known.samples
        if self.known.rotates:
            anomalies = anomalies[self.known.at(int(self.steps))]
            if self.training:
                self.steps += 1
        deviations = self._scores(torch.cat([batch.samples, anomalies]))
        if self.prior_draws:
            deviations = (deviations - self.prior[0]) / self.prior[1]
        samples, pushed = deviations.split_with_sizes([len(batch), len(anomalies)])
        # The two ends of losses.deviation_loss; spelled out, a step of a small network takes a tenth less.
        return samples.abs() + (self.margin - pushed).relu().mean()

    def contrast(self, batch: Batch) -> Tensor:
        """The known anomalies."""
        return self.known.samples

    def score(self, batch: Batch) -> Tensor:
        return self._scores(batch.samples)

    def embed(self, batch: Batch) -> Tensor:
        return self.trunk(self.standardise(batch.samples)).whole

    def explain(self, batch: Batch) -> Tensor:
        """[n, *sample]: what raises the score: its gradient, for each standard deviation of the input."""
        scale = self.standardise.scale
        return input_gradients.gradients(self._scores, batch.samples) * scale

    def score_map(self, batch: Batch) -> Tensor:
        """Magnitude of the score's gradient at each feature, band or pixel, with the score as its largest value."""
        return input_gradients.localised(self.explain(batch), self.score(batch), self.modality)

    def _scores(self, samples: Tensor) -> Tensor:
        return self.head(self.trunk(self.standardise(samples)))

"""What the detectors that score by deviation share: networks with heads, a bank of samples, known anomalies, gradients.

A deviation is a score counted in standard deviations of a prior for normal samples (Pang et al., KDD 2019): normal
samples are drawn to 0, anomalies pushed beyond a margin.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from ...core.data import Batch, Data
from ...core.detector import Detector
from ...core.modality import Modality
from ...core.problem import Labelled
from ...numerics import counter_rng
from . import pseudo_anomalies
from .deviation_network import HeadOutputs, ThreeHeads, widths
from .losses import deviation_loss, focal_loss, top_mean
from .standardise import Standardise

# Anomalies are few; of many, a step sees so many, and the next step the next ones.
_KNOWN_AT_A_STEP = 32
# Samples that lend their values or textures: distinct ones, chosen by their content alone.
_BANK_SAMPLES = 256
_BANK_ENTRIES = 4_000_000
_RANGE = (0.01, 0.99)
# How many steps are made with hard labels; of a short training at most a share of all, but the first ones always.
_BURN_IN, _BURN_IN_SHARE, _SHORTEST_BURN_IN = 500, 2 / 3, 200
# A target made from the network's own opinion is used so often (Das et al. 2025).
_OPINION_SHARE = 0.6
# The batch whose size the published code divides by once too often.
_PUBLISHED_BATCH = 48
_PUBLISHED_DRAWS = 5_000


class Known(nn.Module):
    """A few labelled anomalies. They train only: they are no part of the saved state."""

    samples: Tensor
    masks: Tensor
    masked: Tensor

    def __init__(self, sample_shape: tuple[int, ...], modality: Modality) -> None:
        super().__init__()
        self.spatial = modality.spatial
        places = modality.space(sample_shape)
        self.register_buffer("samples", torch.zeros(0, *sample_shape), persistent=False)
        self.register_buffer("masks", torch.zeros(0, *places), persistent=False)
        self.register_buffer("masked", torch.zeros(0, dtype=torch.bool), persistent=False)

    def keep(self, anomalies: Labelled) -> None:
        """Take over the samples, in an order of their content's, and the masks of images that have one."""
        device = self.samples.device
        samples = anomalies.data.read(torch.arange(len(anomalies.data)))
        order = counter_rng.seeds_of(samples).argsort()
        places = tuple(self.masks.shape[1:])
        masks = torch.zeros(len(samples), *places)
        masked = torch.zeros(len(samples), dtype=torch.bool)
        for at, mask in enumerate(anomalies.masks or ()):
            if mask is not None and self.spatial:
                whole = (torch.as_tensor(np.asarray(mask)) > 0).float()[None, None]
                # Of a mask that is finer than the sample, a place is touched if any of it is.
                masks[at] = nn.functional.adaptive_max_pool2d(whole, places)[0, 0]
                masked[at] = True
        self.samples, self.masks, self.masked = (value[order].to(device) for value in (samples, masks, masked))

    def at(self, step: int) -> Tensor:
        """Indices of those that this step sees."""
        count = min(len(self.samples), _KNOWN_AT_A_STEP)
        start = step * count if self.rotates else 0
        return (start + torch.arange(count, device=self.samples.device)) % max(1, len(self.samples))

    @property
    def rotates(self) -> bool:
        """Whether there are more than a step sees."""
        return len(self.samples) > _KNOWN_AT_A_STEP


class Adaptive(Detector):
    """The training that Adaptive Deviation Learning and Multi-Cue share; a subclass scores, and names its settings.

    A subclass's constructor sets `hidden`, `margin`, `burn_in_steps` and `as_published`.
    """

    hidden: tuple[int, ...] | None
    margin: float
    burn_in_steps: int | None
    as_published: bool
    bank: Tensor
    steps: Tensor

    def build(self, sample_shape: tuple[int, ...]) -> None:
        self.standardise = Standardise(sample_shape, self.modality)
        self.heads = ThreeHeads(sample_shape, self.modality, widths(sample_shape, self.modality, self.hidden))
        self.register_buffer("bank", torch.zeros(2, *sample_shape), persistent=False)
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    def prepare(self, data: Data, w: Tensor) -> None:
        self.standardise.learn(data, w)

    def remember(self, data: Data, w: Tensor) -> None:
        bank = self.standardise(lenders(data, w).to(self.bank.device))
        if not self.modality.spatial:
            # Of rows only the range is needed, without the extremes, of which one would stretch it.
            bank = bank.quantile(torch.tensor(_RANGE, device=bank.device, dtype=bank.dtype), dim=0)
        self.bank = bank

    @property
    def burn_in(self) -> int:
        """How many steps are made with hard labels."""
        if self.burn_in_steps is not None:
            return self.burn_in_steps
        if not self.planned_steps:
            return _BURN_IN
        return min(_BURN_IN, max(_SHORTEST_BURN_IN, round(_BURN_IN_SHARE * self.planned_steps)))

    def losses(self, batch: Batch) -> Tensor:
        step = self._step()
        seeds = counter_rng.seeds_of(batch.samples, step)
        samples = self.standardise(batch.samples)
        made, mask = self._altered(samples, seeds)
        real, pseudo = self.heads(torch.cat([samples, made])).split(len(samples))
        mask = mask.to(samples)
        normal = self._terms(real, 0.0, torch.zeros_like(mask), step, seeds)
        return normal + self._anomalous_terms(self._terms(pseudo, 1.0, mask, step), step)

    def contrast(self, batch: Batch) -> Tensor:
        """The pseudo-anomalies [n, *sample] of samples, as evaluation mode makes them."""
        made, _ = self._altered(self.standardise(batch.samples), counter_rng.seeds_of(batch.samples, int(self.steps)))
        return self.standardise.undo(made)

    def _anomalous_terms(self, pseudo: Tensor, step: int) -> Tensor:
        """Losses of anomalies that stand against each sample: here those of its own pseudo-anomaly [n]."""
        return pseudo

    def _step(self) -> int:
        """How many training steps were made before; in evaluation the count stands still."""
        step = int(self.steps)
        if self.training:
            self.steps += 1
        return step

    def _altered(self, samples: Tensor, seeds: Tensor) -> tuple[Tensor, Tensor]:
        if self.modality.spatial:
            return pseudo_anomalies.altered_images(samples, seeds, self.bank)
        rows, mask = pseudo_anomalies.altered_rows(samples.flatten(1), seeds, *self.bank.flatten(1))
        return rows.view_as(samples), mask.view_as(samples)

    def _terms(
        self,
        reading: HeadOutputs,
        label: float,
        mask: Tensor,
        step: int,
        seeds: Tensor | None = None,
        masked: Tensor | None = None,
    ) -> Tensor:
        """Deviation, probability and segmentation losses [n] of samples with one label.

        `seeds` are those of unlabelled samples, for which the label is only an assumption; `masked` says whose mask
        is known.
        """
        burning = step < self.burn_in
        labels = torch.full_like(reading.logit, label)
        target = labels if burning else self._softened(labels, reading.logit.detach().sigmoid())
        taught = labels if burning or seeds is None else self._opinion(reading.deviation.detach(), seeds)
        judged = deviation_loss(self._deviation(reading, step), target, self.margin)
        judged = judged + nn.functional.binary_cross_entropy_with_logits(reading.logit, taught, reduction="none")
        placed = focal_loss(reading.places, mask)
        if masked is not None:
            # Of an anomaly without a mask it is known that some of its places are touched.
            somewhere = focal_loss(top_mean(reading.places)[:, None], torch.ones_like(reading.logit)[:, None])
            placed = torch.where(masked, placed, somewhere)
        return (judged / _PUBLISHED_BATCH if self.as_published else judged) + placed

    def _softened(self, labels: Tensor, probability: Tensor) -> Tensor:
        """What stands for the labels in the deviation: the probability, but a label keeps at least half of its say.

        Without that, as published, a network that has not learnt may call every sample anomalous, and is then rewarded
        for it: its own opinion would push what it should draw.
        """
        if self.as_published:
            return probability
        return torch.where(labels > 0, probability.clamp_min(0.5), probability.clamp_max(0.5))

    def _deviation(self, reading: HeadOutputs, step: int) -> Tensor:
        """In standard deviations of the prior, which is known; the published code draws 5,000 of it at every step."""
        if not self.as_published:
            return reading.deviation
        seed = torch.full((1,), step, dtype=torch.long, device=reading.deviation.device)
        draws = counter_rng.normals(seed, _PUBLISHED_DRAWS, 40)
        return (reading.deviation - draws.mean()) / draws.std()

    def _opinion(self, deviation: Tensor, seeds: Tensor) -> Tensor:
        """What the probability head is taught of an unlabelled sample [n]: mostly the side that its deviation is on."""
        asked = counter_rng.uniforms(seeds, 1, 41)[:, 0] < _OPINION_SHARE
        return torch.where(asked, self._side(deviation), 0.0)

    def _side(self, deviation: Tensor) -> Tensor:
        """1 beyond half the margin: nearer to where anomalies are sent than to the prior's mean."""
        return (deviation > self.margin / 2).to(deviation)

    def heads_of(self, batch: Batch) -> HeadOutputs:
        """What the three heads say of samples."""
        return self.heads(self.standardise(batch.samples))

    def embed(self, batch: Batch) -> Tensor:
        return self.heads.trunk(self.standardise(batch.samples)).whole


def lenders(data: Data, w: Tensor) -> Tensor:
    """Distinct samples of weight above 0, those whose content comes first in a fixed disorder: weights do not
    matter."""
    count = max(2, min(_BANK_SAMPLES, _BANK_ENTRIES // max(1, torch.Size(data.sample_shape).numel())))
    kept = (w > 0).nonzero().flatten().cpu()
    best, samples = torch.zeros(0, dtype=torch.long), torch.zeros(0, *data.sample_shape)
    for batch in data.take(kept).batches(max(count, 64)):
        seeds = torch.cat([best, counter_rng.seeds_of(batch.samples)])
        samples = torch.cat([samples, batch.samples])
        best, inverse = torch.unique(seeds, return_inverse=True)  # sorted
        first = torch.zeros(len(best), dtype=torch.long).scatter_(0, inverse, torch.arange(len(seeds)))
        best, samples = best[:count], samples[first[:count]]
    return samples

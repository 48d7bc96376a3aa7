"""Multi-Cue: Adaptive Deviation Learning with a few labelled anomalies, scored by three cues at once.

Das & Bhuyan, arXiv 2601.22913, for images; the form for rows and spectra is ours.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ..core.bounds import CountFromZero, Positive, Share, Widths
from ..core.data import Batch
from ..core.problem import Labelled
from ..core.registry import register
from .components.adaptive_deviation import Adaptive, Known
from .components.deviation_network import HeadOutputs
from .components.fusion import fuse, squash
from .components.input_gradients import gradients, localised, with_top
from .components.losses import top_mean

_WEIGHTS = {"deviation": 0.55, "entropy": 0.10, "segmentation": 0.35}
# Scales and tops of the squashing are theirs, but for the deviation's top (see the class).
_PUBLISHED_TOP = 1.0
_SCALE_OF_TOP = 0.05
_PUBLISHED_KNOWN_SHARE = 1 / 6
# Smoothing of the map, in shares of the side: a deviation of 8 pixels in 256.
_BLUR = 8 / 256


@register("detector", "multi-cue")
class MultiCue(Adaptive):
    """Adaptive deviation against pseudo-anomalies and known ones; deviation, doubt and segmentation are fused.

    Against each sample stand its own pseudo-anomaly and the mean of the labelled anomalies, whose masks (where there
    are any) teach the segmentation. The score is the weighted geometric mean of squashed cues, within 0..1.

    Two things in the published score are put right unless `as_published`: the entropy of the probability is highest at
    1/2 and lowers the score of what is surely anomalous, so above 1/2 it is continued upwards, 2 ln 2 - H; and the
    deviation was cut off at 1 though anomalies are sent beyond 10, so it is cut off at the margin. The soft target of
    an unlabelled sample, 0.95 sigmoid(5 (u - 1/2)), takes u as a share of the margin where the paper stretches each
    batch onto 0..1, by which some sample of a clean batch always passes for anomalous.

    Args:
        hidden: widths (rows, spectra) or channels (images). None is (64,), or (16, 32, 64) for images.
        margin: how many standard deviations anomalies must be away.
        burn_in_steps: steps with hard labels; the paper takes 6 % of all. None as in `adl`.
        known_share: how much of the anomalous side of the loss the labelled anomalies are; the rest is the
            pseudo-anomaly. The published sampling makes it 1/6.
        as_published: the released code's sum of losses, share, entropy and cut-off.
    """

    needs_labels = True
    maps_are_gradients = True

    def __init__(
        self,
        hidden: Widths | None = None,
        margin: Positive = 10.0,
        burn_in_steps: CountFromZero | None = None,
        known_share: Share = 0.5,
        as_published: bool = False,
    ) -> None:
        super().__init__()
        self.hidden = hidden
        self.margin = margin
        self.burn_in_steps = burn_in_steps
        self.known_share = known_share
        self.as_published = as_published

    def build(self, sample_shape: tuple[int, ...]) -> None:
        super().build(sample_shape)
        self.known = Known(sample_shape, self.modality)

    def know(self, anomalies: Labelled) -> None:
        self.known.keep(anomalies)

    def contrast(self, batch: Batch) -> Tensor:
        """The known anomalies."""
        return self.known.samples

    def _anomalous_terms(self, pseudo: Tensor, step: int) -> Tensor:
        at = self.known.at(step)
        reading = self.heads(self.standardise(self.known.samples[at]))
        known = self._terms(reading, 1.0, self.known.masks[at], step, masked=self.known.masked[at]).mean()
        share = _PUBLISHED_KNOWN_SHARE if self.as_published else self.known_share
        return (1 - share) * pseudo + share * known

    def _side(self, deviation: Tensor) -> Tensor:
        return 0.95 * (5 * ((deviation / self.margin).clamp_max(1) - 0.5)).sigmoid()

    def cues(self, batch: Batch) -> dict[str, Tensor]:
        """The squashed cues [n] by name, each within 0..1 and higher for more anomalous."""
        return self._cues(self.heads_of(batch))

    def score(self, batch: Batch) -> Tensor:
        return fuse(self.cues(batch), _WEIGHTS)

    def score_map(self, batch: Batch) -> Tensor:
        """Where the score comes from: magnitudes of the heads' gradients at the input, averaged and smoothed.

        Taken before squashing and before the sigmoids, whose slope is nothing where an anomaly is beyond doubt; for
        the map of the entropy that makes no difference, its gradient being a multiple of the logit's.
        """
        samples = self.standardise(batch.samples)
        even = samples.new_ones(len(samples))
        heads: list[Callable[[HeadOutputs], Tensor]] = [
            lambda reading: reading.deviation,
            lambda reading: reading.logit,
            lambda reading: top_mean(reading.places),
        ]

        def part(head: Callable[[HeadOutputs], Tensor]) -> Tensor:
            return localised(gradients(lambda x: head(self.heads(x)), samples), even, self.modality, _BLUR)

        return with_top(torch.stack([part(head) for head in heads]).mean(0), self.score(batch))

    def _cues(self, reading: HeadOutputs) -> dict[str, Tensor]:
        top = _PUBLISHED_TOP if self.as_published else self.margin
        places = top_mean(reading.places.sigmoid())
        return {
            "deviation": squash(reading.deviation, _SCALE_OF_TOP * top, top),
            "entropy": self._doubt(reading.logit),
            "segmentation": squash(places.sqrt(), _SCALE_OF_TOP, 1.0),
        }

    def _doubt(self, logit: Tensor) -> Tensor:
        """ln(1 + H) squashed, H the entropy of the probability."""
        p = logit.sigmoid().clamp(1e-6, 1 - 1e-6)
        entropy = -p * p.log() - (1 - p) * (1 - p).log()
        most = math.log(2)
        if not self.as_published:
            entropy, most = torch.where(p > 0.5, 2 * most - entropy, entropy), 2 * most
        top = math.log1p(most)
        return squash(entropy.log1p(), top / 10, top)

"""Adaptive Deviation Learning: a deviation network against pseudo-anomalies, on data that may hold hidden anomalies.

Das, Pang & Bhuyan, WACV 2025 (arXiv 2411.09558), for images. The form for rows and spectra is ours, and so is all
that makes a sample's loss its own: where the published code looks at a batch, the known scale of deviations is used.
"""

from __future__ import annotations

from torch import Tensor

from ..core.bounds import CountFromZero, Positive, Widths
from ..core.data import Batch
from ..core.detector import Reading
from ..core.registry import register
from .components.adaptive_deviation import Adaptive


@register("detector", "adl")
class AdaptiveDeviation(Adaptive):
    """Deviation of a sample, learnt by telling it from an anomaly made of it, with targets that grow soft.

    A sample's loss is that of itself, labelled normal, and of its pseudo-anomaly: soft deviation, cross-entropy of the
    probability head, and focal loss of the segmentation head, which says what was replaced. After the burn-in the
    probability stands for the label in the deviation, and a sample beyond half the margin mostly counts as anomalous
    for the probability, so that hidden anomalies stop being drawn to normal. The published code splits each batch in
    two by k-means for that, whether or not there is an anomaly in it.

    Its companion is `--weighting "AlphaDivergence()"`, the paper's instance weights: here they are taken over all
    samples after each epoch, not over a batch at each step.

    Args:
        hidden: widths (rows, spectra) or channels (images). None is (64,), or (16, 32, 64) for images.
        margin: how many standard deviations anomalies must be away.
        burn_in_steps: steps with hard labels. The paper takes 6 % of all, on a network that comes trained; ours starts
            from nothing, and its opinions are worth nothing before: None takes 500, a third of the 1,500 that training
            takes by default, or two thirds of a shorter training and at least 200. Never to end (10**9) is the plain
            deviation network on pseudo-anomalies.
        as_published: the released code's sum, in which deviation and probability count 1/48 of what a weighted mean
            gives them, so that segmentation decides; a prior that is drawn anew at each step; targets that may forget
            the label altogether. Its k-means is left out all the same: it would couple the samples of a batch.
    """

    def __init__(
        self,
        hidden: Widths | None = None,
        margin: Positive = 10.0,
        burn_in_steps: CountFromZero | None = None,
        as_published: bool = False,
    ) -> None:
        super().__init__()
        self.hidden = hidden
        self.margin = margin
        self.burn_in_steps = burn_in_steps
        self.as_published = as_published

    def score(self, batch: Batch) -> Tensor:
        return self.read(batch).score

    def score_map(self, batch: Batch) -> Tensor:
        """Probability that a feature, band or pixel was replaced."""
        return self.read(batch, score=False, map=True).map

    def read(self, batch: Batch, score: bool = True, map: bool = False, embedding: bool = False) -> Reading:
        """The three heads look once."""
        read = {"embedding": self.embed(batch)} if embedding else {}
        if score or map:
            heads = self.heads_of(batch)
            read |= {"score": heads.deviation} if score else {}
            read |= {"map": self._probability(heads.places)} if map else {}
        return Reading(**read)

    def _probability(self, places: Tensor) -> Tensor:
        return places.sigmoid() if self.modality.spatial else self.modality.over_channels(places.sigmoid())

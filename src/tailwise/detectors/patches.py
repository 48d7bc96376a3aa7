"""Detectors of rows on the patches of images: each patch is a sample of its own, with a loss and a weight of its own.

A patch is a position of a feature map together with its neighbours, as in PatchCore (Roth et al., CVPR 2022), and is
scored by a detector that takes rows.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..core.bounds import Count, OddSide, Widths
from ..core.data import Batch, Data
from ..core.detector import Detector, Reading, ReadsOnce
from ..core.modality import POINT_CLOUD, ROW, SPATIAL
from ..core.registry import find, register
from .components import pooling

_STEP = 32


@register("detector", "patches")
class Patches(ReadsOnce):
    """Any detector of rows, fitted on patches; of an image, the mean of its highest patch scores.

    The training loop sees patches only: losses, weights and epochs are theirs, and a patch inherits the weight that
    its image is given beforehand. With more patches than `most` equally many are drawn from each image.

    Args:
        detector: what learns the patches [channels]; None is an autoencoder.
        neighbourhood: side of the square of positions that are averaged to a patch; 1 leaves positions as they are, as
            the points of clouds always are.
        most: how many patches are learnt from.
        highest: how many of an image's patches its score is the mean of.
    """

    modalities = (*SPATIAL, POINT_CLOUD)
    wants_maps = True

    def __init__(
        self, detector: Detector | None = None, neighbourhood: OddSide = 3, most: Count = 50_000, highest: Count = 20
    ) -> None:
        super().__init__()
        self.detector = find("detector", "autoencoder")() if detector is None else detector
        self.neighbourhood = neighbourhood
        self.most = most
        self.highest = highest

    def build(self, sample_shape: tuple[int, ...]) -> None:
        self.detector.start(sample_shape[:1], ROW)

    def divide(self, data: Data, generator: torch.Generator) -> tuple[Data, Tensor]:
        positions = data.sample_shape[1] * data.sample_shape[2]
        each = min(positions, max(1, self.most // len(data)))
        rows, place = [], []
        for batch in data.batches(_STEP):
            found = self._patches(batch.samples)  # [b, positions, channels]
            order = torch.rand(len(batch), positions, generator=generator).argsort(1)[:, :each].sort(1).values
            rows.append(found.gather(1, order[..., None].expand(-1, -1, found.shape[2])).flatten(0, 1))
            place.append(order.flatten())
        owner = torch.arange(len(data)).repeat_interleave(each)
        return Data(torch.cat(rows), self._names(data, owner, torch.cat(place)), modality=ROW), owner

    def read(self, batch: Batch, score: bool = True, map: bool = False, embedding: bool = False) -> Reading:
        """The detector of rows reads the patches once; the embedding is the mean over the places of an image's."""
        images = batch.samples.shape[0]
        rows = self.detector.read(self._as_rows(batch), score or map, False, embedding)
        read: dict[str, Tensor] = {}
        if score or map:
            maps = rows.score.unflatten(0, (images, *self.sample_shape[1:]))
            scores = maps.flatten(1)
            read = {"score": scores.topk(min(self.highest, scores.shape[1])).values.mean(1)} if score else {}
            read |= {"map": maps} if map else {}
        if embedding:
            read["embedding"] = rows.embedding.unflatten(0, (images, -1)).mean(1)
        return Reading(**read)

    def _patches(self, samples: Tensor) -> Tensor:
        """[b, channels, height, width] -> [b, positions, channels]."""
        return pooling.means_around(samples, 1 if self.modality.scattered else self.neighbourhood)

    def _as_rows(self, batch: Batch) -> Batch:
        rows = self._patches(batch.samples).flatten(0, 1)
        return Batch(rows, torch.arange(rows.shape[0], device=rows.device))

    def _names(self, data: Data, owner: Tensor, place: Tensor) -> list[str]:
        """The sample's name, a hash sign, and the patch's row and column."""
        width = data.sample_shape[2]
        pairs = zip(owner.tolist(), place.tolist(), strict=True)
        return [f"{data.names[sample]}#{at // width},{at % width}" for sample, at in pairs]


class _OfFeatures(Patches):
    """Patches learnt by one named detector, whose networks are set here."""

    learner = ""

    def __init__(
        self,
        hidden: Widths | None = None,
        code: Count | None = None,
        neighbourhood: OddSide = 3,
        most: Count = 50_000,
        highest: Count = 20,
    ) -> None:
        super().__init__(find("detector", self.learner)(hidden, code), neighbourhood, most, highest)
        self.hidden = hidden
        self.code = code


@register("detector", "feature-autoencoder")
class FeatureAutoEncoder(_OfFeatures):
    """An autoencoder of patches: reconstruction error of a backbone's features.

    Args:
        hidden, code: of the autoencoder.
        neighbourhood, most, highest: of the patches, see `Patches`.
    """

    learner = "autoencoder"


@register("detector", "feature-svdd")
class FeatureSVDD(_OfFeatures):
    """Deep SVDD of patches: distance of a patch's code to one centre (compare Yi & Yoon, ACCV 2020).

    Args:
        hidden, code: of the network.
        neighbourhood, most, highest: of the patches, see `Patches`.
    """

    learner = "deep-svdd"

"""PaDiM and a memory of patches, read as one: what either knows of where normal lies, on one scale.

A Gaussian at each position knows parts that lie where they lie (PaDiM, Defard et al. 2021); a memory of patches knows
them wherever they lie (PatchCore, Roth et al. 2022). Their errors differ, so their mean is better than each on most
sets (LOG.md). Fusing detectors by the mean of their standardised scores is common practice (Aggarwal & Sathe 2017,
Outlier Ensembles); taking logarithms, and training scores left out, is ours.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..core import inference, registry
from ..core.data import Batch, Data
from ..core.detector import ClosedForm, Detector, Prototypical, Reading, ReadsOnce
from ..core.modality import SPATIAL
from ..core.registry import register


@register("detector", "patch-ensemble")
class PatchEnsemble(ReadsOnce):
    """Mean of the standardised log scores of `padim` and `patch-memory`; the map the smaller of theirs at each place.

    Scores are standardised by mean and standard deviation over the training samples, each as if it had not been
    learnt. Each map is divided by the detector's usual score of an image, so 1 is as far as the farthest places of a
    usual normal lie. Local scores are used unless the user says otherwise, and the detector's own counts six times as
    much there as a distance between the images as wholes: these see what is spread over the image.

    Args:
        max_memory: bytes that a fit of the memory may take, such as "2GB".
    """

    modalities = SPATIAL
    wants_maps = True
    solve_once = True
    local_weight = 6
    positions: Detector
    patches: Detector
    middle: Tensor
    spread: Tensor

    def __init__(self, max_memory: str = "2GB") -> None:
        super().__init__()
        self.max_memory = max_memory
        self.positions = registry.parse_one("padim", "detector")
        self.patches = registry.parse_one(f"PatchMemory(max_memory={max_memory!r})", "detector")

    def build(self, sample_shape: tuple[int, ...]) -> None:
        for member in self._members:
            member.start(sample_shape, self.modality)
        self.register_buffer("middle", torch.zeros(2))  # of each member's log scores
        self.register_buffer("spread", torch.ones(2))

    @torch.no_grad()
    def solve(self, data: Data, w: Tensor) -> Tensor:
        scores = []
        for member in self._members:
            assert isinstance(member, ClosedForm)
            scores.append(inference.solved(member, data, w))
        known = _log(torch.stack(scores)).double()
        share = (w.double() / w.double().sum()).to(known)
        middle = (share * known).sum(1)
        spread = (share * (known - middle[:, None]).square()).sum(1).sqrt()
        self.middle, self.spread = middle.to(self.middle), spread.clamp_min(1e-6).to(self.spread)
        return self._fused(*(each.to(self.middle) for each in scores)).cpu()

    def read(self, batch: Batch, score: bool = True, map: bool = False, embedding: bool = False) -> Reading:
        """The embedding is the patches' mean."""
        read: dict[str, Tensor] = {}
        first, second = (member.read(batch, score, map) for member in self._members)
        if score:
            read["score"] = self._fused(first.score, second.score)
        if map:
            usual = self.middle.exp()
            # PaDiM's are squared distances. What only one of both sees is mostly its own noise (LOG.md).
            read["map"] = torch.minimum((first.map.clamp_min(0) / usual[0]).sqrt(), second.map / usual[1])
        if embedding:
            read["embedding"] = self.patches.embed(batch)
        return Reading(**read)

    def peak_at(self, score: Tensor) -> Tensor:
        """By the mean spread of the members' log scores, of PaDiM's squared distances the half."""
        return ((self.spread[0] / 2 + self.spread[1]) / 2 * score).exp()

    def score_left_out(self, batch: Batch) -> Tensor:
        return self._fused(*(member.score_left_out(batch) for member in self._members))

    def prototypes(self) -> Tensor:
        """The memory of patches."""
        return self._memory.prototypes()

    def parts(self, samples: Tensor) -> Tensor:
        return self._memory.parts(samples)

    @property
    def _memory(self) -> Prototypical:
        assert isinstance(self.patches, Prototypical)
        return self.patches

    @property
    def _members(self) -> tuple[Detector, Detector]:
        return self.positions, self.patches

    def _fused(self, *scores: Tensor) -> Tensor:
        standard = [
            (_log(each) - middle) / spread
            for each, middle, spread in zip(scores, self.middle, self.spread, strict=True)
        ]
        return torch.stack(standard).mean(0)


def _log(scores: Tensor) -> Tensor:
    return scores.clamp_min(1e-12).log()

"""LSFA: features of photographs and of geometry adapted to each other before two memories keep them.

Tu et al., ECCV 2024 (arXiv 2401.03145). Two adaptors learn on normal parts that the cells of one sample lie near those
of others (compactness within a modality), and that a cell's two features tell which cell it is (consistency across
modalities). Departures: the published code keeps a queue of earlier patches and takes negatives from the whole batch;
here both are taken from reference samples, so that the loss of a sample is its own and its weight means what it means
elsewhere. Neither part of the loss changes with the scale of adapted cells: distances are divided by how far the cells
of references spread, and the cross entropy by what a guess costs. The nearest cell has a gradient too, or else the two
chase each other and grow. Cells of training are noisy, or else adaptors learn them by heart and normal cells that they
have not seen look odd. Scores are fused from tails measured on samples left out, where the code fits one-class SVMs
to scores of training samples. Two memories of the features as they came stand beside those of adapted ones: what
adaptors take for nuisance can be a defect, as dents are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from ..core import inference
from ..core.bounds import Count, NotNegative, Share
from ..core.context import Measured
from ..core.data import Batch, Data
from ..core.detector import Reading
from ..core.modality import FEATURE_MAP, Modality
from ..core.registry import find, register
from .components.adaptor import Adaptor
from .components.losses import top_mean
from .components.two_modalities import Cells, Fusion, TwoModalities, digests_of, measured_cells, reading_of

_HEAD = 64
# The paper's weights of the parts of the loss, as its code has them.
_GLOBAL_COMPACTNESS, _GLOBAL_CONSISTENCY = 0.4, 0.1
_TEMPERATURE = 0.1
# Of cells while training, in units of each channel's deviation.
_NOISE = 0.5
# Compactness begins once the adaptors know something.
_FIRST_STEP = 60
# References are so many samples at a step, of so many that are kept; cells at a step, of a sample and of references.
_REFERENCES, _KEPT, _CELLS, _BANK = 8, 48, 128, 3_000
_STEP = 16


@register("detector", "cross-modal-maps")
class CrossModalMaps(TwoModalities):
    """Distances to memories of adapted normal features and of given ones, of photographs and of geometry, on one scale.

    Unless told otherwise it takes 400 steps of 8 samples. Cells that were not measured have no say in geometry; a
    sample without any is scored by its photograph alone.

    Args:
        geometry: how many of the last channels are geometry; None goes by their names, as `RgbXyz` gives them.
        compactness: weight of nearness to cells of other samples; 0 leaves it out.
        consistency: weight of telling the cell from the other modality; 0 leaves it out.
        given: add what `PairedMemories` says of the features as they came.
        fusion, share, top: of the memories, see `PairedMemories`.
    """

    usual_steps = (400, 8)
    steps: Tensor

    def __init__(
        self,
        geometry: Count | None = None,
        compactness: NotNegative = 0.9,
        consistency: NotNegative = 0.5,
        given: bool = True,
        fusion: Fusion = "tails",
        share: Share = 0.1,
        top: Share = 0.005,
    ) -> None:
        super().__init__()
        self.geometry = geometry
        self.compactness = compactness
        self.consistency = consistency
        self.given = given
        self.fusion = fusion
        self.share = share
        self.top = top

    def make(self, first: int, rest: int) -> None:
        self.cells = Cells(first + rest)
        self.adaptors = nn.ModuleList((Adaptor(first), Adaptor(rest)))
        self.heads = nn.ModuleList((nn.Linear(first, _HEAD), nn.Linear(rest, _HEAD)))
        self.memories = self._memories(rest)
        self.given_memories: Any = self._memories(rest) if self.given else None
        self.register_buffer("references", torch.zeros(0, *self.sample_shape), persistent=False)
        self.register_buffer("measured", torch.zeros(0, dtype=torch.bool), persistent=False)
        self.names: list[bytes] = []
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))
        self.told_before = 0.0

    def prepare(self, data: Data, w: Tensor) -> None:
        self.part_channels(data)
        self.cells.learn(data, w, self.split)

    def remember(self, data: Data, w: Tensor) -> None:
        # In the order of their content, which copies and other orders of the data do not change.
        names = [name for batch in data.batches(_STEP) for name in digests_of(batch, self.split)]
        place = {name: i for i, name in enumerate(names) if float(w[i]) > 0}
        self.names = sorted(place)[:_KEPT]
        kept = data.batch(torch.tensor([place[name] for name in self.names]))
        self.references = kept.samples.to(self.first.device)
        self.measured = measured_cells(kept, self.split).to(self.first.device)
        self.told_before = self._told(kept.to(self.first.device))

    def restore(
        self, sample_shape: tuple[int, ...], state: Mapping[str, Tensor], modality: Modality | None = None
    ) -> None:
        # Runs of before kept no count of steps.
        super().restore(sample_shape, {"steps": torch.zeros((), dtype=torch.long), **state}, modality)

    def losses(self, batch: Batch) -> Tensor:
        """Compactness and consistency of each sample, against references that are not the sample itself."""
        step = int(self.steps)
        places = self._places(step)
        cells, seen = self._adapted(batch.samples, measured_cells(batch, self.split), places, 2 * step)
        loss = sum(part.sum() * 0 for part in cells) + torch.zeros(len(batch), device=self.first.device)
        which = self._window(step)
        bank, bank_seen = self._adapted(self.references[which], self.measured[which], places, 2 * step + 1)
        names = digests_of(batch, self.split)
        other = torch.tensor([[self.names[i] != name for i in which] for name in names], device=self.first.device)
        own = (torch.ones_like(seen), seen)
        theirs = (torch.ones_like(bank_seen), bank_seen)
        if self.compactness:
            near = sum(self._compactness(*each, other) for each in zip(cells, own, bank, theirs, strict=True))
            started = not self.training or step > min(_FIRST_STEP, self.planned_steps // 4)
            loss = loss + self.compactness * (near if started else near.detach())  # type: ignore[union-attr]
        if self.consistency:
            fixed = bank[0].detach(), bank[1].detach()
            loss = loss + self.consistency * self._consistency(cells, seen, fixed, bank_seen, other)
        self.steps += self.training
        return loss

    @torch.no_grad()
    def settle(self, data: Data, w: Tensor) -> None:
        """Fill the memories with adapted maps and with given ones."""
        names = [name for batch in data.batches(_STEP) for name in digests_of(batch, self.split)]
        self.memories.fill(self._adapted_data(data), w, names)
        if self.given:
            self.given_memories.fill(data, w, names)

    @torch.no_grad()
    def update(self, data: Data, w: Tensor) -> None:
        """Add what is new in more normals to the memories; adaptors and the scale of distances stay."""
        self.memories.update(self._adapted_data(data), w)
        if self.given:
            self.given_memories.update(data, w)

    def score_left_out(self, batch: Batch) -> Tensor:
        """Scores of training samples, each without its own patches in the memories; the adaptors have seen them."""
        return top_mean(self._fused(batch, self._maps(batch), left_out=True), self.top)

    def embed(self, batch: Batch) -> Tensor:
        """The mean of each adapted channel."""
        return self._maps(batch).mean((2, 3))

    def read(self, batch: Batch, score: bool = True, map: bool = False, embedding: bool = False) -> Reading:
        adapted = self._maps(batch)
        fused = self._fused(batch, adapted) if score or map else None
        return reading_of(fused, self.top, score, map, adapted.mean((2, 3)) if embedding else None)

    def self_checks(self, batch: Batch) -> list[tuple[str, bool, float, str]]:
        """Whether adapted cells still vary, and whether one modality tells more of the other than before."""
        with torch.no_grad():
            raw = self.cells(batch.samples)
            adapted = self._maps(batch).flatten(2).transpose(1, 2)
        spread = float(adapted.flatten(0, 1).var(0).mean() / raw.flatten(0, 1).var(0).mean().clamp_min(1e-12))
        message = f"adapted cells vary by {spread:.2f} of what they did"
        found = [("adapted features did not collapse", spread > 0.1, spread, message)]
        if self.consistency:
            after = self._told(batch)
            said = (
                f"{100 * after:.0f} % of cells are told by their other modality, {100 * self.told_before:.0f} % before"
            )
            found.append(("modalities tell more of each other", after > self.told_before, after, said))
        return found

    def _memories(self, geometry: int) -> Any:
        memories = find("detector", "paired-memories")(geometry, self.fusion, self.share, self.top)
        memories.start(self.sample_shape, FEATURE_MAP)  # it parts channels as this does
        return memories

    def _fused(self, batch: Batch, adapted: Tensor, left_out: bool = False) -> Tensor:
        """[b, h, w]: what the memories of adapted cells say, and those of given ones."""
        fused: Tensor = self.memories.fused(self._adapted_batch(batch, adapted), left_out)
        return fused + self.given_memories.fused(batch, left_out) if self.given else fused

    def _adapted_batch(self, batch: Batch, adapted: Tensor) -> Batch:
        seen = measured_cells(batch, self.split).unflatten(1, self.sample_shape[1:])
        return Batch(adapted, batch.index, Measured(seen))

    def _adapted_data(self, data: Data) -> Data:
        """The samples' adapted maps."""
        with inference.evaluating(self):
            maps = [self._maps(batch.to(self.first.device)).cpu() for batch in data.batches(_STEP)]
        return Data(torch.cat(maps), data.names, (), data.context or self._context(data), FEATURE_MAP)

    def _context(self, data: Data) -> Measured:
        """Which cells were measured, where only zeros say it."""
        found = [measured_cells(batch, self.split) for batch in data.batches(_STEP)]
        return Measured(torch.cat(found).unflatten(1, self.sample_shape[1:]))

    def _places(self, step: int) -> Tensor:
        """The cells [c] that this step looks at: all, or an even choice that moves on with the steps."""
        cells = math.prod(self.sample_shape[1:])
        if not self.training or cells <= _CELLS:
            return torch.arange(cells, device=self.first.device)
        return (torch.arange(_CELLS, device=self.first.device) * cells // _CELLS + step) % cells

    def _window(self, step: int) -> list[int]:
        """Which references this step looks at."""
        many = len(self.names)
        first = step * _REFERENCES if self.training else 0
        return [(first + i) % many for i in range(min(many, _REFERENCES))]

    def _adapted(
        self, samples: Tensor, measured: Tensor, places: Tensor, draw: int = 0
    ) -> tuple[tuple[Tensor, Tensor], Tensor]:
        """Adapted cells [b, c, d] of both modalities at these places, and where geometry was measured [b, c]; while
        training with a draw of noise, the same for all samples, so that copies stay copies."""
        cells, seen = self.cells(samples)[:, places], measured[:, places]
        if self.training:
            generator = torch.Generator().manual_seed(draw)
            cells = cells + _NOISE * torch.randn(cells.shape[1:], generator=generator).to(cells)
        photograph, geometry = cells[..., : self.split], cells[..., self.split :]
        whole = torch.ones_like(seen)
        return (self.adaptors[0](photograph, whole), self.adaptors[1](geometry, seen)), seen

    def _maps(self, batch: Batch) -> Tensor:
        """Adapted maps [b, channels, h, w]."""
        cells = math.prod(self.sample_shape[1:])
        places = torch.arange(cells, device=batch.samples.device)
        parts, _ = self._adapted(batch.samples, measured_cells(batch, self.split), places)
        return torch.cat(parts, 2).transpose(1, 2).unflatten(2, self.sample_shape[1:])

    def _compactness(self, cells: Tensor, seen: Tensor, bank: Tensor, theirs: Tensor, other: Tensor) -> Tensor:
        """Mean distance [b] of cells to the nearest of other samples, and that of the sample's mean cell, in units of
        the spread of all of these."""
        owner = torch.arange(len(bank), device=bank.device).repeat_interleave(bank.shape[1])
        kept = theirs.flatten().nonzero().flatten()
        kept = kept[:: max(1, len(kept) // _BANK)]
        allowed = other[:, owner[kept]]  # [b, m]
        if not kept.numel() or not bool(allowed.any()):
            return cells.new_zeros(len(cells))
        rows = bank.flatten(0, 1)[kept]
        spread = rows.detach().var(0, unbiased=False).sum().clamp_min(1e-12).sqrt()
        with torch.no_grad():
            nearest = torch.cdist(cells, rows).masked_fill(~allowed[:, None], torch.inf).argmin(2)
        gaps = (cells - rows[nearest]).square().sum(2).clamp_min(1e-12).sqrt()
        local = _mean(gaps, seen & allowed.any(1, keepdim=True))
        middles, refs = _middles(cells, seen), _middles(bank, theirs)
        fits = other & theirs.any(1)
        with torch.no_grad():
            closest = torch.cdist(middles, refs).masked_fill(~fits, torch.inf).argmin(1)
        between = (middles - refs[closest]).square().sum(1).clamp_min(1e-12).sqrt()
        return (local + _GLOBAL_COMPACTNESS * between * (fits.any(1) & seen.any(1))) / spread

    def _consistency(
        self, cells: tuple[Tensor, Tensor], seen: Tensor, bank: tuple[Tensor, Tensor], theirs: Tensor, other: Tensor
    ) -> Tensor:
        """Cross entropy [b] of telling a cell from the other modality among the sample's own, and the sample from
        references; in units of what a guess among the cells costs."""
        queries, keys = self._heads_of(cells)
        alike = queries @ keys.transpose(1, 2) / _TEMPERATURE  # [b, c, c]
        found = cells[0].new_zeros(len(seen))
        for each in (alike, alike.transpose(1, 2)):
            chance = each.masked_fill(~seen[:, None], -1e4).logsumexp(2) - each.diagonal(dim1=1, dim2=2)
            found = found + _mean(chance, seen)
        own = [normalize(head(_middles(part, seen)), dim=1) for head, part in zip(self.heads, cells, strict=True)]
        refs = [normalize(head(_middles(part, theirs)), dim=1) for head, part in zip(self.heads, bank, strict=True)]
        fits = other & theirs.any(1)
        for one, two in ((0, 1), (1, 0)):
            positive = (own[one] * own[two]).sum(1, keepdim=True)
            against = (own[one] @ refs[two].T).masked_fill(~fits, -1e3)
            logits = torch.cat([positive, against], 1) / _TEMPERATURE
            target = torch.zeros(len(logits), dtype=torch.long, device=logits.device)
            found = found + _GLOBAL_CONSISTENCY * cross_entropy(logits, target, reduction="none") * seen.any(1)
        return found / (2 * math.log(max(2, seen.shape[1])))

    def _heads_of(self, cells: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        first, second = (normalize(head(part), dim=2) for head, part in zip(self.heads, cells, strict=True))
        return first, second

    @torch.no_grad()
    def _told(self, batch: Batch) -> float:
        """The share of cells whose other modality is the most alike of the sample's cells."""
        places = torch.arange(math.prod(self.sample_shape[1:]), device=batch.samples.device)
        parts, seen = self._adapted(batch.samples, measured_cells(batch, self.split), places)
        queries, keys = self._heads_of(parts)
        alike = (queries @ keys.transpose(1, 2)).masked_fill(~seen[:, None], -torch.inf)
        hits = (alike.argmax(2) == places) & seen
        return float(hits.sum() / seen.sum().clamp_min(1))


def _mean(values: Tensor, kept: Tensor) -> Tensor:
    """The mean [b] of those of values [b, c] that are kept; 0 where none are."""
    return (values * kept).sum(1) / kept.sum(1).clamp_min(1)


def _middles(cells: Tensor, kept: Tensor) -> Tensor:
    """The mean [b, d] of the kept cells [b, c, d]."""
    return (cells * kept[..., None]).sum(1) / kept.sum(1, keepdim=True).clamp_min(1)

"""Two memories of normal patches, a photograph's and geometry's, whose distances are read by what is usual.

BTF (Horwitz & Hoshen, CVPR workshops 2023) and M3DM (Wang et al., CVPR 2023) put both into one memory, or learn how
to add two. Here each modality has its own memory, and distances are brought onto one scale by normal samples that a
memory has not seen, half of them for each half. `cross-modal-maps` (LSFA) does the same with adapted features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..core.bounds import Count, Share
from ..core.data import Batch, Data
from ..core.detector import Reading
from ..core.modality import FEATURE_MAP
from ..core.readers import Reader, read
from ..core.registry import find, register
from ..errors import InputError
from .components.losses import top_mean
from .components.two_modalities import Fusion, TwoModalities, digests_of, halves, measured_cells, reading_of

# Distances above this quantile of those of held-out normals are taken for an exponential tail.
_KNEE = 0.95
_STEP = 32


@register("detector", "paired-memories")
class PairedMemories(TwoModalities):
    """Distances to a memory of photographs and to one of geometry, on one scale.

    Cells that were not measured have no say in geometry, and are scored by the photograph; so is a sample without any
    measured cell.

    Args:
        geometry: how many of the last channels are geometry; None goes by their names, as `RgbXyz` gives them.
        fusion: "tails" adds how rare each distance is among held-out normals, as -log of the chance, so that one
            modality alone can raise a cell; "mean" adds distances divided by their means.
        share: of all patches, how many each memory keeps.
        top: share of a sample's cells, the farthest, whose mean is its score.
    """

    solve_once = True
    usual: Tensor
    knee: Tensor
    beyond: Tensor

    def __init__(
        self, geometry: Count | None = None, fusion: Fusion = "tails", share: Share = 0.1, top: Share = 0.005
    ) -> None:
        super().__init__()
        self.geometry = geometry
        self.fusion = fusion
        self.share = share
        self.top = top

    def make(self, first: int, rest: int) -> None:
        self.photograph, self.surface = self._memory(first), self._memory(rest)
        for name in ("usual", "knee", "beyond"):  # of both: the mean, the quantile, and the mean beyond it
            self.register_buffer(name, torch.ones(2))

    def solve(self, data: Data, w: Tensor) -> None:
        self.part_channels(data)
        self.fill(data, w, [name for batch in data.batches(_STEP) for name in digests_of(batch, self.split)])

    def fill(self, data: Data, w: Tensor, copies: Sequence[bytes]) -> None:
        """As `solve`, where equal names among `copies` [n] say which samples are copies of one."""
        w = w.double().cpu()
        for number, memory in enumerate((self.photograph, self.surface)):
            place = self._counting(data, w, number)
            part = self._part_of(data, number).take(place)
            memory.solve(part, w[place])
            names = [copies[i] for i in place.tolist()]
            usual, knee, beyond = self._held_out(part, w[place], names, number)
            self.usual[number], self.knee[number], self.beyond[number] = usual, knee, beyond

    @torch.no_grad()
    def update(self, data: Data, w: Tensor) -> None:
        """Add what is new in more normals to both memories; the scale of distances stays."""
        for number, memory in enumerate((self.photograph, self.surface)):
            place = self._with_cells(data, w, number)
            if len(place):
                memory.update(self._part_of(data, number).take(place), w.cpu()[place])

    def score_left_out(self, batch: Batch) -> Tensor:
        """Scores of training samples, each without its own patches in the memories."""
        return top_mean(self.fused(batch, left_out=True), self.top)

    def read(self, batch: Batch, score: bool = True, map: bool = False, embedding: bool = False) -> Reading:
        fused = self.fused(batch) if score or map else None
        return reading_of(fused, self.top, score, map, self.embed(batch) if embedding else None)

    def fused(self, batch: Batch, left_out: bool = False) -> Tensor:
        """[b, h, w]: both modalities' distances, where geometry was measured, or the photograph's alone."""
        seen = measured_cells(batch, self.split).unflatten(1, self.sample_shape[1:])
        parts = batch.samples[:, : self.split], batch.samples[:, self.split :]
        memories = (self.photograph, self.surface)
        photograph, surface = (
            self._on_scale((memory.map_left_out if left_out else memory.score_map)(Batch(part, batch.index)), number)
            for number, (memory, part) in enumerate(zip(memories, parts, strict=True))
        )
        if self.fusion == "mean":
            return torch.where(seen, (photograph + surface) / 2, photograph)
        return photograph + surface * seen

    def _on_scale(self, distances: Tensor, number: int) -> Tensor:
        if self.fusion == "mean":
            return distances / self.usual[number]
        knee = self.knee[number]
        return tail(distances, knee, self.beyond[number])

    def _part_of(self, data: Data, number: int) -> Data:
        """One modality of the samples, as maps without names."""
        return replace(data, samples=self._channels(data, number), features=(), modality=FEATURE_MAP)

    def _channels(self, data: Data, number: int) -> Tensor | Reader:
        """One modality of the samples."""
        channels = slice(0, self.split) if number == 0 else slice(self.split, None)
        return data.samples[:, channels] if isinstance(data.samples, Tensor) else _Channels(data.samples, channels)

    def _counting(self, data: Data, w: Tensor, number: int) -> Tensor:
        """As `_with_cells`.

        Raises:
            InputError: there is no such sample.
        """
        place = self._with_cells(data, w, number)
        if not len(place):
            raise InputError(f"{type(self).__name__} needs geometry: no training sample has a measured point")
        return place

    def _with_cells(self, data: Data, w: Tensor, number: int) -> Tensor:
        """Places of the samples with a weight and, of geometry, a measured cell."""
        kept = w.cpu() > 0
        if number:
            seen = [measured_cells(batch, self.split).any(1) for batch in data.batches(_STEP)]
            kept &= torch.cat(seen).cpu()
        return kept.nonzero().flatten()

    def _held_out(self, part: Data, w: Tensor, names: list[bytes], number: int) -> tuple[float, float, float]:
        """The mean, the knee and the mean excess beyond it of the distances of normals to memories without them."""
        apart, share = [], []
        for inside, outside in halves(names):
            memory = self._memory(part.sample_shape[0]).to(self.first.device)
            memory.solve(part.take(inside), w[inside])
            left = part.take(outside)
            for batch in left.batches(_STEP):
                found = memory.score_map(batch.to(self.first.device)).flatten(1).double().cpu()
                seen = self._seen(batch, number)
                apart.append(found[seen])
                share.append(w[outside][batch.index][:, None].expand_as(seen)[seen])
        return _tail_of(torch.cat(apart), torch.cat(share)) if apart else (1.0, 1.0, 1.0)

    def _seen(self, batch: Batch, number: int) -> Tensor:
        if number == 0:
            return torch.ones(len(batch), batch.samples[0, 0].numel(), dtype=torch.bool)
        return measured_cells(batch, 0).cpu()

    def _memory(self, channels: int) -> Any:
        memory = find("detector", "patch-memory")(share=self.share, top=self.top)
        memory.start((channels, *self.sample_shape[1:]), FEATURE_MAP)
        return memory


def tail(distances: Tensor, knee: Tensor, beyond: Tensor) -> Tensor:
    """-log of the chance that a normal cell is as far away: exponential beyond the knee, and straight below it.

    Examples:
        >>> tail(torch.tensor([0.0, 1.0, 3.0]), torch.tensor(1.0), torch.tensor(2.0)).round(decimals=3)
        tensor([0.0000, 2.9960, 3.9960])
    """
    at_knee = -torch.log(torch.tensor(1 - _KNEE)).to(distances)
    return torch.where(distances > knee, at_knee + (distances - knee) / beyond, at_knee * distances / knee)


def _tail_of(values: Tensor, w: Tensor) -> tuple[float, float, float]:
    order = values.argsort(stable=True)
    values, w = values[order], w[order] / w.sum()
    mean = float((values * w).sum())
    knee = float(values[int((w.cumsum(0) < _KNEE - 1e-9).sum().clamp_max(len(values) - 1))])
    above = (values - knee).clamp_min(0)
    rest = w[values > knee].sum().clamp_min(1e-12)
    least = 1e-6 * max(mean, 1e-12)
    return max(mean, least), max(knee, least), max(float((above * w).sum() / rest), least)


class _Channels:
    """Some channels of samples on disk: a Reader."""

    def __init__(self, samples: Reader, channels: slice) -> None:
        self.samples, self.channels = samples, channels
        count, all_channels, *space = samples.shape
        self.shape: tuple[int, ...] = (count, len(range(*channels.indices(all_channels))), *space)

    def __getitem__(self, index: Tensor) -> Tensor:
        return read(self.samples, index)[:, self.channels]

"""What detectors of photographs with geometry share: the two groups of channels, and which cells were measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from ...core.context import Measured
from ...core.data import Batch, Data
from ...core.detector import Detector, Reading
from ...core.identity import sample_digests
from ...core.modality import FEATURE_MAP, Modality
from ...errors import InputError
from .losses import top_mean
from .standardise import first_present

_RGB, _XYZ = "rgb:", "xyz:"
# How the distances of two memories become one score, see `paired-memories`.
Fusion = Literal["tails", "mean"]
_STEP = 32


def first_of_geometry(features: Sequence[str], channels: int, geometry: int | None, named_by: str = _XYZ) -> int:
    """How many channels come before those of geometry.

    Args:
        features: names of the channels, "rgb:..." and then "xyz:...", as `RgbXyz` gives them; () where there are none.
        geometry: how many of the last channels are geometry, for channels without names.
        named_by: how the names of those of geometry begin.

    Raises:
        InputError: neither says it, or the two differ.

    Examples:
        >>> first_of_geometry(("rgb:0", "rgb:1", "xyz:0"), 3, None), first_of_geometry((), 3, 2)
        (2, 1)
    """
    named = [name.startswith(named_by) for name in features]
    first = len(named) - sum(named)
    if len(features) == channels and all(named[first:]) and any(named) and first > 0:
        if geometry not in (None, channels - first):
            raise InputError(
                f"geometry={geometry}, and {channels - first} channels are named {named_by}...", "leave it out"
            )
        return first
    if geometry is None:
        raise InputError(
            f"it is not said which of the {channels} channels are photograph and which geometry",
            f"name them {_RGB}... and {_XYZ}..., as RgbXyz(path) does, or say geometry=N, the number of the last ones",
        )
    if not 0 < geometry < channels:
        raise InputError(f"geometry={geometry} of {channels} channels leaves one of the two without any")
    return channels - geometry


def reading_of(fused: Tensor | None, top: float, score: bool, map: bool, embedding: Tensor | None) -> Reading:
    """What is asked for of maps [b, h, w], a sample's score being the mean of the highest share of its places; None
    stands for maps or an embedding that nobody asks for."""
    read: dict[str, Tensor] = {}
    if fused is not None and score:
        read["score"] = top_mean(fused, top)
    if fused is not None and map:
        read["map"] = fused
    if embedding is not None:
        read["embedding"] = embedding
    return Reading(**read)


def measured_cells(batch: Batch, first: int) -> Tensor:
    """[b, cells]: where geometry was measured. What `Measured` says; or else wherever it is not all zeros."""
    if isinstance(batch.context, Measured):
        return batch.context.cells.to(batch.samples.device).flatten(1)
    return (batch.samples[:, first:] != 0).any(1).flatten(1)


def digests_of(batch: Batch, first: int) -> list[bytes]:
    """What tells copies from other samples [b]; what was not measured has no say."""
    seen = measured_cells(batch, first).unflatten(1, tuple(batch.samples.shape[2:]))[:, None]
    return sample_digests(torch.cat([batch.samples[:, :first], torch.where(seen, batch.samples[:, first:], 0)], 1))


def halves(names: Sequence[bytes]) -> Iterator[tuple[Tensor, Tensor]]:
    """Places inside and outside of one half of the samples with these digests, then of the other; copies are in one.
    Nothing where all are copies of one."""
    rank = {name: place for place, name in enumerate(sorted(set(names)))}
    half = torch.tensor([rank[name] % 2 for name in names])
    for each in (0, 1) if len(rank) > 1 else ():
        yield (half == each).nonzero().flatten(), (half != each).nonzero().flatten()


class TwoModalities(Detector):
    """A detector of maps whose first channels are a photograph's and whose last are geometry's.

    It learns from the names of the channels, or from the setting `geometry`, which is which; `first` is how many come
    before geometry, and `make` makes what depends on it. `read` gives scores and maps.
    """

    modalities: tuple[Modality, ...] = (FEATURE_MAP,)
    wants_maps = True
    not_exported = "which cells were measured is not in the samples, and a file takes samples alone"
    geometry: int | None = None
    second_group: str = _XYZ
    first: Tensor

    def build(self, sample_shape: tuple[int, ...]) -> None:
        self.register_buffer("first", torch.zeros(1, dtype=torch.long))
        if self.geometry is not None:
            self._part(first_of_geometry((), sample_shape[0], self.geometry))

    def make(self, first: int, rest: int) -> None:
        """Networks and buffers for so many channels of photographs, and so many of geometry."""
        raise NotImplementedError

    def part_channels(self, data: Data) -> None:
        """Part the channels as the data names them, once."""
        first = first_of_geometry(data.features, self.sample_shape[0], self.geometry, self.second_group)
        if first != self.split:
            self._part(first)

    @property
    def split(self) -> int:
        """How many channels come before those of geometry."""
        return int(self.first)

    def restore(
        self, sample_shape: tuple[int, ...], state: Mapping[str, Tensor], modality: Modality | None = None
    ) -> None:
        found = int(state["first"].reshape(-1)[0]) if "first" in state and state["first"].numel() else 0
        if not 0 < found < sample_shape[0]:
            raise InputError(f"the saved state does not fit {self!r}: first {found}", "fit again")
        geometry, self.geometry = self.geometry, sample_shape[0] - found
        try:
            super().restore(sample_shape, state, modality)
        finally:
            self.geometry = geometry

    def score(self, batch: Batch) -> Tensor:
        return self.read(batch).score

    def score_map(self, batch: Batch) -> Tensor:
        return self.read(batch, score=False, map=True).map

    def embed(self, batch: Batch) -> Tensor:
        """The mean of each channel over the cells."""
        return batch.samples.mean((2, 3))

    def _part(self, first: int) -> None:
        device = self.first.device
        self.first.fill_(first)
        self.make(first, self.sample_shape[0] - first)
        self.to(device)


class Cells(torch.nn.Module):
    """Maps as standardised vectors of their cells; of geometry only measured cells say what is usual."""

    mean: Tensor
    scale: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("scale", torch.ones(channels))

    def learn(self, data: Data, w: Tensor, first: int) -> None:
        """Weighted mean and deviation of each channel."""
        total = torch.zeros(2, len(self.mean), dtype=torch.float64)
        sums, origin = torch.zeros_like(total), data.read(first_present(w)).double().mean((0, 2, 3))
        share = w.double().cpu() / w.double().sum().cpu()
        for batch in data.batches(_STEP):
            cells = batch.samples.double().flatten(2) - origin[:, None]  # [b, channels, cells]
            mask = torch.ones_like(cells, dtype=torch.bool)
            mask[:, first:] = measured_cells(batch, first)[:, None]
            part = mask * share[batch.index, None, None]
            total[0] += part.sum((0, 2))
            sums += torch.stack([(part * cells).sum((0, 2)), (part * cells.square()).sum((0, 2))])
        mean, square = sums / total[0].clamp_min(1e-300)
        variance = (square - mean.square()).clamp_min(0)
        constant = variance <= 1e-10 * (origin + mean).square().clamp_min(1e-20)
        self.mean = (mean + origin).to(self.mean)
        self.scale = torch.where(constant, 1.0, variance.sqrt()).to(self.scale)

    def forward(self, samples: Tensor) -> Tensor:
        """[b, channels, h, w] -> [b, cells, channels]."""
        return (samples.flatten(2).transpose(1, 2) - self.mean) / self.scale

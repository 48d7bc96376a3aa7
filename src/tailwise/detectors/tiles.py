"""Large images tile by tile: each tile is a sample of its own, with a loss and a weight of its own.

A detector that looks at a whole image spends its capacity on what is where; on tiles it learns what any part may look
like, and an image of any size needs the memory of a tile.
"""

from __future__ import annotations

import math
from typing import Annotated

import torch
from torch import Tensor

from ..core.bounds import Bounds
from ..core.data import Batch, Data
from ..core.detector import Detector, Reading, ReadsOnce
from ..core.modality import SPATIAL
from ..core.readers import Reader
from ..core.registry import find, register
from ..errors import InputError


@register("detector", "tiles")
class Tiles(ReadsOnce):
    """Any detector of images, fitted on overlapping tiles; an image's score is that of its worst tile.

    The training loop sees tiles only: losses, weights and epochs are theirs, and a tile inherits the weight that its
    image is given beforehand. Maps of tiles are joined, each with less weight towards its borders.

    Args:
        detector: what learns the tiles; None is an autoencoder.
        tile: side of the tiles in the image's pixels, or positions of its feature map; a shorter image has one tile.
        overlap: the least share of its side that a tile has in common with the next.
    """

    modalities = SPATIAL

    def __init__(
        self,
        detector: Detector | None = None,
        tile: Annotated[int, Bounds(at_least=2)] = 128,
        overlap: Annotated[float, Bounds(at_least=0, at_most=0.75)] = 0.125,
    ) -> None:
        super().__init__()
        self.detector = find("detector", "autoencoder")() if detector is None else detector
        self.tile = tile
        self.overlap = overlap

    @property
    def has_maps(self) -> bool:
        return self.detector.has_maps

    def build(self, sample_shape: tuple[int, ...]) -> None:
        # Computed here, not when a graph is traced, in which a number that a tensor gives is not known.
        rows, columns = (self._starts(side) for side in sample_shape[1:])
        self.places = [(row, column) for row in rows for column in columns]  # of the first pixel of each tile
        self.detector.start(self._tile_shape, self.modality)

    def divide(self, data: Data, generator: torch.Generator) -> tuple[Data, Tensor]:
        """Every tile of every sample, cut when it is asked for."""
        names = [f"{name}#{row},{column}" for name in data.names for row, column in self.places]
        owner = torch.arange(len(data)).repeat_interleave(len(self.places))
        return Data(_Cut(data, self.places, self._tile_shape), names, modality=data.modality), owner

    def read(self, batch: Batch, score: bool = True, map: bool = False, embedding: bool = False) -> Reading:
        """Each tile is read once; the embedding is the mean over an image's tiles."""
        if map and not self.detector.has_maps:
            raise InputError(f"{type(self.detector).__name__} has no score maps")
        tiles = [self.detector.read(tile, score, map, embedding) for tile in self._tiles(batch)]
        read: dict[str, Tensor] = {}
        if score:
            read["score"] = torch.stack([tile.score for tile in tiles]).amax(0)
        if map:
            read["map"] = self._joined(batch, [tile.map for tile in tiles])
        if embedding:
            read["embedding"] = torch.stack([tile.embedding for tile in tiles]).mean(0)
        return Reading(**read)

    def _joined(self, batch: Batch, maps: list[Tensor]) -> Tensor:
        """Maps [n, *tile] of each place as one of the images [n, height, width]."""
        height, width = self._tile_shape[1:]
        window = _tent(height, batch.samples)[:, None] * _tent(width, batch.samples)  # [height, width]
        # By the shape: in a graph, a length is a fixed number.
        joined = batch.samples.new_zeros(batch.samples.shape[0], *self.sample_shape[1:])
        weight = batch.samples.new_zeros(self.sample_shape[1:])
        for (row, column), part in zip(self.places, maps, strict=True):
            rows, columns = slice(row, row + height), slice(column, column + width)
            joined[:, rows, columns] += window * part
            weight[rows, columns] += window
        return joined / weight

    @property
    def _tile_shape(self) -> tuple[int, int, int]:
        channels, height, width = self.sample_shape
        return channels, min(self.tile, height), min(self.tile, width)

    def _starts(self, side: int) -> list[int]:
        """As few as overlap enough, evenly from end to end."""
        if side <= self.tile:
            return [0]
        step = max(1.0, self.tile * (1 - self.overlap))
        return torch.linspace(0, side - self.tile, math.ceil((side - self.tile) / step) + 1).round().long().tolist()

    def _tiles(self, batch: Batch) -> list[Batch]:
        """One tile of every sample at a time, in the order of the places."""
        height, width = self._tile_shape[1:]
        return [
            Batch(batch.samples[:, :, row : row + height, column : column + width], batch.index)
            for row, column in self.places
        ]


class _Cut(Reader):
    """Tiles of images, read when they are asked for: tile i is that at place i % places of image i // places."""

    def __init__(self, data: Data, places: list[tuple[int, int]], tile_shape: tuple[int, ...]) -> None:
        self.data, self.places = data, places
        self.shape = (len(data) * len(places), *tile_shape)

    def __getitem__(self, index: Tensor) -> Tensor:
        height, width = self.shape[2:]
        wholes, which = torch.unique(index // len(self.places), return_inverse=True)
        result = torch.empty(len(index), *self.shape[1:])
        # An image at a time: a batch of tiles may come from as many large images.
        for number, whole in enumerate(wholes.tolist()):
            image = self.data.read(torch.tensor([whole]))[0]
            for row in (which == number).nonzero().flatten().tolist():
                top, left = self.places[int(index[row]) % len(self.places)]
                result[row] = image[:, top : top + height, left : left + width]
        return result


def _tent(side: int, like: Tensor) -> Tensor:
    """Weights that rise from the borders to the middle."""
    place = torch.arange(side, device=like.device, dtype=like.dtype)
    return torch.minimum(place + 1, side - place)

"""What a sample is surrounded by, for detectors that look beyond the sample itself.

A context belongs to `Data`, follows it through `take`, and reaches the detector in each `Batch`. A detector names the
one that it cannot do without in `needs_context`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from ..errors import InputError
from .readers import Reader, read


class Context(Protocol):
    """The surroundings of n samples."""

    def __len__(self) -> int:
        """n."""
        ...

    def take(self, index: Tensor) -> Context:
        """The surroundings of the samples at `index` [b]; what surrounds them is not cut."""
        ...


@dataclass(frozen=True, eq=False)
class Scenes:
    """Scenes of which the samples are pixels.

    Attributes:
        pixels: all pixels [N, *sample], scene after scene and row by row.
        sizes: (height, width) of each scene.
        place: [n] of the samples among the pixels; None is all of them in their order.

    Raises:
        InputError: the scenes do not hold as many pixels.
    """

    pixels: Tensor | Reader
    sizes: tuple[tuple[int, int], ...]
    place: Tensor | None = None

    def __post_init__(self) -> None:
        if sum(height * width for height, width in self.sizes) != self.pixels.shape[0]:
            raise InputError(f"scenes of {list(self.sizes)} do not hold {self.pixels.shape[0]} pixels")

    def __len__(self) -> int:
        return int(self.pixels.shape[0]) if self.place is None else len(self.place)

    def take(self, index: Tensor) -> Scenes:
        """The scenes, with the places of the samples at `index` [b]."""
        return replace(self, place=index if self.place is None else self.place[index])

    def parts(self) -> Iterator[tuple[Tensor, Scene]]:
        """For each scene that is touched: which of the samples [k] lie in it, and the scene with their places."""
        place, first = torch.arange(len(self)) if self.place is None else self.place, 0
        for height, width in self.sizes:
            which = ((place >= first) & (place < first + height * width)).nonzero().flatten()
            if len(which):
                yield which, Scene(self.pixels, first, height, width, place[which] - first)
            first += height * width


@dataclass(frozen=True, eq=False)
class Graph:
    """A graph of which the samples are nodes. `take` says which nodes are asked about; the graph is never cut.

    Attributes:
        nodes: attributes [N, d] of all nodes.
        edges: [2, E] int64, from and to; an undirected edge stands there both ways, and none leads to itself.
        weights: [E] float, above 0, by which an edge counts; None is alike.
        place: [n] of the samples among the nodes; None is all of them in their order.

    Raises:
        InputError: an edge leads to no node, or has no weight where others have.

    Examples:
        >>> graph = Graph(torch.eye(3), torch.tensor([[0, 1], [1, 0]]))
        >>> len(graph), len(graph.take(torch.tensor([2]))), graph.take(torch.tensor([2])).edges.shape[1]
        (3, 1, 2)
    """

    nodes: Tensor
    edges: Tensor
    place: Tensor | None = None
    weights: Tensor | None = None

    def __post_init__(self) -> None:
        if self.weights is not None and self.weights.shape != self.edges.shape[1:]:
            raise InputError(f"{self.edges.shape[1]} edges have weights of shape {list(self.weights.shape)}")
        if self.edges.numel() and not 0 <= int(self.edges.min()) <= int(self.edges.max()) < len(self.nodes):
            raise InputError(f"edges lead to nodes from 0 to {len(self.nodes) - 1}: got {int(self.edges.max())}")

    def __len__(self) -> int:
        return len(self.nodes) if self.place is None else len(self.place)

    @property
    def asked(self) -> Tensor:
        """[n] int64: the places of the samples among the nodes."""
        return torch.arange(len(self.nodes)) if self.place is None else self.place

    def to(self, device: torch.device) -> Graph:
        """The same graph there."""
        weights = None if self.weights is None else self.weights.to(device)
        return Graph(self.nodes.to(device), self.edges.to(device), self.asked.to(device), weights)

    def take(self, index: Tensor) -> Graph:
        """The graph, with the places of the samples at `index` [b]."""
        return replace(self, place=index.cpu() if self.place is None else self.place[index.cpu()])


@dataclass(frozen=True, eq=False)
class Measured:
    """Which places of the samples were measured in depth: the others hold no geometry of their own.

    A detector of two modalities looks at it where it is there; no detector needs it.

    Attributes:
        cells: [n, *space] bool.

    Examples:
        >>> context = Measured(torch.tensor([[[True, False]], [[True, True]]]))
        >>> len(context), context.take(torch.tensor([1])).cells.tolist()
        (2, [[[True, True]]])
    """

    cells: Tensor

    def __len__(self) -> int:
        return len(self.cells)

    def take(self, index: Tensor) -> Measured:
        """Those of the samples at `index` [b]."""
        return Measured(self.cells[index.cpu()])


@dataclass(frozen=True, eq=False)
class Scene:
    """One scene, and the places [k] in it, counted row by row, of the pixels that are asked about."""

    pixels: Tensor | Reader
    first: int
    height: int
    width: int
    place: Tensor

    def rows(self, start: int, stop: int) -> Tensor:
        """The pixels of these rows [rows, width, *sample]."""
        index = torch.arange(self.first + start * self.width, self.first + stop * self.width)
        return read(self.pixels, index).unflatten(0, (stop - start, self.width))

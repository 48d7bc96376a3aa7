"""What graph networks share: attributes on one scale, and convolutions by their names.

These are of Kipf & Welling 2017 (gcn), Hamilton et al. 2017 (sage), Xu et al. 2019 (gin) and Tang et al. 2022 (bwgnn).
"""

from __future__ import annotations

import inspect
import warnings
from typing import Any

import torch
from torch import Tensor, nn

from ...core.context import Graph
from ...core.data import Data
from .standardise import Standardise

# Attributes of which so many are 0 count as words.
_OF_WORDS = 0.8
_TINY = 1e-12


class Attributes(Standardise):
    """Attributes on one scale: standardised each, but for words, whose rare ones would drown all others.

    Attributes that are never below 0 and mostly 0, as the words of a text are, are only divided by the largest.
    """

    def learn(self, data: Data, w: Tensor) -> None:
        graph = data.context
        nodes = graph.nodes if isinstance(graph, Graph) else data.read(torch.arange(len(data)))
        if float(nodes.min()) >= 0 and float((nodes == 0).float().mean()) > _OF_WORDS:
            self.mean = torch.zeros_like(self.mean)
            self.scale = torch.full_like(self.scale, float(nodes.max().clamp_min(_TINY)))
        else:
            super().learn(data, w)


def convolution(name: str, inner: int, outer: int) -> nn.Module:
    """A layer (x [N, inner], graph) -> [N, outer], by `convolved`."""
    if name == "bwgnn":
        return BetaWavelet(inner, outer)
    layers = _layers()
    if name == "gin":
        return layers.GINConv(nn.Sequential(nn.Linear(inner, outer), nn.ReLU(), nn.Linear(outer, outer)))
    return {"gcn": layers.GCNConv, "sage": layers.SAGEConv}[name](inner, outer)


def _layers() -> Any:
    """The layers of torch_geometric, whose import uses what torch has deprecated."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        from torch_geometric import nn as layers
    return layers


class BetaWavelet(nn.Module):
    """Three bands of the normalised Laplacian's spectrum, side by side: low, middle and high (BWGNN, order 2)."""

    # Polynomials in L: coefficients of 1, L and L L.
    BANDS = ((3.0, -3.0, 0.75), (0.0, 3.0, -1.5), (0.0, 0.0, 0.75))

    def __init__(self, inner: int, outer: int) -> None:
        super().__init__()
        self.before = nn.Linear(inner, outer)
        self.after = nn.Linear(len(self.BANDS) * outer, outer)

    def forward(self, x: Tensor, edges: Tensor, edge_weight: Tensor | None = None) -> Tensor:
        first = self.before(x).relu()
        once = laplacian(first, edges, edge_weight)
        powers = (first, once, laplacian(once, edges, edge_weight))
        bands = [sum(c * power for c, power in zip(band, powers, strict=True)) for band in self.BANDS]
        return self.after(torch.cat(bands, 1))  # type: ignore[arg-type]


def convolved(layer: nn.Module, x: Tensor, graph: Graph) -> Tensor:
    """What a layer makes of x [N, inner] on a graph. "sage" and "gin" know no weights: there all edges count alike."""
    weighted = {} if graph.weights is None or not _takes_weights(layer) else {"edge_weight": graph.weights}
    made: Tensor = layer(x, graph.edges, **weighted)
    return made


def _takes_weights(layer: nn.Module) -> bool:
    return "edge_weight" in inspect.signature(layer.forward).parameters


def laplacian(x: Tensor, edges: Tensor, weights: Tensor | None = None) -> Tensor:
    """L x [N, d] of the symmetrically normalised Laplacian L = 1 - D^-1/2 A D^-1/2."""
    sums = degrees(edges, len(x), weights)
    root = torch.where(sums > 0, sums, 1).rsqrt()[:, None]
    return x - root * gathered(root * x, edges, weights)


def gathered(x: Tensor, edges: Tensor, weights: Tensor | None = None) -> Tensor:
    """[N, d]: the sum of x over the nodes from which edges lead to each, times their weights [E]."""
    sent = x[edges[0]] if weights is None else weights[:, None] * x[edges[0]]
    return torch.zeros_like(x).index_add_(0, edges[1], sent)


def degrees(edges: Tensor, nodes: int, weights: Tensor | None = None) -> Tensor:
    """[N] float: how many edges lead to each node, or the sum of their weights [E]."""
    return torch.bincount(edges[1], weights, minlength=nodes).float()


def around(x: Tensor, graph: Graph) -> Tensor:
    """[N, d]: the mean of x over each node's neighbours, weighted by the edges; 0 where there are none."""
    sums = degrees(graph.edges, len(x), graph.weights)
    return gathered(x, graph.edges, graph.weights) / torch.where(sums > 0, sums, 1)[:, None]


class Encoder(nn.Module):
    """Two convolutions and their activations: attributes [N, d] -> [N, hidden]."""

    def __init__(self, name: str, inner: int, hidden: int) -> None:
        super().__init__()
        self.first = convolution(name, inner, hidden)
        self.second = convolution(name, hidden, hidden)

    def forward(self, x: Tensor, graph: Graph) -> Tensor:
        return convolved(self.second, convolved(self.first, x, graph).relu(), graph).relu()

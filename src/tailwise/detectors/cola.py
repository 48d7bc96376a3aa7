"""CoLA: a node that does not go with its neighbourhood better than with another node's is an anomaly.

Liu, Li, Pan, Gong, Zhou & Karypis, IEEE TNNLS 2021. They sample neighbourhoods by random walks, and score the mean of
256 draws; here a neighbourhood is the mean of all neighbours, which such draws approach, so nothing is drawn but the
other node.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..core.bounds import Count
from ..core.context import Graph
from ..core.data import Batch, Data, graph_of
from ..core.detector import Detector
from ..core.modality import ROW
from ..core.registry import register
from .components.graph_nets import Attributes, around


@register("detector", "cola")
class CoLA(Detector):
    """How much better other neighbourhoods go with a node than its own: the mean over draws of others' agreement, less
    its own.

    A node and a neighbourhood go together as a bilinear form of their codes says, which training teaches to tell a
    node's own neighbourhood from another node's. Weights act on the nodes: one of weight 0 has no say and stays a
    neighbour.

    Args:
        hidden: width of the codes.
        draws: how many other neighbourhoods a node is held against.
    """

    modalities = (ROW,)
    needs_context = Graph
    full_batch = True

    def __init__(self, hidden: Count = 64, draws: Count = 8) -> None:
        super().__init__()
        self.hidden = hidden
        self.draws = draws

    def build(self, sample_shape: tuple[int, ...]) -> None:
        self.standardise = Attributes(sample_shape, self.modality)
        self.encoder = nn.Sequential(nn.Linear(sample_shape[0], self.hidden), nn.PReLU())
        self.agreement = nn.Bilinear(self.hidden, self.hidden, 1)

    def prepare(self, data: Data, w: Tensor) -> None:
        self.standardise.learn(data, w)

    def losses(self, batch: Batch) -> Tensor:
        own, others = self._logits(batch)
        return nn.functional.softplus(-own) + nn.functional.softplus(others).mean(0)

    def score(self, batch: Batch) -> Tensor:
        own, others = self._logits(batch)
        return others.sigmoid().mean(0) - own.sigmoid()

    def embed(self, batch: Batch) -> Tensor:
        graph = graph_of(batch, "cola")
        return self.encoder(self.standardise(graph.nodes))[graph.asked]

    def _logits(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """[sample] of a node with its own neighbourhood, and [draws, sample] with those of others."""
        graph = graph_of(batch, "cola")
        code = self.encoder(self.standardise(graph.nodes))
        neighbourhood, asked = around(code, graph), graph.asked
        own = self.agreement(code[asked], neighbourhood[asked])[:, 0]
        others = [self.agreement(code[asked], neighbourhood[other[asked]])[:, 0] for other in self._others(len(code))]
        return own, torch.stack(others)

    def _others(self, nodes: int) -> list[Tensor]:
        """For each draw another node [N] for each node: the same ones each time, so that a score stays what it is."""
        generator = torch.Generator().manual_seed(nodes)
        steps = torch.randint(1, max(nodes, 2), (self.draws,), generator=generator).tolist()
        device = next(self.parameters()).device
        return [(torch.arange(nodes, device=device) + step) % nodes for step in steps]

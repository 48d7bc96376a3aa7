"""Graph classifier: a few labelled anomalies teach a graph network to tell them from the other nodes.

Networks and training as in GADBench (Tang et al., NeurIPS 2023): two layers, 32 wide, both classes with the same say.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from ..core.bounds import Count
from ..core.context import Graph
from ..core.data import Batch, Data, graph_of
from ..core.detector import Detector
from ..core.modality import ROW
from ..core.problem import Labelled
from ..core.registry import register
from ..numerics import metrics
from .components.graph_nets import Attributes, Encoder


@register("detector", "graph-classifier", needs={"torch_geometric": "graph"})
class GraphClassifier(Detector):
    """The logit of being an anomaly, by a graph network; nodes that are not labelled count as normal.

    A node's loss is its cross entropy and, as a mean over the known anomalies, theirs, so both classes have the same
    say however few anomalies are known. Weights act on the nodes: one of weight 0 has no say and stays a neighbour.

    Args:
        conv: the convolution: "gcn", "sage", "gin", or "bwgnn", which looks at differences between neighbours too.
        hidden: width of both layers.
    """

    auroc: Tensor
    modalities = (ROW,)
    needs_labels = True
    needs_context = Graph
    full_batch = True

    def __init__(self, conv: Literal["gcn", "sage", "gin", "bwgnn"] = "gcn", hidden: Count = 32) -> None:
        super().__init__()
        self.conv = conv
        self.hidden = hidden

    def build(self, sample_shape: tuple[int, ...]) -> None:
        self.standardise = Attributes(sample_shape, self.modality)
        self.encoder = Encoder(self.conv, sample_shape[0], self.hidden)
        self.head = nn.Linear(self.hidden, 1)
        self.register_buffer("auroc", torch.full((2,), torch.nan))
        self._known: Batch | None = None

    def know(self, anomalies: Labelled) -> None:
        self._known = next(anomalies.data.batches(len(anomalies.data)))

    def prepare(self, data: Data, w: Tensor) -> None:
        self.standardise.learn(data, w)

    def losses(self, batch: Batch) -> Tensor:
        logits = self.logits(batch)
        normal = nn.functional.softplus(logits[self._graph(batch).asked])
        if self._known is None:
            return normal
        known = self._known.to(batch.samples.device)
        apart = not _same_graph(known, batch)
        anomalous = (self.logits(known) if apart else logits)[self._graph(known).asked]
        return normal + nn.functional.softplus(-anomalous).mean()

    def told_apart(self) -> tuple[float, float]:
        beside, alone = self.auroc.tolist()
        return beside, alone

    @torch.no_grad()
    def conclude(self, data: Data) -> None:
        """Keep how well known anomalies are told from the training nodes, with messages and without."""
        if self._known is None:
            return
        device = self.auroc.device
        batches = next(data.batches(len(data))).to(device), self._known.to(device)
        found = []
        for placed in (self.placed, lambda attributes, _: self.placed_alone(attributes)):
            scores = [
                self.logit(placed(self.attributes(graph.nodes), graph))[graph.asked].cpu()
                for graph in map(self._graph, batches)
            ]
            labels = np.repeat([False, True], [len(each) for each in scores])
            found.append(metrics.auroc(labels, torch.cat(scores).numpy()))
        self.auroc = torch.tensor(found, device=device)

    def logits(self, batch: Batch) -> Tensor:
        """[N]: the logit of each node of the graph."""
        return self.logit(self.encode(batch))

    def encode(self, batch: Batch) -> Tensor:
        """[N, hidden]: where the network places each node of the graph."""
        graph = self._graph(batch)
        return self.placed(self.attributes(graph.nodes), graph)

    def attributes(self, nodes: Tensor) -> Tensor:
        return self.standardise(nodes)

    def placed(self, attributes: Tensor, graph: Graph) -> Tensor:
        return self.encoder(attributes, graph)

    def placed_alone(self, attributes: Tensor) -> Tensor:
        """Each node is its only neighbour; "bwgnn", which sees differences of neighbours, sees none of them instead."""
        nodes = torch.arange(len(attributes), device=attributes.device)
        edges = torch.stack([nodes, nodes])[:, : 0 if self.conv == "bwgnn" else len(nodes)]
        return self.placed(attributes, Graph(attributes, edges))

    def logit(self, hidden: Tensor) -> Tensor:
        return self.head(hidden)[:, 0]

    def score(self, batch: Batch) -> Tensor:
        return self.logits(batch)[self._graph(batch).asked]

    def embed(self, batch: Batch) -> Tensor:
        return self.encode(batch)[self._graph(batch).asked]

    def _graph(self, batch: Batch) -> Graph:
        return graph_of(batch, "graph-classifier")


def _same_graph(a: Batch, b: Batch) -> bool:
    """Whether two batches are of one graph, so that one pass serves both."""
    one, other = a.context, b.context
    return isinstance(one, Graph) and isinstance(other, Graph) and one.nodes is other.nodes

"""DOMINANT: what a graph autoencoder cannot rebuild of a node's attributes and of its edges is its score.

Ding, Li, Bhanushali & Liu, SDM 2019. As in PyGOD, edges are rebuilt by inner products without a sigmoid; their error
then has a closed form, so nothing of the size nodes x nodes is ever made.
"""

from __future__ import annotations

from torch import Tensor

from ..core.bounds import Count, Share
from ..core.context import Graph
from ..core.data import Batch, Data, graph_of
from ..core.detector import Detector
from ..core.modality import ROW
from ..core.registry import register
from .components.graph_nets import Attributes, Encoder, convolution, convolved, degrees, gathered

_TINY = 1e-12


@register("detector", "dominant", needs={"torch_geometric": "graph"})
class Dominant(Detector):
    """(1 - structure) |x - x'| + structure |a - a'|, of a node's attributes x and its row a of the adjacency matrix.

    Both are rebuilt from the code of a graph convolutional encoder. Weights act on the nodes: one of weight 0 has
    no say and stays a neighbour.

    Args:
        hidden: width of the code.
        structure: the share of the edges' error in the score.
    """

    modalities = (ROW,)
    needs_context = Graph
    full_batch = True
    loss_is_score = True

    def __init__(self, hidden: Count = 64, structure: Share = 0.5) -> None:
        super().__init__()
        self.hidden = hidden
        self.structure = structure

    def build(self, sample_shape: tuple[int, ...]) -> None:
        self.standardise = Attributes(sample_shape, self.modality)
        self.encoder = Encoder("gcn", sample_shape[0], self.hidden)
        self.inner = convolution("gcn", self.hidden, self.hidden)
        self.attributes = convolution("gcn", self.hidden, sample_shape[0])
        self.edges = convolution("gcn", self.hidden, self.hidden)

    def prepare(self, data: Data, w: Tensor) -> None:
        self.standardise.learn(data, w)

    def losses(self, batch: Batch) -> Tensor:
        graph = graph_of(batch, "dominant")
        x = self.standardise(graph.nodes)
        code = self.encoder(x, graph)
        rebuilt = convolved(self.attributes, convolved(self.inner, code, graph).relu(), graph)
        of_attributes = (x - rebuilt).square().sum(1)
        of_edges = edges_error(convolved(self.edges, code, graph), graph)
        both = (1 - self.structure) * _root(of_attributes) + self.structure * _root(of_edges)
        return both[graph.asked]

    def score(self, batch: Batch) -> Tensor:
        return self.losses(batch)

    def embed(self, batch: Batch) -> Tensor:
        graph = graph_of(batch, "dominant")
        return self.encoder(self.standardise(graph.nodes), graph)[graph.asked]


def edges_error(z: Tensor, graph: Graph) -> Tensor:
    """[N]: |a_i - Z z_i|^2 of each row a_i of the adjacency matrix and codes Z [N, d], in O(N d^2 + E d).

    Multiplied out: z_i (Z'Z) z_i - 2 sum of a_ij z_i z_j over the neighbours j + the sum of a_ij^2.
    """
    whole = ((z @ (z.T @ z)) * z).sum(1)
    squares = degrees(graph.edges, len(z), None if graph.weights is None else graph.weights.square())
    return (whole - 2 * (z * gathered(z, graph.edges, graph.weights)).sum(1) + squares).clamp_min(0)


def _root(squares: Tensor) -> Tensor:
    return (squares + _TINY).sqrt()

"""Graphs: nodes are the samples, and what surrounds each follows along."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
import torch

from ..core.bounds import Bounds
from ..core.context import Graph
from ..core.data import Data
from ..core.modality import ROW
from ..core.problem import Facts, Labelled, Problem
from ..core.registry import register
from ..errors import InputError, did_you_mean
from ..numerics import graphs
from .graph_files import GraphFile, is_graph, read_graph
from .labels import Labels, are_classes, looks_like_labels, text_of, values_of
from .paths import find_path
from .recognition import Match, PathSource
from .splits import by_labels, labels_of
from .table import columns_of

# Beside a node's own attributes its neighbours' means, and the means of those.
HOPS = 2


@register("source", "Nodes")
@dataclass(frozen=True, repr=False)
class Nodes(PathSource):
    """The nodes of a graph, named by their number or their own names.

    With labels, half of the normals train and everything else tests, as of a `Table`. Nodes that do not train are
    masked: the graph is never cut, so they stay the neighbours of others. Edges are made to lead both ways; loops and
    copies are dropped and counted. Their weights, if they have any (edge_weight, or edge_attr with one number an edge;
    a column of this name or weight; the numbers of Network), say how much a neighbour counts.

    Args:
        path: .npz with x [N, d] (or its sparse parts x_data, x_indices, x_indptr, x_shape), edge_index [2, E] and what
            else is known of each node; .mat with Attributes or X, and Network or A; .pt, a dict of such tensors; a
            folder with nodes.csv and edges.csv (or .parquet); or a table of nodes, with `edges`.
        edges: the list of edges that belongs to a table of nodes: a table with the columns src and dst.
        labels: what tells normals from anomalies: the name of an array or column. y, Label and gnd are known; where
            they hold classes (more than two values, and 0 not most of them) these are groups, and every node trains.
        normal: the values of the labels that are normal, whatever they are; every other is an anomaly.
        groups: the name of the array or column that names each node's group.
        columns: the attributes of a table of nodes, in this order; () takes all numbers but labels and groups.
        hops: a sample holds a node's attributes and the means of its neighbours', of theirs, and so on, so often; 0 is
            the attributes alone. None is 2, and 0 for detectors that look at the graph themselves.
        directed: edges lead one way only.
    """

    reads: ClassVar[str] = "a graph (.npz with x and edge_index, .mat, .pt, a folder with nodes.csv and edges.csv)"
    file_options: ClassVar[tuple[str, ...]] = ("path", "edges")

    edges: str | None = None
    labels: str | None = None
    normal: tuple[int | str | bool, ...] = ()
    groups: str | None = None
    columns: tuple[str, ...] = ()
    hops: Annotated[int, Bounds(at_least=0, at_most=10)] | None = None
    directed: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "columns", columns_of(self.columns))
        object.__setattr__(self, "normal", values_of(self.normal))
        super().__post_init__()

    @classmethod
    def recognises(cls, path: Path, options: Mapping[str, Any]) -> Match:
        if "edges" in options:
            return Match.ASKED
        return Match.CERTAIN if is_graph(path) else Match.NONE

    def load(self) -> Problem:
        graph, tidied = self._read()
        labels = self._labels(graph)
        notes = [tidied.sentence]
        if name := self._classes(graph):
            notes.append(
                f"{name!r} holds {len(np.unique(graph.said[name]))} classes: they are read as kinds of normal "
                f"(groups), and every node trains; if only one of them is normal, say --labels {name} --normal"
            )
        facts = Facts(Path(self.path).stem, "nodes", notes=tuple(notes))
        return by_labels(self._labelled(graph, tidied, labels), labels, facts)

    def load_all(self) -> Labelled:
        graph, tidied = self._read()
        return self._labelled(graph, tidied, self._labels(graph))

    def at(self, path: str) -> Nodes:
        """The same reading of another graph; labels and groups are kept where it has them."""
        other = replace(self, path=path, edges=None if self.edges is None else self._beside(path))
        said = read_graph(find_path(path), other._edges).said
        return replace(
            other,
            labels=self.labels if self.labels in said else None,
            groups=self.groups if self.groups in said else None,
        )

    def reading_around(self, around: bool) -> Nodes:
        """The same graph with the usual hops, or none, unless `hops` says otherwise."""
        return self if self.hops is not None else replace(self, hops=HOPS if around else 0)

    def reading(self, data: Data) -> Nodes:
        """The same graph with exactly the attributes of `data`, in their order."""
        hops = HOPS if self.hops is None else self.hops
        return replace(self, columns=tuple(data.features[: len(data.features) // (hops + 1)]))

    def _beside(self, path: str) -> str:
        """The list of edges of another table of nodes: that of the same name beside it, else the same one."""
        beside = Path(path).parent / Path(str(self.edges)).name
        return str(beside) if beside.is_file() else str(self.edges)

    @property
    def _edges(self) -> Path | None:
        return None if self.edges is None else find_path(self.edges)

    def _read(self) -> tuple[GraphFile, graphs.Tidied]:
        graph = read_graph(find_path(self.path), self._edges)
        tidied = graphs.tidied(graph.edges, len(graph.x), self.directed, graph.weights)
        if not tidied.edges.size:
            warnings.warn(f"{self.path} has no edge between two nodes: each is alone", stacklevel=4)
        return graph, tidied

    def _labelled(self, graph: GraphFile, tidied: graphs.Tidied, labels: Labels | None) -> Labelled:
        own, features = self._attributes(graph)
        hops = HOPS if self.hops is None else self.hops
        samples = graphs.with_neighbours(own, tidied.edges, hops, tidied.weights) if hops else own
        weights = None if tidied.weights is None else torch.from_numpy(tidied.weights)
        context = Graph(torch.from_numpy(own), torch.from_numpy(tidied.edges), weights=weights)
        data = Data(torch.from_numpy(samples), list(graph.names), _named(features, hops), context, ROW)
        return Labelled(data, None if labels is None else labels.anomalous, self._groups(graph))

    def _attributes(self, graph: GraphFile) -> tuple[np.ndarray, tuple[str, ...]]:
        """Attributes [N, d] and their names, () where they have none."""
        if not graph.features:
            if self.columns:
                raise InputError(f"{self.path} does not name its attributes", "leave --columns out")
            return self._some(graph.x), ()
        left = (self.labels, self.groups)
        chosen = list(self.columns) or [name for name in graph.features if name not in left]
        text = [] if self.columns else [name for name in graph.text if name not in left]
        if text:
            raise InputError(
                f"{self.path}: column {text[0]!r} of its nodes is no number (such as {graph.text[text[0]]!r})",
                "encode it, name it as labels or groups (--labels, --groups), or choose attributes by --columns",
            )
        for name in chosen:
            if name not in graph.features:
                raise InputError(f"{self.path} has no column of numbers {name!r}", did_you_mean(name, graph.features))
        for name in () if self.columns else chosen:
            if counts := looks_like_labels(graph.said[name], name):
                warnings.warn(
                    f"{self.path}: column {name!r} ({counts}) looks like labels, and is read as an attribute: say "
                    f"--labels {name}, or name the attributes by --columns",
                    stacklevel=5,
                )
        return self._some(graph.x[:, [graph.features.index(name) for name in chosen]]), tuple(chosen)

    def _some(self, x: np.ndarray) -> np.ndarray:
        if not x.shape[1]:
            raise InputError(f"{self.path}: its nodes have no attributes that are numbers", "give each at least one")
        return np.ascontiguousarray(x)

    def _labels(self, graph: GraphFile) -> Labels | None:
        name = self.labels or graph.labels
        if not name or name == self._classes(graph):
            return None
        return labels_of(self.path, self._said(graph, name), name, self.normal)

    def _classes(self, graph: GraphFile) -> str:
        """What is called as labels are and holds classes; "" where nothing does, or where it is asked for as labels."""
        asked = self.labels is not None or self.normal
        return graph.labels if graph.labels and not asked and are_classes(graph.said[graph.labels]) else ""

    def _groups(self, graph: GraphFile) -> np.ndarray | None:
        name = self.groups or self._classes(graph)
        if not name:
            return None
        return np.array([text_of(value) for value in self._said(graph, name).tolist()], dtype=str)

    def _said(self, graph: GraphFile, name: str) -> np.ndarray:
        if name not in graph.said:
            raise InputError(f"{self.path} says no {name!r} of its nodes", did_you_mean(name, graph.said))
        return graph.said[name]


def _named(features: tuple[str, ...], hops: int) -> tuple[str, ...]:
    """Names of attributes and of the means around them."""
    around = ["", "neighbours' ", *(f"{hop} steps away: " for hop in range(2, hops + 1))][: hops + 1]
    return tuple(f"{where}{name}" for where in around for name in features)

"""Edges of graphs: tidied once, and what neighbours say of a node.

Edges are [2, E] int64, from and to; an undirected edge stands there both ways.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse


@dataclass(frozen=True, eq=False)
class Tidied:
    """Edges as they are used, and how many of those given were `loops`, `copies` and `one_way`, now made both ways."""

    edges: np.ndarray
    loops: int
    copies: int
    one_way: int

    @property
    def sentence(self) -> str:
        """What was done, for people."""
        done = [
            f"{count:,} {what}"
            for count, what in (
                (self.loops, "loops dropped"), (self.copies, "copies dropped"), (self.one_way, "made both ways"),
            )
            if count
        ]  # fmt: skip
        return f"{self.edges.shape[1]:,} edges, each way counted" + (f" ({', '.join(done)})" if done else "")


def tidied(edges: np.ndarray, nodes: int, directed: bool = False) -> Tidied:
    """Edges [2, E] without loops and copies, in order, and both ways unless they are `directed`.

    Examples:
        >>> found = tidied(np.array([[0, 1, 1, 2, 2], [1, 0, 2, 2, 1]]), 3)
        >>> found.edges.tolist(), found.loops, found.copies, found.one_way
        ([[0, 1, 1, 2], [1, 0, 2, 1]], 1, 0, 0)
    """
    start, end = edges.astype(np.int64)
    proper = start != end
    keys = start[proper] * nodes + end[proper]
    single = _once(keys)
    loops, copies = int((~proper).sum()), len(keys) - len(single)
    both = single
    if not directed:
        turned = single % nodes * nodes + single // nodes
        both = _once(np.concatenate([single, turned]))
    return Tidied(np.stack([both // nodes, both % nodes]), loops, copies, len(both) - len(single))


def _once(keys: np.ndarray) -> np.ndarray:
    """Each key once, in order. For millions of them numpy's own takes many times as long."""
    keys = np.sort(keys)
    return keys[np.diff(keys, prepend=-1) > 0]


def adjacency(edges: np.ndarray, nodes: int) -> scipy.sparse.csr_array:
    """[nodes, nodes] float32 with a 1 for each edge, in the row of the node that it leads to."""
    ones = np.ones(edges.shape[1], np.float32)
    return scipy.sparse.csr_array((ones, (edges[1], edges[0])), shape=(nodes, nodes))


def with_neighbours(x: np.ndarray, edges: np.ndarray, hops: int) -> np.ndarray:
    """[n, (hops + 1) * d]: attributes [n, d], the mean of the neighbours' beside them, the mean of those means, ...

    A node without neighbours keeps its own. In GADBench (Tang et al. 2023) trees on these beat graph networks.

    Examples:
        >>> with_neighbours(np.array([[0.0], [2.0], [4.0]], np.float32), np.array([[0, 1, 1, 2], [1, 0, 2, 1]]), 1)
        array([[0., 2.],
               [2., 2.],
               [4., 2.]], dtype=float32)
    """
    near = adjacency(edges, len(x))
    degree = near.sum(1)
    means = scipy.sparse.diags_array(1 / np.maximum(degree, 1)) @ near + scipy.sparse.diags_array(
        (degree == 0).astype(np.float32)
    )
    parts = [x.astype(np.float32)]
    for _ in range(hops):
        parts.append((means @ parts[-1]).astype(np.float32))
    return np.concatenate(parts, axis=1)


def cut(edges: np.ndarray, one: int, other: int) -> np.ndarray:
    """Edges [2, e] without those between two nodes, either way."""
    start, end = edges
    return edges[:, ~(((start == one) & (end == other)) | ((start == other) & (end == one)))]


def with_neighbours_at(x: np.ndarray, edges: np.ndarray, hops: int, node: int) -> np.ndarray:
    """[(hops + 1) * d]: the row of `with_neighbours` of one node, from what lies around it alone."""
    reached, used = np.zeros(len(x), bool), np.zeros(edges.shape[1], bool)
    reached[node] = True
    for _ in range(hops):
        used |= reached[edges[1]]
        reached[edges[0][used]] = True
    place = np.cumsum(reached) - 1
    return with_neighbours(x[reached], place[edges[:, used]], hops)[place[node]]

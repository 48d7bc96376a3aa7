"""Edges of graphs: tidied once, and what neighbours say of a node.

Edges are [2, E] int64, from and to; an undirected edge stands there both ways. Weights are [E] float32, or None where
all edges count alike.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy


@dataclass(frozen=True, eq=False)
class Tidied:
    """Edges as they are used and their weights; how many of those given were `loops`, `copies` and `one_way`, now made
    both ways."""

    edges: np.ndarray
    loops: int
    copies: int
    one_way: int
    weights: np.ndarray | None = None

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
        weighted = "" if self.weights is None else ", with weights"
        return f"{self.edges.shape[1]:,} edges{weighted}, each way counted" + (f" ({', '.join(done)})" if done else "")


def tidied(edges: np.ndarray, nodes: int, directed: bool = False, weights: np.ndarray | None = None) -> Tidied:
    """Edges [2, E] without loops and copies, in order, and both ways unless they are `directed`.

    Of copies, and of both ways, the largest weight counts. Weights are divided by their mean; all the same are none.

    Examples:
        >>> found = tidied(np.array([[0, 1, 1, 2, 2], [1, 0, 2, 2, 1]]), 3)
        >>> found.edges.tolist(), found.loops, found.copies, found.one_way
        ([[0, 1, 1, 2], [1, 0, 2, 1]], 1, 0, 0)
    """
    start, end = edges.astype(np.int64)
    proper = start != end
    keys = start[proper] * nodes + end[proper]
    if weights is not None and weights.size and weights.min() == weights.max():
        weights = None
    single, of_single = _once(keys, None if weights is None else weights[proper])
    loops, copies = int((~proper).sum()), len(keys) - len(single)
    both, of_both = single, of_single
    if not directed:
        turned = single % nodes * nodes + single // nodes
        twice = None if of_single is None else np.concatenate([of_single, of_single])
        both, of_both = _once(np.concatenate([single, turned]), twice)
    scaled = None if of_both is None or not len(of_both) else (of_both / of_both.mean()).astype(np.float32)
    return Tidied(np.stack([both // nodes, both % nodes]), loops, copies, len(both) - len(single), scaled)


def _once(keys: np.ndarray, weights: np.ndarray | None) -> tuple[np.ndarray, np.ndarray | None]:
    """Each key once, in order, with its largest weight. For millions of them numpy's own takes many times as long."""
    if weights is None:
        keys = np.sort(keys)
        return keys[np.diff(keys, prepend=-1) > 0], None
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    first = np.flatnonzero(np.diff(keys, prepend=-1) > 0)
    largest = np.maximum.reduceat(weights[order], first) if len(first) else weights[order]
    return keys[first], largest


def adjacency(edges: np.ndarray, nodes: int, weights: np.ndarray | None = None) -> scipy.sparse.csr_array:
    """[nodes, nodes] float32 with the weight of each edge, or a 1, in the row of the node that it leads to."""
    values = np.ones(edges.shape[1], np.float32) if weights is None else weights
    return scipy.sparse.csr_array((values, (edges[1], edges[0])), shape=(nodes, nodes))


def with_neighbours(x: np.ndarray, edges: np.ndarray, hops: int, weights: np.ndarray | None = None) -> np.ndarray:
    """[n, (hops + 1) * d]: attributes [n, d], the mean of the neighbours' beside them, the mean of those means, ...

    Edges weigh in the means. A node without neighbours keeps its own. In GADBench (Tang et al. 2023) trees on these
    beat graph networks.

    Examples:
        >>> with_neighbours(np.array([[0.0], [2.0], [4.0]], np.float32), np.array([[0, 1, 1, 2], [1, 0, 2, 1]]), 1)
        array([[0., 2.],
               [2., 2.],
               [4., 2.]], dtype=float32)
    """
    near = adjacency(edges, len(x), weights)
    degree = near.sum(1)
    alone = degree == 0
    means = scipy.sparse.diags_array(1 / np.where(alone, 1, degree)) @ near + scipy.sparse.diags_array(
        alone.astype(np.float32)
    )
    parts = [x.astype(np.float32)]
    for _ in range(hops):
        parts.append((means @ parts[-1]).astype(np.float32))
    return np.concatenate(parts, axis=1)


def between(edges: np.ndarray, one: int, other: int) -> np.ndarray:
    """Which edges [E] lead from one of two nodes to the other, either way."""
    start, end = edges
    return ((start == one) & (end == other)) | ((start == other) & (end == one))


def with_neighbours_at(
    x: np.ndarray, edges: np.ndarray, hops: int, node: int, weights: np.ndarray | None = None
) -> np.ndarray:
    """[(hops + 1) * d]: the row of `with_neighbours` of one node, from what lies around it alone."""
    reached, used = np.zeros(len(x), bool), np.zeros(edges.shape[1], bool)
    reached[node] = True
    for _ in range(hops):
        used |= reached[edges[1]]
        reached[edges[0][used]] = True
    place = np.cumsum(reached) - 1
    chosen = None if weights is None else weights[used]
    return with_neighbours(x[reached], place[edges[:, used]], hops, chosen)[place[node]]

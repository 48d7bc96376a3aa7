"""The files that graphs come in: each becomes attributes of nodes, edges, and what else is said of each node.

None is unpickled: a file that holds Python objects is refused in one sentence.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import scipy

from ..errors import InputError, listed
from .mat_files import is_hdf5, names_in_mat, read_mat
from .numpy_files import ADJACENCY, ATTRIBUTES, numpy_layout, read_numpy
from .table import SUFFIXES as TABLES
from .table import first_text, is_numeric, read_frame

# An edge list and a table of nodes lie in one folder under these names.
NODES, EDGES = "nodes", "edges"
PICKLES = (".pkl", ".pickle", ".gpickle")
ARRAYS = (".npz", ".mat", ".pt", ".pth")
_EDGES = ("edge_index",)
_LABELS = ("y", "Label", "label", "gnd")
_SPARSE = ("data", "indices", "indptr", "shape")
_WEIGHTS = ("edge_weight", "edge_attr")
_ENDS = (("src", "dst"), ("source", "target"), ("from", "to"), ("u", "v"))
_IDS = ("id", "node", "node_id", "name")
_CONVERT = (
    "where it was made: np.savez('graph.npz', x=data.x.numpy(), edge_index=data.edge_index.numpy(), y=data.y.numpy())"
)


@dataclass(frozen=True, eq=False)
class GraphFile:
    """A graph as it is in its file.

    Attributes:
        x: attributes [N, d] float32.
        edges: [2, E] int64, as they are given.
        weights: [E] float64 above 0, where the file has them.
        said: what else the file says of each node: arrays [N] by name.
        labels: which of these is known to hold labels; "" where none is.
        names: one a node.
        features: names of the attributes, where they have any.
        text: of a table of nodes, the columns that are no numbers, with the first such value.
    """

    x: np.ndarray
    edges: np.ndarray
    said: dict[str, np.ndarray] = field(default_factory=dict)
    labels: str = ""
    names: tuple[str, ...] = ()
    features: tuple[str, ...] = ()
    text: dict[str, str] = field(default_factory=dict)
    weights: np.ndarray | None = None


def is_graph(path: Path) -> bool:
    """Whether a file or folder says by its names and shapes that it holds a graph; a pickle is taken for one."""
    if path.is_dir():
        return _table_in(path, NODES) is not None and _table_in(path, EDGES) is not None
    suffix = path.suffix.lower()
    if suffix in PICKLES or suffix in (".pt", ".pth"):
        return True
    if suffix == ".npz":
        return numpy_layout(path) == "graph"
    names = names_in_mat(path) if suffix == ".mat" else frozenset()
    return bool(names & {*ADJACENCY}) and bool(names & {*ATTRIBUTES})


def read_graph(path: Path, edges: Path | None = None) -> GraphFile:
    """The graph of an npz, MATLAB or torch file, of a folder with nodes and edges, or of two tables.

    Raises:
        InputError: broken, it holds Python objects, or what belongs together does not fit.
    """
    if path.is_dir():
        nodes, found = _table_in(path, NODES), _table_in(path, EDGES)
        if nodes is None or found is None:
            raise InputError(f"{path} holds no graph", f"needed are {NODES}.csv and {EDGES}.csv, or .parquet")
        return _of_tables(nodes, found)
    if edges is not None:
        return _of_tables(path, edges)
    suffix = path.suffix.lower()
    if suffix in PICKLES:
        raise InputError(f"{path} is a pickle, which could run code, so it is not opened", f"convert it {_CONVERT}")
    readers: dict[str, Callable[[Path], dict[str, Any]]] = {
        ".npz": read_numpy, ".mat": _read_mat, ".pt": _read_torch, ".pth": _read_torch,
    }  # fmt: skip
    if suffix not in readers:
        raise InputError(f"{path.name} is no graph that can be read", f"one of {', '.join(ARRAYS)}, or two tables")
    return _of_arrays(path, _unsparse(readers[suffix](path)))


def _of_arrays(path: Path, arrays: dict[str, Any]) -> GraphFile:
    x = _first(arrays, ATTRIBUTES)
    adjacency, edges = _first(arrays, ADJACENCY), _first(arrays, _EDGES)
    if x is None or (edges is None and adjacency is None):
        raise InputError(
            f"{path} holds no graph: needed are x and edge_index, or Attributes and Network; got {listed(arrays)}",
            "np.savez('graph.npz', x=x, edge_index=edge_index, y=y), x [N, d] and edge_index [2, E]",
        )
    weights = _first(arrays, _WEIGHTS)
    if edges is None:
        found = scipy.sparse.coo_array(adjacency)
        edges, weights = np.stack(found.coords), found.data
    values = _values(path, x)
    count = len(values)
    said = {
        name: np.asarray(each).reshape(-1)
        for name, each in arrays.items()
        if _is_one_each(each, count) and name not in _WEIGHTS
    }
    labels = next((name for name in _LABELS if name in said), "")
    kept, of_edges = _weighed(path, _checked(path, edges, count), weights)
    return GraphFile(values, kept, said, labels, tuple(map(str, range(count))), weights=of_edges)


def _values(path: Path, x: Any) -> np.ndarray:
    values = np.asarray(x.toarray() if scipy.sparse.issparse(x) else x)
    if values.ndim != 2 or not np.issubdtype(values.dtype, np.number):
        raise InputError(f"{path}: x has shape {list(values.shape)}: attributes [nodes, features] were needed")
    values = values.astype(np.float32)
    bad = ~np.isfinite(values).all(1)
    if bad.any():
        raise InputError(
            f"{path}: node {int(bad.argmax())} has NaN, infinity or what float32 cannot hold ({bad.sum()} such nodes)",
            "fill or drop them first",
        )
    return values


def _checked(path: Path, edges: Any, nodes: int) -> np.ndarray:
    edges = np.asarray(edges)
    if edges.ndim != 2 or len(edges) != 2 or not np.issubdtype(edges.dtype, np.integer):
        raise InputError(
            f"{path}: edge_index has shape {list(edges.shape)} of {edges.dtype}: whole numbers [2, edges] were needed",
            "transpose it" if edges.ndim == 2 and edges.shape[1] == 2 else "edge_index.astype(np.int64)",
        )
    if edges.size and not 0 <= edges.min() <= edges.max() < nodes:
        raise InputError(
            f"{path}: edges lead to nodes from {edges.min()} to {edges.max()}, and there are {nodes}",
            "nodes are counted from 0: " + ("subtract 1" if edges.min() == 1 else f"from 0 to {nodes - 1}"),
        )
    return edges.astype(np.int64)


def _weighed(path: Path, edges: np.ndarray, weights: Any) -> tuple[np.ndarray, np.ndarray | None]:
    """Edges [2, E] whose weight is not 0, and their weights; None where they have none, or several numbers each."""
    if weights is None:
        return edges, None
    found = np.asarray(weights)
    if found.size != edges.shape[1] or not (np.issubdtype(found.dtype, np.number) or found.dtype == bool):
        _tell_unread(path, f"what stands with its edges ({list(found.shape)} of {found.dtype})")
        return edges, None
    found = found.reshape(-1).astype(np.float64)
    bad = ~np.isfinite(found) | (found < 0)
    if bad.any():
        raise InputError(
            f"{path}: edge {int(bad.argmax())} has the weight {found[bad][0]:g}: numbers from 0 on were needed",
            "a weight says how much a neighbour counts; turn distances into similarities first",
        )
    return edges[:, found > 0], found[found > 0]


def _tell_unread(path: Path, what: str) -> None:
    warnings.warn(f"{path}: {what} is not read", stacklevel=6)


def _is_one_each(values: Any, count: int) -> bool:
    return not scipy.sparse.issparse(values) and np.asarray(values).shape in ((count,), (count, 1), (1, count))


def _first(arrays: dict[str, Any], names: tuple[str, ...]) -> Any:
    return next((arrays[name] for name in names if name in arrays), None)


def _unsparse(arrays: dict[str, Any]) -> dict[str, Any]:
    """Arrays with x_data, x_indices, x_indptr and x_shape put together as the sparse x."""
    found = dict(arrays)
    for name in ATTRIBUTES:
        parts = [f"{name}_{part}" for part in _SPARSE]
        if all(part in found for part in parts):
            data, indices, indptr, shape = (found.pop(part) for part in parts)
            try:
                found[name] = scipy.sparse.csr_array((data, indices, indptr), shape=tuple(shape.tolist()))
            except (ValueError, TypeError) as error:
                raise InputError(f"the parts of the sparse {name} do not fit: {error}") from error
    return found


def _read_mat(path: Path) -> dict[str, Any]:
    if is_hdf5(path):
        raise InputError(f"{path} is a MATLAB 7.3 file, whose sparse matrices are not read", "save it with -v7")
    return read_mat(path)


def _read_torch(path: Path) -> dict[str, Any]:
    """The tensors of a dict; only tensors are read, never other objects."""
    import torch

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of formats; what cannot be read is refused below
            found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # what torch raises on other objects and broken files is not a closed list
        raise InputError(
            f"{path} holds Python objects, which could run code, or is damaged: only a dict of tensors is read",
            f"convert it {_CONVERT}",
        ) from error
    if not isinstance(found, dict) or not all(isinstance(each, torch.Tensor) for each in found.values()):
        raise InputError(f"{path} holds no dict of tensors", "torch.save({'x': x, 'edge_index': edge_index}, path)")
    return {str(name): (each.to_dense() if each.is_sparse else each).numpy() for name, each in found.items()}


def _table_in(folder: Path, stem: str) -> Path | None:
    """The table of this name in a folder, in whatever form."""
    found = (folder / f"{stem}{suffix}" for suffix in TABLES)
    return next((path for path in found if path.is_file()), None)


def _of_tables(nodes: Path, edges: Path) -> GraphFile:
    """A table of nodes, one a row, and a list of edges that names them."""
    of_nodes, of_edges = (read_frame(path) for path in (nodes, edges))
    own = next((name for name in of_nodes.columns if str(name).lower() in _IDS), None)
    names = [str(each) for each in (of_nodes[own] if own is not None else of_nodes.index)]
    place = {name: i for i, name in enumerate(names)}
    if len(place) < len(names):
        twice = next(name for i, name in enumerate(names) if place[name] != i)
        raise InputError(f"{nodes} has two nodes called {twice!r}", "rename one")
    lower = {str(name).lower(): name for name in of_edges.columns}
    ends = next((pair for pair in _ENDS if set(pair) <= lower.keys()), None)
    if ends is None and len(of_edges.columns) < 2:
        raise InputError(f"{edges} has one column: an edge has two ends", "name them src and dst")
    first, second = (lower[end] for end in ends) if ends else of_edges.columns[:2]
    weight = next((lower[name] for name in (*_WEIGHTS, "weight") if name in lower), None)
    for column in of_edges.columns:
        if column not in (first, second, weight):
            _tell_unread(edges, repr(str(column)))
    found = []
    for column in (first, second):
        ids = [str(each) for each in of_edges[column]]
        if (row := next((row for row, each in enumerate(ids) if each not in place), None)) is not None:
            raise InputError(
                f"{edges}: row {row} names the node {ids[row]!r}, which {nodes.name} does not have",
                _why_unknown(own, nodes),
            )
        found.append(np.array([place[each] for each in ids], np.int64))
    said = {str(name): of_nodes[name].to_numpy() for name in of_nodes.columns if name != own}
    numbers = [name for name in said if is_numeric(of_nodes[name])]
    x = np.stack([said[name] for name in numbers], 1) if numbers else np.zeros((len(names), 0))
    text = {name: first_text(of_nodes[name])[1] for name in said if name not in numbers}
    kept, of_edges = _weighed(edges, np.stack(found), None if weight is None else of_edges[weight].to_numpy())
    return GraphFile(_values(nodes, x), kept, said, "", tuple(names), tuple(numbers), text, of_edges)


def _why_unknown(own: object, nodes: Path) -> str:
    """Without a column of ids nodes are called by their row, which the writer of the edges may not know."""
    if own is None:
        return f"{nodes.name} has no column {' or '.join(_IDS)}, so its nodes are called by their row, from 0"
    return f"nodes are called as in the column {own!r} of {nodes.name}"

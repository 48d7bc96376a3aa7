"""Digests that tell copies of samples, and whole data sets, from others."""

from __future__ import annotations

import hashlib
from collections import defaultdict

import numpy as np
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from . import inference
from .context import Graph
from .data import Data
from .readers import Reader, source_of

_BATCH = 1_024
# Digests of the samples of each Reader by their place in it: what stays on disk is read once for them.
_of_readers = WeakIdKeyDictionary()
# Those of samples in memory, with the version of the tensor that they are of: a fit asks five times.
_of_tensors = WeakIdKeyDictionary()


def digest(content: bytes) -> bytes:
    """Sixteen bytes that stand for the content."""
    return hashlib.blake2b(content, digest_size=16).digest()


def sample_digests(samples: Tensor) -> list[bytes]:
    """A digest of the values of each sample [n, ...]: equal samples, equal digests."""
    # Adding zero makes the two zeros, which are equal, equal to the byte.
    rows = np.ascontiguousarray((samples.cpu() + 0.0).flatten(1).numpy())
    return [digest(row.tobytes()) for row in rows]


def digests(data: Data) -> list[bytes]:
    """A digest of each sample's values [n]: equal samples, equal digests. A node's tells its neighbours' values too:
    nodes of the same attributes among others are no copies."""
    samples = data.samples
    own = _of_memory(data, samples) if isinstance(samples, Tensor) else _remembered(data, *source_of(samples))
    return own if not isinstance(data.context, Graph) else _with_neighbours(own, data.context)


def _of_memory(data: Data, samples: Tensor) -> list[bytes]:
    if samples.is_inference():
        return _computed(data)  # such a tensor does not tell when it was changed
    version, known = _of_tensors.get(samples, (None, []))
    if version != samples._version:
        known = _computed(data)
        _of_tensors[samples] = samples._version, known
    return list(known)


def _remembered(data: Data, source: Reader, index: Tensor) -> list[bytes]:
    """Digests of the samples, which are those at `index` [n] of the source; computed once for each."""
    known: dict[int, bytes] = _of_readers.setdefault(source, {})
    places = index.tolist()
    missing = [row for row, place in enumerate(places) if place not in known]
    if missing:
        known.update(zip(index[missing].tolist(), _computed(data.take(missing)), strict=True))
    return [known[place] for place in places]


def _computed(data: Data) -> list[bytes]:
    batches = data.batches(inference.batch_size_for(data.sample_shape, _BATCH))
    return [each for batch in batches for each in sample_digests(batch.samples)]


def _with_neighbours(own: list[bytes], graph: Graph) -> list[bytes]:
    each, around = sample_digests(graph.nodes), defaultdict[int, list[bytes]](list)
    for node, neighbour in graph.edges.T.tolist():
        around[node].append(each[neighbour])
    return [digest(mine + b"".join(sorted(around[node]))) for mine, node in zip(own, graph.asked.tolist(), strict=True)]


def digest_of(data: Data) -> str:
    """A digest of the samples' values and names: equal data, equal fingerprint."""
    whole = hashlib.blake2b(digest_size=16)
    for batch in data.batches(inference.batch_size_for(data.sample_shape, _BATCH)):
        whole.update(np.ascontiguousarray(batch.samples.numpy()).tobytes())
    whole.update("\n".join(data.names).encode())
    return whole.hexdigest()

"""Digests that tell copies of samples, and whole data sets, from others."""

from __future__ import annotations

import hashlib

import numpy as np

from . import inference
from .data import Data

_BATCH = 1_024


def digests(data: Data) -> list[bytes]:
    """A digest of each sample's values [n]: equal samples, equal digests."""
    found = []
    for batch in data.batches(inference.batch_size_for(data.sample_shape, _BATCH)):
        # Adding zero makes the two zeros, which are equal, equal to the byte.
        rows = np.ascontiguousarray((batch.samples + 0.0).flatten(1).numpy())
        found += [hashlib.blake2b(row.tobytes(), digest_size=16).digest() for row in rows]
    return found


def digest_of(data: Data) -> str:
    """A digest of the samples' values and names: equal data, equal fingerprint."""
    digest = hashlib.blake2b(digest_size=16)
    for batch in data.batches(inference.batch_size_for(data.sample_shape, 1_024)):
        digest.update(np.ascontiguousarray(batch.samples.numpy()).tobytes())
    digest.update("\n".join(data.names).encode())
    return digest.hexdigest()

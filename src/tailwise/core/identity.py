"""Digests that tell copies of samples, and whole data sets, from others."""

from __future__ import annotations

import hashlib

import numpy as np
from torch import Tensor

from . import inference
from .data import Data

_BATCH = 1_024


def digest(content: bytes) -> bytes:
    """Sixteen bytes that stand for the content."""
    return hashlib.blake2b(content, digest_size=16).digest()


def sample_digests(samples: Tensor) -> list[bytes]:
    """A digest of the values of each sample [n, ...]: equal samples, equal digests."""
    # Adding zero makes the two zeros, which are equal, equal to the byte.
    rows = np.ascontiguousarray((samples.cpu() + 0.0).flatten(1).numpy())
    return [digest(row.tobytes()) for row in rows]


def digests(data: Data) -> list[bytes]:
    """A digest of each sample's values [n]: equal samples, equal digests."""
    batches = data.batches(inference.batch_size_for(data.sample_shape, _BATCH))
    return [each for batch in batches for each in sample_digests(batch.samples)]


def digest_of(data: Data) -> str:
    """A digest of the samples' values and names: equal data, equal fingerprint."""
    whole = hashlib.blake2b(digest_size=16)
    for batch in data.batches(inference.batch_size_for(data.sample_shape, _BATCH)):
        whole.update(np.ascontiguousarray(batch.samples.numpy()).tobytes())
    whole.update("\n".join(data.names).encode())
    return whole.hexdigest()

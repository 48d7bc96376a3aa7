"""Samples in memory or on disk, read the same way."""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor


class Reader(Protocol):
    """Samples that stay on disk until they are asked for."""

    shape: tuple[int, ...]  # [n, *sample]

    def __getitem__(self, index: Tensor) -> Tensor:
        """Samples at `index` [b] -> float32 [b, *sample]."""
        ...


class Selected:
    """Some of a Reader's samples, still on disk."""

    def __init__(self, samples: Reader, index: Tensor) -> None:
        self.of = samples
        self.index = index
        self.shape = (len(index), *samples.shape[1:])

    def __getitem__(self, index: Tensor) -> Tensor:
        return self.of[self.index[index]]


class Moved:
    """A Reader's samples about another centre: `before` is added and `after` taken off in double precision."""

    def __init__(self, samples: Reader, before: Tensor, after: Tensor) -> None:
        self.of, self.before, self.after = samples, before, after
        self.shape = samples.shape

    def __getitem__(self, index: Tensor) -> Tensor:
        return moved(self.of[index], self.before, self.after)


def moved(samples: Tensor, before: Tensor, after: Tensor) -> Tensor:
    """Samples [n, *sample] less `after` [*sample], once `before` is added to them again; float32."""
    return (samples.double() + before - after).float()


def read(samples: Tensor | Reader, index: Tensor) -> Tensor:
    """Samples [b, *sample] at `index` [b], float32."""
    # For rows of a tensor index_select takes a quarter of the time of indexing, which counts in every step.
    return (samples.index_select(0, index) if isinstance(samples, Tensor) else samples[index]).float()


def read_in_order(samples: Tensor | Reader, start: int, stop: int) -> Tensor:
    """Samples that follow each other: a view where they are in memory, which nobody may write to."""
    return samples[start:stop].float() if isinstance(samples, Tensor) else read(samples, torch.arange(start, stop))


# Of what is read in order so many numbers are read at once, and kept.
_AT_ONCE = 25_000_000


def select(samples: Tensor | Reader, index: Tensor) -> Tensor | Reader:
    """The samples at `index` [b]: a copy where they are in memory, a view where they are on disk.

    Of a Reader that says `in_order`, which reads on from one sample to the next as files of columns are, few are copied
    too: read batch by batch, samples that lie anywhere would each time be a pass over all.
    """
    if isinstance(samples, Tensor):
        return samples[index]
    selected = Selected(*source_of(Selected(samples, index)))
    if getattr(selected.of, "in_order", False) and math.prod(selected.shape) <= _AT_ONCE:
        return selected[torch.arange(len(index))].float()
    return selected


def source_of(samples: Reader) -> tuple[Reader, Tensor]:
    """The Reader that no other is a part of, and which of its samples these are [n]."""
    if not isinstance(samples, Selected):
        return samples, torch.arange(samples.shape[0])
    source, index = source_of(samples.of)
    return source, index[samples.index]

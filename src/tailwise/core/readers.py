"""Units in memory or on disk, read the same way."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor


class Reader(Protocol):
    """Units that stay on disk until they are asked for."""

    shape: tuple[int, ...]  # [n, *unit]

    def __getitem__(self, index: Tensor) -> Tensor:
        """Units at `index` [b] -> float32 [b, *unit]."""
        ...


class Selected:
    """Some of a Reader's units, still on disk."""

    def __init__(self, units: Reader, index: Tensor) -> None:
        self.of = units
        self.index = index
        self.shape = (len(index), *units.shape[1:])

    def __getitem__(self, index: Tensor) -> Tensor:
        return self.of[self.index[index]]


def read(units: Tensor | Reader, index: Tensor) -> Tensor:
    """Units [b, *unit] at `index` [b], float32."""
    # For rows of a tensor index_select takes a quarter of the time of indexing, which counts in every step.
    return (units.index_select(0, index) if isinstance(units, Tensor) else units[index]).float()


def read_in_order(units: Tensor | Reader, start: int, stop: int) -> Tensor:
    """Units that follow each other: a view where they are in memory, which nobody may write to."""
    return units[start:stop].float() if isinstance(units, Tensor) else read(units, torch.arange(start, stop))


def select(units: Tensor | Reader, index: Tensor) -> Tensor | Reader:
    """The units at `index` [b]: a copy where they are in memory, a view where they are on disk."""
    return units[index] if isinstance(units, Tensor) else Selected(units, index)

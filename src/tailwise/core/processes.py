"""What processes that work on one thing share: each computes its part, and all know the whole.

All of them hold the same data and take the same steps, so what one decides all decide; `training.processes` says how
they come to know each other. Outside of `sharing` a process is alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor, distributed

_shares: ContextVar[bool] = ContextVar("_shares", default=False)
# A value of more axes is not shared.
_MOST_AXES = 8


@contextmanager
def sharing() -> Iterator[None]:
    """While the block runs, work is divided among the processes of `torch.distributed`."""
    token = _shares.set(True)
    try:
        yield
    finally:
        _shares.reset(token)


def shares() -> bool:
    """Whether work is divided among several processes now."""
    return _shares.get()


def is_own(number: int) -> bool:
    """Whether the part of this number is this process's to compute."""
    return not shares() or number % distributed.get_world_size() == distributed.get_rank()


def own_places(samples: int) -> Tensor:
    """Which of so many samples of a batch [m] are this process's."""
    return torch.arange(distributed.get_rank(), samples, distributed.get_world_size())


def summed(values: Tensor) -> Tensor:
    """The sum over all processes, on the device of `values`; NCCL moves what is on a GPU only, and gloo the rest."""
    on_gpu = values.device if values.is_cuda else torch.device("cuda")
    moved = values.detach().to(on_gpu if distributed.get_backend() == "nccl" else "cpu", copy=True)
    distributed.all_reduce(moved)
    return moved.to(values.device)


def of_each(row: Tensor) -> Tensor:
    """The row [k] of every process: [processes, k]."""
    rows = row.new_zeros(distributed.get_world_size(), len(row))
    rows[distributed.get_rank()] = row
    return summed(rows)


def joined(parts: Sequence[Tensor | None], lengths: Sequence[int]) -> Tensor:
    """Of parts [length, ...], of which this process has some, and None for the others: all in their order."""
    if not shares():
        return torch.cat([part for part in parts if part is not None])
    shape = _shape_of(next((part for part in parts if part is not None), None))
    whole = torch.zeros(sum(lengths), *shape)
    for part, place in zip(parts, whole.split(list(lengths)), strict=True):
        if part is not None:
            place.copy_(part)
    return summed(whole)


def _shape_of(part: Tensor | None) -> tuple[int, ...]:
    """The axes after the first of what some process has."""
    row = torch.zeros(1 + _MOST_AXES, dtype=torch.float64)
    if part is not None:
        sides = part.shape[1:]
        row[: 1 + len(sides)] = torch.tensor([1.0 + len(sides), *map(float, sides)])
    known = of_each(row).amax(0)
    return tuple(int(side) for side in known[1 : int(known[0])])

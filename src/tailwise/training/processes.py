"""One fit in several processes, as torchrun starts them.

    torchrun --nproc-per-node 2 -m tailwise fit parts.csv --detector autoencoder

Each process reads the data and runs the whole command; losses and gradients of a batch, and scores of a data set, are
divided among them. So all have the same detector, weights and thresholds at every moment. The run is that of one
process but for the order of sums: that is rounding, which a long training makes grow (LOG.md). Killed processes that go
on come to the run of those that were not killed, to the bit. The first process writes and tells; the others help. Small
networks are faster without them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, distributed

from ..core import processes
from . import torchrun
from .loop import Keeper


@contextmanager
def together() -> Iterator[None]:
    """While the block runs, this process and the others that torchrun started divide the work.

    They speak by gloo, through the CPU, wherever the detector is: scores and weights are there, and NCCL refuses
    processes of one GPU.
    """
    if torchrun.started() < 2 or distributed.is_initialized():
        yield
        return
    distributed.init_process_group("gloo")
    try:
        with processes.sharing():
            yield
    finally:
        distributed.destroy_process_group()


class SharedKeeper:
    """A fit that the first process keeps, and that all of them go on from; a `Keeper`.

    Args:
        keeper: that of the first process; those of the others know nothing.
    """

    def __init__(self, keeper: Keeper) -> None:
        self.keeper = keeper

    def load(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        if not processes.shares():
            return self.keeper.load()
        kept = None if torchrun.helps() else self.keeper.load()
        said = _text_of_first("" if kept is None else json.dumps([_layout(kept[0]), kept[1]]))
        if not said:
            return None
        layout, facts = json.loads(said)
        tensors = {} if kept is None else kept[0]
        return {name: _of_first(tensors.get(name), kind, shape) for name, kind, shape in layout}, facts

    def save(self, tensors: Mapping[str, Tensor], facts: dict[str, Any]) -> None:
        if not torchrun.helps():
            self.keeper.save(tensors, facts)


def _layout(tensors: Mapping[str, Tensor]) -> list[tuple[str, str, list[int]]]:
    return [(name, str(value.dtype).removeprefix("torch."), list(value.shape)) for name, value in tensors.items()]


def _of_first(value: Tensor | None, kind: str, shape: list[int]) -> Tensor:
    """The first process's tensor in every process."""
    found = torch.zeros(shape, dtype=getattr(torch, kind)) if value is None else value
    # A truth value has no sum.
    wide = found.to(torch.uint8) if kind == "bool" else found
    return processes.summed(wide).to(found.dtype)


def _text_of_first(text: str) -> str:
    letters = torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8) if text else torch.zeros(0).byte()
    length = int(processes.summed(torch.tensor(len(letters))))
    return bytes(_of_first(letters if text else None, "uint8", [length]).tolist()).decode()

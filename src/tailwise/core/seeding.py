"""Torch's global state that results depend on, its random numbers and its threads: it is given back as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from .inference import check_device


@contextmanager
def seeded(seed: int | None = None, device: str = "cpu") -> Iterator[None]:
    """What is drawn inside starts from `seed`, if there is one, and leaves no trace outside.

    A GPU's generator is touched only where `device` names one: to ask for its state wakes it, which takes seconds and
    memory, and a process that has woken it cannot be forked.

    Raises:
        InputError: there is no such device.
    """
    check_device(device)
    there = torch.device(device)
    gpus = []
    if there.type == "cuda":
        gpus = [torch.cuda.current_device() if there.index is None else there.index]
    with torch.random.fork_rng(devices=gpus):
        if seed is not None:
            torch.default_generator.manual_seed(seed)
            for gpu in gpus:
                torch.cuda.default_generators[gpu].manual_seed(seed)
        yield


@contextmanager
def threads(count: int | None) -> Iterator[None]:
    """So many CPU threads inside, or as many as before; sums are rounded by how they are divided among threads."""
    before = torch.get_num_threads()
    if count:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)

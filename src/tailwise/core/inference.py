"""Scores and places of a whole data set, batch by batch, and the device that they are computed on."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from ..errors import InputError
from . import processes
from .data import Batch, Data
from .detector import Detector, Reading

_SCORE_BATCH = 4_096
_SCORE_ENTRIES = 20_000_000


@contextmanager
def evaluating(detector: Detector) -> Iterator[None]:
    """In evaluation mode inside, and afterwards in the mode of before."""
    was_training = detector.training
    detector.eval()
    try:
        yield
    finally:
        detector.train(was_training)


def score(detector: Detector, data: Data, batch_size: int | None = None) -> Tensor:
    """Scores [n] on the CPU, float32. They do not depend on the batch size."""
    return over_batches(detector, data, detector.score, batch_size)


@torch.no_grad()
def readings(
    detector: Detector,
    data: Data,
    batch_size: int | None = None,
    *,
    score: bool = True,
    map: bool = False,
    embedding: bool = False,
) -> Iterator[Reading]:
    """What is asked for of each batch, in evaluation mode, on the CPU, float32: one pass that gives several.

    A batch at a time, because maps of a whole data set need not fit into memory.
    """
    device = device_of(detector)
    with evaluating(detector):
        for batch in data.batches(batch_size or batch_size_for(data.sample_shape)):
            read = detector.read(batch.to(device), score, map, embedding)
            yield Reading(read.score.float().cpu(), read.map.float().cpu(), read.embedding.float().cpu())


def embed(detector: Detector, data: Data, batch_size: int | None = None) -> Tensor:
    """The detector's places [n, d] of the samples, on the CPU."""
    return over_batches(detector, data, detector.embed, batch_size)


@torch.no_grad()
def over_batches(
    detector: Detector, data: Data, function: Callable[[Batch], Tensor], batch_size: int | None = None
) -> Tensor:
    """What `function` gives for each sample [n, ...], in evaluation mode, on the CPU, float32."""
    device = device_of(detector)
    size = batch_size or batch_size_for(data.sample_shape)
    results: list[Tensor | None] = []
    lengths = []
    with evaluating(detector):
        for number, batch in enumerate(data.batches(size)):
            results.append(function(batch.to(device)).float().cpu() if processes.is_own(number) else None)
            lengths.append(len(batch))
    return processes.joined(results, lengths)


def solved(detector: Detector, data: Data, w: Tensor) -> Tensor:
    """Solve a closed-form detector; the scores [n] of its training samples, each as if it had not been learnt from."""
    scores = detector.solve(data, w)  # type: ignore[operator]
    return over_batches(detector, data, detector.score_left_out) if scores is None else scores


def batch_size_for(sample_shape: tuple[int, ...], most: int = _SCORE_BATCH) -> int:
    """How many samples of this shape are held at once."""
    return max(1, min(most, _SCORE_ENTRIES // math.prod(sample_shape)))


def place(detector: Detector, device: str) -> None:
    """Move a detector to "cpu", "cuda" or "mps"."""
    check_device(device)
    if torch.device(device).type == "mps":
        detector.float()  # MPS has no double precision
    detector.to(device)


def device_of(detector: Detector) -> torch.device:
    """Where the detector's tensors are; the CPU where it has none."""
    return next((t.device for t in (*detector.parameters(), *detector.buffers())), torch.device("cpu"))


def check_device(device: str) -> None:
    """Raise an InputError unless tensors can be made on this device."""
    if device.partition(":")[0] not in ("cpu", "cuda", "mps"):
        raise InputError(f"there is no device {device!r}", 'use "cpu", "cuda" or "mps"')
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"the device {device!r} cannot be used: {reason}", 'use "cpu"') from error

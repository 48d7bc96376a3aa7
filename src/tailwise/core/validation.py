"""Checks that many share: finite numbers, shares, samples that can be learnt from, how to score."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from .data import Data


def check_samples(data: Data, least: int = 2, where: str = "") -> None:
    """Read everything once and refuse what no detector can learn from; `where` it lies begins the error.

    Raises:
        InputError: a sample holds NaN or infinity (the first is named), or none holds a number, or there are fewer than
            `least` samples.
    """
    begin = f"{where}: " if where else ""
    if len(data) < least:
        raise InputError(f"{begin}at least {least} samples are needed to learn what is normal: got {len(data)}")
    if 0 in data.sample_shape:
        raise InputError(f"{begin}the samples hold no numbers: their shape is {list(data.sample_shape)}")
    size = max(1, min(4_096, 20_000_000 // max(1, int(np.prod(data.sample_shape)))))
    for batch in data.batches(size):
        finite = torch.isfinite(batch.samples).flatten(1).all(1)
        if not bool(finite.all()):
            bad = data.names[int(batch.index[~finite][0])]
            raise InputError(
                f"{begin}sample {bad} holds NaN or infinity ({int((~finite).sum())} such samples in its batch)",
                "fill or drop the missing values first",
            )


def check_share(value: float, name: str) -> None:
    """Raise an InputError unless the value lies between 0 and 1."""
    if not 0 < value < 1:
        raise InputError(f"{name} must lie between 0 and 1: got {value}")


def check_scoring(
    batch_size: int | None = None, threshold: float | None = None, false_discoveries: float | None = None
) -> None:
    """Raise an InputError unless samples can be scored so many at once, and flagged above this threshold or so that at
    most this share of the flagged is normal."""
    if batch_size is not None and batch_size < 1:
        raise InputError(f"batch_size must be above 0: got {batch_size}")
    if threshold is not None and math.isnan(threshold):
        raise InputError("threshold must be a number: got nan")
    if threshold is not None and false_discoveries is not None:
        raise InputError("samples are flagged by a threshold or by a share of false discoveries", "leave one out")
    if false_discoveries is not None:
        check_share(false_discoveries, "false_discoveries")


def check_seed(seed: int) -> None:
    """Raise an InputError unless torch and numpy both take this seed."""
    if not 0 <= seed < 2**63:
        raise InputError(f"seed must be from 0 to 2^63 - 1: got {seed}")


def check_finite(values: Tensor, name: str) -> None:
    """Raise an InputError that names the first entry of `values` that is not a finite number."""
    if not len(values):
        raise InputError(f"{name} are empty: at least 1 is needed")
    finite = torch.isfinite(values)
    if not bool(finite.all()):
        first = int((~finite).nonzero()[0, 0])
        raise InputError(
            f"{name} must be finite: {int((~finite).sum())} of {len(values)} are not, the first is number {first}"
        )

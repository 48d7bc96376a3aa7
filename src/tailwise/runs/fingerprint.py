"""Scores that a run must go on giving: a few of its training units with their scores, kept with it.

A score may change with the version of a package, on another machine or in an exported file, and nobody would notice.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..core import inference
from ..core.data import Data
from ..core.detector import Detector
from ..errors import InputError
from .files import read_tensors, tensor_bytes

COUNT = 16
# Scores that differ by more, as a share of the score or of the usual score where that is larger, are not the same.
TOLERANCE = 1e-4
# Units that take more bytes than this in all are kept in half precision, and no more of them than fit four times this.
_BYTES = 4_000_000
_MOST_BYTES = 4 * _BYTES


@dataclass(frozen=True, eq=False)
class Fingerprint:
    """Units [k, *unit] and the scores [k] that the run gave them."""

    units: Tensor
    scores: Tensor

    def as_bytes(self) -> bytes:
        return tensor_bytes({"units": self.units, "scores": self.scores}, {})

    @property
    def data(self) -> Data:
        return Data(self.units.float(), [str(place) for place in range(len(self.units))])

    def differences(self, scores: Tensor) -> Tensor:
        """[k]: how far other scores are from these, as shares; see `TOLERANCE`."""
        expected, found = self.scores.double(), scores.double()
        size = expected.abs().maximum(expected.abs().median()).clamp_min(1e-12)
        return ((found - expected).abs() / size).nan_to_num(math.inf, math.inf)


def choose(detector: Detector, data: Data, seed: int = 0) -> Tensor | None:
    """Units [k, *unit] to keep: 16 drawn by the seed; of large units they are rounded to half precision, or fewer.

    Rounded units are not quite those of the data: what counts is that their scores stay. None where a score depends on
    what lies around a unit.
    """
    if looks_around(detector):
        return None
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed))[:COUNT].sort().values
    size = 4 * math.prod(data.unit_shape)
    units = data.read(order[: max(1, _MOST_BYTES // size)] if size * COUNT > 2 * _MOST_BYTES else order)
    if units.nbytes <= _BYTES:
        return units.clone()
    half = units.half()
    return half if bool(half.isfinite().all()) else units[: max(1, _MOST_BYTES // size)].clone()


def looks_around(detector: Detector) -> bool:
    """Whether the detector, or one that it wraps, needs what surrounds a unit."""
    return any(isinstance(part, Detector) and part.needs_context is not None for part in detector.modules())


def of(detector: Detector, units: Tensor) -> Fingerprint:
    """The fingerprint of a detector: its scores of these units."""
    made = Fingerprint(units, torch.empty(0))
    return Fingerprint(units, inference.score(detector, made.data))


def read(path: Path) -> Fingerprint:
    """A fingerprint from its file.

    Raises:
        InputError: the file is not one.
    """
    tensors, _ = read_tensors(path)
    if set(tensors) != {"units", "scores"} or len(tensors["units"]) != len(tensors["scores"]):
        raise InputError(f"{path} does not hold units with their scores", "restore it, or fit again")
    return Fingerprint(tensors["units"], tensors["scores"])

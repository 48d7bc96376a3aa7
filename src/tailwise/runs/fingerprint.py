"""Scores that a run must go on giving: a few of its training samples with their scores, kept with it.

A score may change with the version of a package, on another machine or in an exported file, and nobody would notice.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from ..core import inference
from ..core.data import Data
from ..core.detector import Detector
from ..core.modality import Modality
from ..core.problem import FromPictures, Source
from ..errors import InputError
from ..numerics import neighbours
from .files import read_tensors, tensor_bytes

COUNT = 16
# Scores that differ by more, as a share of the score or of the usual score where that is larger, are not the same.
TOLERANCE = 1e-4
# Samples that take more bytes than this in all are kept in half precision, and no more of them than fit four times
# this.
_BYTES = 4_000_000
_MOST_BYTES = 4 * _BYTES


@dataclass(frozen=True, eq=False)
class Fingerprint:
    """Samples [k, *sample] of a modality and the scores [k] that the run gave them.

    `pictures` [j, height, width, 1 or 3] uint8 are those that the first j samples were made of, where they are known.
    """

    samples: Tensor
    scores: Tensor
    modality: Modality
    pictures: Tensor | None = None

    def as_bytes(self) -> bytes:
        pictures = {} if self.pictures is None else {"pictures": self.pictures}
        return tensor_bytes({"samples": self.samples, "scores": self.scores, **pictures}, {})

    @property
    def pictured(self) -> Fingerprint:
        """The part of it that has pictures."""
        count = 0 if self.pictures is None else len(self.pictures)
        return replace(self, samples=self.samples[:count], scores=self.scores[:count])

    @property
    def data(self) -> Data:
        names = [str(place) for place in range(len(self.samples))]
        return Data(self.samples.float(), names, modality=self.modality)

    def differences(self, scores: Tensor) -> Tensor:
        """[k]: how far other scores are from these, as shares; see `TOLERANCE`."""
        expected, found = self.scores.double(), scores.double()
        size = expected.abs().maximum(expected.abs().median()).clamp_min(1e-12)
        return ((found - expected).abs() / size).nan_to_num(math.inf, math.inf)


def choose(detector: Detector, data: Data, seed: int = 0) -> Tensor | None:
    """Samples [k, *sample] to keep: 16 drawn by the seed; of large samples they are rounded to half precision, or
    fewer.

    Rounded samples are not quite those of the data: what counts is that their scores stay. None where a score depends
    on what lies around a sample.
    """
    if detector.looks_around:
        return None
    order = drawn(data, seed)
    size = 4 * math.prod(data.sample_shape)
    samples = data.read(order[: max(1, _MOST_BYTES // size)] if size * COUNT > 2 * _MOST_BYTES else order)
    if samples.nbytes <= _BYTES:
        return samples.clone()
    half = samples.half()
    return half if bool(half.isfinite().all()) else samples[: max(1, _MOST_BYTES // size)].clone()


def drawn(data: Data, seed: int = 0) -> Tensor:
    """The places [at most 16] of the samples that the seed draws; `choose` takes the first of them, or all."""
    return torch.randperm(len(data), generator=torch.Generator().manual_seed(seed))[:COUNT].sort().values


def pictures_of(source: Source, data: Data, seed: int, count: int) -> Tensor | None:
    """The pictures of the first of `count` drawn samples of a source, as many as 4 MB hold; None where it has none."""
    if not isinstance(source, FromPictures):
        return None
    names = [data.names[place] for place in drawn(data, seed)[:count].tolist()]
    first = source.decoded(names[:1])
    fit = 1 if first is None else max(1, _BYTES // first.nbytes)
    return first if first is None or fit == 1 else source.decoded(names[:fit])


def of(detector: Detector, samples: Tensor, pictures: Tensor | None = None) -> Fingerprint:
    """The fingerprint of a detector: its scores of these samples, and the pictures of the first of them."""
    made = Fingerprint(samples, torch.empty(0), detector.modality, pictures)
    # As an exported graph searches, which has to give the same scores.
    with neighbours.exactly():
        return replace(made, scores=inference.score(detector, made.data))


def read(path: Path, modality: Modality) -> Fingerprint:
    """A fingerprint of samples of this modality from its file.

    Raises:
        InputError: the file is not one.
    """
    tensors, _ = read_tensors(path)
    pictures = tensors.pop("pictures", None)
    usable = set(tensors) == {"samples", "scores"} and all(each.is_floating_point() for each in tensors.values())
    if pictures is not None:
        usable &= pictures.dtype == torch.uint8 and pictures.shape[3:] in ((1,), (3,))
        usable &= pictures.numel() > 0 and len(pictures) <= len(tensors.get("samples", ()))
    if not usable or tensors["scores"].shape != tensors["samples"].shape[:1] or not len(tensors["scores"]):
        raise InputError(f"{path} does not hold samples with their scores", "restore it, or fit again")
    return Fingerprint(tensors["samples"], tensors["scores"], modality, pictures)

"""Adaptations: a finished detector is fitted to data whose normals have changed, without labels and the old data.

An adaptation is a value of the kind "adaptation" (`adaptations` holds them): `adapt` says what it made of a detector,
`wrap` what a saved one has to be restored into. Each has a veto that needs no labels: where its own check sees nothing
to gain, or a loss, the detector stays as it is, and the result says so with the figure.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from ..core import inference
from ..core.data import Batch, Data
from ..core.detector import Around, Detector, Prototypical, Reading
from ..core.modality import ROW
from ..core.readers import Reader
from ..core.registry import parse_one
from ..errors import InputError

# Which part of the target's scores is held against the source's: so low that anomalies are hardly in it.
_LOW = 0.25
# By how many of the source's interquartile ranges the target must score higher for anything to be there to gain.
_LEAST_GAP = 0.5
# Samples of more bytes are made of their pictures when they are asked for.
_AT_ONCE_BYTES = 250_000_000


@dataclass(frozen=True, eq=False)
class Source:
    """What a run keeps of the normals that it was fitted on.

    Attributes:
        scores: [m], of normals that the detector has not learnt.
        samples: [k, *sample], some of the normals; None where none are kept.
        complete: whether these are all, or a fair draw of many.
    """

    scores: np.ndarray
    samples: Tensor | None = None
    complete: bool = False


class Pictured(Protocol):
    """The pictures behind a target's samples, and the network that made these, whose batch norms can change."""

    def __len__(self) -> int: ...

    def samples(self, index: Tensor) -> Tensor:
        """Samples [b, *sample] of the pictures at `index` [b]."""
        ...

    def with_statistics(self, share: float) -> Pictured:
        """The same pictures, by a network of whose statistics they set this share; the old normals' pictures the rest.

        Raises:
            InputError: no pictures of old normals are known.
        """
        ...

    def moving(self) -> Moving:
        """The same, while gamma and beta of the batch norms move."""
        ...


class Moving(Protocol):
    """Pictures by a network whose batch norms move."""

    def parameters(self) -> Iterator[Tensor]:
        """What moves, in deviations of a channel."""
        ...

    def samples(self, index: Tensor) -> Tensor:
        """Samples [b, *sample] of the pictures at `index` [b], with gradients."""
        ...

    def fixed(self) -> Pictured:
        """The pictures by the network as it is now."""
        ...


@dataclass(frozen=True, eq=False)
class Asked:
    """What an adaptation is given.

    Attributes:
        detector: fitted, with its local scores.
        target: unlabelled samples of the new normals; anomalies may be among them.
        scores: [n], the detector's scores of these.
        source: what is known of the old normals.
        generator: draws whatever is drawn.
        pictured: reads the pictures behind the target's samples; None, or finds none, where there are none.
    """

    detector: Detector
    target: Data
    scores: np.ndarray
    source: Source
    generator: torch.Generator
    pictured: Callable[[], Pictured | None] | None = None

    @property
    def name(self) -> str:
        """The detector's, for messages."""
        return type(self.detector.trained).__name__

    def lowest(self, share: float) -> np.ndarray:
        """Places of that share of the target samples that score lowest, one at least."""
        return np.argsort(self.scores, kind="stable")[: max(1, round(share * len(self.scores)))]


@dataclass(frozen=True, eq=False)
class Adapted:
    """What an adaptation came to.

    Attributes:
        detector: the adapted one, or the one that was given where `adapted` is False.
        adapted: whether anything changed.
        reason: why, in a sentence with its figure.
        figures: numbers by name.
        pictured: the pictures by the network that makes samples of them from now on, where that changed.
    """

    detector: Detector
    adapted: bool
    reason: str
    figures: dict[str, float] = field(default_factory=dict)
    pictured: Pictured | None = None


@runtime_checkable
class Adaptation(Protocol):
    """Fits a finished detector to a target."""

    def adapt(self, asked: Asked) -> Adapted:
        """The detector, adapted unless the veto says no.

        Raises:
            InputError: it cannot adapt such a detector.
        """
        ...

    def wrap(self, detector: Detector) -> Detector:
        """What is saved of an adapted detector, before its tensors are restored; the detector itself where the
        adaptation changes only these."""
        ...


def parse(text: str) -> Adaptation:
    """The adaptation of this spelling."""
    made: Adaptation = parse_one(text, "adaptation")
    return made


def wrapped(detector: Detector, spellings: Iterable[str]) -> Detector:
    """An unfitted detector within the adaptations of these spellings, the first innermost, to be restored."""
    for text in spellings:
        detector = parse(text).wrap(detector)
    return detector


def gap(target: np.ndarray, source: np.ndarray) -> float:
    """By how many of their interquartile ranges the target's lower scores [n] lie above those of the source's normals
    [m]: the quarter points are compared, which anomalies hardly move."""
    low, high = np.quantile(source, (0.25, 0.75))
    usual = float(np.quantile(source, _LOW))
    return (float(np.quantile(target, _LOW)) - usual) / max(float(high - low), 1e-12)


def nothing_to_gain(asked: Asked) -> Adapted | None:
    """The veto before: no adaptation where the target's lower scores are not above those of the old normals."""
    before = gap(asked.scores, asked.source.scores)
    if before >= _LEAST_GAP:
        return None
    reason = (
        f"nothing to gain: the lower scores of the target lie {before:.2f} interquartile ranges above those of the old "
        f"normals, and {_LEAST_GAP:g} are needed"
    )
    return Adapted(asked.detector, False, reason, {"gap_before": before})


def accepted(asked: Asked, made: Detector, figures: dict[str, float], pictured: Pictured | None = None) -> Adapted:
    """The veto after: what was made, unless the target's lower scores lie no nearer to the old normals' by it.

    Where a network was made too, `pictured` has it, and the target's samples are those that it makes.
    """
    asked = asked if pictured is None else made_by(asked, pictured)
    before = gap(asked.scores, asked.source.scores)
    after = gap(inference.score(made, asked.target).double().numpy(), asked.source.scores)
    figures = {**figures, "gap_before": before, "gap_after": after}
    said = f"{before:.2f} interquartile ranges above those of the old normals before, and {after:.2f} after"
    if not abs(after) < before:
        return Adapted(asked.detector, False, f"no gain: the target's lower scores lie {said}", figures)
    return Adapted(made, True, f"the target's lower scores lie {said}", figures, pictured)


class Realigned(Around):
    """A detector that reads samples after one scale and one shift a channel (a feature, a band)."""

    stretch: Tensor
    shift: Tensor

    def __init__(self, detector: Detector) -> None:
        super().__init__(detector)
        self.local_weight = detector.local_weight

    @classmethod
    def around(cls, detector: Detector, stretch: Tensor, shift: Tensor) -> Realigned:
        """Around a fitted detector: samples times `stretch` [channels] plus `shift` [channels]."""
        made = cls(detector)
        made.sample_shape, made.modality = detector.sample_shape, detector.modality
        made._keep(stretch.detach(), shift.detach())
        return made.eval()

    def build(self, sample_shape: tuple[int, ...]) -> None:
        super().build(sample_shape)
        self._keep(torch.ones(sample_shape[0]), torch.zeros(sample_shape[0]))

    def _keep(self, stretch: Tensor, shift: Tensor) -> None:
        self.register_buffer("stretch", stretch.float())
        self.register_buffer("shift", shift.float())

    def aligned(self, batch: Batch) -> Batch:
        """The same batch as the detector reads it."""
        return Batch(moved(batch.samples, self.stretch, self.shift), batch.index, batch.context)

    def aligned_data(self, data: Data) -> Data:
        """All samples as the detector reads them, aligned when they are asked for."""
        return replace(data, samples=_Aligned(data, self.stretch, self.shift))

    def read(self, batch: Batch, score: bool = True, map: bool = False, embedding: bool = False) -> Reading:
        return self.detector.read(self.aligned(batch), score, map, embedding)

    def score(self, batch: Batch) -> Tensor:
        return self.detector.score(self.aligned(batch))

    def score_left_out(self, batch: Batch) -> Tensor:
        return self.detector.score_left_out(self.aligned(batch))

    def embed(self, batch: Batch) -> Tensor:
        return self.detector.embed(self.aligned(batch))


class _Aligned:
    """Samples of `data` after one scale and one shift a channel: a Reader."""

    def __init__(self, data: Data, stretch: Tensor, shift: Tensor) -> None:
        self.data, self.stretch, self.shift = data, stretch, shift
        self.shape = data.samples.shape

    def __getitem__(self, index: Tensor) -> Tensor:
        return moved(self.data.read(index), self.stretch, self.shift)


def moved(samples: Tensor, stretch: Tensor, shift: Tensor) -> Tensor:
    """Samples [b, channels, *space] times a number a channel, plus another."""
    shape = (-1, *[1] * (samples.dim() - 2))
    return samples * stretch.to(samples).reshape(shape) + shift.to(samples).reshape(shape)


def by_channel(samples: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation [channels] of samples [n, channels, *space], at least a millionth of the largest."""
    values = samples.transpose(0, 1).flatten(1).double()
    spread = values.std(1, correction=0)
    return values.mean(1).float(), spread.clamp_min(max(1e-6 * float(spread.max()), 1e-12)).float()


def check_alone(asked: Asked, name: str) -> None:
    """Raise an InputError where the detector looks beyond the sample, whose surroundings nothing would align."""
    if asked.detector.looks_around:
        raise InputError(
            f"{name} cannot adapt {asked.name}, which looks at what surrounds a sample",
            "for graph-classifier use --method TUNE; else fit again with the new data",
        )


def pictured(asked: Asked, name: str) -> Pictured:
    """The pictures behind the target's samples, and a network of ours that made these.

    Raises:
        InputError: there are none, or a network of others whose batch norms nobody knows.
    """
    found = asked.pictured() if asked.pictured is not None else None
    if found is None:
        raise InputError(
            f"{name} cannot adapt this run of {asked.name}: it changes the network that reads pictures, and there are "
            "none of 8 bits behind these samples",
            "use --method Moments or RADA(), which change samples as they are",
        )
    return found


class _Made:
    """Samples that a network makes of pictures when they are asked for: a Reader."""

    def __init__(self, pictured: Pictured, sample_shape: tuple[int, ...]) -> None:
        self.pictured, self.shape = pictured, (len(pictured), *sample_shape)

    def __getitem__(self, index: Tensor) -> Tensor:
        return self.pictured.samples(index)


def made_by(asked: Asked, pictured: Pictured) -> Asked:
    """The same with the samples that another network makes of the target's pictures, at once where they are few."""
    made: Reader | Tensor = _Made(pictured, asked.target.sample_shape)
    if math.prod(made.shape) * 4 <= _AT_ONCE_BYTES:
        made = made[torch.arange(len(pictured))]
    return replace(asked, target=replace(asked.target, samples=made))


def source_samples(asked: Asked, name: str) -> Tensor:
    """Samples [k, *sample] of the old normals.

    Raises:
        InputError: the run keeps none.
    """
    if asked.source.samples is None:
        raise InputError(
            f"{name} cannot adapt this run of {asked.name}: it keeps none of its normals", "fit again with the new data"
        )
    return asked.source.samples.float()


def compared(asked: Asked, name: str) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """Normal parts [m, d] to align with, and what makes parts [b, p, d] of samples: rows as they are, standardised by
    the old normals; else what the detector itself compares.

    Raises:
        InputError: the detector keeps none.
    """
    if asked.target.modality == ROW and asked.source.complete:
        samples = source_samples(asked, name)
        mean, spread = by_channel(samples)

        def parts(given: Tensor) -> Tensor:
            return ((given - mean) / spread)[:, None]

        return parts(samples)[:, 0], parts
    detector = asked.detector.trained
    if not isinstance(detector, Prototypical):
        raise InputError(
            f"{name} cannot adapt {asked.name}: it keeps no normal parts to align with",
            "use --method Moments, or fit patch-memory, padim, patch-ensemble or nearest-neighbours",
        )
    return detector.prototypes().float(), detector.parts

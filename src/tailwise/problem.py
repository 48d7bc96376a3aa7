"""What a source yields and what a detector is given.

`Data` is a set of units with their names, and hands out batches that carry the units' index, so that weights find
their unit through any shuffle. It has no place for a label. `Problem` adds what only evaluation may see.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from .errors import InputError


class Reader(Protocol):
    """Units that stay on disk until they are asked for."""

    shape: tuple[int, ...]  # [n, *unit]

    def __getitem__(self, index: Tensor) -> Tensor:
        """Units at `index` [b] -> float32 [b, *unit]."""
        ...


@dataclass(frozen=True)
class Batch:
    """Units [b, *unit] and their index [b] in the data that they come from.

    Attributes:
        scenes: for pixels, where they lie and what lies around them; None for anything else.
    """

    units: Tensor
    index: Tensor
    scenes: Scenes | None = None

    def __len__(self) -> int:
        return len(self.index)

    def to(self, device: torch.device | str) -> Batch:
        units, index = (tensor.to(device, non_blocking=True) for tensor in (self.units, self.index))
        return Batch(units, index, self.scenes)


@dataclass(frozen=True, eq=False)
class Scenes:
    """Scenes of which a batch's units are pixels, for detectors that look at what lies around a unit.

    Attributes:
        whole: all pixels, scene after scene and row by row.
        place: [b] of the batch's units in `whole`.
    """

    whole: Data
    place: Tensor

    def parts(self) -> Iterator[tuple[Tensor, Scene]]:
        """For each scene that is touched: which of the batch's units [k] lie in it, and the scene with their places."""
        first = 0
        for height, width in self.whole.layout:
            which = ((self.place >= first) & (self.place < first + height * width)).nonzero().flatten()
            if len(which):
                yield which, Scene(self.whole, first, height, width, self.place[which] - first)
            first += height * width


@dataclass(frozen=True, eq=False)
class Scene:
    """One scene, and the places [k] in it, counted row by row, of the pixels that are asked about."""

    whole: Data
    first: int
    height: int
    width: int
    place: Tensor

    def rows(self, start: int, stop: int) -> Tensor:
        """The pixels of these rows [rows, width, *unit]."""
        index = torch.arange(self.first + start * self.width, self.first + stop * self.width)
        return self.whole.read(index).unflatten(0, (stop - start, self.width))


@dataclass(frozen=True, eq=False)
class Data:
    """Units without labels.

    Attributes:
        units: float32 [n, *unit], in memory or behind a Reader. The unit's shape says what it is: [d] a row of d
            features, [1, bands] a spectrum, [channels, height, width] an image.
        names: one name a unit: a row number, a relative path, a pixel's "row,column".
        features: names of the d features, or the wavelengths in nanometres, where known.
        layout: (height, width) of the scenes whose pixels the units are, scene after scene and row by row; () for
            anything else.
        taken: for units taken from data with a layout, that data and their index [n] in it.
    """

    units: Tensor | Reader
    names: Sequence[str]
    features: tuple[str, ...] = ()
    layout: tuple[tuple[int, int], ...] = ()
    taken: tuple[Data, Tensor] | None = None

    def __post_init__(self) -> None:
        if not len(self):
            raise InputError("there are no units in the data: at least 1 is needed")
        if len(self.names) != len(self):
            raise InputError(f"one name a unit: got {len(self.names)} names for {len(self)} units")
        if self.layout and sum(height * width for height, width in self.layout) != len(self):
            raise InputError(f"the layout {list(self.layout)} does not hold {len(self)} pixels")

    def __len__(self) -> int:
        return int(self.units.shape[0])

    @property
    def unit_shape(self) -> tuple[int, ...]:
        return tuple(self.units.shape[1:])

    @property
    def in_memory(self) -> bool:
        return isinstance(self.units, Tensor)

    def read(self, index: Tensor) -> Tensor:
        """Units [b, *unit] at `index` [b], float32."""
        # For rows of a tensor index_select takes a quarter of the time of indexing, which counts in every step.
        units = self.units.index_select(0, index) if isinstance(self.units, Tensor) else self.units[index]
        return units.float()

    def _read_in_order(self, start: int, stop: int) -> Tensor:
        """Units that follow each other: a view where they are in memory, which nobody may write to."""
        if isinstance(self.units, Tensor):
            return self.units[start:stop].float()
        return self.read(torch.arange(start, stop))

    def take(self, index: Tensor | np.ndarray | Sequence[int]) -> Data:
        """The units at `index`, as data of their own."""
        index = torch.as_tensor(np.asarray(index), dtype=torch.long)
        units = self.units[index] if isinstance(self.units, Tensor) else Selected(self.units, index)
        taken = (self, index) if self.layout else None if self.taken is None else (self.taken[0], self.taken[1][index])
        names = [self.names[i] for i in index.tolist()]
        return replace(self, units=units, names=names, layout=(), taken=taken)

    def batch(self, index: Tensor) -> Batch:
        """The units at `index` [b]."""
        return Batch(self.read(index), index, self._scenes(index))

    def _scenes(self, index: Tensor) -> Scenes | None:
        if self.layout:
            return Scenes(self, index)
        return None if self.taken is None else Scenes(self.taken[0], self.taken[1][index])

    def batches(
        self, size: int, generator: torch.Generator | None = None, weights: Tensor | None = None
    ) -> Iterator[Batch]:
        """Every unit once, in order, or shuffled when there is a generator.

        With `weights` [n] the units are drawn with replacement in proportion to them, as many as there are units.
        """
        if weights is not None:
            order = torch.multinomial(weights.double().cpu(), len(self), replacement=True, generator=generator)
        elif generator is not None:
            order = torch.randperm(len(self), generator=generator)
        else:
            for start in range(0, len(self), size):
                index = torch.arange(start, min(start + size, len(self)))
                yield Batch(self._read_in_order(start, start + len(index)), index, self._scenes(index))
            return
        for start in range(0, len(self), size):
            yield self.batch(order[start : start + size])


class Selected:
    """Some of a Reader's units, still on disk."""

    def __init__(self, units: Reader, index: Tensor) -> None:
        self.of = units
        self.index = index
        self.shape = (len(index), *units.shape[1:])

    def __getitem__(self, index: Tensor) -> Tensor:
        return self.of[self.index[index]]


@dataclass(frozen=True)
class Facts:
    """Where data comes from and what its numbers mean."""

    name: str
    units: str = "units"
    licence: str = "not stated"
    citation: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Labelled:
    """Units with what evaluation may know of them; training never sees this.

    Attributes:
        data: the units [m].
        labels: [m] bool, True is an anomaly; None where unknown.
        groups: [m] names of the kinds of normal; None where unknown. Those of anomalies are not used.
        masks: a defect mask [height, width] (bool) for each unit, or None for a unit without one.
    """

    data: Data
    labels: np.ndarray | None = None
    groups: np.ndarray | None = None
    masks: Sequence[np.ndarray | None] | None = None

    def __post_init__(self) -> None:
        for name in ("labels", "groups", "masks"):
            _one_each(getattr(self, name), self.data, name)


@dataclass(frozen=True, eq=False)
class Problem:
    """What a source yields: training data without labels, and test data with them where there is any.

    Attributes:
        train: the units that a detector learns from.
        train_groups: [n] names of the kinds of normal where known: for evaluation, thresholds and reports, and for
            balanced weights only when asked.
        test: the units that it is judged on.
        layout: what score tables and maps need to find back to the source, such as a cube's height and width.
    """

    train: Data
    facts: Facts
    train_groups: np.ndarray | None = None
    test: Labelled | None = None
    layout: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _one_each(self.train_groups, self.train, "train_groups")


class Source(Protocol):
    """Where data comes from: a frozen value that prints as itself and is registered under its class name."""

    def load(self) -> Problem:
        """The training units, and the test units if the source has any."""
        ...

    def load_all(self) -> Labelled:
        """Every unit of the source in its own order, for scoring."""
        ...

    def at(self, path: str) -> Source:
        """The same reading of the data at another path."""
        ...


def _one_each(values: Any, data: Data, name: str) -> None:
    if values is not None and len(values) != len(data):
        raise InputError(f"{name}: got {len(values)} for {len(data)} units")


def check_units(data: Data, least: int = 2) -> None:
    """Read everything once and refuse what no detector can learn from.

    Raises:
        InputError: a unit holds NaN or infinity (the first is named), or there are fewer than `least` units.
    """
    if len(data) < least:
        raise InputError(f"at least {least} units are needed to learn what is normal: got {len(data)}")
    size = max(1, min(4_096, 50_000_000 // max(1, int(np.prod(data.unit_shape)))))
    for batch in data.batches(size):
        finite = torch.isfinite(batch.units).flatten(1).all(1)
        if not bool(finite.all()):
            bad = data.names[int(batch.index[~finite][0])]
            raise InputError(
                f"unit {bad} holds NaN or infinity ({int((~finite).sum())} such units in its batch)",
                "fill or drop the missing values first",
            )

"""What a source yields: training data without labels, and what only evaluation may see."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from html import escape
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import InputError
from ..numerics.surfaces import Surface
from .data import Data, chosen_places


@dataclass(frozen=True)
class Facts:
    """Where data comes from and what its numbers mean."""

    name: str
    samples: str = "samples"
    licence: str = "not stated"
    citation: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Labelled:
    """Samples with what evaluation may know of them; training never sees this.

    Attributes:
        data: the samples [m].
        labels: [m] bool, True is an anomaly; None where unknown.
        groups: [m] names of the kinds of normal; None where unknown. Those of anomalies are not used.
        masks: a defect mask [height, width] (bool) for each sample, or None for a sample without one.
        every_name: names of all samples of the source in its order, those among them that hold no data and are not in
            `data`; None where there are none.

    Examples:
        >>> import torch
        >>> test = Labelled(Data(torch.eye(2), ["a", "b"]), labels=np.array([False, True]))
        >>> [name for name, anomalous in zip(test.data.names, test.labels) if anomalous]
        ['b']
    """

    data: Data
    labels: np.ndarray | None = None
    groups: np.ndarray | None = None
    masks: Sequence[np.ndarray | None] | None = None
    every_name: Sequence[str] | None = None

    def __post_init__(self) -> None:
        for name in ("labels", "groups", "masks"):
            _one_each(getattr(self, name), self.data, name)

    def take(self, index: np.ndarray) -> Labelled:
        """The samples at these places [k], in this order, or of a mask [m], with what is known of them."""
        index = chosen_places(index, len(self.data)).numpy()
        return Labelled(
            self.data.take(index),
            None if self.labels is None else np.asarray(self.labels)[index],
            None if self.groups is None else np.asarray(self.groups)[index],
            None if self.masks is None else [self.masks[i] for i in index.tolist()],
        )


@dataclass(frozen=True, eq=False)
class Problem:
    """What a source yields: training data without labels, and test data with them where there is any.

    Attributes:
        train: the samples that a detector learns from.
        train_groups: [n] names of the kinds of normal where known: for evaluation, thresholds and reports, and for
            balanced weights only when asked.
        test: the samples that it is judged on.
        layout: what score tables and maps need to find back to the source, such as a cube's height and width.

    Examples:
        >>> import torch
        >>> train = Data(torch.eye(3), ["a", "b", "c"])
        >>> sides = np.array(["left", "left", "right"])
        >>> problem = Problem(train, Facts("three parts", samples="parts"), train_groups=sides)
        >>> len(problem.train), problem.facts.samples, problem.test is None
        (3, 'parts', True)
    """

    train: Data
    facts: Facts
    train_groups: np.ndarray | None = None
    test: Labelled | None = None
    layout: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _one_each(self.train_groups, self.train, "train_groups")

    def __repr__(self) -> str:
        return f"<Problem {self.facts.name}: {'; '.join(f'{name} {said}' for name, said in self._parts())}>"

    def _repr_html_(self) -> str:
        rows = "".join(f"<tr><th>{escape(name)}</th><td>{escape(said)}</td></tr>" for name, said in self._parts())
        return f"<p><b>{escape(self.facts.name)}</b></p><table>{rows}</table>"

    def _parts(self) -> list[tuple[str, str]]:
        """What is trained on and what is tested, counted in words."""
        parts = [("train", _counted(self.train, self.facts.samples, self.train_groups))]
        if self.test is not None:
            said = _counted(self.test.data, self.facts.samples, self.test.groups)
            known = "" if self.test.labels is None else f", {int(np.sum(self.test.labels))} of them anomalies"
            parts.append(("test", said + known))
        return parts


@runtime_checkable
class Source(Protocol):
    """Where data comes from: a frozen value that prints as itself and is registered under its class name."""

    def load(self) -> Problem:
        """The training samples, and the test samples if the source has any."""
        ...

    def load_all(self) -> Labelled:
        """Every sample of the source in its own order, for scoring."""
        ...

    def at(self, path: str) -> Source:
        """The same reading of the data at another path."""
        ...


@runtime_checkable
class OnDisk(Protocol):
    """A source of what lies at a path."""

    @property
    def path(self) -> str:
        """A file or folder, as it was given."""
        ...


@runtime_checkable
class Previewed(Protocol):
    """A source that shows people what its samples look like."""

    def preview(self, name: str, side: int = 128) -> Tensor:
        """The picture [1 or 3, height, width] (0 to 1) of the sample of this name, in its own shape, its longer side at
        most so many pixels."""
        ...


@runtime_checkable
class Pictured(Previewed, Protocol):
    """A source of pictures that are shown in their own size too."""

    def picture(self, name: str) -> Tensor:
        """The picture [3, height, width] (0 to 1) of the sample of this name, in its own size, upright."""
        ...


@runtime_checkable
class Surfaced(Protocol):
    """A source of scans or point clouds, whose surface is shown shaded, with scores on it."""

    def surface(self, name: str) -> Surface:
        """The surface of the sample of this name.

        Raises:
            InputError: it has none, or its file is gone.
        """
        ...


@runtime_checkable
class SkipsBad(Protocol):
    """A source that can leave out what it cannot read, instead of refusing all."""

    def skipping_bad(self) -> Self:
        """The same source, which leaves out what it cannot read, with a warning."""
        ...


@runtime_checkable
class ReadOnDemand(Protocol):
    """A source whose samples can stay on disk until they are asked for, so that a part is scored without the rest."""

    def load_on_demand(self) -> Labelled:
        """As `load_all`, but none of the samples is kept in memory, however few there are.

        Raises:
            InputError: what lies there cannot be read in parts.
        """
        ...


@runtime_checkable
class Tabular(Protocol):
    """A source whose samples are rows of named columns."""

    def reading(self, data: Data) -> Self:
        """The same source, with exactly the features of `data`, in their order and about their centre."""
        ...


@runtime_checkable
class ReadByBackbone(Protocol):
    """A source of images that are read as pixels or by a frozen network."""

    @property
    def read(self) -> str:
        """ "pixels", or the name of a backbone."""
        ...

    @property
    def layers(self) -> tuple[int, ...]:
        """Blocks of the backbone whose maps are the samples; () pools, or reads pixels."""
        ...

    def reading_maps(self, layers: tuple[int, ...]) -> Self:
        """The same source, whose samples are the maps of these blocks."""
        ...

    def read_by(self, backbone: str) -> Self:
        """The same source, read by a backbone of this name."""
        ...


@runtime_checkable
class ReadByNeighbours(Protocol):
    """A source of the nodes of a graph, whose samples may hold what is around a node."""

    def reading_around(self, around: bool) -> Self:
        """The same source, whose samples hold what is `around` a node or its own attributes alone, unless it says which
        already."""
        ...


@runtime_checkable
class FromPictures(Protocol):
    """A source that makes each sample of a picture of 8 bits, by a network that an exported file can hold."""

    def decoded(self, names: Sequence[str]) -> Tensor | None:
        """The pictures [n, height, width, 1 or 3] uint8 of the samples of these names, resized as they are read.

        None where one is gone since, is deeper than 8 bits, or has other channels than grey and colour.
        """
        ...

    def network(self) -> nn.Module:
        """What makes samples of such pictures, exactly as the source does."""
        ...


def joined(parts: Sequence[Labelled]) -> Labelled:
    """Several sets of samples of one sort as one, in memory, with their groups, "" where a set has none, and masks;
    their labels, where all have them.

    Raises:
        InputError: some lie in surroundings of their own, as pixels do in a scene.
    """
    if len(parts) == 1:
        return parts[0]
    data = [part.data for part in parts]
    if any(each.context is not None for each in data):
        raise InputError("samples with surroundings of their own cannot be put together", "give them one at a time")
    samples = torch.cat([each.about(data[0].centre).read(torch.arange(len(each))) for each in data])
    groups = None
    if any(part.groups is not None for part in parts):
        groups = np.concatenate([[""] * len(part.data) if part.groups is None else part.groups for part in parts])
    masks = None
    if any(part.masks is not None for part in parts):
        masks = [None if part.masks is None else part.masks[i] for part in parts for i in range(len(part.data))]
    whole = replace(data[0], samples=samples, names=[name for each in data for name in each.names])
    labels = None
    if all(part.labels is not None for part in parts):
        labels = np.concatenate([np.asarray(part.labels) for part in parts])
    return Labelled(whole, labels, groups, masks)


def fixed_to(source: Source, data: Data) -> Source:
    """The source that reads exactly the features of `data`, in their order, where it has named ones."""
    return source.reading(data) if isinstance(source, Tabular) and data.features else source


def _counted(data: Data, samples: str, groups: np.ndarray | None) -> str:
    named = 0 if groups is None else len(np.unique(groups[np.asarray(groups) != ""]))
    return f"{len(data)} {samples} {list(data.sample_shape)}{f' in {named} groups' if named else ''}"


def _one_each(values: Any, data: Data, name: str) -> None:
    if values is not None and len(values) != len(data):
        raise InputError(f"{name}: got {len(values)} for {len(data)} samples")

"""What a detector is given: samples with their names, and batches that carry each sample's index and surroundings.

The index finds a sample's weight through any shuffle. There is no place for a label here: `problem.Problem` adds what
only evaluation may see.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from . import progress
from .context import Context, Graph
from .modality import Modality, infer
from .readers import Moved, Reader, moved, read, read_in_order, select

_NAMES_AT_ONCE = 4_096


@dataclass(frozen=True)
class Batch:
    """Samples [b, *sample], their index [b] in the data that they come from, and their surroundings where they have
    any."""

    samples: Tensor
    index: Tensor
    context: Context | None = None

    def __len__(self) -> int:
        return len(self.index)

    def to(self, device: torch.device | str) -> Batch:
        samples, index = (tensor.to(device, non_blocking=True) for tensor in (self.samples, self.index))
        return Batch(samples, index, self.context)


def chosen_places(index: Tensor | np.ndarray | Sequence[int], count: int) -> Tensor:
    """Places [b] among so many samples."""
    found = torch.as_tensor(np.asarray(index))
    if found.dtype == torch.bool and found.shape == (count,):
        return found.nonzero().flatten()
    if len(found) and (found.is_floating_point() or found.dtype == torch.bool):
        raise InputError(f"places are whole numbers, or a mask of {count}: got {found.dtype} of {list(found.shape)}")
    return found.long()


def graph_of(batch: Batch, name: str) -> Graph:
    """The graph that a batch's samples are nodes of, with its tensors where the samples are; `name` asks for it.

    Raises:
        InputError: the samples have none.
    """
    graph = batch.context
    if not isinstance(graph, Graph):
        raise InputError(f"{name} looks at a graph, and these samples are in none", "give a graph, as Nodes(path) is")
    return graph.to(batch.samples.device)


class MadeNames(Sequence[str]):
    """Names that are made when they are asked for, as those of a million pixels are."""

    def __iter__(self) -> Iterator[str]:
        # Many at a time: what makes one name has little more to do for thousands.
        for first in range(0, len(self), _NAMES_AT_ONCE):
            yield from self[first : first + _NAMES_AT_ONCE]

    @abstractmethod
    def take(self, index: np.ndarray) -> Sequence[str]:
        """The names at `index`, made when they are asked for too."""


@dataclass(frozen=True, eq=False)
class Data:
    """Samples without labels.

    Attributes:
        samples: float32 [n, *sample], in memory or behind a Reader.
        names: one name a sample: a row number, a relative path, a pixel's "row,column".
        features: names of the d features, or the wavelengths in nanometres, where known.
        context: what the samples are surrounded by, such as `Scenes` where they are pixels; None for anything else.
        modality: what a sample is. Sources say it; where nobody does, `modality.infer` takes it from the shape.
        centre: float64 [*sample], what was taken off the samples before they became float32; None is nothing. Rows
            whose spread is small beside their size keep their digits only so.

    Raises:
        InputError: there are no samples, what belongs to them is not as many, or they are not of this modality.

    Examples:
        >>> data = Data(torch.eye(3), ["a", "b", "c"], features=("width", "height", "mass"))
        >>> len(data), data.sample_shape, data.take([2]).names
        (3, (3,), ['c'])
    """

    samples: Tensor | Reader
    names: Sequence[str]
    features: tuple[str, ...] = ()
    context: Context | None = None
    modality: Modality = None  # type: ignore[assignment]  # never None once made
    centre: Tensor | None = None

    def __post_init__(self) -> None:
        if self.modality is None:
            object.__setattr__(self, "modality", infer(self.sample_shape))
        elif not self.modality.fits(self.sample_shape):
            raise InputError(
                f"{self.modality.plural} are {self.modality.form}: got samples of shape {list(self.sample_shape)}"
            )
        if not len(self):
            raise InputError("there are no samples in the data: at least 1 is needed")
        if len(self.names) != len(self):
            raise InputError(f"one name a sample: got {len(self.names)} names for {len(self)} samples")
        if self.context is not None and len(self.context) != len(self):
            raise InputError(f"the context holds {len(self.context)} samples, the data {len(self)}")

    def __len__(self) -> int:
        return int(self.samples.shape[0])

    @property
    def sample_shape(self) -> tuple[int, ...]:
        return tuple(self.samples.shape[1:])

    @property
    def places(self) -> dict[str, int]:
        """Where the sample of each name is; made at each call."""
        return {str(name): place for place, name in enumerate(self.names)}

    @property
    def in_memory(self) -> bool:
        return isinstance(self.samples, Tensor)

    def read(self, index: Tensor) -> Tensor:
        """Samples [b, *sample] at `index` [b], float32."""
        return read(self.samples, index)

    def take(self, index: Tensor | np.ndarray | Sequence[int]) -> Data:
        """The samples at `index` [b], or where a mask [n] says so, as data of their own.

        Raises:
            InputError: places that are no whole numbers, or a mask of another length.
        """
        index = chosen_places(index, len(self))
        if torch.equal(index, torch.arange(len(self))):
            return self
        return replace(self, samples=select(self.samples, index), names=self._names(index), context=self._around(index))

    def _names(self, index: Tensor) -> Sequence[str]:
        if isinstance(self.names, MadeNames):
            return self.names.take(index.numpy())
        return [self.names[i] for i in index.tolist()]

    def about(self, centre: Tensor | None) -> Data:
        """The same samples with another centre taken off them; what stays on disk is moved when it is read."""
        before, after = (torch.zeros(()) if each is None else each.double() for each in (self.centre, centre))
        if torch.equal(before.expand(self.sample_shape), after.expand(self.sample_shape)):
            return self
        change = moved if isinstance(self.samples, Tensor) else Moved
        return replace(self, samples=change(self.samples, before, after), centre=centre)  # type: ignore[arg-type]

    def original(self, samples: Tensor) -> Tensor:
        """Samples [..., *sample] as they were before the centre was taken off, in double precision where one was."""
        return samples if self.centre is None else samples.double() + self.centre

    def batch(self, index: Tensor) -> Batch:
        """The samples at `index` [b]."""
        return Batch(self.read(index), index, self._around(index))

    def _around(self, index: Tensor) -> Context | None:
        return None if self.context is None else self.context.take(index)

    def batches(
        self, size: int, generator: torch.Generator | None = None, weights: Tensor | None = None
    ) -> Iterator[Batch]:
        """Every sample once, in order, or shuffled when there is a generator.

        With `weights` [n] the samples are drawn with replacement in proportion to them, as many as there are samples.
        """
        if weights is not None:
            order = torch.multinomial(weights.double().cpu(), len(self), replacement=True, generator=generator)
        elif generator is not None:
            order = torch.randperm(len(self), generator=generator)
        else:
            with progress.told(len(self), f"a pass over {len(self):,} {self.modality.plural}") as tell:
                for start in range(0, len(self), size):
                    stop = min(start + size, len(self))
                    index = torch.arange(start, stop)
                    yield Batch(read_in_order(self.samples, start, stop), index, self._around(index))
                    tell(stop, "")
            return
        for start in range(0, len(self), size):
            yield self.batch(order[start : start + size])

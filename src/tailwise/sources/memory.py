"""Samples that a program holds, as arrays and frames, for `tailwise.fit` in Python."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from ..core.problem import Labelled, Problem, Source
from ..core.registry import Value, register
from ..errors import InputError
from .arrays import from_arrays
from .auto import open_source
from .table import Table, from_frame


@register("source", "InMemory")
@dataclass(frozen=True, repr=False)
class InMemory(Value):
    """Samples that a program held when it fitted. A run does not keep them: it can score others, not read these again.

    Args:
        features: the names of their columns, which a table to score must have.
    """

    features: tuple[str, ...] = ()

    def load(self) -> Problem:
        raise self._gone()

    def load_all(self) -> Labelled:
        raise self._gone()

    def at(self, path: str) -> Source:
        """What is at a path: the same columns of a table, or whatever is recognised there."""
        return Table(path, columns=self.features) if self.features else open_source(path)

    def _gone(self) -> InputError:
        return InputError("samples given as an array or a frame are not kept with a run", "save them, and fit the file")


def in_memory(data: Any, options: Mapping[str, Any]) -> tuple[InMemory, Problem]:
    """The problem of an array [n, *sample], or of a DataFrame with options of a `Table`, and what stands for its
    source.

    Raises:
        InputError: it is neither, or options are named that it does not have.
    """
    framed = isinstance(data, pd.DataFrame)
    if odd := [name for name in options if not framed or name not in ("labels", "normal", "groups", "columns")]:
        raise InputError(f"{odd[0]} does not apply to {type(data).__name__}", "leave it out, or fit a file")
    problem = from_frame(data, **options) if framed else from_arrays(data)
    return InMemory(problem.train.features), problem

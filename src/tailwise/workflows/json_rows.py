"""Rows that come as JSON, as samples of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..core.problem import Labelled
from ..errors import InputError, did_you_mean, listed
from ..runs.scorer import Run
from ..sources.table import Table

# Numbers [n, *sample], and the group of each sample, None where none names one.
Rows = tuple[np.ndarray, np.ndarray | None]


def samples_of(run: Run, parts: Sequence[Rows]) -> Labelled:
    """The samples of `rows_of` one or several, as one."""
    groups = None
    if any(part is not None for _, part in parts):
        groups = np.concatenate([[""] * len(values) if part is None else part for values, part in parts])
    return replace(run.samples(np.concatenate([values for values, _ in parts])), groups=groups)


def rows_of(run: Run, rows: Sequence[Any]) -> Rows:
    """Numbers of rows, each an array of them in the order of the run's features, or an object of them by feature.

    Raises:
        InputError: they are not such rows, or not of the run's shape; an entry is no finite number.
    """
    if not rows:
        raise InputError("there are no rows", "send at least one")
    named = {isinstance(row, dict) for row in rows}
    if len(named) > 1:
        raise InputError("some rows are objects and others are not", "send either")
    groups = None
    if named == {True}:
        rows, groups = _in_order(run, rows)
    try:
        values = np.array(rows)
    except ValueError as error:  # as of ragged rows
        raise InputError(f"the rows are no array: {error}", "send as many numbers in each row") from error
    # numpy would take true among numbers for 1.
    flags = any(isinstance(entry, bool) for row in rows if isinstance(row, list) for entry in row)
    if flags or values.dtype.kind not in "iuf":
        raise InputError("not all entries of the rows are numbers", "send numbers only, as in [[1.5, 2.0]]")
    values = values.astype(np.float64)
    with np.errstate(over="ignore"):
        usable = values.shape[1:] == run.settings.sample_shape and np.isfinite(values.astype(np.float32)).all()
    if not usable:
        run.samples(values)  # says why
    return values, groups


def _in_order(run: Run, rows: Sequence[Mapping[str, Any]]) -> tuple[list[list[Any]], np.ndarray | None]:
    """The numbers of rows by feature in the order of the run's, and the groups of rows, None where none names one."""
    features = run.settings.features
    if not features:
        raise InputError("the run's numbers have no names", "send each row as an array")
    for place, row in enumerate(rows):
        if missing := [name for name in features if name not in row]:
            raise InputError(f"row {place} has no {listed(missing)}", did_you_mean(missing[0], row))
    source = run.source()
    of_group = source.groups if isinstance(source, Table) else None
    groups = None
    if of_group is not None and any(of_group in row for row in rows):
        groups = np.array([str(row.get(of_group, "")) for row in rows])
    return [[row[name] for name in features] for row in rows], groups

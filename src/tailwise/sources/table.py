"""Tables: CSV, TSV, parquet, npz and npy, one sample a row."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch

from ..core.data import Data
from ..core.modality import ROW
from ..core.problem import Facts, Labelled, Problem
from ..core.registry import register
from ..errors import InputError, did_you_mean
from .numpy_files import SUFFIXES as ARRAYS
from .numpy_files import numpy_layout, read_numpy
from .paths import find_path
from .recognition import Match, PathSource
from .splits import anomalies, one_class

if TYPE_CHECKING:
    import pandas as pd


_TEXT_AND_PARQUET = (".csv", ".tsv", ".txt", ".parquet", ".pq")
SUFFIXES = (*_TEXT_AND_PARQUET, *ARRAYS)


@register("source", "Table")
@dataclass(frozen=True, repr=False)
class Table(PathSource):
    """Rows of numbers; samples are named by their row, counted from 0.

    With labels, half of the normals train (drawn with a fixed seed) and the other half tests with all anomalies:
    the usual one-class protocol. Labels pick the rows; they never reach training. Without labels every row trains.

    Args:
        path: a .csv, .tsv, .parquet, .npz (X, and y as labels if it is there) or 2-D .npy file.
        labels: the column that holds 0, False, "normal" or "good" for a normal and anything else for an anomaly.
        groups: the column that names the known kinds of normal.
        columns: the feature columns, in this order, also spelled as 'width,height,"weight, net"'; () takes all but
            labels and groups.
    """

    reads: ClassVar[str] = "a table (.csv, .tsv, .parquet, .npz, .npy), given by its own path"

    labels: str | None = None
    groups: str | None = None
    columns: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "columns", _columns(self.columns))
        if twice := [name for i, name in enumerate(self.columns) if name in self.columns[:i]]:
            raise InputError(f"column {twice[0]!r} is asked for twice")
        for role in ("labels", "groups"):
            name = getattr(self, role)
            if name is not None and not isinstance(name, str):
                raise InputError(f"{role} is the name of a column: got {name!r}")
            if name in self.columns:
                raise InputError(f"column {name!r} is asked for both as {role} and as a feature")

    @classmethod
    def recognises(cls, path: Path, options: Mapping[str, Any]) -> Match:
        suffix = path.suffix.lower()
        if path.is_dir() or suffix not in SUFFIXES:
            return Match.NONE
        return Match.NONE if suffix in ARRAYS and numpy_layout(path) != "rows" else Match.CERTAIN

    def load(self) -> Problem:
        return self._problem(self.load_all())

    def load_all(self) -> Labelled:
        return self._labelled(_read(find_path(self.path)))

    def _problem(self, everything: Labelled) -> Problem:
        facts = Facts(Path(self.path).stem, "rows")
        if everything.labels is None:
            return Problem(everything.data, facts, train_groups=everything.groups)
        note = "labelled: half of the normals train (fixed seed), the other half and all anomalies test"
        return one_class(everything.data, everything.labels, everything.groups, replace(facts, notes=(note,)))

    def _labelled(self, rows: _Rows) -> Labelled:
        names = self._features(rows)
        data = Data(_numbers(rows.frame, names), [str(row) for row in rows.frame.index], tuple(names), modality=ROW)
        label = self.labels or rows.labels
        return Labelled(
            data,
            None if label is None else anomalies(self._column(rows, label), label),
            None if self.groups is None else self._column(rows, self.groups).astype(str),
        )

    def at(self, path: str) -> Table:
        """The same columns of another table; labels and groups are kept where it has them."""
        other = replace(self, path=path)
        if self.labels is None and self.groups is None:
            return other
        known = set(_read(find_path(path)).frame.columns)
        return replace(
            other,
            labels=self.labels if self.labels in known else None,
            groups=self.groups if self.groups in known else None,
        )

    def reading(self, columns: Sequence[str]) -> Table:
        """The same table with exactly these columns as features, in this order."""
        return replace(self, columns=tuple(columns))

    def _column(self, rows: _Rows, name: str) -> np.ndarray:
        if name not in rows.frame.columns:
            raise InputError(f"{self.path} has no column {name!r}", did_you_mean(name, rows.frame.columns))
        return rows.frame[name].to_numpy()

    def _features(self, rows: _Rows) -> list[str]:
        for name in (self.labels, self.groups, *self.columns):
            if name is not None:
                self._column(rows, name)
        names = list(self.columns) or [name for name in rows.features if name not in (self.labels, self.groups)]
        text = [name for name in names if not _numeric(rows.frame[name])]
        if len(text) == len(names) and not self.columns:
            found = _some(rows.frame.columns)
            raise InputError(f"{self.path} has no numeric columns: got {found}", "is it a table of numbers?")
        if text:
            row, value = _first_text(rows.frame[text[0]])
            raise InputError(
                f"{self.path}: not numbers: {'columns' if len(text) > 1 else 'column'} {_some(text)} "
                f"(row {row} of {text[0]!r} is {value!r})",
                "encode them, name labels or groups among them (--labels, --groups), or choose features by --columns",
            )
        return names


def from_frame(
    frame: pd.DataFrame,
    *,
    labels: str | None = None,
    groups: str | None = None,
    columns: tuple[str, ...] = (),
    name: str = "frame",
) -> Problem:
    """A problem from a DataFrame, its samples named by its index; labels, groups and columns as of a `Table`.

    Raises:
        InputError: a feature is no number, a value is missing, or two rows or columns have one name.
    """
    frame = frame.set_axis([str(column) for column in frame.columns], axis=1)
    for what, names in (("columns", frame.columns), ("rows", frame.index.astype(str))):
        if names.has_duplicates:
            raise InputError(f"{name} has two {what} called {names[names.duplicated()][0]!r}", "rename one")
    if not len(frame):
        raise InputError(f"{name} has no rows")
    table = Table(name, labels, groups, columns)
    return table._problem(table._labelled(_Rows(frame, list(frame.columns))))


@dataclass(frozen=True, eq=False)
class _Rows:
    """A table, the columns that are features unless told otherwise, and the column that is known to hold labels."""

    frame: pd.DataFrame
    features: list[str]
    labels: str | None = None


def _read(path: Path) -> _Rows:
    if path.is_dir():
        raise InputError(f"{path} is a folder: a table is one file", f"one of {', '.join(SUFFIXES)}")
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise InputError(f"{path.name} is not a table that can be read", f"one of {', '.join(SUFFIXES)}")
    if path.stat().st_size == 0:
        raise InputError(f"{path} is empty")
    if suffix in ARRAYS:
        return _read_arrays(path)
    import pandas as pd

    try:
        if suffix in (".parquet", ".pq"):
            frame = pd.read_parquet(path)
        else:
            frame = pd.read_csv(path, sep=_separator(path), low_memory=False)
            _check_header(path, frame.columns)
    except InputError:
        raise
    except (ValueError, OSError) as error:  # pandas and pyarrow raise their own kinds of both
        raise InputError(
            f"cannot read {path}: {error}", "is it broken, or another format than its name says?"
        ) from error
    frame.columns = [str(name) for name in frame.columns]
    if frame.columns.has_duplicates:
        raise InputError(
            f"{path} has two columns called {frame.columns[frame.columns.duplicated()][0]!r}", "rename one"
        )
    if not len(frame):
        raise InputError(f"{path} has no rows")
    return _Rows(frame, list(frame.columns))


def _check_header(path: Path, read: Sequence[str]) -> None:
    """pandas renames the second of two columns of one name, which is then another feature than its name says."""
    import pandas as pd

    written = pd.read_csv(path, sep=_separator(path), header=None, nrows=1, dtype=str).iloc[0].dropna()
    twice = written[written.duplicated()]
    if len(twice) and not set(twice.index) - set(range(len(read))):
        raise InputError(f"{path} has two columns called {twice.iloc[0]!r}", "rename one")


def _columns(columns: str | Sequence[Any]) -> tuple[str, ...]:
    """Names of columns; as one text 'width,height,"weight, net"' -> ("width", "height", "weight, net")."""
    if not isinstance(columns, str):
        return tuple(str(column) for column in columns)
    if not columns.strip():
        return ()
    names = tuple(name.strip() for name in next(csv.reader([columns], skipinitialspace=True)))
    if "" in names:
        raise InputError(f"a column has no name in {columns!r}", 'write them as in "width,height"')
    return names


def _separator(path: Path) -> str:
    if path.suffix.lower() == ".tsv":
        return "\t"
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        first = file.readline()
    return max(",;\t", key=first.count)


def _read_arrays(path: Path) -> _Rows:
    import pandas as pd

    arrays = read_numpy(path)
    x = next((arrays[key] for key in ("X", "x", "data") if key in arrays), None)
    if x is None and len(arrays) == 1:
        x = next(iter(arrays.values()))
    if x is None:
        raise InputError(f"{path} has no array X: it holds {_some(arrays)}", "save the rows as X [n, d]")
    if x.ndim != 2 or 0 in x.shape:
        raise InputError(f"{path}: rows [n, d] were needed: got an array of shape {list(x.shape)}")
    if "y" in arrays and arrays["y"].size != len(x):
        raise InputError(f"{path}: X has {len(x)} rows and y {arrays['y'].size} entries", "give one label for each row")
    features = [str(column) for column in range(x.shape[1])]
    frame = pd.DataFrame(x, columns=features, copy=False)
    # Other arrays of n entries can be named as labels or groups; they are not features.
    beside = {key: value.reshape(-1) for key, value in arrays.items() if value is not x and value.size == len(x)}
    return _Rows(frame.assign(**beside), features, "y" if "y" in beside else None)


def _numeric(column: pd.Series) -> bool:
    import pandas as pd

    kinds = pd.api.types
    return kinds.is_bool_dtype(column) or (kinds.is_numeric_dtype(column) and not kinds.is_complex_dtype(column))


def _first_text(column: pd.Series) -> tuple[int, str]:
    """Row and value of the first entry that is no number: one stray word makes a whole column text."""
    import pandas as pd

    strays = np.flatnonzero(pd.to_numeric(column, errors="coerce").isna().to_numpy())
    row = int(strays[0]) if len(strays) else 0
    return row, str(column.iloc[row])


def _numbers(frame: pd.DataFrame, names: list[str]) -> torch.Tensor:
    """float32 [n, d].

    Raises:
        InputError: a value is missing, infinite or too large; the first is named.
    """
    values = frame[names].to_numpy(dtype=np.float64, na_value=np.nan)
    limit = float(np.finfo(np.float32).max)
    bad = ~(np.abs(values) <= limit)
    if bad.any():
        row, column = (int(i) for i in np.argwhere(bad)[0])
        value = values[row, column]
        what = "is too large for float32" if np.isfinite(value) else "is not a finite number"
        raise InputError(
            f"row {row}, column {names[column]!r}: {value:g} {what} ({int(bad.sum())} such values)",
            "fill, rescale or drop them first",
        )
    return torch.from_numpy(values.astype(np.float32))


def _some(names: Sequence[str] | Any, most: int = 6) -> str:
    names = [repr(str(name)) for name in names]
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")

"""Tables: CSV and other text, Excel, parquet, npz and npy, one sample a row; of parquet also a folder of files."""

from __future__ import annotations

import csv
import itertools
import warnings
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
from ..errors import InputError, did_you_mean, listed
from ..numerics import centring
from . import counters, parquet_files
from .delimited import Writing, marks_in, read_delimited
from .finite import check_numbers
from .labels import Labels, looks_like_labels, text_of, values_of
from .numpy_files import SUFFIXES as ARRAYS
from .numpy_files import numpy_layout, read_numpy
from .parquet_files import SUFFIXES as PARQUET
from .parquet_files import ParquetFiles, ParquetRows, RowNames
from .paths import find_path
from .recognition import Match, PathSource
from .splits import by_labels, labels_of

if TYPE_CHECKING:
    import pandas as pd


_SPREADSHEETS = (".xlsx", ".xlsm")
_TEXTS = (".csv", ".tsv", ".txt")
SUFFIXES = (*_TEXTS, *_SPREADSHEETS, *PARQUET, *ARRAYS)
# Parquet up to this size, as float32, is kept in memory; above it rows are read from its files when they are asked for.
IN_MEMORY_BYTES = 1_000_000_000
# What columns do beside measuring is looked for among so many first numbers of larger tables.
_LOOKED_AT = 8_000_000
# Of a value that is no number so much is shown.
_SHOWN = 40


@register("source", "Table")
@dataclass(frozen=True, repr=False)
class Table(PathSource):
    """Rows of numbers; samples are named by their row, counted from 0.

    With labels, half of the normals train (drawn with a fixed seed) and the other half tests with all anomalies:
    the usual one-class protocol. Labels pick the rows; they never reach training. Without labels every row trains.

    How a text file is written is taken from the file where it leaves no doubt, and asked for where it does. Columns
    that number the rows or tell the time are left out of the features with a warning, unless `columns` names them.

    A folder of parquet files is one table: the files in natural order, rows numbered over all of them. Of parquet above
    1 GB as float32 the rows stay on disk; the centre and what columns do beside measuring are told by its first rows.

    Args:
        path: a .csv, .tsv, .txt, .xlsx (the first sheet), .parquet, .npz (X, and y as labels if it is there) or 2-D
            .npy file, or a folder of .parquet files.
        labels: the column that tells normals from anomalies: 0, False or a word such as "good" or "pass" is normal.
        normal: the values of the labels that are normal, whatever they are; every other is an anomaly.
        groups: the column that names the group of each sample.
        columns: the feature columns, in this order, also spelled as 'width,height,"weight, net"'; () takes all but
            labels and groups.
        sep: what separates the fields of a text file: a character, "tab" or "space".
        decimal: its decimal mark.
        thousands: what stands between its thousands.
        encoding: its encoding, such as "utf-16" or "cp1252".
        centre: what is taken off each column in double precision before it becomes float32; () takes 0, and a number
            near the median of a column whose spread float32 could not hold. A run reads new data about its own.
        marks: the decimal mark and what stands between thousands, as in ",.", of the text file that a run was fitted
            on; new data is read with them where its numbers can be.
    """

    reads: ClassVar[str] = (
        "a table (.csv, .tsv, .txt, .xlsx, .parquet, .npz, .npy), given by its own path; a folder of .parquet files"
    )

    labels: str | None = None
    normal: tuple[int | str | bool, ...] = ()
    groups: str | None = None
    columns: tuple[str, ...] = ()
    sep: str | None = None
    decimal: str | None = None
    thousands: str | None = None
    encoding: str | None = None
    centre: tuple[float, ...] = ()
    marks: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "columns", columns_of(self.columns))
        object.__setattr__(self, "normal", values_of(self.normal))
        super().__post_init__()
        object.__setattr__(self, "centre", tuple(map(float, self.centre)))
        self._writing()
        if len(set(self.columns)) < len(self.columns):
            twice = next(name for i, name in enumerate(self.columns) if name in self.columns[:i])
            raise InputError(f"column {twice!r} is asked for twice")
        for role in ("labels", "groups"):
            name = getattr(self, role)
            if name in self.columns:
                raise InputError(f"column {name!r} is asked for both as {role} and as a feature")

    @classmethod
    def recognises(cls, path: Path, options: Mapping[str, Any]) -> Match:
        if path.is_dir():
            return Match.LIKELY if parquet_files.is_set(path) else Match.NONE
        suffix = path.suffix.lower()
        if suffix not in SUFFIXES:
            return Match.NONE
        return Match.NONE if suffix in ARRAYS and numpy_layout(path) != "rows" else Match.CERTAIN

    def load(self) -> Problem:
        return self._problem(self._rows())

    def load_all(self) -> Labelled:
        return self._labelled(self._rows())

    def load_on_demand(self) -> Labelled:
        """As `load_all`; rows are read when they are asked for, however few there are. Where columns are named and no
        centre is, as in a run without one, none is looked for.

        Raises:
            InputError: it is not parquet.
        """
        if self.columns and not self.centre:
            return replace(self, centre=(0.0,) * len(self.columns)).load_on_demand()
        rows = self._rows(on_demand=True)
        if rows.files is None:
            raise InputError(
                f"{self.path} cannot be read in parts", "save it as .parquet: write a folder of such files or one file"
            )
        return self._labelled(rows)

    def _rows(self, on_demand: bool = False) -> _Rows:
        """The table in memory; of parquet that is larger, or read `on_demand`, its first rows, and its files."""
        path = find_path(self.path)
        if not _is_parquet(path):
            return self._read(self.path)
        files = parquet_files.open_files(path)
        width = len(self.columns) or sum(files.columns.values())
        if not on_demand and len(files) * width * 4 <= IN_MEMORY_BYTES:
            return self._read(self.path)
        first = files.frame(1 if self.centre else max(1, _LOOKED_AT // len(files.columns)))
        return _Rows(first, list(first.columns), files=files)

    def _problem(self, rows: _Rows) -> Problem:
        return by_labels(self._labelled(rows), self._labels(rows), Facts(Path(self.path).stem, "rows"))

    def _labelled(self, rows: _Rows) -> Labelled:
        names = self._features(rows)
        values, centre = self._numbers(rows.frame, names) if rows.files is None else self._on_disk(rows, names)
        data = Data(values, rows.names(), tuple(names), modality=ROW, centre=centre)
        labels = self._labels(rows)
        return Labelled(data, None if labels is None else labels.anomalous, self._groups(rows))

    def _on_disk(self, rows: _Rows, names: list[str]) -> tuple[ParquetRows, torch.Tensor | None]:
        """A Reader of rows [n, d], and what is taken off them, which the first rows tell where it is not asked for."""
        assert rows.files is not None
        centre = self._centre(names)
        if centre is None:
            centre = centring.centre_of(_finite(rows.frame, names, self.path))
        return ParquetRows(rows.files, names, centre), torch.from_numpy(centre) if centre.any() else None

    def _labels(self, rows: _Rows) -> Labels | None:
        name = self.labels or rows.labels
        if name is None:
            return None
        return labels_of(self.path, self._values(rows, name), name, self.normal)

    def _groups(self, rows: _Rows) -> np.ndarray | None:
        """The name of each row's group [n], "" for a row that names none."""
        if self.groups is None:
            return None
        groups = np.array([text_of(value) for value in self._values(rows, self.groups).tolist()], dtype=str)
        if missing := int((groups == "").sum()):
            warnings.warn(
                f"groups {self.groups!r}: {missing} of {len(groups)} rows name no group, and count as of none",
                stacklevel=4,
            )
        return groups

    def of_frame(self, frame: pd.DataFrame) -> Labelled:
        """Every row of a DataFrame, read as this table is; labels and groups where it has their columns."""
        frame = _checked(frame, self.path)
        return self._among(set(frame.columns))._labelled(_Rows(frame, list(frame.columns)))

    def at(self, path: str) -> Table:
        """The same columns of another table; labels and groups are kept where it has them."""
        other = replace(self, path=path)
        if self.labels is None and self.groups is None:
            return other
        found = find_path(path)
        if _is_parquet(found):
            return other._among(set(parquet_files.open_files(found).columns))
        return other._among(set(self._read(path).frame.columns))

    def _among(self, columns: set[str]) -> Table:
        """The same table without labels and groups that are not among these columns."""
        return replace(
            self,
            labels=self.labels if self.labels in columns else None,
            groups=self.groups if self.groups in columns else None,
        )

    def reading(self, data: Data) -> Table:
        """The same table with exactly the features of `data`, in their order and about their centre, and with the marks
        of its numbers."""
        centre = () if data.centre is None else tuple(data.centre.tolist())
        return replace(self, columns=tuple(data.features), centre=centre, marks=self._marks())

    def _marks(self) -> str:
        """The marks of the numbers in a text file, where they are neither plain nor asked for."""
        path = find_path(self.path)
        if path.suffix.lower() not in _TEXTS:
            return self.marks
        marks = marks_in(path, self._writing(), self.columns)
        asked = (self.decimal or ".", self.thousands or "")
        return "" if (marks.decimal, marks.thousands) == asked else marks.decimal + marks.thousands

    @property
    def number_marks(self) -> str:
        """The decimal mark and what stands between thousands, as in ",.", as asked for or found by a fit; "" where
        neither is known."""
        if self.decimal is None and self.thousands is None:
            return self.marks
        writing = self._writing()
        return (writing.decimal or self.marks[:1] or ".") + (writing.thousands or self.marks[1:])

    def _writing(self) -> Writing:
        return Writing(self.sep, self.decimal, self.thousands, self.encoding, self.marks)

    def _read(self, path: str) -> _Rows:
        return _read(find_path(path), self._writing(), self.columns)

    def _numbers(self, frame: pd.DataFrame, names: list[str]) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Features as float32 [n, d], and what was taken off them [d] before, None being nothing."""
        asked = self._centre(names)
        values = _finite(frame, names, self.path)
        for name in itertools.compress(names, centring.lost(values)):
            warnings.warn(
                f"{self.path}: column {name!r} lies near {np.abs(frame[name]).max():.3g}, and double precision holds "
                "too few digits of its spread: take a constant off it before you save it, or leave it out by --columns",
                stacklevel=5,
            )
        centre = centring.centre_of(values) if asked is None else asked
        samples = torch.from_numpy(centring.about(values, centre))
        return samples, torch.from_numpy(centre) if centre.any() else None

    def _centre(self, names: list[str]) -> np.ndarray | None:
        """The centre that is asked for [d]."""
        if self.centre and len(self.centre) != len(names):
            raise InputError(f"{len(self.centre)} numbers are the centre of {len(names)} columns", "give one a column")
        return np.array(self.centre) if self.centre else None

    def _column(self, rows: _Rows, name: str) -> np.ndarray:
        if name not in rows.frame.columns:
            raise InputError(f"{self.path} has no column {name!r}", did_you_mean(name, rows.frame.columns))
        return rows.frame[name].to_numpy()

    def _values(self, rows: _Rows, name: str) -> np.ndarray:
        """All values [n] of a column, those of rows that stay on disk too."""
        first = self._column(rows, name)
        return first if rows.files is None else rows.files.column(name)

    def _features(self, rows: _Rows) -> list[str]:
        for name in (self.labels, self.groups, *self.columns):
            if name is not None:
                self._column(rows, name)
        names = list(self.columns) or self._measurements(rows)
        text = [name for name in names if not is_numeric(rows.frame[name])]
        if len(text) == len(names) and not self.columns:
            found = listed(rows.frame.columns)
            raise InputError(f"{self.path} has no numeric columns: got {found}", "is it a table of numbers?")
        if text:
            row, value = first_text(rows.frame[text[0]])
            raise InputError(
                f"{self.path}: not numbers: {'columns' if len(text) > 1 else 'column'} {listed(text)} "
                f"(row {row} of {text[0]!r} is {value!r})",
                "encode them, name labels or groups among them (--labels, --groups), or choose features by --columns",
            )
        return names

    def _measurements(self, rows: _Rows) -> list[str]:
        """The columns that are features where none are named: all but labels, groups, and what numbers the rows."""
        names = [name for name in rows.features if name not in (self.labels, self.groups, rows.labels)]
        counting = counters.no_measurements(rows.frame, names)
        left = [name for name in names if name not in counting]
        if not any(is_numeric(rows.frame[name]) for name in left):
            counting, left = {}, names
        for name, what in counting.items():
            warnings.warn(
                f"{self.path}: column {name!r} {what} and is left out of the features; name all features by --columns "
                "to keep it",
                stacklevel=5,
            )
        for name in counters.in_order(rows.frame, left):
            warnings.warn(
                f"{self.path}: column {name!r} rises or falls with every row; if it numbers the rows or tells the "
                "time, leave it out: name the others by --columns",
                stacklevel=5,
            )
        for name, what in counters.filled(rows.frame, left).items():
            warnings.warn(
                f"{self.path}: column {name!r}: {what}, far from all others; if that means that none was "
                "measured, fill or drop it first",
                stacklevel=5,
            )
        for name in left:
            if counts := looks_like_labels(rows.frame[name].to_numpy(), name):
                warnings.warn(
                    f"{self.path}: column {name!r} ({counts}) looks like labels, and is read as a feature: say "
                    f"--labels {name}, or name the features by --columns",
                    stacklevel=5,
                )
        return left


def from_frame(
    frame: pd.DataFrame,
    *,
    labels: str | None = None,
    normal: tuple[int | str | bool, ...] = (),
    groups: str | None = None,
    columns: tuple[str, ...] = (),
    name: str = "frame",
) -> Problem:
    """A problem from a DataFrame, its samples named by its index; labels, normal, groups and columns as of a `Table`.

    Raises:
        InputError: a feature is no number, a value is missing, or two rows or columns have one name.
    """
    frame = _checked(frame, name)
    table = Table(name, labels=labels, normal=normal, groups=groups, columns=columns)
    return table._problem(_Rows(frame, list(frame.columns)))


def _checked(frame: pd.DataFrame, name: str) -> pd.DataFrame:
    """The frame with its columns named by text."""
    frame = frame.set_axis([str(column) for column in frame.columns], axis=1)
    for what, names in (("columns", frame.columns), ("rows", frame.index.astype(str))):
        if names.has_duplicates:
            raise InputError(f"{name} has two {what} called {names[names.duplicated()][0]!r}", "rename one")
    if not len(frame):
        raise InputError(f"{name} has no rows")
    return frame


@dataclass(frozen=True, eq=False)
class _Rows:
    """A table, the columns that are features unless told otherwise, and the column that is known to hold labels.

    Where its rows stay on disk the frame holds the first of them, and `files` all.
    """

    frame: pd.DataFrame
    features: list[str]
    labels: str | None = None
    files: ParquetFiles | None = None

    def names(self) -> Sequence[str]:
        if self.files is None:
            return [str(row) for row in self.frame.index]
        return RowNames(len(self.files)) if self.files.root.is_dir() else parquet_files.index_of(self.files.root)


def read_frame(path: Path, writing: Writing = Writing()) -> pd.DataFrame:  # noqa: B008 (a frozen value)
    """The table of a file as it is, its columns named by text.

    Raises:
        InputError: broken, empty, or no table.
    """
    return _read(path, writing, ()).frame


def _read(path: Path, writing: Writing, wanted: Sequence[str]) -> _Rows:
    if path.is_dir() and _is_parquet(path):
        whole = parquet_files.open_files(path).frame()
        return _Rows(whole, list(whole.columns))
    if path.is_dir():
        raise InputError(
            f"{path} is a folder: a table is one file, or a folder of parquet files", f"one of {', '.join(SUFFIXES)}"
        )
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise InputError(f"{path.name} is not a table that can be read", f"one of {', '.join(SUFFIXES)}")
    if path.stat().st_size == 0:
        raise InputError(f"{path} is empty")
    if suffix in ARRAYS:
        return _read_arrays(path)
    try:
        frame = _frame(path, writing, wanted)
    except (InputError, MemoryError, Warning):
        raise
    except Exception as error:  # what pandas, pyarrow and openpyxl raise on broken files is not a closed list
        raise InputError(
            f"cannot read {path}: {error or type(error).__name__}",
            "is it broken, or another format than its name says?",
        ) from error
    frame.columns = [str(name) for name in frame.columns]
    if frame.columns.has_duplicates:
        raise InputError(
            f"{path} has two columns called {frame.columns[frame.columns.duplicated()][0]!r}", "rename one"
        )
    if not len(frame):
        raise InputError(f"{path} has no rows")
    return _Rows(frame, list(frame.columns))


def _frame(path: Path, writing: Writing, wanted: Sequence[str]) -> pd.DataFrame:
    import pandas as pd

    suffix = path.suffix.lower()
    if suffix in PARQUET:
        return pd.read_parquet(path.absolute())  # of other names pandas takes some for addresses, or for a home
    if suffix in _SPREADSHEETS:
        from .spreadsheet import read_spreadsheet

        return read_spreadsheet(path, writing, wanted)
    return read_delimited(path, writing, wanted)


def _is_parquet(path: Path) -> bool:
    return parquet_files.is_set(path) if path.is_dir() else path.suffix.lower() in PARQUET


def columns_of(columns: str | Sequence[Any]) -> tuple[str, ...]:
    """Names of columns; as one text 'width,height,"weight, net"' -> ("width", "height", "weight, net")."""
    if not isinstance(columns, str):
        return tuple(str(column) for column in columns)
    if not columns.strip():
        return ()
    names = tuple(name.strip() for name in next(csv.reader([columns], skipinitialspace=True)))
    if "" in names:
        raise InputError(f"a column has no name in {columns!r}", 'write them as in "width,height"')
    return names


def _read_arrays(path: Path) -> _Rows:
    import pandas as pd

    arrays = read_numpy(path)
    x = next((arrays[key] for key in ("X", "x", "data") if key in arrays), None)
    if x is None and len(arrays) == 1:
        x = next(iter(arrays.values()))
    if x is None:
        raise InputError(f"{path} has no array X: it holds {listed(arrays)}", "save the rows as X [n, d]")
    if x.ndim != 2 or 0 in x.shape:
        raise InputError(f"{path}: rows [n, d] were needed: got an array of shape {list(x.shape)}")
    if "y" in arrays and arrays["y"].size != len(x):
        raise InputError(f"{path}: X has {len(x)} rows and y {arrays['y'].size} entries", "give one label for each row")
    features = [str(column) for column in range(x.shape[1])]
    frame = pd.DataFrame(x, columns=features, copy=False)
    # Other arrays of n entries can be named as labels or groups; they are not features.
    beside = {key: value.reshape(-1) for key, value in arrays.items() if value is not x and value.size == len(x)}
    return _Rows(frame.assign(**beside), features, "y" if "y" in beside else None)


def is_numeric(column: pd.Series) -> bool:
    """Whether a column holds numbers, or true and false."""
    import pandas as pd

    kinds = pd.api.types
    return kinds.is_bool_dtype(column) or (kinds.is_numeric_dtype(column) and not kinds.is_complex_dtype(column))


def first_text(column: pd.Series) -> tuple[int, str]:
    """Row and value of the first entry that is no number: one stray word makes a whole column text."""
    for row, value in enumerate(column.tolist()):
        try:
            if isinstance(value, str | int | float):
                float(value)
                continue
        except (ValueError, OverflowError):
            pass
        text = str(value)
        return row, text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
    return 0, str(column.iloc[0])


def _finite(frame: pd.DataFrame, names: list[str], path: str) -> np.ndarray:
    """float64 [n, d].

    Raises:
        InputError: a value is missing, infinite or too large; the first is named.
    """
    return check_numbers(frame[names].to_numpy(dtype=np.float64, na_value=np.nan), names, path)

"""Tables in parquet, a file or a folder of them, whose rows stay on disk until they are asked for.

A folder is one table: its files in natural order, the row groups of each in theirs. Rows are read a piece of a row
group at a time, of the columns that are asked for alone, so neither files nor row groups need fit into memory.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor

from ..core import messages
from ..core.data import MadeNames
from ..errors import InputError, listed, reading
from ..numerics import centring
from .finite import check_numbers
from .paths import list_files, regular_file, say_refused

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet as pq

SUFFIXES = (".parquet", ".pq")
_BROKEN = "is it broken, or another format than its name says?"
# Files beside parts that hold no data of their own.
_BESIDE = (".md", ".txt", ".json", ".crc")
# Numbers that are decoded at a time, and what is read of a compressed column at a time.
_PIECE_ENTRIES, _BUFFER_BYTES = 8_000_000, 1 << 18


def is_set(folder: Path) -> bool:
    """Whether a folder is one table in parquet: it holds more of these files than of others, but for notes."""
    parts = _parts(list_files(folder, SUFFIXES))
    others = _parts(list_files(folder, ("",))) if parts else []
    return len(parts) > sum(not name.lower().endswith((*SUFFIXES, *_BESIDE)) for name in others)


def _parts(names: Sequence[str]) -> list[str]:
    """The files without those that say something about others, as _SUCCESS does."""
    return [name for name in names if not Path(name).name.startswith("_")]


@dataclass(frozen=True, eq=False)
class ParquetFiles:
    """The files of one table: what their footers say.

    Attributes:
        root: the file or folder.
        files: each file's name below the folder, "" where the table is one file.
        groups: (file, row group) of each row group of the table, in order.
        ends: [groups] rows up to the end of each row group.
        columns: the columns' names and whether they are numbers, or true and false.
    """

    root: Path
    files: tuple[str, ...]
    groups: tuple[tuple[int, int], ...]
    ends: np.ndarray
    columns: dict[str, bool]

    def __len__(self) -> int:
        return int(self.ends[-1])

    def path(self, file: int) -> Path:
        return self.root / self.files[file] if self.files[file] else self.root

    def frame(self, rows: int | None = None) -> pd.DataFrame:
        """The first rows, or all; numbered from 0."""
        import pandas as pd

        names, parts, left = list(self.columns), [], len(self) if rows is None else min(rows, len(self))
        for piece in self.pieces(names):
            parts.append(piece.batch.slice(0, left).to_pandas(ignore_metadata=True))
            left -= len(parts[-1])
            if left <= 0:
                break
        return pd.concat(parts, ignore_index=True)

    def column(self, name: str) -> np.ndarray:
        """All values of one column."""
        parts = [piece.batch.column(0).to_pandas().to_numpy() for piece in self.pieces([name])]
        return np.concatenate(parts)

    def pieces(self, names: Sequence[str], start: int = 0) -> Iterator[Piece]:
        """The rows of these columns from the start of the row group in which row `start` lies, a piece at a time.

        Raises:
            InputError: a file is broken, or is no longer what it was.
        """
        size = max(1, _PIECE_ENTRIES // max(1, len(names)))
        opened: tuple[int, pq.ParquetFile] | None = None
        for number in range(int(np.searchsorted(self.ends, start, side="right")), len(self.groups)):
            file, group = self.groups[number]
            if opened is None or opened[0] != file:
                opened = file, _opened(self.path(file))
            first = int(self.ends[number - 1]) if number else 0
            in_file = first - self._first_row(file)
            for batch in _batches(self.path(file), opened[1], group, size, names):
                yield Piece(first, self.path(file), in_file, batch)
                first, in_file = first + batch.num_rows, in_file + batch.num_rows
            if first != int(self.ends[number]):
                raise InputError(f"{self.path(file)} was changed while it was read", "run the same command again")

    @functools.cached_property
    def _first_rows(self) -> dict[int, int]:
        firsts: dict[int, int] = {}
        for number, (file, _) in enumerate(self.groups):
            firsts.setdefault(file, int(self.ends[number - 1]) if number else 0)
        return firsts

    def _first_row(self, file: int) -> int:
        return self._first_rows[file]


@dataclass(frozen=True, eq=False)
class Piece:
    """Rows of a table that were read together: the first one's number in the table, and where they lie in a file."""

    first: int
    path: Path
    in_file: int
    batch: pa.RecordBatch

    def __len__(self) -> int:
        return int(self.batch.num_rows)

    def numbers(self) -> np.ndarray:
        """float64 [n, d], all of them finite.

        Raises:
            InputError: one is not.
        """
        import pyarrow as pa
        import pyarrow.compute as pc

        names = self.batch.schema.names
        values = np.empty((len(names), len(self))).T  # column after column, as they are stored
        for place, column in enumerate(self.batch.columns):
            doubles = column if pa.types.is_float64(column.type) else pc.cast(column, pa.float64(), safe=False)
            values[:, place] = doubles.to_numpy(zero_copy_only=False)
        return check_numbers(values, names, str(self.path), self.in_file)


def open_files(root: Path) -> ParquetFiles:
    """The table in a file or in a folder of files, of which only footers are read.

    Raises:
        InputError: there are none, one is broken, empty or has other columns than the first.
    """
    names = [""]
    if root.is_dir():
        refused: dict[str, str] = {}
        names = _parts(list_files(root, SUFFIXES, refused=refused))
        say_refused(root, refused, "copy what they lead to into the folder")
        if not names:
            raise InputError(f"{root} holds no parquet files", f"readable are {', '.join(SUFFIXES)}")
        if keys := sorted({part for name in names for part in Path(name).parts[:-1] if "=" in part}):
            messages.warning(f"{root}: folders such as {keys[0]} name a column that the files lack: it is not read")
    groups, sizes, first = list[tuple[int, int]](), list[int](), None
    for number, name in enumerate(names):
        path = root / name if name else root
        file = _opened(path)
        if first is None:
            first = file.schema_arrow
        elif difference := _difference(first, file.schema_arrow):
            raise InputError(f"{path}: {difference}, unlike {root / names[0]}", "all files of a table need one schema")
        if not file.metadata.num_rows:
            raise InputError(f"{path} has no rows", "remove it, or write it again")
        for group in range(file.metadata.num_row_groups):
            groups.append((number, group))
            sizes.append(file.metadata.row_group(group).num_rows)
    assert first is not None
    return ParquetFiles(root, tuple(names), tuple(groups), np.cumsum(sizes), _columns(root, first))


def index_of(path: Path) -> Sequence[str]:
    """The names of a file's rows: those that pandas wrote as its index, or the rows' numbers."""
    import pandas as pd

    with reading(path, _BROKEN):
        index = pd.read_parquet(path.absolute(), columns=[]).index
    counted = isinstance(index, pd.RangeIndex) and index.start == 0 and index.step == 1
    return RowNames(len(index)) if counted else [str(name) for name in index]


class ParquetRows:
    """Rows of some columns of a table in parquet, less a centre: a Reader of samples [d].

    Args:
        files: the table.
        columns: names, in the order of the numbers of a sample.
        centre: [d] float64, what is taken off in double precision.

    Attributes:
        in_order: rows are read from one to the next; see `core.readers.select`.
        shape: (n, d).
        decoded: how many rows have been decoded so far, for whoever wants to know what reading costs.
    """

    in_order = True

    def __init__(self, files: ParquetFiles, columns: Sequence[str], centre: np.ndarray) -> None:
        self.files, self.columns, self.centre = files, list(columns), centre
        self.shape: tuple[int, ...] = (len(files), len(self.columns))
        self.decoded = 0
        self._forget()

    def __getitem__(self, index: Tensor) -> Tensor:
        place = index.cpu().numpy()
        order = np.argsort(place, kind="stable")
        rising, result = place[order], np.empty((len(place), len(self.columns)), dtype=np.float32)
        done = 0
        while done < len(rising):
            self._hold(int(rising[done]))
            end = int(np.searchsorted(rising, self._first + len(self._held)))
            result[order[done:end]] = self._held[rising[done:end] - self._first]
            done = end
        return torch.from_numpy(result)

    def _forget(self) -> None:
        self._ahead: Iterator[Piece] = iter(())
        self._next = -1  # the row that comes ahead; none does
        self._first, self._held = 0, np.empty((0, len(self.columns)), dtype=np.float32)

    def _hold(self, row: int) -> None:
        """Hold the piece in which a row lies: what was read before it goes, and what lies between is passed over."""
        if self._first <= row < self._first + len(self._held):
            return
        group = int(np.searchsorted(self.files.ends, row, side="right"))
        begins = int(self.files.ends[group - 1]) if group else 0
        if not begins <= self._next <= row:
            self._forget()
            self._ahead = self.files.pieces(self.columns, row)
        for piece in self._ahead:
            self.decoded += len(piece)
            self._next = piece.first + len(piece)
            if row < self._next:
                self._first, self._held = piece.first, centring.about(piece.numbers(), self.centre)
                return
        raise IndexError(row)

    def __getstate__(self) -> dict[str, Any]:
        """Another process begins to read anew."""
        return {"files": self.files, "columns": self.columns, "centre": self.centre, "decoded": 0, "shape": self.shape}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._forget()


@dataclass(frozen=True, eq=False)
class RowNames(MadeNames):
    """Numbers of rows as their names, made when they are asked for; `place` [n] says which, None is all of `rows`."""

    rows: int
    place: np.ndarray | None = None

    def __len__(self) -> int:
        return self.rows if self.place is None else len(self.place)

    def __getitem__(self, place):  # type: ignore[no-untyped-def]
        chosen = range(self.rows)[place] if self.place is None else self.place[place]
        return [str(row) for row in chosen] if isinstance(place, slice) else str(chosen)

    def take(self, index: np.ndarray) -> RowNames:
        return RowNames(self.rows, index if self.place is None else self.place[index])


def _opened(path: Path) -> pq.ParquetFile:
    import pyarrow.parquet as pq

    regular_file(path)
    if path.stat().st_size == 0:
        raise InputError(f"{path} is empty")
    with reading(path, _BROKEN):
        return pq.ParquetFile(path.absolute(), buffer_size=_BUFFER_BYTES)


def _batches(path: Path, file: Any, group: int, size: int, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """The rows of a row group, so many at a time, their columns in the order of the names."""
    with reading(path, _BROKEN):
        batches = file.iter_batches(size, [group], list(names))
    while True:
        with reading(path, _BROKEN):
            batch = next(batches, None)
        if batch is None:
            return
        yield batch.select(list(names))


def _columns(root: Path, schema: pa.Schema) -> dict[str, bool]:
    """Names of columns, and which hold numbers; what pandas wrote as an index is none."""
    import pyarrow as pa

    if twice := next((name for name in schema.names if schema.names.count(name) > 1), None):
        raise InputError(f"{root} has two columns called {twice!r}", "rename one")
    beside = (schema.pandas_metadata or {}).get("index_columns", [])
    kinds = pa.types
    columns = {
        field.name: kinds.is_boolean(field.type) or kinds.is_integer(field.type) or kinds.is_floating(field.type)
        for field in schema
        if field.name not in [name for name in beside if isinstance(name, str)]
    }
    if not columns:
        raise InputError(f"{root} has no columns", "is it a table of numbers?")
    return cast("dict[str, bool]", columns)


def _difference(first: pa.Schema, other: pa.Schema) -> str:
    """How the columns of a file differ from those of the first; "" where they do not."""
    if lacking := [name for name in first.names if name not in other.names]:
        return f"it lacks {'column' if len(lacking) == 1 else 'columns'} {listed(lacking)}"
    if added := [name for name in other.names if name not in first.names]:
        return f"it has {'column' if len(added) == 1 else 'columns'} {listed(added)}"
    for name in first.names:
        kinds = first.field(name).type, other.field(name).type
        if kinds[0] != kinds[1]:
            return f"column {name!r} holds {kinds[1]}, not {kinds[0]}"
    return ""

"""What arrives to be watched: new files in a folder, or new lines of a file that grows."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, Protocol

from ..core.problem import Labelled, Pictured, Source
from ..core.validation import check_samples
from ..errors import InputError, reading
from ..runs.scorer import Run
from ..sources.paths import find_path, natural
from .json_rows import rows_of, samples_of
from .watch_ledger import Arrival, Ledger

# Together they are scored faster than one by one, and are counted in one transaction.
_FILES, _BYTES = 128, 4_000_000
_JSON_LINES = (".jsonl", ".ndjson")
_ANOTHER_WATCH = "a new file needs a watch with another --out"
STREAMS = (".csv", ".tsv", ".txt", *_JSON_LINES)


@dataclass(frozen=True, eq=False)
class Came:
    """An arrival, with its samples where it could be read."""

    arrival: Arrival
    labelled: Labelled | None = None
    source: Source | None = None


class Arrivals(Protocol):
    """Something that is watched, at its path."""

    path: Path

    def new(self, ledger: Ledger) -> list[Came]:
        """Some of what the ledger has not counted, the earliest first; nothing where all is counted."""
        ...


def watched(run: Run, place: str, settle: float) -> Arrivals:
    """What lies at a path: a folder, or a file that grows.

    Raises:
        InputError: nothing is there, or a file of another sort.
    """
    path = find_path(place)
    if path.is_dir():
        return Folder(run, path, settle)
    if path.suffix.lower() not in STREAMS:
        raise InputError(f"a file that is watched grows by lines, as {', '.join(STREAMS)} do: got {path.name}")
    return Stream(run, path)


class Folder:
    """New files anywhere below a folder, each of which comes as a whole. Names that begin with a dot are not looked
    at, nor are links; a file counts once, by its name.

    Args:
        run: what will score them.
        path: the folder.
        settle: a file has come when it has not changed for so many seconds.
    """

    def __init__(self, run: Run, path: Path, settle: float) -> None:
        self.run, self.path, self.settle = run, path, settle
        self._known: set[str] | None = None

    def new(self, ledger: Ledger) -> list[Came]:
        """Files that are not in the ledger."""
        known = self._known = ledger.files() if self._known is None else self._known
        now = time.time()
        waiting = [
            (changed, natural(name), name, size)
            for name, changed, size in self._files()
            if name not in known and now - changed >= self.settle
        ]
        came = [self._read(Arrival(name, 0, size)) for _, _, name, size in sorted(waiting)[:_FILES]]
        known.update(each.arrival.file for each in came)
        return came

    def _files(self) -> Iterator[tuple[str, float, int]]:
        """Name, time of the last change and size of each file."""
        for folder, folders, names in os.walk(self.path):
            folders[:] = [name for name in folders if not name.startswith(".")]
            for name in names:
                file = Path(folder) / name
                try:
                    if not name.startswith(".") and file.is_file() and not file.is_symlink():
                        state = file.stat()
                        yield file.relative_to(self.path).as_posix(), state.st_mtime, state.st_size
                except OSError:
                    continue  # it has gone again

    def _read(self, arrival: Arrival) -> Came:
        own, file = self.run.source(), self.path / arrival.file
        rows = file.suffix.lower() in STREAMS or not isinstance(own, Pictured)
        try:
            with reading(file, "the watch goes on without it"):
                source = own.at(str(file)) if isinstance(own, Pictured) else self.run.table_at(str(file))
                labelled = self.run.samples(source)
                check_samples(labelled.data, least=1, where=arrival.file)
        except (InputError, Warning) as error:
            return Came(replace(arrival, refused=str(error)))
        names = labelled.data.names
        named = [f"{arrival.file}:{name}" for name in names] if rows or len(names) > 1 else [arrival.file]
        return Came(arrival, replace(labelled, data=replace(labelled.data, names=named)), source)


class Stream:
    """New lines of a file that grows: CSV below its first line, or JSON, an array or an object a line. A line has come
    when it has ended.

    Args:
        run: what will score them.
        path: the file.
    """

    def __init__(self, run: Run, path: Path) -> None:
        self.run, self.path = run, path

    def new(self, ledger: Ledger) -> list[Came]:
        """Lines behind those in the ledger; one that cannot be read is refused alone."""
        start, row, seal = ledger.reached(self.path.name)
        with reading(self.path, "the watch goes on when it is back"), open(self.path, "rb") as file:
            head = b"" if self.path.suffix.lower() in _JSON_LINES else file.readline()
            if file.seek(0, os.SEEK_END) < start:
                raise InputError(f"{self.path} is shorter than what was counted of it", _ANOTHER_WATCH)
            if not _is_sealed(file, head, start, seal):
                raise InputError(f"{self.path} is another file: what was counted of it has changed", _ANOTHER_WATCH)
            file.seek(max(start, len(head)))
            lines = file.read(_BYTES).split(b"\n")[:-1]
        if not lines or (head and not head.endswith(b"\n")):
            return []
        return self._read(head, lines, max(start, len(head)), start, row)

    def _read(self, head: bytes, lines: Sequence[bytes], at: int, start: int, row: int) -> list[Came]:
        """These lines, which begin at byte `at`, as the arrival from `start` on; their first is this row."""
        stop = at + sum(map(len, lines)) + len(lines)
        arrival = Arrival(self.path.name, start, stop, len(lines), seal=_seal(head, lines[-1]))
        try:
            labelled, source = self._samples(head, lines)
        except (InputError, Warning) as error:
            if len(lines) == 1:
                return [Came(replace(arrival, refused=str(error)))]
            half = len(lines) // 2
            first = self._read(head, lines[:half], at, start, row)
            stop = first[-1].arrival.stop
            return first + self._read(head, lines[half:], stop, stop, row + half)
        names = [f"{self.path.name}:{row + place}" for place in range(len(labelled.data))]
        return [Came(arrival, replace(labelled, data=replace(labelled.data, names=names)), source)]

    def _samples(self, head: bytes, lines: Sequence[bytes]) -> tuple[Labelled, Source | None]:
        if not head:
            with reading("a line", "each is an array of numbers, or an object of them by feature"):
                rows = [json.loads(line) for line in lines]
                return samples_of(self.run, [rows_of(self.run, rows)]), None
        with tempfile.TemporaryDirectory(prefix="tailwise-") as folder:
            file = Path(folder) / self.path.name
            file.write_bytes(head + b"\n".join(lines) + b"\n")
            try:
                source = self.run.table_at(str(file))
                labelled = self.run.samples(source)
            except InputError as error:
                raise InputError(str(error).replace(str(file), self.path.name)) from error
        if len(labelled.data) != len(lines):
            raise InputError(f"{len(lines)} lines hold {len(labelled.data)} rows", "write a row a line")
        check_samples(labelled.data, least=1)
        return labelled, source


def _seal(head: bytes, line: bytes) -> str:
    """What a file is known by whose first line and last counted line are these: the length of that, and a digest."""
    return f"{len(line)} {hashlib.sha256(head + line).hexdigest()}"


def _is_sealed(file: BinaryIO, head: bytes, start: int, seal: str) -> bool:
    """Whether the line that ends at byte `start` is still the one that was counted last, if any was."""
    if not seal:
        return True
    file.seek(start - int(seal.split()[0]) - 1)
    *line, end = file.read(start - file.tell())
    return end == ord("\n") and _seal(head, bytes(line)) == seal

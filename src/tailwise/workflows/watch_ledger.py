"""What a watch has counted, in one SQLite file: each arrival once, with everything that it changed, or not at all.

An arrival is named by its file and the place in it where it begins. It is entered in one transaction together with its
samples, the bets on them and what they called; a process that is killed before that has counted nothing of it, and one
that is killed after it will not count it again.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from ..errors import InputError

_FORMAT = 4
# Evidence is kept of looks that are so many times as far into the stream: a curve needs no more, however long it is.
_BETWEEN_LOOKS = 1.01
_SCHEMA = """
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE arrivals (
    id INTEGER PRIMARY KEY, file TEXT NOT NULL, start INTEGER NOT NULL, stop INTEGER NOT NULL, lines INTEGER NOT NULL,
    at REAL NOT NULL, refused TEXT NOT NULL, seal TEXT NOT NULL, UNIQUE (file, start));
CREATE TABLE samples (
    id INTEGER PRIMARY KEY, arrival INTEGER NOT NULL REFERENCES arrivals, name TEXT NOT NULL, score REAL NOT NULL,
    p_value REAL NOT NULL, flagged INTEGER NOT NULL, cluster INTEGER NOT NULL, unknown INTEGER NOT NULL,
    place TEXT NOT NULL);
CREATE TABLE looks (samples INTEGER PRIMARY KEY, at REAL NOT NULL, evidence TEXT NOT NULL);
CREATE TABLE calls (test TEXT PRIMARY KEY, aspect TEXT NOT NULL, cluster INTEGER, samples INTEGER NOT NULL,
    at REAL NOT NULL, told INTEGER NOT NULL);
CREATE TABLE kept (
    id INTEGER PRIMARY KEY, sample INTEGER NOT NULL REFERENCES samples, content TEXT NOT NULL);
CREATE VIEW counts AS
    SELECT cluster, COUNT(*) AS samples, SUM(flagged) AS flagged, SUM(unknown) AS unknown
    FROM samples GROUP BY cluster;
"""


@dataclass(frozen=True)
class Arrival:
    """A part of what is watched.

    Attributes:
        file: its file's path in the folder, or the stream's name.
        start, stop: from which byte to which; 0 and the size of a file that comes as a whole.
        lines: how many rows of a stream it holds.
        refused: why it could not be read, "" where it could.
        seal: of a stream, what tells whether the file before `stop` is still the same.
    """

    file: str
    start: int
    stop: int
    lines: int = 0
    refused: str = ""
    seal: str = ""


class Ledger:
    """The file, open.

    Args:
        path: where it is, or will be.
        facts: what must be the same whenever it is opened: the run, the level, the place that is watched.

    Raises:
        InputError: it is of another watch, or is none.
    """

    def __init__(self, path: Path, facts: Mapping[str, Any]) -> None:
        self.path = path
        given = {name: json.dumps(value) for name, value in {"format": _FORMAT, **facts}.items()}
        try:
            self._file = sqlite3.connect(path, isolation_level=None)
            self._file.execute("PRAGMA journal_mode = WAL")
            self._file.execute("PRAGMA synchronous = FULL")
            with self._transaction():
                there = self._file.execute("SELECT name FROM sqlite_master").fetchall()
                if not there:
                    for statement in filter(str.strip, _SCHEMA.split(";")):
                        self._file.execute(statement)
                    self._file.executemany("INSERT INTO facts VALUES (?, ?)", given.items())
            known = dict(self._file.execute("SELECT name, value FROM facts WHERE name != 'bets'").fetchall())
        except sqlite3.Error as error:
            raise InputError(f"{path} is not the ledger of a watch: {error}", "choose another --out") from error
        if other := sorted(name for name in given if known.get(name) != given[name]):
            # Files are known by their names, which those of another place may have too.
            moved = f"; if what it watched was moved, leave a link at {known['place']}" if other == ["place"] else ""
            raise InputError(
                f"{path} was begun with another {', '.join(other)}",
                f"choose another --out, or repeat the command of before{moved}",
            )

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._file.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._file.execute("ROLLBACK")
            raise
        self._file.execute("COMMIT")

    def enter(
        self,
        arrivals: Sequence[Arrival],
        samples: Sequence[tuple[int, str, float, float, bool, int, bool, Sequence[float]]],
        kept: Sequence[tuple[int, Mapping[str, Any]]],
        bets: Mapping[str, Any],
        evidence: Mapping[str, float],
        calls: Sequence[tuple[str, str, int | None, int]],
    ) -> None:
        """Count arrivals, all or none.

        Args:
            arrivals: what came.
            samples: of each its arrival's place, name, score, p-value, whether it is flagged, nearest cluster,
                whether it is unlike all, and where it lies.
            kept: places of samples that a person should look at, with what the sheet says of them.
            bets: the state of the tests after these samples.
            evidence: of the tests, by name.
            calls: tests that these samples called: name, aspect, cluster, at which sample.
        """
        now = time.time()
        with self._transaction():
            ids = []
            for a in arrivals:
                values = (a.file, a.start, a.stop, a.lines, now, a.refused, a.seal)
                row = "INSERT INTO arrivals (file, start, stop, lines, at, refused, seal) VALUES (?, ?, ?, ?, ?, ?, ?)"
                ids.append(self._file.execute(row, values).lastrowid)
            columns = "arrival, name, score, p_value, flagged, cluster, unknown, place"
            row = f"INSERT INTO samples ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
            places = [
                self._file.execute(row, (ids[of], *values, json.dumps(place))).lastrowid
                for of, *values, place in samples
            ]
            for place, content in kept:
                self._file.execute(
                    "INSERT INTO kept (sample, content) VALUES (?, ?)", (places[place], json.dumps(dict(content)))
                )
            self._file.execute("INSERT OR REPLACE INTO facts VALUES ('bets', ?)", (json.dumps(dict(bets)),))
            if samples:
                total, last = self._file.execute(
                    "SELECT (SELECT MAX(id) FROM samples), MAX(samples) FROM looks"
                ).fetchone()
                if calls or last is None or total >= _BETWEEN_LOOKS * last:
                    self._file.execute("INSERT INTO looks VALUES (?, ?, ?)", (total, now, json.dumps(dict(evidence))))
            for test, aspect, cluster, at_sample in calls:
                self._file.execute(
                    "INSERT OR IGNORE INTO calls VALUES (?, ?, ?, ?, ?, 0)", (test, aspect, cluster, at_sample, now)
                )

    def bets(self) -> dict[str, Any] | None:
        """The state of the tests; None before the first arrival."""
        found = self._file.execute("SELECT value FROM facts WHERE name = 'bets'").fetchone()
        state: dict[str, Any] | None = None if found is None else json.loads(found[0])
        return state

    def files(self) -> set[str]:
        """Files that were counted, or refused, as a whole."""
        return {name for (name,) in self._file.execute("SELECT DISTINCT file FROM arrivals")}

    def reached(self, file: str) -> tuple[int, int, str]:
        """Up to which byte and row a stream was counted, and the seal of what was counted last."""
        query = "SELECT stop, seal, SUM(lines) OVER () FROM arrivals WHERE file = ? ORDER BY stop DESC LIMIT 1"
        stop, seal, lines = self._file.execute(query, (file,)).fetchone() or (0, "", 0)
        return int(stop), int(lines), str(seal)

    def samples(self) -> pd.DataFrame:
        """Cluster, whether unlike all, score and place of each sample, in the order in which they came."""
        found = self._table("SELECT cluster, unknown, score, place FROM samples ORDER BY id")
        return found.assign(place=found["place"].map(json.loads))

    def counts(self) -> pd.DataFrame:
        """Samples, flagged ones and ones unlike all, by nearest cluster."""
        return self._table("SELECT * FROM counts ORDER BY cluster")

    def looks(self) -> pd.DataFrame:
        """The evidence after some of the looks, as many as a curve needs."""
        return self._table("SELECT * FROM looks ORDER BY samples")

    def calls(self) -> pd.DataFrame:
        """The tests that were called, in their order."""
        return self._table("SELECT * FROM calls ORDER BY samples, test")

    def refused(self) -> pd.DataFrame:
        """What could not be read."""
        return self._table("SELECT file, start, refused FROM arrivals WHERE refused != '' ORDER BY id")

    def kept(self) -> list[dict[str, Any]]:
        """What a person should look at, in the order in which it came."""
        query = (
            "SELECT kept.id, name, score, p_value, flagged, cluster, unknown, content "
            "FROM kept JOIN samples ON samples.id = kept.sample ORDER BY kept.id"
        )
        names = ("place", "name", "score", "p_value", "flagged", "cluster", "unknown")
        return [{**dict(zip(names, row[:-1], strict=True)), **json.loads(row[-1])} for row in self._file.execute(query)]

    def told(self, tests: Iterable[str]) -> None:
        """The webhook has taken these calls."""
        with self._transaction():
            self._file.executemany("UPDATE calls SET told = 1 WHERE test = ?", [(test,) for test in tests])

    def _table(self, query: str) -> pd.DataFrame:
        found = self._file.execute(query)
        return pd.DataFrame.from_records(found.fetchall(), columns=[column[0] for column in found.description])

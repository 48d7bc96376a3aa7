"""Scores of more data than fits into memory: a folder of parquet files, a part each, by one process or many.

The parts together are the table that `score` would write, bit for bit: a part is a whole number of the batches that
the table is scored in.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from ..core import inference
from ..core.problem import Labelled, ReadOnDemand, Source
from ..core.seeding import seeded
from ..core.validation import check_samples, check_seed
from ..errors import InputError
from ..integrations import engines
from ..runs.outputs import check_place
from ..runs.scorer import Run, open_run
from .parts import Asked, Parts, check_unchanged, settled
from .score import with_every_name
from .weigh import write_table

# A part has at most so many samples, and so many numbers, unless a batch has more.
_PART_SAMPLES, _PART_ENTRIES = 262_144, 32_000_000


@dataclass(frozen=True)
class TablePart:
    """Samples `start` to `stop` of the data, and the file that their table goes to; `rows` it will have."""

    asked: Asked
    start: int
    stop: int
    rows: int
    path: str


def write_parts(asked: Asked, out: Path, options: engines.Options = engines.Options()) -> Path:  # noqa: B008
    """Write the table of scores as a folder of parquet files; see `commands.score`. `out` is returned.

    Repeated, it makes the parts that an interrupted one left out.

    Raises:
        InputError: the data is not what the run was fitted on or cannot be read in parts, or the folder cannot be
            written.
    """
    options.check()
    facts = {"most": [_PART_SAMPLES, _PART_ENTRIES]}
    run, source, asked = settled(asked, facts)
    _check_place(out, source)
    try:
        everything = _opened(asked)[1]
        check_seed(asked.seed)
        parts = Parts(out, asked.stamp, ".parquet")
        items = _items(asked, everything, parts)
        with parts.held(), engines.started(options) as engine:
            parts.fill(engine, score_part, items, _is_whole)
            check_unchanged(asked, run, source, facts)
            parts.become(out)
    finally:
        _opened.cache_clear()
    return out


def score_part(part: TablePart) -> int:
    """Write the table of one part; how many rows it has. A task: any process may do it, at any time."""
    asked = part.asked
    run, everything = _opened(asked)
    samples = _held(everything, part.start, part.stop)
    check_samples(samples.data, least=1, where=asked.data)
    with seeded(asked.seed, asked.device):
        scores = run.scores_of(samples.data, asked.batch_size, asked.device)
    table = run.table_of(samples, scores, asked.threshold)
    if everything.every_name is not None:
        table = with_every_name(table, _names_between(everything, part.start, part.stop))
    write_table(table, Path(part.path))
    return len(table)


def _check_place(out: Path, source: Source) -> None:
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise InputError(f"{out} is there already, and is not written over", "remove it, or choose another --out")
    check_place(out, source)


@functools.lru_cache(maxsize=1)
def _opened(asked: Asked) -> tuple[Run, Labelled]:
    """The run and its data, of which nothing is read before it is asked for; opened once a process."""
    run = open_run(asked.run, read_only=True)
    source = run.source_like(asked.data, asked.skip_bad)
    if not isinstance(source, ReadOnDemand):
        raise InputError(
            f"{type(source).__name__} cannot be read in parts",
            "a folder of images, parquet or a cube can; write a table to a .csv or .parquet file",
        )
    return run, run.samples(source, on_demand=True)


def _items(asked: Asked, everything: Labelled, parts: Parts) -> list[TablePart]:
    count, shape = len(everything.data), everything.data.sample_shape
    batch = asked.batch_size or inference.batch_size_for(shape)
    size = batch * max(1, min(_PART_SAMPLES // batch, _PART_ENTRIES // (batch * math.prod(shape))))
    cuts = [*range(0, count, size), count]
    return [
        TablePart(asked, start, stop, _rows(everything, start, stop), str(parts.path(number)))
        for number, (start, stop) in enumerate(itertools.pairwise(cuts))
    ]


def _is_whole(path: Path, part: TablePart) -> bool:
    import pyarrow.parquet as pq

    try:
        return path.is_file() and int(pq.read_metadata(path).num_rows) == part.rows
    except Exception:  # what pyarrow raises on broken files is not a closed list; the part is made again
        return False


def _held(everything: Labelled, start: int, stop: int) -> Labelled:
    """Some of the samples that follow each other, in memory: they are looked at several times."""
    data = everything.data.take(torch.arange(start, stop))
    groups = None if everything.groups is None else np.asarray(everything.groups)[start:stop]
    return Labelled(replace(data, samples=data.read(torch.arange(len(data)))), groups=groups)


def _between(everything: Labelled, start: int, stop: int) -> tuple[int, int]:
    """The first sample's place among all, those without data too, and the end of the last one's: what holds no data
    goes with the sample before it, or with the first."""
    every, place = everything.every_name, getattr(everything.data.context, "place", None)
    if every is None or place is None:
        return start, stop
    return int(place[start]) if start else 0, int(place[stop]) if stop < len(place) else len(every)


def _rows(everything: Labelled, start: int, stop: int) -> int:
    first, end = _between(everything, start, stop)
    return end - first


def _names_between(everything: Labelled, start: int, stop: int) -> Sequence[str]:
    assert everything.every_name is not None
    first, end = _between(everything, start, stop)
    return everything.every_name[first:end]

"""Results made part by part: each part a file that is whole or absent, and an absent one is made the next time.

Parts are cut by the data alone, so they are the same whoever makes them. They lie in a folder beside the place of the
result, whose name holds a digest of all that they depend on: a part of another run, of other data or other options is
never among them, not even one that a worker of an earlier command writes late.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from ..core import messages, progress
from ..core.problem import Source
from ..core.validation import check_scoring
from ..errors import InputError
from ..integrations.engines import Engine, WorkersLost
from ..runs.files import SETTINGS, CannotWrite, alone, cannot_write, clear, file_digest, refuse_device
from ..runs.places import paths_of
from ..runs.scorer import Run, open_run
from ..sources.auto import spelled
from ..sources.paths import find_path

T = TypeVar("T")

_STAMP_BYTES = 8


@dataclass(frozen=True)
class Asked:
    """What is scored, and how; a task knows no more.

    Attributes:
        run: the run's folder.
        data: where the data lies, or how its source is spelled.
        stamp: a digest of the run, of what lies at the data, and of these options.
    """

    run: str
    data: str
    threshold: float | None = None
    skip_bad: bool = False
    batch_size: int | None = None
    seed: int = 0
    device: str = "cpu"
    stamp: str = ""


class Parts:
    """The parts of one result.

    Args:
        out: the place of the result.
        stamp: of what the parts depend on.
        suffix: of the parts' files.
    """

    def __init__(self, out: Path, stamp: str, suffix: str) -> None:
        self.out, self.suffix = out, suffix
        self.folder = out.with_name(f".writing-{out.name}-{stamp}.parts")
        self.lock = out.with_name(f".writing-{out.name}.parts.lock")

    def path(self, number: int) -> Path:
        """The file of a part."""
        return self.folder / f"part-{number:05d}{self.suffix}"

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep other processes from this result while the block makes it; parts of anything else go.

        Raises:
            InputError: another process is at it, or the folder cannot be made. Bad data leaves no part behind.
        """
        refuse_device(self.out)
        with alone(self.lock, self.out):
            for other in self._others():
                shutil.rmtree(other, ignore_errors=True)
            if self.folder.is_symlink():
                raise InputError(f"{self.folder} is a link, and would be written through", "remove it")
            self.folder.mkdir(exist_ok=True)
            try:
                yield
            except BaseException as error:
                # Bad data would meet the same end again; anything else is worth keeping once there is a part.
                bad = isinstance(error, InputError) and not isinstance(error, (CannotWrite, WorkersLost))
                if bad or not any(self.folder.glob(f"*{self.suffix}")):
                    self.discard()
                raise
        with suppress(OSError):
            self.lock.unlink(missing_ok=True)

    def _others(self) -> list[Path]:
        """Folders of parts of this very result that depend on something else."""
        # The stamp in full: what begins as this result's name does may be another's, as scores-2026 is.
        named = re.compile(rf"\.writing-{re.escape(self.out.name)}-[0-9a-f]{{{2 * _STAMP_BYTES}}}\.parts")
        return [path for path in self.out.parent.iterdir() if path != self.folder and named.fullmatch(path.name)]

    def discard(self) -> None:
        """Take the parts away."""
        shutil.rmtree(self.folder, ignore_errors=True)
        with suppress(OSError):
            self.lock.unlink(missing_ok=True)

    def fill(
        self, engine: Engine, task: Callable[[T], Any], items: Sequence[T], is_whole: Callable[[Path, T], bool]
    ) -> None:
        """Make the parts that are not there: `task` makes that of each item. What several say is said once.

        Raises:
            InputError: a part was refused, or a worker died too often.
        """
        left = [number for number, item in enumerate(items) if not is_whole(self.path(number), item)]
        done = len(items) - len(left)
        if done:
            messages.progress(f"resuming: {done:,} of {len(items):,} parts are there")
        said = set[tuple[int, str]]()
        with progress.told(len(items), f"scoring {len(items):,} parts") as tell:
            for _, made in engine.each(task, [items[number] for number in left]):
                for level, text in made.said:
                    if (level, text) not in said:
                        messages.again(level, text)
                    said.add((level, text))
                made.result()
                done += 1
                tell(done, "")
        clear(self.folder)

    def become(self, place: Path) -> None:
        """Give the folder of parts its name, in one step.

        Raises:
            InputError: something else has that name, or it cannot be given.
        """
        try:
            os.rename(self.folder, place)
        except OSError as error:
            raise cannot_write(place, error) from error


def settled(asked: Asked, facts: Mapping[str, Any]) -> tuple[Run, Source, Asked]:
    """The run, the source of the data as the run reads it, and what is asked with its places and its stamp settled.

    Raises:
        InputError: there is no such run, or no such data, or it cannot be scored so.
    """
    check_scoring(asked.batch_size, asked.threshold)
    run = open_run(asked.run)
    data = asked.data if spelled(asked.data) else str(find_path(asked.data).absolute())
    source = run.source_like(data, asked.skip_bad)
    asked = replace(asked, run=str(run.path.absolute()), data=data, stamp="")
    return run, source, replace(asked, stamp=_stamp(asked, run, source, facts))


def check_unchanged(asked: Asked, run: Run, source: Source, facts: Mapping[str, Any]) -> None:
    """Raise an InputError where run or data are no longer what they were when parts were begun."""
    if _stamp(replace(asked, stamp=""), run, source, facts) != asked.stamp:
        raise InputError(f"the run or {asked.data} was changed while it was scored", "run the same command again")


def _stamp(asked: Asked, run: Run, source: Source, facts: Mapping[str, Any]) -> str:
    belongs = {
        "run": file_digest(run.path / SETTINGS),  # which holds the digests of the others
        "source": repr(source),
        "files": [(str(p), p.stat().st_size, p.stat().st_mtime_ns) for p in files_of(source)],
        "asked": vars(asked),
        **facts,
    }
    return digest_of(belongs)


def digest_of(belongs: Any) -> str:
    """A short text for what parts depend on, made of values of JSON."""
    return hashlib.blake2b(json.dumps(belongs, sort_keys=True).encode(), digest_size=_STAMP_BYTES).hexdigest()


def files_of(source: Source) -> list[Path]:
    """Every file that a source of files may read."""
    found = dict[Path, None]()
    for place in paths_of(source).values():
        found |= dict.fromkeys(beside(place))
    return list(found)


def beside(path: Path) -> list[Path]:
    """The file and those of its name with another ending, such as an ENVI header and its data; of a folder, all."""
    if path.is_dir():
        return sorted(p for p in path.rglob("*") if p.is_file())
    return sorted(p for p in path.parent.iterdir() if p.stem == path.stem and p.is_file())

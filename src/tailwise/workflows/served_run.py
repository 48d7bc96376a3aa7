"""One version of a run in memory, which scores bodies: what `tailwise serve` answers with.

Everything is read when the version is opened, so that it can answer after its folder has changed, and nothing is
written there. Bodies of JSON are scored together.
"""

from __future__ import annotations

import base64
import json
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from ..backbones import cache
from ..calibration import score_maps
from ..core import messages
from ..core.data import Data
from ..core.modality import ROW
from ..core.problem import Labelled, Pictured, Source
from ..core.validation import check_samples
from ..errors import InputError, reading
from ..integrations.http import Body, Scored
from ..integrations.openapi import CSV, IMAGES, JSON
from ..report import explanation, pictures
from ..runs.plain_json import plain
from ..runs.scorer import open_run
from ..runs.settings import SETTINGS
from . import map_files
from .json_rows import Rows, rows_of, samples_of

# What is explained or drawn takes up to seconds a sample.
_MOST_EXPLAINED = 20
_BODY = "the body"
# What looks like a path from the root, wherever a message may have it from.
_PATH = re.compile(r"(?<![\w.])(?:[A-Za-z]:)?(?:[/\\][^\s/\\'\",:;()]+){2,}")


@dataclass(frozen=True, eq=False)
class _Read:
    """The samples of a body, and how they were read."""

    labelled: Labelled
    source: Source | None = None


class ServedRun:
    """A version of a run.

    Args:
        name: what it is called, here and in answers.
        path: its folder.
        device: "cpu", "cuda" or "mps".

    Raises:
        InputError: it cannot be opened, or was changed while it was.
    """

    def __init__(self, name: str, path: Path, device: str = "cpu") -> None:
        self.name, self.device = name, device
        self.version = version_of(path)
        self.run = open_run(path, read_only=True)
        self.run.detector_on(device)
        self.run.calibration(), self.run.clusters(), self.run.source()
        if version_of(path) != self.version:
            raise InputError(f"{path} was exchanged for its successor while it was opened", "open it again")
        self._warm()

    def _warm(self) -> None:
        """Score once what the run keeps, so that the first who asks does not wait."""
        kept = self.run.fingerprint()
        if kept is not None:
            samples = kept.samples[:1]
            labelled = Labelled(Data(samples, ["0"], modality=self.run.modality, centre=self.run.centre))
            self._said(labelled)

    @cached_property
    def facts(self) -> dict[str, Any]:
        """What there is to know of it, without a path."""
        settings = self.run.settings
        facts = {
            "name": self.name,
            "fingerprint": settings.seal,
            "training_data": settings.fingerprint,
            "created": settings.created,
            "detector": settings.detector,
            "samples": self.run.modality.plural,
            "sample_shape": list(settings.sample_shape),
            "features": list(settings.features),
            "threshold": settings.threshold,
            "false_alarms": settings.false_alarms,
            "has_maps": self.run.detector().has_maps,
        }
        found: dict[str, Any] = self._nameless(plain(facts))
        return found

    def score(self, bodies: Sequence[Body]) -> list[Scored | BaseException]:
        """Answers [n] to bodies [n]; an InputError, which names no path of this machine, where one cannot be scored."""
        answers: list[Scored | BaseException | None] = [None] * len(bodies)
        together: dict[int, Rows] = {}
        for place, body in enumerate(bodies):
            try:
                if body.kind == JSON and not (body.explain or body.maps):
                    together[place] = self._of_json(body.content)
                    continue
                with tempfile.TemporaryDirectory(prefix="tailwise-") as folder, cache.kept_in(Path(folder) / "cache"):
                    answers[place] = self._alone(body, Path(folder))
            except (InputError, Warning, MemoryError) as error:
                answers[place] = self._refusal(error)
        for place, answer in zip(together, self._together(list(together.values())), strict=True):
            answers[place] = answer
        return [answer for answer in answers if answer is not None]

    def _together(self, parts: Sequence[Rows]) -> list[Scored | BaseException]:
        """Answers [n] to rows: scored as one, or each alone where one of them spoils that."""
        try:
            return [self._answer(samples) for samples in self._scored(parts)] if parts else []
        except (InputError, Warning, MemoryError) as error:
            if len(parts) == 1:
                return [self._refusal(error)]
        return [answer for part in parts for answer in self._together([part])]

    def _scored(self, parts: Sequence[Rows]) -> list[list[dict[str, Any]]]:
        """What is said of the rows of each of these, which are numbered from 0, of one pass over all."""
        said, found, start = self._said(samples_of(self.run, parts)), [], 0
        for values, _ in parts:
            own = said[start : start + len(values)]
            found.append([sample | {"sample": str(row)} for row, sample in enumerate(own)])
            start += len(values)
        return found

    def _said(self, labelled: Labelled) -> list[dict[str, Any]]:
        """What `tailwise score` writes of each sample."""
        table = self.run.table_of(labelled, self.run.scores_of(labelled.data, device=self.device))
        return _records(table)

    def _alone(self, body: Body, folder: Path) -> Scored:
        """The answer to a body that may need files, which lie in this folder."""
        is_json = body.kind == JSON
        read = _Read(samples_of(self.run, [self._of_json(body.content)])) if is_json else self._of_file(body, folder)
        data = read.labelled.data
        if (body.explain or body.maps) and len(data) > _MOST_EXPLAINED:
            raise InputError(
                f"at most {_MOST_EXPLAINED} samples are explained or drawn at once: got {len(data)}", "send fewer"
            )
        samples = self._said(read.labelled)
        if body.maps:
            for sample, drawn in zip(samples, self._maps(read), strict=True):
                sample["map"] = drawn
        if body.explain:
            known = self._known
            for sample in samples:
                why = explanation.explain_score(known, read.labelled, sample["sample"], source=read.source)
                sample["explanation"] = self._nameless(plain(why))
        return self._answer(samples)

    def _maps(self, read: _Read) -> list[dict[str, str]]:
        detector, scale = self.run.detector_on(self.device), self.run.map_scale
        if scale is None or not detector.has_maps:
            raise InputError("this run's detector has no score maps", "ask without map")
        data, smoothing = read.labelled.data, self.run.settings.smoothing
        if read.source is None:
            raise InputError("maps are drawn over images: got numbers", "send an image, or ask without map")
        backdrop = pictures.backdrops_of(read.source, data)
        return [
            {
                ending: base64.b64encode(content).decode()
                for ending, content in map_files.contents(found, scale, backdrop(place, None)).items()
            }
            for place, found in enumerate(score_maps.of_data(detector, data, smoothing))
        ]

    @cached_property
    def _known(self) -> explanation.Known:
        """The run with its training data, for explanations."""
        try:
            return explanation.reopen(self.run)
        except InputError as error:
            messages.warning(f"{self.name}: {error}")
            raise InputError(
                "explanations need the run's training data, which this service does not have", "ask without explain"
            ) from error

    def _of_json(self, content: bytes) -> Rows:
        """The rows of a body `{"rows": [...]}`, each an array of numbers or an object of them by feature."""
        with reading(_BODY, 'it is {"rows": [[1.5, 2.0], ...]}, or has an object of numbers by feature for each row'):
            try:
                given = json.loads(content)
            except RecursionError as error:
                raise InputError(f"{_BODY} is nested too deep") from error
            if not isinstance(given, dict) or set(given) != {"rows"} or not isinstance(given["rows"], list):
                raise InputError(f"{_BODY} is not an object with rows and nothing else")
            return rows_of(self.run, given["rows"])

    def _of_file(self, body: Body, folder: Path) -> _Read:
        """What a body that is a file holds, read as the run's own data was."""
        own = self.run.source()
        file = folder / f"body{'.csv' if body.kind == CSV else IMAGES[body.kind]}"
        if body.kind == CSV and self.run.modality != ROW:
            raise InputError(f"the run scores {self.run.modality.plural}: got a table", "send one of these")
        if body.kind != CSV and not isinstance(own, Pictured):
            raise InputError(f"the run scores {self.run.modality.plural}: got an image", "send JSON or CSV")
        file.write_bytes(body.content)
        source = self.run.table_at(str(file)) if body.kind == CSV else own.at(str(file))
        labelled = self.run.samples(source)
        check_samples(labelled.data, least=1, where=_BODY)
        return _Read(labelled, source)

    def _answer(self, samples: list[dict[str, Any]]) -> Scored:
        return Scored(self.run.settings.seal, samples)

    def _refusal(self, error: Exception) -> InputError:
        if isinstance(error, MemoryError):
            return InputError("not enough memory for these samples", "send fewer or smaller ones")
        message, hint = (error.message, error.hint) if isinstance(error, InputError) else (str(error), "")
        return InputError(self._nameless(message), self._nameless(hint))

    def _nameless(self, said: Any) -> Any:
        """Text, or plain data with texts in it, without a path of this machine."""
        if isinstance(said, dict):
            return {key: self._nameless(value) for key, value in said.items()}
        if isinstance(said, list):
            return [self._nameless(value) for value in said]
        if not isinstance(said, str):
            return said
        said = re.sub(rf"{re.escape(tempfile.gettempdir())}[/\\]tailwise-\w+[/\\]body\.\w+", _BODY, said)
        for place in (*self.run.places().values(), self.run.path, self.run.path.resolve(), Path.cwd(), Path.home()):
            if len(str(place)) > 1:
                said = said.replace(str(place), self.name)
        return _PATH.sub("...", said)


def version_of(path: Path) -> bytes:
    """What tells a version of a run from others: the bytes of its settings.

    Raises:
        InputError: it has none.
    """
    try:
        return (path / SETTINGS).read_bytes()
    except OSError as error:
        raise InputError(
            f"{path} is not a run: it has no {SETTINGS}", "make one with: tailwise fit DATA --out RUN"
        ) from error


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """A dict for each row; what is no finite number becomes None."""
    columns = {name: plain(table[name].tolist()) for name in table}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]

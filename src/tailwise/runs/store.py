"""The run folder: what a fit leaves, and how it stays whole through crashes.

    settings.json            everything needed to repeat the fit; its status is "fitting" until all else is written
    model.safetensors        the detector's state
    fingerprint.safetensors  16 samples with their scores, and their pictures in the size that the run reads: a
                             detector or an exported file that scores otherwise is noticed
    scores.parquet           a row for each training sample
    clusters.safetensors     the clusters among the training samples; runs of before have none
    test_scores.parquet      a row for each test sample, where there were any: for evaluation, nothing learns from it
    history.jsonl            a line for each epoch
    backbone.onnx            the network that reads the images, where an ONNX file was named for it
    report.json, report.html the report, as a plain dict and as a page
    .next, .ready            only while a finished run is exchanged for its successor (exchange.py)
    checkpoint.safetensors   only while a fit is unfinished: the same command resumes from it

Every file is written beside its place and moved there, so that each is whole or absent. Nothing here is ever
unpickled. Digests in settings.json tell when a file was changed, to whatever reads that file: report.json is read by
`report`, `compare`, `update` and the trackers.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from ..calibration.clusters import Clusters
from ..core.detector import Detector
from ..errors import InputError
from . import exchange
from .files import (
    BACKBONE,
    CHECKPOINT,
    CLUSTERS,
    FILES,
    FINGERPRINT,
    HISTORY,
    LOCK,
    MODEL,
    REPORT_DATA,
    REPORT_PAGE,
    SCORES,
    SEALED,
    SETTINGS,
    TEST_SCORES,
    CannotWrite,
    cannot_write,
    clear,
    file_digest,
    read_tensors,
    tensor_bytes,
    write,
)  # fmt: skip
from .fingerprint import of
from .plain_json import plain, to_bytes
from .scorer import Run, open_run
from .settings import FORMAT, Settings, digest, read_settings, seal

_SECONDS_BETWEEN_CHECKPOINTS = 5.0


def is_complete(path: Path) -> bool:
    """Whether a finished run is there."""
    return (path / SETTINGS).is_file() and read_settings(path)["status"] == "complete"


class Writer:
    """A run folder that this process holds the lock of.

    Attributes:
        home: the run's folder.
        path: where files are written: the folder itself, or a place inside it while a finished run stands there.
    """

    def __init__(self, home: Path, replaces: bool = False) -> None:
        self.home = home
        self.path = exchange.staging(home) if replaces else home
        self.unfinished = False

    def start(self, settings: Mapping[str, Any], overwrite: bool = False) -> bool:
        """Claim the folder for a fit with these settings; True if an unfinished one like it can be resumed.

        Raises:
            InputError: an unfinished fit with other settings is there.
        """
        resumable = False
        if (self.path / SETTINGS).exists():
            changed = self._changed(settings)
            if not changed:
                resumable = (self.path / CHECKPOINT).exists()
            elif not overwrite:
                raise InputError(
                    f"{self.path} holds an unfinished fit with other settings ({', '.join(sorted(changed))})",
                    "repeat its command to resume it, choose another --out, or add --overwrite",
                )
        if not resumable:
            self._clear()
        self.unfinished = True
        self._write_settings({**settings, "status": "fitting"})
        return resumable

    def discard(self) -> None:
        """Take away what an unfinished fit has written."""
        if self.path != self.home:
            exchange.discard(self.path)
            return
        self._clear()
        (self.path / SETTINGS).unlink(missing_ok=True)

    def _clear(self) -> None:
        """Take away the files of an unfinished run but its settings: without these the rest would be somebody's own."""
        for name in sorted(FILES - {SETTINGS, LOCK}):
            (self.path / name).unlink(missing_ok=True)

    def _changed(self, settings: Mapping[str, Any]) -> list[str]:
        """The settings in which this fit differs from the unfinished one that is there."""
        try:
            before = read_settings(self.path)
        except InputError:
            return ["all"]
        return [k for k, v in plain(dict(settings)).items() if before.get(k) != v and k not in _MAY_CHANGE]

    def finish(
        self,
        settings: Mapping[str, Any],
        detector: Detector,
        scores: pd.DataFrame,
        history: Iterable[Mapping[str, float]],
        report: Mapping[str, Any],
        page: str | None,
        clusters: Clusters | None = None,
        test_scores: pd.DataFrame | None = None,
        fingerprint_samples: Tensor | None = None,
        backbone: bytes | None = None,
        places: Mapping[str, str] | None = None,
        fingerprint_pictures: Tensor | None = None,
    ) -> Run:
        """Write everything, the settings last: from that moment on the run is complete."""
        write(self.path / MODEL, tensor_bytes(detector.state_dict(), {}))
        write(self.path / SCORES, _parquet_bytes(scores))
        write(self.path / HISTORY, "".join(json.dumps(plain(dict(row))) + "\n" for row in history).encode())
        write(self.path / REPORT_DATA, to_bytes(report))
        if page is not None:
            write(self.path / REPORT_PAGE, page.encode("utf-8", "backslashreplace"))
        optional = {
            CLUSTERS: None if clusters is None else tensor_bytes(clusters.state, {}),
            TEST_SCORES: None if test_scores is None else _parquet_bytes(test_scores),
            FINGERPRINT: None
            if fingerprint_samples is None
            else self._fingerprint(settings, fingerprint_samples, fingerprint_pictures),
            BACKBONE: backbone,
        }
        present = {name: content for name, content in optional.items() if content is not None}
        for name, content in present.items():
            write(self.path / name, content)
        digests = {name: file_digest(self.path / name) for name in (*SEALED, *present)}
        of_file = {"status": "complete", "digests": digests, "home": os.path.abspath(self.home), "places": places or {}}
        self._write_settings({**settings, **of_file})
        self.unfinished = False
        (self.path / CHECKPOINT).unlink(missing_ok=True)
        if self.path != self.home:
            exchange.commit(self.home, FILES)
        return open_run(self.home)

    def _fingerprint(self, settings: Mapping[str, Any], samples: Tensor, pictures: Tensor | None) -> bytes:
        """Samples with their scores by the detector as it will be read back, on the CPU."""
        digests = {MODEL: file_digest(self.path / MODEL)}
        given = plain({**settings, "digests": digests})
        again = Run(self.path, Settings.of(given, str(self.path / SETTINGS))).detector()
        return of(again, samples, pictures).as_bytes()

    def _write_settings(self, settings: Mapping[str, Any]) -> None:
        full = plain({"format": FORMAT, **settings})
        write(self.path / SETTINGS, to_bytes({**full, "seal": seal(full)}))


# What a resumed fit may differ in: when and by whom it was started.
_MAY_CHANGE = {"created", "command", "format", "status", "seal"}


def check_apart(run: Path, out: Path, overwrite: bool) -> None:
    """Raise an InputError, before any work, where a run that is made of another would take its place or a third's."""
    if os.path.realpath(run) == os.path.realpath(out):
        raise InputError(f"{out} is the run that the new one is made of, and it would be lost", "choose another --out")
    check_new(out, overwrite)


def check_new(path: Path, overwrite: bool) -> None:
    """Raise an InputError where a finished run would be written over unasked."""
    if not overwrite and is_complete(path):
        raise InputError(f"{path} already holds a finished run", "choose another --out, or add --overwrite")


@contextmanager
def hold(path: str | Path, overwrite: bool = False) -> Iterator[Writer]:
    """Make the folder and keep other processes out while the block runs; a killed process lets go by itself.

    Raises:
        InputError: the folder cannot be made or written to, another fit is using it, it holds a finished run (unless
            `overwrite`) or files that are not a run's.
    """
    from filelock import FileLock, Timeout  # costs a tenth of a second, which scoring can spare

    path = Path(path)
    try:
        os.fsencode(path).decode("utf-8")
    except UnicodeDecodeError as error:  # safetensors could not read its file there again
        raise InputError(f"the name of {path} is not valid UTF-8", "choose another --out") from error
    made = [folder for folder in (path, *path.parents) if not folder.exists()]
    try:
        path.mkdir(parents=True, exist_ok=True)
        exchange.check_lock(path)
        lock = FileLock(path / LOCK, timeout=0)
        lock.acquire()
    except Timeout as error:
        raise InputError(f"another fit is writing to {path}", "wait for it, or choose another --out") from error
    except OSError as error:
        _remove(made)
        raise cannot_write(path, error) from error
    writer = None
    try:
        exchange.move(path, FILES)
        clear(path)
        check_new(path, overwrite)
        # Whatever its name, a file is a run's only beside settings: a fit writes these first and takes them away last.
        strangers = sorted({p.name for p in path.iterdir()} - {LOCK, exchange.NEXT})
        if strangers and not (path / SETTINGS).exists():
            raise InputError(f"{path} holds other files ({strangers[0]})", "choose an empty or new folder for --out")
        writer = Writer(path, replaces=overwrite and _is_whole(path))
        yield writer
    except BaseException as error:
        # Bad input would meet the same end again; anything else is worth keeping once it can be resumed.
        bad = isinstance(error, InputError) and not isinstance(error, CannotWrite)
        if writer and writer.unfinished and (bad or not (writer.path / CHECKPOINT).exists()):
            writer.discard()
        raise
    finally:
        if writer and not writer.unfinished and writer.path != path:
            with suppress(OSError):
                writer.path.rmdir()  # nothing was begun in it
        lock.release()
        if not (path / SETTINGS).exists():
            (path / LOCK).unlink(missing_ok=True)
            _remove(made)


def _is_whole(path: Path) -> bool:
    """Whether a finished run is there that can be read: a broken one is not worth keeping."""
    try:
        return is_complete(path)
    except InputError:
        return False


def _remove(folders: Iterable[Path]) -> None:
    """Take away folders, innermost first, that nothing else has been put into."""
    with suppress(OSError):
        for folder in folders:
            folder.rmdir()


class Checkpoint:
    """Keeps an unfinished fit in a file, at most every few seconds; a training.Keeper.

    Args:
        path: the file.
        settings: tells fits apart: what was kept with other settings is not gone on with.
        every: so many seconds lie between two writings, at least.
    """

    def __init__(self, path: Path, settings: str, every: float = _SECONDS_BETWEEN_CHECKPOINTS) -> None:
        self.path, self.settings, self.every = path, settings, every
        self.newest = time.monotonic()

    @classmethod
    def of_run(cls, path: Path) -> Checkpoint:
        """That of the unfinished run in the folder `path`."""
        return cls(path / CHECKPOINT, digest({k: v for k, v in read_settings(path).items() if k not in _MAY_CHANGE}))

    def load(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """What was kept; None, with a warning, where it is damaged or of another fit."""
        if not self.path.exists():
            return None
        try:
            tensors, facts = read_tensors(self.path)
        except InputError:
            tensors, facts = {}, {}
        if facts.get("seal") != self._seal(tensors, facts.get("facts", "")):
            warnings.warn(f"{self.path} is damaged or of another fit: starting again", stacklevel=2)
            return None
        return tensors, json.loads(facts["facts"])

    def save(self, tensors: Mapping[str, Tensor], facts: dict[str, Any]) -> None:
        if time.monotonic() - self.newest < self.every:
            return
        text = json.dumps(facts)
        write(self.path, tensor_bytes(tensors, {"facts": text, "seal": self._seal(tensors, text)}))
        self.newest = time.monotonic()

    def _seal(self, tensors: Mapping[str, Tensor], facts: str) -> str:
        """A digest of the settings, the facts and every tensor."""
        digest = hashlib.sha256(f"{self.settings}\n{facts}".encode())
        for name in sorted(tensors):
            value = tensors[name].detach().cpu().contiguous()
            digest.update(f"\n{name} {value.dtype} {tuple(value.shape)}\n".encode())
            digest.update(value.view(-1).view(torch.uint8).numpy().tobytes() if value.numel() else b"")
        return digest.hexdigest()


def _parquet_bytes(table: pd.DataFrame) -> bytes:
    result = table.to_parquet(None, index=False)
    assert isinstance(result, bytes)
    return result

"""Files that are whole or absent, and never unpickled: written beside their place and moved there."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import safetensors.torch
import torch
from torch import Tensor

from ..errors import InputError
from ..sources.paths import regular_file

SETTINGS, MODEL, SCORES, HISTORY = "settings.json", "model.safetensors", "scores.parquet", "history.jsonl"
TEST_SCORES, CLUSTERS, FINGERPRINT = "test_scores.parquet", "clusters.safetensors", "fingerprint.safetensors"
BACKBONE = "backbone.onnx"
REPORT_DATA, REPORT_PAGE, CHECKPOINT, LOCK = "report.json", "report.html", "checkpoint.safetensors", ".lock"
# What a run always has with a digest in its settings, and what it may have.
SEALED, OPTIONAL = (MODEL, SCORES, HISTORY, REPORT_DATA), (CLUSTERS, TEST_SCORES, FINGERPRINT, BACKBONE)
# The files of a run's folder; whatever else lies there is not ours.
FILES = frozenset({SETTINGS, *SEALED, *OPTIONAL, REPORT_PAGE, CHECKPOINT, LOCK})


# How the names of what is unfinished begin; the process that writes it comes next.
TEMPORARY = ".writing-"
_UNFINISHED = re.compile(re.escape(TEMPORARY) + r"(\d+)-[0-9a-f]{16}")
NO_LINK = getattr(os, "O_NOFOLLOW", 0)
_BINARY, _NO_WAIT = getattr(os, "O_BINARY", 0), getattr(os, "O_NONBLOCK", 0)


def write(path: Path, content: bytes) -> None:
    """Write a file whole or not at all; what killed writers left in its folder goes.

    Raises:
        InputError: the folder is read-only, the disk full, and the like; the old file, if any, is untouched.
    """
    with prepared(path, content):
        pass


@contextmanager
def prepared(path: Path, content: bytes) -> Iterator[None]:
    """As `write`, but the file takes its place when the block ends, and not if that fails."""
    refuse_device(path)
    clear(path.parent)
    beside = temporary(path)
    try:
        with _created(beside) as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        yield
        os.replace(beside, path)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        with suppress(OSError):
            beside.unlink(missing_ok=True)


def refuse_device(path: Path) -> None:
    """Raise an InputError where a device, a pipe or a socket lies at the path, itself or behind a link: a result would
    take its place, and whoever may do that would lose /dev/null."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return  # nothing is there, or a link to nothing
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise CannotWrite(f"{path} is a device, a pipe or a socket: nothing is written there", "choose another --out")


def write_new(path: Path, content: bytes) -> None:
    """Write a file that is not there yet, into a folder that is itself unfinished.

    Raises:
        InputError: it is there, or as for `write`.
    """
    try:
        with _created(path) as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError as error:
        raise InputError(f"two results would have the name {path.name}", "rename one of their samples") from error
    except OSError as error:
        raise cannot_write(path, error) from error


def temporary(path: Path) -> Path:
    """A place beside a path, under a name that nobody can foresee."""
    return path.with_name(f"{TEMPORARY}{os.getpid()}-{secrets.token_hex(8)}")


@contextmanager
def _created(path: Path) -> Iterator[BinaryIO]:
    """A new file, locked while it is open. Never through a link: another may have put one into the folder."""
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | NO_LINK | _BINARY, 0o666), "wb") as file:
        lock(file.fileno())
        yield file


def lock(target: int, wait: bool = True) -> bool:
    """Keep other processes that ask from an open file or folder until it is closed; whether that worked.

    Windows has no such locks. It refuses to take away what is open instead.
    """
    try:
        import fcntl
    except ImportError:
        return True
    try:
        fcntl.flock(target, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:  # it is held by another, or the file system has no locks
        return False
    return True


@contextmanager
def alone(lock_file: Path, what: Path) -> Iterator[None]:
    """Keep out other processes that ask for the same lock; a killed one lets go by itself.

    Raises:
        InputError: another process holds it, the file is a link, or the disk does not take what the block writes.
    """
    from filelock import FileLock, Timeout  # costs a tenth of a second, which scoring can spare

    refuse_link(lock_file)
    try:
        with FileLock(lock_file, timeout=0):
            yield
    except Timeout as error:
        raise InputError(f"another process is writing {what.name}", "wait for it, or choose another") from error
    except OSError as error:
        raise cannot_write(what, error) from error


def clear(folder: Path) -> None:
    """Take away what killed processes left unfinished; what a living one writes stays."""
    for beside in folder.glob(f"{TEMPORARY}*"):
        if _is_abandoned(beside):
            with suppress(OSError):
                if beside.is_dir() and not beside.is_symlink():
                    shutil.rmtree(beside)
                else:
                    beside.unlink()


def _is_abandoned(beside: Path) -> bool:
    """Whether its writer has died: no process of its number is alive, and nobody holds its lock.

    The number alone would not do: processes of another container have numbers of their own.
    """
    process = _UNFINISHED.fullmatch(beside.name)
    if process is None or _lives(int(process[1])):
        return False
    if beside.is_symlink():
        return True
    try:
        opened = os.open(beside, os.O_RDONLY | NO_LINK | _NO_WAIT)
    except OSError:
        return os.name == "nt"  # folders cannot be opened there
    try:
        return lock(opened, wait=False)
    finally:
        os.close(opened)


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # it is another user's
        return True
    return True


def refuse_link(path: Path) -> None:
    """Raise an InputError where a file that must have this name is a link: writing would touch another."""
    if path.is_symlink():
        raise InputError(f"{path} is a link, and would be written through", "remove it")


class CannotWrite(InputError):
    """The folder or the disk does not take what is written; the data and the options may be fine."""


def cannot_write(path: Path, error: OSError) -> CannotWrite:
    """What to tell the user about a failed write."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        hint = "free some space and run the same command again"
        return CannotWrite(f"the disk is full: {path} was not written", hint)
    hint = "choose a folder that you may write to"
    return CannotWrite(f"cannot write to {path}: {error.strerror or error}", hint)


# What to do about a file of a run that holds something else.
RESTORE = "restore it, or fit again"


def file_digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def tensor_bytes(tensors: Mapping[str, Tensor], facts: dict[str, str]) -> bytes:
    """Tensors and facts in safetensors format."""
    # Cloned, because safetensors refuses tensors that share memory, as a detector's do while it trains.
    own = {k: v.detach().cpu().clone(memory_format=torch.contiguous_format) for k, v in tensors.items()}
    return safetensors.torch.save(own, facts)


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and facts of a safetensors file.

    Raises:
        InputError: it is missing, broken or of another format.
    """
    regular_file(path)
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise InputError(f"{path} is not a readable safetensors file: {error}", "restore it, or fit again") from error


def read_json(path: Path) -> Any:
    """What a JSON file holds.

    Raises:
        InputError: it is missing, broken or nested too deep.
    """
    regular_file(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read: {error}", "restore it, or fit again") from error

"""TIFF files opened by tifffile and libtiff, whose own lines on stderr become one warning or none."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..core import messages

_LOCK = threading.Lock()
_STDERR = 2


class _Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@contextmanager
def opened(path: Path, warns: bool = True) -> Iterator[Any]:
    """A `tifffile.TiffFile` that opens no other file, whatever its text names as one of its parts. What it complains of
    while the block runs is one warning that names the file.

    Raises:
        ImportError: tifffile is not installed.
    """
    import tifffile

    logger, handler = logging.getLogger("tifffile"), _Lines()
    propagate = logger.propagate
    logger.addHandler(handler)
    logger.propagate = False
    try:
        with tifffile.TiffFile(path, _multifile=False, is_mmstack=False, is_ndtiff=False) as file:
            yield file
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate
    if handler.lines and warns:
        messages.warning(f"{path} is damaged in places and is read as far as it can be: {handler.lines[0]}")


@contextmanager
def without_lines_of_libtiff() -> Iterator[None]:
    """Keep what libtiff, through which Pillow decodes, writes to the process's stderr from the user.

    It writes beside Python. What it says comes again as Pillow's exception, or is of no consequence.
    """
    with _LOCK:  # of two threads the second would take the first's nowhere for the user's stderr
        kept = os.dup(_STDERR)
        nowhere = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(nowhere, _STDERR)
            yield
        finally:
            os.dup2(kept, _STDERR)
            os.close(kept)
            os.close(nowhere)

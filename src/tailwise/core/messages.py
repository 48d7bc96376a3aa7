"""What is said beside results, through Python's logging: the logger `tailwise`.

The command line prints each message as a line on stderr. In Python, `logging.getLogger("tailwise")` takes handlers and
levels as any logger does; without any, Python prints warnings and errors alone.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ..errors import printable

LOGGER = logging.getLogger("tailwise")
# Between INFO, which tells how far the work is, and WARNING.
NOTE = 25
logging.addLevelName(NOTE, "NOTE")
# What is done before a message, such as to clear a bar from the line that it is printed on.
before: list[Callable[[], None]] = []


def progress(text: str) -> None:
    """How far the work is."""
    _log(logging.INFO, text)


def note(text: str) -> None:
    """What a reader of the result should know."""
    _log(NOTE, text)


def warning(text: str) -> None:
    """What makes the result less than was asked for."""
    _log(logging.WARNING, text)


def error(text: str) -> None:
    """What failed, where the work is finished nonetheless."""
    _log(logging.ERROR, text)


def hint(text: str) -> None:
    """What to do about the error just told of."""
    _log(logging.ERROR, text, prefix="hint: ")


@contextmanager
def said_before() -> Iterator[None]:
    """While the block runs nothing is said: what is done again has said it already."""

    def silent(record: logging.LogRecord) -> bool:
        return False

    LOGGER.addFilter(silent)
    try:
        yield
    finally:
        LOGGER.removeFilter(silent)


@contextmanager
def gathered() -> Iterator[list[tuple[int, str]]]:
    """While the block runs notes and warnings are kept in a list, as (level, text), for `again`: the same is said of
    many parts, and perhaps where nobody hears it."""
    said = list[tuple[int, str]]()

    def keep(record: logging.LogRecord) -> bool:
        if record.levelno >= NOTE:
            said.append((record.levelno, record.getMessage()))
        return False

    level = LOGGER.level
    LOGGER.addFilter(keep)
    LOGGER.setLevel(NOTE)
    try:
        yield said
    finally:
        LOGGER.removeFilter(keep)
        LOGGER.setLevel(level)


def again(level: int, text: str) -> None:
    """Say what was gathered."""
    _log(level, text)


def failed_check(text: str) -> None:
    """A self-check that failed."""
    _log(logging.ERROR, text, prefix="check failed: ", style="red")


def _log(level: int, text: str, **extra: str) -> None:
    """The one way out: what names of strangers hold steers no terminal and begins no line of a log."""
    for do in before:
        do()
    LOGGER.log(level, "%s", printable(text), extra=extra)

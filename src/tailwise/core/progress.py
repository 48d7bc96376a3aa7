"""How far long work is and how long it will still take: a bar on a terminal, a line every half minute elsewhere.

Short work says nothing. Of work inside other work that is told of already, only the outer is told of.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from . import messages

T = TypeVar("T")

# Seconds before a bar appears, between its changes, and between lines where there is none.
_DELAY, _REDRAWN, _EVERY = 1.0, 0.1, 30.0
_CELLS, _COLUMNS = 24, 79
_told_of: list[object] = []


def over(items: Sequence[T], title: str) -> Iterator[T]:
    """The items; while they are worked on, it is told how many are done.

    >>> list(over([2, 3], "reading"))
    [2, 3]
    """
    with told(len(items), title) as tell:
        for done, item in enumerate(items, 1):
            yield item
            tell(done, "")


@contextmanager
def told(total: int, title: str, started: float | None = None) -> Iterator[Callable[[int, str], None]]:
    """A function that takes how many of `total` are done, and what else to say of them; `started` is when by
    `time.monotonic`, by default now."""
    own, started = object(), time.monotonic() if started is None else started
    last, shown = started, ""

    def tell(done: int, beside: str) -> None:
        nonlocal last, shown
        terminal = sys.stderr.isatty()
        wait = _EVERY if not terminal else _REDRAWN if shown else _DELAY
        now = time.monotonic()
        if now - last < wait or done >= total or (_told_of and _told_of[0] is not own):
            return
        if not _told_of:
            _told_of.append(own)
            messages.before.append(erase)
        last = now
        left = f"about {_spelled((now - started) / max(1, done) * (total - done))} left"
        if not terminal:
            messages.progress(", ".join(filter(None, [f"{title}: {done:,} of {total:,}", beside, left])))
            return
        erase()
        full = _CELLS * done // total
        shown = ", ".join(
            filter(None, [f"{title} {'━' * full}{'┄' * (_CELLS - full)} {done:,}/{total:,}", beside, left])
        )
        shown = shown[:_COLUMNS]
        print(shown, end="", file=sys.stderr, flush=True)

    def erase() -> None:
        nonlocal shown
        if shown:
            print(f"\r{' ' * len(shown)}\r", end="", file=sys.stderr, flush=True)
        shown = ""

    try:
        yield tell
    finally:
        erase()
        if _told_of and _told_of[0] is own:
            _told_of.clear()
            messages.before.remove(erase)


def _spelled(seconds: float) -> str:
    """A time as people say it.

    >>> _spelled(8), _spelled(140), _spelled(9_000)
    ('8 s', '2 min', '2.5 h')
    """
    if seconds < 99:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 99 * 60 else f"{seconds / 3600:.1f} h"

"""The one error that users are meant to read: what came, what was needed, and what to do next."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches

# Some libraries quote the file that they fail on.
_LONGEST = 300

# Letters of names in some scripts, and of some pictographs, though they print nothing.
_JOINERS = "\u200c\u200d"


def printable(text: str) -> str:
    r"""Text for a terminal, a log or a page, on one line: what steers them is shown as Python's escape, not sent.

    Control characters (C0, C1, DEL), marks that turn the direction of writing, invisible letters and bytes that are no
    text.

    Examples:
        >>> printable("red \x1b[31m, reversed \u202egnp.exe, Größe") == r"red \x1b[31m, reversed \u202egnp.exe, Größe"
        True
    """
    line = text if text.isprintable() else " ".join(text.splitlines())
    return line if line.isprintable() else "".join(map(visible, line))


def visible(letter: str) -> str:
    """A letter, or Python's escape of one that steers what shows it."""
    if letter.isprintable() or letter in _JOINERS or unicodedata.category(letter) == "Zs":
        return letter
    return letter.encode("unicode_escape").decode("ascii")


class InputError(ValueError):
    """Something the user gave cannot be used.

    `message` says what came and what was needed, `hint` what to do next. The command line prints both
    (`error:` and `hint:`) and leaves with exit status 2.

    Examples:
        >>> error = InputError("seed must be 0 or more: got -1", "leave it out")
        >>> error.message, error.hint
        ('seed must be 0 or more: got -1', 'leave it out')
    """

    def __init__(self, message: str, hint: str = "") -> None:
        # Whoever shows it need not ask whose names are in it.
        self.message, self.hint = printable(message), printable(hint)
        super().__init__(f"{self.message} ({self.hint})" if hint else self.message)


@contextmanager
def reading(file: object, hint: str) -> Iterator[None]:
    """Whatever a foreign library raises while it reads a file becomes an InputError that names the file.

    What libraries raise on broken files is no closed list. The block holds the library's call and nothing of ours,
    whose exceptions are faults to be seen; or it holds what is made of a file of a run, which is no closed list either,
    because whoever hands a run over can put anything into it and seal that. An InputError that lacks the file's name or
    a hint gets it.

    Examples:
        >>> with reading("parts.csv", "fetch it again"):
        ...     {}["head"]
        Traceback (most recent call last):
        tailwise.errors.InputError: cannot read parts.csv: 'head' (fetch it again)
    """
    try:
        yield
    except InputError as error:
        named = printable(str(file)) in error.message
        raise InputError(error.message if named else f"{file}: {error.message}", error.hint or hint) from error
    except (MemoryError, Warning):
        raise
    except Exception as error:
        said = " ".join(str(error).split())[:_LONGEST] or type(error).__name__
        raise InputError(f"cannot read {file}: {said}", hint) from error


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint that names the closest known word, or lists them all."""
    known = sorted(known)
    lower = {name.lower(): name for name in known}
    close = get_close_matches(word.lower(), lower, n=1, cutoff=0.6)
    return f"did you mean {lower[close[0]]!r}?" if close else f"choose one of: {', '.join(known)}"


def listed(names: Iterable[object], most: int = 6) -> str:
    """The first of the names, quoted, and how many more there are.

    >>> listed(["a", "b", "c"], most=2)
    "'a', 'b' and 1 more"
    """
    quoted = [repr(str(name)) for name in names]
    return ", ".join(quoted[:most]) + (f" and {len(quoted) - most} more" if len(quoted) > most else "")

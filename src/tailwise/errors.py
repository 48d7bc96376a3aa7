"""The one error that users are meant to read: what came, what was needed, and what to do next."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


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
        super().__init__(f"{message} ({hint})" if hint else message)
        self.message = message
        self.hint = hint


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint that names the closest known word, or lists them all."""
    known = sorted(known)
    lower = {name.lower(): name for name in known}
    close = get_close_matches(word.lower(), lower, n=1, cutoff=0.6)
    return f"did you mean {lower[close[0]]!r}?" if close else f"choose one of: {', '.join(known)}"

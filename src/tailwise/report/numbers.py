"""Numbers as people read them: few digits, no false certainty, a dash for what is not known."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any


def quoted(text: str) -> str:
    """A word for a shell: in double quotes where that spares a reader a string of single ones."""
    return f'"{text}"' if "'" in text and not set(text) & set('"$`\\!') else shlex.quote(text)


_NO_BREAK = "\N{NO-BREAK SPACE}"
_NONE = "\N{EN DASH}"


def number(value: float | None) -> str:
    """Three significant digits; a dash for None."""
    if value is None:
        return _NONE
    if value and not 1e-4 <= abs(value) < 1e6:
        return f"{value:.2e}"
    if abs(value) >= 100:
        return f"{value:,.0f}".replace(",", "\N{NARROW NO-BREAK SPACE}")
    # The alternate form keeps the zeros that stand for digits.
    return f"{value:#.3g}".rstrip(".").replace("-", "\N{MINUS SIGN}") if value else "0"


def fraction(value: float | None) -> str:
    """Three decimals, for values between 0 and 1."""
    return _NONE if value is None else f"{value:.3f}"


def percent(share: float | None) -> str:
    """A share as a percentage: one decimal below 10 %, none above, but never rounded to 0 or 100."""
    if share is None:
        return _NONE
    text = f"{100 * share:.1f}" if 100 * share < 9.95 or 99 < 100 * share < 100 else f"{100 * share:.0f}"
    if share > 0 and float(text) == 0:
        return f"<0.1{_NO_BREAK}%"
    if share < 1 and float(text) == 100:
        return f">99.9{_NO_BREAK}%"
    return text.removesuffix(".0") + f"{_NO_BREAK}%"


def counted(share: Mapping[str, Any]) -> str:
    """A share with its counts: 4.5 % (2 of 44). None and all of few prove little: 0 % (0 of 21; up to 15 % at 95 %
    confidence)."""
    text = f"{whole(share['count'])} of {whole(share['of'])}"
    if share["of"] and share["count"] == 0:
        text += f"; up to {percent(share['high'])} at 95{_NO_BREAK}% confidence"
    elif share["of"] and share["count"] == share["of"]:
        text += f"; from {percent(share['low'])} at 95{_NO_BREAK}% confidence"
    return f"{percent(share['share'])} ({text})"


def whole(value: float | None) -> str:
    """A count, its thousands apart."""
    return _NONE if value is None else f"{value:,.0f}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def change(value: float | None, share: bool = False) -> str:
    """A difference with its sign, to three decimals, or in percentage points for shares."""
    if value is None:
        return _NONE
    sign = "+" if value > 0 else "\N{MINUS SIGN}" if value < 0 else ""
    return f"{sign}{100 * abs(value):.1f}" if share else f"{sign}{abs(value):.3f}"

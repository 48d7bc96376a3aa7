r"""Tables as CSV that people open in a spreadsheet: no cell of them runs, and every text comes back as it was.

A spreadsheet takes a cell that begins with `=`, `+`, `-` or `@` for a formula, whoever chose its text. Such a text is
written with an apostrophe before it; so is one that holds what steers a terminal, which is written as Python's own
escape, or that begins with an apostrophe already. In such a cell a backslash is two. Numbers stay numbers. See OWASP,
"CSV Injection".

>>> neutral("=1+1.png"), neutral("-3.5"), neutral("a\x1b[31m"), neutral("plain.png")
("'=1+1.png", '-3.5', "'a\\x1b[31m", 'plain.png')
>>> original("'=1+1.png"), original("'a\\x1b[31m"), original("plain.png")
('=1+1.png', 'a\x1b[31m', 'plain.png')
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import pandas as pd

from ..errors import printable, visible

# With the full-width, small, raised and lowered letters that spreadsheets of some languages take for the same.
_FORMULA = "=＝﹦⁼₌+＋﹢⁺₊\\-－﹣−⁻₋@＠﹫"  # noqa: RUF001
_NUMBER = re.compile(r"[+-]?\d[\d.,]*(?:[eE][+-]?\d+)?%?")
# Where decimals have commas, a spreadsheet parts cells at semicolons, also inside those of a CSV file.
_BEGINS = re.compile(rf"(;[\s\"]*)([{_FORMULA}])")
_RUNS = re.compile(rf"[\s\"]*[{_FORMULA}]")
_ESCAPE = re.compile(r"\\(?:([nrt\\])|x([0-9a-f]{2})|u([0-9a-f]{4})|U([0-9a-f]{8}))")
_LETTERS = {"n": "\n", "r": "\r", "t": "\t", "\\": "\\"}


def neutral(text: str) -> str:
    """A text as the cell of a CSV file, which no spreadsheet runs and no terminal obeys; `original` takes it back."""
    if _NUMBER.fullmatch(text):
        return text
    if not (text.startswith("'") or _RUNS.match(text) or _BEGINS.search(text) or printable(text) != text):
        return text
    body = "".join(map(visible, text.replace("\\", "\\\\")))
    return "'" + _BEGINS.sub(lambda found: f"{found[1]}{_escaped(found[2])}", body)


def original(cell: str) -> str:
    """The text that `neutral` made this cell of; any other cell as it is."""
    return _ESCAPE.sub(_letter, cell[1:]) if cell.startswith("'") else cell


def to_csv(table: pd.DataFrame) -> str:
    """The table as CSV, without its index, every text and every column's name `neutral`."""
    return _each_text(table, neutral).to_csv(index=False)


def read_csv(file: Path | IO[str], **options: Any) -> pd.DataFrame:
    """A table of a CSV file, with the texts that `to_csv` was given; `options` are those of pandas.

    Raises:
        ValueError: it is no such table, or no text.
    """
    # Of names that are no whole paths pandas takes some for addresses, or for somebody's home.
    return _each_text(pd.read_csv(file.absolute() if isinstance(file, Path) else file, **options), original)


def _each_text(table: pd.DataFrame, change: Callable[[str], str]) -> pd.DataFrame:
    def changed(value: Any) -> Any:
        return change(value) if isinstance(value, str) else value

    texts = table.select_dtypes(exclude=["number", "bool"]).columns
    table = table.assign(**{name: table[name].astype(object).map(changed) for name in texts})
    return table.set_axis([changed(name) for name in table.columns], axis=1)


def _escaped(letter: str) -> str:
    return f"\\x{ord(letter):02x}" if ord(letter) < 256 else f"\\u{ord(letter):04x}"


def _letter(found: re.Match[str]) -> str:
    code = found[2] or found[3] or found[4]
    if not code:
        return _LETTERS[found[1]]
    return chr(int(code, 16)) if int(code, 16) <= 0x10FFFF else found[0]

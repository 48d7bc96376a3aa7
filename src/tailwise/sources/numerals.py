"""Numbers as programs and people write them: decimal marks, thousands separators, per cent signs and unit symbols."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..errors import InputError

if TYPE_CHECKING:
    import pandas as pd

# What pandas reads as missing (`pandas.read_csv`, na_values).
MISSING = frozenset({
    "", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA",
    "NULL", "NaN", "None", "n/a", "nan", "null",
})  # fmt: skip
_SPACES = " \u00a0\u2009\u202f"
_APOSTROPHES = "'\u2019"
_BEYOND = re.compile(r"[+-]?inf(?:inity)?", re.IGNORECASE)
# Anything of digits and marks, whatever the marks mean.
_NUMERAL = re.compile(rf"[+\u2212-]?[.,]?\d[\d.,{_SPACES}{_APOSTROPHES}]*(?:[eE][+\u2212-]?\d+)?")
# What may stand after every number of a column: signs, and symbols of units that are no words of their own.
_SYMBOLS = (
    "%|‰|°|°C|°F|mm|cm|km|µm|μm|um|nm|kg|mg|µg|ms|µs|us|min|Hz|kHz|MHz|Pa|kPa|MPa|hPa|bar|mbar|psi|mV|kV|mA|kW|kJ|kN|"
    "Nm|rpm|dB|ppm|€|\\$|£|¥|EUR|USD"
)
# A letter that follows a digit at once may be part of a code, such as 12A.
_LETTERS = "K|m|g|t|s|h|V|A|W|J|N"
_AFFIXED = re.compile(
    rf"(?P<before>[$€£¥]?)\s*(?P<number>.*?\d[.,]?)(?:\s*(?P<after>{_SYMBOLS})|\s+(?P<letter>{_LETTERS})|)"
)


@dataclass(frozen=True)
class Marks:
    """The decimal mark of numbers and what stands between their thousands, "" being nothing."""

    decimal: str = "."
    thousands: str = ""

    def pattern(self) -> re.Pattern[str]:
        """What a finite number looks like with these marks."""
        between = {" ": f"[{_SPACES}]", "'": f"[{_APOSTROPHES}]"}.get(self.thousands, re.escape(self.thousands))
        whole = rf"(?:\d{{1,3}}(?:{between}\d{{3}})+|\d+)" if self.thousands else r"\d+"
        point = re.escape(self.decimal)
        return re.compile(rf"[+\u2212-]?(?:{whole}(?:{point}\d*)?|{point}\d+)(?:[eE][+\u2212-]?\d+)?")

    def plain(self, text: str) -> str:
        """The number as Python writes it."""
        gone = {" ": _SPACES, "'": _APOSTROPHES}.get(self.thousands, self.thousands)
        text = text.translate({ord(mark): None for mark in gone})
        return text.replace(self.decimal, ".").replace("\u2212", "-")


PLAIN = Marks()
_MARKS = (PLAIN, *(Marks(d, t) for d, others in ((",", ("", ".", " ", "'")), (".", (",", " ", "'"))) for t in others))


def is_numeral(text: str) -> bool:
    """Whether this is a number with whatever marks."""
    number = _number(text.strip())[1]
    return bool(_NUMERAL.fullmatch(number) or _BEYOND.fullmatch(number))


def are_plain(column: Sequence[str]) -> bool:
    """Whether Python reads each of these as a number, or it is missing."""
    return _all_python(column) or all(map(is_plain, column))


def is_plain(text: str) -> bool:
    """Whether Python reads this as a number, or it is missing."""
    text = text.strip()
    return text in MISSING or bool("\u2212" not in text and (_PLAIN.fullmatch(text) or _BEYOND.fullmatch(text)))


def as_numbers(column: Sequence[str], marks: Marks) -> np.ndarray | None:
    """Texts [n] -> float64 [n], NaN where missing; None unless every other text is a number with these marks, all with
    the same symbol, or none, before and after it."""
    if _all_python(column) and (marks.decimal == "." or not any("." in text for text in column)):
        return np.array(column, dtype=np.float64)  # all marks agree on these
    values, pattern, symbols = np.full(len(column), np.nan), marks.pattern(), set()
    for place, text in enumerate(column):
        text = text.strip()
        if text in MISSING:
            continue
        symbol, number = _number(text)
        symbols.add(symbol)
        if len(symbols) > 1:
            return None
        if pattern.fullmatch(number):
            values[place] = float(marks.plain(number))
        elif _BEYOND.fullmatch(number):
            values[place] = float(number)
        else:
            return None
    return values


def symbol_of(column: Sequence[str]) -> str:
    """What stands beside the first number of a column, "" being nothing."""
    first = next((text.strip() for text in column if text.strip() not in MISSING), "")
    return "".join(_number(first)[0]) if is_numeral(first) else ""


def marks_of(
    columns: Mapping[str, Sequence[str]],
    decimal: str | None = None,
    thousands: str | None = None,
    where: str = "the table",
    usual: Marks | None = None,
    semicolons: bool = False,
) -> Marks:
    """The marks that the numbers of these columns are written with, as far as they are not given.

    Columns that are no numbers, whatever the marks, are not looked at.

    Args:
        usual: the marks of earlier tables, which are taken where all numbers can be read with them.
        semicolons: whether these part the columns, as where commas are decimal marks and points part thousands.

    Raises:
        InputError: the numbers mean one thing with some marks and another with others.
    """
    allowed = [
        m for m in _MARKS if decimal in (None, m.decimal) and (thousands is None or m.thousands in ("", thousands))
    ]
    if not allowed:
        allowed = [Marks(decimal or ".", thousands or "")]
    if thousands:
        return Marks(decimal or next((m.decimal for m in allowed if m.thousands), "."), thousands)
    read = {name: {m: v for m in allowed if (v := as_numbers(texts, m)) is not None} for name, texts in columns.items()}
    read = {
        name: values for name, values in read.items() if values and not all(np.isnan(v).all() for v in values.values())
    }
    fitting = [marks for marks in allowed if all(marks in values for values in read.values())]
    if usual is not None:
        alike = [marks for marks in fitting if marks.decimal == usual.decimal]
        fitting = [usual] if usual in fitting else alike or fitting
    if not fitting:
        return Marks(decimal or ".")
    if decimal is None and PLAIN in fitting:
        in_doubt = semicolons and usual is None and any(_may_part_thousands(columns[name]) for name in read)
        if not in_doubt or _POINTS not in fitting:
            return PLAIN
        fitting = [PLAIN, _POINTS]
    for name, values in read.items():
        for other in fitting[1:]:
            apart = ~((values[fitting[0]] == values[other]) | np.isnan(values[other]))
            if apart.any():
                row = int(np.argmax(apart))
                raise InputError(
                    f"{where}, column {name!r}: {columns[name][row]!r} is {values[fitting[0]][row]:.10g} or "
                    f"{values[other][row]:.10g}, depending on what its marks mean",
                    "say it: --decimal , where the comma (or --decimal . where the point) is the decimal mark, and "
                    "--thousands with what stands between thousands",
                )
    return fitting[0]


def _may_part_thousands(column: Sequence[str]) -> bool:
    """Whether some numbers have a point before their last three digits, and the others are whole and below 1000."""
    numbers = [text.strip() for text in column if text.strip() not in MISSING]
    parted = sum(_PARTED.fullmatch(number) is not None for number in numbers)
    below = sum(_BELOW.fullmatch(number) is not None for number in numbers)
    return parted > 0 and below > 0 and parted + below == len(numbers)


def numeric_columns(frame: pd.DataFrame, marks: Marks, where: str) -> pd.DataFrame:
    """A table of texts with the columns that are numbers, or true and false, as such; symbols beside numbers are left
    out with a warning."""
    import pandas as pd

    made: dict[int, pd.Series] = {}
    symbols: dict[str, str] = {}
    for place in range(frame.shape[1]):
        texts = frame.iloc[:, place].fillna("").astype(str)
        words = set(texts.str.strip().str.lower())
        if words <= {"true", "false"}:
            made[place] = texts.str.strip().str.lower() == "true"
            continue
        values = as_numbers(texts.tolist(), marks)
        text = frame.iloc[:, place].where(~texts.str.strip().isin(MISSING))
        made[place] = text if values is None else pd.Series(values, index=frame.index)
        if values is not None and (symbol := symbol_of(texts.tolist())):
            symbols[str(frame.columns[place])] = symbol
    if symbols:
        shown = ", ".join(f"{name!r} in {symbol}" for name, symbol in list(symbols.items())[:6])
        warnings.warn(f"{where}: numbers are read as they stand, without their symbols: {shown}", stacklevel=2)
    return pd.DataFrame(made, index=frame.index).set_axis(frame.columns, axis=1)


def _number(text: str) -> tuple[tuple[str, str], str]:
    """The symbols before and after a number, and the number itself."""
    parts = _AFFIXED.fullmatch(text)
    if parts is None:
        return ("", ""), text
    return (parts["before"], parts["after"] or parts["letter"] or ""), parts["number"]


def _all_python(column: Sequence[str]) -> bool:
    """Whether every text is a finite number just as Python writes it; one match of all, as long tables have many."""
    lines = "".join(f"{text}\n" for text in column)
    return bool(column) and lines.count("\n") == len(column) and _LINES.fullmatch(lines) is not None


_PLAIN = PLAIN.pattern()
# Points between thousands, as where commas are decimal marks. No such number begins with 0.
_POINTS = Marks(",", ".")
_PARTED, _BELOW = re.compile(r"[+\u2212-]?[1-9]\d{0,2}(?:\.\d{3})+"), re.compile(r"[+\u2212-]?\d{1,3}")
_LINES = re.compile(r"(?:[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?\n)*+", re.ASCII)

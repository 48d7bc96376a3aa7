"""What the first rows of a table of texts are: names, units of measure, or values already."""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from ..errors import InputError, listed
from .numerals import MISSING, is_numeral

_MOST_UNIT_ROWS = 3
# So many rows can tell a count that holds for all from one that happens to.
_MOST_PREAMBLE = 50
_HINT = "give every column one name, or say by --sep and --decimal how its values are told apart"


@dataclass(frozen=True)
class Layout:
    """How a table of texts is laid out.

    Attributes:
        names: of its columns, without an empty last one.
        fields: how many fields a row of values has, the names of rows and an empty last one among them.
        first: the first row of values, counted from 0.
        row_names: whether the first field of a row is its name.
    """

    names: tuple[str, ...]
    fields: int
    first: int
    row_names: bool


def layout_of(rows: Sequence[Sequence[str]], where: str, wanted: Sequence[str] = ()) -> Layout:
    """The layout of a table by its first rows.

    Args:
        where: the file, for messages.
        wanted: names that are looked for; where they are running numbers, a first row of numbers is no header.

    Raises:
        InputError: the header names more or fewer columns than rows have fields, or a row has another number of them.
    """
    start, rows = _without_preamble(rows, where)
    fields = _usual_count(rows[1:]) if len(rows) > 1 else len(rows[0])
    if _is_data(rows, wanted):
        names = tuple(map(str, range(fields)))
        if not wanted:
            warnings.warn(
                f"{where} has no header: its first row is values like the others, and the columns are called "
                f"{listed(names)}; write a row of names above it to call them otherwise",
                stacklevel=2,
            )
        return _checked(rows, Layout(_without_empty_last(names, rows), fields, start, False), 0, where)
    names, row_names = _names(rows, fields, where)
    units = _unit_rows(rows)
    if units:
        warnings.warn(f"{where}: the row below the names is no values and is left out: {listed(rows[1])}", stacklevel=2)
    layout = Layout(names, fields, start + 1 + units, row_names)
    if len(rows) > 1 and not row_names and all(map(is_numeral, names)) and not _are_surely_names(rows):
        warnings.warn(
            f"{where}: all names of columns are numbers ({listed(names)}); if the first row is values, write a row of "
            "names above it",
            stacklevel=2,
        )
    return _checked(rows, layout, 1 + units, where)


def _without_preamble(rows: Sequence[Sequence[str]], where: str) -> tuple[int, Sequence[Sequence[str]]]:
    """Lines of prose above the header have fewer fields than it, empty last ones aside: sheets fill short rows up."""
    filled = [_filled_fields(row) for row in rows]
    fields = _usual(filled)
    place = next((place for place, count in enumerate(filled[:_MOST_PREAMBLE]) if count >= fields), 0)
    words = not any(is_numeral(field) for field in rows[place] if field.strip())
    if place == 0 or not words or place + 1 >= len(rows):
        return 0, rows
    lines = "line above the names is" if place == 1 else "lines above the names are"
    prose = listed(" ".join(row).strip() for row in rows[:place])
    warnings.warn(f"{where}: {place} {lines} left out: {prose}", stacklevel=2)
    return place, rows[place:]


def _names(rows: Sequence[Sequence[str]], fields: int, where: str) -> tuple[tuple[str, ...], bool]:
    """The names of the columns, and whether rows have a name before their values."""
    header, values = rows[0], rows[1:]
    if len(header) == fields + 1 and not header[-1].strip() and values:
        header = header[:-1]
    if len(header) == fields - 1:
        if all(not row[-1].strip() for row in values if len(row) == fields):
            return _named(header), False
        if _are_row_names([row[0] for row in values if len(row) == fields]):
            return _named(header), True
    if len(header) != fields:
        raise InputError(
            f"{where}: the header names {len(header)} {'column' if len(header) == 1 else 'columns'} "
            f"({listed(header)}) and the rows have {fields} {'field' if fields == 1 else 'fields'}",
            _HINT,
        )
    return _without_empty_last(_named(header), rows), False


def _named(header: Sequence[str]) -> tuple[str, ...]:
    """What has no name is called as pandas calls it."""
    return tuple(name if name.strip() else f"Unnamed: {place}" for place, name in enumerate(header))


def _without_empty_last(names: tuple[str, ...], rows: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """The names without a last one of a column that is empty throughout: rows may end in a separator."""
    unnamed = not rows[0][-1].strip() if rows[0] else False
    return names[:-1] if len(names) > 1 and unnamed and all(not row[-1].strip() for row in rows if row) else names


def _are_row_names(fields: Sequence[str]) -> bool:
    """Whether these are names of rows: all different, and words or running numbers."""
    if len(set(fields)) != len(fields):
        return False
    if not all(map(is_numeral, fields)):
        return not any(map(is_numeral, fields))
    if not all(field.strip().isdecimal() for field in fields) or len(fields) < 2:
        return False
    numbers = sorted(int(field) for field in fields)
    return numbers[-1] - numbers[0] == len(numbers) - 1


def _is_data(rows: Sequence[Sequence[str]], wanted: Sequence[str]) -> bool:
    """Whether the first row is beyond doubt values like the rows below it.

    A row of numbers may name wavelengths or doses. It is values where each number lies among those of its column and
    they neither rise nor fall from column to column, or are written with as many digits as those.
    """
    first, below = rows[0], rows[1:]
    if not below or not first or any(field.strip() and not is_numeral(field) for field in first):
        return False
    if wanted and list(wanted) == [str(place) for place in range(len(wanted))] and not set(wanted) <= set(first):
        return True
    columns = [[_value(row[place]) for row in below if len(row) > place] for place in range(len(first))]
    inside = [_is_among(_value(field), values) for field, values in zip(first, columns, strict=True)]
    fractions = any(not field.strip().isdecimal() for field in first)
    told_apart = len(first) > 2 and not _is_monotone([_value(field) for field in first])
    return fractions and all(inside) and (told_apart or _are_written_alike(first, below))


def _are_written_alike(first: Sequence[str], below: Sequence[Sequence[str]]) -> bool:
    """Whether each field has the digits after its mark that most fields below it have, and at least one has three."""
    digits = [_fraction(field) for field in first]
    usual = [_usual([_fraction(row[place]) for row in below if len(row) > place]) for place in range(len(first))]
    return max(digits) >= 3 and digits == usual


def _fraction(field: str) -> int:
    """How many digits stand behind the last mark of a number."""
    return len(re.split("[.,]", field.strip().lower().partition("e")[0])[-1]) if re.search("[.,]", field) else 0


def _are_surely_names(rows: Sequence[Sequence[str]]) -> bool:
    """Whether names that are numbers are beyond doubt names: they number the columns, or they rise or fall as
    wavelengths do and none is like its column's values."""
    first, below = rows[0], rows[1:]
    if list(first) in ([str(place + start) for place in range(len(first))] for start in (0, 1)):
        return True
    columns = [[_value(row[place]) for row in below if len(row) > place] for place in range(len(first))]
    values = [_value(field) for field in first]
    outside = not any(_is_among(value, column) for value, column in zip(values, columns, strict=True))
    return len(first) > 2 and _is_monotone(values) and outside


def _is_among(value: float, values: Sequence[float]) -> bool:
    values = [each for each in values if each == each]
    if not values or value != value:
        return True
    low, high = min(values), max(values)
    # The first of n draws lies within a spread of the others' range but for odd ones.
    return low - (high - low) <= value <= high + (high - low)


def _is_monotone(values: Sequence[float]) -> bool:
    steps = [after - before for before, after in pairwise(values)]
    return all(step > 0 for step in steps) or all(step < 0 for step in steps)


def _value(text: str) -> float:
    """A number whose marks are not known yet, as far as its size goes."""
    text = text.strip().rstrip("%").replace("\u2212", "-")
    if text in MISSING:
        return float("nan")
    for plain in (text, text.replace(".", "").replace(",", ".") if "," in text else text):
        try:
            return float(plain)
        except ValueError:
            continue
    return float("nan")


def _unit_rows(rows: Sequence[Sequence[str]]) -> int:
    """How many rows below the names hold units of measure or types: words where the rows below them hold numbers."""
    for count in range(min(_MOST_UNIT_ROWS, len(rows) - 2), 0, -1):
        above, below = rows[1 : 1 + count], rows[1 + count :]
        if any(is_numeral(field) for row in above for field in row):
            continue
        numeric = [
            place
            for place in range(len(rows[0]))
            if all(is_numeral(row[place]) or row[place].strip() in MISSING for row in below if len(row) > place)
            and any(is_numeral(row[place]) for row in below if len(row) > place)
        ]
        told = all(any(row[p].strip() not in _GAPS for p in numeric if len(row) > p) for row in above)
        if numeric and told:
            return count
    return 0


_GAPS = MISSING | {"-", "--", "?", ".", "n.d.", "nd", "n.a.", "missing", "none", "na", "NIL", "x", "X", "*"}


def _checked(rows: Sequence[Sequence[str]], layout: Layout, first: int, where: str) -> Layout:
    for place, row in enumerate(rows[first:]):
        if len(row) != layout.fields:
            raise InputError(
                f"{where}: row {place} has {len(row)} {'field' if len(row) == 1 else 'fields'} where the others have "
                f"{layout.fields}: {listed(row)}",
                "mend the row, or say by --sep and --decimal how values are told apart",
            )
    return layout


def _filled_fields(row: Sequence[str]) -> int:
    """How many fields a row has up to the last that is not empty."""
    return max((place for place, field in enumerate(row, 1) if field.strip()), default=0)


def _usual_count(rows: Sequence[Sequence[str]]) -> int:
    return _usual([len(row) for row in rows])


def _usual(counts: Sequence[int]) -> int:
    return Counter(counts).most_common(1)[0][0]

"""Columns that number the rows or tell the time: they grow with the table, and a new table lies outside of the old."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..numerics import counting

if TYPE_CHECKING:
    import pandas as pd

_CLOCK = r"\d{1,2}:\d{2}(:\d{2}([.,]\d+)?)?(\s*[AaPp]\.?[Mm]\.?)?\s*(Z|UTC|[+-]\d{2}:?\d{2})?"
_MONTH = r"(jan|feb|mar|apr|may|mai|jun|jul|aug|sep|oct|okt|nov|dec|dez)[a-z]*\.?"
_DATE = (
    r"(\d{4}[-/.]\d{1,2}[-/.]\d{1,2}|\d{1,2}[-/.]\d{1,2}[-/.]\d{2,4}"
    rf"|\d{{1,2}}[-. ]+{_MONTH}[-. ,]+\d{{2,4}}|{_MONTH} \d{{1,2}},? \d{{4}})"
)
_TIMES = re.compile(rf"([a-z]{{2,4}},?\s+)?({_DATE}([T ,]+\s*{_CLOCK})?|{_CLOCK})", re.IGNORECASE)


def no_measurements(frame: pd.DataFrame, names: Sequence[str]) -> dict[str, str]:
    """Of these columns those that number the rows or tell the time beyond doubt, with what they do."""
    return (
        {name: why for name in names if (why := _what_it_does(frame[name], name))}
        if len(frame) >= counting.FEWEST
        else {}
    )


def in_order(frame: pd.DataFrame, names: Sequence[str]) -> list[str]:
    """Columns of numbers that rise, or fall, from each row to the next: clocks do, and so do sorted measurements."""
    columns = {name: _finite(frame[name]) for name in names} if len(frame) >= counting.FEWEST else {}
    return [name for name, values in columns.items() if values is not None and counting.is_in_order(values)]


def warn_of_counting(values: np.ndarray, where: str, features: Sequence[str] = ()) -> None:
    """Warn of columns of an array [n, d] that number the rows or tell the time."""
    for text in counting.doubts(values, where, features):
        warnings.warn(text, stacklevel=4)


def _what_it_does(column: pd.Series, name: str) -> str:
    """What a column does instead of measuring; "" where it may measure."""
    import pandas as pd

    if pd.api.types.is_datetime64_any_dtype(column) or pd.api.types.is_timedelta64_dtype(column):
        return "tells the time"
    values = _finite(column)
    if values is None:
        return _what_words_do(column)
    # Whole numbers beyond 2^53 are written out for identifiers alone.
    if pd.api.types.is_integer_dtype(column) and np.abs(values).max() >= 2.0**53 and column.nunique() > len(column) / 2:
        return "numbers the rows"
    return counting.what_it_does(values, name)


# What programs write where a value is missing.
_FILLERS = np.array([-99, 99, -999, 999, -9999, 9999, -99999, 99999, -999999, 999999, -32768, 1e20, -1e20, 1e30, -1e30])
# So many times, and so far from all other values, in extents of those.
_FEWEST_FILLED, _FAR = 2, 5.0
# Any other number does so from so many times on, among measurements of so many sizes: few sizes are codes or states.
_FEWEST_OF_ANY, _FEWEST_SIZES = 3, 5


def filled(frame: pd.DataFrame, names: Sequence[str]) -> dict[str, str]:
    """Columns where one number, the least or the largest, comes again and again, far from all others, with how often:
    it may mean a missing value."""
    return {
        name: text for name in names if (values := _finite(frame[name])) is not None and (text := _filler_of(values))
    }


def _filler_of(values: np.ndarray) -> str:
    for value in (values.min(), values.max()):
        at = values == value
        others = values[~at]
        if not _may_fill(value, int(at.sum()), others):
            continue
        away = max(others.min() - value, value - others.max())
        if away > _FAR * np.ptp(others):
            return f"{int(at.sum())} of {len(values)} values are {value:g}"
    return ""


def _may_fill(value: float, times: int, others: np.ndarray) -> bool:
    """Whether a value that comes so often beside others may stand for missing ones."""
    if value in _FILLERS:
        return times >= _FEWEST_FILLED and len(others) >= _FEWEST_FILLED
    # A column that is mostly 0 counts what is rare.
    return _FEWEST_OF_ANY <= times <= len(others) and len(np.unique(others)) >= _FEWEST_SIZES


def _what_words_do(column: pd.Series) -> str:
    import pandas as pd

    if pd.api.types.is_numeric_dtype(column) or pd.api.types.is_bool_dtype(column):
        return ""  # numbers that are missing, or true and false
    texts = column.dropna().astype(str).str.strip()
    if len(texts) and texts.map(lambda text: _TIMES.fullmatch(text) is not None).all():
        return "tells the time"
    distinct = len(texts) == len(column) and texts.nunique() == len(texts)
    return "names the rows" if distinct and pd.to_numeric(texts, errors="coerce").isna().all() else ""


def _finite(column: pd.Series) -> np.ndarray | None:
    """The numbers of a column as float64; None where it is not one of finite numbers."""
    import pandas as pd

    kinds = pd.api.types
    if kinds.is_bool_dtype(column) or not kinds.is_numeric_dtype(column) or kinds.is_complex_dtype(column):
        return None
    values = column.to_numpy(dtype=np.float64, na_value=np.nan)
    return values if np.isfinite(values).all() else None

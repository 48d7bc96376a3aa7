"""Columns that number the rows or tell the time: they grow with the table, and a new table lies outside of the old."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

# In fewer rows a constant step or an order can be chance.
_FEWEST, _FEWEST_IN_ORDER = 5, 20
# Of rounded times every step is still the same to a part of it.
_ROUNDED = 0.02
# Where this many values may be expected to meet by chance, and none do, they number the rows.
_EXPECTED_TIES = 20.0
_NUMBER_NAMES = re.compile(
    r"(unnamed(:.*)?|index|level_\d+|__index_level_\d+__|row_?names?|#|x\.?1?|id|uid|pk|key|nr\.?|no\.?|num|number|nummer|"
    r"(row|line|part|sample|record|item|piece|serial|unit|scan|cycle|shot|run|case|batch|entry|lfd|seq|sequence)"
    r"[ _.-]*(id|idx|index|nr\.?|no\.?|num|number|nummer|counter|#)?|.*[ _.-]id|.*[ _.-]idx|idx|.*\SId|.*\SID)",
    re.IGNORECASE,
)
# A time such as "cycle time" or "rise_time" is a measurement.
_TIME_NAMES = re.compile(
    r"((start|end|begin|stop|event|log|local|utc|system|unix|test|measure|measurement|record|recording|sample|acquisition|"
    r"elapsed|creation)[ _.-]?)?(time|times|time_?stamp|ts|t|date|datum|zeit|uhrzeit|date_?time|epoch|clock|elapsed)"
    r"([ _.-]*[\[(]?(utc|local|s|ms|us|ns|sec|seconds|unix|h|min)[\])]?)?|.*time_?stamp.*|.*[ _]at",
    re.IGNORECASE,
)
# Seconds since 1970 in the years 1990 to 2100, and thousandths, millionths and billionths of them.
_EPOCH = (6.3e8, 4.1e9)
_CLOCK = r"\d{1,2}:\d{2}(:\d{2}([.,]\d+)?)?(\s*[AaPp]\.?[Mm]\.?)?\s*(Z|UTC|[+-]\d{2}:?\d{2})?"
_MONTH = r"(jan|feb|mar|apr|may|mai|jun|jul|aug|sep|oct|okt|nov|dec|dez)[a-z]*\.?"
_DATE = (
    r"(\d{4}[-/.]\d{1,2}[-/.]\d{1,2}|\d{1,2}[-/.]\d{1,2}[-/.]\d{2,4}"
    rf"|\d{{1,2}}[-. ]+{_MONTH}[-. ,]+\d{{2,4}}|{_MONTH} \d{{1,2}},? \d{{4}})"
)
_TIMES = re.compile(rf"([a-z]{{2,4}},?\s+)?({_DATE}([T ,]+\s*{_CLOCK})?|{_CLOCK})", re.IGNORECASE)


def no_measurements(frame: pd.DataFrame, names: Sequence[str]) -> dict[str, str]:
    """Of these columns those that number the rows or tell the time beyond doubt, with what they do."""
    return {name: why for name in names if (why := _what_it_does(frame[name], name))} if len(frame) >= _FEWEST else {}


def in_order(frame: pd.DataFrame, names: Sequence[str]) -> list[str]:
    """Columns of numbers that rise, or fall, from each row to the next: clocks do, and so do sorted measurements."""
    columns = {name: _finite(frame[name]) for name in names} if len(frame) >= _FEWEST else {}
    return [name for name, values in columns.items() if values is not None and _is_in_order(np.diff(values))]


def warn_of_counting(values: np.ndarray, where: str, features: Sequence[str] = ()) -> None:
    """Warn of columns of an array [n, d] that number the rows or tell the time."""
    import pandas as pd

    names = list(features) or [str(column) for column in range(values.shape[1])]
    frame = pd.DataFrame(values, columns=names)
    for name, what in no_measurements(frame, names).items():
        warnings.warn(
            f"{where}: column {name!r} {what}; other rows lie outside of it: leave it out unless it is a measurement",
            stacklevel=4,
        )


def _is_in_order(steps: np.ndarray) -> bool:
    long = len(steps) + 1 >= _FEWEST_IN_ORDER
    return (long and bool((steps > 0).all() or (steps < 0).all())) or _is_even(steps)


def _what_it_does(column: pd.Series, name: str) -> str:
    """What a column does instead of measuring; "" where it may measure."""
    import pandas as pd

    if pd.api.types.is_datetime64_any_dtype(column) or pd.api.types.is_timedelta64_dtype(column):
        return "tells the time"
    values = _finite(column)
    if values is None:
        return _what_words_do(column)
    steps = np.diff(values)
    whole = bool((values == np.round(values)).all() and np.abs(values).max() < 2.0**53)
    named = _NUMBER_NAMES.fullmatch(name.strip()) is not None
    if _is_even(steps) and (whole or named):
        return "counts the rows"
    if _tells_time(values, steps, name):
        return "tells the time"
    if not whole or len(np.unique(values)) < len(values):
        return ""
    return "numbers the rows" if named or _is_numbering(values, steps) else ""


def _what_words_do(column: pd.Series) -> str:
    import pandas as pd

    if pd.api.types.is_numeric_dtype(column) or pd.api.types.is_bool_dtype(column):
        return ""  # numbers that are missing, or true and false
    texts = column.dropna().astype(str).str.strip()
    if len(texts) and texts.map(lambda text: _TIMES.fullmatch(text) is not None).all():
        return "tells the time"
    distinct = len(texts) == len(column) and texts.nunique() == len(texts)
    return "names the rows" if distinct and pd.to_numeric(texts, errors="coerce").isna().all() else ""


def _is_even(steps: np.ndarray) -> bool:
    """Whether all steps are the same, to rounding."""
    step = float(np.median(steps))
    drift = np.abs(np.cumsum(steps - steps.mean())).max()
    exact = bool((steps == step).all())
    return step != 0 and (exact or (len(steps) >= 2 * _FEWEST and drift <= _ROUNDED * abs(step)))


def _tells_time(values: np.ndarray, steps: np.ndarray, name: str) -> bool:
    forward = bool((steps >= 0).all()) and values[-1] > values[0]
    named = _TIME_NAMES.fullmatch(name.strip()) is not None
    first, last = values.min(), values.max()
    since_1970 = any(_EPOCH[0] * unit <= first and last <= _EPOCH[1] * unit for unit in (1.0, 1e3, 1e6, 1e9))
    if since_1970 and (forward or (named and len(np.unique(values)) > len(values) / 2)):
        return True
    return (named and forward) or _are_dates(values, forward or named)


def _are_dates(values: np.ndarray, likely: bool) -> bool:
    """Whether these are days written as in 20240131."""
    if not likely or (values != np.round(values)).any() or values.min() < 19000101 or values.max() > 21001231:
        return False
    month, day = values // 100 % 100, values % 100
    return bool(((month >= 1) & (month <= 12) & (day >= 1) & (day <= 31)).all())


def _is_numbering(values: np.ndarray, steps: np.ndarray) -> bool:
    """Whether whole numbers, no two alike, number the rows: in order with most steps the same and none smaller, or so
    close together that measurements would have met."""
    n, extent = len(values), float(np.ptp(values)) + 1
    if n >= 2 * _FEWEST and (steps > 0).all():
        step = steps.min()
        return bool((steps == step).mean() >= 0.5 and (steps % step == 0).all())
    # n values at random among `extent` have about n^2 / (2 extent) pairs alike; measurements, which crowd, have more.
    return n * (n - 1) / (2 * extent) >= _EXPECTED_TIES or (n >= 2 * _FEWEST and math.isclose(extent, n))


def _finite(column: pd.Series) -> np.ndarray | None:
    """The numbers of a column as float64; None where it is not one of finite numbers."""
    import pandas as pd

    kinds = pd.api.types
    if kinds.is_bool_dtype(column) or not kinds.is_numeric_dtype(column) or kinds.is_complex_dtype(column):
        return None
    values = column.to_numpy(dtype=np.float64, na_value=np.nan)
    return values if np.isfinite(values).all() else None

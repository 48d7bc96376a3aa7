"""Columns that count the rows of a table or tell the time instead of measuring: new rows lie outside of them."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import numpy as np

# In fewer rows a constant step or an order can be chance.
FEWEST, _FEWEST_IN_ORDER = 5, 20
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


def what_it_does(values: np.ndarray, name: str = "") -> str:
    """What a column of finite numbers [n] does instead of measuring; "" where it may measure."""
    whole = bool((values == np.round(values)).all() and np.abs(values).max() < 2.0**53)
    named = _NUMBER_NAMES.fullmatch(name.strip()) is not None
    if not (whole or named or _lies_since_1970(values) or _is_named_time(name)):
        return ""  # at once, for tables of many columns
    steps = np.diff(values)
    if _is_even(steps) and (whole or named):
        return "counts the rows"
    if _tells_time(values, steps, name):
        return "tells the time"
    if not whole or len(np.unique(values)) < len(values):
        return ""
    return "numbers the rows" if named or _is_numbering(values, steps) else ""


def doubts(values: np.ndarray, where: str, features: Sequence[str] = ()) -> list[str]:
    """A sentence for each column of finite numbers [n, d] that numbers the rows or tells the time."""
    if len(values) < FEWEST:
        return []
    names = list(features) or [str(column) for column in range(values.shape[1])]
    columns = [np.asarray(column, dtype=np.float64) for column in np.transpose(values)]
    said = {name: what_it_does(column, name) for name, column in zip(names, columns, strict=True)}
    return [
        f"{where}: column {name!r} {what}; other rows lie outside of it: leave it out unless it is a measurement"
        for name, what in said.items()
        if what
    ]


def is_in_order(values: np.ndarray) -> bool:
    """Whether values [n] rise, or fall, from each row to the next, in so many rows that this is no chance."""
    steps = np.diff(values)
    ordered = bool((steps > 0).all() or (steps < 0).all())
    return ordered and (len(values) >= _FEWEST_IN_ORDER or _is_even(steps))


def _is_even(steps: np.ndarray) -> bool:
    """Whether all steps are the same, to rounding."""
    step = float(np.median(steps))
    drift = np.abs(np.cumsum(steps - steps.mean())).max()
    exact = bool((steps == step).all())
    return step != 0 and (exact or (len(steps) >= 2 * FEWEST and drift <= _ROUNDED * abs(step)))


def _tells_time(values: np.ndarray, steps: np.ndarray, name: str) -> bool:
    forward = bool((steps >= 0).all()) and values[-1] > values[0]
    named = _is_named_time(name)
    if _lies_since_1970(values) and (forward or (named and len(np.unique(values)) > len(values) / 2)):
        return True
    return (named and forward) or _are_dates(values, forward or named)


def _is_named_time(name: str) -> bool:
    return _TIME_NAMES.fullmatch(name.strip()) is not None


def _lies_since_1970(values: np.ndarray) -> bool:
    first, last = values.min(), values.max()
    return any(_EPOCH[0] * unit <= first and last <= _EPOCH[1] * unit for unit in (1.0, 1e3, 1e6, 1e9))


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
    if n >= 2 * FEWEST and (steps > 0).all():
        step = steps.min()
        return bool((steps == step).mean() >= 0.5 and (steps % step == 0).all())
    # n values at random among `extent` have about n^2 / (2 extent) pairs alike; measurements, which crowd, have more.
    return n * (n - 1) / (2 * extent) >= _EXPECTED_TIES or (n >= 2 * FEWEST and math.isclose(extent, n))

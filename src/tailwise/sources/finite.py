"""Numbers of tables are finite and fit into float32, or the first that does not is named."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..errors import InputError


def check_numbers(values: np.ndarray, columns: Sequence[str], where: str, first: int = 0) -> np.ndarray:
    """The same float64 numbers [n, d] of these columns, whose rows are counted from `first`.

    Raises:
        InputError: a value is missing, infinite or too large; the first is named.

    Examples:
        >>> check_numbers(np.array([[1.0], [np.nan]]), ["width"], "parts.parquet")
        Traceback (most recent call last):
        tailwise.errors.InputError: parts.parquet: row 1, column 'width': nan is not a finite number (1 such values) (fill, rescale or drop them first)
    """  # noqa: E501
    bad = ~(np.abs(values) <= float(np.finfo(np.float32).max))
    if bad.any():
        row, column = (int(i) for i in np.argwhere(bad)[0])
        value = values[row, column]
        what = "is too large for float32" if np.isfinite(value) else "is not a finite number"
        raise InputError(
            f"{where}: row {first + row}, column {columns[column]!r}: {value:g} {what} ({int(bad.sum())} such values)",
            "fill, rescale or drop them first",
        )
    return values

"""What takes time with the cube of a size says how long before it begins, and is refused where that is days."""

from __future__ import annotations

from ...core import messages
from ...errors import InputError

# Seconds of one core for a matrix of 1 x 1, measured at sides of 500 to 2,000 in double precision.
EIGENVECTORS, SOLUTION = 2.5e-10, 1e-10
_MINUTE, _DAY = 60, 86_400


def announce(what: str, side: int, count: int = 1, of_one: float = EIGENVECTORS, fewer: str = "columns") -> None:
    """Say how long `count` matrices of a side take, if it is more than a minute.

    Args:
        what: is done, as the subject of a sentence.
        of_one: `EIGENVECTORS` or `SOLUTION`, for what is asked of each matrix.
        fewer: what there should be less of.

    Raises:
        InputError: it is more than a day.

    Examples:
        >>> announce("a covariance of 100,000 features", 100_000)
        Traceback (most recent call last):
        tailwise.errors.InputError: a covariance of 100,000 features takes about 69 hours (choose fewer columns)
    """
    seconds = of_one * count * float(side) ** 3
    if seconds > _DAY:
        raise InputError(f"{what} takes about {seconds / 3_600:,.0f} hours", f"choose fewer {fewer}")
    if seconds > _MINUTE:
        messages.progress(f"{what} takes about {seconds / _MINUTE:,.0f} minutes; choose fewer {fewer} for less")

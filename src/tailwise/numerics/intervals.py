"""Shares with their intervals."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import scipy


def share_of(hits: Any) -> dict[str, Any]:
    """How many of `hits` [n] are true, with a 95 % Wilson interval of their share; 0 to 1 where n is 0."""
    count, of = int(np.sum(hits)), len(hits)
    if not of:
        return {"count": 0, "of": 0, "share": None, "low": 0.0, "high": 1.0}
    low, high = _wilson(count, of)
    return {"count": count, "of": of, "share": count / of, "low": low, "high": high}


def _wilson(count: int, of: int) -> tuple[float, float]:
    """Written out, because `scipy.stats`, which has it, takes most of a second to import."""
    z = float(scipy.special.ndtri(0.975))
    middle, half = count + z * z / 2, z * math.sqrt(count * (of - count) / of + z * z / 4)
    low, high = (middle - half) / (of + z * z), (middle + half) / (of + z * z)
    return low if count else 0.0, high if count < of else 1.0

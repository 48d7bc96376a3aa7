"""Shares with their intervals, and whether one is larger than another."""

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


def chance_of_more(hits: int, of: int, other_hits: int, other_of: int) -> float:
    """The chance that so many of all hits are among the first `of`, or more, if both shares are one: Fisher's exact
    test, one-sided. Written out for the same reason as the interval."""
    every, all_hits = of + other_of, hits + other_hits
    counts = np.arange(hits, min(of, all_hits) + 1)
    ways = _log_ways(of, counts) + _log_ways(other_of, all_hits - counts) - _log_ways(every, all_hits)
    return min(1.0, float(np.exp(ways).sum()))


def _log_ways(of: int, chosen: Any) -> Any:
    """Of how many ways there are to choose `chosen` [n] of so many, the logarithms [n]; none is left of too many."""
    left = of - np.asarray(chosen)
    ways = scipy.special.gammaln(of + 1) - scipy.special.gammaln(np.add(chosen, 1))
    return np.where(left < 0, -np.inf, ways - scipy.special.gammaln(np.maximum(left, 0) + 1))


def _wilson(count: int, of: int) -> tuple[float, float]:
    """Written out, because `scipy.stats`, which has it, takes most of a second to import."""
    z = float(scipy.special.ndtri(0.975))
    middle, half = count + z * z / 2, z * math.sqrt(count * (of - count) / of + z * z / 4)
    low, high = (middle - half) / (of + z * z), (middle + half) / (of + z * z)
    return low if count else 0.0, high if count < of else 1.0

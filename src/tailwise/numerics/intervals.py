"""Shares with their intervals."""

from __future__ import annotations

from typing import Any

import numpy as np


def share_of(hits: Any) -> dict[str, Any]:
    """How many of `hits` [n] are true, with a 95 % Wilson interval of their share; 0 to 1 where n is 0."""
    # Imported here: it takes longer than torch's smaller parts, and few need it.
    from scipy.stats import binomtest

    count, of = int(np.sum(hits)), len(hits)
    if not of:
        return {"count": 0, "of": 0, "share": None, "low": 0.0, "high": 1.0}
    interval = binomtest(count, of).proportion_ci(method="wilson")
    return {"count": count, "of": of, "share": count / of, "low": float(interval.low), "high": float(interval.high)}

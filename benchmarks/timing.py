"""What every script here measures with: interleaved repeats, medians, and one JSON line a result.

A ratio of medians from one interleaved run says more than seconds do: load and clock speed hit both sides alike.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

# Set before torch is imported: afterwards it is too late.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def interleaved(
    jobs: Mapping[str, Callable[[], Any]],
    repeats: int,
    clock: Callable[[], float] = time.perf_counter,
    untimed_rounds: int = 1,
) -> dict[str, list[float]]:
    """Seconds of each job in each repeat, run A B A B, after the untimed rounds."""
    for _ in range(untimed_rounds):
        for job in jobs.values():
            job()
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(repeats):
        for name, job in jobs.items():
            start = clock()
            job()
            seconds[name].append(clock() - start)
    return seconds


def show(benchmark: str, seconds: dict[str, list[float]], ratio_of: tuple[str, str], **facts: Any) -> float:
    """Print one JSON line with every median in seconds, their spread, and the ratio of the two named medians."""
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    ratio = medians[ratio_of[0]] / medians[ratio_of[1]]
    row = {
        "benchmark": benchmark,
        **facts,
        "ratio": round(ratio, 4),
        "ratio_of": " / ".join(ratio_of),
        "seconds": {name: round(value, 6) for name, value in medians.items()},
        "fastest": {name: round(min(values), 6) for name, values in seconds.items()},
        "repeats": len(next(iter(seconds.values()))),
        "threads": os.environ["OMP_NUM_THREADS"],
        "load": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
    }
    print(json.dumps(row), flush=True)
    return ratio

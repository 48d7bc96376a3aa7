"""The search for neighbours through cells beside the exact one: what it misses, and CPU seconds.

python benchmarks/neighbour_search.py [--samples 30000 50000 100000 200000] [--numbers 32]

One line of JSON a set: of 2,000 new samples the share of the ten true neighbours that are found, the rank correlation
of mean distances to them, and microseconds a sample. Sets without kinds are the worst case, fifty kinds an easy one.
"""

from __future__ import annotations

import argparse
import json
import os
import time

# Set before torch is imported: afterwards it is too late.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from torch import Tensor

from tailwise.numerics import metrics, neighbours

NEW, NEAR = 2_000, 10


def searched(new: Tensor, learnt: Tensor) -> tuple[Tensor, Tensor, float]:
    """Distances, places, and microseconds a sample."""
    started = time.process_time()
    distances, places = neighbours.nearest(new, learnt, NEAR)
    return distances, places, 1e6 * (time.process_time() - started) / len(new)


def measured(samples: int, kinds: int, numbers: int, seed: int = 3) -> dict[str, float]:
    generator = torch.Generator().manual_seed(seed)
    centres = 4 * torch.randn(kinds, numbers, generator=generator)
    kind = torch.randint(kinds, (samples + NEW,), generator=generator)
    points = centres[kind] + torch.randn(len(kind), numbers, generator=generator)
    new, learnt = points[:NEW], points[NEW:].clone()
    neighbours.EXACT_REFERENCE = 0
    searched(new, learnt)  # the cells are made once a set
    distances, places, cells_us = searched(new, learnt)
    with neighbours.exactly():
        exact_distances, exact, exact_us = searched(new, learnt)
    found = (exact[:, :, None] == places[:, None, :]).any(2).double().mean()
    ranks = metrics.rank_correlation(distances.mean(1).numpy(), exact_distances.mean(1).numpy())
    return {"found": float(found), "ranks": float(ranks), "cells_us": cells_us, "exact_us": exact_us}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", nargs="+", type=int, default=[30_000, 50_000, 100_000, 200_000])
    parser.add_argument("--numbers", type=int, default=32)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for samples in options.samples:
        for kinds in (1, 50):
            row = {"samples": samples, "kinds": kinds, "numbers": options.numbers}
            print(json.dumps(row | measured(samples, kinds, options.numbers)), flush=True)


if __name__ == "__main__":
    main()

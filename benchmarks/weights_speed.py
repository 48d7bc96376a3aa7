"""Time of `importance_weights` on a million scores against `torch.sort` of the same vector. Must be at most 2.

python benchmarks/weights_speed.py [--scores 1000000] [--repeats 15]
"""

from __future__ import annotations

import argparse
from functools import partial

import timing
import torch

from tailwise import importance_weights

DISTRIBUTIONS = {
    "gamma": lambda n, g: torch._standard_gamma(torch.full((n,), 2.0), generator=g),
    "lognormal": lambda n, g: torch.randn(n, generator=g).exp(),
    # Scores with neither mean nor variance: a few of them are millions of times the median.
    "cauchy": lambda n, g: (torch.randn(n, generator=g) / torch.randn(n, generator=g)).abs(),
    # Some scores below zero, so that they are read on the raw scale.
    "normal": lambda n, g: torch.randn(n, generator=g),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scores", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for name, draw in DISTRIBUTIONS.items():
        scores = draw(options.scores, torch.Generator().manual_seed(0))
        jobs = {"importance_weights": partial(importance_weights, scores), "torch.sort": partial(torch.sort, scores)}
        seconds = timing.interleaved(jobs, options.repeats)
        timing.show(
            "weights_speed",
            seconds,
            ("importance_weights", "torch.sort"),
            scores=options.scores,
            distribution=name,
            torch=torch.__version__,
        )


if __name__ == "__main__":
    main()

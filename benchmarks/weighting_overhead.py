"""Training time of the autoencoder with the default weighting against uniform weights. Must be at most 1.1.

    python benchmarks/weighting_overhead.py --data DIRECTORY [--epochs 30] [--samples 60000] [--repeats 3]

DIRECTORY holds fashion-mnist/train-images-idx3-ubyte.gz; TAILWISE_DATA stands in for it. Network, batch size and
schedule are the library's defaults for images; times are CPU seconds of the whole fit, self-checks included.
"""

from __future__ import annotations

import argparse
import gzip
import os
import time
from functools import partial
from pathlib import Path

import timing  # before torch: it sets the number of threads

# isort: split
import numpy as np
import torch

from tailwise.core.data import Data
from tailwise.detectors.autoencoder import AutoEncoder
from tailwise.training.fit import fit
from tailwise.training.options import Training
from tailwise.weights.default import parse_weighting


def fashion_mnist(directory: Path, samples: int) -> Data:
    """The first `samples` training images, [n, 1, 28, 28] in 0 to 1."""
    path = directory / "fashion-mnist" / "train-images-idx3-ubyte.gz"
    # IDX: a header of four big-endian 32-bit numbers, then one byte a pixel.
    pixels = np.frombuffer(gzip.decompress(path.read_bytes()), np.uint8, offset=16).reshape(-1, 1, 28, 28)
    pixels = pixels[:samples]
    return Data(torch.from_numpy(pixels.astype(np.float32) / 255), [str(i) for i in range(len(pixels))])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("TAILWISE_DATA"))
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--samples", type=int, default=60_000)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    if options.data is None:
        parser.error("say where fashion-mnist/ lies: --data DIRECTORY or TAILWISE_DATA")
    torch.set_num_threads(1)
    data = fashion_mnist(Path(options.data), options.samples)

    def train(weighting: str, epochs: int = options.epochs) -> None:
        fit(AutoEncoder(), data, parse_weighting(weighting), Training(epochs=epochs))

    train("auto", epochs=1)  # the first use of each kernel is slow
    jobs = {"auto": partial(train, "auto"), "uniform": partial(train, "")}
    seconds = timing.interleaved(jobs, options.repeats, clock=time.process_time, untimed_rounds=0)
    timing.show(
        "weighting_overhead",
        seconds,
        ("auto", "uniform"),
        samples=len(data),
        epochs=options.epochs,
        weighting=repr(parse_weighting("auto")),
        torch=torch.__version__,
    )


if __name__ == "__main__":
    main()

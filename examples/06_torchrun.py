"""Training in several processes, each with a part of the samples, ends like training in one with all of them.

    torchrun --nproc-per-node 2 examples/06_torchrun.py

Under torchrun each process runs `main`; without it this file starts two processes itself. Every process starts the
detector on the same samples, so that all scale them alike, and then learns its own part. `AllReduce` makes one
gradient of all processes, and one set of weights.
"""

import os
import tempfile

import torch
from torch import distributed, multiprocessing

from tailwise import Data, Training
from tailwise.detectors.autoencoder import AutoEncoder
from tailwise.training.fit import learn, start
from tailwise.training.hooks import AllReduce
from tailwise.weights.default import parse_weighting

random = torch.Generator().manual_seed(0)
rows = torch.randn(600, 8, generator=random) + 4 * (torch.arange(600) >= 540)[:, None]
samples = Data(rows, [str(row) for row in range(600)])
training = Training(epochs=40, batch_size=600, lr=5e-3)


def trained(part, hooks):
    detector = AutoEncoder(hidden=(16,), code=3)
    start(detector, samples, training)
    outcome = learn(detector, samples.take(part), parse_weighting("Importance()"), training, hooks=hooks)
    return torch.cat([p.detach().flatten() for p in detector.parameters()]), outcome


def main(rank=None, meeting="env://"):
    ranks = {} if rank is None else {"rank": rank, "world_size": 2}
    distributed.init_process_group("gloo", meeting, **ranks)
    rank, processes = distributed.get_rank(), distributed.get_world_size()
    together, outcome = trained(torch.arange(rank, 600, processes), [AllReduce()])
    if rank == 0:
        alone, _ = trained(torch.arange(600), [])
        print(f"{processes} processes, {len(outcome.scores)} samples in the first")
        print(f"largest difference of a parameter: {(together - alone).abs().max():.4f}")
    distributed.destroy_process_group()


if __name__ == "__main__":
    if "RANK" in os.environ:
        main()
    else:
        with tempfile.TemporaryDirectory() as folder:
            multiprocessing.spawn(main, (f"file://{folder}/meeting",), nprocs=2)

# Expected output:
# 2 processes, 300 samples in the first
# largest difference of a parameter: 0.0000

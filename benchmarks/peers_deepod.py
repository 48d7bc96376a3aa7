"""AUROC and CPU seconds of our DevNet against DeepOD's, on the same split, labels, layers, epochs, batches and rate.

Half of the normals train, with 2 % hidden anomalies among them and 10 labelled ones beside them; the test has the other
normals and all anomalies that training did not see. Features are standardised by the training rows, for both.

DeepOD 0.4.1 multiplies labels [b] with deviations [b, 1], which makes a table [b, b]: every row is trained on the
batch's mean label instead of its own. Labels given as a column [n, 1] put that right without a change of its code:
"deepod" is that, "deepod as it comes" is with labels [n] as its documentation has them. The ratio is DeepOD's seconds
over ours.

    python -m venv peers && peers/bin/pip install -r requirements.lock tqdm
    peers/bin/pip install --no-deps deepod==0.4.1 . && peers/bin/python benchmarks/peers_deepod.py 6_cardio.npz

Each npz holds X [n, d] and y [n], 1 an anomaly, as ADBench's do.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import timing  # before torch: it sets the number of threads

# isort: split
import numpy as np
import torch
from deepod.models.tabular import DevNet as DeepodDevNet

from tailwise.core.data import Data
from tailwise.core.inference import score
from tailwise.core.problem import Labelled
from tailwise.detectors.dev_net import DevNet
from tailwise.numerics.metrics import auroc
from tailwise.training.fit import fit
from tailwise.training.options import Training

_LEAST_TESTED = 5


@dataclass(frozen=True)
class Split:
    """Unlabelled rows, labelled anomalies, and test rows with labels (True: anomaly)."""

    train: np.ndarray
    known: np.ndarray
    test: np.ndarray
    labels: np.ndarray


def read_split(path: Path, seed: int, options: argparse.Namespace) -> Split:
    """One draw of a table; leaves where it has too few anomalies."""
    with np.load(path, allow_pickle=False) as table:
        rows, y = table["X"].astype(np.float32), table["y"].astype(int)
    generator = np.random.default_rng(seed)
    normals, anomalies = (generator.permutation(np.flatnonzero(y == label))[: options.most] for label in (0, 1))
    half = len(normals) // 2
    hidden = round(options.contamination / (1 - options.contamination) * half)
    parts = np.split(anomalies, [options.known, options.known + hidden])
    if len(parts[2]) < _LEAST_TESTED:
        raise SystemExit(f"{path.name} has {len(anomalies)} anomalies: too few to hide {hidden} and label some")
    train = rows[np.concatenate([normals[:half], parts[1]])]
    mean, scale = train.mean(0), train.std(0)
    rows = (rows - mean) / np.where(scale > 0, scale, 1)
    train = rows[np.concatenate([normals[:half], parts[1]])]
    test = rows[np.concatenate([normals[half:], parts[2]])]
    labels = np.repeat([False, True], [len(normals) - half, len(parts[2])])
    return Split(train, rows[parts[0]], test, labels)


def as_data(rows: np.ndarray) -> Data:
    return Data(torch.from_numpy(np.ascontiguousarray(rows)), [str(i) for i in range(len(rows))])


def ours(split: Split, seed: int, options: argparse.Namespace) -> tuple[float, np.ndarray]:
    """CPU seconds of the fit, and test scores."""
    detector = DevNet(hidden=tuple(options.hidden))
    train, known = as_data(split.train), Labelled(as_data(split.known))
    start = time.process_time()
    fit(
        detector,
        train,
        anomalies=known,
        seed=seed,
        training=Training(epochs=options.epochs, batch_size=options.batch_size, lr=options.lr),
    )
    seconds = time.process_time() - start
    return seconds, score(detector, as_data(split.test)).numpy()


def theirs(split: Split, seed: int, options: argparse.Namespace, column: bool) -> tuple[float, np.ndarray]:
    """CPU seconds of the fit, and test scores."""
    estimator = DeepodDevNet(
        epochs=options.epochs, batch_size=options.batch_size, lr=options.lr, device="cpu", verbose=0, random_state=seed,
        hidden_dims=",".join(map(str, options.hidden)),
    )  # fmt: skip
    rows = np.concatenate([split.train, split.known])
    labels = np.repeat([0, 1], [len(split.train), len(split.known)])
    start = time.process_time()
    estimator.fit(rows, labels[:, None] if column else labels)
    seconds = time.process_time() - start
    return seconds, estimator.decision_function(split.test)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="+", type=Path, help="npz files with X and y")
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--batch-size", type=int, default=512, help="that of the paper; DeepOD starts with 64")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--hidden", type=int, nargs="+", default=[20])
    parser.add_argument("--known", type=int, default=10, help="labelled anomalies")
    parser.add_argument("--contamination", type=float, default=0.02)
    parser.add_argument("--most", type=int, default=4_000, help="normals, and anomalies, taken of a table at most")
    options = parser.parse_args()
    torch.set_num_threads(1)
    contenders: dict[str, Callable[[Split, int], tuple[float, np.ndarray]]] = {
        "tailwise": lambda split, seed: ours(split, seed, options),
        "deepod": lambda split, seed: theirs(split, seed, options, column=True),
        "deepod as it comes": lambda split, seed: theirs(split, seed, options, column=False),
    }
    # The first fit of a process pays for what torch and DeepOD load late; nobody's seconds are to hold that.
    for run in contenders.values():
        run(read_split(options.tables[0], 0, options), 0)
    for path in options.tables:
        for draw in range(options.draws):
            split = read_split(path, draw, options)
            runs = {name: run(split, draw) for name, run in contenders.items()}
            timing.show(
                "peers_deepod",
                {name: [seconds] for name, (seconds, _) in runs.items()},
                ("deepod", "tailwise"),
                table=path.stem,
                draw=draw,
                rows=len(split.train),
                epochs=options.epochs,
                hidden=options.hidden,
                auroc={name: round(auroc(split.labels, scores), 4) for name, (_, scores) in runs.items()},
            )


if __name__ == "__main__":
    main()

"""CPU seconds of fitting, and AUROC, of our autoencoder and Deep SVDD against PyOD's on one table.

Same data, layers (64 - 32 and back), epochs, batch size, learning rate, one thread. Ours must fit at least 3 times as
fast at no lower AUROC; the ratio shown is PyOD's seconds over ours. PyOD's autoencoder has batch normalisation and
dropout unless told otherwise: it is measured with them ("pyod as it comes") and without ("pyod", the same network).

    python -m venv peers && peers/bin/pip install -r requirements.lock -r benchmarks/requirements.txt
    peers/bin/pip install --no-deps . && peers/bin/python benchmarks/peers_pyod.py [--repeats 3] [--batch-size 32]
"""

from __future__ import annotations

import argparse
import contextlib
import io
import time
from collections.abc import Callable
from dataclasses import dataclass

import timing  # before torch: it sets the number of threads

# isort: split
import numpy as np
import pyod
import torch
from pyod.models.auto_encoder import AutoEncoder as PyodAutoEncoder
from pyod.models.deep_svdd import DeepSVDD as PyodDeepSVDD

from tailwise.core.data import Data
from tailwise.core.detector import Detector
from tailwise.core.inference import score
from tailwise.detectors.autoencoder import AutoEncoder
from tailwise.detectors.deep_svdd import DeepSVDD
from tailwise.numerics.metrics import auroc
from tailwise.training.fit import fit
from tailwise.training.options import Training
from tailwise.weights.default import parse_weighting

FEATURES, KINDS, SPAN = 64, 8, 5


@dataclass(frozen=True)
class Table:
    """Training rows [n, 64]; test rows [m, 64] with labels (True: anomaly) and kinds (-1 for anomalies)."""

    train: np.ndarray
    test: np.ndarray
    labels: np.ndarray
    kinds: np.ndarray


def make_table(long_tailed: bool, seed: int, rows: int = 20_000) -> Table:
    """Kinds of normal that each fill a random flat of 5 dimensions, and anomalies that have left their kind's flat.

    Long-tailed training has 100 rows of the first kind for one of the last; the test is balanced either way.
    """
    generator = np.random.default_rng(seed)
    centres = generator.normal(0, 1.5, (KINDS, FEATURES))
    flats = np.stack([np.linalg.qr(generator.normal(size=(FEATURES, SPAN)))[0] for _ in range(KINDS)])

    def normals(kind: int, count: int) -> np.ndarray:
        along = generator.normal(0, 4, (count, SPAN)) @ flats[kind].T
        return centres[kind] + along + generator.normal(0, 0.5, (count, FEATURES))

    share = 100.0 ** (-np.arange(KINDS) / (KINDS - 1)) if long_tailed else np.ones(KINDS)
    counts = np.floor(rows * share / share.sum()).astype(int)
    counts[0] += rows - counts.sum()
    train = generator.permutation(np.concatenate([normals(kind, count) for kind, count in enumerate(counts)]))
    kinds = np.repeat(np.arange(KINDS), 500)
    test = np.concatenate([normals(kind, 500) for kind in range(KINDS)])
    strays = np.concatenate([normals(kind, 125) for kind in range(KINDS)])
    strays += generator.normal(0, 0.8, strays.shape)
    labels = np.repeat([False, True], [len(test), len(strays)])
    table = np.concatenate([test, strays]).astype(np.float32)
    return Table(train.astype(np.float32), table, labels, np.concatenate([kinds, np.full(len(strays), -1)]))


def _data(rows: np.ndarray) -> Data:
    return Data(torch.from_numpy(rows), [str(i) for i in range(len(rows))])


def ours(
    detector: Detector, weighting: str, options: argparse.Namespace, table: Table, seed: int
) -> tuple[float, np.ndarray]:
    """CPU seconds of the fit, and test scores."""
    train, test = map(_data, (table.train, table.test))
    start = time.process_time()
    fit(
        detector, train, parse_weighting(weighting),
        Training(epochs=options.epochs, batch_size=options.batch_size, lr=options.lr), seed=seed,
    )  # fmt: skip
    seconds = time.process_time() - start
    return seconds, score(detector, test).numpy()


def theirs(estimator: object, table: Table) -> tuple[float, np.ndarray]:
    """CPU seconds of the fit, and test scores."""
    with contextlib.redirect_stdout(io.StringIO()):
        start = time.process_time()
        estimator.fit(table.train)  # type: ignore[attr-defined]
        seconds = time.process_time() - start
        return seconds, estimator.decision_function(table.test)  # type: ignore[attr-defined]


Contender = Callable[[Table, int], tuple[float, np.ndarray]]


def contenders(options: argparse.Namespace) -> dict[str, dict[str, Contender]]:
    """{detector: {who: run}}; the first two of each are the pair that is compared."""
    shared = {"batch_size": options.batch_size, "verbose": 0}

    def pyod_autoencoder(seed: int, **regularisers: float) -> PyodAutoEncoder:
        return PyodAutoEncoder(epoch_num=options.epochs, lr=options.lr, random_state=seed, **shared, **regularisers)

    def pyod_deep_svdd(seed: int) -> PyodDeepSVDD:
        return PyodDeepSVDD(FEATURES, epochs=options.epochs, learning_rate=options.lr, random_state=seed, **shared)

    return {
        "autoencoder": {
            "tailwise": lambda table, seed: ours(AutoEncoder((64,), 32), "", options, table, seed),
            "pyod": lambda table, seed: theirs(pyod_autoencoder(seed, batch_norm=False, dropout_rate=0.0), table),
            "pyod as it comes": lambda table, seed: theirs(pyod_autoencoder(seed), table),
            "tailwise auto": lambda table, seed: ours(AutoEncoder((64,), 32), "auto", options, table, seed),
        },
        "deep-svdd": {
            "tailwise": lambda table, seed: ours(DeepSVDD((64,), 32), "", options, table, seed),
            "pyod": lambda table, seed: theirs(pyod_deep_svdd(seed), table),
            "tailwise auto": lambda table, seed: ours(DeepSVDD((64,), 32), "auto", options, table, seed),
        },
    }


def compare(detector: str, runs: dict[str, Contender], scenario: str, options: argparse.Namespace) -> None:
    """Fit every contender on each draw, in turn, and print one line."""
    for run in runs.values():
        run(make_table(False, 0, rows=1_000), 0)
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    overall: dict[str, list[float]] = {name: [] for name in runs}
    rarest: dict[str, list[float]] = {name: [] for name in runs}
    for seed in range(options.repeats):
        table = make_table(scenario == "long-tailed", seed)
        rare = table.labels | (table.kinds == KINDS - 1)
        for name, run in runs.items():
            spent, scores = run(table, seed)
            seconds[name].append(spent)
            overall[name].append(auroc(table.labels, scores))
            rarest[name].append(auroc(table.labels[rare], scores[rare]))
    timing.show(
        "peers_pyod",
        seconds,
        ("pyod", "tailwise"),
        detector=detector,
        scenario=scenario,
        epochs=options.epochs,
        batch_size=options.batch_size,
        lr=options.lr,
        auroc={name: round(float(np.mean(values)), 4) for name, values in overall.items()},
        auroc_of_each_draw={name: [round(value, 4) for value in values] for name, values in overall.items()},
        auroc_rarest_kind={name: round(float(np.mean(values)), 4) for name, values in rarest.items()},
        pyod=pyod.__version__,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3, help="draws, each fitted by every contender")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--lr", type=float, default=1e-3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for detector, runs in contenders(options).items():
        for scenario in ("clean", "long-tailed"):
            compare(detector, runs, scenario, options)


if __name__ == "__main__":
    main()

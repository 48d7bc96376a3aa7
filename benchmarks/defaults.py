"""Is what a person gets without asking ever worse than the simplest peer? `fit` and `triage` on ADBench's tables.

    python benchmarks/defaults.py tables FOLDER --seeds 21 22 23 --rows benchmarks/results/defaults.jsonl
    python benchmarks/defaults.py page --rows benchmarks/results/defaults.jsonl > benchmarks/defaults.md

FOLDER holds tables as npz files with X and y. A draw trains on half of the normals (at most 1,500), with a share of
anomalies hidden among them, and is tested on the other half and the anomalies that are not hidden (at most 3,000, in
their proportion). "default" is `tailwise.fit` with no option, "plain" the same detector with its own scores, no
weights and all samples in training. Triage ranks the training samples themselves: what is hidden should come first.
Labels are known to the test alone. Rows are appended; a draw that has its rows is not done again. The defaults were
chosen on seeds 0 and 1.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import scipy
import torch
from sklearn.covariance import LedoitWolf
from sklearn.ensemble import IsolationForest
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.neighbors import LocalOutlierFactor, NearestNeighbors
from sklearn.preprocessing import StandardScaler

import tailwise
from tailwise.benchmark.rows import append, read_all
from tailwise.core.data import Data
from tailwise.training import suspects

SHARES = (0.0, 0.01, 0.02, 0.05)
MOST_TRAINED, MOST_TESTED = 1_500, 3_000
FEWEST_ANOMALIES, FEWEST_NORMALS = 10, 20
# Scores of rows by what was fitted on others, or on themselves where these are None.
Peer = Callable[[np.ndarray, np.ndarray | None], np.ndarray]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("tables", "page"))
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--rows", type=Path, required=True)
    parser.add_argument("--seeds", nargs="+", type=int, default=[21, 22, 23])
    options = parser.parse_args()
    if options.what == "page":
        print(page(read_all(options.rows)), end="")
        return
    torch.set_num_threads(1)
    done = {(row["table"], row["hidden"], row["seed"]) for row in read_all(options.rows)}
    for path in sorted(options.folder.glob("*.npz")):
        for hidden in SHARES:
            for seed in options.seeds:
                if (path.stem, hidden, seed) not in done:
                    for row in list(rows_of(path, hidden, seed)):
                        append(options.rows, row)
                    print(path.stem, hidden, seed, file=sys.stderr)


def rows_of(path: Path, hidden: float, seed: int) -> Iterator[dict[str, Any]]:
    """A row for each method on one draw of a table."""
    train, is_hidden, test, labels = draw(path, hidden, seed)
    facts = {"table": path.stem, "hidden": hidden, "seed": seed, "trained": len(train), "tested": len(test)}
    for name, score in {"default": _default, "plain": _plain, **PEERS}.items():
        yield facts | {"task": "fit", "method": name} | _figures(labels, score(train, test))
    if hidden:
        for name, score in {"triage": _triage, **PEERS}.items():
            yield facts | {"task": "triage", "method": name} | _figures(is_hidden, score(train, None))


def draw(path: Path, hidden: float, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Training rows and which of them are hidden anomalies, test rows and their labels."""
    with np.load(path) as file:
        samples, labels = file["X"].astype(float), file["y"].ravel().astype(int)
    generator = np.random.default_rng(seed)
    normals, anomalies = (generator.permutation(np.flatnonzero(labels == label)) for label in (0, 1))
    train, rest = normals[: len(normals) // 2][:MOST_TRAINED], normals[len(normals) // 2 :]
    spare = anomalies[: len(anomalies) // 2] if hidden else anomalies[:0]
    chosen = spare[: max(1, round(hidden * len(train) / (1 - hidden)))] if hidden else spare
    if hidden:  # where anomalies are few, so are the normals that they hide among
        train = train[: max(FEWEST_NORMALS, round(len(chosen) * (1 - hidden) / hidden))]
    shown = anomalies[len(spare) :]
    kept = min(1.0, MOST_TESTED / (len(rest) + len(shown)))
    rest, shown = rest[: int(kept * len(rest))], shown[: max(FEWEST_ANOMALIES, int(kept * len(shown)))]
    train = generator.permutation(np.concatenate([train, chosen]))
    test = np.concatenate([rest, shown])
    return samples[train], np.isin(train, chosen), samples[test], labels[test] == 1


def _default(train: np.ndarray, test: np.ndarray | None) -> np.ndarray:
    return _by_command(train, test)


def _plain(train: np.ndarray, test: np.ndarray | None) -> np.ndarray:
    return _by_command(train, test, scores="own", weighting="", keep_suspects=True)


def _by_command(train: np.ndarray, test: np.ndarray | None, **options: Any) -> np.ndarray:
    with tempfile.TemporaryDirectory() as folder:
        return tailwise.fit(train, out=Path(folder) / "run", **options).score(test)["score"].to_numpy()


def _triage(train: np.ndarray, test: np.ndarray | None) -> np.ndarray:
    rows = torch.from_numpy((train - train.mean(0)).astype(np.float32))
    return suspects.Oddness(Data(rows, [str(i) for i in range(len(rows))])).training_scores.numpy()


def _standardised(score: Peer) -> Peer:
    def scored(train: np.ndarray, test: np.ndarray | None) -> np.ndarray:
        scaler = StandardScaler().fit(train)
        return score(scaler.transform(train), None if test is None else scaler.transform(test))

    return scored


def _isolation_forest(train: np.ndarray, test: np.ndarray | None) -> np.ndarray:
    return -IsolationForest(random_state=0).fit(train).score_samples(train if test is None else test)


def _knn(train: np.ndarray, test: np.ndarray | None) -> np.ndarray:
    """Distance to the fifth neighbour (Ramaswamy et al. 2000)."""
    count = min(5, len(train) - 1)
    return NearestNeighbors(n_neighbors=count).fit(train).kneighbors(test)[0][:, -1]


def _lof(train: np.ndarray, test: np.ndarray | None) -> np.ndarray:
    count = min(20, len(train) - 1)
    if test is None:
        return -LocalOutlierFactor(n_neighbors=count).fit(train).negative_outlier_factor_
    return -LocalOutlierFactor(n_neighbors=count, novelty=True).fit(train).score_samples(test)


def _mahalanobis(train: np.ndarray, test: np.ndarray | None) -> np.ndarray:
    return LedoitWolf().fit(train).mahalanobis(train if test is None else test)


def _ecod(train: np.ndarray, test: np.ndarray | None) -> np.ndarray:
    """Li et al. 2022: the largest of three sums of logarithms of tail shares, as PyOD has it, over all rows at hand."""
    asked = train if test is None else test
    known = train if test is None else np.concatenate([train, test])
    skewed = np.nan_to_num(scipy.stats.skew(train))
    left, right = np.empty_like(asked), np.empty_like(asked)
    for j, column in enumerate(np.sort(known, axis=0).T):
        left[:, j] = -np.log(np.searchsorted(column, asked[:, j], "right") / len(known))
        right[:, j] = -np.log(1 - np.searchsorted(column, asked[:, j], "left") / len(known))
    auto = np.where(skewed < 0, left, right)
    return np.maximum.reduce([left.sum(1), right.sum(1), auto.sum(1)])


PEERS: dict[str, Peer] = {
    "kNN": _standardised(_knn),
    "LOF": _standardised(_lof),
    "isolation forest": _standardised(_isolation_forest),
    "ECOD": _standardised(_ecod),
    "Mahalanobis": _standardised(_mahalanobis),
}


def _figures(labels: np.ndarray, scores: np.ndarray) -> dict[str, float]:
    return {
        "auroc": round(float(roc_auc_score(labels, scores)), 5),
        "aupr": round(float(average_precision_score(labels, scores)), 5),
    }


def page(rows: list[dict[str, Any]]) -> str:
    """The rows as a page: means over tables of means over seeds, and the worst table against kNN and plain."""
    seeds = ", ".join(map(str, sorted({row["seed"] for row in rows})))
    tables = len({row["table"] for row in rows})
    lines = [
        "# What the defaults do on ordinary tables", "",
        f"Written from results/defaults.jsonl by benchmarks/defaults.py: {tables} tables of ADBench, seeds: {seeds};",
        "means over tables of means over seeds, with the 95 % interval of the difference to the default over tables.",
        "The defaults were chosen on seeds 0 and 1 of the same tables. LOG.md tells from what.", "",
    ]  # fmt: skip
    for hidden in sorted({row["hidden"] for row in rows}):
        share = f"{100 * hidden:g} % of the training data are hidden anomalies" if hidden else "trained on normals"
        lines += [f"## `tailwise fit`, {share}", "", *_table(rows, "fit", hidden, "default"), ""]
    for hidden in sorted({row["hidden"] for row in rows if row["task"] == "triage"}):
        lines += [
            f"## `tailwise triage`, {100 * hidden:g} % anomalies",
            "",
            *_table(rows, "triage", hidden, "triage"),
            "",
        ]
    return "\n".join(lines)


def _table(rows: list[dict[str, Any]], task: str, hidden: float, ours: str) -> list[str]:
    chosen = [row for row in rows if (row["task"], row["hidden"]) == (task, hidden)]
    methods = list(dict.fromkeys(row["method"] for row in chosen))
    means = {name: {figure: _means(chosen, name, figure) for figure in ("auroc", "aupr")} for name in methods}
    lines = [
        "| method | AUROC | ours less it | AUPR | ours less it | AUROC of ours less it on the worst table |",
        "|" + "---|" * 6,
    ]
    for name in methods:
        cells = [name]
        for figure in ("auroc", "aupr"):
            own = means[name][figure]
            cells += [
                f"{np.mean(list(own.values())):.3f}",
                _difference(means[ours][figure], own) if name != ours else "",
            ]
        lines.append(
            f"| {' | '.join(cells)} | {_worst(means[ours]['auroc'], means[name]['auroc']) if name != ours else ''} |"
        )
    return lines


def _means(rows: list[dict[str, Any]], method: str, figure: str) -> dict[str, float]:
    of_table: dict[str, list[float]] = {}
    for row in rows:
        if row["method"] == method:
            of_table.setdefault(row["table"], []).append(row[figure])
    return {table: float(np.mean(values)) for table, values in of_table.items()}


def _difference(ours: dict[str, float], theirs: dict[str, float]) -> str:
    differences = np.array([ours[table] - theirs[table] for table in ours])
    reach = scipy.stats.t.ppf(0.975, len(differences) - 1) * differences.std(ddof=1) / np.sqrt(len(differences))
    return f"{differences.mean():+.3f} +- {reach:.3f}"


def _worst(ours: dict[str, float], theirs: dict[str, float]) -> str:
    table = min(ours, key=lambda name: ours[name] - theirs[name])
    return f"{table}: {ours[table] - theirs[table]:+.3f}"


if __name__ == "__main__":
    main()

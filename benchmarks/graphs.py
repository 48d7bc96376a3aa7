"""Anomalous nodes of graphs: detectors of graphs beside those of rows, with and without what is around a node.

    TAILWISE_DATA=DIRECTORY python benchmarks/graphs.py [METHOD ...] [--graphs ...] [--seeds 0 1 2]
    python benchmarks/graphs.py page

Two protocols: "everything" trains on all nodes, anomalies inside, and ranks them (as BOND and PyGOD do); "normals"
trains on half of the normals and tests on all other nodes (as `tailwise fit` does). PyGOD's DOMINANT is there where
pygod 1.1 is installed; its loader needs pyg-lib, so one batch of everything stands in for it.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

# isort: split
import numpy as np
import torch
from sklearn.ensemble import IsolationForest, RandomForestClassifier
from sklearn.neighbors import LocalOutlierFactor, NearestNeighbors

from tailwise.benchmark import rows
from tailwise.benchmark.tables import table
from tailwise.core import inference, registry
from tailwise.core.context import Graph
from tailwise.core.data import Data
from tailwise.core.problem import Labelled
from tailwise.numerics import metrics
from tailwise.runs import files
from tailwise.sources.graph import Nodes
from tailwise.training import fit as training_fit
from tailwise.training import local_scores, suspects
from tailwise.training.options import Training

ROOT = Path(__file__).parent
RESULTS, PAGE = ROOT / "results" / "graphs.jsonl", ROOT / "graphs.md"
# Holds the first table between these lines.
DOCS = ROOT.parent / "docs" / "methods" / "graphs.md"
BEGIN, END = "<!-- written by benchmarks/graphs.py -->\n", "<!-- end -->"
GRAPHS = {
    "inj_cora": "graph/pygod/inj_cora.npz",
    "cora, injected": "graph/injected/cora.mat",
    "citeseer, injected": "graph/injected/citeseer.mat",
    "books": "graph/pygod/books.npz",
    "disney": "graph/pygod/disney.npz",
    "reddit": "graph/pygod/reddit.npz",
    "minesweeper": "graph/minesweeper.npz",
}
AS_PYGOD, AS_GADBENCH = Training(epochs=100, lr=0.004), Training(epochs=100, lr=0.01)
KNOWN = 10  # labelled anomalies, for methods that need some

# Scores [m] of the tested nodes, from training nodes, tested nodes, labelled anomalies and a seed.
Method = Callable[[Data, Data, Labelled, int], np.ndarray]


def values(data: Data) -> np.ndarray:
    return data.read(torch.arange(len(data))).numpy()


def _knn(train: Data, test: Data, known: Labelled, seed: int) -> np.ndarray:
    found = NearestNeighbors(n_neighbors=6).fit(values(train)).kneighbors(values(test))[0]
    return found[:, -1] if test is train else found[:, -2]


def _lof(train: Data, test: Data, known: Labelled, seed: int) -> np.ndarray:
    if test is train:
        return -LocalOutlierFactor(20).fit(values(train)).negative_outlier_factor_
    return -LocalOutlierFactor(20, novelty=True).fit(values(train)).score_samples(values(test))


def _forest(train: Data, test: Data, known: Labelled, seed: int) -> np.ndarray:
    return -IsolationForest(random_state=seed).fit(values(train)).score_samples(values(test))


def _degree(train: Data, test: Data, known: Labelled, seed: int) -> np.ndarray:
    graph = test.context
    assert isinstance(graph, Graph)
    return torch.bincount(graph.edges[1], minlength=len(graph.nodes))[graph.asked].numpy()


def _default(train: Data, test: Data, known: Labelled, seed: int) -> np.ndarray:
    """What a fit without options does: nearest neighbours with local scores, suspects left out."""
    detector = registry.parse_one("nearest-neighbours", "detector")
    base = torch.ones(len(train))
    base[suspects.find(train)] = 0
    training_fit.fit(detector, train, seed=seed, base_weights=base)
    scored = local_scores.AUTO.fit(detector, train, 0, base)
    return (scored.training_scores if test is train else inference.score(scored, test)).numpy()


def _trained(spelling: str, training: Training, labels: bool = False) -> Method:
    def scores(train: Data, test: Data, known: Labelled, seed: int) -> np.ndarray:
        detector = registry.parse_one(spelling, "detector")
        training_fit.fit(detector, train, training=training, seed=seed, anomalies=known if labels else None)
        return inference.score(detector, test).numpy()

    return scores


def _trees(train: Data, test: Data, known: Labelled, seed: int) -> np.ndarray:
    x = np.concatenate([values(train), values(known.data)])
    y = np.repeat([0, 1], [len(train), len(known.data)])
    forest = RandomForestClassifier(200, class_weight="balanced", random_state=seed).fit(x, y)
    return forest.predict_proba(values(test))[:, 1]


def _pygod(name: str) -> Method:
    """PyGOD's detector of this name. Its loader needs pyg-lib, so one batch of everything stands in for it."""

    def scores(train: Data, test: Data, known: Labelled, seed: int) -> np.ndarray:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import pygod.detector
            from torch_geometric.data import Data as Attributed
        pygod.detector.base.NeighborLoader = _OneBatch
        graph = train.context
        assert isinstance(graph, Graph)
        torch.manual_seed(seed)
        model = getattr(pygod.detector, name)(epoch=AS_PYGOD.epochs, lr=AS_PYGOD.lr, gpu=-1)
        model.fit(Attributed(x=graph.nodes, edge_index=graph.edges))
        return model.decision_score_.numpy()

    return scores


class _OneBatch:
    def __init__(self, data: Any, *_: Any, **__: Any) -> None:
        self.batch = data.clone()
        self.batch.n_id = self.batch.input_id = torch.arange(data.num_nodes)
        self.batch.batch_size = data.num_nodes

    def __iter__(self) -> Any:
        return iter([self.batch])


# The method, how many hops it reads, and whether it learns from labelled anomalies.
METHODS: dict[str, tuple[Method, int, bool]] = {
    "degree": (_degree, 0, False),
    "kNN": (_knn, 0, False),
    "kNN, neighbours' means": (_knn, 2, False),
    "LOF": (_lof, 0, False),
    "LOF, neighbours' means": (_lof, 2, False),
    "isolation forest": (_forest, 0, False),
    "isolation forest, neighbours' means": (_forest, 2, False),
    "tailwise's default, no hops": (_default, 0, False),
    "tailwise's default": (_default, 2, False),
    "dominant": (_trained("dominant", AS_PYGOD), 0, False),
    "PyGOD's DOMINANT": (_pygod("DOMINANT"), 0, False),
    "cola": (_trained("cola", AS_PYGOD), 0, False),
    "PyGOD's CoLA": (_pygod("CoLA"), 0, False),
    "graph-classifier": (_trained("graph-classifier", AS_GADBENCH, True), 0, True),
    "graph-classifier, bwgnn": (_trained("GraphClassifier(conv='bwgnn')", AS_GADBENCH, True), 0, True),
    "random forest, neighbours' means": (_trees, 2, True),
}
# Methods that are the same for every seed.
FIXED = {
    "degree", "kNN", "kNN, neighbours' means", "LOF", "LOF, neighbours' means", "tailwise's default",
    "tailwise's default, no hops",
}  # fmt: skip
PROTOCOLS = ("everything", "normals")
HEAD = f"""# Anomalous nodes of graphs

Written by `benchmarks/graphs.py` from results/graphs.jsonl: AUROC, mean over seeds (how many: in brackets), one thread.
"Neighbours' means" are a node's attributes, the means of its neighbours', and of theirs. dominant, cola and PyGOD's are
trained for {AS_PYGOD.epochs} steps at {AS_PYGOD.lr}, as PyGOD does. Methods marked * are told {KNOWN} labelled
anomalies, which are not tested. Labels are read by nothing else but the metric. Empty cells were not run.
"""


def run(name: str, of: str, protocol: str, seed: int) -> dict[str, Any]:
    """One row."""
    method, hops, told = METHODS[name]
    source = Nodes(GRAPHS[of], hops=hops)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of labels that may be the wrong way round
        everything, problem = source.load_all(), source.load()
    assert everything.labels is not None
    assert problem.test is not None
    generator = np.random.default_rng(seed)
    known = generator.permutation(np.flatnonzero(everything.labels))[: min(KNOWN, int(everything.labels.sum()) // 2)]
    labels: np.ndarray | None = everything.labels
    if protocol == "everything":
        train = test = everything.data
        if told:
            train = everything.data.take(np.delete(np.arange(len(everything.data)), known))
    else:
        train, test, labels = problem.train, problem.test.data, problem.test.labels
    start = time.process_time()
    scores = method(train, test, everything.take(known), seed)
    seconds = time.process_time() - start
    kept = np.ones(len(scores), bool)
    if told:
        kept = ~np.isin(test.names, np.array(everything.data.names)[known])
    assert labels is not None
    return {
        "status": "ok", "auroc": metrics.auroc(labels[kept], scores[kept]),
        "aupr": metrics.aupr(labels[kept], scores[kept]),
        "cpu_seconds": round(seconds, 2), "train": len(train), "anomalies": int(labels[kept].sum()),
    }  # fmt: skip


def page() -> str:
    found = [row for row in rows.read_rows(RESULTS) if row["status"] == "ok"]
    text = HEAD
    for protocol in PROTOCOLS:
        text += f"\n## Trained on {protocol}\n\n{_table(found, protocol)}\n"
    return text + _seconds(found)


def documented(text: str) -> str:
    """The page of the docs with the table of the rows."""
    before, _, rest = text.partition(BEGIN)
    found = [row for row in rows.read_rows(RESULTS) if row["status"] == "ok"]
    return f"{before}{BEGIN}{_table(found, PROTOCOLS[0], '{:.3f}')}\n{END}{rest.partition(END)[2]}"


def _table(found: list[dict[str, Any]], protocol: str, form: str = "{:.3f} ({})") -> str:
    lines = []
    for name, (_, _, told) in METHODS.items():
        cells = [_cell(found, name, of, protocol, form) for of in GRAPHS]
        if any(cells):
            lines.append([name + (" *" if told else ""), *cells])
    return table(["method", *GRAPHS], lines)


def _cell(found: list[dict[str, Any]], name: str, of: str, protocol: str, form: str) -> str:
    here = [
        row["auroc"]
        for row in found
        if (row["settings"]["method"], row["settings"]["graph"], row["settings"]["protocol"]) == (name, of, protocol)
    ]
    return form.format(np.mean(here), len(here)) if here else ""


def _seconds(found: list[dict[str, Any]]) -> str:
    names = ("dominant", "PyGOD's DOMINANT")
    lines = []
    for of in GRAPHS:
        cpu = [
            [row["cpu_seconds"] for row in found if row["settings"]["method"] == name and row["settings"]["graph"] == of
             and row["settings"]["protocol"] == "everything"]
            for name in names
        ]  # fmt: skip
        if all(cpu):
            lines.append([of, *(f"{np.median(each):.1f}" for each in cpu)])
    return f"\n## CPU seconds of DOMINANT\n\n{table(['graph', *names], lines)}\n" if lines else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("methods", nargs="*", default=list(METHODS))
    parser.add_argument("--graphs", nargs="+", default=list(GRAPHS), choices=list(GRAPHS))
    parser.add_argument("--protocols", nargs="+", default=list(PROTOCOLS), choices=PROTOCOLS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    asked = parser.parse_args()
    if asked.methods == ["page"]:
        _write()
        return
    torch.set_num_threads(1)
    done = {rows.key(row["settings"]) for row in rows.read_rows(RESULTS) if rows.is_done(row)}
    for of in asked.graphs:
        for name in asked.methods:
            for protocol in asked.protocols:
                for seed in asked.seeds[:1] if name in FIXED else asked.seeds:
                    settings = {"method": name, "graph": of, "protocol": protocol, "seed": seed}
                    skipped = name.startswith("PyGOD") and (
                        protocol == "normals" or importlib.util.find_spec("pygod") is None
                    )
                    if rows.key(settings) in done or skipped:
                        continue
                    row = {"settings": settings, **run(name, of, protocol, seed)}
                    row |= {"commit": rows.commit(), "versions": rows.versions()}
                    rows.append(RESULTS, row)
                    print(json.dumps(row), file=sys.stderr, flush=True)
                    _write()


def _write() -> None:
    files.write(PAGE, page().encode())
    files.write(DOCS, documented(DOCS.read_text()).encode())


if __name__ == "__main__":
    main()

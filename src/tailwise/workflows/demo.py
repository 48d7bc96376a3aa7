"""The demo: what a person gets without asking where some good kinds are rare, on real pictures.

Handwritten digits stand for products: 0, 1 and 2 are good and frequent (150 pictures of each train), 3, 4 and 5 are
good and rare (15 of each), and every other digit is a defect, of which training sees none. Each draw has other
pictures and another seed. "plain" is the same detector with its own scores and no weights.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from sklearn.ensemble import IsolationForest
from sklearn.neighbors import LocalOutlierFactor, NearestNeighbors

from ..core import inference, messages
from ..core.data import Data
from ..core.problem import Problem
from ..numerics import metrics
from ..report import plots
from ..runs import files, store
from ..runs.plain_json import to_bytes
from ..runs.scorer import Run
from ..sources.digits import RareDigits
from ..training import local_scores, suspects
from ..training.fit import fit
from ..weights.default import choose_weighting
from .fit import fit_run
from .request import Request, make_detector

DRAWS = 5
# Of the defects: 80 % are caught.
MISSED = 0.2
DEFAULT = "tailwise fit"
METHODS = ("plain", DEFAULT, "kNN", "LOF", "isolation forest")
FIGURES = {
    "auroc": "AUROC, every good kind alike",
    "rare_rejected": "rare good rejected",
    "frequent_rejected": "frequent good rejected",
}
RESULTS, FIGURE = "demo.json", "demo.svg"
# A kind with fewer training pictures than this share of the most frequent kind's is rare.
_RARE = 0.5
_NEIGHBOURS = 5


def run(out: Path, seed: int, overwrite: bool) -> Run:
    """Compare them, print the table, and leave a run of the first draw, fitted without options."""
    with store.hold(out, overwrite):
        pass  # a folder that cannot be used is told of before the minute of training, not after it
    messages.progress(f"training on {DRAWS} draws of digits (about a minute) ...")
    rows: list[dict[str, Any]] = []
    first: dict[str, np.ndarray] = {}
    for draw in range(seed, seed + DRAWS):
        problem = RareDigits(seed=draw).load()
        scores = scores_of(problem, draw)
        first = first or scores
        rows += [{"method": name, "draw": draw, **measure(problem, each)} for name, each in scores.items()]
    source = RareDigits(seed=seed)
    problem = source.load()
    request = Request(source=source, seed=seed, command=f"tailwise demo {out} --seed {seed}")
    finished = fit_run(request, out, overwrite, problem)
    files.write(out / RESULTS, to_bytes({"source": repr(source), "rows": rows}))
    files.write(out / FIGURE, _figure(problem, {name: first[name] for name in METHODS[:2]}))
    print(table(rows))
    return finished


def scores_of(problem: Problem, seed: int) -> dict[str, np.ndarray]:
    """The test scores [n] of each method."""
    assert problem.test is not None
    train, test = problem.train, problem.test.data
    request = Request(source=RareDigits()).decided(train.modality, len(train))
    plain = make_detector(request.detector)
    rule = local_scores.choose(request.scores, train.modality, plain)
    weighting = choose_weighting(request.weighting, plain, train.modality, rule is not None)
    fit(plain, train, seed=seed)
    base = torch.ones(len(train)) * ~suspects.find(train)
    default = plain
    if weighting.steps or not bool(base.all()):  # else both are trained alike
        default = make_detector(request.detector)
        fit(default, train, weighting, seed=seed, base_weights=base)
    local = default if rule is None else rule.fit(default, train, seed, base)
    ours = {
        name: inference.score(each, test).double().numpy() for name, each in ((METHODS[0], plain), (DEFAULT, local))
    }
    return ours | _peers(_rows(train), _rows(test), seed)


def _peers(train: np.ndarray, test: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """scikit-learn's, on the same numbers; the distance to the fifth neighbour, and its own defaults."""
    return {
        "kNN": NearestNeighbors(n_neighbors=_NEIGHBOURS).fit(train).kneighbors(test)[0][:, -1],
        "LOF": -LocalOutlierFactor(novelty=True).fit(train).score_samples(test),
        "isolation forest": -IsolationForest(random_state=seed).fit(train).score_samples(test),
    }


def measure(problem: Problem, scores: np.ndarray) -> dict[str, float]:
    """The demo's figures: means over good kinds, with shares rejected where 80 % of the defects are caught."""
    good = {kind: scores[here] for kind, here in _kinds(problem).items() if kind != _DEFECTS}
    defects = scores[_kinds(problem)[_DEFECTS]]
    limit = _limit(problem, scores)
    rejected = {kind: float((each >= limit).mean()) for kind, each in good.items()}
    rare, frequent = ([rejected[kind] for kind in good if kind.startswith(sort)] for sort in ("rare", "frequent"))
    labels = {kind: np.repeat([False, True], [len(each), len(defects)]) for kind, each in good.items()}
    auroc = [metrics.auroc(labels[kind], np.concatenate([each, defects])) for kind, each in good.items()]
    return {
        "auroc": statistics.mean(auroc),
        "rare_rejected": statistics.mean(rare),
        "frequent_rejected": statistics.mean(frequent),
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Mean over the draws, and the lowest and highest, of each method."""
    lines = ["".join([" " * 18, *(f"{title:>32}" for title in FIGURES.values())])]
    lines += ["".join([f"{name:18}", *(f"{cell:>32}" for cell in cells)]) for name, *cells in _cells(rows)]
    return "\n".join([*lines, caption(rows)])


def markdown(rows: list[dict[str, Any]]) -> str:
    """The same table in Markdown, as the README shows it."""
    lines = [f"| | {' | '.join(FIGURES.values())} |", "|---|" + "---:|" * len(FIGURES)]
    lines += [f"| {' | '.join(cells)} |" for cells in _cells(rows)]
    return "\n".join([*lines, "", caption(rows) + "."])


def _cells(rows: list[dict[str, Any]]) -> list[list[str]]:
    """The method, and the value of each figure."""

    def spread(key: str, method: str) -> str:
        values = [row[key] for row in rows if row["method"] == method]
        return f"{statistics.mean(values):.3f} ({min(values):.3f}-{max(values):.3f})"

    return [[method, *(spread(key, method) for key in FIGURES)] for method in METHODS]


def caption(rows: list[dict[str, Any]]) -> str:
    """What the table's figures are."""
    draws = sorted({row["draw"] for row in rows})
    return (
        f"Mean and range over draws {draws[0]} to {draws[-1]}; "
        f"shares rejected are at the threshold that catches {100 * (1 - MISSED):g} % of the defects"
    )


_DEFECTS = "defects"


def _kinds(problem: Problem) -> dict[str, np.ndarray]:
    """The test samples [n] of each good kind, its name after "frequent" or "rare", and the defects."""
    test = problem.test
    assert test is not None
    assert test.labels is not None
    assert test.groups is not None
    assert problem.train_groups is not None
    names, counts = np.unique(problem.train_groups, return_counts=True)
    sort = np.where(counts < _RARE * counts.max(), "rare", "frequent")
    good = {f"{word} {name}": ~test.labels & (test.groups == name) for word, name in zip(sort, names, strict=True)}
    return good | {_DEFECTS: test.labels}


def _limit(problem: Problem, scores: np.ndarray) -> float:
    """The lowest score of the defects that are caught: what scores as high is rejected."""
    return float(np.quantile(scores[_kinds(problem)[_DEFECTS]], MISSED, method="lower"))


def _figure(problem: Problem, scores: Mapping[str, np.ndarray]) -> bytes:
    words = np.full(len(next(iter(scores.values()))), "", dtype=object)
    for kind, here in _kinds(problem).items():
        words[here] = kind if kind == _DEFECTS else f"{kind.partition(' ')[0]} good"

    def draw(name: str) -> Callable[[Axes], Axes]:
        # Just below, so that the lowest that is caught counts as above.
        limit = float(np.nextafter(_limit(problem, scores[name]), -np.inf))
        return lambda axes: plots.kinds_histogram(scores[name], words.astype(str), axes, threshold=limit)

    return plots.picture({name: draw(name) for name in scores}, share_y=False)


def _rows(data: Data) -> np.ndarray:
    return torch.cat([batch.samples.flatten(1) for batch in data.batches(4_096)]).numpy()

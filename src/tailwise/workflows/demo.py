"""The demo: what weighting and local scores do for rare good product, on real solar cells.

400 good monocrystalline and 40 good polycrystalline cells train; unseen good cells of both kinds and defective ones
test. Plain and weighted training get the same cells, network and budget; local scores are of the weighted one.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from ..core import inference, messages
from ..core.problem import Labelled, Problem
from ..numerics import metrics
from ..report import plots
from ..runs import files, store
from ..runs.plain_json import to_bytes
from ..runs.scorer import Run
from ..sources.solar import SolarCells
from ..training.fit import fit
from ..training.local_scores import LocalScores
from ..weights.default import AUTO
from .fit import fit_run, split_of
from .request import Request, make_detector

FREQUENT, RARE = "mono", "poly"
_FREQUENT_REJECTED = 0.05
# The demo shows what weights and fully local scores do to a network; the defaults are others.
DETECTOR, LOCAL = "autoencoder", LocalScores(share=1.0)
_STARTS = 5
WAYS = ("plain", "weighted", "weighted, local")
FIGURES = {
    "auroc": "AUROC",
    "aupr": "AUPR",
    "defects_caught": "defects caught",
    "rare_good_rejected": "rare good cells rejected",
}
RESULTS, FIGURE = "demo.json", "demo.svg"


def run(out: Path, seed: int, overwrite: bool) -> Run:
    """Compare them, print the table, and leave a run with both weighting and local scores."""
    with store.hold(out, overwrite):
        pass  # a folder that cannot be used is told of before the minute of reading, not after it
    messages.progress("reading 1,040 solar cells through the backbone (about a minute) ...")
    source = SolarCells(seed=seed)
    problem = source.load()
    rows, scores = compare(problem, seed)
    request = Request(
        source=source, detector=DETECTOR, weighting=repr(AUTO), scores=repr(LOCAL), seed=seed,
        command=f"tailwise demo {out} --seed {seed}",
    )  # fmt: skip
    finished = fit_run(request, out, overwrite, problem)
    files.write(out / RESULTS, to_bytes({"source": repr(source), "rows": rows}))
    assert problem.test is not None
    files.write(out / FIGURE, _figure(problem.test, scores))
    print(table(rows))
    return finished


def compare(problem: Problem, seed: int) -> tuple[list[dict[str, Any]], dict[str, np.ndarray]]:
    """A row for each way and starting seed, and the test scores of the first start."""
    assert problem.test is not None
    rows: list[dict[str, Any]] = []
    first: dict[str, np.ndarray] = {}
    for start in range(seed, seed + _STARTS):
        request = Request(source=SolarCells(), detector=DETECTOR, cross=0, seed=start)
        cells = split_of(problem, request).training
        plain, weighted = (make_detector(request.detector) for _ in range(2))
        fit(plain, cells, seed=start)
        fit(weighted, cells, AUTO, seed=start)
        for name, detector in zip(WAYS, (plain, weighted, LOCAL.fit(weighted, cells, start)), strict=True):
            scores = inference.score(detector, problem.test.data).double().numpy()
            first.setdefault(name, scores)
            rows.append({"training": name, "start": start, **measure(problem.test, scores)})
    return rows, first


def measure(test: Labelled, scores: np.ndarray) -> dict[str, float]:
    """The demo's figures, at the threshold that rejects 5 % of the good test cells of the frequent kind."""
    labels, groups = _known(test)
    limit = _limit(test, scores)
    return {
        "auroc": metrics.auroc(labels, scores),
        "aupr": metrics.aupr(labels, scores),
        "defects_caught": float((scores[labels] > limit).mean()),
        "rare_good_rejected": float((scores[~labels & (groups == RARE)] > limit).mean()),
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Mean over the starting seeds, and the lowest and highest, for each way."""
    lines = ["".join([" " * 26, *(f"{way:>24}" for way in WAYS)])]
    lines += ["".join([f"{title:26}", *(f"{cell:>24}" for cell in cells)]) for title, *cells in _cells(rows)]
    return "\n".join([*lines, _caption(rows)])


def markdown(rows: list[dict[str, Any]]) -> str:
    """The same table in Markdown, as the README shows it."""
    lines = [f"| | {' | '.join(WAYS)} |", "|---|" + "---:|" * len(WAYS)]
    lines += [f"| {' | '.join(cells)} |" for cells in _cells(rows)]
    return "\n".join([*lines, "", _caption(rows) + "."])


def _cells(rows: list[dict[str, Any]]) -> list[list[str]]:
    """Title, and the value of each way, of each figure."""

    def spread(key: str, training: str) -> str:
        values = [row[key] for row in rows if row["training"] == training]
        return f"{statistics.mean(values):.3f} ({min(values):.3f}-{max(values):.3f})"

    return [[title, *(spread(key, way) for way in WAYS)] for key, title in FIGURES.items()]


def _caption(rows: list[dict[str, Any]]) -> str:
    starts = len({row["start"] for row in rows})
    share = f"{100 * _FREQUENT_REJECTED:g} %"
    return f"Mean and range over {starts} training seeds; threshold: {share} of good {FREQUENT} test cells rejected"


def _limit(test: Labelled, scores: np.ndarray) -> float:
    labels, groups = _known(test)
    return float(np.quantile(scores[~labels & (groups == FREQUENT)], 1 - _FREQUENT_REJECTED))


def _figure(test: Labelled, scores: dict[str, np.ndarray]) -> bytes:
    labels, groups = _known(test)
    kinds = np.where(labels, "defective", np.char.add("good ", groups.astype(str)))

    def draw(name: str) -> Callable[[Axes], Axes]:
        return lambda axes: plots.kinds_histogram(scores[name], kinds, axes, threshold=_limit(test, scores[name]))

    return plots.picture({name: draw(name) for name in scores})


def _known(test: Labelled) -> tuple[np.ndarray, np.ndarray]:
    assert test.labels is not None
    assert test.groups is not None
    return test.labels, test.groups

"""Checks of the data, held against copies that the test plants, and runs side by side."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from tailwise.core.data import Data
from tailwise.core.problem import Facts, Labelled, Problem
from tailwise.errors import InputError
from tailwise.numerics import metrics
from tailwise.report import comparison, data_checks
from tailwise.runs import store
from tailwise.sources.auto import open_source
from tailwise.workflows import pages, request
from tailwise.workflows.fit import fit_run


def data(values: np.ndarray, start: str) -> Data:
    names = [f"{start}{i}" for i in range(len(values))]
    return Data(torch.tensor(values, dtype=torch.float32), names, tuple("abcdef"))


def checks() -> dict[str, dict[str, object]]:
    """Six features of 200 samples: a copy, a near copy, a test sample from training, a still one."""
    generator = np.random.default_rng(0)
    train, test = generator.normal(size=(200, 6)), generator.normal(size=(20, 6))
    train[:, 5] = 7
    train[1] = train[0]
    train[3] = train[2] + np.array([1e-4] * 5 + [0])
    test[:, 5], test[4] = 7, train[50]
    table = pd.DataFrame({"sample": [f"a{i}" for i in range(200)], "score": generator.normal(size=200), "cluster": -1})
    table["held_out"] = np.arange(200) == 1
    table.loc[9, "score"] = 40.0
    labels = np.arange(20) < 5
    problem = Problem(data(train, "a"), Facts("made"), test=Labelled(data(test, "b"), labels))
    return {check["name"]: check for check in data_checks.of_problem(problem, table)}


def test_what_was_planted_is_named_and_nothing_else() -> None:
    found = {name: (check["ok"], check["count"], check["examples"]) for name, check in checks().items()}
    assert found == {
        "copies in the training data": (False, 1, ["a0 = a1"]),
        "training samples in the test data": (False, 1, ["test b4 = a50"]),
        "near copies": (False, 1, ["a2 ≈ a3"]),
        "constant features": (False, 1, ["f: 7 in all"]),
        "suspects in the training data": (False, 1, ["a9: score 40, in no cluster"]),
    }
    assert "1 held-out samples are copies of training ones" in str(checks()["copies in the training data"]["message"])
    assert "1 of them are labelled anomalies" in str(checks()["training samples in the test data"]["message"])


def test_the_interval_of_a_difference_is_delongs() -> None:
    generator = np.random.default_rng(0)
    labels = np.arange(600) < 200
    shared = generator.normal(size=600) + labels
    first, second = (shared + 0.6 * generator.normal(size=600) for _ in range(2))
    low, high = metrics.bootstrap_difference(metrics.auroc, labels, first, second)
    # DeLong et al. 1988: the variance of the placements' difference, by the library's ranks.
    placed = []
    for scores in (first, second):
        ranks, normal, anomalous = (
            stats.rankdata(scores),
            stats.rankdata(scores[~labels]),
            stats.rankdata(scores[labels]),
        )
        placed.append(((ranks[labels] - anomalous) / 400, 1 - (ranks[~labels] - normal) / 200))
    width = np.sqrt(sum(np.var(b - a, ddof=1) / len(a) for a, b in zip(*placed, strict=True)))
    centre = metrics.auroc(labels, second) - metrics.auroc(labels, first)
    assert (low, high) == pytest.approx((centre - 1.96 * width, centre + 1.96 * width), abs=0.15 * width + 0.002)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("runs")
    generator = np.random.default_rng(0)
    for name, shift in (("a", 0.0), ("b", 1.0)):
        values = np.vstack([generator.normal(size=(120, 3)) + shift, generator.normal(4, 1, (30, 3))])
        frame = pd.DataFrame(values, columns=list("xyz")).assign(bad=np.arange(150) >= 120)
        frame.to_csv(folder / f"{name}.csv", index=False)
    for run, file in (("one", "a"), ("two", "a"), ("other", "b")):
        source = open_source(str(folder / f"{file}.csv"), labels="bad")
        detector = "nearest-neighbours" if run == "two" else "gaussian"
        fit_run(request.Request(source=source, detector=detector), folder / run)
    return [folder / run for run in ("one", "two", "other")]


def test_test_scores_are_kept_and_sealed(runs: list[Path]) -> None:
    run = store.open_run(runs[0])
    found = run.test_scores()
    assert found is not None
    assert int(found["label"].sum()) == 30
    assert "test_scores.parquet" in run.settings.digests


def test_runs_of_the_same_data_are_paired(runs: list[Path]) -> None:
    found = comparison.compare([store.open_run(run) for run in runs[:2]])
    assert found["warnings"] == []
    # What a detector knows of a sample without it spares the folds.
    assert [row["name"] for row in found["differs"]] == ["cross", "detector"]
    assert found["paired_on"] == {"samples": 90, "anomalies": 30, "normals": 60}
    auroc = found["paired"][0]
    assert auroc["differences"][0]["value"] == pytest.approx(auroc["values"][1] - auroc["values"][0])
    assert comparison.to_markdown(found).startswith("# 2 runs side by side")


def test_runs_of_other_data_are_told_of_and_not_paired(runs: list[Path]) -> None:
    found = comparison.compare([store.open_run(runs[0]), store.open_run(runs[2])])
    assert any("did not train on the same" in warning for warning in found["warnings"])
    assert any("tested on different data" in warning for warning in found["warnings"])
    assert found["paired"] == []
    assert "it is open which finds more" in found["sentence"]


def test_a_comparison_needs_two_runs_and_a_known_ending(runs: list[Path]) -> None:
    for paths, out in (([runs[0]], None), ([runs[0], runs[0]], None), (runs[:2], Path("x.pdf"))):
        with pytest.raises(InputError):
            pages.compare_runs(paths, out)

"""The page of the defaults is that of its rows, and what the defaults promise is what the rows say."""

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "defaults.jsonl"


@pytest.fixture(scope="module")
def script(module_of: Callable[[Path], ModuleType]) -> ModuleType:
    return module_of(ROOT / "benchmarks" / "defaults.py")


def test_the_page_is_that_of_the_rows(script: ModuleType) -> None:
    assert (ROOT / "benchmarks" / "defaults.md").read_text() == script.page(script.read_all(RESULTS))


def mean(task: str, hidden: float, method: str, figure: str) -> float:
    """Over tables of means over seeds, by another road than the script's."""
    rows = [json.loads(line) for line in RESULTS.read_text().splitlines()]
    chosen = [row for row in rows if (row["task"], row["hidden"], row["method"]) == (task, hidden, method)]
    tables = sorted({row["table"] for row in chosen})
    return float(np.mean([np.mean([row[figure] for row in chosen if row["table"] == table]) for table in tables]))


@pytest.mark.parametrize("figure", ["auroc", "aupr"])
@pytest.mark.parametrize("peer", ["plain", "kNN", "LOF", "isolation forest", "ECOD"])
def test_trained_on_normals_no_peer_is_better_by_more_than_the_interval(peer: str, figure: str) -> None:
    rows = [json.loads(line) for line in RESULTS.read_text().splitlines()]
    of = {
        (row["table"], row["seed"], row["method"]): row[figure]
        for row in rows if row["task"] == "fit" and not row["hidden"]
    }  # fmt: skip
    less = np.array([value - of[table, seed, peer] for (table, seed, name), value in of.items() if name == "default"])
    assert less.mean() + 1.96 * less.std(ddof=1) / np.sqrt(len(less)) > 0
    assert less.mean() >= -0.005


@pytest.mark.parametrize("hidden", [0.01, 0.02, 0.05])
def test_with_hidden_anomalies_the_default_is_not_below_plain(hidden: float) -> None:
    assert mean("fit", hidden, "default", "auroc") >= mean("fit", hidden, "plain", "auroc") - 0.01


@pytest.mark.parametrize(("hidden", "peer"), [(0.0, "kNN"), (0.01, "plain"), (0.02, "plain"), (0.05, "plain")])
def test_no_table_is_far_below_the_simplest_peer(hidden: float, peer: str) -> None:
    scores: dict[str, dict[str, list[float]]] = {"default": {}, peer: {}}
    for row in map(json.loads, RESULTS.read_text().splitlines()):
        if (row["task"], row["hidden"]) == ("fit", hidden) and row["method"] in scores:
            scores[row["method"]].setdefault(row["table"], []).append(row["auroc"])
    assert min(np.mean(ours) - np.mean(scores[peer][table]) for table, ours in scores["default"].items()) > -0.05


@pytest.mark.parametrize("peer", ["kNN", "LOF", "isolation forest", "ECOD", "Mahalanobis"])
def test_triage_is_not_below_its_peers_in_the_mean(peer: str) -> None:
    ours, theirs = (
        np.mean([mean("triage", hidden, method, "auroc") for hidden in (0.01, 0.02, 0.05)])
        for method in ("triage", peer)
    )
    assert ours >= theirs


def test_a_draw_hides_what_it_says_and_tests_on_others(script: ModuleType, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    samples = np.arange(600, dtype=float)[:, None] + generator.normal(size=(600, 3)) / 9
    labels = np.arange(600) >= 500
    np.savez(tmp_path / "small.npz", X=samples, y=labels)
    train, hidden, test, is_anomaly = script.draw(tmp_path / "small.npz", 0.05, 3)
    assert hidden.mean() == pytest.approx(0.05, abs=0.01)
    assert not {*map(tuple, train)} & {*map(tuple, test)}
    assert (train[hidden][:, 0] > 498).all()
    assert (test[is_anomaly][:, 0] > 498).all()
    rows = list(script.rows_of(tmp_path / "small.npz", 0.05, 3))
    assert {row["method"] for row in rows if row["task"] == "fit"} == {"default", "plain", *script.PEERS}
    assert all(0 <= row["aupr"] <= 1 for row in rows)

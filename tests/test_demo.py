"""The demo shows what a fit without options does, and its figures are those of their names."""

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

import tailwise
from tailwise.core.data import Data
from tailwise.core.problem import Facts, Labelled, Problem
from tailwise.sources.digits import RareDigits
from tailwise.workflows import demo


def test_the_scores_shown_are_those_of_a_fit_without_options(tmp_path: Path) -> None:
    source = RareDigits(many=24, few=6, seed=3, test=9)
    problem = source.load()
    assert problem.test is not None
    run = tailwise.fit(repr(source), out=tmp_path / "run", seed=3)
    table = run.test_scores()
    assert table is not None
    expected = table.set_index("sample")["score"].loc[[*problem.test.data.names]].to_numpy()
    assert np.allclose(demo.scores_of(problem, 3)[demo.DEFAULT], expected, atol=1e-4)


def test_figures_on_scores_whose_answer_is_known() -> None:
    """Eleven defects at 1 to 11: from 3 on they are more than 80 %; kinds of good count alike, however few they are."""
    good = {"a": [0.0] * 30, "b": [0.0, 3.0] * 10, "c": [2.9, 3.0, 3.1, 20.0]}
    scores = np.array([*range(1, 12), *(score for each in good.values() for score in each)], dtype=float)
    groups = np.array(["x"] * 11 + [kind for kind, each in good.items() for _ in each])
    data = Data(torch.zeros(len(scores), 1), [str(i) for i in range(len(scores))])
    train_groups = np.array(["a"] * 100 + ["b"] * 50 + ["c"] * 49)
    train = Data(torch.zeros(len(train_groups), 1), [str(i) for i in range(len(train_groups))])
    problem = Problem(train, Facts("toy", "rows"), train_groups, Labelled(data, groups == "x", groups))
    figures = demo.measure(problem, scores)
    assert figures["rare_rejected"] == 3 / 4
    assert figures["frequent_rejected"] == pytest.approx((0 + 1 / 2) / 2)
    kinds = [roc_auc_score(groups[here] == "x", scores[here]) for here in (np.isin(groups, ["x", k]) for k in good)]
    assert figures["auroc"] == pytest.approx(np.mean(kinds))

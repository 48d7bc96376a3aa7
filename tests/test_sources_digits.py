"""The digits that come with scikit-learn."""

import numpy as np
import pytest

from tailwise import InputError, open_source
from tailwise.sources.digits import Digits


def test_chosen_digits_train_and_others_are_anomalies() -> None:
    problem = open_source("Digits(normal=(3, 8))").load()
    assert problem.train_groups is not None
    assert problem.test is not None
    assert set(problem.train_groups) == {"3", "8"}
    assert problem.test.groups is not None
    assert np.array_equal(problem.test.labels, ~np.isin(problem.test.groups, ["3", "8"]))
    assert not set(problem.train.names) & set(problem.test.data.names)
    samples = problem.train.samples
    assert tuple(samples.shape[1:]) == (64,)
    assert (float(samples.min()), float(samples.max())) == (0, 1)  # type: ignore[union-attr]


def test_all_rows_with_their_kinds() -> None:
    everything = Digits().load_all()
    assert everything.groups is not None
    assert len(everything.data) == len(everything.groups) == 1_797
    assert everything.labels is None
    # Means of the pixels are those of the package that they come from.
    from sklearn.datasets import load_digits

    expected = load_digits().data.mean(0) / 16
    assert np.allclose(everything.data.samples.mean(0), expected, atol=1e-6)  # type: ignore[union-attr]


def test_digits_are_at_no_other_path() -> None:
    with pytest.raises(InputError, match="read from no path: got 'elsewhere'"):
        Digits().at("elsewhere")

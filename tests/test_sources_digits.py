"""The digits that come with scikit-learn."""

import numpy as np
import pytest

from tailwise import InputError, open_source
from tailwise.core.modality import IMAGE
from tailwise.sources.digits import Digits, RareDigits


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


def test_good_digits_are_frequent_or_rare_and_all_others_are_defects() -> None:
    problem = RareDigits(frequent=(0, 7), rare=(4,), many=100, few=9, seed=3, test=50).load()
    assert problem.train_groups is not None
    assert problem.test is not None
    assert problem.test.groups is not None
    names, counts = np.unique(problem.train_groups, return_counts=True)
    assert dict(zip(names, counts, strict=True)) == {"0": 100, "4": 9, "7": 100}
    assert np.array_equal(problem.test.labels, ~np.isin(problem.test.groups, ["0", "4", "7"]))
    assert not set(problem.train.names) & set(problem.test.data.names)
    assert np.unique(problem.test.groups, return_counts=True)[1].max() == 50
    # Names are places in the package's own order, so pictures and digits are those that stand there.
    from sklearn.datasets import load_digits

    place = np.array(problem.train.names, dtype=int)
    assert np.array_equal(load_digits().target[place].astype(str), problem.train_groups)
    assert np.allclose(load_digits().images[place] / 16, problem.train.samples[:, 0])  # type: ignore[call-overload,index]
    assert problem.train.modality is IMAGE


@pytest.mark.parametrize("options", [{"rare": (0,)}, {"rare": (11,)}, {"frequent": (), "rare": ()}, {"many": 177 + 1}])
def test_digits_that_cannot_be_drawn_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(InputError, match=r"RareDigits (needs different good digits|has 17[78] pictures of)"):
        RareDigits(**options).load()  # type: ignore[arg-type]

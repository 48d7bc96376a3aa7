"""The benchmark's one threshold that is raised until it holds for every found kind."""

import numpy as np
import pytest

from tailwise.benchmark.methods import raised_threshold
from tailwise.calibration import conformal
from tailwise.errors import InputError


def test_a_threshold_per_kind_holds_for_the_kind_that_needs_it():
    generator = np.random.default_rng(0)
    kinds = np.repeat([0, 1], [5_000, 200])
    scores = generator.normal(size=5_200) * np.where(kinds == 1, 2, 1)
    plain = conformal.conformal_threshold(scores[:1_000])
    fair = raised_threshold(scores[:1_000], scores, kinds)
    assert (2 * generator.normal(size=10_000) > plain).mean() > 0.15
    assert (2 * generator.normal(size=10_000) > fair).mean() == pytest.approx(0.05, abs=0.02)


def test_in_contaminated_data_no_kind_has_a_threshold_of_its_own():
    generator = np.random.default_rng(0)
    scores = generator.normal(size=1_000)
    scores[900:950] = 8
    kinds = np.repeat([0, 1], [850, 150])
    assert raised_threshold(scores, scores, kinds) == conformal.conformal_threshold(scores)
    with pytest.raises(InputError, match="one kind a training score"):
        raised_threshold(scores, scores, kinds[:-1])


def test_kinds_too_small_for_a_promise_have_no_say():
    scores = np.r_[np.linspace(0, 1, 100), np.full(5, 4.0)]
    kinds = np.repeat([0, 1], [100, 5])
    held = np.linspace(0, 1, 100)
    assert raised_threshold(held, scores, kinds) == conformal.conformal_threshold(held)
    assert raised_threshold(held, scores, np.full(105, -1)) == conformal.conformal_threshold(held)

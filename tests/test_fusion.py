"""Cue fusion against scipy's weighted geometric mean, and the squashing against its limits."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import gmean

from tailwise.detectors.components.fusion import fuse, squash
from tailwise.errors import InputError


def test_the_fusion_is_the_weighted_geometric_mean_of_scipy():
    cues = torch.rand(3, 50, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    fused = fuse(dict(zip("abc", cues, strict=True)), {"b": 0.1, "a": 0.55, "c": 0.7})
    assert np.allclose(fused, gmean(cues.numpy() + 1e-6, axis=0, weights=np.tile([[0.55], [0.1], [0.7]], 50)))


def test_one_cue_alone_is_itself_and_a_weight_of_nought_is_absence():
    cue, other = torch.rand(2, 20, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(fuse({"a": cue}, {"a": 3.0}), cue, atol=2e-6)
    assert torch.equal(fuse({"a": cue, "b": other}, {"a": 1.0, "b": 0.0}), fuse({"a": cue}, {"a": 1.0}))


@pytest.mark.parametrize(("scale", "top"), [(0.05, 1.0), (0.5, 10.0)])
def test_squashing_goes_from_nought_to_one_rises_and_stays_there(scale, top):
    scores = torch.linspace(0, top, 101)
    squashed = squash(scores, scale, top)
    assert float(squashed[0]) == 0
    assert float(squashed[-1]) == pytest.approx(1)
    assert bool((squashed.diff() > 0).all())
    assert bool((squashed.diff().diff() < 0).all())  # concave
    assert float(squash(torch.tensor(5 * top), scale, top)) == pytest.approx(1)


def test_squashing_is_known_at_its_scale():
    # At s = scale the numerator is ln 2; with top = 3 scale the whole is ln 2 / ln 4.
    assert float(squash(torch.tensor(2.0), 2.0, 6.0)) == pytest.approx(math.log(2) / math.log(4))


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: fuse({"a": torch.ones(2)}, {"b": 1.0}), "a score and a weight: a, b has only one"),
        (lambda: fuse({"a": torch.ones(2)}, {"a": 0.0}), "one is above 0"),
        (lambda: fuse({"a": torch.ones(2), "b": torch.ones(2)}, {"a": 2.0, "b": -1.0}), "0 or more"),
        (lambda: squash(torch.ones(2), 0.0, 1.0), "above 0: got 0.0 and 1.0"),
    ],
)
def test_bad_input_is_named(call, said):
    with pytest.raises(InputError, match=said):
        call()

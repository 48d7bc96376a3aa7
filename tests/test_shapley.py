"""Contributions against closed forms, automatic differentiation and what must hold for any function."""

import numpy as np
import pytest
import torch

from tailwise.core.data import Batch, Data
from tailwise.detectors.gaussian import Gaussian
from tailwise.errors import InputError
from tailwise.numerics import shapley
from tailwise.numerics.shapley import contributions


def rows(n, d, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rough(samples):
    """Neither smooth, nor even, nor a sum over features."""
    flat = samples.flatten(1)
    return flat.prod(1).abs().sqrt() + flat.amax(1).floor() + 3 * (flat[:, 0] > flat[:, 1])


def own_parts(d):
    return torch.arange(d)


@pytest.mark.parametrize("steps", [1, 2, 7])
@pytest.mark.parametrize("shape", [(5,), (1, 12), (3, 6, 4)])
def test_contributions_add_up_whatever_the_score(steps, shape):
    sample, reference = rows(2, int(np.prod(shape))).view(2, *shape)
    part = torch.arange(int(np.prod(shape))).view(shape) % 4
    found = contributions(rough, sample, reference, part, steps)
    assert len(found) == 4
    assert float(found.sum()) == pytest.approx(float(rough(sample[None]) - rough(reference[None])), abs=1e-12)


@pytest.mark.parametrize("steps", [1, 4])
def test_a_diagonal_gaussian_is_driven_by_squared_z_scores(steps):
    data = rows(400, 5).float() * torch.tensor([1.0, 2.0, 5.0, 0.1, 1.0]) + 3
    detector = Gaussian(shrinkage=1.0)
    detector.start((5,))
    detector.solve(Data(data, range(400)), torch.ones(400))
    sample = torch.tensor([4.0, 9.0, 3.0, 3.4, -1.0])
    score = lambda samples: detector.score(Batch(samples, torch.arange(len(samples))))  # noqa: E731
    found = contributions(score, sample, detector.mean[0].float(), own_parts(5), steps)
    z = (sample.numpy() - data.numpy().mean(0)) / data.numpy().std(0)
    assert found.numpy() == pytest.approx(z**2, rel=1e-3, abs=1e-4)


def test_a_quadratic_score_is_attributed_exactly_in_one_step():
    """Both Shapley and Aumann-Shapley give delta_j (P (x + r - 2 m))_j; a sampled order alone does not."""
    root, (sample, reference, mean) = rows(6, 6, 1), rows(3, 6, 2)
    precision = root @ root.T
    score = lambda samples: torch.einsum("nd,de,ne->n", samples - mean, precision, samples - mean)  # noqa: E731
    expected = (sample - reference) * (precision @ (sample + reference - 2 * mean))
    for seed in range(3):
        found = contributions(score, sample, reference, own_parts(6), 1, seed)
        assert found.numpy() == pytest.approx(expected.numpy(), rel=1e-10)


def test_many_steps_come_to_integrated_gradients():
    sample, reference = rows(2, 4, 3)
    mix = rows(4, 4, 4)
    score = lambda samples: torch.tanh(samples @ mix).prod(1) + (samples @ mix[0]).exp()  # noqa: E731
    places = torch.linspace(0, 1, 4_001, dtype=torch.float64)
    path = (reference + (sample - reference) * ((places[1:] + places[:-1]) / 2)[:, None]).requires_grad_()
    score(path).sum().backward()
    expected = (sample - reference) * path.grad.mean(0)
    errors = [
        float((contributions(score, sample, reference, own_parts(4), steps) - expected).abs().max())
        for steps in (1, 64)
    ]
    assert errors[1] < 1e-3 * float(expected.abs().max())
    assert errors[1] < errors[0] / 10


def test_a_part_without_a_say_gets_nothing_and_the_seed_decides_the_rest():
    sample, reference = rows(2, 4, 5)
    score = lambda samples: rough(samples[:, :3])  # noqa: E731
    one, same, other = (contributions(score, sample, reference, own_parts(4), 1, seed) for seed in (0, 0, 1))
    assert one[3] == 0
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_no_global_state_is_touched():
    before = torch.random.get_rng_state()
    contributions(rough, *rows(2, 3), own_parts(3), 2)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize(("height", "width", "side"), [(8, 8, 4), (7, 10, 4), (3, 9, 8)])
def test_a_grid_is_even_and_whole(height, width, side):
    cells = shapley.grid(height, width, side)
    counts = cells.flatten().bincount()
    assert len(counts) == min(side, height) * min(side, width)
    assert counts.min() > 0
    sides = [((cells == cell).any(1).sum(), (cells == cell).any(0).sum()) for cell in range(len(counts))]
    assert all(int(a * b) == int(count) for (a, b), count in zip(sides, counts, strict=True))
    assert max(a for a, _ in sides) - min(a for a, _ in sides) <= 1


def test_windows_are_neighbours():
    found = shapley.windows(10, 4).tolist()
    assert found == sorted(found)
    assert set(found) == set(range(4))
    assert shapley.windows(3, 4).tolist() == [0, 1, 2]


def test_costs_are_bounded():
    for parts, entries in ((5, 5), (64, 150_528), (1_280, 1_280)):
        steps = shapley.steps_for(parts, entries)
        assert steps == 1 or 2 * (parts + 1) * steps * entries <= 40_000_000
    assert shapley.steps_for(5, 5) > shapley.steps_for(1_280, 1_280) >= 1


def test_what_does_not_fit_is_refused():
    with pytest.raises(InputError, match="one shape"):
        contributions(rough, torch.ones(3), torch.ones(4), own_parts(3), 1)
    with pytest.raises(InputError, match="at least 1"):
        contributions(rough, torch.ones(3), torch.ones(3), own_parts(3), 0)

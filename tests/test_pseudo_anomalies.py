"""Randomness that depends on a sample's content alone, and what Perlin masks, textures and altered rows look like."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from tailwise.detectors.components import pseudo_anomalies
from tailwise.detectors.components.pseudo_anomalies import altered_images, altered_rows, perlin_masks, perlin_noise
from tailwise.numerics.counter_rng import normals, seeds_of, uniforms


def rand(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_numbers_are_uniform_and_gaussian_and_streams_unrelated():
    seeds = seeds_of(rand(40, 3))
    u, v, g = uniforms(seeds, 500, 1), uniforms(seeds, 500, 2), normals(seeds, 500, 3)
    assert stats.kstest(u.flatten().numpy(), "uniform").pvalue > 1e-3
    assert stats.kstest(g.flatten().numpy(), "norm").pvalue > 1e-3
    # Between streams, between neighbouring numbers, and between samples of neighbouring numbers.
    for a, b in ((u, v), (u[:, 1:], u[:, :-1]), (u[1:], u[:-1])):
        assert abs(np.corrcoef(a.flatten(), b.flatten())[0, 1]) < 5 / math.sqrt(a.numel())


def test_the_smallest_change_of_a_sample_or_of_the_step_gives_another_seed():
    sample = rand(1, 200)
    changed = sample.repeat(200, 1)
    changed[range(200), range(200)] = torch.nextafter(sample[0], torch.tensor(9.0))
    seeds = torch.cat([seeds_of(sample), seeds_of(changed), *(seeds_of(sample, step) for step in range(1, 50))])
    assert len(seeds.unique()) == 250
    swapped = sample.clone()
    swapped[0, :2] = sample[0, [1, 0]]
    assert seeds_of(swapped) != seeds_of(sample)


def altered_by_range(rows, seeds, bank):
    return altered_rows(rows, seeds, bank.amin(0), bank.amax(0))


@pytest.mark.parametrize("make", [altered_by_range, altered_images])
def test_a_sample_is_altered_alike_alone_and_in_a_batch(make):
    samples = rand(9, 5) if make is altered_by_range else rand(9, 2, 16, 12)
    seeds = seeds_of(samples, 3)
    together, where = make(samples, seeds, samples[:4])
    for i in (0, 4, 8):
        alone, place = make(samples[i : i + 1], seeds[i : i + 1], samples[:4])
        assert torch.allclose(alone[0], together[i], atol=1e-6)
        assert torch.equal(place[0], where[i])
    assert not torch.equal(make(samples, seeds_of(samples, 4), samples[:4])[0], together)


@pytest.mark.parametrize("make", [altered_by_range, altered_images])
def test_only_what_is_marked_is_altered_and_something_always_is(make):
    samples = rand(200, 7) if make is altered_by_range else rand(64, 2, 16, 12)
    made, where = make(samples, seeds_of(samples), samples[:16])
    touched = (made != samples).any(1) if samples.dim() == 4 else made != samples
    assert not bool((touched & ~where).any())
    assert bool(touched.flatten(1).any(1).all())
    assert float(touched[where].float().mean()) > 0.95
    assert bool(torch.isfinite(made).all())


def test_perlin_noise_is_nought_on_average_bounded_and_smooth():
    noise = perlin_noise(seeds_of(rand(200, 3)), (96, 96))
    assert abs(float(noise.mean())) < 0.02
    assert float(noise.abs().max()) <= 1
    steps = torch.cat([noise.diff(dim=1).abs().flatten(1), noise.diff(dim=2).abs().flatten(1)], 1)
    # A gradient of length 1, of sqrt 2 after scaling, over cells of at least 4 pixels (96 / 16 = 6 here): no jumps.
    assert float(steps.max()) < 3 * math.sqrt(2) / 6


def test_masks_cover_a_small_part_in_blobs_of_many_sizes():
    masks = perlin_masks(seeds_of(rand(300, 3)), (64, 64)).float()
    share = masks.mean((1, 2))
    assert float(share.min()) >= 0.049
    assert 0.05 < float(share.mean()) < 0.15
    # The share of masked pixels whose right neighbour is masked too: near 1 for blobs, near the share for dust.
    along = (masks[:, :, 1:] * masks[:, :, :-1]).sum((1, 2)) / masks.sum((1, 2))
    assert float(along.median()) > 0.6
    assert float(along.std()) > 0.05


def test_masks_know_no_direction():
    """Turned by random angles, masks of many seeds change as often along one axis as along the other."""
    masks = perlin_masks(seeds_of(rand(600, 3)), (32, 32)).float()
    down, right = masks.diff(dim=1).abs().mean((1, 2)), masks.diff(dim=2).abs().mean((1, 2))
    assert stats.ttest_rel(down.numpy(), right.numpy()).pvalue > 1e-3


def test_every_kind_of_texture_is_made_and_one_is_a_moved_sample():
    bank = rand(3, 2, 8, 8, seed=1)
    made = pseudo_anomalies.textures(seeds_of(rand(100, 3)), (2, 8, 8), bank)
    sets = {tuple(sorted(sample.flatten().tolist())) for sample in bank}
    moved = [tuple(sorted(sample.flatten().tolist())) in sets for sample in made]
    assert 10 < sum(moved) < 45
    two_coloured = [len(sample[0].unique()) == 2 for sample in made]
    assert 10 < sum(two_coloured) < 45
    assert len({tuple(sample.flatten().tolist()) for sample in made}) == 100


def test_rows_lose_any_share_of_their_features_to_values_of_a_range_twice_as_wide():
    rows = rand(4_000, 20)
    made, where = altered_rows(rows, seeds_of(rows), torch.full((20,), -1.0), torch.full((20,), 3.0))
    values = made[where]
    assert stats.kstest(values.numpy(), "uniform", args=(-3, 8)).pvalue > 1e-3
    # With a share that is uniform every count from 0 to 20 is equally likely; 0 is made 1.
    counts = where.sum(1).bincount(minlength=21)
    assert int(counts[0]) == 0
    assert stats.chisquare(counts[1:].numpy(), 4_000 / 21 * np.array([2] + [1] * 19)).pvalue > 1e-3

"""The memory of patches against slower roads to the same: one greedy step at a time, scikit-learn's outlier factors."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.ndimage import uniform_filter
from sklearn.neighbors import LocalOutlierFactor, NearestNeighbors

from tailwise.core import inference
from tailwise.core.data import Data
from tailwise.core.modality import FEATURE_MAP
from tailwise.detectors.components.coreset import directed, k_centres
from tailwise.detectors.components.outlier_factor import outlier_factors
from tailwise.detectors.patch_memory import PatchMemory
from tailwise.errors import InputError
from tailwise.training.fit import fit
from tailwise.workflows import request


def maps(*counts, seed=0, shape=(6, 8, 8), spread=0.3):
    """Images of kinds, so many of each, every position of a kind about a vector of its own."""
    generator = torch.Generator().manual_seed(seed)
    centres = 3 * torch.randn(len(counts), *shape, generator=torch.Generator().manual_seed(1))
    kinds = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    samples = centres[kinds] + spread * torch.randn(len(kinds), *shape, generator=generator)
    return Data(samples, [str(i) for i in range(len(kinds))], modality=FEATURE_MAP)


def fitted(data, **settings):
    detector = PatchMemory(**settings)
    fit(detector, data)
    return detector


def stepwise(points, stretch, count):
    """The greedy choice as it is told: all distances anew for every choice."""
    picks = [int(((points - points.mean(0)).norm(dim=1) * stretch).argmax())]
    while len(picks) < count:
        near = torch.cdist(points.double(), points[picks].double()).amin(1) * stretch
        picks.append(int(near.argmax()))
    return picks


@pytest.mark.parametrize("stretched", [False, True])
@pytest.mark.parametrize("count", [1, 2, 150])
def test_the_choice_is_the_greedy_one(count, stretched):
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(3_000, 5, generator=generator)
    stretch = 0.5 + torch.rand(3_000, generator=generator) if stretched else torch.ones(3_000)
    picks, radius = k_centres(points, stretch, count)
    assert picks.tolist() == stepwise(points, stretch, count)
    left = torch.cdist(points, points[picks]).amin(1).max()
    assert float(radius) == pytest.approx(float(left), rel=1e-3)


@pytest.mark.parametrize("channels", [152, 600])
def test_distances_of_the_choice_are_exact_or_nearly(channels):
    points = torch.randn(200, channels, generator=torch.Generator().manual_seed(0))
    exact, found = (torch.pdist(each) for each in (points, directed(points)))
    assert float((found / exact - 1).abs().max()) < (0.3 if channels > 512 else 1e-6)
    assert directed(points).shape[1] <= 512


@pytest.mark.parametrize("channels", [4, 64])
def test_equal_points_are_chosen_once(channels):
    points = torch.randn(7, channels, generator=torch.Generator().manual_seed(0)).repeat(300, 1)
    picks, radius = k_centres(points, torch.ones(2_100), 50)
    assert len(points[picks].unique(dim=0)) == len(picks) == 7
    assert float(radius) == pytest.approx(0, abs=1e-2)


@pytest.mark.parametrize("standardise", [False, True])
def test_scores_are_distances_to_a_memory_of_everything(standardise):
    """With all patches kept, maps are scikit-learn's nearest distances between neighbourhood means of scaled maps."""
    data, fresh = maps(20), maps(5, seed=2)
    detector = fitted(data, share=1.0, standardise=standardise)

    known = data.samples.double().numpy()
    mean, deviation = (moment((0, 2, 3), keepdims=True) for moment in (known.mean, known.std))
    scale = deviation if standardise else np.sqrt((deviation**2).mean())

    def patches(samples):
        means = uniform_filter((samples.double().numpy() - mean) / scale, (1, 1, 3, 3), mode="constant")
        return means.transpose(0, 2, 3, 1).reshape(-1, 6)

    search = NearestNeighbors(n_neighbors=1).fit(patches(data.samples))
    expected = search.kneighbors(patches(fresh.samples))[0].reshape(5, 8, 8)
    found = inference.over_batches(detector, fresh, detector.score_map)
    assert np.allclose(found, expected, rtol=1e-3)


def test_the_map_peaks_where_a_patch_is_changed():
    data, fresh = maps(30), maps(4, seed=2)
    detector = fitted(data, share=0.2)
    changed = fresh.samples.clone()
    changed[:, :, 5:7, 1:3] += 4
    peak = inference.over_batches(detector, replace(fresh, samples=changed), detector.score_map).flatten(1).argmax(1)
    assert all(4 <= place // 8 <= 7 and place % 8 <= 3 for place in peak.tolist())


@pytest.mark.parametrize("k", [1, 6])
def test_outlier_factors_are_those_of_scikit_learn(k):
    points = torch.randn(3, 40, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    points[1, 0] += 6
    found = outlier_factors(points, k)
    for group, factors in zip(points, found, strict=True):
        reference = LocalOutlierFactor(n_neighbors=k).fit(group.numpy())
        assert np.allclose(factors, -reference.negative_outlier_factor_, rtol=1e-6)


def test_denoising_leaves_out_the_hidden_anomaly_and_spares_the_rare_kind():
    data = maps(60, 4)
    dirty = data.samples.clone()
    dirty[3, :, 3, 3] += 20  # with its neighbourhood 9 of 64 patches
    dirty = replace(data, samples=dirty)
    anomaly = dirty.take([3])
    plain, clean = (fitted(dirty, share=0.1, denoise=share) for share in (0.0, 0.05))
    assert float(inference.score(clean, anomaly)) > 3 * float(inference.score(plain, anomaly))
    assert bool((clean.owner >= 60).any())


def test_a_rare_kind_keeps_its_patches():
    """Four images of a kind in 204 are a fiftieth of the patches."""
    data = maps(200, 4, spread=1.0)
    shares = [float((fitted(data, keep_tail=power).owner >= 200).float().mean()) for power in (0.0, 2.0)]
    assert shares[1] > 1.5 * shares[0]


def test_blocks_give_nearly_the_same_memory():
    data, fresh = maps(60, 6), maps(10, 10, seed=2)
    whole = fitted(data, share=0.05)
    parted = fitted(data, share=0.05, max_memory="300KB")
    assert parted._block_images < 30
    assert len(parted.memory) == len(whole.memory)
    ours, theirs = (inference.score(detector, fresh) for detector in (parted, whole))
    for kind in (slice(0, 10), slice(10, 20)):
        assert float(ours[kind].mean()) == pytest.approx(float(theirs[kind].mean()), rel=0.1)


def test_the_memory_is_bounded():
    assert len(fitted(maps(40), share=0.5, most=100).memory) == 100


def test_training_scores_do_not_look_themselves_up():
    data = maps(30)
    detector = fitted(data, share=0.3)
    own = inference.score(detector, data)
    left_out = inference.over_batches(detector, data, detector.score_left_out)
    fresh = inference.score(detector, maps(30, seed=5))
    assert bool((left_out >= own).all())
    assert abs(float(left_out.mean() - fresh.mean())) < 0.5 * abs(float(own.mean() - fresh.mean()))


def test_an_update_knows_the_new_kind_and_forgets_nothing():
    data, more = maps(40), maps(0, 10)
    detector = fitted(data)
    before = len(detector.memory)
    usual = inference.score(detector, maps(10, seed=3))
    new = maps(0, 10, seed=3)
    first = inference.score(detector, new)
    detector.update(more, torch.ones(10))
    assert len(detector.memory) > before
    highest = inference.over_batches(detector, more, detector.score_map).max()
    assert float(highest) <= float(detector.radius) * (1 + 1e-5)
    assert bool((inference.score(detector, new) < first).all())
    assert bool((inference.score(detector, maps(10, seed=3)) <= usual).all())
    again = len(detector.memory)
    detector.update(more, torch.ones(10))
    assert len(detector.memory) == again


def test_reweighing_follows_the_paper():
    """One image, all by hand from equation 7, with distances a channel."""
    detector = fitted(maps(20), share=0.05, reweigh=3)
    plain = fitted(maps(20), share=0.05)
    fresh = maps(1, seed=4)
    patches = detector.parts(fresh.samples)[0].double()
    memory = detector.memory.double()
    between = torch.cdist(patches, memory)
    place = int(between.amin(1).argmax())
    nearest = int(between[place].argmin())
    around = torch.cdist(memory[nearest][None], memory)[0].argsort()[:3]
    size = 6**0.5
    factor = 1 - np.exp(float(between[place, nearest]) / size) / torch.exp(between[place, around] / size).sum()
    expected = float(factor) * float(inference.score(plain, fresh))
    assert float(inference.score(detector, fresh)) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"share": 0.0}, "share must be a number above 0 and at most 1"),
        ({"denoise": 1.0}, "denoise must be a number of at least 0 and below 1"),
        ({"most": 0}, "most must be a whole number of at least 1: got 0"),
        ({"max_memory": "plenty"}, "a size such as '2GB'"),
        ({"neighbourhood": 4}, "must be an odd whole number"),
    ],
)
def test_settings_that_make_no_sense(settings, said):
    with pytest.raises(InputError, match=said):
        PatchMemory(**settings)


def test_the_memory_option_is_the_setting():
    assert request.with_setting("patch-memory", "max_memory", "500MB") == "PatchMemory(max_memory='500MB')"
    assert request.with_setting("PatchMemory(share=0.1)", "max_memory", "1GB") == (
        "PatchMemory(share=0.1, max_memory='1GB')"
    )


@pytest.mark.parametrize("side", [1, 3, 5])
def test_a_patch_is_the_mean_of_its_neighbourhood_and_of_what_is_usual_outside(side):
    sample = maps(1, shape=(6, 7, 5)).samples
    detector = PatchMemory(share=1.0, neighbourhood=side)
    fit(detector, Data(torch.cat([sample, 0 * sample]), ["0", "1"], modality=FEATURE_MAP))
    found = detector.parts(sample).unflatten(1, (7, 5))[0]
    centred = (sample[0] - detector.mean[:, None, None]) / detector.scale[:, None, None]
    far = side // 2
    for row, column in ((0, 0), (3, 2), (6, 4), (6, 1)):
        part = centred[:, max(0, row - far) : row + far + 1, max(0, column - far) : column + far + 1]
        torch.testing.assert_close(found[row, column], part.sum((1, 2)) / side**2, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("max_memory", ["2GB", "2MB"])
def test_what_most_of_a_large_image_looks_like_is_near_the_memory(max_memory: str) -> None:
    """The farthest patches alone would leave it out: all lie within the radius of the others."""
    generator = torch.Generator().manual_seed(0)
    maps = 0.05 * torch.randn(12, 4, 50, 50, generator=generator)
    odd = torch.rand(12, 1, 50, 50, generator=generator) < 0.1
    maps = torch.where(odd, 20 * torch.rand(12, 4, 50, 50, generator=generator) - 10, maps)
    detector = PatchMemory(neighbourhood=1, max_memory=max_memory)
    detector.start((4, 50, 50), FEATURE_MAP)
    data = Data(maps, [str(i) for i in range(12)], modality=FEATURE_MAP)
    detector.solve(data, torch.ones(12))
    usual = detector.score_map(data.batch(torch.arange(12)))[~odd[:, 0]]
    assert float(usual.quantile(0.9)) < 0.1 * float(detector.radius)

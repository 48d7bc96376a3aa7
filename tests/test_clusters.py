"""Kinds kept with what places new samples: against blobs whose kinds are known, and scikit-learn's neighbours."""

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.metrics import adjusted_rand_score
from sklearn.neighbors import NearestNeighbors

from tailwise.calibration import clustering, clusters
from tailwise.calibration.clusters import NONE, UNKNOWN, Clusters
from tailwise.core import embedding, inference
from tailwise.core.data import Data
from tailwise.core.modality import FEATURE_MAP, IMAGE, ROW
from tailwise.errors import InputError
from tailwise.runs import files

SHAPES = [(12,), (1, 20), (1, 8, 8), (3, 40, 40), (24, 4, 4)]


def data_of(samples):
    modality = FEATURE_MAP if samples.shape[1:] == SHAPES[-1] else None
    return Data(samples, range(len(samples)), modality=modality)


def blobs(sizes, shape=(12,), seed=0, spread=3.0, start=0):
    """Samples in kinds of these sizes; `start` draws other samples of the same kinds."""
    centres = spread * np.random.default_rng(seed).normal(size=(len(sizes), *shape))
    generator = np.random.default_rng(1_000 + start)
    samples = [c + generator.normal(size=(n, *shape)) for c, n in zip(centres, sizes, strict=True)]
    return torch.from_numpy(np.concatenate(samples)).float(), np.repeat(np.arange(len(sizes)), sizes)


def test_new_samples_are_of_their_kind_and_a_new_kind_is_unknown():
    samples, _ = blobs([300, 120, 40, 12])
    new, truth = blobs([200, 200, 200, 200, 200], start=1)
    found = Clusters.learn(data_of(samples)).of(data_of(new))
    assert adjusted_rand_score(truth[found >= 0], found[found >= 0]) == 1
    assert (found[truth == 4] == UNKNOWN).float().mean() > 0.95
    assert (found[truth < 4] == UNKNOWN).float().mean() < 0.15


def test_of_one_kind_hardly_more_are_unknown_as_was_asked_for():
    samples = torch.randn(4_000, 6, generator=torch.Generator().manual_seed(0))
    new = torch.randn(4_000, 6, generator=torch.Generator().manual_seed(1))
    for share in (0.05, 0.2):
        found = Clusters.learn(data_of(samples), unknown=share).of(data_of(new))
        # Left out, a sample is held to neighbours that know it: a few too few are unknown.
        assert share - 0.03 < float((found == UNKNOWN).float().mean()) < share + 0.01


@pytest.mark.parametrize(("count", "falling"), [(30, 0.0), (60, 0.7), (100, 0.7), (200, 0.0)])
def test_of_few_samples_with_many_numbers_as_many_are_unknown_as_was_promised(count, falling):
    """The law is that of 5 % asked of so many samples; the axes' deviations fall with a power of their number."""
    generator = torch.Generator().manual_seed(count)
    deviations = torch.arange(1, 301) ** -falling
    unknown, strange, draws, asked = [], [], 8, 300
    for _ in range(draws):
        train, new = (deviations * torch.randn(n, 300, generator=generator) for n in (count, asked))
        away = torch.randn(300, generator=generator)
        away *= 2 * deviations.norm() / away.norm()
        found = Clusters.learn(data_of(train))
        unknown.append(float((found.of(data_of(new)) == UNKNOWN).float().mean()))
        strange.append(float((found.of(data_of(new + away)) == UNKNOWN).float().mean()))
    above = max(count - int(np.ceil(0.95 * (count + 1))), 0)
    law = stats.betabinom(asked, above + 1, count - above)
    assert abs(np.mean(unknown) - law.mean() / asked) < 3 * law.std() / asked / draws**0.5
    assert np.mean(strange) > 0.95


@pytest.mark.parametrize("shape", SHAPES)
def test_training_samples_keep_the_cluster_that_was_found(shape):
    samples, truth = blobs([90, 40, 20], shape)
    found = Clusters.learn(data_of(samples))
    assert torch.equal(found.training, clustering.find(embedding.embedding_of(data_of(samples)), rare=True))
    assert torch.equal(found.of(data_of(samples)), found.training)
    assert torch.equal(found.of(data_of(samples[5:9])), found.training[5:9])
    assert found.count == 3
    assert adjusted_rand_score(truth, found.training) == 1


def test_of_many_samples_a_sample_is_kept(monkeypatch):
    monkeypatch.setattr(clusters, "_MOST_SAMPLES", 150)
    samples, truth = blobs([200, 100, 40])
    found = Clusters.learn(data_of(samples), seed=1)
    assert len(found.places) == 150
    assert adjusted_rand_score(truth, found.training) == 1
    again = found.of(data_of(samples))
    assert torch.equal(again[again != UNKNOWN], found.training[again != UNKNOWN])
    assert torch.equal(found.training, Clusters.learn(data_of(samples), seed=1).training)


def test_as_a_new_sample_each_is_of_the_kind_of_its_nearest_other_one():
    samples, _ = blobs([60, 30], spread=0.6)
    found = Clusters.learn(data_of(samples))
    near = NearestNeighbors(n_neighbors=2).fit(found.places.numpy()).kneighbors(found.places.numpy())[1][:, 1]
    assert torch.equal(found.training_as_new.nearest, found.training[near])
    # The ceil(91 x 0.95)-th smallest of 90 is the limit.
    assert int((found.training_as_new.cluster == UNKNOWN).sum()) == 3


def test_leading_places_are_those_of_training_samples_and_new_ones(monkeypatch):
    monkeypatch.setattr(clusters, "_MOST_SAMPLES", 60)
    samples, _ = blobs([60, 30])
    found = Clusters.learn(data_of(samples))
    along, again = found.training_as_new.along, found.place(data_of(samples)).along
    assert along.shape == (90, 12)
    known = torch.isfinite(along).all(1)
    assert int(known.sum()) == 60
    torch.testing.assert_close(along[known], again[known], atol=1e-4, rtol=0)


def test_samples_of_no_cluster_are_of_no_kind():
    samples, _ = blobs([4])
    found = Clusters.learn(data_of(samples))
    assert found.training.tolist() == [NONE] * 4
    assert found.count == 0
    assert found.of(data_of(torch.cat([samples, samples + 1e-3]))).tolist() == [NONE] * 8
    assert clusters.names_of(torch.tensor([0, 3, NONE, UNKNOWN])) == ["0", "3", "none", "unknown"]


@pytest.mark.parametrize("shape", SHAPES)
def test_what_is_kept_in_a_file_says_the_same(shape, tmp_path):
    samples, _ = blobs([60, 25], shape)
    found = Clusters.learn(data_of(samples))
    files.write(tmp_path / "clusters", files.tensor_bytes(found.state, {}))
    restored = Clusters.restore(files.read_tensors(tmp_path / "clusters")[0], found.modality)
    new = data_of(blobs([30, 30, 30], shape, start=1)[0])
    assert torch.equal(restored.of(new), found.of(new))
    assert restored.training is None


def test_batches_and_samples_of_one_value_do_not_matter(monkeypatch):
    samples, _ = blobs([90, 30])
    found = Clusters.learn(data_of(samples))
    new = data_of(blobs([80, 80, 80], start=2)[0])
    whole = found.of(new)
    monkeypatch.setattr(inference, "batch_size_for", lambda shape, most: 7)
    assert torch.equal(found.of(new), whole)
    same = Clusters.learn(data_of(torch.ones(50, 3)))
    assert same.of(data_of(torch.ones(4, 3))).tolist() == [0] * 4


def test_two_samples_are_enough_and_one_is_not():
    assert Clusters.learn(data_of(torch.eye(2))).of(data_of(torch.eye(2))).tolist() == [NONE, NONE]
    with pytest.raises(InputError, match="at least 2"):
        Clusters.learn(data_of(torch.eye(1)))


def test_bad_input_is_named():
    samples, _ = blobs([30, 30])
    found = Clusters.learn(data_of(samples))
    with pytest.raises(InputError, match=r"rows of shape \[12\]: got rows of shape \[3\]"):
        found.of(data_of(torch.zeros(2, 3)))
    with pytest.raises(InputError, match="finite"):
        Clusters.learn(data_of(torch.full((3, 2), torch.nan)))
    with pytest.raises(InputError, match="between 0 and 1"):
        Clusters.learn(data_of(samples), unknown=1.0)
    with pytest.raises(InputError, match="kept as"):
        Clusters.restore({"places": torch.zeros(1)}, ROW)


def test_kinds_that_compared_pictures_by_pixels_alone_have_to_be_made_again():
    state = Clusters.learn(data_of(blobs([60, 30], (1, 8, 8))[0])).state
    assert len(state["axes"]) == 4 * 4 * 4 + 64
    with pytest.raises(InputError, match="fit again"):
        Clusters.restore(state | {"axes": state["axes"][-64:]}, IMAGE)


def test_kinds_of_one_picture_in_two_colours_or_of_two_brightnesses_are_told_apart():
    drawn = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    noise = 0.1 * torch.randn(200, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    tint = torch.tensor([1.0, 0.6, 0.6])[None, :, None, None]
    for other in (tint * drawn, 0.6 * drawn):
        pictures = torch.cat([drawn.expand(120, -1, -1, -1), other.expand(80, -1, -1, -1)]) + noise
        found = Clusters.learn(data_of(pictures)).training
        assert adjusted_rand_score(np.repeat([0, 1], [120, 80]), found) > 0.95


@pytest.mark.parametrize("times", [2, 3])
def test_copies_change_nothing(times):
    generator = torch.Generator().manual_seed(0)
    samples, new = torch.randn(300, 5, generator=generator), torch.randn(2_000, 5, generator=generator)
    once = Clusters.learn(Data(samples, range(300)))
    found = Clusters.learn(Data(samples.repeat(times, 1), range(300 * times)))
    fresh = Data(new, range(2_000))
    assert torch.equal(found.of(fresh), once.of(fresh))
    assert torch.equal(found.training, once.training.repeat(times))
    assert torch.equal(found.training_as_new.unknown, once.training_as_new.unknown.repeat(times))
    assert float((found.of(fresh) == UNKNOWN).float().mean()) < 0.07


def test_what_is_beyond_single_precision_is_unknown():
    found = Clusters.learn(Data(torch.randn(300, 5, generator=torch.Generator().manual_seed(0)), range(300)))
    far = torch.tensor([1e18, 1e19, 1e20, 3e38])[:, None].expand(4, 5)
    assert found.of(Data(far, range(4))).tolist() == [UNKNOWN] * 4

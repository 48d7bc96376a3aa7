import heapq

import numpy as np
import pytest
import scipy
import torch
from sklearn.datasets import load_digits
from sklearn.metrics import adjusted_rand_score

from tailwise.calibration import clustering
from tailwise.errors import InputError
from tailwise.numerics.neighbours import principal_components


def blobs(sizes, dims=16, spread=4.0, seed=0):
    generator = np.random.default_rng(seed)
    centres = spread * generator.normal(size=(len(sizes), dims))
    samples = np.concatenate(
        [centre + generator.normal(size=(n, dims)) for centre, n in zip(centres, sizes, strict=True)]
    )
    return torch.from_numpy(samples).float(), np.repeat(np.arange(len(sizes)), sizes)


@pytest.mark.parametrize("seed", range(3))
def test_separate_kinds_are_found_down_to_a_tiny_one_and_numbered_by_size(seed):
    samples, clusters = blobs([600, 200, 100, 60, 20, 8], seed=seed)
    found = clustering.find(samples)
    assert found.dtype == torch.int64
    assert adjusted_rand_score(clusters, found) > 0.98
    assert torch.bincount(found).tolist() == [600, 200, 100, 60, 20, 8]


def ties_of(samples, density, seed):
    """Random ties in eighths, of which many are equal."""
    generator = np.random.default_rng(seed)
    tied = np.triu(generator.integers(1, 8, (samples, samples)) * (generator.random((samples, samples)) < density), 1)
    return scipy.sparse.csr_matrix((tied + tied.T) / 8)


def by_product(tie, one, other):
    return tie / (one * other)


def by_smaller(tie, one, other):
    return tie / min(one, other)


@pytest.mark.parametrize("closeness", [by_product, by_smaller])
@pytest.mark.parametrize("seed", range(3))
def test_the_closest_of_all_pairs_are_joined_each_time(closeness, seed):
    ties = ties_of(40, 0.15, seed)
    tied = {(a, b): tie for a, b, tie in zip(*scipy.sparse.find(ties), strict=True) if a < b}
    degree = dict(enumerate(ties.toarray().sum(1)))
    for step, (a, b, tie) in enumerate(clustering._joins(ties, closeness, 0.05)):
        best = min(tied, key=lambda pair: (-closeness(tied[pair], degree[pair[0]], degree[pair[1]]), *pair))
        assert (a, b) == best
        assert tie == pytest.approx(tied[best])
        new = 40 + step
        degree[new] = degree[a] + degree[b]
        moved = {}
        for (one, other), value in tied.items():
            ends = [end for end in (one, other) if end not in best]
            pair = (one, other) if len(ends) == 2 else (ends[0], new) if ends else None
            if pair:
                moved[pair] = moved.get(pair, 0) + value
        tied = moved
    assert all(closeness(tie, degree[a], degree[b]) <= 0.05 for (a, b), tie in tied.items())


def test_what_many_are_tied_to_is_not_gone_through_at_each_join(monkeypatch):
    """Each of 600 samples joins the hub in turn: going through all its ties each time would take 180,000 steps."""
    hub = np.zeros((601, 601))
    hub[0, 1:] = hub[1:, 0] = np.linspace(1, 2, 600)
    pushed = []
    push = heapq.heappush
    monkeypatch.setattr(heapq, "heappush", lambda queue, entry: pushed.append(entry) or push(queue, entry))
    assert len(list(clustering._joins(scipy.sparse.csr_matrix(hub), by_smaller, 0.0))) == 600
    assert len(pushed) < 6_000


@pytest.mark.parametrize("digit", [2, 4, 5])
def test_a_rare_digit_is_parted_off_where_rare_kinds_matter(digit):
    images, clusters = load_digits(return_X_y=True)
    kept = np.sort(np.concatenate([np.flatnonzero(clusters != digit), np.flatnonzero(clusters == digit)[:25]]))
    embedding = principal_components(
        torch.from_numpy(images[kept] / 16).float().reshape(-1, 1, 8, 8), standardise=False
    )
    is_rare = torch.from_numpy(clusters[kept] == digit)

    def own(found):
        """How much of the digit is in one cluster, and how much of that cluster is the digit."""
        most = found[is_rare].mode().values
        return float((found[is_rare] == most).float().mean()), float(is_rare[found == most].float().mean())

    assert min(own(clustering.find(embedding))) < 0.5
    assert min(own(clustering.find(embedding, rare=True))) > 0.5


def test_parting_off_the_rare_leaves_separate_kinds_as_they_are():
    samples, _ = blobs([600, 200, 100, 60, 20, 8])
    assert torch.equal(clustering.find(samples, rare=True), clustering.find(samples))


def test_one_kind_is_one_cluster():
    for samples in (blobs([500])[0], torch.rand(500, 8, generator=torch.Generator().manual_seed(0)), torch.ones(50, 3)):
        assert clustering.find(samples).unique().tolist() == [0]


def test_digits_are_told_apart():
    images, clusters = load_digits(return_X_y=True)
    embedding = principal_components(torch.from_numpy(images / 16).float(), standardise=False)
    assert adjusted_rand_score(clusters, clustering.find(embedding)) > 0.75


def test_lone_samples_belong_to_none():
    samples, _ = blobs([100, 40])
    lone = 60 * torch.eye(16)[:4]
    found = clustering.find(torch.cat([samples, lone]))
    assert found[:140].unique().tolist() == [0, 1]
    assert clustering.find(samples, smallest=60).unique().tolist() == [-1, 0]


def test_shift_scale_and_order_do_not_matter():
    samples, _ = blobs([150, 60, 20, 7], spread=3.0)
    found = clustering.find(samples)
    order = torch.randperm(len(samples), generator=torch.Generator().manual_seed(1))
    assert adjusted_rand_score(found, clustering.find(samples * 0.01 + 50)) == 1
    assert adjusted_rand_score(found[order], clustering.find(samples[order])) == 1


def test_many_samples_are_sampled_and_the_rest_follow():
    samples, clusters = blobs([7_000, 2_500, 300])
    found = clustering.find(samples, seed=1)
    assert len(found) == 9_800
    assert adjusted_rand_score(clusters, found) > 0.99
    assert torch.equal(found, clustering.find(samples, seed=1))


def test_new_samples_take_the_cluster_of_their_kind():
    samples, clusters = blobs([120, 60, 20])
    known = torch.arange(len(samples)) % 2 == 0
    found = clustering.find(samples[known])
    new = clustering.assign(samples[~known], samples[known], found)
    assert adjusted_rand_score(clusters[~known], new) == 1
    assert torch.equal(clustering.assign(samples[known], samples[known], found), found)


@pytest.mark.parametrize("n", [1, 2, 4])
def test_too_few_samples_have_no_clusters(n):
    assert clustering.find(torch.randn(n, 3)).tolist() == [-1] * n


def test_bad_input_is_named():
    with pytest.raises(InputError, match=r"\[n, d\]: got shape \[3, 2, 2\]"):
        clustering.find(torch.zeros(3, 2, 2))
    with pytest.raises(InputError, match="finite"):
        clustering.find(torch.tensor([[0.0, torch.nan], [1.0, 2.0]]))
    with pytest.raises(InputError, match="one cluster a sample"):
        clustering.assign(torch.zeros(2, 3), torch.zeros(4, 3), torch.zeros(5))
    with pytest.raises(InputError, match="at least 2"):
        clustering.find(torch.zeros(9, 2), smallest=1)

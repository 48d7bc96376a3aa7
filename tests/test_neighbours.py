from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import StandardScaler

from tailwise.numerics import neighbours
from tailwise.numerics.neighbours import coinciding, exactly, nearest, nearest_within, principal_components, walk_spread


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def clustered(sizes, dims=32, spread=3.0, seed=0):
    centres = spread * normal(len(sizes), dims, seed=seed)
    kinds = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    return centres[kinds] + normal(len(kinds), dims, seed=seed + 1), kinds


@pytest.mark.parametrize("offset", [0.0, 1_000.0])
def test_nearest_is_scikit_learns(offset):
    query, reference = normal(50, 6) + offset, normal(300, 6, seed=1) + offset
    distances, indices = nearest(query, reference, 7)
    peer_distances, peer_indices = NearestNeighbors(n_neighbors=7, algorithm="brute").fit(reference).kneighbors(query)
    assert np.array_equal(indices, peer_indices)
    assert np.allclose(distances, peer_distances, rtol=1e-4)


def test_nearest_of_long_rows_keeps_little_at_a_time(monkeypatch):
    """20 neighbours of 30 rows as long as a feature map's would be 24 million numbers at once."""
    query, reference = normal(30, 40_000), normal(60, 40_000, seed=1)
    monkeypatch.setattr(neighbours, "_FEW_LONG", 0)  # as of more than 1,000 rows
    largest = []
    less = torch.Tensor.sub_
    monkeypatch.setattr(torch.Tensor, "sub_", lambda x, y: largest.append(x.numel()) or less(x, y))
    distances, indices = nearest(query, reference, 20)
    assert max(largest) <= 4_000_000
    peer_distances, peer_indices = NearestNeighbors(n_neighbors=20).fit(reference.numpy()).kneighbors(query.numpy())
    np.testing.assert_array_equal(indices.numpy(), peer_indices)
    np.testing.assert_allclose(distances.numpy(), peer_distances, rtol=1e-5)


@pytest.mark.parametrize("offset", [0.0, 300.0])
@pytest.mark.parametrize("sizes", [(3_000, 1_500, 600, 20), (2_500,) * 2, (5_000,)], ids=["rare", "two", "one kind"])
def test_regions_find_what_the_whole_set_holds(sizes, offset, monkeypatch):
    """Queries within the kinds, between them, far away, and copies of what is known."""
    points, _ = clustered(sizes, spread=4.0)
    points = points + offset
    reference = points.clone()
    between = (points[:200] + points[-200:]) / 2
    query = torch.cat(
        [points[:300], points[1_000:1_200] + 0.3, points[-30:] + 0.3, between, offset + 90 * normal(50, 32)]
    )
    compared = []
    smallest = neighbours._smallest_columns
    monkeypatch.setattr(neighbours, "_QUERIES_BEFORE", 0)
    monkeypatch.setattr(
        neighbours, "_smallest_columns", lambda values, k: compared.append(values.numel()) or smallest(values, k)
    )
    regions = neighbours._regions_of(reference, reference - reference.mean(0))
    compared.clear()
    distances, indices = nearest(query, reference, 30)
    assert (regions.share < 0.8) == (len(sizes) > 1)
    if len(sizes) > 1:
        assert sum(compared) < 0.9 * len(query) * len(reference)
    monkeypatch.setattr(neighbours, "_QUERIES_BEFORE", 1_000_000)
    exact_distances, exact = nearest(query, reference.clone(), 30)
    assert torch.equal(distances, exact_distances)
    assert torch.equal(indices, exact)


def test_regions_bear_queries_that_are_no_finite_numbers(monkeypatch):
    monkeypatch.setattr(neighbours, "_QUERIES_BEFORE", 0)
    points, _ = clustered((3_000, 3_000), spread=4.0)
    query = torch.cat([points[:2], torch.full((1, 32), torch.nan), torch.full((1, 32), 1e30), points[2:4]])
    distances, indices = nearest(query, points, 3)
    assert indices[[0, 1, 4, 5], 0].tolist() == [0, 1, 2, 3]
    assert not (distances[2:4] < 1e9).any()


@pytest.mark.parametrize(("numbers", "near"), [(32, 20), (33, 40), (3, 20)])
def test_a_distance_to_a_flat_is_that_of_ridge_regression(numbers, near):
    points, samples = normal(40, numbers), normal(500, numbers, seed=1)
    at = nearest(points, samples, near)[1]
    expected = []
    for point, rows in zip(points.double().numpy(), samples[at].double().numpy(), strict=True):
        flat = rows - rows.mean(0)
        ridge = 0.01 * (flat**2).sum() / near
        shares = np.linalg.solve(flat @ flat.T + ridge * np.eye(near), flat @ (point - rows.mean(0)))
        expected.append(np.linalg.norm(point - rows.mean(0) - shares @ flat))
    np.testing.assert_allclose(neighbours.beyond(points, samples, at).numpy(), expected, rtol=1e-9)
    single = neighbours.beyond(points, samples, at, torch.float32).numpy()
    np.testing.assert_allclose(single, expected, rtol=1e-3, atol=1e-4 * np.median(expected))


@pytest.mark.parametrize("count", [400, 1_003, 10_003])
@pytest.mark.parametrize("values", ["apart", "equal", "infinite", "missing"])
def test_the_smallest_of_each_row_are_told_with_few_others(values, count):
    rows = torch.randn(7, count, generator=torch.Generator().manual_seed(0))
    if values == "equal":
        rows = rows.round()
    elif values != "apart":
        rows[rows > 1] = torch.inf if values == "infinite" else torch.nan
        rows[0, 15:] = rows[0, 15:].abs() * (torch.inf if values == "infinite" else torch.nan)
    columns, highest = neighbours._smallest_columns(rows, 20)
    assert columns.shape[1] <= 30
    for row, found, limit in zip(rows, columns, highest, strict=True):
        found = found[found >= 0]
        assert torch.equal(found, found.unique())
        ordered, expected = (np.sort(each.numpy())[:20] for each in (row[found], row))
        np.testing.assert_array_equal(ordered, expected)
        assert not (row[found] > limit).any()


def test_few_long_rows_are_compared_by_their_products(monkeypatch):
    reference, query = normal(60, 5_000) + 3, normal(40, 5_000, seed=1) + 3
    query[0] = reference[7]
    distances, indices = nearest(query, reference, 12)
    flats = neighbours.beyond(query[1:], reference, indices[1:])
    monkeypatch.setattr(neighbours, "_FEW_LONG", 0)
    one_by_one = nearest(query, reference, 12)
    assert torch.equal(indices, one_by_one[1])
    torch.testing.assert_close(distances, one_by_one[0], rtol=1e-6, atol=1e-4)
    torch.testing.assert_close(flats, neighbours.beyond(query[1:], reference, indices[1:]), rtol=1e-5, atol=0)
    assert coinciding(distances, query)[:, 0].tolist() == [True] + 39 * [False]


def test_nearest_of_nothing_is_nothing():
    distances, indices = nearest(torch.zeros(0, 3), normal(5, 3), 2)
    assert distances.shape == indices.shape == (0, 2)


@pytest.mark.parametrize("offset", [0.0, 1_000.0])
def test_small_sets_are_searched_exactly(offset):
    points = normal(400, 5) + offset
    peers = NearestNeighbors(n_neighbors=9, algorithm="brute").fit(points).kneighbors(return_distance=False)
    assert np.array_equal(nearest_within(points, 9), peers)


def test_k_is_cut_to_the_others():
    assert nearest_within(normal(4, 2), 20).shape == (4, 3)


def test_copies_find_each_other_and_nobody_finds_itself():
    points = normal(30, 3).repeat(2, 1)
    near = nearest_within(points, 3)
    assert torch.equal(near[:, 0], (torch.arange(60) + 30) % 60)
    assert not (near == torch.arange(60)[:, None]).any()


@pytest.fixture(scope="module")
def large():
    """20,000 samples of 20 kinds, three of them with 20 samples only, and their exact and searched neighbours."""
    points, kinds = clustered([1_500] * 12 + [300] * 4 + [740, 20, 20, 20, 0])
    order = torch.randperm(len(points), generator=torch.Generator().manual_seed(5))
    points, kinds = points[order], kinds[order]
    return points, kinds, nearest_within(points, 20)


def test_large_sets_find_four_fifths_of_the_true_neighbours(large):
    points, _, found = large
    asked = torch.arange(0, len(points), 20)
    exact = nearest(points[asked], points, 21)[1][:, 1:]
    recall = (exact[:, :, None] == found[asked][:, None, :]).any(2).float().mean()
    assert recall >= 0.8


def test_the_samples_of_a_rare_kind_find_each_other(large):
    _, kinds, found = large
    rare = torch.isin(kinds, torch.tensor([17, 18, 19]))
    assert rare.sum() == 60
    same = (kinds[found[rare]] == kinds[rare][:, None])[:, :19]
    assert same.float().mean() >= 0.95


def test_neighbours_are_others_and_named_once(large):
    points, _, found = large
    assert not (found == torch.arange(len(points))[:, None]).any()
    assert (found.sort(1).values.diff(dim=1) > 0).all()
    assert torch.equal(found[:50], nearest_within(points, 20)[:50])


@pytest.fixture
def cells_early(monkeypatch):
    """Cells from 20,000 samples on, so that sets stay small here."""
    monkeypatch.setattr(neighbours, "EXACT_REFERENCE", 20_000)


@pytest.mark.usefixtures("cells_early")
def test_a_search_by_cells_finds_nearly_all_and_the_same_ones_in_any_company():
    points = normal(21_000, 8)
    asked = torch.arange(0, len(points), 40)
    distances, indices = nearest(points[asked], points, 20)
    peer_distances, peers = NearestNeighbors(n_neighbors=20).fit(points).kneighbors(points[asked])
    recall = (torch.from_numpy(peers)[:, :, None] == indices[:, None, :]).any(2).float().mean()
    assert 0.95 <= recall < 1, "no more are searched exactly than was said"
    assert torch.equal(indices[:, 0], asked)
    assert (distances.numpy() / np.maximum(peer_distances, 1e-9))[:, 1:].mean() < 1.01
    assert torch.equal(nearest(points[asked[100:103]], points, 20)[1], indices[100:103])
    with exactly():
        assert np.array_equal(nearest(points[asked], points, 20)[1], peers)


@pytest.mark.usefixtures("cells_early")
def test_a_search_by_cells_finds_rare_kinds():
    points, kinds = clustered([1_000] * 21 + [20] * 3)
    rare = kinds >= 21
    assert rare.sum() == 60
    near = nearest(points[rare], points, 20)[1]
    assert (kinds[near] == kinds[rare][:, None]).float().mean() >= 0.95


@pytest.mark.usefixtures("cells_early")
def test_a_search_by_cells_sees_changed_points_and_bears_copies():
    points = torch.cat([normal(15_000, 4), torch.full((8_000, 4), 9.0)])
    assert float(nearest(points[-1:], points, 30)[0].max()) == 0
    points[-8_000:] += normal(8_000, 4, seed=1)
    assert float(nearest(points[-1:], points, 30)[0][0, 1]) > 0


def test_the_first_sample_is_found_like_any_other():
    points = torch.cat([torch.zeros(1, 4), 0.01 * normal(10, 4), 50 + normal(8_500, 4)])
    found = nearest_within(points, 10)
    assert (found[1:11] == 0).any(1).all()


@pytest.mark.parametrize("d", [10, 40])
def test_components_of_rows_are_scikit_learns_on_standardised_features(d):
    samples = normal(500, d) @ normal(d, d, seed=1) * torch.logspace(-3, 3, d) + 5
    peer = PCA(8).fit_transform(StandardScaler().fit_transform(samples.double()))
    ours = principal_components(samples, 8)
    assert np.allclose(ours.abs(), np.abs(peer), atol=2e-3 * np.abs(peer).max())


@pytest.mark.parametrize("shape", [(60, 1, 8, 8), (40, 3, 32, 32)])
def test_components_of_images_are_scikit_learns_on_raw_pixels(shape):
    samples = normal(*shape)
    samples[:, :, 0] += 3 * normal(shape[0], 1, 1)
    peer = PCA(4, svd_solver="full").fit_transform(samples.flatten(1).double())
    ours = principal_components(samples, 4, standardise=False)
    assert np.allclose(ours.abs(), np.abs(peer), atol=2e-3 * np.abs(peer).max())


def test_components_do_not_mind_constant_features_or_samples_of_measure():
    samples = normal(300, 6)
    wide = torch.cat([samples, torch.full((300, 1), 7.0)], 1)
    assert torch.allclose(principal_components(wide, 6).abs(), principal_components(samples, 6).abs(), atol=1e-3)
    assert torch.allclose(
        principal_components(samples * 1e5, 6).abs(), principal_components(samples, 6).abs(), atol=1e-3
    )


def test_a_feature_that_is_constant_in_the_sample_does_not_drown_the_others():
    samples = torch.cat([normal(6_000, 3), torch.zeros(6_000, 1)], 1)
    sampled = torch.randperm(6_000, generator=torch.Generator().manual_seed(0))[:5_000]
    missed = torch.ones(6_000, dtype=torch.bool).index_fill(0, sampled, False).nonzero()[0, 0]
    samples[missed, 3] = 1.0
    assert principal_components(samples, 32).abs().max() < 100


def test_a_walk_between_equal_samples_or_of_few_says_nothing():
    assert torch.equal(walk_spread(torch.ones(50, 3)), torch.ones(50))
    assert torch.equal(walk_spread(torch.rand(2, 3)), torch.ones(2))


@pytest.mark.parametrize("doublings", [0, 1, 4])
def test_a_walk_spreads_as_the_powers_of_its_chances(doublings):
    """Of two kinds that are tied and one that is not, whose walks are followed by themselves."""
    points, _ = clustered((60, 30), spread=1.0)
    points = torch.cat([points, points[:20] + 100])
    ties = neighbours.ties(points - points.mean(0)).toarray() + 0.05 * np.eye(len(points))
    chances = np.linalg.matrix_power(ties / ties.sum(1, keepdims=True), 2**doublings)
    expected = 1 / (chances**2).sum(1) / len(points)
    np.testing.assert_allclose(walk_spread(points, doublings).numpy(), expected, rtol=1e-4)


def test_a_long_walk_reaches_its_own_kind_and_no_other():
    """Also where there are more samples than walks, which then stand for those nearest to them."""
    generator = torch.Generator().manual_seed(0)
    kinds = torch.repeat_interleave(torch.arange(2), torch.tensor([2_700, 300]))
    points = 50.0 * kinds[:, None] + torch.randn(3_000, 4, generator=generator)
    reach = walk_spread(points, doublings=12)
    assert float(reach[kinds == 1].max()) < 0.13
    assert float(reach[kinds == 1].median()) == pytest.approx(0.1, rel=0.25)


@pytest.mark.parametrize("answer", ["raises", "not finite"])
def test_where_float32_does_not_converge_axes_are_found_in_double(monkeypatch, answer):
    samples = torch.randn(200, 6, generator=torch.Generator().manual_seed(0)) * torch.tensor([9.0, 7, 5, 3, 2, 1])
    plain = principal_components(samples, 3)
    eigh = torch.linalg.eigh

    def fails_in_single(matrix):
        if matrix.dtype == torch.float64:
            return eigh(matrix)
        if answer == "raises":
            raise torch.linalg.LinAlgError("did not converge")
        return SimpleNamespace(eigenvectors=torch.full_like(matrix, torch.nan))

    monkeypatch.setattr(torch.linalg, "eigh", fails_in_single)
    torch.testing.assert_close(principal_components(samples, 3).abs(), plain.abs(), rtol=1e-3, atol=1e-3)


def test_a_point_is_itself_but_for_rounding_and_no_near_one_is():
    """Rounding is what another runtime makes of the same picture: a share of 1e-5, not 1e-3, of what parts pictures."""
    memory = torch.randn(60, 200, generator=torch.Generator().manual_seed(0)).double()
    noise = torch.nn.functional.normalize(torch.randn(60, 200, generator=torch.Generator().manual_seed(1)).double())
    for away, itself in ((0.0, True), (1e-5, True), (1e-3, False)):
        points = memory + away * 20 * noise
        distances, indices = nearest(points, memory, 4)
        assert torch.equal(indices[:, 0], torch.arange(60))
        assert coinciding(distances, points)[:, 0].all() == itself
        assert not coinciding(distances, points)[:, 1:].any()
    # In a dense line the next one is near, and not the same.
    line = torch.linspace(-2, 2, 4_000)[:, None]
    distances, _ = nearest(line + 4e-4, line, 4)
    assert not coinciding(distances, line).any()


def test_regions_bear_tensors_of_inference():
    with torch.inference_mode():
        reference, query = normal(3_000, 4), normal(9_000, 4, seed=1)
        distances, _ = neighbours.nearest(query, reference, 3)
    expected, _ = neighbours.nearest(query.clone(), reference.clone(), 3)
    assert torch.equal(distances, expected)

"""Features of points: turning, moving and scaling change nothing, and what was not measured is nowhere a point."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from tailwise.numerics import organised_scans, point_features


@pytest.fixture(scope="module")
def cloud() -> np.ndarray:
    """A bumpy ball."""
    generator = np.random.default_rng(0)
    u = generator.normal(size=(3000, 3))
    u /= np.linalg.norm(u, axis=1, keepdims=True)
    ball = u * (1 + 0.2 * np.sin(5 * u[:, :1]) + 0.1 * u[:, 1:2])
    return ball[point_features.farthest_points(ball, 600)]


@pytest.fixture(scope="module")
def scan() -> np.ndarray:
    """A wavy surface [40, 40, 3] over a grid, noisy, seen from above."""
    y, x = np.meshgrid(np.arange(40) / 40, np.arange(40) / 40, indexing="ij")
    z = 0.6 + 0.05 * np.sin(6 * x) * np.cos(4 * y) + np.random.default_rng(1).normal(0, 0.001, x.shape)
    return np.stack([x + 1, y + 2, z], 2)


def turned(points: np.ndarray, scale: float = 1.0) -> np.ndarray:
    return scale * points @ Rotation.random(random_state=3).as_matrix().T + np.array([5.0, -3, 40])


def test_turning_moving_and_scaling_a_cloud_changes_no_feature(cloud: np.ndarray) -> None:
    before, after = (organised_scans.point_fpfh(each, None) for each in (cloud, turned(cloud, 37)))
    assert before.std(0).max() > 0.01
    assert np.abs(before - after).max() < 1e-3


def test_turning_a_scan_changes_no_feature(scan: np.ndarray) -> None:
    before, after = (organised_scans.cell_features(each, (10, 10))[0] for each in (scan, turned(scan, 0.2)))
    assert before.std((1, 2)).max() > 0.005
    assert np.abs(before - after).max() < 1e-3


def test_features_of_a_pair_of_points_are_those_worked_out_by_hand() -> None:
    # The line between them is x; the first normal stands on it, the second leans towards it by 45 degrees and is the
    # source: u.d = -.707, so the last third has its bin 1; the normals' angle has its bin in the first third.
    points = np.array([[0.0, 0, 0], [1, 0, 0]])
    normals = np.array([[0.0, 0, 1], [2**-0.5, 0, 2**-0.5]])
    found = point_features.fpfh(points, normals, 2.0)
    thirds = found.reshape(2, 3, 11)
    assert np.allclose(thirds.sum(2), 1 / 3)
    assert np.allclose(thirds.max(2), 1 / 3)  # one pair, one bin of each third
    assert thirds[0, 1].argmax() == 5  # v.m = 0
    assert thirds[0, 2].argmax() == 1  # (-.707 + 1) / 2 * 11 = 1.6
    assert abs(int(thirds[0, 0].argmax()) - 5) == 1  # 45 of 360 degrees are 1.4 of 11 bins from the middle
    assert np.allclose(found[0], found[1])


def test_normals_of_a_plane_stand_on_it() -> None:
    generator = np.random.default_rng(2)
    flat = turned(np.concatenate([generator.random((200, 2)), np.zeros((200, 1))], 1))
    axis = Rotation.random(random_state=3).as_matrix()[:, 2]
    normals = point_features.normals_of(flat, 0.3, np.broadcast_to(axis, (200, 3)))
    assert np.allclose(normals, axis, atol=1e-6)


def test_farthest_points_cover_evenly_and_follow_the_seed(cloud: np.ndarray) -> None:
    chosen = point_features.farthest_points(cloud, 60, seed=1)
    assert len(set(chosen.tolist())) == 60
    assert (chosen == point_features.farthest_points(cloud, 60, seed=1)).all()
    drawn = np.random.default_rng(0).choice(len(cloud), 60, replace=False)
    assert point_features.spacing_of(cloud[chosen]) > 1.5 * point_features.spacing_of(cloud[drawn])
    assert sorted(set(point_features.farthest_points(cloud[:5], 12).tolist())) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("hole", [0.0, np.nan, np.inf])
def test_a_hole_is_no_geometry(scan: np.ndarray, hole: float) -> None:
    """Cells that were measured keep their features, and those in the hole are as near to normal as their neighbours."""
    whole = organised_scans.cell_features(scan, (10, 10), radius=0.1)[0]
    pierced = scan.copy()
    pierced[12:24, 12:24] = hole
    features, measured = organised_scans.cell_features(pierced, (10, 10), radius=0.1)
    assert measured.sum() == 100 - 9
    assert np.isfinite(features).all()
    assert np.allclose(features.sum(0), 1, atol=1e-4)  # no cell is a mixture with nothing
    # Beside the hole neighbourhoods are cut, as at the border of a scan; beyond their reach nothing changes.
    assert np.abs(features - whole)[:, 9].max() < 1e-6
    inside = features[:, 3:6, 3:6].reshape(33, -1).T
    rim = features[:, 2:7, 2:7].reshape(33, -1).T
    assert all(np.abs(rim - cell).max(1).min() == 0 for cell in inside)
    assert {tuple(cell) for cell in inside} <= {tuple(cell) for cell in features[:, measured].T}


def test_a_scan_of_nothing_has_zeros(scan: np.ndarray) -> None:
    features, measured = organised_scans.cell_features(np.zeros_like(scan), (10, 10))
    assert not measured.any()
    assert not features.any()


def test_a_fine_scan_is_thinned_to_means_of_what_was_measured(scan: np.ndarray) -> None:
    fine = scan.repeat(2, 0).repeat(2, 1)
    fine[1::2, 1::2] = np.nan
    points, whole = organised_scans.thinned(fine, most=1600)
    assert whole.all()
    assert np.allclose(points, scan)


def test_the_table_is_taken_off_a_copy(scan: np.ndarray) -> None:
    table = scan.copy()
    table[..., 2] = 0.9
    table[8:30, 8:30] = scan[8:30, 8:30]
    table[2, 2, 2] = 0.7  # a speck that is not the part
    before = table.copy()
    found = organised_scans.measured(organised_scans.without_plane(table, 0.005))
    assert (table == before).all()
    expected = np.zeros((40, 40), bool)
    expected[8:30, 8:30] = True
    assert (found == expected).all()

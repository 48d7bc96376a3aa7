"""Organised scans: a point [x, y, z] for each pixel of a camera's picture, where it was measured.

A pixel that is not finite, or at 0 0 0, was not measured. It is no point: nothing is computed from it, and nothing of
it enters what is said of its neighbours.
"""

from __future__ import annotations

import math

import numpy as np
import scipy
import torch
from torch.nn.functional import adaptive_avg_pool2d

from . import point_features
from .point_features import FEATURE_SPACINGS, FPFH_SIZE, NORMAL_SPACINGS
from .point_patches import PATCH_POINTS, patches_of

# Points of finer scans are means of 2 x 2, 3 x 3 or more pixels, so that a scan has so many at most.
_MOST_POINTS = 10_000
# A block or cell of fewer measured pixels than this share was not measured.
_LEAST_MEASURED = 0.3
# Pixels of the border that a plane is looked for in, and planes that are tried, as in BTF.
_BORDER, _TRIALS = 10, 1_000


def measured(xyz: np.ndarray) -> np.ndarray:
    """Which pixels [h, w] of a scan [h, w, 3] were measured.

    Examples:
        >>> measured(np.array([[[0.0, 0, 0], [1, 0, 0], [np.nan, 1, 1]]])).tolist()
        [[False, True, False]]
    """
    return np.isfinite(xyz).all(2) & (xyz != 0).any(2)


def without_plane(xyz: np.ndarray, tolerance: float, seed: int = 0) -> np.ndarray:
    """A copy of a scan [h, w, 3] in which the table is not measured: the plane through most of the border's points.

    What is within the tolerance of the plane goes, and then all but the largest connected piece. Where fewer than three
    points of the border are measured, nothing goes.

    Args:
        tolerance: in the scan's unit; .005 of scans in metres (Horwitz & Hoshen, CVPR workshops 2023).
    """
    whole = measured(xyz)
    border = np.ones_like(whole)
    border[_BORDER:-_BORDER, _BORDER:-_BORDER] = False
    points = xyz[border & whole].astype(np.float64)
    if len(points) < 3:
        return xyz.copy()
    normal, offset = _plane(points, tolerance, np.random.default_rng(seed))
    kept = whole & (np.abs(np.where(whole[..., None], xyz, 0) @ normal - offset) > tolerance)
    pieces, count = scipy.ndimage.label(kept, np.ones((3, 3)))
    if count:
        kept = pieces == 1 + int(np.bincount(pieces[kept])[1:].argmax())
    return np.where(kept[..., None], xyz, 0)


def _plane(points: np.ndarray, tolerance: float, generator: np.random.Generator) -> tuple[np.ndarray, float]:
    """The plane n.x = d that most points [n, 3] are close to (RANSAC, Fischler & Bolles 1981), fitted to these."""
    thinned = points[:: max(1, len(points) // 1_000)]
    corners = thinned[generator.integers(len(thinned), size=(_TRIALS, 3))]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    lengths = np.linalg.norm(normals, axis=1)
    normals = normals[lengths > 0] / lengths[lengths > 0, None]
    if not len(normals):
        return np.zeros(3), math.inf
    offsets = (normals * corners[lengths > 0, 0]).sum(1)
    close = np.abs(thinned @ normals.T - offsets) <= tolerance
    best = int(close.sum(0).argmax())
    near = thinned[close[:, best]]
    normal = np.linalg.svd(near - near.mean(0), full_matrices=False)[2][-1]
    return normal, float(near.mean(0) @ normal)


def cell_features(xyz: np.ndarray, size: tuple[int, int], radius: float | None = None) -> tuple[np.ndarray, np.ndarray]:
    """FPFH [33, *size] of the cells of a scan [h, w, 3], and which cells [*size] were measured.

    A cell has the mean of its points' features. One with less than .3 of its pixels measured has those of the nearest
    measured cell: so it is never far from what is normal by itself, and whoever averages over cells averages over what
    was measured. A scan of which nothing was measured has zeros.

    Args:
        size: rows and columns of cells.
        radius: of the features' neighbourhood, in the scan's unit; None is 7.7 times the usual distance between
            neighbours. That of the normals' is 0.42 of it.
    """
    points, whole = thinned(xyz)
    features = np.zeros((*whole.shape, FPFH_SIZE), np.float32)
    if whole.sum() > 1:
        features[whole] = point_fpfh(points[whole], radius, facing(points, whole))
    return _in_cells(features, whole, size)


def cell_patches(xyz: np.ndarray, size: tuple[int, int], radius: float | None = None) -> np.ndarray:
    """Patches of points [3 + 144, *size] of the cells of a scan [h, w, 3], with arguments as `cell_features`.

    First the place of a cell's point, the measured one that is nearest to the mean of them all, about the mean of the
    scan and in units of the radius; then the 48 points around it, one's x, y and z after another's. A cell that was not
    measured has those of the nearest measured cell, and a scan of which nothing was measured has zeros.
    """
    points, whole = thinned(xyz)
    result = np.zeros((3 * (1 + PATCH_POINTS), *size), np.float32)
    means, found = _in_cells(points, whole, size)
    if not found.any() or whole.sum() < 2:
        return result
    cloud = points[whole]
    place = scipy.spatial.cKDTree(cloud).query(means[:, found].T)[1]
    result[:, found] = point_patches(cloud, radius, facing(points, whole), place, directions(points, whole)[1]).T
    return _filled(result, found)


def point_fpfh(points: np.ndarray, radius: float | None, towards: np.ndarray | None = None) -> np.ndarray:
    """FPFH [n, 33] of points [n, 3]; see `cell_features` for the radius and `normals_of` for `towards`."""
    if radius is None:
        radius = FEATURE_SPACINGS * point_features.spacing_of(points)
    around = None if towards is None else np.broadcast_to(towards, points.shape)
    normals = point_features.normals_of(points, radius * NORMAL_SPACINGS / FEATURE_SPACINGS, around)
    return point_features.fpfh(points, normals, radius)


def point_patches(
    points: np.ndarray,
    radius: float | None,
    towards: np.ndarray | None = None,
    place: np.ndarray | None = None,
    along: np.ndarray | None = None,
) -> np.ndarray:
    """Places and patches [k, 3 + 144] of the points at `place` [k] among points [n, 3], or of all: see `cell_patches`,
    and `patches_of` for `along`."""
    radius = FEATURE_SPACINGS * point_features.spacing_of(points) if radius is None else radius
    place = np.arange(len(points)) if place is None else place
    around = None if towards is None else np.broadcast_to(towards, points.shape)
    normals = point_features.normals_of(points, radius * NORMAL_SPACINGS / FEATURE_SPACINGS, around)
    at = (points[place] - points.mean(0)) / radius
    return np.concatenate([at, patches_of(points, normals, place, radius, along).reshape(len(place), -1)], 1)


def thinned(xyz: np.ndarray, most: int = _MOST_POINTS) -> tuple[np.ndarray, np.ndarray]:
    """A scan [h', w', 3] float64 of at most so many points, each the mean of a square of pixels, and which of them
    [h', w'] were measured."""
    whole = measured(xyz)
    side = 1
    while -(-xyz.shape[0] // side) * -(-xyz.shape[1] // side) > most:
        side += 1
    values = np.where(whole[..., None], xyz, 0).astype(np.float64)
    if side == 1:
        return values, whole
    ends = [(0, -length % side) for length in whole.shape]
    values, counts = np.pad(values, (*ends, (0, 0))), np.pad(whole, ends).astype(np.float64)
    rows, columns = counts.shape[0] // side, counts.shape[1] // side
    counts = counts.reshape(rows, side, columns, side).sum((1, 3))
    sums = values.reshape(rows, side, columns, side, 3).sum((1, 3))
    kept = counts >= _LEAST_MEASURED * side**2
    return np.divide(sums, counts[..., None], out=np.zeros_like(sums), where=kept[..., None]), kept


def directions(points: np.ndarray, whole: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors [3] along which the rows and the columns of a scan's measured points count."""
    rows, columns = whole.nonzero()
    places = np.stack([rows - rows.mean(), columns - columns.mean()], 1)
    along = np.linalg.lstsq(places, points[whole] - points[whole].mean(0), rcond=None)[0]
    lengths = np.maximum(np.linalg.norm(along, axis=1), 1e-300)
    return along[0] / lengths[0], along[1] / lengths[1]


def facing(points: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """The direction [3] of the camera: that to which the rows and columns of the measured points turn their side.

    It turns with the points, which the direction of an axis would not.
    """
    down, right = directions(points, whole)
    direction = np.cross(right, down)
    length = np.linalg.norm(direction)
    return direction / length if length > 0 else np.array([0.0, 0, 1])


def _in_cells(values: np.ndarray, whole: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Means [channels, *size] of the measured of values [h, w, channels], and which cells were measured."""
    weights = torch.from_numpy(whole.astype(np.float32))[None, None]
    sums = adaptive_avg_pool2d(torch.from_numpy(values).permute(2, 0, 1)[None] * weights, size)[0]
    share = adaptive_avg_pool2d(weights, size)[0]
    found = (share[0] >= _LEAST_MEASURED).numpy()
    means = (sums / share.clamp_min(1e-12)).numpy()
    return _filled(means, found), found


def _filled(values: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Values [channels, *size] in which cells that were not found have those of the nearest that was; else zeros."""
    if not found.any():
        return np.zeros_like(values)
    if found.all():
        return values
    rows, columns = scipy.ndimage.distance_transform_edt(~found, return_distances=False, return_indices=True)
    return values[:, rows, columns]

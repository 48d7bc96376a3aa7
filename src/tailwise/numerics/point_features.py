"""Features of the points of a cloud: normals, and fast point feature histograms (FPFH, Rusu et al., ICRA 2009).

FPFH is computed as in PCL and Open3D: an SPFH (three histograms of 11 bins, of the angles between a point's normal and
those of its neighbours) plus the mean of its neighbours' SPFH, weighted by 1 / squared distance. Both give each third
of the 33 bins a sum of 200; here a point's bins add up to 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy

BINS = 11
# Numbers of a point's histogram.
FPFH_SIZE = 3 * BINS
# Neighbours that are looked at at most, as in BTF (Horwitz & Hoshen, CVPR workshops 2023).
_MOST_FOR_NORMALS, _MOST_FOR_FEATURES = 30, 100
# Radii in units of the usual distance between neighbours.
NORMAL_SPACINGS, FEATURE_SPACINGS = 3.2, 7.7
# Pairs that are worked on at once.
_PAIRS = 500_000
# Sines and cosines that differ by less are equal.
_TIE = 1e-9


@dataclass(frozen=True, eq=False)
class Neighbours:
    """Pairs of points within a radius, sorted by the first; no point is its own neighbour.

    `start` [n + 1] says where each point's pairs begin, `other` [pairs] is the neighbour, `apart` [pairs] its distance.
    """

    start: np.ndarray
    other: np.ndarray
    apart: np.ndarray

    @classmethod
    def within(
        cls, points: np.ndarray, radius: float, most: int, tree: scipy.spatial.cKDTree | None = None
    ) -> Neighbours:
        """The nearest neighbours [n, 3] within a radius, `most` with the point itself."""
        tree = scipy.spatial.cKDTree(points) if tree is None else tree
        apart, other = tree.query(points, k=np.arange(1, min(most, len(points)) + 1), distance_upper_bound=radius)
        present = np.isfinite(apart)
        # The first is the point itself, or one at the same place, as Open3D takes it.
        present[:, 0] = False
        start = np.concatenate([[0], np.cumsum(present.sum(1))])
        return cls(start, other[present], apart[present])

    @property
    def counts(self) -> np.ndarray:
        """How many neighbours each point has [n]."""
        return np.diff(self.start)

    @property
    def owner(self) -> np.ndarray:
        """The first point of each pair [pairs]."""
        return np.repeat(np.arange(len(self.start) - 1), self.counts)


def spacing_of(points: np.ndarray) -> float:
    """The median distance to the nearest other point; 0 of fewer than two points.

    Examples:
        >>> spacing_of(np.array([[0.0, 0, 0], [1, 0, 0], [3, 0, 0]]))
        1.0
    """
    if len(points) < 2:
        return 0.0
    return float(np.median(scipy.spatial.cKDTree(points).query(points, k=2)[0][:, 1]))


def normals_of(points: np.ndarray, radius: float, towards: np.ndarray | None = None) -> np.ndarray:
    """Normals [n, 3] of points [n, 3]: the direction in which the neighbours within a radius vary least.

    Args:
        points: float64.
        radius: in the points' unit; of the neighbours the 30 nearest count.
        towards: [n, 3], normals point to this side; None points them away from the middle of the cloud. Fewer than
            three neighbours give this direction, or, without it, the one away from the middle.
    """
    points = np.asarray(points, np.float64)
    middle = points - points.mean(0) if towards is None else towards
    near = Neighbours.within(points, radius, _MOST_FOR_NORMALS)
    # About the point itself: sums of squares of far-off coordinates lose what is small.
    offsets = points[near.other] - points[near.owner]
    moments = np.concatenate([offsets, (offsets[:, :, None] * offsets[:, None]).reshape(-1, 9)], 1)
    pick = scipy.sparse.csr_array(
        (np.ones(len(near.other)), np.arange(len(near.other)), near.start), (len(points), len(near.other))
    )
    sums, count = pick @ moments, near.counts[:, None] + 1.0
    mean = sums[:, :3] / count
    covariance = (sums[:, 3:] / count).reshape(-1, 3, 3) - mean[:, :, None] * mean[:, None]
    normals = np.linalg.eigh(covariance)[1][:, :, 0]
    few = near.counts < 2
    lengths = np.linalg.norm(middle, axis=1, keepdims=True)
    usual = np.divide(middle, lengths, out=np.tile([0.0, 0, 1], (len(points), 1)), where=lengths > 0)
    normals[few] = usual[few]
    return np.where((normals * middle).sum(1, keepdims=True) < 0, -normals, normals)


def fpfh(points: np.ndarray, normals: np.ndarray, radius: float, most: int = _MOST_FOR_FEATURES) -> np.ndarray:
    """Fast point feature histograms [n, 33] of points [n, 3] with unit normals [n, 3]; each adds up to 1.

    A point without a neighbour has zeros. Turning, moving and, with the radius, scaling a cloud changes nothing.

    Args:
        points, normals: float64.
        radius: in the points' unit.
        most: of the points within the radius so many count, the point itself among them: the nearest.

    Examples:
        >>> places = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [5, 5, 0]])
        >>> found = fpfh(places, np.tile([0.0, 0, 1], (4, 1)), radius=2)
        >>> found.shape, found.sum(1).round(6).tolist()
        ((4, 33), [1.0, 1.0, 1.0, 0.0])
    """
    points, normals = np.asarray(points, np.float64), np.asarray(normals, np.float64)
    near = Neighbours.within(points, radius, most)
    own = _spfh(points, normals, near)
    weights = np.divide(1.0, near.apart**2, out=np.zeros_like(near.apart), where=near.apart > 0)
    around = scipy.sparse.csr_array((weights, near.other, near.start), (len(points), len(points))) @ own
    around = _thirds(around)
    return (around + own) / 600


def _thirds(histograms: np.ndarray) -> np.ndarray:
    """Each third of histograms [n, 33] with a sum of 100, or 0."""
    parts = histograms.reshape(-1, 3, BINS)
    sums = parts.sum(2, keepdims=True)
    return np.divide(100 * parts, sums, out=np.zeros_like(parts), where=sums != 0).reshape(-1, FPFH_SIZE)


def _spfh(points: np.ndarray, normals: np.ndarray, near: Neighbours) -> np.ndarray:
    """Simplified point feature histograms [n, 33]: each third of one adds up to 100."""
    owner = near.owner
    counts = np.zeros(len(points) * FPFH_SIZE)
    for first in range(0, len(owner), _PAIRS):
        part = slice(first, first + _PAIRS)
        bins = _pair_bins(points, normals, owner[part], near.other[part], near.apart[part])
        places = (owner[part] * FPFH_SIZE)[None] + bins  # [3, pairs]
        counts += np.bincount(places.ravel(), minlength=len(counts))
    scale = np.divide(100.0, near.counts, out=np.zeros(len(points)), where=near.counts > 0)
    return counts.reshape(-1, FPFH_SIZE) * scale[:, None]


def _pair_bins(
    points: np.ndarray, normals: np.ndarray, owner: np.ndarray, other: np.ndarray, apart: np.ndarray
) -> np.ndarray:
    """The bins [3, pairs], 0 to 32, of the three angles of each pair.

    The point whose normal n is nearer to the line d between the two is the source, the other, with m, the target. In
    the frame u = n, v = d x n / |d x n|, w = u x v of Rusu et al. the angles are atan2(w.m, u.m), v.m and u.d. What is
    written here needs one triple product, which is that of both orders.
    """
    n1, n2, line = (
        values.take(places, 1) for values, places in ((normals.T, owner), (normals.T, other), (points.T, other))
    )
    line -= points.T.take(owner, 1)
    line /= np.maximum(apart, 1e-300)
    angle1, angle2, between = _dot(n1, line), _dot(n2, line), _dot(n1, n2)
    # Equal normals are a tie, in which rounding would choose the sign.
    swap = np.abs(angle2) > np.abs(angle1) + _TIE
    phi, along = np.where(swap, -angle2, angle1), np.where(swap, -angle1, angle2)
    length = np.sqrt(np.maximum(1 - phi * phi, 0))
    undefined = (length < _TIE) | (apart == 0)
    length[undefined] = 1
    theta = np.arctan2((along - phi * between) / length, between)
    alpha = _dot(line, _cross(n1, n2)) / length
    places = [(theta + np.pi) / (2 * np.pi), (alpha + 1) / 2, (phi + 1) / 2]
    bins = np.empty((3, len(owner)), np.int64)
    for part, place in enumerate(places):
        place[undefined] = 0.5
        bins[part] = np.clip(place * BINS, 0, BINS - 0.5)  # rounded down
        bins[part] += part * BINS
    return bins


def _dot(a: Any, b: Any) -> np.ndarray:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def _cross(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cross products of [3, n]; numpy's own takes several times as long."""
    return a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]


def farthest_points(points: np.ndarray, count: int, seed: int = 0) -> np.ndarray:
    """Places [count] of points [n, 3] that cover the cloud evenly: each is the farthest from those before.

    The first is drawn by the seed. A cloud of fewer points gives each again and again.

    Examples:
        >>> sorted(farthest_points(np.array([[0.0, 0, 0], [0.1, 0, 0], [1, 0, 0]]), 2).tolist())[-1]
        2
    """
    points = np.asarray(points, np.float64)
    if len(points) <= count:
        return np.arange(count) % len(points)
    x, y, z = (np.ascontiguousarray(axis) for axis in (points - points.mean(0)).T)
    place = int(np.random.default_rng(seed).integers(len(points)))
    chosen = np.empty(count, np.int64)
    near = np.full(len(points), np.inf)
    for i in range(count):
        chosen[i] = place
        np.minimum(near, (x - x[place]) ** 2 + (y - y[place]) ** 2 + (z - z[place]) ** 2, out=near)
        place = int(near.argmax())
    return chosen

"""Patches of points: what lies around a point, moved, turned and scaled so that only its shape is left.

A patch lies about the origin, its surface's normal is z, and its radius is 1: the same dent gives the same patch on
another part, in another pose and unit.
"""

from __future__ import annotations

import numpy as np
import scipy

# Points of a patch.
PATCH_POINTS = 48


def patches_of(
    points: np.ndarray, normals: np.ndarray, place: np.ndarray, radius: float, along: np.ndarray | None = None
) -> np.ndarray:
    """Patches [k, 48, 3] of points [n, 3] around those at `place` [k].

    Of the neighbours within the radius an even choice by distance, the point itself first; fewer are repeated.

    Args:
        normals: [n, 3], of unit length.
        radius: in the points' unit.
        along: [3], the direction that becomes x where a surface is seen from its normal; None is that in which the
            cloud is longest.

    Examples:
        >>> y, x = np.mgrid[:9, :9]
        >>> plane = np.stack([x, y, np.full_like(x, 5)], 2).reshape(-1, 3).astype(float)
        >>> patch = patches_of(plane, np.tile([0.0, 0, 1], (81, 1)), np.array([40]), 3)[0]
        >>> patch.shape, float(abs(patch[:, 2]).max()), float(np.linalg.norm(patch, axis=1).max())
        ((48, 3), 0.0, 1.0)
    """
    if along is None:
        along = np.linalg.svd(points - points.mean(0), full_matrices=False)[2][0]
    near = scipy.spatial.cKDTree(points).query_ball_point(points[place], radius)
    result = np.empty((len(place), PATCH_POINTS, 3), np.float32)
    for row, (centre, others) in enumerate(zip(place, near, strict=True)):
        offsets = points[others] - points[centre]
        offsets = offsets[np.square(offsets).sum(1).argsort(kind="stable")]
        chosen = np.linspace(0, len(offsets) - 1, PATCH_POINTS).round().astype(int)
        if len(offsets) < PATCH_POINTS:
            chosen = np.arange(PATCH_POINTS) % len(offsets)
        result[row] = offsets[chosen] @ _frame(normals[centre], along) / radius
    return result


def _frame(normal: np.ndarray, along: np.ndarray) -> np.ndarray:
    """A right-handed frame [3, 3], in columns, whose z is the normal and whose x is nearest to a direction."""
    x = along - (along @ normal) * normal
    if np.linalg.norm(x) < 1e-6:
        axis = np.eye(3)[np.abs(normal).argmin()]
        x = axis - (axis @ normal) * normal
    x /= np.linalg.norm(x)
    return np.stack([x, np.cross(normal, x), normal], 1)

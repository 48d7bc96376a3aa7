"""Scans and clouds as pictures: shaded, and which point is seen at each pixel, so that scores can be laid on.

Light comes from the viewer, a little from above, as engineers light a part to see its dents.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from . import organised_scans, point_features

_PAPER = 250
# From the darkest to the lightest grey of a surface.
_DARK, _LIGHT = 40, 225
_LIGHT_FROM = np.array([-0.3, -0.5, 0.81])
# How far a point reaches, in units of the usual distance between points: neighbours close the gaps.
_REACH = 1.1
_MARGIN = 4


@dataclass(frozen=True, eq=False)
class Surface:
    """A shaded picture, and which place of a map is seen at each of its pixels.

    Attributes:
        picture: [h, w, 3] uint8.
        place: [h, w], counted row by row in a map of this `grid`; -1 where no point is seen.
        grid: (points, 1) of a cloud; of a scan its height and width.
        points: [places, 3] float64, where each place is; not finite where nothing was measured.
    """

    picture: np.ndarray
    place: np.ndarray
    grid: tuple[int, int]
    points: np.ndarray

    def laid(self, values: np.ndarray) -> np.ndarray:
        """Values [*grid] at each pixel [h, w]; the least of them where no point is seen."""
        flat = np.asarray(values).reshape(-1)
        return np.where(self.place >= 0, flat[self.place], flat.min())

    def resized(self, size: tuple[int, int]) -> Surface:
        """The same picture at another height and width, by the nearest pixel."""
        rows, columns = (
            ((np.arange(new) + 0.5) * old / new).astype(int) for new, old in zip(size, self.place.shape, strict=True)
        )
        return replace(self, picture=self.picture[rows[:, None], columns], place=self.place[rows[:, None], columns])


def of_scan(xyz: np.ndarray) -> Surface:
    """The surface of an organised scan [h, w, 3], seen as its camera saw it."""
    whole = organised_scans.measured(xyz)
    height, width = whole.shape
    points = np.where(whole[..., None], xyz, np.nan).astype(np.float64)
    shade = np.zeros((height, width))
    if whole.sum() > 2:
        coarse, seen = organised_scans.thinned(xyz)
        facing = organised_scans.facing(coarse, seen)
        spacing = point_features.spacing_of(coarse[seen])
        towards = np.broadcast_to(facing, (int(seen.sum()), 3))
        normals = point_features.normals_of(coarse[seen], 2 * spacing, towards)
        # The picture's right and down, as the scan's rows and columns run.
        down, right = organised_scans.directions(coarse, seen)
        light = _LIGHT_FROM[0] * right + _LIGHT_FROM[1] * down + _LIGHT_FROM[2] * facing
        values = np.zeros(seen.shape)
        values[seen] = normals @ light
        rows, columns = (np.arange(n) * m // n for n, m in zip((height, width), seen.shape, strict=True))
        shade = values[rows[:, None], columns]
    place = np.where(whole, np.arange(height * width).reshape(height, width), -1)
    return Surface(_painted(shade, whole), place, (height, width), points.reshape(-1, 3))


def of_cloud(points: np.ndarray, side: int = 240) -> Surface:
    """The surface of a cloud [n, 3], seen from both ends of the direction in which it is thinnest; the second view is
    that of whoever walks around it. Views of a long cloud stand above each other."""
    middle = points - points.mean(0)
    axes = np.linalg.svd(middle, full_matrices=False)[2]
    axes[2] = np.cross(axes[0], axes[1])
    seen = middle @ axes.T  # right, down, towards the viewer
    distinct = np.unique(points, axis=0)
    spacing = point_features.spacing_of(distinct) or 1.0
    normals = point_features.normals_of(points, 3.5 * spacing) @ axes.T
    scale = (side - 2 * _MARGIN) / max(float(np.ptp(seen[:, :2], axis=0).max()), 1e-30)
    views = []
    for turn in (np.array([1, 1, 1]), np.array([-1, 1, -1])):
        views.append(_view(seen * turn, normals * turn, scale, max(1.0, _REACH * spacing * scale)))
    axis = 0 if views[0][1].shape[1] > 1.5 * views[0][1].shape[0] else 1
    shade, place = (np.concatenate(parts, axis) for parts in zip(*views, strict=True))
    return Surface(_painted(shade, place >= 0), place, (len(points), 1), np.asarray(points, np.float64))


def _view(seen: np.ndarray, normals: np.ndarray, scale: float, reach: float) -> tuple[np.ndarray, np.ndarray]:
    """Shade and place of each pixel [h, w]: every point is a disc, and the nearest to the viewer covers the others."""
    at = np.round((seen[:, :2] - seen[:, :2].min(0)) * scale).astype(int) + _MARGIN
    width, height = at.max(0) + _MARGIN + 1
    far = int(np.ceil(reach))
    dy, dx = np.mgrid[-far : far + 1, -far : far + 1]
    inside = dx**2 + dy**2 <= reach**2
    dy, dx = dy[inside], dx[inside]
    order = seen[:, 2].argsort(kind="stable")
    rows = (at[order, 1, None] + dy).clip(0, height - 1).reshape(-1)
    columns = (at[order, 0, None] + dx).clip(0, width - 1).reshape(-1)
    place = np.full((height, width), -1)
    place[rows, columns] = order.repeat(len(dy))
    # A cloud does not say which side of its surface is out, so the one that is seen is lit.
    shade = np.where(normals[:, 2:] < 0, -normals, normals) @ _LIGHT_FROM
    return np.where(place >= 0, shade[place], 0), place


def _painted(shade: np.ndarray, seen: np.ndarray) -> np.ndarray:
    grey = (_DARK + (_LIGHT - _DARK) * np.clip(shade, 0, 1) ** 1.5).round()
    return np.repeat(np.where(seen, grey, _PAPER).astype(np.uint8)[..., None], 3, 2)

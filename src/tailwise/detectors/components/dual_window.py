"""Dual windows around a pixel: the background is the outer window without the inner one.

At the border both are shifted into the scene, so that they keep their sizes (as in the package spectral 0.25, whatever
its documentation says of the inner one). In a scene smaller than a window, the window is as large as the scene.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ...core.context import Scene, Scenes
from ...core.data import Batch
from ...errors import InputError

# Rows that are worked on at a time: with their windows they stay in the processor's cache.
_ROWS = 32


def check_windows(name: str, inner: int, outer: int) -> None:
    """Raise an InputError unless the inner window is the smaller."""
    if inner >= outer:
        raise InputError(f"{name} needs inner < outer: got {inner} and {outer}")


@dataclass(frozen=True)
class Windows:
    """Along one axis of a scene: where the windows of each place start, and their sides."""

    outer_start: np.ndarray
    inner_start: np.ndarray
    outer: int
    inner: int

    @staticmethod
    def along(extent: int, inner: int, outer: int) -> Windows:
        place, inner, outer = np.arange(extent), min(inner, extent), min(outer, extent)
        outer_start, inner_start = (np.clip(place - side // 2, 0, extent - side) for side in (outer, inner))
        return Windows(outer_start, inner_start, outer, inner)


@dataclass(frozen=True, eq=False)
class Strip:
    """Some rows of a scene, and the pixels in them that are asked about.

    Attributes:
        pixels: float64 [rows, width, bands], from row `first` of the scene on.
        row, column: [k] of the pixels asked about, in the scene, in rising order of rows.
        down, across: the windows along the scene's rows and columns.
    """

    pixels: np.ndarray
    first: int
    row: np.ndarray
    column: np.ndarray
    down: Windows
    across: Windows

    def background(self, asked: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of the pixels `asked` [k] of those asked about: their spectra [k, bands] and all between their windows."""
        row, column = self.row[asked], self.column[asked]
        rows, leaves_row = _lines(self.down, row)
        columns, leaves_column = _lines(self.across, column)
        kept = ~(leaves_row[:, :, None] & leaves_column[:, None])  # [k, outer, outer]
        window = self.pixels[rows[:, :, None] - self.first, columns[:, None]]
        return self.pixels[row - self.first, column], window[kept].reshape(len(row), -1, window.shape[3])


def _lines(windows: Windows, place: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The lines of the outer windows around these places [k, outer], and which of them the inner windows have too."""
    lines = windows.outer_start[place][:, None] + np.arange(windows.outer)
    offset = lines - windows.inner_start[place][:, None]
    return lines, (offset >= 0) & (offset < windows.inner)


def scores_by_strip(batch: Batch, inner: int, outer: int, function: Callable[[Strip], np.ndarray], name: str) -> Tensor:
    """What `function` gives for each pixel of the batch [k], from all that lies in its windows -> float32 [b].

    Raises:
        InputError: the samples are not the pixels of scenes.
    """
    if not isinstance(batch.context, Scenes):
        raise InputError(
            f"{name} looks at the pixels around a pixel: these samples are not the pixels of a cube",
            "score a cube, or give Data(..., context=Scenes(pixels, ((height, width),)))",
        )
    result = torch.empty(len(batch))
    for which, scene in batch.context.parts():
        down = Windows.along(scene.height, inner, outer)
        across = Windows.along(scene.width, inner, outer)
        for part, row, column in _by_rows(scene):
            first, last = int(down.outer_start[row[0]]), int(down.outer_start[row[-1]]) + down.outer
            pixels = scene.rows(first, last)[:, :, 0].double().numpy()
            found = function(Strip(pixels, first, row, column, down, across))
            result[which[part]] = torch.from_numpy(found).float()
    return result.to(batch.samples.device)


def _by_rows(scene: Scene) -> Iterator[tuple[Tensor, np.ndarray, np.ndarray]]:
    """The pixels asked about, in groups of a few neighbouring rows: which [k], their rows and columns."""
    order = scene.place.cpu().argsort(stable=True)
    row, column = np.divmod(scene.place.cpu()[order].numpy(), scene.width)
    group = row // _ROWS
    for ends in np.split(np.arange(len(row)), np.flatnonzero(np.diff(group)) + 1):
        yield order[ends], row[ends], column[ends]

"""Many images as units: pixels in memory, pixels on disk, or features of a frozen network."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from ..problem import Reader
from .pictures import read_picture

# Decoded pixels up to this size are kept in memory; above it they are read again each time.
IN_MEMORY_BYTES = 1_000_000_000


class Pictures:
    """Images that are decoded when they are asked for: a Reader of units [channels, size, size]."""

    def __init__(self, files: Sequence[Path], size: int, channels: int) -> None:
        self.files = files
        self.shape: tuple[int, ...] = (len(files), channels, size, size)

    def __getitem__(self, index: Tensor) -> Tensor:
        channels, size = self.shape[1:3]
        return torch.stack([read_picture(self.files[i], size, channels) for i in index.tolist()])


def image_units(files: list[Path], read: str, size: int, channels: int) -> Tensor | Reader:
    """Pixels [n, channels, size, size], in memory if they fit, or pooled features [n, d] of the backbone `read`."""
    if read != "pixels":
        return read_all(files, size, 3, backbones().pooled(read))
    if len(files) * channels * size * size * 4 <= IN_MEMORY_BYTES:
        return read_all(files, size, channels)
    return Pictures(files, size, channels)


def side(read: str, size: int | None) -> int:
    """Height and width in pixels that images are resized to; 224 is what the backbones were trained at."""
    return size or (128 if read == "pixels" else 224)


def backbones() -> ModuleType:
    """The module of frozen networks; sources reach their peer in this one place, and only when they need it."""
    from .. import backbones

    return backbones


def read_all(files: Sequence[Path], size: int, channels: int, each: Callable[[Tensor], Tensor] | None = None) -> Tensor:
    """Every image decoded once -> [n, channels, size, size], or what `each` makes of [1, channels, size, size]."""
    first = read_picture(files[0], size, channels)[None]
    first = first if each is None else each(first)
    result = torch.empty(len(files), *first.shape[1:])
    for place, path in enumerate(progress(files, "reading images" if each is None else "extracting features")):
        unit = read_picture(path, size, channels)[None]
        result[place] = (unit if each is None else each(unit))[0]
    return result


def progress(items: Sequence[Any], title: str) -> Iterator[Any]:
    """The items, with a bar on stderr if that is a terminal."""
    if not sys.stderr.isatty():
        yield from items
        return
    from rich.console import Console
    from rich.progress import track

    yield from track(items, title, console=Console(stderr=True), transient=True)

"""Many images as samples: pixels in memory, pixels on disk, or features of a frozen network, kept in a cache."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor, nn

from ..core import progress
from ..core.bounds import shown
from ..core.modality import FEATURE_MAP, IMAGE, ROW, Modality
from ..core.readers import Reader
from ..errors import InputError
from .image_decoding import described
from .image_files import read_picture, sides

# Decoded pixels up to this size are kept in memory; above it they are read again each time.
IN_MEMORY_BYTES = 1_000_000_000


class Pictures:
    """Images that are decoded when they are asked for: a Reader of samples [channels, height, width]."""

    def __init__(self, files: Sequence[Path], size: int | tuple[int, int], channels: int) -> None:
        self.files = files
        self.shape: tuple[int, ...] = (len(files), channels, *sides(size))

    def __getitem__(self, index: Tensor) -> Tensor:
        channels, *size = self.shape[1:]
        return torch.stack([read_picture(self.files[i], (size[0], size[1]), channels) for i in index.tolist()])


def image_samples(
    files: list[Path],
    read: str,
    size: int | tuple[int, int],
    channels: int,
    layers: tuple[int, ...] = (),
    on_demand: bool = False,
) -> Tensor | Reader:
    """Pixels [n, channels, height, width]; or of the backbone `read` pooled features [n, d], or its maps [n, d, h, w]
    after blocks `layers`. In memory if they fit, and are not to be read `on_demand`."""
    if read != "pixels":
        return _features(files, read, size, layers, on_demand)
    if not on_demand and len(files) * channels * math.prod(sides(size)) * 4 <= IN_MEMORY_BYTES:
        return read_all(files, size, channels)
    return Pictures(files, size, channels)


def modality_of(read: str, layers: tuple[int, ...]) -> Modality:
    """What `image_samples` gives: images, rows of pooled features, or feature maps."""
    if read == "pixels":
        return IMAGE
    return FEATURE_MAP if layers else ROW


def check_layers(read: str, layers: tuple[int, ...] | str) -> tuple[int, ...]:
    """Blocks of a backbone as numbers; also spelled as "4,10".

    Raises:
        InputError: they are none, or pixels are read.
    """
    layers = _layers_of(layers) if isinstance(layers, str) else layers
    try:
        chosen = tuple(layers)
    except TypeError:
        chosen = (layers,)  # type: ignore[assignment]
    if any(type(layer) is not int for layer in chosen):
        raise InputError(f"layers are numbers of blocks: got {layers!r}", "such as (4, 10)")
    if chosen and read == "pixels":
        raise InputError("layers choose maps of a backbone, and pixels have none", "name a backbone by read")
    return chosen


def _layers_of(text: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not all(part.isdecimal() and len(part) < 10 for part in parts):
        raise InputError(f"cannot read the layers {shown(text)}", 'write them as in "4,10"')
    return tuple(map(int, parts))


def side(read: str, size: int | tuple[int, int] | None) -> int | tuple[int, int]:
    """Side, or height and width, in pixels that images are resized to; 224 is what the backbones were trained at."""
    return size or (128 if read == "pixels" else 224)


def backbones() -> ModuleType:
    """The module of frozen networks; imported when it is needed: torch and its networks take time."""
    from ..backbones import networks

    return networks


def features() -> ModuleType:
    """The module of features and their cache."""
    from ..backbones import cache

    return cache


def of_pictures(read: str, layers: tuple[int, ...]) -> nn.Module:
    """The module from decoded pictures [n, height, width, 1 or 3] uint8 to samples as `image_samples` gives them."""
    from ..backbones.pictures import OfPictures

    return OfPictures(None if read == "pixels" else backbones().features(read, layers))


def read_all(files: Sequence[Path], size: int | tuple[int, int], channels: int) -> Tensor:
    """Every image decoded once -> [n, channels, height, width]."""
    result = torch.empty(len(files), channels, *sides(size))
    for place, path in enumerate(progress.over(files, "reading images")):
        result[place] = read_picture(path, size, channels)
    return result


def _features(
    files: list[Path], read: str, size: int | tuple[int, int], layers: tuple[int, ...], on_demand: bool
) -> Tensor | Reader:
    store = features()
    extractor = store.Extractor(read, layers, f"file at {size}, {described()}", store.cache_folder())
    reader = store.FeatureFiles(files, extractor, lambda path: read_picture(path, size, 3))
    if on_demand or math.prod(reader.shape) * 4 > store.IN_MEMORY_BYTES:
        return reader
    result = torch.empty(reader.shape)
    for place in progress.over(range(len(files)), "extracting features"):
        result[place] = reader[torch.tensor([place])][0]
    return result


def decoded(files: Sequence[Path], size: int | tuple[int, int], channels: int) -> Tensor | None:
    """The pictures [n, height, width, channels] uint8, as `read_picture` gives them before they are divided by 255.

    None where one cannot be read, or is not of 8 bits: resizing then gives what lies between two bytes.
    """
    try:
        pictures = read_all(files, size, channels).permute(0, 2, 3, 1)
    except InputError:
        return None
    pixels = (pictures * 255).round()
    return pixels.byte() if torch.equal(pixels / 255, pictures) else None


def names_of(names: Sequence[str]) -> list[str]:
    """Names as text that can be written anywhere, also where a file's name is not valid Unicode."""
    return [os.fsencode(name).decode("utf-8", "replace") for name in names]

"""IDX files, the format of the MNIST family: a four-byte magic number, the axes' lengths, then the values."""

from __future__ import annotations

import gzip
import math
import re
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from ..core.data import Data
from ..core.modality import IMAGE
from ..core.problem import Facts, Labelled, Problem
from ..core.registry import register
from ..errors import InputError
from .labels import values_of
from .paths import find_path, regular_file
from .recognition import Match, PathSource
from .splits import by_class

_UNSIGNED_BYTE = 8
_NAMED = re.compile(r"idx\d-(ubyte|byte)(\.gz)?$")


@register("source", "Idx")
@dataclass(frozen=True, repr=False)
class Idx(PathSource):
    """Grey images [1, height, width] in 0..1; the digits or garments are the groups.

    Args:
        path: a folder with train-images-idx3-ubyte, its labels and the t10k files, plain or .gz; or one image file.
        normal: the classes that train; every test image of another class is an anomaly. () trains on all and
            leaves the test images unlabelled.
        test: whether the test images are read too.
    """

    reads: ClassVar[str] = "IDX files or a folder of them"

    normal: tuple[int, ...] = ()
    test: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "normal", values_of(self.normal))
        super().__post_init__()

    @classmethod
    def recognises(cls, path: Path, options: Mapping[str, Any]) -> Match:
        names = [entry.name for entry in path.iterdir()] if path.is_dir() else [path.name]
        return Match.CERTAIN if any(_NAMED.search(name.lower()) for name in names) else Match.NONE

    def load(self) -> Problem:
        parts = self._parts()
        (train, train_groups), rest = parts[0], parts[1:]
        test, test_groups = rest[0] if rest else (None, None)
        facts = Facts(find_path(self.path).resolve().name, "images")
        return by_class(train, train_groups, test, test_groups, self._wanted, facts)

    def load_all(self) -> Labelled:
        parts = self._parts()
        samples = torch.cat([torch.as_tensor(data.samples) for data, _ in parts])
        names = [name for data, _ in parts for name in data.names]
        found = [groups for _, groups in parts if groups is not None]
        groups = np.concatenate(found) if len(found) == len(parts) else None
        labels = ~np.isin(groups, list(self._wanted)) if self.normal and groups is not None else None
        return Labelled(Data(samples, names, modality=IMAGE), labels, groups)

    @property
    def _wanted(self) -> set[str]:
        return {str(group) for group in self.normal}

    def _parts(self) -> list[tuple[Data, np.ndarray | None]]:
        path = find_path(self.path)
        if path.is_file():
            return [_read_part(path, "")]
        train = _images(path, ("train",))
        if train is None:
            raise InputError(f"{path} has no training images", "needed is train-images-idx3-ubyte, plain or .gz")
        parts = [_read_part(train, "train/")]
        held_out = _images(path, ("t10k", "test")) if self.test else None
        return [*parts, _read_part(held_out, "test/")] if held_out else parts


def _images(folder: Path, words: tuple[str, ...]) -> Path | None:
    """The file of images whose name holds one of these words; a plain file goes before its .gz."""
    found = sorted(
        file for file in folder.iterdir() if "images" in file.name and any(word in file.name.lower() for word in words)
    )
    sets = {file.name.removesuffix(".gz") for file in found}
    if len(sets) > 1:
        raise InputError(f"{folder} holds several sets: {', '.join(sorted(sets))}", "keep each in its own folder")
    return found[0] if found else None


def _read_part(path: Path, prefix: str) -> tuple[Data, np.ndarray | None]:
    pixels = read_idx(path)
    if pixels.ndim != 3:
        raise InputError(f"{path} has {pixels.ndim} axes: images [n, height, width] were needed")
    samples = torch.from_numpy(pixels).unsqueeze(1).float().div_(255)
    data = Data(samples, [f"{prefix}{row}" for row in range(len(pixels))], modality=IMAGE)
    beside = path.name.replace("images", "labels").replace("idx3", "idx1").removesuffix(".gz")
    labels = next((path.with_name(beside + end) for end in ("", ".gz") if path.with_name(beside + end).is_file()), None)
    if labels is None or labels == path:
        return data, None
    groups = read_idx(labels)
    if groups.shape != (len(pixels),):
        raise InputError(f"{labels} has labels of shape {list(groups.shape)} for {len(pixels)} images")
    return data, groups.astype(str)


def read_idx(path: Path) -> np.ndarray:
    """The unsigned bytes of an IDX file, plain or .gz.

    Raises:
        InputError: it is no such file, or shorter or longer than its header says.
    """
    regular_file(path)
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"cannot read {path}: {error}", "it is cut or broken: fetch it again") from error
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] != _UNSIGNED_BYTE or not 1 <= content[3] <= 4:
        raise InputError(f"{path} is not an IDX file of unsigned bytes: it begins with {content[:4].hex(' ')}")
    axes, start = content[3], 4 + 4 * content[3]
    if len(content) < start:
        raise InputError(f"{path} ends within its header", "it is cut: fetch it again")
    shape = struct.unpack(f">{axes}I", content[4:start])
    if len(content) - start != math.prod(shape):
        raise InputError(
            f"{path} says {list(shape)}, which is {math.prod(shape)} bytes, and holds {len(content) - start}",
            "it is cut or broken: fetch it again",
        )
    return np.frombuffer(bytearray(content), np.uint8, offset=start).reshape(shape)

"""Folders of images: flat, nested or in MVTec layout, as pixels or as features of a frozen network."""

from __future__ import annotations

import csv
import os
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from ..core.bounds import Count
from ..core.data import Data
from ..core.modality import IMAGE
from ..core.problem import Facts, Labelled, Problem
from ..core.registry import register
from ..errors import InputError
from . import image_files, image_samples
from .paths import find_path, list_files
from .recognition import Match, PathSource

_PREVIEW_SIDE = 128
_BACKBONE = "efficientnet-lite0"


@register("source", "ImageFolder")
@dataclass(frozen=True, repr=False)
class ImageFolder(PathSource):
    """Images under a folder, named by their path in it, sorted with numbers in their natural order.

    A folder with train/good is in MVTec layout: train/good trains; test/good is normal and every other folder of
    test/ anomalous; masks come from ground_truth/<kind>/<image>_mask.*; other folders (validation) are only scored.

    Args:
        path: the folder, or one image.
        read: "pixels", or the name of a backbone, whose pooled features make each image a row.
        layers: blocks of the backbone whose maps make each image a sample [channels, height, width] instead; coarser
            maps are resized to the finest. () pools.
        size: every image is resized to size x size, or to (height, width), whatever its shape; None is 128 for pixels,
            224 for a backbone.
        channels: of pixels only. 1 is grey and 3 colour, whatever the files are; any other number takes the bands of
            the files, which must be as many: 4 are also red, green, blue and opacity.
        groups: the group of each image: a CSV file, in the folder or elsewhere, with the columns file and one other;
            or "folder" for the folder that holds the image.
        skip_bad: leave out unreadable images with one warning, instead of refusing the first.
    """

    reads: ClassVar[str] = "an image or a folder of images"

    read: str = "pixels"
    layers: tuple[int, ...] = ()
    size: int | tuple[int, int] | None = None
    channels: Count = 3
    groups: str | None = None
    skip_bad: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", image_samples.check_layers(self.read, self.layers))
        object.__setattr__(self, "size", image_files.check_size(self.size))
        super().__post_init__()
        if self.read != "pixels" and self.channels not in (1, 3):
            raise InputError(
                f"{self.read} reads images in colour: got channels={self.channels}", "read pixels to choose channels"
            )

    @classmethod
    def recognises(cls, path: Path, options: Mapping[str, Any]) -> Match:
        suffix = path.suffix.lower()
        if "channels" in options and (path.is_dir() or suffix in (*image_files.SUFFIXES, *image_files.ARRAYS)):
            # What would be a cube, of pixels that are samples, is now an image: its bands are channels.
            return Match.ASKED
        some = bool(image_files.list_pictures(path)) if path.is_dir() else suffix in image_files.SUFFIXES
        return Match.POSSIBLE if some else Match.NONE

    @classmethod
    def usual(cls, options: Mapping[str, Any]) -> dict[str, Any]:
        """Pixels where channels are asked for; otherwise a backbone, if its packages are installed."""
        backbone = "channels" not in options and image_samples.backbones().installed(_BACKBONE)
        return {"read": _BACKBONE if backbone else "pixels"}

    def load(self) -> Problem:
        root, names = self._names()
        parts = {name: _part(name) for name in names} if in_mvtec_layout(root) else dict.fromkeys(names, "train")
        chosen = [name for name in names if parts[name] == "train"]
        tested = [name for name in names if parts[name] in ("good", "anomalous")]
        if not chosen:
            raise InputError(f"{root} has no images to train on", "train/good should hold the normal ones")
        groups = self._groups(root, [*chosen, *(name for name in tested if parts[name] == "good")])
        return Problem(
            train=self._data(root, chosen),
            facts=Facts(root.resolve().name, "images", notes=self._notes(root, names, parts)),
            train_groups=None if groups is None else np.array([groups[name] for name in chosen]),
            test=self._labelled(root, tested, groups) if tested else None,
            layout={"size": self._size, "read": self.read, "layers": self.layers},
        )

    def load_all(self) -> Labelled:
        root, names = self._names()
        mvtec = in_mvtec_layout(root)
        groups = self._groups(root, [name for name in names if not (mvtec and _anomalous(name))])
        return self._labelled(root, names, groups, known=mvtec)

    def at(self, path: str) -> ImageFolder:
        """The same reading of another folder; a groups file is kept where that folder has it."""
        other = replace(self, path=path)
        if self.groups in (None, "folder") or (find_path(path) / str(self.groups)).is_file():
            return other
        return replace(other, groups=None)

    def skipping_bad(self) -> ImageFolder:
        """The same folder, less its unreadable images."""
        return replace(self, skip_bad=True)

    def reading_maps(self, layers: tuple[int, ...]) -> ImageFolder:
        """The same images as maps of these blocks of the backbone."""
        return replace(self, layers=layers)

    def preview(self, name: str) -> Tensor:
        """The picture [3, height, width] of one sample, small, for people to look at."""
        reading_of = f"at {_PREVIEW_SIDE}, {self.channels} channels"
        return image_samples.features().preview(
            self._path_of(name), reading_of, lambda: self._shown_at(name, _PREVIEW_SIDE)
        )

    def picture(self, name: str) -> Tensor:
        """The picture [3, height, width] of one sample in its own size, upright."""
        return self._shown_at(name, None)

    def _shown_at(self, name: str, size: int | None) -> Tensor:
        channels = 3 if self.channels == 1 else self.channels
        shown = IMAGE.picture(image_files.read_picture(self._path_of(name), size, channels))
        assert shown is not None
        return shown.expand(3, -1, -1)

    def _path_of(self, name: str) -> Path:
        root = find_path(self.path)
        return (root.parent if root.is_file() else root) / name

    @property
    def _size(self) -> int | tuple[int, int]:
        return image_samples.side(self.read, self.size)

    def _names(self) -> tuple[Path, list[str]]:
        root = find_path(self.path)
        if root.is_file():
            root, names = root.parent, [root.name]
        else:
            names = list_files(root, image_files.SUFFIXES, leave_out=("ground_truth",))
            names = names or list_files(root, image_files.ARRAYS, leave_out=("ground_truth",))
        names = _readable(root, names, self.channels) if self.skip_bad else names
        if not names:
            raise InputError(f"{root} holds no images", f"readable are {', '.join(image_files.SUFFIXES)}")
        return root, names

    def _data(self, root: Path, names: list[str]) -> Data:
        files = [root / name for name in names]
        samples = image_samples.image_samples(files, self.read, self._size, self.channels, self.layers)
        return Data(samples, _shown(names), modality=image_samples.modality_of(self.read, self.layers))

    def _labelled(self, root: Path, names: list[str], groups: dict[str, str] | None, known: bool = True) -> Labelled:
        data = self._data(root, names)
        given = None if groups is None else np.array([groups.get(name, "") for name in names])
        if not known:
            return Labelled(data, None, given)
        return Labelled(data, np.array([_anomalous(name) for name in names]), given, Masks(root, names))

    def _groups(self, root: Path, names: Iterable[str]) -> dict[str, str] | None:
        """The kind of each of these names, which must all have one."""
        if self.groups is None:
            return None
        if self.groups == "folder":
            return {name: str(Path(name).parent.as_posix()) for name in names}
        path = root / self.groups
        table = _read_groups(path if path.is_file() else find_path(self.groups))
        missing = [name for name in names if name not in table]
        if missing:
            raise InputError(
                f"{self.groups} has no row for {missing[0]!r} ({len(missing)} such images)",
                f"files are named by their path in {root}, with forward slashes",
            )
        return table

    def _notes(self, root: Path, names: list[str], parts: dict[str, str]) -> tuple[str, ...]:
        maps = f", maps of blocks {', '.join(map(str, self.layers))}" if self.layers else ""
        read = f"read as {self.read}{maps}, resized to {' x '.join(map(str, image_files.sides(self._size)))}"
        unused = sorted({name.split("/")[0] for name in names if parts[name] == "unused"})
        return (read, *(f"{folder}/ is neither trained nor tested on" for folder in unused))


class Masks(Sequence[np.ndarray | None]):
    """Defect masks in MVTec layout, each read in its own size when it is asked for; None where there is none."""

    def __init__(self, root: Path, names: Sequence[str]) -> None:
        self.root, self.names = root, names

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, place):  # type: ignore[no-untyped-def]
        if isinstance(place, slice):
            return [self[i] for i in range(*place.indices(len(self)))]
        name = Path(self.names[place])
        folder = self.root / "ground_truth" / name.parent.name
        found = sorted(folder.glob(f"{_escaped(name.stem)}_mask.*")) or sorted(folder.glob(f"{_escaped(name.stem)}.*"))
        return image_files.read_mask(found[0]) if found and _anomalous(self.names[place]) else None


def in_mvtec_layout(root: Path) -> bool:
    """Whether the folder has a train/good, as the MVTec sets do."""
    return (root / "train" / "good").is_dir()


def _part(name: str) -> str:
    """What a file is for in MVTec layout: train, good, anomalous or unused."""
    if name.startswith("train/good/"):
        return "train"
    if name.startswith("test/"):
        return "anomalous" if _anomalous(name) else "good"
    return "unused"


def _anomalous(name: str) -> bool:
    top, *below = name.split("/")
    return top in ("train", "test", "validation") and len(below) > 1 and below[0] != "good"


def _readable(root: Path, names: list[str], channels: int) -> list[str]:
    good, bad = [], []
    for name in image_samples.progress(names, "checking images"):
        try:
            image_files.check_picture(root / name, channels)
            good.append(name)
        except image_files.BadPicture:
            bad.append(name)
    if bad:
        shown = ", ".join(_shown(bad[:5])) + (" and others" if len(bad) > 5 else "")
        warnings.warn(f"{len(bad)} of {len(names)} images cannot be read and are left out: {shown}", stacklevel=5)
    return good


def _read_groups(path: Path) -> dict[str, str]:
    if path.suffix.lower() != ".csv":
        raise InputError(f"groups of images come from a .csv file or 'folder': got {path.name!r}")
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = csv.DictReader(file)
        columns = list(rows.fieldnames or ())
        if len(columns) != 2 or "file" not in columns:
            raise InputError(f"{path} has the columns {columns}: needed are 'file' and one that names the group")
        group = next(column for column in columns if column != "file")
        return {row["file"]: row[group] or "" for row in rows}


def _shown(names: Sequence[str]) -> list[str]:
    """Names as text that can be written anywhere, also where a file's name is not valid Unicode."""
    return [os.fsencode(name).decode("utf-8", "replace") for name in names]


def _escaped(stem: str) -> str:
    return re.sub(r"([*?[])", r"[\1]", stem)

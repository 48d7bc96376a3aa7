"""Photographs with a point measured for each pixel, in the layout of MVTec 3D-AD (Bergmann et al., VISAPP 2022)."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from ..core import messages, progress
from ..core.bounds import NotNegative, Positive
from ..core.context import Measured
from ..core.data import Data
from ..core.modality import FEATURE_MAP
from ..core.problem import Labelled, Problem
from ..core.readers import Reader, read
from ..core.registry import register
from ..errors import InputError, reading
from ..numerics import organised_scans, surfaces
from ..numerics.point_features import FPFH_SIZE
from ..numerics.point_patches import PATCH_POINTS
from ..numerics.surfaces import Surface
from . import image_samples, tiff_files
from .images import ImageFolder
from .recognition import Match, PathSource

# How the names of channels begin, by which detectors part the two.
RGB, XYZ, PATCH = "rgb:", "xyz:", "patch:"
_SUFFIXES = (".tiff", ".tif")
_PHOTOGRAPHS, _SCANS = "rgb", "xyz"
# What an `ImageFolder` says of them.
_SCANS_APART = "points and not read as images"
# A cell of geometry alone covers so many pixels, as one of the usual maps of a photograph does.
_CELL = 8
# What kept features of before would differ in: raised with every change to how scans become features.
_VERSION = 1


@register("source", "RgbXyz", needs={"tifffile": "points"})
@dataclass(frozen=True, repr=False)
class RgbXyz(PathSource):
    """Photographs with organised scans: KIND/rgb/000.png, KIND/xyz/000.tiff [h, w, 3] on the same grid, and
    KIND/gt/000.png.

    Folders mean what they mean to an `ImageFolder`, and samples are named by their photographs. A sample is a map of
    channels on a grid of cells: first "rgb:0", "rgb:1" and so on, the maps of a frozen network, then "xyz:fpfh 0" to
    "xyz:fpfh 32", point feature histograms of the scan. Pixels at 0 0 0 or NaN were not measured: they are no points,
    and cells without points have the features of the nearest cell that has some. Of a photograph without a scan no cell
    was measured. Eyecandies is read after a conversion to this layout; infrared pictures are not read.

    Args:
        path: the folder.
        use: "both", "rgb" or "xyz"; or "patches", for "xyz" and then "patch:0" to "patch:146": where a cell is, and the
            48 points around it, as `zero-shot-patches` reads them.
        read, layers, size: as of an `ImageFolder`; without layers the backbone's usual maps are read. Without
            photographs there is a cell for 8 x 8 pixels of this size.
        radius: of the neighbourhood that a histogram tells of, in the scan's unit; None is 7.7 times the usual distance
            between neighbours, scan by scan.
        plane: take off the table: whatever is this close, in the scan's unit, to the plane through the border. 0 takes
            nothing off; .005 is usual in metres.
        normal, groups, skip_bad, follow_links: as of an `ImageFolder`.
    """

    reads: ClassVar[str] = "photographs with scans (KIND/rgb/*.png, KIND/xyz/*.tiff)"
    file_options: ClassVar[tuple[str, ...]] = ("path", "groups")

    use: Literal["both", "rgb", "xyz", "patches"] = "both"
    read: str = "efficientnet-lite0"
    layers: tuple[int, ...] = ()
    size: int | tuple[int, int] | None = None
    radius: Positive | None = None
    plane: NotNegative = 0.0
    normal: tuple[str, ...] = ()
    groups: str | None = None
    skip_bad: bool = False
    follow_links: bool = False

    def __post_init__(self) -> None:
        images = ImageFolder(self.path, self.read, self.layers, self.size, normal=self.normal)
        for name in ("layers", "size", "normal"):
            object.__setattr__(self, name, getattr(images, name))
        super().__post_init__()

    @classmethod
    def recognises(cls, path: Path, options: Mapping[str, Any]) -> Match:
        return Match.CERTAIN if path.is_dir() and _has_scans(path) else Match.NONE

    @classmethod
    def usual(cls, options: Mapping[str, Any]) -> dict[str, Any]:
        """Geometry alone where the packages of the usual backbone are not installed."""
        read_by = str(options.get("read", cls.read))
        known = read_by == "pixels" or not image_samples.backbones().installed(cls.read)
        return {"use": "xyz"} if known and read_by in (cls.read, "pixels") else {}

    def load(self) -> Problem:
        problem = self._images.load()
        test, notes = problem.test, [note for note in problem.facts.notes if _SCANS_APART not in note]
        return replace(
            problem,
            train=self._joined(problem.train),
            facts=replace(problem.facts, notes=(*notes, self._note)),
            test=None if test is None else replace(test, data=self._joined(test.data)),
        )

    def load_all(self) -> Labelled:
        labelled = self._images.load_all()
        return replace(labelled, data=self._joined(labelled.data))

    def at(self, path: str) -> RgbXyz:
        """The same reading of another folder; a groups file is kept where that folder has it."""
        return replace(self, path=path, groups=self._images.at(path).groups)

    def skipping_bad(self) -> RgbXyz:
        """The same folder, less its unreadable photographs."""
        return replace(self, skip_bad=True)

    def reading_maps(self, layers: tuple[int, ...]) -> RgbXyz:
        """The same samples with the maps of these blocks of the backbone."""
        images = self._plain.reading_maps(layers)
        return replace(self, layers=images.layers, size=images.size)

    def read_by(self, backbone: str) -> RgbXyz:
        """The same samples with the maps of another backbone."""
        return replace(self, read=backbone)

    def preview(self, name: str, side: int = 128) -> Tensor:
        """The photograph of one sample, [3, height, width]."""
        return self._plain.preview(name, side)

    def picture(self, name: str) -> Tensor:
        """The photograph of one sample in its own size, [3, height, width]."""
        return self._plain.picture(name)

    def points(self, name: str) -> np.ndarray:
        """The scan [h, w, 3] float64 of one sample, less the table where `plane` says so; 0 0 0 was not measured.

        Raises:
            InputError: there is none, or it is no scan.
        """
        path = _scan_of(self._plain.path_of(name))
        if path is None:
            raise InputError(f"{name} has no scan", f"its scan would be {_SCANS}/{Path(name).stem}.tiff")
        return self._read_scan(path)

    def surface(self, name: str) -> Surface:
        """The shaded scan of one sample."""
        return surfaces.of_scan(self.points(name))

    @property
    def _plain(self) -> ImageFolder:
        return ImageFolder(
            self.path, self.read, self.layers, self.size, normal=self.normal, groups=self.groups,
            skip_bad=self.skip_bad, follow_links=self.follow_links,
        )  # fmt: skip

    @property
    def _images(self) -> ImageFolder:
        """The photographs: as maps, or at the size of the cells where only the scans are read."""
        if self.use in ("xyz", "patches"):
            shape = self._plain.reading_maps(()) if self.size is None else self._plain
            rows, columns = _both(shape.size or image_samples.side(self.read, None))
            cells = max(1, rows // _CELL), max(1, columns // _CELL)
            return replace(self._plain, read="pixels", layers=(), size=cells, channels=1)
        if self.read == "pixels" or self.layers:
            return self._plain
        return self._plain.reading_maps(image_samples.backbones().map_layers(self.read))

    @property
    def _channels(self) -> int:
        """How many channels tell of a scan."""
        return FPFH_SIZE + (3 * (1 + PATCH_POINTS) if self.use == "patches" else 0)

    @property
    def _note(self) -> str:
        shown = {"both": "photographs and scans", "rgb": "photographs alone"}.get(self.use, "scans alone")
        table = f"; the table is taken off, {self.plane:g} around its plane" if self.plane else ""
        return f"reads {shown}{table}"

    def _joined(self, images: Data) -> Data:
        """The samples with the channels that are asked for; `images` says which cells there are."""
        if self.use == "rgb":
            named = _named(RGB, images.sample_shape[0])
            return replace(images, features=named, modality=FEATURE_MAP)
        cells = tuple(images.sample_shape[1:])
        geometry, measured = self._geometry(images.names, (cells[0], cells[1]))
        context = Measured(measured)
        features = _geometry_names(geometry.shape[1])
        if self.use != "both":
            return Data(geometry, images.names, features, context, FEATURE_MAP)
        features = (*_named(RGB, images.sample_shape[0]), *features)
        if isinstance(images.samples, Tensor):
            return Data(torch.cat([images.samples, geometry], 1), images.names, features, context, FEATURE_MAP)
        return Data(_Beside(images.samples, geometry), images.names, features, context, FEATURE_MAP)

    def _geometry(self, names: Sequence[str], cells: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Features [n, 33 or 180, *cells] of the scans of these photographs, and which cells were measured
        [n, *cells]."""
        result = torch.zeros(len(names), self._channels, *cells)
        measured = torch.zeros(len(names), *cells, dtype=torch.bool)
        missing = []
        for place, name in enumerate(progress.over(names, "reading scans")):
            path = _scan_of(self._plain.path_of(name))
            if path is None:
                missing.append(name)
                continue
            kept = torch.from_numpy(self._kept(path, cells))
            result[place], measured[place] = kept[:-1], kept[-1] > 0
        empty = [name for name, some in zip(names, measured.flatten(1).any(1).tolist(), strict=True) if not some]
        if empty:
            messages.warning(
                f"{len(empty)} of {len(names)} samples have no measured point ({len(missing)} have no scan), such as "
                f"{empty[0]}: nothing is said of their geometry"
            )
        return result, measured

    def _kept(self, path: Path, cells: tuple[int, int]) -> np.ndarray:
        """Features and, last, which cells were measured [34 or 181, *cells], from the cache or of the scan."""

        def make() -> np.ndarray:
            xyz = self._read_scan(path)
            found, measured = organised_scans.cell_features(xyz, cells, self.radius)
            patches = [organised_scans.cell_patches(xyz, cells, self.radius)] if self.use == "patches" else []
            return np.concatenate([found, *patches, measured[None]]).astype(np.float32)

        what = "patches" if self.use == "patches" else "fpfh"
        said = f"{what} {_VERSION} {cells} {self.radius} {self.plane}"
        return image_samples.features().of_file(path, said, make, (self._channels + 1, *cells))

    def _read_scan(self, path: Path) -> np.ndarray:
        with reading(path, "an organised scan was needed: a TIFF of floats [h, w, 3], 0 0 0 where nothing is measured"):
            with tiff_files.opened(path) as file:
                xyz = file.asarray()
            if xyz.ndim != 3 or xyz.shape[2] != 3 or xyz.dtype.kind not in "fiu":
                raise InputError(f"{path} has shape {list(xyz.shape)} of {xyz.dtype}: [height, width, 3] was needed")
        xyz = np.where(organised_scans.measured(xyz)[..., None], xyz, 0).astype(np.float64)
        return organised_scans.without_plane(xyz, self.plane) if self.plane else xyz


class _Beside:
    """Maps on disk with channels in memory beside theirs: a Reader."""

    def __init__(self, maps: Reader, channels: Tensor) -> None:
        self.maps, self.channels = maps, channels
        count, first, *space = maps.shape
        self.shape: tuple[int, ...] = (count, first + channels.shape[1], *space)

    def __getitem__(self, index: Tensor) -> Tensor:
        return torch.cat([read(self.maps, index), self.channels[index]], 1)


def _named(group: str, channels: int) -> tuple[str, ...]:
    return tuple(f"{group}{i}" for i in range(channels))


def _geometry_names(channels: int) -> tuple[str, ...]:
    """Names of the channels of a scan: histograms, and patches behind them."""
    return (*(f"{XYZ}fpfh {i}" for i in range(FPFH_SIZE)), *_named(PATCH, channels - FPFH_SIZE))


def _both(size: int | tuple[int, int]) -> tuple[int, int]:
    return size if isinstance(size, tuple) else (size, size)


def _scan_of(photograph: Path) -> Path | None:
    """The scan that belongs to a photograph, .../rgb/000.png to .../xyz/000.tiff; None where there is none."""
    for folder in (_SCANS, _SCANS.upper()):
        for suffix in _SUFFIXES:
            path = photograph.parent.parent / folder / f"{photograph.stem}{suffix}"
            if path.is_file():
                return path
    return None


def _has_scans(root: Path) -> bool:
    """Whether somewhere below a folder rgb and xyz lie beside each other, with a TIFF in xyz."""
    for _, (folder, folders, _files) in zip(range(1_000), os.walk(root), strict=False):
        if {_PHOTOGRAPHS, _SCANS} <= set(folders):
            names = os.listdir(os.path.join(folder, _SCANS))
            return any(name.lower().endswith(_SUFFIXES) for name in names)
    return False

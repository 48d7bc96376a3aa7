"""Folders of point clouds, one cloud a sample; also in the layouts of Real3D-AD and Anomaly-ShapeNet."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import scipy
import torch
from torch import Tensor
from torch.nn import functional

from ..core import messages, progress
from ..core.bounds import Bounds, CountFromZero, Positive
from ..core.data import Data
from ..core.modality import POINT_CLOUD
from ..core.problem import Facts, Labelled, Problem
from ..core.registry import register
from ..errors import InputError, did_you_mean
from ..numerics import organised_scans, point_features, surfaces
from ..numerics.point_patches import PATCH_POINTS
from ..numerics.surfaces import Surface
from . import cloud_files, image_layouts, image_samples
from .image_layouts import Layout, Part, counts_of
from .labels import parts_of
from .paths import find_path, is_inside, list_files, say_refused
from .recognition import Match, PathSource

# How the names of channels begin, as those of the scans of `RgbXyz`.
XYZ, PATCH = "xyz:", "patch:"
# Clouds of more points are thinned to so many at random before points are chosen evenly.
_MOST = 30_000
# A cloud that is so many times as fine or as large as the middle one may be in another unit.
_ODD = 3.0
# Names of truths, beside the folders of clouds.
_TRUTHS = ("gt", "ground_truth", "groundtruth")
_GOOD_WORDS = ("good", "positive", "normal", "ok")
# A histogram is the mean of those of so many nearest points, as a patch of a map is of 3 x 3 cells.
_AVERAGED = 9
_VERSION = 2


@register("source", "PointClouds", needs={"plyfile": "points", "laspy": "points", "trimesh": "points"})
@dataclass(frozen=True, repr=False)
class PointClouds(PathSource):
    """Point clouds under a folder, named by their path in it: .ply, .pcd, .las, .laz, .xyz, .pts; .stl, .off and .obj,
    whose surface is sampled; and .txt, .csv, .npz and .npy where there are no others.

    Folders mean what they mean to an `ImageFolder`. Real3D-AD and Anomaly-ShapeNet keep the labels of points in
    gt/NAME.txt or GT/NAME.txt, rows of x, y, z and label: such a file stands for its cloud, and a test cloud without
    one is normal where its name says good or positive. A sample is [33, points, 1]: for each of the chosen points the
    mean of its point feature histogram and those of the eight nearest, in an order in which neighbours mostly follow
    each other. Each cloud is taken for the whole surface that it covers: histograms follow from the usual distance
    between its points, so units cancel, but clouds of other extents than most are warned of. Infrared pictures, as in
    MulSen-AD, are not read.

    Args:
        path: the folder, or one cloud.
        points: how many points a cloud is read as: those that are farthest from each other.
        seed: which point is the first, and which of more than 30,000 are chosen from.
        radius: of the neighbourhood that a histogram tells of, in the clouds' unit; None is 7.7 times the usual
            distance between neighbours, cloud by cloud.
        normal: names of the folders that hold the normal clouds; all others are anomalies.
        follow_links: read files and folders that links out of the folder lead to.
        use: "xyz"; or "patches" for [180, points, 1], where each point is and the 48 points around it too, which
            `zero-shot-patches` reads; or "pointnet" for [128, points, 1], what a PointNet says of a point by its place
            in the cloud, of clouds that all lie alike. TAILWISE_POINTNET names the file of its weights.
    """

    reads: ClassVar[str] = "a point cloud or a folder of point clouds (.ply, .pcd, .las, .stl, ...)"

    points: Annotated[int, Bounds(at_least=16, at_most=100_000)] = 1024
    seed: CountFromZero = 0
    radius: Positive | None = None
    normal: tuple[str, ...] = ()
    follow_links: bool = False
    use: Literal["xyz", "patches", "pointnet"] = "xyz"

    def __post_init__(self) -> None:
        normal = parts_of(self.normal) if isinstance(self.normal, str) else tuple(map(str, self.normal))
        object.__setattr__(self, "normal", normal)
        super().__post_init__()

    @classmethod
    def recognises(cls, path: Path, options: Mapping[str, Any]) -> Match:
        if not path.is_dir():
            return Match.CERTAIN if path.suffix.lower() in cloud_files.SURE else Match.NONE
        found = _any_of(path, cloud_files.SURE)
        return Match.LIKELY if found else Match.NONE

    def load(self) -> Problem:
        root, layout = self._layout()
        if layout.doubt is not None:
            raise layout.doubt
        chosen, tested = layout.named(Part.TRAIN), layout.named(Part.GOOD, Part.ANOMALOUS)
        if not chosen:
            raise InputError(f"{root} has no point clouds to train on", "train/ should hold the normal ones")
        notes = [f"trains on {len(chosen)} point clouds: {counts_of(chosen, str(root))}"]
        notes += [f"tests on {len(tested)} point clouds: {counts_of(tested, str(root))}"] if tested else []
        if unused := layout.named(Part.UNUSED):
            notes.append(f"{len(unused)} are neither trained nor tested on: {counts_of(unused, str(root))}")
        notes.append(f"each is read as {self.points:,} points, the farthest from each other")
        facts = Facts(root.resolve().name, "point clouds", notes=tuple(notes))
        test = self._labelled(root, tested, layout) if tested else None
        return Problem(self._data(root, chosen, layout), facts, test=test)

    def load_all(self) -> Labelled:
        root, layout = self._layout()
        return self._labelled(root, list(layout.parts), layout)

    def cloud(self, name: str) -> np.ndarray:
        """The chosen points [points, 3] float64 of one sample, in the file's own unit and place.

        Raises:
            InputError: it is gone, or lies outside the folder.
        """
        root, layout = self._layout()
        return self._chosen(self._path_of(root, name, layout))[0]

    def surface(self, name: str) -> Surface:
        """The shaded cloud of one sample, from both sides."""
        return surfaces.of_cloud(self.cloud(name))

    def picture(self, name: str) -> Tensor:
        """The same as a picture [3, height, width]."""
        return torch.from_numpy(self.surface(name).picture).permute(2, 0, 1).float() / 255

    def preview(self, name: str, side: int = 128) -> Tensor:
        """The same, smaller."""
        share = side / max(self.picture(name).shape[1:])
        size = tuple(max(1, round(each * share)) for each in self.picture(name).shape[1:])
        return functional.interpolate(self.picture(name)[None], size, mode="bilinear", antialias=True)[0].clamp(0, 1)

    def _layout(self) -> tuple[Path, Layout]:
        """The folder, and what each cloud in it is for."""
        root = find_path(self.path)
        if root.is_file():
            return root.parent, image_layouts.arrange(str(root.parent), [root.name])
        refused: dict[str, str] = {}
        names = list_files(root, cloud_files.SUFFIXES, follow_links=self.follow_links, refused=refused)
        say_refused(root, refused)
        truths = [name for name in names if _is_truth(name)]
        clouds = [name for name in names if name not in truths]
        sure = [name for name in clouds if name.lower().endswith(cloud_files.SURE)]
        clouds = sure or clouds
        if not clouds:
            raise InputError(f"{root} holds no point clouds", f"readable are {', '.join(cloud_files.SUFFIXES)}")
        self._check_normal(root, clouds)
        layout = image_layouts.arrange(str(root), clouds, self.normal)
        return root, _with_truths(layout, truths)

    def _check_normal(self, root: Path, names: Sequence[str]) -> None:
        folders = {folder for name in names for folder in name.split("/")[:-1]}
        for folder in self.normal:
            if folder.lower() not in {each.lower() for each in folders}:
                raise InputError(f"{root} has no folder {folder!r} with point clouds", did_you_mean(folder, folders))

    def _path_of(self, root: Path, name: str, layout: Layout) -> Path:
        """The file that holds a sample: its truth, where there is one, because the two differ in their points."""
        path = root / (layout.masks[name][0] if name in layout.masks else name)
        if not (self.follow_links or is_inside(os.path.realpath(path), os.path.realpath(root))):
            raise InputError(f"{path} lies outside {root}", "name clouds by their path in the folder")
        return path

    def _chosen(self, path: Path) -> tuple[np.ndarray, np.ndarray | None, float]:
        """Points [points, 3] of a file, which of them are defects where it says so, and how long the cloud is."""
        values = cloud_files.read_columns(path)
        values = values[np.isfinite(values[:, :3]).all(1)]
        if len(values) < 3:
            raise InputError(f"{path} holds {len(values)} points: at least 3 are needed")
        if len(values) > _MOST:
            values = values[np.random.default_rng(self.seed).choice(len(values), _MOST, replace=False)]
        place = point_features.farthest_points(values[:, :3], self.points, self.seed)
        place = place[in_order(values[place, :3])]
        defect = values[place, 3] != 0 if values.shape[1] > 3 and _is_truth(path.as_posix()) else None
        return values[place, :3], defect, float(np.linalg.norm(np.ptp(values[:, :3], axis=0)))

    def _data(self, root: Path, names: Sequence[str], layout: Layout) -> Data:
        samples = torch.empty(len(names), self._channels, self.points, 1)
        sizes = np.empty((len(names), 2))  # extent and spacing
        for place, name in enumerate(progress.over(names, "reading point clouds")):
            kept = self._kept(self._path_of(root, name, layout))
            samples[place, :, :, 0] = torch.from_numpy(kept[:-1])
            sizes[place] = kept[-1, :2]
        _warn_of_sizes(names, sizes)
        features = tuple(f"{XYZ}fpfh {i}" for i in range(point_features.FPFH_SIZE))
        features += tuple(f"{PATCH}{i}" for i in range(self._channels - point_features.FPFH_SIZE))
        if self.use == "pointnet":
            features = tuple(f"{XYZ}pointnet {i}" for i in range(self._channels))
        return Data(samples, image_samples.names_of(names), features, modality=POINT_CLOUD)

    def _kept(self, path: Path) -> np.ndarray:
        """What tells of the points and, last, extent and spacing of a cloud [channels + 1, points], from the cache or
        of the file."""

        def make() -> np.ndarray:
            points, _, extent = self._chosen(path)
            found = np.zeros((self._channels + 1, self.points), np.float32)
            distinct, back = np.unique(points, axis=0, return_inverse=True)
            found[:-1] = self._features(distinct - distinct.mean(0))[back.reshape(-1)].T
            found[-1, :2] = extent, point_features.spacing_of(distinct)
            return found

        what = {"xyz": "cloud", "patches": "cloud patches"}.get(self.use) or f"cloud {_digest_of_pointnet()}"
        said = f"{what} {_VERSION} {path.suffix} {self.points} {self.seed} {self.radius}"
        return image_samples.features().of_file(path, said, make, (self._channels + 1, self.points))

    def _features(self, points: np.ndarray) -> np.ndarray:
        """[n, channels] of distinct points [n, 3] about their mean."""
        if self.use == "pointnet":
            return _pointnet().point_features(points)
        around = scipy.spatial.cKDTree(points).query(points, k=np.arange(1, min(_AVERAGED, len(points)) + 1))[1]
        histograms = organised_scans.point_fpfh(points, self.radius)[around].mean(1)
        if self.use == "xyz":
            return histograms
        return np.concatenate([histograms, organised_scans.point_patches(points, self.radius)], 1)

    @property
    def _channels(self) -> int:
        """How many numbers tell of a point."""
        if self.use == "pointnet":
            return int(_pointnet().SIZE)
        return point_features.FPFH_SIZE + (3 * (1 + PATCH_POINTS) if self.use == "patches" else 0)

    def _labelled(self, root: Path, names: Sequence[str], layout: Layout) -> Labelled:
        data = self._data(root, names, layout)
        anomalous = [layout.anomalous[name] for name in names]
        if any(bad is None for bad in anomalous):
            return Labelled(data)
        masks = [
            self._chosen(self._path_of(root, name, layout))[1] if bad and name in layout.masks else None
            for name, bad in zip(names, anomalous, strict=True)
        ]
        return Labelled(
            data, np.array(anomalous, bool), masks=[None if mask is None else mask[:, None] for mask in masks]
        )


def in_order(points: np.ndarray) -> np.ndarray:
    """An order [n] of points [n, 3] in which those that follow each other are mostly near: Morton's.

    Examples:
        >>> in_order(np.array([[0.0, 0, 0], [9, 9, 9], [0, 0, 1]])).tolist()
        [0, 2, 1]
    """
    spread = np.ptp(points, axis=0).max() or 1.0
    cells = np.clip((points - points.min(0)) / spread * 1023, 0, 1023).astype(np.int64)
    code = np.zeros(len(points), np.int64)
    for bit in range(10):
        for axis in range(3):
            code |= ((cells[:, axis] >> bit) & 1) << (3 * bit + axis)
    return code.argsort(kind="stable")


def _pointnet() -> ModuleType:
    """The module of PointNet; imported when it is asked for."""
    from ..backbones import pointnet

    return pointnet


def _digest_of_pointnet() -> str:
    return str(_pointnet().digest(_pointnet().path()))


def _is_truth(name: str) -> bool:
    return name.lower().endswith(".txt") and any(part.lower() in _TRUTHS for part in name.split("/")[:-1])


def _with_truths(layout: Layout, truths: Sequence[str]) -> Layout:
    """The layout with the truths of its clouds: what has one is an anomaly, and what is called good is none."""
    by_stem: dict[str, list[str]] = {}
    for truth in truths:
        by_stem.setdefault(Path(truth).stem, []).append(truth)
    masks: dict[str, tuple[str, ...]] = {}
    anomalous, parts = dict(layout.anomalous), dict(layout.parts)
    for name in layout.parts:
        if not image_layouts.is_test(name):
            continue
        truth = _nearest_truth(name, by_stem.get(Path(name).stem, []))
        if truth:
            masks[name] = (truth,)
        said_good = any(word in Path(name).stem.lower() for word in _GOOD_WORDS)
        if anomalous[name] is None and truths and (truth or said_good):
            anomalous[name] = not said_good
        if anomalous[name] is not None:
            parts[name] = Part.ANOMALOUS if anomalous[name] else Part.GOOD
    return replace(layout, parts=parts, anomalous=anomalous, masks=masks)


def _nearest_truth(name: str, truths: Sequence[str]) -> str:
    """Of several truths of one name, of several classes, that which shares most of the cloud's folders."""
    folders = set(name.split("/")[:-1])
    return max(truths, key=lambda truth: len(folders & set(truth.split("/")[:-1])), default="")


def _any_of(root: Path, suffixes: tuple[str, ...]) -> bool:
    for _, (_, _, names) in zip(range(1_000), os.walk(root), strict=False):
        if any(name.lower().endswith(suffixes) for name in names):
            return True
    return False


def _warn_of_sizes(names: Sequence[str], sizes: np.ndarray) -> None:
    """Say which clouds are larger, smaller, finer or coarser than most, as those in another unit are."""
    for column, what in ((0, "extent"), (1, "distance between neighbours")):
        middle = np.median(sizes[:, column])
        ratio = sizes[:, column] / max(middle, 1e-30)
        odd = np.flatnonzero((ratio > _ODD) | (ratio < 1 / _ODD))
        if len(odd):
            at = int(odd[0])
            messages.warning(
                f"{len(odd)} of {len(names)} point clouds have another {what} than most, such as {names[at]}: "
                f"{sizes[at, column]:.3g} where {middle:.3g} is usual; are all in one unit?"
            )

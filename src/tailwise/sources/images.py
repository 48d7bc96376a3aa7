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
from torch import Tensor, nn

from ..core import messages, progress
from ..core.bounds import Count
from ..core.data import Data
from ..core.modality import IMAGE
from ..core.problem import Facts, Labelled, Problem
from ..core.registry import register
from ..errors import InputError, did_you_mean, reading
from . import image_files, image_headers, image_labels, image_layouts, image_samples, unread_images
from .image_decoding import described
from .image_layouts import Layout, Part, counts_of, listed
from .image_masks import Masks, inverted, of_other_shape
from .image_pairs import doubt_of_pairs
from .labels import parts_of
from .paths import find_path, is_inside, list_files, regular_file, say_refused
from .recognition import Match, PathSource

# So many images are read in their own size to say that all are dark.
_LOOKED_AT = 50
_SMALL = 256
# The shape of so many says what that of the others is.
_MOST_SHAPES = 500
# Sides of what a backbone reads: its coarsest map has a place for so many pixels.
_MULTIPLE = 32
_BACKBONE = "efficientnet-lite0"
# The ending of a file of groups.
_OF_GROUPS = ".csv"


@register("source", "ImageFolder")
@dataclass(frozen=True, repr=False)
class ImageFolder(PathSource):
    """Images under a folder, named by their path in it, sorted with numbers in their natural order.

    Folders mean what their names say, in any capitals (`image_layouts`). Where some are called train, test or
    validation, those of train/ that are not called bad train; test/good is normal and every other kind in test/
    anomalous; validation is only scored. Otherwise good/ trains and bad/ is tested on. Folders without any such word
    all train. Masks lie in ground_truth/<kind>/, mask/, gt/ or seg/, or beside their image as <image>_mask.* or
    mask_<image>.*, also several an image; where no folder says what is normal, they do: a mask with a defect makes an
    anomaly. Anomalies, masks, point clouds and thumbnails never train: the notes count them. A layout that leaves doubt
    is refused.

    Args:
        path: the folder, or one image.
        read: "pixels", or the name of a backbone, whose pooled features make each image a row.
        layers: blocks of the backbone whose maps make each image a sample [channels, height, width] instead; coarser
            maps are resized to the finest. () pools.
        size: every image is resized to size x size, or to (height, width), whatever its shape; None is 128 for pixels,
            224 for a backbone. Where the maps of a detector are read, images are read as they are, in the shape of most
            of them, but at 786,000 pixels at most, as of 768 x 1024.
        channels: of pixels only. 1 is grey and 3 colour, whatever the files are; any other number takes the bands of
            the files, which must be as many: 4 are also red, green, blue and opacity.
        normal: names of the folders that hold the normal images, as in ("0",) or "0,1"; all others are anomalies.
        groups: the group of each image: a CSV file, in the folder or elsewhere, with the columns file and one other;
            "folder" for the folder that holds the image; or a regular expression with parentheses around what names
            the group in the image's path, as "part(\\d+)_".
        skip_bad: leave out unreadable images with one warning, instead of refusing the first.
        follow_links: read files and folders that links out of the folder lead to.
    """

    reads: ClassVar[str] = "an image or a folder of images"
    file_options: ClassVar[tuple[str, ...]] = ("path", "groups")
    # Other files may lie among the images.
    endings: ClassVar[tuple[str, ...]] = (*image_files.SUFFIXES, *image_files.ARRAYS)

    read: str = "pixels"
    layers: tuple[int, ...] = ()
    size: int | tuple[int, int] | None = None
    channels: Count = 3
    normal: tuple[str, ...] = ()
    groups: str | None = None
    skip_bad: bool = False
    follow_links: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", image_samples.check_layers(self.read, self.layers))
        object.__setattr__(self, "size", image_files.check_size(self.size))
        normal = parts_of(self.normal) if isinstance(self.normal, str) else tuple(map(str, self.normal))
        object.__setattr__(self, "normal", normal)
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
        root, layout = self._layout()
        self._check_normal(root, list(layout.parts))
        if layout.doubt is not None:
            raise layout.doubt
        for check in (inverted, of_other_shape):
            if text := check(root, layout.masks):
                messages.warning(text)
        chosen, tested = layout.named(Part.TRAIN), layout.named(Part.GOOD, Part.ANOMALOUS)
        if not chosen:
            raise InputError(
                f"{root} has no images to train on: all {len(layout.parts)} are anomalies", "train on normal images"
            )
        if not self.groups and layout.unsaid.issuperset(chosen):
            _check_beside(root, chosen)
        known = image_headers.headers(root, chosen)
        self._check_headers(root, known)
        groups = self._groups(root, [*chosen, *layout.named(Part.GOOD)])
        train = self._data(root, chosen)
        return Problem(
            train=train,
            facts=Facts(root.resolve().name, "images", notes=self._notes(root, layout, train, known)),
            train_groups=None if groups is None else np.array([groups[name] for name in chosen]),
            test=self._labelled(root, tested, layout, groups) if tested else None,
            layout={"size": self._size, "read": self.read, "layers": self.layers},
        )

    def load_all(self) -> Labelled:
        return self._everything(on_demand=False)

    def load_on_demand(self) -> Labelled:
        """As `load_all`; each image is read when it is asked for, however few there are."""
        return self._everything(on_demand=True)

    def _everything(self, on_demand: bool) -> Labelled:
        root, layout = self._layout()
        for note in self._left_out(root, layout):
            messages.note(note)
        known = image_headers.headers(root, list(layout.parts))
        if text := image_headers.depth_maps(known, root):
            messages.warning(text)
        if isinstance(self.size, tuple) and (text := image_headers.odd_ones(known, self.size)):
            messages.warning(text)
        groups = self._groups(root, [name for name in layout.parts if not layout.anomalous[name]])
        return self._labelled(root, list(layout.parts), layout, groups, on_demand)

    def at(self, path: str) -> ImageFolder:
        """The same reading of another folder; a groups file is kept where that folder has it."""
        other = replace(self, path=path)
        if self.groups in (None, "folder") or self._groups_is_pattern:
            return other
        if not os.path.isabs(str(self.groups)) and (find_path(path) / str(self.groups)).is_file():
            return other
        return replace(other, groups=None)

    def skipping_bad(self) -> ImageFolder:
        """The same folder, less its unreadable images."""
        return replace(self, skip_bad=True)

    def reading_maps(self, layers: tuple[int, ...]) -> ImageFolder:
        """The same images as maps of these blocks of the backbone, in their own size where no other is named."""
        return replace(self, layers=layers, size=self._own_size() if self.size is None else self.size)

    def _own_size(self) -> tuple[int, int] | None:
        try:
            root, names = self._names()
        except InputError:  # loading says what is wrong
            return None
        looked_at = names[:: max(1, len(names) // _MOST_SHAPES)]
        side = max(image_files.sides(self._size))
        return image_headers.shape_of_maps(image_headers.headers(root, looked_at), side, _MULTIPLE)

    def read_by(self, backbone: str) -> ImageFolder:
        """The same images by another backbone."""
        return replace(self, read=backbone)

    def decoded(self, names: Sequence[str]) -> Tensor | None:
        """The pictures [n, height, width, 1 or 3] uint8 of these samples, resized; None where they have other channels
        or more than 8 bits."""
        if self._picture_channels not in (1, 3):
            return None
        return image_samples.decoded([self.path_of(name) for name in names], self._size, self._picture_channels)

    def network(self) -> nn.Module:
        """What makes samples of such pictures."""
        return image_samples.of_pictures(self.read, self.layers)

    def preview(self, name: str, side: int = 128) -> Tensor:
        """The picture [3, height, width] of one sample, in its own shape, for people to look at."""
        reading_of = f"within {side}, {self.channels} channels, {described()}"
        return image_samples.features().preview(self.path_of(name), reading_of, lambda: self._shown_at(name, side))

    def picture(self, name: str) -> Tensor:
        """The picture [3, height, width] of one sample in its own size, upright."""
        return self._shown_at(name, None)

    def _shown_at(self, name: str, side: int | None) -> Tensor:
        channels = 3 if self.channels == 1 else self.channels
        shown = IMAGE.picture(image_files.read_within(self.path_of(name), side, channels))
        assert shown is not None
        return shown.expand(3, -1, -1)

    def path_of(self, name: str) -> Path:
        """Where the image of this name is.

        Raises:
            InputError: outside the folder.
        """
        root = find_path(self.path)
        root = root.parent if root.is_file() else root
        path = root / name
        if not (self.follow_links or root == path.parent or is_inside(os.path.realpath(path), os.path.realpath(root))):
            raise InputError(f"{path} lies outside {root}", "name images by their path in the folder")
        return path

    @property
    def _size(self) -> int | tuple[int, int]:
        return image_samples.side(self.read, self.size)

    @property
    def _picture_channels(self) -> int:
        return self.channels if self.read == "pixels" else 3

    @property
    def _groups_is_pattern(self) -> bool:
        """Whether groups is a regular expression: a file's name may have parentheses too, and then its ending."""
        groups = str(self.groups)
        return "(" in groups and not groups.lower().endswith(_OF_GROUPS)

    def _layout(self) -> tuple[Path, Layout]:
        """The folder, and what each image in it is for."""
        root, names = self._names()
        layout = image_layouts.arrange(str(root), names, self._normal_folders(names))
        if not layout.parts:
            raise InputError(
                f"{root} holds no images: {'; '.join(self._left_out(root, layout))}",
                f"readable are {', '.join(image_files.SUFFIXES)}",
            )
        if self.skip_bad:
            layout = layout.less(_unreadable(root, list(layout.parts), self.channels))
            if not layout.parts:
                raise InputError(f"{root} holds no images that can be read", "replace the broken ones")
        if layout.doubt is None:
            masks = Masks(root, layout.masks)
            unsaid = [name for name in layout.parts if name in layout.unsaid and name in layout.masks]
            layout = layout.told_by_masks({name: bool(masks.of(name).any()) for name in unsaid})
        return root, layout

    def _normal_folders(self, names: list[str]) -> list[str]:
        """Those folders that are asked for and exist: new data, flat for instance, may have none."""
        folders = {folder.lower() for name in names for folder in name.split("/")[:-1]}
        return [folder for folder in self.normal if folder.lower() in folders]

    def _check_normal(self, root: Path, names: list[str]) -> None:
        """Raise an InputError where a folder that is asked for does not exist."""
        for folder in self.normal:
            if folder not in self._normal_folders(names):
                raise InputError(
                    f"{root} has no folder {folder!r} with images, as normal={','.join(self.normal)} says",
                    did_you_mean(folder, {folder for name in names for folder in name.split("/")[:-1]}),
                )

    def _names(self) -> tuple[Path, list[str]]:
        """The folder, and the images, masks and whatever looks like one in it."""
        root = find_path(self.path)
        if root.is_file():
            return root.parent, [root.name]
        refused: dict[str, str] = {}
        suffixes = (*image_files.SUFFIXES, *image_files.ARRAYS)
        names = list_files(root, suffixes, follow_links=self.follow_links, refused=refused)
        say_refused(root, refused)
        pictures = [name for name in names if name.lower().endswith(image_files.SUFFIXES)]
        if not image_layouts.are_masks(pictures) and any(image_layouts.arrange(str(root), pictures).parts):
            # Arrays are images only where there are no others; as masks they are always read.
            masks = image_layouts.arrange(str(root), names)
            arrays = {mask for masks_of in masks.masks.values() for mask in masks_of} - set(pictures)
            names = [name for name in names if name in arrays or name.lower().endswith(image_files.SUFFIXES)]
        if not names:
            unread = unread_images.sentence(root, self.follow_links)
            raise InputError(
                f"{root} holds no images{unread and f': {unread}'}", f"readable are {', '.join(image_files.SUFFIXES)}"
            )
        return root, names

    def _data(self, root: Path, names: list[str], on_demand: bool = False) -> Data:
        files = [root / name for name in names]
        samples = image_samples.image_samples(files, self.read, self._size, self.channels, self.layers, on_demand)
        return Data(samples, image_samples.names_of(names), modality=image_samples.modality_of(self.read, self.layers))

    def _labelled(
        self, root: Path, names: list[str], layout: Layout, groups: dict[str, str] | None, on_demand: bool = False
    ) -> Labelled:
        data = self._data(root, names, on_demand)
        given = None if groups is None else np.array([groups.get(name, "") for name in names])
        anomalous = [layout.anomalous[name] for name in names]
        if any(bad is None for bad in anomalous):
            return Labelled(data, None, given)
        masks = {name: files for name, files in layout.masks.items() if layout.anomalous[name]}
        return Labelled(data, np.array(anomalous, bool), given, Masks(root, masks, names))

    def _groups(self, root: Path, names: Iterable[str]) -> dict[str, str] | None:
        """The kind of each of these names, which must all have one."""
        if self.groups is None:
            return None
        if self.groups == "folder":
            return {name: str(Path(name).parent.as_posix()) for name in names}
        if self._groups_is_pattern:
            return _named_groups(self.groups, list(names))
        path = root / self.groups
        table = _read_groups(regular_file(path if path.exists() else find_path(self.groups)))
        missing = [name for name in names if name not in table]
        if missing:
            raise InputError(
                f"{self.groups} has no row for {missing[0]!r} ({len(missing)} such images)",
                f"files are named by their path in {root}, with forward slashes",
            )
        return table

    def _notes(
        self, root: Path, layout: Layout, train: Data, known: dict[str, image_headers.Header]
    ) -> tuple[str, ...]:
        maps = f", maps of blocks {', '.join(map(str, self.layers))}" if self.layers else ""
        read = f"read as {self.read}{maps}, resized to {' x '.join(map(str, image_files.sides(self._size)))}"
        shape = image_headers.median_shape(known)
        if self.layers and shape is not None:
            high, wide = (side / places for side, places in zip(shape, train.sample_shape[1:], strict=True))
            read += f"; a place of the maps covers {wide:.0f} x {high:.0f} of the {shape[1]} x {shape[0]} pixels"
        return (read, *_use_notes(root, layout), *self._left_out(root, layout), *self._dark_note(root, layout, train))

    def _left_out(self, root: Path, layout: Layout) -> list[str]:
        """What is no photograph, and which photographs are not read."""
        alone = find_path(self.path).is_file()
        unread = "" if alone else unread_images.sentence(root, self.follow_links)
        return [*_left_out_notes(root, layout), *([unread] if unread else [])]

    def _check_headers(self, root: Path, known: dict[str, image_headers.Header]) -> None:
        """Warn of a shape that resizing does not keep, and of detail that is lost.

        Raises:
            InputError: depth maps would train as if they were photos.
        """
        if (self.read != "pixels" or self.channels in (1, 3)) and (text := image_headers.of_pages(known)):
            messages.warning(text)
        if text := image_headers.depth_maps(known, root):
            if image_headers.has_colour(known):
                raise InputError(text, "move them to a folder of their own; fit photos and maps each by themselves")
            messages.warning(text)
        if text := image_headers.odd_ones(known):
            messages.warning(text)
        chosen_shape = isinstance(self.size, tuple)
        multiple = 8 if self.read == "pixels" else _MULTIPLE
        if not chosen_shape and (text := image_headers.squeezed(known, self._size, multiple)):
            messages.warning(text)
        elif self.layers and (lost := image_headers.shrunk(known, image_files.sides(self._size), _MULTIPLE)):
            messages.warning(lost.sentence())

    def _dark_note(self, root: Path, layout: Layout, train: Data) -> list[str]:
        """That images use an eighth of their type's range at most, as those of a 12-bit camera in 16 bits do."""
        if self.read == "pixels" and isinstance(train.samples, Tensor) and float(train.samples.max()) >= 1 / 8:
            return []
        names = layout.named(Part.TRAIN)[:_LOOKED_AT]
        largest = 0.0
        for name in names:
            # Most are told by a smaller one, which takes a twentieth of a photo's memory.
            for side in (_SMALL, None):
                seen = float(image_files.read_within(root / name, side, self._picture_channels).max())
                if (largest := max(largest, seen)) >= 1 / 8:
                    return []
        return [
            f"the largest value of {len(names)} training images is {100 * largest:.2g} % of what their files can hold, "
            "below an eighth: if a camera of fewer bits made them, multiply them, so that white is the largest value"
        ]


def _check_beside(root: Path, names: list[str]) -> None:
    """Refuse, or warn of, files beside images of which no folder says anything, where these files may, and masks
    among them."""
    if doubt := image_labels.doubt_of_tables(root, names) or doubt_of_pairs(root, names):
        raise doubt
    if text := image_labels.doubt_of_annotations(root, names):
        messages.warning(text)


def _use_notes(root: Path, layout: Layout) -> list[str]:
    """What trains, what is tested on, and what neither is."""
    good, bad = layout.named(Part.GOOD), layout.named(Part.ANOMALOUS)
    chosen, unused = layout.named(Part.TRAIN), layout.named(Part.UNUSED)
    notes = [f"trains on {len(chosen)} images: {counts_of(chosen, str(root))}"]
    if good or bad:
        judged = {"normal": good, "anomalous": bad}
        sorts = [f"{len(names)} {what} ({counts_of(names, str(root))})" for what, names in judged.items() if names]
        notes.append(f"tests on {len(good) + len(bad)} images: {', '.join(sorts)}")
    if unused:
        notes.append(
            f"{len(unused)} images are neither trained nor tested on: {counts_of(unused, str(root))}"
            f"{_way_on(layout, unused)}"
        )
    missing = [name for name in bad if name not in layout.masks]
    if missing:
        notes.append(
            f"{len(missing)} anomalous test images have no mask; looked for ground_truth/KIND/IMAGE_mask.*, "
            "ground_truth/KIND/IMAGE/*.*, mask/IMAGE.* and IMAGE_mask.* beside the image"
        )
    return notes


def _way_on(layout: Layout, unused: Sequence[str]) -> str:
    """How to test on images that nothing is done with."""
    unsaid = [name for name in unused if layout.anomalous[name] is None and image_layouts.is_test(name)]
    classes = list(dict.fromkeys(name.split("/")[-2] for name in unsaid if not image_layouts.is_test(name, 1)))
    if classes:
        trained = {name.split("/")[-2] for name in layout.named(Part.TRAIN) if "/" in name}
        normal = next((folder for folder in classes if folder in trained), "FOLDER")
        which = f"the folders {normal} are" if normal != "FOLDER" else "that folder is"
        return f"; --normal {normal} says that {which} normal and all others hold anomalies: then they are tested on"
    if unsaid:
        return "; to test on them, sort them into folders good and bad"
    judged = [name for name in unused if image_layouts.is_validation(name) and layout.anomalous[name] is not None]
    if judged and not layout.named(Part.GOOD, Part.ANOMALOUS):
        return "; images for validation are only scored: rename their folder to test to test on them"
    return ""


def _left_out_notes(root: Path, layout: Layout) -> list[str]:
    """What is no photograph."""
    notes = []
    if masks := sum(map(len, layout.masks.values())):
        notes.append(f"{masks} masks are not read as images")
    if layout.loose_masks:
        notes.append(f"{len(layout.loose_masks)} masks match no image: {counts_of(layout.loose_masks, str(root))}")
    for what in dict.fromkeys(what for _, what in layout.left_out):
        folders = {folder: count for (folder, is_what), count in layout.left_out.items() if is_what == what}
        shown = listed(folders, str(root))
        notes.append(f"{sum(folders.values())} files are {what} and not read as images: {shown}")
    return notes


def _unreadable(root: Path, names: list[str], channels: int) -> list[str]:
    bad = []
    for name in progress.over(names, "checking images"):
        try:
            image_files.check_picture(root / name, channels)
        except image_files.BadPicture:
            bad.append(name)
    if bad:
        shown = ", ".join(image_samples.names_of(bad[:5])) + (" and others" if len(bad) > 5 else "")
        warnings.warn(f"{len(bad)} of {len(names)} images cannot be read and are left out: {shown}", stacklevel=5)
    return bad


def _named_groups(pattern: str, names: Sequence[str]) -> dict[str, str]:
    """What the first parentheses of a regular expression find in each name."""
    try:
        searched = re.compile(pattern)
    except (re.error, RecursionError) as error:
        raise InputError(f"groups={pattern!r} is no regular expression: {error}", "such as 'part(\\d+)_'") from error
    found = {name: match for name in names if (match := searched.search(name))}
    missing = [name for name in names if name not in found]
    if missing or not searched.groups:
        what = f"finds nothing in {missing[0]!r} ({len(missing)} such images)" if missing else "has no group"
        raise InputError(
            f"groups={pattern!r} {what}", "put parentheses around what names the group, as in 'part(\\d+)_'"
        )
    return {name: match[1] or "" for name, match in found.items()}


def _read_groups(path: Path) -> dict[str, str]:
    if path.suffix.lower() != _OF_GROUPS:
        raise InputError(
            f"groups of images come from a .csv file, 'folder', or a regular expression such as 'part(\\d+)_': got "
            f"{path.name!r}"
        )
    with reading(path, "a CSV file in UTF-8 was needed"), path.open(newline="", encoding="utf-8-sig") as file:
        columns, *rows = list(csv.reader(file)) or [[]]
    if len(columns) != 2 or "file" not in columns:
        raise InputError(f"{path} has the columns {columns}: needed are 'file' and one that names the group")
    place, group = columns.index("file"), 1 - columns.index("file")
    return {row[place]: row[group] if len(row) > group else "" for row in rows if len(row) > place}

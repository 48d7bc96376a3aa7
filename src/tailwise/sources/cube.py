"""Hyperspectral cubes: every pixel's spectrum is a sample."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from ..core import messages
from ..core.bounds import shown
from ..core.context import Scenes
from ..core.data import Data, MadeNames
from ..core.modality import SPECTRUM
from ..core.problem import Facts, Labelled, Problem
from ..core.readers import select
from ..core.registry import register
from ..errors import InputError
from . import image_files
from .cube_files import SUFFIXES, Scene, is_stack, open_scene, read_reference
from .envi import header_of
from .nodata import lacking, possible, values_of
from .numpy_files import SUFFIXES as ARRAYS
from .numpy_files import numpy_layout, read_numpy
from .paths import find_path, list_files, regular_file, say_refused
from .recognition import Match, PathSource
from .wavelengths import check_wavelengths
from .zarr_files import SUFFIX as ZARR

# Cubes up to this size are kept in memory; above it pixels are read from the file when they are asked for.
IN_MEMORY_BYTES = 1_000_000_000
# Suffixes that no other source reads.
_ONLY_CUBES = (".mat", ".hdr", ZARR)
# Numbers of a cube that are read at a time to see which pixels hold data.
_BLOCK_ENTRIES = 8_000_000
# Pixels of one value in all bands that are worth a note: so many, and such a share.
_FEWEST_ALIKE, _LEAST_ALIKE = 10, 0.01
# Cubes that a note names.
_SHOWN = 5
_SINGLE_SCENE = "single scene: the labelled pixels are also the training pixels, anomalies included, without labels"
# The words of a name: letters, parted by anything else or by a capital after a small letter.
_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[^\W\d_A-Z]+")
# Nothing measures so little, and what is divided by it overflows.
_DARKEST = 1e-30
_REFERENCES = ("dark", "white", "darks", "whites", "calibration", "spectralon", "bias", "flatfield")
_REFERENCE_WORDS = tuple(
    kind + what
    for kind in ("dark", "white")
    for what in ("ref", "refs", "reference", "references", "frame", "frames", "current", "board", "panel", "tile")
)
_REFERENCE_FOLDERS = (*_REFERENCES, *_REFERENCE_WORDS, "calib", "references")


@register("source", "Cube")
@dataclass(frozen=True, repr=False)
class Cube(PathSource):
    """Pixels [1, bands] of one cube, named "row,column", or of a folder of cubes, named "file:row,column".

    All pixels train, without labels. Where a mask is known the same pixels are also the test: single-scene detection,
    in which the anomalies are among the training pixels. In a folder with train/ and test/, the cubes of train/ train
    and those of test/ test. A mask is 2-D, nonzero for anomalies: an array of the file called map, gt, mask, labels
    or ground_truth, or an image or .npy file beside the cube called <cube>_mask.

    A pixel holds no data where all bands are NaN or at a value that the file declares (ENVI's data ignore value,
    GDAL_NODATA, a fill value) or that `nodata` names. It neither trains nor is tested, and tables and maps of scores
    have NaN there. In single bands NaN and such a value are refused; 0 is read as measured, because dark bands measure
    it. Cubes of a folder whose names say that they are dark or white references are left out. The others must have the
    same bands, and leave out the same.

    Args:
        path: .mat, ENVI .hdr, .npz, .npy, a .tif stack of one page a band, a .zarr store of zarr or xarray, or a folder
            of these.
        key: the cube's array [height, width, bands] where a file holds several.
        bad_bands: bands to leave out, counted from 0: numbers or (first, last) with both ends, also spelled as
            "0-3,107". An ENVI bad-band list is followed too.
        white, dark: reference cubes of the same bands, averaged over their lines: (raw - dark) / (white - dark).
        labels: the mask's array in the file, or its path, instead of those names.
        nodata: a further value that means no data, as it is stored.
    """

    reads: ClassVar[str] = "a cube (.mat, .hdr, .zarr, .npz, .tif) or a folder of cubes"
    file_options: ClassVar[tuple[str, ...]] = ("path", "white", "dark", "labels")

    key: str | None = None
    bad_bands: tuple[int | tuple[int, int], ...] = ()
    white: str | None = None
    dark: str | None = None
    labels: str | None = None
    nodata: float | None = None

    def __post_init__(self) -> None:
        bands = _bands_of(self.bad_bands) if isinstance(self.bad_bands, str) else self.bad_bands
        bands = tuple(band if isinstance(band, int) else _range(band) for band in bands)
        object.__setattr__(self, "bad_bands", bands)
        if isinstance(self.nodata, str):
            object.__setattr__(self, "nodata", values_of(Path(self.path), "nodata", [self.nodata])[0])
        super().__post_init__()

    @classmethod
    def recognises(cls, path: Path, options: Mapping[str, Any]) -> Match:
        if path.is_dir() and path.suffix.lower() != ZARR:
            return Match.LIKELY if _holds_cubes(path) else Match.NONE
        suffix = path.suffix.lower()
        if suffix in ARRAYS:
            return Match.LIKELY if numpy_layout(path) == "cube" else Match.NONE
        mine = suffix in _ONLY_CUBES or header_of(path) is not None or is_stack(path)
        return Match.LIKELY if mine else Match.NONE

    def load(self) -> Problem:
        root, names, references = self._names()
        tested = [name for name in names if name.startswith("test/")]
        trained = [name for name in names if name.startswith("train/")]
        if not (tested and trained):
            trained, tested = names, []
        opened = self._scenes(root, [*trained, *tested])
        scenes, scenes_of_test = opened[: len(trained)], opened[len(trained) :]
        everything = self._labelled(trained, scenes)
        test = self._labelled(tested, scenes_of_test) if tested else everything
        labels_of_scene = not tested and everything.labels is not None
        notes = (
            *([_SINGLE_SCENE] if labels_of_scene else []),
            _what_trains(root, everything.data, scenes),
            *_of_nodata(everything, "" if not tested else " that train"),
            *(_of_one_value(everything.data) if self.white is self.dark is None and scenes[0].scale == 1 else ()),
            *(_of_nodata(test, " of the test") if tested else ()),
            *_of_references(references, self.white, self.dark),
        )
        return Problem(
            train=everything.data,
            facts=Facts(root.stem if names == [""] else root.name, "pixels", notes=notes),
            test=test if tested or labels_of_scene else None,
            layout=_layout(trained, scenes),
        )

    def load_all(self) -> Labelled:
        return self._everything(on_demand=False)

    def load_on_demand(self) -> Labelled:
        """As `load_all`; pixels are read when they are asked for, once it is known which hold data."""
        return self._everything(on_demand=True)

    def scenes(self) -> Scenes:
        """Every pixel of the cubes, those that hold no data too, of which nothing is read before it is asked for."""
        root, names, _ = self._names()
        scenes = self._scenes(root, names)
        readers = self._readers(scenes)
        return Scenes(
            Pixels(readers) if len(readers) > 1 else readers[0], tuple((scene.height, scene.width) for scene in scenes)
        )

    def _everything(self, on_demand: bool) -> Labelled:
        root, names, references = self._names()
        everything = self._labelled(names, self._scenes(root, names), on_demand)
        for note in (*_of_nodata(everything, ""), *_of_references(references, self.white, self.dark)):
            messages.note(note)
        return everything

    def at(self, path: str) -> Cube:
        """The same bands and calibration of another cube; a mask given by its path is not taken along."""
        return replace(self, path=path, labels=None)

    def _names(self) -> tuple[Path, list[str], list[str]]:
        """The folder or the file; the cubes' names in the folder, or "" for the one file; and those of references."""
        root = find_path(self.path)
        if not root.is_dir() or root.suffix.lower() == ZARR:
            return root, [""], []
        refused: dict[str, str] = {}
        names = list_files(root, SUFFIXES, refused=refused)
        say_refused(root, refused, "copy what they lead to into the folder")
        names = [name for name in names if not Path(name).stem.lower().endswith("_mask")]
        asked = [find_path(path).resolve() for path in (self.white, self.dark) if path]
        names = [name for name in names if (root / name).resolve() not in asked]
        references = [name for name in names if is_reference(name)]
        scans = [name for name in names if name not in references]
        if not scans:
            raise InputError(
                f"{root} holds no cubes" + (f" but references: {', '.join(references[:3])}" if references else ""),
                "give the path of one cube to read it whatever its name"
                if references
                else f"readable are {', '.join(SUFFIXES)}",
            )
        return root, scans, references

    def _scenes(self, root: Path, names: list[str]) -> list[Scene]:
        scenes = [open_scene(root / name if name else root, self.key) for name in names]
        for name, scene in zip(names, scenes, strict=True):
            if scene.bands != scenes[0].bands:
                raise InputError(
                    f"{name} has {scene.bands} bands, {names[0]} has {scenes[0].bands}", "all cubes need the same bands"
                )
            check_wavelengths(scenes[0].wavelengths, scene.wavelengths, names[0], name)
        self._check_left_out(names, scenes)
        _warn_of_axes([scene for scene in scenes if scene.axes_in_doubt])
        asked = () if self.nodata is None else (self.nodata,)
        return [replace(scene, nodata=(*scene.nodata, *asked)) for scene in scenes]

    def _check_left_out(self, names: list[str], scenes: list[Scene]) -> None:
        """Raise an InputError unless all cubes leave out the same bands."""
        bad = [np.flatnonzero(self._left_out(scene)) for scene in scenes]
        for name, bands in zip(names, bad, strict=True):
            if not np.array_equal(bands, bad[0]):
                raise InputError(
                    f"{name} leaves out {_spelled(bands)} as bad, {names[0]} {_spelled(bad[0])}",
                    f"--bad-bands={_spelled(np.unique(np.concatenate(bad)))} leaves these out of all cubes",
                )

    def _readers(self, scenes: list[Scene]) -> list[ScenePixels]:
        kept = np.flatnonzero(~self._left_out(scenes[0]))
        if not len(kept):
            raise InputError(f"all {scenes[0].bands} bands of {scenes[0].path} are left out as bad")
        return [self._reader(scene, kept) for scene in scenes]

    def _labelled(self, names: list[str], scenes: list[Scene], on_demand: bool = False) -> Labelled:
        readers = self._readers(scenes)
        pixels: Any = Pixels(readers) if len(readers) > 1 else readers[0]
        if not on_demand and 4 * math.prod(pixels.shape) <= IN_MEMORY_BYTES:
            pixels = torch.cat([reader.whole() for reader in readers])
            valid = ~pixels[:, 0, 0].isnan()
        else:
            valid = torch.cat([reader.valid() for reader in readers])
        sizes = tuple((scene.height, scene.width) for scene in scenes)
        every = PixelNames([(name, *size) for name, size in zip(names, sizes, strict=True)])
        labels = self._labels(names, scenes)
        features = readers[0].features
        if bool(valid.all()):
            return Labelled(Data(pixels, every, features, Scenes(pixels, sizes), SPECTRUM), labels)
        place = valid.nonzero().flatten()
        if not len(place):
            named = scenes[0].path if len(scenes) == 1 else f"{len(scenes)} cubes such as {scenes[0].path}"
            raise InputError(
                f"all {len(every):,} pixels of {named} hold no data",
                "correct the value that its file declares as no data",
            )
        data = Data(
            select(pixels, place), replace(every, place=place.numpy()), features, Scenes(pixels, sizes, place), SPECTRUM
        )
        return Labelled(data, None if labels is None else labels[place.numpy()], every_name=every)

    def _labels(self, names: list[str], scenes: list[Scene]) -> np.ndarray | None:
        """[pixels] of all cubes, or None without any mask. Cubes of train/ need none: they are normal."""
        masks = [self._mask(scene) for scene in scenes]
        if all(mask is None for mask in masks):
            return None
        for place, (name, scene) in enumerate(zip(names, scenes, strict=True)):
            if masks[place] is None and not name.startswith("train/"):
                raise InputError(
                    f"{name} has no mask, and other cubes have one",
                    f"an empty mask says that nothing in it is anomalous: {scene.path.stem}_mask.png",
                )
        return np.concatenate(
            [np.zeros(s.height * s.width, bool) if m is None else m.ravel() for s, m in zip(scenes, masks, strict=True)]
        )

    def _left_out(self, scene: Scene) -> np.ndarray:
        bad = scene.bad.copy()
        for band in self.bad_bands:
            first, last = (band, band) if isinstance(band, int) else band
            if not 0 <= first <= last < scene.bands:
                raise InputError(f"bad_bands: {band} is not among the bands 0 to {scene.bands - 1} of {scene.path}")
            bad[first : last + 1] = True
        return bad

    def _reader(self, scene: Scene, kept: np.ndarray) -> ScenePixels:
        white = None if self.white is None else read_reference(find_path(self.white), scene)
        dark = None if self.dark is None else read_reference(find_path(self.dark), scene)
        if white is not None and float((white - (0 if dark is None else dark)).max()) < _DARKEST:
            than = "0" if dark is None else f"the dark one, {self.dark}"
            raise InputError(f"the white reference {self.white} is nowhere brighter than {than}", "are they exchanged?")
        return ScenePixels(scene, kept, white, dark)

    def _mask(self, scene: Scene) -> np.ndarray | None:
        if self.labels is None:
            start = f"{scene.path.stem}_mask."
            beside = sorted(p for p in scene.path.parent.iterdir() if p.name.startswith(start) and not p.is_dir())
            mask = scene.mask if not beside else _read_mask(beside[0])
        elif self.labels in scene.maps:
            mask = scene.maps[self.labels]
        else:
            mask = _read_mask(find_path(self.labels))
        if mask is not None and mask.shape != (scene.height, scene.width):
            raise InputError(
                f"the mask of {scene.path} is {list(mask.shape)}: the cube is {scene.height} x {scene.width}"
            )
        return mask


class ScenePixels:
    """The pixels of one cube, calibrated: a Reader of samples [1, bands]."""

    def __init__(self, scene: Scene, kept: np.ndarray, white: np.ndarray | None, dark: np.ndarray | None) -> None:
        self.scene, self.kept = scene, kept
        self.dark = None if dark is None else dark[:, kept]  # [width or 1, bands]
        self.span = None
        if white is not None:
            span = white[:, kept] - (0 if self.dark is None else self.dark)
            # A dead detector element sees no difference between white and dark: its values become 0.
            self.span = np.where(span > 1e-6 * np.abs(white[:, kept]).max(), span, np.inf)
        self.shape: tuple[int, ...] = (scene.height * scene.width, 1, len(kept))

    def __getitem__(self, index: Tensor) -> Tensor:
        place = index.cpu().numpy()
        rows, columns = np.divmod(place, self.scene.width)
        if len(place) and (np.diff(place) == 1).all():
            lines = np.asarray(self.scene.cube[rows[0] : rows[-1] + 1]).reshape(-1, self.scene.bands)
            samples = self._samples(lines[columns[0] : columns[0] + len(place)], rows, columns)
        else:
            samples = self._samples(np.asarray(self.scene.cube[rows, columns]), rows, columns)
        self.scene.release()
        return samples

    @property
    def features(self) -> tuple[str, ...]:
        """The wavelengths of the bands that are read, in nanometres; () where the file has none."""
        wavelengths = self.scene.wavelengths
        return () if wavelengths is None else tuple(f"{wavelengths[band]:.6g}" for band in self.kept)

    @property
    def stored_together(self) -> int:
        """How many rows of the cube are stored, and so read, together."""
        return int(getattr(self.scene.cube, "step", 1))

    def whole(self) -> Tensor:
        """All pixels [n, 1, bands]."""
        rows, columns = np.divmod(np.arange(self.shape[0]), self.scene.width)
        return self._samples(np.asarray(self.scene.cube).reshape(self.shape[0], -1), rows, columns)

    def valid(self) -> Tensor:
        """Which pixels hold data [n], bool."""
        if not possible(self.scene.cube.dtype, self.scene.nodata):
            return torch.ones(self.shape[0], dtype=torch.bool)
        step = max(1, _BLOCK_ENTRIES // self.scene.bands)
        starts = range(0, self.shape[0], step)
        blocks = (self[torch.arange(start, min(start + step, self.shape[0]))] for start in starts)
        return torch.cat([~block[:, 0, 0].isnan() for block in blocks])

    def _samples(self, spectra: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> Tensor:
        """[n, 1, bands], NaN where a pixel holds no data."""
        stored = spectra[:, self.kept]
        empty = self._empty(stored, rows, columns)
        values = stored.astype(np.float32) / np.float32(self.scene.scale)
        if self.dark is not None:
            values -= self.dark[columns % len(self.dark)]
        if self.span is not None:
            values /= self.span[columns % len(self.span)]
        bad = ~np.isfinite(values).all(1) & ~empty
        if bad.any():
            raise self._refused("NaN or infinity", bad, rows, columns)
        values[empty] = np.nan
        return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32)).unsqueeze(1)

    def _empty(self, stored: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """[n] bool of numbers [n, bands]: those pixels that hold no data."""
        if not possible(stored.dtype, self.scene.nodata):
            return np.zeros(len(stored), dtype=bool)
        empty = np.asarray(lacking(stored, self.scene.nodata).all(1))
        strict = [value for value in self.scene.nodata if value != 0]
        partly = np.asarray(lacking(stored, strict).any(1) & ~empty)
        if strict and (partly & np.isfinite(stored).all(1)).any():
            shown = " or ".join(f"{value:g}" for value in strict)
            raise self._refused(f"{shown}, which means no data, in some bands", partly, rows, columns)
        return empty

    def _refused(self, what: str, bad: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> InputError:
        first = int(np.argmax(bad))
        return InputError(
            f"{self.scene.path}: pixel {rows[first]},{columns[first]} holds {what} ({int(bad.sum())} such pixels of "
            f"{len(bad)} read)",
            "leave the band out with bad_bands, fill the gaps, or set all bands of such pixels to NaN, so that they "
            "count as no data",
        )


class Pixels:
    """The pixels of several cubes, one after the other: a Reader."""

    def __init__(self, parts: list[ScenePixels]) -> None:
        self.parts = parts
        self.ends = np.cumsum([part.shape[0] for part in parts])
        self.shape: tuple[int, ...] = (int(self.ends[-1]), *parts[0].shape[1:])

    def __getitem__(self, index: Tensor) -> Tensor:
        result = torch.empty(len(index), *self.shape[1:])
        which = np.searchsorted(self.ends, index.numpy(), side="right")
        for place in np.unique(which).tolist():
            here = torch.from_numpy(np.flatnonzero(which == place))
            result[here] = self.parts[place][index[here] - int(self.ends[place] - self.parts[place].shape[0])]
        return result


@dataclass(frozen=True, eq=False)
class PixelNames(MadeNames):
    """Names of pixels, made when they are asked for.

    Attributes:
        scenes: name, height and width of each cube.
        place: [n] of the pixels among those of all cubes; None is all of them.
    """

    scenes: list[tuple[str, int, int]]
    place: np.ndarray | None = None

    def __len__(self) -> int:
        return int(self._ends[-1]) if self.place is None else len(self.place)

    def __getitem__(self, place):  # type: ignore[no-untyped-def]
        if isinstance(place, slice):
            return self._made(np.arange(*place.indices(len(self))))
        place = place + len(self) if place < 0 else place
        if not 0 <= place < len(self):
            raise IndexError(place)
        return self._made(np.array([place]))[0]

    def _made(self, asked: np.ndarray) -> list[str]:
        """Names of the pixels at `asked` [m]; all at once, for one by one they take a hundred times as long."""
        places = asked if self.place is None else self.place[asked]
        scenes = np.searchsorted(self._ends, places, side="right")
        sizes = np.array([height * width for _, height, width in self.scenes])
        widths = np.array([width for _, _, width in self.scenes])
        rows, columns = np.divmod(places - (self._ends - sizes)[scenes], widths[scenes])
        before = [f"{name}:" if name else "" for name, _, _ in self.scenes]
        each = zip(scenes.tolist(), rows.tolist(), columns.tolist(), strict=True)
        return [f"{before[scene]}{row},{column}" for scene, row, column in each]

    def take(self, index: np.ndarray) -> PixelNames:
        return PixelNames(self.scenes, index if self.place is None else self.place[index])

    def counts(self) -> dict[str, int]:
        """How many of these pixels each cube has, by its name."""
        place = np.arange(0) if self.place is None else self.place
        within = np.bincount(np.searchsorted(self._ends, place, side="right"), minlength=len(self.scenes))
        sizes = [height * width for _, height, width in self.scenes] if self.place is None else within.tolist()
        return {name: size for (name, _, _), size in zip(self.scenes, sizes, strict=True)}

    @cached_property
    def _ends(self) -> np.ndarray:
        return np.cumsum([height * width for _, height, width in self.scenes])


def _holds_cubes(folder: Path) -> bool:
    """Whether there are more cubes than pictures, or the pictures are stacks, or all arrays are cubes."""
    names = [name.lower() for name in list_files(folder, ("",))]
    pictures = image_files.list_pictures(folder)
    if sum(name.endswith(_ONLY_CUBES) for name in names) > len(pictures):
        return True
    if pictures:
        return all(is_stack(folder / name) for name in pictures[:3])
    arrays = [name for name in list_files(folder, ARRAYS) if not Path(name).stem.endswith("_mask")]
    return bool(arrays) and all(numpy_layout(folder / name) == "cube" for name in arrays)


def is_reference(name: str) -> bool:
    """Whether the name of a file in a folder of scans says that it is a dark or white reference, not a scan.

    Names that begin with dark or white say so, and those whose last word does, such as scan_dark_2, and those with a
    word such as WhiteRef in them. So does the name of a folder that is a word for references and nothing else.
    """
    *folders, file = name.split("/")
    if any(_joined(folder) in _REFERENCE_FOLDERS for folder in folders):
        return True
    stem = file[: -len(Path(file).suffix)]
    words = [word.lower() for word in _WORDS.findall(stem)]
    whole = "".join(words)
    begins = whole.startswith(("dark", "white", "calib", "flatfield"))
    return bool(words) and (begins or words[-1] in _REFERENCES or any(word in whole for word in _REFERENCE_WORDS))


def _joined(text: str) -> str:
    return "".join(_WORDS.findall(text)).lower()


def _warn_of_axes(scenes: list[Scene]) -> None:
    """A warning of cubes whose axes were reversed as MATLAB has them, though nothing says that it wrote them."""
    if not scenes:
        return
    height, width, bands = scenes[0].cube.shape
    more = f" and {len(scenes) - 1} more" if len(scenes) > 1 else ""
    messages.warning(
        f"{scenes[0].path}{more}: nothing says that MATLAB wrote this, and it is read as MATLAB writes: "
        f"{height} x {width} pixels of {bands} bands; if they are {bands} x {width} pixels of {height} bands, "
        "save the cube as [height, width, bands] in a .npy or .npz file"
    )


def _what_trains(root: Path, data: Data, scenes: list[Scene]) -> str:
    counts = data.names.counts()  # type: ignore[attr-defined]
    sizes = [f"{scene.height} x {scene.width}" for scene in scenes]
    read, stored = data.sample_shape[-1], scenes[0].bands
    bands = f"{read} bands" if read == stored else f"{read} of {stored} bands"
    if len(counts) == 1 and "" in counts:
        return f"trains on {len(data):,} pixels of {root.name} ({sizes[0]} pixels of {bands})"
    each = zip(counts.items(), sizes, strict=True)
    shown = [f"{name} {count:,} ({size})" for (name, count), size in each][:_SHOWN]
    more = f" and {len(counts) - _SHOWN} more" if len(counts) > _SHOWN else ""
    cubes = "1 cube" if len(counts) == 1 else f"{len(counts)} cubes"
    return f"trains on {len(data):,} pixels of {cubes} of {bands}: {', '.join(shown)}{more}"


def _of_nodata(samples: Labelled, which: str) -> tuple[str, ...]:
    if samples.every_name is None:
        return ()
    total = len(samples.every_name)
    return (f"{total - len(samples.data):,} of {total:,} pixels{which} hold no data and are left out",)


def _of_one_value(data: Data) -> tuple[str, ...]:
    """A word on pixels that share one value in all bands, which no file declares to be none."""
    if not data.in_memory or data.sample_shape[-1] < 2:
        return ()
    spectra = data.read(torch.arange(len(data)))[:, 0]
    values, counts = spectra[(spectra == spectra[:, :1]).all(1), 0].unique(return_counts=True)
    if not len(values) or int(counts.max()) < max(_FEWEST_ALIKE, _LEAST_ALIKE * len(data)):
        return ()
    value, count = float(values[counts.argmax()]), int(counts.max())
    return (
        f"{count:,} of {len(data):,} pixels are {value:.9g} in all bands, and count as measured; if that means no "
        f"data, --nodata={value:.9g} leaves them out",
    )


def _of_references(names: list[str], *asked: str | None) -> tuple[str, ...]:
    if not names:
        return ()
    shown = ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
    use = "" if any(asked) else "; --white and --dark calibrate by them"
    return (f"not read as scans, because their names say that they are references: {shown}{use}",)


_BAND = re.compile(r"\d{1,9}")


def _bands_of(text: str) -> tuple[int | tuple[int, int], ...]:
    """Bands spelled as "0-3,107,108" -> ((0, 3), 107, 108)."""
    bands: list[int | tuple[int, int]] = []
    for part in filter(None, (p.strip() for p in text.split(","))):
        ends = part.split("-")
        if not all(_BAND.fullmatch(end.strip()) for end in ends) or len(ends) > 2:
            raise InputError(f"cannot read the bands {shown(part)}", 'write them as in "0-3,107,108"')
        numbers = [int(end) for end in ends]
        bands.append((numbers[0], numbers[1]) if len(numbers) == 2 else numbers[0])
    return tuple(bands)


def _spelled(bands: np.ndarray) -> str:
    """Rising numbers of bands as `_bands_of` reads them: [0, 1, 2, 107] -> "0-2,107"."""
    parts = np.split(bands, np.flatnonzero(np.diff(bands) > 1) + 1)
    ends = [(part[0], part[-1]) for part in parts if len(part)]
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in ends) or "none"


def _range(band: Any) -> tuple[int, int]:
    try:
        first, last = (int(end) for end in band)
    except (TypeError, ValueError) as error:
        raise InputError(f"bad_bands takes numbers and (first, last): got {band!r}") from error
    return first, last


def _layout(names: list[str], scenes: list[Scene]) -> dict[str, Any]:
    if len(scenes) == 1:
        return {"height": scenes[0].height, "width": scenes[0].width}
    sizes = zip(names, scenes, strict=True)
    return {"cubes": [{"name": name, "height": scene.height, "width": scene.width} for name, scene in sizes]}


def _read_mask(path: Path) -> np.ndarray:
    regular_file(path)
    if path.suffix.lower() == ".npy":
        mask: np.ndarray = read_numpy(path)["X"] != 0
        return mask
    return image_files.read_mask(path)

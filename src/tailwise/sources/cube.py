"""Hyperspectral cubes: every pixel's spectrum is a sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from ..core.context import Scenes
from ..core.data import Data
from ..core.modality import SPECTRUM
from ..core.problem import Facts, Labelled, Problem
from ..core.registry import register
from ..errors import InputError
from . import image_files
from .cube_files import SUFFIXES, Scene, is_stack, open_scene, read_reference
from .numpy_files import SUFFIXES as ARRAYS
from .numpy_files import numpy_layout
from .paths import find_path, list_files
from .recognition import Match, PathSource
from .zarr_files import SUFFIX as ZARR

# Cubes up to this size are kept in memory; above it pixels are read from the file when they are asked for.
IN_MEMORY_BYTES = 1_000_000_000
# Suffixes that no other source reads.
_ONLY_CUBES = (".mat", ".hdr", ZARR)


@register("source", "Cube")
@dataclass(frozen=True, repr=False)
class Cube(PathSource):
    """Pixels [1, bands] of one cube, named "row,column", or of a folder of cubes, named "file:row,column".

    All pixels train, without labels. Where a mask is known the same pixels are also the test: single-scene detection,
    in which the anomalies are among the training pixels. In a folder with train/ and test/, the cubes of train/ train
    and those of test/ test. A mask is 2-D, nonzero for anomalies: an array of the file called map, gt, mask, labels
    or ground_truth, or an image or .npy file beside the cube called <cube>_mask.

    Args:
        path: .mat, ENVI .hdr, .npz, .npy, a .tif stack of one page a band, a .zarr store of zarr or xarray, or a folder
            of these.
        key: the cube's array [height, width, bands] where a file holds several.
        bad_bands: bands to leave out, counted from 0: numbers or (first, last) with both ends, also spelled as
            "0-3,107". An ENVI bad-band list is followed too.
        white, dark: reference cubes of the same bands, averaged over their lines: (raw - dark) / (white - dark).
        labels: the mask's array in the file, or its path, instead of those names.
    """

    reads: ClassVar[str] = "a cube (.mat, .hdr, .zarr, .npz, .tif) or a folder of cubes"

    key: str | None = None
    bad_bands: tuple[int | tuple[int, int], ...] = ()
    white: str | None = None
    dark: str | None = None
    labels: str | None = None

    def __post_init__(self) -> None:
        bands = _bands_of(self.bad_bands) if isinstance(self.bad_bands, str) else self.bad_bands
        bands = tuple(band if isinstance(band, int) else _range(band) for band in bands)
        object.__setattr__(self, "bad_bands", bands)
        super().__post_init__()

    @classmethod
    def recognises(cls, path: Path, options: Mapping[str, Any]) -> Match:
        if path.is_dir() and path.suffix.lower() != ZARR:
            return Match.LIKELY if _holds_cubes(path) else Match.NONE
        suffix = path.suffix.lower()
        if suffix in ARRAYS:
            return Match.LIKELY if numpy_layout(path) == "cube" else Match.NONE
        headers = path.with_suffix(".hdr"), Path(f"{path}.hdr")
        mine = suffix in _ONLY_CUBES or any(header.is_file() for header in headers) or is_stack(path)
        return Match.LIKELY if mine else Match.NONE

    def load(self) -> Problem:
        root, names = self._names()
        tested = [name for name in names if name.startswith("test/")]
        trained = [name for name in names if name.startswith("train/")]
        if not (tested and trained):
            trained, tested = names, []
        scenes = self._scenes(root, trained)
        everything = self._labelled(trained, scenes)
        facts = Facts(root.stem if names == [""] else root.name, "pixels")
        if tested:
            test = self._labelled(tested, self._scenes(root, tested))
            return Problem(everything.data, facts, test=test, layout=_layout(trained, scenes))
        note = "single scene: the labelled pixels are also the training pixels, anomalies included, without labels"
        return Problem(
            train=everything.data,
            facts=facts if everything.labels is None else replace(facts, notes=(note,)),
            test=None if everything.labels is None else everything,
            layout=_layout(names, scenes),
        )

    def load_all(self) -> Labelled:
        root, names = self._names()
        return self._labelled(names, self._scenes(root, names))

    def at(self, path: str) -> Cube:
        """The same bands and calibration of another cube; a mask given by its path is not taken along."""
        return replace(self, path=path, labels=None)

    def _names(self) -> tuple[Path, list[str]]:
        """The folder or the file, and the cubes' names in the folder, or "" for the one file."""
        root = find_path(self.path)
        if not root.is_dir() or root.suffix.lower() == ZARR:
            return root, [""]
        names = [name for name in list_files(root, SUFFIXES) if not Path(name).stem.endswith("_mask")]
        references = [find_path(path).resolve() for path in (self.white, self.dark) if path]
        names = [name for name in names if (root / name).resolve() not in references]
        if not names:
            raise InputError(f"{root} holds no cubes", f"readable are {', '.join(SUFFIXES)}")
        return root, names

    def _scenes(self, root: Path, names: list[str]) -> list[Scene]:
        scenes = [open_scene(root / name if name else root, self.key) for name in names]
        for name, scene in zip(names, scenes, strict=True):
            if scene.bands != scenes[0].bands:
                raise InputError(
                    f"{name} has {scene.bands} bands, {names[0]} has {scenes[0].bands}", "all cubes need the same bands"
                )
        return scenes

    def _labelled(self, names: list[str], scenes: list[Scene]) -> Labelled:
        kept = np.flatnonzero(~self._left_out(scenes[0]))
        if not len(kept):
            raise InputError(f"all {scenes[0].bands} bands of {scenes[0].path} are left out as bad")
        readers = [self._reader(scene, kept) for scene in scenes]
        samples: Any = Pixels(readers) if len(readers) > 1 else readers[0]
        if samples.shape[0] * len(kept) * 4 <= IN_MEMORY_BYTES:
            samples = torch.cat([reader.whole() for reader in readers])
        names_of_pixels = PixelNames(
            [(name, scene.height, scene.width) for name, scene in zip(names, scenes, strict=True)]
        )
        wavelengths = scenes[0].wavelengths
        features = tuple(f"{wavelengths[band]:.6g}" for band in kept) if wavelengths is not None else ()
        sizes = tuple((scene.height, scene.width) for scene in scenes)
        data = Data(samples, names_of_pixels, features, Scenes(samples, sizes), SPECTRUM)
        return Labelled(data, self._labels(names, scenes))

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
        return ScenePixels(scene, kept, white, dark)

    def _mask(self, scene: Scene) -> np.ndarray | None:
        if self.labels is None:
            beside = sorted(scene.path.parent.glob(f"{scene.path.stem}_mask.*"))
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

    def whole(self) -> Tensor:
        """All pixels [n, 1, bands]."""
        rows, columns = np.divmod(np.arange(self.shape[0]), self.scene.width)
        return self._samples(np.asarray(self.scene.cube).reshape(self.shape[0], -1), rows, columns)

    def _samples(self, spectra: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> Tensor:
        spectra = spectra[:, self.kept].astype(np.float32) / np.float32(self.scene.scale)
        if self.dark is not None:
            spectra -= self.dark[columns % len(self.dark)]
        if self.span is not None:
            spectra /= self.span[columns % len(self.span)]
        finite = np.isfinite(spectra).all(1)
        if not finite.all():
            bad = int(np.argmin(finite))
            raise InputError(
                f"{self.scene.path}: pixel {rows[bad]},{columns[bad]} holds NaN or infinity ({int((~finite).sum())} "
                f"such pixels of {len(finite)} read)",
                "cut the empty border away, fill the gaps, or leave the band out with bad_bands",
            )
        return torch.from_numpy(np.ascontiguousarray(spectra, dtype=np.float32)).unsqueeze(1)


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


class PixelNames(Sequence[str]):
    """Names of pixels, made when they are asked for."""

    def __init__(self, scenes: list[tuple[str, int, int]]) -> None:
        self.scenes = scenes  # name, height, width
        self.ends = np.cumsum([height * width for _, height, width in scenes])

    def __len__(self) -> int:
        return int(self.ends[-1])

    def __getitem__(self, place):  # type: ignore[no-untyped-def]
        if isinstance(place, slice):
            return [self[i] for i in range(*place.indices(len(self)))]
        place = place + len(self) if place < 0 else place
        if not 0 <= place < len(self):
            raise IndexError(place)
        which = int(np.searchsorted(self.ends, place, side="right"))
        name, height, width = self.scenes[which]
        row, column = divmod(place - int(self.ends[which]) + height * width, width)
        return f"{name}:{row},{column}" if name else f"{row},{column}"


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


def _bands_of(text: str) -> tuple[int | tuple[int, int], ...]:
    """Bands spelled as "0-3,107,108" -> ((0, 3), 107, 108)."""
    bands: list[int | tuple[int, int]] = []
    for part in filter(None, (p.strip() for p in text.split(","))):
        ends = part.split("-")
        if not all(end.strip().isdecimal() for end in ends) or len(ends) > 2:
            raise InputError(f"cannot read the bands {part!r}", 'write them as in "0-3,107,108"')
        numbers = [int(end) for end in ends]
        bands.append((numbers[0], numbers[1]) if len(numbers) == 2 else numbers[0])
    return tuple(bands)


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
    if path.suffix.lower() == ".npy":
        try:
            return np.load(path, allow_pickle=False) != 0
        except (ValueError, OSError, EOFError) as error:
            raise InputError(f"cannot read the mask {path}: {error}") from error
    return image_files.read_mask(path)

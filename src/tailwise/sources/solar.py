"""Solar cells in electroluminescence, from the PyPI package elpv-dataset."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from torch import Tensor

from ..core.bounds import CountFromZero
from ..core.data import Data
from ..core.problem import Facts, Labelled, Problem, Source
from ..core.registry import Value, find, register
from ..errors import InputError
from .image_files import read_within
from .image_samples import check_layers, image_samples, modality_of, side

_FACTS = Facts(
    name="solar cells",
    samples="images",
    licence="CC BY-NC-SA 4.0",
    citation="Deitsch et al., Segmentation of photovoltaic module cells in uncalibrated electroluminescence images, "
    "Machine Vision and Applications 32, 2021",
    notes=("cells labelled 0 are good, 1 defective; cells of graded doubt (1/3 and 2/3) are left out",),
)


@register("source", "SolarCells", needs={"elpv_dataset": "solar"})
@dataclass(frozen=True, repr=False)
class SolarCells(Value):
    """Good cells of two kinds, monocrystalline and polycrystalline, in any ratio; unseen good and defective ones test.

    Cells whose defect probability is 1/3 or 2/3 are left out of both training and test. The test cells are a third
    good mono, a third good poly and a third defective; where a kind has too few left, defective cells fill up.

    Args:
        mono, poly: good cells of each kind to train on.
        read: the name of a backbone, or "pixels" (grey).
        layers: blocks of the backbone whose maps are the samples; () pools.
        size: cells are resized to size x size; None is 224 for a backbone, 128 for pixels.
        seed: which cells are drawn.
        test: the most cells to test on.
    """

    mono: CountFromZero = 400
    poly: CountFromZero = 40
    read: str = "efficientnet-lite0"
    layers: tuple[int, ...] = ()
    size: int | None = None
    seed: CountFromZero = 0
    test: CountFromZero = 600

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", check_layers(self.read, self.layers))
        super().__post_init__()

    def load(self) -> Problem:
        cells = _read_labels()
        generator = np.random.default_rng(self.seed)
        good = {group: generator.permutation(cells.good(group)) for group in ("mono", "poly")}
        defective = generator.permutation(np.flatnonzero(cells.probability == 1))
        wanted = {"mono": self.mono, "poly": self.poly}
        for group, count in wanted.items():
            if not 0 <= count < len(good[group]):
                raise InputError(f"SolarCells {group} must be from 0 to {len(good[group]) - 1} good cells: got {count}")
        if sum(wanted.values()) < 2 or self.test < 3:
            raise InputError(f"SolarCells needs at least 2 cells to train and 3 to test: got {self!r}")
        train = np.sort(np.concatenate([good[group][:count] for group, count in wanted.items()]))
        unseen = [good[group][count:][: self.test // 3] for group, count in wanted.items()]
        tested = np.sort(np.concatenate([*unseen, defective[: self.test - sum(map(len, unseen))]]))
        return Problem(
            train=self._data(cells, train),
            facts=_FACTS,
            train_groups=cells.group[train],
            test=self._labelled(cells, tested),
            layout={"size": side(self.read, self.size), "read": self.read, "layers": self.layers},
        )

    def load_all(self) -> Labelled:
        cells = _read_labels()
        return self._labelled(cells, np.flatnonzero(np.isin(cells.probability, (0, 1))))

    def at(self, path: str) -> Source:
        """A folder of other cells, read in the same way."""
        return find("source", "ImageFolder")(path, read=self.read, layers=self.layers, size=self.size, channels=1)

    def reading_maps(self, layers: tuple[int, ...]) -> SolarCells:
        """The same cells as maps of these blocks of the backbone."""
        return replace(self, layers=layers)

    def read_by(self, backbone: str) -> SolarCells:
        """The same cells by another backbone."""
        return replace(self, read=backbone)

    def preview(self, name: str, side: int = 128) -> Tensor:
        """The picture [1, height, width] of one cell, for people to look at."""
        return read_within(_folder() / name, side, 1)

    def _data(self, cells: _Cells, chosen: np.ndarray) -> Data:
        files = [cells.folder / cells.file[i] for i in chosen]
        samples = image_samples(files, self.read, side(self.read, self.size), 1, self.layers)
        return Data(samples, [str(cells.file[i]) for i in chosen], modality=modality_of(self.read, self.layers))

    def _labelled(self, cells: _Cells, chosen: np.ndarray) -> Labelled:
        return Labelled(self._data(cells, chosen), cells.probability[chosen] == 1, cells.group[chosen])


@dataclass(frozen=True, eq=False)
class _Cells:
    folder: Path
    file: np.ndarray
    probability: np.ndarray
    group: np.ndarray

    def good(self, group: str) -> np.ndarray:
        return np.flatnonzero((self.probability == 0) & (self.group == group))


def _folder() -> Path:
    found = importlib.util.find_spec("elpv_dataset")
    if found is None or found.origin is None:
        raise InputError("SolarCells needs the package elpv-dataset", "pip install 'tailwise[solar]'")
    return Path(found.origin).parent / "data"


def _read_labels() -> _Cells:
    folder = _folder()
    rows = [line.split() for line in (folder / "labels.csv").read_text().splitlines() if line.strip()]
    file, probability, group = zip(*rows, strict=True)
    return _Cells(folder, np.array(file), np.array(probability, dtype=float), np.array(group))

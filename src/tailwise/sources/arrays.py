"""Arrays in memory, and npz files that hold a training and a test part."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from ..core.data import Data
from ..core.modality import ROW, Modality, find, infer
from ..core.problem import Facts, Labelled, Problem
from ..core.registry import register
from ..errors import InputError
from ..numerics import centring
from .counters import warn_of_counting
from .labels import read_labels, values_of
from .numpy_files import SUFFIXES, numpy_layout, read_numpy
from .paths import find_path
from .recognition import Match, PathSource
from .splits import by_class, one_class

_EXACT = (torch.float64, torch.int64, torch.int32)


def from_arrays(
    x: Any,
    *,
    labels: Any = None,
    normal: tuple[int | str, ...] = (),
    groups: Any = None,
    test: Any = None,
    test_labels: Any = None,
    test_groups: Any = None,
    features: tuple[str, ...] = (),
    name: str = "arrays",
    modality: str | Modality = "",
) -> Problem:
    """A problem from numpy arrays or tensors.

    Args:
        x: samples [n, ...]: rows [n, d], spectra [n, 1, bands], images or feature maps [n, channels, height, width].
        labels: [n], 0, False or a word such as "good" is normal: half of the normals of x then train, and the rest of x
            is the test.
        normal: the values of `labels` and `test_labels` that are normal, whatever they are.
        groups: [n] the group of each sample.
        test: samples to test on [m, ...]; not together with `labels`.
        test_labels, test_groups: what is known of them [m].
        features: names of the columns of x.
        name: what the problem is called in reports.
        modality: what a sample is, such as "image"; "" takes it from the shape of x where that can be one thing only.

    Raises:
        InputError: lengths or shapes do not fit, the shape could be of several modalities or is of none, values are not
            finite, or both `labels` and `test` are given.
    """
    data = _data(x, "x", modality, features)
    facts = Facts(name)
    groups = None if groups is None else _each(groups, data, "groups").astype(str)
    if labels is not None:
        if test is not None:
            raise InputError("labels split x into training and test, and test is given too", "give test_labels instead")
        said = read_labels(_each(labels, data, "labels"), "labels", normal)
        if said.doubt:
            warnings.warn(said.doubt, stacklevel=2)
        return one_class(data, said.anomalous, groups, replace(facts, notes=(said.sentence,)))
    if test is None:
        return Problem(data, facts, groups)
    tested = _data(test, "test", modality, features, centre=_centre(data))
    if tested.sample_shape != data.sample_shape:
        raise InputError(f"samples of test are {list(tested.sample_shape)}: those of x are {list(data.sample_shape)}")
    known = None
    if test_labels is not None:
        known = read_labels(_each(test_labels, tested, "test_labels"), "test_labels", normal).anomalous
    test_groups = None if test_groups is None else _each(test_groups, tested, "test_groups").astype(str)
    return Problem(data, facts, groups, Labelled(tested, known, test_groups))


def array_like(x: Any, modality: Modality, features: tuple[str, ...] = (), centre: Tensor | None = None) -> Data:
    """Samples of an array that are read as others of this modality were, about their centre.

    Raises:
        InputError: it is no array of such samples, or values are not finite.
    """
    middle = np.zeros(1) if centre is None else centre.numpy()
    return _data(x, "the array", modality, features if modality == ROW else (), centre=middle)


@register("source", "ArrayFile")
@dataclass(frozen=True, repr=False)
class ArrayFile(PathSource):
    """An npz file with x_train and, where there are any, y_train, x_test, y_test and the names `classes`.

    Bytes [n, h, w], [n, h, w, 1 or 3] or [n, 1 or 3, h, w] are images and come out as [n, channels, h, w] in 0..1.

    Args:
        path: the file.
        normal: the values of y that train; every test sample of another class is an anomaly. () trains on all.
        modality: what a sample is, such as "feature map"; "" takes it from the shape where that can be one thing only.
    """

    reads: ClassVar[str] = "an .npz file with x_train"

    normal: tuple[int | str, ...] = ()
    modality: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "normal", values_of(self.normal))
        super().__post_init__()
        if self.modality:
            find(self.modality)

    @classmethod
    def recognises(cls, path: Path, options: Mapping[str, Any]) -> Match:
        array = path.suffix.lower() in SUFFIXES and path.is_file()
        return Match.CERTAIN if array and numpy_layout(path) == "parts" else Match.NONE

    def load(self) -> Problem:
        path = find_path(self.path)
        arrays = read_numpy(path)
        train, train_groups = self._part(arrays, "train")
        if train is None:
            raise InputError(
                f"{path} has no array x_train: it holds {', '.join(arrays)}", "rows X and labels y are a Table"
            )
        test, test_groups = self._part(arrays, "test", _centre(train))
        normal = set(_named(np.array(self.normal), arrays).tolist()) if self.normal else set()
        return by_class(train, train_groups, test, test_groups, normal, Facts(path.stem))

    def load_all(self) -> Labelled:
        problem = replace(self, normal=()).load()
        tested = problem.test
        parts = [problem.train] if tested is None else [problem.train, tested.data]
        samples = torch.cat([torch.as_tensor(part.samples) for part in parts])
        names = [name for part in parts for name in part.names]
        data = Data(samples, names, modality=problem.train.modality, centre=problem.train.centre)
        groups = [problem.train_groups] if tested is None else [problem.train_groups, tested.groups]
        if any(group is None for group in groups):
            return Labelled(data)
        together = np.concatenate([group for group in groups if group is not None])
        if not self.normal:
            return Labelled(data, None, together)
        normal = _named(np.array(self.normal), read_numpy(find_path(self.path)))
        return Labelled(data, ~np.isin(together, normal), together)

    def _part(
        self, arrays: dict[str, np.ndarray], part: str, centre: np.ndarray | None = None
    ) -> tuple[Data | None, np.ndarray | None]:
        x, y = arrays.get(f"x_{part}"), arrays.get(f"y_{part}")
        if x is None:
            return None, None
        data = _data(_images(x), f"x_{part}", self.modality, prefix=f"{part}/", centre=centre)
        return data, None if y is None else _named(_each(y.reshape(-1), data, f"y_{part}"), arrays)


def _named(y: np.ndarray, arrays: dict[str, np.ndarray]) -> np.ndarray:
    """Classes as text, by their names where the file has them."""
    classes = arrays.get("classes")
    if classes is None or not np.issubdtype(y.dtype, np.integer):
        return y.astype(str)
    if y.size and not 0 <= y.min() <= y.max() < len(classes):
        raise InputError(f"classes go from 0 to {len(classes) - 1}: got {y.min()} to {y.max()}")
    return classes.astype(str)[y]


def _images(x: np.ndarray) -> np.ndarray:
    if x.dtype != np.uint8 or x.ndim not in (3, 4):
        return x
    scaled = x.astype(np.float32) / 255
    if x.ndim == 3:
        return scaled[:, None]
    return np.ascontiguousarray(np.moveaxis(scaled, 3, 1)) if x.shape[3] in (1, 3) else scaled


def _centre(data: Data) -> np.ndarray:
    """What was taken off the rows of `data`, to be taken off others too."""
    return np.zeros(1) if data.centre is None else data.centre.numpy()


def _data(
    x: Any,
    name: str,
    modality: str | Modality = "",
    features: tuple[str, ...] = (),
    prefix: str = "",
    centre: np.ndarray | None = None,
) -> Data:
    """The samples of an array; rows in double precision about a centre, their own unless one is given."""
    try:
        # Copied where it cannot be written to, as what pandas gives: torch would warn of it.
        samples = x if isinstance(x, Tensor) else torch.as_tensor(np.require(x, requirements="W"))
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} is not an array of numbers: {error}") from error
    if samples.dim() < 2:
        raise InputError(f"{name} has shape {list(samples.shape)}: samples [n, ...] were needed", "reshape to [n, 1]")
    kind = find(modality) if isinstance(modality, str) and modality else modality or infer(tuple(samples.shape[1:]))
    assert isinstance(kind, Modality)
    exact = samples.detach().cpu()
    # Copied, so that nothing that is done here reaches the caller's array.
    samples = exact.to(torch.float32, copy=True)
    finite = torch.isfinite(samples).flatten(1).all(1)
    if not bool(finite.all()):
        raise InputError(
            f"{name}: sample {int((~finite).nonzero()[0])} holds NaN, infinity or what float32 cannot hold "
            f"({int((~finite).sum())} such samples)",
            "fill, rescale or drop them first",
        )
    if exact.dim() == 2 and len(exact):
        values = exact.double().numpy()
        if centre is None:
            warn_of_counting(values, name, features)
            # What comes in single precision has lost its digits already.
            centre = centring.centre_of(values) if exact.dtype in _EXACT else np.zeros(1)
        if centre.any():
            samples = torch.from_numpy(centring.about(values, centre))
    if features and (len(features) != samples.shape[1] or samples.dim() != 2):
        raise InputError(f"{len(features)} features are named for samples of shape {list(samples.shape[1:])}")
    off = None if centre is None or not centre.any() or samples.dim() != 2 else torch.from_numpy(centre)
    names = [f"{prefix}{row}" for row in range(len(samples))]
    return Data(samples, names, tuple(features), modality=kind, centre=off)


def _each(values: Any, data: Data, name: str) -> np.ndarray:
    values = np.asarray(values)
    if values.shape != (len(data),):
        raise InputError(f"{name}: one for each of {len(data)} samples was needed: got shape {list(values.shape)}")
    return values

"""Draws: what a detector trains on and is tested on, made anew from a source for each seed.

Normal kinds are drawn, put in an order, and thinned so that their sizes fall off geometrically. The test holds equally
many normals of each kind, as far as there are enough, and anomalies that no training set has seen.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from ..backbones import cache
from ..core import registry
from ..core.context import Graph
from ..core.data import Data
from ..core.modality import ROW, SPECTRUM, Modality
from ..core.problem import Labelled
from ..errors import InputError
from .suites import AS_GIVEN, Conditions, SourceSettings

_TEST_SHARE = 0.3


@dataclass(frozen=True, eq=False)
class Draw:
    """One draw.

    Attributes:
        train, train_groups: training samples, and their kinds ("" for a hidden anomaly), None where not known.
        held: training samples held out for a threshold; None if the suite wants none.
        test, labels, test_groups: test samples; True is an anomaly; the kinds of normals.
        order: the normal kinds, frequent first.
        in_sample: the test samples are the training samples.
        labelled: anomalies, in neither training nor test, for detectors that need some.
    """

    train: Data
    train_groups: np.ndarray | None
    held: Data | None
    test: Data
    labels: np.ndarray
    test_groups: np.ndarray | None
    order: tuple[str, ...] = ()
    in_sample: bool = False
    labelled: Labelled | None = None


@dataclass(frozen=True, eq=False)
class Pool:
    """Every sample of a source in memory; `width` is that of a cube, else 0."""

    data: Data
    labels: np.ndarray | None
    groups: np.ndarray | None
    width: int = 0


def make(pool: Pool, settings: SourceSettings, conditions: Conditions, calibration: float, labelled: int = 0) -> Draw:
    """The draw of these conditions. The same seed draws the same kinds, order and test at any imbalance.

    The anomalies shown in the test, those hidden in the training data and those `labelled` have none in common.

    Raises:
        InputError: the pool has too few samples or anomalies for it.
    """
    generator = np.random.default_rng(conditions.draw)
    if settings.split == "groups":
        return _of_kinds(pool, settings, conditions, calibration, labelled, generator)
    if pool.labels is None or not pool.width:
        raise InputError(f"split {settings.split!r} needs one cube with a mask: got {settings.source}")
    if settings.split == "scene":
        return Draw(pool.data, None, None, pool.data, pool.labels, None, in_sample=True)
    first = _first_half(pool, flipped=(conditions.draw // max(1, len(settings.scenes))) % 2 == 1)
    train, held = _hold_out(np.flatnonzero(first & ~pool.labels), calibration, generator)
    test = np.flatnonzero(~first)
    return Draw(pool.data.take(train), None, _taken(pool, held), pool.data.take(test), pool.labels[test], None)


def _of_kinds(
    pool: Pool,
    settings: SourceSettings,
    conditions: Conditions,
    calibration: float,
    labelled: int,
    generator: np.random.Generator,
) -> Draw:
    if pool.groups is None and pool.labels is None:
        raise InputError(f"{settings.source} knows no kinds to draw from")
    known_groups = np.full(len(pool.data), "normal") if pool.groups is None else pool.groups
    pool = replace(pool, groups=known_groups)
    order = settings.order or _drawn_kinds(pool, settings, generator)
    members = {group: generator.permutation(_normals(pool, group)) for group in order}
    test_sizes = {group: min(settings.test, int(_TEST_SHARE * len(m))) for group, m in members.items()}
    tested = np.concatenate([m[: test_sizes[group]] for group, m in members.items()])
    left = {group: m[test_sizes[group] :] for group, m in members.items()}
    sizes = _sizes([len(left[group]) for group in order], settings.largest, conditions.imbalance)
    train = np.concatenate([left[group][:size] for group, size in zip(order, sizes, strict=True)])
    order = tuple(order[i] for i in np.argsort([-size for size in sizes], kind="stable"))
    anomalous = generator.permutation(_anomalies(pool, order))
    hidden_count = round(conditions.contamination / (1 - conditions.contamination) * len(train))
    labelled_anomalies, anomalous = anomalous[:labelled], anomalous[labelled:]
    shown = min(settings.anomalies, len(anomalous) - hidden_count)
    if shown < max(1, len(tested) // 100):
        raise InputError(f"{len(anomalous)} anomalies are too few to hide {hidden_count} of them in the training data")
    hidden = anomalous[shown : shown + hidden_count]
    # No kind is held out whole: it would be tested as normal without ever having been seen.
    firsts = np.array([left[group][0] for group in order])
    train, held = _hold_out(np.concatenate([train, hidden]), calibration, generator, firsts)
    test = np.concatenate([tested, anomalous[:shown]])
    groups = np.where(np.isin(np.arange(len(pool.data)), hidden), "", known_groups)
    return Draw(
        pool.data.take(train), groups[train], _taken(pool, held),
        pool.data.take(test), np.arange(len(test)) >= len(tested), known_groups[test], order,
        labelled=Labelled(pool.data.take(labelled_anomalies)) if labelled else None,
    )  # fmt: skip


def _drawn_kinds(pool: Pool, settings: SourceSettings, generator: np.random.Generator) -> tuple[str, ...]:
    assert pool.groups is not None
    normal = pool.groups if pool.labels is None else pool.groups[~pool.labels]
    groups = generator.permutation(np.unique(normal))
    if pool.labels is None and (settings.normals is None or settings.normals >= len(groups)):
        raise InputError(f"of {len(groups)} kinds some must be left to be anomalies: normals is {settings.normals}")
    return tuple(groups[: settings.normals].tolist())


def _normals(pool: Pool, group: str) -> np.ndarray:
    chosen = pool.groups == group
    members = np.flatnonzero(chosen if pool.labels is None else chosen & ~pool.labels)
    if len(members) < 4:
        raise InputError(f"kind {group!r} has {len(members)} normal samples: at least 4 are needed")
    return members


def _anomalies(pool: Pool, order: tuple[str, ...]) -> np.ndarray:
    """Labelled anomalies of the drawn groups or of no group; without labels, samples of the other kinds."""
    assert pool.groups is not None
    of_kinds = np.isin(pool.groups, order)
    return np.flatnonzero(~of_kinds if pool.labels is None else pool.labels & (of_kinds | (pool.groups == "")))


def _sizes(available: list[int], largest: int, imbalance: float | str) -> list[int]:
    """Training samples of each kind: geometric from the first to the last, scaled down where a kind has too few."""
    if imbalance == AS_GIVEN:
        return available
    shares = [float(imbalance) ** -(place / max(1, len(available) - 1)) for place in range(len(available))]
    most = min(largest, *(count / share for count, share in zip(available, shares, strict=True)))
    return [max(1, math.floor(most * share + 1e-9)) for share in shares]


def _hold_out(
    train: np.ndarray, calibration: float, generator: np.random.Generator, never_held: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Samples to train on and samples held out; those `kept` train whatever is drawn."""
    free = train if never_held is None else np.setdiff1d(train, never_held)
    held = generator.permutation(free)[: math.ceil(calibration * len(train))]
    return np.setdiff1d(train, held), held


def _taken(pool: Pool, index: np.ndarray) -> Data | None:
    return pool.data.take(index) if len(index) else None


def _first_half(pool: Pool, flipped: bool) -> np.ndarray:
    """One part of a cube: its left half, or upper half if only so both parts hold anomalies, or cut through them."""
    assert pool.labels is not None
    rows, columns = np.divmod(np.arange(len(pool.data)), pool.width)
    for axis, middle in (
        (columns, pool.width / 2), (rows, len(pool.data) / pool.width / 2),
        (columns, np.median(columns[pool.labels])), (rows, np.median(rows[pool.labels])),
    ):  # fmt: skip
        first = axis < middle
        if pool.labels[first].any() and pool.labels[~first].any():
            return first != flipped
    raise InputError("no cut by rows or columns leaves anomalies on both sides")


@lru_cache(maxsize=2)
def load(settings: SourceSettings, scene: str) -> Pool:
    """Every sample of a suite's source. Kept, because one process makes many draws of it.

    Raises:
        InputError: the data is not there, or cannot be read.
    """
    if settings.groups:
        parts = [_read(settings.source.replace("{group}", group)) for group in settings.groups]
        counts = [len(part.data) for part, _ in parts]
        samples = torch.cat([_in_memory(part) for part, _ in parts])
        labels = None if parts[0][0].labels is None else np.concatenate([part.labels for part, _ in parts])
        everything = Labelled(
            _named(samples, parts[0][0].data.modality), labels, np.repeat(np.array(settings.groups), counts)
        )
        width = 0
    else:
        everything, width = _read(settings.source.replace("{scene}", scene))
    samples = _in_memory(everything)
    if settings.features:
        samples = cache.of_images(samples, settings.features, lambda images: _resized(images, settings.size))
    kind = ROW if settings.features or settings.flatten else everything.data.modality
    # Detectors of scenes are compared by scripts of their own: here a pixel is alone.
    context = everything.data.context if isinstance(everything.data.context, Graph) else None
    samples = samples.flatten(1) if settings.flatten else samples
    data = Data(samples, range(len(samples)), context=context, modality=kind)  # type: ignore[arg-type]
    return Pool(data, everything.labels, None if everything.groups is None else everything.groups.astype(str), width)


def scene_of(settings: SourceSettings, draw: int) -> str:
    """The scene that a draw takes: every one in turn."""
    return settings.scenes[draw % len(settings.scenes)] if settings.scenes else ""


def _read(text: str) -> tuple[Labelled, int]:
    (source,) = registry.parse(text, ("source",))
    everything = source.load_all()
    if everything.data.modality != SPECTRUM:
        return everything, 0
    return everything, int(source.load().layout.get("width", 0))


def _in_memory(part: Labelled) -> Tensor:
    return torch.cat([batch.samples for batch in part.data.batches(1_024)])


def _named(samples: Tensor, modality: Modality) -> Data:
    return Data(samples, range(len(samples)), modality=modality)  # type: ignore[arg-type]


def _resized(images: Tensor, size: int | None) -> Tensor:
    if size is None or images.shape[-1] == size:
        return images
    return torch.nn.functional.interpolate(images, (size, size), mode="bilinear", align_corners=False)

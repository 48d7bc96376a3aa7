"""The usual one-class protocol on labelled data: half of the normals train, everything else tests."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np

from ..core.data import Data
from ..core.problem import Facts, Labelled, Problem
from ..errors import InputError
from .labels import Labels, read_labels

_HALVES = "labelled: half of the normals train (fixed seed), the other half and all anomalies test"


def labels_of(path: str, values: np.ndarray, name: str, normal: tuple[int | str | bool, ...]) -> Labels:
    """`labels.read_labels`, whose errors name the file."""
    try:
        return read_labels(values, name, normal)
    except InputError as error:
        raise InputError(f"{path}: {error.message}", error.hint) from error


def by_labels(everything: Labelled, labels: Labels | None, facts: Facts) -> Problem:
    """Every sample trains where none is labelled; else `one_class`, with what the labels say in the notes.

    Raises:
        InputError: no sample is labelled normal.
    """
    if labels is None or everything.labels is None:
        return Problem(everything.data, facts, train_groups=everything.groups)
    if labels.anomalous.all():
        raise InputError(
            f"0 of {len(labels.anomalous)} samples are labelled normal: at least 2 are needed; {labels.sentence}",
            "name the values that are normal by --normal",
        )
    if labels.doubt:
        warnings.warn(labels.doubt, stacklevel=4)
    facts = replace(facts, notes=(*facts.notes, labels.sentence, _HALVES))
    return one_class(everything.data, everything.labels, everything.groups, facts)


def one_class(data: Data, labels: np.ndarray, groups: np.ndarray | None, facts: Facts, seed: int = 0) -> Problem:
    """Half of the normals train, drawn with `seed`; the other half and all anomalies test. Order is kept.

    Labels pick the samples that train and never reach training.

    Raises:
        InputError: fewer than 2 normals.
    """
    normal = np.flatnonzero(~labels)
    if len(normal) < 2:
        raise InputError(
            f"{len(normal)} of {len(labels)} samples are labelled normal: at least 2 are needed",
            "name the values of the labels that are normal by --normal",
        )
    drawn = np.random.default_rng(seed).permutation(normal)[: (len(normal) + 1) // 2]
    train = np.sort(drawn)
    test = np.setdiff1d(np.arange(len(labels)), train)
    return Problem(
        train=data.take(train),
        facts=facts,
        train_groups=None if groups is None else groups[train],
        test=Labelled(data.take(test), labels[test], None if groups is None else groups[test]),
    )


def by_class(
    train: Data,
    train_groups: np.ndarray | None,
    test: Data | None,
    test_groups: np.ndarray | None,
    normal: set[str],
    facts: Facts,
) -> Problem:
    """The classes in `normal` train; every test sample of another class is an anomaly. With no `normal`, all train.

    Raises:
        InputError: `normal` names a class that is not there, or the classes are not known.
    """
    if not normal:
        return Problem(train, facts, train_groups, None if test is None else Labelled(test, None, test_groups))
    if train_groups is None or (test is not None and test_groups is None):
        raise InputError(
            "normal classes were chosen, but the classes of the samples are not there", "leave out normal="
        )
    unknown = sorted(normal - set(train_groups.tolist()))
    if unknown:
        raise InputError(
            f"no training sample is of class {unknown[0]!r}", f"classes: {', '.join(sorted(set(train_groups)))}"
        )
    chosen = np.flatnonzero(np.isin(train_groups, list(normal)))
    labelled = None
    if test is not None and test_groups is not None:
        labelled = Labelled(test, ~np.isin(test_groups, list(normal)), test_groups)
    return Problem(train.take(chosen), facts, train_groups[chosen], labelled)

"""The usual one-class protocol on labelled data: half of the normals train, everything else tests."""

from __future__ import annotations

import numpy as np

from ..core.data import Data
from ..core.problem import Facts, Labelled, Problem
from ..errors import InputError


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

"""What people say of training units, and how it changes what a detector learns from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from .errors import InputError
from .problem import Data, Labelled, Problem

# What a person writes into the column `verdict`; anything else there is the library's own guess and decides nothing.
ANOMALY, NORMAL = "anomaly", "normal"


def read(path: Path) -> dict[str, str]:
    """The decided units of an edited review sheet and what each is: "anomaly" or "normal".

    Raises:
        InputError: no such file, or it lacks the columns unit and verdict.
    """
    if not path.is_file():
        raise InputError(f"there is no file {path}")
    try:
        sheet = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (ValueError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not a readable table: {error}") from error
    missing = [name for name in ("unit", "verdict") if name not in sheet]
    if missing:
        raise InputError(f"{path} has no column {missing[0]!r}", "give the review.csv that tailwise triage wrote")
    verdicts = sheet["verdict"].str.strip().str.lower()
    decided = verdicts.isin([ANOMALY, NORMAL])
    return dict(zip(sheet.loc[decided, "unit"], verdicts[decided], strict=True))


def apply(problem: Problem, verdicts: Mapping[str, str]) -> tuple[Problem, Labelled | None]:
    """The problem without the units that are anomalies, and these, None where there are none.

    Raises:
        InputError: the verdicts are of other data, or leave fewer than 2 units.
    """
    names = [str(name) for name in problem.train.names]
    strange = set(verdicts) - set(names)
    if strange:
        raise InputError(
            f"the review names {min(strange)!r} ({len(strange)} such units), which is not among the training units",
            "review and fit the same data",
        )
    anomalous = np.array([verdicts.get(name) == ANOMALY for name in names])
    if not anomalous.any():
        return problem, None
    kept = np.flatnonzero(~anomalous)
    if len(kept) < 2:
        raise InputError(f"the review leaves {len(kept)} units to train on: at least 2 are needed")
    groups = None if problem.train_groups is None else np.asarray(problem.train_groups)[kept]
    found = Labelled(problem.train.take(np.flatnonzero(anomalous)))
    return replace(problem, train=problem.train.take(kept), train_groups=groups), found


def take_anomalies(problem: Problem, count: int, seed: int) -> tuple[Problem, Labelled]:
    """The problem with `count` labelled anomalies taken out of its test data, and these.

    Raises:
        InputError: the test data has not that many and one more.
    """
    labels = None if problem.test is None else problem.test.labels
    anomalous = np.flatnonzero(labels) if labels is not None else np.zeros(0, dtype=int)
    if problem.test is None or not 1 <= count < len(anomalous):
        raise InputError(
            f"{count} labelled anomalies cannot be taken out of test data with {len(anomalous)}",
            "name a path with anomalies instead, or fewer",
        )
    order = torch.randperm(len(anomalous), generator=torch.Generator().manual_seed(seed)).numpy()
    taken = np.sort(anomalous[order[:count]])
    left = np.setdiff1d(np.arange(len(problem.test.data)), taken)
    return replace(problem, test=_taken(problem.test, left)), _taken(problem.test, taken)


def joined(parts: Sequence[Labelled]) -> Labelled:
    """Several sets of anomalies as one, in memory."""
    if len(parts) == 1:
        return parts[0]
    units = torch.cat([batch.units for part in parts for batch in part.data.batches(64)])
    masks = [None if part.masks is None else part.masks[i] for part in parts for i in range(len(part.data))]
    return Labelled(Data(units, [name for part in parts for name in part.data.names]), masks=masks)


def _taken(whole: Labelled, index: np.ndarray) -> Labelled:
    return Labelled(
        whole.data.take(index),
        None if whole.labels is None else np.asarray(whole.labels)[index],
        None if whole.groups is None else np.asarray(whole.groups)[index],
        None if whole.masks is None else [whole.masks[i] for i in index.tolist()],
    )

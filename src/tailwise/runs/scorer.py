"""The calibration of a run: which scores make its thresholds, of which kinds, and whether every kind is treated fairly.

A run's table of scores has a column `calibration`: the score of each unit by a detector that has not learnt it, missing
for those that were only trained on. Where thresholds are of kinds, a column `held_to` says of which.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch

from ..calibration import conformal
from ..calibration.by_kind import Calibration
from ..calibration.clusters import Kinds, names_of
from ..core import inference
from ..core.data import Data
from ..core.detector import Detector
from ..core.problem import Labelled, Source
from ..errors import InputError
from ..sources.auto import open_source, spelled
from . import store
from .store import Run
from .table import of_run


def source_like(opened: store.Run, data: str, skip_bad: bool = False) -> Source:
    """The source of what is at `data`, read as the run's own data was."""
    source = opened.spelled("source")
    if skip_bad and hasattr(source, "skip_bad"):
        source = replace(source, skip_bad=True)
    return open_source(data) if spelled(data) else source.at(data)


def units_like(opened: store.Run, source: Source) -> Data:
    """Every unit of a source; see `labelled_like`."""
    return labelled_like(opened, source).data


def labelled_like(opened: store.Run, source: Source) -> Labelled:
    """Every unit of a source, with what is known of it.

    Raises:
        InputError: they are not of the shape that the run was fitted on.
    """
    labelled = source.load_all()
    units = labelled.data
    expected = list(opened.settings["unit_shape"])
    if list(units.unit_shape) != expected:
        raise InputError(
            f"the run was fitted on units of shape {expected}: those of {source!r} have {list(units.unit_shape)}",
            "score data of the same kind: as many columns, channels or bands",
        )
    return labelled


def kinds_of(labelled: Labelled, found: Kinds | None) -> np.ndarray | None:
    """The kind [n] that each unit is held to: the found one, else its known group; "" is none, None where none are."""
    if found is not None:
        return np.array(names_of(closest(found).of(labelled.data)))
    return None if labelled.groups is None else np.asarray(labelled.groups).astype(str)


def closest(found: Kinds) -> Kinds:
    """The same kinds, but every unit is of the kind that it is nearest to.

    Odd units would be a kind of their own otherwise, whose high scores excuse whatever is odd.
    """
    kept = found.modes >= 0
    if not kept.any():
        kept = torch.ones_like(kept)
    unlimited = torch.full_like(found.limit, torch.inf)
    parts = {name: getattr(found, name)[kept] for name in ("places", "rows", "modes", "usual")}
    return replace(found, **parts, limit=unlimited)


@dataclass(frozen=True, eq=False)
class Limits:
    """What each unit is held to, as columns of its table: its found kind, else its known group, and its threshold."""

    calibration: Calibration
    found: Kinds | None
    false_alarms: float

    def __call__(self, labelled: Labelled) -> dict[str, np.ndarray]:
        kinds = kinds_of(labelled, self.found)
        found = {"threshold": self.calibration.thresholds_of(kinds, self.false_alarms, len(labelled.data))}
        return found if kinds is None else {"held_to": kinds} | found


def kinds_of_new(run: Run, units: Labelled) -> np.ndarray | None:
    """The kinds [n] that new units are held to by a run; None where its threshold is one for all."""
    if run.settings.get("per_kind"):
        return kinds_of(units, run.kinds())
    if not run.settings.get("per_group"):
        return None
    if units.groups is None:
        say("warning: the run's thresholds are of known groups, which these data do not name: one threshold for all")
    return kinds_of(units, None)


def scored(
    run: Run, units: Labelled, scores: np.ndarray, threshold: float | None, false_discoveries: float | None
) -> pd.DataFrame:
    """A row for each unit: `unit`, `score`, `threshold`, `flagged`, `p_value`, `standardised`, its `kind` where
    kinds were kept, and what it is `held_to` where thresholds are of kinds; see `commands.score`."""
    calibration, kinds = of_run(run), kinds_of_new(run, units)
    limits = np.full(len(scores), threshold if threshold is not None else run.settings["threshold"])
    if threshold is None and kinds is not None:
        limits = calibration.thresholds_of(kinds, run.settings["false_alarms"], len(scores))
    p = calibration.p_values(scores, kinds)
    flagged = scores > limits
    if false_discoveries is not None:
        if threshold is not None:
            raise InputError("units are flagged by a threshold or by a share of false discoveries", "leave one out")
        flagged = conformal.benjamini_hochberg(p, false_discoveries)
        least = conformal.reachable(len(calibration.scores))
        needed = math.ceil(len(p) * least / false_discoveries)
        if not flagged.any() and needed > 1:
            say(
                f"note: nothing is flagged: of {len(p)} units at least {needed} would have to score above all "
                f"{len(calibration.scores)} calibration normals; more of these, or a smaller batch, tell more"
            )
    table = pd.DataFrame({"unit": list(units.data.names), "score": scores, "threshold": limits, "flagged": flagged})
    table = table.assign(p_value=p, standardised=calibration.standardised(scores, kinds))
    found = run.kinds()
    table = table if found is None else table.assign(kind=names_of(found.of(units.data)))
    return table if kinds is None else table.assign(held_to=kinds)


def table_of_test(detector: Detector, test: Labelled, limits: Limits | None) -> pd.DataFrame:
    """A row for each test sample: its score, its label and, where known, its group."""
    table = pd.DataFrame(
        {"unit": list(test.data.names), "score": inference.score(detector, test.data).double().numpy()}
    )
    table["label"] = pd.array([None] * len(table) if test.labels is None else test.labels.astype(bool), dtype="boolean")
    if test.groups is not None:
        table["group"] = np.asarray(test.groups).astype(str)
    return table if limits is None else table.assign(**limits(test))


def say(message: str) -> None:
    """Tell the user, beside the results."""
    print(message, file=sys.stderr)

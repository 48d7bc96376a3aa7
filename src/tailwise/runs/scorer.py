"""The calibration of a run: which scores make its thresholds, of which kinds, and whether every kind is treated fairly.

A run's table of scores has a column `calibration`: the score of each sample by a detector that has not learnt it,
missing for those that were only trained on. Where thresholds are of kinds, a column `held_to` says of which.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ..calibration import conformal
from ..calibration.by_kind import ALL, Calibration
from ..calibration.clusters import Clusters, names_of
from ..core import inference, messages
from ..core.data import Data
from ..core.detector import Detector
from ..core.problem import Labelled, SkipsBad, Source
from ..errors import InputError
from ..sources.auto import open_source, spelled
from . import store
from .store import Run
from .table import group_column, of_run


def source_like(opened: store.Run, data: str, skip_bad: bool = False) -> Source:
    """The source of what is at `data`, read as the run's own data was."""
    source = opened.spelled("source")
    if skip_bad and isinstance(source, SkipsBad):
        source = source.skipping_bad()
    return open_source(data) if spelled(data) else source.at(data)


def samples_like(opened: store.Run, source: Source) -> Data:
    """Every sample of a source; see `labelled_like`."""
    return labelled_like(opened, source).data


def labelled_like(opened: store.Run, source: Source) -> Labelled:
    """Every sample of a source, with what is known of it.

    Raises:
        InputError: they are not of the shape that the run was fitted on.
    """
    labelled = source.load_all()
    samples = labelled.data
    expected = list(opened.settings["sample_shape"])
    if list(samples.sample_shape) != expected or samples.modality != opened.modality:
        raise InputError(
            f"the run was fitted on {opened.modality.plural} of shape {expected}: {source!r} has "
            f"{samples.modality.plural} of shape {list(samples.sample_shape)}",
            "score data of the same kind: as many columns, channels or bands",
        )
    return replace(labelled, data=samples.about(centre_of(opened)))


def centre_of(opened: store.Run) -> Tensor | None:
    """What is taken off samples before the run's detector reads them."""
    centre = opened.settings.get("centre")
    return None if centre is None else torch.tensor(centre, dtype=torch.float64)


def kinds_of(labelled: Labelled, found: Clusters | None) -> np.ndarray | None:
    """The kind [n] whose threshold applies to each sample: its cluster, else its group; "" is none, None where none
    are."""
    if found is not None:
        return np.array(names_of(closest(found).of(labelled.data)))
    return None if labelled.groups is None else np.asarray(labelled.groups).astype(str)


def closest(found: Clusters) -> Clusters:
    """The same kinds, but every sample is of the kind that it is nearest to.

    Odd samples would be a kind of their own otherwise, whose high scores excuse whatever is odd.
    """
    kept = found.clusters >= 0
    if not kept.any():
        kept = torch.ones_like(kept)
    unlimited = torch.full_like(found.limit, torch.inf)
    parts = {name: getattr(found, name)[kept] for name in ("places", "rows", "clusters", "usual")}
    return replace(found, **parts, limit=unlimited)


@dataclass(frozen=True, eq=False)
class Limits:
    """What each sample is held to, as columns of its table: its cluster, else its group, and its threshold."""

    calibration: Calibration
    found: Clusters | None
    false_alarms: float

    def __call__(self, labelled: Labelled) -> dict[str, np.ndarray]:
        kinds = kinds_of(labelled, self.found)
        found = {"threshold": self.calibration.thresholds_of(kinds, self.false_alarms, len(labelled.data))}
        if kinds is None:
            return found
        return {"held_to": kinds if self.found is not None else held_to(kinds, self.calibration)} | found


def kinds_of_new(run: Run, samples: Labelled) -> np.ndarray | None:
    """The kinds [n] that new samples are held to by a run; None where its threshold is one for all."""
    if run.settings.get("per_cluster"):
        return kinds_of(samples, run.clusters())
    if not run.settings.get("per_group"):
        return None
    if samples.groups is None:
        messages.warning(
            "the run has a threshold for each group, but this data names no groups: one threshold is used for all"
        )
    return kinds_of(samples, None)


def scored(
    run: Run, samples: Labelled, scores: np.ndarray, threshold: float | None, false_discoveries: float | None
) -> pd.DataFrame:
    """A row for each sample: `sample`, `score`, `threshold`, `flagged`, `p_value`, `standardised`, its `kind` where
    kinds were kept, and what it is `held_to` where thresholds are of kinds; see `commands.score`."""
    calibration, kinds = of_run(run), kinds_of_new(run, samples)
    limits = np.full(len(scores), threshold if threshold is not None else run.settings["threshold"])
    if threshold is None and kinds is not None:
        limits = calibration.thresholds_of(kinds, run.settings["false_alarms"], len(scores))
    p = calibration.p_values(scores, kinds)
    flagged = scores > limits
    if false_discoveries is not None:
        if threshold is not None:
            raise InputError("samples are flagged by a threshold or by a share of false discoveries", "leave one out")
        flagged = conformal.benjamini_hochberg(p, false_discoveries)
        least = conformal.reachable(len(calibration.scores))
        needed = math.ceil(len(p) * least / false_discoveries)
        if not flagged.any() and needed > 1:
            messages.note(
                f"nothing is flagged: at least {needed} of {len(p)} samples would have to score above all "
                f"{len(calibration.scores)} calibration normals; use more of these, or a smaller batch"
            )
    table = pd.DataFrame({"sample": list(samples.data.names), "score": scores, "threshold": limits, "flagged": flagged})
    table = table.assign(p_value=p, standardised=calibration.standardised(scores, kinds))
    found = run.clusters()
    table = table if found is None else table.assign(kind=names_of(found.of(samples.data)))
    if kinds is None:
        return table
    if run.settings.get("per_group"):
        shown = held_to(kinds, calibration)
        warn_of_unseen(kinds[(shown == ALL) & (kinds != ALL)])
        return table.assign(held_to=shown)
    return table.assign(held_to=kinds)


def held_to(groups: np.ndarray, calibration: Calibration) -> np.ndarray:
    """Whose threshold each sample is held to: its group's, or "all" where that calibrates none."""
    seen = np.isin(groups, [] if calibration.kinds is None else calibration.kinds)
    return np.where(seen, groups.astype(object), ALL).astype(str)


def warn_of_unseen(groups: np.ndarray) -> None:
    """Warn of samples of groups that calibrate no threshold, "" being of none."""
    names, counts = np.unique(groups[groups != ""], return_counts=True)
    said = [f"{name!r} ({count})" for name, count in zip(names.tolist(), counts.tolist(), strict=True)]
    if said:
        messages.warning(
            f"the run has no threshold of its own for the {'group' if len(said) == 1 else 'groups'} "
            f"{', '.join(said[:6])}{f' and {len(said) - 6} more' if len(said) > 6 else ''}: these samples are held to "
            "the threshold of all"
        )
    if missing := int((groups == "").sum()):
        messages.warning(f"{missing} samples name no group and are held to the threshold of all")


def table_of_test(detector: Detector, test: Labelled, limits: Limits | None) -> pd.DataFrame:
    """A row for each test sample: its score, its label and, where known, its group."""
    table = pd.DataFrame(
        {"sample": list(test.data.names), "score": inference.score(detector, test.data).double().numpy()}
    )
    table["label"] = pd.array([None] * len(table) if test.labels is None else test.labels.astype(bool), dtype="boolean")
    if test.groups is not None:
        table["group"] = group_column(test.groups)
    return table if limits is None else table.assign(**limits(test))

"""The score table of a run: which samples calibrate, which score decides, which are rejected."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ..calibration import conformal, drift
from ..calibration.by_kind import Calibration
from ..calibration.clusters import NONE, Clusters
from ..core import inference
from ..core.data import Data
from ..core.detector import Detector
from ..core.problem import Labelled, Problem
from ..errors import InputError
from ..numerics.intervals import share_of
from ..training import suspects
from ..training.loop import Outcome

# The columns of a run's table, with the kinds of numpy's types that each may have; the rest is text.
_NUMBERS, _WHOLE, _TRUTH = "fiu", "iu", "b"
_NEEDED = {"sample": "", "score": _NUMBERS, "trained_score": _NUMBERS, "first_score": _NUMBERS, "weight": _NUMBERS,
           "held_out": _TRUTH, "cluster": _WHOLE}  # fmt: skip
_MAY_HAVE = {"calibration": _NUMBERS, "threshold": _NUMBERS, "held_to": "", "group": "", "cluster_as_new": _WHOLE,
             "unknown_as_new": _TRUTH, "left_out": _TRUTH}  # fmt: skip
_TEST = {"sample": "", "score": _NUMBERS}
_TEST_MAY_HAVE = {"label": _TRUTH, "threshold": _NUMBERS, "held_to": "", "group": ""}


def check_table(table: pd.DataFrame, rows: int) -> pd.DataFrame:
    """A table of training samples as a run keeps it: so many rows, and columns of their types.

    Raises:
        InputError: it is another table.
    """
    if len(table) != rows or not rows:
        raise InputError(f"the table of scores has {len(table)} rows: the run was fitted on {rows} samples")
    _check_columns(table, _NEEDED, _NEEDED | _MAY_HAVE)
    _check_finite(table, "calibration" if "calibration" in table else "score")
    clusters = table[[name for name in ("cluster", "cluster_as_new") if name in table]].to_numpy()
    if not ((clusters >= -2) & (clusters < rows)).all():
        raise InputError(f"the table of scores names clusters from {clusters.min()} to {clusters.max()}")
    return table


def check_test_table(table: pd.DataFrame) -> pd.DataFrame:
    """A table of test samples as a run keeps it.

    Raises:
        InputError: it is another table.
    """
    _check_columns(table, _TEST, _TEST | _TEST_MAY_HAVE)
    if not len(table):
        raise InputError("the table of test scores has no rows")
    return table


def _check_finite(table: pd.DataFrame, name: str) -> None:
    values = table[name].to_numpy(dtype=float)
    if not np.isfinite(values).any() or np.nanmax(np.abs(values[np.isfinite(values)])) > _LARGEST_SCORE:
        raise InputError(f"the table of scores has no usable {name}")


# Beyond it a square is no finite number.
_LARGEST_SCORE = 1e150


def _check_columns(table: pd.DataFrame, needed: Mapping[str, str], types: Mapping[str, str]) -> None:
    wrong = [name for name in needed if name not in table]
    for name in table.columns.intersection(list(types)):
        column = table[name]
        kinds = types[name]
        fits = column.dtype.kind in kinds if kinds else _is_text(column, name)
        if kinds == _TRUTH and name == "label":
            fits = fits or column.isna().all()
        if not fits or (kinds in (_TRUTH, _WHOLE) and name != "label" and column.isna().any()):
            wrong.append(name)
    if wrong:
        raise InputError(f"the table of scores lacks a usable {', '.join(wrong)}")


def _is_text(column: pd.Series, name: str) -> bool:
    present = column if name == "sample" else column.dropna()
    return bool(present.map(lambda value: isinstance(value, str)).all())


def with_calibration(
    table: pd.DataFrame, cross_fitted: np.ndarray | None = None, kinds: np.ndarray | None = None
) -> pd.DataFrame:
    """The table with its columns of calibration: cross-fitted scores [n], or else those of held-out samples."""
    scores = table["score"].where(table["held_out"].astype(bool)) if cross_fitted is None else pd.Series(cross_fitted)
    if scores.isna().all():
        scores = table["score"]
    found = table.assign(calibration=scores.to_numpy())
    found = found if cross_fitted is None else found.assign(left_out=True)
    return found if kinds is None else found.assign(held_to=kinds)


def of_table(table: pd.DataFrame) -> Calibration:
    """What a run's table of scores says of new normals."""
    table = table if "calibration" in table else with_calibration(table)
    used = table[np.isfinite(table["calibration"].to_numpy(dtype=float))]
    kinds = used["held_to"].to_numpy().astype(str) if "held_to" in used else None
    return Calibration(used["calibration"].to_numpy(dtype=float), kinds, cross_fitted(table))


def group_column(groups: np.ndarray) -> pd.Series:
    """Names of groups [n] as a column of a table, missing where they are ""."""
    names = pd.Series(np.asarray(groups).astype(str))
    return names.where(names != "", None)


def far_out(table: pd.DataFrame, false_alarms: float) -> dict[str, Any]:
    """The threshold of all, the samples far above all others that raise it, and the threshold without them."""
    table = table if "calibration" in table else with_calibration(table)
    used = table[np.isfinite(table["calibration"].to_numpy(dtype=float))]
    scores = used["calibration"].to_numpy(dtype=float)
    far = conformal.far_out(scores)
    threshold = without = conformal.conformal_threshold(scores, false_alarms)
    if far.any() and not far.all():
        without = conformal.conformal_threshold(scores[~far], false_alarms)
    # Only what tells beside the scores' own spread.
    tells = threshold - without > 0.5 * np.subtract(*np.quantile(scores, (0.75, 0.25)))
    names = used.loc[far].sort_values("calibration", ascending=False)["sample"].astype(str).tolist() if tells else []
    return {"threshold": threshold, "without": without, "suspects": names}


def high_scores(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of the training samples whose score is far out of line, the farthest first.

    Fitted samples are held against fitted ones, and held-out against held-out: a detector knows the former too well.
    """
    table = table.assign(score=deciding_scores(table))
    finite = table[np.isfinite(table["score"].to_numpy(dtype=float))]
    if not len(finite):
        return finite
    standard = finite.groupby(finite["held_out"].astype(bool))["score"].transform(_standing)
    far = suspects.out_of_line(torch.from_numpy(standard.to_numpy(dtype=float).copy())).numpy()
    return finite.assign(standard=standard)[far].sort_values("standard", ascending=False, kind="stable")


def _standing(scores: pd.Series) -> np.ndarray:
    return suspects.standing(torch.from_numpy(scores.to_numpy(dtype=float).copy())).numpy()


_EXAMPLES = 3


def reference_of(table: pd.DataFrame, kinds: Clusters) -> drift.Population:
    """What a batch is held against: training samples as if they were new, with the scores of those that were held out,
    and the places that were kept. Cross-fitted scores are of other detectors than the one that scores the batch: they
    lie a little higher, which a large batch would tell, and are left out."""
    held = table["score"].where(table["held_out"].astype(bool))
    scores = held.to_numpy(dtype=float)
    places = kinds.along(len(table)).numpy()
    return drift.Population(
        table["cluster_as_new"].to_numpy(), table["unknown_as_new"].to_numpy(dtype=bool), scores, places
    )


def examples_of(table: pd.DataFrame) -> dict[int, list[str]]:
    """For each cluster the names of the samples whose scores are in the middle of its own."""
    examples = {}
    for cluster, part in table.groupby("cluster"):
        off = (part["score"] - part["score"].median()).abs().to_numpy()
        examples[int(str(cluster))] = (
            part["sample"].astype(str).to_numpy()[np.argsort(off, kind="stable")][:_EXAMPLES].tolist()
        )
    return examples


def with_finite_scores(table: pd.DataFrame) -> tuple[pd.DataFrame, int]:
    """The rows whose score is finite, and how many were not."""
    finite = np.isfinite(table["score"].to_numpy(dtype=float))
    kept = table[finite].reset_index(drop=True)
    return kept.assign(sample=kept["sample"].astype(str)), int((~finite).sum())


def rejected(samples: pd.DataFrame, threshold: float) -> dict[str, Any]:
    """The share of samples whose score lies above the threshold, or above their kind's own where they have one.

    See `deciding_scores` for which score counts.
    """
    return share_of(over(samples, threshold))


def over(samples: pd.DataFrame, threshold: float) -> pd.Series:
    """Which of the samples are rejected, as `rejected` counts them."""
    return deciding_scores(samples) > samples.get("threshold", threshold)


def deciding_scores(samples: pd.DataFrame) -> pd.Series:
    """The score of each sample by a detector that has not learnt it (`calibration`) where there is one, else its
    own."""
    return samples["calibration"].fillna(samples["score"]) if "calibration" in samples else samples["score"]


def calibrating(train: pd.DataFrame) -> pd.DataFrame:
    """The samples that the threshold comes from: those held out, or all where each was left out in turn."""
    return train[train["calibration"].notna()] if cross_fitted(train) else train[train["held_out"].astype(bool)]


def cross_fitted(train: pd.DataFrame) -> bool:
    """Whether each sample was left out in turn, so that none need be held out."""
    if "calibration" not in train or train["held_out"].astype(bool).any():
        return False
    # Without a further training both scores are the same; tables of before have no such column.
    return "left_out" in train or bool((train["calibration"] != train["score"]).any())


def found_cluster(train: pd.DataFrame) -> pd.Series:
    """The found cluster of each sample, missing where it belongs to none."""
    return train["cluster"].where(train["cluster"] >= 0)


def by_size(kind: pd.Series) -> list[Any]:
    """Names of the kinds by falling size, equal sizes by name; missing is no kind."""
    sizes = kind.dropna().value_counts()
    return [name for name, _ in sorted(sizes.items(), key=lambda item: (-item[1], item[0]))]


def kind_name(name: Any) -> str:
    """A kind's name as text; clusters are numbers."""
    return name if isinstance(name, str) else str(int(name))


@dataclass(frozen=True, eq=False)
class Split:
    """The training samples of a problem, less those held out for the threshold."""

    problem: Problem
    held: np.ndarray

    @functools.cached_property
    def chosen(self) -> np.ndarray:
        return np.flatnonzero(~self._among(self.held))

    def _among(self, places: np.ndarray) -> np.ndarray:
        """Which training samples [n] are at these places."""
        among = np.zeros(len(self.problem.train), dtype=bool)
        among[places] = True
        return among

    @functools.cached_property
    def training(self) -> Data:
        return self.problem.train.take(self.chosen) if len(self.held) else self.problem.train

    @property
    def labelled(self) -> Labelled:
        """Every training sample, with its group."""
        return Labelled(self.problem.train, groups=self.problem.train_groups)

    @property
    def held_out(self) -> Data:
        return self.problem.train.take(self.held)

    def table(
        self, detector: Detector, outcome: Outcome, scores: Tensor, kinds: Clusters | None, suspect: Tensor
    ) -> pd.DataFrame:
        """A row for each training sample, held-out ones too, in the source's order.

        `scores` are those of the samples trained on by `detector`, whose scores may be local; `trained_score` and
        `first_score` are by the detector that it wraps, after and before any weighing. `suspect` says which of them
        were left out as suspects. Without `kinds` all are in no cluster.
        """
        n = len(self.problem.train)
        trained = {
            "score": scores, "trained_score": outcome.scores,
            "first_score": outcome.first_scores, "weight": outcome.weights,
        }  # fmt: skip
        columns = {name: np.full(n, np.nan) for name in trained}
        for name, values in trained.items():
            columns[name][self.chosen] = values.double().numpy()
        if len(self.held):
            columns["score"][self.held] = inference.score(detector, self.held_out).double().numpy()
        table = pd.DataFrame({"sample": list(self.problem.train.names), **columns})
        table["held_out"] = self._among(self.held)
        table["suspect"] = self._among(self.chosen[suspect.numpy()])
        table["cluster"] = NONE
        if kinds is not None:
            assert kinds.training is not None
            assert kinds.training_as_new is not None
            table["cluster"] = kinds.training.numpy()
            table["cluster_as_new"] = kinds.training_as_new.nearest.numpy()
            table["unknown_as_new"] = kinds.training_as_new.unknown.numpy()
        if self.problem.train_groups is not None:
            table["group"] = group_column(self.problem.train_groups)
        return table

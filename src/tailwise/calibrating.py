"""The calibration of a run: which scores make its thresholds, of which kinds, and whether every kind is treated fairly.

A run's table of scores has a column `calibration`: the score of each unit by a detector that has not learnt it, missing
for those that were only trained on. Where thresholds are of kinds, a column `held_to` says of which.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from . import findings, storage, thresholds
from .calibration import Calibration
from .errors import InputError
from .kinds import Kinds, names_of
from .problem import Labelled
from .storage import Run

USUAL_SHARES = (0.01, 0.05, 0.1)


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


def with_calibration(
    table: pd.DataFrame, crossed: np.ndarray | None = None, kinds: np.ndarray | None = None
) -> pd.DataFrame:
    """The table with its columns of calibration: out-of-fold scores [n], or else those of held-out units."""
    scores = table["score"].where(table["held_out"].astype(bool)) if crossed is None else pd.Series(crossed)
    if scores.isna().all():
        scores = table["score"]
    found = table.assign(calibration=scores.to_numpy())
    return found if kinds is None else found.assign(held_to=kinds)


def of_table(table: pd.DataFrame) -> Calibration:
    """What a run's table of scores says of new normals."""
    table = table if "calibration" in table else with_calibration(table)
    used = table[np.isfinite(table["calibration"].to_numpy(dtype=float))]
    kinds = used["held_to"].to_numpy().astype(str) if "held_to" in used else None
    return Calibration(used["calibration"].to_numpy(dtype=float), kinds)


def of_run(run: Run) -> Calibration:
    """What a run says of new normals.

    Raises:
        InputError: the run was made before kinds were kept.
    """
    return of_table(run.scores())


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
        flagged = thresholds.benjamini_hochberg(p, false_discoveries)
        least = thresholds.reachable(len(calibration.scores))
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


def table_of_run(path: Path, false_alarms: float | None, per_day: float) -> pd.DataFrame:
    """The thresholds of a run for a share of false alarms, or for its own and the usual ones."""
    if not per_day > 0:
        raise InputError(f"per_day must be above 0: got {per_day}")
    run = storage.open_run(path)
    asked = sorted({run.settings["false_alarms"], *USUAL_SHARES}) if false_alarms is None else [false_alarms]
    table = run.scores()
    calibration = of_table(table)
    rows = []
    for share in asked:
        own = calibration.table(share, per_day)
        if calibration.kinds is not None:
            whole = calibration.together(share)
            own = [whole | {"per_day": whole["promised"] * per_day}, *own]
        rows += own
    if findings.crossed(table):
        say("note: out-of-fold scores promise about as much where trainings are alike; no theorem guarantees it")
        rows = [row | {"guaranteed": False} for row in rows]
    return pd.DataFrame(rows)


def warn(table: pd.DataFrame, false_alarms: float, crossed: bool) -> None:
    """Say what the units are too few for."""
    calibration = of_table(table)
    promise = thresholds.reachable(len(calibration.scores))
    if not crossed and not table["held_out"].any():
        say("warning: too few units to hold any out: the threshold comes from training scores and is too low")
    elif promise > false_alarms:
        what = "out-of-fold scores" if crossed else "held-out units"
        text = f"warning: {len(calibration.scores)} {what} can promise at best {100 * promise:.1f} % false alarms"
        say(f"{text}, not {100 * false_alarms:g} %{'' if crossed else '; --cross 5 makes every unit count'}")
    small = [row for row in calibration.table(false_alarms) if not row["guaranteed"]]
    if small and calibration.kinds is not None:
        listed = ", ".join(f"{row['kind']} ({row['normals']}: {100 * row['reachable']:.1f} %)" for row in small[:6])
        more = f" and {len(small) - 6} more" if len(small) > 6 else ""
        say(f"note: kinds too small to promise {100 * false_alarms:g} % by themselves borrow from all: {listed}{more}")


def shares(table: pd.DataFrame, threshold: float) -> list[dict[str, Any]]:
    """False alarms of each kind, largest first, among the calibration scores: given groups, else the kinds found.

    `name`, and `count`, `of`, `share`, `low` and `high` as `findings.share_of`.
    """
    used = table[np.isfinite(table["calibration"].to_numpy(dtype=float))]
    kind = used["group"] if "group" in used else findings.found_kind(used)
    parts = {_name(name): used[kind == name] for name in findings.by_size(kind)}
    return [{"name": name} | findings.rejected(part, threshold) for name, part in parts.items()]


def _shares_of_test(test: pd.DataFrame | None, threshold: float) -> list[dict[str, Any]]:
    """False alarms of each known kind among labelled test normals; [] where there are none."""
    if test is None or "group" not in test:
        return []
    normals = test[(~test["label"].astype("boolean")).fillna(False).astype(bool)]
    parts = {name: normals[normals["group"] == name] for name in findings.by_size(normals["group"])}
    return [{"name": f"{name} in the test"} | findings.rejected(part, threshold) for name, part in parts.items()]


def _name(name: Any) -> str:
    """A kind's name as text; found kinds are numbers."""
    return name if isinstance(name, str) else str(int(name))


def broken(rows: list[dict[str, Any]], limit: float) -> list[dict[str, Any]]:
    """The kinds that are falsely rejected more often than the limit.

    Of a kind with fewer units than 1 / limit a single one would break it, so that only counts which no such share
    explains: the 95 % interval must lie above.
    """
    return [
        row for row in rows
        if row["of"] and row["share"] > limit and (row["of"] * limit >= 1 or row["low"] > limit)
    ]  # fmt: skip


def check_group_fpr(
    table: pd.DataFrame, test: pd.DataFrame | None, threshold: float, limit: float | None
) -> dict[str, Any] | None:
    """What the settings say of `--max-group-fpr`, and the same to the user where it is broken.

    Calibration scores are counted, and test normals of known kinds, of which chance must not explain it. Where kinds
    have their own thresholds, made of the former, these keep any limit that is not below the share asked for.
    """
    if limit is None:
        return None
    rows = shares(table, threshold)
    tested = _shares_of_test(test, threshold)
    over = broken(rows, limit) + [row for row in tested if row["low"] > limit]
    few = [row["name"] for row in rows if row["of"] * limit < 1]
    for row in over:
        share = f"{100 * row['share']:.1f} % ({row['count']} of {row['of']})"
        say(f"error: kind {row['name']!r} is falsely rejected in {share}, above --max-group-fpr {100 * limit:g} %")
    if over:
        say("hint: --per-kind or --per-group gives every kind its own threshold; the run is kept, marked as failed")
    if "held_to" in table and not tested:
        say("note: kinds keep their own thresholds on the units that made them; test normals of known kinds would tell")
    if few:
        say(f"note: too few units to hold {', '.join(few[:6])} to --max-group-fpr {100 * limit:g} %")
    return {"limit": limit, "kinds": rows, "test": tested, "broken": [row["name"] for row in over], "too_few": few}


def check_options(false_alarms: float, cross: int | None, max_group_fpr: float | None) -> None:
    """Raise an InputError unless these options can be used."""
    thresholds.check_share(false_alarms, "false_alarms")
    if cross is not None and (cross < 0 or cross == 1):
        raise InputError(f"cross must be 0 or at least 2: got {cross}", "5 is usual")
    if max_group_fpr is not None:
        thresholds.check_share(max_group_fpr, "max_group_fpr")


def say(message: str) -> None:
    """Tell the user, beside the results."""
    print(message, file=sys.stderr)

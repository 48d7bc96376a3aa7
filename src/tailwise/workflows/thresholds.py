"""What the thresholds of a run promise."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd

from ..calibration import conformal
from ..core import messages
from ..core.validation import check_share
from ..errors import InputError, listed
from ..runs import table as runs_table
from ..runs.scorer import open_run
from ..runs.table import far_out, of_table

USUAL_SHARES = (0.01, 0.05, 0.1)


def table_of_run(path: Path, false_alarms: float | None, per_day: float) -> pd.DataFrame:
    """The thresholds of a run for a share of false alarms, or for its own and the usual ones."""
    if not per_day > 0:
        raise InputError(f"per_day must be above 0: got {per_day}")
    if not math.isfinite(per_day):
        raise InputError(f"per_day must be finite: got {per_day}")
    if false_alarms is not None:
        check_share(false_alarms, "false_alarms")
    run = open_run(path)
    asked = sorted({run.settings.false_alarms, *USUAL_SHARES}) if false_alarms is None else [false_alarms]
    table = run.scores()
    calibration = run.calibration()
    rows = []
    for share in asked:
        own = calibration.table(share, per_day)
        if calibration.kinds is not None:
            whole = calibration.together(share)
            own = [whole | {"per_day": whole["promised"] * per_day}, *own]
        rows += own
    if runs_table.cross_fitted(table):
        messages.note("cross-fitted scores promise about the same if the trainings are alike; no theorem guarantees it")
        rows = [row | {"guaranteed": False} for row in rows]
    return pd.DataFrame(rows)


def raised_by(table: pd.DataFrame, false_alarms: float) -> str:
    """Which samples far above all others raise the threshold, and what it would be without them; "" where none does."""
    raised = far_out(table, false_alarms)
    if not raised["suspects"]:
        return ""
    return (
        f"the threshold is {raised['threshold']:.4g}, and would be {raised['without']:.4g} without "
        f"{listed(raised['suspects'])}, far above all other samples that set it. Look there: beside each anomaly write "
        '"anomaly" in a sheet with the columns sample and verdict, and give it to --reviewed'
    )


def warn(table: pd.DataFrame, false_alarms: float, cross_fitted: bool) -> None:
    """Say what the samples are too few for."""
    calibration = of_table(table)
    count = len(calibration.scores)
    basis = "cross-fitted" if cross_fitted else "held-out" if bool(table["held_out"].any()) else ""
    # A fold needs two samples.
    folds = min(conformal.FOLDS, len(table) // 2)
    advice = f"; with --cross {folds} every sample counts" if folds > 1 else "; give more samples"
    advice = "" if cross_fitted else advice
    if text := conformal.shortfall(count, basis, false_alarms, advice):
        messages.warning(text)
    if text := raised_by(table, false_alarms):
        messages.warning(text)
    small = [row for row in calibration.table(false_alarms) if not row["guaranteed"]]
    if small and calibration.kinds is not None:
        kinds = ", ".join(f"{row['kind']} ({row['normals']}: {100 * row['reachable']:.1f} %)" for row in small[:6])
        more = f" and {len(small) - 6} more" if len(small) > 6 else ""
        messages.note(
            f"too small to promise {100 * false_alarms:g} %, so these kinds use the scores of all: {kinds}{more}"
        )

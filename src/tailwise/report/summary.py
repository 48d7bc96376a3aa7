"""What a fit has come to, for the person who must decide with it, as a plain dict.

`summarise` computes everything that is shown, section by section; `report_page` only lays it out. No number in a
summary is NaN or infinite: what cannot be computed is None.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from ..calibration import score_maps
from ..core.detector import Detector
from ..core.problem import Problem, Source
from ..runs.plain_json import plain
from ..runs.scorer import Run
from ..training.loop import Outcome
from .contents import Tables, made_from
from .data_checks import of_problem, test_copies, unlabelled
from .decision import sentence
from .gallery import of_run
from .pictures import of_samples
from .sections.labelled_results import pixel_results


def summarise(tables: Tables) -> dict[str, Any]:
    """Everything that the report shows, as a plain dict of finite numbers, text and None."""
    tables = tables.finite()
    asked = {
        "settings": dict(tables.settings),
        "threshold": tables.threshold,
        "false_alarms": tables.false_alarms,
        "notes": list(tables.notes),
    }
    summary = asked | made_from(tables)
    return plain({"sentence": sentence(summary)} | summary)


def update_summary(
    opened: Run, settings: dict[str, Any], source: Any, problem: Problem, rows: pd.DataFrame, table: pd.DataFrame
) -> dict[str, Any]:
    """The summary of a run to which normals were added."""
    before, data = opened.report(), problem.train
    checks = of_problem(problem, rows, source)
    pictures, examples = of_samples(source, data, rows) if set(rows["sample"]) <= set(data.names) else ({}, {})
    tables = Tables(
        settings=settings,
        history=opened.history(),
        checks=settings["checks"],
        train=table,
        test=None,
        thumbnails={**before.get("thumbnails", {}), **pictures},
        examples={**before.get("examples", {}), **examples},
        threshold=settings["threshold"],
        false_alarms=settings["false_alarms"],
        data_checks=[
            *before.get("data_checks", []),
            *({**check, "name": f"among the added: {check['name']}"} for check in checks),
        ],
        notes=[
            *settings["notes"],
            f"{len(rows)} samples of {settings['updates'][-1]['source']} were added without fitting again; scores of "
            "earlier samples are those of the fit, which are not lower than they would be now",
        ],
    )
    return summarise(tables)


def adaptation_summary(
    settings: dict[str, Any], history: Any, source: Any, problem: Problem, table: pd.DataFrame
) -> dict[str, Any]:
    """The summary of a run that was adapted to other data, of which the table is."""
    pictures, examples = of_samples(source, problem.train, table)
    row = settings["adaptations"][-1]
    tables = Tables(
        settings=settings,
        history=history,
        checks=settings["checks"],
        train=table,
        test=None,
        thumbnails=pictures,
        examples=examples,
        threshold=settings["threshold"],
        false_alarms=settings["false_alarms"],
        data_checks=of_problem(problem, table, source),
        notes=[*settings["notes"], row["promise"]],
    )
    return summarise(tables)


def fit_summary(
    source: Source,
    settings: dict[str, Any],
    outcome: Outcome,
    table: pd.DataFrame,
    test: pd.DataFrame | None,
    problem: Problem,
    detector: Detector,
    smoothing: float,
    note: str,
) -> dict[str, Any]:
    """The summary of a finished fit."""
    pictures, examples = of_samples(source, problem.train, table)
    scale, drawn, known = score_maps.Scale.of(settings), None, None
    data_checks = [*of_problem(problem, table, source), unlabelled(settings["unlabelled"])]
    equal, judged = test_copies(problem), problem.test
    copies = int(equal.sum())
    if scale is not None:
        drawn = of_run(detector, source, problem, table, test, settings["threshold"], scale, smoothing)
    if judged is not None and 0 < copies < len(equal):
        judged = judged.take(np.flatnonzero(~equal))
        test = None if test is None else test[~equal].reset_index(drop=True)
    if scale is not None and judged is not None:
        known = score_maps.gather_known(detector, judged, smoothing)
    tables = Tables(
        settings=settings,
        history=outcome.history,
        checks=settings["checks"],
        train=table,
        test=test,
        thumbnails=pictures,
        examples=examples,
        pixels=None if known is None or scale is None else pixel_results(*known, scale.threshold),
        copies=copies,
        gallery=drawn,
        data_checks=data_checks,
        threshold=settings["threshold"],
        false_alarms=settings["false_alarms"],
        notes=[*settings["notes"], *([note] if note else [])],
    )
    return summarise(tables)

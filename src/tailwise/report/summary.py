"""What a fit has come to, for the person who must decide with it: a plain dict first, then a page or Markdown.

`summarise` computes everything that is shown; the writers only lay it out. No number in a summary is NaN or infinite:
what cannot be computed is None.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd

from ..calibration import score_maps
from ..core.detector import Detector
from ..core.problem import Problem, Source
from ..runs.store import Run
from ..runs.table import calibrating, found_cluster, rejected, with_finite_scores
from ..training.loop import Outcome
from . import statistics
from .data_checks import of_problem
from .decision import basis, gate, sentence, threshold_rows
from .gallery import of_run
from .numbers import counted, number
from .page import figure, page, plain, text, within_budget
from .pictures import of_samples
from .statistics import samples_to_show

# What summaries of earlier versions lack.
_ABSENT: dict[str, Any] = {"thresholds": [], "data_checks": [], "weighed": {"up": [], "down": []}, "decision": None}
_ABSENT |= {"basis": "held-out normals", "own": None, "gate": None}
# The threshold of all, or the kinds' own: see `decisions.threshold_rows`.
_OWN = ("threshold", "lowest", "highest")


def summarise(
    *,
    settings: Mapping[str, Any],
    history: Sequence[Mapping[str, Any]],
    checks: Sequence[Mapping[str, Any]],
    train: pd.DataFrame,
    test: pd.DataFrame | None,
    thumbnails: Mapping[str, str],
    threshold: float,
    false_alarms: float,
    notes: Sequence[str] = (),
    examples: Mapping[str, str] | None = None,
    pixels: Mapping[str, Any] | None = None,
    gallery: Mapping[str, Any] | None = None,
    data_checks: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """Everything that the report shows, as a plain dict of finite numbers, text and None.

    Args:
        settings: how the run was made; `samples` names what is scored, `weighting` is its spelling ("" is uniform).
        history: a row an epoch with `epoch`, `loss`, `score_mean`, `effective_sample_share`, `seconds`.
        checks: `name`, `ok`, `value` and `message` of each self-check.
        train: `sample`, `score`, `trained_score` (of the detector alone), `first_score` (before any weighing),
            `weight`, `held_out`, `cluster` (-1 is none) and, where kinds are known, `group`.
        test: `sample`, `score`, `label` (True is an anomaly, missing is unknown) and, where kinds are known, `group`.
        thumbnails: data URI of a picture by sample name; `samples_to_show` lists those that are used.
        threshold: samples that score above it are rejected.
        false_alarms: the share of normals that the threshold was meant to reject.
        examples: a line of text by sample name, for samples without a picture.
        pixels: what `findings.pixel_results` says of the test samples' maps.
        gallery: what `gallery.of_run` has drawn.
        data_checks: what `data_checks.of_problem` says of the data.
    """
    train, dropped = with_finite_scores(train)
    judged = None if test is None else with_finite_scores(test)[0]
    used = samples_to_show(train)
    rows = threshold_rows(train, judged, threshold, false_alarms)
    pictured = set(thumbnails)
    texts = examples or {}
    summary = {
        "settings": dict(settings),
        "threshold": threshold,
        "false_alarms": false_alarms,
        "notes": [*notes, *([f"{dropped} samples have no finite score and are left out"] if dropped else [])],
        "checks": [dict(check) for check in checks],
        "data_checks": [dict(check) for check in data_checks],
        "thresholds": rows,
        "basis": basis(train),
        "own": next({name: row[name] for name in _OWN} for row in rows if row["chosen"]),
        "rejected": rejected(train, threshold),
        "held_out": rejected(calibrating(train), threshold),
        "scores": statistics.score_densities(train, str(settings.get("weighting") or "")),
        "decision": statistics.decision_histogram(train, judged, threshold),
        "weights": statistics.weight_curve(train),
        "weighed": statistics.weighed(train),
        "clusters": statistics.kinds(train, found_cluster(train), threshold, pictured),
        "groups": statistics.kinds(train, train["group"], threshold, pictured) if "group" in train else [],
        "top": statistics.highest_rows(train, threshold),
        "test": None if judged is None else statistics.test_results(judged, threshold),
        "pixels": None if pixels is None else dict(pixels),
        "gallery": None if gallery is None else _hung(gallery),
        "history": [dict(row) for row in history],
        "thumbnails": within_budget(thumbnails, used),
        "examples": {name: texts[name] for name in used if name in texts},
    }
    return plain({"sentence": sentence(summary), "gate": gate(summary)} | summary)


def to_html(summary: Mapping[str, Any]) -> str:
    """The report as one page that loads nothing and runs no script."""
    summary = {**_ABSENT, **summary}
    return page("report.html", {**summary, "figures": _figures(summary)})


def to_markdown(summary: Mapping[str, Any]) -> str:
    """The report as Markdown, without figures and pictures."""
    return text("report.md", {**_ABSENT, **summary})


def _figures(summary: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """SVG and text alternative of each figure that there is something to draw for."""
    from . import plots

    scores, weights, threshold = summary["scores"], summary["weights"], summary["threshold"]
    # Local scores, which the threshold is of, are on another scale than the detector's own.
    by_kind = summary["own"] is not None and summary["own"]["threshold"] is None
    on_own_scale = None if summary["settings"].get("scores", "own") != "own" or by_kind else threshold
    figures = {}

    def add(name: str, alternative: str, draw: Callable[[Any], Any]) -> None:
        figures[name] = figure(draw, name, alternative)

    if decision := summary["decision"]:
        shares = "; ".join(f"{group['name']}: {counted(group['above'])} above it" for group in decision["groups"])
        said = "less the threshold of each kind" if by_kind else f"with the threshold {number(threshold)}"
        limit = 0.0 if by_kind else threshold
        draw = functools.partial(plots.decision_histogram, decision, threshold=limit, own=by_kind)
        add("decision", f"Histogram of scores {said}. {shares}.", draw)
    for name, when in (("before", "before weighing"), ("after", "after training")):
        if curves := scores[name]:
            skewness = number(scores[f"skewness_{name}"])
            cut = on_own_scale if name == "after" else None
            draw = functools.partial(plots.score_density, curves, log=scores["log"], threshold=cut)
            add(name, f"Density of training scores {when}, with the target. Skewness {skewness}.", draw)
    if weights["weight"] and not weights["uniform"]:
        alternative = f"Weight against score: from {number(weights['smallest'])} to {number(weights['largest'])}."
        log = scores["log"] and min(weights["score"]) > 0
        points = weights["score"], weights["weight"]
        add("weights", alternative, functools.partial(plots.weight_curve, *points, log=log, threshold=on_own_scale))
    # Every sample counts once: a weighted loss steps up where weights begin to favour high scores.
    for name, label in (("score_mean", "mean score"), ("effective_sample_share", "effective sample share")):
        rows = [row for row in summary["history"] if row.get(name) is not None and row.get("epoch") is not None]
        if len(rows) > 1:
            values = [row[name] for row in rows]
            alternative = f"{label} by epoch: from {number(values[0])} to {number(values[-1])} in {len(rows)} epochs."
            draw = functools.partial(plots.training_curve, [row["epoch"] for row in rows], values, name=label)
            add(name, alternative.capitalize(), draw)
    return figures


def _hung(gallery: Mapping[str, Any]) -> dict[str, Any]:
    """The gallery with as many pictures as the page has room for."""
    listed = [sample for section in gallery["sections"] for sample in section["samples"]]
    pictures = {str(i): sample["picture"] for i, sample in enumerate(listed)}
    pictures |= {f"training {name}": picture for name, picture in gallery["training"].items()}
    kept = within_budget(pictures, pictures)
    number = iter(range(len(listed)))
    sections = [
        {**section, "samples": [sample for sample in section["samples"] if str(next(number)) in kept]}
        for section in gallery["sections"]
    ]
    training = {name: picture for name, picture in gallery["training"].items() if f"training {name}" in kept}
    return {**gallery, "sections": [section for section in sections if section["samples"]], "training": training}


def update_summary(
    opened: Run, settings: dict[str, Any], source: Any, problem: Problem, rows: pd.DataFrame, table: pd.DataFrame
) -> dict[str, Any]:
    """The summary of a run to which normals were added."""
    before, data = opened.report(), problem.train
    checks = of_problem(problem, rows, source)
    pictures, examples = of_samples(source, data, rows) if set(rows["sample"]) <= set(data.names) else ({}, {})
    return summarise(
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
    if scale is not None:
        drawn = of_run(detector, source, problem, table, test, settings["threshold"], scale, smoothing)
        known = None if problem.test is None else score_maps.gather_known(detector, problem.test, smoothing)
    return summarise(
        settings=settings,
        history=outcome.history,
        checks=settings["checks"],
        train=table,
        test=test,
        thumbnails=pictures,
        examples=examples,
        pixels=None if known is None or scale is None else statistics.pixel_results(*known, scale.threshold),
        gallery=drawn,
        data_checks=of_problem(problem, table, source),
        threshold=settings["threshold"],
        false_alarms=settings["false_alarms"],
        notes=[*settings["notes"], *([note] if note else [])],
    )

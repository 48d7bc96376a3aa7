"""What a run shows of itself where it is the value of a notebook's cell: a sentence, its checks, its scores."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..calibration import conformal
from ..errors import listed
from .files import REPORT_PAGE
from .settings import Settings
from .table import calibrating, cross_fitted, deciding_scores, far_out, high_scores, of_table

_WIDTH, _HEIGHT, _BARS = 360, 90, 48
_COLOUR, _LIMIT = "#4878a8", "#c81e14"


def sentence(settings: Settings) -> str:
    """Counts, threshold and what it promises, and checks, in a line."""
    share = f"{100 * settings.false_alarms:g} % false alarms"
    own = " in each kind" if settings.has_own_thresholds else ""
    failed = settings.failed_checks
    checks = f"failed checks: {', '.join(failed)}" if failed else f"{len(settings.checks)} checks passed"
    return (
        f"{settings.detector} fitted on {settings.n_train} {settings.samples}, {settings.n_held_out} held out; "
        f"threshold {settings.threshold:.4g} for {share}{own}; {checks}"
    )


def outcome(path: str, settings: Settings, table: pd.DataFrame) -> dict[str, Any]:
    """What a fit came to: what trained, the detector, the threshold with what it promises, what to look at, and what to
    do next; plain numbers, text and lists."""
    calibration = of_table(table)
    count = len(calibration.scores)
    crossed = cross_fitted(table)
    low, high = conformal.range_of_false_alarms(count, settings.false_alarms, crossed=crossed)
    suspect = table["suspect"].astype(bool) if "suspect" in table else pd.Series(False, index=table.index)
    raised = far_out(table, settings.false_alarms)
    above = high_scores(table[~suspect])["sample"].astype(str)
    return {
        "run": path,
        "trained": settings.n_train,
        "held_out": settings.n_held_out,
        "dropped": int(settings.rounds[-1].get("dropped", 0)) if settings.rounds else 0,
        "adapted": settings.adaptations[-1]["adapted"] if settings.adaptations else None,
        "clusters": int(table["cluster"][table["cluster"] >= 0].nunique()),
        "suspects": table.loc[suspect, "sample"].astype(str).tolist(),
        "samples": settings.samples,
        "detector": settings.detector,
        "detector_reason": settings.detector_reason,
        "scores": settings.scores,
        "weighting": settings.weighting,
        "balanced": settings.balance,
        "threshold": settings.threshold,
        "false_alarms": settings.false_alarms,
        "promised": conformal.promised(count, settings.false_alarms),
        "range": [low, high],
        "calibrated_on": count,
        "cross_fitted": crossed,
        "far_above": above[~above.isin(raised["suspects"])].tolist(),
        "sets_the_threshold": raised["suspects"],
        "threshold_without_these": raised["without"],
        "failed_checks": list(settings.failed_checks),
        "unlabelled": settings.unlabelled,
        "report": None if settings.no_report else str(Path(path) / REPORT_PAGE),
        "next": f"tailwise score {shlex.quote(path)} NEW_DATA",
    }


def lines(came: Mapping[str, Any]) -> list[str]:
    """`outcome` in five lines."""
    kinds = f", {came['clusters']} clusters found" if came["clusters"] > 1 else ""
    left_out = f", {len(came['suspects'])} suspects left out" if came["suspects"] else ""
    why = f" (auto: {came['detector_reason']})" if came["detector_reason"] else ""
    read = "own scores" if came["scores"] == "own" else "local scores"
    weighed = " and ".join(["weighted"] * bool(came["weighting"]) + ["balanced over groups"] * came["balanced"])
    low, high = came["range"]
    basis = f"{came['calibrated_on']} {'cross-fitted' if came['cross_fitted'] else 'held-out'} {came['samples']}"
    look = [f"suspects {listed(came['suspects'], 3)}"] if came["suspects"] else []
    if came["sets_the_threshold"]:
        look.append(f"{listed(came['sets_the_threshold'], 3)}, far above the rest of what sets the threshold")
    if came["far_above"]:
        look.append(f"{listed(came['far_above'], 3)}, which score far above the rest")
    look += ["the data looks unlabelled"] if came["unlabelled"] else []
    look += [f"failed check: {name}" for name in came["failed_checks"]]
    promise = f"at most {100 * came['promised']:.3g} % of new normals in the mean"
    for_whom = f"for {promise} ({100 * low:.2g} to {100 * high:.2g} % at 95 %; {basis})"
    if came["adapted"] is None and not (came["held_out"] or came["cross_fitted"]):
        for_whom = (
            f"too low: it comes from the {came['calibrated_on']} {came['samples']} that trained, and promises nothing"
        )
    did = f"{'adapted to' if came['adapted'] else 'trained on'} {came['trained']} {came['samples']}"
    did += f", {came['dropped']} of them dropped by the refinement" if came["dropped"] else ""
    did = f"{did}, {came['held_out']} held out{left_out}{kinds}"
    if came["adapted"] is False:
        everything = came["trained"] + came["held_out"]
        did = f"detector unchanged; only the threshold is new, from all {everything} {came['samples']}{kinds}"
    return [
        did,
        f"detector: {came['detector']}{why}, {read}, {weighed or 'unweighted'}",
        f"threshold: {came['threshold']:.4g}, {for_whom}",
        f"look at: {'; '.join(look) or 'no single sample stands out'}",
        f"report: {came['report'] or 'none drawn, tailwise report RUN draws it'}; next: {came['next']}",
    ]


def html(path: str, settings: Settings, table: pd.DataFrame) -> str:
    """The sentence, a row for each threshold, and a histogram of the scores that set them, as HTML without scripts."""
    rows = "".join(
        f"<tr><td>{escape(str(row['kind']))}</td><td>{row['normals']}</td><td>{row['threshold']:.4g}</td>"
        f"<td>{100 * row['promised']:.3g} %</td></tr>"
        for row in settings.thresholds
    )
    head = "<tr><th>kind</th><th>normals</th><th>threshold</th><th>promised false alarms</th></tr>"
    unseen = calibrating(table)
    scores = deciding_scores(unseen if len(unseen) else table).to_numpy(dtype=float)
    drawn = histogram(scores[np.isfinite(scores)], settings.threshold)
    return f"<p><b>{escape(path)}</b>: {escape(sentence(settings))}</p>{drawn}<table>{head}{rows}</table>"


def histogram(scores: Sequence[float] | np.ndarray, threshold: float) -> str:
    """Scores [n] as bars with a line at the threshold, if it is finite: inline SVG of a few hundred bytes."""
    shown = [np.min(scores), np.max(scores), *([threshold] if np.isfinite(threshold) else [])]
    low, high = min(shown), max(shown)
    width = (high - low) or 1.0
    counts, _ = np.histogram(scores, bins=_BARS, range=(low, low + width))
    step, most = _WIDTH / _BARS, counts.max()
    bars = "".join(
        f'<rect x="{place * step:.1f}" y="{_HEIGHT * (1 - count / most):.1f}" width="{step - 1:.1f}" '
        f'height="{_HEIGHT * count / most:.1f}"/>'
        for place, count in enumerate(counts)
        if count
    )
    at = (threshold - low) / width * _WIDTH
    line = f'<line x1="{at:.1f}" x2="{at:.1f}" y1="0" y2="{_HEIGHT}" stroke="{_LIMIT}" stroke-width="2"/>'
    line = line if np.isfinite(at) else ""
    said = f"{len(scores)} scores from {np.min(scores):.4g} to {np.max(scores):.4g}, threshold {threshold:.4g}"
    size = f'width="{_WIDTH}" height="{_HEIGHT}" viewBox="0 0 {_WIDTH} {_HEIGHT}"'
    return f'<svg role="img" aria-label="{said}" {size}><g fill="{_COLOUR}">{bars}</g>{line}</svg>'

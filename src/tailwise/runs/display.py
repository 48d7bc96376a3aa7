"""What a run shows of itself where it is the value of a notebook's cell: a sentence, its checks, its scores."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np
import pandas as pd

from .settings import Settings
from .table import calibrating, deciding_scores

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
    """Scores [n] as bars with a line at the threshold: inline SVG of a few hundred bytes."""
    low, high = min(np.min(scores), threshold), max(np.max(scores), threshold)
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
    said = f"{len(scores)} scores from {np.min(scores):.4g} to {np.max(scores):.4g}, threshold {threshold:.4g}"
    size = f'width="{_WIDTH}" height="{_HEIGHT}" viewBox="0 0 {_WIDTH} {_HEIGHT}"'
    return f'<svg role="img" aria-label="{said}" {size}><g fill="{_COLOUR}">{bars}</g>{line}</svg>'

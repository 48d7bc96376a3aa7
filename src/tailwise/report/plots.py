"""Drawings for reports and notebooks: each takes data and matplotlib axes, and returns the axes.

`svg` makes a drawing of its own without pyplot, for inlining into a page: text and frame take the page's colour, the
rest are mid-tones that can be read on white and on black.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator, PercentFormatter

BLUE, ORANGE, RED, GREY = "#3f83c5", "#cf7a2c", "#d2504b", "#858b94"
# Stands for the page's own text colour, which an SVG can name and matplotlib cannot.
_INK = "#010203"
_DARK = "#333333"
_SIZE = (4.7, 2.7)  # inches
_FONT = 8.5  # points


def score_density(curves: Mapping[str, Any], axes: Axes, *, log: bool, threshold: float | None = None) -> Axes:
    """Densities of scores over a common grid.

    `curves` holds `x` [m] (scores, not their logarithms), `scores` [m] and optionally `weighted` [m] and `target` [m].
    With `log` the axis is logarithmic and densities are per unit of the natural logarithm.
    """
    x = np.asarray(curves["x"], dtype=float)
    axes.fill_between(x, curves["scores"], color=BLUE, alpha=0.28, linewidth=0)
    axes.plot(x, curves["scores"], color=BLUE, linewidth=1.4, label="scores")
    if curves.get("weighted") is not None:
        axes.plot(x, curves["weighted"], color=ORANGE, linewidth=1.4, label="scores, weighted")
    if curves.get("target") is not None:
        axes.plot(x, curves["target"], color=GREY, linewidth=1.4, linestyle=(0, (4, 2)), label="target")
    if threshold is not None and x[0] < threshold < x[-1]:
        axes.axvline(threshold, color=RED, linewidth=1.1, label="threshold")
    _score_axis(axes, float(x[0]), float(x[-1]), log)
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_locator(NullLocator())
    axes.set_ylabel("density")
    return axes


def weight_curve(
    scores: Sequence[float], weights: Sequence[float], axes: Axes, *, log: bool, threshold: float | None = None
) -> Axes:
    """Each sample's weight [n] against its score [n]; a weight of 1 is marked."""
    axes.axhline(1, color=GREY, linewidth=1, linestyle=(0, (4, 2)), label="uniform")
    axes.scatter(scores, weights, s=7, color=ORANGE, alpha=0.55, linewidths=0, label="samples")
    low, high = float(np.min(scores)), float(np.max(scores))
    if threshold is not None and low < threshold < high:
        axes.axvline(threshold, color=RED, linewidth=1.1, label="threshold")
    _score_axis(axes, low, high, log)
    axes.set_ylim(0, max(1.25, 1.08 * float(np.max(weights))))
    axes.set_ylabel("weight")
    return axes


def spectrum(x: Sequence[float], sample: Sequence[float], usual: Sequence[float], axes: Axes, *, name: str) -> Axes:
    """A spectrum [bands] with the usual one, along `x`, which `name` says what it is."""
    axes.plot(x, usual, color=GREY, linewidth=1.4, linestyle=(0, (4, 2)), label="nearest normals")
    axes.plot(x, sample, color=BLUE, linewidth=1.4, label="this sample")
    axes.set_xlabel(name)
    axes.set_ylabel("value")
    return axes


def window_drivers(edges: Sequence[tuple[float, float]], values: Sequence[float], axes: Axes, *, name: str) -> Axes:
    """What each window of bands, from edge to edge along `name`, adds to a score (upwards) or takes from it."""
    left, right = np.array(edges, dtype=float).T
    colours = [ORANGE if value > 0 else BLUE for value in values]
    axes.bar(left, values, right - left, align="edge", color=colours, linewidth=0)
    axes.axhline(0, color=GREY, linewidth=0.8)
    axes.set_xlabel(name)
    axes.set_ylabel("contribution to the score")
    return axes


def training_curve(epochs: Sequence[float], values: Sequence[float | None], axes: Axes, *, name: str) -> Axes:
    """A value for each epoch; epochs without one leave a gap. A `name` that ends in "share" runs from 0 to 1."""
    marker = "o" if len(epochs) <= 40 else ""
    axes.plot(epochs, np.array(values, dtype=float), color=BLUE, linewidth=1.4, marker=marker, markersize=2.2)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.set_xlabel("epoch")
    axes.set_ylabel(name)
    if name.endswith("share"):
        axes.set_ylim(0, 1.04)
        axes.yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    else:
        axes.set_ylim(bottom=0 if np.nanmin(np.array(values, dtype=float)) >= 0 else None)
    return axes


def kinds_histogram(scores: np.ndarray, kinds: np.ndarray, axes: Axes, *, threshold: float) -> Axes:
    """Share of each kind's samples by score [n], and the kind's share above the threshold.

    The axis is logarithmic where no score is negative.
    """
    log = bool(scores.min() > 0)
    edges = (np.geomspace if log else np.linspace)(scores.min(), scores.max(), 41)
    for kind, colour in zip(np.unique(kinds), (RED, BLUE, ORANGE, GREY), strict=False):
        own = scores[kinds == kind]
        share = np.histogram(own, edges)[0] / len(own)
        label = f"{kind}: {100 * (own > threshold).mean():.0f} % above"
        axes.stairs(share, edges, color=colour, fill=True, alpha=0.25)
        axes.stairs(share, edges, color=colour, linewidth=1.4, label=label)
    axes.axvline(threshold, color=_DARK, linewidth=1.1, linestyle=(0, (4, 2)))
    _score_axis(axes, float(edges[0]), float(edges[-1]), log=log)
    axes.yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    axes.set_ylabel("share of the kind")
    return axes


def decision_histogram(found: Mapping[str, Any], axes: Axes, *, threshold: float, own: bool = False) -> Axes:
    """Shares of groups of samples by score, as `thresholds.decision_histogram` has them, and the threshold.

    With `own` the scores are less the threshold of their kind.
    """
    edges = np.asarray(found["edges"], dtype=float)
    for group, colour in zip(found["groups"], (BLUE, ORANGE), strict=False):
        axes.stairs(group["shares"], edges, color=colour, fill=True, alpha=0.28)
        axes.stairs(group["shares"], edges, color=colour, linewidth=1.4, label=group["name"])
    if edges[0] < threshold < edges[-1]:
        axes.axvline(threshold, color=RED, linewidth=1.1, label="threshold")
    _score_axis(axes, float(edges[0]), float(edges[-1]), log=found["log"])
    if own:
        axes.set_xlabel("score minus the threshold of its kind")
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(PercentFormatter(1, symbol=" %", decimals=0))
    axes.set_ylabel("share of the samples")
    return axes


def trade_offs(runs: Sequence[Mapping[str, Any]], axes: Axes) -> Axes:
    """Share of anomalies caught against share of normals rejected, a line a run, its own threshold marked.

    Each of `runs` has a `name`, `rejected` [m], `caught` [m] and `at`, the two shares at its threshold.
    """
    least = min((share for run in runs for share in run["rejected"] if share > 0), default=0.01)
    styles = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)))
    for number, run in enumerate(runs):
        colour = (BLUE, ORANGE, GREY, RED)[number % 4]
        axes.plot(
            np.maximum(run["rejected"], least), run["caught"],
            color=colour, linewidth=1.5, linestyle=styles[number % 4], label=_plain(run["name"]),
        )  # fmt: skip
        axes.plot(max(run["at"][0], least), run["at"][1], "o", color=colour, markersize=5)
    axes.set_xscale("log")
    axes.set_xlim(least, 1)
    axes.set_ylim(0, 1.02)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_locator(FixedLocator([share for share in (0.001, 0.01, 0.05, 0.2, 1) if share >= least]))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:.3g} %"))
    axes.set_xlabel("normals rejected (logarithmic)")
    axes.set_ylabel("anomalies caught")
    return axes


def evidence(samples: Sequence[int], lines: Mapping[str, Sequence[float]], axes: Axes) -> Axes:
    """How the evidence of tests grew over samples [m]: logarithms [m], 0 being enough for a call, by name."""
    styles = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)))
    for number, (name, values) in enumerate(lines.items()):
        colour = (BLUE, ORANGE, GREY, RED)[number % 4]
        powers = np.asarray(values, dtype=float) / np.log(10)
        axes.plot(samples, powers, color=colour, linewidth=1.4, linestyle=styles[number % 4], label=_plain(name))
    axes.axhline(0, color=RED, linewidth=1.1, label="called")
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.set_xlabel("samples")
    axes.set_ylabel("evidence, powers of ten")
    return axes


def picture(
    draws: Mapping[str, Callable[[Axes], Axes]], size: tuple[float, float] = (9.2, 3.1), share_y: bool = True
) -> bytes:
    """An SVG file of titled drawings side by side, on white, for pages that are not ours."""
    figure = Figure(figsize=size, layout="constrained")
    places = figure.subplots(1, len(draws), sharey=share_y, squeeze=False)[0]
    for axes, (title, draw) in zip(places, draws.items(), strict=True):
        draw(axes).set_title(title, fontsize=_FONT + 1.5)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=_FONT)
        axes.xaxis.label.set_size(_FONT)
        axes.yaxis.label.set_size(_FONT)
        axes.legend(frameon=False, fontsize=_FONT)
    target = io.BytesIO()
    FigureCanvasSVG(figure).print_svg(target, metadata={"Date": None})
    return _with_plain_ids(target.getvalue().decode(), "picture").encode()


def svg(draw: Callable[[Axes], Axes], name: str, size: tuple[float, float] = _SIZE) -> str:
    """The SVG element that `draw` makes on fresh axes; `name`, one word, keeps its ids apart from others on a page."""
    figure = Figure(figsize=size, layout="constrained")
    figure.patch.set_alpha(0)
    axes = draw(_calm(figure.add_subplot()))
    axes.set_facecolor("none")
    for item in [axes.xaxis.label, axes.yaxis.label, *axes.get_xticklabels(), *axes.get_yticklabels()]:
        item.set_fontsize(_FONT)
        item.set_color(_INK)
    if axes.get_legend_handles_labels()[1]:
        axes.legend(frameon=False, fontsize=_FONT, labelcolor=_INK, handlelength=1.4, borderaxespad=0.2)
    target = io.BytesIO()
    FigureCanvasSVG(figure).print_svg(target, metadata={"Date": None})
    return _for_page(target.getvalue().decode(), name)


def _plain(name: str) -> str:
    """A name as matplotlib draws it: no formula, and not left out of the legend for how it begins."""
    return re.sub("^_", "\N{ZERO WIDTH SPACE}_", name.replace("$", r"\$"))


def _calm(axes: Axes) -> Axes:
    axes.spines[["top", "right"]].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(GREY)
    axes.tick_params(colors=GREY, labelcolor=_INK, labelsize=_FONT, length=3)
    return axes


def _score_axis(axes: Axes, low: float, high: float, log: bool) -> None:
    axes.set_xlabel("score (logarithmic)" if log else "score")
    if not low < high:
        return
    axes.set_xlim(low, high)
    if log and low > 0:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(FixedLocator(_log_ticks(low, high)))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _tick(value)))
    else:
        axes.xaxis.set_major_locator(MaxNLocator(6))


def _tick(value: float) -> str:
    """A round value in full as far as it can be read at a glance."""
    return f"{value:.0f}" if 100 <= value < 1e5 else f"{value:.3g}".replace("e-0", "e-").replace("e+0", "e")


def _log_ticks(low: float, high: float) -> list[float]:
    """At most about six round values between `low` and `high`."""
    if high < 4 * low:
        return [float(x) for x in MaxNLocator(5).tick_values(low, high) if low <= x <= high]
    decades = np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)
    for steps in ((1, 2, 5), (1, 3), (1,)):
        ticks = [float(f"{step * 10.0**decade:.1g}") for decade in decades for step in steps]
        ticks = [x for x in ticks if low <= x <= high]
        if len(ticks) <= 6:
            return ticks
    return ticks[:: len(ticks) // 6 + 1]


def _for_page(text: str, name: str) -> str:
    """Without prolog, metadata and namespaces, with ids that are unique on the page."""
    text = text[text.index("<svg") :].strip()
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r' xmlns(:\w+)?="[^"]*"', "", text).replace("xlink:href", "href")
    text = _with_plain_ids(text, name)
    width_and_height = r'<svg width="[^"]*" height="[^"]*"'
    text = re.sub(width_and_height, '<svg aria-hidden="true" focusable="false"', text, count=1)
    return re.sub(r"\n\s*", "\n", text.replace(_INK, "currentColor"))


def _with_plain_ids(text: str, name: str) -> str:
    """Ids numbered from 0 in place of matplotlib's, which differ from run to run."""
    ids = {old: f"{name}-{number}" for number, old in enumerate(dict.fromkeys(re.findall(r'\bid="([^"]+)"', text)))}
    text = re.sub(r'\bid="([^"]+)"', lambda found: f'id="{ids[found[1]]}"', text)
    return re.sub(r"#([\w.-]+)(?=[\")])", lambda found: f"#{ids.get(found[1], found[1])}", text)

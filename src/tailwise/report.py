"""What a fit has come to, for the person who must decide with it: a plain dict first, then a page or Markdown.

`summarise` computes everything that is shown; the writers only lay it out. No number in a summary is NaN or infinite:
what cannot be computed is None.
"""

from __future__ import annotations

import functools
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jinja2
import numpy as np
import pandas as pd
from markupsafe import Markup, escape

from . import decisions, findings
from .wording import change, counted, fraction, number, percent, whole

# Inlined pictures stop here, so that the page opens at once.
_PICTURE_BYTES = 2_500_000
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
        settings: how the run was made; `units` names what is scored, `weighting` is its spelling ("" is uniform).
        history: a row an epoch with `epoch`, `loss`, `score_mean`, `effective_sample_share`, `seconds`.
        checks: `name`, `ok`, `value` and `message` of each self-check.
        train: `unit`, `score`, `trained_score` (of the detector alone), `first_score` (before any weighing), `weight`,
            `held_out`, `mode` (-1 is none) and, where kinds are known, `group`.
        test: `unit`, `score`, `label` (True is an anomaly, missing is unknown) and, where kinds are known, `group`.
        thumbnails: data URI of a picture by unit name; `units_to_show` lists those that are used.
        threshold: units that score above it are rejected.
        false_alarms: the share of normals that the threshold was meant to reject.
        examples: a line of text by unit name, for units without a picture.
        pixels: what `findings.pixel_results` says of the test units' maps.
        gallery: what `gallery.of_run` has drawn.
        data_checks: what `data_checks.of_problem` says of the data.
    """
    train, dropped = findings.with_finite_scores(train)
    judged = None if test is None else findings.with_finite_scores(test)[0]
    used = units_to_show(train)
    rows = decisions.threshold_rows(train, judged, threshold, false_alarms)
    pictured = set(thumbnails)
    texts = examples or {}
    summary = {
        "settings": dict(settings),
        "threshold": threshold,
        "false_alarms": false_alarms,
        "notes": [*notes, *([f"{dropped} units have no finite score and are left out"] if dropped else [])],
        "checks": [dict(check) for check in checks],
        "data_checks": [dict(check) for check in data_checks],
        "thresholds": rows,
        "basis": decisions.basis(train),
        "own": next({name: row[name] for name in _OWN} for row in rows if row["chosen"]),
        "rejected": findings.rejected(train, threshold),
        "held_out": findings.rejected(findings.calibrating(train), threshold),
        "scores": findings.score_densities(train, str(settings.get("weighting") or "")),
        "decision": findings.decision_histogram(train, judged, threshold),
        "weights": findings.weight_curve(train),
        "weighed": findings.weighed(train),
        "modes": findings.kinds(train, findings.found_kind(train), threshold, pictured),
        "groups": findings.kinds(train, train["group"], threshold, pictured) if "group" in train else [],
        "top": findings.highest_rows(train, threshold),
        "test": None if judged is None else findings.test_results(judged, threshold),
        "pixels": None if pixels is None else dict(pixels),
        "gallery": None if gallery is None else _hung(gallery),
        "history": [dict(row) for row in history],
        "thumbnails": within_budget(thumbnails, used),
        "examples": {name: texts[name] for name in used if name in texts},
    }
    return plain({"sentence": decisions.sentence(summary), "gate": decisions.gate(summary)} | summary)


def units_to_show(train: pd.DataFrame) -> list[str]:
    """Names of the training units whose picture or text the report shows: the highest-scored, those weighed up and
    down most, and some of each kind."""
    train = findings.with_finite_scores(train)[0]
    shown = findings.highest(train)["unit"].tolist()
    shown += [row["unit"] for rows in findings.weighed(train).values() for row in rows]
    for kind in [findings.found_kind(train), *([train["group"]] if "group" in train else [])]:
        for name in findings.by_size(kind)[: findings.KINDS_SHOWN]:
            shown += findings.typical(train[kind == name])
    return list(dict.fromkeys(shown))


def to_html(summary: Mapping[str, Any]) -> str:
    """The report as one page that loads nothing and runs no script."""
    summary = {**_ABSENT, **summary}
    return page("report.html", {**summary, "figures": _figures(summary)})


def page(template: str, content: Mapping[str, Any]) -> str:
    """A page of the report's looks from another template."""
    return _templates().get_template(template).render(content)


def text(template: str, content: Mapping[str, Any]) -> str:
    """Markdown from another template."""
    return _templates().get_template(template).render(content).strip() + "\n"


def figure(draw: Callable[[Any], Any], name: str, alternative: str) -> dict[str, Any]:
    """A drawing for the macro `figure` of a page: SVG, and what it says in words."""
    from . import plots

    return {"svg": Markup(plots.svg(draw, name)), "alternative": alternative}


def to_markdown(summary: Mapping[str, Any]) -> str:
    """The report as Markdown, without figures and pictures."""
    return text("report.md", {**_ABSENT, **summary})


def to_json(summary: Mapping[str, Any]) -> str:
    """The summary as JSON text."""
    return json.dumps(summary, indent=1, ensure_ascii=False, allow_nan=False)


def _figures(summary: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """SVG and text alternative of each figure that there is something to draw for."""
    from . import plots

    scores, weights, threshold = summary["scores"], summary["weights"], summary["threshold"]
    # Mode-fair scores, which the threshold is of, are on another scale than the detector's own.
    by_kind = summary["own"] is not None and summary["own"]["threshold"] is None
    on_own_scale = None if summary["settings"].get("alignment") or by_kind else threshold
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
    # Every unit counts once: a weighted loss steps up where weights begin to favour high scores.
    for name, label in (("score_mean", "mean score"), ("effective_sample_share", "effective sample share")):
        rows = [row for row in summary["history"] if row.get(name) is not None and row.get("epoch") is not None]
        if len(rows) > 1:
            values = [row[name] for row in rows]
            alternative = f"{label} by epoch: from {number(values[0])} to {number(values[-1])} in {len(rows)} epochs."
            draw = functools.partial(plots.training_curve, [row["epoch"] for row in rows], values, name=label)
            add(name, alternative.capitalize(), draw)
    return figures


@functools.cache
def _templates() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("tailwise"),
        autoescape=jinja2.select_autoescape(["html"]),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {f.__name__: f for f in (number, fraction, percent, counted, whole, change)} | {
        "cell": _cell,
        "breakable": _breakable,
    }
    return environment


def _breakable(name: str) -> Markup:
    """A name that is cut after its folders, rather than anywhere, where it is too wide."""
    return escape(name).replace("/", Markup("/<wbr>"))


def _cell(text: Any) -> str:
    """Text for Markdown: nothing in it is markup, ends a table cell or starts a line."""
    return re.sub(r"([\\`*_\[\]<>|#&!~$])", r"\\\1", " ".join(str(text).split()))


def _hung(gallery: Mapping[str, Any]) -> dict[str, Any]:
    """The gallery with as many pictures as the page has room for."""
    listed = [unit for section in gallery["sections"] for unit in section["units"]]
    pictures = {str(i): unit["picture"] for i, unit in enumerate(listed)}
    pictures |= {f"training {name}": picture for name, picture in gallery["training"].items()}
    kept = within_budget(pictures, pictures)
    number = iter(range(len(listed)))
    sections = [
        {**section, "units": [unit for unit in section["units"] if str(next(number)) in kept]}
        for section in gallery["sections"]
    ]
    training = {name: picture for name, picture in gallery["training"].items() if f"training {name}" in kept}
    return {**gallery, "sections": [section for section in sections if section["units"]], "training": training}


def within_budget(thumbnails: Mapping[str, str], used: Iterable[str]) -> dict[str, str]:
    """The pictures of these units that fit into a page which opens at once; only such as are inside it."""
    kept, size = {}, 0
    for name in used:
        picture = thumbnails.get(name, "")
        # Anything but inline data would make the page ask the network.
        if picture.startswith("data:image/") and size + len(picture) <= _PICTURE_BYTES:
            kept[name] = picture
            size += len(picture)
    return kept


def plain(value: Any) -> Any:
    """The value in types that JSON has, numbers that are not finite as None."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [plain(item) for item in value]
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, int | np.integer):
        return int(value)
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    return None if value is None or value is pd.NA else str(value)

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
from markupsafe import Markup

from . import findings

# Inlined pictures stop here, so that the page opens at once.
_PICTURE_BYTES = 2_500_000
_NO_BREAK = "\N{NO-BREAK SPACE}"
_NONE = "\N{EN DASH}"


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
    """
    train, dropped = findings.with_finite_scores(train)
    used = units_to_show(train)
    pictured = set(thumbnails)
    texts = examples or {}
    summary = {
        "settings": dict(settings),
        "threshold": threshold,
        "false_alarms": false_alarms,
        "notes": [*notes, *([f"{dropped} units have no finite score and are left out"] if dropped else [])],
        "checks": [dict(check) for check in checks],
        "rejected": findings.rejected(train, threshold),
        "held_out": findings.rejected(findings.calibrating(train), threshold),
        "scores": findings.score_densities(train, str(settings.get("weighting") or "")),
        "weights": findings.weight_curve(train),
        "modes": findings.kinds(train, findings.found_kind(train), threshold, pictured),
        "groups": findings.kinds(train, train["group"], threshold, pictured) if "group" in train else [],
        "top": findings.highest_rows(train, threshold),
        "test": None if test is None else findings.test_results(findings.with_finite_scores(test)[0], threshold),
        "pixels": None if pixels is None else dict(pixels),
        "gallery": None if gallery is None else _hung(gallery),
        "history": [dict(row) for row in history],
        "thumbnails": within_budget(thumbnails, used),
        "examples": {name: texts[name] for name in used if name in texts},
    }
    return _plain({"sentence": _sentence(summary)} | summary)


def units_to_show(train: pd.DataFrame) -> list[str]:
    """Names of the training units whose picture or text the report shows: the highest-scored, and some of each kind."""
    train = findings.with_finite_scores(train)[0]
    shown = findings.highest(train)["unit"].tolist()
    for kind in [findings.found_kind(train), *([train["group"]] if "group" in train else [])]:
        for name in findings.by_size(kind)[: findings.KINDS_SHOWN]:
            shown += findings.typical(train[kind == name])
    return list(dict.fromkeys(shown))


def to_html(summary: Mapping[str, Any]) -> str:
    """The report as one page that loads nothing and runs no script."""
    return _templates().get_template("report.html").render(summary, figures=_figures(summary))


def page(template: str, content: Mapping[str, Any]) -> str:
    """A page of the report's looks from another template."""
    return _templates().get_template(template).render(content)


def to_markdown(summary: Mapping[str, Any]) -> str:
    """The report as Markdown, without figures and pictures."""
    return _templates().get_template("report.md").render(summary).strip() + "\n"


def to_json(summary: Mapping[str, Any]) -> str:
    """The summary as JSON text."""
    return json.dumps(summary, indent=1, ensure_ascii=False, allow_nan=False)


def _sentence(summary: Mapping[str, Any]) -> str:
    """The decision in plain words: what the threshold promised, what it gave, and who pays for it."""
    units, held_out, judged = summary["settings"].get("units") or "units", summary["held_out"], summary["test"]
    text = (
        f"At the threshold {number(summary['threshold'])}, chosen so that {percent(summary['false_alarms'])} of normal "
        f"{units} are falsely rejected, "
    )
    if held_out["of"]:
        text += f"the held-out normals that it was chosen on gave {counted(held_out)}"
    else:
        text += f"the training normals gave {counted(summary['rejected'])}; none was held out, so expect more on new "
        text += units
    text += _who_pays(summary) + "."
    if judged and judged["anomalies"]:
        text += f" Of the test data it catches {counted(judged['caught'])} of the anomalies"
        text += f" and rejects {counted(judged['rejected'])} of the normals." if judged["normals"] else "."
    return text


def _who_pays(summary: Mapping[str, Any]) -> str:
    """The kind of normal that is rejected clearly more often than the rest.

    All kinds are compared on one basis: on test normals of known kinds where there are any, otherwise on fitted and
    held-out normals together, known kinds first.
    """
    judged = summary["test"] or {"groups": []}
    if len(judged["groups"]) > 1:
        views, basis = [(judged["groups"], "'")], "the test normals"
    else:
        views, basis = [(summary["groups"], "'"), (summary["modes"], "")], "your normals, fitted and held-out alike"
    for rows, quote in views:
        worst = _worst(rows)
        if worst:
            row, rest = worst
            share = percent(row["rejected"]["of"] / (row["rejected"]["of"] + rest["of"]))
            kind = f"; of {basis}, kind {quote}{row['name']}{quote} ({share} of them) is rejected"
            if not rest["count"]:
                return f"{kind} in {counted(row['rejected'])}, the rest never"
            ratio = row["rejected"]["share"] / (rest["count"] / rest["of"])
            return f"{kind} {ratio:.{1 if ratio < 3 else 0}f} times as often as the rest"
    if any(len(rows) > 1 for rows, _ in views):
        return f"; of {basis}, no kind is rejected clearly more often than the rest"
    return ""


def _worst(rows: Sequence[Mapping[str, Any]]) -> tuple[Mapping[str, Any], dict[str, int]] | None:
    """The row most often rejected, and the count of the others, if its 95 % interval lies above their share."""
    worse = []
    for row in rows:
        others = [other["rejected"] for other in rows if other is not row]
        rest = {"count": sum(other["count"] for other in others), "of": sum(other["of"] for other in others)}
        if rest["of"] and row["rejected"]["low"] > rest["count"] / rest["of"]:
            worse.append((row, rest))
    return max(worse, key=lambda pair: pair[0]["rejected"]["share"], default=None)


def number(value: float | None) -> str:
    """Three significant digits; a dash for None."""
    if value is None:
        return _NONE
    if value and not 1e-4 <= abs(value) < 1e6:
        return f"{value:.2e}"
    if abs(value) >= 100:
        return f"{value:,.0f}".replace(",", "\N{NARROW NO-BREAK SPACE}")
    # The alternate form keeps the zeros that stand for digits.
    return f"{value:#.3g}".rstrip(".").replace("-", "\N{MINUS SIGN}") if value else "0"


def fraction(value: float | None) -> str:
    """Three decimals, for values between 0 and 1."""
    return _NONE if value is None else f"{value:.3f}"


def percent(share: float | None) -> str:
    """A share as a percentage: one decimal below 10 %, none above, but never rounded to 0 or 100."""
    if share is None:
        return _NONE
    text = f"{100 * share:.1f}" if 100 * share < 9.95 or 99 < 100 * share < 100 else f"{100 * share:.0f}"
    if share > 0 and float(text) == 0:
        return f"<0.1{_NO_BREAK}%"
    if share < 1 and float(text) == 100:
        return f">99.9{_NO_BREAK}%"
    return text.removesuffix(".0") + f"{_NO_BREAK}%"


def counted(share: Mapping[str, Any]) -> str:
    """A share with its counts: 4.5 % (2 of 44)."""
    return f"{percent(share['share'])} ({whole(share['count'])} of {whole(share['of'])})"


def whole(value: float | None) -> str:
    """A count, its thousands apart."""
    return _NONE if value is None else f"{value:,.0f}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def _figures(summary: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """SVG and text alternative of each figure that there is something to draw for."""
    from . import plots

    scores, weights, threshold = summary["scores"], summary["weights"], summary["threshold"]
    figures = {}

    def add(name: str, alternative: str, draw: Callable[[Any], Any]) -> None:
        figures[name] = {"svg": Markup(plots.svg(draw, name)), "alternative": alternative}

    for name, when in (("before", "before weighing"), ("after", "after training")):
        if curves := scores[name]:
            skewness = number(scores[f"skewness_{name}"])
            cut = threshold if name == "after" else None
            draw = functools.partial(plots.score_density, curves, log=scores["log"], threshold=cut)
            add(name, f"Density of training scores {when}, with the target. Skewness {skewness}.", draw)
    if weights["weight"] and not weights["uniform"]:
        alternative = f"Weight against score: from {number(weights['smallest'])} to {number(weights['largest'])}."
        log = scores["log"] and min(weights["score"]) > 0
        points = weights["score"], weights["weight"]
        add("weights", alternative, functools.partial(plots.weight_curve, *points, log=log, threshold=threshold))
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
    environment.filters |= {f.__name__: f for f in (number, fraction, percent, counted, whole)} | {"cell": _cell}
    return environment


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


def _plain(value: Any) -> Any:
    """The value in types that JSON has, numbers that are not finite as None."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_plain(item) for item in value]
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, int | np.integer):
        return int(value)
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    return None if value is None or value is pd.NA else str(value)

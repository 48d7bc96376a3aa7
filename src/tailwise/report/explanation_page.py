"""Explanations laid out: text for a terminal that is Markdown too, a page with pictures, JSON."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from markupsafe import Markup
from PIL import Image, ImageDraw, ImageFont

from ..calibration import score_maps
from ..core.data import Data
from ..core.modality import IMAGE, SPECTRUM
from ..core.problem import Labelled, Pictured, Source
from ..errors import InputError
from . import explanation, numbers
from .explanation import Known
from .heat_maps import overlay
from .page import in_markdown, in_text, page, within_budget
from .pictures import backdrops_of, data_uri, of_named, pictures_of

_ROWS, _BOXES = 8, 5
_SIDE, _GAP = 400, 6
_BOX, _PLATE = (200, 30, 20), 22
_WHEN = {"first_score": "at the start of weighting", "trained_score": "at the end of training"}


def of_scores(
    known: Known, source: Source, samples: Labelled, names: Sequence[str], seed: int = 0, pictured: bool = False
) -> dict[str, Any]:
    """Explanations of the scores of these samples of `samples`, which `source` has read, as a plain dict."""
    listed = [explanation.explain_score(known, samples, name, seed, source) for name in names]
    if pictured:
        place = samples.data.places
        for one in listed:
            one["picture"] = _picture(known, source, samples.data, place[one["sample"]], one)
            one["spectra"] = _spectra(known, samples.data, place[one["sample"]], one)
        near = [row["sample"] for one in listed for row in one["nearest"]]
        pictures, texts = of_named(known.source, known.data, list(dict.fromkeys(near)))
        shown = {"pictures": within_budget(pictures, near), "texts": texts}
        return _head(known, "scores") | {"samples": listed} | shown
    return _head(known, "scores") | {"samples": listed}


def of_weights(known: Known, names: Sequence[str]) -> dict[str, Any]:
    """Explanations of the weights of these training samples, as a plain dict."""
    samples = explanation.explain_weights(known, names)
    pictures, texts = of_named(known.source, known.data, names)
    head = _head(known, "weights") | {"weighting": known.run.settings.weighting}
    return head | {"samples": samples, "pictures": pictures, "texts": texts}


def _head(known: Known, of: str) -> dict[str, Any]:
    settings = known.run.settings
    return {"of": of} | {name: getattr(settings, name) for name in ("detector", "source", "scores")}


def to_text(found: Mapping[str, Any]) -> str:
    """Lines for a terminal."""
    return _lines(found, in_text)


def to_markdown(found: Mapping[str, Any]) -> str:
    """The same lines as Markdown."""
    return _lines(found, in_markdown)


def _lines(found: Mapping[str, Any], escape: Callable[[Any], str]) -> str:
    write = _score_lines if found["of"] == "scores" else _weight_lines
    return "\n".join(line for sample in found["samples"] for line in [*write(sample, escape), ""])


def to_html(found: dict[str, Any]) -> str:
    """One page that loads nothing; pictures are enlarged on click."""
    content = {"pictures": {}, "texts": {}} | found
    samples = [sample | {"figures": _figures(sample, number)} for number, sample in enumerate(found["samples"])]
    return page(
        "explanation.html",
        content
        | {
            "samples": samples,
            "most": _ROWS,
            "when": _WHEN,
            "lead": lead,
            "facts": weight_facts,
            "links_title": links_title,
        },
        *(["enlarge.js"] if content["pictures"] or any(sample.get("picture") for sample in samples) else []),
    )


def _chance(p_value: float, normals: int) -> str:
    """How many new normals would score as high. No calibration normal does where the chance is the least that so many
    can tell."""
    if p_value * (normals + 1) <= 1 + 1e-9:
        return (
            f"Fewer than 1 in {normals + 1:,} new normals would score as high or higher: from {normals:,} calibration "
            "normals, of which none does, less can't be told."
        )
    return f"Of new normals, {numbers.percent(p_value)} would score as high or higher."


def lead(sample: Mapping[str, Any]) -> str:
    """What a score is and how it compares, in a sentence."""
    number = numbers.number
    text = f"Its score of {number(sample['score'])} is {'' if sample['flagged'] else 'not '}above the threshold of "
    text += f"{number(sample['threshold'])}. "
    text += _chance(sample["p_value"], sample["calibration_normals"])
    if sample["unlike"]:
        text += " It is unlike every training sample."
    if kind := sample["kind"]:
        text += f" It is most like cluster {kind['name']}, which holds {kind['size']} of {kind['of']} training samples."
    else:
        text += " The most similar training sample is in no cluster."
    distance = sum(row["distance"] for row in sample["nearest"]) / len(sample["nearest"])
    if sample["usual_distance"] > 0:
        ratio = distance / sample["usual_distance"]
        text += f" It is {number(ratio)} times as far from the most similar normals as they are from each other."
    if sample["usual"] is not None:
        compared = "The most similar of these normals scores" if _is_beside_one(sample) else "Their average would score"
        text += f" {compared} {number(sample['usual'])}."
    return text


def _is_beside_one(sample: Mapping[str, Any]) -> bool:
    """Whether the parts' contributions start at the picture of one normal, instead of at an average."""
    return bool(sample["drivers"]) and "of_picture" in sample["drivers"]


def _score_lines(sample: Mapping[str, Any], escape: Callable[[Any], str]) -> list[str]:
    table = functools.partial(_table, escape)
    lines = [f"# {escape(sample['sample'])}", "", lead(sample), ""]
    rows = [(row["sample"], numbers.number(row["distance"]), numbers.number(row["score"])) for row in sample["nearest"]]
    lines += table(("most similar normals", "distance", "score"), rows)
    if sample["drivers"]:
        what = {"features": "feature", "bands": "bands", "patches": "patch"}[sample["drivers"]["what"]]
        listed = sample["drivers"]["rows"]
        shown = [(row["name"], *map(numbers.number, _values(row))) for row in listed[:_ROWS]]
        if len(listed) > _ROWS:
            rest = sum(row["contribution"] for row in listed[_ROWS:])
            shown.append((f"{len(listed) - _ROWS} others", "", "", numbers.number(rest)))
        shown.append(
            (
                f"all: score minus that of the {'most similar' if _is_beside_one(sample) else 'average'}",
                "",
                "",
                numbers.number(sample["score"] - sample["usual"]),
            )
        )
        lines += table((what, "here", "usual", "adds to the score"), shown)
    if sample["cues"]:
        cues = [(cue["name"], numbers.number(cue["value"])) for cue in sample["cues"]]
        lines += table(("comparison with its neighbours (the score is the mean)", "value"), cues)
    if sample["links"]:
        links = [(row["sample"], numbers.number(row["contribution"])) for row in sample["links"]["rows"]]
        lines += table((links_title(sample["links"]), "raises the score by"), links[:_ROWS])
    if sample["regions"]:
        rows = [
            (row["name"], numbers.number(row["highest"]), "flagged" if row["flagged"] else "not flagged")
            for row in sample["regions"]
        ]
        lines += table(("region of the map", "highest", f"threshold {numbers.number(row_limit(sample))}"), rows)
    return lines + [f"Note: {escape(note)}." for note in sample["notes"]]


def links_title(links: Mapping[str, Any]) -> str:
    """What the neighbours are that are listed."""
    looked = len(links["rows"])
    return "neighbour in the graph" + (f" (of {looked} drawn from {links['of']:,})" if looked < links["of"] else "")


def row_limit(sample: Mapping[str, Any]) -> float:
    """The threshold of the map's pixels."""
    return float(sample["regions"][0]["threshold"])


def _values(row: Mapping[str, Any]) -> tuple[float, float, float]:
    return row["value"], row["usual"], row["contribution"]


def _weight_lines(sample: Mapping[str, Any], escape: Callable[[Any], str]) -> list[str]:
    table = functools.partial(_table, escape)
    lines = [f"# {escape(sample['sample'])}", "", escape(sample["sentence"]), ""]
    number = numbers.number
    for part in sample["rounds"]:
        rows = [(step["step"], number(step["before"]), number(step["after"])) for step in part["steps"]]
        lines += table((_WHEN[part["scores"]], "before", "after"), rows)
    lines += table(("of this sample", "value"), [(name, number(value)) for name, value in weight_facts(sample)])
    return lines + [f"Note: {escape(note)}." for note in sample["notes"]]


def weight_facts(sample: Mapping[str, Any]) -> list[tuple[str, float | None]]:
    """The numbers behind a weight, by what they are."""
    names = {"weight": "weight in the run", "first_score": "score before weighing"}
    names |= {"trained_score": "score after training", "score": "final score"}
    rows = [(said, sample[name]) for name, said in names.items()]
    if density := sample["density"]:
        rows += [("density of first scores here", density["scores"]), ("density of the target here", density["target"])]
    return rows


def _table(escape: Callable[[Any], str], header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table whose columns also line up as text: the first to the left, the others to the right."""
    cells = [[escape(cell) for cell in row] for row in (header, *rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    lines = [
        f"| {row[0].ljust(widths[0])} | "
        + " | ".join(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))
        + " |"
        for row in cells
    ]
    rule = "|" + "-" * (widths[0] + 2) + "|" + "|".join("-" * (width + 1) + ":" for width in widths[1:]) + "|"
    return [lines[0], rule, *lines[1:], ""]


def _picture(known: Known, source: Source, samples: Data, at: int, sample: Mapping[str, Any]) -> str:
    """The sample with the patches that add most, numbered, and beside it its map; "" where it is no picture."""
    patched = sample["drivers"] and sample["drivers"]["what"] == IMAGE.parts
    if not (samples.modality.spatial or (patched and isinstance(source, Pictured))):
        return _plain_picture(source, samples, at)
    with suppress(InputError):  # the file may have gone away since
        picture = _sized(pictures_of(source, samples)(at))
        parts = [picture if samples.modality.scattered else _boxed(picture, sample)]
        scale = known.run.map_scale
        if scale is not None and sample["regions"]:
            scores = next(iter(score_maps.of_data(known.detector, samples.take([at]), known.run.settings.smoothing)))
            parts.append(np.full((len(picture), _GAP, 3), 255, dtype=np.uint8))
            over = backdrops_of(source, samples)(at, picture)
            parts.append(overlay(over.picture, over.laid(scores), scale))
        return data_uri(np.concatenate(parts, 1))
    return ""


def _plain_picture(source: Source, samples: Data, at: int) -> str:
    """The picture of a sample that is read as something else, such as pooled features."""
    return next(iter(of_named(source, samples, [str(samples.names[at])])[0].values()), "")


def _sized(picture: np.ndarray) -> np.ndarray:
    """The picture with its longer side made fit for a page."""
    share = _SIDE / max(picture.shape[:2])
    size = [max(1, round(side * share)) for side in picture.shape[1::-1]]
    how = Image.Resampling.NEAREST if share > 1 else Image.Resampling.LANCZOS
    return np.asarray(Image.fromarray(picture).resize((size[0], size[1]), how))


def _boxed(picture: np.ndarray, sample: Mapping[str, Any]) -> np.ndarray:
    """The picture with the patches that add most to the score framed and numbered."""
    image = Image.fromarray(picture)
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(size=_PLATE - 2)
    rows = sample["drivers"]["rows"][:_BOXES] if sample["drivers"] else []
    for number, row in enumerate(rows, 1):
        box = row.get("box")
        if box is None or row["contribution"] <= 0:
            continue
        corners = box["left"] * image.width, box["top"] * image.height, box["right"] * image.width, box["bottom"]
        left, top, right, bottom = *corners[:3], corners[3] * image.height
        draw.rectangle((left, top, right - 1, bottom - 1), outline=_BOX, width=3)
        # On a plate of the frame's colour, so that the number can be read on any picture.
        draw.rectangle((left, top, left + _PLATE, top + _PLATE), fill=_BOX)
        draw.text((left + _PLATE / 2, top + _PLATE / 2), str(number), "white", font, anchor="mm")
    return np.asarray(image)


def _spectra(known: Known, samples: Data, at: int, sample: Mapping[str, Any]) -> dict[str, Any] | None:
    """What a figure of a spectrum needs: the bands' places, the sample, and the average of its nearest normals."""
    if samples.modality != SPECTRUM or not sample["drivers"]:
        return None
    names = known.table["sample"].astype(str).tolist()
    near = torch.tensor([names.index(row["sample"]) for row in sample["nearest"]])
    x = [float(name) for name in samples.features] or list(map(float, range(samples.sample_shape[1])))
    return {
        "x": x,
        "name": "wavelength in nm" if samples.features else "band",
        "sample": samples.read(torch.tensor([at]))[0, 0].tolist(),
        "usual": known.data.read(near).mean(0)[0].tolist(),
    }


def _figures(sample: Mapping[str, Any], number: int) -> list[Markup]:
    from . import plots

    spectra = sample.get("spectra")
    if not spectra:
        return []
    x, name = spectra["x"], spectra["name"]
    rows = sample["drivers"]["rows"]
    edges = [(x[row["bands"][0]], x[min(row["bands"][1] + 1, len(x) - 1)]) for row in rows]
    added = [row["contribution"] for row in rows]
    draws = (
        functools.partial(plots.spectrum, x, spectra["sample"], spectra["usual"], name=name),
        functools.partial(plots.window_drivers, edges, added, name=name),
    )
    return [Markup(plots.svg(draw, f"sample{number}figure{place}")) for place, draw in enumerate(draws)]

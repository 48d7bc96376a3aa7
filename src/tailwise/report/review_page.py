"""The page of a review: what to look at first, each beside its nearest good sample, decided by keys or buttons.

The page is the sheet too: it holds the rows of review.csv, and what is decided on it is saved as a file of that form.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from hashlib import sha256
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup
from PIL import Image

from ..calibration import score_maps
from ..core.embedding import embedding_of
from ..errors import InputError, printable
from ..numerics import neighbours
from ..runs.display import histogram
from ..runs.sheets import to_csv
from . import pictures as report_pictures
from .heat_maps import ringed
from .numbers import number
from .page import inside_script, page, within_budget
from .pictures import data_uri, of_named, pictures_of
from .review import ANOMALY, NORMAL, PROBABLY_ANOMALY, PROBABLY_NORMAL, PROBABLY_RARE, Triage

_SHOWN, _SHOWN_OF_KIND, _SHOWN_NORMAL = 120, 8, 12
# What is next in line fills a page up to so many.
_DECIDED = 200
# Bytes of the pictures of a page that is worked on for half an hour: whole ones, and of single places.
_ROOM, _ROOM_OF_PLACES = 6_000_000, 6_000_000
# Of a longer sheet the page holds the rows that it shows, and those decided before.
_ROWS = 50_000
# The place that stands out most is shown in a square of at least so many pixels of the original, or of this share.
_PLACE, _SHARE = 256, 1 / 6


def to_html(found: Triage, command: str = "", learn: str = "") -> str:
    """The sheet with pictures, as one page that loads nothing.

    Args:
        found: what the triage found.
        command: the command that is this triage, "" where there is none.
        learn: the command that fits the same data, "" where there is none.
    """
    table = found.sheet
    anomalies = table[table["verdict"] == PROBABLY_ANOMALY].head(_SHOWN)
    rare = table[table["verdict"] == PROBABLY_RARE]
    clusters = [rows.head(_SHOWN_OF_KIND) for _, rows in rare.groupby("cluster", sort=False)]
    left = _DECIDED - sum(map(len, [anomalies, *clusters]))
    border = table[table["verdict"] == PROBABLY_NORMAL].head(max(_SHOWN_NORMAL, left))
    shown = pd.concat([anomalies, *clusters, border])
    near = _nearest_normals(found, shown["sample"].tolist())
    odd = set(shown["sample"]) - set(border["sample"])
    names = list(dict.fromkeys([*shown["sample"], *near.values()]))
    pictures, texts = of_named(found.source, found.problem.train, names)
    side = report_pictures.side_for(len(names), _ROOM)
    mapped, places = _mapped(found, shown["sample"].tolist(), odd, near, side)
    pictures = within_budget(pictures | mapped, names, _ROOM)
    content = {
        "samples": found.problem.facts.samples,
        "total": int((table["verdict"] != ANOMALY).sum()),
        "source": repr(found.source),
        "ranked_by": found.ranked_by,
        "limit": found.limit if math.isfinite(found.limit) else None,
        "histogram": Markup(histogram(table["score"].dropna().to_numpy(), found.limit)),
        "command": command,
        "learn": learn,
        "counts": table["verdict"].value_counts().to_dict(),
        "anomalies": anomalies.to_dict("records"),
        "clusters": [{"rows": rows.to_dict("records"), "size": int(rows["alike"].iloc[0]) + 1} for rows in clusters],
        "border": border.to_dict("records"),
        "pictures": pictures,
        "texts": texts,
        "ringed": found.scale is not None,
    }
    deck = [
        {
            "sample": printable(row["sample"]),
            "text": texts.get(row["sample"], ""),
            "near": names.index(near[row["sample"]]) if row["sample"] in near else None,
            "places": places.get(row["sample"], []),
            "kind": row["cluster"] if row["verdict"] == PROBABLY_RARE else None,
            "score": number(row["score"]),
        }
        for row in shown.to_dict("records")
    ]
    goods = [
        {"sample": printable(name), "picture": pictures.get(name, ""), "text": texts.get(name, "")}
        for name in names[len(shown) :]
    ]
    sheet = _sheet(table, shown) | {"deck": deck, "goods": goods}
    return page("review.html", content | {"sheet": inside_script(sheet)}, "review.js")


def _sheet(table: pd.DataFrame, shown: pd.DataFrame) -> dict[str, Any]:
    """The lines of review.csv cut before and after each verdict, which of them each shown sample has, and those of each
    kind."""
    if len(table) > _ROWS:
        known = table["sample"].isin(shown["sample"]) | table["verdict"].isin([ANOMALY, NORMAL])
        table = table[known]
    at = table.columns.get_loc("verdict")
    assert isinstance(at, int)
    before, verdict, after = (
        to_csv(part).splitlines() for part in (table.iloc[:, :at], table[["verdict"]], table.iloc[:, at + 1 :])
    )
    rows = list(zip(before, verdict, after, strict=True))
    place = {name: i for i, name in enumerate(table["sample"])}
    rare = set(shown.loc[shown["verdict"] == PROBABLY_RARE, "cluster"])
    kinds = {int(kind): np.flatnonzero(table["cluster"] == kind).tolist() for kind in rare}
    return {
        "key": sha256("\n".join(map(str, rows)).encode()).hexdigest()[:16],
        "rows": rows,
        # The first line has the names of the columns.
        "lines": [place[name] + 1 for name in shown["sample"]],
        "kinds": {kind: [place + 1 for place in places] for kind, places in kinds.items()},
    }


def _nearest_normals(found: Triage, names: Sequence[str]) -> dict[str, str]:
    """The sample most like each of these among those that are probably normal."""
    data = found.problem.train
    every = [str(name) for name in data.names]
    said = dict(zip(found.sheet["sample"], found.sheet["verdict"], strict=True))
    normal = np.flatnonzero([said.get(name) in (PROBABLY_NORMAL, NORMAL) for name in every])
    if not names or len(normal) < 2:
        return {}
    at = {name: i for i, name in enumerate(every)}
    asked = [at[name] for name in names]
    points = embedding_of(data)
    _, indices = neighbours.nearest(points[asked], points[normal], 2)
    pairs = zip(names, asked, normal[indices.numpy()].tolist(), strict=True)
    return {name: every[first if first != place else second] for name, place, (first, second) in pairs}


def _mapped(
    found: Triage, names: Sequence[str], odd: set[str], near: dict[str, str], side: int
) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Pictures of these samples, with a line around what stands out in the odd ones; and of each, the place that stands
    out most, in the pixels of the original, beside the same place of its nearest good sample."""
    if found.usual is None or found.scale is None or not names:
        return {}, {}
    data = found.problem.train
    at = data.places
    picture = pictures_of(found.source, data)
    pictures, places = {}, {}
    wanted = defaultdict(list)
    maps = score_maps.of_data(found.usual, data.take([at[name] for name in names]), found.smoothing)
    for name, scores in zip(names, maps, strict=True):
        with suppress(InputError):  # a file that went away since; the sheet can do without its picture
            whole = picture(at[name])
            small = report_pictures.small(whole, side)
            pictures[name] = data_uri(ringed(small, scores, found.scale) if name in odd else small)
            if max(whole.shape) > 2 * side and name in near:
                centre = (np.array(np.unravel_index(scores.argmax(), scores.shape)) + 0.5) / scores.shape
                places[name] = _around(whole, centre)
                wanted[near[name]].append((name, centre))
    beside: dict[str, str] = {}
    for good, asked in wanted.items():
        with suppress(InputError):
            whole = picture(at[good])
            beside |= {name: _around(whole, centre) for name, centre in asked}
            if good not in pictures:
                pictures[good] = data_uri(report_pictures.small(whole, side))
    both = {name: [places[name], beside[name]] for name in names if name in beside}
    fitting = within_budget({name: first for name, (first, _) in both.items()}, both, _ROOM_OF_PLACES // 2)
    return pictures, {name: both[name] for name in fitting}


def _around(picture: np.ndarray, centre: np.ndarray) -> str:
    """A square of the picture [h, w, 3] around the centre, in shares of its height and width."""
    size = np.array(picture.shape[:2])
    wide = np.minimum(max(_PLACE, round(_SHARE * size.max())), size)
    first = np.clip(np.round(centre * size - wide / 2), 0, size - wide).astype(int)
    cut = Image.fromarray(picture[first[0] : first[0] + wide[0], first[1] : first[1] + wide[1]])
    cut.thumbnail((_PLACE, _PLACE))
    return data_uri(np.asarray(cut))

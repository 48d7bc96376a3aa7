"""The page of a review: what to look at first, with pictures."""

from __future__ import annotations

import math
from contextlib import suppress

import pandas as pd
from markupsafe import Markup

from ..calibration import score_maps
from ..errors import InputError
from ..runs.display import histogram
from . import pictures as report_pictures
from .heat_maps import ringed
from .page import page, within_budget
from .pictures import data_uri, of_named, pictures_of
from .review import ANOMALY, PROBABLY_ANOMALY, PROBABLY_NORMAL, PROBABLY_RARE, Triage

_SHOWN, _SHOWN_OF_KIND, _SHOWN_NORMAL = 120, 8, 12


def to_html(found: Triage, command: str = "") -> str:
    """The sheet with pictures, as one page that loads nothing and runs no script."""
    table = found.sheet
    anomalies = table[table["verdict"] == PROBABLY_ANOMALY].head(_SHOWN)
    rare = table[table["verdict"] == PROBABLY_RARE]
    clusters = [rows.head(_SHOWN_OF_KIND) for _, rows in rare.groupby("cluster", sort=False)]
    border = table[table["verdict"] == PROBABLY_NORMAL].head(_SHOWN_NORMAL)
    shown = pd.concat([anomalies, *clusters, border])
    names = list(dict.fromkeys([*shown["sample"], *shown["nearest"]]))
    pictures, texts = of_named(found.source, found.problem.train, names)
    pictures |= _ringed(found, [*anomalies["sample"], *(sample for rows in clusters for sample in rows["sample"])])
    content = {
        "samples": found.problem.facts.samples,
        "total": int((table["verdict"] != ANOMALY).sum()),
        "source": repr(found.source),
        "ranked_by": found.ranked_by,
        "limit": found.limit if math.isfinite(found.limit) else None,
        "histogram": Markup(histogram(table["score"].dropna().to_numpy(), found.limit)),
        "command": command,
        "counts": table["verdict"].value_counts().to_dict(),
        "anomalies": anomalies.to_dict("records"),
        "clusters": [{"rows": rows.to_dict("records"), "size": int(rows["alike"].iloc[0]) + 1} for rows in clusters],
        "border": border.to_dict("records"),
        "pictures": within_budget(pictures, names),
        "texts": texts,
        "ringed": found.scale is not None,
    }
    return page("review.html", content)


def _ringed(found: Triage, names: list[str]) -> dict[str, str]:
    """Pictures of these samples with a line around what stands out in them."""
    if found.usual is None or found.scale is None or not names:
        return {}
    data = found.problem.train
    of_name = {str(name): place for place, name in enumerate(data.names)}
    places = [of_name[name] for name in names]
    picture = pictures_of(found.source, data)
    scores = score_maps.of_data(found.usual, data.take(places), found.smoothing)
    pictures = {}
    for name, place, each in zip(names, places, scores, strict=True):
        with suppress(InputError):  # a file that went away since; the sheet can do without its picture
            small = report_pictures.small(picture(place))
            pictures[name] = data_uri(ringed(small, each, found.scale))
    return pictures

"""Which training units should a person look at first, and what may each be?

Units are ranked by detectors that were not trained on them (`refine.out_of_fold`), so that none is excused by having
been learnt. A suspicious unit that lies in a small kind of units much like it is probably a rare kind of normal; one
that lies alone, or among units of a large kind, is probably an anomaly. Where anomalies of one sort form a kind of
their own, nothing in the data tells them from rare normals: the sheet shows them side by side, and a person decides
once for all of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import torch

from . import (
    alignment,
    backbones,
    files,
    gallery,
    map_files,
    maps,
    modes,
    neighbours,
    overlays,
    previews,
    refine,
    report,
    reviews,
    scoring,
    thresholds,
)
from .detector import Detector
from .errors import InputError
from .problem import Data, Problem, Source, check_units
from .reviews import PROBABLY_ANOMALY, PROBABLY_NORMAL, PROBABLY_RARE
from .weights import Weighting, rejection_threshold
from .workflow import Request, fitter

SHEET, PAGE = "review.csv", "review.html"
# A kind that holds more of the data than this is not rare, and to lie in it excuses nothing.
_RARE = 0.1
# Nothing below is suspicious: about two standard deviations of scores.
_SUSPICIOUS = 3.0
# A rare kind stands apart as a whole: so much of it must be suspicious.
_WHOLE = 0.5
_SHOWN, _SHOWN_OF_KIND, _SHOWN_NORMAL = 120, 8, 12


@dataclass(frozen=True, eq=False)
class Triage:
    """A review sheet: a row a unit, the most suspicious first.

    Columns: `unit`, `rank` from 1, `score` (out of fold; 0 is usual, in median absolute deviations), `verdict`, `kind`
    (number of the found kind of normal, -1 is none), `alike` (units in that kind), `nearest` (the most similar other
    unit). Anomalies of an earlier review come last, without a score, so that the newest sheet holds all decisions.

    `usual` maps where images are unlike the units that are probably normal, which it was trained on, and `scale` says
    from where on their pixels stand out; None where the detector has no maps.
    """

    sheet: pd.DataFrame
    problem: Problem
    request: Request
    usual: Detector | None = None
    scale: maps.Scale | None = None


def detector_for(source: Source) -> str:
    """The detector that ranks a source's units where the user names none: positions see small defects."""
    return "PaDiM(dims=200, added=0.3)" if getattr(source, "layers", ()) else "gaussian"


def with_deep_maps(source: Source) -> Source:
    """The source with the maps of its backbone that look at whole images, if it reads images by one and names none."""
    read = getattr(source, "read", "pixels")
    if read in (None, "pixels") or getattr(source, "layers", None) != ():
        return source
    return replace(cast(Any, source), layers=backbones.deep_layers(read))


def triage(request: Request, parts: int = 6, problem: Problem | None = None) -> Triage:
    """Rank the training units of the request's source; what its review calls an anomaly or normal is settled.

    Raises:
        InputError: the data cannot be read, or is too little to deal into `parts`.
    """
    problem = request.source.load() if problem is None else problem
    check_units(problem.train)
    settled = reviews.read(Path(request.reviewed)) if request.reviewed else {}
    problem, _ = reviews.apply(problem, settled)
    data = problem.train
    rule = alignment.choose(request.alignment, data.unit_shape)
    fit = fitter(request, Weighting.choose(request.weighting, data.unit_shape), rule)
    suspicion = refine.out_of_fold(fit, data, torch.ones(len(data)), parts, request.seed, on_others=True)
    table = sheet(data, suspicion.numpy(), settled)
    return Triage(table, problem, request, *_usual(fit, data, table, request))


def _usual(
    fit: refine.Fit, data: Data, table: pd.DataFrame, request: Request
) -> tuple[Detector | None, maps.Scale | None]:
    """A detector of the units that are probably normal, and the scale of its maps, from some of them held out."""
    if len(data.unit_shape) != 3:
        return None, None
    normal = table.loc[table["verdict"].isin((PROBABLY_NORMAL, reviews.NORMAL)), "unit"]
    place = np.flatnonzero(np.isin([str(name) for name in data.names], normal))
    place = np.random.default_rng(request.seed).permutation(place)
    count = thresholds.held_out_count(len(place), request.false_alarms)
    learnt = data.take(np.sort(place[count:]))
    detector = fit(learnt, torch.ones(len(learnt)), request.seed).detector
    if not detector.has_maps or not count:
        return None, None
    return detector, maps.learn_scale(detector, data.take(place[:count]), request.false_alarms, request.smoothing)


def sheet(data: Data, suspicion: np.ndarray, settled: Mapping[str, str] | None = None) -> pd.DataFrame:
    """The sheet of these units for suspicions [n], and of what else is settled; see `Triage`."""
    places = scoring.embedding_of(data)
    kind = modes.find(places).numpy()
    size = np.array([(kind == each).sum() if each >= 0 else 1 for each in kind])
    near = neighbours.nearest_within(places, 1)[:, 0].numpy()
    verdict = _verdicts(suspicion, kind, size)
    names = [str(name) for name in data.names]
    known = {name: said for name, said in (settled or {}).items() if said == reviews.NORMAL}
    verdict = np.array([known.get(name, said) for name, said in zip(names, verdict, strict=True)])
    table = pd.DataFrame(
        {"unit": names, "score": suspicion, "verdict": verdict, "kind": kind, "alike": size - 1}
        | {"nearest": [names[i] for i in near]}
    )
    # Rare kinds come after anomalies: what a person is asked first should be what most likely has to go.
    later = {PROBABLY_ANOMALY: 0, PROBABLY_RARE: 1, PROBABLY_NORMAL: 1, reviews.NORMAL: 2}
    order = np.lexsort((-suspicion, np.array([later[said] for said in verdict])))
    gone = [name for name, said in (settled or {}).items() if said == reviews.ANOMALY]
    decided = pd.DataFrame({"unit": gone, "verdict": reviews.ANOMALY, "kind": -1, "alike": 0, "nearest": ""})
    table = pd.concat([table.iloc[order], decided], ignore_index=True) if gone else table.iloc[order]
    table = table.reset_index(drop=True)
    table.insert(1, "rank", np.arange(1, len(table) + 1))
    return table


def _verdicts(suspicion: np.ndarray, kind: np.ndarray, size: np.ndarray) -> np.ndarray:
    # Where good and bad overlap, the mixture's limit may lie among the usual units.
    suspicious = suspicion > max(rejection_threshold(torch.from_numpy(suspicion)), _SUSPICIOUS)
    whole = np.array([suspicious[kind == each].mean() >= _WHOLE for each in kind])
    rare = (kind >= 0) & (size <= _RARE * len(size)) & whole
    return np.where(rare, PROBABLY_RARE, np.where(suspicious, PROBABLY_ANOMALY, PROBABLY_NORMAL))


def write(found: Triage, out: Path, command: str = "") -> Path:
    """Leave review.csv and review.html in the folder `out`, which may be new; the path of the sheet.

    Raises:
        InputError: the folder cannot be written, or holds a sheet already, which may have been edited.
    """
    place = out / SHEET
    if place.exists():
        raise InputError(f"{place} is there already, perhaps edited", "choose another --out")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise files.cannot_write(out, error) from error
    files.write(out / PAGE, to_html(found, command).encode("utf-8", "backslashreplace"))
    files.write(place, found.sheet.to_csv(index=False).encode("utf-8", "backslashreplace"))
    return place


def to_html(found: Triage, command: str = "") -> str:
    """The sheet with pictures, as one page that loads nothing and runs no script."""
    table = found.sheet
    anomalies = table[table["verdict"] == PROBABLY_ANOMALY].head(_SHOWN)
    rare = table[table["verdict"] == PROBABLY_RARE]
    kinds = [rows.head(_SHOWN_OF_KIND) for _, rows in rare.groupby("kind", sort=False)]
    border = table[table["verdict"] == PROBABLY_NORMAL].head(_SHOWN_NORMAL)
    shown = pd.concat([anomalies, *kinds, border])
    names = list(dict.fromkeys([*shown["unit"], *shown["nearest"]]))
    pictures, texts = previews.of_named(found.request.source, found.problem.train, names)
    pictures |= _ringed(found, [*anomalies["unit"], *(unit for rows in kinds for unit in rows["unit"])])
    content = {
        "units": found.problem.facts.units,
        "total": int((table["verdict"] != reviews.ANOMALY).sum()),
        "source": repr(found.request.source),
        "detector": found.request.detector,
        "command": command,
        "counts": table["verdict"].value_counts().to_dict(),
        "anomalies": anomalies.to_dict("records"),
        "kinds": [{"rows": rows.to_dict("records"), "size": int(rows["alike"].iloc[0]) + 1} for rows in kinds],
        "border": border.to_dict("records"),
        "pictures": report.within_budget(pictures, names),
        "texts": texts,
        "ringed": found.scale is not None,
    }
    return report.page("review.html", content)


def _ringed(found: Triage, names: list[str]) -> dict[str, str]:
    """Pictures of these units with a line around what stands out in them."""
    if found.usual is None or found.scale is None or not names:
        return {}
    data = found.problem.train
    of_name = {str(name): place for place, name in enumerate(data.names)}
    places = [of_name[name] for name in names]
    picture = map_files.pictures_of(found.request.source, data)
    scores = maps.of_data(found.usual, data.take(places), found.request.smoothing)
    pictures = {}
    for name, place, each in zip(names, places, scores, strict=True):
        with suppress(InputError):  # a file that went away since; the sheet can do without its picture
            small = gallery.small(picture(place))
            pictures[name] = previews.data_uri(overlays.ringed(small, each, found.scale))
    return pictures

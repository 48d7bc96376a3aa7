"""Which training samples should a person look at first, and what may each be?

Rows are ranked by what looks at all of them at once (`suspects.Oddness`); other samples, and rows for which the user
names a detector, by detectors that were not trained on them (`cross_fitting.out_of_fold`), so that none is excused by
having been learnt. A suspicious sample that lies in a small kind of samples much like it is probably a rare kind of
normal; one that lies alone, or among samples of a large kind, is probably an anomaly. Where anomalies of one sort form
a kind of their own, nothing in the data tells them from rare normals: the sheet shows them side by side, and a person
decides once for all of them. The ranking itself protects no rare kind: nobody vouches for the data.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from ..calibration import clustering, conformal, score_maps
from ..core import embedding, messages
from ..core.data import Data
from ..core.detector import Detector
from ..core.modality import ROW
from ..core.problem import Problem, ReadByBackbone, Source
from ..errors import InputError
from ..numerics import neighbours
from ..report import review, review_page
from ..report.numbers import quoted
from ..report.review import ANOMALY, NORMAL, PROBABLY_ANOMALY, PROBABLY_NORMAL, PROBABLY_RARE, Triage
from ..runs import files, result_folder
from ..runs.outputs import check_apart
from ..runs.sheets import to_csv
from ..training import cross_fitting, local_scores, suspects
from ..weights.default import choose_weighting
from ..weights.steps import rejection_threshold
from . import reviews
from .fit import fitter
from .request import AUTO, Request, check_training, make_detector

SHEET, PAGE, SCORES = "review.csv", "review.html", "scores.csv"
# A kind that holds more of the data than this is not rare, and to lie in it excuses nothing.
_RARE = 0.1
# Nothing below is suspicious: about two standard deviations of scores.
_SUSPICIOUS = 3.0
# A rare kind stands apart as a whole: so much of it must be suspicious.
_WHOLE = 0.5
PARTS = 6
_AT_ONCE = "isolation forest, Mahalanobis distance and 20th neighbour, each over all rows at once; nothing is trained"


def detector_for(source: Source) -> str:
    """The detector that ranks a source's samples where the user names none: positions see small defects. "auto" ranks
    rows by `suspects.Oddness`, which was measured on them, and anything else by gaussian."""
    return "PaDiM(dims=200, added=0.3)" if isinstance(source, ReadByBackbone) and source.layers else AUTO


def triage(request: Request, parts: int = PARTS, problem: Problem | None = None) -> Triage:
    """Rank the training samples of the request's source; what its review calls an anomaly or normal is settled.

    Raises:
        InputError: the data cannot be read, or is too little to deal into `parts`.
    """
    problem = request.source.load() if problem is None else problem
    check_training(problem, request.source)
    settled = reviews.read(Path(request.reviewed)) if request.reviewed else {}
    problem, _ = reviews.apply(problem, settled)
    data = problem.train
    if problem.test is not None:
        messages.note(
            f"triage looks at the {len(data)} training samples; {len(problem.test.data)} of the test part are left out"
        )
    at_once = request.detector.strip() == AUTO and data.modality == ROW
    if request.detector.strip() == AUTO:
        request = replace(request, detector="gaussian")
    if at_once:
        _warn_of_idle_options(request, parts)
    detector = make_detector(request.detector)
    rule = local_scores.choose(request.scores, data.modality, detector)
    fit = fitter(request, choose_weighting(request.weighting, detector, data.modality, rule is not None), rule)
    if at_once:
        suspicion = suspects.Oddness(data, request.seed).training_scores
    else:
        suspicion = cross_fitting.out_of_fold(fit, data, torch.ones(len(data)), parts, request.seed, on_others=True)
    table = sheet(data, suspicion.numpy(), settled)
    return Triage(
        table,
        problem,
        request.source,
        _AT_ONCE if at_once else f"{request.detector}, {parts} trained, each judges samples that it did not train on",
        limit_of(suspicion.numpy()),
        request.smoothing,
        *_usual(fit, data, table, request),
    )


def _warn_of_idle_options(request: Request, parts: int) -> None:
    """Say which options have no say because nothing is trained."""
    idle = [f"--{name.replace('_', '-')}" for name in request.training.changed()]
    asked = {"--weighting": request.weighting != "", "--scores": request.scores != "own", "--parts": parts != PARTS}
    idle += [name for name, changed in asked.items() if changed]
    if idle:
        messages.warning(
            f"rows are looked at all at once, and nothing is trained: {', '.join(sorted(idle))} changes nothing. With "
            "--detector NAME detectors are trained"
        )


def _usual(
    fit: cross_fitting.Fit, data: Data, table: pd.DataFrame, request: Request
) -> tuple[Detector | None, score_maps.Scale | None]:
    """A detector of the samples that are probably normal, and the scale of its maps, from some of them held out."""
    if not data.modality.spatial:
        return None, None
    normal = table.loc[table["verdict"].isin((PROBABLY_NORMAL, NORMAL)), "sample"]
    place = np.flatnonzero(np.isin([str(name) for name in data.names], normal))
    place = np.random.default_rng(request.seed).permutation(place)
    count = conformal.held_out_count(len(place), request.false_alarms)
    learnt = data.take(np.sort(place[count:]))
    detector = fit(learnt, torch.ones(len(learnt)), request.seed).detector
    if not detector.has_maps or not count:
        return None, None
    return detector, score_maps.learn_scale(detector, data.take(place[:count]), request.false_alarms, request.smoothing)


def sheet(data: Data, suspicion: np.ndarray, settled: Mapping[str, str] | None = None) -> pd.DataFrame:
    """The sheet of these samples for suspicions [n], and of what else is settled; see `Triage`."""
    places = embedding.embedding_of(data)
    cluster = clustering.find(places).numpy()
    size = np.array([(cluster == each).sum() if each >= 0 else 1 for each in cluster])
    near = neighbours.nearest_within(places, 1)[:, 0].numpy()
    verdict = _verdicts(suspicion, cluster, size)
    names = [str(name) for name in data.names]
    known = {name: said for name, said in (settled or {}).items() if said == NORMAL}
    verdict = np.array([known.get(name, said) for name, said in zip(names, verdict, strict=True)])
    table = pd.DataFrame(
        {"sample": names, "score": suspicion, "verdict": verdict, "cluster": cluster, "alike": size - 1}
        | {"nearest": [names[i] for i in near]}
    )
    # Rare kinds come after anomalies: what a person is asked first should be what most likely has to go.
    later = {PROBABLY_ANOMALY: 0, PROBABLY_RARE: 1, PROBABLY_NORMAL: 1, NORMAL: 2}
    order = np.lexsort((-suspicion, np.array([later[said] for said in verdict])))
    gone = [name for name, said in (settled or {}).items() if said == ANOMALY]
    decided = pd.DataFrame({"sample": gone, "verdict": ANOMALY, "cluster": -1, "alike": 0, "nearest": ""})
    table = pd.concat([table.iloc[order], decided], ignore_index=True) if gone else table.iloc[order]
    table = table.reset_index(drop=True)
    table.insert(1, "order", np.arange(1, len(table) + 1))
    return table


def _verdicts(suspicion: np.ndarray, cluster: np.ndarray, size: np.ndarray) -> np.ndarray:
    suspicious = suspicion > limit_of(suspicion)
    whole = np.array([suspicious[cluster == each].mean() >= _WHOLE for each in cluster])
    rare = (cluster >= 0) & (size <= _RARE * len(size)) & whole
    return np.where(rare, PROBABLY_RARE, np.where(suspicious, PROBABLY_ANOMALY, PROBABLY_NORMAL))


def limit_of(suspicion: np.ndarray) -> float:
    """Suspicions [n] above it are suspicious."""
    # Where good and bad overlap, the mixture's limit may lie among the usual samples.
    return max(float(rejection_threshold(torch.from_numpy(suspicion))), _SUSPICIOUS)


def check_place(out: Path, source: Source) -> None:
    """Raise an InputError where the folder `out` holds a result of triage already, which may have been edited, or where
    `source` would read one with its data the next time."""
    for place in (out / SHEET, out / PAGE, out / SCORES):
        if os.path.lexists(place):
            raise InputError(f"{place} is there already, perhaps edited", "choose another --out")
        check_apart(place, source)


def write(found: Triage, out: Path, command: str = "", learn: str = "") -> None:
    """Leave review.csv, review.html and scores.csv, all or none, in the folder `out`, which may be new; `command` and
    `learn` as in `scores_of`.

    Raises:
        InputError: as `check_place`, or the folder cannot be written.
    """
    check_place(out, found.source)
    with result_folder.made_whole(out) as unfinished:
        page = review_page.to_html(found, command, learn).encode("utf-8", "backslashreplace")
        files.write_new(unfinished / PAGE, page)
        files.write_new(unfinished / SHEET, to_csv(found.sheet).encode())
        files.write_new(unfinished / SCORES, to_csv(found.scores).encode())


def scores_of(found: Triage, out: Path | None, command: str = "", learn: str = "") -> pd.DataFrame:
    """The scores of all samples, with what the triage came to (`review.outcome`) in `attrs`.

    Args:
        out: the folder where `write` has left the results, None where it has not.
        command: the command that is this triage, "" where there is none.
        learn: the command that fits the same data, "" where there is none.
    """
    sheet, page, scores = ("" if out is None else str(out / name) for name in (SHEET, PAGE, SCORES))
    if out is None:
        following = f"{command} --out review" if command else "tailwise.triage(data, out='review')"
    elif learn:
        following = f"decide in {SHEET}, then {learn} --reviewed {quoted(sheet)}"
    else:
        following = f"decide in {SHEET}, then tailwise.fit(data, reviewed={sheet!r})"
    table = found.scores
    table.attrs = review.outcome(found, sheet, page, scores, following)
    return table

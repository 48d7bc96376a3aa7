"""What people say of samples, and how it changes what a detector learns from."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from ..core.data import Data
from ..core.identity import digests
from ..core.modality import SPECTRUM
from ..core.problem import Labelled, OnDisk, Pictured, Problem, Source, fixed_to
from ..errors import InputError, reading
from ..report.review import ANOMALY, NORMAL, PROBABLY_ANOMALY, PROBABLY_NORMAL, PROBABLY_RARE
from ..runs.sheets import read_csv
from ..sources.paths import find_path, regular_file
from ..sources.wavelengths import check_wavelengths, wavelengths_of

_LISTS = (".txt", ".csv")
_VERDICTS = ("", ANOMALY, NORMAL, PROBABLY_ANOMALY, PROBABLY_RARE, PROBABLY_NORMAL)


def read(path: Path) -> dict[str, str]:
    """The decided samples of an edited review sheet and what each is: "anomaly" or "normal".

    Raises:
        InputError: no such file, it lacks the columns sample and verdict, or a verdict is another word.
    """
    regular_file(path)
    with reading(path, "give the review.csv that tailwise triage wrote"):
        sheet = read_csv(path, dtype=str, keep_default_na=False)
    missing = [name for name in ("sample", "verdict") if name not in sheet]
    if missing:
        raise InputError(f"{path} has no column {missing[0]!r}", "give the review.csv that tailwise triage wrote")
    verdicts = sheet["verdict"].str.strip().str.lower()
    if len(odd := np.flatnonzero(~verdicts.isin(_VERDICTS))):
        raise InputError(
            f"{path} says {sheet['verdict'].iloc[odd[0]]!r} of {sheet['sample'].iloc[odd[0]]!r} ({len(odd)} such rows)",
            f"write {ANOMALY} or {NORMAL}, or leave what stands there",
        )
    decided = verdicts.isin([ANOMALY, NORMAL])
    if not decided.any():
        warnings.warn(f"{path} decides nothing: no verdict in it is {ANOMALY} or {NORMAL}", stacklevel=2)
    return dict(zip(sheet.loc[decided, "sample"], verdicts[decided], strict=True))


def apply(problem: Problem, verdicts: Mapping[str, str]) -> tuple[Problem, Labelled | None]:
    """The problem without the samples that are anomalies, and these, None where there are none.

    Raises:
        InputError: the verdicts are of other data, or leave fewer than 2 samples.
    """
    names = [str(name) for name in problem.train.names]
    strange = set(verdicts) - set(names)
    if strange:
        raise InputError(
            f"the review names {min(strange)!r} ({len(strange)} such samples), which is not among the training samples",
            "review and fit the same data",
        )
    anomalous = np.array([verdicts.get(name) == ANOMALY for name in names])
    if not anomalous.any():
        return problem, None
    found = Labelled(problem.train.take(np.flatnonzero(anomalous)))
    return _trained_on(problem, np.flatnonzero(~anomalous), "the review"), found


def anomalies_at(problem: Problem, source: Source, path: str) -> tuple[Problem, Labelled]:
    """The problem without the anomalies that lie at a path, in training and in test, and these.

    They are read as the source reads. Below the source's own folder they have the labels and masks that they have
    there; where labels are known, only what they call an anomaly is taken. For images the path may also be a list of
    their names: a .txt with one a line, or a .csv with a column `sample`. Samples are known again by their content.

    Raises:
        InputError: there is no anomaly, fewer than 2 samples are left to train on, or spectra are of other wavelengths.
    """
    found = _below(fixed_to(source, problem.train), path)
    if found.data.modality == problem.train.modality == SPECTRUM:
        own, other = wavelengths_of(problem.train.features), wavelengths_of(found.data.features)
        check_wavelengths(own, other, "the training data", path)
    if found.labels is not None:
        if not np.any(found.labels):
            raise InputError(f"{path} holds no sample that is labelled as an anomaly: all {len(found.data)} are normal")
        found = found.take(np.flatnonzero(found.labels))
    own = _among(problem.train, found.data)
    if own.any():
        warnings.warn(f"{own.sum()} training samples are among the labelled anomalies and are left out", stacklevel=2)
        problem = _trained_on(problem, np.flatnonzero(~own), path)
    if problem.test is not None and (shown := _among(problem.test.data, found.data)).any():
        warnings.warn(f"{shown.sum()} test samples are among the labelled anomalies and are left out", stacklevel=2)
        left = np.flatnonzero(~shown)
        problem = replace(problem, test=problem.test.take(left) if len(left) else None)
    return problem, found


def take_anomalies(problem: Problem, count: int, seed: int) -> tuple[Problem, Labelled]:
    """The problem with `count` labelled anomalies taken out of its test data, and these.

    Raises:
        InputError: the test data has not that many and one more.
    """
    labels = None if problem.test is None else problem.test.labels
    anomalous = np.flatnonzero(labels) if labels is not None else np.zeros(0, dtype=int)
    if problem.test is None or not 1 <= count < len(anomalous):
        raise InputError(
            f"{count} labelled anomalies cannot be taken out of test data with {len(anomalous)}",
            "name a path with anomalies instead, or fewer",
        )
    order = torch.randperm(len(anomalous), generator=torch.Generator().manual_seed(seed)).numpy()
    taken = np.sort(anomalous[order[:count]])
    left = np.setdiff1d(np.arange(len(problem.test.data)), taken)
    return replace(problem, test=problem.test.take(left)), problem.test.take(taken)


def _below(source: Source, path: str) -> Labelled:
    """The samples at a path as the source knows them where it lies in the source's own folder, or else as found
    there."""
    if not isinstance(source, OnDisk):
        return source.at(path).load_all()
    own, there = find_path(source.path).resolve(), find_path(path).resolve()
    if isinstance(source, Pictured) and there.suffix.lower() in _LISTS:
        return _listed(source.load_all(), there)
    if not (own.is_dir() and own in there.parents):
        return source.at(path).load_all()
    whole, inside = source.load_all(), there.relative_to(own).as_posix()
    chosen = [i for i, name in enumerate(whole.data.names) if f"{name}/".startswith(f"{inside}/")]
    return whole.take(np.array(chosen)) if chosen else source.at(path).load_all()


def _listed(whole: Labelled, path: Path) -> Labelled:
    """The samples that a file names, one a line, or in the column `sample` of a .csv."""
    regular_file(path)
    with reading(path, "a .txt with one name a line, or a .csv with the column sample, was needed"):
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix.lower() == ".csv":
            names = read_csv(io.StringIO(text), dtype=str, keep_default_na=False)["sample"].tolist()
        else:
            names = [line.strip() for line in text.splitlines() if line.strip()]
    if not names:
        raise InputError(f"{path} names no sample", "write the name of an anomaly into each line")
    place = whole.data.places
    if strange := [name for name in names if name not in place]:
        raise InputError(f"{path} names {strange[0]!r} ({len(strange)} such samples), which is not in the data")
    found = whole.take(np.array([place[name] for name in names]))
    return replace(found, labels=None)


def _among(data: Data, known: Data) -> np.ndarray:
    """Which samples [n] equal one of those known."""
    seen = set(digests(known))
    return np.array([digest in seen for digest in digests(data)])


def _trained_on(problem: Problem, kept: np.ndarray, why: str) -> Problem:
    if len(kept) < 2:
        raise InputError(f"{why} leaves {len(kept)} samples to train on: at least 2 are needed")
    groups = None if problem.train_groups is None else np.asarray(problem.train_groups)[kept]
    return replace(problem, train=problem.train.take(kept), train_groups=groups)

"""Is something wrong with the data? Copies, constant features, very high scores: reported, never acted on.

Test data is looked at for copies of training samples, because those cannot judge a detector; nothing of it goes back
into the fit.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ..core import inference
from ..core.data import Data
from ..core.identity import _BATCH, digests
from ..core.problem import Problem, Source
from ..numerics import metrics
from ..runs.table import high_scores
from ..training import near_copies
from . import numbers

_LISTED = 8
# A feature with one value in this share of the samples says nothing of the others.
_STILL = 0.99
_SAMPLE, _SAMPLE_OF_IMAGES = 2_000, 64
# Where held-out samples score above, or below, nearly all fitted ones, these say nothing of new ones.
_APART, _FEWEST_HELD = 0.95, 5
HEART = "training scores against held-out scores"


def of_problem(problem: Problem, table: pd.DataFrame, source: Source | None = None) -> list[dict[str, Any]]:
    """Checks of the data, as dicts of `name`, `ok`, `count`, `message`, `examples` (lines of text) and `command`.

    Args:
        table: a row a training sample, in order: `score`, `held_out` and `cluster`, as of `runs.table.Split.table`.
        source: where the data came from. Its pictures, if it has any, show copies that features of a backbone hide; its
            spelling goes into the command that looks harder.
    """
    samples = problem.facts.samples
    test = None if problem.test is None else problem.test.data
    held_out = table["held_out"].to_numpy(dtype=bool)
    first = _first_of_each(problem.train)
    found = [_within(problem.train, first, held_out, samples)]
    if test is not None:
        found.append(_between(problem, samples))
    pairs = near_copies.pairs(*near_copies.as_seen(source, problem.train, test), torch.from_numpy(np.unique(first)))
    near = None if pairs is None else [_named(pair, problem) for pair in pairs]
    found += [] if near is None else [_near(near, samples)]
    still = still_features(problem.train)
    found += [] if still is None else [_still(still, problem)]
    found.append(_suspects(table, samples, "" if source is None else repr(source)))
    return found if (heart := _by_heart(table, samples)) is None else [*found, heart]


def still_features(data: Data) -> list[tuple[str, float, float]] | None:
    """Features, bands or channels with one value in nearly all samples: name, that value and the share that has it.

    None for samples whose features have no meaning of their own, such as those of a backbone.
    """
    names = _feature_names(data)
    if not names:
        return None
    step = max(1, len(data) // (_SAMPLE_OF_IMAGES if data.modality.spatial else _SAMPLE))
    usual = _by_feature(data, data.read(torch.arange(0, len(data), step))).flatten(1).median(1).values  # [d]
    share = torch.zeros(len(names), dtype=torch.float64)
    for batch in data.batches(inference.batch_size_for(data.sample_shape, _BATCH)):
        share += (_by_feature(data, batch.samples) == usual[:, None, None]).double().mean(2).sum(1)
    share /= len(data)
    shown = usual if data.centre is None else data.original(usual)
    return [(names[i], float(shown[i]), float(share[i])) for i in (share >= _STILL).nonzero()[:, 0].tolist()]


def _first_of_each(data: Data) -> np.ndarray:
    """The place [n] of the first sample that is equal to each."""
    seen: dict[bytes, int] = {}
    return np.array([seen.setdefault(digest, place) for place, digest in enumerate(digests(data))])


def _within(data: Data, first: np.ndarray, held_out: np.ndarray, samples: str) -> dict[str, Any]:
    groups: dict[int, list[int]] = defaultdict(list)
    for place in np.flatnonzero(np.bincount(first)[first] > 1).tolist():
        groups[int(first[place])].append(place)
    copies = list(groups.values())
    count = sum(len(places) - 1 for places in copies)
    spoilt = sum(int(held_out[places].sum()) for places in copies if not held_out[places].all())
    message = f"no two training {samples} are the same"
    if copies:
        message = f"{count} of {len(data)} training {samples} are exact copies of others, so these count twice"
        if spoilt:
            message += (
                f". {spoilt} held-out {samples} are copies of training ones: their scores are too low, so expect more "
                "false alarms than promised"
            )
    names = list(data.names)
    lines = [" = ".join(str(names[i]) for i in places[:4]) for places in copies]
    return _check("copies in the training data", count, message, lines)


def unlabelled(doubt: str) -> dict[str, Any]:
    """The check of what `workflows.unlabelled` says of the data; "" is nothing."""
    message = doubt or "nothing says that the data is unlabelled"
    return _check("data that is declared normal", int(bool(doubt)), message, [])


def test_copies(problem: Problem) -> np.ndarray:
    """Which test samples [m] equal a training one."""
    if problem.test is None:
        return np.zeros(0, bool)
    train = set(digests(problem.train))
    return np.array([digest in train for digest in digests(problem.test.data)], bool)


def _between(problem: Problem, samples: str) -> dict[str, Any]:
    assert problem.test is not None
    test, labels = problem.test.data, problem.test.labels
    known = dict(zip(reversed(digests(problem.train)), reversed(list(problem.train.names)), strict=True))
    copies = [(i, known[digest]) for i, digest in enumerate(digests(test)) if digest in known]
    message = f"no test {samples} equal a training one"
    if copies:
        message = f"{len(copies)} of {len(test)} test {samples} equal a training one, so they cannot test the detector"
        wrong = 0 if labels is None else int(sum(bool(labels[i]) for i, _ in copies))
        message += f". {wrong} of them are labelled anomalies, so the training data holds anomalies" if wrong else ""
    names = list(test.names)
    lines = [f"test {names[i]} = {name}" for i, name in copies]
    return _check("training samples in the test data", len(copies), message, lines)


def _named(pair: tuple[int, int], problem: Problem) -> tuple[str, str]:
    """Names of a near copy and of what it is a copy of; places after the training samples are of test samples."""
    names, place = problem.train.names, pair[0] - len(problem.train)
    test = problem.test
    one = str(names[pair[0]]) if place < 0 or test is None else f"test {test.data.names[place]}"
    return one, str(names[pair[1]])


def _near(pairs: Sequence[tuple[str, str]], samples: str) -> dict[str, Any]:
    message = f"no two {samples} are closer to each other than chance explains"
    if pairs:
        message = (
            f"{len(pairs)} {samples} are nearly the same as a training one. Look at them: if a pair shows one thing "
            "twice, keep both on the same side of the split; the fit held out those of the training data together"
        )
    return _check("near copies", len(pairs), message, [f"{sample} ≈ {name}" for sample, name in pairs])


def _still(still: Sequence[tuple[str, float, float]], problem: Problem) -> dict[str, Any]:
    train = problem.train
    what = train.modality.features
    message = f"every one of the {len(_feature_names(train))} {what} varies"
    if still:
        message = (
            f"{len(still)} of {len(_feature_names(train))} {what} have one value in nearly all training samples. Any "
            f"other value may raise the score a lot: leave out {what} without a meaning"
        )
    lines = [
        f"{name}: {value:.6g} in {'all' if share >= 1 else f'{100 * share:.1f} %'}" for name, value, share in still
    ]
    return _check(f"constant {what}", len(still), message, lines)


def _suspects(table: pd.DataFrame, samples: str, source: str) -> dict[str, Any]:
    odd = high_scores(table)
    message = f"no training {samples} score far above the rest"
    if len(odd):
        message = (
            f"{len(odd)} of {len(table)} training {samples} score far above the rest. Look at them: each may be an "
            "anomaly in the training data, of a rare kind of normal, or an extreme usual one"
        )
    message += ". Training lowers a sample's score; tailwise triage uses detectors that did not train on the sample"
    lines = [
        f"{row['sample']}: score {row['score']:.4g}"
        + (f", cluster {row['cluster']}" if row["cluster"] >= 0 else ", in no cluster")
        for row in odd.to_dict("records")
    ]
    command = f"tailwise triage {numbers.quoted(source)} --out review" if source else ""
    return _check("suspects in the training data", len(odd), message, lines) | {"command": command}


def _by_heart(table: pd.DataFrame, samples: str) -> dict[str, Any] | None:
    """Whether the samples that were trained on score as those held out do; None where too few were held out to say."""
    held = table["held_out"].to_numpy(dtype=bool)
    scores = table["score"].to_numpy(dtype=float)
    if held.sum() < _FEWEST_HELD or held.all() or not np.isfinite(scores).all():
        return None
    higher = metrics.auroc(held, scores)
    message = f"held-out {samples} score above the training ones in {higher:.0%} of pairs"
    apart = max(higher, 1 - higher) > _APART
    if apart:
        message += (
            ". The detector has memorised its training samples. The threshold holds, because it comes from held-out "
            "ones; the scores of training samples say little about new ones. With --cross 5 each sample is scored by "
            "a detector that was trained without it"
        )
    return _check(HEART, int(apart), message, [])


def _check(name: str, count: int, message: str, lines: Sequence[str]) -> dict[str, Any]:
    more = [f"and {len(lines) - _LISTED} more"] if len(lines) > _LISTED else []
    shown = [*lines[:_LISTED], *more]
    return {"name": name, "ok": not count, "count": count, "message": message, "examples": shown, "command": ""}


def _by_feature(data: Data, samples: Tensor) -> Tensor:
    """Samples as [d, n, values]: rows and spectra have one value a feature, images as many as pixels."""
    return data.modality.by_place(samples).permute(2, 0, 1)


def _feature_names(data: Data) -> list[str]:
    return list(data.modality.feature_names(data.sample_shape, data.features))

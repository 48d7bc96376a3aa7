"""Scores of training samples by detectors that have not learnt them: every sample can calibrate, and every sample
trains.

The samples are dealt into parts; for each a detector is trained on all the others and scores it. A detector trained on
all samples gives new normals scores like these, a little lower in the mean, since it has learnt more. A detector that
can tell what a training sample would score as a new one needs no further training (the jackknife), and few samples lose
nothing then. That new normals keep a threshold made of these scores is what stable detectors give, not a theorem of
every one (Barber et al. 2021); `conformal.cross_p_values` has one, and needs the detectors of all parts for every new
sample.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..core import inference
from ..core.data import Data
from ..core.detector import ClosedForm, Detector, OwnScale
from ..errors import InputError
from ..weights.steps import usual_deviation
from .local_scores import LocalScores
from .loop import Outcome


def parts_of(samples: int, parts: int, seed: int = 0, things: Tensor | None = None) -> Tensor:
    """The part [n] of each sample, dealt at random, their sizes equal up to 1.

    With `things` [n], what each sample shows, samples of one thing are in one part: large things are dealt first, each
    to the smallest part. Of few things there are fewer parts, at least 2 things in each.

    Raises:
        InputError: there are not 2 samples for every part.
    """
    if things is not None:
        return _parts_of_things(things, parts, seed)
    if parts < 2 or samples < 2 * parts:
        most = samples // 2
        raise InputError(
            f"at least 2 parts of 2 samples or more are needed: got {parts} for {samples} samples",
            f"at most {most} parts" if most > 1 else "give more samples",
        )
    order = torch.randperm(samples, generator=torch.Generator().manual_seed(seed))
    return torch.empty(samples, dtype=torch.long).index_copy_(0, order, torch.arange(samples) % parts)


def _parts_of_things(things: Tensor, parts: int, seed: int) -> Tensor:
    _, thing, size = things.unique(return_inverse=True, return_counts=True)
    if len(size) < _FEWEST_SAMPLES:
        raise InputError(
            f"samples of one thing are held out together, and {len(things)} samples show {len(size)} things",
            f"at least {_FEWEST_SAMPLES} things are needed",
        )
    filled = [0] * min(parts, len(size) // 2)
    part = torch.empty(len(size), dtype=torch.long)
    order = torch.randperm(len(size), generator=torch.Generator().manual_seed(seed))
    for each in order[size[order].argsort(descending=True, stable=True)].tolist():
        part[each] = filled.index(min(filled))
        filled[int(part[each])] += int(size[each])
    return part[thing]


@dataclass(frozen=True, eq=False)
class CrossFitted:
    """Scores [n] (float64) of each sample by a detector that has not learnt it, and what `look` found of them, part by
    part."""

    scores: np.ndarray
    looked: list[Any] = field(default_factory=list)


def jackknife(fitted: Fitted) -> CrossFitted | None:
    """The scores of the training samples as new ones, without a further training; None where its detector cannot tell
    them."""
    known = fitted.detector.trained.left_out_is_new and not fitted.detector.has_maps
    return CrossFitted(fitted.scores.double().numpy()) if known else None


def crossed(
    fit: Fit, data: Data, base: Tensor, folds: int, seed: int, final: Fitted, refined: bool = False,
    look: Callable[[Detector, Data], Any] | None = None, things: Tensor | None = None,
) -> CrossFitted:  # fmt: skip
    """Scores of the training samples as new ones, of so many folds: `left_out`, or `jackknife` where each sample is a
    fold, what was trained was not `refined`, and its detector can tell. Samples of one of the `things` [n] are left out
    together, in a few folds where each sample would be one."""
    if things is not None and folds >= len(data):
        folds = _FEW_FOLDS
    alone = jackknife(final) if folds >= len(data) and not refined else None
    if alone is not None:
        return alone
    part = parts_of(len(data), folds, seed, things)
    return left_out(fit, data, base, part, seed, final, look, wholly=things is not None)


def left_out(
    fit: Fit, data: Data, base: Tensor, part: Tensor, seed: int, final: Fitted | None = None,
    look: Callable[[Detector, Data], Any] | None = None, wholly: bool = False,
) -> CrossFitted:  # fmt: skip
    """Each sample scored by the detector that was trained without its part [n].

    With `final`, which was trained on all samples, scores are put on the scale of its own, `wholly` where training
    samples are copies of each other. `look` is called with each detector and the samples that it has not seen.
    """
    scores = np.empty(len(data))
    looked = []
    for number in range(int(part.max()) + 1):
        inside, outside = (part != number).nonzero().flatten(), (part == number).nonzero().flatten()
        fitted, unseen = fit(data.take(inside), base[inside], seed + number + 1), data.take(outside)
        factor = 1.0 if final is None else _on_scale(fitted, final, wholly)
        scores[outside.numpy()] = factor * inference.score(fitted.detector, unseen).double().numpy()
        looked += [] if look is None else [look(fitted.detector, unseen)]
    return CrossFitted(scores, looked)


def _on_scale(fitted: Fitted, final: Fitted, wholly: bool) -> float:
    """Put the scores of one training on the scale of another; by what they still have to be multiplied.

    Networks of one-class losses choose their own scale. Local scores count in deviations of the training samples' cues:
    of few samples with many features these are small, and differ much between trainings, where new samples' do not.
    """
    if isinstance(fitted.detector, OwnScale) and type(fitted.detector) is type(final.detector):
        fitted.detector.count_as(final.detector, wholly)
        return 1.0
    middles = [float(each.scores.double().median()) for each in (final, fitted)]
    positive = min(float(each.scores.min()) for each in (final, fitted)) >= 0 and min(middles) > 0
    return middles[0] / middles[1] if positive else 1.0


@dataclass(frozen=True, eq=False)
class Fitted:
    """A trained detector, the outcome of its training, and the scores [n] of its training samples as it gives them,
    which are local where the detector's are."""

    detector: Detector
    outcome: Outcome
    scores: Tensor

    @classmethod
    def read_by(
        cls, rule: LocalScores | None, detector: Detector, outcome: Outcome, data: Data, base: Tensor, seed: int
    ) -> Fitted:
        """What was trained on `data` with base weights [n], with local scores where there is a rule."""
        if rule is None:
            return cls(detector, outcome, outcome.scores)
        # What a closed-form detector says of its training samples is what it said of them left out.
        raw = outcome.scores if isinstance(detector, ClosedForm) else None
        scored = rule.fit(detector, data, seed, base, raw)
        return cls(scored, outcome, scored.training_scores)


# Trains a fresh detector on samples with base weights [n] and a seed.
Fit = Callable[[Data, Tensor, int], Fitted]
_FEWEST_SAMPLES, _FEW_FOLDS = 4, 5


def out_of_fold(
    fit: Fit,
    data: Data,
    base: Tensor,
    parts: int = 3,
    seed: int = 0,
    read: Callable[[Tensor], Tensor] | None = None,
    on_others: bool = False,
) -> Tensor:
    """Mean score [n] of each sample by detectors trained on parts that it is not in.

    `read` puts one detector's scores of the samples that it did not see on a scale; by default their robust z-score.
    With `on_others` each detector is trained on all parts but one and judges that one, which takes longer and lets it
    know more normals.

    Raises:
        InputError: too few samples to deal out.
    """
    if parts < 2:
        raise InputError(f"at least 2 parts are needed: got {parts}")
    if len(data) < _FEWEST_SAMPLES or len(data) < 2 * parts:
        raise InputError(f"{parts} parts need at least {max(_FEWEST_SAMPLES, 2 * parts)} samples: got {len(data)}")
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed))
    total = torch.zeros(len(data))
    for number, part in enumerate(order.tensor_split(parts)):
        inside = part.sort().values
        outside = torch.ones(len(data), dtype=torch.bool).index_fill_(0, inside, False).nonzero().flatten()
        learnt, judged = (outside, inside) if on_others else (inside, outside)
        fitted = fit(data.take(learnt), base[learnt], seed + number + 1)
        total[judged] += (read or _standing)(inference.score(fitted.detector, data.take(judged)))
    return total if on_others else total / (parts - 1)


def _standing(scores: Tensor) -> Tensor:
    return (scores - scores.median()) / usual_deviation(scores).clamp_min(1e-12)

"""Training in rounds on data that may hold unnoticed anomalies: see who does not belong, and start again.

`Purify` drops samples that detectors which did not see them find anomalous (LLBNAD, Zhang et al., arXiv 2508.07441; by
votes, SRR, Yoon et al., TMLR 2022). `Iterate` keeps all samples and weighs each by the scores of the round before
(IRAD, Kim et al., TNNLS 2024). Both work with every detector, weighting and reading of scores, because all they know of
training is a function. Both take a rare kind of normal for anomalous unless the scores that they are given are fair to
it, or a person has settled that it is normal: samples of the names in `settled` keep their weight.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

import torch
from torch import Tensor

from ..core import inference
from ..core.bounds import Bounds, Chance
from ..core.data import Data
from ..core.embedding import embedding_of
from ..core.registry import Value, kind_of, parse_one, register
from ..errors import InputError
from ..weights.steps import Logistic, rejection_threshold
from ..weights.weighting import Context, Step, Weighting
from . import fit as training_fit
from .cross_fitting import Fit, Fitted, out_of_fold

# Scores below this quantile never speak against a sample: an estimate must not eat up the data.
_LEAST_KEPT = 0.5


@dataclass(frozen=True, eq=False)
class Refined:
    """What a refinement leaves.

    Attributes:
        fitted: the last training, or the best; over all samples [n], also those that it did not see.
        weights: [n] base weights that it was trained with; 0 is dropped.
        suspicion: [n] what the weights were made from; higher is more suspicious, NaN was absent (base weight 0).
        rounds: a row a training: what it was and how much it changed.
    """

    fitted: Fitted
    weights: Tensor
    suspicion: Tensor
    rounds: list[dict[str, Any]] = field(default_factory=list)


@register("refinement", "Purify")
@dataclass(frozen=True, repr=False)
class Purify(Value):
    """Drop the samples that are most anomalous to detectors which were not trained on them, then train on the rest.

    The samples are dealt into `parts`; a detector is trained on each, and a sample's suspicion is its mean score, in
    units of each detector's own spread, by those that did not see it. The published code lets each detector judge its
    own samples too, and selects other samples than it scored; here original places are kept throughout.

    Args:
        parts: how many detectors are trained before the last.
        keep: share of samples kept; None drops what is out of line (see `Reject`), whatever its share.
        votes: instead of the mean: drop what at least this share of the judging detectors puts among the 1 - `keep`
            highest; needs `keep`.
        judge: another detector that judges, such as "nearest-neighbours"; "" is the one that is purified.
    """

    parts: Annotated[int, Bounds(at_least=2)] = 3
    keep: Chance | None = None
    votes: Annotated[float, Bounds(above=0, at_most=1)] | None = None
    judge: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.votes is not None and self.keep is None:
            raise InputError("Purify votes need keep", "Purify(keep=0.8, votes=1.0)")
        _check_judge(self.judge)

    def __call__(
        self, fit: Fit, data: Data, base: Tensor, seed: int = 0, settled: Collection[str] = frozenset()
    ) -> Refined:
        return _of_present(lambda data, base: self._purified(fit, data, base, seed, settled), data, base)

    def _purified(self, fit: Fit, data: Data, base: Tensor, seed: int, settled: Collection[str]) -> Refined:
        judge = _judge(self.judge) if self.judge else fit
        suspicion = (self._voted if self.votes else self._mean)(judge, data, base, seed)
        kept = (suspicion <= self._limit(suspicion)) | _among(data, settled)
        index = kept.nonzero().flatten()
        fitted = fit(data.take(index), base[index], seed)
        rounds: list[dict[str, Any]] = [{"round": f"part {part + 1} of {self.parts}"} for part in range(self.parts)]
        rounds.append({"round": "kept samples", "samples": len(index), "dropped": len(data) - len(index)})
        return Refined(_over_all(fitted, data, index), base * kept, suspicion, rounds)

    def _limit(self, suspicion: Tensor) -> float:
        if self.votes:
            return self.votes - 1e-6
        if self.keep is not None:
            return float(suspicion.kthvalue(max(2, round(self.keep * len(suspicion)))).values)
        return max(rejection_threshold(suspicion), float(suspicion.quantile(_LEAST_KEPT)))

    def _mean(self, fit: Fit, data: Data, base: Tensor, seed: int) -> Tensor:
        return out_of_fold(fit, data, base, self.parts, seed)

    def _voted(self, fit: Fit, data: Data, base: Tensor, seed: int) -> Tensor:
        """Share [n] of the judging detectors that put a sample among their 1 - keep highest."""
        assert self.keep is not None
        keep = self.keep
        return out_of_fold(fit, data, base, self.parts, seed, lambda scores: (scores > scores.quantile(keep)).float())


@register("refinement", "Iterate")
@dataclass(frozen=True, repr=False)
class Iterate(Value):
    """Train, weigh each sample by its score, and train afresh, until the halves of the ranking stop exchanging samples.

    Between rounds, the share of samples whose rank crosses the middle is counted. Rounds end when it is below `settled`
    or rises again, and the detector of the round with the fewest crossings is kept (the published stop rule, with
    ranks, and from the second round on, when there are two rankings to compare). Each round begins from scratch; rounds
    that go on from the network of the round before are what the step as a weighting is, `weighting="Logistic()"`.

    Args:
        step: from scores to weights.
        rounds: the most trainings.
        settled: share of crossings that ends the rounds.
        judge: another detector whose scores the rounds follow, such as "nearest-neighbours"; the detector itself is
            then trained once, with the last weights. "" is the detector itself.
    """

    step: Step = Logistic()  # noqa: RUF009 (a frozen value)
    rounds: Annotated[int, Bounds(at_least=2)] = 5
    settled: float = 0.01
    judge: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not callable(self.step) or kind_of(self.step) == "density":
            raise InputError(f"Iterate step must be a weighting step: got {self.step!r}", "such as Logistic()")
        _check_judge(self.judge)

    def __call__(
        self, fit: Fit, data: Data, base: Tensor, seed: int = 0, settled: Collection[str] = frozenset()
    ) -> Refined:
        return _of_present(lambda data, base: self._iterated(fit, data, base, seed, settled), data, base)

    def _iterated(self, fit: Fit, data: Data, base: Tensor, seed: int, settled: Collection[str]) -> Refined:
        if not self.judge:
            return self._rounds(fit, data, base, seed, settled)
        judged = self._rounds(_judge(self.judge), data, base, seed, settled)
        return replace(judged, fitted=fit(data, judged.weights, seed))

    def _rounds(self, fit: Fit, data: Data, base: Tensor, seed: int, settled: Collection[str]) -> Refined:
        embedding = embedding_of(data) if Weighting(self.step).needs_embedding else None
        known, previous = _among(data, settled), None
        fitted = fit(data, base, seed)
        rows: list[dict[str, Any]] = [{"round": 1, "crossings": None}]
        best: Refined | None = None
        fewest = math.inf
        for number in range(2, self.rounds + 1):
            before = fitted.scores
            previous = self.step(torch.ones_like(before), Context(before, before, embedding, previous, number - 2))
            weights = base * torch.where(known, 1.0, previous)
            fitted = fit(data, weights, seed + number - 1)
            crossings = _crossings(before, fitted.scores)
            rows.append({"round": number, "crossings": crossings})
            if crossings > fewest:
                break
            best, fewest = Refined(fitted, weights, before, rows), crossings
            if crossings < self.settled:
                break
        assert best is not None  # the second round has always fewer crossings than infinity
        return best


def _check_judge(spelling: str) -> None:
    """Raise an InputError unless this is "" or spells a detector that needs no labelled anomalies."""
    if spelling and parse_one(spelling, "detector").needs_labels:
        raise InputError(f"{spelling} needs labelled anomalies: it cannot judge", "such as nearest-neighbours")


def _judge(spelling: str) -> Fit:
    """What trains a fresh detector of this spelling, unweighed but for base weights, and in the default budget."""

    def fit(data: Data, base: Tensor, seed: int) -> Fitted:
        detector = parse_one(spelling, "detector")
        outcome = training_fit.fit(detector, data, base_weights=base, seed=seed)
        return Fitted(detector, outcome, outcome.scores)

    return fit


def parse(text: str) -> Purify | Iterate | None:
    """The refinement that prints as `text`; "" is none."""
    return parse_one(text, "refinement") if text.strip() else None


def in_rounds(fit: Fit, rounds: Purify | Iterate | None, settled: Collection[str] = frozenset()) -> Fit:
    """What trains as `fit` does, in these rounds where there are any."""
    if rounds is None:
        return fit
    return lambda data, base, seed: rounds(fit, data, base, seed, settled).fitted


def _among(data: Data, settled: Collection[str]) -> Tensor:
    """Which samples [n] have one of these names."""
    return torch.tensor([str(name) in settled for name in data.names])


def _crossings(before: Tensor, after: Tensor) -> float:
    """Share of samples that are in the upper half of one ranking and not of the other."""
    upper = [scores.argsort(stable=True).argsort() >= len(scores) / 2 for scores in (before, after)]
    return float((upper[0] != upper[1]).float().mean())


def _of_present(refine: Callable[[Data, Tensor], Refined], data: Data, base: Tensor) -> Refined:
    """What a refinement makes of the samples that have a base weight; the others have no say in it and are scored."""
    index = (base != 0).nonzero().flatten()
    if len(index) == len(data):
        return refine(data, base)
    found = refine(data.take(index), base[index])
    weights = torch.zeros_like(base).index_copy_(0, index, found.weights)
    suspicion = torch.full((len(data),), math.nan).index_copy_(0, index, found.suspicion.float())
    return Refined(_over_all(found.fitted, data, index), weights, suspicion, found.rounds)


def _over_all(fitted: Fitted, data: Data, index: Tensor) -> Fitted:
    """What was fitted to the samples at `index` as of all samples; the others are scored, and have no weight."""
    rest = torch.ones(len(data), dtype=torch.bool).index_fill_(0, index, False).nonzero().flatten()
    if not len(rest):
        return fitted
    others = data.take(rest)
    plain = inference.score(fitted.detector.trained, others)

    def whole(values: Tensor, filling: Tensor) -> Tensor:
        return torch.empty(len(data)).index_copy_(0, index, values.float()).index_copy_(0, rest, filling.float())

    outcome = replace(
        fitted.outcome,
        scores=whole(fitted.outcome.scores, plain),
        first_scores=whole(fitted.outcome.first_scores, plain),
        weights=whole(fitted.outcome.weights, torch.zeros(len(rest))),
    )
    return Fitted(fitted.detector, outcome, whole(fitted.scores, inference.score(fitted.detector, others)))

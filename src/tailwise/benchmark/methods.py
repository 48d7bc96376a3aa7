"""Methods: a fitted detector with its weighting and scores, or a yardstick, as something that scores a draw."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from sklearn.ensemble import IsolationForest
from sklearn.metrics import pairwise_distances_chunked
from sklearn.neighbors import LocalOutlierFactor, NearestNeighbors
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from ..calibration import clustering, conformal
from ..core import embedding, inference, registry
from ..core.data import Data
from ..core.detector import Detector
from ..errors import InputError
from ..training import cleaning, local_scores, suspects
from ..training import fit as training_fit
from ..training.cross_fitting import Fitted
from ..weights.default import parse_weighting
from .draws import Draw
from .measures import FALSE_ALARMS
from .suites import ORACLE, Method, Suite

_NEIGHBOURS, _LOF_NEIGHBOURS = 5, 20
_QUANTILE = 0.95
# On the scale of local scores, where 3 is far out.
_FAR_OUT, _MOST_FAR_OUT = 5.0, 0.01
# Scores [q] of data, higher more anomalous; of the training samples themselves, each left out, when given None.
Scorer = Callable[[Data | None], np.ndarray]


class Missing(InputError):
    """This method cannot be used on this draw, or not by this version of the library."""


def check(suite: Suite, draw: Draw, method: Method) -> None:
    """Raise Missing before any work for a method that cannot be used: an unknown step, or kinds that are not known."""
    text = suite.weighting_text(method.weighting)
    if draw.train_groups is None and (text == ORACLE or method.detector == "per-group kNN"):
        raise Missing("the kinds of normal are not known")
    try:
        local_scores.parse(method.scores)
        cleaning.parse(method.refinement)
        if text != ORACLE:
            parse_weighting(text)
    except InputError as error:
        raise Missing(error.message) from error


def fit(suite: Suite, draw: Draw, method: Method, seed: int) -> Fitted:
    """The detector of a method trained on a draw, in the suite's budget. It may raise what `training.fit` does.

    Where weighting and scores are "auto" it is trained as `tailwise fit` trains it without options: no weights beside
    local scores, and suspects left out. Its scores are local there, and where it is refined, because rounds read scores
    as they will be read; `with_scores` makes those of others local.
    """
    text = suite.weighting_text(method.weighting)

    def new() -> Detector:
        return registry.parse_one(suite.detector_spelled(method.detector), "detector")

    rule = local_scores.choose(method.scores, draw.train.modality, new())
    default = method.is_default and rule is not None
    weighting = parse_weighting("" if text == ORACLE or default else text, draw.train.modality)
    base = _balanced(draw) if text == ORACLE else torch.ones(len(draw.train))
    rounds = cleaning.parse(method.refinement)
    if default:
        base[suspects.find(draw.train)] = 0
    elif not rounds:
        rule = None

    def train(data: Data, w: Tensor, seed: int) -> Fitted:
        detector = new()
        anomalies = draw.labelled if detector.needs_labels else None
        outcome = training_fit.fit(
            detector, data, weighting, suite.training, seed=seed, base_weights=w, anomalies=anomalies
        )
        return Fitted.read_by(rule, detector, outcome, data, w, seed=0)

    return cleaning.in_rounds(train, rounds)(draw.train, base, seed)


def with_scores(fitted: Fitted, data: Data, spelling: str) -> Fitted:
    """What was fitted to `data` with local scores, if this spelling gives them to such samples."""
    chosen = local_scores.choose(spelling, data.modality, fitted.detector)
    if chosen is None or fitted.detector.trained is not fitted.detector:
        return fitted
    detector = chosen.fit(fitted.detector, data)
    return Fitted(detector, fitted.outcome, detector.training_scores)


def scorer(fitted: Fitted) -> Scorer:
    """The scores of a fitted detector."""
    return lambda data: (fitted.scores if data is None else inference.score(fitted.detector, data)).double().numpy()


def per_cluster_threshold(draw: Draw, held_scores: np.ndarray, training_scores: np.ndarray) -> float:
    """The raised threshold for the kinds that are found among the training samples."""
    return raised_threshold(held_scores, training_scores, clustering.find(embedding.embedding_of(draw.train)).numpy())


def raised_threshold(held_scores: np.ndarray, training_scores: np.ndarray, groups: np.ndarray) -> float:
    """One threshold raised until it should hold for every cluster of the training samples.

    It is the highest of that of the held-out scores and of the same for the training scores of each kind large enough,
    both local. It costs no training and promises nothing, because training scores are a little low. Scores above 5,
    far out for any kind, have no say; where they are more than 1 % of all, no kind has a say of its own.
    """
    if len(training_scores) != len(groups):
        raise InputError(f"one kind a training score: got {len(groups)} for {len(training_scores)}")
    threshold = conformal.conformal_threshold(held_scores, FALSE_ALARMS)
    usual = training_scores <= _FAR_OUT
    if 1 - usual.mean() > _MOST_FAR_OUT:
        return threshold
    scores_of_group = [training_scores[usual & (groups == group)] for group in np.unique(groups[groups >= 0])]
    enough = [scores for scores in scores_of_group if conformal.reachable(len(scores)) <= FALSE_ALARMS]
    return max([threshold, *(conformal.conformal_threshold(scores, FALSE_ALARMS) for scores in enough)])


def yardstick(draw: Draw, name: str) -> Scorer:
    """A reference method on rows with standardised features, or on pixels or bands as they are."""
    scale = _scaler(draw.train)
    score = _YARDSTICKS[name](scale(draw.train), draw)
    return lambda data: score(None if data is None else scale(data))


def _lof(train: np.ndarray, draw: Draw) -> Callable[[np.ndarray | None], np.ndarray]:
    """Local outlier factor (Breunig et al. 2000), 20 neighbours."""
    count = min(_LOF_NEIGHBOURS, len(train) - 1)
    model = LocalOutlierFactor(n_neighbors=count, novelty=True).fit(train)
    return lambda query: -model.negative_outlier_factor_ if query is None else -model.score_samples(query)


def _knn(train: np.ndarray, draw: Draw) -> Callable[[np.ndarray | None], np.ndarray]:
    """Distance to the fifth neighbour (Ramaswamy et al. 2000)."""
    return lambda query: _distance(train, query)


def _per_group_knn(train: np.ndarray, draw: Draw) -> Callable[[np.ndarray | None], np.ndarray]:
    """Told the kinds: each kind's fifth-neighbour distance over its own leave-one-out 95 % quantile, the smallest."""
    group_of = _groups_without_hidden(train, draw)
    groups = [train[group_of == group] for group in np.unique(group_of)]
    # A kind of one has no distance within; it is read on the scale of the others.
    scales = [np.quantile(_distance(group, None), _QUANTILE) if len(group) > 1 else np.nan for group in groups]
    usual = float(np.nanmedian(scales)) if np.isfinite(scales).any() else 1.0
    limits = [scale if scale > 0 else usual for scale in scales]

    def score(query: np.ndarray | None) -> np.ndarray:
        asked = train if query is None else query
        return np.min([_distance(g, asked) / limit for g, limit in zip(groups, limits, strict=True)], axis=0)

    return score


def _normalised_knn(train: np.ndarray, draw: Draw) -> Callable[[np.ndarray | None], np.ndarray]:
    """The smallest ratio of the distance to a training sample and the mean distance of that to its own 5 neighbours.

    After local density-based score normalisation (Wilkinghoff et al. 2025); how many neighbours is our choice.
    """
    distances = NearestNeighbors(n_neighbors=min(_NEIGHBOURS, len(train) - 1)).fit(train).kneighbors()[0].mean(1)
    usual = np.maximum(distances, 1e-12 + 0.01 * np.median(distances))  # copies have no distance to divide by

    def score(query: np.ndarray | None) -> np.ndarray:
        pairs = pairwise_distances_chunked(train if query is None else query, train, reduce_func=_ratio(query is None))
        return np.concatenate(list(pairs))

    def _ratio(to_themselves: bool) -> Callable[[np.ndarray, int], np.ndarray]:
        def smallest(block: np.ndarray, start: int) -> np.ndarray:
            if to_themselves:
                block[np.arange(len(block)), np.arange(start, start + len(block))] = np.inf
            return (block / usual).min(1)

        return smallest

    return score


def _isolation_forest(train: np.ndarray, draw: Draw) -> Callable[[np.ndarray | None], np.ndarray]:
    """Isolation forest (Liu et al. 2008)."""
    model = IsolationForest(random_state=0).fit(train)
    return lambda query: -model.score_samples(train if query is None else query)


_YARDSTICKS = {
    "LOF": _lof,
    "isolation forest": _isolation_forest,
    "kNN": _knn,
    "normalised kNN": _normalised_knn,
    "per-group kNN": _per_group_knn,
}


def _distance(train: np.ndarray, query: np.ndarray | None) -> np.ndarray:
    count = min(_NEIGHBOURS, len(train) - (query is None))
    return NearestNeighbors(n_neighbors=count, algorithm="brute").fit(train).kneighbors(query)[0][:, -1]


def _balanced(draw: Draw) -> Tensor:
    """Weights that give each kind the same total; a hidden anomaly counts as the kind that it is nearest to."""
    groups = _groups_without_hidden(_scaler(draw.train)(draw.train), draw)
    _, place, count = np.unique(groups, return_inverse=True, return_counts=True)
    return torch.from_numpy(1 / count[place])


def _groups_without_hidden(train: np.ndarray, draw: Draw) -> np.ndarray:
    assert draw.train_groups is not None  # `check` has seen to it
    groups = draw.train_groups.copy()
    hidden = groups == ""
    if hidden.any():
        near = NearestNeighbors(n_neighbors=1).fit(train[~hidden]).kneighbors(train[hidden])[1][:, 0]
        groups[hidden] = groups[~hidden][near]
    return groups


def _scaler(train: Data) -> Callable[[Data], np.ndarray]:
    """Features differ in their units of measure and are standardised; pixels and bands do not and are not."""
    if not train.modality.units_differ:
        return _rows
    scaler = StandardScaler().fit(_rows(train))
    return lambda data: scaler.transform(_rows(data))


def _rows(data: Data) -> np.ndarray:
    return torch.cat([batch.samples.flatten(1) for batch in data.batches(4_096)]).numpy()

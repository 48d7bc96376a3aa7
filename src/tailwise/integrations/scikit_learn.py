"""The scikit-learn faces: any estimator, weighed; and tailwise's own detectors.

Everywhere else in this library a higher score is more anomalous. Here alone the sign is scikit-learn's, because its
estimator checks demand it: `score_samples` and `decision_function` are lower for more anomalous samples, and `predict`
gives -1 for anomalies and 1 for normals.
"""

from __future__ import annotations

import copy
import warnings
from numbers import Integral
from typing import Any, Self

import numpy as np
import pandas as pd
import torch
from sklearn.base import BaseEstimator, MetaEstimatorMixin, OutlierMixin, clone
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, has_fit_parameter, validate_data
from torch import Tensor

from ..calibration import conformal
from ..core import messages, registry
from ..core.data import Batch, Data
from ..core.detector import Detector
from ..core.modality import ROW
from ..core.problem import Labelled
from ..errors import InputError
from ..numerics import centring, counting, neighbours
from ..training import cleaning, cross_fitting, suspects
from ..training import fit as training_fit
from ..training.local_scores import LocalScores, choose
from ..training.options import Training
from ..weights.default import choose_weighting, parse_weighting
from ..weights.weighting import Context, Weighting, effective_sample_size

_SEEDS = 2**31 - 1
_LAST_DIGITS = 1e-9
_SCORE_BATCH = 4_096
_UNLABELLED = "unlabelled"


class _Thresholded(OutlierMixin, BaseEstimator):
    """What both faces share once they have an `offset_` and native scores."""

    offset_: float

    def _scores(self, X: np.ndarray) -> np.ndarray:
        """Native scores [n], higher is more anomalous."""
        raise NotImplementedError

    def score_samples(self, X: Any) -> np.ndarray:
        """[n], lower is more anomalous."""
        check_is_fitted(self)
        return -self._scores(_checked(self, X, reset=False))

    def decision_function(self, X: Any) -> np.ndarray:
        """[n], below 0 for anomalies."""
        return self.score_samples(X) - self.offset_

    def predict(self, X: Any) -> np.ndarray:
        """[n], -1 for anomalies and 1 for normals."""
        return np.where(self.decision_function(X) >= 0, 1, -1)

    def scores_frame(self, X: Any) -> pd.DataFrame:
        """What `tailwise score` gives: columns score (higher is more anomalous), threshold and flagged.

        The rows are those of X, with its index where it is a DataFrame.
        """
        scores = -self.score_samples(X)
        index = X.index if isinstance(X, pd.DataFrame) else None
        limit = -self.offset_
        return pd.DataFrame({"score": scores, "threshold": limit, "flagged": scores > limit}, index=index)


class Reweighted(MetaEstimatorMixin, _Thresholded):
    """Fit an estimator, weigh the samples by its scores, fit it anew, and so on.

    The weights reach an estimator whose `fit` takes `sample_weight` that way, and any other by resampling. PyOD's
    detectors fit as they are. IsolationForest draws by the weights, so they say nothing to a forest whose
    `max_samples` takes every sample, as it does by default up to 256.

    Args:
        estimator: anything with `score_samples` or `decision_function` after `fit(X)`; LocalOutlierFactor needs
            `novelty=True`.
        weighting: a Weighting or its spelling.
        rounds: how often samples are weighed and the estimator is fitted again. "auto" moves a little in each; a
            weighting without Accumulate forgets the round before and is best given one.
        resample: "thin" keeps each sample at most once, as many as the effective sample size, so that no distance
            becomes 0 where neighbours are counted; "copy" draws as many samples as there are, heavy ones repeatedly;
            None passes `sample_weight` where `fit` takes it and thins where it does not.
        contamination: share of training samples beyond the threshold `offset_`.
        random_state: of the resampling, and of an estimator that has a random state and leaves it None.

    Attributes:
        estimator_: the last fitted clone.
        weights_: [n] of mean 1, those that it was fitted with.
        offset_: `score_samples` below it are anomalies.

    Examples:
        >>> from sklearn.neighbors import KernelDensity
        >>> X = np.random.default_rng(0).normal(size=(100, 2))
        >>> model = Reweighted(KernelDensity()).fit(X)
        >>> model.predict([[0.0, 0.0], [9.0, 9.0]])
        array([ 1, -1])
    """

    def __init__(
        self,
        estimator: Any,
        weighting: Weighting | str = "auto",
        rounds: int = 5,
        resample: str | None = None,
        contamination: float = 0.05,
        random_state: Any = None,
    ) -> None:
        self.estimator = estimator
        self.weighting = weighting
        self.rounds = rounds
        self.resample = resample
        self.contamination = contamination
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> Self:
        """Fit to samples X [n, d]; y is not used.

        Raises:
            InputError: an option is off, or the estimator has no scores.
        """
        self._check_options()
        X = _checked(self, X, reset=True)
        weighting = parse_weighting(self.weighting) if isinstance(self.weighting, str) else self.weighting
        seed = _drawn_seed(self.random_state)
        start = float(np.random.default_rng(seed).uniform())
        embedding = neighbours.principal_components(torch.tensor(X)) if weighting.needs_embedding else None
        estimator, weights = self._fitted(X, None, seed, start), torch.ones(len(X), dtype=torch.float64)
        cache: dict[int, Tensor] = {}
        for round in range(self.rounds if weighting.steps else 0):
            scores = torch.from_numpy(_training_scores(estimator, X, round > 0 and self.resample == "copy"))
            previous = weights if round else None
            weights = weighting(Context(scores, scores, embedding, previous, round, cache))
            estimator = self._fitted(X, weights, seed, start)
        self.estimator_, self.weights_ = estimator, weights.numpy()
        self.offset_ = float(np.percentile(-native_scores(estimator, X), 100 * self.contamination))
        return self

    def _scores(self, X: np.ndarray) -> np.ndarray:
        return native_scores(self.estimator_, X)

    def _fitted(self, X: np.ndarray, weights: Tensor | None, seed: int, start: float) -> Any:
        """A fresh clone, fitted with the weights."""
        estimator = clone(self.estimator)
        # The same seed in every round: then nothing but the weights differs between them.
        if estimator.get_params().get("random_state", 0) is None:
            estimator.set_params(random_state=seed)
        if weights is None:
            return estimator.fit(X)
        if self.resample is None and has_fit_parameter(estimator, "sample_weight"):
            return estimator.fit(X, sample_weight=weights.numpy())
        chosen = copies(weights.numpy(), start) if self.resample == "copy" else thinned(weights.numpy(), start)
        return estimator.fit(X[chosen])

    def _check_options(self) -> None:
        if self.resample not in (None, "thin", "copy"):
            raise InputError(f"resample must be None, 'thin' or 'copy': got {self.resample!r}")
        if not 0 < self.contamination <= 0.5:
            raise InputError(f"contamination must lie above 0 and at most at 0.5: got {self.contamination}")
        if self.rounds < 0:
            raise InputError(f"rounds must be 0 or more: got {self.rounds}")


class AnomalyDetector(_Thresholded):
    """One of tailwise's own detectors on the rows of a table.

    Args:
        detector: a registered name, a spelling such as "AutoEncoder(code=4)", or a Detector, of which a copy is used;
            "auto" is nearest-neighbours.
        weighting: a Weighting or its spelling; "auto" weighs only where weights are known to help.
        scores: how scores are read: "auto", "own" for the detector's own, or a spelling; see
            `local_scores.LocalScores`.
        false_alarms: share of new normals beyond the threshold, which comes from cross-fitting with 5 folds where fewer
            than 200 samples could be held out from training, and else from these. Of at most 500 nearest-neighbours
            leaves each out alone.
        training: a Training value; None is Training(). "unlabelled" says that nobody vouches for the rows: they are
            ranked as by `tailwise triage`, nothing is trained, and no rare kind is protected (`suspects.Oddness`). Then
            `false_alarms` is the share of the fitted rows that are flagged, whatever they are; it promises nothing of
            false alarms, which needs known normals. Only `random_state` has a say beside it.
        refine: rounds on data that may hold anomalies, such as "Purify()"; see `refine`.
        anomalies: rows [m, d] of a few known anomalies, for "dev-net" and "multi-cue".
        keep_suspects: train on suspects too; see `suspects`.
        random_state: of the networks, of the batches and of the samples that are held out.

    Attributes:
        detector_: the fitted detector, with its local scores; of unlabelled rows the fitted `Oddness`.
        centre_: [d] what is taken off the features before the detector reads them: 0 where single precision holds
            their spread.
        weights_: [n] final training weights; 0 for suspects, and for the samples held out. 1 for all unlabelled rows.
        history_, checks_: see `loop.Outcome`; a check that failed is also a warning. Empty for unlabelled rows.
        offset_: `score_samples` below it are anomalies.

    Examples:
        >>> X = np.random.default_rng(0).normal(size=(100, 2))
        >>> model = AnomalyDetector("gaussian").fit(X)
        >>> model.predict([[0.0, 0.0], [9.0, 9.0]])
        array([ 1, -1])
        >>> X[:3] = 9.0  # and nobody says which rows are odd
        >>> AnomalyDetector(training="unlabelled", false_alarms=0.03).fit_predict(X)[:4]
        array([-1, -1, -1,  1])
    """

    detector_: Detector | suspects.Oddness

    def __init__(
        self,
        detector: str | Detector = "auto",
        weighting: Weighting | str = "auto",
        scores: str = "auto",
        false_alarms: float = 0.05,
        training: Training | str | None = None,
        refine: str = "",
        anomalies: Any = None,
        keep_suspects: bool = False,
        random_state: Any = 0,
    ) -> None:
        self.detector = detector
        self.weighting = weighting
        self.scores = scores
        self.false_alarms = false_alarms
        self.training = training
        self.refine = refine
        self.anomalies = anomalies
        self.keep_suspects = keep_suspects
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> Self:
        """Fit to rows X [n, d]; y is not used.

        Warns, through the logger `tailwise`, of rows too few for the share of false alarms, and of columns that number
        the rows or tell the time.

        Raises:
            InputError: an option is off or has no say, the detector needs `anomalies` or cannot use them, or the rows
                are fewer than 2, and unlabelled ones fewer than 3.
        """
        if not 0 < self.false_alarms < 1:
            raise InputError(f"false_alarms must lie between 0 and 1: got {self.false_alarms}")
        X = _checked(self, X, reset=True)
        for text in counting.doubts(X, "X", list(getattr(self, "feature_names_in_", ()))):
            messages.warning(text)
        self.centre_ = centring.centre_of(X)
        rows = _data(X, self.centre_)
        unlabelled = self._is_unlabelled()
        # A whole number is the seed itself, so that this is the fit of the command line with the same seed.
        seed = int(self.random_state) if isinstance(self.random_state, Integral) else _drawn_seed(self.random_state)
        if unlabelled:
            return self._rank(rows, seed)
        rule = choose(self.scores, rows.modality, self._fresh_detector())
        weighting = self.weighting
        if isinstance(weighting, str):
            weighting = choose_weighting(weighting, self._fresh_detector(), rows.modality, rule is not None)
        rounds = cleaning.parse(self.refine)
        alone = self._fresh_detector().left_out_is_new and rounds is None
        folds = conformal.usual_folds(len(rows), self.false_alarms, alone)
        order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))
        count = 0 if folds else conformal.held_out_count(len(rows), self.false_alarms)
        held, kept = order.tensor_split([count])
        kept = kept.sort().values
        train = cleaning.in_rounds(self._fitter(weighting, rule), rounds)
        learnt = rows.take(kept)
        whole = self.keep_suspects or rounds is not None  # rounds find for themselves what has to go
        base = torch.ones(len(kept)) if whole else (~suspects.find(learnt)).float()
        fitted = train(learnt, base, seed)
        self.detector_, outcome = fitted.detector, fitted.outcome
        self.weights_ = np.zeros(len(rows))
        self.weights_[kept.numpy()] = outcome.weights.numpy()
        self.history_, self.checks_ = outcome.history, outcome.checks
        for check in outcome.checks:
            if not check.ok:
                warnings.warn(f"check failed: {check.name}: {check.message}", RuntimeWarning, stacklevel=2)
        if folds:
            scores = cross_fitting.crossed(train, learnt, base, folds, seed, fitted, rounds is not None).scores
        else:
            # Too few to hold any out: the training scores stand in, although they are too low for it.
            scores = _exact_scores(self.detector_, rows.take(held if len(held) else kept))
        basis = "cross-fitted" if folds else "held-out" if len(held) else ""
        if text := conformal.shortfall(len(scores), basis, self.false_alarms, "; fit more rows"):
            messages.warning(text)
        threshold = conformal.conformal_threshold(scores, self.false_alarms)
        self.offset_ = _offset(threshold, scores)
        return self

    def _is_unlabelled(self) -> bool:
        """Whether the rows have only to be ranked; then every other option must be as it comes."""
        if not isinstance(self.training, str):
            return False
        if self.training != _UNLABELLED:
            raise InputError(f"training is a Training value, None or {_UNLABELLED!r}: got {self.training!r}")
        usual = type(self)()
        for name in ("detector", "weighting", "scores", "refine", "anomalies", "keep_suspects"):
            if repr(getattr(self, name)) != repr(getattr(usual, name)):
                raise InputError(
                    f"{name} has no say where training is {_UNLABELLED!r}",
                    "leave it out, or declare the rows normal and leave training out",
                )
        return True

    def _rank(self, rows: Data, seed: int) -> Self:
        """Look at unlabelled rows all at once."""
        self.detector_ = suspects.Oddness(rows, seed)
        self.weights_, self.history_, self.checks_ = np.ones(len(rows)), [], []
        scores = self.detector_.score(rows).numpy()
        self.offset_ = _offset(float(np.quantile(scores, 1 - self.false_alarms)), scores)
        return self

    def _scores(self, X: np.ndarray) -> np.ndarray:
        rows = _data(X, self.centre_)
        if isinstance(self.detector_, suspects.Oddness):
            return self.detector_.score(rows).numpy()
        return _exact_scores(self.detector_, rows)

    def _fitter(self, weighting: Weighting, rule: LocalScores | None) -> cross_fitting.Fit:
        assert not isinstance(self.training, str)
        training = self.training or Training()
        known = None
        if self.anomalies is not None:
            anomalies = validate_data(self, self.anomalies, reset=False, dtype=[np.float64, np.float32])
            known = Labelled(_data(anomalies, self.centre_))

        def fit(data: Data, base: Tensor, seed: int) -> cross_fitting.Fitted:
            detector = self._fresh_detector()
            outcome = training_fit.fit(
                detector, data, weighting, training, seed=seed, base_weights=base, anomalies=known,
            )  # fmt: skip
            return cross_fitting.Fitted.read_by(rule, detector, outcome, data, base, seed)

        return fit

    def _fresh_detector(self) -> Detector:
        if self.detector == "auto":
            return registry.find("detector", ROW.detector)()
        if isinstance(self.detector, Detector):
            return copy.deepcopy(self.detector)
        made: Detector = registry.parse_one(self.detector, "detector")
        return made


def native_scores(estimator: Any, X: np.ndarray) -> np.ndarray:
    """Scores [n] of a fitted estimator, higher is more anomalous.

    PyOD's `decision_function` rises with the anomaly, scikit-learn's falls; PyOD's detectors are known by the
    `decision_scores_` that their base class documents.
    """
    if hasattr(estimator, "decision_scores_"):
        scores = estimator.decision_function(X)
    elif hasattr(estimator, "score_samples"):
        scores = -estimator.score_samples(X)
    elif hasattr(estimator, "decision_function"):
        scores = -estimator.decision_function(X)
    else:
        hint = "give it novelty=True" if hasattr(estimator, "novelty") else "as IsolationForest or KernelDensity have"
        raise InputError(f"{type(estimator).__name__} has neither score_samples nor decision_function", hint)
    return np.asarray(scores, dtype=np.float64)


def thinned(weights: np.ndarray, start: float) -> np.ndarray:
    """Indices of samples, each at most once and with a chance in proportion to its weight, up to 1.

    Their number is the effective sample size: all of them when the weights are equal. `start` in 0 to 1 is the only
    random number of the draw (systematic sampling, Madow 1949).
    """
    wanted = max(2, round(effective_sample_size(torch.from_numpy(weights))))
    chance = np.zeros(len(weights))
    full = np.zeros(len(weights), dtype=bool)
    while True:  # samples that are certain leave the others a larger share
        rest = weights[~full].sum()
        chance[~full] = weights[~full] * ((wanted - full.sum()) / rest) if rest > 0 else 0
        over = chance > 1
        if not over.any():
            break
        full |= over
        chance[full] = 1
    return np.flatnonzero(_counts(chance, start))


def copies(weights: np.ndarray, start: float) -> np.ndarray:
    """Indices of as many samples as there are weights, each as often as its weight says, give or take less than one."""
    return np.repeat(np.arange(len(weights)), _counts(weights / weights.mean(), start))


def _counts(expected: np.ndarray, start: float) -> np.ndarray:
    """Whole numbers [n] within 1 of the expected ones, and so are their running sums (systematic sampling)."""
    # Rounding keeps sums such as 2.9999999 from losing a sample that is certain.
    return np.diff(np.floor(np.round(np.cumsum(expected), 9) + start), prepend=np.floor(start)).astype(int)


def _training_scores(estimator: Any, X: np.ndarray, copied: bool) -> np.ndarray:
    """Native scores of the samples that the estimator was fitted on; without themselves where neighbours are counted.

    What was fitted on copies keeps the scores of as many samples, but of others than these.
    """
    for name, sign in () if copied else (("decision_scores_", 1), ("negative_outlier_factor_", -1)):
        own = getattr(estimator, name, None)
        if own is not None and len(own) == len(X):
            return sign * np.asarray(own, dtype=np.float64)
    return native_scores(estimator, X)


@torch.no_grad()
def _exact_scores(detector: Detector, rows: Data) -> np.ndarray:
    """Native scores [n] in double precision.

    In single precision a row's last digits change with the rows it is scored with, which scikit-learn's checks refuse.
    """
    exact = copy.deepcopy(detector).double().eval()
    batches = rows.batches(_SCORE_BATCH)
    return torch.cat([exact.score(Batch(b.samples.double(), b.index)).double() for b in batches]).numpy()


def _offset(threshold: float, scores: np.ndarray) -> float:
    """The limit of `score_samples` for a threshold of scores [n]."""
    # The sample that sets the threshold lies on it, and its last digits change with the rows it is scored with.
    return -float(threshold + _LAST_DIGITS * max(abs(threshold), float(np.median(np.abs(scores)))))


def _drawn_seed(random_state: Any) -> int:
    return int(check_random_state(random_state).randint(_SEEDS))


def _checked(estimator: Any, X: Any, reset: bool) -> np.ndarray:
    least = 2 if reset else 1
    X = validate_data(estimator, X, reset=reset, dtype=[np.float64, np.float32], ensure_min_samples=least)
    if len(X) and np.abs(X).max() > np.finfo(np.float32).max:
        raise InputError(f"X holds {np.abs(X).max():.3g}, which is beyond single precision", "rescale the features")
    return X


def _data(X: np.ndarray, centre: np.ndarray) -> Data:
    """Rows less their centre, taken off before they become float32."""
    values, names = torch.from_numpy(centring.about(X, centre)), [str(row) for row in range(len(X))]
    return Data(values, names, modality=ROW, centre=torch.from_numpy(centre) if centre.any() else None)

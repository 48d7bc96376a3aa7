"""PyOD's face: a detector of this library, or any scikit-learn one, where PyOD's combinations expect one of theirs.

PyOD's detectors know the scores of the rows that they were fitted on (`decision_scores_`), the score above which a row
is an outlier (`threshold_`) and which rows were (`labels_`, 1 for outliers); higher scores are more anomalous. The
other way needs no face: `Reweighted` weighs PyOD's own detectors, and `importance_weights` takes their scores.
"""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, MetaEstimatorMixin, clone
from sklearn.utils.validation import check_is_fitted

from ..errors import InputError
from .scikit_learn import native_scores


class AsPyOD(MetaEstimatorMixin, BaseEstimator):
    """An estimator with scikit-learn's signs, made to look like one of PyOD's.

    Args:
        estimator: such as `AnomalyDetector()` or `Reweighted(...)`: anything with an `offset_`, and `score_samples` or
            `decision_function`, after `fit(X)`.
        contamination: share of the rows fitted on that lie above `threshold_`, as PyOD has it; None takes the
            estimator's own threshold, which `AnomalyDetector` has from rows that it held out.

    Attributes:
        estimator_: the fitted clone.
        decision_scores_: [n] of the rows fitted on, higher is more anomalous.
        threshold_: scores above it are outliers'.
        labels_: [n], 1 for outliers and 0 for others.

    Examples:
        >>> from tailwise import AnomalyDetector
        >>> X = np.random.default_rng(0).normal(size=(100, 2))
        >>> model = AsPyOD(AnomalyDetector("gaussian"), contamination=0.1).fit(X)
        >>> int(model.labels_.sum()), model.predict([[0.0, 0.0], [9.0, 9.0]])
        (10, array([0, 1]))
    """

    def __init__(self, estimator: Any, contamination: float | None = None) -> None:
        self.estimator = estimator
        self.contamination = contamination

    def fit(self, X: Any, y: Any = None) -> Self:
        """Fit to rows X [n, d]; y is not used."""
        if self.contamination is not None and not 0 < self.contamination <= 0.5:
            raise InputError(f"contamination must lie above 0 and at most at 0.5: got {self.contamination}")
        self.estimator_ = clone(self.estimator).fit(X)
        self.decision_scores_ = self.decision_function(X)
        if self.contamination is not None:
            self.threshold_ = float(np.quantile(self.decision_scores_, 1 - self.contamination))
        elif hasattr(self.estimator_, "offset_"):
            # predict of both faces calls a row an anomaly below its offset, which is the score's negative.
            self.threshold_ = -float(self.estimator_.offset_)
        else:
            raise InputError(f"{type(self.estimator).__name__} has no threshold of its own", "give a contamination")
        self.labels_ = (self.decision_scores_ > self.threshold_).astype(int)
        return self

    def decision_function(self, X: Any) -> np.ndarray:
        """[n], higher is more anomalous."""
        check_is_fitted(self, "estimator_")
        return native_scores(self.estimator_, X)

    def predict(self, X: Any) -> np.ndarray:
        """[n], 1 for outliers and 0 for others."""
        return (self.decision_function(X) > self.threshold_).astype(int)

    def fit_predict(self, X: Any, y: Any = None) -> np.ndarray:
        """[n], `labels_` of a fit to X."""
        return self.fit(X, y).labels_

import pytest
from sklearn.ensemble import IsolationForest
from sklearn.utils.estimator_checks import parametrize_with_checks

from tailwise.estimator import AnomalyDetector, Reweighted

CHECKED = [
    Reweighted(IsolationForest(n_estimators=10), random_state=0),
    AnomalyDetector(),
    AnomalyDetector("AutoEncoder(hidden=(8,), code=2)", epochs=6, lr=1e-2),
]


@parametrize_with_checks(CHECKED)
def test_scikit_learns_own_checks_pass(estimator, check):
    check(estimator)

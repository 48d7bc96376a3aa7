import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import BaseEstimator, clone
from sklearn.cluster import KMeans
from sklearn.ensemble import IsolationForest
from sklearn.metrics import roc_auc_score
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import KernelDensity, LocalOutlierFactor, NearestNeighbors
from sklearn.svm import OneClassSVM
from sklearn.utils.estimator_checks import parametrize_with_checks

import tailwise
from tailwise.core import inference
from tailwise.core.data import Data
from tailwise.detectors.gaussian import Gaussian
from tailwise.detectors.nearest_neighbours import NearestNeighbours
from tailwise.errors import InputError
from tailwise.integrations.scikit_learn import AnomalyDetector, Reweighted, copies, native_scores, thinned
from tailwise.training import fit as training_fit
from tailwise.training.local_scores import AUTO
from tailwise.training.options import Training
from tailwise.weights.default import parse_weighting

SMALL_NET = "AutoEncoder(hidden=(8,), code=2)"
CHECKED = [
    Reweighted(IsolationForest(n_estimators=10), random_state=0),
    AnomalyDetector(),
    AnomalyDetector(SMALL_NET, training=Training(epochs=6, lr=1e-2)),
    AnomalyDetector(training="unlabelled"),
]


class Neighbourly(BaseEstimator):
    """A detector with PyOD's interface: decision_function rises with the anomaly, no sample_weight."""

    def __init__(self, k=3, contamination=0.1):
        self.k = k
        self.contamination = contamination

    def fit(self, X, y=None):
        self.rows_ = X
        self.search_ = NearestNeighbors(n_neighbors=self.k).fit(X)
        self.decision_scores_ = self.search_.kneighbors()[0][:, -1]
        self.threshold_ = np.quantile(self.decision_scores_, 1 - self.contamination)
        return self

    def decision_function(self, X):
        return self.search_.kneighbors(X)[0][:, -1]


class Recording(KernelDensity):
    """Remembers what its fit was given."""

    def fit(self, X, y=None, sample_weight=None):
        self.given_ = sample_weight
        return super().fit(X, y, sample_weight)


ESTIMATORS = [
    IsolationForest(n_estimators=20, max_samples=64),
    OneClassSVM(gamma=0.1, nu=0.1),
    KernelDensity(),
    LocalOutlierFactor(novelty=True),
    GaussianMixture(2),
    Neighbourly(),
]


def kinds(counts=(400, 100, 30), seed=0, dims=4):
    generator = np.random.default_rng(seed)
    centres = 6 * np.random.default_rng(99).normal(size=(len(counts), dims))
    return np.concatenate([c + generator.normal(size=(n, dims)) for c, n in zip(centres, counts, strict=True)])


@parametrize_with_checks(CHECKED)
def test_scikit_learns_own_checks_pass(estimator, check):
    check(estimator)


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda e: type(e).__name__)
def test_far_samples_are_anomalies_for_every_estimator_whatever_its_sign(estimator):
    model = Reweighted(estimator, random_state=0).fit(kinds())
    far = np.full((5, 4), 40.0)
    assert (model.predict(far) == -1).all()
    assert np.mean(model.predict(kinds(seed=1)) == 1) > 0.8
    assert model.score_samples(far).max() < np.median(model.score_samples(kinds()))
    assert model.weights_.mean() == pytest.approx(1)
    assert np.mean(model.predict(kinds()) == -1) == pytest.approx(0.05, abs=0.01)


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda e: type(e).__name__)
def test_the_same_seed_gives_the_same_scores_and_the_estimator_is_left_alone(estimator):
    before = clone(estimator).get_params()
    one, other = (Reweighted(estimator, random_state=3).fit(kinds()).score_samples(kinds(seed=1)) for _ in range(2))
    assert np.array_equal(one, other)
    assert estimator.get_params() == before
    assert not [name for name in vars(estimator) if name.endswith("_")]


def test_without_weighing_it_is_the_estimator_itself():
    for options in ({"rounds": 0}, {"weighting": ""}):
        model = Reweighted(IsolationForest(), random_state=0, **options).fit(kinds())
        plain = IsolationForest(random_state=model.estimator_.random_state).fit(kinds())
        assert np.array_equal(model.score_samples(kinds(seed=1)), plain.score_samples(kinds(seed=1)))
        assert (model.weights_ == 1).all()


def test_the_rare_kind_gains_weight_and_score():
    rare = slice(500, 530)
    model = Reweighted(KernelDensity(), random_state=0).fit(kinds())
    plain = KernelDensity().fit(kinds())
    assert model.weights_[rare].mean() > 1.5 > 1 > model.weights_[:400].mean()
    gain = model.score_samples(kinds(seed=1)) - plain.score_samples(kinds(seed=1))
    assert gain[rare].mean() > 0.5 > 0 > gain[:400].mean()


def test_weights_reach_a_fit_that_takes_them_and_are_drawn_by_where_none_are_taken():
    model = Reweighted(Recording(), rounds=2, random_state=0).fit(kinds())
    assert np.array_equal(model.estimator_.given_, model.weights_)
    assert Reweighted(Recording(), resample="thin", random_state=0).fit(kinds()).estimator_.given_ is None
    drawn = Reweighted(Neighbourly(), random_state=0).fit(kinds()).estimator_.rows_
    assert len(np.unique(drawn, axis=0)) == len(drawn) < 530
    drawn = Reweighted(Neighbourly(), resample="copy", random_state=0).fit(kinds()).estimator_.rows_
    assert len(np.unique(drawn, axis=0)) < len(drawn) == pytest.approx(530, abs=1)


weight_lists = st.lists(st.floats(0, 10), min_size=3, max_size=60).filter(lambda w: sum(x > 1e-3 for x in w) > 2)


@settings(max_examples=100, deadline=None)
@given(weight_lists, st.floats(0, 0.999))
def test_thinning_names_nobody_twice_and_keeps_the_effective_number(w, start):
    w = np.array(w)
    chosen = thinned(w, start)
    assert len(set(chosen)) == len(chosen)
    wanted = w.sum() ** 2 / (w**2).sum()
    assert len(chosen) == pytest.approx(max(2, wanted), abs=1.51)
    assert (w[chosen] > 0).all()


def test_draws_are_in_proportion_over_the_starts():
    w = np.array([0.0, 1.0, 1.0, 2.0, 4.0, 0.5])
    starts = (np.arange(2_000) + 0.5) / 2_000
    counts = np.mean([np.bincount(copies(w, start), minlength=6) for start in starts], axis=0)
    assert counts == pytest.approx(w / w.mean(), abs=0.01)
    kept = np.mean([np.bincount(thinned(w, start), minlength=6) for start in starts], axis=0)
    assert kept[[1, 2, 5]] == pytest.approx(kept[1] * w[[1, 2, 5]], abs=0.01)
    assert kept[4] == 1
    assert thinned(np.ones(9), 0.7).tolist() == copies(np.ones(9), 0.7).tolist() == list(range(9))


def test_training_scores_of_neighbour_methods_leave_the_sample_out():
    """With itself among its neighbours a sample's distance is one neighbour too small."""
    X = kinds()
    weighting = parse_weighting("Focal()")
    own = Neighbourly().fit(X).decision_scores_
    model = Reweighted(Neighbourly(), weighting, rounds=1, random_state=0).fit(X)
    assert np.allclose(model.weights_, own / own.mean())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"estimator": KMeans(2, n_init=1)}, "KMeans has neither score_samples nor decision_function"),
        ({"estimator": LocalOutlierFactor()}, "give it novelty=True"),
        ({"resample": "twice"}, "resample must be None, 'thin' or 'copy': got 'twice'"),
        ({"contamination": 0.7}, "contamination must lie above 0 and at most at 0.5: got 0.7"),
        ({"rounds": -1}, "rounds must be 0 or more: got -1"),
        ({"weighting": "Importence()"}, "did you mean 'Importance'"),
    ],
)
def test_what_cannot_be_reweighted_is_named(options, said):
    with pytest.raises(InputError, match=said):
        Reweighted(**{"estimator": KernelDensity(), **options}).fit(kinds())


def test_constant_samples_weigh_one_with_a_warning():
    with pytest.warns(RuntimeWarning, match="constant"):
        model = Reweighted(KernelDensity(), rounds=1).fit(np.ones((20, 3)))
    assert (model.weights_ == 1).all()


def test_native_scores_rise_with_the_anomaly():
    X, far = kinds(), np.full((1, 4), 50.0)
    for estimator in ESTIMATORS:
        fitted = clone(estimator).fit(X)
        assert native_scores(fitted, far)[0] > np.quantile(native_scores(fitted, X), 0.9)


# AnomalyDetector --------------------------------------------------------------------------------------------------


def test_the_scores_are_trainings_with_the_sign_turned():
    X = kinds()
    model = AnomalyDetector("gaussian", random_state=5, keep_suspects=True).fit(X)
    detector = Gaussian()
    data = Data(torch.tensor(X, dtype=torch.float32), range(len(X)))
    training_fit.fit(detector, data, seed=5)
    assert (model.weights_ == 1).all()
    rows = Data(torch.tensor(kinds(seed=1), dtype=torch.float32), range(530))
    fair = AUTO.fit(detector, data, seed=5)
    assert np.allclose(model.score_samples(kinds(seed=1)), -inference.score(fair, rows), atol=1e-3)
    assert np.allclose(model.score_samples(X), -fair.training_scores, atol=1e-3)
    plain = AnomalyDetector("nearest-neighbours", scores="own", random_state=5, keep_suspects=True).fit(X)
    weighed = NearestNeighbours()
    training_fit.fit(weighed, data, parse_weighting("auto"), seed=5)
    assert np.ptp(plain.weights_) > 0
    assert np.allclose(plain.score_samples(kinds(seed=1)), -inference.score(weighed, rows), rtol=1e-5)


def test_false_alarms_among_new_samples_keep_the_promise():
    shares = []
    for seed in range(20):
        model = AnomalyDetector(random_state=seed, false_alarms=0.1).fit(kinds(seed=seed))
        shares.append(np.mean(model.predict(kinds(seed=100 + seed)) == -1))
    assert np.mean(shares) == pytest.approx(0.1, abs=0.03)


@pytest.mark.parametrize("detector", ["gaussian", "nearest-neighbours", SMALL_NET])
def test_detectors_by_name_by_spelling_and_by_value(detector):
    model = AnomalyDetector(detector, training=Training(epochs=30, lr=1e-2)).fit(kinds())
    assert (model.predict(np.full((3, 4), 60.0)) == -1).all()
    assert [check.name for check in model.checks_ if not check.ok] == []
    assert len(model.history_) >= 1
    again = pickle.loads(pickle.dumps(model))
    assert np.array_equal(again.score_samples(kinds(seed=1)), model.score_samples(kinds(seed=1)))


def test_unlabelled_rows_are_ranked_as_by_triage_and_new_ones_by_the_same_rule():
    X = np.concatenate([kinds(), 30 + kinds((26,), seed=2)])
    order = np.random.default_rng(3).permutation(len(X))
    model = AnomalyDetector(training="unlabelled", false_alarms=0.05, random_state=3).fit(X[order])
    ranked = tailwise.triage(X[order], seed=3)
    np.testing.assert_allclose(-model.score_samples(X[order]), ranked["score"], rtol=1e-4, atol=1e-4)
    odd = order >= 530
    # The share is of the rows themselves, whatever they are: here the odd ones, which are nearly as many.
    flagged = model.predict(X[order]) == -1
    assert flagged.sum() == 28
    assert flagged[odd].all()
    assert (model.predict(30 + kinds((26,), seed=4)) == -1).all()
    assert (model.predict(kinds(seed=5)) == -1).mean() <= 0.05
    again = pickle.loads(pickle.dumps(model))
    assert np.array_equal(again.score_samples(X), model.score_samples(X))
    # Declared normal the same rows protect the rare kinds; unlabelled they do not.
    rare = kinds((0, 0, 200), seed=6)
    normal, unlabelled = AnomalyDetector().fit(kinds()), AnomalyDetector(training="unlabelled").fit(kinds())
    assert (unlabelled.predict(rare) == -1).mean() >= 2 * (normal.predict(rare) == -1).mean()
    with pytest.raises(InputError, match="at least 3 samples"):
        AnomalyDetector(training="unlabelled").fit(X[:2])


def test_a_given_detector_is_copied():
    detector = Gaussian(shrinkage=0.2)
    model = AnomalyDetector(detector, scores="own").fit(kinds())
    assert detector.sample_shape == ()
    assert model.detector_.shrinkage == 0.2
    assert np.array_equal(model.offset_, clone(model).fit(kinds()).offset_)


def test_a_failed_check_is_a_warning():
    with pytest.warns(RuntimeWarning, match="check failed: the loss fell"):
        AnomalyDetector(SMALL_NET, weighting="", training=Training(epochs=3, lr=1e-9)).fit(kinds())
    # Weights of scores that mean nothing are told of as well.
    with pytest.warns(RuntimeWarning) as said:
        AnomalyDetector(SMALL_NET, training=Training(epochs=3, lr=1e-9)).fit(kinds())
    assert any("the loss fell" in str(each.message) for each in said)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"detector": "deep-svd"}, "did you mean 'deep-svdd'"),
        ({"detector": "gaussian, gaussian"}, "one detector is needed"),
        ({"false_alarms": 0}, "false_alarms must lie between 0 and 1: got 0"),
        ({"training": "labelled"}, "None or 'unlabelled': got 'labelled'"),
        ({"training": "unlabelled", "detector": "gaussian"}, "detector has no say where training is 'unlabelled'"),
        ({"training": "unlabelled", "anomalies": np.ones((3, 4))}, "anomalies has no say"),
    ],
)
def test_bad_options_are_named(options, said):
    with pytest.raises(InputError, match=said):
        AnomalyDetector(**options).fit(kinds())


def test_known_anomalies_reach_the_detectors_that_learn_from_them():
    X = np.random.default_rng(0).normal(size=(300, 4))
    odd = np.random.default_rng(1).normal(size=(40, 4)) + 3
    detector = AnomalyDetector(
        "dev-net", weighting="", scores="own", training=Training(epochs=100), anomalies=odd[:10]
    ).fit(X)
    assert roc_auc_score([0] * 300 + [1] * 30, -detector.score_samples(np.concatenate([X, odd[10:]]))) > 0.95
    with pytest.raises(InputError, match="needs a few labelled anomalies"):
        AnomalyDetector("dev-net").fit(X)
    with pytest.raises(ValueError, match="4 features"):
        AnomalyDetector("dev-net", anomalies=odd[:, :3]).fit(X)


def test_refinement_drops_a_lump_of_hidden_anomalies():
    """And keeps most normals, in the mean: where scores have no gap, its limit may lie among them."""
    kept = []
    for seed in range(4):
        generator = np.random.default_rng(seed)
        X = np.concatenate([generator.normal(size=(300, 4)), generator.normal(size=(20, 4)) + 9])
        detector = AnomalyDetector("gaussian", weighting="", scores="own", refine="Purify()").fit(X)
        assert detector.weights_[300:].max() == 0
        kept.append((detector.weights_[:300] > 0).mean())
    assert np.mean(kept) > 0.7
    assert clone(detector).get_params()["refine"] == "Purify()"


def test_copies_are_weighed_by_their_own_scores():
    """What an estimator keeps of the copies that it was fitted on is of other samples."""
    X = np.random.default_rng(0).normal(size=(200, 3))
    X[:10] *= 4
    found = Reweighted(LocalOutlierFactor(novelty=True), "Importance()", rounds=3, resample="copy", random_state=0).fit(
        X
    )
    expected = Reweighted(LocalOutlierFactor(novelty=True), "Importance()", rounds=3, random_state=0).fit(X)
    assert np.corrcoef(np.log(found.weights_), np.log(expected.weights_))[0, 1] > 0.5


def test_one_gross_value_does_not_move_the_threshold():
    X = np.random.default_rng(0).normal(size=(300, 3))
    limits = []
    for value in (X[7].copy(), -999_999.0):
        X[7] = value
        fits = [
            AnomalyDetector("gaussian", scores="own", weighting="", false_alarms=0.1, random_state=seed).fit(X).offset_
            for seed in range(8)
        ]
        limits.append(max(-each for each in fits))
    assert limits[1] < 3 * limits[0]


def test_what_single_precision_cannot_hold_is_refused():
    X = np.random.default_rng(0).normal(size=(50, 3))
    detector = AnomalyDetector("gaussian", scores="own").fit(X)
    for data in (np.where(X > 2, 1e200, X), np.full((1, 3), 1e150)):
        with pytest.raises(InputError, match="beyond single precision"):
            detector.score_samples(data)


def said_by(estimator, X, caplog):
    caplog.clear()
    estimator.fit(X)
    return " / ".join(record.getMessage() for record in caplog.records if record.name == "tailwise")


@pytest.mark.parametrize(
    ("rows", "false_alarms", "said"),
    [
        (10, 0.05, "10 cross-fitted samples can promise at best 9.1 % false alarms, not 5 %"),
        (9, 0.05, "2 held-out samples can promise at best 33.3 % false alarms"),
        (3, 0.2, "too few samples to hold any out"),
        (60, 0.01, "60 cross-fitted samples can promise at best 1.6 % false alarms, not 1 %"),
        (100, 0.05, ""),
        (10, 0.3, ""),
    ],
)
def test_rows_too_few_for_the_share_of_false_alarms_are_told(rows, false_alarms, said, caplog):
    """The least share that n held-out samples can promise is 1 / (n + 1) (Vovk et al. 2005)."""
    X = np.random.default_rng(0).normal(size=(rows, 2))
    text = said_by(AnomalyDetector(false_alarms=false_alarms), X, caplog)
    assert said in text
    assert bool(said) == bool(text)


@pytest.mark.parametrize(
    ("column", "what"),
    [
        (np.arange(200.0), "counts the rows"),
        (np.arange(200.0)[::-1] * 10 + 7, "counts the rows"),
        (1.7e9 + np.cumsum(np.random.default_rng(1).integers(1, 90, 200)), "tells the time"),
        (np.random.default_rng(2).permutation(200) + 5_000.0, "numbers the rows"),
        (np.random.default_rng(3).normal(size=200), ""),
        (np.random.default_rng(4).integers(0, 9, 200).astype(float), ""),
    ],
)
def test_a_column_that_is_no_measurement_is_told_by_its_name_or_number(column, what, caplog):
    X = np.column_stack([np.random.default_rng(0).normal(size=(200, 2)), column])
    text = said_by(AnomalyDetector(), X, caplog)
    assert text.startswith(f"X: column '2' {what}; other rows lie outside of it") if what else not text
    frame = pd.DataFrame(X, columns=["mass", "width", "stand"])
    assert ("column 'stand'" in said_by(AnomalyDetector(), frame, caplog)) == bool(what)

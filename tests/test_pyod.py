"""What PyOD expects of a detector, and DataFrames in and out of the scikit-learn faces."""

import importlib.util

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.cluster import KMeans
from sklearn.ensemble import IsolationForest
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tailwise import AnomalyDetector, AsPyOD, InputError, Reweighted
from tailwise.cli import commands
from tailwise.integrations.scikit_learn import native_scores

FACES = [AnomalyDetector(), Reweighted(IsolationForest(n_estimators=20), random_state=0)]


def rows(n=200, seed=0):
    values = np.random.default_rng(seed).normal(size=(n, 3))
    return pd.DataFrame(values, columns=["width", "height", "mass"], index=[f"part {i}" for i in range(n)])


@pytest.mark.parametrize("face", FACES, ids=lambda face: type(face).__name__)
def test_scores_rise_and_labels_are_those_of_the_estimator(face):
    X, far = rows().to_numpy(), np.full((3, 3), 30.0)
    model = AsPyOD(face).fit(X)
    assert (model.predict(far) == 1).all()
    assert model.decision_function(far).min() > model.decision_scores_.max()
    assert np.array_equal(model.labels_, (model.estimator_.predict(X) == -1).astype(int))
    assert np.array_equal(model.labels_, model.predict(X))
    assert np.array_equal(model.labels_, clone(model).fit_predict(X))
    assert model.threshold_ == pytest.approx(-model.estimator_.offset_)


def test_a_contamination_sets_the_threshold_as_pyod_does():
    X = rows().to_numpy()
    model = AsPyOD(AnomalyDetector(), contamination=0.1).fit(X)
    assert model.labels_.sum() == 20
    assert np.array_equal(np.sort(model.decision_scores_)[-20:], np.sort(model.decision_scores_[model.labels_ == 1]))


def test_it_can_be_weighed_again_without_losing_its_sign():
    X, far = rows().to_numpy(), np.full((3, 3), 30.0)
    model = Reweighted(AsPyOD(AnomalyDetector(weighting="", scores="own")), rounds=1, random_state=0).fit(X)
    assert (model.predict(far) == -1).all()
    assert native_scores(model, far).min() > native_scores(model, X).max()


def test_what_has_no_threshold_or_score_is_refused():
    with pytest.raises(InputError, match="contamination must lie"):
        AsPyOD(AnomalyDetector(), contamination=0.7).fit(rows())
    with pytest.raises(InputError, match="neither score_samples"):
        AsPyOD(KMeans(2, n_init=1), contamination=0.1).fit(rows())


@pytest.mark.parametrize("face", FACES, ids=lambda face: type(face).__name__)
def test_frames_are_taken_by_name_and_scored_as_their_values_are(face):
    frame = rows()
    model, plain = clone(face).fit(frame), clone(face).fit(frame.to_numpy())
    assert model.feature_names_in_.tolist() == ["width", "height", "mass"]
    for method in ("score_samples", "decision_function", "predict"):
        found = getattr(model, method)(frame)
        assert isinstance(found, np.ndarray)
        assert np.array_equal(found, getattr(plain, method)(frame.to_numpy()))
    with pytest.raises(ValueError, match="feature names"):
        model.predict(frame[["mass", "width", "height"]])


@pytest.mark.parametrize("face", FACES, ids=lambda face: type(face).__name__)
def test_a_frame_of_scores_keeps_the_rows_and_flags_what_predict_rejects(face):
    frame = rows()
    model = clone(face).fit(frame)
    found = model.scores_frame(frame)
    assert found.index.equals(frame.index)
    assert list(found.columns) == ["score", "threshold", "flagged"]
    assert np.array_equal(found["flagged"].to_numpy(), model.predict(frame) == -1)
    assert found["score"]["part 3"] == -model.score_samples(frame)[3]


def test_frames_pass_through_a_pipeline():
    frame = rows()
    model = make_pipeline(StandardScaler(), AnomalyDetector()).set_output(transform="pandas").fit(frame)
    assert model[-1].feature_names_in_.tolist() == ["width", "height", "mass"]
    assert model.predict(frame).shape == (200,)


def test_the_frame_has_the_scores_of_the_command_line(tmp_path):
    frame = rows(300)
    frame.to_csv(tmp_path / "parts.csv", index=False)
    run = commands.fit(str(tmp_path / "parts.csv"), detector="gaussian", out=tmp_path / "run", seed=4)
    scored = commands.score(run.path, str(tmp_path / "parts.csv"))
    found = AnomalyDetector("gaussian", random_state=4).fit(frame).scores_frame(frame)
    assert found["score"].to_numpy() == pytest.approx(scored["score"].to_numpy(), abs=2e-3)
    assert found["threshold"].iloc[0] == pytest.approx(scored["threshold"].iloc[0], abs=2e-3)


@pytest.mark.skipif(importlib.util.find_spec("pyod") is None, reason="pyod is not installed")
def test_pyod_itself_takes_it_beside_its_own():
    from pyod.models.knn import KNN
    from pyod.utils.utility import standardizer

    X = rows().to_numpy()
    pool = [KNN().fit(X), AsPyOD(AnomalyDetector()).fit(X)]
    known = np.column_stack([model.decision_scores_ for model in pool])
    new = np.column_stack([model.decision_function(np.full((3, 3), 30.0)) for model in pool])
    assert standardizer(known, new)[1].min() > standardizer(known).max()

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from tailwise.errors import InputError
from tailwise.numerics.metrics import aupr, auroc, bootstrap_interval, fpr_at_tpr, per_group, rank_correlation

# Few distinct values, so that ties are the rule.
cases = st.lists(st.tuples(st.booleans(), st.integers(-3, 3)), min_size=2, max_size=40)


def split(pairs):
    labels, scores = (np.array(column) for column in zip(*pairs, strict=True))
    assume(labels.any() and not labels.all())
    return labels, scores.astype(float)


def peer_fpr(labels, scores, tpr):
    false, true, _ = roc_curve(labels, scores, drop_intermediate=False)
    return false[true >= tpr - 1e-12].min()


@settings(max_examples=150, deadline=None)
@given(cases, st.sampled_from([0.5, 0.95, 1.0]))
def test_values_are_scikit_learns_with_ties(pairs, tpr):
    labels, scores = split(pairs)
    assert auroc(labels, scores) == pytest.approx(roc_auc_score(labels, scores))
    assert aupr(labels, scores) == pytest.approx(average_precision_score(labels, scores))
    assert fpr_at_tpr(labels, scores, tpr) == pytest.approx(peer_fpr(labels, scores, tpr))


@settings(max_examples=50, deadline=None)
@given(cases, st.randoms(use_true_random=False))
def test_order_and_scale_do_not_matter_and_sign_turns_auroc(pairs, random):
    labels, scores = split(pairs)
    order = random.sample(range(len(labels)), len(labels))
    for metric in (auroc, aupr, fpr_at_tpr):
        assert metric(labels[order], 3 * scores[order] - 7) == pytest.approx(metric(labels, scores))
    assert auroc(labels, -scores) == pytest.approx(1 - auroc(labels, scores))


def test_many_scores_agree_too():
    generator = np.random.default_rng(0)
    labels = generator.random(5_000) < 0.1
    scores = generator.normal(size=5_000) + labels
    assert auroc(labels, scores) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    assert aupr(labels, scores) == pytest.approx(average_precision_score(labels, scores), abs=1e-12)


def test_each_group_is_judged_against_all_anomalies():
    labels = np.array([0, 0, 0, 0, 1, 1], bool)
    groups = np.array(["a", "a", "b", "b", "x", "x"])
    scores = np.array([0, 1, 5, 6, 3, 4.0])
    assert per_group(auroc, labels, scores, groups) == {"a": 1.0, "b": 0.0}


def test_a_bootstrap_interval_covers_and_repeats():
    generator = np.random.default_rng(0)
    truth, covered = roc_auc_of_shift(1.0), 0
    for seed in range(20):
        labels = np.arange(120) < 40
        scores = generator.normal(size=120) + labels
        low, high = bootstrap_interval(auroc, labels, scores, draws=200, seed=seed)
        assert low <= auroc(labels, scores) <= high
        covered += low <= truth <= high
    assert covered >= 16  # of 20 at 95 %: fewer has a chance of 3 in 1,000
    assert bootstrap_interval(auroc, labels, scores, draws=200, seed=seed) == (low, high)


@pytest.mark.parametrize("of", ["numbers", "few values"])
def test_rank_correlation_is_scipys(of):
    from scipy.stats import spearmanr

    one, noise = np.random.default_rng(0).normal(size=(2, 200))
    other = one + noise
    if of == "few values":
        one, other = one.round(), other.round()
    assert rank_correlation(one, other) == pytest.approx(spearmanr(one, other).statistic, abs=1e-12)
    assert np.isnan(rank_correlation(one, np.ones(200)))


def roc_auc_of_shift(shift):
    """P(N(shift, 1) > N(0, 1))."""
    from scipy.stats import norm

    return norm.cdf(shift / np.sqrt(2))


@pytest.mark.parametrize(
    ("labels", "scores", "said"),
    [
        ([0, 1], [1.0], r"one label a score: got \(2,\) and \(1,\)"),
        ([0, 1], [1.0, np.nan], "1 of 2 are not"),
        ([0, 0], [1.0, 2.0], "both normals and anomalies are needed: got 0 anomalies of 2"),
        ([1, 1], [1.0, 2.0], "got 2 anomalies of 2"),
    ],
)
def test_bad_input_is_named(labels, scores, said):
    for metric in (auroc, aupr, fpr_at_tpr):
        with pytest.raises(InputError, match=said):
            metric(labels, scores)

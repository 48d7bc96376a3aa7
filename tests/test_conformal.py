"""Promises of thresholds against their exact laws, and against other implementations."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.special import ndtri

from tailwise.calibration import conformal
from tailwise.calibration.by_kind import Calibration
from tailwise.calibration.conformal import benjamini_hochberg, conformal_threshold, cross_p_values, p_values
from tailwise.core import inference
from tailwise.core.data import Data
from tailwise.detectors.gaussian import Gaussian
from tailwise.errors import InputError
from tailwise.runs.display import lines
from tailwise.training import cross_fitting, local_scores
from tailwise.training import fit as training_fit

# Few distinct values, so that ties are the rule.
few = st.lists(st.integers(-3, 3).map(float), min_size=1, max_size=30)
shares = st.sampled_from([0.01, 0.05, 0.1, 0.25, 0.5])


@given(few, few, shares)
def test_a_sample_is_flagged_where_its_p_value_is_at_most_alpha(normal, scores, alpha):
    normal, scores = np.array(normal), np.array(scores)
    flagged = scores > conformal_threshold(normal, alpha)
    if conformal.reachable(len(normal)) <= alpha:
        assert (flagged == (p_values(normal, scores) <= alpha)).all()
    else:
        assert (p_values(normal, scores) > alpha).all()


@given(few, few, shares, st.integers(0, 1000))
def test_a_weighted_threshold_flags_where_weighted_p_values_do(normal, scores, alpha, seed):
    normal, scores = np.array(normal), np.array(scores)
    weights = np.random.default_rng(seed).integers(0, 3, len(normal)).astype(float)
    weights[0] += 1
    flagged = scores > conformal_threshold(normal, alpha, weights, 1.0)
    p = p_values(normal, scores, weights=weights)
    if 1 / (weights.sum() + 1) <= alpha:
        assert (flagged == (p <= alpha + 1e-9)).all()
    else:
        assert (p > alpha).all()
    # Whole weights are copies.
    copies = np.repeat(normal, weights.astype(int))
    if conformal.reachable(len(copies)) <= alpha:
        assert conformal_threshold(copies, alpha) == conformal_threshold(normal, alpha, weights)


def test_false_alarms_of_all_kinds_together_lie_where_they_are_said_to():
    """Uniform scores of kinds, each above its own middle: the true share above each kind's threshold is known."""
    sizes = {0.0: 90, 10.0: 45, 20.0: 25}
    middles = np.repeat(list(sizes), list(sizes.values()))
    generator, inside, shares = np.random.default_rng(0), [], []
    for _ in range(400):
        calibration = Calibration(middles + generator.uniform(size=160), middles)
        row = calibration.together(0.05)
        share = sum((1 - calibration.threshold(0.05, middle) + middle) * n / 160 for middle, n in sizes.items())
        inside.append(row["low"] <= share <= row["high"])
        shares.append(share)
    assert row["threshold"] is None
    assert row["guaranteed"]
    assert np.mean(inside) == pytest.approx(0.95, abs=0.03)
    assert np.mean(shares) <= row["promised"] + 0.002
    one = Calibration(generator.normal(size=60))
    assert one.together(0.05) == one.table(0.05)[0]
    single = Calibration(one.scores, np.zeros(60)).together(0.05)
    assert (single["low"], single["high"]) == pytest.approx((one.table(0.05)[0]["low"], one.table(0.05)[0]["high"]))


def test_a_kind_that_borrows_promises_no_least_share():
    calibration = Calibration(np.arange(108.0), np.array(["mono"] * 100 + ["poly"] * 8))
    mono, poly = calibration.table(0.05)
    assert mono["low"] > 0
    assert (poly["low"], poly["guaranteed"]) == (0.0, False)
    assert poly["reachable"] == pytest.approx(1 / 9)
    assert not calibration.together(0.05)["guaranteed"]
    assert calibration.together(0.05)["promised"] == pytest.approx((100 * 0.05 + 8 / 9) / 108)


@pytest.mark.parametrize("alpha", [0.01, 0.05, 0.1])
def test_the_share_of_false_alarms_follows_its_beta_law(alpha):
    """Uniform scores: the share of a calibration is 1 less the threshold, whose law is that of an order statistic."""
    draws = np.array(
        [1 - conformal_threshold(row, alpha) for row in np.random.default_rng(0).uniform(size=(4_000, 120))]
    )
    low, high = conformal.range_of_false_alarms(120, alpha)
    assert np.mean((draws >= low) & (draws <= high)) == pytest.approx(0.95, abs=0.01)
    assert draws.mean() <= alpha + 3 * draws.std() / np.sqrt(len(draws))
    # One step of 1 / (m + 1) at most is lost.
    assert draws.mean() >= alpha - 1 / 121 - 3 * draws.std() / np.sqrt(len(draws))


@pytest.mark.parametrize(("normals", "alpha"), [(30, 0.05), (500, 0.01), (10, 0.2)])
def test_scores_that_depend_on_each_other_have_a_wider_law_of_the_same_mean(normals, alpha):
    law, wider = (conformal.law_of_false_alarms(normals, alpha, crossed) for crossed in (False, True))
    assert wider.mean() == pytest.approx(law.mean())
    assert wider.var() == pytest.approx(1.5 * law.var())
    scores = np.arange(float(normals))
    of_table = [Calibration(scores, crossed=crossed).together(alpha) for crossed in (False, True)]
    assert of_table[1]["high"] > of_table[0]["high"]
    assert of_table[1]["promised"] == of_table[0]["promised"]


def test_p_values_of_normals_are_uniform_where_chance_breaks_ties():
    generator = np.random.default_rng(1)
    draws = generator.integers(0, 4, size=(4_000, 20)).astype(float)
    found = [p_values(row[:19], row[19:], generator=generator)[0] for row in draws]
    assert stats.kstest(found, "uniform").pvalue > 0.01


@given(few, st.lists(st.integers(0, 3), min_size=30, max_size=30), few)
def test_weights_are_copies(normal, counts, scores):
    counts = np.array(counts[: len(normal)])
    if counts.sum() == 0:
        return
    weighted = p_values(np.array(normal), np.array(scores), weights=counts)
    assert np.allclose(weighted, p_values(np.repeat(normal, counts), np.array(scores)))


def test_weights_mend_a_shift():
    """Calibrated on a standard Gaussian, used on one moved by 1: the density ratio is exp(x - 1/2)."""
    generator = np.random.default_rng(2)
    flagged = []
    for _ in range(300):
        normal, fresh = generator.normal(size=500), generator.normal(1, size=200)
        ratio = np.exp(normal - 0.5), np.exp(fresh - 0.5)
        flagged.append(
            [(p_values(normal, fresh) <= 0.1).mean(),
             (p_values(normal, fresh, weights=ratio[0], own_weights=ratio[1]) <= 0.1).mean()]
        )  # fmt: skip
    plain, weighted = np.mean(flagged, axis=0)
    assert plain > 0.35
    assert 0.06 < weighted < 0.105


def test_cross_p_values_are_those_of_one_part_where_there_is_one():
    generator = np.random.default_rng(3)
    normal, scores = generator.normal(size=40), generator.normal(size=15)
    assert np.array_equal(cross_p_values(normal, np.zeros(40, dtype=int), scores[:, None]), p_values(normal, scores))
    # Detectors that agree are one detector.
    parts = generator.integers(0, 5, size=40)
    assert np.array_equal(cross_p_values(normal, parts, np.tile(scores[:, None], 5)), p_values(normal, scores))


def test_cross_p_values_keep_alpha_with_detectors_that_overfit():
    """The score is the distance to the mean of 8 learnt samples: in-sample thresholds break, cross-fitted hold."""
    generator = np.random.default_rng(4)
    alpha, cross_fitted, learnt = 0.2, [], []
    for _ in range(600):
        samples, fresh = generator.normal(size=(10, 8)), generator.normal(size=(20, 8))
        parts = np.arange(10) % 5
        middle = np.array([samples[parts != part].mean(0) for part in range(5)])
        own = np.linalg.norm(samples - middle[parts], axis=1)
        asked = np.linalg.norm(fresh[:, None] - middle, axis=2)
        cross_fitted.append((cross_p_values(own, parts, asked) <= alpha).mean())
        inside = np.linalg.norm(samples - samples.mean(0), axis=1)
        learnt.append((np.linalg.norm(fresh - samples.mean(0), axis=1) > conformal_threshold(inside, alpha)).mean())
    assert np.mean(learnt) > 1.5 * alpha
    assert np.mean(cross_fitted) < 1.1 * alpha


@given(st.lists(st.floats(0, 1), min_size=1, max_size=40), shares)
def test_benjamini_hochberg_is_scipys(p, share):
    adjusted = stats.false_discovery_control(p)
    close = np.isclose(adjusted, share, rtol=1e-9)  # where rounding may tip either
    assert ((benjamini_hochberg(np.array(p), share) == (adjusted <= share)) | close).all()


def test_a_batch_keeps_its_share_of_false_discoveries():
    generator = np.random.default_rng(5)
    wrong = []
    for _ in range(400):
        scores = np.r_[generator.normal(size=90), generator.normal(4, size=10)]
        flagged = benjamini_hochberg(p_values(generator.normal(size=500), scores), 0.2)
        wrong.append(flagged[:90].sum() / max(flagged.sum(), 1))
    assert np.mean(wrong) == pytest.approx(0.2 * 0.9, abs=0.03)


def test_every_kind_keeps_its_share():
    """Kinds of different spread: one threshold breaks the rare one, a threshold a kind does not."""
    generator = np.random.default_rng(6)
    kinds = np.repeat([0, 1, 2], [300, 60, 12])
    fresh = np.repeat([0, 1, 2], 200)
    spread = np.array([1.0, 2.0, 3.0])
    one, each = [], []
    for _ in range(300):
        normal, scores = generator.normal(size=372) * spread[kinds], generator.normal(size=600) * spread[fresh]
        calibration = Calibration(normal, kinds)
        limits = calibration.thresholds_of(fresh, 0.05, 600)
        for found, limit in ((one, calibration.threshold(0.05)), (each, limits)):
            found.append((scores > limit).reshape(3, 200).mean(1))
    assert np.mean(one, axis=0)[1] > 0.12
    mean = np.mean(each, axis=0)
    assert (mean[:2] < 0.055).all()
    assert (mean[:2] > 0.03).all()
    # Twelve normals can promise 1 / 13; what they borrow brings it down towards 5 %.
    assert mean[2] < 1 / 13


@given(
    st.lists(st.tuples(st.integers(-3, 30).map(float), st.integers(0, 2)), min_size=1, max_size=40),
    st.lists(st.floats(-100, 100), min_size=2, max_size=10),
    st.integers(0, 3),
)
@settings(deadline=None)
def test_p_values_fall_and_standardised_scores_rise_with_the_score(normal, scores, kind):
    scores = np.unique(scores)
    own, kinds = (np.array(column) for column in zip(*normal, strict=True))
    calibration = Calibration(own, kinds)
    asked = np.full(len(scores), kind)
    p = calibration.p_values(scores, asked)
    assert (np.diff(p) <= 0).all()
    assert ((p > 0) & (p <= 1)).all()
    standardised = calibration.standardised(scores, asked)
    assert np.isfinite(standardised).all()
    assert (np.diff(standardised) >= -1e-12).all()  # rounding where the scale changes its rule
    apart = np.diff(scores) > 1e-6
    assert (np.diff(standardised)[apart] > 0).all()
    for alpha in (0.05, 0.2, 0.5):
        if conformal.reachable(len(own)) <= alpha:
            assert ((scores > calibration.threshold(alpha, kind)) == (p <= alpha)).all()


@pytest.mark.parametrize("law", [stats.norm(2, 5), stats.expon(), stats.gamma(2)], ids=["norm", "expon", "gamma"])
def test_three_means_the_same_of_every_law_of_scores(law):
    calibration = Calibration(law.rvs(4_000, random_state=0))
    heights = np.array([-1.0, 0.0, 1.0, 2.0, 3.0])
    found = calibration.standardised(law.isf(stats.norm.sf(heights)))
    assert np.allclose(found[:-1], heights[:-1], atol=0.1)
    assert found[-1] == pytest.approx(3, abs=0.25)
    # An exponential tail is what beyond the last score is taken for.
    if law.dist.name == "expon":
        far = law.isf(stats.norm.sf(6.0))
        assert calibration.standardised(np.array([far]))[0] == pytest.approx(6, abs=0.5)


def test_equal_kinds_lend_each_other_their_shape():
    """A kind of 9 normals has no more than 1 / 10 of its own; its threshold for 1 % is that of its like."""
    generator = np.random.default_rng(7)
    found = []
    for _ in range(200):
        scores = generator.normal(size=1_009)
        calibration = Calibration(scores, np.r_[np.zeros(1_000), np.ones(9)])
        found.append(calibration.threshold(0.01, 1.0))
    assert np.median(found) == pytest.approx(ndtri(0.99), abs=0.4)


def test_what_all_scores_cannot_reach_is_still_asked_of_small_kinds():
    generator = np.random.default_rng(9)
    calibration = Calibration(generator.normal(size=92), np.r_[np.zeros(82), np.ones(10)])
    assert calibration.threshold(0.01) == calibration.scores.max()
    for kind in (0.0, 1.0):
        own = calibration.scores[calibration.kinds == kind]
        assert calibration.threshold(0.01, kind) > own.max()


def test_kinds_that_are_not_known_are_held_to_all_scores():
    generator = np.random.default_rng(8)
    calibration = Calibration(generator.normal(size=200), np.array(["mono", "poly"]).repeat(100))
    for kinds in (None, np.array(["other"])):
        assert calibration.thresholds_of(kinds, 0.05, 1)[0] == conformal_threshold(calibration.scores)
    asked = np.array([1.5])
    assert calibration.p_values(asked, np.array(["other"])) == p_values(calibration.scores, asked)


def test_the_table_says_what_each_kind_can_promise():
    calibration = Calibration(np.arange(110.0), np.array(["mono"] * 100 + ["poly"] * 10))
    mono, poly = calibration.table(0.05, per_day=2_000)
    assert (mono["kind"], mono["normals"], mono["guaranteed"]) == ("mono", 100, True)
    assert mono["per_day"] == pytest.approx(2_000 * 0.05 * 100 / 110)
    assert (poly["promised"], poly["reachable"], poly["guaranteed"]) == (1 / 11, 1 / 11, False)
    assert poly["threshold"] >= 109
    assert mono["low"] < 0.05 < mono["high"]
    (row,) = Calibration(np.arange(19.0)).table(0.05)
    assert (row["kind"], row["threshold"], row["guaranteed"]) == ("all", 18, True)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: p_values(np.array([]), np.array([1.0])), "got none"),
        (lambda: p_values(np.array([np.nan]), np.array([1.0])), "must be finite"),
        (lambda: p_values(np.arange(3.0), np.array([1.0]), weights=np.ones(2)), "got 2 for 3"),
        (lambda: p_values(np.arange(3.0), np.array([1.0]), weights=-np.ones(3)), "0 or more"),
        (lambda: cross_p_values(np.arange(3.0), np.array([0, 1, 2]), np.zeros((4, 2))), "one score a part"),
        (lambda: benjamini_hochberg(np.array([0.1]), 1.0), "between 0 and 1: got 1.0"),
        (lambda: conformal_threshold(np.arange(3.0), 0.0), "between 0 and 1: got 0.0"),
        (lambda: Calibration(np.array([])), "finite scores of normals"),
        (lambda: Calibration(np.array([1.0]), np.array([1, 2])), "got 2 for 1"),
        (lambda: Calibration(np.ones(2), np.ones(2)).p_values(np.ones(3), np.ones(2)), "got 2 for 3"),
    ],
)
def test_bad_input_is_named(call, said):
    with pytest.raises(InputError, match=said):
        call()


def test_left_out_scores_are_by_detectors_that_have_not_seen_the_sample():
    """The score is whether the detector has seen the sample, so nothing but 1 may come back; and every sample is
    asked."""
    from tailwise.core.data import Data
    from tailwise.core.detector import Detector
    from tailwise.training import cross_fitting
    from tailwise.training.cross_fitting import Fitted

    class Seen(Detector):
        def score(self, batch):
            return 1 + torch.isin(batch.samples[:, 0], self.samples).float()

    def fit(data, base, seed):
        detector = Seen()
        detector.samples = data.samples[:, 0]
        assert len(data) == len(base) == 8
        return Fitted(detector, None, 3 * torch.ones(len(data)))  # type: ignore[arg-type]

    data = Data(torch.arange(10.0)[:, None], range(10))
    part = cross_fitting.parts_of(10, 5, seed=1)
    assert part.bincount().tolist() == [2] * 5
    found = cross_fitting.left_out(fit, data, torch.ones(10), part, 0, look=lambda _, unseen: unseen.samples[:, 0])
    assert (found.scores == 1).all()
    assert [each.tolist() for each in found.looked] == [torch.arange(10.0)[part == k].tolist() for k in range(5)]
    # A training whose scores are twice as large is brought to the scale of the final one.
    final = Fitted(Seen(), None, 6 * torch.ones(10))  # type: ignore[arg-type]
    assert (cross_fitting.left_out(fit, data, torch.ones(10), part, 0, final).scores == 2).all()
    with pytest.raises(InputError, match="got 5 for 9 samples"):
        cross_fitting.parts_of(9, 5)
    with pytest.raises(InputError) as refused:
        cross_fitting.parts_of(9, 5)
    assert refused.value.hint == "at most 4 parts"


def test_ties_with_the_limit_are_flagged():
    """Conformal p-values are fractions, of which .15 / 3 is .05 but for rounding."""
    assert benjamini_hochberg(np.array([1 / 20, 1, 1]), 0.15).tolist() == [True, False, False]


def test_what_is_no_number_is_refused():
    with pytest.raises(InputError, match="1 of 2 scores are not numbers"):
        p_values(np.arange(9.0), np.array([np.nan, 1]))
    with pytest.raises(InputError, match="finite"):
        conformal_threshold(np.array([1, np.nan, 2]), 0.1)
    assert p_values(np.arange(9.0), np.array([np.inf]))[0] == 0.1


@pytest.mark.parametrize("scores_of", ["own", "auto"])
def test_out_of_fold_thresholds_hold_for_few_samples_with_many_features(scores_of):
    """Local scores count in deviations of the training samples, which differ between trainings on few samples."""
    generator = torch.Generator().manual_seed(0)
    train, new = (Data(torch.randn(n, 200, generator=generator), range(n)) for n in (60, 400))
    rule = local_scores.parse(scores_of)

    def fit(data, base, seed):
        detector = Gaussian()
        outcome = training_fit.fit(detector, data, base_weights=base, seed=seed)
        return cross_fitting.Fitted.read_by(rule, detector, outcome, data, base, seed)

    final = fit(train, torch.ones(60), 0)
    part = cross_fitting.parts_of(60, 5)
    left_out = cross_fitting.left_out(fit, train, torch.ones(60), part, 0, final).scores
    flagged = inference.score(final.detector, new).double().numpy() > conformal_threshold(left_out, 0.1)
    assert flagged.mean() < 0.15


def test_alarms_of_a_day_add_up():
    calibration = Calibration(np.arange(110.0), np.array(["mono"] * 100 + ["poly"] * 10))
    rows = calibration.table(0.05, per_day=1_000)
    assert sum(row["per_day"] for row in rows) == pytest.approx(1_000 * calibration.together(0.05)["promised"])


def test_a_quarter_of_the_scores_far_above_the_rest_is_a_part_of_what_is_usual():
    usual, high = np.random.default_rng(0).normal(size=79), np.full(26, 30.0)
    assert not conformal.far_out(np.concatenate([usual, high])).any()
    assert conformal.far_out(np.concatenate([usual, high[:5]])).sum() == 5


@pytest.mark.parametrize(("held_out", "said"), [(0, "promises nothing"), (3, "for at most 25 % of new normals")])
def test_a_threshold_from_what_trained_promises_nothing(held_out: int, said: str) -> None:
    came = {
        "run": "run", "trained": 3, "held_out": held_out, "dropped": 0, "adapted": None, "clusters": 1, "suspects": [],
        "samples": "images", "detector": "PatchEnsemble()", "detector_reason": "", "scores": "local", "weighting": "",
        "balanced": False, "threshold": 0.5, "promised": 0.25, "range": [0.01, 0.7], "calibrated_on": 3,
        "cross_fitted": False,
        "far_above": [], "sets_the_threshold": [], "failed_checks": [], "unlabelled": "", "report": "", "next": "",
    }  # fmt: skip
    assert said in next(line for line in lines(came) if line.startswith("threshold"))


@pytest.mark.parametrize("crossed", [False, True])
@pytest.mark.parametrize("normals", [1, 19, 200, 100_000])
def test_the_range_of_false_alarms_is_that_of_their_law(normals, crossed):
    law = conformal.law_of_false_alarms(normals, 0.05, crossed)
    assert conformal.range_of_false_alarms(normals, 0.05, 0.9, crossed) == pytest.approx((law.ppf(0.05), law.ppf(0.95)))

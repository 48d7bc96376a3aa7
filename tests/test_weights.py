import math

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

from tailwise.core import registry
from tailwise.core.data import Data
from tailwise.core.modality import IMAGE, ROW, SPECTRUM
from tailwise.detectors.autoencoder import AutoEncoder
from tailwise.errors import InputError
from tailwise.training.fit import fit
from tailwise.training.options import Training
from tailwise.weights.default import AUTO, AUTO_SPECTRA, importance_weights, parse_weighting
from tailwise.weights.densities import KDE, Gaussian, Histogram, LogNormal, Mixture
from tailwise.weights.steps import (
    Accumulate,
    AlphaDivergence,
    Clip,
    Focal,
    Guard,
    Importance,
    InverseDensity,
    LatentOutliers,
    Logistic,
    Rarity,
    Reject,
    Smooth,
    Trim,
)
from tailwise.weights.weighting import Context, Weighting, effective_sample_size, weighted_mean


class Pair:
    """Two Gaussians, with scipy's interface."""

    parts = ((0.8, stats.norm(4, 0.5)), (0.2, stats.norm(6, 0.7)))

    def pdf(self, x):
        return sum(share * part.pdf(x) for share, part in self.parts)

    def rvs(self, n, random_state):
        first = int(self.parts[0][0] * n)
        counts = (first, n - first)
        drawn = [part.rvs(m, random_state=random_state) for m, (_, part) in zip(counts, self.parts, strict=True)]
        return random_state.permutation(np.concatenate(drawn))


KNOWN = {"gamma": stats.gamma(3), "log-normal": stats.lognorm(0.5, scale=2), "two Gaussians": Pair()}
STEPS = [
    Importance(),
    Smooth(5),
    Rarity(),
    InverseDensity(5),
    Focal(0.5),
    Trim(0.1),
    Clip(0.2, 5),
    Guard(0.9),
    Logistic(0.8, tau=0.5),
    AlphaDivergence(),
    LatentOutliers(0.2),
    Reject(),
    Accumulate(rate=0.5),
]


def draw(name, n=40_000, seed=0):
    return KNOWN[name].rvs(n, random_state=np.random.default_rng(seed))


class Exactly:
    """A Fit that knows the density beforehand."""

    def __init__(self, density):
        self.density = density

    def __call__(self, reference):
        return self

    def log_prob(self, scores):
        return torch.as_tensor(np.log(self.density.pdf(scores.numpy())))


def weigh(scores, *steps, **context):
    return Weighting(*steps)(Context(scores, context.pop("reference", scores), **context))


# The defining property --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", KNOWN)
@pytest.mark.parametrize("log", [True, False])
@pytest.mark.parametrize("density", [KDE(), Histogram(), Mixture(3)], ids=repr)
def test_weighted_scores_follow_the_target(name, log, density):
    scores = draw(name)
    scale = np.log(scores) if log else scores
    target = stats.norm(scale.mean() + 0.5 * scale.std(), 0.6 * scale.std())
    w = importance_weights(scores, Weighting(Importance(density, Gaussian(shift=0.5, scale=0.6), alpha=0, log=log)))
    mean = np.average(scale, weights=w)
    std = np.sqrt(np.average((scale - mean) ** 2, weights=w))
    assert mean == pytest.approx(target.mean(), abs=0.1 * target.std())
    assert std == pytest.approx(target.std(), rel=0.1)
    order = scale.argsort()
    distance = np.abs(np.cumsum(w[order]) / w.sum() - target.cdf(scale[order])).max()
    assert distance < 0.05
    before = np.abs(np.arange(len(scale)) / len(scale) - target.cdf(scale[order])).max()
    assert before > 5 * distance


@pytest.mark.parametrize("name", KNOWN)
@pytest.mark.parametrize("alpha", [0, 0.1, 0.5, 1])
def test_with_the_density_known_the_weights_are_the_closed_form(name, alpha):
    scores = draw(name, 2_000)
    target = stats.norm(scores.mean() + scores.std(ddof=1), scores.std(ddof=1)).pdf(scores)
    ratio = target / ((1 - alpha) * KNOWN[name].pdf(scores) + alpha * target)
    w = importance_weights(scores, Weighting(Importance(Exactly(KNOWN[name]), Gaussian(shift=1.0), alpha, log=False)))
    assert np.allclose(w, ratio / ratio.mean())


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(0, 1e6, width=32), min_size=3, max_size=60),
    st.floats(0.01, 1),
    st.sampled_from([Gaussian(1), Gaussian(3, 0.2), Gaussian(-2), KDE(), Mixture()]),
)
@pytest.mark.filterwarnings("ignore:the scores are constant")
def test_no_weight_exceeds_one_over_alpha(scores, alpha, target):
    scores = torch.tensor(scores, dtype=torch.float64)
    w = Importance(target=target, alpha=alpha)(torch.ones_like(scores), Context(scores, scores))
    assert torch.isfinite(w).all()
    assert (w >= 0).all()
    assert w.max() <= 1 / alpha + 1e-9


def test_a_log_scale_is_taken_where_it_can_be():
    scores = torch.as_tensor(draw("gamma", 500))
    assert torch.equal(weigh(scores, Importance()), weigh(scores, Importance(log=True)))
    moved = scores - scores.min() - 1
    assert torch.equal(weigh(moved, Importance()), weigh(moved, Importance(log=False)))
    assert torch.allclose(weigh(scores, Importance(log=True)), weigh(scores.log(), Importance(log=False)), atol=1e-6)
    with pytest.raises(InputError, match="log scores need scores above 0: the smallest is -1"):
        weigh(moved, Importance(log=True))
    assert torch.isfinite(weigh(scores.index_fill(0, torch.tensor([0]), 0.0), Importance())).all()


def test_the_reference_may_be_other_scores():
    scores, reference = (torch.as_tensor(draw("gamma", n, seed)) for n, seed in ((300, 1), (5_000, 2)))
    both = Weighting(Importance())(Context(reference, reference))
    w = Importance()(torch.ones(300), Context(scores, reference))
    raw = Importance()(torch.ones(5_000), Context(reference, reference))
    assert np.allclose(w, np.interp(scores, reference[reference.argsort()], raw[reference.argsort()]), atol=0.02)
    assert torch.allclose(both, raw / raw.mean())


# What every weighting keeps ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [*STEPS, *AUTO.steps], ids=repr)
def test_weights_have_mean_one_no_gradient_and_follow_a_permutation(step):
    scores = torch.as_tensor(draw("gamma", 500)).requires_grad_()
    embedding = torch.randn(500, 4, generator=torch.Generator().manual_seed(0))
    previous = torch.rand(500, generator=torch.Generator().manual_seed(1)).double()
    w = weigh(scores, step, embedding=embedding, previous=previous)
    assert not w.requires_grad
    assert float(w.mean()) == pytest.approx(1)
    order = torch.randperm(500, generator=torch.Generator().manual_seed(2))
    again = weigh(scores[order], step, embedding=embedding[order], previous=previous[order])
    # Quartiles and medians of few scores are those of all, so nothing depends on the order.
    assert torch.allclose(again, w[order])


@pytest.mark.parametrize("step", [Importance(), Focal(), Trim(), Clip()], ids=repr)
def test_the_scores_sample_of_measure_does_not_matter(step):
    scores = torch.as_tensor(draw("log-normal", 500))
    assert torch.allclose(weigh(1_000 * scores, step), weigh(scores, step), rtol=1e-5)


def test_constant_scores_weigh_one_with_a_warning():
    for scores in ([3.0] * 5, [0.0] * 5, [-2.0] * 5, [7.0]):
        with pytest.warns(RuntimeWarning, match="the scores are constant: every weight is 1"):
            assert importance_weights(scores).tolist() == [1.0] * len(scores)


@pytest.mark.parametrize(
    ("scores", "said"),
    [
        ([1.0, 2.0, math.nan, math.inf], "2 of 4 are not, the first is number 2"),
        ([], "scores are empty"),
        ([[1.0, 2.0]], r"one row \[n\]: got shape \(1, 2\)"),
        (["a", "b"], "scores must be numbers"),
        ([[1.0], [1.0, 2.0]], "scores must be numbers"),
        (3.0, r"got shape \(\)"),
    ],
)
def test_bad_scores_are_named(scores, said):
    with pytest.raises(InputError, match=said):
        importance_weights(scores)


def test_bad_references_and_embeddings_are_named():
    scores = [1.0, 2.0, 3.0]
    with pytest.raises(InputError, match="reference must be finite: 1 of 2"):
        importance_weights(scores, reference=[1.0, math.nan])
    with pytest.raises(InputError, match="it needs an embedding"):
        importance_weights(scores, "Smooth()")
    with pytest.raises(InputError, match=r"one place a sample, \[3, d\]: got \[2, 2\]"):
        importance_weights(scores, "Smooth()", embedding=np.zeros((2, 2)))
    with pytest.raises(InputError, match="places in the embedding must be finite: 1 of 3"):
        importance_weights(scores, "Smooth()", embedding=[[0.0], [math.nan], [1.0]])
    with pytest.raises(InputError, match="no sample is left with a weight"):
        weigh(torch.zeros(3), Focal())


# Single steps -----------------------------------------------------------------------------------------------------


def test_smooth_raises_a_rare_kind_whole_but_not_a_lone_outlier():
    generator = torch.Generator().manual_seed(0)
    head, kind = torch.randn(400, 4, generator=generator), 9 + torch.randn(12, 4, generator=generator)
    embedding = torch.cat([head, kind, torch.tensor([[4.0, -4.0, 4.0, -4.0]])])
    scores = torch.cat(
        [torch.rand(400, generator=generator) + 1, 4 + torch.rand(12, generator=generator), torch.tensor([4.5])]
    )
    raised = Importance(target=Gaussian(shift=4.5), alpha=0.05)
    alone = weigh(scores, raised)
    smooth = weigh(scores, raised, Smooth(10), embedding=embedding)
    assert alone[-1] > 2
    assert smooth[-1] < 0.5 * alone[-1]
    assert smooth[400:412].min() > 2 * smooth[:400].max()


def test_smooth_is_the_mean_over_oneself_and_neighbours():
    embedding = torch.tensor([[0.0], [1.0], [10.0], [12.0]])
    w = Smooth(1)(torch.tensor([1.0, 3.0, 5.0, 9.0]), Context(torch.ones(4), torch.ones(4), embedding))
    assert w.tolist() == [2.0, 2.0, 7.0, 7.0]


def test_neighbours_are_searched_once_for_all_rounds():
    cache: dict = {}
    embedding = torch.randn(30, 2, generator=torch.Generator().manual_seed(0))
    scores = torch.rand(30, generator=torch.Generator().manual_seed(1))
    weigh(scores, Smooth(3), embedding=embedding, cache=cache)
    first = cache[3]
    weigh(scores, Smooth(3), embedding=embedding, cache=cache)
    assert cache[3] is first


def test_trim_drops_the_highest_share_and_focal_follows_the_score():
    scores = torch.arange(1.0, 101)
    assert (weigh(scores, Trim(0.1)) == 0).nonzero()[:, 0].tolist() == list(range(90, 100))
    assert torch.equal(weigh(scores, Trim(0.001)), torch.ones(100))
    assert torch.allclose(weigh(scores, Focal(2)), scores**2 / (scores**2).mean())


def test_clip_bounds_weights_against_their_mean():
    previous = torch.tensor([0.001, 1.0, 1.0, 50.0])
    w = Clip(0.5, 2)(previous, Context(previous, previous))
    assert w.tolist() == pytest.approx([0.5, 0.5, 0.5, 2.0])


def test_accumulate_multiplies_powers_of_past_and_present():
    scores = torch.tensor([1.0, 2.0, 4.0])
    previous = torch.tensor([2.0, 1.0, 0.5])
    w = weigh(scores, Focal(1), Accumulate(rate=2, memory=0.5), previous=previous)
    raw = torch.tensor([1 * 2**0.5, 4.0, 16 * 0.5**0.5])
    assert torch.allclose(w, raw / raw.mean())
    assert torch.allclose(weigh(scores, Focal(1), Accumulate()), weigh(scores, Focal(1)))


# Spelling ---------------------------------------------------------------------------------------------------------

finite = st.floats(-3, 3).map(lambda x: round(x, 3))
positive = st.floats(0.01, 9)
densities = st.one_of(
    st.builds(KDE, positive),
    st.builds(Histogram, st.integers(2, 500)),
    st.builds(Gaussian, finite, positive),
    st.builds(LogNormal, finite, positive),
    st.builds(Mixture, st.integers(1, 9)),
)
steps = st.one_of(
    st.builds(Importance, densities, densities, st.floats(0, 1), st.sampled_from([None, True, False])),
    st.builds(Smooth, st.integers(1, 99)),
    st.builds(InverseDensity, st.integers(1, 99)),
    st.builds(Rarity, st.floats(0, 3), st.integers(0, 20), st.floats(0.01, 1)),
    st.builds(Accumulate, finite, finite),
    st.builds(Focal, finite),
    st.builds(Clip, st.floats(0, 1), st.floats(1, 99)),
    st.builds(Trim, st.floats(0, 0.99)),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(steps, max_size=4))
def test_a_weighting_is_read_back_from_how_it_prints(chosen):
    weighting = Weighting(*chosen)
    assert parse_weighting(repr(weighting)) == weighting
    assert repr(parse_weighting(repr(weighting))) == repr(weighting)


def test_names_for_the_default_and_for_none():
    assert parse_weighting("auto") == AUTO
    assert parse_weighting(" ") == Weighting()
    assert repr(Weighting(Importance(alpha=np.float64(0.5)))) == "Importance(alpha=0.5)"
    assert hash(parse_weighting("Clip")) == hash(Weighting(Clip()))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Importence()", "did you mean 'Importance'"),
        ("Importance(density=KDEE())", "did you mean 'KDE'"),
        ("__import__('os').system('true')", "only names, numbers"),
        ("KDE()", "KDE.* is a density, not a step"),
        ("Importance(density=3)", "density must be a density"),
        ("Importance(target=Clip())", "target must be a density"),
        ("Importance(log='yes')", "log must be True or False, or None"),
        ("Importance(alpha=2)", "alpha must be a number from 0 to 1: got 2"),
        ("Smooth(2.5)", "neighbours must be a whole number"),
        ("Focal('hard')", "gamma must be a number"),
        ("3", "not a step"),
    ],
)
def test_what_is_no_weighting_is_refused(text, said):
    with pytest.raises(InputError, match=said):
        parse_weighting(text)


# Arrays, reduction, effective size --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.float16])
def test_arrays_keep_their_type(kind):
    w = importance_weights(draw("gamma", 200).astype(kind))
    assert type(w) is np.ndarray
    assert w.dtype == kind


def test_tensors_series_lists_views_and_integers():
    values = draw("gamma", 200)
    expected = importance_weights(values)
    for dtype in (torch.float32, torch.float64):
        w = importance_weights(torch.as_tensor(values, dtype=dtype).requires_grad_())
        assert w.dtype == dtype
        assert not w.requires_grad
    assert np.array_equal(importance_weights(values.tolist()), expected)
    assert np.allclose(importance_weights(values[::-1]), expected[::-1])
    assert np.array_equal(importance_weights(values.astype(">f8")), expected)
    series = pd.Series(values, index=np.arange(200) + 7)
    assert np.array_equal(importance_weights(series), expected)
    frozen = values.copy()
    frozen.setflags(write=False)
    assert np.array_equal(importance_weights(frozen), expected)
    assert importance_weights(np.array([1, 2, 3, 9])).dtype == np.float64
    assert np.array_equal(frozen, values)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.floats(-5, 5), st.integers(0, 4)), min_size=1, max_size=12), st.floats(0.01, 100))
def test_weight_k_is_k_copies_zero_is_absent_and_the_scale_cancels(pairs, scale):
    losses = torch.tensor([loss for loss, _ in pairs], dtype=torch.float64)
    counts = torch.tensor([count for _, count in pairs])
    if counts.sum() == 0:
        counts[0] = 1
    slope = torch.ones((), dtype=torch.float64, requires_grad=True)
    (weighted_gradient,) = torch.autograd.grad(weighted_mean((losses * slope).square(), scale * counts.double()), slope)
    copies = losses.repeat_interleave(counts)
    (copied_gradient,) = torch.autograd.grad((copies * slope).square().mean(), slope)
    assert weighted_mean(losses, scale * counts.double()).item() == pytest.approx(copies.mean().item(), abs=1e-9)
    assert weighted_gradient.item() == pytest.approx(copied_gradient.item(), abs=1e-9)


def test_the_count_may_divide_and_an_all_zero_batch_says_nothing():
    losses = torch.tensor([1.0, 3.0], requires_grad=True)
    assert weighted_mean(losses, torch.tensor([1.0, 3.0]), "count").item() == 5.0
    assert weighted_mean(losses).item() == 2.0
    nothing = weighted_mean(losses, torch.zeros(2))
    nothing.backward()
    assert nothing.item() == 0
    assert losses.grad.tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    ("losses", "w", "divide_by", "said"),
    [
        (torch.ones(2, 2), None, "weight", r"one loss per sample: got \(2, 2\)"),
        (torch.ones(64), torch.ones(32), "weight", r"one weight per loss: got \(32,\) for \(64,\)"),
        (torch.ones(2), torch.ones(2), "mean", "divide_by must be 'weight' or 'count': got 'mean'"),
    ],
)
def test_a_reduction_that_cannot_be_is_named(losses, w, divide_by, said):
    with pytest.raises(InputError, match=said):
        weighted_mean(losses, w, divide_by)


def test_effective_sample_size_of_equal_and_of_lone_weights():
    assert effective_sample_size(torch.full((7,), 0.3)) == pytest.approx(7)
    assert effective_sample_size(torch.tensor([0.0, 5.0, 0.0])) == pytest.approx(1)
    assert effective_sample_size(torch.tensor([1.0, 1, 0, 0])) == pytest.approx(2)


def blobs(sizes, seed=0, apart=30.0):
    """Round kinds of these sizes, equally dense and far apart: [n, 8] and their numbers [n]."""
    generator = torch.Generator().manual_seed(seed)
    kinds = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    centres = apart * torch.eye(len(sizes), 8)
    return centres[kinds] + torch.randn(len(kinds), 8, generator=generator), kinds


def test_rarity_raises_a_rare_kind_that_is_not_hard():
    """Scores are the same for all, so only the embedding can tell."""
    places, kinds = blobs([600, 60])
    w = weigh(torch.ones(660), Rarity(power=1.0, doublings=9), embedding=places)
    assert float(w[kinds == 1].mean() / w[kinds == 0].mean()) == pytest.approx(10, rel=0.4)
    common = weigh(torch.ones(660), Rarity(power=1.0, doublings=9, common=0.01), embedding=places)
    assert torch.allclose(common, torch.ones(660))


def test_a_long_walk_leaves_a_kind_that_is_not_cut_off():
    generator = torch.Generator().manual_seed(0)
    line = torch.linspace(0, 60, 600)[:, None] + 0.3 * torch.randn(600, 1, generator=generator)
    places = torch.cat([line, 0.3 * torch.randn(600, 1, generator=generator)], 1)
    w = weigh(torch.ones(600), AUTO_SPECTRA.steps[0], embedding=places)
    assert torch.allclose(w, torch.ones(600))


def test_where_all_kinds_are_small_none_is_rare():
    places, _ = blobs([50] * 8)
    w = weigh(torch.ones(400), AUTO_SPECTRA.steps[0], embedding=places)
    assert torch.allclose(w, torch.ones(400))
    places, kinds = blobs([1_000, 20])
    w = weigh(torch.ones(1_020), AUTO_SPECTRA.steps[0], embedding=places)
    assert float(w[kinds == 1].mean()) > 5 * float(w[kinds == 0].mean())


def test_guard_leaves_only_weights_that_change_the_training_set():
    slight, strong = torch.linspace(0.95, 1.05, 100), torch.linspace(0.1, 1.9, 100)
    assert torch.equal(Guard()(slight, Context(slight, slight)), torch.ones(100))
    assert torch.equal(Guard()(strong, Context(strong, strong)), strong)
    with pytest.raises(InputError, match="share"):
        Guard(share=1.5)


def test_logistic_is_one_half_at_the_median_whatever_the_scale_of_the_scores():
    scores = torch.tensor([0.0, 1, 2, 3, 4])
    expected = 1 / (1 + torch.exp(torch.tensor([-1.0, -0.5, 0, 0.5, 1])))  # the shorter side spans one sample
    assert torch.allclose(Logistic()(torch.ones(5), Context(scores, scores)), expected)
    moved = 7 * scores - 3
    assert torch.allclose(Logistic()(torch.ones(5), Context(moved, moved)), expected)
    later = Logistic(normals=0.75)(torch.ones(5), Context(scores, scores))
    assert float(later[3]) == pytest.approx(0.5)


def test_alpha_divergence_weights_make_the_weighted_loss_smallest():
    """Against a numerical minimum of sum(w s) + (spread / mean) * the alpha-divergence of w from uniform weights."""
    scores = np.array([0.2, 0.5, 1.0, 2.3])
    alpha, spread = 0.5, 0.3

    def objective(logits):
        w = np.exp(logits - logits.max())
        w = 4 * w / w.sum()
        # Its stationary points are w ~ ((1 - alpha) s + constant) ** (1 / (alpha - 1)).
        return (w * scores).sum() - (w**alpha).sum() * scale

    step = AlphaDivergence(alpha=alpha, spread=spread)
    given = torch.from_numpy(scores / scores.mean())
    w = step(torch.ones(4, dtype=torch.float64), Context(given, given))
    w = (4 * w / w.sum()).numpy()
    # The multiplier that belongs to these weights: s - scale * alpha * w ** (alpha - 1) is the same for every sample.
    slope = w ** (alpha - 1)
    scale = np.polyfit(slope, scores, 1)[0] / alpha
    best = optimize.minimize(objective, np.zeros(4), tol=1e-12).x
    found = np.exp(best - best.max())
    assert np.allclose(4 * found / found.sum(), w, atol=1e-3)
    assert step.alpha == alpha


def test_latent_outliers_weigh_as_the_gradient_of_their_other_loss():
    losses = torch.tensor([1.0, 2.0, 3.0, 4.0, 8.0], requires_grad=True)
    step = LatentOutliers(share=0.2, soft=False)
    w = step(torch.ones(5), Context(losses.detach(), losses.detach()))
    (3.0**2 / losses[4]).backward()
    assert w[:4].tolist() == [1, 1, 1, 1]
    assert float(w[4]) == pytest.approx(float(losses.grad[4]))
    soft = LatentOutliers(share=0.2)(torch.ones(5), Context(losses.detach(), losses.detach()))
    assert float(soft[4]) == pytest.approx(0.5 * (1 + float(losses.grad[4])))


def test_reject_drops_what_is_out_of_line_and_nothing_of_one_lump():
    generator = torch.Generator().manual_seed(0)
    normal = torch.randn(900, generator=generator)
    lump = torch.randn(100, generator=generator) * 0.5 + 5
    scores = torch.cat([normal, lump])
    w = Reject()(torch.ones(1_000), Context(scores, scores))
    assert int((w[900:] > 0).sum()) <= 2
    assert int((w[:900] == 0).sum()) <= 5
    alone = Reject()(torch.ones(900), Context(normal, normal))
    assert int((alone == 0).sum()) <= 3
    equal = torch.ones(50)
    assert torch.equal(Reject()(torch.ones(50), Context(equal, equal)), torch.ones(50))


def test_negative_weights_are_for_gradient_steps_only():
    samples = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
    samples[:6] += 9
    data = Data(samples, range(60))
    hard = Weighting(LatentOutliers(share=0.1, soft=False))
    with pytest.raises(InputError, match="negative"):
        fit(registry.find("detector", "gaussian")(), data, hard)
    outcome = fit(registry.find("detector", "autoencoder")(), data, hard, Training(epochs=3))
    assert float(outcome.weights.min()) < 0


def test_auto_depends_on_the_samples():
    assert parse_weighting("auto", ROW) == parse_weighting("auto", IMAGE) == AUTO
    assert parse_weighting("auto", SPECTRUM) == AUTO_SPECTRA
    assert parse_weighting("Trim(share=0.1)", SPECTRUM) == Weighting(Trim(0.1))


def test_weights_below_0_that_add_up_to_nothing_leave_a_finite_mean():
    losses = torch.tensor([2.0, 4.0])
    assert float(weighted_mean(losses, torch.tensor([1.0, -1.0]))) == pytest.approx(-1)
    assert float(weighted_mean(losses, torch.tensor([1.0, -3.0]))) == pytest.approx(-2.5)


def test_hard_latent_outliers_in_a_batch_of_one_leave_the_network_trainable():
    data = Data(torch.randn(257, 4, generator=torch.Generator().manual_seed(0)), range(257))
    detector = AutoEncoder(hidden=(8,), code=2)
    outcome = fit(detector, data, Weighting(LatentOutliers(share=0.4, soft=False)), Training(epochs=30, warmup=3))
    losses = [row["score_mean"] for row in outcome.history]
    assert all(
        math.isfinite(each) and abs(row["loss"]) < 100 for each, row in zip(losses, outcome.history, strict=True)
    )
    assert all(torch.isfinite(value).all() for value in detector.state_dict().values())
    assert losses[-1] < losses[3]


def test_latent_outliers_need_scores_of_0_and_more():
    with pytest.raises(InputError, match="LatentOutliers needs scores of 0 and more"):
        importance_weights([-1.0, 2, 3, 4, 5, 6, 7, 8, 9, 10], "LatentOutliers(share=0.1)")


def test_samples_cannot_be_drawn_by_weights_below_0():
    data = Data(torch.randn(100, 4, generator=torch.Generator().manual_seed(0)), range(100))
    with pytest.raises(InputError, match="negative"):
        fit(
            AutoEncoder(hidden=(8,), code=2),
            data,
            Weighting(LatentOutliers(soft=False)),
            Training(epochs=3, resample=True),
        )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "text",
    ["Clip(1e-300, 1e300)", "Focal(1e-300)", "Smooth(4000000000000000000)", "Importance(target=Gaussian(shift=1e300))"],
)
def test_absurd_but_finite_numbers_are_computed_or_refused(text, dtype):
    scores = torch.rand(40, dtype=dtype, generator=torch.Generator().manual_seed(0))
    try:
        w = importance_weights(scores, text, embedding=scores[:, None])
    except InputError:
        return
    assert torch.isfinite(w).all()
    assert float(w.mean()) == pytest.approx(1, abs=1e-5)


def test_a_share_is_not_cut_by_rounding():
    scores = torch.arange(100.0)
    assert int((weigh(scores, Trim(0.29)) == 0).sum()) == 29
    assert int((weigh(scores, Trim(0.58)) == 0).sum()) == 58


def test_absent_samples_are_absent_whatever_was_looked_up_before():
    """What is kept of the embedding of all is not that of some."""
    scores, places = torch.rand(30), torch.randn(30, 2)
    base = (torch.arange(30) % 3 > 0).float()
    weighting = Weighting(Importance(), Smooth(5), Rarity())
    context = Context(scores, scores, places)
    weighting(context)
    assert torch.equal(weighting.times(base, context), weighting.times(base, Context(scores, scores, places)))

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from tailwise.errors import InputError
from tailwise.weights.densities import KDE, Gaussian, Histogram, LogNormal, Mixture, silverman

ESTIMATES = [KDE(), KDE(bandwidth=0.5), Histogram(), Gaussian(), LogNormal(), Mixture(3)]
SAMPLES = {
    "gamma": stats.gamma(2.5),
    "log-normal": stats.lognorm(0.6),
    "normal": stats.norm(20, 3),
    "two": None,
}


def sample(name, n=4_000, seed=0):
    generator = np.random.default_rng(seed)
    if name == "two":
        values = np.concatenate([generator.normal(2, 0.3, n // 4), generator.normal(5, 0.6, n - n // 4)])
        return generator.permutation(values)
    return SAMPLES[name].rvs(n, random_state=generator)


@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_kde_is_scipys_with_the_same_bandwidth(name, dtype):
    values = sample(name)
    ours = KDE()(torch.as_tensor(values, dtype=dtype))
    width = silverman(torch.as_tensor(values))
    peer = stats.gaussian_kde(values, bw_method=width / values.std(ddof=1))
    places = np.linspace(values.min() - 2 * width, values.max() + 2 * width, 400)
    found = ours.log_prob(torch.as_tensor(places, dtype=dtype))
    assert found.dtype == dtype
    assert np.abs(found.exp().numpy() - peer(places)).max() < 0.01 * peer(places).max()


def test_silverman_is_the_textbook_rule():
    values = sample("normal")
    iqr = stats.iqr(values)
    assert silverman(torch.as_tensor(values)) == pytest.approx(0.9 * min(values.std(ddof=1), iqr / 1.34) * 4_000**-0.2)


@pytest.mark.parametrize("fit", ESTIMATES, ids=repr)
@pytest.mark.parametrize("name", SAMPLES)
def test_an_estimate_integrates_to_one(fit, name):
    values = torch.as_tensor(sample(name))
    values = values[values > 0]
    density = fit(values)
    low, high = float(values.min()), float(values.max())
    margin = 4 * (high - low)
    places = torch.linspace(low - margin, high + margin, 80_001, dtype=torch.float64)
    inside = density.log_prob(places).exp()
    if isinstance(fit, KDE | Histogram):  # beyond the grid stands the floor of one lone score, which is no mass
        inside = torch.where((places < low - 0.01 * margin) | (places > high + 0.01 * margin), 0, inside)
    assert integrate.trapezoid(inside.numpy(), places.numpy()) == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("fit", [KDE(), Mixture()], ids=repr)
@pytest.mark.parametrize("outlier", [1e6, 1e12, -1e6])
def test_one_far_score_does_not_spoil_the_bulk(fit, outlier):
    values = torch.as_tensor(sample("gamma"), dtype=torch.float32)
    spoilt = torch.cat([values, torch.tensor([outlier])])
    places = torch.linspace(0.5, 8, 50)
    assert torch.allclose(fit(spoilt).log_prob(places), fit(values).log_prob(places), atol=0.02)
    assert torch.isfinite(fit(spoilt).log_prob(spoilt)).all()


def test_far_scores_have_the_density_of_one_lone_kernel():
    values = torch.as_tensor(sample("gamma"))
    width = silverman(values)
    far = KDE()(values).log_prob(torch.tensor([-1e5, 1e5], dtype=torch.float64))
    assert far.exp().tolist() == pytest.approx([stats.norm(0, width).pdf(0) / len(values)] * 2)


def test_histogram_is_numpys_at_its_centres():
    values = sample("gamma")
    heights, edges = np.histogram(values, bins=50, density=True)
    centres = (edges[1:] + edges[:-1]) / 2
    ours = Histogram(50)(torch.as_tensor(values)).log_prob(torch.as_tensor(centres)).exp().numpy()
    assert np.allclose(ours[heights > 0], heights[heights > 0], rtol=1e-6)


def test_a_mixture_recovers_what_it_was_drawn_from():
    density = Mixture(2, iterations=200)(torch.as_tensor(sample("two", 20_000)))
    order = density.normal.mean.argsort()
    assert density.share[order].tolist() == pytest.approx([0.25, 0.75], abs=0.01)
    assert density.normal.mean[order].tolist() == pytest.approx([2, 5], abs=0.03)
    assert density.normal.std[order].tolist() == pytest.approx([0.3, 0.6], abs=0.02)


def test_the_parametric_ones_are_scipys():
    values = sample("log-normal")
    tensor, places = torch.as_tensor(values), np.linspace(0.1, 9, 30)
    mean, std = values.mean(), values.std(ddof=1)
    ours = Gaussian(shift=1.5, scale=0.5)(tensor).log_prob(torch.as_tensor(places))
    assert np.allclose(ours, stats.norm(mean + 1.5 * std, 0.5 * std).logpdf(places))
    logs = np.log(values)
    ours = LogNormal()(tensor).log_prob(torch.as_tensor(places))
    assert np.allclose(ours, stats.lognorm(logs.std(ddof=1), scale=np.exp(logs.mean())).logpdf(places))
    assert LogNormal()(tensor).log_prob(torch.tensor([0.0, -1.0])).tolist() == [-torch.inf] * 2


@pytest.mark.parametrize("fit", ESTIMATES, ids=repr)
def test_moving_and_stretching_the_scores_moves_the_density(fit):
    values = torch.as_tensor(sample("gamma"))
    stretched = fit(7 * values).log_prob(7 * values) + np.log(7)
    assert torch.allclose(stretched, fit(values).log_prob(values), atol=1e-6)


@pytest.mark.parametrize("fit", [KDE(), Histogram(), Gaussian(), Mixture()], ids=repr)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_nearly_constant_scores_stay_finite(fit, dtype):
    for values in ([3.0, 3.0, 3.0, 3.0], [3.0, 3.0, 3.0, 4.0], [0.0, 0.0], [1e30, 2e30], [1e-30, 2e-30]):
        scores = torch.tensor(values, dtype=dtype)
        assert torch.isfinite(fit(scores).log_prob(scores)).all(), values


@pytest.mark.parametrize("fit", [KDE(), Histogram(), Gaussian(), Mixture()], ids=repr)
def test_the_work_stays_on_the_scores_device(fit):
    values = torch.as_tensor(sample("gamma"), dtype=torch.float32)
    with torch.device("meta"):  # tensors made without a device would land there, and mixing devices raises
        assert fit(values).log_prob(values).device.type == "cpu"


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: KDE(0), "bandwidth must be a number from 0.001 to 1000: got 0"),
        (lambda: Gaussian(scale=-1), "scale must be a number above 0"),
        (lambda: LogNormal(scale=0), "scale must be a number above 0"),
        (lambda: Histogram(1), "bins must be a whole number from 2 to 1000000: got 1"),
        (lambda: Mixture(0), "components must be a whole number from 1 to 1000"),
        (lambda: KDE("wide"), "bandwidth must be a number"),
        (lambda: Mixture(2.5), "components must be a whole number"),
        (lambda: Gaussian(shift=float("nan")), "shift must be a finite number: got nan"),
        (lambda: LogNormal()(torch.tensor([1.0, 0.0])), "scores above 0"),
    ],
)
def test_bad_options_are_named(make, said):
    with pytest.raises(InputError, match=said):
        make()

"""Every registered detector keeps every contract, on rows, spectra and images as it takes them."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tailwise import AnomalyDetector
from tailwise.core import inference, registry
from tailwise.core.data import Batch, Data
from tailwise.core.detector import Detector, Reading
from tailwise.core.modality import FEATURE_MAP, IMAGE, ROW, SPATIAL, SPECTRUM, Modality
from tailwise.errors import InputError
from tailwise.testing import CONTRACTS, Case
from tailwise.training.fit import fit
from tailwise.training.options import Training

# Feature maps are computed as images are; see below.
SHAPES = {ROW: (12,), SPECTRUM: (1, 20), IMAGE: (2, 12, 10)}
DETECTORS = list(registry.entries("detector"))
CASES = [
    pytest.param(name, modality, contract, id=f"{name}-{modality.name}-{contract}")
    for name in DETECTORS
    for modality in registry.find("detector", name).modalities
    if modality in SHAPES
    for contract in CONTRACTS
]


@pytest.mark.parametrize(("name", "modality", "contract"), CASES)
def test_contract(name: str, modality: Modality, contract: str) -> None:
    CONTRACTS[contract](Case(registry.find("detector", name).for_contracts, SHAPES[modality], modality))


@pytest.mark.parametrize("name", [n for n in DETECTORS if {*SPATIAL} <= {*registry.find("detector", n).modalities}])
def test_feature_maps_are_computed_as_images_are(name: str) -> None:
    image, feature_map = (Case(registry.find("detector", name), SHAPES[IMAGE], each) for each in (IMAGE, FEATURE_MAP))
    assert torch.equal(image.scores(image.data()), feature_map.scores(feature_map.data()))


class Sound(Detector):
    """A mean and a distance to it: the smallest detector that keeps the contracts."""

    mean: Tensor

    def build(self, sample_shape: tuple[int, ...]) -> None:
        self.register_buffer("mean", torch.zeros(sample_shape))

    def solve(self, data: Data, w: Tensor) -> Tensor | None:
        samples = data.read(torch.arange(len(data)))
        self.mean = torch.tensordot(w / w.sum(), samples, dims=1)
        return None

    def score(self, batch: Batch) -> Tensor:
        return (batch.samples - self.mean).square().flatten(1).sum(1)


class Learner(Sound):
    """The same, by gradient steps."""

    solve = None  # type: ignore[assignment]

    def build(self, sample_shape: tuple[int, ...]) -> None:
        self.point = torch.nn.Parameter(torch.randn(sample_shape))
        self.mean = self.point

    def losses(self, batch: Batch) -> Tensor:
        return (batch.samples - self.point).square().flatten(1).sum(1)

    def score(self, batch: Batch) -> Tensor:
        return self.losses(batch)


class IgnoresWeights(Sound):
    def solve(self, data: Data, w: Tensor) -> None:
        super().solve(data, torch.ones_like(w))


class SumsWeights(Sound):
    def solve(self, data: Data, w: Tensor) -> None:
        self.mean = torch.tensordot(w, data.read(torch.arange(len(data))), dims=1)


class CountsSamples(Sound):
    def solve(self, data: Data, w: Tensor) -> None:
        super().solve(data, w + 1 / len(data))


class TellsOthers(Sound):
    def solve(self, data: Data, w: Tensor) -> Tensor:
        super().solve(data, w)
        return inference.score(self, data) + 0.1


class ReducesTheBatch(Sound):
    def score(self, batch: Batch) -> Tensor:
        return super().score(batch).mean(0, keepdim=True)


class LooksAtTheBatch(Sound):
    def score(self, batch: Batch) -> Tensor:
        return super().score(batch) - super().score(batch).mean()


class SignReversed(Sound):
    def score(self, batch: Batch) -> Tensor:
        return -super().score(batch)


class HiddenState(Sound):
    def solve(self, data: Data, w: Tensor) -> None:
        super().solve(data, w)
        self.forgotten = float(w.sum())

    def score(self, batch: Batch) -> Tensor:
        return super().score(batch) * getattr(self, "forgotten", 1.0)


class Unseeded(Sound):
    def score(self, batch: Batch) -> Tensor:
        return super().score(batch) + torch.rand(len(batch))


class ScoresNothing(Sound):
    def score(self, batch: Batch) -> Tensor:
        return torch.ones(len(batch))


class ReadsOtherwise(Sound):
    def read(self, batch: Batch, score: bool = True, map: bool = False, embedding: bool = False) -> Reading:
        found = super().read(batch, score, map, embedding)
        return Reading(found.score + 1e-6, found.map, found.embedding)


class ReadsTooMuch(Sound):
    def read(self, batch: Batch, score: bool = True, map: bool = False, embedding: bool = False) -> Reading:
        return super().read(batch, score, map, True)


class ForgetsItsShape(Sound):
    def build(self, sample_shape: tuple[int, ...]) -> None:
        super().build(sample_shape)
        self.modality = SPECTRUM


class ReducesTheLoss(Learner):
    def losses(self, batch: Batch) -> Tensor:
        return super().losses(batch).mean()

    def score(self, batch: Batch) -> Tensor:
        return Learner.losses(self, batch)


class NeverTrains(Learner):
    def losses(self, batch: Batch) -> Tensor:
        return super().losses(batch) * 0 + (self.point * 0).sum() + batch.samples.flatten(1).square().sum(1)


class CountsInSecret(Learner):
    """Its steps are in no state, and what it learns depends on them."""

    def build(self, sample_shape: tuple[int, ...]) -> None:
        super().build(sample_shape)
        self.steps = 0

    def losses(self, batch: Batch) -> Tensor:
        self.steps += self.training
        return super().losses(batch) + (self.steps % 4) * self.point.sum()

    def score(self, batch: Batch) -> Tensor:
        return Learner.losses(self, batch)


class LossAgainstScore(Learner):
    def score(self, batch: Batch) -> Tensor:
        return -self.losses(batch)


BROKEN = [
    (IgnoresWeights, "weight_is_copies"),
    (IgnoresWeights, "zero_weight_is_absence"),
    (SumsWeights, "scale_of_weights_cancels"),
    (CountsSamples, "zero_weight_is_absence"),
    (TellsOthers, "solve_says_what_left_out_samples_score"),
    (ReducesTheBatch, "one_number_per_sample"),
    (LooksAtTheBatch, "batch_size_does_not_matter"),
    (LooksAtTheBatch, "one_number_per_sample"),
    (SignReversed, "higher_is_more_anomalous"),
    (HiddenState, "saved_and_loaded_is_equal"),
    (Unseeded, "same_seed_same_scores"),
    (CountsInSecret, "a_training_that_was_cut_off_goes_on"),
    (ScoresNothing, "learns"),
    (ReadsOtherwise, "one_pass_gives_what_each_does"),
    (ReadsTooMuch, "one_pass_gives_what_each_does"),
    (ForgetsItsShape, "a_wrapped_detector_is_restored"),
    (HiddenState, "a_wrapped_detector_is_restored"),
    (ReducesTheLoss, "gradients_are_weighted"),
    (NeverTrains, "learns"),
    (LossAgainstScore, "learns"),
]


@pytest.mark.parametrize("contract", sorted(set(CONTRACTS) - {"maps_fit_their_samples"}))
def test_a_sound_detector_passes(contract: str) -> None:
    CONTRACTS[contract](Case(Sound))


@pytest.mark.parametrize(("detector", "contract"), BROKEN, ids=lambda value: getattr(value, "__name__", value))
def test_a_broken_detector_is_caught(detector: type[Detector], contract: str) -> None:
    with pytest.raises((AssertionError, InputError)):
        CONTRACTS[contract](Case(detector))


def test_gaussian_is_the_mahalanobis_distance_of_scikit_learn() -> None:
    from sklearn.covariance import EmpiricalCovariance

    samples = torch.randn(200, 6, generator=torch.Generator().manual_seed(0)) @ torch.randn(6, 6)
    detector = registry.find("detector", "gaussian")(shrinkage=0.0)
    data = Data(samples, [str(i) for i in range(200)])
    fit(detector, data)
    expected = EmpiricalCovariance().fit(samples.double().numpy()).mahalanobis(samples.double().numpy())
    assert torch.allclose(inference.score(detector, data), torch.from_numpy(expected).float(), rtol=1e-4)


@pytest.mark.parametrize(("shape", "modality"), [((40,), ROW), ((1, 40), SPECTRUM), ((3, 4, 4), IMAGE)])
def test_a_left_out_sample_of_nearest_neighbours_is_a_new_one(shape: tuple[int, ...], modality: Modality) -> None:
    samples = torch.randn(30, *shape, generator=torch.Generator().manual_seed(0))
    samples[:, ..., 0] = 0
    samples[7, ..., 0] = 5  # constant without this one
    data = Data(samples, [str(i) for i in range(30)], modality=modality)
    detector: Any = registry.find("detector", "nearest-neighbours")()
    fit(detector, data)
    found = inference.over_batches(detector, data, detector.score_left_out)
    for place in (0, 7, 29):
        others = registry.find("detector", "nearest-neighbours")()
        fit(others, data.take(torch.arange(30) != place))
        expected = inference.score(others, data.take([place]))
        assert float(found[place]) == pytest.approx(float(expected), rel=1e-4)


def test_few_wide_rows_keep_the_promise_of_nearest_neighbours() -> None:
    flagged = []
    for seed in range(12):
        rows = np.random.default_rng(seed)
        detector = AnomalyDetector("nearest-neighbours", scores="own").fit(rows.normal(size=(20, 200)))
        flagged.append(float((detector.predict(rows.normal(size=(200, 200))) < 0).mean()))
    assert np.mean(flagged) < 0.07, flagged


@pytest.mark.parametrize("name", ["nearest-neighbours", "gaussian", "autoencoder", "rx"])
def test_what_is_absent_may_lie_anywhere(name: str) -> None:
    """Sums that pass through it would lose the digits of all others."""
    modality = SPECTRUM if name == "rx" else ROW
    shape = (1, 6) if name == "rx" else (6,)
    near = torch.randn(100, *shape, generator=torch.Generator().manual_seed(0))
    scores = []
    for far in (0, 4):
        samples = torch.cat([torch.full((far, *shape), 1e9) + 1e6 * near[:far], near])
        data = Data(samples, [str(i) for i in range(100 + far)], modality=modality)
        detector = registry.find("detector", name)()
        base = (torch.arange(100 + far) >= far).float()
        fit(detector, data, training=Training(epochs=2, batch_size=1_000), base_weights=base)
        scores.append(inference.score(detector, data)[far:])
    assert torch.allclose(*scores, rtol=1e-3, atol=1e-4)


def test_spectra_that_are_all_the_same_leave_finite_scores() -> None:
    data = Data(torch.full((20, 1, 5), 0.3), [str(i) for i in range(20)], modality=SPECTRUM)
    detector = registry.find("detector", "rx")()
    fit(detector, data)
    fresh = Data(torch.tensor([[[0.3] * 5], [[0.4] * 5], [[9.0] * 5]]), list("abc"), modality=SPECTRUM)
    scores = inference.score(detector, fresh)
    assert bool(torch.isfinite(scores).all())
    assert scores.argsort().tolist() == [0, 1, 2]


def test_nearest_neighbours_are_those_of_scikit_learn() -> None:
    from sklearn.neighbors import NearestNeighbors

    samples = torch.randn(200, 6, generator=torch.Generator().manual_seed(0))
    fresh = torch.randn(50, 6, generator=torch.Generator().manual_seed(1))
    detector = registry.find("detector", "nearest-neighbours")(neighbours=4)
    fit(detector, Data(samples, [str(i) for i in range(200)]))
    scale = samples.std(0, correction=0)
    expected = (
        NearestNeighbors(n_neighbors=4).fit((samples / scale).numpy()).kneighbors((fresh / scale).numpy())[0].mean(1)
    )
    scores = inference.score(detector, Data(fresh, [str(i) for i in range(50)]))
    assert torch.allclose(scores, torch.from_numpy(expected).float(), rtol=1e-4)


def test_gaussian_weighs_the_rare_kind_up() -> None:
    generator = torch.Generator().manual_seed(0)
    samples = torch.cat([torch.randn(300, 4, generator=generator), 4 + 0.5 * torch.randn(10, 4, generator=generator)])
    data = Data(samples, [str(i) for i in range(310)])
    plain, balanced = (registry.find("detector", "gaussian")() for _ in range(2))
    fit(plain, data)
    fit(balanced, data, base_weights=torch.cat([torch.full((300,), 1 / 300), torch.full((10,), 1 / 10)]))
    rare = data.take(range(300, 310))
    assert float(inference.score(balanced, rare).mean()) < 0.25 * float(inference.score(plain, rare).mean())

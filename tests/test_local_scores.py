"""Local scores: fair to a sparse kind, blind to the scale of scores, the same in any batch."""

import pytest
import torch

from tailwise.core import inference, registry
from tailwise.core.data import Batch, Data
from tailwise.core.detector import Detector
from tailwise.core.modality import IMAGE, ROW, SPECTRUM
from tailwise.errors import InputError
from tailwise.numerics import neighbours
from tailwise.training import local_scores
from tailwise.training.fit import fit
from tailwise.training.options import Training


class Far(Detector):
    """Scores by the distance to the origin, times `scale`: unfair to whatever lies far out."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = scale

    def solve(self, data: Data, w: torch.Tensor) -> None:
        """Nothing to learn."""

    def score(self, batch: Batch) -> torch.Tensor:
        return self.scale * batch.samples.flatten(1).norm(dim=1)


def samples(values: torch.Tensor) -> Data:
    return Data(values, [str(i) for i in range(len(values))])


def kinds(counts: tuple[int, int], seed: int) -> torch.Tensor:
    """A tight kind at the origin, and one a hundred times rarer, four times as wide and far out."""
    generator = torch.Generator().manual_seed(seed)
    tight = torch.randn(counts[0], 8, generator=generator)
    return torch.cat([tight, 60 + 4 * torch.randn(counts[1], 8, generator=generator)])


@pytest.fixture(scope="module")
def train() -> Data:
    return samples(kinds((2_000, 60), 0))


def test_a_rare_and_sparse_kind_is_not_rejected(train: Data) -> None:
    fresh = samples(kinds((1_000, 1_000), 1))
    plain = Far().score(next(fresh.batches(2_000)))
    assert float((plain[1_000:] > plain[:1_000].quantile(0.95)).float().mean()) == 1
    fair = inference.score(local_scores.LocalScores(share=1).fit(Far(), train), fresh)
    assert float((fair[1_000:] > fair[:1_000].quantile(0.95)).float().mean()) < 0.35
    assert abs(float(fair[:1_000].median())) < 0.5


def test_anomalies_of_both_kinds_stand_out(train: Data) -> None:
    fresh = kinds((300, 300), 2)
    off = fresh.clone()
    off[:300, 0] += 9
    off[300:, 0] += 36
    fair = local_scores.LocalScores(share=1).fit(Far(), train)
    for part in (slice(0, 300), slice(300, 600)):
        assert float(inference.score(fair, samples(off[part])).median()) > float(
            inference.score(fair, samples(fresh[part])).quantile(0.95)
        )


def test_the_scale_of_the_scores_does_not_matter(train: Data) -> None:
    fresh = samples(kinds((50, 50), 3))
    one, thousand = (inference.score(local_scores.AUTO.fit(Far(scale), train), fresh) for scale in (1.0, 1_000.0))
    assert torch.allclose(one, thousand, atol=1e-3)


def test_samples_of_measure_do_not_matter(train: Data) -> None:
    """Of the distances; the detector is the same on both."""
    fresh = kinds((50, 50), 3)
    factor = torch.tensor([1.0, 1_000.0] * 4)

    class Back(Far):
        def score(self, batch: Batch) -> torch.Tensor:
            return (batch.samples / factor).norm(dim=1)

    scaled = inference.score(local_scores.AUTO.fit(Back(), samples(train.samples * factor)), samples(fresh * factor))
    assert torch.allclose(scaled, inference.score(local_scores.AUTO.fit(Far(), train), samples(fresh)), atol=1e-2)


def test_scores_do_not_depend_on_the_batch(train: Data) -> None:
    fair = local_scores.AUTO.fit(Far(), train)
    fresh = kinds((5, 5), 4)
    alone = torch.cat([inference.score(fair, samples(row[None])) for row in fresh])
    assert torch.allclose(inference.score(fair, samples(fresh)), alone, atol=1e-4)


def test_duplicates_and_few_samples() -> None:
    twice = samples(torch.randn(10, 4, generator=torch.Generator().manual_seed(0)).repeat(2, 1))
    assert bool(torch.isfinite(inference.score(local_scores.AUTO.fit(Far(), twice), twice)).all())
    three = samples(torch.tensor([[1.0], [2.0], [4.0]]))
    assert bool(torch.isfinite(inference.score(local_scores.AUTO.fit(Far(), three), three)).all())
    two = samples(torch.tensor([[1.0], [2.0]]))
    assert bool(torch.isfinite(inference.score(local_scores.AUTO.fit(Far(), two), two)).all())
    with pytest.raises(InputError, match="at least 2"):
        local_scores.AUTO.fit(Far(), samples(torch.ones(1, 1)))


@pytest.mark.parametrize("name", ["autoencoder", "deep-svdd", "gaussian", "nearest-neighbours"])
@pytest.mark.parametrize("shape", [(6,), (1, 12), (1, 8, 8)])
def test_any_detector_can_have_local_scores(name: str, shape: tuple[int, ...]) -> None:
    data = samples(torch.rand(60, *shape, generator=torch.Generator().manual_seed(0)))
    detector = registry.find("detector", name)()
    fit(detector, data, training=Training(epochs=2))
    fair = local_scores.LocalScores(neighbours=5, nearest=2).fit(detector.eval(), data)
    assert inference.score(fair, data).shape == (60,)
    assert float(inference.score(fair, samples(5 + torch.rand(5, *shape))).min()) > float(
        inference.score(fair, data).median()
    )


def test_spectra_are_left_as_they_are() -> None:
    assert local_scores.choose("auto", SPECTRUM, Far()) is None
    assert local_scores.choose("auto", ROW, Far()) == local_scores.choose("auto", IMAGE, Far()) == local_scores.AUTO
    assert local_scores.choose("LocalScores()", SPECTRUM, Far()) == local_scores.AUTO


def test_spelling() -> None:
    assert local_scores.parse("own") is None
    assert local_scores.parse("auto") == local_scores.AUTO
    rule = local_scores.LocalScores(neighbours=7, nearest=3)
    assert local_scores.parse(repr(rule)) == rule
    with pytest.raises(InputError, match="nearest <= neighbours"):
        local_scores.parse("LocalScores(neighbours=3, nearest=7)")


def test_a_training_sample_scores_the_same_whenever_it_is_scored(train: Data) -> None:
    fair = local_scores.AUTO.fit(Far(), train)
    assert torch.allclose(inference.score(fair, train), fair.training_scores, atol=1e-4)


@pytest.mark.parametrize("name", ["autoencoder", "gaussian", "nearest-neighbours"])
def test_saved_and_restored_it_scores_the_same(train: Data, name: str) -> None:
    detector = registry.find("detector", name)()
    fit(detector, train, training=Training(epochs=1))
    fair = local_scores.AUTO.fit(detector.eval(), train)
    again = local_scores.LocallyScored(local_scores.AUTO, registry.find("detector", name)())
    with torch.no_grad():
        again.restore(train.sample_shape, fair.state_dict())
    fresh = samples(kinds((50, 50), 5))
    assert torch.equal(inference.score(again, fresh), inference.score(fair, fresh))
    assert again.sample_shape == train.sample_shape


def test_off_the_plane_of_its_neighbours() -> None:
    """The distance to the flat through the nearest samples, against least squares by another library."""
    import numpy as np

    generator = torch.Generator().manual_seed(0)
    plane = torch.randn(40, 2, generator=generator) @ torch.randn(2, 6, generator=generator)
    points = plane[:8] + 0.3 * torch.randn(8, 6, generator=generator)
    near = torch.cdist(points, plane).topk(10, largest=False).indices
    found = neighbours.beyond(points, plane, near)
    for point, indices, value in zip(points.numpy(), near.numpy(), found, strict=True):
        flat = plane.numpy()[indices]
        middle = flat.mean(0)
        shares = np.linalg.lstsq((flat - middle).T, point - middle, rcond=1e-4)[0]
        assert float(value) == pytest.approx(np.linalg.norm(point - middle - (flat - middle).T @ shares), rel=0.1)


@pytest.mark.parametrize("samples_given", [30, 60, 200])
def test_fewer_samples_than_numbers_keep_the_scale(samples_given: int) -> None:
    """0 is a usual new normal and 5 % of them lie above the 95 % quantile of the training scores."""
    shares, middles = [], []
    for seed in range(6):
        generator = torch.Generator().manual_seed(seed)
        mixed = torch.randn(40, 200, generator=generator)
        drawn = torch.randn(samples_given + 300, 40, generator=generator) @ mixed
        drawn += torch.randn(drawn.shape, generator=generator)
        learnt = samples(drawn[:samples_given])
        detector = registry.find("detector", "nearest-neighbours")()
        fit(detector, learnt)
        fair = local_scores.AUTO.fit(detector.eval(), learnt)
        new = inference.score(fair, samples(drawn[samples_given:]))
        middles.append(float(new.median()))
        shares.append(float((new > fair.training_scores.quantile(0.95)).float().mean()))
    assert max(map(abs, middles)) < 1
    assert 0.01 < sum(shares) / len(shares) < 0.12


def test_the_share_is_that_of_the_samples_width() -> None:
    rule = local_scores.LocalScores()
    assert rule.share_of(20) < rule.share_of(500) < 1
    assert local_scores.LocalScores(share=0.5).share_of(20) == 0.5
    with pytest.raises(InputError, match="share"):
        local_scores.LocalScores(share=1.5)


def test_of_few_wide_rows_the_share_is_what_neighbours_tell() -> None:
    """Three kinds of other spread: all of the level. Even rows tell nothing of each other, and many rows keep .75."""
    generator = torch.Generator().manual_seed(0)
    even = torch.randn(501, 130, generator=generator)
    rows = even.clone()
    rows[20:] = 3 * rows[20:] + 40
    rows[40:] = 3 * rows[40:] - 200
    shares = [float(local_scores.AUTO.fit(Far(), samples(each)).share) for each in (rows[:60], even[:60], rows)]
    assert shares[0] > 0.9
    assert shares[1:] == [0.75, 0.75]


def test_what_has_no_weight_is_nobodys_neighbour(train: Data) -> None:
    """A sample beside dropped ones scores as if they were not there."""
    base = torch.ones(len(train))
    base[2_000:] = 0
    dropped = local_scores.AUTO.fit(Far(), train, base=base)
    alone = local_scores.AUTO.fit(Far(), samples(train.samples[:2_000]))
    fresh = samples(kinds((20, 20), 5))
    assert torch.allclose(inference.score(dropped, fresh), inference.score(alone, fresh), atol=1e-4)
    assert len(dropped.training_scores) == len(train)


@pytest.mark.parametrize("samples", [5, 8, 10, 12])
@pytest.mark.parametrize("numbers", [20, 200, 2_000])
def test_scores_of_very_few_samples_stay_on_one_scale(samples, numbers):
    """Whitened, few samples of many numbers lie equally far apart; new ones do not, so scores ran away."""
    generator = torch.Generator().manual_seed(samples)
    rows = torch.randn(samples + 50, numbers, generator=generator)
    detector = registry.find("detector", "nearest-neighbours")()
    data = Data(rows[:samples], range(samples))
    fit(detector, data)
    scored = local_scores.LocalScores().fit(detector, data)
    scores = inference.score(scored, Data(rows[samples:], range(50)))
    assert float(scores.abs().max()) < 100
    far = inference.score(scored, Data(rows[samples:] + 6, range(50)))
    assert float(far.median()) > float(scores.max())


def wide_and_tight() -> tuple[torch.Tensor, torch.Tensor]:
    """400 tight training samples of 160 numbers and 20 of a kind eight times as wide, and 100 new ones of each."""
    generator = torch.Generator().manual_seed(3)
    far = torch.full((160,), 60.0)
    parts = [torch.randn(count, 160, generator=generator) for count in (400, 20, 100, 100)]
    return torch.cat([parts[0], far + 8 * parts[1]]), torch.cat([parts[2], far + 8 * parts[3]])


def relative_distances(train: torch.Tensor, fresh: torch.Tensor) -> torch.Tensor:
    scored = local_scores.LocalScores().fit(Far(), samples(train))
    return scored.named_cues(Batch(fresh, torch.arange(len(fresh))))["distance relative to the neighbours' own"]


def test_of_many_numbers_a_distance_is_relative_to_the_neighbours_own() -> None:
    train, fresh = wide_and_tight()
    cue = relative_distances(train, fresh)
    assert float(cue[100:].median()) < 3  # new ones of the wide kind are about as far out as those of the tight one
    assert float(relative_distances(train[:400], fresh)[100:].median()) > 30  # not if none of them was learnt


def test_one_hidden_anomaly_excuses_nobody() -> None:
    train, _ = wide_and_tight()
    train = train[:400]
    lone = torch.full((1, 160), 6.0)
    near = lone + torch.randn(50, 160, generator=torch.Generator().manual_seed(4))
    assert float(relative_distances(torch.cat([train, lone]), near).median()) > 5
    assert float(relative_distances(torch.cat([train, lone, lone + 1e-3]), near).median()) < 5  # two of a kind do


def test_axes_of_few_wide_samples_are_those_of_all_numbers(monkeypatch):
    samples = torch.randn(20, 50, generator=torch.Generator().manual_seed(0)) * torch.arange(1, 51)
    samples -= samples.mean(0)
    values, axes = local_scores._principal(samples)
    monkeypatch.setattr(local_scores, "_WIDE", 10)
    variances, directions = local_scores._principal(samples)
    torch.testing.assert_close(variances[:-1], values[:-1], rtol=1e-5, atol=0)
    torch.testing.assert_close((axes * directions).sum(0).abs()[:-1], torch.ones(19), rtol=1e-4, atol=0)


@pytest.mark.parametrize("standardise", [True, False])
def test_few_wide_samples_are_left_out_along_their_own_coordinates(standardise, monkeypatch):
    """Distances of 30 samples of 200 numbers, as of 30 coordinates: the scores are the same, in a space of 30."""
    samples = torch.randn(30, 200, generator=torch.Generator().manual_seed(0)) * torch.arange(1, 201)
    scores, remembered = [], []
    remember = local_scores.Memory.remember
    monkeypatch.setattr(
        local_scores.Memory,
        "remember",
        lambda memory, rows, *more: remembered.append(rows) or remember(memory, rows, *more),
    )
    # An axis that samples do not vary along may be any of 170, or of 3.
    principal = local_scores._principal

    def varied(rows):
        values, axes = principal(rows)
        return values, axes * (values > 1e-9 * values[0])

    monkeypatch.setattr(local_scores, "_principal", varied)
    for wide in (10_000, 100):
        monkeypatch.setattr(local_scores, "_WIDE", wide)
        data = Data(samples if standardise else samples[:, None], range(30), modality=ROW if standardise else SPECTRUM)
        detector = registry.find("detector", "nearest-neighbours")()
        fit(detector, data)
        scores.append(local_scores.LocalScores(neighbours=5, nearest=3).fit(detector, data).training_scores)
    torch.testing.assert_close(scores[1], scores[0], rtol=1e-3, atol=1e-3)
    assert {rows.shape[1] for rows in remembered[: len(remembered) // 2]} == {200}
    assert [rows.shape[1] for rows in remembered[len(remembered) // 2 :]].count(30) > 3


def test_training_scores_beyond_the_memory_are_of_samples_left_out(train: Data, monkeypatch) -> None:
    monkeypatch.setattr(local_scores, "_MOST_SAMPLES", 60)
    detector = registry.parse_one("nearest-neighbours", "detector")
    outcome = fit(detector, train)
    fresh = samples(kinds((190, 10), seed=5))
    for raw in (None, outcome.scores):
        scored = local_scores.AUTO.fit(detector, train, raw=raw)
        middle = float(scored.training_scores.median())
        assert abs(middle - float(inference.score(scored, fresh).median())) < 0.15


def test_a_share_of_many_decimals_is_the_same_when_restored() -> None:
    train, fresh = samples(kinds((300, 20), 0)), samples(kinds((40, 40), 1))
    fair = local_scores.LocalScores(share=1 / 3).fit(Far(), train)
    again = local_scores.LocallyScored(local_scores.LocalScores(share=1 / 3), Far())
    again.restore(train.sample_shape, fair.state_dict(), ROW)
    assert torch.equal(inference.score(again, fresh), inference.score(fair, fresh))

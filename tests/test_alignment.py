"""Mode-fair scores: fair to a sparse kind, blind to the scale of scores, the same in any batch."""

import pytest
import torch

from tailwise.core import inference, registry
from tailwise.core.data import Batch, Data
from tailwise.core.detector import Detector
from tailwise.errors import InputError
from tailwise.numerics import neighbours
from tailwise.training import alignment
from tailwise.training.fit import fit


class Far(Detector):
    """Scores by the distance to the origin, times `scale`: unfair to whatever lies far out."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = scale

    def solve(self, data: Data, w: torch.Tensor) -> None:
        """Nothing to learn."""

    def score(self, batch: Batch) -> torch.Tensor:
        return self.scale * batch.units.flatten(1).norm(dim=1)


def units(values: torch.Tensor) -> Data:
    return Data(values, [str(i) for i in range(len(values))])


def kinds(counts: tuple[int, int], seed: int) -> torch.Tensor:
    """A tight kind at the origin, and one a hundred times rarer, four times as wide and far out."""
    generator = torch.Generator().manual_seed(seed)
    tight = torch.randn(counts[0], 8, generator=generator)
    return torch.cat([tight, 60 + 4 * torch.randn(counts[1], 8, generator=generator)])


@pytest.fixture(scope="module")
def train() -> Data:
    return units(kinds((2_000, 60), 0))


def test_a_rare_and_sparse_kind_is_not_rejected(train: Data) -> None:
    fresh = units(kinds((1_000, 1_000), 1))
    plain = Far().score(next(fresh.batches(2_000)))
    assert float((plain[1_000:] > plain[:1_000].quantile(0.95)).float().mean()) == 1
    fair = inference.score(alignment.AUTO.fit(Far(), train), fresh)
    assert float((fair[1_000:] > fair[:1_000].quantile(0.95)).float().mean()) < 0.35
    assert abs(float(fair[:1_000].median())) < 0.5


def test_anomalies_of_both_kinds_stand_out(train: Data) -> None:
    fresh = kinds((300, 300), 2)
    off = fresh.clone()
    off[:300, 0] += 9
    off[300:, 0] += 36
    fair = alignment.AUTO.fit(Far(), train)
    for part in (slice(0, 300), slice(300, 600)):
        assert float(inference.score(fair, units(off[part])).median()) > float(
            inference.score(fair, units(fresh[part])).quantile(0.95)
        )


def test_the_scale_of_the_scores_does_not_matter(train: Data) -> None:
    fresh = units(kinds((50, 50), 3))
    one, thousand = (inference.score(alignment.AUTO.fit(Far(scale), train), fresh) for scale in (1.0, 1_000.0))
    assert torch.allclose(one, thousand, atol=1e-3)


def test_units_of_measure_do_not_matter(train: Data) -> None:
    """Of the distances; the detector is the same on both."""
    fresh = kinds((50, 50), 3)
    factor = torch.tensor([1.0, 1_000.0] * 4)

    class Back(Far):
        def score(self, batch: Batch) -> torch.Tensor:
            return (batch.units / factor).norm(dim=1)

    scaled = inference.score(alignment.AUTO.fit(Back(), units(train.units * factor)), units(fresh * factor))
    assert torch.allclose(scaled, inference.score(alignment.AUTO.fit(Far(), train), units(fresh)), atol=1e-2)


def test_scores_do_not_depend_on_the_batch(train: Data) -> None:
    fair = alignment.AUTO.fit(Far(), train)
    fresh = kinds((5, 5), 4)
    alone = torch.cat([inference.score(fair, units(row[None])) for row in fresh])
    assert torch.allclose(inference.score(fair, units(fresh)), alone, atol=1e-4)


def test_duplicates_and_few_units() -> None:
    twice = units(torch.randn(10, 4, generator=torch.Generator().manual_seed(0)).repeat(2, 1))
    assert bool(torch.isfinite(inference.score(alignment.AUTO.fit(Far(), twice), twice)).all())
    three = units(torch.tensor([[1.0], [2.0], [4.0]]))
    assert bool(torch.isfinite(inference.score(alignment.AUTO.fit(Far(), three), three)).all())
    two = units(torch.tensor([[1.0], [2.0]]))
    assert bool(torch.isfinite(inference.score(alignment.AUTO.fit(Far(), two), two)).all())
    with pytest.raises(InputError, match="at least 2"):
        alignment.AUTO.fit(Far(), units(torch.ones(1, 1)))


@pytest.mark.parametrize("name", ["autoencoder", "deep-svdd", "gaussian", "nearest-neighbours"])
@pytest.mark.parametrize("shape", [(6,), (1, 12), (1, 8, 8)])
def test_any_detector_can_be_aligned(name: str, shape: tuple[int, ...]) -> None:
    data = units(torch.rand(60, *shape, generator=torch.Generator().manual_seed(0)))
    detector = registry.find("detector", name)()
    fit(detector, data, epochs=2)
    fair = alignment.ModeFair(neighbours=5, nearest=2).fit(detector.eval(), data)
    assert inference.score(fair, data).shape == (60,)
    assert float(inference.score(fair, units(5 + torch.rand(5, *shape))).min()) > float(
        inference.score(fair, data).median()
    )


def test_spectra_are_left_as_they_are() -> None:
    assert alignment.choose("auto", (1, 205)) is None
    assert alignment.choose("auto", (205,)) == alignment.choose("auto", (3, 8, 8)) == alignment.AUTO
    assert alignment.choose("ModeFair()", (1, 205)) == alignment.AUTO


def test_spelling() -> None:
    assert alignment.parse("") is None
    assert alignment.parse("auto") == alignment.AUTO
    rule = alignment.ModeFair(neighbours=7, nearest=3)
    assert alignment.parse(repr(rule)) == rule
    with pytest.raises(InputError, match="nearest <= neighbours"):
        alignment.parse("ModeFair(neighbours=3, nearest=7)")


def test_a_training_unit_scores_the_same_whenever_it_is_scored(train: Data) -> None:
    fair = alignment.AUTO.fit(Far(), train)
    assert torch.allclose(inference.score(fair, train), fair.training_scores, atol=1e-4)


def test_saved_and_restored_it_scores_the_same(train: Data) -> None:
    detector = registry.find("detector", "autoencoder")()
    fit(detector, train, epochs=1)
    fair = alignment.AUTO.fit(detector.eval(), train)
    again = alignment.Aligned(alignment.AUTO, registry.find("detector", "autoencoder")())
    with torch.no_grad():
        again.restore(train.unit_shape, fair.state_dict())
    fresh = units(kinds((50, 50), 5))
    assert torch.equal(inference.score(again, fresh), inference.score(fair, fresh))
    assert again.unit_shape == train.unit_shape


def test_off_the_plane_of_its_neighbours() -> None:
    """The distance to the flat through the nearest units, against least squares by another library."""
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

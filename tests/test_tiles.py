"""Tiles of large images: where they lie, that they learn as samples of their own, and how their maps are joined."""

import numpy as np
import pytest
import torch

from tailwise.calibration import score_maps
from tailwise.core import inference
from tailwise.core.data import Data
from tailwise.core.detector import Detector
from tailwise.core.modality import IMAGE
from tailwise.core.registry import parse
from tailwise.detectors.autoencoder import AutoEncoder
from tailwise.detectors.deep_svdd import DeepSVDD
from tailwise.detectors.gaussian import Gaussian
from tailwise.detectors.tiles import Tiles
from tailwise.errors import InputError
from tailwise.testing import CONTRACTS, Case
from tailwise.training.fit import fit


class Brightness(Detector):
    """Scores what it sees; what it was shown is remembered."""

    def build(self, sample_shape):
        self.register_buffer("seen", torch.zeros(1, *sample_shape))
        self.register_buffer("w", torch.zeros(1))

    def solve(self, data, w):
        self.seen, self.w = data.read(torch.arange(len(data))), w

    def score(self, batch):
        return batch.samples.flatten(1).amax(1)

    def score_map(self, batch):
        return batch.samples.mean(1)


def pictures(count, height=23, width=37, channels=2, seed=0):
    samples = torch.rand(count, channels, height, width, generator=torch.Generator().manual_seed(seed))
    return Data(samples, [f"{i}.png" for i in range(count)], modality=IMAGE)


@pytest.mark.parametrize("contract", CONTRACTS)
@pytest.mark.parametrize("inner", [AutoEncoder, Gaussian])
def test_contract_of_several_tiles(contract, inner):
    CONTRACTS[contract](Case(lambda: Tiles(inner(), tile=8), (2, 12, 10), IMAGE))


def test_every_pixel_is_in_a_tile_and_tiles_overlap():
    detector = Tiles(Brightness(), tile=10, overlap=0.25)
    data = pictures(3)
    fit(detector, data)
    seen = detector.detector.seen
    assert seen.shape == (3 * 3 * 5, 2, 10, 10)
    windows = {tuple(tile.flatten().tolist()) for tile in seen}
    expected = {
        tuple(image[:, row : row + 10, column : column + 10].flatten().tolist())
        for image in data.samples
        for row in (0, 6, 13)
        for column in (0, 7, 14, 20, 27)
    }
    assert windows == expected


@pytest.mark.parametrize("tile", [5, 10, 23, 30, 64])
@pytest.mark.parametrize("overlap", [0, 0.125, 0.5])
def test_joined_maps_of_pixels_are_the_picture(tile, overlap):
    """A map that is the picture itself comes back whole, whatever the tiles are; so does the highest pixel."""
    detector = Tiles(Brightness(), tile=tile, overlap=overlap)
    data = pictures(4)
    fit(detector, data)
    batch = next(data.batches(4))
    torch.testing.assert_close(detector.score_map(batch), data.samples.mean(1))
    torch.testing.assert_close(detector.score(batch), data.samples.amax((1, 2, 3)))


def test_an_image_no_larger_than_a_tile_is_scored_as_without_tiles():
    data = pictures(30, 8, 10)
    tiled, plain = Tiles(Gaussian(), tile=64), Gaussian()
    for detector in (tiled, plain):
        fit(detector, data)
    assert torch.equal(inference.score(tiled, data), inference.score(plain, data))
    np.testing.assert_allclose(list(score_maps.of_data(tiled, data)), list(score_maps.of_data(plain, data)), rtol=1e-5)


def test_a_tile_has_its_images_weight_and_its_name():
    detector = Tiles(Brightness(), tile=20)
    data = pictures(2)
    fit(detector, data, base_weights=torch.tensor([1.0, 3.0]))
    w = detector.detector.w
    assert w.tolist() == pytest.approx([0.5] * 4 + [1.5] * 4)
    parts, owner = detector.divide(data, torch.Generator())
    assert parts.names[:4] == ["0.png#0,0", "0.png#0,17", "0.png#3,0", "0.png#3,17"]
    assert owner.tolist() == [0] * 4 + [1] * 4


def test_tiles_are_cut_from_the_disk_an_image_at_a_time():
    held = pictures(3)
    asked = []

    class Streamed:
        shape = held.samples.shape

        def __getitem__(self, index):
            asked.append(index.tolist())
            return held.samples[index]

    detector = Tiles(Brightness(), tile=10)
    detector.start(held.sample_shape, IMAGE)
    parts, _ = detector.divide(Data(Streamed(), held.names, modality=IMAGE), torch.Generator())
    whole, _ = detector.divide(held, torch.Generator())
    index = torch.tensor([40, 3, 5, 29, 0])
    assert torch.equal(parts.read(index), whole.read(index))
    assert all(len(images) == 1 for images in asked)


def test_a_defect_in_one_tile_is_found_there():
    generator = torch.Generator().manual_seed(0)
    normal = Data(0.1 * torch.randn(60, 1, 48, 64, generator=generator), [""] * 60)
    bad = 0.1 * torch.randn(8, 1, 48, 64, generator=generator)
    bad[:, :, 30:34, 50:54] += 1
    detector = Tiles(Gaussian(), tile=16)
    fit(detector, normal)
    assert inference.score(detector, Data(bad, [""] * 8)).min() > inference.score(detector, normal).max()
    highest = detector.score_map(next(Data(bad, [""] * 8).batches(8))).flatten(1).argmax(1)
    rows, columns = highest // 64, highest % 64
    assert bool(((rows >= 30) & (rows < 34) & (columns >= 50) & (columns < 54)).all())


def test_maps_are_those_of_what_it_wraps_and_it_prints_as_its_call():
    without = Tiles(DeepSVDD(), tile=16)
    without.start((1, 32, 32))
    assert not without.has_maps
    with pytest.raises(InputError, match="DeepSVDD has no score maps"):
        without.score_map(next(pictures(2, 32, 32, 1).batches(2)))
    spelled = "Tiles(detector=AutoEncoder(code=8), tile=64)"
    assert repr(parse(spelled, ("detector",))[0]) == spelled


@pytest.mark.parametrize("options", [{"tile": 1}, {"tile": 2.5}, {"overlap": -0.1}, {"overlap": 1.0}])
def test_unusable_options_are_refused(options):
    with pytest.raises(InputError, match=rf"{next(iter(options))} must be"):
        Tiles(**options)

"""Crops of one texture look alike wherever they are cut: scores must not tell the border of a crop from its inside."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from tailwise.backbones import networks
from tailwise.calibration import score_maps
from tailwise.core import inference
from tailwise.core.data import Data
from tailwise.core.modality import FEATURE_MAP, IMAGE
from tailwise.core.registry import parse_one
from tailwise.detectors.components import pooling
from tailwise.training.fit import fit
from tailwise.training.options import Training

CROPS = 150


def crops(channels, side, modality, first, count=CROPS, grain=1.0):
    """Crops of a texture that is the same everywhere, those after `first`; far from 0, which no texture is made of."""
    generator = np.random.default_rng(0)
    canvas = gaussian_filter(generator.standard_normal((channels, 300, 300)), (0, grain, grain), mode="wrap")
    canvas = (canvas / canvas.std() * (0.1 if modality == IMAGE else 1) + (0.5 if modality == IMAGE else 4)).clip(0)
    corners = generator.integers(0, 300 - side, (first + count, 2))[first:]
    cut = np.stack([canvas[:, top : top + side, left : left + side] for top, left in corners])
    return Data(torch.from_numpy(cut).float(), [str(i) for i in range(count)], modality=modality)


def border(shape, width=1):
    """Which places [h, w] lie within so many of an edge."""
    edge = torch.ones(shape, dtype=torch.bool)
    edge[width:-width, width:-width] = False
    return edge


def share_at_border(maps, width=1):
    """How often the highest place of a map [n, h, w] is at the border, over the border's share of the places."""
    edge = border(tuple(maps.shape[1:]), width)
    return float(edge.flatten()[maps.flatten(1).argmax(1)].float().mean() / edge.float().mean())


@pytest.mark.parametrize(
    "spelling",
    [
        "PatchMemory(share=0.02)",
        "PatchMemory(share=0.02, neighbourhood=5)",
        "padim",
        "Patches(Gaussian())",
        "Tiles(PaDiM(), tile=8, overlap=0.25)",
    ],
)
def test_the_highest_places_of_normals_are_not_at_the_border(spelling):
    detector = parse_one(spelling, "detector")
    fit(detector, crops(6, 14, FEATURE_MAP, CROPS))
    fresh = crops(6, 14, FEATURE_MAP, 0)
    assert share_at_border(inference.over_batches(detector, fresh, detector.score_map)) < 2


def test_padim_bears_a_border_that_varies_less_evenly_than_the_inside():
    """As of pictures whose edges cut through things."""
    generator = torch.Generator().manual_seed(0)

    def cut(data):
        factor = torch.where(border((14, 14)), torch.randn(CROPS, 1, 14, 14, generator=generator).mul(0.25).exp(), 1)
        middle = data.samples.mean((0, 2, 3), keepdim=True)
        return Data(middle + (data.samples - middle) * factor, data.names, modality=FEATURE_MAP)

    detector = parse_one("padim", "detector")
    fit(detector, cut(crops(6, 14, FEATURE_MAP, CROPS)))
    fresh = cut(crops(6, 14, FEATURE_MAP, 0))
    found = inference.over_batches(detector, fresh, detector.score_map)
    shares = [share_at_border(maps) for maps in (found * detector.scale.reshape(14, 14), found)]
    assert shares[0] > 2.5
    assert shares[1] < 0.75 * shares[0]


def test_neighbourhoods_are_alike_at_the_border_and_inside():
    data = crops(1, 12, FEATURE_MAP, 0)
    spread = pooling.means_around(data.samples, 3).std(0).reshape(12, 12)
    edge = border((12, 12))
    assert float(spread[edge].mean() / spread[~edge].mean()) == pytest.approx(1, abs=0.05)


def test_smoothing_leaves_the_highest_places_where_they_are():
    maps = crops(1, 28, FEATURE_MAP, 0).samples[:, 0]
    assert share_at_border(score_maps.smoothed(maps), width=8) < 1.5
    assert share_at_border(score_maps.smoothed(maps, 0.05), width=8) < 1.5


@pytest.mark.skipif(not networks.installed("efficientnet-lite0"), reason="needs tailwise[images]")
@pytest.mark.parametrize("spelling", ["PatchMemory(share=0.02)", "padim(dims=20)"])
def test_a_backbone_sees_no_border(spelling):
    see = networks.mapped("efficientnet-lite0", networks.map_layers("efficientnet-lite0"))
    train, fresh = (
        Data(see(data.samples), data.names, modality=FEATURE_MAP)
        for data in (crops(1, 96, IMAGE, first, 100, grain=2.0) for first in (0, 100))
    )
    detector = parse_one(spelling, "detector")
    fit(detector, train)
    assert share_at_border(inference.over_batches(detector, fresh, detector.score_map)) < 2


def test_a_student_is_not_told_the_border():
    detector = parse_one("StudentTeacher()", "detector")
    fit(detector, crops(1, 32, IMAGE, CROPS), training=Training(epochs=5, batch_size=16))
    fresh = crops(1, 32, IMAGE, 0)
    assert share_at_border(inference.over_batches(detector, fresh, detector.score_map), width=4) < 2

"""3DzAL: contracts, made defects, what the network favours, and that patches know neither pose nor unit."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor

from tailwise.core import inference
from tailwise.core.context import Measured
from tailwise.core.data import Data
from tailwise.core.modality import FEATURE_MAP
from tailwise.detectors.components.patch_defects import salience, turned, with_defects
from tailwise.detectors.zero_shot_patches import ZeroShotPatches
from tailwise.errors import InputError
from tailwise.integrations import onnx
from tailwise.numerics import organised_scans
from tailwise.numerics.point_patches import patches_of
from tailwise.testing import CONTRACTS, Case
from tailwise.training.fit import fit
from tailwise.training.options import Training

HISTOGRAM, POINTS = 6, 16
GEOMETRY = 3 * (1 + POINTS)
SHAPE = (HISTOGRAM + GEOMETRY, 3, 3)


def surfaces(samples: int, seed: int, bend: float = 0.0) -> Tensor:
    """Maps of cells on surfaces that are almost flat, or bent; histograms are noise."""
    generator = torch.Generator().manual_seed(seed)
    histograms = torch.randn(samples, HISTOGRAM, *SHAPE[1:], generator=generator)
    places = torch.randn(samples, 3, *SHAPE[1:], generator=generator)
    flat = torch.rand(samples, POINTS, 2, *SHAPE[1:], generator=generator) * 1.4 - 0.7
    height = bend * flat.square().sum(2) + 0.02 * torch.randn(samples, POINTS, *SHAPE[1:], generator=generator)
    return torch.cat([histograms, places, torch.cat([flat, height[:, :, None]], 2).flatten(1, 2)], 1)


@dataclass(frozen=True)
class Surfaces(Case):
    """Samples of three kinds of surface."""

    def data(self, samples: int = 32, seed: int = 0) -> Data:
        kind = torch.arange(samples) % 3
        values = torch.stack([surfaces(samples, seed, bend) for bend in (0.0, 0.05, -0.05)])
        return self.around(values[kind, torch.arange(samples)])


MAKERS = (ZeroShotPatches,)


@pytest.mark.parametrize("contract", CONTRACTS)
@pytest.mark.parametrize("maker", MAKERS, ids=lambda maker: maker.__name__)
def test_contract(maker: type[ZeroShotPatches], contract: str) -> None:
    """Where weights are compared, memories keep everything, so that rounding cannot choose other patches."""
    compared = contract in ("weight_is_copies", "zero_weight_is_absence", "scale_of_weights_cancels")
    share = 1.0 if compared else 0.1
    CONTRACTS[contract](Surfaces(lambda: maker(GEOMETRY, share=share), SHAPE, FEATURE_MAP))


def data(values: Tensor) -> Data:
    names = (*(f"xyz:{i}" for i in range(HISTOGRAM)), *(f"patch:{i}" for i in range(GEOMETRY)))
    seen = Measured(torch.ones(len(values), *SHAPE[1:], dtype=torch.bool))
    return Data(values, [str(i) for i in range(len(values))], names, seen, FEATURE_MAP)


def test_a_dent_is_found_that_histograms_say_nothing_of() -> None:
    detector = ZeroShotPatches()
    fit(detector, data(surfaces(24, 0)), training=Training(epochs=40, batch_size=8))
    fresh = surfaces(12, 1)
    dented = fresh.clone()
    patch = dented[:, HISTOGRAM + 3 :, 1, 2].unflatten(1, (POINTS, 3))
    patch[..., 2] -= 0.4 * (-patch[..., :2].square().sum(2) / 0.1).exp()
    normal, found = (inference.score(detector, data(each)) for each in (fresh, dented))
    assert float((found[:, None] > normal).float().mean()) > 0.9
    maps = detector.score_map(data(dented).batch(torch.arange(12)))
    assert float((maps.flatten(1).argmax(1) == 1 * 3 + 2).float().mean()) > 0.9
    with torch.no_grad():
        parts = detector.parts_of_score(data(fresh).batch(torch.arange(12)))
    assert float((parts["classified"] - parts["classified as it is"]).min()) > -1e-3


def test_defects_are_made_of_the_sample_and_change_only_their_place() -> None:
    patches = surfaces(4, 2)[:, HISTOGRAM + 3 :].flatten(2).transpose(1, 2).unflatten(2, (POINTS, 3))
    fragments = turned(patches, torch.arange(4), 1).flatten(0, 1)
    seeds = torch.tensor([5, 6, 5, 8])
    spoilt = with_defects(patches, fragments, seeds)
    again = with_defects(patches[[2, 0]], fragments, seeds[[2, 0]])
    assert torch.equal(spoilt[[2, 0]], again)
    moved = (spoilt - patches).abs().amax(3)
    assert float((spoilt[..., 2] - patches[..., 2])[moved > 0].abs().max()) > 0.05
    assert 0.05 < float((moved > 0).float().mean()) < 0.8
    distinct = [len(torch.unique(patch, dim=0)) for patch in spoilt.flatten(0, 1)]
    assert min(distinct) < POINTS
    assert max(distinct) == POINTS


def test_salience_is_of_shape_not_of_place_or_unit() -> None:
    y, x = torch.meshgrid(torch.linspace(-1, 1, 12), torch.linspace(-1, 1, 12), indexing="ij")
    step = torch.stack([x, y, (x > 0).float()])[None]
    seen = torch.ones(1, 12, 12, dtype=torch.bool)
    seen[0, 0, 0] = False
    found = salience(step, seen)
    assert torch.allclose(found, salience(1000 * step + 7, seen), atol=1e-4)
    assert float(found[0, 0, 0]) == 0
    assert not torch.equal(found, salience(step, seen, seed=1))


def bumpy(side: int = 14) -> np.ndarray:
    y, x = np.mgrid[:side, :side] / side
    return np.stack([x, y, 3 + 0.1 * np.sin(5 * x) * np.cos(4 * y)], 2)


def test_patches_know_neither_pose_nor_unit() -> None:
    points = bumpy().reshape(-1, 3)
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    turn *= np.sign(np.linalg.det(turn))
    normals = np.tile([0.1, -0.2, 1.0], (len(points), 1)) / np.sqrt(1.05)
    place, along = np.array([40, 90, 120]), np.array([1.0, 0, 0])
    first = patches_of(points, normals, place, 0.31, along)
    second = patches_of(7 * points @ turn.T + 3, normals @ turn.T, place, 7 * 0.31, turn @ along)
    assert np.abs(first - second).max() < 1e-5
    assert np.linalg.norm(first, axis=2).max() <= 1 + 1e-6
    assert np.abs(first[:, 0]).max() < 1e-9


def test_a_hole_is_in_no_patch() -> None:
    xyz = bumpy(30)
    xyz[10:16, 10:16] = 0
    cells = organised_scans.cell_patches(xyz, (10, 10))
    filled = xyz.copy()
    filled[10:16, 10:16] = np.nan
    assert np.array_equal(cells, organised_scans.cell_patches(filled, (10, 10)))
    assert np.array_equal(cells[3:, 4, 4], cells[3:, 3, 4]) or np.array_equal(cells[3:, 4, 4], cells[3:, 4, 3])
    assert np.abs(cells[3:]).max() <= 1 + 1e-6
    assert not organised_scans.cell_patches(np.zeros((30, 30, 3)), (10, 10)).any()


def test_export_is_refused_with_the_reason() -> None:
    detector = ZeroShotPatches(GEOMETRY)
    detector.start(SHAPE, FEATURE_MAP)
    with pytest.raises(InputError, match="cannot be exported: its score follows a gradient of its own"):
        onnx.to_onnx(detector, {"detector": repr(detector)})


def test_channels_that_are_no_points_are_refused() -> None:
    with pytest.raises(InputError, match="4 channels are no points"):
        ZeroShotPatches(geometry=4).start((10, 4, 4), FEATURE_MAP)
    with pytest.raises(InputError, match="which of the 57 channels"):
        fit(ZeroShotPatches(), Data(surfaces(8, 0), [str(i) for i in range(8)], modality=FEATURE_MAP))

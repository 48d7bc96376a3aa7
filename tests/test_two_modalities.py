"""Detectors of photographs with geometry: contracts, what a missing scan does, and what each modality can see."""

from pathlib import Path

import pytest
import torch

from tailwise.core import inference
from tailwise.core.context import Measured
from tailwise.core.data import Data
from tailwise.core.modality import FEATURE_MAP
from tailwise.detectors.components import two_modalities
from tailwise.detectors.cross_modal_mapping import CrossModalMapping
from tailwise.detectors.cross_modal_maps import CrossModalMaps
from tailwise.detectors.paired_memories import PairedMemories
from tailwise.errors import InputError
from tailwise.integrations import onnx
from tailwise.testing import CONTRACTS, Case
from tailwise.training.fit import fit
from tailwise.training.options import Training

# Of two channels the adaptors' normalisation leaves a sign, which rounding can turn.
SHAPE, GEOMETRY = (14, 5, 4), 6
FIRST = 4
MAKERS = (PairedMemories, CrossModalMapping, CrossModalMaps)
NAMES = (*(f"rgb:{i}" for i in range(FIRST)), "xyz:0", "xyz:1")


@pytest.mark.parametrize("contract", CONTRACTS)
@pytest.mark.parametrize("maker", MAKERS, ids=lambda maker: maker.__name__)
def test_contract(maker, contract: str) -> None:
    """Where weights are compared, memories keep everything, so that rounding cannot choose other patches."""
    compared = contract in ("weight_is_copies", "zero_weight_is_absence", "scale_of_weights_cancels")
    everything = {"share": 1.0} if compared and maker is not CrossModalMapping else {}
    CONTRACTS[contract](Case(lambda: maker(geometry=GEOMETRY, **everything), SHAPE, FEATURE_MAP))


def data(samples: int = 24, seed: int = 0) -> Data:
    """Maps whose two modalities share what they show; channels are named."""
    generator = torch.Generator().manual_seed(seed)
    shared = torch.randn(samples, 2, 8, 8, generator=generator)
    mix = torch.randn(6, 2, generator=torch.Generator().manual_seed(99))
    maps = torch.einsum("cd,ndhw->nchw", mix, shared) + 0.2 * torch.randn(samples, 6, 8, 8, generator=generator)
    return Data(
        maps,
        [str(i) for i in range(samples)],
        NAMES,
        Measured(torch.ones(samples, 8, 8, dtype=torch.bool)),
        FEATURE_MAP,
    )


def fitted(maker, train: Data):
    detector = maker()
    fit(detector, train, training=Training(epochs=8, batch_size=8))
    return detector.eval()


@pytest.mark.parametrize("maker", MAKERS, ids=lambda maker: maker.__name__)
def test_names_of_channels_part_them_as_the_setting_does(maker) -> None:
    train, fresh = data(), data(8, seed=1)
    by_name = fitted(maker, train)
    by_number = maker(geometry=2)
    unnamed = Data(train.samples, train.names, (), train.context, FEATURE_MAP)
    fit(by_number, unnamed, training=Training(epochs=8, batch_size=8))
    assert torch.allclose(inference.score(by_name, fresh), inference.score(by_number, fresh), rtol=1e-4)
    again = maker()
    again.restore(train.sample_shape, by_name.state_dict(), FEATURE_MAP)
    assert torch.equal(inference.score(again.eval(), fresh), inference.score(by_name, fresh))


def test_channels_that_nothing_parts_are_refused() -> None:
    train = data()
    with pytest.raises(InputError, match="which of the 6 channels are photograph and which geometry"):
        fit(PairedMemories(), Data(train.samples, train.names, modality=FEATURE_MAP))
    with pytest.raises(InputError, match="geometry=3, and 2 channels are named"):
        fit(PairedMemories(geometry=3), train)
    with pytest.raises(InputError, match="geometry=6 of 6 channels"):
        fit(PairedMemories(geometry=6), train)


@pytest.mark.parametrize("maker", [PairedMemories, CrossModalMaps], ids=lambda maker: maker.__name__)
def test_cells_that_were_not_measured_have_no_say(maker) -> None:
    """Whatever stands in their geometry, in training or when scored, changes nothing."""
    train, fresh = data(), data(8, seed=1)
    assert isinstance(train.samples, torch.Tensor)
    assert isinstance(fresh.samples, torch.Tensor)
    scores = []
    for filling in (0.0, 50.0):
        gone, seen = train.samples.clone(), torch.ones(24, 8, 8, dtype=torch.bool)
        gone[3, FIRST:], seen[3] = filling, False  # no scan at all
        detector = fitted(maker, Data(gone, train.names, NAMES, Measured(seen), FEATURE_MAP))
        asked, measured = fresh.samples.clone(), torch.ones(8, 8, 8, dtype=torch.bool)
        asked[0, FIRST:], measured[0] = filling, False
        scores.append(inference.score(detector, Data(asked, fresh.names, NAMES, Measured(measured), FEATURE_MAP)))
    assert torch.allclose(scores[0], scores[1], rtol=2e-2)
    assert bool(torch.isfinite(scores[0]).all())


@pytest.mark.parametrize("maker", [PairedMemories, CrossModalMaps], ids=lambda maker: maker.__name__)
def test_more_normals_lower_their_own_scores_and_raise_none(maker) -> None:
    detector, fresh = fitted(maker, data(40)), data(12, seed=1)
    odd = Data(fresh.read(torch.arange(6)) * 3, fresh.names[:6], NAMES, modality=FEATURE_MAP)
    before = inference.score(detector, odd), inference.score(detector, fresh)
    detector.update(odd, torch.ones(6))
    after = inference.score(detector, odd), inference.score(detector, fresh)
    assert bool((after[0] < 0.5 * before[0]).all())
    assert bool((after[1] <= before[1] + 1e-4).all())


@pytest.mark.parametrize("maker", [PairedMemories, CrossModalMaps], ids=lambda maker: maker.__name__)
def test_samples_left_out_score_as_fresh_ones_do(maker) -> None:
    train = data(40)
    detector = fitted(lambda: maker(share=1.0), train)
    own = inference.score(detector, train)
    with torch.no_grad():
        left_out = detector.score_left_out(train.batch(torch.arange(40)))
    fresh = inference.score(detector, data(40, seed=1))
    assert float(own.max()) < 0.1 * float(left_out.min())
    assert 0.7 < float(left_out.median() / fresh.median()) < 1.2


@pytest.mark.parametrize("maker", MAKERS, ids=lambda maker: maker.__name__)
def test_export_is_refused_with_the_reason(maker) -> None:
    detector = maker(geometry=2)
    detector.start((6, 8, 8), FEATURE_MAP)
    with pytest.raises(InputError, match="cannot be exported: which cells were measured is not in the samples"):
        onnx.to_onnx(detector, {"detector": repr(detector)})


def test_what_memories_of_given_features_say_is_added() -> None:
    """To the maps of adapted ones those of `paired-memories` on the same samples, also where some were not measured."""
    train, fresh = data(), data(8, seed=1)
    seen = torch.ones(8, 8, 8, dtype=torch.bool)
    seen[0], seen[1, 2:4] = False, False
    batch = Data(fresh.samples, fresh.names, NAMES, Measured(seen), FEATURE_MAP).batch(torch.arange(8))
    all_four, adapted, given = (
        fitted(maker, train) for maker in (CrossModalMaps, lambda: CrossModalMaps(given=False), PairedMemories)
    )
    with torch.no_grad():
        expected = adapted.score_map(batch) + given.score_map(batch)
        assert torch.allclose(all_four.score_map(batch), expected, rtol=1e-4, atol=1e-4)


def test_mapping_refuses_what_it_cannot_compare() -> None:
    detector, fresh = fitted(CrossModalMapping, data()), data(8, seed=1)
    missing = torch.ones(8, 8, 8, dtype=torch.bool)
    missing[2] = False
    with pytest.raises(InputError, match="1 samples have no measured point"):
        inference.score(detector, Data(fresh.samples, fresh.names, NAMES, Measured(missing), FEATURE_MAP))


@pytest.mark.parametrize("maker", MAKERS, ids=lambda maker: maker.__name__)
@pytest.mark.parametrize("channels", [slice(0, FIRST), slice(FIRST, None)], ids=["photograph", "geometry"])
def test_a_defect_in_one_modality_alone_is_found_and_placed(maker, channels: slice) -> None:
    detector, fresh = fitted(maker, data(40)), data(12, seed=1)
    assert isinstance(fresh.samples, torch.Tensor)
    bad = fresh.samples.clone()
    bad[:, channels, 2:4, 5:7] += 6
    anomalous = Data(bad, fresh.names, NAMES, fresh.context, FEATURE_MAP)
    normal, found = inference.score(detector, fresh), inference.score(detector, anomalous)
    assert float((found[:, None] > normal).float().mean()) > 0.9
    maps = detector.score_map(anomalous.batch(torch.arange(12)))
    inside = torch.zeros(8, 8, dtype=torch.bool)
    inside[1:5, 4:8] = True
    assert float(inside.flatten()[maps.flatten(1).argmax(1)].float().mean()) > 0.9


def test_the_page_of_the_benchmark_says_what_its_rows_say(module_of) -> None:
    script = module_of(Path(__file__).parents[1] / "benchmarks" / "three_d.py")
    assert script.PAGE.read_text(encoding="utf-8") == script.page()


def test_generated_defects_are_in_the_modality_that_changed(module_of) -> None:
    script = module_of(Path(__file__).parents[1] / "benchmarks" / "three_d.py")
    problem = script.generated(0, train=4, test=8)
    assert problem.train.sample_shape == (128, 10, 10)
    assert [int(mask.sum()) for mask in problem.test.masks] == [4, 0] * 4
    assert problem.test.labels.tolist() == [True, False] * 4


def test_halves_leave_each_sample_out_once_and_copies_together() -> None:
    found = list(two_modalities.halves([b"b", b"a", b"c", b"a"]))
    assert [(inside.tolist(), outside.tolist()) for inside, outside in found] == [([1, 2, 3], [0]), ([0], [1, 2, 3])]
    assert not list(two_modalities.halves([b"a", b"a"]))

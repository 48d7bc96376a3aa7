"""Detectors of images beside the contracts: padim, patches and student-teacher by other roads to the same numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from tailwise.backbones.networks import Backbone
from tailwise.core import inference, registry
from tailwise.core.data import Data
from tailwise.core.detector import Detector
from tailwise.core.modality import FEATURE_MAP
from tailwise.detectors import padim, patch_memory
from tailwise.detectors.components import frozen
from tailwise.detectors.padim import PaDiM
from tailwise.detectors.patch_ensemble import PatchEnsemble
from tailwise.errors import InputError
from tailwise.numerics.metrics import auroc
from tailwise.runs import store
from tailwise.sources.auto import open_source
from tailwise.testing import CONTRACTS, Case
from tailwise.training import local_scores
from tailwise.training.fit import fit
from tailwise.training.options import Training
from tailwise.weights.default import AUTO, parse_weighting
from tailwise.weights.weighting import Weighting
from tailwise.workflows import score
from tailwise.workflows.fit import fit_run
from tailwise.workflows.request import Request


def samples(count: int, *shape: int, seed: int = 0) -> Data:
    values = torch.randn(count, *shape, generator=torch.Generator().manual_seed(seed))
    return Data(values, [f"image{i}" for i in range(count)], modality=FEATURE_MAP)


def make(text: str):
    return registry.parse_one(text, "detector")


@pytest.mark.parametrize("contract", ["weight_is_copies", "saved_and_loaded_is_equal", "same_seed_same_scores"])
def test_padim_keeps_contracts_on_a_choice_of_channels(contract: str) -> None:
    CONTRACTS[contract](Case(lambda: make("padim(dims=2)"), (5, 4, 3), FEATURE_MAP))


def test_padim_is_the_distance_of_scipy_at_every_position() -> None:
    from scipy.spatial.distance import mahalanobis

    data, fresh = samples(40, 3, 2, 2), samples(1, 3, 2, 2, seed=1)
    detector = make("padim")
    fit(detector, data)
    found = inference.over_batches(detector, fresh, detector.score_map)[0]
    values = data.samples.double().numpy()
    channels = (0, 2, 3)
    middle, scale = values.mean(channels, keepdims=True), values.std(channels, keepdims=True)
    values, new = (values - middle) / scale, (fresh.samples.double().numpy() - middle) / scale
    for row, column in np.ndindex(2, 2):
        own = values[:, :, row, column]
        inverse = np.linalg.inv(np.cov(own.T, bias=True) + 0.1 * np.eye(3))
        expected = mahalanobis(new[0, :, row, column], own.mean(0), inverse) ** 2
        assert float(found[row, column]) == pytest.approx(expected, rel=1e-3)


def test_padim_is_the_mean_of_its_farthest_positions_and_solved_once() -> None:
    data, fresh = samples(40, 3, 10, 10), samples(4, 3, 10, 10, seed=1)
    for top, count in ((0.0, 1), (0.05, 5)):
        detector = make(f"padim(top={top})")
        outcome = fit(detector, data, AUTO)
        assert len(outcome.history) == 1
        highest = inference.over_batches(detector, fresh, detector.score_map).flatten(1).sort(1).values[:, -count:]
        torch.testing.assert_close(inference.score(detector, fresh), highest.mean(1))


def test_padim_bears_that_next_to_nothing_is_added() -> None:
    """Fewer images than channels: covariances are singular."""
    detector = make("padim(added=1e-18)")
    data = samples(4, 6, 2, 2)
    fit(detector, data)
    assert bool(inference.score(detector, samples(9, 6, 2, 2, seed=1)).isfinite().all())


def test_padim_is_as_large_as_its_dimensions_not_its_channels() -> None:
    detector = make("padim(dims=3)")
    fit(detector, samples(20, 64, 2, 2))
    assert detector.whitening.shape == (4, 3, 3)
    assert len(set(detector.kept.tolist())) == 3


@pytest.mark.parametrize("text", ["padim(dims=0)", "padim(added=0)", "patches(neighbourhood=2)", "patches(most=0)"])
def test_settings_that_make_no_sense_are_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"must be"):
        make(text)


def test_a_patch_is_the_mean_of_the_positions_around_it() -> None:
    data = samples(2, 3, 4, 5)
    parts, owner = make("patches").divide(data, torch.Generator().manual_seed(0))
    assert owner.tolist() == [0] * 20 + [1] * 20
    names = dict(zip(parts.names, parts.samples, strict=True))
    inner = data.samples[1, :, 1:4, 2:5].mean((1, 2))
    shifted = data.samples[1, :, 0:3, 0:3].mean((1, 2))
    assert torch.allclose(names["image1#2,3"], inner, atol=1e-6)
    assert torch.allclose(names["image1#0,0"], shifted, atol=1e-6)
    assert torch.allclose(names["image1#0,1"], shifted, atol=1e-6)


def test_of_many_patches_equally_many_are_drawn_from_each_image() -> None:
    parts, owner = make("patches(most=15)").divide(samples(5, 3, 4, 5), torch.Generator().manual_seed(0))
    assert torch.bincount(owner).tolist() == [3] * 5
    assert len(set(parts.names)) == 15


def test_patches_of_one_position_are_rows_to_their_detector() -> None:
    data = samples(30, 3, 4, 5)
    detector = make("Patches(Gaussian(), neighbourhood=1, highest=1)")
    fit(detector, data)
    rows = data.samples.permute(0, 2, 3, 1).reshape(-1, 3)
    alone = make("gaussian")
    flat = Data(rows, [str(i) for i in range(len(rows))])
    fit(alone, flat)
    expected = inference.score(alone, flat).reshape(30, 20).max(1).values
    assert torch.allclose(inference.score(detector, data), expected, rtol=1e-4)


def test_weights_act_on_patches_and_inherit_those_of_images() -> None:
    data = samples(30, 2, 4, 4)
    base = torch.ones(30)
    base[:10] = 0
    detector = make("Patches(Gaussian())")
    outcome = fit(detector, data, parse_weighting("Importance()"), base_weights=base)
    assert outcome.weights.shape == outcome.scores.shape == outcome.first_scores.shape == (30,)
    assert outcome.weights[:10].abs().max() == 0
    assert float(outcome.weights.mean()) == pytest.approx(1, rel=1e-4)
    assert outcome.weights[10:].std() > 0
    plain = fit(make("Patches(Gaussian())"), data, base_weights=base)
    assert not torch.equal(plain.scores, outcome.scores)


@pytest.mark.parametrize(
    "text", ["Patches(detector=DeepSVDD(code=4), most=50)", "FeatureAutoEncoder(code=2)", "FeatureSVDD(highest=1)"]
)
def test_detectors_of_patches_print_as_they_are_read(text: str) -> None:
    assert repr(make(text)) == text


def test_a_run_of_patches_scores_again_as_it_did(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for i in range(30):
        Image.fromarray(generator.integers(0, 255, (8, 8, 3), dtype=np.uint8)).save(tmp_path / f"{i}.png")
    request = Request(
        source=open_source(str(tmp_path), read="pixels", size=8), detector="Patches(AutoEncoder(hidden=(4,), code=2))",
        weighting="Importance()", scores="own", training=Training(epochs=3),
    )  # fmt: skip
    run = fit_run(request, tmp_path / "run")
    table = store.open_run(run.path).scores().set_index("sample")
    scored = score.score_data(run.path, str(tmp_path)).set_index("sample")
    scored = scored.loc[table.index]
    assert np.allclose(scored["score"], table["score"], rtol=1e-4)
    assert len(run.history()) == 3


@pytest.fixture
def tiny_teacher(monkeypatch: pytest.MonkeyPatch) -> Backbone:
    """A backbone of three halving blocks, as the registered ones are built."""
    torch.manual_seed(0)
    blocks = nn.ModuleList(nn.Conv2d(a, b, 3, 2, 1) for a, b in ((4, 6), (6, 8), (8, 8)))
    network = Backbone(nn.Conv2d(3, 4, 3, 2, 1), blocks, (0, 1, 2))
    monkeypatch.setattr(frozen, "backbone", lambda name, layers=(): network)
    return network


def fitted(data: Data, epochs: int = 40):
    detector = make("StudentTeacher(teacher='tiny', width=4)")
    outcome = fit(detector, data, training=Training(epochs=epochs, batch_size=8, lr=5e-3))
    return detector, outcome


def test_a_named_teacher_is_neither_trained_nor_saved(tiny_teacher: Backbone) -> None:
    before = {name: value.clone() for name, value in tiny_teacher.state_dict().items()}
    data = Data(torch.rand(12, 1, 32, 32, generator=torch.Generator().manual_seed(0)), [str(i) for i in range(12)])
    detector, _ = fitted(data, epochs=2)
    assert all(torch.equal(value, before[name]) for name, value in tiny_teacher.state_dict().items())
    assert not [name for name in detector.state_dict() if name.startswith("frozen")]
    assert not [name for name, _ in detector.named_parameters() if name.startswith("frozen")]
    again = make(repr(detector))
    again.restore(data.sample_shape, detector.state_dict())
    assert torch.equal(inference.score(detector.eval(), data), inference.score(again.eval(), data))


def test_maps_kept_while_training_are_those_computed(tiny_teacher: Backbone) -> None:
    data = Data(torch.rand(12, 3, 32, 32, generator=torch.Generator().manual_seed(0)), [str(i) for i in range(12)])
    detector, _ = fitted(data, epochs=1)
    again = make(repr(detector))
    again.restore(data.sample_shape, detector.state_dict())
    again.eval()
    batch = next(data.batches(12))
    with torch.no_grad():
        # Not to the last bit: a processor may convolve batches of other sizes in another order.
        assert torch.allclose(detector.losses(batch), again.losses(batch), rtol=1e-6)
    assert len(detector._kept.maps) == 12
    assert not again._kept.maps


def test_the_map_is_highest_at_the_defect(tiny_teacher: Backbone) -> None:
    generator = torch.Generator().manual_seed(0)
    stripes = torch.arange(64).remainder(8).div(8).expand(1, 64, 64)
    data = Data((stripes + 0.1 * torch.rand(40, 1, 64, 64, generator=generator)).clamp(0, 1), [*map(str, range(40))])
    detector, outcome = fitted(data)
    assert outcome.history[-1]["loss"] < 0.5 * outcome.history[0]["loss"]
    broken = data.samples[:4].clone()
    broken[:, :, 40:56, 8:24] = broken[:, :, 40:56, 8:24].transpose(2, 3)
    maps = inference.over_batches(detector, Data(broken, ["a", "b", "c", "d"]), detector.score_map)
    inside = maps[:, 40:56, 8:24].mean((1, 2))
    maps[:, 32:64, 0:32] = torch.nan
    assert bool((inside > 2 * maps.nanmean((1, 2))).all())


def test_a_teacher_of_pictures_refuses_features(tiny_teacher: Backbone) -> None:
    with pytest.raises(InputError, match="1 or 3 channels"):
        make("StudentTeacher(teacher='tiny')").start((8, 16, 16), FEATURE_MAP)


def test_a_teacher_whose_maps_are_not_halved_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    network = Backbone(nn.Conv2d(3, 4, 3, 3), nn.ModuleList([nn.Conv2d(4, 4, 1)]), (0,))
    monkeypatch.setattr(frozen, "backbone", lambda name, layers=(): network)
    with pytest.raises(InputError, match="halved"):
        make("StudentTeacher(teacher='thirds')").start((3, 32, 32))


@pytest.mark.parametrize(("images", "channels", "added"), [(40, 6, 1e-4), (12, 30, 1e-2)])
def test_padim_knows_what_a_training_image_scores_without_itself(images: int, channels: int, added: float) -> None:
    """The closed form against fits that leave each image out, of fewer images than channels too."""
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(images, channels, 4, 4, generator=generator)
    maps = Data(values, [str(i) for i in range(images)], modality=FEATURE_MAP)
    everything = trained(PaDiM(added=added), maps)
    told = everything.score_left_out(maps.batch(torch.arange(images)))
    without = []
    for left in range(5):
        others = trained(PaDiM(added=added), maps.take(torch.tensor([i for i in range(images) if i != left])))
        others.standardise = everything.standardise
        without.append(float(others.score(maps.batch(torch.tensor([left])))))
    assert told[:5].tolist() == pytest.approx(without, rel=0.12)
    assert float((told / everything.score(maps.batch(torch.arange(images)))).min()) > 1.1


def test_padim_of_a_fine_grid_shares_gaussians_among_squares(monkeypatch: pytest.MonkeyPatch) -> None:
    """By numpy where squares are whole, and, of images left out, by fits without them; squares at the end are cut."""
    monkeypatch.setattr(padim, "_MOST_GAUSSIANS", 20)
    generator = torch.Generator().manual_seed(0)
    smooth = torch.nn.functional.avg_pool2d(torch.randn(40, 5, 10, 13, generator=generator), 3, 1, 1)
    maps = Data(smooth, [str(i) for i in range(40)], modality=FEATURE_MAP)
    detector = trained(PaDiM(added=0.01, top=0.0), maps)
    found = detector.read(maps.batch(torch.arange(40)), map=True)
    assert found.map.shape == (40, 10, 13)
    values = detector.standardise(smooth)[:, :, 4:8, 8:12].permute(0, 2, 3, 1).reshape(-1, 5).double().numpy()
    covariance = np.cov(values.T, bias=True) + 0.01 * np.eye(5)
    own = values[16 * 7 + 5] - values.mean(0)  # row 1, column 1 of image 7's square
    assert float(found.map[7, 5, 9]) == pytest.approx(own @ np.linalg.inv(covariance) @ own, rel=1e-3)
    others = trained(PaDiM(added=0.01, top=0.0), maps.take(torch.arange(1, 40)))
    without, told = others.score(maps.batch(torch.tensor([0]))), detector.score_left_out(maps.batch(torch.tensor([0])))
    assert float(told) == pytest.approx(float(without), rel=0.1)
    assert float(told) > float(found.score[0])


def test_a_memory_of_fine_maps_is_bounded_and_knows_normal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patch_memory, "_FINE_GRID", 100)
    monkeypatch.setattr(patch_memory, "_CANDIDATES", 2_000)
    data = Data(textures(30, 0), [str(i) for i in range(30)], modality=FEATURE_MAP)
    memory = trained(make("PatchMemory(share=1.0)"), data)
    assert len(memory.memory) == 30 * (2_000 // 30)  # of 30 x 144
    assert len(torch.unique(memory.owner)) == 30
    odd = textures(4, 9)
    odd[:, :, 4:6, 4:6] += 4
    fresh = memory.score(Data(textures(4, 8), list("abcd"), modality=FEATURE_MAP).batch(torch.arange(4)))
    assert memory.score(Data(odd, list("abcd"), modality=FEATURE_MAP).batch(torch.arange(4))).min() > fresh.max()


def trained(detector: Detector, data: Data) -> Detector:
    fit(detector, data, Weighting(), seed=0)
    return detector


def textures(count: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    place = torch.linspace(0, 6, 12)
    fixed = torch.stack([place.sin()[:, None] * place.cos()[None]] * 8)
    return fixed + 0.5 * torch.randn(count, 8, 12, 12, generator=generator)


def test_an_ensemble_finds_what_either_part_finds_and_where() -> None:
    maps = Data(textures(60, 1), [str(i) for i in range(60)], modality=FEATURE_MAP)
    detector = trained(PatchEnsemble(), maps)
    normal, spot = textures(50, 2), textures(50, 3)
    spot[:, :, 4:7, 5:8] += 1.5
    batch = Data(torch.cat([normal, spot]), [str(i) for i in range(100)], modality=FEATURE_MAP).batch(torch.arange(100))
    score, found = detector.score(batch), detector.score_map(batch)
    assert auroc(torch.arange(100).numpy() >= 50, score.numpy()) > 0.95
    rows, columns = found[50:].flatten(1).argmax(1) // 12, found[50:].flatten(1).argmax(1) % 12
    assert float(((rows - 5).abs() <= 2).logical_and((columns - 6).abs() <= 2).float().mean()) > 0.9
    assert abs(float(score[:50].median())) < 1  # new normals lie where training samples that are left out do
    rule = local_scores.choose("auto", FEATURE_MAP, detector)
    assert rule is not None
    named = rule.fit(detector, maps).named_cues(batch)
    assert [local_scores.CUES.index(name) for name in named] == [0, 2, 4]  # a rare kind is far from all once whitened
    assert auroc(torch.arange(100).numpy() >= 50, torch.stack([*named.values()]).mean(0).numpy()) > 0.95


def test_pictures_of_kinds_are_told_and_their_distances_count_where_they_are_far_out() -> None:
    """A rare, rougher kind is as far from the rest as a defect: its new ones score lower than if distances counted."""
    kinds = torch.cat([textures(60, 1), 3 + 2 * textures(12, 2)])
    new = Data(3 + 2 * textures(20, 5), [str(i) for i in range(20)], modality=FEATURE_MAP).batch(torch.arange(20))
    for learnt, told in ((kinds, True), (textures(72, 1), False)):
        data = Data(learnt, [str(i) for i in range(72)], modality=FEATURE_MAP)
        local = local_scores.OF_MAPS.fit(trained(PatchEnsemble(), data), data)
        assert bool(local.of_kinds) == told
        again = local_scores.wrapped(PatchEnsemble(), repr(local_scores.OF_MAPS))
        again.restore(local.sample_shape, local.state_dict(), FEATURE_MAP)
        assert torch.equal(again.score(new), local.score(new))
        if told:
            state = {name: value for name, value in local.state_dict().items() if name != "of_kinds"}
            older = local_scores.wrapped(PatchEnsemble(), repr(local_scores.OF_MAPS))
            older.restore(local.sample_shape, state, FEATURE_MAP)  # as a run of before
            assert float(local.score(new).median()) < float(older.score(new).median())


def test_a_map_reaches_no_farther_than_the_local_score() -> None:
    """What is usual for a rare, rougher kind has no place as high as a defect's; those far out keep all of theirs."""

    def rough(count: int, seed: int) -> torch.Tensor:
        return 3 + 2 * textures(count, seed)

    learnt = torch.cat([textures(60, 1), rough(14, 2)])
    own = trained(PatchEnsemble(), Data(learnt, [str(i) for i in range(74)], modality=FEATURE_MAP))
    local = local_scores.OF_MAPS.fit(own, Data(learnt, [str(i) for i in range(74)], modality=FEATURE_MAP))
    spot = textures(30, 3)
    spot[:, :, 4:7, 5:8] += 4
    new = Data(torch.cat([rough(30, 4), spot]), [str(i) for i in range(60)], modality=FEATURE_MAP).batch(
        torch.arange(60)
    )
    read, free = local.read(new, map=True), own.score_map(new)
    peaks, free_peaks = read.map.flatten(1).amax(1), free.flatten(1).amax(1)
    lowered = peaks < free_peaks
    assert bool((read.map <= free).all())
    assert float(lowered[:30].float().mean()) > 0.5
    assert torch.equal(read.map[30:], free[30:])
    order = read.score[lowered].argsort()
    assert bool((peaks[lowered][order].diff() >= 0).all())  # of two that are lowered the higher score reaches farther

"""Diffusion and GLAD beside the contracts: steps, target, limit, kept-out normals, resuming, by other roads."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tailwise.core import inference, registry
from tailwise.core.data import Data
from tailwise.core.modality import IMAGE
from tailwise.core.seeding import threads
from tailwise.detectors.components import diffusion, reconstruction
from tailwise.detectors.components.reconstruction import Rebuilt
from tailwise.errors import InputError
from tailwise.numerics import counter_rng
from tailwise.runs.store import Checkpoint
from tailwise.testing import CutOff, KeptInMemory
from tailwise.training import checks
from tailwise.training.fit import fit, start
from tailwise.training.hooks import CosineSchedule, MovingAverage
from tailwise.training.optimizer import FlatAdam
from tailwise.training.options import Training
from tailwise.weights.default import parse_weighting

pytest.importorskip("diffusers")
ROOT = Path(__file__).parents[1]
SMALL = "widths=(8, 16), passes=4"


def bars(count: int, seed: int = 0) -> Data:
    """Images [1, 8, 8] of a bright bar in one of two places, with a little noise."""
    generator = torch.Generator().manual_seed(seed)
    images = 0.05 * torch.rand(count, 1, 8, 8, generator=generator)
    places = torch.randint(0, 2, (count,), generator=generator)
    for image, place in zip(images, places.tolist(), strict=True):
        image[0, :, 1 + 4 * place : 3 + 4 * place] += 0.9
    return Data(images, [str(i) for i in range(count)], modality=IMAGE)


def made(text: str, data: Data | None = None) -> Any:
    """A detector, ready to learn."""
    detector: Any = registry.parse_one(text, "detector")
    start(detector, bars(60) if data is None else data)
    return detector.eval()


class NoFeatures(nn.Module):
    """Features that see nothing."""

    def forward(self, images: Tensor) -> list[Tensor]:
        return [torch.zeros_like(images)]


class Answers(nn.Module):
    """A denoiser that gives the same answer to everything."""

    def __init__(self, answer: Tensor) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, noised: Tensor, steps: Tensor) -> Tensor:
        return self.answer.expand_as(noised)


def everything(data: Data) -> Tensor:
    return data.read(torch.arange(len(data)))


def test_fixed_steps_are_those_of_the_scheduler_of_diffusers() -> None:
    from diffusers import DDIMScheduler

    detector = made("Diffusion(start_step=300, passes=3, widths=(8, 16))")
    detector.smallest, detector.largest = (torch.full((1, 1, 1), end) for end in (-torch.inf, torch.inf))
    samples = everything(bars(4))
    scheduler = DDIMScheduler(
        1_000, beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False
    )
    scheduler.set_timesteps(10)  # steps of 100
    noised = scheduler.add_noise(
        detector.standardise(samples), detector.noise.expand_as(samples), torch.full((4,), 300)
    )
    with torch.no_grad():
        for step in (300, 200, 100):
            found = scheduler.step(detector.denoiser(noised, torch.full((4,), step)), step, noised)
            noised = found.prev_sample
    assert torch.allclose(detector.rebuild(samples).images, found.pred_original_sample, atol=1e-4)


def test_the_estimate_by_the_target_is_the_clean_image() -> None:
    detector = made(f"GLAD({SMALL})")
    samples = detector.standardise(everything(bars(40)))
    seeds = counter_rng.seeds_of(samples)
    step = torch.linspace(1, 999, 40).long()
    noise = torch.randn(samples.shape, generator=torch.Generator().manual_seed(0))
    noised, target = detector._lesson(samples, noise, step, seeds)
    left, added = detector._scales(step)
    assert torch.allclose((noised - added * target) / left, samples, atol=1e-3)
    altered = (noised - (left * samples + added * noise)).flatten(1).abs().amax(1) > 1e-6
    assert 0.2 < float(altered.float().mean()) < 0.8
    plain = made(f"GLAD(anomaly_oriented=False, {SMALL})")
    assert torch.equal(plain._lesson(samples, noise, step, seeds)[1], noise)


@pytest.mark.parametrize("mask", ["none", "minmax", "sigmoid"])
def test_who_knows_the_noise_gives_the_image_back(mask: str) -> None:
    detector = made(f"GLAD(mask={mask!r}, {SMALL})")
    detector.denoiser = Answers(detector.noise)
    samples = everything(bars(5))
    assert torch.allclose(detector.rebuild(samples).images, detector.standardise(samples), atol=1e-4)


def test_without_a_limit_and_a_lower_step_glad_is_diffusion() -> None:
    adaptive, fixed = made(f"GLAD(start_step=500, lowest_step=0, {SMALL})"), made(f"Diffusion(start_step=500, {SMALL})")
    samples = everything(bars(5))
    assert torch.equal(adaptive.noise, fixed.noise)
    assert torch.equal(adaptive.rebuild(samples).images, fixed.rebuild(samples).images)
    assert not adaptive.rebuild(samples).closed.any()


def test_images_close_at_the_limit_or_below_the_lower_step() -> None:
    detector = made("GLAD(start_step=800, lowest_step=450, passes=8, widths=(8, 16))")
    samples = everything(bars(5))
    highest = detector.rebuild(samples).highest
    assert bool((detector.rebuild(samples).closed == 400).all())
    detector.limit = torch.tensor(float(highest.sort().values[2]))  # above it are two
    closed = detector.rebuild(samples).closed
    assert torch.equal(closed > 450, highest > detector.limit)
    assert bool((closed[highest <= detector.limit] == 400).all())


def test_what_differs_by_value_alone_is_told_from_what_does_not() -> None:
    """As the score tells it: the features of a shape are those of a paler one."""
    detector = made(f"GLAD(start_step=400, lowest_step=200, {SMALL})")
    detector.features = NoFeatures()
    samples = detector.standardise(everything(bars(2)))
    noised = detector._noised(samples, detector.noise, 300)
    seen = Rebuilt(torch.stack([samples[0], 0.8 * samples[1]]), torch.zeros(2), torch.zeros(2))
    detector.limit = torch.tensor(0.01)
    assert torch.allclose(detector._estimate(noised, detector.noise, 300), samples, atol=1e-5)
    assert detector._adapted(seen, samples, detector.noise.expand_as(samples), 300).closed.tolist() == [0, 300]


def test_the_limit_is_in_units_of_kept_out_normals() -> None:
    data = bars(60)
    detector = made(f"GLAD(start_step=400, lowest_step=200, {SMALL})", data)
    detector.settle(data, torch.ones(60))
    kept = data.take(detector._held_out(everything(data)).nonzero().flatten())
    limit, units = detector.limit.clone(), detector.units.clone()
    detector.limit = torch.tensor(torch.inf)
    free = detector.rebuild(everything(kept))
    assert torch.allclose(units, detector._gaps(detector.standardise(everything(kept)), free.images).mean((0, 2, 3)))
    assert any(1e-5 < float(limit / each) - 1 < 2e-4 for each in free.highest)


def test_the_mask_keeps_the_input_where_nothing_differs() -> None:
    gap = torch.zeros(1, 2, 2)
    gap[0, 0, 0] = 0.5
    shares = {mask: made(f"GLAD(mask={mask!r}, {SMALL})")._kept_rebuilt(gap) for mask in ("none", "minmax", "sigmoid")}
    assert shares["minmax"].shape == (1, 2, 2)
    assert (float(shares["minmax"].min()), float(shares["minmax"].max())) == (0.0, 1.0)
    assert not shares["none"].any()
    assert float(shares["sigmoid"].min()) == 0.5  # as published, the input is never kept fully


def test_kept_out_normals_are_not_learnt_from() -> None:
    detector, data = made(f"GLAD({SMALL})"), bars(60)
    batch = data.batch(torch.arange(60))
    kept = detector._held_out(batch.samples)
    assert 1 <= int(kept.sum()) <= 6
    detector.train()
    losses = detector.losses(batch)
    assert torch.equal(losses == 0, kept)
    losses[kept].sum().backward()
    assert all(p.grad is None or not p.grad.any() for p in detector.parameters())


def test_the_limit_is_a_quantile_over_kept_out_normals_alone() -> None:
    detector, data = made(f"GLAD({SMALL})", bars(400)), bars(400)
    detector.settle(data, torch.ones(400))
    kept = detector._held_out(everything(data))
    limit = float(detector.limit)
    detector.limit = torch.tensor(torch.inf)
    highest = inference.over_batches(detector, data, lambda batch: detector.rebuild(batch.samples).highest)[kept]
    expected = float(np.quantile(highest.numpy(), 0.9, method="inverted_cdf"))
    assert limit == pytest.approx(1.0001 * expected, rel=1e-5)
    odd = everything(data).clone()
    odd[~kept] = torch.rand(int((~kept).sum()), 1, 8, 8, generator=torch.Generator().manual_seed(3))
    # Of what else is in the data only samples whose hash is as low could enter.
    others = Data(odd, data.names, modality=IMAGE).take((kept | ~detector._held_out(odd)).nonzero().flatten())
    detector.settle(others, torch.ones(len(others)))
    assert float(detector.limit) == pytest.approx(limit, rel=1e-5)


def test_a_quantile_of_weights_is_that_of_copies() -> None:
    values, w = torch.tensor([3.0, 1.0, 2.0, 5.0]), torch.tensor([1, 4, 3, 2])
    copies = values.repeat_interleave(w)
    for level in (0.1, 0.5, 0.85, 0.9, 1.0):
        expected = np.quantile(copies.numpy(), level, method="inverted_cdf")
        assert float(diffusion.weighted_quantile(values, w, level)) == expected


def test_a_part_may_lie_two_places_away() -> None:
    maps = torch.rand(1, 6, 9, 9, generator=torch.Generator().manual_seed(0))
    inside = (slice(None), slice(3, 6), slice(3, 6))
    assert float(diffusion.unlikeness(maps, maps.roll(2, 3))[inside].abs().max()) < 1e-6
    assert float(diffusion.unlikeness(maps, maps.roll(3, 3))[inside].min()) > 1e-3


def test_places_where_nothing_is_seen_are_alike() -> None:
    nothing, something = torch.zeros(1, 4, 6, 6), torch.ones(1, 4, 6, 6)
    assert float(diffusion.unlikeness(nothing, nothing).abs().max()) < 1e-6
    assert float(diffusion.unlikeness(nothing, something).min()) > 0.99


def test_the_texture_network_tells_new_textures_apart() -> None:
    network = diffusion.TextureNetwork(1)
    state = torch.get_rng_state()
    network.learn()
    assert torch.equal(state, torch.get_rng_state())
    fresh = diffusion.textures(torch.arange(10**6, 10**6 + 24), (1, 64, 32), torch.randn(2, 1, 64, 32))
    upper, lower = (diffusion._pooled(network(half)) for half in fresh.split(32, dim=2))
    nearest = (upper @ lower.T).argmax(1)
    assert float((nearest == torch.arange(24)).float().mean()) > 0.5
    assert not any(p.requires_grad for p in network.parameters())


def test_the_texture_network_is_the_same_whatever_the_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diffusion, "_TEXTURE_STEPS", 20)
    weights = []
    for count in (1, 2):
        with threads(count):
            weights.append(diffusion._texture_weights.__wrapped__(1))
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


@pytest.mark.parametrize("spelling", [f"Diffusion({SMALL})", f"GLAD({SMALL})"])
def test_a_few_images_at_a_time_give_the_same(monkeypatch: pytest.MonkeyPatch, spelling: str) -> None:
    detector, batch = made(spelling), bars(9).batch(torch.arange(9))
    before = (detector.losses(batch), detector.score(batch), detector.score_map(batch))
    taken = []
    gaps = type(detector)._gaps
    monkeypatch.setattr(
        type(detector), "_gaps", lambda self, one, other: taken.append(len(one)) or gaps(self, one, other)
    )
    monkeypatch.setattr("tailwise.detectors.components.reconstruction._PIXELS", 200)
    after = (detector.losses(batch), detector.score(batch), detector.score_map(batch))
    assert max(taken) == 3
    assert all(torch.allclose(one, other, rtol=1e-4) for one, other in zip(before, after, strict=True))


def test_a_killed_training_resumes_to_the_same_parameters() -> None:
    weighting, training = parse_weighting("Importance()"), Training(epochs=5, batch_size=16, lr=2e-3, warmup=2)
    whole, parts = (registry.parse_one(f"GLAD({SMALL})", "detector") for _ in range(2))
    expected = fit(whole, bars(40), weighting, training, seed=4)
    keeper = KeptInMemory(after=3)
    with pytest.raises(CutOff):
        fit(parts, bars(40), weighting, training, seed=4, keeper=keeper)
    parts = registry.parse_one(f"GLAD({SMALL})", "detector")
    found = fit(parts, bars(40), weighting, training, seed=4, keeper=keeper)
    assert all(torch.equal(value, parts.state_dict()[name]) for name, value in whole.state_dict().items())
    assert torch.equal(expected.scores, found.scores)
    assert torch.equal(expected.first_scores, found.first_scores)


def test_parameters_are_averaged_and_the_rate_falls_unless_hooks_are_given() -> None:
    training = Training(epochs=2, batch_size=16, lr=2e-3)
    detectors = [registry.parse_one(f"Diffusion({SMALL})", "detector") for _ in range(3)]
    for detector, hooks in zip(
        detectors, ((), (CosineSchedule(), MovingAverage(0.999)), (CosineSchedule(),)), strict=True
    ):
        fit(detector, bars(40), training=training, hooks=hooks)
    usual, named, other = (torch.cat([p.flatten() for p in detector.parameters()]) for detector in detectors)
    assert torch.equal(usual, named)
    assert not torch.equal(usual, other)


def test_weights_are_made_from_losses_and_act(monkeypatch: pytest.MonkeyPatch) -> None:
    detector: Any = registry.parse_one(f"GLAD({SMALL})", "detector")
    passes = []
    rebuild = type(detector).rebuild
    monkeypatch.setattr(
        type(detector), "rebuild", lambda self, samples: passes.append(len(samples)) or rebuild(self, samples)
    )
    training = Training(epochs=6, batch_size=16, warmup=2)
    outcome = fit(detector, bars(40), parse_weighting("Importance()"), training)
    # Twice what is kept out is measured and everything scored: when weights come in, and at the end; and samples and as
    # many made anomalies are to check.
    assert passes.count(40) == 4
    assert float(outcome.weights.std()) > 0.01
    assert not torch.equal(outcome.first_scores, outcome.scores)
    plain: Any = registry.parse_one(f"GLAD({SMALL})", "detector")
    fit(plain, bars(40), training=training)
    assert not torch.equal(next(plain.parameters()), next(detector.parameters()))


@pytest.mark.parametrize("spelling", [f"Diffusion({SMALL})", f"GLAD({SMALL})"])
def test_made_anomalies_do_not_stand_out_of_what_was_not_learnt(spelling: str) -> None:
    """And not where nothing is taken away."""
    detector, batch = made(spelling), bars(60).batch(torch.arange(60))
    untrained = checks._contrast(detector, batch)
    detector.denoiser = Answers(torch.zeros(1, 8, 8))
    for contrast, agreement in (untrained, checks._contrast(detector, batch)):
        assert (contrast.name, contrast.ok) == ("known or made anomalies stand out", False)
        assert f"{contrast.value:.2f}" in contrast.message
        assert agreement.name == "loss and score agree"


@pytest.mark.parametrize(
    ("spelling", "match"),
    [
        ("GLAD(start_step=300, lowest_step=300)", "lowest_step must be below start_step 300"),
        ("GLAD(passes=3)", "of 3 passes from step 750 none is below lowest_step 250"),
        ("Diffusion(start_step=10)", "more passes"),
        ("Diffusion(widths=(12, 24))", "multiples of 8"),
        ("GLAD(start_step=1000)", "from 1 to 999"),
        ("GLAD(mask='half')", "mask must be"),
    ],
)
def test_settings_that_make_no_sense_are_refused(spelling: str, match: str) -> None:
    with pytest.raises(InputError, match=match):
        registry.parse_one(spelling, "detector")


def test_a_backbone_needs_images_of_64_pixels() -> None:
    detector: Any = registry.parse_one("GLAD(backbone='efficientnet-lite0')", "detector")
    with pytest.raises(InputError, match="images of 64 pixels and more"):
        detector.start((1, 32, 32), IMAGE)


def test_features_of_a_backbone_are_compared_and_not_saved() -> None:
    pytest.importorskip("efficientnet_lite_pytorch")
    detector: Any = registry.parse_one(f"Diffusion(backbone='efficientnet-lite0', {SMALL})", "detector")
    images = torch.rand(6, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    data = Data(images, [str(i) for i in range(6)], modality=IMAGE)
    fit(detector, data, training=Training(epochs=1))
    assert not any(name.startswith("features") for name in detector.state_dict())
    assert detector.score_map(data.batch(torch.arange(2))).shape == (2, 64, 64)


def test_a_training_of_the_benchmark_that_was_cut_off_goes_on(
    module_of: Callable[[Path], ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = module_of(ROOT / "benchmarks" / "diffusion.py")
    monkeypatch.setattr(script, "SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    images = (255 * bars(40).samples).byte().numpy()
    sets, task = (
        script.Sets(images, images, np.arange(40) >= 20),
        script.Task("bars", 0, f"Diffusion({SMALL})", 3, batch=40),
    )
    options = argparse.Namespace(device="cpu", states=tmp_path / "whole")
    whole, facts = script.trained(task, sets, options)
    assert "train_cpu_seconds" in facts

    def cut_off(keeper: Checkpoint, tensors: Mapping[str, Tensor], facts: dict[str, Any]) -> None:
        save(keeper, tensors, facts)
        if len(facts["history"]) == 2:
            raise KeyboardInterrupt

    save = Checkpoint.save
    options.states = tmp_path / "cut"
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoint, "save", cut_off)
        with pytest.raises(KeyboardInterrupt):
            script.trained(task, sets, options)
    again, facts = script.trained(task, sets, options)
    assert "train_cpu_seconds" not in facts  # they would be of a part
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in whole.state_dict().items())
    assert [path.suffix for path in (tmp_path / "cut").iterdir()] == [".safetensors"]


def test_the_benchmark_trains_reads_and_shows(
    module_of: Callable[[Path], ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = module_of(ROOT / "benchmarks" / "diffusion.py")
    small = "passes=4, widths=(8, 16)"
    monkeypatch.setattr(script, "PLAIN", f"GLAD(anomaly_oriented=False, {small})")
    monkeypatch.setattr(script, "ORIENTED", f"GLAD({small})")
    monkeypatch.setattr(script, "READINGS", (f"Diffusion({small})", f"GLAD({small})"))
    monkeypatch.setattr(script, "ALONE", script.READINGS)
    monkeypatch.setattr(script, "WAYS", {script.PLAIN: "plain", script.ORIENTED: "anomaly-oriented"})
    generator = np.random.default_rng(0)
    for of in (script.FASHION, script.TILES, script.TAIL, script.LARGE):
        train, test = (generator.integers(0, 255, (count, 1, 12, 12)).astype(np.uint8) for count in (20, 12))
        labels = np.arange(12) >= 6
        masks = (
            None if of in (script.FASHION, script.TAIL) else np.broadcast_to(labels[:, None, None], (12, 12, 12)).copy()
        )
        if masks is not None:
            masks[:, 6:] = False
        rarest = np.arange(12) < 3 if of == script.TAIL else None
        script.Sets(train, test, labels, masks, rarest).write(tmp_path / f"{of}-0.npz")
    options = argparse.Namespace(device="cpu", data=tmp_path, rows=tmp_path / "rows.jsonl", states=tmp_path, most=None)
    options.tested, options.readings = None, [""]
    for task in script.tasks((0,), 4, ("large", "glad", "tail")):
        script.run(task, options)
    found = script.rows.read_rows(options.rows)
    assert [row.get("error") for row in found if row["status"] != "ok"] == []
    assert len(found) == 2 + 2 * 2 * 4 + 2 * 2
    written = options.rows.read_bytes()
    assert all(script.run(task, options).endswith("was there") for task in script.tasks((0,), 4, ("glad",)))
    assert options.rows.read_bytes() == written
    page = script.page(found)
    for of in (script.FASHION, script.TILES):
        assert f"## {of}, development draws" in page
    auroc = next(
        row["image_auroc"] for row in found
        if row["settings"]["reading"] == f"GLAD({small})" and row["settings"]["set"] == script.TILES
        and row["settings"]["training"] == script.PLAIN
    )  # fmt: skip
    assert f"| plain | GLAD({small}) | 1 | {auroc:.3f} |" in page


@pytest.mark.parametrize(
    ("images", "training", "steps"),
    [
        (10, Training(), 6), (40, Training(), 6), (200, Training(), 13), (200, Training(batch_size=256), 6),
        (200, Training(epochs=2), 26), (200, Training(epochs=2, batch_size=50), 8),
    ],
)  # fmt: skip
def test_a_training_takes_as_many_steps_whatever_the_number_of_images(
    monkeypatch: pytest.MonkeyPatch, images: int, training: Training, steps: int
) -> None:
    monkeypatch.setattr("tailwise.detectors.components.reconstruction.Reconstructing.usual_steps", (6, 16))
    detector: Any = registry.parse_one(f"Diffusion({SMALL})", "detector")
    fit(detector, bars(images), training=training)
    assert detector.planned_steps == steps


@pytest.mark.parametrize(("training", "rate"), [(Training(epochs=1), 2e-3), (Training(epochs=1, lr=1e-3), 1e-3)])
def test_the_learning_rate_is_its_own_unless_one_is_named(training: Training, rate: float) -> None:
    found = []

    def noted(detector: Any, lr: float, weight_decay: float) -> FlatAdam:
        found.append(lr)
        return FlatAdam(detector, lr, weight_decay)

    fit(registry.parse_one(f"Diffusion({SMALL})", "detector"), bars(10), training=training, optimizer=noted)
    assert found == [rate]


def kept(hashes: list[int], w: list[float]) -> list[int]:
    """Which of the hashes are kept out."""
    lowest, highest = reconstruction._kept_out(torch.tensor(hashes), torch.tensor(w).double()).tolist()
    return [each for each in hashes if lowest <= each <= highest]


def test_a_twentieth_of_the_weight_is_kept_out_wherever_it_lies() -> None:
    hashes = list(range(-30, 30))
    assert kept(hashes, [1.0] * 60) == [-30, -29, -28]
    assert kept(hashes, [25.0] + [1.0] * 59) == [-29, -28, -27, -26, -25]  # 84 in all, of which 4.2 are wanted at least
    assert kept(hashes, [0.0] * 20 + [1.0] * 40) == [-10, -9]
    # Copies weigh as much together as one sample of their weight.
    assert kept([*hashes, *[-30] * 24], [1.0] * 84) == [-29, -28, -27, -26, -25]
    assert kept([1, 1, 1], [1.0] * 3) == []
    assert kept([1, 2, 3], [1.0, 1.0, 0.2]) == [3]


def test_where_one_image_has_most_of_the_weight_all_are_learnt_from_and_measured() -> None:
    data = bars(40)
    copies = data.take(torch.zeros(40, dtype=torch.long))
    heavy = torch.full((40,), 1e-3).index_fill(0, torch.tensor([0]), 1.0)
    for given, w in ((copies, None), (data, heavy)):
        detector: Any = registry.parse_one(f"GLAD({SMALL})", "detector")
        outcome = fit(detector, given, training=Training(epochs=2, batch_size=16), base_weights=w)
        assert outcome.history[-1]["loss"] > 0.05
        assert bool(torch.isfinite(detector.limit))
        assert not torch.equal(detector.usual, torch.ones(2))


@pytest.mark.parametrize("spelling", [f"Diffusion({SMALL})", f"GLAD({SMALL})"])
def test_next_to_flat_images_score_the_same_in_every_batch(spelling: str) -> None:
    data = bars(60)
    flat = Data(0.5 + 1e-5 * everything(data), data.names, modality=IMAGE)
    detector = made(spelling, flat)
    fit(detector, flat, training=Training(epochs=30))
    together, alone = (inference.score(detector, flat, size) for size in (60, 1))
    assert torch.allclose(together, alone, rtol=1e-3, atol=1e-3)


def test_rows_are_refused_with_a_hint() -> None:
    with pytest.raises(InputError, match=r"got rows of shape \[5\] \(read pictures as pixels: --read pixels\)"):
        registry.parse_one("GLAD()", "detector").start((5,))


def test_images_that_are_too_small_are_refused() -> None:
    detector: Any = registry.parse_one(f"Diffusion({SMALL})", "detector")
    with pytest.raises(InputError, match="images of 2 x 2 pixels are too small: one side must have more than 2"):
        detector.start((1, 2, 2), IMAGE)
    detector.start((1, 1, 3), IMAGE)

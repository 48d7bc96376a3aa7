"""DevNet, ADL and Multi-Cue: losses at known heads, gradients against differences, labels, masks and soft targets."""

import math

import numpy as np
import pytest
import torch

from tailwise.core import inference, registry
from tailwise.core.data import Batch, Data
from tailwise.core.modality import IMAGE, ROW, SPECTRUM
from tailwise.core.problem import Labelled
from tailwise.detectors.components.adaptive_deviation import lenders
from tailwise.detectors.components.deviation_network import HeadOutputs
from tailwise.detectors.components.input_gradients import gradients, localised
from tailwise.errors import InputError
from tailwise.testing import CONTRACTS, Case
from tailwise.training.fit import fit
from tailwise.training.options import Training

DevNet, ADL, MultiCue = (registry.find("detector", name) for name in ("dev-net", "adl", "multi-cue"))
LOG2 = math.log(2)


def rand(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def as_data(samples):
    return Data(samples, [str(i) for i in range(len(samples))])


def whole(data):
    return next(data.batches(len(data)))


OPTIONS = [
    pytest.param(DevNet, {"prior_draws": 5_000}, id="dev-net-sampled"),
    pytest.param(ADL, {"burn_in_steps": 0}, id="adl-soft"),
    pytest.param(ADL, {"burn_in_steps": 1, "as_published": True}, id="adl-published"),
    pytest.param(MultiCue, {"burn_in_steps": 0}, id="multi-cue-soft"),
    pytest.param(MultiCue, {"burn_in_steps": 1, "as_published": True}, id="multi-cue-published"),
]


@pytest.mark.parametrize("contract", ["one_number_per_sample", "weight_is_copies", "zero_weight_is_absence"])
@pytest.mark.parametrize(("make", "options"), OPTIONS)
def test_contracts_hold_with_other_options_too(make, options, contract):
    CONTRACTS[contract](Case(lambda: make(**options), (6,)))
    CONTRACTS["saved_and_loaded_is_equal"](Case(lambda: make(**options), (6,)))


def flat_dev_net(value, anomalies, **options):
    """A DevNet that gives every sample the score `value`."""
    detector = DevNet(**options)
    detector.start((4,))
    detector.know(Labelled(as_data(anomalies)))
    for parameter in detector.parameters():
        parameter.data.zero_()
    detector.head.layer.bias.data.fill_(value)
    return detector


@pytest.mark.parametrize(("value", "loss"), [(-1.0, 1 + 6), (0.0, 5), (2.0, 2 + 3), (8.0, 8)])
def test_the_loss_of_dev_net_at_known_scores(value, loss):
    detector = flat_dev_net(value, rand(3, 4))
    batch = Batch(rand(5, 4), torch.arange(5))
    assert detector.losses(batch).tolist() == pytest.approx([loss] * 5)
    assert detector.score(batch).tolist() == [value] * 5


def test_a_sampled_prior_is_within_its_error_of_the_prior():
    torch.manual_seed(0)
    sampled = flat_dev_net(2.0, rand(3, 4), prior_draws=5_000)
    loss = sampled.losses(Batch(rand(5, 4), torch.arange(5)))
    assert loss.tolist() == pytest.approx([5.0] * 5, abs=5 * 2 * 0.0142)
    assert sampled.prior.tolist() != [0.0, 1.0]
    assert sampled.prior.tolist() == pytest.approx([0, 1], abs=4 / 5_000**0.5)


def test_of_many_anomalies_every_one_has_its_turn_and_their_order_does_not_matter():
    anomalies = rand(80, 4)
    detector = flat_dev_net(0.0, anomalies)
    seen = torch.cat([detector.known.at(step) for step in range(5)])
    assert seen.bincount().tolist() == [2] * 80
    shuffled = flat_dev_net(0.0, anomalies.flip(0))
    assert torch.equal(shuffled.known.samples, detector.known.samples)
    few = flat_dev_net(0.0, anomalies[:7])
    assert few.known.at(3).tolist() == list(range(7))


@pytest.mark.parametrize("shape", [(5,), (1, 7), (2, 9, 8)])
def test_the_explanation_of_dev_net_is_the_finite_difference(shape):
    case = Case(DevNet, shape, {1: ROW, 2: SPECTRUM, 3: IMAGE}[len(shape)])
    detector = case.fit(case.data()).double()
    samples = case.data(3, seed=5).read(torch.arange(3)).double()
    batch = Batch(samples, torch.arange(3))
    explained = detector.explain(batch) / detector.standardise.scale
    for place in np.ndindex(*shape):
        moved = samples.clone()
        moved[(slice(None), *place)] += 1e-6
        difference = (detector.score(Batch(moved, batch.index)) - detector.score(batch)) / 1e-6
        assert torch.allclose(explained[(slice(None), *place)], difference, rtol=1e-4, atol=1e-7)


def test_gradients_are_there_where_they_are_switched_off():
    samples = rand(3, 2, 4, 4)
    with torch.no_grad():
        found = gradients(lambda x: x.square().flatten(1).sum(1), samples)
    assert torch.allclose(found, 2 * samples)
    assert not samples.requires_grad


def test_a_map_has_its_score_as_its_largest_value_where_the_gradient_is():
    gradient = torch.zeros(2, 3, 64, 64)
    gradient[0, 1, 10:20, 30:40] = -5.0
    gradient[1, :, 50, 50] = 1.0
    maps = localised(gradient, torch.tensor([4.0, 0.5]), IMAGE, blur=0.02)
    assert maps.flatten(1).amax(1).tolist() == pytest.approx([4.0, 0.5])
    assert float(maps[0, 14, 34]) > 3.9
    assert float(maps[0, 40, 10]) == 0


HEADS = HeadOutputs(torch.tensor([3.0]), torch.tensor([0.0]), torch.zeros(1, 4))


def untrained(make, **options):
    detector = make(**options)
    detector.start((4,))
    return detector


@pytest.mark.parametrize("make", [ADL, MultiCue])
def test_hard_labels_at_known_heads(make):
    terms = untrained(make)._terms
    even = LOG2 + LOG2 / 4  # cross-entropy and focal loss at even odds
    assert terms(HEADS, 0.0, torch.zeros(1, 4), 0).item() == pytest.approx(3 + even)
    assert terms(HEADS, 1.0, torch.ones(1, 4), 0).item() == pytest.approx(7 + even)


def test_soft_targets_let_go_of_what_looks_anomalous_and_never_push_it():
    detector = untrained(ADL, burn_in_steps=0)
    places = torch.zeros(1, 4)
    slopes = []
    for logit in (-9.0, 0.0, 9.0):
        deviation = torch.tensor([3.0], requires_grad=True)
        loss = detector._terms(HeadOutputs(deviation, torch.tensor([logit]), places), 0.0, places, 1, torch.tensor([7]))
        slopes += torch.autograd.grad(loss.sum(), deviation)[0].tolist()
    assert slopes[0] == pytest.approx(1, abs=1e-3)
    assert slopes[1:] == pytest.approx([0, 0], abs=1e-6)
    published = untrained(ADL, burn_in_steps=0, as_published=True)
    deviation = torch.tensor([3.0], requires_grad=True)
    loss = published._terms(HeadOutputs(deviation, torch.tensor([9.0]), places), 0.0, places, 1, torch.tensor([7]))
    assert torch.autograd.grad(loss.sum(), deviation)[0].item() == pytest.approx(-1 / 48, rel=0.05)


def test_opinions_are_given_by_the_side_of_half_the_margin_to_three_fifths_of_the_samples():
    deviation = torch.tensor([0.0, 4.9, 5.1, 10.0]).repeat_interleave(500)
    opinions = untrained(ADL)._opinion(deviation, torch.arange(2_000)).view(4, 500)
    assert opinions[:2].abs().sum() == 0
    assert opinions[2:].mean(1).tolist() == pytest.approx([0.6, 0.6], abs=0.07)
    soft = untrained(MultiCue)._opinion(deviation, torch.arange(2_000)).view(4, 500)
    assert soft.amax(1).tolist() == pytest.approx([0.0721, 0.4631, 0.4869, 0.8780], abs=1e-3)


@pytest.mark.parametrize("published", [False, True])
def test_cues_rise_with_conviction_unless_as_published(published):
    detector = untrained(MultiCue, as_published=published)
    count = 101
    steady = torch.zeros(count, 4)
    doubt = detector._cues(HeadOutputs(torch.ones(count), torch.linspace(-8, 8, count), steady))["entropy"]
    away = detector._cues(HeadOutputs(torch.linspace(0, 9, count), torch.zeros(count), steady))["deviation"]
    assert bool((doubt.diff() > 0).all()) != published
    assert bool((away.diff() > 0).all()) != published
    assert float(doubt[0]) < 0.05
    assert int(doubt.argmax()) == (50 if published else 100)


def test_the_bank_does_not_depend_on_order_copies_or_weights():
    samples = rand(700, 3, 4, 4)
    plain = lenders(as_data(samples), torch.ones(700))
    assert plain.shape == (256, 3, 4, 4)
    again = lenders(as_data(torch.cat([samples.flip(0), samples[:300]])), torch.rand(1_000) + 0.1)
    assert torch.equal(again, plain)
    dropped = torch.ones(700)
    dropped[100:] = 0
    assert torch.equal(lenders(as_data(samples), dropped), lenders(as_data(samples[:100]), torch.ones(100)))


def smooth_images(count, seed, marked):
    """Images of a tilted plane with little noise; marked ones hold a square of stripes, and its mask."""
    generator = torch.Generator().manual_seed(seed)
    ramp = torch.linspace(-1, 1, 16)
    tilt = torch.randn(count, 2, generator=generator)
    images = tilt[:, :1, None] * ramp[:, None] + tilt[:, 1:, None] * ramp
    images = images + 0.05 * torch.randn(count, 16, 16, generator=generator)
    masks = torch.zeros(count, 16, 16)
    for image, mask in zip(images, masks, strict=True) if marked else ():
        down, right = torch.randint(1, 10, (2,), generator=generator).tolist()
        mask[down : down + 5, right : right + 5] = 1
        image[down : down + 5, right : right + 5] += torch.tensor([2.0, -2.0, 2.0, -2.0, 2.0])
    return images[:, None], masks


def known_images(with_masks):
    images, masks = smooth_images(8, 5, True)
    return Labelled(as_data(images), masks=list(masks.bool().numpy()) if with_masks else None)


@pytest.mark.parametrize(
    ("make", "masks"), [(DevNet, False), (ADL, False), (MultiCue, False), (MultiCue, True)], ids=str
)
def test_anomalies_in_images_are_found_and_located(make, masks):
    from sklearn.metrics import roc_auc_score

    detector = make(hidden=(8, 16))
    known = known_images(masks) if detector.needs_labels else None
    fit(
        detector,
        as_data(smooth_images(64, 1, False)[0]),
        training=Training(epochs=60, batch_size=32, lr=1e-2),
        anomalies=known,
    )
    good, (bad, where) = smooth_images(40, 2, False)[0], smooth_images(40, 3, True)
    scores = inference.score(detector, as_data(torch.cat([good, bad])))
    assert roc_auc_score([0] * 40 + [1] * 40, scores) > 0.9
    with torch.no_grad():
        maps = detector.score_map(whole(as_data(bad)))
    assert roc_auc_score(where.flatten().int(), maps.flatten()) > 0.75


@pytest.mark.parametrize(("planned", "expected"), [(0, 500), (40, 200), (300, 200), (600, 400), (1_500, 500)])
def test_a_short_training_leaves_the_burn_in_too(planned, expected):
    detector = ADL()
    detector.planned_steps = planned
    assert detector.burn_in == expected
    assert ADL(burn_in_steps=7).burn_in == 7


def test_the_training_loop_says_how_many_steps_it_plans():
    detector = ADL(hidden=(4,))
    fit(detector, as_data(rand(50, 3)), training=Training(epochs=4, batch_size=20))
    assert detector.planned_steps == 12 == int(detector.steps)


def test_masks_in_255_are_masks():
    detector = MultiCue()
    detector.start((1, 4, 4))
    mask = np.zeros((4, 4), np.uint8)
    mask[1, 2] = 255
    detector.know(Labelled(as_data(rand(1, 1, 4, 4)), masks=[mask]))
    assert detector.known.masks.unique().tolist() == [0, 1]


def test_the_highest_place_of_a_map_is_the_score_below_0_too():
    maps = localised(torch.tensor([[1.0, -4, 2], [1, -4, 2]]), torch.tensor([-3.0, 3.0]), ROW)
    torch.testing.assert_close(maps, torch.tensor([[-5.25, -3, -4.5], [0.75, 3, 1.5]]))


def test_masks_finer_than_the_sample_mark_every_place_they_touch():
    detector = MultiCue()
    detector.start((1, 4, 4))
    mask = np.zeros((16, 16), bool)
    mask[5, 14] = True
    detector.know(Labelled(as_data(rand(2, 1, 4, 4)), masks=[mask, None]))
    kept = detector.known.masks[detector.known.masked]
    assert kept.nonzero().tolist() == [[0, 1, 3]]
    assert int(detector.known.masked.sum()) == 1


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: DevNet(margin=0.0), "margin must be a number above 0: got 0.0"),
        (lambda: DevNet(prior_draws=1), "prior_draws cannot be 1"),
        (lambda: ADL(burn_in_steps=-1), "burn_in_steps must be a whole number of at least 0, or None: got -1"),
        (lambda: MultiCue(burn_in_steps=2.5), "burn_in_steps must be a whole number"),
        (lambda: MultiCue(known_share=1.5), "known_share must be a number from 0 to 1: got 1.5"),
        (lambda: MultiCue(margin=math.inf), "margin must be a finite number above 0"),
        (lambda: untrained(ADL, hidden=(0,)), "each a whole number of at least 1, or None: got"),
    ],
)
def test_bad_settings_are_named(make, said):
    with pytest.raises(InputError, match=said):
        make()


def test_a_detector_that_needs_anomalies_says_so():
    with pytest.raises(InputError, match="DevNet needs a few labelled anomalies"):
        fit(DevNet(), as_data(rand(20, 3)), training=Training(epochs=1))

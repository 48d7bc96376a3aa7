import math

import numpy as np
import pytest
import torch
from torch import nn

from tailwise.detectors.components.losses import (
    absolute_error,
    deviation_loss,
    distance_to,
    focal_loss,
    spectral_angle,
    squared_error,
    top_mean,
)
from tailwise.errors import InputError
from tailwise.weights.default import parse_weighting
from tailwise.weights.loss import ImportanceWeightedLoss
from tailwise.weights.steps import Importance
from tailwise.weights.weighting import Context, Weighting


def rand(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(5, 3), (5, 1, 4), (5, 3, 4, 4)])
def test_errors_are_one_number_a_sample(shape):
    samples, rebuilt = rand(*shape), rand(*shape, seed=1)
    for loss, peer in ((squared_error, nn.functional.mse_loss), (absolute_error, nn.functional.l1_loss)):
        assert torch.allclose(
            loss(samples, rebuilt), torch.stack([peer(a, b) for a, b in zip(samples, rebuilt, strict=True)])
        )


def test_the_angle_is_known_blind_to_brightness_and_smooth_at_nought():
    a = torch.tensor([[[1.0, 0.0]], [[1.0, 1.0]]], requires_grad=True)
    assert spectral_angle(a, torch.tensor([[[0.0, 2.0]], [[5.0, 0.0]]])).tolist() == pytest.approx(
        [math.pi / 2, math.pi / 4]
    )
    assert torch.allclose(spectral_angle(a, 3 * a.detach()), torch.zeros(2), atol=2e-3)
    spectral_angle(a, a.detach()).sum().backward()
    assert torch.isfinite(a.grad).all()


def test_distance_to_a_centre():
    assert distance_to(torch.zeros(2), torch.tensor([[3.0, 4.0]])).tolist() == [12.5]


def test_until_warm_the_loss_is_the_plain_mean():
    criterion = ImportanceWeightedLoss(buffer=64)
    for batch in rand(3, 32):
        assert criterion(batch).item() == pytest.approx(batch.mean().item())
        assert criterion.effective_sample_share == pytest.approx(1)
    assert criterion(rand(32) ** 3).item() != pytest.approx((rand(32) ** 3).mean().item())


@pytest.mark.parametrize(
    ("samples", "epochs", "batch", "weighed"),
    [(500, 16, 32, 500 * 16 - 1_024), (200, 40, 64, 200 * 40 - 1_024), (500, 16, 500, 500 * 14), (100, 5, 20, 0)],
)
def test_a_small_set_is_weighed_for_most_of_its_training_and_the_start_is_told(samples, epochs, batch, weighed, caplog):
    """By default from 1,024 scores on: each batch thereafter, and the one that completes them, has unequal weights."""
    caplog.set_level("INFO", "tailwise")
    criterion, data = ImportanceWeightedLoss(), rand(samples) ** 3
    unequal = 0
    for _ in range(epochs):
        for part in data.split(batch):
            criterion(part)
            unequal += len(part) * (criterion.effective_sample_share < 0.999)
    assert 0 <= unequal - weighed <= batch if weighed else not unequal
    assert [record.getMessage() for record in caplog.records] == [
        "every weight is 1 until 1,024 scores have been seen; the option warmup begins earlier"
    ]


def test_once_warm_the_weights_come_from_the_newest_scores():
    criterion = ImportanceWeightedLoss(buffer=100, warmup=0)
    stream = rand(260).exp()
    for batch in stream.split(52):
        loss = criterion(batch)
    batch, newest = stream[208:], stream[160:]
    assert sorted(criterion.newest.tolist()) == pytest.approx(sorted(newest.tolist()))
    w = Weighting(Importance())(Context(batch, newest))
    assert loss.item() == pytest.approx(np.average(batch, weights=w), rel=1e-5)
    assert 0 < criterion.effective_sample_share < 1


def test_gradients_are_the_weighted_ones_and_weights_have_none():
    criterion = ImportanceWeightedLoss(buffer=64, warmup=0)
    losses = rand(64).exp().requires_grad_()
    (gradient,) = torch.autograd.grad(criterion(losses), losses)
    w = Weighting(Importance())(Context(losses.detach(), losses.detach()))
    assert torch.allclose(gradient, w / w.sum(), rtol=1e-5)


def test_scores_may_differ_from_losses_and_places_may_be_given():
    losses, scores, places = rand(64), rand(64, seed=1).exp(), rand(64, 2, seed=2)
    criterion = ImportanceWeightedLoss("Importance(), Smooth(5)", buffer=64, warmup=0)
    w = parse_weighting("Importance(), Smooth(5)")(Context(scores, scores, places))
    assert criterion(losses, scores, places).item() == pytest.approx(np.average(losses, weights=w), rel=1e-5)
    with pytest.raises(InputError, match="needs an embedding"):
        criterion(losses, scores)


def test_evaluation_remembers_nothing():
    criterion = ImportanceWeightedLoss(buffer=16, warmup=0)
    criterion(rand(16))
    before = criterion.newest.clone()
    criterion.eval()
    criterion(9 * rand(16))
    assert torch.equal(criterion.newest, before)


def test_the_memory_travels_with_the_state():
    one, other = ImportanceWeightedLoss(buffer=32, warmup=8), ImportanceWeightedLoss(buffer=32, warmup=8)
    for batch in rand(3, 16):
        one(batch)
    other.load_state_dict(one.state_dict())
    assert one(rand(16, seed=3)).item() == other(rand(16, seed=3)).item()


def test_batches_longer_than_the_buffer_and_batches_of_one():
    criterion = ImportanceWeightedLoss(buffer=8, warmup=0)
    long = rand(30)
    criterion(long)
    assert sorted(criterion.newest.tolist()) == pytest.approx(sorted(long[-8:].tolist()))
    assert criterion(torch.tensor([2.0])).item() == 2.0


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: ImportanceWeightedLoss("Accumulate()"), "Accumulate needs each sample's own past"),
        (lambda: ImportanceWeightedLoss("auto"), "Accumulate needs each sample's own past"),
        (lambda: ImportanceWeightedLoss(buffer=1), "at least 2 scores"),
        (lambda: ImportanceWeightedLoss(warmup=99)(torch.tensor([1.0, math.nan])), "1 of 2 are not"),
        (lambda: ImportanceWeightedLoss()(torch.ones(3), torch.ones(2)), r"one score per loss: got \(2,\) for \(3,\)"),
        (lambda: ImportanceWeightedLoss()(torch.tensor(1.0)), r"one loss per sample: got \(\)"),
    ],
)
def test_bad_input_is_named(make, said):
    with pytest.raises(InputError, match=said):
        make()


def test_deviation_losses_at_known_deviations():
    deviation = torch.tensor([-2.0, 0.0, 3.0, 7.0])
    assert deviation_loss(deviation, 0.0, 5.0).tolist() == [2, 0, 3, 7]
    assert deviation_loss(deviation, 1.0, 5.0).tolist() == [7, 5, 2, 0]
    # Between 0 and the margin a target of a half cannot tell: the loss is half of the margin wherever the sample is.
    assert deviation_loss(torch.linspace(0, 5, 11), 0.5, 5.0).tolist() == pytest.approx([2.5] * 11)
    soft = deviation_loss(deviation, torch.tensor([0.25, 0.5, 0.75, 1.0]), 5.0)
    assert soft.tolist() == pytest.approx([0.75 * 2 + 0.25 * 7, 2.5, 0.25 * 3 + 0.75 * 2, 0])


def test_focal_loss_is_cross_entropy_at_nought_and_known_at_even_odds():
    logits, truth = 3 * rand(4, 6) - 1, rand(4, 6, seed=1).round()
    plain = nn.functional.binary_cross_entropy_with_logits(logits, truth, reduction="none").mean(1)
    assert torch.allclose(focal_loss(logits, truth, 0.0), plain)
    assert focal_loss(torch.zeros(1, 3), torch.tensor([[0.0, 1.0, 1.0]])).tolist() == pytest.approx([math.log(2) / 4])
    # Two logits of a softmax, as published, differ by one of a sigmoid.
    q = torch.softmax(torch.stack([torch.zeros(6), logits[0]]), 0).gather(0, truth[:1].long())[0]
    assert focal_loss(logits[:1], truth[:1]).item() == pytest.approx(float(((1 - q) ** 2 * -q.log()).mean()), rel=1e-5)


def test_the_gradients_of_focal_loss_are_finite_differences_and_finite_far_out():
    logits = (4 * rand(2, 5).double() - 2).requires_grad_()
    truth = rand(2, 5, seed=1).round().double()
    assert torch.autograd.gradcheck(lambda x: focal_loss(x, truth), logits)
    far = torch.tensor([[-200.0, 200.0]], requires_grad=True)
    focal_loss(far, torch.tensor([[0.0, 1.0]])).sum().backward()
    assert torch.isfinite(far.grad).all()


def test_top_mean_is_that_of_the_sorted_map():
    maps = rand(3, 5, 8)
    assert torch.allclose(top_mean(maps), maps.flatten(1).sort(1).values[:, -4:].mean(1))
    assert torch.equal(top_mean(maps[:, :1, :3]), maps[:, :1, :3].amax((1, 2)))


@pytest.mark.parametrize(
    ("losses", "scores"), [("float16", "float16"), ("bfloat16", "bfloat16"), ("float32", "float64")]
)
def test_losses_of_any_precision_are_weighed(losses, scores):
    criterion = ImportanceWeightedLoss(buffer=64, warmup=8)
    values = rand(32).abs() + 0.1
    given = values.to(getattr(torch, losses)).requires_grad_()
    for _ in range(2):
        loss = criterion(given, values.to(getattr(torch, scores)))
    loss.backward()
    assert criterion.effective_sample_share < 1
    assert bool(torch.isfinite(given.grad).all())

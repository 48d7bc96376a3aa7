"""The self-check of the loss, on fits whose course is known beforehand."""

from collections.abc import Callable
from types import SimpleNamespace

import pytest
import scipy
import torch
from torch import Tensor

from tailwise.core.data import Batch, Data
from tailwise.detectors.autoencoder import AutoEncoder
from tailwise.training import checks
from tailwise.training.fit import fit
from tailwise.training.options import Training
from tailwise.weights.default import parse_weighting

ROWS = Data(torch.randn(100, 6, generator=torch.Generator().manual_seed(0)), [str(i) for i in range(100)])


class Scripted(AutoEncoder):
    """Its mean loss in training takes the given heights, one an epoch of one batch."""

    def __init__(self, heights: tuple[float, ...]) -> None:
        super().__init__()
        self.heights = heights
        self.epoch = 0

    def losses(self, batch: Batch) -> Tensor:
        losses = super().losses(batch)
        if not self.training:
            return losses
        self.epoch += 1
        return losses * self.heights[self.epoch - 1] / losses.mean().detach()


@pytest.mark.parametrize(
    ("heights", "weighting", "warmup", "ok", "said"),
    [
        ((10, 8, 5, 4), "", 0, True, "from 10 to 4: 60.0 % down"),
        ((10, 2, 2.9), "", 0, True, "71.0 % down"),
        ((10, 2, 3.6), "", 0, False, "64.0 % down; before weighting started it rose to 1.8 times its lowest"),
        ((4, 8, 10), "", 0, False, "150.0 % up"),
        ((10, 9.9), "", 0, False, "1.0 % down"),
        ((10, 2, 3.5), "Importance()", 2, True, "65.0 % down"),
        ((10, 2, 3.5), "Importance()", 0, True, "65.0 % down"),
        ((10, 2, 3.6, 3), "Importance()", 3, False, "70.0 % down; before weighting started it rose to 1.8 times"),
    ],
)
def test_a_loss_that_rises_again_before_weighing_is_told(
    heights: tuple[float, ...], weighting: str, warmup: int, ok: bool, said: str
) -> None:
    """Weights favour high scores, so what the mean score does once they are in is no fault."""
    options = {"epochs": len(heights), "batch_size": 100, "warmup": warmup}
    outcome = fit(Scripted(heights), ROWS, parse_weighting(weighting), Training(**options))
    check = next(check for check in outcome.checks if check.name == "the loss fell")
    assert (check.ok, said in check.message) == (ok, True), check.message


@pytest.mark.parametrize(("last", "ok"), [([2.0, 2.0, 6.0], True), ([6.0, 6.0, 6.0], False)])
def test_one_epoch_of_many_says_little(last: list[float], ok: bool) -> None:
    """Of 60 epochs, each of one step, means over three are compared."""
    found = checks._loss_fell([{"score_mean": height} for height in [10.0, *[2.0, 3.0] * 28, *last]], None)
    assert found.ok == ok
    assert f"from 10 to {sum(last) / 3:.4g}" in found.message


@pytest.mark.parametrize(
    ("weights", "ok", "moved"),
    [
        (lambda z: 1.0 + (z > 0), True, "nearer to"),
        (lambda z: 1.0 + (z < 0), False, "farther away from"),
        (lambda z: torch.where(z < -1.8, 2.0, 1.0), None, "farther away from"),
        (lambda z: torch.where(z > 1.8, 2.0, 1.0), True, "nearer to"),
        (lambda z: torch.full_like(z, 3.0), True, "neither nearer to nor away from"),
    ],
)
def test_weights_that_move_the_scores_away_from_their_target_do_not_pass(
    weights: Callable[[Tensor], Tensor], ok: bool | None, moved: str
) -> None:
    """A weight k counts as k copies, and their distance to the target is the statistic of scipy's own test. Where they
    move a little away nothing passes, and a sentence says so."""
    z = torch.distributions.Normal(0.0, 1.0).icdf((torch.arange(500) + 0.5) / 500)
    scores, w = 10 + z, weights(z)
    outcome = SimpleNamespace(history=[], scores=scores, weights=w / w.mean())
    weighting = parse_weighting("Importance(target=Gaussian(shift=1.0), log=False)")
    passed, doubt = checks._approach(weighting, outcome), checks.doubt_of_weights(weighting, outcome)
    target = scipy.stats.norm(float(scores.mean() + scores.std()), float(scores.std()))
    before, after = (
        scipy.stats.kstest(x.numpy(), target.cdf).statistic for x in (scores, scores.repeat_interleave(w.long()))
    )
    assert bool(doubt) == (moved == "farther away from")
    assert [check.ok for check in passed] == ([] if ok is None else [ok])
    message = passed[0].message if passed else doubt
    assert all(check.value == pytest.approx(after, abs=0.002) for check in passed)
    assert f"weighting moved the scores {moved} their target" in message
    assert f"is {before:.2f} unweighted and {after:.2f} weighted" in message


def test_few_scores_have_no_shape_that_is_checked() -> None:
    outcome = SimpleNamespace(history=[], scores=torch.rand(60), weights=torch.ones(60))
    assert checks._approach(parse_weighting("Importance()"), outcome) == []
    assert not checks.doubt_of_weights(parse_weighting("Importance()"), outcome)

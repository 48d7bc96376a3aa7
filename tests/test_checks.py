"""The self-check of the loss, on fits whose course is known beforehand."""

import re
from types import SimpleNamespace

import pytest
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


@pytest.mark.parametrize(("tail", "far", "moved"), [(100, 0.01, "nearer"), (0, 20.0, "farther away")])
def test_the_check_of_the_gaussian_says_which_way_weights_moved_the_scores(tail: int, far: float, moved: str) -> None:
    """A Gaussian with a long tail that weights take away, and one without a tail that weights make heavier."""
    scores = torch.distributions.Normal(10.0, 1.0).icdf((torch.arange(400) + 0.5) / 400)
    skewed = torch.cat([scores, torch.linspace(12, 40, tail)])
    outcome = SimpleNamespace(scores=skewed, weights=torch.where(skewed < 12, 1.0, far))
    (check,) = checks._gaussian(parse_weighting("Importance(log=False)"), outcome)
    assert f"weighting moved the scores {moved}" in check.message
    before, after = (float(part.split()[0]) for part in re.split(r"is |and ", check.message)[1:3])
    assert (after < before) == (moved == "nearer")
    assert check.value == pytest.approx(after, abs=0.005)

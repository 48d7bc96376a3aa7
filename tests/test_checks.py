"""The self-check of the loss, on fits whose course is known beforehand."""

import pytest
import torch
from torch import Tensor

from tailwise.core.data import Batch, Data
from tailwise.detectors.autoencoder import AutoEncoder
from tailwise.training.fit import fit
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
    outcome = fit(Scripted(heights), ROWS, parse_weighting(weighting), **options)
    check = next(check for check in outcome.checks if check.name == "the loss fell")
    assert (check.ok, said in check.message) == (ok, True), check.message

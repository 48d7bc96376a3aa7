"""Scores of training units by detectors that have not learnt them: every unit can calibrate, and every unit trains.

The units are dealt into parts; for each a detector is trained on all the others and scores it. A detector trained on
all units gives new normals scores like these, a little lower in the mean, since it has learnt more. That new normals
keep a threshold made of these scores is what stable detectors give, not a theorem of every one (Barber et al. 2021);
`thresholds.cross_p_values` has one, and needs the detectors of all parts for every new unit.
"""

from __future__ import annotations

import torch
from torch import Tensor

from . import scoring
from .alignment import Aligned
from .errors import InputError
from .problem import Data
from .refine import Fit, Fitted

# As many trainings as pay: of 5 each learns 80 % of the units.
USUAL = 5


def parts_of(units: int, parts: int, seed: int = 0) -> Tensor:
    """The part [n] of each unit, dealt at random, their sizes equal up to 1.

    Raises:
        InputError: there are not 2 units for every part.
    """
    if parts < 2 or units < 2 * parts:
        raise InputError(f"at least 2 parts of 2 units or more are needed: got {parts} for {units} units")
    order = torch.randperm(units, generator=torch.Generator().manual_seed(seed))
    return torch.empty(units, dtype=torch.long).index_copy_(0, order, torch.arange(units) % parts)


def left_out(fit: Fit, data: Data, base: Tensor, part: Tensor, seed: int, final: Fitted | None = None) -> Tensor:
    """Scores [n] (float64) of each unit by the detector that was trained without its part [n].

    With `final`, which was trained on all units, scores are put on the scale of its own. Mode-fair scores are on it.
    """
    scores = torch.empty(len(data), dtype=torch.float64)
    for number in range(int(part.max()) + 1):
        inside, outside = (part != number).nonzero().flatten(), (part == number).nonzero().flatten()
        fitted = fit(data.take(inside), base[inside], seed + number + 1)
        found = scoring.score(fitted.detector, data.take(outside)).double()
        scores[outside] = found * (1.0 if final is None else _factor(fitted, final))
    return scores


def _factor(fitted: Fitted, final: Fitted) -> float:
    """What brings the scores of one training to the scale of another: networks of one-class losses choose their own."""
    middles = [float(each.scores.double().median()) for each in (final, fitted)]
    aligned = isinstance(final.detector, Aligned)
    positive = min(float(each.scores.min()) for each in (final, fitted)) >= 0 and min(middles) > 0
    return middles[0] / middles[1] if positive and not aligned else 1.0

"""Training samples dealt into folds, each to be left out in turn, where they are few for the numbers of a sample.

Axes lie along the samples that they were learnt from: among these, distances are others than those of new samples. How
far new samples lie is then told by samples that were left out of the axes.
"""

from __future__ import annotations

import torch
from torch import Tensor

# Few are fewer than so many for each number of a sample.
_SAMPLES_A_NUMBER, _FOLDS = 20, 5
# Along so few samples every one counts: a space of 64 has clearly other distances than one of 80. More folds then.
_MOST_FOLDS, _OF_ALL_FOLDS = 20, 4_000
# Two of them are left out at a time, and two are the fewest that can be compared with.
_FEWEST = 4


def folds_of(samples: int, numbers: int) -> Tensor | None:
    """The fold [samples] that each sample is left out with, from 0; None where samples are many for the numbers of one,
    or fewer than 4.

    >>> folds_of(6, 10).bincount().tolist()
    [2, 2, 2]
    >>> folds_of(200, 10) is None
    True
    """
    if not _FEWEST <= samples < _SAMPLES_A_NUMBER * numbers:
        return None
    folds = min(max(_FOLDS, _OF_ALL_FOLDS // samples), _MOST_FOLDS, samples // 2)
    return torch.randperm(samples, generator=torch.Generator().manual_seed(0)) % folds

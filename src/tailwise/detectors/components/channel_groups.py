"""Groups of channels that a source names, such as "rgb:0" and "xyz:fpfh 0": modalities beside each other in one map."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def groups_of(features: Sequence[str], channels: int) -> Tensor:
    """[channels]: the number of the group that each channel's name begins with, before a colon; 0 where names say none.

    Examples:
        >>> groups_of(("rgb:0", "rgb:1", "xyz:fpfh 0"), 3).tolist(), groups_of((), 2).tolist()
        ([0, 0, 1], [0, 0])
    """
    if len(features) != channels or not all(":" in name for name in features):
        return torch.zeros(channels, dtype=torch.long)
    found = [name.partition(":")[0] for name in features]
    numbers = {group: number for number, group in enumerate(dict.fromkeys(found))}
    return torch.tensor([numbers[group] for group in found])


def variance_of_groups(variance: Tensor, groups: Tensor) -> Tensor:
    """[channels]: by which variance each channel is divided, so that every group varies alike in sum, and channels by 1
    in the mean.

    Of one group this is the mean variance.
    """
    sums = torch.zeros(int(groups.max()) + 1, dtype=variance.dtype, device=variance.device)
    sums.index_add_(0, groups.to(variance.device), variance)
    return (sums * len(sums) / len(variance))[groups.to(variance.device)]

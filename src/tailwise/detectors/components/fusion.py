"""Several scores of one sample become one: squashed onto a common scale, then their weighted geometric mean.

Nothing is fitted: unlike ranks or z-scores, the result of a sample does not depend on the other samples (Das & Bhuyan,
arXiv 2601.22913, whose form of squashing this is). Works for the scores of any detector.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ...errors import InputError

# A cue of nought must lower the mean, not decide it.
_LEAST = 1e-6


def squash(scores: Tensor, scale: float, top: float) -> Tensor:
    """ln(1 + min(s, top) / scale) / ln(1 + top / scale): scores of 0 and more onto 0..1, steepest below `scale`."""
    if not 0 < scale < float("inf") or not 0 < top < float("inf"):
        raise InputError(f"scale and top must be above 0: got {scale} and {top}")
    limits = torch.tensor(top / scale, dtype=scores.dtype)
    return (scores.clamp(0.0, top) / scale).log1p() / limits.log1p().to(scores.device)


def fuse(scores: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor:
    """exp(sum of w ln(s + 1e-6) / sum of w): the weighted geometric mean of named scores [n], each in 0..1.

    Raises:
        InputError: a name has no weight or no score, a weight is negative, or none is above 0.
    """
    if odd := set(scores) ^ set(weights):
        raise InputError(f"each cue needs a score and a weight: {', '.join(sorted(odd))} has only one of them")
    if any(weight < 0 for weight in weights.values()) or not sum(weights.values()) > 0:
        raise InputError(f"weights of cues are 0 or more, and one is above 0: got {dict(weights)}")
    total = sum(weights.values())
    return torch.stack([weights[name] / total * (s + _LEAST).log() for name, s in scores.items()]).sum(0).exp()

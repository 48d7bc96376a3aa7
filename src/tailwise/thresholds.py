"""From scores of normals that were not trained on to a threshold that keeps its promise."""

from __future__ import annotations

import math

import numpy as np

from .errors import InputError


def conformal_threshold(normal_scores: np.ndarray, false_alarms: float = 0.05) -> float:
    """The threshold above which a new normal falls with a chance of at most `false_alarms`.

    `normal_scores` [m] are of normals exchangeable with the new ones and not seen in training (split conformal,
    Vovk et al. 2005): the ceil((m + 1) (1 - false_alarms))-th smallest. With too few of them for that promise the
    threshold is their largest score, and `reachable` says what it promises.
    """
    if not 0 < false_alarms < 1:
        raise InputError(f"false_alarms must lie between 0 and 1: got {false_alarms}")
    scores = np.sort(np.asarray(normal_scores, dtype=float))
    if not len(scores):
        raise InputError("a threshold needs scores of normals: got none")
    place = math.ceil((len(scores) + 1) * (1 - false_alarms) - 1e-9)
    return float(scores[min(place, len(scores)) - 1])


def reachable(normals: int) -> float:
    """The smallest share of false alarms that this many held-out normals can promise."""
    return 1 / (normals + 1)


def held_out_count(units: int, false_alarms: float) -> int:
    """How many of the training units to keep for the threshold: a tenth, more when few, never above three tenths."""
    wanted = max(math.ceil(units / 10), math.ceil(1 / false_alarms) - 1)
    return min(wanted, int(0.3 * units))

"""From scores of normals that were not trained on to a threshold that keeps its promise."""

from __future__ import annotations

import math

import numpy as np

from .errors import InputError

# On the scale of mode-fair scores, where 3 is far out.
_FAR_OUT = 5.0
_MOST_FAR_OUT = 0.01


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


def per_kind_threshold(
    normal_scores: np.ndarray, training_scores: np.ndarray, kinds: np.ndarray, false_alarms: float = 0.05
) -> float:
    """A threshold whose share of false alarms is to hold for every found kind of normal, not only in the mean.

    It is the highest of `conformal_threshold(normal_scores)` and of the same for the training scores of each kind that
    is large enough to promise that share. Both are mode-fair scores. It is a choice of ours without a guarantee: the
    kinds are found, and training scores of a detector that has learnt these units are a little low.

    Training scores above 5, far out for any kind, have no say; if they are more than 1 % of all, the training data
    holds anomalies, which a small kind near them cannot be told from, and no kind has a say of its own.

    Args:
        normal_scores: [m] of normals not seen in training.
        training_scores: [n], as `alignment.Aligned.training_scores`.
        kinds: [n] numbers of the kinds; below 0 is none.
        false_alarms: the share above the threshold.
    """
    threshold = conformal_threshold(normal_scores, false_alarms)
    if len(training_scores) != len(kinds):
        raise InputError(f"one kind a training score: got {len(kinds)} for {len(training_scores)}")
    usual = training_scores <= _FAR_OUT
    if 1 - usual.mean() > _MOST_FAR_OUT:
        return threshold
    own = [training_scores[usual & (kinds == kind)] for kind in np.unique(kinds[kinds >= 0])]
    needed = [conformal_threshold(scores, false_alarms) for scores in own if reachable(len(scores)) <= false_alarms]
    return max(threshold, *needed) if needed else threshold


def reachable(normals: int) -> float:
    """The smallest share of false alarms that this many held-out normals can promise."""
    return 1 / (normals + 1)


def held_out_count(units: int, false_alarms: float) -> int:
    """How many of the training units to keep for the threshold: a tenth, more when few, never above three tenths."""
    wanted = max(math.ceil(units / 10), math.ceil(1 / false_alarms) - 1)
    return min(wanted, int(0.3 * units))

"""From scores of normals that were not trained on to p-values and thresholds that keep their promise.

All of it rests on one assumption: calibration scores and those of new normals are exchangeable, as if drawn in one lot.
Scores of samples that a detector has learnt are not. A p-value is the chance that a normal scores at least so high; a
normal's is at most alpha with a chance of at most alpha (split conformal, Vovk et al. 2005). Hidden anomalies among
the calibration samples raise thresholds: fewer false alarms than promised, and fewer catches.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import scipy

from ..core.validation import check_share
from ..errors import InputError

# As many trainings as pay: of 5 each learns 80 % of the samples.
FOLDS = 5
# Of draws the variance of realised shares was up to so many times that of independent scores (LOG.md).
_VARIANCE_OF_CROSSED = 1.5
# Of more samples a fifth less to learn from hardly changes scores.
_MOST_ALONE = 500
# In robust standard deviations of the calibration scores; the second makes one of a median absolute deviation.
_FAR_OUT, _MAD_TO_STD = 5.0, 1.4826
_MOST_FAR_OUT = 0.2
# A threshold from fewer held-out samples than this varies too much from draw to draw.
_ENOUGH_HELD_OUT = 200


def conformal_threshold(
    normal_scores: np.ndarray, false_alarms: float = 0.05, weights: np.ndarray | None = None, own_weight: float = 1.0
) -> float:
    """The threshold above which a new normal falls with a chance of at most `false_alarms`.

    `normal_scores` [m] are of normals exchangeable with the new ones and not seen in training (split conformal,
    Vovk et al. 2005): the ceil((m + 1) (1 - false_alarms))-th smallest. With too few of them for that promise the
    threshold is their largest score, and `reachable` says what it promises. `weights` [m] and `own_weight` are those
    of `p_values`: then the smallest score above which the weights, the own one too, are at most that share of all.
    """
    check_share(false_alarms, "false_alarms")
    scores = _finite(normal_scores, "scores of normals")
    if not len(scores):
        raise InputError("a threshold needs scores of normals: got none")
    if weights is None:
        place = math.ceil((len(scores) + 1) * (1 - false_alarms) - 1e-9)
        return float(np.sort(scores)[min(place, len(scores)) - 1])
    order = np.argsort(scores, kind="stable")
    w = _weights(weights, len(scores))[order]
    above = w.sum() - np.cumsum(w) + own_weight  # [m], of what lies above each, and of the new one
    enough = np.flatnonzero(above <= (1 + 1e-12) * false_alarms * (w.sum() + own_weight))
    return float(scores[order[enough[0] if len(enough) else -1]])


def p_values(
    normal_scores: np.ndarray,
    scores: np.ndarray,
    *,
    weights: np.ndarray | None = None,
    own_weights: np.ndarray | float = 1.0,
    generator: np.random.Generator | None = None,
) -> np.ndarray:
    """The chance [n] that a normal scores at least as high as each sample: (1 + normals at or above it) / (m + 1).

    Args:
        normal_scores: [m] of normals exchangeable with the new ones and not seen in training.
        scores: [n] of the samples in question.
        weights: [m], how likely a sample like this one is among the new ones, against among the calibration normals,
            where the two differ (weighted conformal, Tibshirani et al. 2019). The promise is as good as the weights.
        own_weights: [n] or one, the same for the samples in question.
        generator: draws where among equal scores, itself included, a sample stands: then the p-values of normals are
            exactly uniform. Without it equals count as higher, which errs to fewer false alarms.
    """
    normal, asked = _finite(normal_scores, "scores of normals"), np.asarray(scores, dtype=float)
    if not len(normal):
        raise InputError("p-values need scores of normals: got none")
    if np.isnan(asked).any():
        raise InputError(f"{int(np.isnan(asked).sum())} of {asked.size} scores are not numbers")
    w = np.ones(len(normal)) if weights is None else _weights(weights, len(normal))
    weight_of_asked = np.broadcast_to(np.asarray(own_weights, dtype=float), asked.shape)
    if not (weight_of_asked > 0).all():
        raise InputError("a sample's own weight must be above 0")
    order = np.argsort(normal, kind="stable")
    above = np.append(np.cumsum(w[order][::-1])[::-1], 0.0)  # [m + 1], weight of the k-th smallest and all beyond
    higher = above[np.searchsorted(normal[order], asked, "right")]
    ties = above[np.searchsorted(normal[order], asked, "left")] - higher + weight_of_asked
    share = 1.0 if generator is None else generator.uniform(size=asked.shape)
    return np.minimum((higher + share * ties) / (above[0] + weight_of_asked), 1.0)


def cross_p_values(normal_scores: np.ndarray, parts: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """The p-values [n] of cross-conformal prediction (Vovk 2015), CV+ of Barber et al. (2021) for scores.

    Each normal was scored by the detector that was trained without its part, and a sample in question is held against
    it by that same detector. At most 2 alpha + sqrt(2 / m) of new normals have a p-value of at most alpha, of any data
    and detector (2 alpha with a part for each normal, jackknife+); about alpha where the detectors are alike.

    Args:
        normal_scores: [m] by the detector that has not learnt the sample.
        parts: [m] numbers 0 to k - 1 of the parts.
        scores: [n, k] of the samples in question by the k detectors.
    """
    normal, asked, parts = (
        _finite(normal_scores, "scores of normals"),
        np.asarray(scores, dtype=float),
        np.asarray(parts),
    )
    if parts.shape != normal.shape or asked.ndim != 2 or not np.isin(parts, np.arange(asked.shape[1])).all():
        raise InputError(f"one part a normal and one score a part: got {parts.shape}, {normal.shape}, {asked.shape}")
    scores_of_part = [np.sort(normal[parts == part]) for part in range(asked.shape[1])]
    above = [len(each) - np.searchsorted(each, asked[:, part], "left") for part, each in enumerate(scores_of_part)]
    return (1 + np.sum(above, axis=0)) / (len(normal) + 1)


def benjamini_hochberg(p: np.ndarray, share: float = 0.1) -> np.ndarray:
    """Which of a batch [n] to flag so that at most `share` of the flagged are normals, in the mean over batches.

    Benjamini & Hochberg (1995); p-values of one calibration set depend on each other in a way that it allows (Bates et
    al. 2023). `weights`, `cross_p_values` and kinds are not covered by that proof.
    """
    check_share(share, "share")
    p = _finite(p, "p-values")
    order = np.argsort(p, kind="stable")
    # Conformal p-values often equal their limit, which rounding must not decide.
    low = np.flatnonzero(p[order] <= (1 + 1e-12) * share * np.arange(1, len(p) + 1) / max(len(p), 1))
    flagged = np.zeros(len(p), dtype=bool)
    flagged[order[: low[-1] + 1 if len(low) else 0]] = True
    return flagged


def reachable(normals: int) -> float:
    """The smallest share of false alarms that this many held-out normals can promise."""
    return 1 / (normals + 1)


def promised(normals: int, false_alarms: float) -> float:
    """The share of false alarms that `conformal_threshold` promises: what was asked for, or the smallest reachable."""
    return max(false_alarms, reachable(normals))


def range_of_false_alarms(
    normals: int, false_alarms: float, level: float = 0.95, crossed: bool = False
) -> tuple[float, float]:
    """Between which shares the false alarms of one calibration lie, in `level` of calibrations; see
    `law_of_false_alarms`."""
    # Not by the law itself: `scipy.stats` takes most of a second to import, and a small fit needs nothing else of it.
    of_law = _parameters(normals, false_alarms, crossed)
    low, high = scipy.special.betaincinv(*of_law, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def law_of_false_alarms(normals: int, false_alarms: float, crossed: bool = False) -> Any:
    """The law of the share of false alarms over calibrations, frozen as scipy has it.

    The promise is a mean over calibrations. The share of one follows a Beta law (Vovk 2012), the same for all
    continuous scores: with k calibration scores above the threshold, Beta(k + 1, m - k).

    Args:
        crossed: each score is by a detector that learnt the other samples. Such scores depend on each other: a sample
            is its neighbours' neighbour. Then it is the Beta law of the same mean, and of 1.5 times the variance.
    """
    return scipy.stats.beta(*_parameters(normals, false_alarms, crossed))


def _parameters(normals: int, false_alarms: float, crossed: bool) -> tuple[float, float]:
    """Of the Beta law of false alarms."""
    place = min(math.ceil((normals + 1) * (1 - false_alarms) - 1e-9), normals)
    above, total = normals + 1 - place, normals + 1
    # The variance falls with the total plus 1.
    wider = max((total + 1) / _VARIANCE_OF_CROSSED - 1, 1e-6) / total if crossed else 1.0
    return wider * above, wider * place


def held_out_count(samples: int, false_alarms: float) -> int:
    """How many of the training samples to keep for the threshold: a tenth, more when few, never above three tenths."""
    wanted = max(math.ceil(samples / 10), math.ceil(1 / false_alarms) - 1)
    return min(wanted, int(0.3 * samples))


def usual_folds(samples: int, false_alarms: float, alone: bool = False, each_kind: bool = False) -> int:
    """Of how many folds the threshold for so many training samples is made; 0 where enough of them can be held out, or
    there are too few to deal out.

    Args:
        alone: no training is needed to leave out a sample alone; then each of at most 500 is a fold.
        each_kind: kinds have thresholds of their own, for which none are held out.
    """
    enough = held_out_count(samples, false_alarms) >= _ENOUGH_HELD_OUT
    if not each_kind and (enough or samples < 2 * FOLDS):
        return 0
    return samples if alone and 2 * FOLDS <= samples <= _MOST_ALONE else FOLDS


def far_out(normal_scores: np.ndarray) -> np.ndarray:
    """Which calibration scores [m] lie far above all others: beyond 5 robust standard deviations from their median.

    If these are anomalies that nobody noticed, they raise the threshold; see `conformal_threshold`. None do where they
    are more than a fifth: so many are a part of what is usual.
    """
    scores = _finite(normal_scores, "scores of normals")
    deviation = _MAD_TO_STD * np.median(np.abs(scores - np.median(scores)))
    far = (deviation > 0) & (scores > np.median(scores) + _FAR_OUT * deviation)
    return far if far.mean() <= _MOST_FAR_OUT else np.zeros_like(far)


def shortfall(samples: int, basis: str, false_alarms: float, advice: str) -> str:
    """What a threshold from so many samples cannot promise, and what to do; "" where it keeps `false_alarms`.

    Args:
        basis: "held-out" or "cross-fitted"; "" where the samples were trained on.
    """
    if not basis:
        why = "there are too few samples to hold any out"
        return f"{why}: the threshold comes from training scores and is too low{advice}"
    promise = reachable(samples)
    if promise <= false_alarms:
        return ""
    text = f"{samples} {basis} samples can promise at best {100 * promise:.1f} % false alarms"
    return f"{text}, not {100 * false_alarms:g} %{advice}"


def _weights(values: np.ndarray, normals: int) -> np.ndarray:
    """Weights [m] of so many normals."""
    w = _finite(values, "weights")
    if len(w) != normals or (w < 0).any():
        raise InputError(f"one weight of 0 or more a normal, and above 0 a sample: got {len(w)} for {normals}")
    return w


def _finite(values: np.ndarray, what: str) -> np.ndarray:
    values = np.asarray(values, dtype=float)
    if values.ndim != 1 or not np.isfinite(values).all():
        raise InputError(f"{what} must be finite numbers in one row: got shape {values.shape}")
    return values

"""A threshold for a target from old calibration scores: weighted conformal prediction (Tibshirani et al. 2019).

Each calibration normal counts as often as samples like it occur in the target, against among the old normals. That
ratio is estimated by a logistic regression that tells the two apart (Bickel et al. 2009), each sample by one that has
not learnt it. Anomalies in the target lie where no old normal is, so they hardly raise the threshold. What follows
holds as far as the ratio does: nothing is promised of kinds that the old normals lack.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..calibration import conformal

# Of fewer samples on either side no ratio is estimated.
_FEWEST = 20
_COMPONENTS, _FOLDS = 16, 5


@dataclass(frozen=True)
class Carried:
    """A threshold carried over from old calibration scores.

    Attributes:
        threshold: above it a target's normal is flagged with a chance of at most the share of false alarms; None where
            that is not promised.
        effective: how many equally weighted calibration scores the weighted ones are worth (Kish 1965).
        needed: how many are needed.
    """

    threshold: float | None
    effective: float
    needed: float

    def __str__(self) -> str:
        if self.threshold is None:
            return (
                "the old calibration scores promise nothing for this target: weighted by how often such samples occur "
                f"in it they are worth {self.effective:.1f} scores, and {self.needed:.0f} are needed"
            )
        return (
            "the old calibration scores, weighted by how often such samples occur in the target (worth "
            f"{self.effective:.0f} scores), give the threshold {self.threshold:.4g}; it holds as far as the weights "
            "do, and not for kinds that the old data lacks"
        )


def carried_threshold(
    scores: np.ndarray, samples: np.ndarray, target: np.ndarray, false_alarms: float, seed: int = 0
) -> Carried:
    """A threshold for normals of the target, from scores [m] of old normals that the detector has not learnt.

    Args:
        scores: [m].
        samples: [m, d]: places of the old normals in an embedding.
        target: [n, d]: places of the target's samples in the same; anomalies may be among them.
        false_alarms: the share that is asked for.
        seed: deals out the folds.

    Examples:
        Scores grow with the second of two kinds, of which the target has more:

        >>> random = np.random.default_rng(0)
        >>> kind, new_kind = random.random(2000) < 0.1, random.random(2000) < 0.5
        >>> scores = random.exponential(size=2000) * np.where(kind, 3, 1)
        >>> old, new = (each[:, None] + 0.01 * random.normal(size=(2000, 1)) for each in (kind, new_kind))
        >>> new_scores = random.exponential(size=2000) * np.where(new_kind, 3, 1)
        >>> carried = carried_threshold(scores, old, new, 0.05)
        >>> bool(0.04 < (new_scores > carried.threshold).mean() < 0.06)
        True
        >>> bool((new_scores > conformal.conformal_threshold(scores, 0.05)).mean() > 0.1)
        True
    """
    needed = 1 / false_alarms - 1
    if min(len(samples), len(target)) < _FEWEST:
        return Carried(None, 0.0, needed)
    of_old, of_target = density_ratio(samples, target, seed)
    effective = float(of_old.sum() ** 2 / max(np.square(of_old).sum(), 1e-300))
    # A new sample weighs in with its own weight, of which the mean over the target stands for all.
    own = float(of_target.mean())
    if effective < needed or own > false_alarms * (of_old.sum() + own):
        return Carried(None, effective, needed)
    return Carried(conformal.conformal_threshold(scores, false_alarms, of_old, own), effective, needed)


def density_ratio(samples: np.ndarray, target: np.ndarray, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """How likely a sample is in the target against among the old ones: of each old one [m], and of each of the target
    [n], in the mean 1 over the old ones."""
    from sklearn.decomposition import PCA  # their import takes as long as all else that a command imports
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    x = np.concatenate([samples, target]).astype(float)
    of_target = np.arange(len(x)) >= len(samples)
    components = min(_COMPONENTS, x.shape[1], len(x) // _FOLDS)
    model = make_pipeline(StandardScaler(), PCA(components, random_state=seed), LogisticRegression(max_iter=1000))
    folds = StratifiedKFold(_FOLDS, shuffle=True, random_state=seed)
    odds = np.exp(cross_val_predict(model, x, of_target, cv=folds, method="decision_function").clip(-30, 30))
    ratio = odds / odds[~of_target].mean()
    return ratio[~of_target], ratio[of_target]

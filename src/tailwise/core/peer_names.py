"""What serves here for a name that other libraries use: scikit-learn's, PyOD's and anomalib's."""

from __future__ import annotations

from collections.abc import Iterable

from ..errors import did_you_mean

# Names without their hyphens and underscores, and the detector that does the same or comes nearest.
_NEAREST_DETECTOR = {
    "ae": "autoencoder",
    "autoencoders": "autoencoder",
    "vae": "autoencoder",
    "pca": "autoencoder",
    "kpca": "autoencoder",
    "knn": "nearest-neighbours",
    "nearestneighbors": "nearest-neighbours",
    "kneighbors": "nearest-neighbours",
    "lof": "nearest-neighbours",
    "localoutlierfactor": "nearest-neighbours",
    "svdd": "deep-svdd",
    "deepsvdd": "deep-svdd",
    "ocsvm": "deep-svdd",
    "oneclasssvm": "deep-svdd",
    "mcd": "gaussian",
    "mahalanobis": "gaussian",
    "ellipticenvelope": "gaussian",
    "ecod": "gaussian",
    "copod": "gaussian",
    "hbos": "gaussian",
    "gmm": "gaussian",
    "iforest": "nearest-neighbours",
    "isolationforest": "nearest-neighbours",
    "patchcore": "patch-memory",
    "spade": "patch-memory",
    "cfa": "patch-memory",
    "dfm": "padim",
    "stfpm": "student-teacher",
    "efficientad": "student-teacher",
    "reversedistillation": "student-teacher",
    "draem": "adl",
    "crd": "collaborative",
    "lrx": "local-rx",
    "grx": "rx",
}
# These take weights in scikit-learn or PyOD, so a face weighs them as they are.
_WEIGHABLE = {
    "iforest": "IsolationForest()",
    "isolationforest": "IsolationForest()",
    "ocsvm": "OneClassSVM()",
    "oneclasssvm": "OneClassSVM()",
}


def hint_for(name: str, known: Iterable[str], kinds: Iterable[str] = ("detector",)) -> str:
    """What to write instead of an unknown name: the counterpart of a peer's, or the closest of those known.

    >>> hint_for("patchcore", ["patch-memory", "patches"])
    "the nearest here is 'patch-memory'"
    """
    known = list(known)
    word = name.lower().replace("-", "").replace("_", "")
    nearest = _NEAREST_DETECTOR.get(word)
    if "detector" not in kinds or nearest not in known:
        return did_you_mean(name, known)
    said = f"the nearest here is {nearest!r}"
    return f"{said}; in Python, Reweighted({_WEIGHABLE[word]}) takes scikit-learn's" if word in _WEIGHABLE else said

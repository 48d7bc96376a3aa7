"""The weightings that a user gets without asking, and weights for anyone's scores."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..core.detector import Detector
from ..core.modality import ROW, Modality
from ..core.registry import parse
from ..errors import InputError
from .steps import Accumulate, Clip, Guard, Importance, Rarity, Smooth
from .weighting import Context, Weighting

# What a user gets without asking. Chosen on development draws; LOG.md tells from what.
AUTO = Weighting(Importance(), Smooth(), Rarity(), Accumulate(), Clip())
AUTO_SPECTRA = Weighting(Rarity(power=2.0, doublings=10, common=0.1), Clip(high=30.0), Guard())


def parse_weighting(text: str, modality: Modality = ROW) -> Weighting:
    """The weighting that prints as `text`; "" is uniform and "auto" the library's default for such samples.

    The pixels of a scene are a continuum, and its hardest are mixtures and anomalies: weights that rise with
    scores cost. A kind is raised only if it is cut off from all others and rare.
    """
    if text.strip() == "auto":
        return AUTO_SPECTRA if modality.continuum else AUTO
    return Weighting(*parse(text, ("step", "density")))


def choose_weighting(text: str, detector: Detector, modality: Modality, local_scores: bool = False) -> Weighting:
    """The weighting that prints as `text` for such samples; "auto" is none but where the detector says that it helps.

    Its `weights_add_to` names where the interval of what weights add to the AUPR of long tails lies above 0, and is
    worth the time.
    """
    scores = "local" if local_scores else "own"
    if text.strip() == "auto" and (scores, modality) not in detector.weights_add_to:
        return Weighting()
    return parse_weighting(text, modality)


def importance_weights(
    scores: Any, weighting: Weighting | str = "Importance()", *, reference: Any = None, embedding: Any = None
) -> Any:
    """Weights [n] of mean 1 for anomaly scores [n], higher more anomalous; the same kind of array as `scores`.

    Args:
        scores: tensor, array or sequence of finite numbers.
        weighting: a Weighting or its spelling.
        reference: the scores [m] that densities are fitted on, when not `scores` themselves.
        embedding: the samples' places [n, d], for steps that look at neighbours.

    Raises:
        InputError: scores are not one row of finite numbers, or a step cannot be used on them.

    Examples:
        A rare kind of normal scores high, so it counts more in training:

        >>> import numpy as np
        >>> frequent, rare = np.random.default_rng(0).gamma(2.0, size=(2, 500))
        >>> scores = np.concatenate([frequent, 4 + rare[:20]])
        >>> w = importance_weights(scores)
        >>> round(float(w.mean()), 3), bool(w[500:].mean() > 2 * w[:500].mean())
        (1.0, True)
    """
    weighting = parse_weighting(weighting) if isinstance(weighting, str) else weighting
    values = _vector(scores)
    w = weighting(
        Context(
            values,
            values if reference is None else _vector(reference).to(values),
            None if embedding is None else _tensor(embedding, "embedding").to(values),
        )
    )
    if isinstance(scores, Tensor):
        return w.to(scores.dtype) if scores.is_floating_point() else w
    is_float_array = isinstance(scores, np.ndarray) and np.issubdtype(scores.dtype, np.floating)
    return w.numpy().astype(scores.dtype, copy=False) if is_float_array else w.numpy()


def _vector(scores: Any) -> Tensor:
    values = _tensor(scores, "scores")
    if values.dim() != 1:
        raise InputError(f"scores must be one row [n]: got shape {tuple(values.shape)}")
    return values


def _tensor(values: Any, name: str) -> Tensor:
    """At least single precision, without gradient."""
    try:
        if not isinstance(values, Tensor):
            array = np.asarray(values)
            # A copy in native order: torch warns of frozen arrays and refuses reversed ones.
            values = torch.from_numpy(array.astype(array.dtype.newbyteorder("="), order="C", copy=True))
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} must be numbers: {error}") from error
    if not values.is_floating_point():
        return values.double()
    return values.detach().float() if values.element_size() < 4 else values.detach()

"""Steps in a row, and the only place where losses become one number."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from ..core.registry import kind_of
from ..core.validation import check_finite
from ..errors import InputError
from ..numerics.neighbours import nearest_within


def refuse_negative(weights: Tensor) -> None:
    """Raise an InputError where a weight is negative."""
    if bool((weights < 0).any()):
        raise InputError(
            f"{int((weights < 0).sum())} weights are negative: only gradient steps take them, no resampling",
            "use LatentOutliers(soft=True), or another detector, or leave out resample",
        )


Step = Callable[[Tensor, "Context"], Tensor]


@dataclass(frozen=True, eq=False)
class Context:
    """What a step may look at. `scores` [n] and `reference` [m]: higher is more anomalous.

    `embedding` [n, d] places the samples, `previous` [n] are the weights of the round before, `round` counts from 0.
    """

    scores: Tensor
    reference: Tensor
    embedding: Tensor | None = None
    previous: Tensor | None = None
    round: int = 0
    # What the embedding says does not change while it stands, so rounds that share it share this too.
    cache: dict[Any, Any] = field(default_factory=dict, repr=False)

    def of(self, chosen: Tensor) -> Context:
        """What there is to look at where only the chosen samples [n] bool are there."""
        if bool(chosen.all()):
            return self
        embedding, previous = (None if each is None else each[chosen] for each in (self.embedding, self.previous))
        scores, reference = self.scores[chosen], self.reference
        return replace(
            self, scores=scores, reference=scores if reference is self.scores else reference, embedding=embedding,
            previous=previous, cache=self.cache.setdefault(chosen.cpu().numpy().tobytes(), {}),
        )  # fmt: skip

    def neighbours(self, k: int) -> Tensor:
        """Indices [n, k] of each sample's nearest others in the embedding."""
        return self.of_embedding(k, lambda places: nearest_within(places, k))

    def of_embedding(self, key: Any, function: Callable[[Tensor], Tensor]) -> Tensor:
        """What `function` says of the embedding, computed once for each key."""
        if self.embedding is None:
            raise InputError("this weighting looks at neighbours: it needs an embedding [n, d]", "give embedding=")
        if key not in self.cache:
            self.cache[key] = function(self.embedding)
        found: Tensor = self.cache[key]
        return found


class Weighting:
    """Steps in a row: scores in, weights out, mean 1, no gradient. No step at all is uniform.

    Examples:
        >>> from tailwise.weights.steps import Clip, Importance
        >>> weighting = Weighting(Importance(alpha=0.2), Clip(0.2, 5.0))
        >>> weighting
        Importance(alpha=0.2), Clip(low=0.2, high=5.0)
        >>> scores = torch.tensor([1.0, 1.1, 0.9, 1.0, 3.0])
        >>> w = weighting(Context(scores, scores))
        >>> round(float(w.mean()), 3), int(w.argmax())
        (1.0, 4)
    """

    def __init__(self, *steps: Step) -> None:
        if odd := [step for step in steps if not callable(step) or kind_of(step) == "density"]:
            raise InputError(f"{odd[0]!r} is {'a density, ' * callable(odd[0])}not a step", "such as Importance()")
        self.steps = steps

    def __call__(self, context: Context) -> Tensor:
        """Weights [n] of the context's samples.

        Raises:
            InputError: a score or a place is not finite, or no sample is left with a weight.
        """
        return self.trace(context)[-1]

    def times(self, base: Tensor, context: Context) -> Tensor:
        """Weights [n] of mean 1, multiplied by base weights [n]; samples without one are absent: no step sees them."""
        present = base != 0
        w = torch.zeros_like(base * context.scores)
        w[present] = self(context.of(present)) * base[present]
        return unit_mean(w)

    @torch.no_grad()
    def trace(self, context: Context) -> list[Tensor]:
        """Weights [n] of mean 1 before any step and after each; the last are those of the weighting itself."""
        for name in ("scores", "reference"):
            check_finite(getattr(context, name), name)
        if self.needs_embedding:
            _check_embedding(context)
        w = torch.ones_like(context.scores)
        steps = [w]
        for step in self.steps:
            w = step(w, context)
            steps.append(unit_mean(w))
        return steps

    @property
    def needs_embedding(self) -> bool:
        return any(getattr(step, "needs_embedding", False) for step in self.steps)

    @property
    def needs_past(self) -> bool:
        return any(getattr(step, "needs_past", False) for step in self.steps)

    def __repr__(self) -> str:
        return ", ".join(map(repr, self.steps))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Weighting) and self.steps == other.steps

    def __hash__(self) -> int:
        return hash(self.steps)


def weighted_mean(losses: Tensor, w: Tensor | None = None, divide_by: str = "weight") -> Tensor:
    """One number from losses [n] and weights [n]: the only place where losses are reduced.

    `divide_by="weight"` is sum(w l) / sum(|w|), in which the scale of w cancels; "count" is sum(w l) / n. Weights below
    0 count as what they are in the first sum alone: those of one batch may add up to nothing.

    Examples:
        >>> losses = torch.tensor([1.0, 2.0, 6.0])
        >>> weighted_mean(losses), weighted_mean(losses, torch.tensor([1.0, 1.0, 0.0]))
        (tensor(3.), tensor(1.5000))
    """
    if losses.dim() != 1:
        raise InputError(
            f"one loss per sample: got {tuple(losses.shape)}", "reduce each sample's own axes, not the samples"
        )
    if divide_by not in ("weight", "count"):
        raise InputError(f"divide_by must be 'weight' or 'count': got {divide_by!r}")
    if w is None:
        return losses.mean()
    if w.shape != losses.shape:
        raise InputError(f"one weight per loss: got {tuple(w.shape)} for {tuple(losses.shape)}")
    both = torch.promote_types(losses.dtype, w.dtype)
    losses, w = losses.to(both), w.to(both)
    total = w @ losses
    # A batch whose weights are all zero says nothing: its mean is 0 and so is its gradient.
    return total / (w.abs().sum().clamp_min(torch.finfo(w.dtype).tiny) if divide_by == "weight" else len(losses))


def effective_sample_size(w: Tensor) -> float:
    """How many equally weighted samples would estimate a mean as well: sum(w)^2 / sum(w^2) (Kish 1965).

    Examples:
        >>> effective_sample_size(torch.ones(4))
        4.0
        >>> effective_sample_size(torch.tensor([1.0, 0.0, 0.0, 0.0]))
        1.0
    """
    w = w.double()
    return float(w.sum().square() / w.square().sum().clamp_min(1e-300))


def unit_mean(w: Tensor) -> Tensor:
    """Weights scaled to mean 1."""
    mean = w.mean()
    if not bool(torch.isfinite(mean)) or float(mean) <= 0:
        raise InputError("no sample is left with a weight", "soften the weighting, as with Clip(0.1, 10)")
    return w / mean


def _check_embedding(context: Context) -> None:
    places, n = context.embedding, len(context.scores)
    if places is None:  # the step itself says what it needs
        return
    if places.dim() != 2 or len(places) != n:
        raise InputError(f"the embedding must hold one place a sample, [{n}, d]: got {list(places.shape)}")
    check_finite(torch.where(torch.isfinite(places).all(1), 0.0, torch.nan), "places in the embedding")

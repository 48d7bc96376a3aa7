"""Long-tailed resampling: kinds of normal whose sizes fall off geometrically (Cui et al., CVPR 2019)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Any

import numpy as np

from ..core.bounds import Bounds, Count, CountFromZero
from ..core.problem import Labelled, Problem, Source
from ..core.registry import Value, register
from ..errors import InputError


def long_tail(groups: Any, imbalance: float, largest: int | None = None, seed: int = 0) -> np.ndarray:
    """Indices, ascending, of samples whose K kinds have sizes largest * imbalance^(-k / (K - 1)), k = 0..K-1.

    Which kind is frequent and which samples are kept is drawn from `seed`. A kind keeps at least 1 sample.

    Args:
        groups: [n] names of the kinds.
        imbalance: size of the most frequent kind over that of the rarest, at least 1.
        largest: size of the most frequent kind; None is as large as the kinds at hand allow.

    Raises:
        InputError: imbalance below 1, or a kind has too few samples.
    """
    if not imbalance >= 1:
        raise InputError(f"imbalance must be at least 1: got {imbalance}")
    names, counts = np.unique(np.asarray(groups), return_counts=True)
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(names))
    shares = float(imbalance) ** -(np.arange(len(names)) / max(1, len(names) - 1))
    most = int((counts[order] / shares).min()) if largest is None else largest
    if most < 1:
        raise InputError(f"the most frequent kind needs at least 1 sample: got {most}")
    chosen = []
    for place, share in zip(order, shares, strict=True):
        wanted = max(1, round(most * share))
        if wanted > counts[place]:
            raise InputError(
                f"kind {str(names[place])!r} has {counts[place]} samples: {wanted} are needed",
                "lower largest or change seed",
            )
        members = np.flatnonzero(np.asarray(groups) == names[place])
        chosen.append(generator.permutation(members)[:wanted])
    return np.sort(np.concatenate(chosen))


@register("source", "LongTail")
@dataclass(frozen=True, repr=False)
class LongTail(Value):
    """Another source whose training samples are thinned to a long tail of its groups; its test stays as it is.

    Args:
        source: any source with groups, as in LongTail(source=Idx(path='mnist', normal=(0, 1, 2))).
        imbalance, largest, seed: see `long_tail`.
    """

    source: Any
    imbalance: Annotated[float, Bounds(at_least=1)] = 100
    largest: Count | None = None
    seed: CountFromZero = 0

    def __post_init__(self) -> None:
        if not isinstance(self.source, Source):
            raise InputError(f"LongTail takes a source: got {self.source!r}", "as in LongTail(source=Digits())")
        super().__post_init__()

    def load(self) -> Problem:
        problem = self.source.load()
        if problem.train_groups is None:
            raise InputError(f"LongTail needs the kinds of normal, and {self.source!r} knows none", "give it groups=")
        chosen = long_tail(problem.train_groups, self.imbalance, self.largest, self.seed)
        note = f"training samples thinned to a long tail at {self.imbalance:g}:1 (seed {self.seed})"
        return replace(
            problem,
            train=problem.train.take(chosen),
            train_groups=problem.train_groups[chosen],
            facts=replace(problem.facts, notes=(*problem.facts.notes, note)),
        )

    def load_all(self) -> Labelled:
        return self.source.load_all()

    def at(self, path: str) -> Any:
        """The source itself at another path: what is scored is not thinned."""
        return self.source.at(path)

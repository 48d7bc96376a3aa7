"""Handwritten digits that come with scikit-learn: 1,797 rows of 64 grey values, for trials without any download."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ..core.data import Data
from ..core.modality import ROW
from ..core.problem import Facts, Labelled, Problem
from ..core.registry import Value, register
from ..errors import InputError
from .splits import by_class

_FACTS = Facts(
    name="digits",
    samples="rows",
    licence="CC BY 4.0",
    citation="Alpaydin & Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository, 1998",
)


@register("source", "Digits")
@dataclass(frozen=True, repr=False)
class Digits(Value):
    """Rows of 8 x 8 grey values in 0..1; the ten digits are the groups. Every second row tests.

    Args:
        normal: the digits that train; every test row of another one is an anomaly. () trains on all.
    """

    normal: tuple[int, ...] = ()

    def load(self) -> Problem:
        everything = self.load_all()
        assert everything.groups is not None
        train, test = (np.arange(start, len(everything.data), 2) for start in (0, 1))
        return by_class(
            everything.data.take(train), everything.groups[train], everything.data.take(test), everything.groups[test],
            {str(digit) for digit in self.normal}, _FACTS,
        )  # fmt: skip

    def load_all(self) -> Labelled:
        from sklearn.datasets import load_digits  # its import costs more than all other sources together

        pixels, digits = load_digits(return_X_y=True)
        samples = torch.from_numpy((pixels / 16).astype(np.float32))
        labels = ~np.isin(digits, self.normal) if self.normal else None
        return Labelled(
            Data(samples, [str(row) for row in range(len(samples))], modality=ROW), labels, digits.astype(str)
        )

    def at(self, path: str) -> Digits:
        raise InputError(f"Digits come with scikit-learn and are read from no path: got {path!r}")

"""Handwritten digits that come with scikit-learn: 1,797 of 8 x 8 grey values, for trials without a download."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from ..core.bounds import Count, CountFromZero
from ..core.data import Data
from ..core.modality import IMAGE, ROW
from ..core.problem import Facts, Labelled, Problem, Source
from ..core.registry import Value, find, register
from ..errors import InputError
from .splits import by_class

_FACTS = Facts(
    name="digits",
    samples="rows",
    licence="CC BY 4.0",
    citation="Alpaydin & Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository, 1998",
)
_SIDE = 8


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
        samples, digits = _read()
        labels = ~np.isin(digits, self.normal) if self.normal else None
        return Labelled(Data(samples, _names(np.arange(len(samples))), modality=ROW), labels, digits.astype(str))

    def at(self, path: str) -> Digits:
        raise InputError(f"Digits come with scikit-learn and are read from no path: got {path!r}")


@register("source", "RareDigits")
@dataclass(frozen=True, repr=False)
class RareDigits(Value):
    """Pictures of digits: some are good and frequent, some are good and rare, and all others are defects.

    Unseen good digits of each kind test, at most `test` of each, and as many of each kind of defect.

    Args:
        frequent, rare: the digits of the good kinds.
        many, few: how many pictures of each frequent and of each rare digit train.
        seed: which pictures are drawn.
        test: the most pictures of each digit to test on.
    """

    frequent: tuple[int, ...] = (0, 1, 2)
    rare: tuple[int, ...] = (3, 4, 5)
    many: Count = 150
    few: Count = 15
    seed: CountFromZero = 0
    test: Count = 100

    def load(self) -> Problem:
        pictures, digits = _read()
        good = (*self.frequent, *self.rare)
        if len({*good} & {*range(10)}) != len(good) or not 0 < len(good) < 10:
            raise InputError(f"RareDigits needs different good digits, and one that is left for defects: got {self!r}")
        generator = np.random.default_rng(self.seed)
        train, test = [], []
        for digit in range(10):
            drawn = generator.permutation(np.flatnonzero(digits == digit))
            count = self.many if digit in self.frequent else self.few if digit in self.rare else 0
            if count >= len(drawn):
                raise InputError(f"RareDigits has {len(drawn)} pictures of {digit}, and one must test: got {count}")
            train.append(drawn[:count])
            test.append(drawn[count:][: self.test])
        trained, tested = (np.sort(np.concatenate(chosen)) for chosen in (train, test))
        return Problem(
            Data(pictures[trained].unflatten(1, (1, _SIDE, _SIDE)), _names(trained), modality=IMAGE),
            replace(_FACTS, samples="images"),
            digits[trained].astype(str),
            self._labelled(pictures, digits, tested),
        )

    def load_all(self) -> Labelled:
        pictures, digits = _read()
        return self._labelled(pictures, digits, np.arange(len(digits)))

    def at(self, path: str) -> Source:
        """A folder of pictures of other digits, read as pixels of the same size."""
        return find("source", "ImageFolder")(path, read="pixels", size=_SIDE, channels=1)

    def _labelled(self, pictures: torch.Tensor, digits: np.ndarray, chosen: np.ndarray) -> Labelled:
        data = Data(pictures[chosen].unflatten(1, (1, _SIDE, _SIDE)), _names(chosen), modality=IMAGE)
        return Labelled(data, ~np.isin(digits[chosen], (*self.frequent, *self.rare)), digits[chosen].astype(str))


def _read() -> tuple[torch.Tensor, np.ndarray]:
    """Grey values [n, 64] in 0..1, and the digit of each."""
    from sklearn.datasets import load_digits  # its import costs more than all other sources together

    pixels, digits = load_digits(return_X_y=True)
    return torch.from_numpy((pixels / 16).astype(np.float32)), digits


def _names(chosen: np.ndarray) -> list[str]:
    return [str(place) for place in chosen]

"""Whether the bands of two cubes lie at the same wavelengths."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..errors import InputError

# The share of a wavelength that headers round away, or that a camera drifts by.
_ROUNDING = 0.005


def wavelengths_of(features: Sequence[str]) -> np.ndarray | None:
    """[bands] in nanometres, as features of spectra are called; None where they are called otherwise.

    Examples:
        >>> wavelengths_of(("400", "500.5"))
        array([400. , 500.5])
    """
    try:
        wavelengths = np.array([float(name) for name in features])
    except ValueError:
        return None
    return wavelengths if len(wavelengths) and np.isfinite(wavelengths).all() else None


def check_wavelengths(own: np.ndarray | None, other: np.ndarray | None, owner: str, named: str) -> None:
    """Refuse bands that lie elsewhere than those of `owner`, where both are known and equally many.

    Args:
        own: [bands] in nanometres, of `owner`; None is unknown.
        other: [bands] in nanometres, of what is called `named`; None is unknown.
        owner: whose bands are needed.
        named: whose bands are looked at.

    Raises:
        InputError: a band lies elsewhere.
    """
    if own is None or other is None or len(own) != len(other) or _same(own, other):
        return
    worst = int(np.abs(other - own).argmax())
    hint = "use cubes of the same bands; if the wavelengths are stated wrongly, correct or remove them"
    if _same(np.sort(own), np.sort(other)):
        hint = f"these are the same bands in another order: store them in the order of {owner}"
    raise InputError(
        f"{named} has bands from {_ends(other)} nm, {owner} from {_ends(own)} nm: one band is at {other[worst]:.6g} nm "
        f"instead of {own[worst]:.6g}",
        hint,
    )


def _same(own: np.ndarray, other: np.ndarray) -> bool:
    return bool((np.abs(other - own) <= _ROUNDING * np.abs(own)).all())


def _ends(wavelengths: np.ndarray) -> str:
    return f"{wavelengths[0]:.6g} to {wavelengths[-1]:.6g}"

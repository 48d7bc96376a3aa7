"""Packages that only some need: what is missing, and which extra installs it."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence

from ..errors import InputError


def need(what: str, packages: Sequence[str], extra: str) -> None:
    """Raise an InputError where a package that `what` needs is not installed.

    >>> need("counting", ["math"], "numbers")
    """
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(f"{what} needs {' and '.join(missing)}", f"pip install 'tailwise[{extra}]'")

"""Modules that the user names in TAILWISE_IMPORT, so that the detectors they register have names.

A run never says what is imported.
"""

from __future__ import annotations

import importlib
import os

from ..errors import InputError

VARIABLE = "TAILWISE_IMPORT"


def import_named() -> None:
    """Import them, in this process.

    Raises:
        InputError: one cannot be imported.
    """
    for name in filter(None, os.environ.get(VARIABLE, "").split(",")):
        try:
            importlib.import_module(name.strip())
        except ImportError as error:
            raise InputError(
                f"{VARIABLE} names {name.strip()!r}, which cannot be imported: {error}", "put it into PYTHONPATH"
            ) from error

"""Values as JSON that every reader takes: one way for settings, reports and pages."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

# DEL, C1, what turns the direction of writing, ends of lines and paragraphs; JSON escapes C0 itself.
_STEERS = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]")


def plain(value: Any) -> Any:
    """Only what JSON has: arrays become lists, what is missing or no finite number becomes null, and all else its text.

    >>> plain({"scores": (0.5, float("nan")), "which": range(2)})
    {'scores': [0.5, None], 'which': 'range(0, 2)'}
    """
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):  # of numpy and torch: a number, or an array
        return plain(value.tolist())
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if value is None or isinstance(value, str | bool | int):
        return value
    return None if type(value).__name__ == "NAType" else str(value)  # pandas' own nothing


def to_json(value: Any) -> str:
    """The value as JSON text, in lines; what steers a terminal is in JSON's own escapes."""
    text = json.dumps(plain(value), indent=1, ensure_ascii=False, allow_nan=False)
    return _STEERS.sub(lambda letter: f"\\u{ord(letter[0]):04x}", text)


def to_bytes(value: Any) -> bytes:
    """What is written to a file of JSON."""
    # A path that is no text has surrogates, which become JSON's own escapes.
    return (to_json(value) + "\n").encode("utf-8", "backslashreplace")

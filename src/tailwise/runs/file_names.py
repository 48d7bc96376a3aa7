"""Names that become files: what comes from data or a settings file may name a file, and never a way to one."""

from __future__ import annotations

import os
import re
import unicodedata
from pathlib import PurePosixPath

from ..errors import InputError

# Those that Windows keeps for devices, with any ending.
_DEVICES = re.compile(r"(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])(\..*)?", re.IGNORECASE)
# Letters that show a name otherwise than it is: they turn its direction round.
_TURNING = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
# File systems allow 255 bytes, of which endings need some.
_LONGEST = 200


def check_name(name: object, what: str) -> str:
    """The name itself, where a file can have it on every system.

    Args:
        name: text such as "long-tail"; from a settings file it may be anything.
        what: what has the name, for the message: "a suite".

    Raises:
        InputError: it is no text, is empty, climbs, holds a separator or control characters, is a device's, or is
            longer than 200 bytes.
    """
    if isinstance(name, str) and not (reason := _unusable(name) or _unusable_elsewhere(name)):
        return name
    reason = reason if isinstance(name, str) else "is no text"
    raise InputError(f"{what} cannot be called {name!r}: it {reason}", "use letters, digits, '-' and '_'")


def path_inside(name: str) -> PurePosixPath:
    """A sample's name, such as "good/000.png", as a path that stays in the folder it is put into.

    Its parts may be what this system calls a file: on Linux "12:30.png" is one.

    Raises:
        InputError: it is empty, absolute, climbs, or holds what cannot be in a file's name.
    """
    parts = name.split("/")
    reasons = [_unusable(part) or (_unusable_elsewhere(part) if os.name == "nt" else "") for part in parts]
    if any(reasons):
        reason = next(filter(None, reasons))
        raise InputError(f"the sample {name!r} cannot name a file: it {reason}", "rename it")
    return PurePosixPath(*parts)


def _unusable(name: str) -> str:
    """What keeps a name from being a file's on any system; "" where nothing does."""
    if not name.strip():
        return "has an empty part"
    if name in (".", ".."):
        return "climbs out of its folder"
    if "/" in name or "\\" in name:
        return "holds a separator of folders"
    if any(unicodedata.category(letter) in ("Cc", "Zl", "Zp") or letter in _TURNING for letter in name):
        return "holds control characters"
    if len(name.encode("utf-8", "surrogateescape")) > _LONGEST:
        return f"is longer than {_LONGEST} bytes"
    return ""


def _unusable_elsewhere(name: str) -> str:
    """What keeps a name from being a file's on some system, or from being seen."""
    if _DEVICES.fullmatch(name.strip()):
        return "is the name of a device"
    if any(letter in '<>:"|?*' for letter in name):
        return "holds a letter that some systems refuse"
    if name != name.strip() or name.endswith("."):
        return "ends in a space or a point, or begins with a space"
    if name.startswith("."):
        return "is hidden"
    return ""

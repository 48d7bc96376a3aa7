"""Files that are whole or not there."""

from __future__ import annotations

import os
import secrets
from pathlib import Path


def replace(path: Path, content: bytes) -> None:
    """Write a file whole or not at all, and never through a link that lies in its place."""
    beside = path.with_name(f".writing-{os.getpid()}-{secrets.token_hex(8)}")
    try:
        with open(beside, "xb") as file:
            file.write(content)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)

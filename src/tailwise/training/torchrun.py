"""What torchrun tells the processes that it starts; without torch, so that a command can ask at once."""

from __future__ import annotations

import os


def started() -> int:
    """How many processes torchrun started for this command; 1 where nobody did."""
    return int(os.environ["WORLD_SIZE"]) if "TORCHELASTIC_RUN_ID" in os.environ else 1


def helps() -> bool:
    """Whether this process helps another one, which writes and tells."""
    return started() > 1 and os.environ["RANK"] != "0"

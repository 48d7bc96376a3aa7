"""What a service grants to whoever asks, as one value: the same in Python and on the command line.

The command line imports this for its help texts, so nothing here may import torch.
"""

from dataclasses import dataclass
from typing import Annotated

from ..core.bounds import Bounds, Count
from ..core.registry import Value

Seconds = Annotated[float, Bounds(at_least=0.1, at_most=86_400.0)]


@dataclass(frozen=True, repr=False)
class Limits(Value):
    """How much a service takes in, and for how long it waits.

        >>> Limits(queue=8)
        Limits(queue=8)

    Args:
        body_mb: the largest body, in megabytes; a larger one is answered by 413.
        body_seconds: how long a request's head, and then its body, may take to arrive; a slower one is answered by
            408.
        queue: how many requests of a run may wait or be worked on; a further one is answered by 429.
        seconds: how long an answer may take; one that takes longer is given up with 503. Work that has begun ends.
        look_seconds: how often runs are looked at for a new version.

    Raises:
        InputError: a limit is out of range.
    """

    body_mb: Count = 16
    body_seconds: Seconds = 10.0
    queue: Count = 64
    seconds: Seconds = 30.0
    look_seconds: Seconds = 2.0

    @property
    def body_bytes(self) -> int:
        """The largest body in bytes."""
        return self.body_mb * 1_000_000

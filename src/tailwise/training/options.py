"""How a detector is trained, as one value: the same in Python, on the command line, in a suite and in the loop.

The command line imports this for its help texts, so nothing here may import torch. A new option is a field here, with
its line of help, and the line of `loop` that reads it.
"""

import math
from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal

from ..core.bounds import Bounds, Count, CountFromZero, NotNegative
from ..core.registry import Value

# Small sets take few steps in an epoch; these bound the epochs chosen when the user names none. Of large ones fewer
# epochs do, of which the last two thirds are weighted.
_STEPS_WANTED, _MOST_STEPS = 1_500, 20_000
_EPOCHS, _FEWEST_OF_MANY = (30, 300), 3
# Samples in each step, and the learning rate, of a detector that asks for no others.
_BATCH, _RATE = 256, 1e-3
# More is a slip: a million passes over two samples take an hour.
Epochs = Annotated[int, Bounds(at_least=1, at_most=1_000_000)]


# What concerns steps alone.
STEP_OPTIONS = frozenset(
    ("epochs", "batch_size", "lr", "weight_decay", "warmup", "patience", "resample", "reference", "mixed_precision")
)


@dataclass(frozen=True, repr=False)
class Training(Value):
    """How a detector is trained. A detector in closed form takes no steps: only device and threads concern it.

    The seed is no part of it, because each of the trainings of cross-fitting and refinement has its own.

        >>> Training(epochs=40, lr=0.01)
        Training(epochs=40, lr=0.01)

    Args:
        epochs: passes over the data; by default 30 to 300, which make about 1,500 steps, and fewer, but 3, where 30
            would make more than 20,000; or those of the steps that the detector usually takes.
        batch_size: samples in each step; of a detector of parts, parts. By default 256, or what the detector usually
            takes.
        lr: learning rate of Adam; by default 0.001, or what the detector usually takes.
        weight_decay: weight decay of Adam.
        warmup: epochs before weighting starts; by default a third of all.
        patience: stop when the loss on held-out normals has not fallen for this many epochs. The same normals set the
            threshold, so the share of false alarms is then approximate.
        resample: draw samples in proportion to their weights instead of weighing their losses.
        reference: the scores that make the weights: "newest" takes those of the epoch's steps, "full" scores all
            samples again after each epoch.
        device: "cpu", "cuda" or "mps".
        mixed_precision: compute in half precision where that is faster on the device.
        threads: CPU threads for training; 1 is fastest for small networks, and None leaves them as they are.

    Raises:
        InputError: an option is off.
    """

    epochs: Epochs | None = None
    batch_size: Count | None = None
    lr: NotNegative | None = None
    weight_decay: NotNegative = 1e-6
    warmup: CountFromZero | None = None
    patience: Count | None = None
    resample: bool = False
    reference: Literal["newest", "full"] = "newest"
    device: str = "cpu"
    mixed_precision: bool = False
    threads: Annotated[int, Bounds(at_least=1, at_most=4_096)] | None = 1

    @property
    def samples_in_step(self) -> int:
        """How many samples a step takes."""
        return self.batch_size or _BATCH

    @property
    def learning_rate(self) -> float:
        """That of the first step; hooks may change it."""
        return _RATE if self.lr is None else self.lr

    def epochs_for(self, samples: int) -> int:
        """How many epochs `samples` samples are passed over."""
        if self.epochs is not None:
            return self.epochs
        fewest, most = _EPOCHS
        steps = math.ceil(samples / self.samples_in_step)
        fewest = min(fewest, max(_FEWEST_OF_MANY, _MOST_STEPS // steps))
        return min(most, max(fewest, math.ceil(_STEPS_WANTED / steps)))

    def steps_for(self, samples: int) -> int:
        """How many steps these epochs have."""
        return self.epochs_for(samples) * math.ceil(samples / self.samples_in_step)

    def changed(self) -> dict[str, Any]:
        """The options that differ from their defaults."""
        return {each.name: value for each in fields(self) if (value := getattr(self, each.name)) != each.default}

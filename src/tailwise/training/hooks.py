"""Hooks for the training loop: a schedule of the learning rate, a moving average of the weights, and many processes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor, distributed

from ..core import processes
from ..core.bounds import Bounds, CountFromZero, Share, checked
from ..core.data import Batch
from ..core.registry import Value
from ..errors import InputError
from .loop import Hook, Loop


@dataclass(frozen=True, repr=False)
class CosineSchedule(Value, Hook):
    """Lower the learning rate along half a cosine, from that of the training to a share of it (Loshchilov & Hutter
    2017).

        >>> CosineSchedule(warmup_steps=100)
        CosineSchedule(warmup_steps=100)

    Args:
        warmup_steps: so many steps raise the learning rate from near 0 first, in equal parts.
        lowest: share of the learning rate that the last steps have.
    """

    warmup_steps: CountFromZero = 0
    lowest: Share = 0.0

    def before_step(self, loop: Loop) -> None:
        loop.optimizer.lr = loop.training.learning_rate * self.factor(loop.steps, loop.planned_steps)

    def factor(self, step: int, planned: int) -> float:
        """Share of the learning rate at a step, which counts from 0, of `planned`."""
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        done = (step - self.warmup_steps) / max(1, planned - self.warmup_steps)
        return self.lowest + (1 - self.lowest) * (1 + math.cos(math.pi * min(1.0, done))) / 2


class MovingAverage(Hook):
    """Score by an exponential moving average of the parameters, in training and after it (Polyak & Juditsky 1992).

    The average after step t is that of the last `decay / (1 - decay)` steps or so; early ones forget faster, by
    (1 + t) / (10 + t), so that the first parameters do not stay in it.

    Args:
        decay: how much of the average each step keeps, below 1.
    """

    def __init__(self, decay: float = 0.999) -> None:
        self.decay = checked(decay, Annotated[float, Bounds(at_least=0, below=1)], "MovingAverage decay")

    def __repr__(self) -> str:
        return f"MovingAverage(decay={self.decay})"

    def start(self, loop: Loop) -> None:
        self.average = loop.optimizer.values.clone()
        self.trained = self.average

    @torch.no_grad()
    def after_step(self, loop: Loop) -> None:
        decay = min(self.decay, (1 + loop.steps) / (10 + loop.steps))
        self.average.lerp_(loop.optimizer.values, 1 - decay)

    @torch.no_grad()
    def before_scores(self, loop: Loop) -> None:
        self.trained = loop.optimizer.values.clone()
        loop.optimizer.values.copy_(self.average)

    @torch.no_grad()
    def after_scores(self, loop: Loop) -> None:
        loop.optimizer.values.copy_(self.trained)

    def state(self) -> dict[str, Tensor]:
        return {"average": self.average}

    def resume(self, state: Mapping[str, Tensor]) -> None:
        self.average.copy_(state["average"])


class _OneGradient(Hook):
    """One gradient of all processes: sum(w l) / sum(w), both sums over all of them."""

    @torch.no_grad()
    def after_backward(self, loop: Loop) -> None:
        gradient, divisor = loop.optimizer.gradient, loop.divisor
        sums = processes.summed(torch.cat([gradient * divisor, divisor.reshape(1)]))
        # Where no process had a weight there is nothing to follow.
        gradient.copy_(sums[:-1] / sums[-1].clamp_min(torch.finfo(sums.dtype).tiny))


class ShareBatches(_OneGradient):
    """Divide the samples of each batch among the processes; the step follows the gradient of the whole batch."""

    def part(self, batch: Batch) -> Tensor:
        return processes.own_places(len(batch))

    def whole(self, losses: Tensor, samples: int) -> Tensor:
        found = losses.new_zeros(samples)
        own = processes.own_places(samples).to(losses.device)
        found[own] = losses[: len(own)]
        return processes.summed(found)


class AllReduce(_OneGradient):
    """Train in several processes, each with a part of the samples, as one process with all of them would.

    Needs an initialised `torch.distributed`, as under torchrun. Start the detector on the same samples in every
    process, so that all have the same statistics, and let each `learn` its part. A step follows the gradient of the
    weighted mean over all processes: sum(w l) / sum(w), both sums over all of them. Weights are made from the scores of
    all (and from all samples, shrunk, where a step of the weighting looks for neighbours), and base weights keep their
    proportions. The processes need as many batches each; held-out normals, where
    training stops early, are to be the same in all.

        fit.start(detector, everything, training)
        fit.learn(detector, part, weighting, training, hooks=[AllReduce()])
    """

    def __init__(self) -> None:
        if not (distributed.is_available() and distributed.is_initialized()):
            raise InputError(
                "AllReduce needs processes that know each other",
                "run under torchrun, and call torch.distributed.init_process_group first",
            )

    def start(self, loop: Loop) -> None:
        if loop.training.resample:
            raise InputError("each process would draw by the weights of its own part", "leave resample out")
        state = [value.double().sum().cpu() for value in loop.detector.state_dict().values()]
        each = processes.of_each(torch.stack([torch.tensor(float(loop.planned_steps), dtype=torch.float64), *state]))
        if bool((each[:, 0] != each[0, 0]).any()):
            raise InputError(
                f"the processes do not take as many steps each: {', '.join(f'{n:.0f}' for n in each[:, 0].tolist())}",
                "give each as many batches",
            )
        if not torch.equal(each, each[:1].expand_as(each)):
            raise InputError(
                "the processes begin with different detectors",
                "start it on the same samples in all of them, and then let each learn its part",
            )

    def gather(self, values: Tensor) -> Tensor:
        mine = len(values)
        counts = [int(count) for count in processes.of_each(torch.tensor([float(mine)], dtype=torch.float64))[:, 0]]
        first = sum(counts[: distributed.get_rank()])
        self.place = slice(first, first + mine)
        whole = values.new_zeros(sum(counts), *values.shape[1:])
        whole[self.place] = values
        return processes.summed(whole)

    def share(self, values: Tensor) -> Tensor:
        return values[self.place].clone()

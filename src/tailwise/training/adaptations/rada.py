"""RADA: robust alignment of a target's parts with a run's normal parts, by optimal transport made discrete.

After Liao et al. (arXiv 2503.14910), of which no code is public and whose equations we could not read: what is beyond
"Sinkhorn, then a discrete assignment, so that anomalous patches pull on nothing" is ours; see docs/methods/rada.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import torch
from torch import Tensor

from ...core.bounds import Bounds, Count, Positive
from ...core.detector import Detector
from ...core.registry import Value, register
from .. import adapt

# As many parts of the target a step, and of the normals in all.
_PARTS, _PROTOTYPES = 600, 300
_ENTROPY, _ROUNDS = 0.05, 40
# How many samples' parts a step is drawn from.
_BATCH = 8
# What `partial` transports of either side.
_TRANSPORTED = 0.8
# Of the target so much is like a normal, by its scores: anomalies inflate a deviation (LOG.md has other shares).
_NORMAL_LOOKING = 0.7
# Costs of so many draws are averaged where they are compared.
_DRAWS = 4
_FORBIDDEN = 1e3
# So many pictures of the target weigh as much as the old ones.
_PICTURES_OF_SOURCE = 16


@register("adaptation", "RADA")
@dataclass(frozen=True, repr=False)
class RADA(Value):
    """The target's parts moved to where the run's normal parts lie, by a scale and a shift a channel.

    Which part belongs to which comes from entropic optimal transport, made discrete. It stops where the old normals
    themselves lie no nearer. Pictures are aligned as feature maps, before anything of the run reads them.

    Args:
        assignment: "prototype": each normal part pulls the target part that sends it most, so that anomalous ones,
            which nothing picks, pull on nothing; "mutual": pairs that send each other most; "partial": transport of
            four fifths; "plain": the transport itself.
        steps: of Adam, at most.
        rate: how far a step goes, in standard deviations of a channel; half of it for norms, one after another.
        parameters: what is moved: "maps": each channel of the samples; "norm": of the network that makes samples of
            pictures the batch norms' gamma and beta, as in the paper.
        statistics: of these batch norms: "source": as they are; "target": so that they give the target's pictures the
            means and deviations that they give the pictures that the run keeps; "mixed": so that they do of the mean of
            both, in which n pictures of the target have the weight n / (n + 16).
        start: how a channel starts: "moments": the seven tenths of the target that score lowest get the mean and the
            deviation of the old normals; "source": as it is, from where it takes some 60 steps of 0.005. Norms start as
            they are.
    """

    assignment: Literal["prototype", "mutual", "partial", "plain"] = "prototype"
    steps: Count = 30
    rate: Annotated[float, Bounds(above=0, at_most=1)] = 0.001
    parameters: Literal["maps", "norm"] = "maps"
    statistics: Literal["source", "target", "mixed"] = "source"
    start: Literal["source", "moments"] = "moments"

    def adapt(self, asked: adapt.Asked) -> adapt.Adapted:
        name = type(self).__name__
        adapt.check_alone(asked, name)
        normal, parts = adapt.compared(asked, name)
        seen = None if self._leaves_network else adapt.pictured(asked, name)
        if vetoed := adapt.nothing_to_gain(asked):
            return vetoed
        normal, others = _divided(normal, asked.generator)
        floor = _usual_cost(asked, normal, others, parts)
        if seen is not None:
            seen = _with_statistics(seen, self.statistics)
            asked = adapt.made_by(asked, seen)
        moving: _Channels | _Norms = _Channels(asked, seen, self.start)
        if seen is not None and self.parameters == "norm":
            moving = _Norms(seen)
        figures = _learn(self, moving, asked, (normal, parts), floor)
        detector, seen = moving.made(asked.detector)
        return adapt.accepted(asked, detector, figures, seen)

    def wrap(self, detector: Detector) -> Detector:
        return detector if self.parameters == "norm" else adapt.Realigned(detector)

    @property
    def _leaves_network(self) -> bool:
        return self.parameters == "maps" and self.statistics == "source"


def _with_statistics(seen: adapt.Pictured, statistics: str) -> adapt.Pictured:
    """The pictures by a network with these statistics of its batch norms."""
    if statistics == "source":
        return seen
    return seen.with_statistics(1.0 if statistics == "target" else len(seen) / (len(seen) + _PICTURES_OF_SOURCE))


def _learn(
    method: RADA,
    moving: _Channels | _Norms,
    asked: adapt.Asked,
    compared: tuple[Tensor, Callable[[Tensor], Tensor]],
    floor: float,
) -> dict[str, float]:
    """Move the target until its parts lie as near to the normal parts as `floor`; figures of it."""
    normal, parts = compared
    steps = torch.optim.Adam(moving.parameters, lr=method.rate * moving.slower)
    costs: list[float] = []
    for _ in range(method.steps):
        index = torch.randperm(len(asked.target), generator=asked.generator)[: _batch(asked)]
        found = _some(parts(moving.samples(index)).flatten(0, 1), _PARTS, asked.generator)
        cost = torch.cdist(found, normal)
        loss = (assigned(cost.detach(), method.assignment) * cost).sum()
        costs.append(float(loss.detach()))
        if sum(costs[-_DRAWS:]) / len(costs[-_DRAWS:]) <= floor:
            break
        steps.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        steps.step()
    first, last = (sum(each) / len(each) for each in (costs[:_DRAWS], costs[-_DRAWS:]))
    return {"cost_before": first, "cost_after": last, "cost_usual": floor, "steps": float(len(costs))}


class _Channels:
    """One scale and one shift a channel of a target's samples."""

    slower = 1.0

    def __init__(self, asked: adapt.Asked, seen: adapt.Pictured | None, start: str) -> None:
        self.target, self.seen = asked.target, seen
        part = asked.lowest(_NORMAL_LOOKING) if start == "moments" else np.arange(len(asked.target))
        self.mean, self.spread = adapt.by_channel(asked.target.read(torch.from_numpy(part)))
        self.stretch, self.shift = torch.ones_like(self.mean), torch.zeros_like(self.mean)
        if start == "moments":
            mean, spread = adapt.by_channel(adapt.source_samples(asked, "RADA"))
            self.stretch, self.shift = spread / self.spread, (mean - self.mean) / self.spread
        self.parameters = [self.stretch.requires_grad_(), self.shift.requires_grad_()]

    def samples(self, index: Tensor) -> Tensor:
        return adapt.moved(self.target.read(index), *self._of_original())

    @torch.no_grad()
    def made(self, detector: Detector) -> tuple[Detector, adapt.Pictured | None]:
        """The adapted detector, and the pictures by the network that makes samples of them from now on."""
        return adapt.Realigned.around(detector, *self._of_original()), self.seen

    def _of_original(self) -> tuple[Tensor, Tensor]:
        """Scale and shift of samples, from those of samples in deviations from their mean."""
        return self.stretch, self.mean + self.spread * self.shift - self.stretch * self.mean


class _Norms:
    """Gamma and beta of the batch norms of the network that makes samples of a target's pictures."""

    slower = 0.5

    def __init__(self, seen: adapt.Pictured) -> None:
        self.moving = seen.moving()
        self.parameters = list(self.moving.parameters())

    def samples(self, index: Tensor) -> Tensor:
        return self.moving.samples(index)

    def made(self, detector: Detector) -> tuple[Detector, adapt.Pictured | None]:
        """The detector as it is, and the pictures by the network that makes samples of them from now on."""
        return detector, self.moving.fixed()


@register("adaptation", "Sinkhorn")
@dataclass(frozen=True, repr=False)
class Sinkhorn(Value):
    """RADA without its discrete assignment: whatever the transport sends pulls, anomalies too.

    Args:
        steps: of Adam, at most.
        rate: how far a step goes, in standard deviations of a channel.
    """

    steps: Count = 60
    rate: Positive = 0.005

    def adapt(self, asked: adapt.Asked) -> adapt.Adapted:
        return RADA("plain", self.steps, self.rate, start="source").adapt(asked)

    def wrap(self, detector: Detector) -> Detector:
        return adapt.Realigned(detector)


def _batch(asked: adapt.Asked) -> int:
    """How many samples give a step's parts: a few pictures, many rows."""
    return _BATCH if asked.target.modality.spatial else _PARTS


def _some(parts: Tensor, most: int, generator: torch.Generator) -> Tensor:
    """At most so many of the parts [m, d], drawn."""
    return parts if len(parts) <= most else parts[torch.randperm(len(parts), generator=generator)[:most]]


def _divided(normal: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Normal parts [m, d] to align with, at most half of all, and the others."""
    order = torch.randperm(len(normal), generator=generator)
    most = max(1, min(_PROTOTYPES, len(normal) // 2))
    return normal[order[:most]], normal[order[most:]]


@torch.no_grad()
def _usual_cost(asked: adapt.Asked, normal: Tensor, others: Tensor, parts: Callable[[Tensor], Tensor]) -> float:
    """The mean matched cost of old normals: of the other parts, where these are all or a fair draw of all; else of the
    samples that the run keeps; 0 where it keeps none."""
    known = asked.source.samples
    if known is None:
        return 0.0
    found = []
    for _ in range(_DRAWS):
        if asked.source.complete:
            some = _some(others, min(_PARTS, len(asked.target)), asked.generator)
        else:
            index = torch.randperm(len(known), generator=asked.generator)[: _batch(asked)]
            some = _some(parts(known[index].float()).flatten(0, 1), _PARTS, asked.generator)
        cost = torch.cdist(some, normal)
        found.append(float((assigned(cost, "prototype") * cost).sum()))
    return sum(found) / len(found)


def assigned(cost: Tensor, rule: str) -> Tensor:
    """[n, m] weights of sum 1 of pairs of target parts [n] and normal parts [m] at these distances."""
    if rule == "partial":
        return _partial(cost)
    plan = transport(cost / cost.mean().clamp_min(1e-12))
    if rule == "plain":
        return plan
    sender = plan.argmax(0)  # [m]
    chosen = torch.zeros_like(plan)
    chosen[sender, torch.arange(plan.shape[1], device=plan.device)] = 1
    if rule == "mutual":
        mutual = torch.zeros_like(plan)
        mutual[torch.arange(len(plan), device=plan.device), plan.argmax(1)] = 1
        chosen = chosen * mutual
    return chosen / chosen.sum().clamp_min(1)


def transport(cost: Tensor, rows: Tensor | None = None, columns: Tensor | None = None) -> Tensor:
    """The entropic optimal plan [n, m] for a cost, by Sinkhorn's iteration of logarithms (Cuturi 2013).

    Args:
        rows, columns: what is sent from [n] and to [m]; alike by default.
    """
    n, m = cost.shape
    a = cost.new_full((n,), 1 / n) if rows is None else rows
    b = cost.new_full((m,), 1 / m) if columns is None else columns
    kernel = -cost / _ENTROPY
    f, g = torch.zeros_like(a), torch.zeros_like(b)
    for _ in range(_ROUNDS):
        f = a.log() - torch.logsumexp(kernel + g, 1)
        g = b.log() - torch.logsumexp(kernel + f[:, None], 0)
    return (kernel + f[:, None] + g).exp()


def _partial(cost: Tensor) -> Tensor:
    """The plan that sends only a part: what is left goes to and comes from a place that costs nothing (Chapel et al.
    2020)."""
    n, m = cost.shape
    extended = torch.nn.functional.pad(cost / cost.mean().clamp_min(1e-12), (0, 1, 0, 1))
    extended[-1, -1] = _FORBIDDEN
    left = cost.new_tensor([1 - _TRANSPORTED])
    plan = transport(
        extended, torch.cat([cost.new_full((n,), 1 / n), left]), torch.cat([cost.new_full((m,), 1 / m), left])
    )
    return plan[:-1, :-1] / plan[:-1, :-1].sum().clamp_min(1e-12)

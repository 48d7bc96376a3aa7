"""RADA: robust alignment of a target's parts with a run's normal parts, by optimal transport made discrete.

After Liao et al. (arXiv 2503.14910), of which no code is public and whose equations we could not read: what is beyond
"Sinkhorn, then a discrete assignment, so that anomalous patches pull on nothing" is ours; see docs/methods/rada.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal

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
# Costs of so many draws are averaged where they are compared.
_DRAWS = 4
_FORBIDDEN = 1e3


@register("adaptation", "RADA")
@dataclass(frozen=True, repr=False)
class RADA(Value):
    """One scale and one shift a channel, learnt so that parts of the target lie where the run's normal parts lie.

    Which part belongs to which comes from entropic optimal transport, made discrete. It stops where the old normals
    themselves lie no nearer. Pictures are aligned as feature maps, before anything of the run reads them.

    Args:
        assignment: "prototype": each normal part pulls the target part that sends it most, so that anomalous ones,
            which nothing picks, pull on nothing; "mutual": pairs that send each other most; "partial": transport of
            four fifths; "plain": the transport itself.
        steps: of Adam, at most.
        rate: how far a step goes, in standard deviations of a channel.
    """

    assignment: Literal["prototype", "mutual", "partial", "plain"] = "prototype"
    steps: Count = 60
    rate: Annotated[float, Bounds(above=0, at_most=1)] = 0.005

    def adapt(self, asked: adapt.Asked) -> adapt.Adapted:
        name = type(self).__name__
        adapt.check_alone(asked, name)
        normal, parts = adapt.compared(asked, name)
        if vetoed := adapt.nothing_to_gain(asked):
            return vetoed
        normal, others = _divided(normal, asked.generator)
        floor = _usual_cost(asked, normal, others, parts)
        mean, spread = adapt.by_channel(asked.target.read(torch.arange(len(asked.target))))
        stretch, shift = torch.ones_like(mean).requires_grad_(), torch.zeros_like(mean).requires_grad_()
        steps = torch.optim.Adam([stretch, shift], lr=self.rate)
        costs: list[float] = []
        for _ in range(self.steps):
            index = torch.randperm(len(asked.target), generator=asked.generator)[: _batch(asked)]
            aligned = adapt.moved(asked.target.read(index), *_of_original(stretch, shift, mean, spread))
            found = _some(parts(aligned).flatten(0, 1), _PARTS, asked.generator)
            cost = torch.cdist(found, normal)
            loss = (assigned(cost.detach(), self.assignment) * cost).sum()
            costs.append(float(loss.detach()))
            if sum(costs[-_DRAWS:]) / len(costs[-_DRAWS:]) <= floor:
                break
            steps.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            steps.step()
        first, last = (sum(each) / len(each) for each in (costs[:_DRAWS], costs[-_DRAWS:]))
        figures = {"cost_before": first, "cost_after": last, "cost_usual": floor, "steps": float(len(costs))}
        with torch.no_grad():
            made = adapt.Realigned.around(asked.detector, *_of_original(stretch, shift, mean, spread))
        return adapt.accepted(asked, made, figures)

    def wrap(self, detector: Detector) -> Detector:
        return adapt.Realigned(detector)


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
        return RADA("plain", self.steps, self.rate).adapt(asked)

    def wrap(self, detector: Detector) -> Detector:
        return adapt.Realigned(detector)


def _of_original(stretch: Tensor, shift: Tensor, mean: Tensor, spread: Tensor) -> tuple[Tensor, Tensor]:
    """Scale and shift of samples, from those of samples in deviations from their mean."""
    return stretch, mean + spread * shift - stretch * mean


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

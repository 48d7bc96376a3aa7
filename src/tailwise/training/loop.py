"""The one training loop: epochs, weights from the newest scores, early stopping, resuming."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from ..core import embedding, inference
from ..core.data import Data
from ..core.detector import Detector
from ..errors import InputError
from ..weights.weighting import Context, Weighting, _refuse_negative, effective_sample_size, unit_mean, weighted_mean
from .checks import Check
from .optimizer import FlatAdam


class Keeper(Protocol):
    """Keeps the state of an unfinished fit (storage.Checkpoint)."""

    def load(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None: ...

    def save(self, tensors: Mapping[str, Tensor], facts: dict[str, Any]) -> None: ...


@dataclass(eq=False)
class Outcome:
    """What a fit leaves besides the trained detector. All over the training samples [n], higher score more anomalous.

    `first_scores` are by the same detector before any weight differed from the base weights; so many epochs were
    `unweighted_epochs`, None being all.
    """

    scores: Tensor
    first_scores: Tensor
    weights: Tensor
    history: list[dict[str, float]]
    checks: list[Check] = field(default_factory=list)
    unweighted_epochs: int | None = None


@dataclass(frozen=True)
class Plan:
    """The numbers of one training loop."""

    epochs: int
    batch_size: int
    lr: float
    weight_decay: float
    warmup: int
    seed: int
    resample: bool
    patience: int | None
    full_reference: bool
    mixed_precision: bool


class Loop:
    """Training by epochs, resumable at every epoch's end: all that changes is in `tensors` and `facts`."""

    def __init__(
        self,
        detector: Detector,
        data: Data,
        weighting: Weighting,
        base: Tensor,
        plan: Plan,
        held_out: Data | None,
        keeper: Keeper | None,
        progress: Callable[[int, int, dict[str, float]], None] | None,
    ) -> None:
        self.detector: Any = detector  # a Detector and a Trainable; types cannot say both
        self.data, self.weighting, self.base, self.plan = data, weighting, base, plan
        self.held_out, self.keeper, self.progress = held_out, keeper, progress
        detector.planned_steps = plan.epochs * math.ceil(len(data) / plan.batch_size)
        detector.prepare(data, base)
        self.device = next(detector.parameters()).device
        self.optimizer = FlatAdam(detector, plan.lr, plan.weight_decay)
        self._weigh(base.clone())
        self.scores = torch.zeros(len(data))
        self.first_scores = torch.zeros(len(data))
        self.best: dict[str, Tensor] = {}
        self.history: list[dict[str, float]] = []
        self.cache: dict[Any, Tensor] = {}
        self.embedding = embedding.embedding_of(data) if weighting.needs_embedding else None

    def run(self) -> Outcome:
        self._resume()
        self.detector.train()
        while len(self.history) < self.plan.epochs and not self._out_of_patience():
            self._epoch(len(self.history))
            if self.keeper:
                self.keeper.save(*self._state())
            if self.progress:
                self.progress(len(self.history), self.plan.epochs, self.history[-1])
        self.detector.eval()
        if self.best:
            self.detector.load_state_dict(self.best)
        self.optimizer.release()
        scores = inference.score(self.detector, self.data)
        weighed = self.weighting.steps and len(self.history) >= self.plan.warmup
        outcome = Outcome(scores, self.first_scores if weighed else scores, self.weights, self.history)
        if weighed:
            outcome.unweighted_epochs = max(1, self.plan.warmup)
        return outcome

    def _weigh(self, weights: Tensor) -> None:
        self.weights = weights
        self.effective_share = effective_sample_size(weights) / len(weights)

    def _epoch(self, epoch: int) -> None:
        started = time.perf_counter()
        generator = torch.Generator().manual_seed(_mixed(self.plan.seed, epoch))
        drawn = self.weights if self.plan.resample else None
        order, seen, weights = [], [], self.weights.to(self.device)
        for batch in self.data.batches(self.plan.batch_size, generator, drawn):
            order.append(batch.index)
            batch = batch.to(self.device)
            with self._precision():
                losses = self.detector.losses(batch).float()
            mean = weighted_mean(losses, None if self.plan.resample else weights.index_select(0, batch.index))
            self.optimizer.step(mean)
            seen.append(losses.detach())
        index = torch.cat(order)
        losses = torch.cat(seen).cpu()
        if len(seen) > 1:
            mean = weighted_mean(losses, None if self.plan.resample else self.weights[index])
        loss = float(mean.detach())
        if not math.isfinite(loss):
            raise InputError(f"the loss is not finite in epoch {epoch + 1}", "lower the learning rate (lr)")
        self.scores.index_copy_(0, index, losses)
        row = {"epoch": epoch + 1, "loss": loss, "score_mean": float(losses.mean())}
        if self.held_out is not None:
            row["held_out_loss"] = self._held_out_loss()
            self._remember_best(row["held_out_loss"])
        if epoch + 1 >= self.plan.warmup:
            self._reweigh(epoch + 1 - self.plan.warmup)
        row["effective_sample_share"] = self.effective_share
        row["seconds"] = time.perf_counter() - started
        self.history.append(row)

    def _reweigh(self, round: int) -> None:
        if not self.weighting.steps:
            return
        # A sampled epoch passes some samples by, so the scores of its own steps would be stale for them.
        if self.plan.full_reference or self.plan.resample or round == 0:
            self.scores = inference.score(self.detector, self.data)
            self.detector.train()
        if round == 0:
            self.first_scores = self.scores.clone()
        previous = None if round == 0 else self.weights / self.base.clamp_min(1e-12)
        context = Context(self.scores, self.scores, self.embedding, previous, round, self.cache)
        weights = unit_mean(self.weighting(context) * self.base)
        if self.plan.resample:
            _refuse_negative(weights)
        self._weigh(weights)

    @torch.no_grad()
    def _held_out_loss(self) -> float:
        assert self.held_out is not None
        self.detector.eval()
        losses = inference.over_batches(self.detector, self.held_out, self.detector.losses)
        self.detector.train()
        return float(losses.mean())

    def _remember_best(self, loss: float) -> None:
        # Until the warm-up is over the weights have had no say, so a best state from there would undo them.
        after = [row["held_out_loss"] for row in self.history[self.plan.warmup :]]
        if len(self.history) >= self.plan.warmup and loss < min(after, default=math.inf):
            self.best = {name: value.clone() for name, value in self.detector.state_dict().items()}

    def _out_of_patience(self) -> bool:
        after = [row["held_out_loss"] for row in self.history[self.plan.warmup :] if "held_out_loss" in row]
        return (
            bool(after)
            and self.plan.patience is not None
            and len(after) - 1 - after.index(min(after)) >= self.plan.patience
        )

    def _precision(self) -> Any:
        enabled = self.plan.mixed_precision and self.device.type in ("cuda", "mps")
        return torch.autocast(self.device.type) if enabled else nullcontext()

    def _state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        tensors = {"weights": self.weights, "scores": self.scores, "first_scores": self.first_scores}
        tensors |= {f"detector.{name}": value for name, value in self.detector.state_dict().items()}
        tensors |= {f"best.{name}": value for name, value in self.best.items()}
        tensors |= {f"optimizer.{name}": value for name, value in self.optimizer.state().items()}
        return tensors, {"history": self.history}

    def _resume(self) -> None:
        kept = self.keeper.load() if self.keeper else None
        if kept is None:
            return
        tensors, facts = kept
        self.history = facts["history"]
        self._weigh(tensors["weights"])
        self.scores, self.first_scores = tensors["scores"], tensors["first_scores"]
        self.detector.load_state_dict(_below(tensors, "detector."))
        self.best = _below(tensors, "best.")
        self.optimizer.resume(_below(tensors, "optimizer."))


def _below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _mixed(seed: int, epoch: int) -> int:
    """A seed for one epoch, so that a resumed fit shuffles as an uninterrupted one."""
    return (seed * 1_000_003 + epoch) % 2**63

"""The loop over epochs: weights from the newest scores, early stopping, resuming, hooks."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from ..core import embedding, inference, messages
from ..core.data import Batch, Data
from ..core.detector import Detector, Settling
from ..errors import InputError
from ..weights.weighting import Context, Weighting, effective_sample_size, refuse_negative, weighted_mean
from .checks import Check
from .optimizer import Flat, FlatAdam
from .options import Training


class Keeper(Protocol):
    """Keeps the state of an unfinished fit (`runs.store.Checkpoint`)."""

    def load(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None: ...

    def save(self, tensors: Mapping[str, Tensor], facts: dict[str, Any]) -> None: ...


@dataclass(eq=False)
class Outcome:
    """What a fit leaves besides the trained detector. All over the training samples [n], higher score more anomalous.

    `first_scores` are by the same detector before any weight differed from the base weights; so many epochs were
    `unweighted_epochs`, None being all. `continues` says that the detector had learnt before.
    """

    scores: Tensor
    first_scores: Tensor
    weights: Tensor
    history: list[dict[str, float]]
    checks: list[Check] = field(default_factory=list)
    unweighted_epochs: int | None = None
    continues: bool = False


class Hook:
    """What happens around the steps of a training loop; by default nothing. `hooks` has some.

    The loop gives `detector`, `optimizer` (`values`, `gradient`, `lr`), `training`, the `history` of its epochs, how
    many steps are done (`steps`) and planned (`planned_steps`), and `divisor`, by which the newest mean of losses was
    divided.

        >>> class Halved(Hook):
        ...     def after_backward(self, loop):
        ...         loop.optimizer.gradient /= 2
    """

    def start(self, loop: Loop) -> None:
        """Before the first step, or the first one after an interruption."""

    def before_step(self, loop: Loop) -> None:
        """Before the losses of a batch: the place to set `loop.optimizer.lr`."""

    def after_backward(self, loop: Loop) -> None:
        """Between the gradient and the step: the place to change or reduce `loop.optimizer.gradient`."""

    def after_step(self, loop: Loop) -> None:
        """Once the parameters have moved."""

    def after_epoch(self, loop: Loop) -> None:
        """Once the epoch's row is in the history."""

    def before_scores(self, loop: Loop) -> None:
        """Before the detector is asked for scores, between epochs and at the end, where no step follows."""

    def after_scores(self, loop: Loop) -> None:
        """Before steps go on."""

    def part(self, batch: Batch) -> Tensor | None:
        """Which of a batch's samples [m] this process computes the losses of; None is all."""
        return None

    def whole(self, losses: Tensor, samples: int) -> Tensor:
        """Of the losses [m] of this process's part, those of all samples of the batch [samples]."""
        return losses

    def gather(self, values: Tensor) -> Tensor:
        """Of the values [n, ...] of this process's samples, those of all processes [m, ...]."""
        return values

    def share(self, values: Tensor) -> Tensor:
        """Of the values [m, ...] of all processes, those of this one's samples [n, ...]."""
        return values

    def state(self) -> dict[str, Tensor]:
        """What an interrupted training needs again."""
        return {}

    def resume(self, state: Mapping[str, Tensor]) -> None:
        """Go on with the `state` of an interrupted training; called after `start`."""


Progress = Callable[[int, int, dict[str, float]], None]
MakeOptimizer = Callable[[Detector, float, float], Flat]


@dataclass(frozen=True, eq=False)
class Task:
    """What a training is given besides the detector and its samples; see `fit.fit`."""

    weighting: Weighting
    training: Training
    seed: int
    base: Tensor
    held_out: Data | None = None
    keeper: Keeper | None = None
    progress: Progress | None = None
    optimizer: MakeOptimizer = FlatAdam
    hooks: Sequence[Hook] = ()

    def gather(self, values: Tensor) -> Tensor:
        """The values of all processes; see `Hook.gather`."""
        for hook in self.hooks:
            values = hook.gather(values)
        return values

    def part(self, batch: Batch, w: Tensor | None) -> tuple[Batch, Tensor | None]:
        """What this process computes of a batch and its weights; see `Hook.part`."""
        for hook in self.hooks:
            places = hook.part(batch)
            if places is not None:
                batch, w = _of_places(batch, w, places.to(batch.index.device))
        return batch, w

    def whole(self, losses: Tensor, samples: int) -> Tensor:
        """The losses of the whole batch; see `Hook.whole`."""
        for hook in reversed(self.hooks):
            losses = hook.whole(losses, samples)
        return losses

    def share(self, values: Tensor) -> Tensor:
        """Those of this process; see `Hook.share`."""
        for hook in reversed(self.hooks):
            values = hook.share(values)
        return values


class Loop:
    """Training by epochs, resumable at every epoch's end: all that changes is in `tensors` and `facts`.

    `continues` says that the detector has learnt before, so that its scores already mean something.
    """

    def __init__(self, detector: Detector, data: Data, task: Task, continues: bool = False) -> None:
        self.detector: Any = detector  # a Detector and a Trainable; types cannot say both
        self.data, self.task, self.continues = data, task, continues
        self.training, self.weighting, self.hooks = task.training, task.weighting, tuple(task.hooks)
        self.epochs = self.training.epochs_for(len(data))
        usual_warmup = 0 if continues else self.epochs // 3
        warmup = usual_warmup if self.training.warmup is None else self.training.warmup
        # Scores of a network that has made no step say nothing, so weights come after the first epoch at the earliest.
        self.warmup = warmup if continues else max(1, warmup)
        if self.weighting.steps and self.epochs <= self.warmup:
            messages.note(f"weights have no say in this training: warmup {self.warmup} of {self.epochs} epochs")
        self.steps, self.planned_steps = 0, self.training.steps_for(len(data))
        detector.planned_steps = self.planned_steps
        self.device = next(detector.parameters()).device
        self.optimizer = task.optimizer(detector, self.training.learning_rate, self.training.weight_decay)
        self._weigh(task.base.clone())
        self.scores = torch.zeros(len(data))
        self.first_scores = torch.zeros(len(data))
        self.best: dict[str, Tensor] = {}
        self.history: list[dict[str, float]] = []
        self.cache: dict[Any, Any] = {}
        self.embedding = self._embedding() if self.weighting.needs_embedding else None

    def _embedding(self) -> Tensor:
        return embedding.embedding_of(self.data, gather=self.task.gather, base=self.task.gather(self.task.base))

    def run(self) -> Outcome:
        for hook in self.hooks:
            hook.start(self)
        self._resume()
        self.detector.train()
        if self.continues and not self.warmup and not self.history:
            self._reweigh(0)
        while len(self.history) < self.epochs and not self._out_of_patience():
            self._epoch(len(self.history))
            for hook in self.hooks:
                hook.after_epoch(self)
            if self.task.keeper:
                self.task.keeper.save(*self._state())
            if self.task.progress:
                self.task.progress(len(self.history), self.epochs, self.history[-1])
        self.detector.eval()
        for hook in self.hooks:
            hook.before_scores(self)
        if self.best:
            self.detector.load_state_dict(self.best)
        self.optimizer.release()
        return self._outcome()

    @property
    def divisor(self) -> Tensor:
        """By what the newest mean of losses was divided: the sum of its weights, or their number."""
        if self.step_weights is None:
            return torch.tensor(float(self.step_samples), device=self.device)
        return self.step_weights.abs().sum()

    def _outcome(self) -> Outcome:
        scores = self._score()
        weighed = self.weighting.steps and len(self.history) >= self.warmup
        outcome = Outcome(scores, self.first_scores if weighed else scores, self.weights, self.history)
        outcome.continues = self.continues
        if weighed:
            outcome.unweighted_epochs = max(1, self.warmup)
        return outcome

    def _weigh(self, weights: Tensor) -> None:
        self.weights = weights
        self.effective_share = effective_sample_size(weights) / len(weights)

    def _epoch(self, epoch: int) -> None:
        started = time.perf_counter()
        generator = torch.Generator().manual_seed(_mixed(self.task.seed, epoch))
        drawn = self.weights if self.training.resample else None
        order, seen, weights = [], [], self.weights.to(self.device)
        for batch in self.data.batches(self.training.samples_in_step, generator, drawn):
            order.append(batch.index)
            batch = batch.to(self.device)
            seen.append(self._step(batch, None if self.training.resample else weights.index_select(0, batch.index)))
        index = torch.cat(order)
        losses = torch.cat(seen).cpu()
        loss = float(weighted_mean(losses, None if self.training.resample else self.weights[index]))
        if not math.isfinite(loss):
            raise InputError(f"the loss is not finite in epoch {epoch + 1}", "lower the learning rate (lr)")
        self.scores.index_copy_(0, index, losses)
        row = {"epoch": epoch + 1, "loss": loss, "score_mean": float(losses.mean())}
        if self.task.held_out is not None:
            with self._scoring():
                row["held_out_loss"] = float(weighted_mean(self._losses(self.task.held_out)))
                self._remember_best(row["held_out_loss"])
        if epoch + 1 >= self.warmup:
            self._reweigh(epoch + 1 - self.warmup)
        row["effective_sample_share"] = self.effective_share
        row["seconds"] = time.perf_counter() - started
        self.history.append(row)

    def _step(self, batch: Batch, w: Tensor | None) -> Tensor:
        """Follow the gradient of one batch's weighted mean; its losses [sample]."""
        for hook in self.hooks:
            hook.before_step(self)
        samples = len(batch)
        batch, w = self.task.part(batch, w)
        with self._precision():
            losses: Tensor = self.detector.losses(batch).float()
        self.step_weights, self.step_samples = w, len(batch)
        self.optimizer.backward(weighted_mean(losses, w))
        for hook in self.hooks:
            hook.after_backward(self)
        self.optimizer.step()
        self.steps += 1
        for hook in self.hooks:
            hook.after_step(self)
        return self.task.whole(losses.detach(), samples)

    def _reweigh(self, round: int) -> None:
        if not self.weighting.steps:
            return
        # A sampled epoch passes some samples by, so the scores of its own steps would be stale for them.
        full = self.training.reference == "full" or not self.detector.loss_is_score
        if full or self.training.resample or round == 0:
            with self._scoring():
                self.scores = self._losses(self.data) if self.detector.weighed_by_loss else self._score()
            self.detector.train()
        if round == 0:
            self.first_scores = self._first_scores()
        gather = self.task.gather
        base, scores = gather(self.task.base), gather(self.scores)
        previous = None if round == 0 else gather(self.weights) / base.clamp_min(1e-12)
        context = Context(scores, scores, self.embedding, previous, round, self.cache)
        weights = self.task.share(self.weighting.times(base, context))
        if self.training.resample:
            refuse_negative(weights)
        self._weigh(weights)

    def _score(self) -> Tensor:
        """Scores of the training samples [n]; what they need is measured first."""
        if isinstance(self.detector, Settling):
            self.detector.settle(self.data, self.task.base)
        return inference.score(self.detector, self.data)

    def _first_scores(self) -> Tensor:
        if not self.detector.weighed_by_loss:
            return self.scores.clone()
        with self._scoring():
            scores = self._score()
        self.detector.train()
        return scores

    @contextmanager
    def _scoring(self) -> Iterator[None]:
        for hook in self.hooks:
            hook.before_scores(self)
        yield
        for hook in self.hooks:
            hook.after_scores(self)

    def _losses(self, data: Data) -> Tensor:
        """Losses [n] in evaluation mode."""
        return inference.over_batches(self.detector, data, self.detector.losses)

    def _remember_best(self, loss: float) -> None:
        # Until the warm-up is over the weights have had no say, so a best state from there would undo them.
        after = [row["held_out_loss"] for row in self.history[self.warmup :]]
        if len(self.history) >= self.warmup and loss < min(after, default=math.inf):
            self.best = {name: value.clone() for name, value in self.detector.state_dict().items()}

    def _out_of_patience(self) -> bool:
        after = [row["held_out_loss"] for row in self.history[self.warmup :] if "held_out_loss" in row]
        return (
            bool(after)
            and self.training.patience is not None
            and len(after) - 1 - after.index(min(after)) >= self.training.patience
        )

    def _precision(self) -> Any:
        if not self.training.mixed_precision or self.device.type not in ("cuda", "mps"):
            return nullcontext()
        # Small gradients vanish in float16 unless they are scaled; bfloat16 has the range of float32.
        wide = self.device.type == "cuda" and torch.cuda.is_bf16_supported()
        return torch.autocast(self.device.type, torch.bfloat16 if wide else torch.float16)

    def _state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        tensors = {"weights": self.weights, "scores": self.scores, "first_scores": self.first_scores}
        tensors |= {f"detector.{name}": value for name, value in self.detector.state_dict().items()}
        tensors |= {f"best.{name}": value for name, value in self.best.items()}
        tensors |= {f"optimizer.{name}": value for name, value in self.optimizer.state().items()}
        for number, hook in enumerate(self.hooks):
            tensors |= {f"hook {number}.{name}": value for name, value in hook.state().items()}
        return tensors, {"history": self.history}

    def _resume(self) -> None:
        kept = self.task.keeper.load() if self.task.keeper else None
        if kept is None:
            return
        tensors, facts = kept
        self.history = facts["history"]
        self._weigh(tensors["weights"])
        self.scores, self.first_scores = tensors["scores"], tensors["first_scores"]
        self.detector.load_state_dict(_below(tensors, "detector."))
        self.best = _below(tensors, "best.")
        self.optimizer.resume(_below(tensors, "optimizer."))
        for number, hook in enumerate(self.hooks):
            hook.resume(_below(tensors, f"hook {number}."))
        self.steps = len(self.history) * math.ceil(len(self.data) / self.training.samples_in_step)


def _of_places(batch: Batch, w: Tensor | None, places: Tensor) -> tuple[Batch, Tensor | None]:
    """The samples at these places of a batch, and their weights; where there are none one sample that weighs nothing,
    because a network needs one."""
    if not len(places):
        return _of_places(batch, w, places.new_zeros(1))[0], batch.samples.new_zeros(1)
    context = None if batch.context is None else batch.context.take(places.cpu())
    part = Batch(batch.samples.index_select(0, places), batch.index.index_select(0, places), context)
    return part, None if w is None else w.index_select(0, places)


def _below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _mixed(seed: int, epoch: int) -> int:
    """A seed for one epoch, so that a resumed fit shuffles as an uninterrupted one."""
    return (seed * 1_000_003 + epoch) % 2**63

"""The one training loop: it alone knows both detectors and weights, and knows detectors only by their protocols.

A Trainable learns epoch by epoch. After a warm-up with all weights 1 (the scores of an untrained network mean
nothing) every epoch ends with new weights from the units' newest scores. A Solvable is solved with weights 1, scored,
and solved again with the weights that its scores give, several times where weights accumulate. A Divisible has the
detector of its parts trained in one of these ways, on the parts.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from . import scoring
from .checks import Check, run_checks
from .detector import Detector, Divisible, Solvable, Supervised, Trainable
from .errors import InputError
from .optimizer import FlatAdam
from .problem import Data, Labelled, check_units
from .weights import Context, Weighting, effective_sample_size, unit_mean, weighted_mean

# Small sets take few steps in an epoch; these bound the epochs chosen when the user names none.
_STEPS_WANTED = 1_500
_EPOCHS = (30, 300)
# A weighting that accumulates settles over rounds; a solution is cheap, but not free.
_SOLUTIONS = 5


class Keeper(Protocol):
    """Keeps the state of an unfinished fit (storage.Checkpoint)."""

    def load(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None: ...

    def save(self, tensors: Mapping[str, Tensor], facts: dict[str, Any]) -> None: ...


@dataclass(eq=False)
class Outcome:
    """What a fit leaves besides the trained detector. All over the training units [n], higher score more anomalous.

    `first_scores` are by the same detector before any weight differed from the base weights; so many epochs were
    `unweighted_epochs`, None being all.
    """

    scores: Tensor
    first_scores: Tensor
    weights: Tensor
    history: list[dict[str, float]]
    checks: list[Check] = field(default_factory=list)
    unweighted_epochs: int | None = None


def fit(
    detector: Detector,
    data: Data,
    weighting: Weighting = Weighting(),  # noqa: B008 (a frozen value)
    *,
    epochs: int | None = None,
    batch_size: int = 256,
    lr: float = 1e-3,
    weight_decay: float = 1e-6,
    warmup: int | None = None,
    reference: str = "newest",
    sample: bool = False,
    base_weights: Tensor | None = None,
    anomalies: Labelled | None = None,
    held_out: Data | None = None,
    patience: int | None = None,
    seed: int = 0,
    device: str = "cpu",
    mixed_precision: bool = False,
    threads: int | None = 1,
    keeper: Keeper | None = None,
    progress: Callable[[int, int, dict[str, float]], None] | None = None,
) -> Outcome:
    """Train `detector` in place on the units of `data`, weighed by `weighting`.

    Args:
        batch_size: how many units a step sees; of a detector of parts, how many parts.
        epochs: passes over the data; None takes about 1,500 steps, within 30 to 300 epochs.
        lr, weight_decay: of Adam.
        warmup: epochs with base weights only; None is a third of the epochs.
        reference: "newest" weighs by the scores that the epoch's own steps gave (free), "full" by a pass after each
            epoch.
        sample: draw units in proportion to their weights instead of weighing the loss.
        base_weights: [n] weights known beforehand, such as balanced groups; every weight is multiplied by them.
        anomalies: a few known ones, for a detector that needs them; the only labels that training ever sees.
        held_out: normals that are not trained on, for early stopping: after `patience` epochs without a lower mean
            loss on them the best state is restored. Both or neither.
        threads: CPU threads during the fit; 1 is fastest for small networks; None leaves the setting alone.
        keeper: where an interrupted fit is kept and resumed from.
        progress: called with (epochs done, epochs, newest history row).

    Raises:
        InputError: the detector cannot take these units, an option is off, or the loss stopped being finite.
    """
    if (held_out is None) != (patience is None):
        raise InputError("early stopping takes both held_out normals and patience")
    if reference not in ("newest", "full"):
        raise InputError(f"reference must be 'newest' or 'full': got {reference!r}")
    if detector.needs_labels and anomalies is None:
        raise InputError(
            f"{type(detector).__name__} needs a few labelled anomalies", "name them by --anomalies, or anomalies="
        )
    if anomalies is not None and not isinstance(detector, Supervised):
        raise InputError(
            f"{type(detector).__name__} does not learn from labelled anomalies",
            "use dev-net or multi-cue, or name none",
        )
    if detector.needs_layout and weighting.steps:
        raise InputError(
            f"{type(detector).__name__} compares each pixel with those around it: it cannot be weighed", 'weighting=""'
        )
    base = unit_mean(torch.ones(len(data)) if base_weights is None else base_weights.float().cpu())
    with _threads(threads), _seeded(seed):
        detector.start(data.unit_shape)
        scoring.place(detector, device)
        if anomalies is not None and isinstance(detector, Supervised):
            _check_anomalies(anomalies, data)
            detector.know(anomalies)
        if isinstance(detector, Divisible):
            generator = torch.Generator().manual_seed(seed)
            parts, owner = detector.divide(data, generator)
            learnt = fit(
                detector.detector, parts, weighting, epochs=epochs, batch_size=batch_size, lr=lr,
                weight_decay=weight_decay, warmup=warmup, reference=reference, sample=sample, base_weights=base[owner],
                held_out=None if held_out is None else detector.divide(held_out, generator)[0], patience=patience,
                seed=seed, device=device, mixed_precision=mixed_precision, threads=threads, keeper=keeper,
                progress=progress,
            )  # fmt: skip
            return _put_together(detector, data, learnt, owner)
        if isinstance(detector, Solvable):
            _refuse_negative(base)
            outcome = _solve(detector, data, weighting, base, progress)
        elif isinstance(detector, Trainable):
            epochs = default_epochs(len(data), batch_size) if epochs is None else epochs
            plan = Plan(
                epochs, batch_size, lr, weight_decay, epochs // 3 if warmup is None else warmup, seed,
                sample, patience, reference == "full" or not detector.loss_is_score, mixed_precision,
            )  # fmt: skip
            outcome = Loop(detector, data, weighting, base, plan, held_out, keeper, progress).run()
        else:
            raise InputError(f"{type(detector).__name__} has neither losses nor solve: it cannot be trained")
        outcome.checks = run_checks(detector, data, weighting, outcome)
    return outcome


def _put_together(detector: Detector, data: Data, parts: Outcome, owner: Tensor) -> Outcome:
    """The outcome over the units, from that over their parts: a unit's weight is the mean of its parts'.

    Its first score is the highest of the parts that were learnt from, which need not be all of them.
    """
    scores = scoring.score(detector, data)
    highest = torch.full_like(scores, -math.inf).scatter_reduce(0, owner, parts.first_scores, "amax")
    weights = torch.zeros_like(scores).scatter_reduce(0, owner, parts.weights, "mean", include_self=False)
    first = scores if parts.first_scores is parts.scores else highest
    return replace(parts, scores=scores, first_scores=first, weights=weights)


def default_epochs(units: int, batch_size: int) -> int:
    """Epochs that make about 1,500 steps, within bounds."""
    fewest, most = _EPOCHS
    return min(most, max(fewest, math.ceil(_STEPS_WANTED / math.ceil(units / batch_size))))


@dataclass(frozen=True)
class Plan:
    """The numbers of one training loop."""

    epochs: int
    batch_size: int
    lr: float
    weight_decay: float
    warmup: int
    seed: int
    sample: bool
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
        self.embedding = scoring.embedding_of(data) if weighting.needs_embedding else None

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
        scores = scoring.score(self.detector, self.data)
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
        drawn = self.weights if self.plan.sample else None
        order, seen, weights = [], [], self.weights.to(self.device)
        for batch in self.data.batches(self.plan.batch_size, generator, drawn):
            order.append(batch.index)
            batch = batch.to(self.device)
            with self._precision():
                losses = self.detector.losses(batch).float()
            mean = weighted_mean(losses, None if self.plan.sample else weights.index_select(0, batch.index))
            self.optimizer.step(mean)
            seen.append(losses.detach())
        index = torch.cat(order)
        losses = torch.cat(seen).cpu()
        if len(seen) > 1:
            mean = weighted_mean(losses, None if self.plan.sample else self.weights[index])
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
        # A sampled epoch passes some units by, so the scores of its own steps would be stale for them.
        if self.plan.full_reference or self.plan.sample or round == 0:
            self.scores = scoring.score(self.detector, self.data)
            self.detector.train()
        if round == 0:
            self.first_scores = self.scores.clone()
        previous = None if round == 0 else self.weights / self.base.clamp_min(1e-12)
        context = Context(self.scores, self.scores, self.embedding, previous, round, self.cache)
        weights = unit_mean(self.weighting(context) * self.base)
        if self.plan.sample:
            _refuse_negative(weights)
        self._weigh(weights)

    @torch.no_grad()
    def _held_out_loss(self) -> float:
        assert self.held_out is not None
        self.detector.eval()
        losses = scoring.over_batches(self.detector, self.held_out, self.detector.losses)
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


def _solve(
    detector: Any,
    data: Data,
    weighting: Weighting,
    base: Tensor,
    progress: Callable[[int, int, dict[str, float]], None] | None,
) -> Outcome:
    """Solve with the base weights, and again with the weights that each solution's scores give."""
    weights = base
    history: list[dict[str, float]] = []
    scores: list[Tensor] = []
    cache: dict[Any, Tensor] = {}
    embedding = scoring.embedding_of(data) if weighting.needs_embedding else None
    rounds = 1 if not weighting.steps or detector.solved_once else _SOLUTIONS if weighting.needs_past else 2
    for round in range(rounds):
        started = time.perf_counter()
        if round:
            previous = None if round == 1 else weights / base.clamp_min(1e-12)
            context = Context(scores[-1], scores[-1], embedding, previous, round - 1, cache)
            weights = unit_mean(weighting(context) * base)
            _refuse_negative(weights)
        detector.solve(data, weights)
        scores.append(scoring.over_batches(detector, data, getattr(detector, "score_left_out", detector.score)))
        row = {
            "epoch": round + 1,
            "score_mean": float(scores[-1].mean()),
            "effective_sample_share": effective_sample_size(weights) / len(weights),
            "seconds": time.perf_counter() - started,
        }
        history.append(row)
        if progress:
            progress(round + 1, rounds, row)
    return Outcome(scores[-1], scores[0], weights, history)


def _check_anomalies(anomalies: Labelled, data: Data) -> None:
    check_units(anomalies.data, least=1)
    shape, needed = list(anomalies.data.unit_shape), list(data.unit_shape)
    if shape != needed:
        raise InputError(
            f"the labelled anomalies have the shape {shape}: {needed} was needed",
            "read them as the training units are read",
        )


def _refuse_negative(weights: Tensor) -> None:
    if bool((weights < 0).any()):
        raise InputError(
            f"{int((weights < 0).sum())} weights are negative: only gradient steps take them, and no drawing of units",
            "use LatentOutliers(soft=True), or another detector, or leave out sample",
        )


def _below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _mixed(seed: int, epoch: int) -> int:
    """A seed for one epoch, so that a resumed fit shuffles as an uninterrupted one."""
    return (seed * 1_000_003 + epoch) % 2**63


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    if count:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Networks start from the global generator: seed it, and give it back as it was."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield

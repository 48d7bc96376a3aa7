"""The one training loop: it alone knows both detectors and weights, and knows detectors only by their protocols.

A Trainable learns epoch by epoch. After a warm-up with all weights 1 (the scores of an untrained network mean nothing)
every epoch ends with new weights from the samples' newest scores. A ClosedForm is computed with weights 1, scored, and
computed again with the weights of its scores, several times if weights accumulate. A Divisible has the detector
of its parts trained in one of these ways, on the parts. `fit` is `start`, which makes a detector ready, and `learn`,
which goes on from where a detector stands.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..core import inference, processes
from ..core.data import Data
from ..core.detector import ClosedForm, Concluding, Detector, Divisible, Supervised, Trainable
from ..core.embedding import embedding_of
from ..core.problem import Labelled
from ..core.seeding import seeded, threads
from ..core.validation import check_finite, check_samples
from ..errors import InputError
from ..weights.weighting import Context, Weighting, effective_sample_size, refuse_negative, unit_mean
from .checks import run_checks
from .hooks import CosineSchedule, MovingAverage, ShareBatches
from .loop import Hook, Keeper, Loop, MakeOptimizer, Outcome, Progress, Task
from .optimizer import FlatAdam
from .options import Training

# A weighting that accumulates settles over rounds; a solution is cheap, but not free.
_SOLUTIONS = 5


def fit(
    detector: Detector,
    data: Data,
    weighting: Weighting = Weighting(),  # noqa: B008 (a frozen value)
    training: Training = Training(),  # noqa: B008 (a frozen value)
    *,
    seed: int = 0,
    base_weights: Tensor | None = None,
    anomalies: Labelled | None = None,
    held_out: Data | None = None,
    keeper: Keeper | None = None,
    progress: Progress | None = None,
    optimizer: MakeOptimizer = FlatAdam,
    hooks: Sequence[Hook] = (),
) -> Outcome:
    """Train `detector` in place on the samples of `data`, weighed by `weighting`: `start`, then `learn`.

    Args:
        seed: of the networks' first parameters and of the batches.
        base_weights: [n] weights known beforehand, such as balanced groups; every weight is multiplied by them.
        anomalies: a few known ones, for a detector that needs them; the only labels that training ever sees.
        held_out: normals that are not trained on, for early stopping: after `training.patience` epochs without a lower
            mean loss on them the best state is restored. Both or neither.
        keeper: where an interrupted fit is kept and resumed from.
        progress: called with (epochs done, epochs, newest history row).
        optimizer: makes what takes the steps, from a detector, lr and weight decay; see `optimizer.Flat`.
        hooks: what happens around the steps, such as a schedule of the learning rate; see `loop.Hook`.

    Raises:
        InputError: the detector cannot take these samples, or the loss stopped being finite.
    """
    task = Task(weighting, training, seed, _ones(data, base_weights), held_out, keeper, progress, optimizer, hooks)
    return _train(detector, data, task, anomalies, starts=True)


def learn(
    detector: Detector,
    data: Data,
    weighting: Weighting = Weighting(),  # noqa: B008 (a frozen value)
    training: Training = Training(),  # noqa: B008 (a frozen value)
    *,
    seed: int = 0,
    base_weights: Tensor | None = None,
    anomalies: Labelled | None = None,
    held_out: Data | None = None,
    keeper: Keeper | None = None,
    progress: Progress | None = None,
    optimizer: MakeOptimizer = FlatAdam,
    hooks: Sequence[Hook] = (),
) -> Outcome:
    """Train `detector` on from where it stands: its parameters and its statistics are what it begins with.

    Unless `training.warmup` says otherwise, the first epoch is weighed by the scores that the detector gives now. A
    closed-form detector is computed again. The arguments are those of `fit`; `anomalies` replace those that the
    detector knows, and a detector that was opened from a file knows none.

    Raises:
        InputError: the detector has not been started, or learns from other samples.
    """
    name = type(detector).__name__
    if not detector.sample_shape:
        raise InputError(f"{name} has not been started", "start it, fit it or open it from a run first")
    if (detector.sample_shape, detector.modality) != (tuple(data.sample_shape), data.modality):
        learnt = f"{detector.modality.plural} of shape {list(detector.sample_shape)}"
        raise InputError(f"{name} learns {learnt}: got {data.modality.plural} of shape {list(data.sample_shape)}")
    task = Task(weighting, training, seed, _ones(data, base_weights), held_out, keeper, progress, optimizer, hooks)
    return _train(detector, data, task, anomalies, starts=False)


def start(
    detector: Detector,
    data: Data,
    training: Training = Training(),  # noqa: B008 (a frozen value)
    *,
    seed: int = 0,
    base_weights: Tensor | None = None,
    anomalies: Labelled | None = None,
) -> None:
    """Make the detector ready to learn: networks, device, known anomalies, and statistics of the samples.

    Raises:
        InputError: the detector cannot take these samples or these anomalies.
    """
    _check_labels(detector, anomalies)
    base = unit_mean(_ones(data, base_weights))
    with threads(training.threads), seeded(seed, training.device):
        _build(detector, data, training, anomalies)
        if isinstance(detector, Divisible):
            parts, owner = detector.divide(data, torch.Generator().manual_seed(seed))
            start(_of_parts(detector), parts, training, seed=seed, base_weights=base[owner])
        else:
            _prepare(detector, data, _in_steps(detector, data, training), base)


def _train(detector: Detector, data: Data, task: Task, anomalies: Labelled | None, starts: bool) -> Outcome:
    _check(detector, task)
    training = _in_steps(detector, data, task.training)
    hooks = (*(task.hooks or _usual_hooks(detector)), *_hooks_of_processes(detector))
    task = replace(task, training=training, hooks=hooks)
    if starts or not detector.knows_anomalies:
        _check_labels(detector, anomalies)
    task = replace(task, base=task.share(unit_mean(task.gather(task.base))))
    with threads(training.threads), seeded(task.seed, training.device):
        if starts:
            _build(detector, data, training, anomalies)
        else:
            inference.place(detector, training.device)
            _know(detector, data, anomalies)
        if isinstance(detector, Divisible):
            generator = torch.Generator().manual_seed(task.seed)
            parts, owner = detector.divide(data, generator)
            held_out = None if task.held_out is None else detector.divide(task.held_out, generator)[0]
            of_parts = replace(task, base=task.base[owner], held_out=held_out)
            return _put_together(detector, data, _train(_of_parts(detector), parts, of_parts, None, starts), owner)
        if starts:
            _prepare(detector, data, training, task.base)
        else:
            detector.remember(data, task.base)
        if isinstance(detector, ClosedForm):
            refuse_negative(task.base)
            outcome = _solve(detector, data, task)
        else:
            outcome = Loop(detector, data, task, continues=not starts).run()
        if isinstance(detector, Concluding):
            detector.conclude(data)
        outcome.checks = run_checks(detector, data, task.weighting, outcome)
    return outcome


def _in_steps(detector: Detector, data: Data, training: Training) -> Training:
    """The training with the learning rate, the batches and the epochs that the detector takes where none are named."""
    training = replace(training, lr=detector.usual_lr if training.lr is None else training.lr)
    if detector.full_batch:
        return replace(training, batch_size=len(data))
    if detector.usual_steps is None:
        return training
    steps, size = detector.usual_steps
    size = training.batch_size or size
    return replace(training, batch_size=size, epochs=training.epochs or math.ceil(steps / math.ceil(len(data) / size)))


def _usual_hooks(detector: Detector) -> tuple[Hook, ...]:
    """What the detector asks for where no hooks are given."""
    cosine = (CosineSchedule(),) if detector.cosine_schedule else ()
    return (*cosine, MovingAverage(detector.average_decay)) if detector.average_decay else cosine


def _hooks_of_processes(detector: Detector) -> tuple[Hook, ...]:
    """What divides the batches, where several processes share the work; what takes no steps each of them solves."""
    takes_steps = isinstance(detector, Trainable) and not isinstance(detector, ClosedForm | Divisible)
    return (ShareBatches(),) if processes.shares() and takes_steps else ()


def _check(detector: Detector, task: Task) -> None:
    """Raise an InputError where the detector cannot be trained in this way."""
    name = type(detector).__name__
    if (task.held_out is None) != (task.training.patience is None):
        raise InputError("early stopping takes both held_out normals and patience")
    if detector.ignores_weights and task.weighting.steps:
        raise InputError(f"{name} cannot be weighed: {detector.ignores_weights}", 'weighting=""')
    if not isinstance(detector, Divisible | ClosedForm | Trainable):
        raise InputError(f"{name} has neither losses nor solve: it cannot be trained")
    if task.hooks and isinstance(detector, ClosedForm):
        raise InputError(
            f"hooks go around steps, and {name} takes none: it is a closed-form detector", "leave them out"
        )


def _check_labels(detector: Detector, anomalies: Labelled | None) -> None:
    name = type(detector).__name__
    if detector.needs_labels and anomalies is None:
        raise InputError(f"{name} needs a few labelled anomalies", "name them by --anomalies, or anomalies=")
    if anomalies is not None and not isinstance(detector, Supervised):
        raise InputError(f"{name} does not learn from labelled anomalies", "use dev-net or multi-cue, or name none")


def _ones(data: Data, base_weights: Tensor | None) -> Tensor:
    """The base weights [n], on the CPU; 1 where none are given."""
    if base_weights is None:
        return torch.ones(len(data))
    if base_weights.shape != (len(data),):
        raise InputError(f"one base weight a sample: got {list(base_weights.shape)} for {len(data)}")
    check_finite(base_weights, "base weights")
    return base_weights.float().cpu()


def _build(detector: Detector, data: Data, training: Training, anomalies: Labelled | None) -> None:
    detector.start(data.sample_shape, data.modality)
    inference.place(detector, training.device)
    _know(detector, data, anomalies)


def _know(detector: Detector, data: Data, anomalies: Labelled | None) -> None:
    if anomalies is not None and isinstance(detector, Supervised):
        _check_anomalies(anomalies, data)
        detector.know(anomalies)
        detector.knows_anomalies = True


def _prepare(detector: Detector, data: Data, training: Training, base: Tensor) -> None:
    """What a detector that takes steps needs before the first."""
    if not isinstance(detector, ClosedForm):
        detector.planned_steps = training.steps_for(len(data))
        detector.prepare(data, base)
        detector.remember(data, base)


def _of_parts(detector: Divisible) -> Detector:
    return detector.detector  # type: ignore[attr-defined, no-any-return]


def _put_together(detector: Detector, data: Data, parts: Outcome, owner: Tensor) -> Outcome:
    """The outcome over the samples, from that over their parts: a sample's weight is the mean of its parts'.

    Its first score is the highest of the parts that were learnt from, which need not be all of them.
    """
    scores = inference.score(detector, data)
    highest = torch.full_like(scores, -math.inf).scatter_reduce(0, owner, parts.first_scores, "amax")
    weights = torch.zeros_like(scores).scatter_reduce(0, owner, parts.weights, "mean", include_self=False)
    first = scores if parts.first_scores is parts.scores else highest
    return replace(parts, scores=scores, first_scores=first, weights=weights)


def _solve(detector: Any, data: Data, task: Task) -> Outcome:
    """Solve with the base weights, and again with the weights that each solution's scores give."""
    weighting, base = task.weighting, task.base
    weights = base
    history: list[dict[str, float]] = []
    scores: list[Tensor] = []
    cache: dict[Any, Tensor] = {}
    embedding = embedding_of(data, base=base) if weighting.needs_embedding else None
    rounds = 1 if not weighting.steps or detector.solve_once else _SOLUTIONS if weighting.needs_past else 2
    for round in range(rounds):
        started = time.perf_counter()
        if round:
            previous = None if round == 1 else weights / base.clamp_min(1e-12)
            context = Context(scores[-1], scores[-1], embedding, previous, round - 1, cache)
            weights = weighting.times(base, context)
            refuse_negative(weights)
        scores.append(inference.solved(detector, data, weights))
        row = {
            "epoch": round + 1,
            "score_mean": float(scores[-1].mean()),
            "effective_sample_share": effective_sample_size(weights) / len(weights),
            "seconds": time.perf_counter() - started,
        }
        history.append(row)
        if task.progress:
            task.progress(round + 1, rounds, row)
    return Outcome(scores[-1], scores[0], weights, history)


def _check_anomalies(anomalies: Labelled, data: Data) -> None:
    check_samples(anomalies.data, least=1)
    shape, needed = list(anomalies.data.sample_shape), list(data.sample_shape)
    if shape != needed:
        raise InputError(
            f"the labelled anomalies have the shape {shape}: {needed} was needed",
            "read them as the training samples are read",
        )

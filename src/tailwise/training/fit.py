"""The one training loop: it alone knows both detectors and weights, and knows detectors only by their protocols.

A Trainable learns epoch by epoch. After a warm-up with all weights 1 (the scores of an untrained network mean nothing)
every epoch ends with new weights from the samples' newest scores. A ClosedForm is solved with weights 1, scored, and
solved again with the weights that its scores give, several times where weights accumulate. A Divisible has the detector
of its parts trained in one of these ways, on the parts.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..core import inference
from ..core.data import Data
from ..core.detector import ClosedForm, Detector, Divisible, Supervised, Trainable
from ..core.embedding import embedding_of
from ..core.problem import Labelled
from ..core.validation import check_samples
from ..errors import InputError
from ..weights.weighting import Context, Weighting, _refuse_negative, effective_sample_size, unit_mean
from .checks import run_checks
from .loop import Keeper, Loop, Outcome, Plan

# Small sets take few steps in an epoch; these bound the epochs chosen when the user names none.
_STEPS_WANTED = 1_500
_EPOCHS = (30, 300)
# A weighting that accumulates settles over rounds; a solution is cheap, but not free.
_SOLUTIONS = 5


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
    resample: bool = False,
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
    """Train `detector` in place on the samples of `data`, weighed by `weighting`.

    Args:
        batch_size: how many samples a step sees; of a detector of parts, how many parts.
        epochs: passes over the data; None takes about 1,500 steps, within 30 to 300 epochs.
        lr, weight_decay: of Adam.
        warmup: epochs with base weights only; None is a third of the epochs.
        reference: "newest" weighs by the scores that the epoch's own steps gave (free), "full" by a pass after each
            epoch.
        resample: draw samples in proportion to their weights instead of weighing the loss.
        base_weights: [n] weights known beforehand, such as balanced groups; every weight is multiplied by them.
        anomalies: a few known ones, for a detector that needs them; the only labels that training ever sees.
        held_out: normals that are not trained on, for early stopping: after `patience` epochs without a lower mean
            loss on them the best state is restored. Both or neither.
        threads: CPU threads during the fit; 1 is fastest for small networks; None leaves the setting alone.
        keeper: where an interrupted fit is kept and resumed from.
        progress: called with (epochs done, epochs, newest history row).

    Raises:
        InputError: the detector cannot take these samples, an option is off, or the loss stopped being finite.
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
    if detector.ignores_weights and weighting.steps:
        raise InputError(f"{type(detector).__name__} cannot be weighed: {detector.ignores_weights}", 'weighting=""')
    base = unit_mean(torch.ones(len(data)) if base_weights is None else base_weights.float().cpu())
    with _threads(threads), _seeded(seed):
        detector.start(data.sample_shape)
        inference.place(detector, device)
        if anomalies is not None and isinstance(detector, Supervised):
            _check_anomalies(anomalies, data)
            detector.know(anomalies)
        if isinstance(detector, Divisible):
            generator = torch.Generator().manual_seed(seed)
            parts, owner = detector.divide(data, generator)
            learnt = fit(
                detector.detector, parts, weighting, epochs=epochs, batch_size=batch_size, lr=lr,
                weight_decay=weight_decay, warmup=warmup, reference=reference, resample=resample,
                base_weights=base[owner], patience=patience,
                held_out=None if held_out is None else detector.divide(held_out, generator)[0], device=device,
                mixed_precision=mixed_precision, threads=threads, keeper=keeper, progress=progress,
            )  # fmt: skip
            return _put_together(detector, data, learnt, owner)
        if isinstance(detector, ClosedForm):
            _refuse_negative(base)
            outcome = _solve(detector, data, weighting, base, progress)
        elif isinstance(detector, Trainable):
            epochs = default_epochs(len(data), batch_size) if epochs is None else epochs
            plan = Plan(
                epochs, batch_size, lr, weight_decay, epochs // 3 if warmup is None else warmup, seed,
                resample, patience, reference == "full" or not detector.loss_is_score, mixed_precision,
            )  # fmt: skip
            outcome = Loop(detector, data, weighting, base, plan, held_out, keeper, progress).run()
        else:
            raise InputError(f"{type(detector).__name__} has neither losses nor solve: it cannot be trained")
        outcome.checks = run_checks(detector, data, weighting, outcome)
    return outcome


def _put_together(detector: Detector, data: Data, parts: Outcome, owner: Tensor) -> Outcome:
    """The outcome over the samples, from that over their parts: a sample's weight is the mean of its parts'.

    Its first score is the highest of the parts that were learnt from, which need not be all of them.
    """
    scores = inference.score(detector, data)
    highest = torch.full_like(scores, -math.inf).scatter_reduce(0, owner, parts.first_scores, "amax")
    weights = torch.zeros_like(scores).scatter_reduce(0, owner, parts.weights, "mean", include_self=False)
    first = scores if parts.first_scores is parts.scores else highest
    return replace(parts, scores=scores, first_scores=first, weights=weights)


def default_epochs(samples: int, batch_size: int) -> int:
    """Epochs that make about 1,500 steps, within bounds."""
    fewest, most = _EPOCHS
    return min(most, max(fewest, math.ceil(_STEPS_WANTED / math.ceil(samples / batch_size))))


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
    embedding = embedding_of(data) if weighting.needs_embedding else None
    rounds = 1 if not weighting.steps or detector.solve_once else _SOLUTIONS if weighting.needs_past else 2
    for round in range(rounds):
        started = time.perf_counter()
        if round:
            previous = None if round == 1 else weights / base.clamp_min(1e-12)
            context = Context(scores[-1], scores[-1], embedding, previous, round - 1, cache)
            weights = unit_mean(weighting(context) * base)
            _refuse_negative(weights)
        detector.solve(data, weights)
        scores.append(inference.over_batches(detector, data, getattr(detector, "score_left_out", detector.score)))
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
    check_samples(anomalies.data, least=1)
    shape, needed = list(anomalies.data.sample_shape), list(data.sample_shape)
    if shape != needed:
        raise InputError(
            f"the labelled anomalies have the shape {shape}: {needed} was needed",
            "read them as the training samples are read",
        )


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

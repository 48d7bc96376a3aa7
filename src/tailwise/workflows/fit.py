"""From a source to a run: what `tailwise fit` does."""

from __future__ import annotations

import importlib.metadata
import math
import platform
import re
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import __version__
from ..backbones import networks
from ..calibration import score_maps
from ..calibration.clusters import Clusters
from ..core import messages, progress
from ..core.data import Data
from ..core.detector import ClosedForm, Detector
from ..core.identity import digest_of
from ..core.problem import Labelled, OnDisk, Problem, ReadByBackbone, Source, fixed_to, joined
from ..errors import InputError, listed
from ..integrations import trackers
from ..report import review, selection
from ..report.summary import fit_summary
from ..runs import places, scorer, store
from ..runs.scorer import Run, table_of_test
from ..runs.table import Split, with_calibration
from ..training import checks, cleaning, cross_fitting, local_scores, near_copies, processes, suspects, torchrun
from ..training import fit as training_fit
from ..training.loop import Keeper
from ..training.options import STEP_OPTIONS
from ..weights.default import choose_weighting
from ..weights.weighting import Weighting
from . import assembly, blocks, reviews, thresholds, unlabelled
from .request import _APART, _SPELLED, AUTO, Request, check_training, make_detector

# Local scores of normals lie about 0, and their middle varies by less than this on few samples.
_ON_SCALE = 1.0
# The detector that learns no more of a training sample than of a new one.
_ONE_SCALE = "nearest-neighbours"
# Fewer different things cannot be dealt into parts.
_FEWEST_THINGS = 4
_VERSIONS_OF = ("torch", "numpy", "scipy", "scikit-learn", "safetensors")


def fit_run(request: Request, out: Path | None = None, overwrite: bool = False, problem: Problem | None = None) -> Run:
    """Fit and leave a run folder; see `commands.fit`. `problem` is what the source loads, where that is at hand.

    Under torchrun all processes fit together, and the first leaves the run.
    """
    request.check()
    with processes.together():
        if not torchrun.helps():
            return _fitted(request, out, overwrite, problem)
        with tempfile.TemporaryDirectory() as beside:
            return _fitted(replace(request, log=""), Path(beside) / "run", True, problem)


def _fitted(request: Request, out: Path | None, overwrite: bool, problem: Problem | None) -> Run:
    out = _default_out(request) if out is None else out
    with store.hold(out, overwrite) as writer, trackers.tracking(request.log, out) as tracker:
        started = time.perf_counter()
        backbone = _backbone_file(request.source)
        problem = request.source.load() if problem is None else problem
        check_training(problem, request.source)
        automatic = request.detector.strip() == AUTO
        chosen = blocks.decided(request, problem)
        request, problem = chosen.request, chosen.problem
        request = request.decided(problem.train.modality, len(problem.train))
        detector = make_detector(request.detector)
        _warn_of_idle_options(request, detector)
        problem, known, settled = _with_what_is_known(request, problem, detector)
        for note in problem.facts.notes:
            messages.note(note)
        rule = local_scores.choose(request.scores, problem.train.modality, detector)
        weighting = choose_weighting(request.weighting, detector, problem.train.modality, rule is not None)
        if request.per_group and problem.train_groups is None:
            raise InputError("a threshold for each group needs groups", "name them with --groups")
        _check_groups(request, problem)
        _tell_of_other_packages(detector)
        settings = _settings(request, detector, weighting, rule, problem)
        things = _things(request, problem)
        split = split_of(problem, request, things)
        balanced, suspect = _balanced(split, request.balance), _suspects(request, split.training, settled)
        if writer.start(settings, overwrite):
            messages.progress(f"resuming the unfinished fit in {out}")
        tracker.start(out.name, settings)
        rounds = cleaning.parse(request.refine)
        with _progress() as bar:
            # The trainings of a refinement are many: an interrupted one begins again.
            keeper = processes.SharedKeeper(store.Checkpoint.of_run(writer.path)) if rounds is None else None
            held_out = split.held_out if request.training.patience else None
            logged = tracker.beside(bar) if rounds is None else bar
            fit = fitter(request, weighting, rule, held_out=held_out, known=known, keeper=keeper, progress=logged)
            base = (torch.ones(len(split.training)) if balanced is None else balanced) * ~suspect
            refined = None if rounds is None else rounds(fit, split.training, base, request.seed, settled)
            fitted = fit(split.training, base, request.seed) if refined is None else refined.fitted
            again = fitter(request, weighting, rule, known=known, progress=bar)
            cross_fitted = _cross_fitted(request, again, split.training, base, fitted, settled, things)
        detector, outcome = fitted.detector, fitted.outcome
        settings["checks"] = [check.as_dict() for check in outcome.checks]
        settings |= {"n_train": int((~suspect).sum()), "n_held_out": len(split.held), "n_suspects": int(suspect.sum())}
        settings["detector_reason"] = chosen.reason or (problem.train.modality.detector_reason if automatic else "")
        settings["rounds"] = [] if refined is None else refined.rounds
        _warn_of_failures(outcome.checks)
        if doubt := checks.doubt_of_weights(weighting, outcome):
            messages.note(doubt)
            settings["notes"] = (*settings["notes"], doubt)
        clusters = None if request.no_clusters else Clusters.learn(problem.train, request.seed)
        table = split.table(detector, outcome, fitted.scores, clusters, suspect)
        if doubt := unlabelled.sentence(request, problem, table):
            messages.warning(doubt)
        settings["unlabelled"] = doubt
        closest = scorer.closest(clusters) if request.per_cluster and clusters is not None else None
        kinds = scorer.kinds_of(split.labelled, closest) if request.per_cluster or request.per_group else None
        table = with_calibration(table, None if cross_fitted is None else cross_fitted.scores, kinds)
        thresholds.warn(table, request.false_alarms, cross_fitted is not None)
        if rule is not None and cross_fitted is not None:
            _warn_of_scale(request.detector, split.training, cross_fitted.scores)
        calibration = assembly.calibrate(settings, table, kinds)
        if detector.has_maps:
            normals = split.held_out if len(split.held) else split.training
            looked = [] if cross_fitted is None else cross_fitted.looked
            looked = looked or [score_maps.peaks(detector, normals, request.smoothing)]
            settings |= score_maps.scale_of(looked, request.false_alarms).settings()
        settings["seconds"] = round(time.perf_counter() - started, 2)
        limits = None if kinds is None else scorer.Limits(calibration, closest, request.false_alarms)
        test = None if problem.test is None else table_of_test(detector, problem.test, limits)
        assembly.hold_to_limit(settings, table, test)
        note = selection.rare_or_hidden(table)
        if note:
            messages.note(note)
        parts = assembly.Parts(
            detector,
            split.training,
            table,
            outcome.history,
            clusters,
            request.seed,
            test,
            backbone,
            places.of_source(request.source),
            request.source,
        )
        run = assembly.write_run(
            writer, settings, parts,
            lambda: fit_summary(
                request.source, settings, outcome, table, test, problem, detector, request.smoothing, note
            ),
        )  # fmt: skip
        tracker.finish(run)
        return run


def _tell_of_other_packages(detector: Detector) -> None:
    """A run holds what its detector learnt and how it is spelled, and no code: say what must be imported to open it."""
    module = type(detector).__module__
    if not module.startswith("tailwise."):
        messages.note(
            f"{type(detector).__name__} comes from the module {module}: import it before you open the run, or name it "
            "in TAILWISE_IMPORT for the command line"
        )


def _suspects(request: Request, data: Data, settled: Collection[str]) -> Tensor:
    """Which training samples [n] are left out as suspects: none that a review calls normal, and none where rounds find
    for themselves what has to go."""
    if request.keep_suspects or request.refine:
        return torch.zeros(len(data), dtype=torch.bool)
    suspect = suspects.find(data) & torch.tensor([str(name) not in settled for name in data.names])
    if bool(suspect.any()):
        names = listed(data.names[i] for i in suspect.nonzero().flatten().tolist())
        messages.note(
            f"{int(suspect.sum())} of {len(data)} training samples are suspects and do not train: they lie far from "
            f"all others and close to each other ({names}). If they are normal, say --keep-suspects"
        )
    return suspect


def _warn_of_scale(detector: str, data: Data, left_out: np.ndarray) -> None:
    """Say so where new normals do not score about 0, as local scores promise."""
    if abs(middle := float(np.median(left_out))) > _ON_SCALE:
        numbers = math.prod(data.sample_shape)
        keeps = type(make_detector(detector)) is type(make_detector(_ONE_SCALE))
        way_on = "" if keeps else f". {_ONE_SCALE} keeps one scale"
        messages.warning(
            f"{detector} gives new normals scores about {middle:.1f} where 0 is usual, because {len(data)} samples are "
            f"few for {numbers} {data.modality.features}: its threshold holds, and scores of fitted samples are not on "
            f"one scale with those of new ones{way_on}"
        )


def _warn_of_idle_options(request: Request, detector: Detector) -> None:
    """Say which options of training have no say because the detector takes no steps."""
    idle = sorted(set(request.training.changed()) & STEP_OPTIONS)
    if idle and isinstance(detector, ClosedForm):
        options = ", ".join(f"--{name.replace('_', '-')}" for name in idle)
        messages.warning(f"{request.detector} is computed in closed form: {options} changes nothing")


def _cross_fitted(
    request: Request,
    fit: cross_fitting.Fit,
    data: Data,
    base: Tensor,
    final: cross_fitting.Fitted,
    settled: Collection[str],
    things: Tensor | None,
) -> cross_fitting.CrossFitted | None:
    """Cross-fitted scores of the training samples, refined as the final detector was."""
    if not request.parts:
        return None
    train = cleaning.in_rounds(fit, cleaning.parse(request.refine), settled)

    def look(detector: Detector, unseen: Data) -> np.ndarray:
        return score_maps.peaks(detector, unseen, request.smoothing)

    seen = look if final.detector.has_maps else None
    refined = bool(request.refine)
    return cross_fitting.crossed(train, data, base, request.parts, request.seed, final, refined, seen, things)


def _things(request: Request, problem: Problem) -> Tensor | None:
    """What each training sample [n] shows, where several show one thing and are held out together: the groups that were
    given as such, and pictures that are all but copies of others; said in a note."""
    if request.whole_groups:
        if problem.train_groups is None:
            raise InputError("whole groups need groups", "name them with --groups")
        _, thing = np.unique(problem.train_groups, return_inverse=True)
        messages.note(f"{len(thing)} training samples are of {thing.max() + 1} groups, each held out as a whole")
        return torch.from_numpy(thing)
    things = near_copies.together(problem.train, request.source)
    if things is None:
        return None
    _, several = things.unique(return_counts=True)
    copies, first = int(several[several > 1].sum()), int(several.argmax())
    names = listed(problem.train.names[i] for i in (things == first).nonzero().flatten().tolist())
    said = f"{copies} of {len(things)} training samples are nearly the same as others, as {names} are"
    if len(several) < _FEWEST_THINGS:
        messages.warning(f"{said}: only {len(several)} differ, too few for a threshold that holds for new ones")
        return None
    messages.note(f"{said}: these are held out together, so that the threshold is that of new ones")
    return things


def fitter(
    request: Request,
    weighting: Weighting,
    rule: local_scores.LocalScores | None,
    *,
    held_out: Data | None = None,
    known: Labelled | None = None,
    keeper: Keeper | None = None,
    progress: Callable[[int, int, dict[str, float]], None] | None = None,
) -> cross_fitting.Fit:
    """What trains a fresh detector as the request says, with local scores where there is a rule."""

    def fit(data: Data, base: Tensor, seed: int) -> cross_fitting.Fitted:
        detector = make_detector(request.detector)
        outcome = training_fit.fit(
            detector, data, weighting, request.training, seed=seed, base_weights=base, anomalies=known,
            held_out=held_out, keeper=keeper, progress=progress,
        )  # fmt: skip
        return cross_fitting.Fitted.read_by(rule, detector, outcome, data, base, seed)

    return fit


def _with_what_is_known(
    request: Request, problem: Problem, detector: Detector
) -> tuple[Problem, Labelled | None, frozenset[str]]:
    """The problem without what a review calls anomalies, the anomalies that the detector may learn from, and the names
    of what a review calls normal.

    Reviewed anomalies count as labelled where the detector can use them.
    """
    known: list[Labelled] = []
    verdicts = reviews.read(Path(request.reviewed)) if request.reviewed else {}
    if verdicts:
        problem, reviewed = reviews.apply(problem, verdicts)
        known += [reviewed] if reviewed is not None and detector.needs_labels else []
    if re.fullmatch(r"\d{1,18}", request.anomalies.strip()):
        problem, taken = reviews.take_anomalies(problem, int(request.anomalies), request.seed)
        known.append(taken)
    elif request.anomalies:
        problem, found = reviews.anomalies_at(problem, request.source, request.anomalies)
        known.append(found)
    settled = frozenset(name for name, said in verdicts.items() if said == review.NORMAL)
    return problem, joined(known) if known else None, settled


def _settings(
    request: Request, detector: Detector, weighting: Weighting, rule: local_scores.LocalScores | None, problem: Problem
) -> dict[str, Any]:
    asked = {name: value for name, value in vars(request).items() if name not in (*_SPELLED, *_APART)}
    return {
        **asked,
        **asdict(request.training),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        # Scoring reads exactly the columns that were learnt, in their order.
        "source": repr(scorer.as_kept(fixed_to(request.source, problem.train))),
        "detector": repr(detector),
        "weighting": repr(weighting),
        "scores": "own" if rule is None else repr(rule),
        "samples": problem.facts.samples,
        "licence": problem.facts.licence,
        "citation": problem.facts.citation,
        "notes": problem.facts.notes,
        "modality": problem.train.modality.name,
        "sample_shape": problem.train.sample_shape,
        "features": problem.train.features,
        "centre": None if problem.train.centre is None else problem.train.centre.tolist(),
        "fingerprint": digest_of(problem.train),
        "test_fingerprint": None if problem.test is None else digest_of(problem.test.data),
        "versions": {"tailwise": __version__, "python": platform.python_version()}
        | {name: importlib.metadata.version(name) for name in _VERSIONS_OF},
    }


def _backbone_file(source: Source) -> bytes | None:
    """The ONNX file that reads the images of a source, None where none was named for it."""
    by_file = isinstance(source, ReadByBackbone) and networks.is_file(source.read)
    return networks.onnx_content(source.read) if by_file else None  # type: ignore[attr-defined]


def split_of(problem: Problem, request: Request, things: Tensor | None = None) -> Split:
    """Hold some of the training samples out for the threshold, drawn by the request's seed, those of one of the
    `things` [n] together; none where it is cross_fitted."""
    if request.parts:
        return Split(problem, np.empty(0, dtype=np.int64))
    generator = torch.Generator().manual_seed(request.seed)
    return Split(problem, assembly.held_out_of(len(problem.train), request.false_alarms, generator, things))


def _check_groups(request: Request, problem: Problem) -> None:
    """Raise an InputError where every sample needs a group and some name none."""
    if problem.train_groups is None or not (request.per_group or request.balance):
        return
    missing = int((np.asarray(problem.train_groups) == "").sum())
    if missing:
        asked = "a threshold for every group" if request.per_group else "balance"
        raise InputError(
            f"{asked} needs the group of every sample: {missing} of {len(problem.train)} name none",
            "name their groups, or drop them",
        )


def _balanced(split: Split, balance: bool) -> Tensor | None:
    """Weights that give every group the same total."""
    if not balance:
        return None
    if split.problem.train_groups is None:
        raise InputError("balance needs groups", "name them with --groups")
    groups = np.asarray(split.problem.train_groups)[split.chosen]
    _, place, count = np.unique(groups, return_inverse=True, return_counts=True)
    return torch.from_numpy(1 / count[place])


def _default_out(request: Request) -> Path:
    """runs/SOURCE, with the detector's name where one was named; numbered when that is a finished run already."""
    source = request.source
    stem = Path(source.path if isinstance(source, OnDisk) else type(source).__name__).stem or "data"
    base = Path("runs") / (stem if request.detector.strip() == AUTO else f"{stem}-{request.detector.split('(')[0]}")
    paths = (base if k == 1 else base.with_name(f"{base.name}-{k}") for k in range(1, 10_000))
    return next(path for path in paths if not store.is_complete(path))


@contextmanager
def _progress() -> Iterator[Callable[[int, int, dict[str, float]], None]]:
    """What is told after each epoch. A training that begins anew, as in cross-fitting, is told of from its start."""
    with ExitStack() as trainings:
        tell: Callable[[int, str], None] | None = None
        began = time.monotonic()

        def show(done: int, total: int, row: dict[str, float]) -> None:
            nonlocal tell, began
            if tell is None or done == 1:
                trainings.close()
                tell = trainings.enter_context(progress.told(total, "training", began))
            tell(done, f"mean score {row['score_mean']:.3g}")
            if done == total:
                trainings.close()
                tell, began = None, time.monotonic()

        yield show


def _warn_of_failures(checks: Sequence[Any]) -> None:
    for check in checks:
        if not check.ok:
            messages.failed_check(f"{check.name}: {check.message}")

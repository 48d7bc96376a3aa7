"""What the commands do: from a source to a run, from a run to scores and reports."""

from __future__ import annotations

import hashlib
import importlib.metadata
import math
import platform
import sys
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from . import (
    __version__,
    alignment,
    calibrating,
    crossing,
    data_checks,
    findings,
    fingerprints,
    gallery,
    map_files,
    maps,
    previews,
    refine,
    registry,
    report,
    reviews,
    scoring,
    storage,
    thresholds,
    trackers,
    training,
)
from .detector import Detector
from .errors import InputError
from .kinds import Kinds
from .problem import Data, Labelled, Problem, Source, check_units
from .sources import open_source, spelled
from .training import Outcome
from .weights import Weighting

_SPELLED = ("source", "detector", "weighting", "alignment")
# Where a fit is logged is no part of it: it may be resumed with another log.
_APART = ("log",)
_VERSIONS_OF = ("torch", "numpy", "scipy", "scikit-learn", "safetensors")


@dataclass(frozen=True)
class Request:
    """One fit, as asked for. See `commands.fit` for what the fields mean."""

    source: Source
    detector: str = "autoencoder"
    weighting: str = "auto"
    alignment: str = "auto"
    false_alarms: float = 0.05
    epochs: int | None = None
    batch_size: int = 256
    lr: float = 1e-3
    warmup: int | None = None
    patience: int | None = None
    sample: bool = False
    balance: bool = False
    per_kind: bool = False
    per_group: bool = False
    cross: int | None = None
    max_group_fpr: float | None = None
    refine: str = ""
    anomalies: str = ""
    reviewed: str = ""
    smoothing: float = maps.SMOOTHING
    seed: int = 0
    device: str = "cpu"
    mixed_precision: bool = False
    threads: int = 1
    log: str = ""
    command: str = ""

    def check(self) -> tuple[Detector, Weighting]:
        """The detector and the weighting, once every option has been found usable."""
        for name in ("epochs", "batch_size", "lr", "patience", "threads"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise InputError(f"{name} must be above 0: got {value}")
        if self.warmup is not None and self.warmup < 0:
            raise InputError(f"warmup must be 0 or more: got {self.warmup}")
        if self.lr == math.inf:
            raise InputError("lr must be finite")
        calibrating.check_options(self.false_alarms, self.cross, self.max_group_fpr)
        if self.per_kind and self.per_group:
            raise InputError("thresholds are of found kinds or of known groups", "choose --per-kind or --per-group")
        if self.patience and self.parts:
            raise InputError("patience needs held-out units, and a crossed fit holds none out", "leave it or --cross 0")
        _check_seed(self.seed)
        maps.check_smoothing(self.smoothing)
        scoring.check_device(self.device)
        alignment.parse(self.alignment)
        refine.parse(self.refine)
        trackers.parse(self.log, Path())
        return make_detector(self.detector), Weighting.parse(self.weighting)

    @property
    def parts(self) -> int:
        """How many trainings make out-of-fold scores; with 0 some units are held out instead."""
        own = self.per_kind or self.per_group
        return (crossing.USUAL if own else 0) if self.cross is None else self.cross


def make_detector(text: str) -> Detector:
    """A detector from its name or its spelling."""
    return registry.parse_one(text, "detector")


def with_setting(text: str, name: str, value: Any) -> str:
    """The spelling of a detector with one of its settings changed.

    Raises:
        InputError: it has no such setting.
    """
    detector = make_detector(text)
    if name not in detector.settings():
        raise InputError(f"{text} has no setting {name}", f"leave --{name.replace('_', '-')} out")
    return repr(type(detector)(**detector.settings() | {name: value}))


def fit_run(
    request: Request, out: Path | None = None, overwrite: bool = False, problem: Problem | None = None
) -> storage.Run:
    """Fit and leave a run folder; see `commands.fit`. `problem` is what the source loads, where that is at hand."""
    detector, _ = request.check()
    out = _default_out(request) if out is None else out
    with storage.hold(out, overwrite) as writer, trackers.tracking(request.log, out) as tracker:
        started = time.perf_counter()
        problem = request.source.load() if problem is None else problem
        check_units(problem.train)
        problem, known, settled = _with_what_is_known(request, problem, detector)
        weighting = Weighting.choose(request.weighting, problem.train.unit_shape)
        if detector.needs_layout and request.weighting.strip() == "auto":
            weighting = Weighting()  # there is nothing to weigh
        rule = alignment.choose(request.alignment, problem.train.unit_shape)
        if request.per_group and problem.train_groups is None:
            raise InputError("a threshold for every group needs known groups", "name them by --groups")
        settings = _settings(request, detector, weighting, rule, problem)
        split = split_of(problem, request)
        balanced = _balanced(split, request.balance)
        if writer.start(settings, overwrite):
            _say(f"resuming the unfinished fit in {out}")
        tracker.start(out.name, settings)
        rounds = refine.parse(request.refine)
        with _progress() as progress:
            # The trainings of a refinement are many: an interrupted one begins again.
            keeper = storage.Checkpoint(out) if rounds is None else None
            held_out = split.held_out if request.patience else None
            progress = tracker.beside(progress) if rounds is None else progress
            fit = fitter(request, weighting, rule, held_out=held_out, known=known, keeper=keeper, progress=progress)
            base = torch.ones(len(split.training)) if balanced is None else balanced
            refined = None if rounds is None else rounds(fit, split.training, base, request.seed, settled)
            fitted = fit(split.training, base, request.seed) if refined is None else refined.fitted
            again = fitter(request, weighting, rule, known=known, progress=progress)
            crossed = _crossed(request, again, split.training, base, fitted, settled)
        detector, outcome = fitted.detector, fitted.outcome
        settings["checks"] = [check.as_dict() for check in outcome.checks]
        settings |= {"n_train": len(split.training), "n_held_out": len(split.held)}
        settings["rounds"] = [] if refined is None else refined.rounds
        _warn_of_failures(outcome.checks)
        kinds = Kinds.learn(problem.train, request.seed)
        found = kinds if request.per_kind else None
        table = split.table(detector, outcome, fitted.scores, kinds)
        own = calibrating.kinds_of(split.labelled, found) if request.per_kind or request.per_group else None
        table = calibrating.with_calibration(table, None if crossed is None else crossed.scores, own)
        calibrating.warn(table, request.false_alarms, crossed is not None)
        calibration = calibrating.of_table(table)
        settings["threshold"] = calibration.threshold(request.false_alarms)
        settings["thresholds"] = calibration.table(request.false_alarms)
        if own is not None:
            table["threshold"] = calibration.thresholds_of(own, request.false_alarms, len(table))
        if detector.has_maps:
            mapped, normals = detector, split.held_out if len(split.held) else split.training
            if crossed is not None:
                mapped, normals = crossed.detector, crossed.unseen
            settings |= maps.learn_scale(mapped, normals, request.false_alarms, request.smoothing).settings()
        settings["seconds"] = round(time.perf_counter() - started, 2)
        limits = None if own is None else calibrating.Limits(calibration, found, request.false_alarms)
        test = None if problem.test is None else _test_table(detector, problem.test, limits)
        settings["group_fpr"] = calibrating.check_group_fpr(table, test, settings["threshold"], request.max_group_fpr)
        summary = _summary(request, settings, outcome, table, test, problem, detector)
        kept = fingerprints.choose(detector, split.training, request.seed)
        page = report.to_html(summary)
        run = writer.finish(settings, detector, table, outcome.history, summary, page, kinds, test, kept)
        tracker.finish(run)
        return run


def _crossed(
    request: Request, fit: refine.Fit, data: Data, base: Tensor, final: refine.Fitted, settled: Collection[str]
) -> crossing.Crossed | None:
    """Out-of-fold scores of the training units, refined as the final detector was."""
    if not request.parts:
        return None
    rounds = refine.parse(request.refine)

    def train(data: Data, base: Tensor, seed: int) -> refine.Fitted:
        return fit(data, base, seed) if rounds is None else rounds(fit, data, base, seed, settled).fitted

    part = crossing.parts_of(len(data), request.parts, request.seed)
    return crossing.left_out(train, data, base, part, request.seed, final)


def fitter(
    request: Request,
    weighting: Weighting,
    rule: alignment.ModeFair | None,
    *,
    held_out: Data | None = None,
    known: Labelled | None = None,
    keeper: training.Keeper | None = None,
    progress: Callable[[int, int, dict[str, float]], None] | None = None,
) -> refine.Fit:
    """What trains a fresh detector as the request says, and aligns it where there is a rule."""

    def fit(data: Data, base: Tensor, seed: int) -> refine.Fitted:
        detector = make_detector(request.detector)
        outcome = training.fit(
            detector, data, weighting,
            epochs=request.epochs, batch_size=request.batch_size, lr=request.lr, warmup=request.warmup,
            sample=request.sample, base_weights=base, anomalies=known, held_out=held_out, patience=request.patience,
            seed=seed, device=request.device, mixed_precision=request.mixed_precision, threads=request.threads,
            keeper=keeper, progress=progress,
        )  # fmt: skip
        return refine.Fitted.read_by(rule, detector, outcome, data, seed)

    return fit


@dataclass(frozen=True, eq=False)
class Split:
    """The training units of a problem, less those held out for the threshold."""

    problem: Problem
    held: np.ndarray

    @property
    def chosen(self) -> np.ndarray:
        return np.setdiff1d(np.arange(len(self.problem.train)), self.held)

    @property
    def training(self) -> Data:
        return self.problem.train.take(self.chosen) if len(self.held) else self.problem.train

    @property
    def labelled(self) -> Labelled:
        """Every training unit, with its known group."""
        return Labelled(self.problem.train, groups=self.problem.train_groups)

    @property
    def held_out(self) -> Data:
        return self.problem.train.take(self.held)

    def table(self, detector: Detector, outcome: Outcome, scores: Tensor, kinds: Kinds) -> pd.DataFrame:
        """A row for each training unit, held-out ones too, in the source's order.

        `scores` are those of the units trained on by `detector`, which may be aligned; `trained_score` and
        `first_score` are by the detector that it wraps, after and before any weighing.
        """
        n = len(self.problem.train)
        trained = {
            "score": scores, "trained_score": outcome.scores,
            "first_score": outcome.first_scores, "weight": outcome.weights,
        }  # fmt: skip
        columns = {name: np.full(n, np.nan) for name in trained}
        for name, values in trained.items():
            columns[name][self.chosen] = values.double().numpy()
        if len(self.held):
            columns["score"][self.held] = scoring.score(detector, self.held_out).double().numpy()
        table = pd.DataFrame({"unit": list(self.problem.train.names), **columns})
        table["held_out"] = np.isin(np.arange(n), self.held)
        assert kinds.training is not None
        assert kinds.training_as_new is not None
        table["mode"] = kinds.training.numpy()
        table["mode_as_new"] = kinds.training_as_new.mode.numpy()
        table["unknown_as_new"] = kinds.training_as_new.unknown.numpy()
        if self.problem.train_groups is not None:
            table["group"] = np.asarray(self.problem.train_groups).astype(str)
        return table


def score_data(
    run: Path,
    data: str,
    threshold: float | None = None,
    skip_bad: bool = False,
    batch_size: int | None = None,
    seed: int = 0,
    device: str = "cpu",
    map_folder: Path | None = None,
    map_threshold: float | None = None,
    false_discoveries: float | None = None,
) -> pd.DataFrame:
    """Scores of every unit of `data`, and their maps in a folder; see `commands.score`."""
    if batch_size is not None and batch_size < 1:
        raise InputError(f"batch_size must be above 0: got {batch_size}")
    if threshold is not None and math.isnan(threshold):
        raise InputError("threshold must be a number: got nan")
    if map_threshold is not None and not math.isfinite(map_threshold):
        raise InputError(f"map_threshold must be finite: got {map_threshold}")
    _check_seed(seed)
    opened = storage.open_run(run)
    source = source_like(opened, data, skip_bad)
    if map_folder is not None:
        map_files.check_folder(map_folder, source)
    labelled = labelled_like(opened, source)
    units = labelled.data
    check_units(units, least=1)
    detector = opened.detector()
    scoring.place(detector, device)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        scores = scoring.score(detector, units, batch_size).double().numpy()
        if map_folder is not None:
            _write_maps(map_folder, opened, detector, units, source, map_threshold)
    return calibrating.scored(opened, labelled, scores, threshold, false_discoveries)


def source_like(opened: storage.Run, data: str, skip_bad: bool = False) -> Source:
    """The source of what is at `data`, read as the run's own data was."""
    source = opened.spelled("source")
    if skip_bad and hasattr(source, "skip_bad"):
        source = replace(source, skip_bad=True)
    return open_source(data) if spelled(data) else source.at(data)


def units_like(opened: storage.Run, source: Source) -> Data:
    """Every unit of a source; see `labelled_like`."""
    return labelled_like(opened, source).data


def labelled_like(opened: storage.Run, source: Source) -> Labelled:
    """Every unit of a source, with what is known of it.

    Raises:
        InputError: they are not of the shape that the run was fitted on.
    """
    labelled = source.load_all()
    units = labelled.data
    expected = list(opened.settings["unit_shape"])
    if list(units.unit_shape) != expected:
        raise InputError(
            f"the run was fitted on units of shape {expected}: those of {source!r} have {list(units.unit_shape)}",
            "score data of the same kind: as many columns, channels or bands",
        )
    return labelled


def _write_maps(
    folder: Path, run: storage.Run, detector: Detector, units: Data, source: Source, threshold: float | None
) -> None:
    if not detector.has_maps:
        raise InputError(
            f"the run's detector has no score maps of its units: {run.settings['detector']}",
            "fit images with one that has, such as autoencoder or gaussian",
        )
    scale = maps.Scale.of(run.settings)
    if scale is None:
        raise InputError(f"{run.path} was made before runs had a threshold for maps", "fit again")
    scale = scale if threshold is None else maps.Scale(min(scale.usual, threshold), threshold)
    found = maps.of_data(detector, units, run.settings["smoothing"])
    map_files.write_maps(folder, units, found, scale, map_files.pictures_of(source, units))


def write_report(run: Path, out: Path | None) -> Path:
    """Render a run's report; see `commands.report`."""
    opened = storage.open_run(run)
    out = opened.path / storage.REPORT_PAGE if out is None else out
    writers: dict[str, Callable[[dict[str, Any]], str]] = {
        ".html": report.to_html,
        ".md": report.to_markdown,
        ".json": report.to_json,
    }
    if out.suffix not in writers:
        raise InputError(f"a report is .html, .md or .json: got {out.name}")
    storage.write(out, writers[out.suffix](opened.report()).encode("utf-8", "backslashreplace"))
    return out


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
    if request.anomalies.strip().isdigit():
        problem, taken = reviews.take_anomalies(problem, int(request.anomalies), request.seed)
        known.append(taken)
    elif request.anomalies:
        problem, found = reviews.anomalies_at(problem, request.source, request.anomalies)
        known.append(found)
    settled = frozenset(name for name, said in verdicts.items() if said == reviews.NORMAL)
    return problem, reviews.joined(known) if known else None, settled


def _settings(
    request: Request, detector: Detector, weighting: Weighting, rule: alignment.ModeFair | None, problem: Problem
) -> dict[str, Any]:
    source = request.source
    if hasattr(source, "columns") and problem.train.features:
        # Scoring reads exactly the columns that were learnt, in their order.
        source = replace(source, columns=tuple(problem.train.features))  # type: ignore[type-var]
    asked = {name: value for name, value in vars(request).items() if name not in (*_SPELLED, *_APART)}
    return {
        **asked,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "source": repr(source),
        "detector": repr(detector),
        "weighting": repr(weighting),
        "alignment": "" if rule is None else repr(rule),
        "units": problem.facts.units,
        "licence": problem.facts.licence,
        "citation": problem.facts.citation,
        "notes": problem.facts.notes,
        "unit_shape": problem.train.unit_shape,
        "features": problem.train.features,
        "fingerprint": fingerprint(problem.train),
        "test_fingerprint": None if problem.test is None else fingerprint(problem.test.data),
        "versions": {"tailwise": __version__, "python": platform.python_version()}
        | {name: importlib.metadata.version(name) for name in _VERSIONS_OF},
    }


def fingerprint(data: Data) -> str:
    """A digest of the units' values and names: equal data, equal fingerprint."""
    digest = hashlib.blake2b(digest_size=16)
    for batch in data.batches(scoring.batch_size_for(data.unit_shape, 1_024)):
        digest.update(np.ascontiguousarray(batch.units.numpy()).tobytes())
    digest.update("\n".join(data.names).encode())
    return digest.hexdigest()


def split_of(problem: Problem, request: Request) -> Split:
    """Hold some of the training units out for the threshold, drawn by the request's seed; none where it is crossed."""
    units = len(problem.train)
    count = 0 if request.parts else thresholds.held_out_count(units, request.false_alarms)
    generator = torch.Generator().manual_seed(request.seed)
    return Split(problem, torch.randperm(units, generator=generator)[:count].sort().values.numpy())


def _balanced(split: Split, balance: bool) -> Tensor | None:
    """Weights that give every known group the same say."""
    if not balance:
        return None
    if split.problem.train_groups is None:
        raise InputError("balance needs known groups", "name them by --groups")
    groups = np.asarray(split.problem.train_groups)[split.chosen]
    _, place, count = np.unique(groups, return_inverse=True, return_counts=True)
    return torch.from_numpy(1 / count[place])


def _summary(
    request: Request,
    settings: dict[str, Any],
    outcome: Outcome,
    table: pd.DataFrame,
    test: pd.DataFrame | None,
    problem: Problem,
    detector: Detector,
) -> dict[str, Any]:
    note = findings.rare_or_hidden(table)
    if note:
        _say(f"note: {note}")
    pictures, examples = previews.of_units(request.source, problem.train, table)
    scale, drawn, known = maps.Scale.of(settings), None, None
    if scale is not None:
        drawn = gallery.of_run(
            detector, request.source, problem, table, test, settings["threshold"], scale, request.smoothing
        )
        known = None if problem.test is None else maps.gather_known(detector, problem.test, request.smoothing)
    return report.summarise(
        settings=settings,
        history=outcome.history,
        checks=settings["checks"],
        train=table,
        test=test,
        thumbnails=pictures,
        examples=examples,
        pixels=None if known is None or scale is None else findings.pixel_results(*known, scale.threshold),
        gallery=drawn,
        data_checks=data_checks.of_problem(problem, table, request.source),
        threshold=settings["threshold"],
        false_alarms=request.false_alarms,
        notes=[*settings["notes"], *([note] if note else [])],
    )


def _test_table(detector: Detector, test: Labelled, limits: calibrating.Limits | None) -> pd.DataFrame:
    table = pd.DataFrame({"unit": list(test.data.names), "score": scoring.score(detector, test.data).double().numpy()})
    table["label"] = pd.array([None] * len(table) if test.labels is None else test.labels.astype(bool), dtype="boolean")
    if test.groups is not None:
        table["group"] = np.asarray(test.groups).astype(str)
    return table if limits is None else table.assign(**limits(test))


def _default_out(request: Request) -> Path:
    """runs/SOURCE-DETECTOR, numbered when that is a finished run already."""
    stem = Path(getattr(request.source, "path", type(request.source).__name__)).stem or "data"
    base = Path("runs") / f"{stem}-{request.detector.split('(')[0]}"
    paths = (base if k == 1 else base.with_name(f"{base.name}-{k}") for k in range(1, 10_000))
    return next(path for path in paths if not storage.is_complete(path))


@contextmanager
def _progress() -> Iterator[Callable[[int, int, dict[str, float]], None] | None]:
    """A bar on stderr; nothing when that is not a terminal."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield None
        return
    with Progress(console=console, transient=True) as bar:
        task = bar.add_task("training", total=None)

        def show(done: int, total: int, row: dict[str, float]) -> None:
            bar.update(task, completed=done, total=total, description=f"training, mean score {row['score_mean']:.3g}")

        yield show


def _warn_of_failures(checks: Sequence[Any]) -> None:
    for check in checks:
        if not check.ok:
            text = f"check failed: {check.name}: {check.message}"
            Console(stderr=True).print(text, style="red", highlight=False, soft_wrap=True)


def _check_seed(seed: int) -> None:
    if not 0 <= seed < 2**63:
        raise InputError(f"seed must be from 0 to 2^63 - 1: got {seed}")


def _say(message: str) -> None:
    print(message, file=sys.stderr)

"""Fits logged to MLflow or TensorBoard when asked: settings, a row an epoch, final figures and the report.

A place is spelled `mlflow`, `mlflow:EXPERIMENT` (the server is MLflow's own setting, MLFLOW_TRACKING_URI),
`tensorboard` or `tensorboard:FOLDER`. Neither package is needed otherwise. A fit is never lost to its log: what goes
wrong once it has begun is a warning, and the fit goes on without one.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch

from ..errors import InputError
from ..report.report_page import to_markdown
from ..runs import store
from ..runs.scorer import Run

PLACES = ("mlflow", "tensorboard")
_FILES = (store.SETTINGS, store.HISTORY, store.REPORT_DATA, store.REPORT_PAGE)
# What every MLflow server takes of a parameter.
_MOST_LETTERS = 500
Progress = Callable[[int, int, dict[str, float]], None]


class Sink(Protocol):
    """Where one fit is logged."""

    def epoch(self, row: Mapping[str, float]) -> None:
        """A row of the history, with its `epoch`."""
        ...

    def finish(self, run: Run, figures: Mapping[str, float]) -> None:
        """The finished run, and its figures by name."""
        ...

    def close(self, whole: bool) -> None:
        """The end, which a fit that failed has too."""
        ...


class Tracker:
    """Passes a fit on to a sink, or to none."""

    def __init__(self, make: Callable[[str, Mapping[str, Any]], Sink] | None) -> None:
        self.make = make
        self.sink: Sink | None = None
        self.logged: set[int] = set()

    def start(self, name: str, settings: Mapping[str, Any]) -> None:
        """Begin a log under this name.

        Raises:
            InputError: nothing can be logged there.
        """
        if self.make is None:
            return
        try:
            self.sink = self.make(name, settings)
        except Exception as error:  # servers and packages have kinds of errors of their own
            hint = "is the server or folder there? MLflow's is in MLFLOW_TRACKING_URI"
            raise InputError(f"cannot log: {_first_line(error)}", hint) from error

    def beside(self, progress: Progress | None) -> Progress | None:
        """A progress that also logs each epoch; the same one where nothing is logged."""
        if self.sink is None:
            return progress

        def show(done: int, total: int, row: dict[str, float]) -> None:
            self._epoch(row)
            if progress:
                progress(done, total, row)

        return show

    def finish(self, run: Run) -> None:
        """Log what a finished run holds, and the epochs that are not logged yet."""
        if self.sink is None:
            return
        for row in run.history():
            if row["epoch"] not in self.logged:
                self._epoch(row)
        self._say(lambda sink: sink.finish(run, figures(run)))

    def close(self, whole: bool) -> None:
        self._say(lambda sink: sink.close(whole))

    def _epoch(self, row: dict[str, float]) -> None:
        self.logged.add(int(row["epoch"]))
        self._say(lambda sink: sink.epoch(row))

    def _say(self, tell: Callable[[Sink], None]) -> None:
        if self.sink is None:
            return
        try:
            tell(self.sink)
        except Exception as error:  # a lost log is no reason to lose a fit
            self.sink = None
            warnings.warn(f"logging has stopped: {_first_line(error)}", RuntimeWarning, stacklevel=2)


@contextmanager
def tracking(where: str, out: Path) -> Iterator[Tracker]:
    """A tracker for the fit that leaves the run `out`; "" logs nothing. The log is closed whatever happens."""
    tracker = Tracker(parse(where, out))
    try:
        yield tracker
    except BaseException:
        tracker.close(whole=False)
        raise
    tracker.close(whole=True)


def parse(where: str, out: Path) -> Callable[[str, Mapping[str, Any]], Sink] | None:
    """What makes the sink that is spelled `where`; None for "".

    Raises:
        InputError: there is no such place, or its package is not installed.
    """
    kind, _, rest = where.strip().partition(":")
    if not kind:
        return None
    if kind == "mlflow":
        _needed("mlflow")
        return lambda name, settings: MlflowSink(rest, name, settings)
    if kind == "tensorboard":
        _needed("tensorboard")
        folder = Path(rest) if rest else out.parent / "tensorboard"
        return lambda name, settings: TensorboardSink(folder / name, settings)
    raise InputError(f"fits are logged to {' or '.join(PLACES)}: got {where!r}")


def figures(run: Run) -> dict[str, float]:
    """The numbers that a run comes down to, by name: those of its report."""
    summary = run.report()
    values = {
        "threshold": summary["threshold"],
        "failed checks": sum(not check["ok"] for check in summary["checks"]),
        "effective sample share": summary["weights"]["share"],
        "training normals rejected": summary["rejected"]["share"],
        "held-out normals rejected": summary["held_out"]["share"],
    }
    if test := summary["test"]:
        values |= {"test normals rejected": test["rejected"]["share"], "anomalies caught": test["caught"]["share"]}
        values |= {name: row["value"] for name, row in test["metrics"].items()}
    values |= (summary.get("pixels") or {}).get("metrics", {})
    return {name: float(value) for name, value in values.items() if value is not None}


class MlflowSink:
    """A run of MLflow, by a client of its own: the active run of the process is left alone."""

    def __init__(self, experiment: str, name: str, settings: Mapping[str, Any]) -> None:
        from mlflow import MlflowClient

        self.client = MlflowClient()
        self.run = self.client.create_run(self._experiment(experiment or "tailwise"), run_name=name).info.run_id
        for key, value in settings.items():
            self.client.log_param(self.run, key, _text(value)[:_MOST_LETTERS])

    def _experiment(self, name: str) -> str:
        experiment = self.client.get_experiment_by_name(name)
        return str(self.client.create_experiment(name) if experiment is None else experiment.experiment_id)

    def epoch(self, row: Mapping[str, float]) -> None:
        for name, value in _values(row).items():
            self.client.log_metric(self.run, name, value, step=int(row["epoch"]))

    def finish(self, run: Run, figures: Mapping[str, float]) -> None:
        for name, value in figures.items():
            # MLflow takes letters, digits and _ - . / and blanks only.
            self.client.log_metric(self.run, " ".join(re.sub(r"[^\w./ -]", "", name).split()), value)
        for name in (name for name in _FILES if (run.path / name).exists()):
            self.client.log_artifact(self.run, str(run.path / name))

    def close(self, whole: bool) -> None:
        self.client.set_terminated(self.run, "FINISHED" if whole else "FAILED")


class TensorboardSink:
    """A folder of events: curves, distributions of scores and weights, settings and report as text."""

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(folder))
        lines = [f"| {name} | {_cell(value)} |" for name, value in settings.items()]
        self.writer.add_text("settings", "\n".join(["| setting | value |", "|---|---|", *lines]))

    def epoch(self, row: Mapping[str, float]) -> None:
        for name, value in _values(row).items():
            self.writer.add_scalar(f"training/{name}", value, int(row["epoch"]))

    def finish(self, run: Run, figures: Mapping[str, float]) -> None:
        for name, value in figures.items():
            self.writer.add_scalar(f"final/{name}", value)
        scores = run.scores()
        for name in ("score", "weight"):
            values = torch.tensor(scores[name].dropna().to_numpy())
            if len(values):
                self.writer.add_histogram(f"final/{name}", values)
        self.writer.add_text("report", to_markdown(run.report()))

    def close(self, whole: bool) -> None:
        self.writer.close()


def _values(row: Mapping[str, float]) -> dict[str, float]:
    return {name: float(value) for name, value in row.items() if name != "epoch" and value is not None}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _cell(value: Any) -> str:
    return " ".join(_text(value).replace("|", "\\|").split())


def _needed(name: str) -> None:
    try:
        if name == "mlflow":
            import mlflow  # noqa: F401
        else:
            import torch.utils.tensorboard  # noqa: F401
    except ImportError as error:
        raise InputError(f"logging to {name} needs the package {name}", f"pip install 'tailwise[{name}]'") from error


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]

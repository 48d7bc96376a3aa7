"""Logs by fakes that keep what they are told, by what a fit must not lose, and by real packages where there are any."""

import importlib.util
import sys
import types

import numpy as np
import pandas as pd
import pytest

from tailwise import open_run
from tailwise.cli import main
from tailwise.errors import InputError
from tailwise.integrations import trackers


@pytest.fixture
def table(tmp_path):
    generator = np.random.default_rng(0)
    rows = pd.DataFrame(generator.normal(size=(90, 4)), columns=list("abcd"))
    rows["odd"] = (np.arange(90) % 6 == 0).astype(int)
    rows.loc[rows["odd"] == 1, "a"] += 6
    rows.to_csv(tmp_path / "parts.csv", index=False)
    return tmp_path / "parts.csv"


def fit(table, log, *more):
    words = ["--detector", "AutoEncoder(hidden=(8,), code=2)", "--epochs", "4", "--labels", "odd", "--log", log, *more]
    return main.run(["fit", str(table), *words, "--out", str(table.parent / "run")])


class Client:
    """MLflow's client as far as it is used."""

    made: list = []  # noqa: RUF012
    fails_at = ""

    def __init__(self):
        self.params, self.metrics, self.files, self.ends = {}, [], [], []
        type(self).made.append(self)

    def get_experiment_by_name(self, name):
        self.experiment = name

    def create_experiment(self, name):
        return "7"

    def create_run(self, experiment, run_name):
        assert experiment == "7"
        self.name = run_name
        return types.SimpleNamespace(info=types.SimpleNamespace(run_id="r"))

    def log_param(self, run, key, value):
        assert len(value) <= 500
        self.params[key] = value

    def log_metric(self, run, key, value, step=None):
        if key == type(self).fails_at:
            raise ConnectionError("the server has gone\nand more")
        assert isinstance(value, float)
        assert set(key) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./ ")
        self.metrics.append((key, value, step))

    def log_artifact(self, run, path):
        self.files.append(path)

    def set_terminated(self, run, status):
        self.ends.append(status)


@pytest.fixture
def client(monkeypatch):
    module = types.ModuleType("mlflow")
    kept = type("Client", (Client,), {"made": []})
    module.MlflowClient = kept
    monkeypatch.setitem(sys.modules, "mlflow", module)
    return kept


def test_mlflow_is_told_settings_epochs_figures_and_report(table, client, capsys):
    assert fit(table, "mlflow:parts") in (0, 3)
    (one,) = client.made
    run = open_run(table.parent / "run")
    assert (one.experiment, one.name) == ("parts", "run")
    assert one.params["detector"] == run.settings.detector
    assert one.params["seed"] == "0"
    history = run.history()
    for column in ("loss", "score_mean"):
        logged = [(step, value) for name, value, step in one.metrics if name == column]
        assert logged == [(row["epoch"], row[column]) for row in history]
    final = {name: value for name, value, step in one.metrics if step is None}
    assert final["threshold"] == run.settings.threshold
    assert final["AUROC"] == run.report()["test"]["metrics"]["AUROC"]["value"]
    assert "FPR at 95 TPR" in final
    assert str(run.path / "report.html") in one.files
    assert one.ends == ["FINISHED"]
    assert not hasattr(run.settings, "log")


@pytest.mark.filterwarnings("default:logging has stopped:RuntimeWarning")
def test_a_lost_server_costs_the_log_and_not_the_fit(table, client, capsys):
    client.fails_at = "loss"
    assert fit(table, "mlflow") in (0, 3)
    said = capsys.readouterr().err
    assert said.count("logging has stopped: the server has gone") == 1
    assert "and more" not in said
    assert open_run(table.parent / "run").settings.status == "complete"


def test_a_fit_that_fails_is_told_as_failed(table, client, capsys):
    assert fit(table, "mlflow", "--lr", "1e30") == 2
    assert client.made[0].ends == ["FAILED"]
    client.made.clear()
    assert fit(table, "mlflow", "--false-alarms", "7") == 2
    assert client.made == []


@pytest.mark.parametrize("name", trackers.PLACES)
def test_a_missing_package_is_told_before_anything_is_written(table, name, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, {"mlflow": "mlflow", "tensorboard": "torch.utils.tensorboard"}[name], None)
    assert fit(table, name) == 2
    said = capsys.readouterr().err
    assert f"needs the package {name}" in said
    assert f"pip install 'tailwise[{name}]'" in said
    assert not (table.parent / "run").exists()


def test_another_place_is_refused(tmp_path):
    assert trackers.parse("", tmp_path) is None
    with pytest.raises(InputError, match="mlflow or tensorboard: got 'wandb'"):
        trackers.parse("wandb", tmp_path)


class Writer:
    made: list = []  # noqa: RUF012

    def __init__(self, folder):
        self.folder, self.scalars, self.texts, self.counts, self.closed = folder, [], {}, {}, 0
        type(self).made.append(self)

    def add_scalar(self, name, value, step=None):
        self.scalars.append((name, value, step))

    def add_text(self, name, text):
        self.texts[name] = text

    def add_histogram(self, name, values):
        self.counts[name] = len(values)

    def close(self):
        self.closed += 1


def test_tensorboard_is_told_the_same(table, monkeypatch, capsys):
    module = types.ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = kept = type("Writer", (Writer,), {"made": []})
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    assert fit(table, "tensorboard") in (0, 3)
    (one,) = kept.made
    run = open_run(table.parent / "run")
    assert one.folder == str(table.parent / "tensorboard" / "run")
    assert [step for name, _, step in one.scalars if name == "training/loss"] == [1, 2, 3, 4]
    assert ("final/threshold", run.settings.threshold, None) in one.scalars
    assert one.counts == {"final/score": len(run.scores()), "final/weight": run.settings.n_train}
    assert one.texts["report"].startswith("# AutoEncoder")
    assert "| detector |" in one.texts["settings"]
    assert one.closed == 1


def test_a_solved_detector_logs_its_solutions_once(table, client, capsys):
    words = ["--detector", "gaussian", "--log", "mlflow", "--out", str(table.parent / "solved")]
    assert main.run(["fit", str(table), "--labels", "odd", *words]) in (0, 3)
    steps = [step for name, _, step in client.made[0].metrics if name == "score_mean"]
    assert steps == list(range(1, len(open_run(table.parent / "solved").history()) + 1))


@pytest.mark.skipif(importlib.util.find_spec("tensorboard") is None, reason="tensorboard is not installed")
def test_tensorboard_itself_reads_what_is_written(table, capsys):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert fit(table, f"tensorboard:{table.parent / 'events'}") in (0, 3)
    read = EventAccumulator(str(table.parent / "events" / "run")).Reload()
    losses = [row["loss"] for row in open_run(table.parent / "run").history()]
    assert [event.value for event in read.Scalars("training/loss")] == pytest.approx(losses, rel=1e-6)


@pytest.mark.skipif(importlib.util.find_spec("mlflow") is None, reason="mlflow is not installed")
def test_mlflow_itself_reads_what_is_written(table, monkeypatch, capsys):
    from mlflow import MlflowClient

    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (table.parent / "mlruns").as_uri())
    assert fit(table, "mlflow:parts") in (0, 3)
    client = MlflowClient((table.parent / "mlruns").as_uri())
    (found,) = client.search_runs([client.get_experiment_by_name("parts").experiment_id])
    losses = [row["loss"] for row in open_run(table.parent / "run").history()]
    assert [point.value for point in client.get_metric_history(found.info.run_id, "loss")] == pytest.approx(losses)
    assert "report.html" in [file.path for file in client.list_artifacts(found.info.run_id)]
    assert found.info.status == "FINISHED"

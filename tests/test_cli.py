"""The command line: options are parameters, results on stdout, messages on stderr, exit statuses kept."""

import inspect
import io
import logging
import re
import subprocess
import sys
from dataclasses import fields, is_dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tailwise import open_run
from tailwise.cli import commands, main
from tailwise.core import registry
from tailwise.training.options import Training


@pytest.fixture
def table(tmp_path: Path) -> Path:
    generator = np.random.default_rng(0)
    path = tmp_path / "parts.csv"
    pd.DataFrame(generator.normal(size=(120, 5)), columns=list("abcde")).to_csv(path, index=False)
    return path


@pytest.mark.parametrize("command", commands.COMMANDS, ids=lambda command: command.__name__)
def test_options_are_the_parameters(command: object, capsys: pytest.CaptureFixture[str]) -> None:
    name, parameters = command.__name__, inspect.signature(command).parameters  # type: ignore[attr-defined,arg-type]
    assert main.run([name, "--help"]) == 0
    options = set(re.findall(r"--([a-z][a-z-]+)", capsys.readouterr().out))
    # A switch that is off by default has a form that turns it off again.
    options = {option for option in options if option.removeprefix("no-") not in options - {option}}
    options -= {"help", "version", "out"}
    # A parameter of several options, such as how data is read, stands for its fields.
    values = {name: parameter.default for name, parameter in parameters.items()}
    names = [[f.name for f in fields(value)] if is_dataclass(value) else [name] for name, value in values.items()]
    expected = {each.replace("_", "-") for several in names for each in several} - {"out"}
    assert options == expected
    documented = inspect.getdoc(command) or ""
    assert all(re.search(rf"^\s+{parameter}: ", documented, re.M) for parameter in parameters)


def test_fit_and_score(table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    status = main.run(
        ["fit", str(table), "--detector", "gaussian", "--weighting", "", "--out", str(run), "--seed", "4"]
    )
    printed = capsys.readouterr()
    assert status == 0
    assert printed.out == f"{run}\n"
    assert main.run(["score", str(run), str(table), "--seed", "4"]) == 0
    scored = pd.read_csv(io.StringIO(capsys.readouterr().out))
    assert list(scored.columns) == ["sample", "score", "threshold", "flagged", "p_value", "standardised", "cluster"]
    assert len(scored) == 120
    assert main.run(["score", str(run), str(table), "--out", str(tmp_path / "s.parquet")]) == 0
    assert capsys.readouterr().out == ""
    assert np.allclose(pd.read_parquet(tmp_path / "s.parquet")["score"], scored["score"])


def test_the_recorded_command_repeats_the_fit(table: Path, tmp_path: Path) -> None:
    import shlex

    first = commands.fit(str(table), detector="AutoEncoder(code=2)", weighting="Focal(gamma=2.0)",
                         training=Training(epochs=3, batch_size=32, resample=True), out=tmp_path / "one")  # fmt: skip
    words = shlex.split(first.settings.command)
    assert main.run([*words[1:], "--out", str(tmp_path / "two")]) in (0, 3)
    pd.testing.assert_frame_equal(first.scores(), open_run(tmp_path / "two").scores())


@pytest.mark.parametrize(
    ("arguments", "error", "hint"),
    [
        (["fit", "nowhere"], "nowhere", "looked|get|mean|TAILWISE_DATA|path"),
        (["fit", "{table}", "--detector", "deep-svd"], "no detector is called 'deep-svd'", "did you mean 'deep-svdd'"),
        (["fit", "{table}", "--weighting", "Importence()"], "Importence", "did you mean 'Importance'"),
        (["fit", "{table}", "--epochs", "0"], "epochs must be a whole number from 1 to 1000000, or None: got 0", ""),
        (["fit", "{table}", "--epochs", "many"], "many", "--help"),
        (["fit", "{table}", "--epoch", "3"], "--epoch", "--help"),
        (["fit", "{table}", "--false-alarms", "5"], "between 0 and 1: got 5", ""),
        (["fit", "{table}", "--device", "abacus"], "abacus", "cpu"),
        (["score", "{table}", "{table}"], "is not a run", "tailwise fit"),
        (["weigh", "{table}"], "5 numeric columns", "--column"),
        (["weigh", "{table}", "--column", "f"], "no numeric column 'f'", "choose one of|did you mean"),
        (["describe", "autoencodr"], "autoencodr", "did you mean 'autoencoder'"),
        (["fits"], "fits", "--help"),
        (["fit", ""], "no path was given", ""),
        (["fit", "{table}", "--seed", "-1"], "seed must be from 0", ""),
        (["fit", "{table}", "--seed", str(2**64)], "seed must be from 0", ""),
        (["fit", "{table}", "--lr", "inf"], "lr must be a finite number of at least 0", ""),
        (["fit", "{table}", "--device", "meta"], "no device 'meta'", "cpu"),
        (["fit", "{table}", "--balance"], "balance needs groups", "--groups"),
        (["fit", "{table}", "--max-memory", "2GB"], "auto has no setting max_memory", "leave --max-memory out"),
        (["fit", "{table}", "--detector", "autoencoder", "--lr", "1e30"], "loss is not finite", "learning rate"),
        (
            ["fit", "{table}", "--detector", "AutoEncoder(hidden=(-5,))"],
            "hidden must be a tuple",
            "describe",
        ),
        (
            ["fit", "{table}", "--detector", "DeepSVDD(code=2.5)"],
            "code must be a whole number",
            "describe",
        ),
        (["fit", "{table}", "--detector", "AutoEncoder(hidden=(10000000000000,))"], "not enough memory", "smaller"),
        (["demo", "--out", "{table}"], "cannot write", "choose a folder"),
        (["weigh", "{table}", "--column", "a", "--out", "{table}/w.csv"], "there is no folder", "choose another --out"),
    ],
)
def test_bad_input(
    arguments: list[str], error: str, hint: str, table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert main.run([argument.format(table=table) for argument in arguments]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    lines = printed.err.splitlines()
    assert [line for line in lines if line.startswith("error: ") and error in line]
    assert not hint or [line for line in lines if line.startswith("hint: ") and re.search(hint, line)]
    assert len(lines) <= 2
    assert not (tmp_path / "runs").exists()


def test_a_failed_check_is_status_3(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A detector that cannot learn (its learning rate is next to nothing) is told, not shipped in silence."""
    path = tmp_path / "parts.csv"
    pd.DataFrame(np.random.default_rng(0).normal(size=(60, 5)), columns=list("abcde")).to_csv(path, index=False)
    run = tmp_path / "run"
    assert (
        main.run(
            [
                "fit",
                str(path),
                "--detector",
                "autoencoder",
                "--weighting",
                "",
                "--lr",
                "1e-12",
                "--epochs",
                "3",
                "--out",
                str(run),
            ]
        )
        == 3
    )
    printed = capsys.readouterr()
    assert "check failed: the loss fell" in " ".join(printed.err.split())
    assert printed.out == f"{run}\n"
    assert not next(c for c in open_run(run).settings.checks if c["name"] == "the loss fell")["ok"]


def test_a_broken_limit_is_status_4(table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frame = pd.read_csv(table)
    frame["kind"] = np.where(np.arange(120) < 100, "usual", "rare")
    frame.loc[100:, list("abcde")] *= 4
    frame.to_csv(tmp_path / "kinds.csv", index=False)
    asked = ["fit", str(tmp_path / "kinds.csv"), "--groups", "kind", "--detector", "gaussian", "--weighting", "",
             "--scores", "own", "--cross", "3", "--max-group-fpr", "0.1"]  # fmt: skip
    assert main.run([*asked, "--out", str(tmp_path / "run")]) == 4
    printed = capsys.readouterr()
    assert printed.out == f"{tmp_path / 'run'}\n"
    assert "error: kind 'rare' has" in printed.err
    assert "--per-group" in printed.err
    assert open_run(tmp_path / "run").settings.status == "complete"
    assert main.run(["thresholds", str(tmp_path / "run"), "--per-day", "2000"]) == 0
    rows = pd.read_csv(io.StringIO(capsys.readouterr().out))
    assert list(rows["false_alarms"]) == [0.01, 0.05, 0.1]
    assert list(rows["per_day"]) == [20, 100, 200]
    assert rows["threshold"].is_monotonic_decreasing
    assert main.run(["thresholds", str(tmp_path / "run"), "--per-day", "0"]) == 2


def test_weigh(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pd.DataFrame({"id": list("abcd"), "score": [1.0, 2.0, 3.0, 9.0]}).to_csv(tmp_path / "scores.csv", index=False)
    assert main.run(["weigh", str(tmp_path / "scores.csv"), "--weighting", "Focal(gamma=1.0)"]) == 0
    table = pd.read_csv(io.StringIO(capsys.readouterr().out))
    assert list(table.columns) == ["id", "score", "weight"]
    assert np.allclose(table["weight"], table["score"] / table["score"].mean())


def test_help_does_not_import_torch() -> None:
    code = "import sys, tailwise.cli.main as c; c.run(['--help']); sys.exit(bool({'torch', 'pandas'} & {*sys.modules}))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


def test_names_and_describe(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["names", "detector"]) == 0
    names = capsys.readouterr().out.removeprefix("detector: ").strip().split(", ")
    assert {"autoencoder", "deep-svdd", "gaussian", "nearest-neighbours"} <= set(names)
    for name in names:
        assert main.run(["describe", name]) == 0
        assert len(capsys.readouterr().out) > 100


def test_columns_choose_the_features(table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Beside a column of text, and with a comma in a name: the hint that names --columns can be followed."""
    frame = pd.read_csv(table).rename(columns={"b": "b, net"}).assign(note="fine")
    frame.to_csv(tmp_path / "notes.csv", index=False)
    fit = [
        "fit",
        str(tmp_path / "notes.csv"),
        "--detector",
        "gaussian",
        "--weighting",
        "",
        "--out",
        str(tmp_path / "run"),
    ]
    assert main.run(fit) == 2
    said = capsys.readouterr().err
    assert "'note'" in said
    assert "--columns" in said
    assert main.run([*fit, "--columns", 'c, "b, net"']) == 0
    run = open_run(tmp_path / "run")
    assert run.settings.features == ("c", "b, net")
    frame[["b, net", "c"]].to_csv(tmp_path / "two.csv", index=False)
    assert main.run(["score", str(run.path), str(tmp_path / "two.csv"), "--out", str(tmp_path / "scores.csv")]) == 0
    assert np.allclose(pd.read_csv(tmp_path / "scores.csv")["score"], run.scores()["score"], atol=1e-5)


@pytest.mark.parametrize(("columns", "error"), [("a,,b", "no name"), ("a,bb", "no column 'bb'"), ("a,a", "twice")])
def test_columns_that_cannot_be_read(
    columns: str, error: str, table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.run(["fit", str(table), "--columns", columns, "--out", str(tmp_path / "run")]) == 2
    assert error in capsys.readouterr().err


def test_columns_of_something_else_are_refused_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "cube.npy", np.random.default_rng(0).normal(size=(6, 7, 8)))
    assert main.run(["fit", str(tmp_path / "cube.npy"), "--columns", "a", "--out", str(tmp_path / "run")]) == 2
    assert "columns does not apply to Cube" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (["--batch-size", "0"], "batch_size must be above 0"),
        (["--threshold", "nan"], "threshold must be a number"),
        (["--seed", "-1"], "seed must be from 0"),
        (["--device", "meta"], "no device"),
    ],
)
def test_bad_options_of_score(
    options: list[str], error: str, table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = str(tmp_path / "run")
    assert main.run(["fit", str(table), "--detector", "gaussian", "--out", run]) == 0
    capsys.readouterr()
    assert main.run(["score", run, str(table), *options]) == 2
    printed = capsys.readouterr()
    assert (printed.out, error in printed.err) == ("", True)
    assert main.run(["score", run, f"Table(path={str(table)!r}), Table(path={str(table)!r})"]) == 2


@pytest.mark.parametrize("option", [["--false-discoveries", "0.1"], ["--maps", "m"], ["--map-threshold", "1"]])
def test_options_that_a_map_of_a_cube_has_not_are_refused(
    option: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.run(["score", "run", "cube.mat", "--out", "c.mat", *option]) == 2
    assert f"{option[0]} is not for the map of a cube" in capsys.readouterr().err


def test_a_message_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "ragged.csv").write_text("a,b\n1,2\n3,4,5\n")
    assert main.run(["fit", str(tmp_path / "ragged.csv"), "--out", str(tmp_path / "run")]) == 2
    assert [line.split()[0] for line in capsys.readouterr().err.splitlines()] == ["error:", "hint:"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device that is always full")
@pytest.mark.parametrize("arguments", [["names"], ["fit", "--help"]])
def test_a_full_standard_output_is_told(arguments: list[str]) -> None:
    with open("/dev/full", "w") as full:
        ended = subprocess.run(
            [sys.executable, "-m", "tailwise", *arguments], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: the system: No space left on device\nhint: ")


def test_an_interrupted_command_says_how_to_go_on(
    monkeypatch: pytest.MonkeyPatch, table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("tailwise.training.fit.fit", interrupt)
    assert main.run(["fit", str(table), "--out", str(tmp_path / "run")]) == 130
    assert "the same command resumes" in capsys.readouterr().err


def test_messages_are_lines_of_the_command_line_and_records_in_python(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Eight rows cannot be held out: the command warns on stderr, the function through the logger `tailwise`."""
    few = tmp_path / "few.csv"
    pd.read_csv(table).head(3).to_csv(few, index=False)
    words = ["fit", str(few), "--detector", "gaussian", "--scores", "own"]
    handlers = list(logging.getLogger("tailwise").handlers)
    main.run([*words, "--out", str(tmp_path / "command")])
    assert "warning: there are too few samples to hold any out" in capsys.readouterr().err
    assert logging.getLogger("tailwise").handlers == handlers
    commands.fit(str(few), detector="gaussian", scores="own", out=tmp_path / "python")
    assert capsys.readouterr().err == ""
    warned = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert any(text.startswith("there are too few samples to hold any out") for text in warned)


def test_the_help_of_names_lists_every_kind() -> None:
    said = re.search(r"kind: only this kind: (.*)\.", commands.names.__doc__ or "")
    assert said is not None
    assert sorted(re.split(r", | or ", said[1])) == registry.kinds()

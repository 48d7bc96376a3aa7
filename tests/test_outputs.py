"""Where commands write: no input, no run and no half-result is lost to an --out that cannot be meant."""

import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tailwise.cli import main
from tailwise.errors import InputError
from tailwise.runs import files, outputs
from tailwise.runs.scorer import Run
from tailwise.sources.cube import Cube
from tailwise.sources.images import ImageFolder
from tailwise.sources.table import Table
from tailwise.workflows import weigh

COMMANDS = (
    "score run new.csv --out {}.csv",
    "score run new.csv --out {}.parquet",
    "score run new.csv --out {}",
    "weigh scores.csv --out {}.csv",
    "drift run new.csv --out {}.json",
    "explain run new.csv --out {}.html",
    "explain run --weights --out {}.json",
    "report run --out {}.md",
    "compare run other --out {}.html",
    "export run --out {}.onnx",
)


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two runs and tables."""
    home = tmp_path_factory.mktemp("home")
    draw = np.random.default_rng(0)
    for name in ("parts.csv", "new.csv"):
        pd.DataFrame(draw.normal(size=(60, 3)), columns=list("abc")).to_csv(home / name, index=False)
    for name in ("run", "other"):
        assert main.run(["fit", str(home / "parts.csv"), "--detector", "gaussian", "--out", str(home / name)]) == 0
    pd.DataFrame({"score": draw.normal(size=9)}).to_csv(home / "scores.csv", index=False)
    return home


@pytest.fixture
def home(fitted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, which is the current folder."""
    shutil.copytree(fitted, tmp_path / "home")
    monkeypatch.chdir(tmp_path / "home")
    return tmp_path / "home"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refused(command: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The command ends with this error, and nothing has changed in the current folder."""
    before = contents(Path())
    capsys.readouterr()
    assert main.run(command.split()) == 2
    assert said in capsys.readouterr().err
    assert contents(Path()) == before


@pytest.mark.parametrize("command", COMMANDS)
def test_an_out_that_cannot_be_written_is_told_before_the_work(
    home: Path, command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def work(*_: object) -> None:
        raise AssertionError("the work was begun")

    for name in ("detector", "samples", "scores", "clusters", "report"):
        monkeypatch.setattr(Run, name, work)
    monkeypatch.setattr(weigh, "weigh_table", work)
    refused(command.format("missing/result"), "there is no folder missing", capsys)
    refused(command.format("new.csv/result"), "there is no folder new.csv", capsys)
    Path(command.split()[-1].format("folder")).mkdir()
    Path(command.split()[-1].format("folder"), "mine").touch()
    refused(command.format("folder"), "is there already, and", capsys)


@pytest.mark.parametrize(
    "command",
    [
        "score run new.csv --out run/scores.parquet",
        "score run new.csv --out other/test_scores.parquet",
        "weigh scores.csv --out run/scores.parquet",
        "drift run new.csv --out run/report.json",
        "explain run new.csv --out run/report.html",
        "report run --out run/report.json",
        "report run --out other/report.html",
        "compare run other --out run/settings.json",
        "export run --out run/backbone.onnx",
    ],
)
def test_nothing_takes_the_place_of_a_file_of_a_run(
    home: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    refused(command, "is a file of the run", capsys)


def test_what_only_has_such_a_name_is_written(home: Path) -> None:
    (home / "run" / "report.html").unlink()
    for out in ("run/report.html", str(home / "run" / ".." / "run" / "report.html"), "report.html", "run/page.html"):
        assert main.run(["report", "run", "--out", out]) == 0
        assert Path(out).exists()
    assert main.run(["score", "run", "new.csv", "--out", "scores.parquet"]) == 0


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("score run new.csv --out new.csv", "take the place of the data"),
        ("score run new.csv --out run/../new.csv", "take the place of the data"),
        ("score run link.csv --out new.csv", "take the place of the data"),
        ("score run new.csv --out link.csv", "take the place of the data"),
        ("score run rows --out rows/a.parquet", "lies in the data"),
        ("score run rows --out rows/more.csv", "lies in the data"),
        ("drift run rows --out rows/drift.json", "lies in the data"),
        ("explain run new.txt --out new.txt", "take the place of the data"),
        ("explain run --out parts.txt --training-data parts.txt", "take the place of the data"),
        ("triage rows --out rows", "lies in the data"),
        ("watch run rows --out rows --once", "lies in the data"),
        ("watch run kept.csv --out . --once", "take the place of the data"),
    ],
)
def test_no_command_replaces_what_it_reads(
    home: Path, command: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("link.csv").symlink_to("new.csv")
    for name in ("new.txt", "kept.csv"):
        shutil.copy("new.csv", name)
    shutil.copy("parts.csv", "parts.txt")
    Path("rows").mkdir()
    pd.read_csv("new.csv").to_parquet("rows/a.parquet")
    refused(command, said, capsys)


def test_files_that_options_name_are_read_too(tmp_path: Path) -> None:
    for name in ("scene.npy", "white.npy"):
        np.save(tmp_path / name, np.ones((2, 2, 3)))
    cube = Cube(str(tmp_path / "scene.npy"), white=str(tmp_path / "white.npy"))
    with pytest.raises(InputError, match="take the place of the data"):
        outputs.check_file(tmp_path / "white.npy", cube)
    outputs.check_file(tmp_path / "map.npy", cube)


def test_a_table_may_lie_among_pictures(tmp_path: Path) -> None:
    source = ImageFolder(str(tmp_path))
    outputs.check_file(tmp_path / "scores.csv", source)
    for name in ("map.TIF", "scores.npy", "folder"):
        with pytest.raises(InputError, match="lies in the data"):
            outputs.check_file(tmp_path / name, source)


def test_a_folder_that_takes_no_files_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(files.CannotWrite, match="cannot write to"):
        outputs.check_file(tmp_path / "scores.csv", Table("nowhere.csv"))

"""A run finds its data from any folder, and where both moved; what merely has the same name is not taken for it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tailwise.cli.main import run
from tailwise.runs.scorer import open_run
from tailwise.runs.settings import seal

GENERATOR = np.random.default_rng(0)


def a_table(folder: Path) -> list[str]:
    pd.DataFrame(GENERATOR.normal(size=(80, 3)), columns=list("abc")).to_csv(folder / "data.csv", index=False)
    return ["data.csv"]


def images_with_groups(folder: Path) -> list[str]:
    (folder / "photos").mkdir()
    rows = []
    for place in range(40):
        pixels = GENERATOR.normal(120, 9, size=(8, 8)).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / "photos" / f"{place}.png")
        rows.append({"file": f"{place}.png", "board": "ab"[place % 2]})
    pd.DataFrame(rows).to_csv(folder / "boards.csv", index=False)
    return ["photos", "--groups", "boards.csv", "--read", "pixels", "--size", "8", "--channels", "1"]


def a_cube_with_references(folder: Path) -> list[str]:
    np.savez(folder / "scan.npz", cube=GENERATOR.normal(50, 3, size=(12, 10, 5)))
    np.savez(folder / "white.npz", cube=np.full((2, 10, 5), 200.0))
    np.savez(folder / "black.npz", cube=np.full((2, 10, 5), 10.0))
    return ["scan.npz", "--white", "white.npz", "--dark", "black.npz"]


@pytest.fixture(params=[a_table, images_with_groups, a_cube_with_references])
def project(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with data and a run, which was fitted there by relative paths."""
    folder = tmp_path / "project"
    folder.mkdir()
    make: Callable[[Path], list[str]] = request.param
    words = make(folder)
    monkeypatch.chdir(folder)
    monkeypatch.delenv("TAILWISE_DATA", raising=False)
    assert run(["fit", *words, "--detector", "gaussian", "--out", "run"]) in (0, 3)
    return folder


def explained(fitted: Path, out: Path) -> dict[str, object]:
    assert run(["explain", str(fitted), "--out", str(out)]) == 0
    found: dict[str, object] = json.loads(out.read_text(encoding="utf-8"))
    return found


def test_from_another_folder(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = explained(Path("run"), tmp_path / "before.json")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    # Something else of the same names lies there.
    for path in project.iterdir():
        if path.is_file():
            (tmp_path / "elsewhere" / path.name).write_text("something else", encoding="utf-8")
    assert explained(Path("../project/run"), tmp_path / "after.json") == before
    # What is read beside the data to score is found as well.
    data = next(path for path in (project / "data.csv", project / "photos", project / "scan.npz") if path.exists())
    assert run(["score", str(project / "run"), str(data), "--out", "scores.csv"]) == 0
    assert run(["drift", str(project / "run"), str(data)]) == 0
    assert run(["report", str(project / "run")]) == 0


def test_moved_together(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a copy stayed behind, and changed since."""
    before = explained(Path("run"), tmp_path / "before.json")
    monkeypatch.chdir(tmp_path)
    shutil.copytree(project, tmp_path / "deeper" / "copy")
    if (project / "data.csv").exists():
        a_table(project)
    assert explained(Path("deeper/copy/run"), tmp_path / "copied.json") == before
    shutil.move(project, tmp_path / "deeper" / "moved")
    if not (tmp_path / "deeper" / "moved" / "data.csv").exists():
        assert explained(Path("deeper/moved/run"), tmp_path / "moved.json") == before


def test_a_run_that_moved_alone_finds_the_data_in_its_old_place(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = explained(Path("run"), tmp_path / "before.json")
    monkeypatch.chdir(tmp_path)
    shutil.move(project / "run", tmp_path / "run")
    assert explained(tmp_path / "run", tmp_path / "after.json") == before
    assert f"the training data is read from {project}" in capsys.readouterr().err


def test_data_that_is_gone_is_asked_for(
    project: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.move(project / "run", tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    shutil.rmtree(project)
    assert run(["explain", "run"]) == 2
    assert "no file or folder" in capsys.readouterr().err


def test_the_settings_spell_the_source_as_it_was_given(project: Path) -> None:
    settings = open_run("run").settings
    assert str(project) not in settings.source
    assert settings.home == str(project / "run")
    assert set(settings.places.values()) <= {str(path) for path in project.iterdir()}
    assert str(project) not in (project / "run" / "report.json").read_text(encoding="utf-8")


def test_a_name_in_the_data_folder_is_no_file_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Groups that lie among the images are not exchanged for a file of the same name in the current folder."""
    words = images_with_groups(tmp_path)
    shutil.copy(tmp_path / "boards.csv", tmp_path / "photos" / "boards.csv")
    (tmp_path / "boards.csv").write_text("file,board\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert run(["fit", *words, "--detector", "gaussian", "--out", "run"]) in (0, 3)
    assert set(open_run("run").settings.places) == {"photos"}
    monkeypatch.chdir(tmp_path / "photos")
    assert run(["explain", str(tmp_path / "run")]) == 0


@pytest.fixture
def private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], Path]:
    """Makes a run of a stranger that says it was fitted on files of the reader's, whose names it guessed."""
    monkeypatch.delenv("TAILWISE_DATA", raising=False)

    def forge(named: str, spelling: str) -> Path:
        folder = tmp_path / "stranger"
        folder.mkdir()
        monkeypatch.chdir(folder)
        words = images_with_groups(folder) if named == "photos" else a_table(folder)
        words = words[:1] + words[3:] if named == "photos" else words
        assert run(["fit", *words, "--detector", "gaussian", "--out", "run"]) in (0, 3)
        settings = json.loads((folder / "run" / "settings.json").read_text(encoding="utf-8"))
        settings["source"] = settings["source"].replace(repr(words[0]), spelling)
        settings["places"], settings["home"] = {}, ""
        settings["seal"] = seal(settings)
        (folder / "run" / "settings.json").write_text(json.dumps(settings), encoding="utf-8")
        (tmp_path / "mine").mkdir()
        (images_with_groups if named == "photos" else a_table)(tmp_path / "mine")
        (tmp_path / "work").mkdir()
        shutil.move(folder / "run", tmp_path / "work" / "run")
        monkeypatch.chdir(tmp_path / "work")
        return tmp_path / "mine" / words[0]

    return forge


@pytest.mark.parametrize("words", [[], ["--weights"], ["--worst", "1", "--out", "why.html"]])
@pytest.mark.parametrize("named", ["photos", "data.csv"])
@pytest.mark.parametrize("way", ["absolute", "climbing", "linked"])
def test_a_run_of_a_stranger_shows_nothing_of_the_readers(
    private: Callable[[str, str], Path],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    named: str,
    way: str,
    words: list[str],
) -> None:
    spelling = {"absolute": str(tmp_path / "mine" / named), "climbing": f"../mine/{named}", "linked": f"link-{named}"}
    mine = private(named, repr(spelling[way]))
    if way == "linked":
        Path(f"link-{named}").symlink_to(mine)
    capsys.readouterr()
    assert run(["explain", "run", *words]) == 2
    said = capsys.readouterr()
    assert "outside the current folder, and that is not what the fit saw" in said.err
    assert "--training-data" in said.err
    assert not said.out
    assert not Path("why.html").exists()
    # Who says that it may be shown, gets it.
    assert run(["explain", "run", *words, "--training-data", str(mine)]) == 0


def test_links_that_a_strangers_run_asks_to_follow_lead_nowhere(
    private: Callable[[str, str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = private("photos", "'bait', follow_links=True")
    Path("bait").mkdir()
    for path in mine.iterdir():
        Path("bait", path.name).symlink_to(path)
    assert run(["explain", "run"]) == 2
    assert "not what the fit saw" in capsys.readouterr().err


def test_data_that_changed_is_shown_in_the_current_folder_or_where_it_is_named(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if not (project / "data.csv").exists():
        pytest.skip("one sort of data is enough")
    a_table(project)
    assert run(["explain", "run"]) == 0
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    capsys.readouterr()
    assert run(["explain", "../project/run"]) == 2
    assert f"--training-data {project / 'data.csv'} shows it" in capsys.readouterr().err
    shutil.move(project / "data.csv", tmp_path / "moved.csv")
    assert run(["explain", "../project/run", "--training-data", "../moved.csv"]) == 0
    assert "the training data has changed since the fit" in capsys.readouterr().out

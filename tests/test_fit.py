"""`tailwise.fit` in Python: what the command does, of arrays, frames, paths and sources."""

from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_array_equal

import tailwise
from tailwise.cli import main
from tailwise.errors import InputError
from tailwise.runs import display
from tailwise.sources.auto import open_source
from tailwise.sources.options import SourceOptions


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    generator = np.random.default_rng(0)
    rows = np.vstack([generator.normal(centre, 1, (count, 4)) for centre, count in ((0, 150), (6, 40))])
    return pd.DataFrame(rows.astype(np.float32), columns=list("abcd")).assign(line=["x"] * 150 + ["y"] * 40)


def test_it_is_the_command_whatever_holds_the_samples(frame: pd.DataFrame, tmp_path: Path) -> None:
    path = tmp_path / "parts.csv"
    frame.to_csv(path, index=False)
    words = ["fit", str(path), "--groups", "line", "--detector", "gaussian", "--out", str(tmp_path / "command")]
    assert main.run(words) == 0
    expected = tailwise.open_run(tmp_path / "command")
    given = {
        "frame": (frame, SourceOptions(groups="line")),
        "path": (path, SourceOptions(groups="line")),
        "source": (open_source(str(path), groups="line"), SourceOptions()),
        "array": (frame[list("abcd")].to_numpy(), SourceOptions()),
    }
    for name, (data, reading) in given.items():
        run = tailwise.fit(data, reading=reading, detector="gaussian", out=tmp_path / name)
        assert_array_equal(run.scores()["score"], expected.scores()["score"])
        assert run.settings.threshold == expected.settings.threshold
        assert ("group" in run.scores()) == (name != "array")
        assert_array_equal(run.score(path)["score"] if name != "array" else run.score(data)["score"],
                           expected.score(path)["score"])  # fmt: skip


def test_without_a_folder_a_new_one_is_made(
    frame: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = frame[list("abcd")].to_numpy()
    paths = [tailwise.fit(rows, detector="gaussian", scores="own").path for _ in range(2)]
    assert paths == [Path("runs/InMemory-gaussian"), Path("runs/InMemory-gaussian-2")]


def test_what_does_not_fit_is_named(frame: pd.DataFrame, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="groups does not apply to ndarray"):
        tailwise.fit(frame[list("abcd")].to_numpy(), reading=SourceOptions(groups="line"), out=tmp_path / "run")
    with pytest.raises(InputError, match="has no column 'lines'"):
        tailwise.fit(frame, reading=SourceOptions(groups="lines"), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_samples_in_memory_cannot_be_explained_but_others_can_be_scored(frame: pd.DataFrame, tmp_path: Path) -> None:
    run = tailwise.fit(frame[list("abcd")], detector="gaussian", out=tmp_path / "run")
    with pytest.raises(InputError, match="not kept with a run"):
        tailwise.open_run(run.path).source().load()
    shuffled = frame[list("dbca")]
    assert_array_equal(run.score(shuffled)["score"], run.score(frame)["score"])


def test_runs_and_problems_show_what_they_are(frame: pd.DataFrame, tmp_path: Path) -> None:
    """The page is read by a parser: as many rows as thresholds, a picture, and nothing that runs."""
    run = tailwise.fit(frame[list("abcd")], detector="gaussian", out=tmp_path / "<run>")
    assert f"fitted on {run.settings.n_train} rows" in repr(run)
    assert f"{run.settings.threshold:.4g} for 5 % false alarms" in repr(run)
    page = ElementTree.fromstring(f"<div>{run._repr_html_()}</div>")
    assert len(page.findall("table/tr")) == 1 + len(run.settings.thresholds)
    bars = page.findall(".//rect")
    heights = [float(bar.get("height", 0)) for bar in bars]
    assert max(heights) == 90
    assert {child.tag for child in page.iter()} <= {
        "div",
        "p",
        "b",
        "svg",
        "g",
        "rect",
        "line",
        "table",
        "tr",
        "th",
        "td",
    }
    assert "<run>" in page.findtext("p/b", "")
    problem = open_source("Digits", normal=(3, 8)).load()
    assert repr(problem).startswith("<Problem digits: train ")
    assert "of them anomalies" in problem._repr_html_()


def test_what_is_not_asked_for_is_not_computed(
    frame: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    frame = frame.drop(columns="line")

    def not_asked_for(*_: object) -> None:
        raise AssertionError("this was declined")

    with monkeypatch.context() as declined:
        declined.setattr("tailwise.calibration.clusters.Clusters.learn", not_asked_for)
        declined.setattr("tailwise.training.suspects.count_odd", not_asked_for)
        declined.setattr("tailwise.workflows.assembly.to_html", not_asked_for)
        run = tailwise.fit(frame, detector="gaussian", out=tmp_path / "run", no_report=True, no_clusters=True)
    asked = tailwise.fit(frame, detector="gaussian", out=tmp_path / "asked")
    assert run.settings.threshold == asked.settings.threshold
    assert run.score(frame).equals(asked.score(frame).drop(columns="cluster"))
    assert run.clusters() is None
    assert not (run.path / "report.html").exists()
    assert "none drawn" in "".join(display.lines(run.outcome()))
    assert main.run(["report", str(run.path)]) == 0
    assert "html" in (run.path / "report.html").read_text()
    frame.to_csv(tmp_path / "new.csv", index=False)
    capsys.readouterr()
    assert main.run(["drift", str(run.path), str(tmp_path / "new.csv")]) == 2
    assert "without --no-clusters" in capsys.readouterr().err
    with pytest.raises(InputError, match="needs clusters"):
        tailwise.fit(frame, per_cluster=True, no_clusters=True, out=tmp_path / "both")

"""A fit says when its data looks unlabelled: contaminated draws do, clean ones do not."""

import json

import numpy as np
import pandas as pd
import pytest

import tailwise
from tailwise.cli import main


def clean(seed: int, kind: str, count: int = 300) -> np.ndarray:
    """Normal rows: one kind, three kinds, heavy tails, or kinds of which the rarest is one row in a hundred."""
    generator = np.random.default_rng(seed)
    noise = generator.normal(size=(count, 6))
    if kind == "heavy tails":
        return generator.standard_t(4, size=(count, 6))
    shares = {"one": [1.0], "three": [0.5, 0.3, 0.2], "long tail": [0.75, 0.2, 0.04, 0.01]}[kind]
    return 4 * generator.normal(size=(len(shares), 6))[generator.choice(len(shares), count, p=shares)] + noise


def scattered(seed: int, count: int) -> np.ndarray:
    """Anomalies, each on its own, up to 15 standard deviations away along each axis."""
    return np.random.default_rng([seed, 1]).uniform(-15, 15, size=(count, 6))


def said(data, capsys, *options: str) -> str:  # type: ignore[no-untyped-def]
    """The warning of a fit on stderr, or ""."""
    capsys.readouterr()
    assert main.run(["fit", data, "--detector", "gaussian", "--cross", "0", "--scores", "own", *options]) in (0, 3)
    return "".join(
        line for line in capsys.readouterr().err.splitlines() if "looks unlabelled" in line and "look at" not in line
    )


@pytest.fixture
def table(tmp_path, monkeypatch):  # type: ignore[no-untyped-def]
    monkeypatch.chdir(tmp_path)

    def written(values: np.ndarray, **columns: np.ndarray) -> str:
        frame = pd.DataFrame(values, columns=[f"f{i}" for i in range(values.shape[1])]).assign(**columns)
        frame.to_csv("parts.csv", index=False)
        return "parts.csv"

    return written


@pytest.mark.parametrize("kind", ["one", "three", "heavy tails", "long tail"])
@pytest.mark.parametrize("seed", [0, 1])
def test_a_clean_draw_does_not_say_it(kind: str, seed: int, table, capsys) -> None:  # type: ignore[no-untyped-def]
    assert not said(table(clean(seed, kind)), capsys)


@pytest.mark.parametrize("kind", ["one", "three", "heavy tails"])
def test_a_contaminated_draw_says_it_and_what_to_do(kind: str, table, capsys) -> None:  # type: ignore[no-untyped-def]
    values = np.concatenate([clean(0, kind), scattered(0, 33)])
    line = said(table(values), capsys, "--out", "run")
    assert "of 333 rows" in line
    command = line.partition("vouches for the data: tailwise ")[2]
    assert command == "triage parts.csv --out review"
    assert main.run(command.split()) == 0
    found = pd.read_csv("review/scores.csv").nlargest(33, "score")
    assert (found["sample"] >= 300).mean() >= 0.9
    run = tailwise.open_run("run")
    assert run.outcome()["unlabelled"] in line
    (check,) = [each for each in run.report()["data_checks"] if each["name"] == "data that is declared normal"]
    assert not check["ok"]
    assert check["message"] in line


def test_what_somebody_vouches_for_is_not_doubted(table, capsys) -> None:  # type: ignore[no-untyped-def]
    values = np.concatenate([clean(0, "one"), scattered(0, 33)])
    assert not said(table(values), capsys, "--keep-suspects")
    labelled = table(np.concatenate([values, values]), bad=np.arange(666) == 5)
    assert not said(labelled, capsys, "--labels", "bad")


def test_in_python_and_as_json(tmp_path, capsys, caplog, table) -> None:  # type: ignore[no-untyped-def]
    values = np.concatenate([clean(1, "one"), scattered(1, 33)])
    with caplog.at_level("WARNING", logger="tailwise"):
        run = tailwise.fit(values, detector="gaussian", out=tmp_path / "run")
    assert "If nobody vouches for the data: tailwise.triage(data)" in caplog.text
    assert run.outcome()["unlabelled"].startswith("looks unlabelled")
    assert main.run(["fit", table(clean(1, "one")), "--out", "clean", "--json"]) == 0
    came = json.loads(capsys.readouterr().out)
    assert came["unlabelled"] == ""
    assert came["detector"] == "NearestNeighbours()"
    assert "needs no epochs" in came["detector_reason"]
    assert run.outcome()["detector_reason"] == ""  # it was named


def test_help_says_which_command_is_for_which_data(capsys) -> None:  # type: ignore[no-untyped-def]
    pages = {}
    for words in (["--help"], ["fit", "--help"], ["triage", "--help"]):
        assert main.run(words) == 0
        pages[words[0]] = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "from data that you declare normal" in pages["--help"]
    assert "data that nobody vouches for" in pages["--help"]
    assert "For data that nobody vouches for use `tailwise triage`" in pages["fit"]
    assert "For data that you declare normal use `tailwise fit`" in pages["triage"]

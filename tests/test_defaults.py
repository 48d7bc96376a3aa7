"""What a fit does without options: thresholds keep their promise on small and wide data, and five lines say so."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import tailwise
from tailwise.cli import main
from tailwise.runs.scorer import open_run


def sorts(rows: int, columns: int, apart: float, seed: int) -> np.ndarray:
    """Three sorts of rows, `apart` standard deviations from each other along directions of their own."""
    generator = np.random.default_rng(seed)
    middles = np.random.default_rng(0).normal(size=(3, columns))
    middles *= apart / np.linalg.norm(middles, axis=1, keepdims=True) * np.sqrt(columns) / 5
    return middles[generator.integers(0, 3, rows)] + generator.normal(size=(rows, columns))


@pytest.mark.parametrize(("rows", "columns"), [(80, 300), (40, 100), (60, 496), (200, 60)])
def test_fitted_and_new_rows_are_flagged_alike(rows: int, columns: int, tmp_path: Path) -> None:
    """Also with fewer rows than columns, where every axis lies along the rows that were fitted."""
    fitted, new, middle = [], [], []
    for seed in range(4):
        run = tailwise.fit(sorts(rows, columns, 5.0, seed), out=tmp_path / f"run{seed}")
        fitted.append(run.score(sorts(rows, columns, 5.0, seed))["flagged"].mean())
        fresh = run.score(sorts(300, columns, 5.0, 100 + seed))
        new.append(fresh["flagged"].mean())
        middle.append(fresh["score"].median())
    assert 0.01 <= np.mean(fitted) <= 0.1
    assert 0.005 <= np.mean(new) <= 0.1
    assert np.abs(middle).max() < 1


def with_suspects(seed: int, suspects: int, away: float) -> tuple[np.ndarray, np.ndarray]:
    """209 rows with a few unnoticed anomalies, and 139 good test rows before 52 bad ones like these."""
    generator = np.random.default_rng(seed)
    bad = generator.normal(size=(suspects, 6)) + away
    train = np.concatenate([generator.normal(size=(209, 6)), bad])
    test = np.concatenate([generator.normal(size=(139, 6)), generator.normal(size=(52, 6)) + away])
    return generator.permutation(train), test


@pytest.mark.parametrize(("suspects", "away"), [(2, 4.0), (4, 3.0), (4, 6.0)])
def test_unnoticed_anomalies_do_not_hide_their_like(suspects: int, away: float, tmp_path: Path) -> None:
    caught, rejected = [], []
    for seed in range(3):
        train, test = with_suspects(seed, suspects, away)
        flagged = tailwise.fit(train, out=tmp_path / f"run{seed}").score(test)["flagged"].to_numpy()
        caught.append(flagged[139:].mean())
        rejected.append(flagged[:139].mean())
    assert np.mean(caught) > 0.9
    assert np.mean(rejected) < 0.1


def test_samples_that_set_the_threshold_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Held out by chance, two anomalies among 21 rows set the threshold: told in the terminal and in the report."""
    train, _ = with_suspects(0, 0, 0.0)
    train[::11] *= 8  # each in its own direction
    with caplog.at_level("INFO", logger="tailwise"):
        run = tailwise.fit(train, detector="gaussian", cross=0, out=tmp_path / "run")
    table = run.scores()
    far = table.loc[table["held_out"]].nlargest(1, "score")["sample"].iloc[0]
    assert f"without '{far}'" in caplog.text
    assert f"&#39;{far}&#39;" in (tmp_path / "run" / "report.html").read_text()
    raised = run.outcome()
    assert far in raised["sets_the_threshold"]
    assert raised["threshold_without_these"] < raised["threshold"]


def test_nothing_is_named_where_nothing_is_far(tmp_path: Path) -> None:
    run = tailwise.fit(np.random.default_rng(1).normal(size=(150, 5)), out=tmp_path / "run")
    assert run.outcome()["sets_the_threshold"] == []


def test_a_fit_says_five_lines_or_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "parts.csv"
    pd.DataFrame(np.random.default_rng(0).normal(size=(150, 4)), columns=list("abcd")).to_csv(path, index=False)
    assert main.run(["fit", str(path), "--out", str(tmp_path / "run")]) == 0
    said = capsys.readouterr()
    assert said.out == f"{tmp_path / 'run'}\n"
    starts = [line.split(" ")[0] for line in said.err.splitlines()[-5:]]
    assert starts == ["trained", "detector:", "threshold:", "look", "report:"]
    assert "150 cross-fitted rows" in said.err
    assert main.run(["fit", str(path), "--out", str(tmp_path / "other"), "--json"]) == 0
    came = json.loads(capsys.readouterr().out)
    assert came == open_run(tmp_path / "other").outcome()
    assert came["range"][0] < came["promised"] < came["range"][1]


def test_options_without_a_say_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "parts.csv"
    pd.DataFrame(np.random.default_rng(0).normal(size=(50, 3)), columns=list("abc")).to_csv(path, index=False)
    assert main.run(["fit", str(path), "--lr", "0.5", "--out", str(tmp_path / "run")]) == 0
    assert "closed form: --lr changes nothing" in capsys.readouterr().err


def test_many_rows_are_held_out_and_few_are_cross_fitted(tmp_path: Path) -> None:
    few = tailwise.fit(np.random.default_rng(0).normal(size=(300, 3)), out=tmp_path / "few")
    assert few.settings.n_held_out == 0
    many = tailwise.fit(np.random.default_rng(0).normal(size=(2_000, 3)), out=tmp_path / "many")
    assert many.settings.n_held_out == 200
    asked = tailwise.fit(np.random.default_rng(0).normal(size=(300, 3)), out=tmp_path / "asked", cross=0)
    assert asked.settings.n_held_out == 30


def test_few_rows_calibrate_by_the_scores_that_they_have_when_left_out(tmp_path: Path) -> None:
    """No training is needed for that; so many folds as are asked for are trained."""
    rows = np.random.default_rng(0).normal(size=(60, 3))
    alone, folds = tailwise.fit(rows, out=tmp_path / "alone"), tailwise.fit(rows, out=tmp_path / "folds", cross=5)
    assert alone.settings.cross == 60
    assert (alone.scores()["calibration"] == alone.scores()["score"]).all()
    assert (folds.scores()["calibration"] != folds.scores()["score"]).any()
    assert alone.outcome()["cross_fitted"]
    assert alone.outcome()["calibrated_on"] == 60
    assert alone.score(rows)["flagged"].sum() == alone.report()["held_out"]["count"] == 2


def test_a_detector_that_knows_what_it_learnt_says_that_scores_are_off_scale(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = sorts(80, 300, 5.0, 0)
    with caplog.at_level("INFO", logger="tailwise"):
        run = tailwise.fit(rows, detector="gaussian", out=tmp_path / "gaussian")
    assert "not on one scale" in caplog.text
    assert run.score(sorts(300, 300, 5.0, 9))["flagged"].mean() <= 0.1
    caplog.clear()
    with caplog.at_level("INFO", logger="tailwise"):
        tailwise.fit(rows, out=tmp_path / "default")
    assert "not on one scale" not in caplog.text


@pytest.mark.parametrize(("samples", "numbers"), [(10, 200), (10, 2_000), (12, 200), (16, 2_000)])
def test_thresholds_of_very_few_rows_are_of_the_scale_of_scores(samples: int, numbers: int, tmp_path: Path) -> None:
    """They ran into the 100,000s, and nothing was flagged any more."""
    rows = np.random.default_rng(samples).normal(size=(samples + 20, numbers))
    run = tailwise.fit(rows[:samples], out=tmp_path / "run")
    assert abs(run.settings.threshold) < 30
    assert run.score(rows[samples:] + 6)["flagged"].mean() == 1
    table = run.scores()
    assert table["score"].abs().max() < 100


def test_what_scores_far_above_the_rest_is_said_in_the_terminal_too(tmp_path: Path) -> None:
    rows = np.random.default_rng(3).normal(size=(300, 4))
    rows[7] = 40.0
    run = tailwise.fit(rows, out=tmp_path / "run")
    came = run.outcome()
    assert "7" in [*came["far_above"], *came["sets_the_threshold"], *came["suspects"]]

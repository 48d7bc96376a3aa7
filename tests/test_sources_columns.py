"""Tables: what numbers rows is no measurement, labels say what they were read as, and digits outlive float32."""

import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_auc_score

from tailwise import AnomalyDetector, open_run
from tailwise.cli import main
from tailwise.core.data import Data
from tailwise.core.modality import ROW
from tailwise.detectors.gaussian import Gaussian
from tailwise.errors import InputError
from tailwise.sources.arrays import array_like, from_arrays
from tailwise.sources.table import Table, from_frame

ROWS = 120


def parts(rows=ROWS, seed=0):
    return pd.DataFrame(np.random.default_rng(seed).normal([50, 20, 5], [1, 0.5, 0.2], (rows, 3)), columns=list("whm"))


def read(frame, **options):
    """The problem of a frame and the warnings that came with it."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        problem = from_frame(frame, **options)
    return problem, [str(warning.message) for warning in caught]


def draw(seed=0):
    return np.random.default_rng(seed)


COUNTING = {
    "Unnamed: 0": np.arange(ROWS),
    "": np.arange(400, 400 + ROWS),
    "index": draw().permutation(5_000)[:ROWS],
    "id": np.arange(ROWS) * 3 + 17,
    "part_id": draw().choice(10**9, ROWS, replace=False),
    "serial no": np.sort(draw().choice(10**7, ROWS, replace=False)),
    "k": np.delete(np.arange(ROWS + 9), [3, 7, 8, 20, 40, 41, 60, 77, 90]),
    "n": draw().permutation(ROWS),
    "countdown": np.arange(ROWS)[::-1] - 5.0,
    "stamp": pd.date_range("2024-03-01 08:00", periods=ROWS, freq="7min"),
    "when": [f"{day % 28 + 1:02d}.02.2024 08:15" for day in range(ROWS)],
    "day": [f"2024-01-{day % 28 + 1:02d}" for day in range(ROWS)],
    "clock": [f"{minute // 60:02d}:{minute % 60:02d}:05" for minute in range(ROWS)],
    "seconds since": 1.7e9 + np.cumsum(draw().random(ROWS)),
    "milliseconds": 1_700_000_000_000 + np.cumsum(draw().integers(1, 900, ROWS)),
    "timestamp": draw().permutation(1.6e9 + np.arange(ROWS) * 77.5),
    "elapsed [s]": np.cumsum(draw().random(ROWS)),
    "date": [20240101 + day % 28 + 100 * (day // 28) for day in range(ROWS)],
    "piece": [f"P-{number:04d}" for number in draw().permutation(ROWS)],
}


@pytest.mark.parametrize("name", COUNTING)
def test_what_numbers_rows_or_tells_time_is_left_out_and_named(name):
    frame = parts().assign(**{name: COUNTING[name]})
    problem, said = read(frame)
    assert problem.train.features == ("w", "h", "m")
    assert len(said) == 1
    assert repr(name) in said[0]
    assert "--columns" in said[0]


MEASURED = {
    "counts": draw().poisson(4, ROWS),
    "sorted counts": np.sort(draw().poisson(40, ROWS)),
    "large counts": draw().poisson(10**6, ROWS),
    "levels": draw().integers(0, 65_536, ROWS),
    "cycle time": draw().normal(30, 1, ROWS),
    "id": draw().normal(30, 1, ROWS),
    "machine_id": draw().integers(1, 5, ROWS),
    "time": draw().normal(30, 1, ROWS),
    "counter": 1.7e9 + draw().normal(size=ROWS),
    "constant": np.full(ROWS, 4),
    "flag": draw().random(ROWS) < 0.5,
}


@pytest.mark.parametrize("name", MEASURED)
def test_measurements_stay_without_a_word(name):
    problem, said = read(parts().assign(**{name: MEASURED[name]}))
    assert problem.train.features == ("w", "h", "m", name)
    assert said == []


@pytest.mark.parametrize(
    "values",
    [
        np.sort(draw().normal(size=ROWS)),
        np.linspace(20, 25, ROWS),
        20 + np.cumsum(draw().random(ROWS)),
        -np.cumsum(draw().integers(100, 900, ROWS)),
    ],
)
def test_what_is_in_order_stays_with_a_warning(values):
    problem, said = read(parts().assign(temperature=values))
    assert problem.train.features == ("w", "h", "m", "temperature")
    assert len(said) == 1
    assert "'temperature' rises or falls" in said[0]


def test_named_columns_are_kept_whatever_they_do():
    problem, said = read(parts().assign(id=range(ROWS)), columns=("id", "w"))
    assert problem.train.features == ("id", "w")
    assert said == []


def test_rows_of_an_array_are_warned_of():
    with pytest.warns(UserWarning, match="column '0' counts the rows"):
        from_arrays(np.column_stack([np.arange(ROWS), parts().to_numpy()]))


@pytest.mark.filterwarnings("default")
def test_an_index_that_was_saved_does_not_raise_alarms(tmp_path, capsys):
    """The next month's index lies outside of all that was learnt; its parts do not."""
    parts(400).to_csv(tmp_path / "january.csv")
    parts(400, seed=1).set_axis(range(400, 800)).to_csv(tmp_path / "february.csv")
    fit = ["fit", str(tmp_path / "january.csv"), "--detector", "gaussian", "--out", str(tmp_path / "run")]
    assert main.run(fit) == 0
    assert "'Unnamed: 0' counts the rows" in capsys.readouterr().err
    out = str(tmp_path / "scores.csv")
    assert main.run(["score", str(tmp_path / "run"), str(tmp_path / "february.csv"), "--out", out]) == 0
    assert pd.read_csv(out)["flagged"].mean() < 0.2


# ---------------------------------------------------------------- labels


@pytest.mark.parametrize(
    ("name", "normal", "anomalous"),
    [
        ("passed", "pass", "fail"),
        ("passed", "yes", "no"),
        ("defect", "no", "YES"),
        ("is_anomaly", "N", "Y"),
        ("notOk", "no", "yes"),
        ("result", "OK", "NOK"),
        ("result", "Good", "scratch"),
        ("state", "normal", "ABNORMAL"),
        ("state", "healthy", "broken"),
        ("y", "1", "-1"),
        ("y", 1, -1),
        ("y", 0, 1),
        ("y", 0.0, 3.0),
        ("y", False, True),
        ("y", "FALSE", "true"),
        ("y", "F", "T"),
        ("result", "P", "F"),
        ("is_anomaly", -1, 1),
        ("is_inlier", 1, -1),
        ("defect_free", "yes", "no"),
        ("FreeOfDefects", "Y", "N"),
        ("without faults", "yes", "no"),
        ("not_defect_free", "no", "yes"),
    ],
)
def test_labels_that_leave_no_doubt(name, normal, anomalous):
    bad = np.arange(ROWS) % 10 == 0
    values = np.where(bad, anomalous, normal)
    problem, said = read(parts().assign(**{name: values}), labels=name)
    assert len(problem.train) == (ROWS - bad.sum()) // 2
    assert problem.test.labels.sum() == bad.sum()
    assert said == []
    note = problem.facts.notes[0]
    assert f"({ROWS - bad.sum()}); anomalous is" in note
    assert f"({bad.sum()})" in note


@pytest.mark.parametrize(
    ("name", "values"),
    [("y", ["yes", "no"]), ("y", ["a", "b"]), ("y", [2, 1]), ("y", [1, -1]), ("side", ["l", "r"]), ("sex", ["F", "M"])],
)
def test_labels_in_doubt_are_refused_with_what_was_found(name, values):
    frame = parts().assign(**{name: np.resize(values, ROWS)})
    with pytest.raises(InputError, match="known to say normal") as caught:
        from_frame(frame, labels=name)
    assert all(f"{str(value)!r} (60)" in caught.value.message for value in values)
    assert "--normal" in caught.value.hint
    problem, _ = read(frame, labels=name, normal=(values[0],))
    assert problem.test.labels.sum() == ROWS // 2


def test_signs_against_their_name_are_refused():
    frame = parts().assign(is_anomaly=np.where(np.arange(ROWS) % 3 == 0, -1, 1))
    with pytest.raises(InputError, match=r"known to say normal: '1' \(80\), '-1' \(40\)"):
        from_frame(frame, labels="is_anomaly")


@pytest.mark.parametrize(("one", "other"), [(1, 0), (True, False), ("bad", "good"), ("F", "P")])
def test_more_anomalies_than_normals_is_said_with_the_option_that_turns_it(one, other):
    frame = parts().assign(y=np.where(np.arange(ROWS) % 10 == 0, other, one))
    _, said = read(frame, labels="y")
    assert len(said) == 1
    assert "108 samples anomalous and only 12" in said[0]
    assert f"--normal {str(one)!r}" in said[0]
    problem, said = read(frame, labels="y", normal=(one,))
    assert said == []
    assert len(problem.train) == 54


def test_labels_against_their_name_are_said():
    ones = np.where(np.arange(ROWS) % 3 == 0, 1, 0)
    for name, values in (("passed", ones), ("defect_free", ones), ("passed", np.where(ones, "TRUE", "FALSE"))):
        assert "against the column's name" in read(parts().assign(**{name: values}), labels=name)[1][0]


@pytest.mark.filterwarnings("default")
def test_the_command_line_says_how_labels_were_read(tmp_path, capsys):
    parts().assign(passed=np.where(np.arange(ROWS) % 10 == 0, 0, 1)).to_csv(tmp_path / "parts.csv", index=False)
    fit = ["fit", str(tmp_path / "parts.csv"), "--labels", "passed", "--detector", "gaussian", "--cross", "2"]
    main.run([*fit, "--out", str(tmp_path / "a")])
    assert "--normal '1'" in capsys.readouterr().err
    main.run([*fit, "--normal", "1", "--out", str(tmp_path / "b")])
    said = capsys.readouterr().err
    assert "normal is '1' (108); anomalous is '0' (12)" in said
    assert "the other way round" not in said


# ---------------------------------------------------------------- groups


@pytest.mark.filterwarnings("default")
def test_missing_groups_are_missing_and_new_ones_are_held_to_all(tmp_path, capsys):
    frame = parts(200).assign(board=np.resize(["A", "B", "C", "A"], 200))
    frame.to_csv(tmp_path / "train.csv", index=False)
    frame.assign(board=frame["board"].mask(frame.index < 20)).to_csv(tmp_path / "gaps.csv", index=False)
    new = frame.head(30).copy()
    new["board"] = ["Z"] * 10 + [None] * 5 + ["B"] * 15
    new.to_csv(tmp_path / "new.csv", index=False)
    run = str(tmp_path / "run")
    fit = ["--groups", "board", "--detector", "gaussian", "--out"]
    assert main.run(["fit", str(tmp_path / "gaps.csv"), *fit, run]) == 0
    assert "20 of 200 rows name no group" in capsys.readouterr().err
    table = open_run(run).scores()
    assert table["group"].isna().sum() == 20
    assert set(table["group"].dropna()) == {"A", "B", "C"}
    assert main.run(["fit", str(tmp_path / "gaps.csv"), *fit, str(tmp_path / "no"), "--per-group"]) == 2
    assert "20 of 200 name none" in capsys.readouterr().err
    run = str(tmp_path / "per-group")
    assert main.run(["fit", str(tmp_path / "train.csv"), *fit, run, "--per-group"]) == 0
    out = tmp_path / "scores.csv"
    assert main.run(["score", run, str(tmp_path / "new.csv"), "--out", str(out)]) == 0
    said = capsys.readouterr().err
    assert "'Z' (10)" in said
    assert "5 samples name no group" in said
    assert pd.read_csv(out, keep_default_na=False)["held_to"].tolist() == ["all"] * 15 + ["B"] * 15


# ---------------------------------------------------------------- digits


def shifted(offset, seed=0):
    """Training rows and test rows, the last 40 of which are anomalies at 6 spreads."""
    train, test = draw(seed).normal(size=(400, 4)), draw(seed + 1).normal(size=(240, 4))
    test[200:, 0] += 6
    return train + offset, test + offset, np.arange(240) >= 200


@pytest.mark.parametrize("offset", [1e7, -1.7e9, 1.7e12, np.array([1e7, 0, 1.7e9, 3e5])])
@pytest.mark.parametrize("scale", [1.0, 1e-3])
def test_the_estimator_keeps_digits_beside_a_large_offset(offset, scale):
    train, test, bad = shifted(0.0)
    train, test = train * scale + offset, test * scale + offset
    detector = AnomalyDetector().fit(train)
    scores = -detector.score_samples(test)
    assert roc_auc_score(bad, scores) > 0.99
    assert (detector.predict(test)[200:] == -1).all()


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".npy"])
@pytest.mark.parametrize("offset", [1e7, 1.7e9])
def test_a_run_reads_new_tables_about_its_own_centre(tmp_path, suffix, offset):
    train, test, bad = shifted(offset)
    for name, rows in (("train", train), ("test", test)):
        path = tmp_path / f"{name}{suffix}"
        if suffix == ".npy":
            np.save(path, rows)
        else:
            frame = pd.DataFrame(rows, columns=list("abcd"))
            frame.to_csv(path, index=False) if suffix == ".csv" else frame.to_parquet(path)
    run, out = str(tmp_path / "run"), tmp_path / "scores.csv"
    assert main.run(["fit", str(tmp_path / f"train{suffix}"), "--detector", "gaussian", "--out", run]) == 0
    assert main.run(["score", run, str(tmp_path / f"test{suffix}"), "--out", str(out)]) == 0
    table = pd.read_csv(out)
    assert roc_auc_score(bad, table["score"]) > 0.99
    assert table["flagged"][200:].all()
    centre = open_run(run).settings.centre
    assert np.allclose(centre, offset, atol=2)


def test_arrays_of_a_training_and_a_test_part_share_a_centre():
    train, test, _ = shifted(1.7e9)
    problem = from_arrays(train, test=test)
    np.testing.assert_allclose(problem.train.original(problem.train.samples), train, rtol=0, atol=1e-6)
    np.testing.assert_allclose(problem.test.data.original(problem.test.data.samples), test, rtol=0, atol=1e-6)
    assert torch.equal(problem.train.centre, problem.test.data.centre)


@pytest.mark.parametrize("kind", ["float32", "float64", "int32"])
def test_an_array_of_any_numbers_is_read_about_the_centre_of_others(kind):
    rows = (2**23 + draw().integers(-9, 9, (20, 2))).astype(kind)
    data = array_like(rows, ROW, centre=torch.tensor([2.0**23, 0.0], dtype=torch.float64))
    np.testing.assert_array_equal(data.samples[:, 0].numpy(), rows[:, 0].astype(float) - 2.0**23)
    np.testing.assert_array_equal(data.original(data.samples).numpy(), rows)


def test_ordinary_columns_are_read_as_they_are():
    frame = parts()
    problem = from_frame(frame)
    assert problem.train.centre is None
    assert torch.equal(problem.train.samples, torch.from_numpy(frame.to_numpy().astype(np.float32)))


def test_data_about_another_centre_are_the_same_rows():
    rows = torch.randn(7, 3, generator=torch.Generator().manual_seed(0))
    data = Data(rows, list("abcdefg"), centre=torch.tensor([1e7, 0.0, 5.0], dtype=torch.float64))
    moved = data.about(torch.tensor([1e7 + 2, 0.0, 0.0], dtype=torch.float64))
    torch.testing.assert_close(moved.original(moved.samples), data.original(rows), rtol=0, atol=1e-6)
    assert data.about(data.centre) is data


def test_a_spelling_with_a_centre_reads_back():
    source = Table("t.csv", columns=("a", "b"), centre=(1e7, 0.1))
    assert "centre=(10000000.0, 0.1)" in repr(source)
    with pytest.raises(InputError, match="2 numbers are the centre of 1 columns"):
        Table("t.csv", columns=("a",), centre=(1.0, 2.0))._numbers(pd.DataFrame({"a": [1.0]}), ["a"])


# ---------------------------------------------------------------- many columns


@pytest.mark.parametrize("rows", [12, 60])
def test_a_gaussian_of_many_columns_by_way_of_its_rows(monkeypatch, rows):
    """Distances by the small side are those by the large one."""
    data = Data(torch.randn(rows, 90, generator=torch.Generator().manual_seed(0)) * torch.arange(1, 91), range(rows))
    new = torch.randn(30, 90, generator=torch.Generator().manual_seed(1)) * 50
    w = torch.rand(rows, generator=torch.Generator().manual_seed(2)) + 0.1
    distances = []
    for many in (1_000, 10):
        monkeypatch.setattr("tailwise.detectors.gaussian._MANY_FEATURES", many)
        detector = Gaussian()
        detector.start(data.sample_shape)
        detector.solve(data, w)
        distances.append(detector.score(Data(new, range(30)).batch(torch.arange(30))))
    torch.testing.assert_close(distances[0], distances[1], rtol=1e-5, atol=1e-5)


def test_few_rows_of_very_many_columns_keep_no_square_of_them():
    """A whitening of 20,000 columns would be 400 million numbers."""
    data = Data(torch.randn(30, 20_000, generator=torch.Generator().manual_seed(0)), range(30))
    detector = Gaussian()
    detector.start(data.sample_shape)
    detector.solve(data, torch.ones(30))
    assert sum(buffer.numel() for buffer in detector.buffers()) < 40 * 20_000
    restored = Gaussian()
    restored.restore(data.sample_shape, detector.state_dict())
    batch = data.batch(torch.arange(30))
    assert torch.equal(restored.score(batch), detector.score(batch))


def test_a_run_of_an_earlier_version_has_only_a_whitening():
    data = Data(torch.randn(60, 4, generator=torch.Generator().manual_seed(0)), range(60))
    detector = Gaussian()
    detector.start(data.sample_shape)
    detector.solve(data, torch.ones(60))
    restored = Gaussian()
    restored.restore(data.sample_shape, {"mean": detector.mean, "whitening": detector.whitening})
    batch = data.batch(torch.arange(60))
    assert torch.equal(restored.score(batch), detector.score(batch))


def test_too_many_columns_are_refused_with_what_they_would_take():
    """Without shrinkage there is no way around the covariance of all columns."""
    data = Data(torch.zeros(3, 20_000), range(3))
    detector = Gaussian(shrinkage=0.0)
    detector.start(data.sample_shape)
    with pytest.raises(InputError, match="20,000 features needs 3 GB"):
        detector.solve(data, torch.ones(3))


# ---------------------------------------------------------------- what few rows can tell


def test_drift_says_what_a_batch_could_have_shown_and_shows_the_change_itself(tmp_path, capsys):
    def rows(count, shift, seed):
        values = draw(seed).normal(size=(count, 4))
        values[::3] += 12
        values[::3, 1] += shift
        return pd.DataFrame(values, columns=list("abcd"))

    rows(600, 0, 0).to_csv(tmp_path / "old.csv", index=False)
    rows(200, 4, 1).to_csv(tmp_path / "new.csv", index=False)
    rows(1, 0, 2).to_csv(tmp_path / "one.csv", index=False)
    rows(600, 0, 3).to_csv(tmp_path / "same.csv", index=False)
    run = str(tmp_path / "run")
    assert main.run(["fit", str(tmp_path / "old.csv"), "--detector", "gaussian", "--out", run]) == 0
    capsys.readouterr()
    assert main.run(["drift", run, str(tmp_path / "one.csv")]) == 0
    assert "1 sample could not have shown any change" in capsys.readouterr().out
    assert main.run(["drift", run, str(tmp_path / "same.csv")]) == 0
    assert "600 samples could not have shown a change smaller than" in capsys.readouterr().out
    assert main.run(["drift", run, str(tmp_path / "new.csv")]) == 4
    line = next(line for line in capsys.readouterr().out.splitlines() if "unlike every" in line and "such as" in line)
    examples = [int(name) for name in line.partition("such as ")[2].split(", ")]
    assert all(number < 200 and number % 3 == 0 for number in examples)


@pytest.mark.parametrize(
    ("filler", "times"), [(-9999, 9), (999, 2), (1e30, 5), (-32768, 3), (-1, 40), (0, 60), (6553.5, 3)]
)
def test_numbers_that_mean_a_missing_value_are_named(filler, times):
    frame = parts()
    frame.loc[5 : 4 + times, "h"] = filler
    problem, said = read(frame)
    assert said == [f"frame: column 'h': {times} of {ROWS} values are {filler:g}, far from all others; if that means "
                    "that none was measured, fill or drop it first"]  # fmt: skip
    assert problem.train.features == ("w", "h", "m")


@pytest.mark.parametrize(("values", "middle"), [([999.0], 50), ([999.0] * 4, 990), ([98.0, 99.0] * 30, 98.5)])
def test_such_numbers_that_were_measured_are_no_fault(values, middle):
    frame = parts()
    frame["w"] += middle - 50
    frame.loc[: len(values) - 1, "w"] = values
    assert read(frame)[1] == []


ROUND = {
    "mostly 0": np.where(np.arange(ROWS) % 9, 0, draw().normal(300, 2, ROWS)),
    "rare counts": np.where(np.arange(ROWS) % 9, 0, draw().poisson(3, ROWS)),
    "saturated": np.minimum(draw().normal(4000, 80, ROWS), 4095),
    "clipped at 0": np.maximum(draw().normal(1, 1, ROWS), 0),
    "on and off": np.resize([0, 24], ROWS),
    "codes": np.resize([1, 101, 102, 103], ROWS),
    "one outlier": np.append(draw().normal(300, 2, ROWS - 1), 0),
}


@pytest.mark.parametrize("name", ROUND)
def test_round_numbers_that_were_measured_are_no_fillers(name):
    assert read(parts().assign(**{name: ROUND[name]}))[1] == []


@pytest.mark.parametrize("name", ["class", "label", "is_anomaly", "Defective", "target", "ok"])
@pytest.mark.parametrize("values", [(0, 1), (-1, 1), (1, 2)])
def test_labels_among_the_features_are_named(name, values):
    frame = parts()
    frame[name] = np.repeat(values, [100, 20])
    _, said = read(frame)
    assert len(said) == 1
    assert f"column {name!r} ('{values[0]}' (100), '{values[1]}' (20)) looks like labels" in said[0]
    assert f"--labels {name}" in said[0]
    frame[name] = np.linspace(0, 1, ROWS).round(1)
    assert read(frame)[1] == []


@pytest.mark.parametrize("first", [2**53, 2**62, 2**63 + 5])
def test_whole_numbers_beyond_all_measurements_are_identifiers(first):
    frame = parts()
    frame["hash"] = np.array([first + int(step) for step in draw().permutation(10**6)[:ROWS]], dtype=np.uint64)
    problem, said = read(frame)
    assert problem.train.features == ("w", "h", "m")
    assert "column 'hash' numbers the rows" in said[0]


@pytest.mark.parametrize(("size", "spread"), [(1e17, 10), (1e13, 0.001), (-1e20, 1e4)])
def test_digits_that_double_precision_lost_are_said(size, spread):
    frame = parts()
    frame["k"] = size + draw(4).normal(0, spread, ROWS)
    said = read(frame)[1]
    assert any("column 'k' lies near" in text and "take a constant off" in text for text in said)
    frame["k"] = size * 1e-4 + draw(4).normal(0, spread, ROWS)
    assert not any("lies near" in text for text in read(frame)[1])

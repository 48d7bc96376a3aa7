"""Tables: every format gives the same rows, labels never reach training, and bad input is refused by name."""

import numpy as np
import pandas as pd
import pytest
import torch

from tailwise.core.registry import parse
from tailwise.errors import InputError
from tailwise.sources.table import Table, from_frame


@pytest.fixture
def frame():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(20, 3)), columns=["a", "b", "c"])
    frame["open"] = rng.random(20) < 0.5
    return frame


def write(frame, path):
    if path.suffix == ".parquet":
        frame.to_parquet(path)
    else:
        frame.to_csv(path, index=False, sep="\t" if path.suffix == ".tsv" else ",")
    return str(path)


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".parquet"])
def test_every_format_gives_the_same_rows(frame, tmp_path, suffix):
    problem = Table(write(frame, tmp_path / f"my päth{suffix}")).load()
    np.testing.assert_allclose(problem.train.samples.numpy(), frame.astype(float).to_numpy(), rtol=1e-6)
    assert problem.train.samples.dtype == torch.float32
    assert problem.train.features == ("a", "b", "c", "open")
    assert problem.train.names[:3] == ["0", "1", "2"]
    assert problem.test is None


def test_semicolons_are_seen(frame, tmp_path):
    frame.to_csv(tmp_path / "t.csv", sep=";", index=False)
    assert Table(str(tmp_path / "t.csv")).load().train.features == ("a", "b", "c", "open")


def test_labels_split_once_and_never_train(frame, tmp_path):
    frame["kind"] = ["good"] * 12 + ["scratch"] * 8
    frame["line"] = ["x", "y"] * 10
    problem = Table(write(frame, tmp_path / "t.csv"), labels="kind", groups="line").load()
    train, test = set(map(int, problem.train.names)), set(map(int, problem.test.data.names))
    assert len(train) == 6
    assert train <= set(range(12))
    assert not train & test
    assert train | test == set(range(20))
    assert [int(n) >= 12 for n in problem.test.data.names] == problem.test.labels.tolist()
    assert problem.train.features == ("a", "b", "c", "open")
    assert problem.train_groups.tolist() == [["x", "y"][i % 2] for i in sorted(train)]


def test_npz_labels_are_found(tmp_path):
    x, y = np.random.default_rng(0).normal(size=(10, 2)), np.array([0] * 6 + [1] * 4)
    np.savez(tmp_path / "t.npz", X=x, y=y, board=np.array(list("aabbaabbaa")))
    source = Table(str(tmp_path / "t.npz"), groups="board")
    everything = source.load_all()
    assert everything.labels.tolist() == [False] * 6 + [True] * 4
    assert everything.groups.tolist() == list("aabbaabbaa")
    assert everything.data.sample_shape == (2,)
    assert len(source.load().train) == 3


def test_npy_is_a_table(tmp_path):
    np.save(tmp_path / "t.npy", np.eye(4))
    assert torch.equal(Table(str(tmp_path / "t.npy")).load().train.samples, torch.eye(4))


def test_columns_choose_and_order(frame, tmp_path):
    frame["note"] = "text"
    path = write(frame[["c", "note", "b", "a"]], tmp_path / "t.csv")
    problem = Table(path, columns=("a", "c")).load()
    np.testing.assert_allclose(problem.train.samples.numpy(), frame[["a", "c"]].to_numpy(), rtol=1e-6)


def test_at_keeps_what_the_other_table_has(frame, tmp_path):
    frame["y"] = 0
    other = write(frame[["c", "b", "a"]], tmp_path / "new.csv")
    source = Table(write(frame, tmp_path / "t.csv"), labels="y", columns=("a", "b"))
    assert source.at(other) == Table(other, columns=("a", "b"))
    assert source.at(source.path) == source


def test_spelling_round_trip():
    source = Table("a b.csv", labels="y", columns=["u", "v"])
    assert parse(repr(source), ("source",)) == (source,)


@pytest.mark.parametrize(
    ("change", "options", "said"),
    [
        ({"a": np.nan}, {}, r"row 2, column 'a': nan"),
        ({"b": np.inf}, {}, r"row 2, column 'b': inf"),
        ({"c": 1e200}, {}, r"row 2, column 'c': 1e\+200 is too large"),
        ({}, {"labels": "kinds"}, "no column 'kinds'.*did you mean 'kind'"),
        ({}, {"groups": "knd"}, "no column 'knd'"),
        ({}, {"columns": ("a", "bb")}, "no column 'bb'.*did you mean 'b'"),
        ({}, {}, "column 'kind'.*--columns"),
        ({}, {"columns": ("kind",)}, "not numbers: column 'kind'"),
        ({}, {"columns": ("a", "a")}, "column 'a' is asked for twice"),
    ],
)
def test_bad_values_and_columns_are_named(frame, tmp_path, change, options, said):
    frame["kind"] = "x"
    if change:
        frame = frame.drop(columns="kind")
        for name, value in change.items():
            frame.loc[2, name] = value
    path = write(frame, tmp_path / "t.parquet")
    with pytest.raises(InputError, match=said):
        Table(path, **options).load()


def test_one_stray_word_is_found(frame, tmp_path):
    (tmp_path / "t.csv").write_text("a,b\n1,2\n3,n.d.\n5,6\n")
    with pytest.raises(InputError, match=r"column 'b' \(row 1 of 'b' is 'n\.d\.'\)"):
        Table(str(tmp_path / "t.csv")).load()


def test_labels_cannot_be_a_feature():
    with pytest.raises(InputError, match="both as labels and as a feature"):
        Table("t.csv", labels="y", columns=("x", "y"))


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ([-1, 1, 1, -1], r"none of its values .* '-1' \(2\), '1' \(2\).*--normal"),
        ([1, 1, 2, 1], "none of its values"),
        ([1, 1, 1, 1], r"0 of 4 samples are labelled normal.*--normal"),
    ],
)
def test_labels_without_a_normal_are_refused(tmp_path, labels, said):
    np.savez(tmp_path / "t.npz", X=np.eye(4), y=np.array(labels))
    with pytest.raises(InputError, match=said):
        Table(str(tmp_path / "t.npz")).load()


@pytest.mark.parametrize("name", ["t.csv", "t.parquet", "t.npz", "t.npy"])
def test_empty_and_broken_files(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(b"")
    with pytest.raises(InputError, match="is empty"):
        Table(str(path)).load()
    path.write_bytes(b'\xff\xfe"\x00\x01' * 20)
    with pytest.raises(InputError):
        Table(str(path)).load()


def test_python_objects_are_never_unpickled(tmp_path):
    np.savez(tmp_path / "t.npz", X=np.array([[object()]], dtype=object))
    with pytest.raises(InputError, match="Python objects"):
        Table(str(tmp_path / "t.npz")).load()


def test_header_without_rows_and_other_suffix(tmp_path):
    (tmp_path / "t.csv").write_text("a,b\n")
    with pytest.raises(InputError, match="no rows"):
        Table(str(tmp_path / "t.csv")).load()
    (tmp_path / "t.ods").write_text("a,b\n")
    with pytest.raises(InputError, match="not a table"):
        Table(str(tmp_path / "t.ods")).load()


def test_missing_file_says_where_it_was_looked_for(tmp_path, monkeypatch):
    monkeypatch.setenv("TAILWISE_DATA", str(tmp_path))
    with pytest.raises(InputError, match="TAILWISE_DATA") as caught:
        Table("nothing.csv").load()
    assert str(tmp_path / "nothing.csv") in caught.value.message
    (tmp_path / "something.csv").write_text("a,b\n1,2\n3,4\n")
    assert len(Table("something.csv").load().train) == 2


def test_two_columns_of_one_name(tmp_path):
    (tmp_path / "t.csv").write_text("a,b,a\n1,2,3\n4,5,6\n")
    with pytest.raises(InputError, match="two columns called 'a'"):
        Table(tmp_path / "t.csv").load()
    (tmp_path / "t.csv").write_text("a,b,a.1\n1,2,3\n4,5,6\n")
    assert Table(tmp_path / "t.csv").load().train.features == ("a", "b", "a.1")


def test_labels_of_another_length(tmp_path):
    np.savez(tmp_path / "t.npz", X=np.zeros((6, 2)), y=np.zeros(5))
    with pytest.raises(InputError, match="6 rows and y 5 entries"):
        Table(tmp_path / "t.npz").load()


def frame_of_parts():
    generator = np.random.default_rng(0)
    frame = pd.DataFrame(generator.normal(size=(40, 3)), columns=["width", "height", "mass"])
    return frame.assign(board=["a", "b"] * 20, odd=np.arange(40) % 5 == 0)


def test_a_frame_is_the_problem_of_its_table(tmp_path):
    frame = frame_of_parts()
    frame.to_parquet(tmp_path / "parts.parquet")
    given = {"labels": "odd", "groups": "board", "columns": ("mass", "width")}
    found = from_frame(frame, **given)
    expected = Table(str(tmp_path / "parts.parquet"), **given).load()
    assert torch.equal(found.train.samples, expected.train.samples)
    assert found.train.names == expected.train.names
    assert found.train.features == ("mass", "width")
    assert found.train_groups.tolist() == expected.train_groups.tolist()
    assert torch.equal(found.test.data.samples, expected.test.data.samples)
    assert found.test.labels.tolist() == expected.test.labels.tolist()


def test_samples_of_a_frame_have_the_names_of_its_index():
    frame = frame_of_parts()[["width", "mass"]].set_axis([f"part {i}" for i in range(40)])
    found = from_frame(frame)
    assert found.train.names[7] == "part 7"
    frame.iloc[0, 0] = 99
    assert found.train.samples[0, 0] != 99


@pytest.mark.parametrize(
    ("frame", "said"),
    [
        (pd.DataFrame([[1.0, 2.0]], columns=["a", "a"]), "two columns called 'a'"),
        (pd.DataFrame({"a": [1.0, 2.0]}, index=[5, 5]), "two rows called '5'"),
        (pd.DataFrame({"a": [1.0, np.nan]}), "row 1, column 'a'"),
        (pd.DataFrame({"a": []}), "no rows"),
        (pd.DataFrame({"a": [1.0, 2.0], "b": ["x", "y"]}), "not numbers: column 'b'"),
    ],
)
def test_a_frame_that_cannot_be_read_is_refused(frame, said):
    with pytest.raises(InputError, match=said):
        from_frame(frame)

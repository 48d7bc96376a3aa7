"""IDX files, arrays, npz parts and long tails, from files written here by hand."""

import gzip

import numpy as np
import pytest
import torch

from tailwise.core.registry import parse
from tailwise.errors import InputError
from tailwise.sources.arrays import ArrayFile, from_arrays
from tailwise.sources.idx import Idx
from tailwise.sources.long_tail import LongTail, long_tail

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (30, 5, 4), dtype=np.uint8)
KINDS = np.arange(30, dtype=np.uint8) % 3


def idx_bytes(values):
    return bytes([0, 0, 8, values.ndim]) + b"".join(n.to_bytes(4, "big") for n in values.shape) + values.tobytes()


@pytest.fixture
def family(tmp_path):
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx_bytes(PIXELS[:20])))
    (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx_bytes(KINDS[:20])))
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(idx_bytes(PIXELS[20:]))
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(idx_bytes(KINDS[20:]))
    return tmp_path


def test_idx_classes(family):
    problem = Idx(str(family), normal=(0, 2)).load()
    assert problem.train_groups.tolist() == [str(k) for k in KINDS[:20] if k != 1]
    assert torch.equal(problem.train.samples[0, 0], torch.from_numpy(PIXELS[0]) / 255)
    assert problem.train.sample_shape == (1, 5, 4)
    assert problem.test.labels.tolist() == (KINDS[20:] == 1).tolist()
    assert problem.train.names[:3] == ["train/0", "train/2", "train/3"]


def test_idx_without_classes_and_one_file(family):
    problem = Idx(str(family)).load()
    assert len(problem.train) == 20
    assert problem.test.labels is None
    assert Idx(str(family), test=False).load().test is None
    assert len(Idx(str(family), normal=(1,)).load_all().data) == 30
    one = Idx(str(family / "t10k-images-idx3-ubyte")).load()
    assert one.train_groups.tolist() == KINDS[20:].astype(str).tolist()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "not an IDX file"),
        (b"PNG not idx", "not an IDX file"),
        (bytes([0, 0, 8, 3, 0, 0]), "ends within its header"),
        (idx_bytes(PIXELS)[:-1], r"says \[30, 5, 4\], which is 600 bytes, and holds 599"),
        (idx_bytes(PIXELS) + b"x", "holds 601"),
        (idx_bytes(KINDS), "has 1 axes"),
    ],
)
def test_broken_idx(tmp_path, content, said):
    (tmp_path / "train-images-idx3-ubyte").write_bytes(content)
    with pytest.raises(InputError, match=said):
        Idx(str(tmp_path)).load()


def test_cut_gz_missing_labels_and_unknown_class(family):
    with pytest.raises(InputError, match="no training sample is of class '7'"):
        Idx(str(family), normal=(7,)).load()
    (family / "train-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(InputError, match="classes of the samples are not there"):
        Idx(str(family), normal=(0,)).load()
    file = family / "train-images-idx3-ubyte.gz"
    file.write_bytes(file.read_bytes()[:40])
    with pytest.raises(InputError, match="cut or broken"):
        Idx(str(family)).load()


def test_npz_parts(tmp_path):
    path = tmp_path / "t.npz"
    colour = RNG.integers(0, 256, (9, 6, 5, 3), dtype=np.uint8)
    y = np.array([0, 1, 2] * 3)
    np.savez(path, x_train=colour[:6], y_train=y[:6], x_test=colour[6:], y_test=y[6:], classes=["cat", "dog", "owl"])
    problem = ArrayFile(str(path), normal=(0,)).load()
    assert problem.train_groups.tolist() == ["cat", "cat"]
    assert problem.test.labels.tolist() == [False, True, True]
    np.testing.assert_allclose(problem.train.samples[1, 2].numpy() * 255, colour[3, :, :, 2], rtol=1e-6)
    everything = ArrayFile(str(path), normal=(1, 2)).load_all()
    assert everything.labels.tolist() == [True, False, False] * 3
    np.savez(path, X=colour)
    with pytest.raises(InputError, match="no array x_train: it holds X"):
        ArrayFile(str(path)).load()


def test_from_arrays_copies_and_splits():
    x = RNG.normal(size=(10, 3))
    problem = from_arrays(x, labels=[0] * 6 + [1] * 4, groups=list("ababababab"))
    assert len(problem.train) == 3
    assert problem.test.labels.sum() == 4
    plain = from_arrays(torch.from_numpy(x).float(), test=x[:2], test_labels=[0, 1])
    plain.train.samples.zero_()
    assert x.any()
    assert plain.test.labels.tolist() == [False, True]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"x": [1.0, 2.0]}, r"x has shape \[2\]"),
        ({"x": [["a"]]}, "not an array of numbers"),
        ({"x": [[0.0], [np.nan]]}, "sample 1 holds NaN"),
        ({"x": [[0.0], [1e300]]}, "sample 1 holds"),
        ({"x": np.eye(3), "groups": [1]}, "one for each of 3 samples"),
        ({"x": np.eye(3), "test": np.eye(2)}, r"samples of test are \[2\]: those of x are \[3\]"),
        ({"x": np.eye(3), "labels": [0, 0, 1], "test": np.eye(3)}, "test_labels instead"),
        ({"x": np.zeros((0, 3))}, "no samples"),
    ],
)
def test_from_arrays_refuses(options, said):
    with pytest.raises(InputError, match=said):
        from_arrays(options.pop("x"), **options)


def test_long_tail_sizes_follow_the_law():
    groups = np.repeat(list("abc"), 1000)
    chosen = long_tail(groups, 100, seed=3)
    sizes = sorted(np.unique(groups[chosen], return_counts=True)[1].tolist())
    assert sizes == [10, 100, 1000]
    assert len(set(chosen.tolist())) == 1110
    assert np.array_equal(chosen, long_tail(groups, 100, seed=3))
    heads = {max("abc", key=groups[long_tail(groups, 100, seed=seed)].tolist().count) for seed in range(20)}
    assert heads == set("abc")


def test_long_tail_uses_what_the_kinds_allow():
    groups = np.repeat(list("ab"), [1000, 50])
    for seed in range(5):
        sizes = dict(zip(*np.unique(groups[long_tail(groups, 10, seed=seed)], return_counts=True), strict=True))
        assert sorted(sizes.values()) in ([50, 500], [5, 50])
    with pytest.raises(InputError, match="kind 'b' has 50 samples"):
        long_tail(groups, 2, largest=200)
    with pytest.raises(InputError, match=r"at least 1: got 0\.5"):
        long_tail(groups, 0.5)
    assert len(long_tail(["a"] * 7, 100)) == 7


def test_long_tail_of_a_source(family):
    source = LongTail(source=Idx(str(family), normal=(0, 1)), imbalance=7, seed=1)
    assert parse(repr(source), ("source",)) == (source,)
    problem = source.load()
    assert sorted(np.unique(problem.train_groups, return_counts=True)[1].tolist()) == [1, 7]
    assert len(problem.test.data) == 10
    assert source.at("elsewhere") == Idx("elsewhere", normal=(0, 1))
    np.save(family / "x.npy", np.eye(3))
    with pytest.raises(InputError, match="knows none"):
        LongTail(source=parse(f"Table({str(family / 'x.npy')!r})", ("source",))[0]).load()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"source": 3}, "takes a source: got 3"),
        ({"imbalance": "x"}, "imbalance must be a number of at least 1: got 'x'"),
        ({"largest": 2.5}, "largest must be a whole number of at least 1, or None: got 2.5"),
        ({"seed": -1}, "seed must be a whole number of at least 0: got -1"),
    ],
)
def test_long_tail_options(options, said):
    with pytest.raises(InputError, match=said):
        LongTail(**{"source": Idx("mnist"), **options})

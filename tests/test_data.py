import numpy as np
import pytest
import torch

from tailwise.core.data import Data
from tailwise.core.identity import digests
from tailwise.core.problem import Facts, Labelled, Problem
from tailwise.core.validation import check_samples
from tailwise.errors import InputError


class Counting:
    """A Reader whose sample i holds the number i; it counts what was read."""

    def __init__(self, n):
        self.shape = (n, 2)
        self.asked = 0

    def __getitem__(self, index):
        self.asked += len(index)
        return index[:, None].expand(-1, 2).float()


def rows(n):
    return Data(torch.arange(n)[:, None].expand(-1, 2), [f"row {i}" for i in range(n)])


def generator(seed):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("data", [rows(23), Data(Counting(23), range(23))], ids=["memory", "reader"])
@pytest.mark.parametrize("seed", [None, 0])
@pytest.mark.parametrize("size", [1, 5, 23, 100])
def test_batches_cover_each_sample_once_and_carry_its_index(data, seed, size):
    batches = list(data.batches(size, None if seed is None else generator(seed)))
    index = torch.cat([batch.index for batch in batches])
    assert sorted(index.tolist()) == list(range(23))
    assert all(len(batch) <= size for batch in batches)
    for batch in batches:
        assert batch.samples.dtype == torch.float32
        assert torch.equal(batch.samples[:, 0], batch.index.float())
    assert (index.tolist() == list(range(23))) == (seed is None)


def test_the_order_is_the_generators():
    def order(seed):
        return torch.cat([batch.index for batch in rows(50).batches(7, generator(seed))]).tolist()

    assert order(1) == order(1) != order(2)


def test_weighted_batches_draw_in_proportion_and_never_weight_zero():
    w = torch.tensor([0.0, 1.0, 3.0] + [0.0] * 5_997)
    drawn = torch.cat([batch.index for batch in rows(6_000).batches(500, generator(0), w)])
    assert len(drawn) == 6_000
    assert set(drawn.tolist()) == {1, 2}
    assert (drawn == 2).float().mean() == pytest.approx(0.75, abs=0.03)


@pytest.mark.parametrize("data", [rows(9), Data(Counting(9), [f"row {i}" for i in range(9)])], ids=["memory", "reader"])
def test_taken_samples_keep_their_names(data):
    for index in ([7, 2], np.array([7, 2]), torch.tensor([7, 2])):
        part = data.take(index)
        assert len(part) == 2
        assert list(part.names) == ["row 7", "row 2"]
        assert part.read(torch.tensor([1]))[0, 0] == 2
        assert part.sample_shape == (2,)
        assert part.places == {"row 7": 0, "row 2": 1}
    assert data.take([7, 2]).take([1]).read(torch.tensor([0]))[0, 0] == 2


def test_a_reader_is_read_only_where_asked():
    reader = Counting(1_000)
    data = Data(reader, range(1_000)).take(range(500))
    assert not data.in_memory
    next(data.batches(10))
    assert reader.asked == 10


def test_data_has_no_place_for_labels():
    assert set(Data.__dataclass_fields__) == {"samples", "names", "features", "context", "modality", "centre"}


def test_samples_with_what_is_known_are_taken_by_a_mask_too():
    known = Labelled(rows(3), np.array([False, True, True]), np.array(["a", "b", "c"]), [None, np.ones((1, 1)), None])
    for chosen in (np.array([False, True, True]), np.array([1, 2])):
        taken = known.take(chosen)
        assert (len(taken.data), taken.labels.tolist(), taken.groups.tolist()) == (2, [True, True], ["b", "c"])
        assert [mask is None for mask in taken.masks] == [False, True]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: rows(0), "no samples in the data"),
        (lambda: Data(torch.ones(3, 2), ["a"]), "got 1 names for 3 samples"),
        (lambda: Labelled(rows(3), labels=np.zeros(2, bool)), "labels: got 2 for 3 samples"),
        (lambda: Labelled(rows(3), masks=[None]), "masks: got 1 for 3 samples"),
        (lambda: Problem(rows(3), Facts("x"), train_groups=np.zeros(4)), "train_groups: got 4 for 3 samples"),
        (lambda: check_samples(rows(1)), "at least 2 samples are needed to learn what is normal: got 1"),
        (
            lambda: check_samples(Data(torch.tensor([[1.0], [np.nan], [np.inf]]), "abc")),
            r"sample b holds NaN or infinity",
        ),
    ],
)
def test_bad_input_is_named(make, said):
    with pytest.raises(InputError, match=said):
        make()


@pytest.mark.parametrize("inference", [False, True])
def test_digests_are_of_what_the_samples_are_now(inference):
    with torch.inference_mode(inference):
        samples = torch.zeros(3, 2)
        data = Data(samples, ["a", "b", "c"])
        assert len(set(digests(data))) == 1
        samples[1] = 1
        first, second, third = digests(data)
    assert first == third != second


def test_a_mask_takes_the_samples_that_it_marks():
    data = rows(5)
    mask = torch.tensor([False, False, True, False, True])
    for given in (mask, mask.numpy(), mask.tolist()):
        assert list(data.take(given).names) == list(data.take([2, 4]).names)


@pytest.mark.parametrize("places", [[0.9, 1.9], [True, False]])
def test_places_that_are_none_are_refused(places):
    with pytest.raises(InputError, match="places are whole numbers, or a mask of 5"):
        rows(5).take(places)


def test_samples_of_no_numbers_are_refused():
    with pytest.raises(InputError, match="the samples hold no numbers"):
        check_samples(Data(torch.zeros(5, 0), list("abcde")))

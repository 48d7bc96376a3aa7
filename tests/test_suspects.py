"""Suspects: lumps far from everything train nobody; rare kinds and lone far samples stay. Oddness finds lumps too."""

import numpy as np
import pytest
import torch

import tailwise
from tailwise.core.data import Data
from tailwise.core.modality import SPECTRUM
from tailwise.errors import InputError
from tailwise.training import suspects


def rows(values: np.ndarray) -> Data:
    return Data(torch.from_numpy(values.astype(np.float32)), [str(i) for i in range(len(values))])


def with_lump(seed: int, count: int, away: float, width: float = 0.1) -> np.ndarray:
    """300 usual rows, and `count` close together at `away` standard deviations along every axis."""
    generator = np.random.default_rng(seed)
    lump = away + width * generator.normal(size=(count, 6))
    return np.concatenate([generator.normal(size=(300, 6)), lump])


@pytest.mark.parametrize("seed", range(5))
def test_a_lump_far_from_everything_is_found(seed: int) -> None:
    found = suspects.find(rows(with_lump(seed, 6, 8.0))).numpy()
    assert found[300:].all()
    assert found[:300].mean() <= 0.02


@pytest.mark.parametrize("seed", range(5))
def test_usual_rows_and_lone_far_ones_stay(seed: int) -> None:
    generator = np.random.default_rng(seed)
    usual = generator.normal(size=(300, 6))
    assert suspects.find(rows(usual)).float().mean() <= 0.01
    far = 30 * np.eye(6)[:3]  # far out, and far from each other
    assert not suspects.find(rows(np.concatenate([usual, far])))[300:].any()


@pytest.mark.parametrize("seed", range(3))
def test_a_rare_kind_of_a_few_per_cent_stays(seed: int) -> None:
    """A tenth of the rows, 4 standard deviations off along one axis: the covariance of all knows it."""
    generator = np.random.default_rng(seed)
    rare = generator.normal(size=(30, 6)) + 4 * np.eye(6)[0]
    found = suspects.find(rows(np.concatenate([generator.normal(size=(270, 6)), rare])))
    assert found[270:].float().mean() <= 0.05


def test_spectra_and_few_samples_have_none() -> None:
    spectra = torch.from_numpy(with_lump(0, 6, 8.0).astype(np.float32))[:, None]
    names = [str(i) for i in range(len(spectra))]
    assert not suspects.find(Data(spectra, names, modality=SPECTRUM)).any()
    assert not suspects.find(rows(with_lump(0, 3, 8.0)[290:])).any()


def test_equal_rows_are_no_suspects() -> None:
    assert not suspects.find(rows(np.ones((50, 4)))).any()


def test_order_does_not_matter() -> None:
    values = with_lump(1, 6, 8.0)
    order = np.random.default_rng(0).permutation(len(values))
    assert np.array_equal(suspects.find(rows(values[order])).numpy(), suspects.find(rows(values)).numpy()[order])


def test_a_fit_leaves_them_out_and_says_so(tmp_path, caplog) -> None:  # type: ignore[no-untyped-def]
    values = with_lump(2, 6, 8.0)
    with caplog.at_level("INFO", logger="tailwise"):
        run = tailwise.fit(values, out=tmp_path / "run")
    assert "6 of 306 training samples are suspects" in caplog.text
    table = run.scores()
    assert table["suspect"].to_numpy()[300:].all()
    assert run.settings.n_suspects == table["suspect"].sum()
    assert run.settings.n_train == 306 - run.settings.n_suspects
    assert (table["weight"][table["suspect"]] == 0).all()
    fresh = np.full((5, 6), 8.0) + 0.1 * np.random.default_rng(3).normal(size=(5, 6))
    assert run.score(fresh)["flagged"].all()
    kept = tailwise.fit(values, out=tmp_path / "kept", keep_suspects=True)
    assert kept.settings.n_suspects == 0
    assert not kept.score(fresh)["flagged"].all()


def test_oddness_ranks_a_lump_above_all(tmp_path) -> None:  # type: ignore[no-untyped-def]
    for seed in range(3):
        odd = suspects.Oddness(rows(with_lump(seed, 12, 5.0))).training_scores.numpy()
        assert (odd[300:] > np.quantile(odd[:300], 0.95)).all()
    with pytest.raises(InputError, match="at least 3"):
        suspects.Oddness(rows(np.ones((2, 3))))


def test_oddness_of_new_samples_is_that_of_the_same_ones() -> None:
    """A sample scores as it did when it was looked at, alone or among others; near the lump is odd, usual is not."""
    values = with_lump(0, 12, 5.0)
    oddness = suspects.Oddness(rows(values))
    again = oddness.score(rows(values))
    np.testing.assert_allclose(again, oddness.training_scores, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(oddness.score(rows(values[7:8])), again[7:8], rtol=1e-9)
    new = with_lump(1, 12, 5.0)
    scores = oddness.score(rows(new)).numpy()
    assert (scores[300:] > np.quantile(scores[:300], 0.95)).all()


def test_oddness_of_large_sets_is_that_of_their_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    values = with_lump(0, 12, 5.0)
    whole = suspects.Oddness(rows(values)).training_scores.numpy()
    monkeypatch.setattr(suspects, "_PART", 160)
    oddness = suspects.Oddness(rows(values))
    parts = oddness.training_scores.numpy()
    assert np.corrcoef(whole, parts)[0, 1] > 0.8
    # The first part scores others; it agrees with itself on its own half.
    assert np.isclose(oddness.score(rows(values)).numpy(), parts, rtol=1e-5).mean() == pytest.approx(0.5, abs=0.01)


def test_what_is_usual_in_a_large_set_is_told_by_no_more_samples_than_in_a_small_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[int] = []
    within = suspects.Memory.reach_within
    monkeypatch.setattr(
        suspects.Memory, "reach_within", lambda memory, index: asked.append(len(index)) or within(memory, index)
    )
    for name, count in (("_PART", 500), ("_USUAL", 600), ("_USUAL_OF_PART", 60)):
        monkeypatch.setattr(suspects, name, count)
    rows = torch.randn(5_000, 6, generator=torch.Generator().manual_seed(0))
    rows[::500] = 9 + 0.1 * rows[::500]  # a lump, of which each part has one or so
    rows[1:100] = 9 + 0.1 * rows[1:100]
    suspects.find(Data(rows, range(len(rows))))
    assert asked
    assert all(60 <= count < 100 for count in asked), asked

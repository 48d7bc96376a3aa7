"""Tests that may be looked at after every sample: fair, and quick where something changes."""

import numpy as np
import pytest

from tailwise.calibration.drift import Population
from tailwise.calibration.martingales import PLACE, SCORE, SHARE, UNKNOWN, Martingales, planned

USUAL = {0: 0.6, 1: 0.3, 2: 0.1}


def samples(
    seed: int, count: int, shift: float = 0.0, unknown: float = 0.05, usual: dict[int, float] = USUAL
) -> Population:
    random = np.random.default_rng(seed)
    clusters = random.choice(list(usual), count, p=list(usual.values()))
    # Kinds score differently, and in ties.
    scores = (random.exponential(1.0 + clusters) + shift * (clusters == 0)).round(1)
    return Population(clusters, random.random(count) < unknown, scores)


def test_bets_are_fair() -> None:
    """What a step pays in the mean of a uniform p-value is what was paid for it."""
    for test in planned(USUAL, 0.05, 0.05):
        for a, r in test.steps:
            assert 0 < a < 1
            above = (1 - a * r) / (1 - a)
            assert above > 0
            points = (np.arange(20_000) + 0.5) / 20_000
            assert np.where(points <= a, r, above).mean() == pytest.approx(1, abs=1e-3)


def test_the_parts_of_the_level_are_the_level() -> None:
    for axes in (0, 3):
        tests = planned(USUAL, 0.05, 0.03, axes)
        assert sum(test.level for test in tests) == pytest.approx(0.03)
        assert len({test.name for test in tests}) == len(tests)


def test_what_a_test_has_is_in_the_mean_what_it_began_with() -> None:
    """Whatever the scores are: over streams of three samples, because later what it has in the mean is had by few."""
    wealth = []
    for seed in range(1_500):
        watch = Martingales(planned({0: 0.7, 1: 0.3}, 0.2, 0.05), seed)
        watch.observe(samples(seed, 3, unknown=0.2, usual={0: 0.7, 1: 0.3}))
        limits = np.array([-np.log(test.level) for test in watch.tests])
        wealth.append(np.exp(watch.evidence() + limits))
    means, errors = np.mean(wealth, 0), np.std(wealth, 0) / np.sqrt(len(wealth))
    assert (np.abs(means - 1) < 4 * errors).all()
    assert ((errors > 0.002) & (errors < 0.1)).all()  # something was at stake, and not too much to see a bias


def test_false_alarms_over_many_looks_are_at_most_the_level() -> None:
    called = 0
    for seed in range(60):
        watch = Martingales(planned(USUAL, 0.05, 0.3), seed)
        watch.remember(samples(1_000 + seed, 100))
        called += bool(watch.observe(samples(seed, 400)))
    assert called <= 29  # of 60 at .3 each, more have a chance of .001


@pytest.mark.parametrize(
    ("change", "aspect", "cluster"),
    [
        ({"shift": 1.0}, SCORE, 0),
        ({"shift": -1.5}, SCORE, 0),
        ({"unknown": 0.3}, UNKNOWN, None),
        ({"usual": {0: 0.3, 1: 0.6, 2: 0.1}}, SHARE, 1),
        ({"usual": {0: 0.7, 1: 0.3}}, SHARE, 2),
    ],
)
def test_a_change_is_called_by_its_name(change: dict[str, object], aspect: str, cluster: int | None) -> None:
    for before in (0, 500):
        watch = Martingales(planned(USUAL, 0.05, 0.05))
        watch.remember(samples(1, 1_000))
        if before:
            assert watch.observe(samples(2, before)) == []
        called = watch.observe(samples(3, 600, **change))  # type: ignore[arg-type]
        assert (aspect, cluster) in {(test.aspect, test.cluster) for test in called}
        assert all(before < at <= before + 600 for at in watch.called[watch.called > 0])
        assert [test for test in watch.observe(samples(4, 50, **change)) if test in called] == []  # type: ignore[arg-type]


def test_a_kind_that_moves_along_an_axis_is_called() -> None:
    def placed(seed: int, moved: float) -> Population:
        stream, random = samples(seed, 500), np.random.default_rng(100 + seed)
        places = random.normal(size=(500, 3))
        places[stream.clusters == 1, 2] += moved
        return Population(stream.clusters, stream.unknown, stream.scores, places)

    watch = Martingales(planned(USUAL, 0.05, 0.05, axes=3))
    watch.remember(placed(1, 0.0))
    assert watch.observe(placed(2, 0.0)) == []
    called = watch.observe(placed(3, 1.0))
    assert [(test.aspect, test.cluster, test.axis) for test in called] == [(PLACE, 1, 2)]


def test_how_the_samples_arrive_makes_no_difference() -> None:
    whole, cut = (Martingales(planned(USUAL, 0.05, 0.05), seed=3) for _ in range(2))
    stream = samples(5, 90)
    whole.observe(stream)
    for start, stop in ((0, 1), (1, 30), (30, 90)):
        cut.observe(Population(*(part[start:stop] for part in (stream.clusters, stream.unknown, stream.scores))))
    assert np.array_equal(whole.logs, cut.logs)
    assert np.array_equal(whole.highest, cut.highest)


def test_a_watch_goes_on_where_it_stood() -> None:
    stream, later = samples(5, 90), samples(6, 60, shift=1.0)
    whole = Martingales(planned(USUAL, 0.05, 0.05))
    whole.remember(samples(1, 50))
    whole.observe(stream)
    again = Martingales(planned(USUAL, 0.05, 0.05))
    again.remember(samples(1, 50))
    again.remember(stream)
    again.restore(whole.state)
    whole.observe(later)
    again.observe(later)
    assert np.array_equal(whole.logs, again.logs)
    assert again.samples == 150


def test_scores_that_cannot_be_compared_are_not_bet_on() -> None:
    watch = Martingales(planned({0: 1.0}, 0.05, 0.05))
    earlier = samples(1, 50, usual={0: 1.0})
    watch.remember(Population(earlier.clusters, earlier.unknown, np.full(50, np.nan)))
    watch.observe(samples(2, 10, usual={0: 1.0}))
    assert np.isfinite(watch.evidence()).all()

"""Drift by kind: planted changes, chance held to the level, SciPy's exact tests, and the command from a run."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from tailwise.calibration.clusters import Clusters
from tailwise.calibration.drift import Population, drift
from tailwise.cli import main
from tailwise.core.data import Data
from tailwise.errors import InputError
from tailwise.report import drift_page
from tailwise.runs import store

SHARES = np.array([0.6, 0.3, 0.08, 0.02])


def sample(n, seed, shares=SHARES, shift=None, held=1.0):
    """Samples in four kinds; `shift` is added to the scores of each kind, which are known of a share of them."""
    generator = np.random.default_rng(seed)
    clusters = generator.choice(len(shares), n, p=shares / shares.sum())
    scores = generator.normal(size=n) + (np.zeros(4) if shift is None else np.array(shift))[clusters]
    scores[generator.random(n) > held] = np.nan
    return Population(clusters, generator.random(n) < 0.05, scores)


def test_a_kind_that_doubled_is_named_and_no_other():
    found = drift(sample(3_000, 0), sample(2_000, 1, np.array([0.6, 0.3, 0.08, 0.04])))
    assert [row.name for row in found.named] == ["kind 3"]
    assert found.named[0].drifted == ("share",)
    assert found.alarm
    assert "kind 3: share of all samples 2.0 % -> 4.0 %" in str(found)


def test_a_kind_whose_scores_rose_is_named_and_no_other():
    found = drift(sample(4_000, 0, held=0.2), sample(1_000, 1, shift=[0, 0, 1.5, 0]))
    assert [(row.name, row.drifted) for row in found.named] == [("kind 2", ("score",))]


def test_a_kind_with_strange_samples_is_named():
    batch = sample(1_000, 1)
    batch.unknown[batch.clusters == 1] |= np.random.default_rng(0).random((batch.clusters == 1).sum()) < 0.2
    found = drift(sample(4_000, 0), batch)
    assert [(row.name, row.drifted) for row in found.named] == [("kind 1", ("unknown",))]


def placed(n, seed, move=0.0, dims=6):
    """Samples of `sample` without scores, with places about their kind's corner; kind 2 moves away by `move`."""
    found = sample(n, seed, held=0.0)
    places = np.random.default_rng(seed).standard_t(5, size=(n, dims)) + 10 * found.clusters[:, None]
    places[found.clusters == 2, 3] += move
    return Population(found.clusters, found.unknown, found.scores, places)


def test_a_kind_whose_middle_moved_is_named_and_no_other():
    batch = placed(1_000, 1, move=1.0)
    found = drift(placed(4_000, 0), Population(batch.clusters, batch.unknown, np.zeros(1_000), batch.places))
    assert [(row.name, row.drifted) for row in found.named] == [("kind 2", ("place",))]
    # One sample along one of six axes, each of variance 5/3.
    assert found.named[0].moved == pytest.approx(1 / 10**0.5, abs=0.15)
    assert "its middle moved by 0.3" in str(found)


def test_without_a_move_alarms_are_rarer_than_the_level():
    alarms = 0
    for i in range(100):
        batch = placed(300, 2 * i + 1)
        alarms += drift(
            placed(1_000, 2 * i), Population(batch.clusters, batch.unknown, np.zeros(300), batch.places)
        ).alarm
    assert alarms < 11


def test_an_axis_along_which_nothing_differs_says_nothing():
    reference, batch = placed(1_000, 0), placed(400, 1)
    for one, value in ((reference, 0.0), (batch, 1e-9)):
        one.places[:, 0] = value
    assert not drift(reference, Population(batch.clusters, batch.unknown, np.zeros(400), batch.places)).alarm


@pytest.mark.parametrize("size", [50, 1_000])
def test_without_a_change_alarms_are_as_rare_as_the_level(size):
    alarms = [drift(sample(2_000, 2 * i, held=0.1), sample(size, 2 * i + 1)).alarm for i in range(200)]
    # Twenty or more of 200 have a chance of 0.3 % at a level of 5 %.
    assert sum(alarms) < 20


def test_one_unlucky_reference_does_not_alarm_at_every_batch():
    """The spreads are added: whichever the reference, few of its batches raise an alarm."""
    rates = []
    for seed in range(8):
        reference = sample(2_000, seed, held=0.1)
        rates.append(np.mean([drift(reference, sample(1_000, 1_000 + 50 * seed + i)).alarm for i in range(40)]))
    assert max(rates) <= 0.15


def test_few_samples_with_many_numbers_raise_no_alarm_without_a_change():
    generator = torch.Generator().manual_seed(0)
    deviations = torch.arange(1, 301) ** -0.7

    def drawn(count):
        return Data(deviations * torch.randn(count, 300, generator=generator), range(count))

    alarms = 0
    for _ in range(10):
        clusters = Clusters.learn(drawn(60))
        placed = [clusters.training_as_new, clusters.place(drawn(100))]
        scores = [np.full(60, np.nan), np.zeros(100)]
        then, now = (
            Population(at.nearest.numpy(), at.unknown.numpy(), of, at.along.numpy())
            for at, of in zip(placed, scores, strict=True)
        )
        alarms += drift(then, now).alarm
    assert alarms <= stats.binom(10, 0.05).ppf(0.99)


def test_p_values_are_those_of_fisher_before_they_are_corrected():
    reference = Population(np.repeat([0, 1], [90, 10]), np.zeros(100, bool), np.full(100, np.nan))
    batch = Population(np.repeat([0, 1], [20, 12]), np.zeros(32, bool), np.arange(32.0))
    by_name = {row.name: row for row in drift(reference, batch).rows}
    exact = stats.fisher_exact([[12, 20], [10, 90]]).pvalue
    # Two tests of shares and three of unlike samples; the reference has no scores or places to hold a batch against.
    assert by_name["kind 1"].p_values == {"share": pytest.approx(5 * exact), "unknown": 1}
    assert by_name["kind 1"].medians == (None, pytest.approx(25.5))


def test_a_table_and_plain_data_of_it():
    found = drift(sample(500, 0), sample(500, 1, shift=[0, 3, 0, 0]), examples={1: ["a|b_1.png"]})
    plain = json.loads(json.dumps(found.as_dict()))
    assert plain["named"] == ["kind 1"]
    assert [row["name"] for row in plain["rows"]][:2] == ["all samples", "kind 1"]
    markdown = drift_page.to_markdown(found)
    assert "a\\|b\\_1.png" in markdown
    lengths = {line.replace("\\|", "").count("|") for line in markdown.splitlines()[2:]}
    assert lengths == {13}


def test_a_new_cluster_and_an_empty_one_are_fine():
    found = drift(sample(300, 0), Population(np.full(40, -1), np.ones(40, bool), np.zeros(40)))
    assert {row.name for row in found.named} >= {"no kind", "kind 0"}
    assert "no drift" in str(drift(sample(300, 0), sample(1, 1)))


def test_bad_input_is_named():
    with pytest.raises(InputError, match="at least one sample: got 0"):
        Population(np.zeros(0), np.zeros(0, bool), np.zeros(0))
    with pytest.raises(InputError, match="2 scores of the batch"):
        drift(sample(9, 0), Population(np.zeros(3, int), np.zeros(3, bool), np.array([1, np.nan, np.inf])))
    with pytest.raises(InputError, match="between 0 and 1"):
        drift(sample(9, 0), sample(9, 1), level=0.0)


def table_of(path, counts, seed, move=0.0):
    generator = np.random.default_rng(seed)
    kinds = [generator.normal(centre, 1, (n, 6)) for centre, n in zip((0, 5, -5), counts, strict=True)]
    kinds[1] += move * np.array([1, -1, 1, -1, 1, -1])
    pd.DataFrame(np.vstack(kinds), columns=[f"f{i}" for i in range(6)]).to_csv(path, index=False)
    return str(path)


def test_the_command_names_the_kind_and_its_status_tells(tmp_path, capsys):
    run = str(tmp_path / "run")
    fitted = table_of(tmp_path / "train.csv", (300, 100, 20), 0)
    assert main.run(["fit", fitted, "--out", run, "--detector", "gaussian"]) == 0
    kinds, scores = store.open_run(run).clusters(), store.open_run(run).scores()
    assert kinds.count == 3
    assert scores["cluster"].value_counts().tolist() == [300, 100, 20]
    capsys.readouterr()
    assert main.run(["drift", run, table_of(tmp_path / "same.csv", (150, 50, 10), 1)]) == 0
    assert "no drift" in capsys.readouterr().out
    out = tmp_path / "drift.json"
    assert main.run(["drift", run, table_of(tmp_path / "moved.csv", (150, 50, 10), 1, 3.0), "--out", str(out)]) == 4
    assert json.loads(out.read_text())["named"] == ["kind 1"]
    assert main.run(["drift", run, table_of(tmp_path / "more.csv", (150, 50, 60), 1), "--out", str(out)]) == 4
    assert json.loads(out.read_text())["named"][0] == "kind 2"
    assert main.run(["drift", run, fitted, "--out", "x.csv"]) == 2


def test_a_run_of_before_says_so(tmp_path, capsys):
    run = str(tmp_path / "run")
    assert main.run(["fit", table_of(tmp_path / "t.csv", (60, 30, 20), 0), "--out", run, "--detector", "gaussian"]) == 0
    settings = json.loads((tmp_path / "run" / "settings.json").read_text())
    del settings["digests"]["clusters.safetensors"]
    settings["seal"] = store.seal(settings)
    (tmp_path / "run" / "settings.json").write_text(json.dumps(settings))
    assert store.open_run(run).clusters() is None
    assert main.run(["drift", run, str(tmp_path / "t.csv")]) == 2
    assert "keeps no clusters" in capsys.readouterr().err
    assert main.run(["score", run, str(tmp_path / "t.csv")]) == 0
    assert capsys.readouterr().out.startswith("sample,score,threshold,flagged,p_value,standardised\n")


def test_a_crossed_run_raises_no_alarm_by_the_scores_of_other_detectors(tmp_path, capsys):
    generator = np.random.default_rng(0)
    for name, count in (("train", 300), ("same", 2_000)):
        pd.DataFrame(generator.normal(size=(count, 60))).add_prefix("f").to_csv(tmp_path / f"{name}.csv", index=False)
    run = str(tmp_path / "run")
    fit = [
        "fit",
        str(tmp_path / "train.csv"),
        "--out",
        run,
        "--detector",
        "gaussian",
        "--scores",
        "own",
        "--cross",
        "5",
    ]
    assert main.run(fit) == 0
    capsys.readouterr()
    assert main.run(["drift", run, str(tmp_path / "same.csv")]) == 0
    assert "scores are not compared" in capsys.readouterr().err

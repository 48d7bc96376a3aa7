"""Refinements on data whose contaminants are known to the test, with a detector whose scores have a closed form."""

import math
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import Tensor

import tailwise
from tailwise.cli import main
from tailwise.core import inference
from tailwise.core.data import Data
from tailwise.core.detector import Detector
from tailwise.core.registry import find
from tailwise.detectors.nearest_neighbours import NearestNeighbours
from tailwise.errors import InputError
from tailwise.runs import display, store
from tailwise.sources.images import ImageFolder
from tailwise.sources.table import Table
from tailwise.training import cleaning
from tailwise.training import fit as training_fit
from tailwise.training.cleaning import Iterate, Purify
from tailwise.training.cross_fitting import Fitted, out_of_fold
from tailwise.training.local_scores import LocalScores
from tailwise.weights.densities import KDE
from tailwise.weights.steps import Logistic, Rarity, Trim
from tailwise.workflows import reviews


class Centre(Detector):
    """Distance to the weighted mean."""

    mean: Tensor

    def build(self, sample_shape):
        self.register_buffer("mean", torch.zeros(sample_shape))

    def solve(self, data, w):
        samples = data.read(torch.arange(len(data)))
        self.mean = torch.tensordot(w / w.sum(), samples, dims=1)

    def score(self, batch):
        return (batch.samples - self.mean).norm(dim=1)


def fit(data, w, seed):
    detector = Centre()
    outcome = training_fit.fit(detector, data, base_weights=w, seed=seed)
    return Fitted(detector, outcome, outcome.scores)


def contaminated(normals=180, hidden=20, seed=0):
    """Normals around 0, and as the last samples a lump of anomalies: [n, 6] and whether each is hidden."""
    generator = torch.Generator().manual_seed(seed)
    samples = torch.randn(normals + hidden, 6, generator=generator)
    samples[normals:] += 6
    return Data(samples, range(len(samples))), torch.arange(len(samples)) >= normals


def test_purify_keeps_the_original_places_and_drops_the_contaminants():
    data, hidden = contaminated()
    refined = Purify(keep=0.9)(fit, data, torch.ones(len(data)))
    assert torch.equal(refined.weights == 0, hidden)
    expected = data.read(torch.arange(180)).mean(0)
    assert torch.allclose(refined.fitted.detector.mean, expected, atol=1e-5)
    assert torch.allclose(refined.fitted.scores, (data.samples - expected).norm(dim=1), atol=1e-4)
    assert float(refined.fitted.outcome.weights[hidden].sum()) == 0


def test_purify_finds_the_share_itself_and_leaves_clean_data_nearly_whole():
    data, hidden = contaminated()
    refined = Purify()(fit, data, torch.ones(len(data)))
    assert bool((refined.weights[hidden] == 0).all())
    assert int((refined.weights[~hidden] == 0).sum()) <= 9
    clean = data.take(range(180))
    assert int((Purify()(fit, clean, torch.ones(180)).weights == 0).sum()) <= 18


def test_no_sample_is_judged_by_a_detector_that_saw_it():
    data, _ = contaminated(30, 0)
    seen = []

    def watched(part, w, seed):
        fitted = fit(part, w, seed)
        seen.append(set(part.names))
        score = fitted.detector.score

        def judge(batch):
            judged = {float(value) for value in batch.samples[:, 0]}
            own = {float(data.samples[name, 0]) for name in seen[-1]}
            assert not judged & own
            return score(batch)

        fitted.detector.score = judge
        return fitted

    out_of_fold(watched, data, torch.ones(30), parts=3)
    assert set.union(*seen) == set(range(30))
    assert sum(map(len, seen)) == 30


def test_votes_are_shares_of_the_detectors_that_did_not_see_a_sample():
    data, hidden = contaminated()
    refined = Purify(parts=4, keep=0.85, votes=0.6)(fit, data, torch.ones(len(data)))
    assert set((refined.suspicion * 3).round().tolist()) <= {0, 1, 2, 3}
    assert bool((refined.weights[hidden] == 0).all())


def test_base_weights_and_dropped_samples_stay_apart():
    data, hidden = contaminated()
    base = torch.ones(len(data))
    base[:90] = 3.0
    refined = Purify(keep=0.9)(fit, data, base)
    assert torch.equal(refined.weights, torch.where(hidden, 0.0, base))


def test_iterate_moves_the_centre_to_the_normals_and_settles():
    data, hidden = contaminated()
    plain = fit(data, torch.ones(len(data)), 0)
    refined = Iterate(rounds=8)(fit, data, torch.ones(len(data)))
    assert float(refined.fitted.detector.mean.norm()) < 0.6 * float(plain.detector.mean.norm())
    assert float(refined.weights[hidden].mean()) < 0.5 * float(refined.weights[~hidden].mean())
    crossings = [row["crossings"] for row in refined.rounds[1:]]
    assert all(0 <= share <= 1 for share in crossings)
    assert len(crossings) < 7


def test_crossings_of_known_rankings():
    rising = torch.arange(10.0)
    assert cleaning._crossings(rising, rising.square()) == 0
    assert cleaning._crossings(rising, -rising) == 1
    swapped = rising.clone()
    swapped[[4, 5]] = swapped[[5, 4]]
    assert cleaning._crossings(rising, swapped) == pytest.approx(0.2)


def test_refinements_print_as_themselves():
    for value in (
        Purify(),
        Purify(keep=0.8, votes=0.5),
        Iterate(),
        Iterate(step=Logistic(tau=0.5), rounds=3),
        Iterate(Trim(0.2)),
        Purify(judge="NearestNeighbours(neighbours=60)"),
    ):
        assert cleaning.parse(repr(value)) == value
    assert cleaning.parse("") is None
    with pytest.raises(InputError, match="one refinement"):
        cleaning.parse("Logistic()")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Purify(parts=1), "parts"),
        (lambda: Purify(keep=1.5), "keep"),
        (lambda: Purify(votes=0.5), "votes"),
        (lambda: Iterate(rounds=1), "rounds"),
        (lambda: Purify()(fit, contaminated(3, 0)[0], torch.ones(3)), "samples"),
    ],
)
def test_what_cannot_be_is_refused(make, said):
    with pytest.raises(InputError, match=said):
        make()


def test_scored_detectors_are_refined_too():
    data, _ = contaminated()

    def scored(part, w, seed):
        detector = find("detector", "gaussian")()
        outcome = training_fit.fit(detector, part, base_weights=w, seed=seed)
        wrapped = LocalScores().fit(detector, part, seed)
        return Fitted(wrapped, outcome, wrapped.training_scores)

    refined = Purify(keep=0.9)(scored, data, torch.ones(len(data)))
    assert torch.isfinite(refined.fitted.scores).all()
    kept = (refined.weights > 0).nonzero().flatten()
    again = inference.score(refined.fitted.detector, data)
    assert torch.allclose(again[kept], refined.fitted.scores[kept], atol=1e-4)
    assert math.isfinite(float(refined.suspicion.sum()))


def labelled_table(folder):
    data, hidden = contaminated()
    table = pd.DataFrame(data.samples.numpy(), columns=list("abcdef"))
    table["bad"] = hidden.numpy().astype(int)
    table.to_csv(folder / "parts.csv", index=False)
    table[list("abcdef")].to_csv(folder / "all.csv", index=False)
    return str(folder / "parts.csv"), str(folder / "all.csv"), hidden


def test_a_run_keeps_what_was_dropped_at_weight_0(tmp_path):
    _, everything, _ = labelled_table(tmp_path)
    run = tmp_path / "run"
    options = ["--detector", "gaussian", "--scores", "own", "--refine", "Purify(keep=0.85)", "--out", str(run)]
    assert main.run(["fit", everything, *options]) == 0
    opened = store.open_run(run)
    scores = opened.scores()
    dropped = (scores["weight"] == 0).to_numpy()
    trained = ~scores["held_out"].to_numpy()
    assert dropped[trained].sum() == trained.sum() - round(0.85 * trained.sum())
    assert np.isfinite(scores["score"]).all()
    assert len(opened.settings.rounds) == 4
    assert opened.settings.refine == "Purify(keep=0.85)"


@pytest.mark.filterwarnings("default")
def test_labelled_anomalies_from_the_test_or_from_a_file(tmp_path, capsys):
    parts, everything, hidden = labelled_table(tmp_path)
    fit = ["fit", parts, "--labels", "bad", "--detector", "dev-net", "--epochs", "20", "--scores", "own"]
    assert main.run([*fit, "--anomalies", "5", "--out", str(tmp_path / "five")]) in (0, 3)
    assert main.run([*fit, "--out", str(tmp_path / "none")]) == 2
    pd.read_csv(everything)[hidden.numpy()].to_csv(tmp_path / "bad.csv", index=False)
    normals = [
        "fit",
        everything,
        "--detector",
        "dev-net",
        "--epochs",
        "20",
        "--scores",
        "own",
        "--out",
        str(tmp_path / "file"),
    ]
    assert main.run([*normals, "--anomalies", str(tmp_path / "bad.csv")]) in (0, 3)
    assert "20 training samples are among the labelled anomalies" in capsys.readouterr().err
    assert len(store.open_run(tmp_path / "file").scores()) == len(hidden) - 20
    assert main.run(["fit", everything, "--detector", "gaussian", "--anomalies", str(tmp_path / "bad.csv")]) == 2


class TestAnomaliesAtAPath:
    """What `--anomalies PATH` takes, and what it leaves."""

    def test_of_a_labelled_table_only_anomalies_in_the_order_of_the_training_columns(self, tmp_path):
        parts, _, hidden = labelled_table(tmp_path)
        other = pd.read_csv(parts)[[*"fedcba", "bad"]]
        other.iloc[150:].to_csv(tmp_path / "other.csv", index=False)
        source = Table(parts, labels="bad")
        with pytest.warns(UserWarning, match="test samples are among the labelled anomalies"):
            left, found = reviews.anomalies_at(source.load(), source, str(tmp_path / "other.csv"))
        rows = pd.read_csv(parts)
        expected = rows[(rows["bad"] == 1) & (rows.index >= 150)][list("abcdef")].to_numpy()
        np.testing.assert_allclose(found.data.read(torch.arange(len(found.data))), expected, rtol=1e-5)
        assert left.test is None or left.test.labels.sum() == hidden.sum() - len(expected)

    def test_no_labelled_anomaly_is_refused(self, tmp_path):
        parts, _, hidden = labelled_table(tmp_path)
        pd.read_csv(parts)[~hidden.numpy()].to_csv(tmp_path / "good.csv", index=False)
        source = Table(parts, labels="bad")
        with pytest.raises(InputError, match="no sample that is labelled as an anomaly"):
            reviews.anomalies_at(source.load(), source, str(tmp_path / "good.csv"))

    @pytest.fixture
    def photos(self, tmp_path):
        """MVTec layout: 6 good to train on, 3 good and 4 defective to test on, with masks."""
        generator = np.random.default_rng(0)
        for folder, count in (("train/good", 6), ("test/good", 3), ("test/dent", 4), ("ground_truth/dent", 4)):
            (tmp_path / folder).mkdir(parents=True)
            for i in range(count):
                name = f"{i}_mask.png" if folder.startswith("ground") else f"{i}.png"
                values = generator.integers(0, 255, (8, 8), dtype=np.uint8)
                pixels = 255 * (values > 200).astype(np.uint8) if folder.startswith("ground") else values
                Image.fromarray(pixels).save(tmp_path / folder / name)
        return tmp_path

    @pytest.mark.parametrize("inside", ["test/dent", "test"])
    def test_below_the_sources_folder_they_have_its_labels_and_masks(self, photos, inside):
        source = ImageFolder(str(photos), size=8)
        with pytest.warns(UserWarning, match="4 test samples are among the labelled anomalies"):
            left, found = reviews.anomalies_at(source.load(), source, str(photos / inside))
        assert list(found.data.names) == [f"test/dent/{i}.png" for i in range(4)]
        assert all(mask is not None and mask.any() for mask in found.masks)
        assert list(left.test.data.names) == [f"test/good/{i}.png" for i in range(3)]
        assert len(left.train) == 6

    @pytest.mark.parametrize(
        "content", ["sample\ntest/dent/1.png\ntest/dent/3.png\n", "test/dent/1.png\n\ntest/dent/3.png"]
    )
    def test_a_list_names_them(self, photos, tmp_path, content):
        path = tmp_path / ("bad.csv" if content.startswith("sample") else "bad.txt")
        path.write_text(content)
        source = ImageFolder(str(photos), size=8)
        with pytest.warns(UserWarning, match="2 test samples"):
            left, found = reviews.anomalies_at(source.load(), source, str(path))
        assert list(found.data.names) == ["test/dent/1.png", "test/dent/3.png"]
        assert found.masks[0] is not None
        assert len(left.test.data) == 5
        path.write_text(content.replace("3.png", "9.png"))
        with pytest.raises(InputError, match=r"names 'test/dent/9.png'"):
            reviews.anomalies_at(source.load(), source, str(path))

    def test_in_a_flat_folder_they_are_no_longer_trained_on(self, photos, tmp_path):
        flat = tmp_path / "flat"
        shutil.copytree(photos / "test", flat)
        (flat / "good").rename(flat / "plates")  # a folder that is called good would not train beside others
        source = ImageFolder(str(flat), size=8)
        with pytest.warns(UserWarning, match="4 training samples are among the labelled anomalies"):
            left, found = reviews.anomalies_at(source.load(), source, str(flat / "dent"))
        assert list(left.train.names) == [f"plates/{i}.png" for i in range(3)]
        assert len(found.data) == 4


@pytest.mark.parametrize("refinement", [Purify(keep=0.8), Purify(), Iterate(step=Trim(share=0.3))])
def test_what_a_person_settled_as_normal_keeps_its_weight(refinement):
    data, hidden = contaminated()
    settled = {str(data.names[i]) for i in hidden.nonzero().flatten().tolist()}
    without = refinement(fit, data, torch.ones(len(data))).weights
    kept = refinement(fit, data, torch.ones(len(data)), settled=settled).weights
    assert (without[hidden] == 0).any()
    assert (kept[hidden] == 1).all()


def test_steps_that_look_at_neighbours_work_in_rounds_and_densities_do_not():
    data, _ = contaminated()
    refined = Iterate(step=Rarity())(fit, data, torch.ones(len(data)))
    assert not torch.equal(refined.weights, torch.ones(len(data)))
    with pytest.raises(InputError, match="weighting step"):
        Iterate(step=KDE())


def test_half_of_equal_samples_do_not_hide_the_others():
    """Their median deviation is 0."""
    data, hidden = contaminated()
    samples = data.read(torch.arange(len(data))).clone()
    normal = (~hidden).nonzero().flatten()
    samples[normal[: int(0.7 * len(data))]] = samples[normal[0]].clone()
    refined = Purify()(fit, Data(samples, data.names), torch.ones(len(data)))
    assert (refined.weights[hidden] == 0).float().mean() > 0.8
    assert refined.suspicion.abs().max() < 1e4


def test_one_part_is_refused():
    data, _ = contaminated()
    with pytest.raises(InputError, match="at least 2 parts"):
        out_of_fold(fit, data, torch.ones(len(data)), parts=1)


def test_on_others_every_sample_is_judged_once_by_what_it_did_not_teach():
    data, _ = contaminated()
    taught: list[set[int]] = []

    def watched(part, w, seed):
        taught.append({int(name) for name in part.names})
        return fit(part, w, seed)

    whole = out_of_fold(watched, data, torch.ones(len(data)), parts=4, on_others=True, read=lambda scores: scores)
    # Of four parts each sample teaches three judges; the fourth is the mean of all samples outside its own part.
    assert sorted(len(each) for each in taught) == [150] * 4
    samples = data.read(torch.arange(len(data)))
    for names in taught:
        centre = samples[sorted(names)].mean(0)
        judged = sorted(set(range(len(data))) - names)
        torch.testing.assert_close(whole[judged], (samples[judged] - centre).norm(dim=1))


def lump(normals=200, hidden=20, seed=0):
    """Two wide kinds of normal, and between them anomalies that lie closer together than any normals."""
    generator = torch.Generator().manual_seed(seed)
    samples = torch.randn(normals + hidden, 3, generator=generator)
    samples[: normals // 2] += 5
    samples[normals // 2 : normals] -= 5
    samples[normals:] *= 0.02
    return Data(samples, [str(i) for i in range(len(samples))]), torch.arange(len(samples)) >= normals


@pytest.mark.parametrize(
    "make",
    [
        lambda judge: Purify(keep=0.85, judge=judge),
        lambda judge: Iterate(step=Logistic(tau=0.2), judge=judge),
    ],
)
def test_a_judge_that_looks_beyond_a_lump_finds_it(make):
    data, hidden = lump()
    ones = torch.ones(len(data))
    near, far = (make(f"NearestNeighbours(neighbours={count})")(fit, data, ones) for count in (3, 40))
    assert near.weights[hidden].mean() > near.weights.mean()
    assert far.weights[hidden].mean() < 0.6 * far.weights.mean()
    # What is trained in the end is the detector itself, not its judge.
    assert isinstance(far.fitted.detector, Centre)


def test_a_judge_of_the_same_sort_changes_nothing():
    data, _ = contaminated()

    def neighbours(part, w, seed):
        detector = NearestNeighbours()
        outcome = training_fit.fit(detector, part, base_weights=w, seed=seed)
        return Fitted(detector, outcome, outcome.scores)

    ones = torch.ones(len(data))
    own, judged = (Purify(keep=0.8, judge=judge)(neighbours, data, ones) for judge in ("", "nearest-neighbours"))
    assert torch.equal(own.suspicion, judged.suspicion)
    assert torch.equal(own.weights, judged.weights)


@pytest.mark.parametrize(("judge", "said"), [("nearest-neighbour", "nearest-neighbour"), ("dev-net", "labelled")])
@pytest.mark.parametrize("refinement", [Purify, Iterate])
def test_what_cannot_judge_is_refused(refinement, judge, said):
    with pytest.raises(InputError, match=said):
        refinement(judge=judge)


@pytest.mark.parametrize("refinement", [Purify(), Purify(keep=0.9), Purify(keep=0.9, votes=0.6), Iterate(rounds=2)])
def test_what_has_no_base_weight_has_no_say_in_a_refinement(refinement):
    data, hidden = contaminated(100, 60)
    base = (~hidden).float()
    found, expected = refinement(fit, data, base), refinement(fit, data.take(range(100)), torch.ones(100))
    assert torch.equal(found.weights, torch.cat([expected.weights, torch.zeros(60)]))
    assert torch.equal(found.suspicion[:100], expected.suspicion.float())
    assert bool(found.suspicion[100:].isnan().all())
    assert torch.allclose(found.fitted.scores[:100], expected.fitted.scores.float())
    assert float(found.fitted.scores[100:].min()) > float(found.fitted.scores[:100].median())


def test_a_fit_says_how_many_samples_the_refinement_dropped(tmp_path):
    rows = contaminated(180, 12)[0].samples.numpy()
    run = tailwise.fit(rows, detector="gaussian", refine="Purify()", out=tmp_path / "run", keep_suspects=True)
    came = run.outcome()
    assert came["dropped"] == run.settings.rounds[-1]["dropped"] == int((run.scores()["weight"] == 0).sum())
    assert came["dropped"] > 0
    assert f"{came['dropped']} of them dropped by the refinement" in display.lines(came)[0]

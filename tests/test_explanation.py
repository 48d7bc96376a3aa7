"""Explanations of planted faults, of every detector, and of weights that can be told beforehand."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from tailwise import open_run
from tailwise.backbones import networks
from tailwise.cli import commands, main
from tailwise.core import inference, registry
from tailwise.core.data import Data
from tailwise.core.modality import IMAGE, ROW, SPECTRUM
from tailwise.errors import InputError
from tailwise.report import explanation, explanation_page
from tailwise.testing import Case
from tailwise.training.local_scores import LocalScores
from tailwise.weights.default import AUTO
from tailwise.weights.steps import Clip, Importance, Trim
from tailwise.weights.weighting import Context, Weighting, unit_mean

FEATURES = ["width", "height", "mass", "gloss", "hue"]
SHAPES = {ROW: (6,), SPECTRUM: (1, 20), IMAGE: (2, 12, 10)}
ASKED = [
    pytest.param(name, modality, id=f"{name}-{modality.name}")
    for name in registry.entries("detector")
    for modality in registry.find("detector", name).modalities
    if modality in SHAPES and not registry.find("detector", name)().needs_context
]


@pytest.mark.parametrize(("name", "modality"), ASKED)
def test_what_drives_a_score_adds_up_for_every_detector(name, modality):
    case = Case(registry.find("detector", name).for_contracts, SHAPES[modality], modality)
    data = case.data()
    detector = case.fit(data, epochs=1)
    one = Data(data.read(torch.tensor([3])) + 2, ["odd"], modality=modality)
    found = explanation.drivers(detector, one, data.read(torch.arange(5)).mean(0), seed=0)
    added = sum(row["contribution"] for row in found["drivers"]["rows"])
    score = float(inference.score(detector, one)[0])
    assert score != found["usual"]
    assert added == pytest.approx(score - found["usual"], rel=1e-4, abs=1e-4 * abs(score))


def test_cluster_fair_scores_add_up_in_both_ways():
    case = Case(registry.find("detector", "gaussian"), (6,))
    data = case.data(120)
    scored = LocalScores().fit(case.fit(data), data)
    one = Data(data.read(torch.tensor([3])) + 2, ["odd"])
    score = float(inference.score(scored, one)[0])
    found = explanation.drivers(scored, one, data.read(torch.arange(5)).mean(0), seed=0)
    added = sum(row["contribution"] for row in found["drivers"]["rows"])
    assert added == pytest.approx(score - found["usual"], rel=1e-4)
    cues = inference.over_batches(scored, one, lambda batch: torch.stack(list(scored.named_cues(batch).values()), 1))[0]
    assert float(cues.mean()) == pytest.approx(score, rel=1e-5)


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """A common kind of 150 and a rare one of 24 far away; three new samples, each with one planted fault."""
    folder = tmp_path_factory.mktemp("parts")
    generator = np.random.default_rng(0)
    common, rare = generator.normal(size=(150, 5)), generator.normal(size=(24, 5)) + 7
    values = np.concatenate([common, rare])
    pd.DataFrame(values, columns=FEATURES).assign(board=["a"] * 150 + ["b"] * 24).to_csv(
        folder / "parts.csv", index=False
    )
    new = np.concatenate([generator.normal(size=(2, 5)), generator.normal(size=(1, 5)) + 7])
    new[0, 3] += 9
    new[2, 1] -= 8
    pd.DataFrame(new, columns=FEATURES).to_csv(folder / "new.csv", index=False)
    assert main.run(["fit", str(folder / "parts.csv"), "--groups", "board", "--detector", "gaussian",
                    "--weighting", repr(AUTO), "--out", str(folder / "run")]) == 0  # fmt: skip
    return folder


def explained(folder, *arguments):
    """The JSON that the command writes."""
    out = folder / "explained.json"
    assert main.run(["explain", str(folder / "run"), *arguments, "--out", str(out)]) == 0
    return json.loads(out.read_text(encoding="utf-8"))["samples"]


def test_a_planted_fault_is_what_drives_the_score(parts):
    found = {sample["sample"]: sample for sample in explained(parts, str(parts / "new.csv"), "--worst", "3")}
    for name, feature in (("0", "gloss"), ("2", "height")):
        rows = found[name]["drivers"]["rows"]
        assert rows[0]["name"] == feature
        assert rows[0]["contribution"] > 3 * sum(abs(row["contribution"]) for row in rows[1:])
        assert found[name]["flagged"]
        assert found[name]["unlike"]
    assert not found["1"]["unlike"]
    assert not found["1"]["flagged"]
    scored = commands.score(parts / "run", str(parts / "new.csv"))
    assert [found[str(i)]["score"] for i in range(3)] == pytest.approx(scored["score"].tolist())


@pytest.mark.parametrize(("option", "column"), [("--per-cluster", "kind"), ("--per-group", "board")])
def test_a_sample_is_held_to_the_threshold_of_its_kind(tmp_path, option, column, capsys):
    generator = np.random.default_rng(0)
    kinds = [generator.normal(size=(400, 5)), 3 * generator.normal(size=(400, 5)) + 20]
    table = pd.DataFrame(np.concatenate(kinds), columns=FEATURES).assign(board=["a"] * 400 + ["b"] * 400)
    table.to_csv(tmp_path / "parts.csv", index=False)
    table.iloc[[0, 1, 798, 799]].to_csv(tmp_path / "new.csv", index=False)
    fit = ["fit", str(tmp_path / "parts.csv"), "--groups", "board", "--detector", "gaussian", option]
    assert main.run([*fit, "--out", str(tmp_path / "run")]) in (0, 3)
    scored = commands.score(tmp_path / "run", str(tmp_path / "new.csv"))
    assert scored["threshold"].nunique() == 2
    found = {sample["sample"]: sample for sample in explained(tmp_path, str(tmp_path / "new.csv"), "--worst", "4")}
    for row in scored.to_dict("records"):
        for key in ("threshold", "flagged", "p_value"):
            assert found[str(row["sample"])][key] == pytest.approx(row[key])


def test_nearest_normals_are_of_the_kind_and_nearest(parts):
    found = {sample["sample"]: sample for sample in explained(parts, str(parts / "new.csv"), "--worst", "3")}
    train, new = (pd.read_csv(parts / name)[FEATURES].to_numpy() for name in ("parts.csv", "new.csv"))
    for name, members, kind in (("0", range(150), 150), ("2", range(150, 174), 24)):
        near = [int(row["sample"]) for row in found[name]["nearest"]]
        distances = [row["distance"] for row in found[name]["nearest"]]
        # Standardised features in 5 components of 5 are the features turned, so their distances are theirs.
        expected = np.linalg.norm((train - new[int(name)]) / train.std(0), axis=1)[list(members)]
        assert distances == pytest.approx(np.sort(expected)[:5].tolist(), rel=1e-3)
        assert set(near) == {members[i] for i in expected.argsort()[:5]}
        assert found[name]["kind"]["size"] == kind


def test_a_training_sample_is_not_its_own_neighbour(parts):
    sample = explained(parts, "--sample", "7")[0]
    assert "7" not in [row["sample"] for row in sample["nearest"]]
    assert sample["score"] == pytest.approx(
        open_run(parts / "run").scores().set_index("sample")["score"]["7"], abs=1e-4
    )
    assert sample["notes"] == []


def test_every_way_of_writing_it_says_the_same(parts, capsys):
    assert main.run(["explain", str(parts / "run"), str(parts / "new.csv"), "--sample", "0", "--sample", "2"]) == 0
    text = capsys.readouterr().out
    assert text.index("# 0") < text.index("# 2")
    assert [len(line) for line in text.splitlines() if line.startswith("| gloss")] == [
        len(line) for line in text.splitlines() if line.startswith("| feature")
    ]
    for ending in ("md", "html", "txt"):
        out = parts / f"explained.{ending}"
        arguments = ["explain", str(parts / "run"), str(parts / "new.csv"), "--sample", "0", "--out", str(out)]
        assert main.run(arguments) == 0
        written = out.read_text(encoding="utf-8")
        assert "gloss" in written
        assert 'src="http' not in written
        assert "<script" not in written


def test_changed_and_missing_training_data_are_told(parts, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("parts.csv", "new.csv"):
        (tmp_path / name).write_bytes((parts / name).read_bytes())
    fit = ["fit", str(tmp_path / "parts.csv"), "--groups", "board", "--detector", "gaussian", "--weighting", ""]
    assert main.run([*fit, "--out", str(tmp_path / "run")]) == 0
    table = pd.read_csv(tmp_path / "parts.csv")
    table.loc[0, "width"] += 1
    table.to_csv(tmp_path / "parts.csv", index=False)
    assert "has changed" in explained(tmp_path, "--sample", "5")[0]["notes"][0]
    table.iloc[:100].to_csv(tmp_path / "parts.csv", index=False)
    assert explained(tmp_path, "--sample", "5")[0]["notes"][0].startswith("74 of the run's 174 samples are not in")
    (tmp_path / "parts.csv").unlink()
    assert main.run(["explain", str(tmp_path / "run")]) == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["{new}", "--sample", "nine"], "no sample is called 'nine'"),
        (["--weights", "--sample", "999"], "no training sample is called '999'"),
        (["{new}", "--weights"], "weights are of the training samples"),
        (["{new}", "--worst", "0"], "worst must be 1 or more"),
        (["{new}", "--out", "why.pdf"], "why.pdf"),
    ],
)
def test_bad_input(parts, arguments, said, capsys):
    arguments = [argument.format(new=parts / "new.csv") for argument in arguments]
    assert main.run(["explain", str(parts / "run"), *arguments]) == 2
    printed = capsys.readouterr().err
    assert said in printed
    assert len(printed) < 600


def test_a_trace_ends_in_the_weights_and_steps_can_be_told_beforehand():
    scores = torch.tensor([1.0, 2.0, 3.0, 4.0])
    found = Weighting(Trim(0.25), Clip(0.5, 2)).trace(Context(scores, scores))
    assert [w.tolist() for w in found[:2]] == [[1, 1, 1, 1], pytest.approx([4 / 3] * 3 + [0])]
    assert found[2].tolist() == pytest.approx((np.array([4 / 3] * 3 + [0.5]) / 1.125).tolist())
    assert torch.equal(found[2], Weighting(Trim(0.25), Clip(0.5, 2))(Context(scores, scores)))
    assert [w.tolist() for w in Weighting().trace(Context(scores, scores))] == [[1, 1, 1, 1]]


def fitted(folder, weighting, *more):
    out = folder / f"weighed{len(list(folder.iterdir()))}"
    arguments = ["fit", str(folder / "parts.csv"), "--groups", "board", "--detector", "gaussian", "--cross", "0"]
    # On local scores `auto` is none: here weights are what is looked at.
    weighting = repr(AUTO) if weighting == "auto" else weighting
    assert main.run([*arguments, "--keep-suspects", "--weighting", weighting, "--out", str(out), *more]) == 0
    return explanation.reopen(open_run(out))


def test_the_steps_come_to_the_weight_that_the_run_holds(parts):
    for weighting, more in (("Importance(), Smooth(), Clip(0.2, 5)", []), ("Rarity()", ["--balance"])):
        known = fitted(parts, weighting, *more)
        rows = known.table[~known.table["held_out"]]
        names = rows["sample"].tolist()[::20]
        for found in explanation.explain_weights(known, names):
            steps = found["rounds"][-1]["steps"]
            assert steps[0]["before"] == 1
            assert [step["before"] for step in steps[1:]] == [step["after"] for step in steps[:-1]]
            stored = float(rows.set_index("sample")["weight"][found["sample"]])
            assert steps[-1]["after"] == pytest.approx(stored, rel=1e-4)
            assert found["notes"] == []
        assert (steps[-1]["step"] == "groups balanced") == bool(more)


def test_the_steps_come_to_the_weight_where_suspects_have_none(tmp_path):
    generator = np.random.default_rng(1)
    values = np.concatenate([generator.normal(size=(300, 6)), 8 + 0.1 * generator.normal(size=(9, 6))])
    pd.DataFrame(values, columns=[*FEATURES, "depth"]).to_csv(tmp_path / "parts.csv", index=False)
    arguments = ["fit", str(tmp_path / "parts.csv"), "--detector", "gaussian", "--cross", "0"]
    assert main.run([*arguments, "--weighting", "Importance(), Clip(0.2, 5)", "--out", str(tmp_path / "run")]) == 0
    known = explanation.reopen(open_run(tmp_path / "run"))
    rows = known.table[~known.table["held_out"]].set_index("sample")
    assert rows["suspect"].sum() >= 4
    for found in explanation.explain_weights(known, rows.index.tolist()):
        assert found["rounds"][-1]["steps"][-1]["after"] == pytest.approx(rows["weight"][found["sample"]], rel=1e-4)


def test_weights_of_the_rare_kind_are_raised_and_said_to_be(parts):
    known = fitted(parts, "auto")
    raised, lowered = explanation.explain_weights(known, explanation.extreme_weights(known, 1))
    assert int(raised["sample"]) >= 150 > int(lowered["sample"])
    assert "above the mean of 1" in raised["sentence"]
    assert "holds 24 of 174 samples" in raised["sentence"]
    assert "below the mean of 1" in lowered["sentence"]
    # The ratio that is told is the one that the step by itself weighs by, where alpha is 0.
    rows = known.table[~known.table["held_out"]]
    scores = torch.tensor(rows["first_score"].to_numpy())
    plain = Importance(alpha=0.0)(torch.ones(len(scores), dtype=torch.float64), Context(scores, scores))
    at = rows["sample"].tolist().index(raised["sample"])
    assert raised["density"]["ratio"] == pytest.approx(float(plain[at]), rel=1e-6)
    assert float(unit_mean(plain)[at]) > 1


def test_held_out_and_unweighed_samples(parts):
    known = fitted(parts, "")
    held = known.table[known.table["held_out"]]["sample"].iloc[0]
    used = known.table[~known.table["held_out"]]["sample"].iloc[0]
    found = explanation.explain_weights(known, [held, used])
    assert "held out" in found[0]["sentence"]
    assert found[1]["rounds"] == []
    assert "about the mean of 1" in found[1]["sentence"]
    with pytest.raises(InputError, match="no training sample"):
        explanation.explain_weights(known, ["999"])


def test_weights_as_text_and_page(parts, capsys):
    assert main.run(["explain", str(parts / "run"), "--weights", "--worst", "2"]) == 0
    text = capsys.readouterr().out
    assert text.count("at the start of weighting") == 4
    assert text.count("had the largest effect") >= 1
    page = explanation_page.to_html(explanation_page.of_weights(fitted(parts, "Rarity()"), ["3"]))
    assert "<code>Rarity()</code>" in page


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """80 pictures of stripes; one new one with a bright spot at the lower left."""
    folder = tmp_path_factory.mktemp("pictures")
    generator = np.random.default_rng(0)
    stripes = 60 + 40 * (np.arange(24) // 3 % 2)
    normal = stripes + generator.normal(0, 4, size=(81, 24, 24))
    normal[80, 18:21, 3:6] += 90
    images = normal.clip(0, 255).astype(np.uint8)
    np.savez(folder / "train.npz", x_train=images[:80])
    np.savez(folder / "new.npz", x_train=images[80:])
    assert main.run(["fit", str(folder / "train.npz"), "--detector", "gaussian", "--out", str(folder / "run")]) == 0
    return folder


def test_the_patch_and_the_region_are_where_the_spot_is(pictures):
    sample = explained(pictures, str(pictures / "new.npz"))[0]
    for box in (sample["drivers"]["rows"][0]["box"], sample["regions"][0]["box"]):
        assert box["left"] <= 4.5 / 24 <= box["right"]
        assert box["top"] <= 19.5 / 24 <= box["bottom"]
    assert sample["regions"][0]["flagged"]
    assert sample["drivers"]["rows"][0]["name"] == "row 7, column 2"


def test_pictures_are_on_the_page(pictures):
    out = pictures / "why.html"
    assert commands.explain(pictures / "run", str(pictures / "new.npz"), out=out) == out
    assert out.read_text(encoding="utf-8").count("data:image/jpeg;base64,") == 6  # the sample, and its five nearest


def test_the_band_that_is_off_drives_a_spectrum(tmp_path):
    generator = np.random.default_rng(0)
    cube = np.sin(np.arange(40) / 6) + 0.05 * generator.normal(size=(20, 20, 40))
    cube[5, 7, 22] += 1.5
    np.save(tmp_path / "cube.npy", cube.astype(np.float32))
    fit = ["fit", str(tmp_path / "cube.npy"), "--detector", "rx", "--out", str(tmp_path / "run")]
    assert main.run(fit) == 0
    sample = explained(tmp_path, "--worst", "1")[0]
    assert sample["sample"] == "5,7"
    first, last = sample["drivers"]["rows"][0]["bands"]
    assert first <= 22 <= last
    out = tmp_path / "why.html"
    commands.explain(tmp_path / "run", worst=1, out=out)
    assert out.read_text(encoding="utf-8").count("<svg aria-hidden") == 2


def test_a_detector_of_surroundings_says_what_it_cannot_say(tmp_path):
    generator = np.random.default_rng(0)
    np.save(tmp_path / "cube.npy", generator.normal(size=(15, 15, 4)).astype(np.float32))
    fit = ["fit", str(tmp_path / "cube.npy"), "--detector", "LocalRX(inner=3, outer=9)"]
    assert main.run([*fit, "--out", str(tmp_path / "run")]) in (0, 3)
    sample = explained(tmp_path, "--worst", "1")[0]
    assert sample["drivers"] is None
    assert "around this one" in sample["notes"][0]
    assert len(sample["nearest"]) == 5


class Sums(torch.nn.Module):
    """A network of one map: sums of squares over blocks of 8 pixels, in three colours."""

    def forward(self, images):
        return [torch.nn.functional.avg_pool2d(images.square(), 8)]


def test_pooled_pictures_are_explained_by_their_places(tmp_path, monkeypatch, capsys):
    """No number of a feature is named; the place that differs is, and all places add up to the score."""
    monkeypatch.setitem(networks._ADDED, "sums", (Sums(), (0.0,) * 3, (1.0,) * 3))
    generator = np.random.default_rng(0)
    for number in range(30):
        tile = generator.normal(0, 4, (32, 32, 3)) + np.array([90, 120, 150]) + generator.normal(0, 1, 3)
        tile[8:12, 20:24, 0] += 150 * (number == 29)
        folder = tmp_path / ("new" if number == 29 else "photos")
        folder.mkdir(exist_ok=True)
        Image.fromarray(tile.clip(0, 255).astype(np.uint8)).save(folder / f"{number}.png")
    fit = ["fit", str(tmp_path / "photos"), "--read", "sums", "--size", "32", "--detector", "gaussian"]
    assert main.run([*fit, "--cross", "0", "--out", str(tmp_path / "run")]) == 0
    out = tmp_path / "why.json"
    assert main.run(["explain", str(tmp_path / "run"), str(tmp_path / "new"), "--out", str(out)]) == 0
    (sample,) = json.loads(out.read_text())["samples"]
    rows = sample["drivers"]["rows"]
    assert rows[0]["name"] == "row 3, column 6"
    assert sum(row["contribution"] for row in rows) == pytest.approx(sample["score"] - sample["usual"], rel=1e-4)
    capsys.readouterr()
    assert main.run(["explain", str(tmp_path / "run"), str(tmp_path / "new")]) == 0
    said = capsys.readouterr().out
    assert "feature" not in said
    assert "that of the most similar" in said

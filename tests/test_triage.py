"""Triage by planted anomalies and a planted rare kind, and its sheet through the command line and back."""

import base64
import io
import json
import re
import shlex
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import tailwise
from tailwise.backbones import networks
from tailwise.cli import main
from tailwise.core.data import Data
from tailwise.core.problem import Facts, Labelled, Problem
from tailwise.errors import InputError
from tailwise.report.review import PROBABLY_ANOMALY, PROBABLY_NORMAL, PROBABLY_RARE
from tailwise.report.review_page import to_html
from tailwise.runs import store
from tailwise.sources.auto import with_maps
from tailwise.sources.images import ImageFolder
from tailwise.sources.table import Table
from tailwise.workflows import reviews
from tailwise.workflows.request import Request
from tailwise.workflows.triage import sheet, triage


def planted(seed=0):
    """300 normals, a tight kind of 12 far away, and 25 anomalies each on its own: samples and what each is."""
    generator = np.random.default_rng(seed)
    normal = generator.normal(size=(300, 8))
    rare = 0.3 * generator.normal(size=(12, 8)) + 7
    odd = generator.normal(size=(25, 8))
    odd /= np.linalg.norm(odd, axis=1)[:, None] / generator.uniform(7, 12, (25, 1))
    truth = np.repeat(["normal", "rare", "odd"], [300, 12, 25])
    order = generator.permutation(len(truth))
    return np.concatenate([normal, rare, odd])[order], truth[order]


@pytest.fixture(scope="module")
def triaged(tmp_path_factory):
    folder = tmp_path_factory.mktemp("triage")
    values, truth = planted()
    table = pd.DataFrame(values, columns=[f"f{i}" for i in range(8)])
    table.to_csv(folder / "parts.csv", index=False)
    assert main.run(["triage", str(folder / "parts.csv"), "--out", str(folder / "sheet")]) == 0
    return folder, truth


def test_anomalies_come_first_and_the_rare_kind_is_not_called_one(triaged):
    folder, truth = triaged
    found = pd.read_csv(folder / "sheet" / "review.csv")
    assert list(found.columns[:4]) == ["sample", "order", "score", "verdict"]
    assert found["order"].tolist() == list(range(1, len(truth) + 1))
    of = truth[found["sample"].to_numpy()]
    top = of[: round(0.15 * len(of))]
    assert (top == "odd").sum() >= 0.8 * 25
    said = found["verdict"].to_numpy()
    assert (said[of == "rare"] == PROBABLY_ANOMALY).mean() <= 0.2
    assert (said[of == "rare"] == PROBABLY_RARE).mean() >= 0.8
    assert (said[of == "odd"] == PROBABLY_ANOMALY).mean() >= 0.8
    assert (said[of == "normal"] == PROBABLY_ANOMALY).mean() <= 0.05


def test_the_page_loads_nothing_and_names_the_first(triaged):
    folder, _ = triaged
    page = (folder / "sheet" / "review.html").read_text(encoding="utf-8")
    first = pd.read_csv(folder / "sheet" / "review.csv", dtype=str)["sample"].iloc[0]
    assert f"<b>{first}</b>" in page
    assert 'src="http' not in page
    # Two scripts of its own: what is decided on, and what decides; the policy lets no other in.
    assert page.count("<script") == 2
    assert page.count('<script type="application/json"') == 1
    assert page.count("'sha256-") == 1
    assert "default-src 'none'" in page
    assert "red line" not in page  # rows have no maps


def test_all_samples_have_a_score_and_a_rank(triaged):
    folder, truth = triaged
    scores = pd.read_csv(folder / "sheet" / "scores.csv")
    assert scores["sample"].tolist() == list(range(len(truth)))
    order = np.argsort(-scores["score"].to_numpy(), kind="stable")
    assert scores["rank"].to_numpy()[order].tolist() == list(range(1, len(truth) + 1))
    # No rare kind is protected: lone anomalies and the far kind alike come before the usual rows.
    first = truth[order[: (truth != "normal").sum()]]
    assert (first != "normal").mean() >= 0.85
    sheet = pd.read_csv(folder / "sheet" / "review.csv").set_index("sample").loc[scores["sample"]]
    assert sheet["verdict"].tolist() == scores["verdict"].tolist()
    assert sheet["score"].tolist() == scores["score"].tolist()


def test_the_last_lines_say_what_was_found_and_what_to_do_next(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    values, truth = planted()
    pd.DataFrame(values).assign(side=truth == "x").add_prefix("f ").to_csv("parts.csv", index=False)
    assert main.run(["triage", "parts.csv", "--groups", "f side", "--out", "my sheet"]) == 0
    said, lines = capsys.readouterr(), []
    lines = said.err.splitlines()[-5:]
    assert said.out == "my sheet/review.csv\n"
    assert lines[0].startswith("looked at 337 rows")
    assert "isolation forest" in lines[1]
    scores = pd.read_csv("my sheet/scores.csv")
    oddest = scores.nlargest(1, "score").iloc[0]
    assert f"oddest: '{oddest['sample']}' ({oddest['score']:.3g})" in lines[2]
    assert "my sheet/scores.csv" in lines[3]
    following = lines[4].partition(", then tailwise ")[2]
    assert following == "fit parts.csv --groups 'f side' --reviewed 'my sheet/review.csv'"
    # The next command is one: it runs once a verdict stands in the sheet.
    sheet = pd.read_csv("my sheet/review.csv")
    sheet.loc[0, "verdict"] = "anomaly"
    sheet.to_csv("my sheet/review.csv", index=False)
    assert main.run([*shlex.split(following), "--out", "run"]) == 0
    assert len(store.open_run("run").scores()) == 336


def test_what_it_came_to_is_read_by_programs_and_in_python(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    values, _ = planted()
    frame = pd.DataFrame(values, columns=[f"f{i}" for i in range(8)])
    frame.to_csv("parts.csv", index=False)
    assert main.run(["triage", "parts.csv", "--json"]) == 0
    came = json.loads(capsys.readouterr().out)
    assert came["looked_at"] == 337
    assert came["next"] == "tailwise triage parts.csv --out review"
    assert len(came["oddest"]) == 5
    assert main.run(["triage", "parts.csv"]) == 0
    printed = pd.read_csv(io.StringIO(capsys.readouterr().out), dtype={"sample": str})
    assert not (tmp_path / "review").exists()
    named = frame.set_axis([f"part {i}" for i in range(len(frame))])
    for data in (frame, values, named, Table("parts.csv"), "parts.csv"):
        table = tailwise.triage(data)
        assert table["sample"].tolist() == (list(named.index) if data is named else printed["sample"].tolist())
        np.testing.assert_allclose(table["score"], printed["score"], rtol=1e-4)
        assert table["rank"].tolist() == printed["rank"].tolist()
        for name in ("looked_at", "probable_anomalies", "probably_rare", "ranked_by"):
            assert table.attrs[name] == came[name]
    table = tailwise.triage(values, out="review")
    assert table.attrs["next"].endswith("tailwise.fit(data, reviewed='review/review.csv')")
    assert (tmp_path / "review" / "review.html").is_file()


def test_options_that_change_nothing_and_a_test_part_that_is_left_out_are_said(tmp_path, capsys):
    values, truth = planted()
    frame = pd.DataFrame(values, columns=[f"f{i}" for i in range(8)]).assign(bad=(truth == "odd").astype(int))
    frame.to_csv(tmp_path / "parts.csv", index=False)
    assert main.run(["triage", str(tmp_path / "parts.csv"), "--labels", "bad", "--parts", "3", "--epochs", "2"]) == 0
    said = capsys.readouterr().err
    assert "--epochs, --parts changes nothing" in said
    assert "looks at the 156 training samples; 181 of the test part are left out" in said


def test_an_edited_sheet_decides_what_is_trained_on(triaged, capsys):
    folder, _ = triaged
    found = pd.read_csv(folder / "sheet" / "review.csv", dtype=str)
    dropped = found["sample"].head(10).tolist()
    found.loc[:9, "verdict"] = " Anomaly"
    found.loc[10, "verdict"] = "normal"
    found.to_csv(folder / "edited.csv", index=False)
    run, data = str(folder / "run"), str(folder / "parts.csv")
    fit = ["fit", data, "--detector", "gaussian", "--reviewed", str(folder / "edited.csv"), "--out", run]
    assert main.run(fit) == 0
    assert not set(store.open_run(folder / "run").scores()["sample"].astype(str)) & set(dropped)
    again = ["triage", data, "--reviewed", str(folder / "edited.csv"), "--out", str(folder / "second")]
    assert main.run(again) == 0
    second = pd.read_csv(folder / "second" / "review.csv", dtype=str)
    # The newest sheet holds all decisions: those of before come last; so do the scores.
    scores = pd.read_csv(folder / "second" / "scores.csv", dtype={"sample": str})
    assert len(scores) == len(second)
    assert set(scores.loc[scores["score"].isna(), "sample"]) == set(dropped)
    assert second["sample"].tail(len(dropped)).tolist() == dropped
    assert set(second["verdict"].tail(len(dropped))) == {"anomaly"}
    assert not set(second["sample"][: -len(dropped)]) & set(dropped)
    assert main.run([*fit[:-3], str(folder / "second" / "review.csv"), "--out", str(folder / "run-2")]) == 0
    assert not set(store.open_run(folder / "run-2").scores()["sample"].astype(str)) & set(dropped)
    assert second.loc[second["sample"] == found["sample"][10], "verdict"].tolist() == ["normal"]


def test_an_edited_sheet_is_not_written_over(triaged, capsys):
    folder, _ = triaged
    before = (folder / "sheet" / "review.csv").read_bytes()
    assert main.run(["triage", str(folder / "parts.csv"), "--out", str(folder / "sheet")]) == 2
    assert "already" in capsys.readouterr().err
    assert (folder / "sheet" / "review.csv").read_bytes() == before


@dataclass(frozen=True)
class Made:
    """A source of 60 pictures: noise, and in the first three a bright square of 4 x 4 at the lower right."""

    def load(self):
        images = 0.1 * torch.rand(60, 3, 16, 16, generator=torch.Generator().manual_seed(0))
        images[:3, :, 11:15, 11:15] += 0.8
        return Problem(Data(images, [f"{i:02d}.png" for i in range(60)]), Facts("made", "images"))


def reds(page, sample):
    """Where the picture of a sample on the page is red: [h, w]."""
    (shown,) = re.findall(f'src="data:image/jpeg;base64,([^"]+)" alt="{sample}"', page)
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(shown))).convert("RGB")).astype(int)
    return pixels[..., 0] - pixels[..., 1:].max(2) > 80


@pytest.mark.parametrize("name", ["review.csv", "review.html", "scores.csv"])
def test_files_of_the_users_are_not_written_over(tmp_path, capsys, name):
    """Whatever has the name of a sheet or a page; it is told before the data are read."""
    data, out = tmp_path / "empty.csv", tmp_path / "out"
    data.touch()
    out.mkdir()
    (out / name).write_text("mine")
    assert main.run(["triage", str(data), "--out", str(out)]) == 2
    assert f"{name} is there already" in capsys.readouterr().err
    assert [(path.name, path.read_text()) for path in out.iterdir()] == [(name, "mine")]


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_line_goes_around_what_stands_out_in_a_picture(seed):
    """One picture in twenty may have a mark elsewhere too, by chance; seed 0 draws held-out pictures that leave one."""
    found = triage(Request(source=Made(), detector="PaDiM(dims=3)", weighting="", scores="own", seed=seed))
    assert set(found.sheet["sample"][:3]) == {"00.png", "01.png", "02.png"}
    assert set(found.sheet["verdict"][:3]) == {PROBABLY_ANOMALY}
    page = to_html(found)
    for sample in ("00.png", "01.png", "02.png"):
        red = reds(page, sample)
        rows, columns = (np.flatnonzero(red.any(axis)) / len(red) for axis in (1, 0))
        assert len(rows)
        assert len(columns)
        assert min(rows.min(), columns.min()) > 0.5
        assert not red[int(0.75 * len(red)) : int(0.85 * len(red)), int(0.75 * len(red)) : int(0.85 * len(red))].any()
    usual = found.sheet.loc[found.sheet["verdict"] == PROBABLY_NORMAL, "sample"].iloc[0]
    assert not reds(page, usual).any()
    assert "red line" in page


def problem():
    data = Data(torch.arange(6.0)[:, None], list("abcdef"))
    test = Labelled(Data(torch.arange(10.0)[:, None], range(10)), np.arange(10) >= 6)
    return Problem(data, Facts("made"), np.array(list("xxyyzz")), test)


def test_reviewed_anomalies_leave_with_their_groups():
    left, found = reviews.apply(problem(), {"b": "anomaly", "c": "normal"})
    assert list(left.train.names) == list("acdef")
    assert left.train_groups.tolist() == list("xyyzz")
    assert found is not None
    assert list(found.data.names) == ["b"]
    assert reviews.apply(problem(), {"c": "normal"})[1] is None


def test_labelled_anomalies_are_taken_out_of_the_test():
    left, taken = reviews.take_anomalies(problem(), 3, seed=1)
    assert len(taken.data) == 3
    assert all(name >= 6 for name in taken.data.names)
    assert sorted([*taken.data.names, *left.test.data.names]) == list(range(10))
    assert left.test.labels.sum() == 1
    with pytest.raises(InputError, match="4 labelled"):
        reviews.take_anomalies(problem(), 4, seed=1)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("sample,score\na,1\n", "verdict"),
        ("sample,verdict\nzz,anomaly\n", "zz"),
        ("sample,verdict\n" + "".join(f"{n},anomaly\n" for n in "abcde"), "at least 2"),
    ],
)
def test_a_sheet_of_other_data_is_refused(tmp_path, content, said):
    path = tmp_path / "review.csv"
    path.write_text(content)
    with pytest.raises(InputError, match=said):
        reviews.apply(problem(), reviews.read(path))


def test_verdicts_of_the_library_decide_nothing(tmp_path):
    values, _ = planted(1)
    data = Data(torch.from_numpy(values).float(), range(len(values)))
    sheet(data, values[:, 0]).to_csv(tmp_path / "review.csv", index=False)
    with pytest.warns(UserWarning, match="decides nothing"):
        assert reviews.read(tmp_path / "review.csv") == {}


def test_a_verdict_that_is_no_verdict_is_refused(tmp_path):
    (tmp_path / "review.csv").write_text("sample,verdict\na,anomaly\nb,anomalous\n")
    with pytest.raises(InputError, match="'anomalous' of 'b'"):
        reviews.read(tmp_path / "review.csv")


def test_images_are_looked_at_by_the_coarsest_grids_unless_layers_are_named():
    pooled = ImageFolder("photos", read="efficientnet-lite0")
    assert with_maps(pooled, deep=True).layers == networks.deep_layers("efficientnet-lite0")
    for left in (
        ImageFolder("photos", read="pixels"),
        ImageFolder("photos", "efficientnet-lite0", (4,)),
        Table("a.csv"),
    ):
        assert with_maps(left, deep=True) is left


@pytest.mark.skipif(not networks.installed("efficientnet-lite0"), reason="efficientnet-lite0 is not installed")
def test_deep_layers_end_the_two_coarsest_grids():
    name = "efficientnet-lite0"
    maps = networks.backbone(name, tuple(range(16)))(torch.zeros(1, 3, 64, 64))
    sides = [each.shape[2] for each in maps]
    coarsest = sorted(set(sides))[:2]
    assert networks.deep_layers(name) == tuple(
        max(i for i, side in enumerate(sides) if side == s) for s in coarsest[::-1]
    )


@pytest.mark.parametrize("colour", [0, 90, 255])
def test_equal_images_are_ranked_and_none_stands_out(colour, tmp_path, capsys):
    """Their scores are all 0, so no limit can be said: the page, the terminal and --json say so."""
    (tmp_path / "photos").mkdir()
    for number in range(6):
        Image.new("L", (8, 8), colour).save(tmp_path / "photos" / f"{number}.png")
    command = ["triage", str(tmp_path / "photos"), "--read", "pixels", "--size", "8", "--channels", "1", "--parts", "2"]
    assert main.run([*command, "--out", str(tmp_path / "review")]) == 0
    assert "none stands out" in capsys.readouterr().err
    assert "none stands out" in (tmp_path / "review" / "review.html").read_text()
    assert main.run([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["limit"] is None

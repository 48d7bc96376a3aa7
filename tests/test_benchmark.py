"""Benchmarks: paired draws, rows that resume, failures that are rows, and a page that follows from the rows."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tailwise import InputError
from tailwise.benchmark import comparisons, contamination_page, draws, measures, methods, rows, runner
from tailwise.benchmark.page import run_suite, tables, write_page
from tailwise.benchmark.suites import AS_GIVEN, Conditions, Method, SourceSettings, Suite, read_suite
from tailwise.cli import main
from tailwise.core import registry
from tailwise.core.data import Data
from tailwise.numerics import metrics
from tailwise.training.options import Training

ROOT = Path(__file__).parents[1]
SUITES = ROOT / "benchmarks" / "suites"
SMOKE = read_suite(SUITES / "smoke.toml")
DIGITS = SMOKE.sources["digits"]


def conditions(draw: int = 1, imbalance: float | str = 20, contamination: float = 0.0) -> Conditions:
    return Conditions("digits", "development", draw, imbalance, contamination)


@pytest.fixture(scope="module")
def pool() -> draws.Pool:
    return draws.load(DIGITS, "")


def job(folder: Path, *chosen: Method, suite: Suite = SMOKE, at: Conditions | None = None) -> runner.Job:
    return runner.Job(suite, at or conditions(), chosen, folder / "rows.jsonl")


def counts(kinds: np.ndarray, order: tuple[str, ...]) -> list[int]:
    return [int((kinds == kind).sum()) for kind in order]


class TestDraws:
    def test_sizes_fall_off_geometrically_and_the_test_is_balanced(self, pool: draws.Pool) -> None:
        draw = draws.make(pool, DIGITS, conditions(), 0.0)
        assert draw.train_groups is not None
        sizes = counts(draw.train_groups, draw.order)
        assert sizes[0] == 20 * sizes[-1]
        ratios = np.array(sizes[:-1]) / np.array(sizes[1:])
        assert np.allclose(ratios, 20**0.25, rtol=0.15)
        assert draw.test_groups is not None
        assert counts(draw.test_groups[~draw.labels], draw.order) == [50] * 5
        assert not set(draw.test_groups[draw.labels]) & set(draw.order)

    def test_nothing_is_in_two_places(self, pool: draws.Pool) -> None:
        draw = draws.make(pool, DIGITS, conditions(contamination=0.1), 0.2)
        assert draw.held is not None
        names = [*draw.train.names, *draw.held.names, *draw.test.names]
        assert len(set(names)) == len(names)

    def test_the_same_seed_keeps_kinds_and_test_at_any_imbalance(self, pool: draws.Pool) -> None:
        even, tail, other = (
            draws.make(pool, DIGITS, conditions(seed, imbalance), 0.0) for seed, imbalance in ((1, 1), (1, 50), (2, 1))
        )
        normals = [list(np.array(draw.test.names)[~draw.labels]) for draw in (even, tail, other)]
        assert normals[0] == normals[1] != normals[2]
        assert set(tail.train.names) <= set(even.train.names)

    def test_contamination_is_a_share_of_the_training_set(self, pool: draws.Pool) -> None:
        draw = draws.make(pool, DIGITS, conditions(contamination=0.1), 0.0)
        assert draw.train_groups is not None
        assert (draw.train_groups == "").mean() == pytest.approx(0.1, abs=0.005)

    def test_no_kind_is_held_out_whole(self, pool: draws.Pool) -> None:
        for seed in range(20):
            draw = draws.make(pool, DIGITS, conditions(seed, 100), 0.3)
            assert draw.train_groups is not None
            assert min(counts(draw.train_groups, draw.order)) >= 1

    def test_labelled_anomalies_are_those_of_the_drawn_kinds(self) -> None:
        kinds, labels = np.repeat(["a", "b", "c"], 40), np.tile(np.arange(40) < 10, 3)
        pool = draws.Pool(Data(torch.arange(120.0)[:, None], range(120)), labels, kinds)
        draw = draws.make(pool, SourceSettings("", order=("b", "a"), test=5), conditions(imbalance=AS_GIVEN), 0.0)
        tested = draw.test.samples[draw.labels, 0].long().numpy()  # type: ignore[index]
        assert set(kinds[tested]) == {"a", "b"}
        assert labels[tested].all()
        assert not labels[draw.train.samples[:, 0].long().numpy()].any()  # type: ignore[index]

    def test_halves_take_turns(self) -> None:
        labels = np.zeros(24, dtype=bool)
        labels[[0, 5]] = True
        pool = draws.Pool(Data(torch.arange(24.0)[:, None, None], range(24)), labels, None, width=6)
        one, two = (draws.make(pool, SourceSettings("", split="halves"), conditions(seed), 0.0) for seed in (2, 3))
        columns = [{name % 6 for name in draw.test.names} for draw in (one, two)]  # type: ignore[operator]
        assert sorted(map(sorted, columns)) == [[0, 1, 2], [3, 4, 5]]
        assert all(len(draw.train) == 11 and draw.labels.sum() == 1 for draw in (one, two))

    def test_a_cut_goes_through_the_anomalies_of_a_corner(self) -> None:
        labels = np.zeros((4, 6), dtype=bool)
        labels[0, :2] = True
        pool = draws.Pool(Data(torch.zeros(24, 1, 1), range(24)), labels.ravel(), None, width=6)
        draw = draws.make(pool, SourceSettings("", split="halves"), conditions(2), 0.0)
        assert draw.labels.sum() == 1

    @pytest.mark.parametrize(
        ("settings", "at", "said"),
        [
            (replace(DIGITS, normals=10), conditions(), "some must be left"),
            (replace(DIGITS, order=("3", "x")), conditions(), "kind 'x' has 0"),
            (replace(DIGITS, split="halves"), conditions(), "needs one cube"),
            (DIGITS, conditions(contamination=0.9), "too few to hide"),
        ],
    )
    def test_what_cannot_be_drawn(self, pool: draws.Pool, settings: SourceSettings, at: Conditions, said: str) -> None:
        with pytest.raises(InputError, match=said):
            draws.make(pool, settings, at, 0.0)


class TestMeasures:
    def test_balanced_and_training_frequencies_by_copies(self) -> None:
        generator = np.random.default_rng(0)
        kinds = np.array(["a"] * 30 + ["b"] * 10 + ["a"] * 20)
        labels, scores = np.arange(60) >= 40, generator.normal(size=60) + np.repeat([0, 1, 2], [30, 10, 20])
        data = Data(torch.zeros(60, 1), range(60))
        train = Data(torch.zeros(60, 1), range(60))
        draw = draws.Draw(train, np.repeat(["a", "b"], [45, 15]), None, data, labels, kinds, ("a", "b"))
        found = measures.measure(draw, scores, scores[:20])
        # Three copies of each b are as many as there are of a; 45 : 15 are the frequencies of the test itself.
        copies = np.concatenate([np.arange(60), *[np.flatnonzero(~labels & (kinds == "b"))] * 2])
        assert found["metrics"]["auroc"] == pytest.approx(metrics.auroc(labels[copies], scores[copies]))
        trained = found["metrics"]["aupr_at_training_frequencies"]
        assert trained == pytest.approx(metrics.aupr(labels, scores))
        parts = metrics.per_group(metrics.auroc, labels, scores, kinds)
        assert found["metrics"]["auroc_rarest"] == pytest.approx(parts["b"])
        assert found["metrics"]["auroc_worst"] == pytest.approx(min(parts.values()))
        assert [group["train"] for group in found["groups"]] == [45, 15]

    def test_perfect_scores(self, pool: draws.Pool) -> None:
        draw = draws.make(pool, DIGITS, conditions(), 0.0)
        figures = measures.measure(draw, draw.labels.astype(float), np.zeros(10))["metrics"]
        assert figures["aupr"] == figures["auroc_worst"] == figures["detected"] == 1
        assert figures["false_alarms_worst"] == figures["rejected_rarest_at_80"] == 0

    def test_shown_hidden_and_labelled_anomalies_have_none_in_common(self) -> None:
        samples = torch.arange(400.0)[:, None]
        pool = draws.Pool(Data(samples, range(400)), np.arange(400) >= 300, None)
        settings = SourceSettings("a table without kinds", largest=100, anomalies=40)
        tests = []
        for contamination in (0.0, 0.1, 0.2):
            at = Conditions("table", "development", 3, 1, contamination)
            draw = draws.make(pool, settings, at, 0.0, labelled=10)
            assert draw.labelled is not None
            parts = [
                set(data.read(torch.arange(len(data)))[:, 0].tolist())
                for data in (draw.train, draw.test, draw.labelled.data)
            ]
            assert not (parts[0] | parts[1]) & parts[2]
            assert not parts[0] & parts[1]
            hidden = sum(value >= 300 for value in parts[0])
            assert hidden == round(contamination / (1 - contamination) * 100)
            assert all(value >= 300 for value in parts[2])
            assert len(parts[2]) == 10
            tests.append(parts[1])
        assert tests[0] == tests[1] == tests[2]


class TestMethods:
    def test_a_refined_method_trains_again_and_keeps_its_places(self, pool: draws.Pool) -> None:
        draw = draws.make(pool, DIGITS, conditions(), 0.0)
        fitted = methods.fit(SMOKE, draw, Method("gaussian", refinement="Purify(keep=0.8)"), 0)
        assert int((fitted.outcome.weights == 0).sum()) == len(draw.train) - round(0.8 * len(draw.train))
        both = methods.fit(SMOKE, draw, Method("gaussian", "", "auto", "Purify(keep=0.8)"), 0)
        again = methods.scorer(methods.with_scores(both, draw.train, "auto"))
        assert np.allclose(again(draw.train), again(None), atol=1e-4)
        keys = [str(SMOKE.settings(conditions(), Method("gaussian", refinement=text))) for text in ("", "Purify()")]
        assert "refinement" not in keys[0]
        assert "Purify()" in keys[1]

    def test_per_group_neighbours_by_hand(self) -> None:
        # Two kinds on a line, spaced 1 and 10: at the same distance, the wide kind's stranger is the less strange one.
        line = torch.cat([torch.arange(40.0), 10_000 + 10 * torch.arange(40.0)])[:, None]
        data = Data(line, range(80))
        draw = draws.Draw(data, np.repeat(["a", "b"], 40), None, data, np.zeros(80, bool), None, ("a", "b"))
        told, plain = methods.yardstick(draw, "per-group kNN"), methods.yardstick(draw, "kNN")
        asked = Data(torch.tensor([[-60.0], [10_450.0]]), range(2))
        near, wide = told(asked)
        assert near > 5 * wide
        assert plain(asked)[0] == pytest.approx(64 / 100 * plain(asked)[1], rel=1e-4)

    def test_the_oracle_gives_every_kind_the_same_weight(self, pool: draws.Pool) -> None:
        draw = draws.make(pool, DIGITS, conditions(), 0.0)
        outcome = methods.fit(SMOKE, draw, Method("gaussian", "oracle"), 0).outcome
        assert draw.train_groups is not None
        sums = [float(outcome.weights[torch.from_numpy(draw.train_groups == kind)].sum()) for kind in draw.order]
        assert np.allclose(sums, sums[0])

    @pytest.mark.parametrize(
        ("scores", "weighed"),
        [("own", True), ("LocalScores()", True), ("LocalScores(share=0.5)", True), ("auto", False)],
    )
    def test_only_the_default_goes_without_the_weights_that_it_names(
        self, scores: str, weighed: bool, pool: draws.Pool
    ) -> None:
        draw = draws.make(pool, DIGITS, conditions(), 0.0)
        weights = methods.fit(SMOKE, draw, Method("gaussian", "auto", scores), 0).outcome.weights
        trained = weights[weights > 0]
        assert bool((trained != trained[0]).any()) == weighed

    def test_yardsticks_leave_a_training_sample_out_of_its_own_score(self, pool: draws.Pool) -> None:
        draw = draws.make(pool, DIGITS, conditions(), 0.0)
        score = methods.yardstick(draw, "kNN")
        assert (score(None) > score(draw.train)).all()


class TestRows:
    def test_the_smoke_suite_in_processes_then_nothing_left(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level("INFO", "tailwise")
        target, threads = tmp_path / "rows.jsonl", os.environ.get("OMP_NUM_THREADS")
        assert runner.run(SMOKE, "default", "development", target, processes=2) == 2 * 29
        found = rows.read_rows(target)
        plain = [row for row in found if row["scores"] == "own"]
        assert [row["status"] for row in plain] == ["ok"] * 34
        assert not [row for row in found if row["status"] == "failed"]
        assert {row["draw"] for row in found} == {1, 2}
        assert all(row["seconds_fit"] >= 0 and row["peak_memory_mb"] > 50 for row in plain)
        assert all(set(row["versions"]) >= {"torch", "tailwise"} for row in found)
        assert os.environ.get("OMP_NUM_THREADS") == threads
        left = runner.jobs(SMOKE, "default", "development", target)
        assert all(method.scores for each in left for method in each.methods)
        assert "58 cells" in caplog.text

    def test_an_interrupted_line_is_tolerated_and_done_again(self, tmp_path: Path) -> None:
        work = job(tmp_path, Method("gaussian", "uniform"), Method("gaussian", "oracle"))
        runner.run_job(work)
        whole = work.rows.read_text()
        work.rows.write_text(whole[:-40])
        assert len(rows.read_rows(work.rows)) == 1
        runner.run_job(work)
        assert all(json.loads(line) for line in work.rows.read_text().splitlines())
        again = rows.read_rows(work.rows)
        assert len(again) == 2
        assert [row["metrics"] for row in again] == [json.loads(line)["metrics"] for line in whole.splitlines()]

    @pytest.mark.parametrize("tail", ["{", '{"suite": "s", "settings": {"a', "x" * 100_000], ids=len)
    def test_a_line_that_a_kill_left_goes_with_the_next_row(self, tail: str, tmp_path: Path) -> None:
        place = tmp_path / "rows.jsonl"
        for draw in (1, 2):
            rows.append(place, made_row(draw, "auto", 0.5))
        whole = place.read_text()
        place.write_text(whole + tail)
        rows.append(place, made_row(3, "auto", 0.5))
        assert place.read_text().startswith(whole)
        assert [json.loads(line)["draw"] for line in place.read_text().splitlines()] == [1, 2, 3]

    def test_a_whole_row_without_an_end_of_line_stays(self, tmp_path: Path) -> None:
        place = tmp_path / "rows.jsonl"
        for draw in (1, 2):
            rows.append(place, made_row(draw, "auto", 0.5))
            place.write_text(place.read_text().rstrip("\n"))
        assert [row["draw"] for row in rows.read_rows(place)] == [1, 2]

    @pytest.mark.parametrize("room", [0, 1, 50])
    def test_a_disk_that_takes_a_part_of_a_row_has_none_of_it(self, room: int, tmp_path: Path) -> None:
        """A limit of the file's size takes part of the row, as a disk that runs full does."""
        resource = pytest.importorskip("resource")
        place = tmp_path / "rows.jsonl"
        rows.append(place, made_row(1, "auto", 0.5))
        whole = place.read_bytes()
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(whole) + room, limits[1]))
        try:
            with pytest.raises(InputError, match=r"rows\.jsonl"):
                rows.append(place, made_row(2, "auto", 0.5))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert place.read_bytes() == whole

    def test_processes_share_the_file(self, tmp_path: Path) -> None:
        place = tmp_path / "rows.jsonl"
        fork = multiprocessing.get_context("fork")

        def many(first: int) -> None:
            for draw in range(first, first + 50):
                rows.append(place, made_row(draw, "auto", 0.5, note="x" * 5_000))

        writers = [fork.Process(target=many, args=(first,)) for first in (0, 50, 100)]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join()
        assert sorted(json.loads(line)["draw"] for line in place.read_text().splitlines()) == [*range(150)]

    @pytest.mark.parametrize(
        ("name", "content"),
        [("notes.md", None), ("rows.json", "{}"), ("my.jsonl", '{"name": "mine"}\n'), ("my.jsonl", "mine\n"),
         ("my.jsonl", '{"suite": 1}'), ("my.jsonl", "[" * 100_000)],
    )  # fmt: skip
    def test_rows_are_added_to_rows_only(self, name: str, content: str | None, tmp_path: Path) -> None:
        place = tmp_path / name
        if content is not None:
            place.write_text(content)
        with pytest.raises(InputError, match=r"as \.jsonl|something else than rows"):
            runner.run(SMOKE, "default", "development", place)
        assert (place.read_text() if place.exists() else None) == content

    def test_methods_of_a_draw_see_the_same_samples_and_plain_rows_repeat(self, tmp_path: Path) -> None:
        chosen = (Method("autoencoder", "uniform"), Method("autoencoder", "oracle"))
        for folder in ("one", "two"):
            runner.run_job(job(tmp_path / folder, *chosen, suite=replace(SMOKE, training=Training(epochs=2))))
        one, two = (rows.read_rows(tmp_path / folder / "rows.jsonl") for folder in ("one", "two"))
        assert [row["metrics"] for row in one] == [row["metrics"] for row in two]
        assert one[0]["metrics"] != one[1]["metrics"]
        assert one[0]["n_train"] == one[1]["n_train"]

    def test_a_failure_is_a_row_and_the_next_cell_goes_on(self, tmp_path: Path) -> None:
        work = job(tmp_path, Method("gaussian(shrinkage=2)", "uniform"), Method("gaussian", "uniform"))
        runner.run_job(work)
        failed, fine = sorted(rows.read_rows(work.rows), key=lambda row: row["status"])
        assert (failed["status"], fine["status"]) == ("failed", "ok")
        assert failed["error"]

    def test_a_killed_process_costs_one_cell(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        really, calls = runner.run_job, []

        def dies_once(work: runner.Job) -> None:
            calls.append(work)
            if len(calls) == 1:
                raise BrokenProcessPool
            really(work)

        monkeypatch.setattr(runner, "run_job", dies_once)
        monkeypatch.setattr(runner, "_executor", lambda processes, _: ThreadPoolExecutor(processes))
        work = job(tmp_path, Method("LOF"), Method("kNN"))
        assert [done.conditions for done in runner._in_processes([work], 1)] == [work.conditions]
        found = {row["detector"]: row for row in rows.read_rows(work.rows)}
        assert found["LOF"]["status"] == "failed"
        assert "killed" in found["LOF"]["error"]
        assert found["kNN"]["status"] == "ok"

    @pytest.mark.parametrize(
        ("source", "method", "said"),
        [
            ("Idx(path='no-such-set')", Method("gaussian", "uniform"), "no-such-set"),
            ("Digits()", Method("gaussian", "strange"), "Rareness"),
        ],
    )
    def test_what_is_missing_is_skipped_with_the_reason(
        self, source: str, method: Method, said: str, tmp_path: Path
    ) -> None:
        suite = replace(
            SMOKE,
            sources={"digits": replace(DIGITS, source=source)},
            weightings={"uniform": "", "strange": "Rareness()"},
        )
        work = job(tmp_path, method, suite=suite)
        runner.run_job(work)
        (row,) = rows.read_rows(work.rows)
        assert row["status"] == "skipped"
        assert said in row["error"]
        assert str(Path.cwd()) not in row["error"]
        assert not rows.is_done(row)

    def test_a_reason_for_skipping_is_not_repeated(self, tmp_path: Path) -> None:
        suite = replace(SMOKE, sources={"digits": replace(DIGITS, source="Idx(path='no-such-set')")})
        target = tmp_path / "rows.jsonl"
        for _ in range(2):
            for each in runner.jobs(suite, "default", "development", target):
                runner.run_job(each)
        assert len(target.read_text().splitlines()) == 2 * 29

    def test_a_changed_default_is_another_cell(self) -> None:
        at, method = conditions(), Method("autoencoder", "auto")
        before = rows.key(SMOKE.settings(at, method))
        changed = replace(SMOKE, weightings={"auto": "Importance(alpha=0.3)"})
        assert rows.key(changed.settings(at, method)) != before
        assert rows.key(replace(SMOKE, name="other").settings(at, method)) == before


class TestSuites:
    @pytest.mark.parametrize("path", sorted(SUITES.glob("*.toml")), ids=lambda path: path.stem)
    def test_suites_of_the_project_can_be_read(self, path: Path) -> None:
        suite = read_suite(path)
        assert set(suite.draws) == {"development", "confirmation"}
        assert len(suite.draws["confirmation"]) >= 3
        for profile in suite.profiles:
            assert suite.cells(profile, "confirmation")
        for settings in suite.sources.values():
            text = settings.source.replace("{kind}", "x").replace("{scene}", "x")
            assert len(registry.parse(text, ("source",))) == 1

    def test_every_draw_of_scenes_is_taken_once(self) -> None:
        suite = read_suite(SUITES / "long_tail.toml")
        settings = suite.sources["abu-halves"]
        for seeds in suite.draws.values():
            ways = {(draws.scene_of(settings, s), (s // len(settings.scenes)) % 2) for s in seeds}
            assert len(ways) == 12

    @pytest.mark.parametrize(
        ("old", "new", "said"),
        [
            ('weightings = ["uniform"', 'weightings = ["unifrom"', "did you mean 'uniform'"),
            ("normals = 5", "normal = 5", "misspells a setting"),
            ("confirmation = [101", "confirmation = [1", "both a development and a confirmation draw"),
            ("[[grids]]", "[[grids", "cannot read the suite"),
            ('sources = ["digits"]', 'sources = ["digit"]', "no source of the suite is called 'digit'"),
        ],
    )
    def test_a_bad_suite(self, old: str, new: str, said: str, tmp_path: Path) -> None:
        text = (SUITES / "smoke.toml").read_text(encoding="utf-8")
        assert old in text
        (tmp_path / "bad.toml").write_text(text.replace(old, new))
        with pytest.raises(InputError, match=re.escape(said)):
            read_suite(tmp_path / "bad.toml")

    def test_the_command_says_what_is_wrong(self, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        suite = str(SUITES / "smoke.toml")
        for options, said in (
            (["no_such_suite"], "there is no file"),
            ([suite, "--profile", "ful"], "no profile is called 'ful'"),
            ([suite, "--draws", "confirmed"], "did you mean 'confirmation'"),
            ([suite, "--processes", "0"], "processes must be from 1 to 1024"),
        ):
            assert main.run(["bench", *options, "--rows", str(tmp_path / "rows.jsonl")]) == 2
            assert said in capsys.readouterr().err
        assert not (tmp_path / "rows.jsonl").exists()

    def test_failed_cells_are_counted_and_leave_a_status(
        self, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Rows written by hand: one failure that a later row mends, one that stands, and one of no cell asked for."""
        cells = [(c, m) for c, methods in SMOKE.cells("default", "development").items() for m in methods]
        target = tmp_path / "rows.jsonl"
        first, second, third = (SMOKE.settings(*cell) for cell in cells[:3])
        for settings, status in (
            (first, "failed"), (first, "ok"), (second, "ok"), (second, "failed"), ({**third, "fit": {}}, "failed"),
        ):  # fmt: skip
            rows.append(target, {"settings": settings, "status": status, "commit": "0"})
        monkeypatch.setattr(runner, "run", lambda *_: 0)
        assert main.run(["bench", str(SUITES / "smoke.toml"), "--rows", str(target)]) == 5
        printed = capsys.readouterr()
        assert printed.out == f"{target}\n"
        assert "error: 1 cell of the suite failed" in printed.err
        rows.append(target, {"settings": second, "status": "ok", "commit": "0"})
        assert main.run(["bench", str(SUITES / "smoke.toml"), "--rows", str(target)]) == 0

    @pytest.mark.parametrize(
        "name",
        ["../../../outside", "..", ".", "", " ", "/tmp/outside", "a/b", "a\\\\b", "C:outside", "con", "NUL.x",
         "a\\u0007", "a\\u202Eb", "a\\nb", ".hidden", "a.", "a*", "ä" * 101],
    )  # fmt: skip
    def test_the_name_of_a_suite_is_a_files_name(self, name: str, tmp_path: Path) -> None:
        (tmp_path / "suites").mkdir()
        path = tmp_path / "suites" / "mine.toml"
        path.write_text((SUITES / "smoke.toml").read_text().replace('name = "smoke"', f'name = "{name}"'))
        before = sorted(tmp_path.parent.rglob("*"))
        with pytest.raises(InputError, match="a suite cannot be called"):
            run_suite(path, "default", "development", None, None, 1)
        assert sorted(tmp_path.parent.rglob("*")) == before

    @pytest.mark.parametrize("name", ["long tail", "Früchte-2", "名前", "a.b", "console"])
    def test_other_names_of_a_suite(self, name: str, tmp_path: Path) -> None:
        path = tmp_path / "mine.toml"
        path.write_text((SUITES / "smoke.toml").read_text().replace('name = "smoke"', f'name = "{name}"'), "utf-8")
        assert read_suite(path).name == name
        path = path.rename(tmp_path / f"{name}.toml")
        path.write_text((SUITES / "smoke.toml").read_text().replace('name = "smoke"', ""), "utf-8")
        assert read_suite(path).name == name

    def test_a_suite_called_a_number(self, tmp_path: Path) -> None:
        path = tmp_path / "mine.toml"
        path.write_text((SUITES / "smoke.toml").read_text().replace('name = "smoke"', "name = 3"))
        with pytest.raises(InputError, match="it is no text"):
            read_suite(path)

    def test_a_suite_beside_files_of_the_users(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The page lies beside the rows, its path is printed, and a README.md beside the suites stays."""
        (tmp_path / "suites").mkdir()
        path = tmp_path / "suites" / "mine.toml"
        path.write_text((SUITES / "smoke.toml").read_text().replace("reported = false", ""))
        (tmp_path / "README.md").write_text("mine")
        monkeypatch.setattr(
            runner, "run", lambda suite, profile, part, place, *_: rows.append(place, made_row(1, "", 0))
        )
        assert main.run(["bench", str(path)]) == 0
        printed = capsys.readouterr().out.splitlines()
        assert printed == [str(tmp_path / "results" / name) for name in ("smoke.jsonl", "smoke.md")]
        assert (tmp_path / "README.md").read_text() == "mine"
        (tmp_path / "results" / "smoke.md").write_text("mine")
        monkeypatch.setattr(runner, "run", None)  # refused before it is run
        assert main.run(["bench", str(path)]) == 2
        assert "smoke.md was not written by tailwise bench" in capsys.readouterr().err

    def test_an_unknown_profile(self) -> None:
        with pytest.raises(InputError, match=r"no profile is called 'defualt'.*did you mean 'default'"):
            SMOKE.cells("defualt", "development")


def made_row(draw: int, weighting: str, aupr: float, **other: Any) -> dict[str, Any]:
    groups = [{"kind": "a", "train": 9, "test": 5, "auroc": aupr}]
    row = {
        "suite": "s", "status": "ok", "source": "made", "part": "development", "draw": draw, "imbalance": 100,
        "contamination": 0.0, "detector": "autoencoder", "weighting": weighting, "scores": "own",
        "metrics": {"aupr": aupr, "auroc_rarest": aupr}, "groups": groups, "seconds_fit": 1.0, "peak_memory_mb": 100.0,
    } | other  # fmt: skip
    return row | {"settings": {"draw": draw, "weighting": weighting, **other}}


class TestPage:
    @pytest.mark.parametrize(
        "name",
        [
            "contamination",
            "long-tail",
            "long-tail-weightings",
            "long-tail-tables",
            "rare-material",
            "long-tail-graphs",
            "long-tail-clouds",
        ],
    )
    def test_the_page_is_current(self, name: str, tmp_path: Path) -> None:
        results = ROOT / "benchmarks" / "results"
        (tmp_path / f"{name}.jsonl").write_bytes((results / f"{name}.jsonl").read_bytes())
        page = write_page(tmp_path / f"{name}.jsonl")
        assert page == tmp_path / f"{name}.md"
        assert (results / page.name).read_text(encoding="utf-8") == page.read_text(encoding="utf-8")
        drawn = f"({name}.svg)" in page.read_text(encoding="utf-8")
        assert {path.name for path in tmp_path.iterdir()} == {f"{name}.{e}" for e in ("jsonl", "md", *["svg"] * drawn)}

    def test_changes_are_paired_by_draw(self) -> None:
        made = [made_row(d, w, 0.5 + 0.1 * d + gain) for d in range(5) for w, gain in (("uniform", 0), ("auto", 0.03))]
        found = comparisons.change(made, "aupr", comparisons.WEIGHTED)
        # The draws differ by far more than the methods; paired, nothing is left of that.
        assert (found.mean, found.low, found.high) == pytest.approx((0.03, 0.03, 0.03))
        assert found.count == 5

    def test_an_interval_holds_its_mean_and_sources_count_the_same(self) -> None:
        gains = {"one": [0.1, 0.2, 0.3], "two": [-0.1] * 30}
        made = [
            row
            for source, each in gains.items()
            for draw, gain in enumerate(each)
            for row in (
                made_row(draw, "uniform", 0.5, source=source),
                made_row(draw, "auto", 0.5 + gain, source=source),
            )
        ]
        found = comparisons.change(made, "aupr", comparisons.WEIGHTED)
        assert found.mean == pytest.approx(0.05)
        assert found.low < found.mean < found.high

    def test_confirmation_draws_are_the_ones_reported_once_there(self) -> None:
        made = [made_row(1, "uniform", 0.5), made_row(101, "uniform", 0.6, part="confirmation")]
        assert [row["draw"] for row in comparisons.reported(made)] == [101]

    def test_rows_of_an_earlier_default_do_not_mix_in(self) -> None:
        old, new = (made_row(draw, "auto", 0.5) for draw in (1, 2))
        old["settings"]["weighting"] = "before"
        assert comparisons.reported([old, new]) == [new]

    def test_the_first_screen_says_where_it_harms(self) -> None:
        made = [
            row
            for source, gain in (("helped", 0.05), ("harmed", -0.02))
            for draw in range(3)
            for row in (
                made_row(draw, "uniform", 0.5, source=source),
                made_row(draw, "auto", 0.5 + gain, source=source),
            )
        ]
        page = tables([*made, made_row(9, "auto", 0, status="skipped", error="no such set")])
        first = page[: page.index("\n## ")]
        assert "change by +0.015" in first
        assert re.search(r"not use it\?\*\* 1 pairs .*harmed with autoencoder \(imbalance 100\) -0.020", first)
        assert "Most: helped with autoencoder +0.050" in first
        assert "| s | skipped | 1 | no such set |" in page

    def test_how_much_of_the_oracle_weighting_reaches(self) -> None:
        gains = {"uniform": 0, "auto": 0.03, "oracle": 0.04}
        made = [made_row(draw, weighting, 0.5 + gain) for draw in range(3) for weighting, gain in gains.items()]
        assert "it gains +0.040 and weighting alone +0.030: 75% of it" in tables(made)

    @pytest.fixture
    def made(self, tmp_path: Path) -> Path:
        """Rows beside files of a user's."""
        place = tmp_path / "results" / "my suite.jsonl"
        for draw in range(3):
            for weighting, aupr in (("uniform", 0.5), ("auto", 0.6)):
                rows.append(place, made_row(draw, weighting, aupr))
        for name in ("README.md", "results/README.md", "results/changes.svg", "results/contamination.svg"):
            (tmp_path / name).write_text("mine")
        return place

    def test_page_and_picture_are_written_beside_the_rows(self, made: Path) -> None:
        for _ in range(2):
            page = write_page(made)
            assert page == made.with_name("my suite.md")
            assert "+0.100 [+0.100, +0.100]" in page.read_text()
            assert "(my%20suite.svg)" in page.read_text()
            assert made.with_name("my suite.svg").read_bytes().lstrip().startswith(b"<?xml")
        others = [p for p in made.parents[1].rglob("*") if p.is_file() and not p.name.startswith("my suite")]
        assert [path.read_text() for path in others] == ["mine"] * 4

    @pytest.mark.parametrize("ending", [".md", ".svg"])
    @pytest.mark.parametrize("content", ["", "mine", "# Notes\n\nWhat I wrote of `tailwise bench`.\n"])
    def test_a_file_of_the_pages_name_that_bench_did_not_write(self, made: Path, ending: str, content: str) -> None:
        place = made.with_suffix(ending)
        place.write_text(content)
        with pytest.raises(InputError, match=f"{place.name} was not .* by tailwise bench"):
            write_page(made)
        assert place.read_text() == content
        assert not made.with_suffix(".svg" if ending == ".md" else ".md").exists()

    def test_a_picture_of_the_users_beside_our_page(self, made: Path) -> None:
        other = made.with_name("other.jsonl")
        rows.append(other, made_row(0, "uniform", 0.5, status="failed", error="no"))
        write_page(other)
        other.with_suffix(".svg").write_text("mine")
        with pytest.raises(InputError, match=r"other\.svg was not drawn"):
            write_page(other)
        assert other.with_suffix(".svg").read_text() == "mine"

    def test_a_method_that_ran_on_one_set_is_not_beside_those_of_several(self) -> None:
        made = [
            made_row(draw, weighting, aupr, source=source) | {"contamination": share, "imbalance": 1, "settings": fit}
            for fit in [{"fit": {}}]
            for draw in range(2)
            for share in (0.0, 0.1)
            for source, weighting, aupr in [
                ("a", "uniform", 0.5), ("b", "uniform", 0.6), ("a", "auto", 0.6), ("b", "auto", 0.6),
                ("a", "trim", 0.9),
            ]
        ]  # fmt: skip
        page = contamination_page.page(made)
        assert "| auto |" in page
        assert "trim |" not in page
        assert "4 rows of an earlier budget, or of a method that ran on one set" in page

    def test_a_detector_of_another_sort_is_drawn_beside_the_deviation_networks(self) -> None:
        made = [
            made_row(0, "uniform", 0.5, detector=detector) | {"imbalance": 1, "settings": {"fit": {}}}
            for detector in ("autoencoder", "adl", "gaussian", "dev-net", "deep-svdd")
        ]
        assert [*contamination_page.panels(made)] == ["autoencoder", "deviation networks", "other detectors"]

"""The run folder through crashes, rivals and tampering; the commands end to end."""

import errno
import hashlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from tailwise.core.data import Data
from tailwise.core.problem import Labelled
from tailwise.errors import InputError
from tailwise.report import explanation
from tailwise.runs import exchange, files, store
from tailwise.sources.auto import open_source
from tailwise.training.options import Training
from tailwise.workflows import drift, pages, score
from tailwise.workflows.fit import fit_run
from tailwise.workflows.request import Request

FORK = multiprocessing.get_context("fork")


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three kinds of normal, 300 : 60 : 12."""
    generator = np.random.default_rng(0)
    kinds = [generator.normal(centre, 1, (count, 6)) for centre, count in ((0, 300), (4, 60), (-4, 12))]
    path = tmp_path_factory.mktemp("data") / "good parts ü.csv"
    frame = pd.DataFrame(np.vstack(kinds), columns=[f"f{i}" for i in range(6)])
    frame.assign(kind=np.repeat(["a", "b", "c"], (300, 60, 12))).to_csv(path, index=False)
    return path


def request(table: Path, training: Training = Training(epochs=12), **options: object) -> Request:  # noqa: B008
    """By a network, which can be interrupted, with some samples held out."""
    asked = {"detector": "autoencoder", "cross": 0, "keep_suspects": True} | options
    return Request(open_source(str(table), groups="kind"), training=training, **asked)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def finished(table: Path, tmp_path_factory: pytest.TempPathFactory) -> store.Run:
    return fit_run(request(table), tmp_path_factory.mktemp("runs") / "run")


def test_a_run_holds_everything(finished: store.Run, table: Path) -> None:
    names = {path.name for path in finished.path.iterdir()}
    assert {"settings.json", "model.safetensors", "scores.parquet", "history.jsonl", "report.html"} <= names
    assert "checkpoint.safetensors" not in names
    scores = finished.scores()
    assert list(scores["sample"]) == [str(i) for i in range(372)]
    assert scores["held_out"].sum() == 38
    assert scores.loc[~scores["held_out"], "weight"].mean() == pytest.approx(1, rel=1e-5)
    assert set(scores["group"]) == {"a", "b", "c"}
    assert len(finished.history()) == 12
    assert finished.settings.versions["tailwise"]


def test_scoring_needs_nothing_but_the_run(finished: store.Run, table: Path) -> None:
    scored = score.score_data(finished.path, str(table))
    assert list(scored.columns) == ["sample", "score", "threshold", "flagged", "p_value", "standardised", "cluster"]
    # In another batch the distances between samples differ in their last digit.
    assert np.allclose(scored["score"], finished.scores()["score"], atol=1e-5)
    assert (scored["flagged"] == (scored["score"] > finished.settings.threshold)).all()


def test_a_detectors_own_scores_are_those_of_the_fit(table: Path, tmp_path: Path) -> None:
    plain = fit_run(request(table, scores="own"), tmp_path / "plain")
    assert np.array_equal(score.score_data(plain.path, str(table))["score"], plain.scores()["score"])
    trained = plain.scores().loc[~plain.scores()["held_out"]]
    assert np.array_equal(trained["score"], trained["trained_score"])


@pytest.fixture(scope="module")
def fair(table: Path, tmp_path_factory: pytest.TempPathFactory) -> store.Run:
    return fit_run(
        request(table, detector="gaussian", cross=None, per_cluster=True), tmp_path_factory.mktemp("fair") / "run"
    )


def test_a_threshold_for_every_kind(fair: store.Run, table: Path) -> None:
    scores = fair.scores()
    assert not scores["held_out"].any()
    assert scores["calibration"].notna().all()
    assert pd.crosstab(scores["held_to"], scores["group"]).gt(0).sum().sum() == scores["held_to"].nunique()
    for _, own in scores.groupby("held_to"):
        assert own["threshold"].nunique() == 1
        assert (own["calibration"] > own["threshold"]).mean() <= 0.05
    scored = score.score_data(fair.path, str(table))
    assert (scored["held_to"] == scores["held_to"]).all()
    assert np.allclose(scored["threshold"], scores["threshold"])
    assert (scored["flagged"] == (scored["score"] > scored["threshold"])).all()
    rows = {row["kind"]: row for row in fair.settings.thresholds}
    assert [row["normals"] for row in rows.values()] == sorted(scores["held_to"].value_counts(), reverse=True)
    assert {kind: row["threshold"] for kind, row in rows.items()} == dict(
        scores.groupby("held_to")["threshold"].first()
    )


def test_a_threshold_for_every_known_group(table: Path, tmp_path: Path) -> None:
    asked = request(table, detector="gaussian", per_group=True, cross=2)
    run = fit_run(asked, tmp_path / "run")
    assert [row["kind"] for row in run.settings.thresholds] == ["a", "b", "c"]
    frame = pd.read_csv(table)
    scored = score.score_data(run.path, str(table))
    assert list(scored["held_to"]) == list(frame["kind"])
    assert scored.groupby("held_to")["threshold"].nunique().eq(1).all()
    frame.drop(columns="kind").to_csv(tmp_path / "nameless.csv", index=False)
    nameless = score.score_data(run.path, str(tmp_path / "nameless.csv"))
    assert (nameless["threshold"] == run.settings.threshold).all()
    both = request(table, per_group=True, per_cluster=True)
    for wrong, said in (
        (both, "not both"),
        (replace(both, per_cluster=False, source=open_source(str(tmp_path / "nameless.csv"))), "needs groups"),
        (request(table, cross=1), "cross must be 0 or at least 2: got 1"),
        (request(table, Training(patience=3), cross=2), "no sample is held out"),
        (request(table, max_group_fpr=6.0), "max_group_fpr must lie between 0 and 1: got 6.0"),
    ):
        with pytest.raises(InputError, match=said):
            fit_run(wrong, tmp_path / "wrong")
    assert not (tmp_path / "wrong").exists()


def test_p_values_of_held_out_samples_are_their_ranks(finished: store.Run, table: Path) -> None:
    scores = finished.scores()
    held = scores["held_out"]
    assert scores["calibration"].notna().equals(held)
    scored = score.score_data(finished.path, str(table))[held.to_numpy()]
    ranks = scored["score"].rank(ascending=False)
    assert np.allclose(scored["p_value"], (1 + ranks) / (held.sum() + 1))
    assert scored.sort_values("score")["standardised"].is_monotonic_increasing
    few = score.score_data(finished.path, str(table), false_discoveries=0.05)
    assert few["flagged"].sum() <= (few["p_value"] <= 0.05).sum()


def test_a_kind_that_is_rejected_too_often_fails_the_run(table: Path, tmp_path: Path) -> None:
    """Widely scattered samples of a kind are rejected by a threshold for all."""
    frame = pd.read_csv(table)
    rare = frame["kind"] == "b"
    columns = [f"f{i}" for i in range(6)]
    frame.loc[rare, columns] = 4 + 3 * (frame.loc[rare, columns] - 4)
    frame.to_csv(tmp_path / "wide.csv", index=False)
    asked = request(tmp_path / "wide.csv", detector="gaussian", scores="own", cross=3, max_group_fpr=0.1)
    run = fit_run(asked, tmp_path / "run")
    said = run.settings.group_fpr
    assert said["broken"] == ["b"]
    rows = {row["name"]: row for row in said["kinds"]}
    scores = run.scores()
    over = scores["calibration"] > run.settings.threshold
    assert rows["b"]["share"] == pytest.approx(over[scores["group"] == "b"].mean())
    fair = fit_run(replace(asked, per_group=True), tmp_path / "fair")
    assert fair.settings.group_fpr["broken"] == []


def test_test_normals_of_a_kind_can_break_the_limit_too(table: Path, tmp_path: Path) -> None:
    """Of thresholds that were made of the calibration samples these alone can tell."""
    frame = pd.read_csv(table)
    shifted = frame[frame["kind"] == "a"].tail(40).assign(bad=0)
    shifted[[f"f{i}" for i in range(6)]] += 5
    pd.concat([frame.assign(bad=0), shifted.assign(bad=1).head(3)]).to_csv(tmp_path / "train.csv", index=False)
    asked = request(tmp_path / "train.csv", detector="gaussian", scores="own", per_group=True, max_group_fpr=0.1)
    problem = replace(asked.source, labels="bad").load()
    samples = torch.tensor(shifted[[f"f{i}" for i in range(6)]].to_numpy(), dtype=torch.float32)
    normals = Labelled(Data(samples, [str(i) for i in range(40)]), np.zeros(40, dtype=bool), np.full(40, "a"))
    run = fit_run(asked, tmp_path / "run", problem=replace(problem, test=normals))
    assert run.settings.group_fpr["broken"] == ["a in the test"]


def test_reordered_and_extra_columns_do_not_matter(finished: store.Run, table: Path, tmp_path: Path) -> None:
    frame = pd.read_csv(table)
    frame["extra"] = "text"
    frame[sorted(frame.columns, reverse=True)].to_csv(tmp_path / "other.csv", index=False)
    scored = score.score_data(finished.path, str(tmp_path / "other.csv"))
    assert np.allclose(scored["score"], finished.scores()["score"], rtol=1e-4)


def test_a_missing_column_is_named(finished: store.Run, table: Path, tmp_path: Path) -> None:
    pd.read_csv(table).drop(columns="f3").to_csv(tmp_path / "less.csv", index=False)
    with pytest.raises(InputError, match="f3"):
        score.score_data(finished.path, str(tmp_path / "less.csv"))


def test_the_same_seed_gives_the_same_run(finished: store.Run, table: Path, tmp_path: Path) -> None:
    again = fit_run(request(table), tmp_path / "run")
    pd.testing.assert_frame_equal(again.scores(), finished.scores())
    other = fit_run(request(table, seed=1), tmp_path / "other")
    assert not np.array_equal(other.scores()["score"], finished.scores()["score"])


def _fit_slowly(ask: Request, out: Path) -> None:
    """A child's fit, with a checkpoint at every epoch so that every kind of moment can be hit."""
    torch.set_num_threads(1)
    store.Checkpoint.__init__.__defaults__ = (0.0,)  # type: ignore[misc]
    fit_run(ask, out)


def _run_child(ask: Request, out: Path, kill_after: float | None) -> int:
    child = FORK.Process(target=_fit_slowly, args=(ask, out))
    child.start()
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(child.pid, signal.SIGKILL)  # type: ignore[arg-type]
    child.join()
    return int(child.exitcode or 0)


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_kill_at_twenty_random_moments(finished: store.Run, table: Path, tmp_path: Path) -> None:
    started = time.perf_counter()
    assert _run_child(request(table), tmp_path / "whole", None) == 0
    whole = time.perf_counter() - started
    moments, killed, resumable = random.Random(0), 0, 0
    for number in range(60):
        out = tmp_path / f"run{number}"
        moment = moments.uniform(0, 0.9 * whole)
        if _run_child(request(table), out, moment) == -signal.SIGKILL:
            killed += 1
        else:  # it ended before its moment, so a fit takes less than was thought: the first one ran beside other work
            whole = moment
        resumable += (out / store.CHECKPOINT).exists()
        if not store.is_complete(out):
            assert _run_child(request(table), out, None) == 0
        pd.testing.assert_frame_equal(store.open_run(out).scores(), finished.scores())
        assert not list(out.glob(".writing*"))
        if killed == 20:
            break
    assert killed == 20
    assert resumable >= 3


def test_an_unfinished_fit_says_how_to_resume(table: Path, tmp_path: Path) -> None:
    with store.hold(tmp_path / "run") as writer:
        writer.start({"seed": 0})
    with pytest.raises(InputError, match="same tailwise fit command again"):
        store.open_run(tmp_path / "run")
    with pytest.raises(InputError, match="other settings"):
        fit_run(request(table), tmp_path / "run")


def test_two_fits_into_one_folder(table: Path, tmp_path: Path) -> None:
    with store.hold(tmp_path / "run"), pytest.raises(InputError, match="another fit is writing"):
        fit_run(request(table), tmp_path / "run")


def test_a_finished_run_is_not_overwritten_unasked(finished: store.Run, table: Path) -> None:
    before = finished.scores()
    with pytest.raises(InputError, match="overwrite"):
        fit_run(request(table, seed=3), finished.path)
    pd.testing.assert_frame_equal(store.open_run(finished.path).scores(), before)


def test_overwrite_replaces(table: Path, tmp_path: Path) -> None:
    fit_run(request(table), tmp_path / "run")
    assert fit_run(request(table, seed=3), tmp_path / "run", overwrite=True).settings.seed == 3


def test_a_folder_with_other_files_is_left_alone(table: Path, tmp_path: Path) -> None:
    (tmp_path / "holiday.txt").write_text("mine")
    with pytest.raises(InputError, match="other files"):
        fit_run(request(table), tmp_path)
    assert [path.name for path in tmp_path.iterdir() if path.name != store.LOCK] == ["holiday.txt"]


@pytest.mark.parametrize("name", sorted(files.FILES - {files.SETTINGS, files.LOCK}))
@pytest.mark.parametrize("overwrite", [False, True])
def test_files_that_only_have_names_of_a_run_are_left_alone(
    table: Path, tmp_path: Path, name: str, overwrite: bool
) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(InputError, match=f"other files .{name}"):
        fit_run(request(table), tmp_path, overwrite)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {name: "mine"}


@pytest.mark.parametrize("end", ["start anew", "discard"])
def test_an_unfinished_run_keeps_its_settings_until_its_files_are_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    """A kill at any file that is taken away leaves what the same command goes on from."""
    unlinked = Path.unlink
    for steps in range(1, len(files.FILES)):
        out = tmp_path / str(steps)
        with store.hold(out) as writer:
            writer.start({"seed": 0})
        (out / files.MODEL).write_bytes(b"half a run")
        left = iter(range(steps))

        def stop(path: Path, missing_ok: bool = False, out: Path = out, left: Iterator[int] = left) -> None:
            if path.parent == out and path.name in files.FILES - {files.LOCK} and next(left, None) is None:
                raise KeyboardInterrupt
            unlinked(path, missing_ok)

        with monkeypatch.context() as patch, suppress(KeyboardInterrupt), store.hold(out, True) as writer:
            patch.setattr(Path, "unlink", stop)
            writer.start({"seed": 1}, True) if end == "start anew" else writer.discard()
            raise KeyboardInterrupt
        with store.hold(out, True) as writer:
            writer.start({"seed": 1}, True)


def test_bad_data_leaves_no_folder(tmp_path: Path) -> None:
    (tmp_path / "bad.csv").write_text("a,b\n1,2\n3,nan\n")
    with pytest.raises(InputError):
        fit_run(Request(source=open_source(str(tmp_path / "bad.csv"))), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", [store.MODEL, store.SCORES, store.SETTINGS])
@pytest.mark.parametrize("change", ["flip", "cut", "pickle"])
def test_tampering_is_refused(finished: store.Run, table: Path, tmp_path: Path, name: str, change: str) -> None:
    import pickle

    copy = tmp_path / "run"
    shutil.copytree(finished.path, copy)
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    changed = {"flip": bytes(content), "cut": bytes(content[:40]), "pickle": pickle.dumps({"a": 1})}[change]
    (copy / name).write_bytes(changed)
    with pytest.raises(InputError):
        score.score_data(copy, str(table)) if name == store.MODEL else store.open_run(copy).scores()


def test_settings_cannot_run_code(finished: store.Run, table: Path, tmp_path: Path) -> None:
    settings = {
        **json.loads((finished.path / store.SETTINGS).read_text()),
        "detector": "__import__('os').mkdir('pwned')",
    }
    settings["seal"] = store.seal(settings)
    run = tmp_path / "run"
    run.mkdir()
    (run / store.SETTINGS).write_text(json.dumps(settings))
    (run / store.MODEL).write_bytes((finished.path / store.MODEL).read_bytes())
    with pytest.raises(InputError):
        score.score_data(run, str(table))
    assert not Path("pwned").exists()


def test_a_run_of_a_newer_version(finished: store.Run, tmp_path: Path) -> None:
    (tmp_path / store.SETTINGS).write_text(json.dumps({"format": 99, "versions": {"tailwise": "9.1"}}))
    with pytest.raises(InputError, match=r"tailwise 9\.1.*upgrade"):
        store.open_run(tmp_path)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
def test_a_full_or_read_only_disk(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, finished: store.Run
) -> None:
    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    target = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(files.os, "fsync", fail)
        with pytest.raises(InputError, match="disk is full" if number == errno.ENOSPC else "cannot write"):
            fit_run(request(table), target)
    assert not list(target.glob(".writing*"))
    again = fit_run(request(table), target)
    pd.testing.assert_frame_equal(again.scores(), finished.scores())


def test_a_parent_that_is_a_file(table: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write"):
        fit_run(request(table), tmp_path / "file" / "run")


def test_weighting_changes_the_fit_and_balance_needs_groups(table: Path, tmp_path: Path) -> None:
    uniform = fit_run(request(table, weighting=""), tmp_path / "uniform").scores()
    assert (uniform.loc[~uniform["held_out"], "weight"] == 1).all()
    balanced = fit_run(request(table, weighting="", balance=True), tmp_path / "balanced").scores()
    sums = balanced.groupby("group")["weight"].sum()
    assert np.allclose(sums, sums.mean())
    plain = Request(source=open_source(str(table.parent / table.name), groups="kind"), balance=True)
    nameless = pd.read_csv(table).drop(columns="kind")
    nameless.to_csv(tmp_path / "nameless.csv", index=False)
    with pytest.raises(InputError, match="groups"):
        fit_run(Request(**{**vars(plain), "source": open_source(str(tmp_path / "nameless.csv"))}), tmp_path / "no")


def test_the_threshold_keeps_its_promise(tmp_path: Path) -> None:
    """Over many draws, fresh normals are flagged at most as often as promised, up to chance."""
    from tailwise.calibration.conformal import conformal_threshold

    generator = np.random.default_rng(0)
    shares = []
    for _ in range(400):
        calibration, fresh = generator.gamma(2, size=99), generator.gamma(2, size=1000)
        shares.append((fresh > conformal_threshold(calibration, 0.05)).mean())
    assert np.mean(shares) == pytest.approx(0.05, abs=0.004)


@pytest.mark.parametrize("overwrite", [False, True])
def test_bad_input_that_shows_late_leaves_nothing(table: Path, tmp_path: Path, overwrite: bool) -> None:
    with pytest.raises(InputError, match="not finite"):
        fit_run(request(table, Training(epochs=12, lr=1e30)), tmp_path / "new" / "run", overwrite)
    assert not (tmp_path / "new").exists()


def test_missing_groups_do_not_cost_the_old_run(table: Path, tmp_path: Path) -> None:
    ask = Request(source=open_source(str(table), columns=("f0", "f1")), detector="gaussian")
    before = fit_run(ask, tmp_path).scores()
    with pytest.raises(InputError, match="balance needs groups"):
        fit_run(replace(ask, balance=True), tmp_path, overwrite=True)
    pd.testing.assert_frame_equal(store.open_run(tmp_path).scores(), before)


def test_strangers_keep_their_folder_as_it_was(table: Path, tmp_path: Path) -> None:
    (tmp_path / ".writing-notes").write_text("mine")
    with pytest.raises(InputError, match="other files"):
        fit_run(request(table), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".writing-notes"]


class Interrupted(Exception):
    pass


def _unfinished(ask: Request, out: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fit that ended at its third checkpoint."""
    saves = iter(range(3))

    def save(self: store.Checkpoint, *state: object) -> None:
        self.every = 0
        whole(self, *state)  # type: ignore[arg-type]
        if next(saves) == 2:
            raise Interrupted

    whole = store.Checkpoint.save
    with monkeypatch.context() as patch:
        patch.setattr(store.Checkpoint, "save", save)
        with pytest.raises(Interrupted):
            fit_run(ask, out)
    return out / store.CHECKPOINT


@pytest.mark.parametrize("change", ["none", "flip", "cut", "swap"])
def test_a_damaged_checkpoint_is_not_resumed(
    finished: store.Run, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    kept = _unfinished(request(table), tmp_path / "run", monkeypatch)
    content = kept.read_bytes()
    if change == "flip":
        kept.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif change == "cut":
        kept.write_bytes(content[:100])
    elif change == "swap":
        kept.write_bytes(_unfinished(request(table, seed=5), tmp_path / "other", monkeypatch).read_bytes())
    with nullcontext() if change == "none" else pytest.warns(UserWarning, match="damaged or of another fit"):
        again = fit_run(request(table), tmp_path / "run")
    pd.testing.assert_frame_equal(again.scores(), finished.scores())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"source": None}, "lacks a usable source"),
        ({"source": ""}, "spells 0 sources"),
        ({"threshold": "high"}, "lacks a usable threshold"),
        ({"threshold": None}, "lacks a usable threshold"),
        ({"smoothing": None, "seed": "one"}, "lacks a usable seed, smoothing"),
        ({"sample_shape": [6.5]}, "lacks a usable sample_shape"),
        ({"thresholds": [3]}, "lacks a usable thresholds"),
        ({"digests": 3}, "lacks a usable digests"),
        ({"status": 7}, "lacks a usable status"),
        ({"format": 0}, "not the settings of a run"),
        ({"format": True}, "not the settings of a run"),
    ],
)
def test_sealed_again_after_tampering(
    finished: store.Run, table: Path, tmp_path: Path, change: dict[str, object], said: str
) -> None:
    copy = shutil.copytree(finished.path, tmp_path / "copy")
    settings = json.loads((copy / store.SETTINGS).read_text()) | change
    content = json.dumps({k: v for k, v in settings.items() if k != "seal"}, sort_keys=True)
    settings["seal"] = hashlib.sha256(content.encode()).hexdigest()
    (copy / store.SETTINGS).write_text(json.dumps(settings))
    with pytest.raises(InputError, match=said):
        score.score_data(copy, str(table))


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"threshold": float("nan")}, "threshold must be a number"),
        ({"batch_size": 0}, "batch_size must be above 0"),
        ({"false_discoveries": 1.5}, "false_discoveries must lie between 0 and 1"),
        ({"threshold": 1.0, "false_discoveries": 0.1}, "by a threshold or by a share"),
    ],
)
def test_what_scores_nothing_is_refused_on_every_road(
    finished: store.Run, table: Path, tmp_path: Path, asked: dict[str, float], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        store.open_run(finished.path).score(str(table), **asked)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=said):
        score.score_data(finished.path, str(tmp_path / "not looked for"), **asked)  # type: ignore[arg-type]
    if "batch_size" in asked:
        with pytest.raises(InputError, match=said):
            drift.drift_of(finished.path, str(table), **asked)  # type: ignore[arg-type]


@pytest.mark.parametrize("content", ["[]", "{}", "[" * 100_000, "", "null"])
def test_a_report_that_is_none(finished: store.Run, tmp_path: Path, content: str) -> None:
    copy = shutil.copytree(finished.path, tmp_path / "copy")
    (copy / store.REPORT_DATA).write_text(content)
    with pytest.raises(InputError, match=r"report\.json"):
        pages.write_report(copy, tmp_path / "page.html")


def test_a_path_that_is_no_text(table: Path, tmp_path: Path) -> None:
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe.csv"))
    try:
        odd.write_bytes(table.read_bytes())
    except OSError:
        pytest.skip("this file system takes no such names")
    run = fit_run(request(odd, detector="gaussian"), tmp_path / "run")
    assert store.open_run(run.path).settings.source == run.settings.source
    assert len(score.score_data(run.path, str(odd))) == 372
    pages.write_report(run.path, None)
    with pytest.raises(InputError, match="not valid UTF-8"):
        fit_run(request(table, detector="gaussian"), odd.with_suffix(""))


def test_a_run_scores_whatever_holds_the_samples(fair: store.Run, table: Path) -> None:
    """An array, a tensor, a frame with its columns in another order, a path and a source give the command's table."""
    frame = pd.read_csv(table)
    rows = frame.drop(columns="kind").to_numpy()
    expected = score.score_data(fair.path, str(table))
    opened = store.open_run(fair.path)
    named = open_source(str(table), groups="kind")
    for given in (table, str(table), named, frame[frame.columns[::-1]], rows, torch.tensor(rows)):
        pd.testing.assert_frame_equal(opened.score(given), expected)
    one = opened.score(rows[7:8])
    assert one["score"][0] == pytest.approx(expected["score"][7], abs=1e-5)
    assert one["threshold"][0] == expected["threshold"][7]
    with pytest.raises(InputError, match=r"rows of shape \[6\]: the array has rows of shape \[5\]"):
        opened.score(rows[:, :5])
    with pytest.raises(InputError, match="has no column 'f0'"):
        opened.score(frame.drop(columns="f0"))


def test_no_file_of_an_open_run_is_read_twice(fair: store.Run, table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scoring twice, explaining five samples, and everything a run can tell: each file is looked up once."""
    opened, read, look_up = store.open_run(fair.path), [], store.Run._checked
    monkeypatch.setattr(store.Run, "_checked", lambda run, name: read.append(name) or look_up(run, name))
    rows = pd.read_csv(table).drop(columns="kind").to_numpy()
    for _ in range(2):
        opened.score(rows[:3])
    known = explanation.reopen(opened)
    for name in known.table["sample"][:5]:
        explanation.explain_score(known, known.samples, name)
    for part in (opened.history, opened.scores, opened.test_scores, opened.clusters, opened.fingerprint):
        part()
        part()
    assert sorted(read) == sorted(set(read))
    assert {store.MODEL, store.SCORES, store.CLUSTERS} <= set(read)


def _overwriting(table: Path, out: Path, seconds: float | None, ending: int, **options: object) -> int:
    """The exit status of a fit with --overwrite in a process that is sent a signal after so many seconds."""
    ask = replace(request(table), **options)
    child = FORK.Process(target=fit_run, args=(ask, out), kwargs={"overwrite": True})
    child.start()
    child.join(seconds)
    if child.is_alive():
        os.kill(child.pid, ending)  # type: ignore[arg-type]
    child.join()
    return child.exitcode or 0


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGINT])
def test_an_interrupted_overwrite_leaves_the_old_run_or_the_new(
    finished: store.Run, table: Path, tmp_path: Path, ending: int
) -> None:
    """At every moment the scores are those of one of the two fits, whole."""
    whole = {}
    for seed in (0, 1):
        fit_run(replace(request(table), seed=seed), tmp_path / str(seed))
        whole[seed] = store.open_run(tmp_path / str(seed)).scores()
    started = time.perf_counter()
    assert _overwriting(table, tmp_path / "0", None, ending, seed=0) == 0
    length = time.perf_counter() - started
    out, moments = tmp_path / "1", random.Random(1)
    for number in range(10):
        # Half of the moments lie where the new run takes the old one's place.
        wait = moments.uniform(0, length) if number % 2 else moments.uniform(0.8 * length, 1.1 * length)
        _overwriting(table, out, wait, ending, seed=number % 2)
        run = store.open_run(out)
        seed = run.settings.seed
        pd.testing.assert_frame_equal(run.scores(), whole[seed])
        assert run.report()["settings"]["seed"] == seed
        run.detector()


def test_an_exchange_goes_on_where_it_was_cut_off(
    finished: store.Run, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever move is the last before the power fails, the run that is opened afterwards is the new one."""
    out = tmp_path / "run"
    moves = os.replace
    for last in range(9):
        shutil.rmtree(out, ignore_errors=True)
        fit_run(replace(request(table), detector="gaussian"), out)
        done: list[str] = []

        def fails(source: str | Path, target: str | Path, last: int = last, done: list[str] = done) -> None:
            if ".ready" in str(source):
                if len(done) == last:
                    raise KeyboardInterrupt
                done.append(str(target))
            moves(source, target)

        with monkeypatch.context() as patch:
            patch.setattr(exchange.os, "replace", fails)
            with nullcontext() if last == 8 else pytest.raises(KeyboardInterrupt):
                fit_run(request(table), out, overwrite=True)
        again = store.open_run(out)
        pd.testing.assert_frame_equal(again.scores(), finished.scores())
        assert not (out / exchange.READY).exists()
        assert {path.name for path in out.iterdir()} <= set(files.FILES)


def test_a_planted_link_is_neither_followed_nor_written_through(
    finished: store.Run, table: Path, tmp_path: Path
) -> None:
    notes = tmp_path / "notes.txt"
    notes.write_text("mine")
    run = tmp_path / "run"
    shutil.copytree(finished.path, run)
    for name in (".writing-report.html", ".writing-settings.json"):
        (run / name).symlink_to(notes)
    (run / "report.html").unlink()
    (run / "report.html").symlink_to(notes)
    pages.write_report(run, None)
    assert (run / "report.html").read_text().startswith("<!")
    assert not (run / "report.html").is_symlink()
    for name in (exchange.NEXT, exchange.READY, store.LOCK):
        (run / name).unlink(missing_ok=True)
        (run / name).symlink_to(notes)
        with pytest.raises(InputError, match="is a link"):
            fit_run(request(table), run, overwrite=True)
        (run / name).unlink()
    assert notes.read_text() == "mine"


def test_a_changed_report_is_noticed(finished: store.Run, tmp_path: Path) -> None:
    shutil.copytree(finished.path, tmp_path / "run")
    report = tmp_path / "run" / "report.json"
    report.write_text(report.read_text().replace("samples", "forged", 1))
    with pytest.raises(InputError, match=r"report\.json was changed after the fit"):
        pages.write_report(tmp_path / "run", None)


def test_two_writers_of_one_file_never_share_a_temporary(tmp_path: Path) -> None:
    target = tmp_path / "page.html"
    contents = [bytes([65 + i]) * 200_000 for i in range(4)]

    def repeat(content: bytes) -> None:
        for _ in range(25):
            files.write(target, content)

    writers = [FORK.Process(target=repeat, args=(content,)) for content in contents]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        if target.exists():
            assert target.read_bytes() in contents
    assert [writer.exitcode for writer in writers] == [0] * 4
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]

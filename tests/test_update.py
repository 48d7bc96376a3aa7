"""tailwise update: a new run that knows the added normals; the old one stays as it is."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tailwise.cli import main
from tailwise.errors import InputError
from tailwise.runs import files, store
from tailwise.sources.auto import open_source
from tailwise.workflows import request, score
from tailwise.workflows.fit import fit_run
from tailwise.workflows.update import update_run


def write(folder: Path, counts: dict[int, int], first: int = 0) -> Path:
    """Grey-on-colour stripes, so many of each period."""
    folder.mkdir()
    generator = np.random.default_rng(first)
    for period, count in counts.items():
        for number in range(count):
            wave = 128 + 90 * np.sin(np.arange(16) / period + generator.uniform(0, 0.3))
            picture = wave[:, None, None] + generator.normal(0, 4, (16, 16, 3))
            Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(folder / f"{period}-{first + number}.png")
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> store.Run:
    photos = write(tmp_path_factory.mktemp("data") / "photos", {2: 60})
    return fitted(photos, tmp_path_factory.mktemp("runs") / "run", scores="own")


def fitted(photos: Path, out: Path, **options: object) -> store.Run:
    source = open_source(photos, read="pixels", size=16)
    chosen = {"detector": "PatchMemory(share=0.05)", "weighting": "", "cross": 0, **options}
    return fit_run(request.Request(source=source, **chosen), out)  # type: ignore[arg-type]


def test_the_new_run_knows_the_added_normals(run: store.Run, tmp_path: Path) -> None:
    more = write(tmp_path / "more", {5: 30}, first=100)
    unseen = write(tmp_path / "unseen", {5: 20}, first=500)
    before = {path.name: path.read_bytes() for path in run.path.iterdir()}
    assert main.run(["update", str(run.path), str(more), "--out", str(tmp_path / "new")]) == 0
    assert {path.name: path.read_bytes() for path in run.path.iterdir()} == before
    first, then = (score.score_data(path, str(unseen)) for path in (run.path, tmp_path / "new"))
    assert first["flagged"].all()
    assert then["flagged"].mean() <= 0.3
    usual = write(tmp_path / "usual", {2: 20}, first=900)
    old, new = (score.score_data(path, str(usual))["score"] for path in (run.path, tmp_path / "new"))
    assert (new <= old + 1e-6).all()


def test_the_new_run_is_whole_and_says_what_was_added(run: store.Run, tmp_path: Path) -> None:
    more = write(tmp_path / "more", {5: 29}, first=0)
    shutil.copy(more / "5-0.png", more / "copy.png")
    new = update_run(run.path, str(more), tmp_path / "new", 0, False, "tailwise update")
    table = new.scores()
    assert len(table) == 90
    assert table["sample"].is_unique
    assert new.settings.n_train + new.settings.n_held_out == 90
    assert new.settings.n_held_out == table["held_out"].sum() == run.settings.n_held_out + 9
    held = np.sort(table.loc[table["held_out"], "score"])
    assert new.settings.threshold in held
    assert new.settings.fingerprint != run.settings.fingerprint
    assert "added without fitting" in new.report()["notes"][-1]
    assert store.open_run(new.path).settings.updates[0]["samples"] == 30
    # Nothing says that the new detector was tested, and the added samples were looked at.
    assert new.test_scores() is None
    assert new.settings.test_fingerprint is None
    checks = {check["name"]: check for check in new.report()["data_checks"]}
    assert checks["copies in the training data"]["ok"]
    added = checks["among the added: copies in the training data"]
    assert (added["count"], added["examples"]) == (1, ["5-0.png = copy.png"])
    again = update_run(new.path, str(more), tmp_path / "again", 0, False, "tailwise update")
    assert len(again.settings.updates) == 2
    assert again.scores()["sample"].is_unique
    # The same normals a second time hold nothing new but those that were held out.
    memory = [files.read_tensors(each.path / store.MODEL)[0]["memory"] for each in (run, new, again)]
    assert len(memory[0]) < len(memory[1])
    assert len(memory[2]) == len(memory[1])


@pytest.mark.parametrize("command", ["update", "adapt"])
def test_a_run_never_takes_the_place_of_what_it_is_made_of(
    command: str, run: store.Run, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not even where overwriting is asked for; and it is said before anything is read."""
    before = {path.name: path.read_bytes() for path in run.path.iterdir() if path.is_file()}
    assert main.run([command, str(run.path), "nothing there", "--out", str(run.path), "--overwrite"]) == 2
    assert "would be lost" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in run.path.iterdir() if path.is_file()} == before


def test_what_cannot_be_updated_says_so(run: store.Run, tmp_path: Path) -> None:
    photos = write(tmp_path / "photos", {2: 30})
    other = fitted(photos, tmp_path / "gaussian", detector="gaussian", scores="own")
    with pytest.raises(InputError, match="Gaussian cannot take in more samples"):
        update_run(other.path, str(photos), tmp_path / "new", 0, False, "")
    small = write(tmp_path / "none", {2: 3})
    scored = fitted(photos, tmp_path / "scored", scores="LocalScores()")
    with pytest.raises(InputError, match="with local scores cannot"):
        update_run(scored.path, str(small), tmp_path / "new", 0, False, "")
    with pytest.raises(InputError, match="no file or folder"):
        update_run(run.path, str(tmp_path / "absent"), tmp_path / "new", 0, False, "")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("change", ["a sentence", "a space", "gone"])
def test_whatever_reads_the_report_notices_that_it_was_changed(
    run: store.Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: str
) -> None:
    """`report`, `compare` and `update` read report.json; no other command does, so none shows what stands in it."""
    more, forged = write(tmp_path / "more", {5: 30}, first=100), tmp_path / "forged"
    shutil.copytree(run.path, forged)
    report = forged / files.REPORT_DATA
    text = report.read_text(encoding="utf-8")
    if change == "gone":
        report.unlink()
    else:
        report.write_text(text + " " if change == "a space" else text.replace("images", "FORGED"), encoding="utf-8")
    reading = [
        ["report", str(forged)],
        ["report", str(forged), "--out", str(tmp_path / "page.md")],
        ["compare", str(run.path), str(forged)],
        ["update", str(forged), str(more), "--out", str(tmp_path / "new")],
    ]
    for words in reading:
        capsys.readouterr()
        assert main.run(words) == 2
        said = capsys.readouterr()
        assert "report.json" in said.err
        assert "FORGED" not in said.out + said.err
    assert not (tmp_path / "new").exists()
    assert not (tmp_path / "page.md").exists()
    (forged / files.REPORT_PAGE).unlink()
    for words in (["score", str(forged), str(more)], ["thresholds", str(forged)], ["drift", str(forged), str(more)]):
        assert main.run(words) in (0, 4)
        assert "FORGED" not in capsys.readouterr().out
    assert not (forged / files.REPORT_PAGE).exists()

"""tailwise adapt: a new run for normals that have changed, without labels; the old one stays as it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
import scipy.ndimage
import torch
from PIL import Image

import tailwise
from tailwise.backbones import networks
from tailwise.cli import main
from tailwise.core import inference, registry
from tailwise.core.data import Data
from tailwise.core.detector import Detector
from tailwise.core.modality import FEATURE_MAP
from tailwise.core.problem import Facts, Labelled, Problem
from tailwise.core.registry import Value, entries, parse_one
from tailwise.detectors.nearest_neighbours import NearestNeighbours
from tailwise.errors import InputError
from tailwise.numerics.metrics import auroc
from tailwise.runs.display import lines
from tailwise.runs.scorer import Run
from tailwise.sources.arrays import from_arrays
from tailwise.sources.images import ImageFolder
from tailwise.training import adapt
from tailwise.training import fit as training_fit
from tailwise.training.adaptations import rada, tune
from tailwise.workflows.adapt import worse

STRETCH, SHIFT = np.array([1.3, 0.8, 1, 1]), np.array([2.0, -1, 0, 0.5])
MAPS: dict[str, torch.Tensor] = {}


@dataclass(frozen=True, repr=False)
class StoredMaps(Value):
    """Feature maps of this file."""

    path: str

    def load(self) -> Problem:
        return Problem(self.load_all().data, Facts("maps"))

    def load_all(self) -> Labelled:
        return Labelled(Data(MAPS[self.path], [f"{i}" for i in range(len(MAPS[self.path]))], modality=FEATURE_MAP))

    def at(self, path: str) -> StoredMaps:
        return StoredMaps(path)


@pytest.fixture(scope="module", autouse=True)
def _known() -> Iterator[None]:
    """The source is registered for these tests alone."""
    registry.register("source", "StoredMaps")(StoredMaps)
    yield
    del registry._entries["source"]["StoredMaps"]


def rows(count: int, seed: int, odd: bool = False) -> np.ndarray:
    """Rows of three kinds of normal, or such that lie off every kind."""
    generator = np.random.default_rng(seed)
    centres = np.array([[0, 0, 0, 0], [4, 0, 0, 2], [0, 5, 1, 0]])[generator.integers(0, 3, count)]
    found = centres + generator.normal(size=(count, 4))
    return found + generator.choice([-1, 1], (count, 4)) * 4 * odd


def maps(count: int, seed: int, odd: bool = False) -> torch.Tensor:
    """Maps of 6 channels with a slope from top to bottom, or with a spot."""
    found = torch.randn(count, 6, 8, 8, generator=torch.Generator().manual_seed(seed))
    found += torch.linspace(0, 3, 8)[:, None]
    found[:, ::2, 2:4, 2:4] += 3 * odd
    return found


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return tailwise.fit(rows(300, 0), detector="nearest-neighbours", cross=0, out=tmp_path_factory.mktemp("runs") / "r")


@pytest.fixture(scope="module")
def moved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The rows of a target, of which a fifth are anomalies, all scaled and shifted."""
    path = tmp_path_factory.mktemp("data") / "moved.npy"
    np.save(path, np.concatenate([rows(120, 1), rows(30, 2, odd=True)]) * STRETCH + SHIFT)
    return path


@pytest.fixture(scope="module")
def adapted(run: Run, moved: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return tailwise.adapt(run.path, str(moved), method="Moments", out=tmp_path_factory.mktemp("runs") / "adapted")


def test_the_old_run_stays_and_the_new_one_is_whole(
    run: Run, moved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path.name: path.read_bytes() for path in run.path.iterdir()}
    words = ["adapt", str(run.path), str(moved), "--method", "Moments", "--out", str(tmp_path / "new")]
    assert main.run(words) == 0
    said = capsys.readouterr()
    assert "the old threshold is void" in said.err
    assert {path.name: path.read_bytes() for path in run.path.iterdir()} == before
    new = tailwise.open_run(tmp_path / "new")
    row = new.settings.adaptations[0]
    assert row["adapted"]
    assert row["run"] == str(run.path)
    assert row["method"] == "Moments()"
    assert row["kinds"][0]["size"] == len(new.scores()) == 150
    assert row["kinds"][0]["before"] > row["kinds"][0]["after"]
    assert "What was it adapted to?" in (new.path / "report.html").read_text()
    assert new.report()["adaptation"]["kinds"][0]["size"] == 150
    for words in (["verify"], ["report", "--out", str(tmp_path / "page.md")], ["thresholds"]):
        assert main.run([words[0], str(new.path), *words[1:]]) == 0
    assert "flagged before" in (tmp_path / "page.md").read_text()
    assert main.run(["adapt", str(run.path), str(moved), "--out", str(new.path)]) == 2


def test_the_new_threshold_flags_no_more_than_it_says(adapted: Run) -> None:
    """19 samples can promise 5 % in the mean of many draws; of one draw the share lies in the range that is said."""
    held = adapted.scores()["held_out"].to_numpy()
    assert adapted.settings.threshold in adapted.scores()["score"].to_numpy()[held]
    x = np.concatenate([rows(800, 5), rows(200, 6, odd=True)]) * STRETCH + SHIFT
    flagged = adapted.score(x).flagged
    assert flagged.mean() <= 0.18
    assert flagged[:800].mean() <= flagged[800:].mean()
    assert adapted.score(x).cluster.nunique() > 1


def test_where_nothing_drifted_it_refuses_and_forced_it_leaves_scores_alone(run: Run, tmp_path: Path) -> None:
    same = rows(150, 7)
    with pytest.raises(InputError, match="150 samples could not have shown") as caught:
        tailwise.adapt(run.path, same, out=tmp_path / "new")
    assert "--force" in caught.value.hint
    assert not (tmp_path / "new").exists()
    new = tailwise.adapt(run.path, same, out=tmp_path / "new", force=True)
    row = new.settings.adaptations[0]
    assert not row["adapted"]
    assert "detector unchanged; only the threshold is new, from all 150 samples" in lines(new.outcome())[0]
    assert "nothing to gain: the lower scores of the target lie" in row["reason"]
    x = rows(50, 8)
    assert np.array_equal(new.score(x).score, run.score(x).score)
    # Nothing was learnt from the target, so all of it sets the threshold.
    assert len(new.calibration().scores) == 150


@pytest.fixture(scope="module")
def asked(run: Run, moved: Path) -> adapt.Asked:
    """The run and the target as an adaptation is given them."""
    data = run.samples(str(moved)).data
    known, complete = run.own_samples()
    source = adapt.Source(run.calibration().scores, known, complete)
    return adapt.Asked(run.detector(), data, run.scores_of(data), source, torch.Generator().manual_seed(0))


@pytest.mark.parametrize("rule", ["prototype", "mutual", "partial", "plain"])
def test_a_scaled_and_shifted_target_comes_back(asked: adapt.Asked, rule: str) -> None:
    made = adapt.parse(f"RADA({rule!r}, 100, 0.02, start='source')").adapt(asked)
    assert made.adapted
    assert made.figures["cost_after"] < 0.7 * made.figures["cost_before"]
    assert abs(made.figures["gap_after"]) < 0.5 < made.figures["gap_before"]

    def score(x: np.ndarray, detector: Detector = made.detector) -> np.ndarray:
        return inference.score(detector, from_arrays(x).train).numpy()

    x, labels = np.concatenate([rows(200, 3), rows(200, 4, odd=True)]), np.repeat([False, True], 200)
    assert auroc(labels, score(x * STRETCH + SHIFT)) > 0.98
    usual, old = (
        np.median(score(rows(200, 9), asked.detector)),
        np.median(score(rows(200, 9) * STRETCH + SHIFT, asked.detector)),
    )
    assert abs(np.median(score(rows(200, 9) * STRETCH + SHIFT)) - usual) < 0.5 * abs(old - usual)


def test_alignment_starts_from_the_moments_of_what_scores_low(asked: adapt.Asked) -> None:
    """Anomalies do not move the start; from there parts lie nearer to the normal ones at the first step already."""
    begun = adapt.parse("RADA(steps=1, rate=1e-9)").adapt(asked).detector
    assert isinstance(begun, adapt.Realigned)
    lowest = asked.target.take(np.sort(asked.lowest(0.7)))
    start = adapt.by_channel(begun.aligned_data(lowest).read(torch.arange(len(lowest))))
    for now, then in zip(start, adapt.by_channel(adapt.source_samples(asked, "RADA")), strict=True):
        torch.testing.assert_close(now, then, rtol=1e-4, atol=1e-4)
    costs = [
        adapt.parse(f"RADA(start={start!r})").adapt(asked).figures["cost_before"] for start in ("source", "moments")
    ]
    assert costs[1] < 0.8 * costs[0]


def test_anomalies_do_not_stretch_kinds_that_are_otherwise_common() -> None:
    """Kinds change their shares, and three tenths of the target are anomalies: the default costs nothing, where the
    moments of all of the target do."""
    changes = np.array([[_change(method, seed) for method in ("RADA()", "Moments()")] for seed in range(4, 8)])
    assert changes[:, 0].min() > -0.02
    assert changes[:, 1].min() < -0.05


def _change(method: str, seed: int) -> float:
    """By how much adapting changes the AUROC of fresh normals of the target against fresh anomalies."""
    generator = np.random.default_rng(seed)
    centres = 3 * generator.normal(size=(4, 4))

    def normals(count: int, shares: list[float]) -> np.ndarray:
        kind = generator.choice(4, count, p=shares)
        return centres[kind] + np.array([1, 1, 1.6, 1])[kind, None] * generator.normal(size=(count, 4))

    old, new = [0.6, 0.3, 0.1, 0.0], [0.2, 0.3, 0.5, 0.0]
    detector, train = NearestNeighbours(), from_arrays(normals(200, old)).train
    training_fit.fit(detector, train)
    target = from_arrays(np.concatenate([normals(70, new), 6 * generator.normal(size=(30, 4))])).train
    usual = inference.score(detector, from_arrays(normals(100, old)).train).double().numpy()
    source = adapt.Source(usual, train.read(torch.arange(len(train))), True)
    scores = inference.score(detector, target).double().numpy()
    made = adapt.parse(method).adapt(adapt.Asked(detector, target, scores, source, torch.Generator().manual_seed(0)))
    fresh = from_arrays(np.concatenate([normals(500, new), 6 * generator.normal(size=(500, 4))])).train
    labels = np.repeat([False, True], 500)
    before, after = (auroc(labels, inference.score(each, fresh).numpy()) for each in (detector, made.detector))
    return after - before


def test_maps_are_aligned_before_anything_reads_them(tmp_path: Path) -> None:
    stretch, shift = torch.ones(6, 1, 1), torch.zeros(6, 1, 1)
    stretch[1], shift[0], shift[4] = 1.3, 1.5, -1.0
    MAPS["fit"] = maps(60, 0)
    MAPS["target"] = torch.cat([maps(30, 1), maps(10, 2, odd=True)]) * stretch + shift
    MAPS["new"] = torch.cat([maps(40, 3), maps(40, 4, odd=True)]) * stretch + shift
    labels = np.repeat([False, True], 40)
    run = tailwise.fit(StoredMaps("fit"), detector="PatchMemory(share=0.1)", cross=0, out=tmp_path / "run")
    method = "RADA(steps=150, rate=0.02, start='source')"
    new = tailwise.adapt(run.path, StoredMaps("target"), method=method, out=tmp_path / "new")
    before, after = (auroc(labels, each.score(StoredMaps("new")).score.to_numpy()) for each in (run, new))
    assert before < after > 0.95
    assert new.map_scale is not None
    assert new.settings.map_threshold != run.settings.map_threshold
    detector = new.detector()
    assert isinstance(detector, adapt.Realigned)
    left = detector.stretch * shift.flatten() + detector.shift
    assert left.abs().max() < 0.4
    assert (detector.stretch * stretch.flatten() - 1).abs().max() < 0.2
    # An adapted run is a run: it can be adapted again, and its detector is then wrapped twice.
    MAPS["target"] = MAPS["target"] + 1
    again = tailwise.adapt(new.path, StoredMaps("target"), method="Moments", out=tmp_path / "again", force=True)
    assert len(again.settings.adaptations) == 2
    assert again.settings.wrappers == ["RADA(steps=150, rate=0.02, start='source')", "Moments()"]
    inner = again.detector()
    assert isinstance(inner, adapt.Realigned)
    assert isinstance(inner.detector, adapt.Realigned)


def test_a_threshold_is_carried_over_where_the_target_is_like_the_old_data(tmp_path: Path) -> None:
    """Old scores calibrate for a kind that is commoner now, and for none that is new."""
    generator = np.random.default_rng(0)

    def some(count: int, far: float, new: float = 0) -> np.ndarray:
        kind = generator.choice(3, count, p=[1 - far - new, far, new])
        return np.array([[0, 0], [5, 0], [-20, 9]])[kind] + generator.normal(size=(count, 2)) * (1 + kind[:, None])

    run = tailwise.fit(some(400, 0.2), detector="gaussian", out=tmp_path / "run")
    odd = generator.uniform(-12, 12, (60, 2))
    new = tailwise.adapt(
        run.path, np.concatenate([some(240, 0.5), odd]), method="Nothing", out=tmp_path / "a", force=True
    )
    figures = new.settings.adaptations[0]["figures"]
    flagged = {
        name: float((run.score(some(4000, 0.5)).score > threshold).mean())
        for name, threshold in (("old", run.settings.threshold), ("carried", figures["threshold_carried"]))
    }
    assert flagged["carried"] < 0.075 < flagged["old"]
    # Anomalies raise the threshold that is made of the target itself, and hardly the one that is carried over.
    assert figures["threshold_carried"] < new.settings.threshold
    assert "nothing is promised by it" in new.settings.adaptations[0]["promise"]
    other = tailwise.adapt(run.path, some(300, 0, 0.97), method="Nothing", out=tmp_path / "b", force=True)
    assert "threshold_carried" not in other.settings.adaptations[0]["figures"]
    assert "promise nothing for this target" in other.settings.adaptations[0]["promise"]


def test_columns_that_the_run_does_not_know_are_ignored_and_missing_ones_refused(tmp_path: Path) -> None:
    names = ["a", "b", "c", "d"]
    frame = pd.DataFrame(rows(200, 0), columns=names)
    frame.to_csv(tmp_path / "old.csv", index=False)
    run = tailwise.fit(tmp_path / "old.csv", detector="nearest-neighbours", cross=0, out=tmp_path / "run")
    more = pd.DataFrame(rows(150, 1) * STRETCH + SHIFT, columns=names).assign(note="fine", extra=1.0)
    more.to_csv(tmp_path / "more.csv", index=False)
    new = tailwise.adapt(run.path, tmp_path / "more.csv", method="Moments", out=tmp_path / "new")
    assert new.settings.features == tuple(names)
    more.drop(columns="c").to_csv(tmp_path / "less.csv", index=False)
    with pytest.raises(InputError, match="has no column 'c'"):
        tailwise.adapt(run.path, tmp_path / "less.csv", out=tmp_path / "other")


def test_update_adds_the_lowest_and_leaves_the_old_memory(tmp_path: Path) -> None:
    MAPS["fit"], MAPS["target"] = maps(40, 0), torch.cat([maps(30, 1), maps(10, 2, odd=True)]) + 1.5
    detector = "PatchMemory(share=0.1)"
    run = tailwise.fit(StoredMaps("fit"), detector=detector, scores="own", cross=0, out=tmp_path / "run")
    new = tailwise.adapt(run.path, StoredMaps("target"), method="Update(keep=0.5)", out=tmp_path / "new")
    assert new.settings.adaptations[0]["figures"]["added"] == new.settings.n_train // 2
    memory = [each.detector().state_dict()["memory"] for each in (run, new)]
    assert len(memory[1]) > len(memory[0])


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("TUNE", "TUNE cannot adapt NearestNeighbours"),
        ("Update", "Update cannot adapt NearestNeighbours with local scores"),
        ("Statistics", "Statistics cannot adapt this run of NearestNeighbours: it changes the network that reads"),
        ("RADA(parameters='norm')", "RADA cannot adapt this run of NearestNeighbours: it changes the network"),
        ("RADA(statistics='mixed')", "RADA cannot adapt this run of NearestNeighbours: it changes the network"),
        ("rada", "no adaptation is called"),
        ("RADA(assignment='nearest')", "assignment"),
    ],
)
def test_what_cannot_be_adapted_says_so_by_name(
    run: Run, moved: Path, tmp_path: Path, method: str, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        tailwise.adapt(run.path, str(moved), method=method, out=tmp_path / "new")
    assert not (tmp_path / "new").exists()


def photos(folder: Path, count: int, seed: int, gain: float = 1.0) -> Path:
    """Soft noise of some contrast, as pictures of 64 x 64."""
    folder.mkdir()
    generator = np.random.default_rng(seed)
    for i in range(count):
        noise = scipy.ndimage.gaussian_filter(generator.normal(size=(64, 64, 3)), (2, 2, 0))
        picture = 0.5 + gain * 0.15 * noise / noise.std()
        Image.fromarray((picture.clip(0, 1) * 255).astype(np.uint8)).save(folder / f"{i:02}.png")
    return folder


@pytest.fixture(scope="module")
def photographed(tmp_path_factory: pytest.TempPathFactory) -> Run:
    if not networks.installed("efficientnet-lite0"):
        pytest.skip("needs the packages of EfficientNet-Lite0 (tailwise[images])")
    folder = tmp_path_factory.mktemp("photos")
    source = ImageFolder(str(photos(folder / "old", 40, 0)), "efficientnet-lite0", (4, 10), 64)
    return tailwise.fit(source, detector="PatchMemory(share=0.1)", scores="own", cross=0, out=folder / "run")


def test_batch_norms_move_and_the_run_keeps_the_network(photographed: Run, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    target = photos(tmp_path / "target", 30, 1, gain=2.2)
    before = {path.name: path.read_bytes() for path in photographed.path.iterdir()}
    method = "RADA(parameters='norm', statistics='mixed', steps=8)"
    new = tailwise.adapt(photographed.path, target, method=method, out=tmp_path / "new", force=True)
    row = new.settings.adaptations[0]
    assert row["adapted"], row["reason"]
    assert abs(row["figures"]["gap_after"]) < row["figures"]["gap_before"]
    assert (new.path / "backbone.onnx").is_file()
    assert {path.name: path.read_bytes() for path in photographed.path.iterdir()} == before
    # The detector is the old one; what it reads is not, and is the same when the run is opened elsewhere.
    old, now = photographed.detector().state_dict(), new.detector().state_dict()
    assert all(torch.equal(value, now[name]) for name, value in old.items())
    again = tailwise.open_run(new.path).score(target).score.to_numpy()
    np.testing.assert_allclose(again, new.scores()["score"], rtol=1e-6)
    assert not np.allclose(again, photographed.score(target).score.to_numpy(), rtol=1e-3)
    assert main.run(["verify", str(new.path)]) == 0
    with pytest.raises(InputError, match="batch norms are known of EfficientNet-Lite and MobileNetV2 alone"):
        tailwise.adapt(new.path, target, method="Statistics", out=tmp_path / "again", force=True)


@pytest.mark.parametrize("method", ["Statistics()", "RADA(statistics='target')", "RADA(parameters='norm')"])
def test_the_veto_also_holds_for_the_network(photographed: Run, tmp_path: Path, method: str) -> None:
    """Where the target's lower scores are those of the old normals, nothing is made."""
    same = photos(tmp_path / "same", 20, 2)
    new = tailwise.adapt(photographed.path, same, method=method, out=tmp_path / "new", force=True)
    assert not new.settings.adaptations[0]["adapted"]
    assert not (new.path / "backbone.onnx").exists()


def test_anomalous_parts_pull_on_nothing() -> None:
    """A fifth of the target's parts lie far off all normal ones: of these the discrete assignments pick hardly any."""
    generator = torch.Generator().manual_seed(0)
    normal, target = torch.randn(100, 3, generator=generator), torch.randn(200, 3, generator=generator) + 0.5
    target[:40] += 12
    cost = torch.cdist(target, normal)
    weight = {rule: rada.assigned(cost, rule) for rule in ("prototype", "mutual", "partial", "plain")}
    for rule, plan in weight.items():
        assert float(plan.sum()) == pytest.approx(1, abs=0.02), rule
    assert float(weight["plain"][:40].sum()) == pytest.approx(0.2, abs=0.02)
    assert all(float(weight[rule][:40].sum()) < 0.1 for rule in ("prototype", "mutual", "partial"))
    plan = rada.transport(cost)
    assert torch.allclose(plan.sum(0), torch.full((100,), 0.01), atol=1e-4)


def block_model(folder: Path, seed: int, classes: int) -> Path:
    """A graph in which nodes of a class are joined, and 12 anomalies to any; the last class may be new."""
    generator = np.random.default_rng(seed)
    y = np.repeat([*range(classes), -1], [*[40] * classes, 12])
    centres = np.random.default_rng(0).normal(size=(5, 8))
    x = centres[y] + generator.normal(size=(len(y), 8)) * 0.8
    drawn = generator.random((len(y), len(y))) < np.where((y[:, None] == y) & (y >= 0), 0.1, 0.01)
    path = folder / f"graph-{seed}.npz"
    np.savez(path, x=x.astype(np.float32), edge_index=np.stack(np.nonzero(np.triu(drawn, 1))), y=(y < 0).astype(int))
    return path


@pytest.fixture(scope="module")
def classified(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Path]:
    """A run of a graph classifier, and a graph with a class that it has not seen."""
    pytest.importorskip("torch_geometric")
    folder = tmp_path_factory.mktemp("graphs")
    training = tailwise.Training(epochs=60, lr=0.01)
    run = tailwise.fit(
        str(block_model(folder, 0, 3)), detector="graph-classifier", anomalies="6", training=training, cross=0,
        out=folder / "run",
    )  # fmt: skip
    return run, block_model(folder, 1, 4)


def test_tune_leaves_the_classifier_alone_and_bounds_what_it_moves(
    classified: tuple[Run, Path], tmp_path: Path
) -> None:
    run, target = classified
    new = tailwise.adapt(run.path, str(target), out=tmp_path / "new", force=True)
    row = new.settings.adaptations[0]
    assert row["method"] == "TUNE()"
    assert row["figures"].get("moved", 0) <= 0.1
    assert row["figures"].get("epochs", 0) <= 20
    old, now = run.detector().state_dict(), new.detector().state_dict()
    inner = {name.removeprefix("detector."): value for name, value in now.items()} if row["adapted"] else now
    assert all(torch.equal(value, inner[name]) for name, value in old.items())
    scores = [each.score(str(target)).score.to_numpy() for each in (run, new)]
    assert row["adapted"] == (not np.array_equal(*scores))
    labels = np.load(target)["y"].astype(bool)
    assert auroc(labels, scores[1]) > auroc(labels, scores[0]) - 0.02


def test_tune_as_published_collapses_and_a_veto_says_so(
    classified: tuple[Run, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without bounds attributes are moved by more than half of their size; the veto sees that ranks are lost."""
    run, target = classified
    data = run.samples(str(target)).data
    source = adapt.Source(run.calibration().scores)

    def made(method: str) -> adapt.Adapted:
        drawn = torch.Generator().manual_seed(0)
        return adapt.parse(method).adapt(adapt.Asked(run.detector(), data, run.scores_of(data), source, drawn))

    published = made("TUNE(mode='published')")
    assert published.adapted
    assert published.figures["moved"] > 0.5
    assert made("TUNE(most_moved=0.01)").figures["moved"] <= 0.01
    monkeypatch.setattr(tune, "_LEAST_RANK", 1.0)
    vetoed = made("TUNE()")
    assert not vetoed.adapted
    assert vetoed.detector is run.detector()
    assert "no gain: the ranking of" in vetoed.reason


def test_kinds_that_pay_are_named() -> None:
    kinds = [("all", 50, 10, 5), ("0", 40, 10, 2), ("1", 10, 0, 3)]
    row = {"kinds": tuple(dict(zip(("name", "size", "before", "after"), each, strict=True)) for each in kinds)}
    assert [kind["name"] for kind in worse(row)] == ["1"]  # type: ignore[arg-type]


def test_each_adaptation_is_a_value_that_prints_as_itself() -> None:
    for name in entries("adaptation"):
        made = parse_one(name, "adaptation")
        assert isinstance(made, adapt.Adaptation)
        assert parse_one(repr(made), "adaptation") == made


def test_the_page_of_the_benchmark_is_that_of_its_rows(module_of: Callable[[Path], ModuleType]) -> None:
    home = Path(__file__).parents[1] / "benchmarks"
    assert (home / "adapt.md").read_text(encoding="utf-8") == module_of(home / "adapt.py").page()

"""Exported files score as the detectors that they were made of, and what scores otherwise is noticed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache, partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import tailwise
from tailwise.calibration import score_maps
from tailwise.cli.main import run
from tailwise.core import inference, registry
from tailwise.core.data import Data
from tailwise.core.detector import Detector
from tailwise.core.modality import IMAGE, ROW, SPECTRUM
from tailwise.detectors.tiles import Tiles
from tailwise.errors import InputError
from tailwise.integrations import onnx as integrations_onnx
from tailwise.integrations.onnx import to_onnx
from tailwise.integrations.onnx_graph import _solved, quiet
from tailwise.numerics import export_ops
from tailwise.runs import fingerprint, store
from tailwise.testing import Case
from tailwise.training import local_scores

pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

RUNTIME = Path(__file__).parents[1] / "runtime"
sys.path.insert(0, str(RUNTIME / "src"))
import tailwise_runtime  # noqa: E402

SHAPES = {ROW: (12,), SPECTRUM: (1, 20), IMAGE: (2, 12, 10)}
MODALITIES = {shape: modality for modality, shape in SHAPES.items()} | {(1, 64, 64): IMAGE}
# Every detector in each shape that it takes; with local scores those that stand for the ways of scoring.
PLAIN = [
    pytest.param(name, SHAPES[modality], False, id=f"{name}-{modality.name}")
    for name in registry.entries("detector")
    for modality in registry.find("detector", name).modalities
    if modality in SHAPES
]
FAIR = [
    pytest.param(name, SHAPES[modality], True, id=f"{name}-{modality.name}-fair")
    for name, modality in (("autoencoder", ROW), ("patch-memory", IMAGE), ("rx", SPECTRUM))
]
# Neighbours of larger images are looked up in smaller ones.
FAIR.append(pytest.param("dev-net", (1, 64, 64), True, id="dev-net-large-fair"))
SMOOTHING = 0.02
# Few neighbours make a small graph: elimination goes step by step.
RULE = local_scores.LocalScores(neighbours=5, nearest=3)
# These are computed in double precision to the end, or differ by elementary operations alone.
CLOSED = ("gaussian", "patch-memory", "rx")


@cache
def fitted(name: str, shape: tuple[int, ...], fair: bool) -> Detector:
    case = Case(registry.find("detector", name).for_contracts, shape, MODALITIES[shape])
    data = case.data(100)
    detector = case.fit(data)
    return RULE.fit(detector, data) if fair else detector


@pytest.fixture(scope="session")
def loaded(tmp_path_factory):
    """The exported file of a detector, opened by the loader; made once."""
    folder, models = tmp_path_factory.mktemp("exported"), {}

    def load(name: str, shape: tuple[int, ...], fair: bool) -> tailwise_runtime.Model:
        key = (name, shape, fair)
        if key not in models:
            detector = fitted(*key)
            data = Case(registry.find("detector", name), shape, MODALITIES[shape]).data(100)
            kept = fingerprint.choose(detector, data)
            path = folder / f"{len(models)}.onnx"
            settings = {"detector": name, "threshold": 1.0, "smoothing": SMOOTHING}
            made = None if kept is None else fingerprint.of(detector, kept)
            path.write_bytes(to_onnx(detector, settings, made))
            models[key] = tailwise_runtime.load(path)
        return models[key]

    return load


def asked(name: str, shape: tuple[int, ...], count: int) -> torch.Tensor:
    """Fresh samples, among them some of training, a constant one, and one far from everything."""
    case = Case(registry.find("detector", name), shape, MODALITIES[shape])
    samples = case.data(count, seed=5).read(torch.arange(count))
    special = [case.data(100).read(torch.arange(3)), torch.zeros(1, *shape), 1e3 * torch.ones(1, *shape)]
    return torch.cat([*special, samples])[:count]


def apart(found: np.ndarray, expected: torch.Tensor, least: float = 0.01) -> float:
    """The largest difference, as a share of the score; near nought, of `least` times the usual score.

    A local score of a network passes through nought, where torch itself gives other shares with other batches.
    """
    expected_values = expected.double().numpy()
    size = np.maximum(np.abs(expected_values), least * np.median(np.abs(expected_values)))
    return float((np.abs(found - expected_values) / size.clip(1e-12)).max())


@pytest.mark.parametrize(("name", "shape", "fair"), [*PLAIN, *FAIR])
def test_a_file_scores_as_its_detector(name: str, shape: tuple[int, ...], fair: bool, loaded) -> None:
    if registry.find("detector", name).needs_context:
        with pytest.raises(InputError, match="the scene or graph around it"):
            loaded(name, shape, fair)
        return
    if reason := registry.find("detector", name).not_exported:
        with pytest.raises(InputError, match=f"{name} cannot be exported: {reason}"):
            loaded(name, shape, fair)
        return
    detector, model = fitted(name, shape, fair), loaded(name, shape, fair)
    assert model.sample_shape == shape
    for count in (1, 7, 300):
        samples = asked(name, shape, count)
        expected = inference.score(detector, Data(samples, [str(i) for i in range(count)], modality=detector.modality))
        found = model.score(samples.numpy())
        assert found.dtype == np.float32
        # Local scores count in deviations, and are about nought for what is usual.
        assert apart(found, expected, 1.0 if fair else 0.0 if name in CLOSED else 0.01) < 1e-4
        assert np.array_equal(model.flagged(samples.numpy()), found > 1.0)
    few = asked(name, shape, 9)
    if not model.has_maps:
        gradients = any(getattr(part, "maps_are_gradients", False) for part in detector.modules())
        assert not detector.has_maps or gradients
        return
    shown = np.stack(
        list(score_maps.of_data(detector, Data(few, [str(i) for i in range(9)], modality=detector.modality), SMOOTHING))
    )
    found = model.maps(few.numpy())
    assert found.shape == shown.shape
    assert np.abs(found - shown).max() <= 1e-4 * np.abs(shown).max()


def test_an_image_of_several_tiles_is_exported(tmp_path) -> None:
    case = Case(lambda: Tiles(tile=16), (1, 32, 32))
    detector = case.fit(case.data(), epochs=1)
    kept = fingerprint.of(detector, fingerprint.choose(detector, case.data()))
    path = tmp_path / "tiles.onnx"
    path.write_bytes(to_onnx(detector, {"detector": "tiles", "threshold": 1.0, "smoothing": SMOOTHING}, kept))
    fresh = case.data(9, seed=5)
    model = tailwise_runtime.load(path)
    assert apart(model.score(fresh.samples.numpy()), inference.score(detector, fresh)) < 1e-4
    shown = np.stack(list(score_maps.of_data(detector, fresh, SMOOTHING)))
    assert np.abs(model.maps(fresh.samples.numpy()) - shown).max() <= 1e-4 * np.abs(shown).max()


def test_elimination_solves_what_numpy_solves() -> None:
    """The solver of the graph, run by another runtime, against an independent library."""
    onnxscript = pytest.importorskip("onnxscript")
    onnx = pytest.importorskip("onnx")

    class Solve(torch.nn.Module):
        def forward(self, matrices: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
            return export_ops.solve(matrices, right)

    assert onnxscript is not None
    generator = torch.Generator().manual_seed(0)
    roots = torch.randn(5, 6, 6, generator=generator, dtype=torch.float64)
    matrices, right = roots @ roots.transpose(1, 2) + torch.eye(6), torch.randn(5, 6, generator=generator).double()
    with quiet():
        program = torch.onnx.export(
            Solve(), (matrices, right), dynamo=True, verbose=False, opset_version=18,
            custom_translation_table={torch.ops.tailwise.solve.default: _solved},
        )  # fmt: skip
    evaluator = onnx.reference.ReferenceEvaluator(program.model_proto)
    names = [value.name for value in program.model_proto.graph.input]
    (found,) = evaluator.run(None, dict(zip(names, (matrices.numpy(), right.numpy()), strict=True)))
    assert found == pytest.approx(np.linalg.solve(matrices.numpy(), right.numpy()[..., None])[..., 0], rel=1e-9)


def test_equal_neighbours_have_one_order() -> None:
    values = torch.tensor([[2.0, 1.0, 2.0, 1.0, 0.5]])
    assert export_ops.smallest(values, 4)[1].tolist() == [[4, 1, 3, 0]]


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Path:
    """A run of a table, with local scores."""
    folder = tmp_path_factory.mktemp("runs")
    generator = np.random.default_rng(0)
    values = generator.normal(size=(120, 5)) + 4 * generator.integers(0, 2, size=(120, 1))
    pd.DataFrame(values, columns=list("abcde")).to_csv(folder / "table.csv", index=False)
    command = ["fit", str(folder / "table.csv"), "--out", str(folder / "run"), "--detector", "gaussian"]
    command += ["--scores", repr(RULE)]
    assert run(command) == 0
    return folder / "run"


@pytest.fixture(scope="session")
def exported(finished: Path) -> Path:
    file = finished.with_name("model.onnx")
    assert run(["export", str(finished), "--out", str(file)]) == 0
    return file


def test_a_run_keeps_sixteen_scores_and_is_verified(finished: Path, capsys) -> None:
    kept = store.open_run(finished).fingerprint()
    assert kept is not None
    assert kept.samples.shape == (16, 5)
    table = store.open_run(finished).scores().set_index("sample")["score"]
    trained = pd.read_csv(finished.with_name("table.csv")).to_numpy(np.float32)
    for sample, score in zip(kept.samples.numpy(), kept.scores.tolist(), strict=True):
        (row,) = np.flatnonzero((trained == sample).all(1))
        assert score == pytest.approx(table.iloc[row], abs=1e-4)
    assert run(["verify", str(finished)]) == 0
    assert "the 16 scores of the fit" in capsys.readouterr().out


def test_an_exported_run_is_verified_and_scores_on_the_command_line(finished: Path, exported: Path, tmp_path) -> None:
    from tailwise_runtime.__main__ import main

    assert run(["verify", str(finished), str(exported)]) == 0
    model = tailwise_runtime.load(exported)
    assert model.features == tuple("abcde")
    assert model.threshold == store.open_run(finished).settings.threshold
    out = tmp_path / "scores.csv"
    assert main([str(exported), str(finished.with_name("table.csv")), "--out", str(out)]) == 0
    assert run(["score", str(finished), str(finished.with_name("table.csv")), "--out", str(tmp_path / "s.csv")]) == 0
    found, expected = pd.read_csv(out), pd.read_csv(tmp_path / "s.csv")
    assert found["score"].to_numpy() == pytest.approx(expected["score"].to_numpy(), rel=1e-4, abs=1e-5)
    assert found["flagged"].tolist() == expected["flagged"].tolist()


@pytest.mark.filterwarnings("default")
def test_thresholds_of_kinds_are_named_where_a_file_cannot_hold_them(finished: Path, tmp_path, capsys) -> None:
    command = ["fit", str(finished.with_name("table.csv")), "--out", str(tmp_path / "run"), "--detector", "gaussian"]
    assert run([*command, "--per-cluster", "--cross", "0"]) == 0
    capsys.readouterr()
    assert run(["export", str(tmp_path / "run"), "--out", str(tmp_path / "kinds.onnx")]) == 0
    assert "flags above one threshold" in capsys.readouterr().err
    rows = store.open_run(tmp_path / "run").settings.thresholds
    held = tailwise_runtime.load(tmp_path / "kinds.onnx").facts["thresholds"]
    assert held == {str(row["kind"]): row["threshold"] for row in rows}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"a,b,c,d,e\n1,2,,4,5\n", "row 0, column c"),
        (b"a,b,c,d,e\n", "has no rows"),
        (b"a,b,c,d\n1,2,3,4\n", "lacks the columns ['e']"),
        ("a,b,c,d,e\n1,2,3,4,5\n".encode("utf-16"), "not text in UTF-8"),
        (b"a,b,c,d,e\n1,2,3,4,5\n1,2,3,4,5,6\n", "row 1"),
        (b"a,b,c,d,e\n1,5,2,3,4,5\n", "as many fields as the header, 5: got 6"),
        (b"a,b,c,d,e,note\n1,2,3,4,5\n", "row 0"),
        (b"a,b,c,d,e\n0,1,2,3,4,\n1,1,2,3,4,5\n", "row 0"),
        (b"a,b,c,d,e,a\n1,2,3,4,5,6\n", "two columns called 'a'"),
        (b"a,b,c,d,e, a\n1,2,3,4,5,6\n", "two columns called 'a'"),
        (b'a,b,c,d,e,note\n1,2,3,4,5,"good\n1,2,3,4,5,good\n', "cannot be read as CSV"),
        (b"a,b,c,d,e\n1,2,3,4,1_5\n", "row 0, column e"),
        (b"a,b,c,d,e\n1,2,3,4,5\n1,nan,3,4,5\n", "row 1, column b"),
        (b"a,b,c,d,e\n1,2,3,4,inf\n", "row 0, column e"),
        (b"a;b;c;d;e\n1,5;2;3;4;5\n", "row 0, column a"),
        (b"a,b,c,d,e\n1;2;3;4;5\n", "as many fields as the header, 5: got 1"),
    ],
)
def test_the_loader_says_what_it_cannot_read(exported: Path, tmp_path, capsys, content: bytes, said: str) -> None:
    from tailwise_runtime.__main__ import main

    (tmp_path / "samples.csv").write_bytes(content)
    assert main([str(exported), str(tmp_path / "samples.csv")]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    "written",
    [
        "a;b;c;d;e\n1;2;3;4;5\n",
        "\ufeffa,b,c,d,e\n1,2,3,4,5\n",
        "a, b, c, d, e\n1, 2, 3, 4, 5\n",
        "a,b,c,d,e\r\n1,2,3,4,5\r\n\r\n",
        "a,b,c,d,e\n1,2,3,4,5,\n",
        "a,b,c,d,e,\n1,2,3,4,5\n",
        ',e,d,c,b,a,\n0,5,4,3,2,1,"x, y"\n',
        'note,a,b,c,d,e\n"wide, and\nlong", 1,2,3,4,5\n',
    ],
)
def test_the_loader_reads_tables_as_programs_write_them(exported: Path, tmp_path, capsys, written: str) -> None:
    from tailwise_runtime.__main__ import main

    shown = []
    for text in ("a,b,c,d,e\n1,2,3,4,5\n", written):
        (tmp_path / "samples.csv").write_text(text, encoding="utf-8", newline="")
        assert main([str(exported), str(tmp_path / "samples.csv")]) == 0
        shown.append(capsys.readouterr().out)
    assert shown[0] == shown[1]


@pytest.mark.parametrize("fitted", ["found", "asked"])
def test_the_loader_reads_numbers_with_the_marks_of_the_fit(tmp_path, capsys, fitted: str) -> None:
    from tailwise_runtime.__main__ import main

    values = np.random.default_rng(0).normal([1100, 45], [60, 3], (60, 2))
    rows = "".join(f"{force:,.1f};{angle:.1f}\n" for force, angle in values).translate(str.maketrans(",.", ".,"))
    (tmp_path / "old.csv").write_text("force;angle\n" + rows)
    fit = ["fit", str(tmp_path / "old.csv"), "--detector", "gaussian", "--out", str(tmp_path / "run")]
    assert run(fit + ["--decimal", ",", "--thousands", "."] * (fitted == "asked")) == 0
    assert run(["export", str(tmp_path / "run"), "--out", str(tmp_path / "model.onnx")]) == 0
    capsys.readouterr()
    shown = []
    for text in ("force,angle\n1103.0,45\n987,47.125\n", "force;angle\n1.103;45\n987;47,125\n"):
        (tmp_path / "new.csv").write_text(text)
        assert main([str(tmp_path / "model.onnx"), str(tmp_path / "new.csv")]) == 0
        shown.append(capsys.readouterr().out)
    assert shown[0] == shown[1]


def test_the_loader_refuses_words(exported: Path, tmp_path, capsys) -> None:
    from tailwise_runtime.__main__ import main

    np.save(tmp_path / "words.npy", np.array([["a"] * 5]))
    assert main([str(exported), str(tmp_path / "words.npy")]) == 2
    assert "not numbers" in capsys.readouterr().err


def tampered(exported: Path, path: Path, factor: float) -> Path:
    """The file with its scores multiplied."""
    onnx = pytest.importorskip("onnx")
    model = onnx.load(exported)
    (last,) = (node for node in model.graph.node if "score" in node.output)
    for node in model.graph.node:
        for names in (node.input, node.output):
            names[:] = ["honest" if name == "score" else name for name in names]
    assert list(last.output) == ["honest"]
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(factor, np.float32), "factor"))
    model.graph.node.append(onnx.helper.make_node("Mul", ["honest", "factor"], ["score"]))
    onnx.save(model, path)
    return path


def test_other_scores_are_noticed(finished: Path, exported: Path, tmp_path, capsys) -> None:
    worse = tampered(exported, tmp_path / "worse.onnx", 1.001)
    capsys.readouterr()
    assert run(["verify", str(finished), str(worse)]) == 1
    shown = capsys.readouterr().out
    assert "difference" in shown
    assert "16 scores otherwise" in shown
    with pytest.raises(tailwise_runtime.ModelError, match="other scores here"):
        tailwise_runtime.load(worse)
    assert tailwise_runtime.load(worse, check=False).verify() == pytest.approx(0.001, rel=0.05)
    # A tenth of what is allowed passes.
    assert run(["verify", str(finished), str(tampered(exported, tmp_path / "same.onnx", 1.00001))]) == 0


def test_a_run_that_scores_otherwise_says_so(finished: Path, monkeypatch) -> None:
    honest = inference.score
    monkeypatch.setattr(inference, "score", lambda *given: 1.01 * honest(*given))
    with pytest.warns(UserWarning, match=r"by up to 1 % \(made with tailwise"):
        store.open_run(finished).detector()
    assert run(["verify", str(finished)]) == 1


def test_a_run_without_fingerprint_says_so(finished: Path, tmp_path, capsys) -> None:
    old = tmp_path / "old"
    old.mkdir()
    for name in (store.MODEL, store.SCORES, store.HISTORY, store.REPORT_DATA, store.REPORT_PAGE):
        (old / name).write_bytes((finished / name).read_bytes())
    settings = json.loads((finished / store.SETTINGS).read_text())
    del settings["digests"][store.FINGERPRINT]
    settings["seal"] = store.seal(settings)
    (old / store.SETTINGS).write_text(json.dumps(settings))
    assert run(["verify", str(old)]) == 2
    assert "before runs had fingerprints" in capsys.readouterr().err
    store.open_run(old).detector()


def test_a_changed_fingerprint_is_refused(finished: Path, tmp_path) -> None:
    changed = tmp_path / "changed"
    changed.mkdir()
    for path in finished.iterdir():
        (changed / path.name).write_bytes(path.read_bytes())
    (changed / store.FINGERPRINT).write_bytes((finished / store.MODEL).read_bytes())
    with pytest.raises(InputError, match="was changed after the fit"):
        store.open_run(changed).detector()


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x08\x08"])
def test_a_broken_file_is_refused(content: bytes, finished: Path, tmp_path) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(content)
    assert run(["verify", str(finished), str(path)]) == 2
    with pytest.raises(tailwise_runtime.ModelError):
        tailwise_runtime.load(path)


def test_the_loader_refuses_other_samples(exported: Path, tmp_path) -> None:
    model = tailwise_runtime.load(exported)
    assert len(model.score(np.zeros((0, 5)))) == 0
    for samples in (np.zeros(5), np.zeros((2, 4)), np.full((2, 5), np.nan)):
        with pytest.raises(tailwise_runtime.ModelError):
            model.score(samples)
    with pytest.raises(tailwise_runtime.ModelError, match="without maps"):
        model.maps(np.zeros((2, 5)))
    with pytest.raises(tailwise_runtime.ModelError, match="no file"):
        tailwise_runtime.load(tmp_path / "none.onnx")


def test_nothing_is_written_where_an_export_fails(finished: Path, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(integrations_onnx, "TOLERANCE", -1.0)
    monkeypatch.setattr(integrations_onnx.onnx_graph, "traced", lambda *_: pytest.importorskip("onnx").ModelProto())
    assert run(["export", str(finished), "--out", str(tmp_path / "m.onnx")]) == 2
    assert run(["export", str(finished), "--out", str(tmp_path / "m.pt")]) == 2
    assert run(["export", str(finished), "--out", str(tmp_path / "m.onnx"), "--to", "torchscript"]) == 2
    assert list(tmp_path.iterdir()) == []


def test_the_loader_needs_no_torch(exported: Path) -> None:
    code = (
        "import sys\n"
        "for name in ('torch', 'tailwise', 'scipy', 'pandas', 'onnx', 'onnxscript'): sys.modules[name] = None\n"
        f"sys.path.insert(0, {str(RUNTIME / 'src')!r})\n"
        "import numpy, tailwise_runtime\n"
        f"print(len(tailwise_runtime.load({str(exported)!r}).score(numpy.zeros((3, 5)))))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "3", done.stderr
    project = (RUNTIME / "pyproject.toml").read_text(encoding="utf-8")
    assert 'dependencies = ["numpy>=1.26", "onnxruntime>=1.17"]' in project


def test_the_loader_has_the_version_of_the_package() -> None:
    assert tailwise_runtime.__version__ == tailwise.__version__


@pytest.mark.parametrize(
    ("side", "kind", "count"), [(8, torch.float32, 16), (400, torch.float16, 16), (2_000, torch.float16, 1)]
)
def test_large_samples_are_kept_smaller(side: int, kind: torch.dtype, count: int) -> None:
    shape = (1, side, side)
    samples = torch.rand(20, *shape, generator=torch.Generator().manual_seed(0))
    kept = fingerprint.choose(fitted("gaussian", (12,), False), Data(samples, [str(i) for i in range(20)]))
    assert kept is not None
    assert (kept.dtype, len(kept)) == (kind, count)


def forged(source: Path, target: Path, change) -> Path:
    """The file with other metadata: `change` is given the facts and gives what is written in their place."""
    onnx = pytest.importorskip("onnx")
    model = onnx.load(source)
    facts = json.loads(model.metadata_props[0].value)
    text = change(facts)
    del model.metadata_props[:]
    if text is not None:
        model.metadata_props.add(key="tailwise", value=text if isinstance(text, str) else json.dumps(text))
    target.write_bytes(model.SerializeToString())
    return target


FACTS = ("format", "sample_shape", "features", "threshold", "map_threshold", "batch_size", "tolerance", "detector",
         "versions", "fingerprint_samples", "fingerprint_scores")  # fmt: skip
ODD = (None, True, -1, 0, 1e400, 10**30, 10**400, "text", "", [], [[]], [None], [-1], [10**12], {}, {"type": "<f4"})


def said_in_two_lines(capsys) -> tuple[str, str]:
    """The error and the hint: all that is said."""
    error, hint = capsys.readouterr().err.splitlines()
    assert error.startswith("error: ")
    assert hint.startswith("hint: ")
    assert len(hint) > 10
    return error, hint


@pytest.mark.parametrize("name", FACTS)
def test_forged_facts_of_an_export_are_refused(name: str, exported: Path, tmp_path: Path, capsys) -> None:
    """Whatever stands in the place of a fact, or nothing: status 2 with error and hint, or the scores of the file."""
    from tailwise_runtime.__main__ import main

    np.save(tmp_path / "samples.npy", np.zeros((3, 5)))
    plain = tailwise_runtime.load(exported).score(np.zeros((3, 5)))
    refused = 0

    def change(facts: dict, value: object) -> dict:
        return {key: facts[key] for key in facts if key != name} if value == "missing" else facts | {name: value}

    for number, value in enumerate((*ODD, "missing")):
        file = forged(exported, tmp_path / f"{number}.onnx", partial(change, value=value))
        if main([str(file), str(tmp_path / "samples.npy")]) == 2:
            said_in_two_lines(capsys)
            refused += 1
        else:
            rows = capsys.readouterr().out.splitlines()[1:]
            assert [float(row.split(",")[1]) for row in rows] == pytest.approx(plain.tolist())
    assert refused >= (
        10 if name in ("threshold", "detector", "features", "versions", "map_threshold") else len(ODD) - 1
    )


@pytest.mark.parametrize(
    "text", ["no JSON", "[]", "3", "null", '"text"', "[" * 100_000, "{}", '{"format": 99, "tailwise": 7}', "\x00", None]
)
def test_metadata_that_are_no_facts(text, exported: Path, tmp_path: Path, capsys) -> None:
    from tailwise_runtime.__main__ import main

    np.save(tmp_path / "samples.npy", np.zeros((3, 5)))
    assert main([str(forged(exported, tmp_path / "m.onnx", lambda _: text)), str(tmp_path / "samples.npy")]) == 2
    said_in_two_lines(capsys)


@pytest.mark.parametrize(
    "change",
    [
        {"shape": [16, 6]}, {"shape": [2, 5]}, {"type": "O"}, {"type": "<f4,<f4"}, {"base64": "!"}, {"base64": 7},
        {"shape": [0]}, {"shape": "16"},
    ],
)  # fmt: skip
@pytest.mark.parametrize("which", ["fingerprint_samples", "fingerprint_scores"])
def test_forged_arrays_in_an_export(which: str, change: dict, exported: Path, tmp_path: Path, capsys) -> None:
    from tailwise_runtime.__main__ import main

    np.save(tmp_path / "samples.npy", np.zeros((3, 5)))
    file = forged(exported, tmp_path / "m.onnx", lambda facts: facts | {which: facts[which] | change})
    assert main([str(file), str(tmp_path / "samples.npy")]) == 2
    said_in_two_lines(capsys)


@pytest.mark.parametrize("graph", ["constant", "text", "fails", "wide"])
def test_a_graph_that_gives_something_else(graph: str, finished: Path, exported: Path, tmp_path: Path, capsys) -> None:
    """The facts of an export on a graph of another sort."""
    from tailwise_runtime.__main__ import main

    onnx = pytest.importorskip("onnx")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    given = helper.make_tensor_value_info("samples", kind, ["n", 5])
    nodes = {
        "constant": [helper.make_node("Constant", [], ["score"], value_float=1.0)],
        "text": [helper.make_node("Constant", [], ["score"], value_strings=["a"] * 3)],
        "fails": [helper.make_node("Constant", [], ["seven"], value_ints=[7]),
                  helper.make_node("Reshape", ["samples", "seven"], ["score"])],
        "wide": [helper.make_node("Identity", ["samples"], ["score"])],
    }[graph]  # fmt: skip
    said = onnx.ValueInfoProto(name="score")
    said.type.tensor_type.elem_type = onnx.TensorProto.STRING if graph == "text" else kind
    made = helper.make_model(
        helper.make_graph(nodes, "forged", [given], [said]), opset_imports=[helper.make_opsetid("", 18)], ir_version=8
    )
    made.metadata_props.extend(onnx.load(exported).metadata_props)
    (tmp_path / "m.onnx").write_bytes(made.SerializeToString())
    np.save(tmp_path / "samples.npy", np.zeros((3, 5)))
    assert main([str(tmp_path / "m.onnx"), str(tmp_path / "samples.npy")]) == 2
    said_in_two_lines(capsys)
    assert run(["verify", str(finished), str(tmp_path / "m.onnx")]) == 2
    said_in_two_lines(capsys)


def test_the_loader_reads_regular_files_and_writes_through_no_link(exported: Path, tmp_path: Path, capsys) -> None:
    from tailwise_runtime.__main__ import main

    samples, pipe, notes = tmp_path / "samples.npy", tmp_path / "pipe.npy", tmp_path / "notes.txt"
    np.save(samples, np.zeros((3, 5)))
    os.mkfifo(pipe)
    os.mkfifo(tmp_path / "pipe.csv")
    np.savez(tmp_path / "two.npz", a=np.zeros(3), b=np.zeros(3))
    for model, data in ((exported, pipe), (exported, tmp_path / "pipe.csv"), (exported, tmp_path), (pipe, samples),
                        (exported, tmp_path / "two.npz"), (exported, tmp_path / "none.npy"),
                        (exported, Path("/dev/null"))):  # fmt: skip
        assert main([str(model), str(data)]) == 2
        said_in_two_lines(capsys)
    notes.write_text("mine")
    (tmp_path / "scores.csv").symlink_to(notes)
    assert main([str(exported), str(samples), "--out", str(tmp_path / "scores.csv")]) == 0
    assert notes.read_text() == "mine"
    assert (tmp_path / "scores.csv").read_text().startswith("sample,score")

"""What strangers hand over (runs, networks, exports, cached features) neither runs, nor fetches, nor crashes."""

import contextlib
import dataclasses
import hashlib
import importlib.util
import json
import os
import pickle
import shutil
import socket
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from tailwise.backbones import cache, networks
from tailwise.benchmark import suites
from tailwise.core.registry import parse_one
from tailwise.errors import InputError
from tailwise.integrations import onnx as integrations_onnx
from tailwise.runs import files, store
from tailwise.runs.settings import Settings
from tailwise.sources import image_decoding
from tailwise.sources.auto import open_source
from tailwise.sources.cube import Cube
from tailwise.sources.images import ImageFolder
from tailwise.workflows import drift, pages, reviews, score, thresholds, update, weigh
from tailwise.workflows.fit import fit_run
from tailwise.workflows.request import Request

# What is no plain name of a model: hubs in timm's spellings and others, paths of any system, addresses, other schemes.
NO_NAMES = [
    "timm:local-dir:net", "timm:hf-hub:somebody/net", "timm:hf_hub:somebody/net", "timm:HF-HUB:a", "timm:file:///net",
    "timm:https://host/net", "timm:../net", "timm:net\\net", "timm:/net", "timm:timm:resnet18", "timm:", "timm: net",
    "timm:résnet", "timm:.hidden", "timm:a\nb", "timm:" + "a" * 200, "mobilenet-v2:weights.pth", "hf_hub:somebody/net",
    "http://host/net", "../net", "C:\\net", "~/net", "", "net.pth/", "a\0b",
]  # fmt: skip


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What any loader is asked for."""
    names: list[str] = []
    for module in ("timm", "onnxruntime"):
        stand_in = ModuleType(module)
        stand_in.__spec__ = ModuleSpec(module, None)
        stand_in.__dict__.update(
            dict.fromkeys(("create_model", "InferenceSession"), lambda *a, **_: names.append(str(a)))
        )
        monkeypatch.setitem(sys.modules, module, stand_in)
    monkeypatch.setattr(torch, "load", lambda *given, **_: names.append(str(given)))
    networks._timm.cache_clear()
    return names


@pytest.mark.parametrize("name", NO_NAMES)
def test_only_plain_names_of_models_reach_a_loader(name: str, asked: list[str]) -> None:
    for opens in (networks.backbone, networks.identity, networks.check_name):
        with pytest.raises(InputError, match="no plain name of a backbone") as caught:
            opens(name)
        assert "timm:resnet18" in caught.value.hint
    with pytest.raises(InputError, match="no plain name of a backbone"):
        parse_one(f"StudentTeacher(teacher={name!r})", "detector")
    assert asked == []


@pytest.mark.parametrize(
    "name", ["efficientnet-lite0", "timm:resnet18.a1_in1k", "timm:vit_small_patch14_dinov2.lvd142m"]
)
def test_plain_names_are_names(name: str) -> None:
    networks.check_name(name)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "photos"
    folder.mkdir()
    generator = np.random.default_rng(0)
    for number in range(24):
        Image.fromarray(generator.integers(0, 99, (16, 16, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def of_pixels(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> store.Run:
    source = ImageFolder(str(photos), size=16, channels=1)
    return fit_run(Request(source, detector="gaussian", scores="own"), tmp_path_factory.mktemp("runs") / "run")


def sealed(run: Path, **changes: object) -> None:
    """Change the settings of a run and seal them again, as whoever hands it over can do."""
    settings = {**json.loads((run / store.SETTINGS).read_text()), **changes}
    settings["seal"] = store.seal(settings)
    (run / store.SETTINGS).write_text(json.dumps(settings))


@pytest.mark.parametrize("name", [*NO_NAMES, "net.onnx", "/net.onnx", "../backbone.onnx", "backbone.onnx"])
def test_a_run_names_no_file_and_no_hub(
    of_pixels: store.Run, photos: Path, tmp_path: Path, asked: list[str], name: str
) -> None:
    run = tmp_path / "run"
    shutil.copytree(of_pixels.path, run)
    for beside in ("net.onnx", "weights.pth"):
        (run / beside).write_bytes(b"cos\nsystem\n")
    sealed(run, source=repr(ImageFolder(str(photos), read=name)))
    for command in (lambda: score.score_data(run, str(photos)), lambda: update_of(run, photos, tmp_path / "new")):
        with pytest.raises(InputError, match=r"no plain name of a backbone|has lost its backbone\.onnx"):
            command()
    assert asked == []


def update_of(run: Path, data: Path, out: Path) -> store.Run:
    return update.update_run(run, str(data), out, 0, False, "")


@pytest.fixture
def net(tmp_path: Path) -> Path:
    """A network in one ONNX file: 4 maps of 3 channels by a convolution."""
    onnx = pytest.importorskip("onnx", reason="needs onnx (tailwise[onnx])")
    pytest.importorskip("onnxruntime", reason="needs onnxruntime (tailwise[onnx])")
    weights = onnx.numpy_helper.from_array(np.random.default_rng(1).normal(size=(4, 3, 1, 1)).astype(np.float32), "w")
    given = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 3, "height", "width"])
    made = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1, 4, "height", "width"])
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Conv", ["x", "w"], ["y"])], "net", [given], [made], [weights]
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, tmp_path / "net.onnx")
    return tmp_path / "net.onnx"


def test_a_run_keeps_the_file_that_reads_its_images(net: Path, photos: Path, tmp_path: Path) -> None:
    """It scores wherever it goes, with the network that it was fitted with, and names no path."""
    source = ImageFolder(str(photos), read=str(net), layers=(0,), size=32)
    fitted = fit_run(Request(source, detector="patch-memory", scores="own"), tmp_path / "run")
    expected = score.score_data(fitted.path, str(photos))["score"]
    net.unlink()
    moved = tmp_path / "elsewhere"
    fitted.path.rename(moved)
    assert "read='backbone.onnx'" in store.open_run(moved).settings.source
    assert np.allclose(score.score_data(moved, str(photos))["score"], expected)
    updated = update_of(moved, photos, tmp_path / "updated")
    assert str(moved) not in (updated.path / store.SETTINGS).read_text()
    assert len(score.score_data(updated.path, str(photos))) == 24
    with open(moved / files.BACKBONE, "ab") as file:
        file.write(b"\0")
    with pytest.raises(InputError, match=r"backbone\.onnx was changed after the fit"):
        score.score_data(moved, str(photos))


@pytest.mark.parametrize("where", ["initializer", "sparse", "attribute", "subgraph", "function"])
def test_weights_that_lie_outside_are_refused_wherever_they_hide(net: Path, where: str) -> None:
    onnx = pytest.importorskip("onnx")
    model = onnx.load(net)
    outside = onnx.TensorProto(name="w", data_type=onnx.TensorProto.FLOAT, dims=[4, 3, 1, 1])
    outside.data_location = onnx.TensorProto.EXTERNAL
    outside.external_data.add(key="location", value="../../private.bin")
    node = model.graph.node[0]
    if where == "initializer":
        model.graph.initializer[0].CopyFrom(outside)
    elif where == "sparse":
        model.graph.sparse_initializer.add().values.CopyFrom(outside)
    elif where == "attribute":
        node.attribute.add(name="value", type=onnx.AttributeProto.TENSOR).t.CopyFrom(outside)
    elif where == "subgraph":
        node.attribute.add(name="body", type=onnx.AttributeProto.GRAPH).g.initializer.add().CopyFrom(outside)
    else:
        inner = model.functions.add(name="f").node.add(op_type="Constant")
        inner.attribute.add(name="value", type=onnx.AttributeProto.TENSORS).tensors.add().CopyFrom(outside)
    net.write_bytes(model.SerializeToString())
    for opens in (networks.backbone, networks.identity):
        with pytest.raises(InputError, match=r"keeps its weights in another file, '\.\./\.\./private\.bin'") as caught:
            opens(str(net))
        assert "one file" in caught.value.hint


def test_features_are_of_all_that_they_depend_on(net: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file's content, the number of threads, the versions that compute, and how images are decoded."""

    def key() -> str:
        reading = f"file at 32, {image_decoding.described()}"
        return cache.Extractor(str(net), (), reading, None).key(b"an image")

    keys = [key()]
    net.write_bytes(net.read_bytes() + b"\x10\x08")  # the same fields once more
    keys.append(key())
    threads = torch.get_num_threads()
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads + 1)
    keys.append(key())
    monkeypatch.setattr(networks.importlib.metadata, "version", lambda package: f"{package} 99")
    keys.append(key())
    monkeypatch.setattr(image_decoding, "_VERSION", 99)
    keys.append(key())
    monkeypatch.setattr(image_decoding.PIL, "__version__", "99")
    keys.append(key())
    assert len(set(keys)) == len(keys)


def entry(folder: Path) -> Path:
    """An entry of the cache in this folder."""
    return next(path for path in sorted(folder.rglob("*")) if path.is_file())


def forged_entry(path: Path, head: bytes, values: bytes) -> None:
    """What is no such array, under a digest that is right."""
    content = head + b"\n" + values
    path.write_bytes(hashlib.blake2b(content, digest_size=16).digest() + content)


@pytest.mark.parametrize(
    ("head", "values"),
    [
        (b"O 2", bytes(16)), (b"<f4,<f4 2", bytes(16)), (b"<f4 99999999999999", bytes(16)), (b"<f4 -1", b""),
        (b"", b""), (b"\xff\xfe", b""), (b"<f4", b"1"), (b"<f4 4", np.full(4, np.nan, "<f4").tobytes()),
        (b"<i4 4", bytes(16)), (b"<f4 2 2", bytes(16)), (b"V8 1", bytes(8)), (b"<M8 1", bytes(8)), (b"<f4 x", bytes(4)),
    ],
)  # fmt: skip
def test_forged_entries_of_the_cache_are_made_again(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, head: bytes, values: bytes
) -> None:
    monkeypatch.setenv("TAILWISE_CACHE", str(tmp_path))
    monkeypatch.setitem(networks._ADDED, "mine", (torch.nn.AvgPool2d(4), (0.0,) * 3, (1.0,) * 3))
    source = ImageFolder(str(photos), read="mine", size=16)
    features, preview = source.load().train.samples, source.preview("0.png")
    for folder in ("features", "previews"):
        forged_entry(entry(tmp_path / folder), head, values)
    assert torch.equal(source.load().train.samples, features)
    assert torch.equal(source.preview("0.png"), preview)


def test_a_cache_that_somebody_else_wrote_into_is_told_of(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Features of another length, under a right digest, cannot be told from the image's own."""
    monkeypatch.setenv("TAILWISE_CACHE", str(tmp_path))
    monkeypatch.setitem(networks._ADDED, "mine", (torch.nn.AvgPool2d(4), (0.0,) * 3, (1.0,) * 3))
    source = ImageFolder(str(photos), read="mine", size=16)
    source.load()
    forged_entry(entry(tmp_path / "features"), b"<f4 5", bytes(20))
    with pytest.raises(InputError, match=r"features of .* are \[\d\]") as caught:
        source.load()
    assert "delete the folder" in caught.value.hint


def plant(path: Path, kind: str) -> None:
    """Something at a path that is no regular file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        opened = socket.socket(socket.AF_UNIX)
        here = os.getcwd()
        os.chdir(path.parent)  # a socket's path may have 107 bytes only
        opened.bind(path.name)
        os.chdir(here)
        opened.close()
    else:
        path.symlink_to("/dev/zero")


NAMES = ["t.csv", "t.tsv", "t.txt", "t.parquet", "t.xlsx", "t.npy", "t.npz", "c.mat", "c.hdr", "c.tif", "i.png",
         "i.jp2", "train-images-idx3-ubyte", "train-images-idx3-ubyte.gz"]  # fmt: skip


@pytest.mark.parametrize("kind", ["pipe", "socket", "device"])
def test_only_regular_files_are_data(kind: str, tmp_path: Path) -> None:
    """As the data itself, and as one of a folder of it; nothing waits for what never comes."""
    for name in NAMES:
        plant(tmp_path / name / name, kind)
        for given in (tmp_path / name / name, tmp_path / name):
            with pytest.raises(InputError) as caught:
                open_source(str(given)).load()
            assert caught.value.hint


@pytest.mark.parametrize("kind", ["pipe", "socket", "device"])
def test_what_is_no_regular_file_beside_data_is_left_out_with_a_word(
    kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cubes = tmp_path / "cubes"
    cubes.mkdir()
    np.save(cubes / "a.npy", np.random.default_rng(0).random((4, 5, 6)))
    plant(cubes / "b.npy", kind)
    plant(cubes / "sub" / "c.mat", kind)
    (cubes / "out.npy").symlink_to(tmp_path / "elsewhere.npy")
    np.save(tmp_path / "elsewhere.npy", np.ones((4, 5, 6)))
    assert len(Cube(str(cubes)).load().train) == 20
    assert "b.npy" in caplog.text
    assert "sub/c.mat" in caplog.text
    assert "out.npy" in caplog.text


@pytest.mark.parametrize("kind", ["pipe", "socket", "device"])
def test_side_files_are_regular_files_too(kind: str, photos: Path, tmp_path: Path) -> None:
    """Masks, references, groups, lists of anomalies, sheets, scores, suites, exports, stores and the files of a run."""
    cube = tmp_path / "cube.npy"
    np.save(cube, np.random.default_rng(0).random((4, 5, 6)))
    odd = {
        name: tmp_path / "odd" / name for name in ("m.npy", "m.png", "g.csv", "l.txt", "s.parquet", "s.toml", "e.onnx")
    }
    for path in odd.values():
        plant(path, kind)
    plant(tmp_path / "store.zarr" / "zarr.json", kind)
    plant(tmp_path / "run" / store.SETTINGS, kind)
    calls = [
        lambda: Cube(str(cube), labels=str(odd["m.npy"])).load(),
        lambda: Cube(str(cube), labels=str(odd["m.png"])).load(),
        lambda: Cube(str(cube), white=str(odd["m.npy"])).load(),
        lambda: Cube(str(cube), dark=str(odd["m.npy"])).load(),
        lambda: Cube(str(tmp_path / "store.zarr")).load(),
        lambda: ImageFolder(str(photos), groups=str(odd["g.csv"])).load(),
        lambda: reviews.read(odd["g.csv"]),
        lambda: reviews._listed(ImageFolder(str(photos)).load_all(), odd["l.txt"]),
        lambda: weigh.weigh_table(odd["g.csv"], None, "Importance()"),
        lambda: weigh.weigh_table(odd["s.parquet"], None, "Importance()"),
        lambda: suites.read_suite(odd["s.toml"]),
        lambda: networks.backbone(str(odd["e.onnx"])),
        lambda: integrations_onnx.session(odd["e.onnx"]),
        lambda: files.read_json(tmp_path / "run" / store.SETTINGS),
        lambda: files.read_tensors(tmp_path / "run" / store.SETTINGS),
        lambda: store.open_run(tmp_path / "run"),
    ]
    if importlib.util.find_spec("zarr") is None:
        del calls[4]
    for call in calls:
        with pytest.raises(InputError):
            call()
    plant(tmp_path / "cube_mask.npy", kind)
    with pytest.raises(InputError, match="a file was needed"):
        Cube(str(cube)).load()


@pytest.mark.parametrize("where", ["compressor", "filter", "object"])
def test_a_store_that_would_be_unpickled_is_refused(where: str, tmp_path: Path) -> None:
    pytest.importorskip("zarr", reason="needs zarr (tailwise[zarr])")

    class Harmful:
        def __reduce__(self) -> tuple:
            return open, (str(tmp_path / "written"), "w")

    array = tmp_path / "c.zarr" / "cube"
    array.mkdir(parents=True)
    (array.parent / ".zgroup").write_text('{"zarr_format": 2}')
    pickled = {"id": "pickle", "protocol": 5}
    facts = {"chunks": [4, 4, 6], "shape": [4, 4, 6], "dtype": "|O" if where == "object" else "<f4", "fill_value": 0,
             "order": "C", "zarr_format": 2, "compressor": pickled if where == "compressor" else None,
             "filters": None if where == "compressor" else [pickled]}  # fmt: skip
    (array / ".zarray").write_text(json.dumps(facts))
    (array / "0.0.0").write_bytes(pickle.dumps(Harmful()))
    with pytest.raises(InputError):
        Cube(str(array.parent)).load()
    assert not (tmp_path / "written").exists()


@pytest.fixture(scope="module")
def of_rows(tmp_path_factory: pytest.TempPathFactory) -> store.Run:
    """A run of a table beside its data."""
    folder = tmp_path_factory.mktemp("rows")
    generator = np.random.default_rng(0)
    frame = pd.DataFrame(generator.normal(size=(60, 3)) + 6 * generator.integers(0, 2, (60, 1)), columns=list("abc"))
    frame.to_csv(folder / "parts.csv", index=False)
    return fit_run(Request(open_source(str(folder / "parts.csv")), detector="gaussian"), folder / "run")


def readers(run: Path, out: Path) -> dict[str, Callable[[], object]]:
    """What the commands do with a run of a table."""
    data = store.open_run(run).settings.source.split("'")[1]
    return {
        "score": lambda: score.score_data(run, data),
        "thresholds": lambda: thresholds.table_of_run(run, None, 1_000),
        "drift": lambda: drift.drift_of(run, data, out / "drift.md"),
        "explain": lambda: pages.explain(run, data, [], 1, False, out / "why.md"),
        "explain weights": lambda: pages.explain(run, None, [], 1, True, None),
        "report": lambda: pages.write_report(run, out / "report.html"),
        "shown": lambda: store.open_run(run)._repr_html_(),
    }


def replaced(run: Path, name: str, content: bytes) -> None:
    """Another file under this name, with its digest in the settings."""
    (run / name).write_bytes(content)
    digests = json.loads((run / store.SETTINGS).read_text())["digests"]
    sealed(run, digests={**digests, name: hashlib.sha256(content).hexdigest()})


def refusals(run: Path, out: Path, names: tuple[str, ...] = ()) -> list[InputError]:
    """What the commands (of these names, or all) that refuse the run say; all others end."""
    said, commands = [], readers(run, out)
    for name in names or commands:
        try:
            commands[name]()
        except InputError as error:
            said.append(error)
    return said


TABLES: dict[str, Callable[[pd.DataFrame], pd.DataFrame]] = {
    "no rows": lambda table: table.iloc[:0],
    "no columns": lambda table: table[[]],
    "fewer rows": lambda table: table.iloc[:7],
    "more rows": lambda table: pd.concat([table, table]),
    "scores of text": lambda table: table.assign(score="high"),
    "no finite score": lambda table: table.assign(score=np.nan, calibration=np.inf),
    "huge scores": lambda table: table.assign(calibration=1e308),
    "clusters of text": lambda table: table.assign(cluster="a"),
    "clusters without end": lambda table: table.assign(cluster=2**62),
    "held out perhaps": lambda table: table.assign(held_out=None),
    "samples of lists": lambda table: table.assign(sample=[[1]] * len(table)),
    "unknown of numbers": lambda table: table.assign(unknown_as_new=2),
}


@pytest.mark.parametrize("change", TABLES)
def test_forged_tables_of_scores_are_refused(of_rows: store.Run, tmp_path: Path, change: str) -> None:
    run = shutil.copytree(of_rows.path, tmp_path / "run")
    table = TABLES[change](pd.read_parquet(run / store.SCORES))
    replaced(run, store.SCORES, table.to_parquet(None, index=False))
    said = refusals(run, tmp_path)
    assert len(said) >= 5
    assert all(error.hint for error in said)
    test = shutil.copytree(of_rows.path, tmp_path / "test")
    replaced(test, store.TEST_SCORES, table.drop(columns="sample", errors="ignore").to_parquet(None, index=False))
    with pytest.raises(InputError) as caught:
        store.open_run(test).test_scores()
    assert caught.value.hint


@pytest.mark.parametrize("column", ["sample", "score", "trained_score", "first_score", "weight", "held_out", "cluster"])
def test_a_table_of_scores_that_lacks_a_column_is_refused(of_rows: store.Run, tmp_path: Path, column: str) -> None:
    run = shutil.copytree(of_rows.path, tmp_path / "run")
    replaced(run, store.SCORES, pd.read_parquet(run / store.SCORES).drop(columns=column).to_parquet(None, index=False))
    with pytest.raises(InputError, match=f"lacks a usable {column}") as caught:
        store.open_run(run).scores()
    assert caught.value.hint
    assert len(refusals(run, tmp_path)) >= 5


TENSORS: dict[str, Callable[[torch.Tensor], torch.Tensor | None]] = {
    "missing": lambda value: None,
    "a scalar": lambda value: torch.tensor(1.0),
    "empty": lambda value: torch.zeros(0),
    "longer": lambda value: torch.cat([value, value]) if value.dim() else torch.zeros(3),
    "deeper": lambda value: value[None],
    "not a number": lambda value: value.double() * torch.nan,
    "huge": lambda value: value.double() * 0 + 1e308,
    "whole": lambda value: value.long() * 0 + 2**62,
    "truth": lambda value: value.bool(),
}


@pytest.mark.parametrize("file", [store.MODEL, store.CLUSTERS, store.FINGERPRINT])
@pytest.mark.parametrize("change", TENSORS)
@pytest.mark.filterwarnings("ignore:.*gives other scores than when it was made", "ignore:The use of .x.T.")
def test_forged_tensors_end_well(of_rows: store.Run, tmp_path: Path, file: str, change: str) -> None:
    """Each tensor in turn holds something else: every command refuses it with a hint, or ends."""
    tensors, refused = files.read_tensors(of_rows.path / file)[0], 0
    for number, name in enumerate(tensors):
        run = shutil.copytree(of_rows.path, tmp_path / str(number))
        forged = {key: value for key, value in tensors.items() if key != name}
        if (value := TENSORS[change](tensors[name])) is not None:
            forged[name] = value.contiguous().clone()
        replaced(run, file, files.tensor_bytes(forged, {}))
        refused += bool(refusals(run, tmp_path, ("score", "drift")))
    assert refused >= 1 or change in ("huge", "whole", "truth", "not a number")


@pytest.mark.parametrize("value", [None, 3, "x", [], {}, [None], {"a": [1]}, -1, True])
def test_forged_reports_end_well(of_rows: store.Run, tmp_path: Path, value: object) -> None:
    run = shutil.copytree(of_rows.path, tmp_path / "run")
    report = json.loads((run / store.REPORT_DATA).read_text())
    for name in report:
        replaced(run, store.REPORT_DATA, json.dumps(report | {name: value}).encode())
        with contextlib.suppress(InputError):
            pages.write_report(run, tmp_path / "report.md")


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(Settings)])
def test_forged_settings_end_well(of_rows: store.Run, tmp_path: Path, name: str) -> None:
    """Every field of every type, each sealed: refused with a hint, or the commands end."""
    odd = [None, True, -1, 10**30, 10**400, 1e308, "", "a\0b", "x" * 9_999, [], [[]], [None], [{}], [-1], {}, {"a": []}]
    for value in odd:
        run = shutil.copytree(of_rows.path, tmp_path / "run", dirs_exist_ok=True)
        sealed(run, **{name: value})
        with contextlib.suppress(InputError):
            store.open_run(run)._repr_html_()


@pytest.mark.parametrize("named", ["../private/secret.tif", "{}/private/secret.tif", "pipe.tif", "secret-link.tif"])
def test_a_tiff_that_names_other_files_as_its_parts_opens_none(named: str, tmp_path: Path) -> None:
    """OME lets a file list planes that lie in others: the file's own are read."""
    tifffile = pytest.importorskip("tifffile", reason="needs tifffile (tailwise[hyperspectral])")
    for folder in ("data", "private"):
        (tmp_path / folder).mkdir()
    secret, own = np.full((6, 8, 9), 7, np.uint16), np.arange(6 * 8 * 9, dtype=np.uint16).reshape(6, 8, 9)
    tifffile.imwrite(tmp_path / "private" / "secret.tif", secret, photometric="minisblack")
    os.mkfifo(tmp_path / "data" / "pipe.tif")
    (tmp_path / "data" / "secret-link.tif").symlink_to(tmp_path / "private" / "secret.tif")
    uuid = "urn:uuid:22222222-2222-2222-2222-222222222222"
    file = f'<UUID FileName="{named.format(tmp_path)}">{uuid}</UUID>'
    planes = "".join(f'<TiffData IFD="{i}" FirstC="{i}" PlaneCount="1">{file}</TiffData>' for i in range(6))
    pixels = (
        '<Pixels ID="P:0" DimensionOrder="XYCZT" Type="uint16" SizeX="9" SizeY="8" SizeC="6" SizeZ="1" SizeT="1">'
        f'<Channel ID="C:0" SamplesPerPixel="1"/>{planes}</Pixels>'
    )
    text = (
        '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" '
        f'UUID="urn:uuid:11111111-1111-1111-1111-111111111111"><Image ID="I:0">{pixels}</Image></OME>'
    )
    cube = tmp_path / "data" / "cube.tif"
    tifffile.imwrite(cube, own, photometric="minisblack", description=text, metadata=None)
    read = Cube(str(cube)).load().train.read(torch.arange(72)).flatten(1)
    assert torch.equal(read, torch.from_numpy(np.moveaxis(own, 0, 2).reshape(72, 6).astype(np.float32)))

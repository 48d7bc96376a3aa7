"""What strangers hand over (runs, networks, exports, cached features) neither runs, nor fetches, nor crashes."""

import json
import shutil
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image

from tailwise.backbones import cache, networks
from tailwise.core.registry import parse_one
from tailwise.errors import InputError
from tailwise.runs import files, store
from tailwise.sources import image_decoding
from tailwise.sources.images import ImageFolder
from tailwise.workflows import score, update
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

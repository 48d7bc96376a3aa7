"""The exported file of a run of pictures takes pictures, and scores each as the run does from the same file."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from tailwise.backbones import networks
from tailwise.cli.main import run
from tailwise.runs import fingerprint, store
from tailwise.sources.image_files import read_picture

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

RUNTIME = Path(__file__).parents[1] / "runtime" / "src"
sys.path.insert(0, str(RUNTIME))
import tailwise_runtime  # noqa: E402
from tailwise_runtime.__main__ import main  # noqa: E402

LITE = "efficientnet-lite0"
NEW = ("new/1.jpg", "new/2.jpg", "new/10.jpg", "new/deep/grey.png", "new/deep/turned.jpg")


def pixels(seed: int, size: tuple[int, int]) -> np.ndarray:
    """A smooth random picture [height, width, 3]."""
    coarse = np.random.default_rng(seed).integers(0, 256, size=(6, 7, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize(size[::-1], Image.Resampling.BICUBIC))


def small_network(path: Path, opset: int) -> Path:
    """Two maps of one image alone, under names that the file's own graph has too."""
    generator, helper, kind = np.random.default_rng(0), onnx.helper, onnx.TensorProto.FLOAT
    weights = [
        onnx.numpy_helper.from_array(generator.normal(size=shape).astype(np.float32), name)
        for name, shape in (("samples", (6, 3, 3, 3)), ("flagged", (5, 6, 3, 3)))
    ]
    one = onnx.numpy_helper.from_array(np.array([1, 6, 24, 24]), "one")  # no other batch than of one image
    nodes = [
        helper.make_node("Conv", ["image", "samples"], ["score"], strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["score"], ["rectified"]),
        helper.make_node("Reshape", ["rectified", "one"], ["map"]),
        helper.make_node("Conv", ["map", "flagged"], ["coarse"], strides=[2, 2], pads=[1, 1, 1, 1]),
    ]
    given = helper.make_tensor_value_info("image", kind, [1, 3, 48, 48])
    made = [helper.make_tensor_value_info("map", kind, [1, 6, 24, 24]),
            helper.make_tensor_value_info("coarse", kind, [1, 5, 12, 12])]  # fmt: skip
    graph = helper.make_graph(nodes, "net", [given], made, [*weights, one])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), path)
    return path


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty pictures to learn from, in good/, and some new ones of other shapes, in new/."""
    folder = tmp_path_factory.mktemp("photos")
    (folder / "good").mkdir()
    (folder / "new" / "deep").mkdir(parents=True)
    for seed in range(40):
        Image.fromarray(pixels(seed, (90, 70))).save(folder / "good" / f"{seed}.jpg")
    for name, seed in (("1", 100), ("2", 101), ("10", 102)):
        Image.fromarray(pixels(seed, (61, 133))).save(folder / "new" / f"{name}.jpg", quality=80)
    Image.fromarray(pixels(103, (90, 70))).convert("L").save(folder / "new" / "deep" / "grey.png")
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.fromarray(pixels(104, (70, 90))).save(folder / "new" / "deep" / "turned.jpg", exif=turned)
    return folder


# What reads the pictures, and what judges them.
READ = {
    "pixels": ["--read", "pixels", "--size", "32x24", "--detector", "nearest-neighbours", "--scores", "own"],
    "grey": ["--read", "pixels", "--channels", "1", "--size", "16", "--detector", "gaussian", "--scores", "own"],
    "pooled": ["--read", "old.onnx", "--size", "48"],
    "maps": ["--read", "new.onnx", "--size", "48", "--layers", "0,1", "--detector", "patch-memory"],
    LITE: ["--read", LITE, "--size", "64", "--detector", "padim"],
}


@pytest.fixture(scope="module")
def exported(photos: Path, tmp_path_factory: pytest.TempPathFactory):
    """A run and its file, by what reads the pictures; made once."""
    folder, made = tmp_path_factory.mktemp("exported"), {}
    small_network(folder / "old.onnx", 13)
    small_network(folder / "new.onnx", 20)

    def of(name: str) -> tuple[Path, Path]:
        if name == LITE and not networks.installed(LITE):
            pytest.skip("needs the packages of EfficientNet-Lite0 (tailwise[images])")
        if name not in made:
            words = [str(folder / word) if word.endswith(".onnx") else word for word in READ[name]]
            out, file = folder / name, folder / f"{name}-file.onnx"
            with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):  # the test reads what it prints itself
                assert run(["fit", str(photos / "good"), "--out", str(out), *words]) == 0
                assert run(["export", str(out), "--out", str(file)]) == 0
            made[name] = out, file
        return made[name]

    return of


@pytest.mark.parametrize("name", READ)
def test_the_runtime_scores_a_folder_as_the_run_does(name: str, photos: Path, exported, tmp_path: Path) -> None:
    finished, file = exported(name)
    with_maps = tailwise_runtime.load(file).has_maps
    assert with_maps == (name not in ("pooled", "pixels"))
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    assert run(["score", str(finished), str(photos / "new"), "--out", str(tmp_path / "ours.csv"),
                *(["--maps", str(ours)] if with_maps else [])]) == 0  # fmt: skip
    assert main([str(file), str(photos / "new"), "--out", str(tmp_path / "theirs.csv"),
                 *(["--maps", str(theirs)] if with_maps else [])]) == 0  # fmt: skip
    expected, found = (pd.read_csv(tmp_path / f"{who}.csv").set_index("sample") for who in ("ours", "theirs"))
    assert list(found.index) == list(expected.index) == [each.removeprefix("new/") for each in NEW]
    assert found["score"].to_numpy() == pytest.approx(expected["score"].to_numpy(), rel=1e-3, abs=1e-3)
    assert found["flagged"].tolist() == expected["flagged"].tolist()
    assert found["score"].nunique() == len(NEW)
    for sample in found.index if with_maps else ():
        shown = {ending: [np.asarray(Image.open(folder / f"{sample}.{ending}")) for folder in (ours, theirs)]
                 for ending in ("map.tiff", "overlay.png", "mask.png")}  # fmt: skip
        there, here = shown["map.tiff"]
        assert here.shape == there.shape
        assert here == pytest.approx(there, rel=1e-3, abs=1e-3 * float(np.abs(there).max()))
        # A pixel at the threshold may fall on either side, and its line with it.
        there, here = shown["mask.png"]
        assert (here != there).mean() < 0.01
        there, here = shown["overlay.png"]
        away = np.abs(here.astype(int) - there[: here.shape[0], : here.shape[1]])  # without the bar of colours
        assert (away.max(2) > 3).mean() < 0.02


def test_openvino_loads_the_file_unchanged(photos: Path, exported) -> None:
    """Scores, flags and maps are those of ONNX Runtime."""
    openvino = pytest.importorskip("openvino")
    file = exported(LITE)[1]
    model = tailwise_runtime.load(file)
    given = model.read([photos / each for each in NEW])
    network = openvino.Core().compile_model(str(file), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    found = network(given)
    scores, maps = model.scores_and_maps(given)
    assert found["score"] == pytest.approx(scores, rel=1e-3)
    assert found["flagged"].tolist() == model.flagged(given).tolist()
    assert found["map"] == pytest.approx(maps, rel=1e-3, abs=1e-3 * float(maps.max()))


@pytest.mark.parametrize("name", ["pooled", "maps"])
def test_pictures_of_the_training_score_as_they_did(name: str, photos: Path, exported) -> None:
    """The network's features differ by rounding, and yet each is known to be of the training."""
    finished, file = exported(name)
    table = store.open_run(finished).scores().set_index("sample")["score"]
    model = tailwise_runtime.load(file)
    found = model.score(model.read([photos / "good" / sample for sample in table.index]))
    known = store.open_run(finished).score(str(photos / "good")).set_index("sample")["score"]
    assert found == pytest.approx(known[table.index].to_numpy(), rel=1e-3, abs=1e-3)


@pytest.mark.parametrize("name", ["pooled", "grey"])
def test_pictures_are_kept_and_verified(name: str, exported, photos: Path, tmp_path: Path, capsys) -> None:
    finished, file = exported(name)
    kept = store.open_run(finished).fingerprint()
    assert kept is not None
    assert kept.pictures is not None
    assert len(kept.pictures) == len(kept.samples) == 16
    first = store.open_run(finished).source().decoded([f"{seed}.jpg" for seed in range(40)])
    assert all((first == picture).flatten(1).all(1).any() for picture in kept.pictures)
    assert run(["verify", str(finished), str(file)]) == 0
    assert "the 16 scores of the fit" in capsys.readouterr().out
    facts = json.loads(onnx.load(file).metadata_props[0].value)
    assert facts["sample_shape"] == list(kept.pictures.shape[1:])
    assert facts["fingerprint_samples"]["type"] == "|u1"
    darker = onnx.load(file)
    for tensor in darker.graph.initializer:
        values = onnx.numpy_helper.to_array(tensor)
        if values.size == 1 and values.dtype == np.float32 and float(values.reshape(-1)[0]) == 255.0:
            tensor.CopyFrom(onnx.numpy_helper.from_array(values * np.float32(2), tensor.name))
    onnx.save(darker, tmp_path / "darker.onnx")
    assert run(["verify", str(finished), str(tmp_path / "darker.onnx")]) == 1
    with pytest.raises(tailwise_runtime.ModelError, match="other scores here"):
        tailwise_runtime.load(tmp_path / "darker.onnx")


def odd_pictures(folder: Path) -> list[Path]:
    """Pictures of 8 bits in every mode that files have."""
    colour = Image.fromarray(pixels(1, (40, 56)))
    clear = colour.convert("RGBA")
    clear.putalpha(Image.fromarray(pixels(2, (40, 56))[..., 0]))
    palette = colour.quantize(17)
    palette.info["transparency"] = 3
    turned = Image.Exif()
    turned[0x0112] = 8
    made = {
        "colour.bmp": colour, "clear.png": clear, "palette.gif": colour.quantize(9), "palette.png": palette,
        "bits.png": colour.convert("1"), "grey.jpg": colour.convert("L"), "ink.jpg": colour.convert("CMYK"),
        "half.png": clear.convert("LA"), "plain.tif": colour, "grey.pgm": colour.convert("L"), "lossy.webp": clear,
    }  # fmt: skip
    for name, picture in made.items():
        picture.save(folder / name)
    colour.save(folder / "turned.jpg", exif=turned)
    return [folder / name for name in (*made, "turned.jpg")]


@pytest.mark.parametrize(("name", "size", "channels"), [("pixels", (32, 24), 3), ("grey", 16, 1)])
def test_the_runtime_reads_pictures_to_the_byte(name: str, size, channels: int, exported, tmp_path: Path) -> None:
    model = tailwise_runtime.load(exported(name)[1])
    files = odd_pictures(tmp_path)
    read = model.read(files)
    assert read.dtype == np.uint8
    for file, found in zip(files, read, strict=True):
        expected = read_picture(file, size, channels).permute(1, 2, 0).numpy()
        assert np.array_equal(found.astype(np.float32) / np.float32(255), expected), file.name


def refused(capsys, *said: str) -> None:
    error, hint = capsys.readouterr().err.splitlines()
    assert hint.startswith("hint: ")
    assert all(part in error for part in said), error


def test_what_is_no_picture_of_eight_bits_is_refused_by_name(exported, tmp_path: Path, capsys) -> None:
    _, file = exported("pooled")
    deep = np.linspace(0, 65_535, 40 * 30).reshape(40, 30).astype(np.uint16)
    for name, said in (("deep.png", "8 bits"), ("deep.tif", "8 bits"), ("deep.pgm", "8 bits"),
                       ("cut.jpg", "cannot read"), ("text.jpg", "cannot read")):  # fmt: skip
        folder = tmp_path / name.replace(".", "-")
        folder.mkdir()
        if name.startswith("deep"):
            Image.fromarray(deep).save(folder / name)
        else:
            Image.fromarray(pixels(3, (200, 200))).save(folder / "cut.jpg")
            content = (folder / "cut.jpg").read_bytes()[:900] if name == "cut.jpg" else b"%!PS no picture"
            (folder / "cut.jpg").unlink()
            (folder / name).write_bytes(content)
        assert main([str(file), str(folder)]) == 2
        refused(capsys, name, said)
    (tmp_path / "empty").mkdir()
    assert main([str(file), str(tmp_path / "empty")]) == 2
    refused(capsys, "holds no pictures")
    assert main([str(file), str(tmp_path / "none.jpg")]) == 2
    refused(capsys, "no file")


def test_arrays_of_pictures(exported, photos: Path, tmp_path: Path, capsys) -> None:
    model = tailwise_runtime.load(exported("maps")[1])
    files = sorted((photos / "good").iterdir())[:5]
    pictures = model.read(files)
    np.save(tmp_path / "pictures.npy", pictures)
    assert main([str(exported("maps")[1]), str(tmp_path / "pictures.npy")]) == 0
    rows = capsys.readouterr().out.splitlines()[1:]
    assert [float(row.split(",")[1]) for row in rows] == pytest.approx(model.score(pictures).tolist())
    assert model.score(pictures[:0]).shape == (0,)
    scores, maps = model.scores_and_maps(pictures)
    assert np.array_equal(scores, model.score(pictures))
    assert np.array_equal(maps, model.maps(pictures))
    with pytest.raises(tailwise_runtime.ModelError, match="uint8"):
        model.score(pictures / 255)
    with pytest.raises(tailwise_runtime.ModelError, match="are needed"):
        model.score(pictures[:, :-1])


def test_maps_stay_out_of_the_pictures(exported, photos: Path, tmp_path: Path, capsys) -> None:
    assert main([str(exported("maps")[1]), str(photos / "new"), "--maps", str(photos / "new" / "maps")]) == 2
    refused(capsys, "lies among the pictures")
    assert main([str(exported("pooled")[1]), str(photos / "new"), "--maps", str(tmp_path / "maps")]) == 2
    refused(capsys, "without maps")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("there", [False, True])
def test_all_maps_are_there_or_none(exported, photos: Path, tmp_path: Path, there: bool, capsys, monkeypatch) -> None:
    """A broken picture after three others, one at a time: the folder is as it was; then all is written."""
    monkeypatch.setattr(tailwise_runtime.Model, "batches", lambda _, count: (slice(i, i + 1) for i in range(count)))
    folder, maps = tmp_path / "folder", tmp_path / "results" / "maps"
    shutil.copytree(photos / "new", folder)
    (folder / "9.jpg").write_bytes((folder / "1.jpg").read_bytes()[:300])
    if there:
        maps.mkdir(parents=True)
        (maps / "1.jpg.mask.png").write_text("before")
        (maps / "notes.txt").write_text("mine")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    words = [str(exported("maps")[1]), str(folder), "--maps", str(maps)]
    assert main(words) == 2
    refused(capsys, "9.jpg")
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert maps.parent.exists() == there
    (folder / "9.jpg").unlink()
    assert main(words) == 0
    every = [path for path in maps.rglob("*") if path.is_file() and path.name != "notes.txt"]
    assert len(every) == 3 * len(NEW)
    assert not there or (maps / "notes.txt").read_text() == "mine"
    with Image.open(maps / "1.jpg.mask.png") as mask:
        assert mask.size == (133, 61)
    assert not list(tmp_path.rglob(".writing*"))


@pytest.mark.parametrize(
    ("out", "said"),
    [
        ("missing/s.csv", "there is no folder"),
        ("folder", "a file was needed"),
        ("samples.npy", "take the place"),
        ("folder/s.csv", "lies in the data"),
    ],
)
def test_a_table_that_cannot_be_written_is_told_before_the_work(
    exported, photos: Path, tmp_path: Path, out: str, said: str, capsys, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(photos / "new", "folder")
    np.save("samples.npy", np.zeros((2, 48, 48, 3), np.uint8))
    file = str(exported("maps")[1])
    samples = "samples.npy" if out == "samples.npy" else "folder"
    before = sorted(tmp_path.rglob("*"))
    assert main([file, samples, "--maps", "maps", "--out", out]) == 2
    refused(capsys, said)
    assert sorted(tmp_path.rglob("*")) == before
    assert main([file, "samples.npy", "--maps", "missing/maps"]) == 2
    refused(capsys, "there is no folder")
    assert main([file, "samples.npy", "--maps", "samples.npy"]) == 2
    refused(capsys, "take the place")


def test_masks_links_and_names_in_a_folder(exported, photos: Path, tmp_path: Path, capsys) -> None:
    """Masks of defects are no pictures, no link leads out, and no name acts in a spreadsheet."""
    folder = tmp_path / "folder"
    (folder / "ground_truth").mkdir(parents=True)
    one = Image.open(photos / "good" / "0.jpg")
    for name in ("ground_truth/0.png", ".hidden.png", "0_mask.png", "=1.png", "2.png", "10.png"):
        one.save(folder / name)
    (folder / "out.jpg").symlink_to(photos / "good" / "1.jpg")
    assert main([str(exported("pooled")[1]), str(folder)]) == 0
    rows = [row.split(",")[0] for row in capsys.readouterr().out.splitlines()[1:]]
    assert sorted(rows) == ["'=1.png", "10.png", "2.png"]
    assert rows.index("2.png") < rows.index("10.png")


def test_a_folder_is_scored_without_torch(exported, photos: Path, tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "for name in ('torch', 'tailwise', 'scipy', 'pandas', 'onnx', 'onnxscript'): sys.modules[name] = None\n"
        f"sys.path.insert(0, {str(RUNTIME)!r})\n"
        "from tailwise_runtime.__main__ import main\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    words = [str(exported("maps")[1]), str(photos / "new"), "--out", str(tmp_path / "s.csv")]
    words += ["--maps", str(tmp_path / "maps")]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert len(pd.read_csv(tmp_path / "s.csv")) == len(NEW)
    # Without Pillow arrays are scored, and a folder names the extra.
    code = (
        "import sys, importlib.util as u\n"
        "f = u.find_spec\n"
        "u.find_spec = lambda n, *a: None if n == 'PIL' else f(n, *a)\n" + code
    )
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "tailwise-runtime[pictures]" in done.stderr
    assert 'pictures = ["pillow' in (RUNTIME.parent / "pyproject.toml").read_text(encoding="utf-8")


@pytest.mark.filterwarnings("default")
def test_a_run_of_deep_pictures_is_exported_by_its_samples(tmp_path: Path, capsys) -> None:
    """A file of bytes could not hold them, and says so."""
    (tmp_path / "deep").mkdir()
    for seed in range(20):
        deep = pixels(seed, (40, 30))[..., 0].astype(np.uint16) * 256 + seed
        Image.fromarray(deep).save(tmp_path / "deep" / f"{seed}.png")
    words = ["--read", "pixels", "--channels", "1", "--size", "16", "--detector", "nearest-neighbours"]
    words += ["--scores", "own"]
    assert run(["fit", str(tmp_path / "deep"), "--out", str(tmp_path / "run"), *words]) == 0
    capsys.readouterr()
    assert run(["export", str(tmp_path / "run"), "--out", str(tmp_path / "m.onnx")]) == 0
    assert "takes samples, not pictures" in " ".join(capsys.readouterr().err.split())
    model = tailwise_runtime.load(tmp_path / "m.onnx")
    assert model.sample_shape == (1, 16, 16)
    with pytest.raises(tailwise_runtime.ModelError, match="not pictures"):
        model.read([])
    assert main([str(tmp_path / "m.onnx"), str(tmp_path / "deep")]) == 2


def test_large_pictures_are_kept_in_fewer(tmp_path: Path, exported) -> None:
    source = store.open_run(exported("grey")[0]).source()

    class Large:
        def decoded(self, names):
            return torch.zeros(len(names), 1_000, 1_000, 3, dtype=torch.uint8)

        network = type(source).network

    class Names:
        names = tuple(map(str, range(20)))

        def __len__(self) -> int:
            return 20

    kept = fingerprint.pictures_of(Large(), Names(), 0, 16)  # type: ignore[arg-type]
    assert kept is not None
    assert len(kept) == 1

"""The lines of README and of the runtime's README run as they are printed, also where the extras are not installed."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from tailwise.backbones import networks
from tailwise.cli.main import run

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
RUNTIME = (ROOT / "runtime" / "README.md").read_text(encoding="utf-8")
LINES = [line.partition(" #")[0].strip() for line in re.findall(r"^    (tailwise .*)$", README, re.MULTILINE)]
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
needs_onnx = pytest.mark.skipif(importlib.util.find_spec("onnxruntime") is None, reason="needs onnxruntime")


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the data that the README names, made small; as on a machine without the extra for images."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(networks, "installed", lambda name: False)
    generator = np.random.default_rng(0)
    for folder, count in (("photos", 24), ("new_photos", 5)):
        (tmp_path / folder).mkdir()
        for place in range(count):
            pixels = generator.normal(120, 9, size=(16, 16, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / folder / f"{place}.png")
    return tmp_path


# Run first in a process of its own: the packages of all extras are not there, as after `pip install .`.
WITHOUT_EXTRAS = """
import sys
from importlib.machinery import PathFinder

class Installed(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in {names!r} else super().find_spec(name, path, target)

sys.meta_path = [Installed if finder is PathFinder else finder for finder in sys.meta_path]
"""
RUN_LINES = """
import contextlib, io, json, shutil, sys
from tailwise.cli.main import run

results = []
for words in json.load(sys.stdin):
    if words[0] == "compare":
        shutil.copytree("run", "other_run")
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        status = run(words)
    results.append([status, said.getvalue()])
print(json.dumps(results))
"""


def extras() -> dict[str, list[str]]:
    """The extras of users, and the packages of each by the names that one imports."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = {
        extra: [re.split(r"[=><]", text)[0].replace("-", "_").lower() for text in texts]
        for extra, texts in project["optional-dependencies"].items()
    }
    return {extra: names for extra, names in named.items() if extra != "dev"}


def run_lines(lines: list[list[str]], folder: Path, without: list[str]) -> list[tuple[int, str]]:
    """Status and standard error of each command, one after the other in a process without these packages."""
    code = (WITHOUT_EXTRAS.format(names={*without}) if without else "") + RUN_LINES
    done = subprocess.run(
        [sys.executable, "-c", code], input=json.dumps(lines), capture_output=True, text=True, cwd=folder, check=False
    )
    assert done.returncode == 0, done.stderr
    return [(status, said) for status, said in json.loads(done.stdout.splitlines()[-1])]


def smaller(words: list[str]) -> list[str]:
    """Options with which a command that reads pixels takes seconds."""
    trains = words[0] == "fit" and "--detector" not in words
    return [*(["--size", "16"] if words[0] in ("fit", "triage") else []), *(["--epochs", "2"] if trains else [])]


@pytest.mark.parametrize("with_extras", [True, False])
def test_the_commands_of_the_readme_run_or_name_the_extra_that_they_need(with_extras: bool, photos: Path) -> None:
    """As they are printed, one after the other; without extras pictures are smaller, and trainings shorter."""
    assert len(LINES) > 8
    if with_extras and not all(importlib.util.find_spec(name) for name in ("onnxscript", "efficientnet_lite_pytorch")):
        pytest.skip("needs the extras images and onnx")
    lines = [shlex.split(line)[1:] for line in LINES]
    if not with_extras:
        lines = [[*words, *smaller(words)] for words in lines]
    blocked = [] if with_extras else [name for names in extras().values() for name in names]
    refused = []
    for words, (status, said) in zip(lines, run_lines(lines, photos, blocked), strict=True):
        if status == 2:
            hint = re.search(r"pip install 'tailwise\[(\w+)\]'", said)
            assert hint is not None, (words, said)
            assert hint[1] in extras()
            refused.append(words[0])
        else:
            # 3 is a fit that failed its checks, after two epochs; 4 is drift.
            assert status in {"fit": (0, 3), "drift": (0, 4)}.get(words[0], (0,)), (words, said)
    assert refused == ([] if with_extras else ["export"])
    assert (photos / "model.onnx").exists() == with_extras
    assert (photos / "review" / "review.csv").is_file()
    assert {path.name for path in (photos / "maps").iterdir()} >= {
        "0.png.map.tiff",
        "0.png.overlay.png",
        "0.png.mask.png",
    }
    assert len(pd.read_csv(photos / "scores.csv")) == 5


def test_the_readme_installs_extras_that_there_are() -> None:
    (line,) = re.findall(r"^    pip install \. .*$", README, re.MULTILINE)
    (named,) = re.findall(r"'\.\[(.+)\]'", line)
    assert {*named.split(",")} <= {*extras()}


def test_the_python_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    generator = np.random.default_rng(0)
    rows = generator.normal(size=(120, 3))
    model = torch.nn.Linear(3, 3)
    names: dict[str, object] = {
        "good_rows": rows, "rows_of_any_kind": rows, "new_rows": rows[:9], "X": rows, "X_new": rows[:9], "model": model,
        "loader": torch.as_tensor(rows, dtype=torch.float32).split(30),
        "optimizer": torch.optim.SGD(model.parameters(), lr=0.01),
    }  # fmt: skip
    assert len(BLOCKS) >= 4
    for block in BLOCKS:
        exec(block, names)
    assert np.mean(names["w"]) == pytest.approx(1, abs=1e-5)  # type: ignore[call-overload]
    assert np.shape(names["good"]) == (9,)


@needs_onnx
def test_the_lines_of_the_runtime_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxscript")
    from tailwise_runtime.__main__ import main

    monkeypatch.chdir(tmp_path)
    generator = np.random.default_rng(0)
    frame = pd.DataFrame(generator.normal(size=(90, 3)), columns=list("abc"))
    frame.to_csv("rows.csv", index=False)
    assert run(["fit", "rows.csv", "--detector", "gaussian", "--out", "run"]) in (0, 3)
    assert run(shlex.split("export run --out model.onnx")) == 0
    samples = frame.to_numpy(dtype=np.float32)
    np.save("samples.npy", samples)
    (block,) = re.findall(r"```python\n(.*?)```", RUNTIME, re.DOTALL)
    names: dict[str, object] = {"samples": samples}
    # Maps are of images; these are rows.
    exec("\n".join(line for line in block.splitlines() if ".maps(" not in line), names)
    (line,) = re.findall(r"`tailwise-runtime (model.onnx .*?)`", RUNTIME)
    assert main(shlex.split(line)) == 0
    assert len(pd.read_csv("scores.csv")) == 90


@needs_onnx
def test_the_runtime_says_what_samples_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("onnxscript")
    from tailwise_runtime.__main__ import main

    monkeypatch.chdir(tmp_path)
    rows = np.random.default_rng(0).normal(size=(90, 3))
    np.savez("rows.npz", X=rows)
    assert run(["fit", "rows.npz", "--detector", "gaussian", "--out", "run"]) in (0, 3)
    assert run(["export", "run", "--out", "model.onnx"]) == 0
    Path("folder").mkdir()
    Path("text.npy").write_text("text", encoding="utf-8")
    for place in ("folder", "missing.npy", "text.npy"):
        capsys.readouterr()
        assert main(["model.onnx", place]) == 2
        said = capsys.readouterr().err
        assert place in said
        assert "an .npy array of shape [n, 3]" in said


@pytest.mark.parametrize(
    ("detector", "source", "said"),
    [
        ("autoencoder", "rows", "tailwise explain says which columns"),
        ("nearest-neighbours", "images", "--detector patch-ensemble"),
        ("rx", "cube", "--out NAME.hdr"),
    ],
)
def test_what_is_named_in_place_of_maps_works_for_the_data(
    detector: str, source: str, said: str, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    generator = np.random.default_rng(0)
    np.savez("rows.npz", X=generator.normal(size=(60, 3)))
    np.savez("cube.npz", cube=generator.normal(size=(12, 10, 5)))
    data = {"rows": ["rows.npz"], "images": ["photos", "--size", "16"], "cube": ["cube.npz"]}[source]
    training = ["--epochs", "2"] if detector == "autoencoder" else []
    assert run(["fit", *data, "--detector", detector, *training, "--out", "run"]) in (0, 3)
    capsys.readouterr()
    assert run(["score", "run", data[0], "--maps", "maps"]) == 2
    assert said in capsys.readouterr().err
    # The way on goes on.
    if source == "images":
        assert run(["fit", *data, "--detector", "patch-memory", "--out", "where"]) in (0, 3)
        assert run(["score", "where", "new_photos", "--maps", "maps"]) == 0
    elif source == "cube":
        assert run(["score", "run", data[0], "--out", "map.npy"]) == 0
    else:
        assert run(["explain", "run", data[0], "--worst", "1"]) == 0

"""Photographs with scans: read cell by cell, missing points and scans say nothing, and commands work end to end."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from tailwise.cli.main import run as cli
from tailwise.core import inference
from tailwise.core.context import Measured
from tailwise.core.registry import parse_one
from tailwise.errors import InputError
from tailwise.sources.auto import open_source
from tailwise.sources.images import ImageFolder
from tailwise.sources.rgb_xyz import RgbXyz
from tailwise.training.fit import fit
from tailwise.training.options import Training

SIDE = 40


def part(seed: int, dent: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """A photograph and the scan of a wavy disc on nothing, with a dent near its middle."""
    generator = np.random.default_rng(seed)
    y, x = np.meshgrid(np.linspace(-1, 1, SIDE), np.linspace(-1, 1, SIDE), indexing="ij")
    z = 2 + 0.1 * np.sin(4 * x + generator.normal(0, 0.05)) - dent * np.exp(-((x - 0.2) ** 2 + y**2) / 0.01)
    xyz = np.stack([x, y, z + generator.normal(0, 0.002, x.shape)], 2).astype(np.float32)
    xyz[x**2 + y**2 > 0.8] = 0
    grey = (120 + 60 * np.sin(5 * y) + generator.normal(0, 4, x.shape)).clip(0, 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, 2), xyz


def save(folder: Path, number: int, photograph: np.ndarray, xyz: np.ndarray | None, mask: bool = False) -> None:
    for name in ("rgb", "xyz", "gt"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    Image.fromarray(photograph).save(folder / f"rgb/{number:03d}.png")
    if xyz is not None:
        tifffile.imwrite(folder / f"xyz/{number:03d}.tiff", xyz, photometric="rgb" if xyz.ndim == 3 else "minisblack")
    marked = np.zeros((SIDE, SIDE), np.uint8)
    marked[17:23, 20:27] = 255 * mask
    Image.fromarray(marked).save(folder / f"gt/{number:03d}.png")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("parts")
    for number in range(10):
        save(root / "train/good", number, *part(number))
    for number in range(4):
        save(root / "test/good", number, *part(50 + number))
        save(root / "test/dent", number, *part(80 + number, 0.1), mask=True)
    return root


def test_the_layout_is_recognised_and_channels_are_named_by_modality(folder: Path) -> None:
    source = open_source(folder)
    assert isinstance(source, RgbXyz)
    problem = source.load()
    shape = problem.train.sample_shape
    assert problem.train.features[0] == "rgb:0"
    assert problem.train.features[-33:] == tuple(f"xyz:fpfh {i}" for i in range(33))
    assert len(problem.train.features) == shape[0]
    assert problem.test is not None
    assert problem.test.labels is not None
    assert problem.test.labels.tolist() == [True] * 4 + [False] * 4
    assert problem.test.masks is not None
    assert problem.test.masks[0] is not None
    assert problem.test.masks[0].sum() == 42
    assert isinstance(problem.train.context, Measured)
    photographs = ImageFolder(str(folder), read=source.read).reading_maps((4, 10)).load().train
    assert torch.equal(problem.train.read(torch.arange(10))[:, :-33], photographs.read(torch.arange(10)))


def test_one_modality_can_be_read_alone(folder: Path) -> None:
    both = open_source(folder).load().train
    for use, channels in (("rgb", slice(0, -33)), ("xyz", slice(-33, None))):
        alone = open_source(folder, use=use).load().train
        assert torch.equal(alone.read(torch.arange(10)), both.read(torch.arange(10))[:, channels])


def test_other_parts_are_read_once_and_kept_with_the_detector(folder: Path, tmp_path: Path) -> None:
    for number in range(3):
        save(tmp_path / "others/train/good", number, *part(120 + number, 0.05))
    data = open_source(folder, use="patches").load().train
    assert data.features[33] == "patch:0"
    assert torch.equal(data.read(torch.arange(10))[:, :33], open_source(folder, use="xyz").load().train.samples)
    detector = parse_one(f"ZeroShotPatches(others=({str(tmp_path / 'others')!r},))", "detector")
    fit(detector, data, training=Training(epochs=2, batch_size=8))
    shutil.rmtree(tmp_path / "others")
    again = parse_one(repr(detector), "detector")
    again.restore(data.sample_shape, detector.state_dict(), data.modality)
    assert torch.equal(inference.score(again.eval(), data), inference.score(detector, data))
    again.prepare(data, torch.ones(10))
    assert torch.equal(again.of_others, detector.of_others)
    emptied = detector.state_dict() | {"fragments": detector.fragments[:0]}
    with pytest.raises(InputError, match="it has no fragments"):
        parse_one(repr(detector), "detector").restore(data.sample_shape, emptied, data.modality)
    with pytest.raises(InputError, match="no file or folder"):
        fit(parse_one(repr(detector), "detector"), data)


def test_a_hole_in_a_scan_is_no_defect_and_a_dent_is_one(folder: Path) -> None:
    source = open_source(folder, use="xyz")
    problem = source.load()
    assert problem.test is not None
    for name in ("patch-memory", "padim"):
        detector = parse_one(name, "detector")
        fit(detector, problem.train)
        scores = inference.score(detector, problem.test.data)
        assert float(scores[:4].min()) > float(scores[4:].max())


def test_missing_points_never_count_as_geometry(folder: Path, tmp_path: Path) -> None:
    """A planted hole moves the score of a good part by less than a dent does, and holds no cell of its own."""
    photograph, xyz = part(50)
    for number, hole in enumerate((None, 0.0, np.nan)):
        pierced = xyz.copy()
        if hole is not None:
            pierced[17:22, 6:11] = hole
        save(tmp_path / "rest", number, photograph, pierced)
    source = open_source(folder, use="xyz")
    problem = source.load()
    samples = source.at(str(tmp_path)).load_all().data
    values = samples.read(torch.arange(3))
    assert torch.equal(values[1], values[2])
    assert torch.allclose(values.sum(1), torch.ones(()), atol=1e-4)
    detector = parse_one("patch-memory", "detector")
    fit(detector, problem.train)
    whole, pierced, _ = inference.score(detector, samples).tolist()
    assert problem.test is not None
    dented = float(inference.score(detector, problem.test.data)[:4].min())
    assert abs(pierced - whole) < 0.3 * (dented - whole)


def test_a_photograph_without_a_scan_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    photograph, xyz = part(50)
    save(tmp_path / "rest", 0, photograph, xyz)
    save(tmp_path / "rest", 1, photograph, None)
    save(tmp_path / "rest", 2, photograph, np.zeros_like(xyz))
    data = open_source(tmp_path).load_all().data
    assert "2 of 3 samples have no measured point (1 have no scan), such as rest/rgb/001.png" in caplog.text
    assert isinstance(data.context, Measured)
    assert data.context.cells.flatten(1).any(1).tolist() == [True, False, False]
    assert not data.read(torch.tensor([1, 2]))[:, -33:].any()


def test_a_broken_scan_is_refused_by_name(tmp_path: Path) -> None:
    photograph, xyz = part(50)
    save(tmp_path / "rest", 0, photograph, xyz[..., 0])
    with pytest.raises(InputError, match=r"000\.tiff has shape \[40, 40\] of float32: \[height, width, 3\]"):
        open_source(tmp_path).load_all()
    (tmp_path / "rest/xyz/000.tiff").write_bytes(b"no tiff")
    with pytest.raises(InputError, match=r"cannot read .*000\.tiff"):
        open_source(tmp_path).load_all()


def test_memory_counts_both_modalities_alike(folder: Path) -> None:
    """Histograms are small numbers: beside the maps of a network they would have no say."""
    problem = open_source(folder).load()
    assert problem.test is not None
    detector = parse_one("patch-memory", "detector")
    fit(detector, problem.train)
    spread = (problem.train.read(torch.arange(10)) / detector.scale[:, None, None]).var((0, 2, 3), correction=0)
    assert float(spread[:-33].sum() / spread[-33:].sum()) == pytest.approx(1, abs=0.05)
    scores = inference.score(detector, problem.test.data)
    assert float(scores[:4].min()) > float(scores[4:].max())


def test_commands_work_end_to_end(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert cli(["fit", str(folder), "--detector", "patch-memory", "--out", str(out)]) == 0
    report = json.loads((out / "report.json").read_text())
    assert report["pixels"] is not None
    assert cli(["score", str(out), str(folder / "test"), "--maps", str(tmp_path / "maps")]) == 0
    found = tifffile.imread(tmp_path / "maps/dent/rgb/000.png.map.tiff")
    assert found.shape == (SIDE, SIDE)
    inside = np.zeros((SIDE, SIDE), bool)
    inside[12:28, 15:32] = True
    assert inside.flat[found.argmax()]

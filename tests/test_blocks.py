"""Which blocks read a folder's pictures: those that tell defects made on good ones, and those that a user names."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import tailwise
from tailwise.backbones import networks
from tailwise.core.data import Data
from tailwise.core.problem import Problem
from tailwise.numerics.pasting import RECTANGLES, pasted
from tailwise.sources.auto import open_source
from tailwise.sources.images import ImageFolder
from tailwise.sources.options import SourceOptions
from tailwise.workflows import blocks
from tailwise.workflows.request import Request

BACKBONE = "efficientnet-lite0"
pytestmark = pytest.mark.skipif(not networks.installed(BACKBONE), reason=f"{BACKBONE} is not installed")
SIDE = 64


def line_drawings(folder: Path, count: int) -> Path:
    """Thin lines at random, as on a circuit board: no two pictures alike."""
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    for number in range(count):
        drawing = np.zeros((SIDE, SIDE), np.uint8)
        for along in (drawing, drawing.T):
            for _ in range(7):
                first, last = sorted(generator.integers(0, SIDE, 2))
                place = int(generator.integers(2, SIDE - 2))
                along[place : place + 2, first:last] = 255
        Image.fromarray(drawing).save(folder / f"{number:02d}.png")
    return folder


@pytest.fixture(scope="module")
def drawings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return line_drawings(tmp_path_factory.mktemp("blocks") / "drawings", 30)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """What made defects are said to be told with, by the usual blocks and by fine ones."""
    said = {"usual": 0.5, "fine": 0.6}

    def of(made: blocks.MadeDefects, source: ImageFolder, data: Data, top: float) -> float:
        return said["fine" if source.layers == networks.fine_layers(BACKBONE) else "usual"]

    monkeypatch.setattr(blocks.MadeDefects, "told", of)
    return said


@pytest.mark.parametrize("sides", RECTANGLES)
@pytest.mark.parametrize("shape", [(40, 90, 3), (7, 5, 1)])
def test_a_pasted_rectangle_comes_from_the_picture(
    sides: tuple[tuple[float, float], tuple[float, float]], shape: tuple[int, int, int]
) -> None:
    picture = torch.arange(shape[0] * shape[1]).reshape(shape[0], shape[1], 1).expand(shape)
    for seed in range(20):
        made = pasted(picture, sides, seed)
        rows, columns = (made != picture).any(2).nonzero().unbind(1)
        assert made.shape == picture.shape
        assert torch.isin(made, picture).all()
        if len(rows):
            high, wide = int(rows.max() - rows.min()) + 1, int(columns.max() - columns.min()) + 1
            assert high * wide == len(rows)
            most = max(2, round(max(map(max, sides)) * (shape[0] * shape[1]) ** 0.5))
            assert max(high, wide) <= most
    assert torch.equal(pasted(picture, sides, 3), pasted(picture, sides, 3))


def test_blocks_are_judged_by_what_is_pasted(drawings: Path) -> None:
    """Either reading tells some of the same made defects, and the same for a seed."""
    for source in (open_source(str(drawings), maps=None), open_source(str(drawings), layers="2")):
        data = source.load().train
        made = blocks.MadeDefects.of(source, data, seed=1)
        assert made is not None
        assert not set(made.on) & set(made.kept)
        assert 0.4 < made.told(source, data, 0.005) < 1
        assert made.told(source, data, 0.005) == made.told(source, data, 0.005)


@pytest.mark.parametrize(
    ("usual", "fine", "taken"), [(0.52, 0.58, True), (0.52, 0.53, False), (0.60, 0.55, False), (0.61, 0.68, False)]
)
def test_fine_blocks_are_taken_where_the_usual_ones_guess(
    drawings: Path, told: dict[str, float], usual: float, fine: float, taken: bool
) -> None:
    told |= {"usual": usual, "fine": fine}
    source = open_source(str(drawings), maps=None)
    assert (blocks.decided(Request(source), source.load()).reason != "") is taken
    assert blocks.prefers_fine(usual, fine) is taken


def test_a_run_reads_by_the_blocks_that_were_chosen(
    drawings: Path, tmp_path: Path, told: dict[str, float], capsys: pytest.CaptureFixture[str]
) -> None:
    run = tailwise.fit(str(drawings), out=tmp_path / "run", cross=0, no_report=True)
    assert "layers=(2,)" in run.settings.source
    assert run.settings.detector.startswith("PatchMemory(top=0.001")
    assert "AUROC 0.60, by the usual blocks with 0.50" in run.settings.detector_reason
    assert run.settings.sample_shape[0] == 24
    assert len(run.score(str(drawings))) == 30


@pytest.mark.parametrize("named", [{"layers": "4,10"}, {"detector": "patch-memory"}, {"detector": "gaussian"}])
def test_what_is_named_is_taken(drawings: Path, tmp_path: Path, told: dict[str, float], named: dict[str, str]) -> None:
    options = {name: value for name, value in named.items() if name == "detector"}
    reading = SourceOptions(layers=named["layers"]) if "layers" in named else SourceOptions()
    run = tailwise.fit(str(drawings), out=tmp_path / "run", cross=0, no_report=True, reading=reading, **options)
    assert "layers=(2,)" not in run.settings.source
    assert not run.settings.detector_reason or "usual blocks" not in run.settings.detector_reason


def test_few_pictures_choose_nothing(drawings: Path, told: dict[str, float]) -> None:
    source = open_source(str(drawings), maps=None)
    problem = source.load()
    few = replace(problem, train=problem.train.take(range(29)))
    assert blocks.decided(Request(source), few).request.detector == "auto"
    assert blocks.decided(Request(source), problem).request.detector.startswith("PatchMemory")


def test_other_blocks_read_the_same_pictures(drawings: Path) -> None:
    source = open_source(str(drawings), maps=None)
    fine = blocks.finer(source)
    assert fine is not None
    problem = source.load()
    part: Problem = replace(problem, train=problem.train.take([7, 3, 20]))
    assert list(blocks.read_again(fine, part).train.names) == list(part.train.names)


def test_only_the_usual_blocks_have_finer_ones(drawings: Path) -> None:
    assert blocks.finer(open_source(str(drawings), read="pixels")) is None
    assert blocks.finer(open_source(str(drawings), layers="2")) is None
    assert blocks.finer(open_source("Digits")) is None


def test_fine_blocks_see_no_edge_where_a_picture_ends() -> None:
    """A picture that looks the same everywhere has the same maps everywhere; the usual blocks see its end."""
    grey = torch.full((1, 3, 64, 96), 0.7)
    fine, usual = (networks.mapped(BACKBONE, layers)(grey) for layers in ((2,), (4, 10)))
    assert fine.shape[2:] == (16, 24)
    assert float((fine - fine[:, :, 8:9, 8:9]).abs().max()) < 1e-5
    assert float((usual - usual[:, :, 4:5, 6:7]).abs().max()) > 0.1


def test_a_place_lies_where_it_lay_without_a_margin() -> None:
    """Far from the ends the margin changes nothing."""
    generator = torch.Generator().manual_seed(0)
    picture = torch.rand(1, 3, 96, 128, generator=generator)
    with_margin = networks.backbone(BACKBONE, (2,))
    assert with_margin.margin > 0
    found = with_margin(picture)[0]
    with_margin.margin = 0
    bare = with_margin(picture)[0]
    assert found.shape == bare.shape
    assert torch.allclose(found[:, :, 8:-8, 8:-8], bare[:, :, 8:-8, 8:-8], atol=1e-4)

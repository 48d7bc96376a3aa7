"""open_source finds the kind of what is there; solar cells are drawn without overlap; data is found by setting."""

import gzip
import importlib.util
import subprocess
import sys
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.io
from PIL import Image

from tailwise.core import registry
from tailwise.core.problem import (
    OnDisk,
    Pictured,
    Previewed,
    ReadByBackbone,
    ReadByNeighbours,
    SkipsBad,
    Surfaced,
    Tabular,
)
from tailwise.errors import InputError
from tailwise.sources import image_samples, solar
from tailwise.sources.arrays import ArrayFile
from tailwise.sources.auto import open_source, with_maps
from tailwise.sources.cube import Cube
from tailwise.sources.digits import Digits, RareDigits
from tailwise.sources.graph import Nodes
from tailwise.sources.idx import Idx
from tailwise.sources.images import ImageFolder
from tailwise.sources.long_tail import LongTail
from tailwise.sources.memory import InMemory
from tailwise.sources.options import SourceOptions
from tailwise.sources.point_clouds import PointClouds
from tailwise.sources.recognition import Match, PathSource
from tailwise.sources.rgb_xyz import RgbXyz
from tailwise.sources.solar import SolarCells
from tailwise.sources.table import Table

IDX = bytes([0, 0, 8, 3, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 2, 1, 2, 3, 4])
here = pytest.mark.skipif(
    importlib.util.find_spec("elpv_dataset") is None, reason="needs elpv-dataset (tailwise[solar])"
)


@pytest.fixture
def shelf(tmp_path):
    rows, cube = np.eye(4), np.ones((3, 4, 5))
    (tmp_path / "t.csv").write_text("a,b\n1,2\n3,4\n")
    np.savez(tmp_path / "rows.npz", X=rows, y=np.zeros(4))
    np.save(tmp_path / "rows.npy", rows)
    np.savez(tmp_path / "cube.npz", cube=cube, wavelengths=np.arange(5))
    np.save(tmp_path / "cube.npy", cube)
    np.savez(tmp_path / "parts.npz", x_train=rows)
    for name in ("photos", "cubes", "digits", "stacks", "arrays"):
        (tmp_path / name).mkdir()
    Image.new("L", (20, 20)).save(tmp_path / "photos/1.png")
    Image.new("L", (20, 20)).save(tmp_path / "photos/2.tif")
    scipy.io.savemat(tmp_path / "cubes/a.mat", {"data": cube})
    Image.new("L", (4, 3)).save(tmp_path / "cubes/a_mask.png")
    pages = [Image.fromarray(np.full((3, 4), page, np.uint8)) for page in range(6)]
    pages[0].save(tmp_path / "stacks/a.tif", save_all=True, append_images=pages[1:])
    (tmp_path / "digits/train-images-idx3-ubyte.gz").write_bytes(gzip.compress(IDX))
    np.save(tmp_path / "arrays/a.npy", cube)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("t.csv", Table),
        ("rows.npz", Table),
        ("rows.npy", Table),
        ("cube.npz", Cube),
        ("cube.npy", Cube),
        ("parts.npz", ArrayFile),
        ("photos", ImageFolder),
        ("photos/1.png", ImageFolder),
        ("cubes", Cube),
        ("cubes/a.mat", Cube),
        ("stacks", Cube),
        ("stacks/a.tif", Cube),
        ("arrays", Cube),
        ("digits", Idx),
        ("digits/train-images-idx3-ubyte.gz", Idx),
    ],
)
def test_the_kind_is_found_and_loads(shelf, monkeypatch, name, kind):
    monkeypatch.setattr(image_samples.backbones(), "installed", lambda name: False)
    source = open_source(shelf / name)
    assert type(source) is kind
    assert source.path == str(shelf / name)
    assert len(source.load().train) >= 1
    monkeypatch.setenv("TAILWISE_DATA", str(shelf))
    assert open_source(name) == kind(name)
    assert len(open_source(name).load_all().data) >= 1


def test_images_are_read_by_the_backbone_where_it_is_installed(shelf, monkeypatch):
    monkeypatch.setattr(image_samples.backbones(), "installed", lambda name: True)
    assert open_source(shelf / "photos") == ImageFolder(str(shelf / "photos"), read="efficientnet-lite0")
    assert open_source(shelf / "photos", read="pixels", size=32) == ImageFolder(str(shelf / "photos"), size=32)


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("t.csv", {"size": 32}, "size does not apply to Table.*labels"),
        ("photos", {"labels": "y"}, "labels does not apply to ImageFolder"),
        ("photos", {"columns": ("a",)}, "columns does not apply to ImageFolder"),
        ("cube.npy", {"columns": ("a",)}, "columns does not apply to Cube"),
        ("photos", {"white": "w.npy"}, "white does not apply to ImageFolder"),
        ("cube.npy", {"skip_bad": True}, "skip_bad does not apply to Cube"),
        ("digits", {"read": "pixels"}, "read does not apply to Idx.*normal, test"),
    ],
)
def test_options_of_another_kind_are_refused(shelf, name, options, said):
    with pytest.raises(InputError, match=said):
        open_source(shelf / name, **options)


def test_spellings():
    assert open_source("SolarCells(mono=20, poly=3)") == SolarCells(20, 3)
    assert open_source("SolarCells", read="pixels") == SolarCells(read="pixels")
    assert open_source(Table("t.csv"), labels="y") == Table("t.csv", labels="y")
    long = Table("t.csv", columns=tuple(f"column {i}" for i in range(100)))
    assert open_source(repr(long)) == long
    with pytest.raises(InputError, match="did you mean 'SolarCells'"):
        open_source("SolarCell()")
    with pytest.raises(InputError, match="does not take these options"):
        open_source("Table(where='x')")


def test_nothing_there_and_unknown_kinds(shelf, monkeypatch):
    monkeypatch.delenv("TAILWISE_DATA", raising=False)
    with pytest.raises(InputError, match="did you mean 'photos'") as caught:
        open_source(shelf / "photo")
    assert str(shelf / "photo") in caught.value.message
    with pytest.raises(InputError, match="set TAILWISE_DATA"):
        open_source("mnist")
    (shelf / "empty").mkdir()
    with pytest.raises(InputError, match="holds nothing that can be read"):
        open_source(shelf / "empty")
    (shelf / "a.docx").touch()
    with pytest.raises(InputError, match="of no kind that can be read"):
        open_source(shelf / "a.docx")


@here
def test_solar_cells_are_drawn_without_overlap():
    source = SolarCells(mono=30, poly=5, read="pixels", size=16, test=60)
    problem = source.load()
    kinds, counts = np.unique(problem.train_groups, return_counts=True)
    assert dict(zip(kinds.tolist(), counts.tolist(), strict=True)) == {"mono": 30, "poly": 5}
    assert not set(problem.train.names) & set(problem.test.data.names)
    assert len(set(problem.test.data.names)) == 60
    good = problem.test.groups[~problem.test.labels].tolist()
    assert (good.count("mono"), good.count("poly"), int(problem.test.labels.sum())) == (20, 20, 20)
    assert problem.train.sample_shape == (1, 16, 16)
    assert list(source.load().train.names) == list(problem.train.names)
    other = SolarCells(mono=30, poly=5, read="pixels", size=16, test=60, seed=1).load()
    assert set(other.train.names) != set(problem.train.names)
    assert source.at("cells") == ImageFolder("cells", size=16, channels=1)


@here
def test_solar_labels_are_those_of_the_package():
    folder = Path(importlib.util.find_spec("elpv_dataset").origin).parent / "data"
    table = pd.read_csv(folder / "labels.csv", sep=r"\s+", header=None, names=["file", "probability", "kind"])
    cells = solar._read_labels()
    assert np.array_equal(cells.probability, table.probability)
    assert np.array_equal(cells.group, table.kind.to_numpy(str))


@here
def test_solar_bounds():
    with pytest.raises(InputError, match=r"mono must be from 0 to 587 good cells: got 588"):
        SolarCells(mono=588).load()


def test_solar_package_missing(monkeypatch):
    monkeypatch.setattr(solar.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"tailwise\[solar\]"):
        SolarCells().load()


def test_importing_sources_is_light():
    code = "import sys, tailwise.sources; print({'pandas', 'PIL', 'spectral', 'scipy.io'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_no_path_is_not_the_current_folder():
    with pytest.raises(InputError, match="no path was given"):
        open_source("")


def test_zero_is_an_option_like_any_other(tmp_path):
    Image.new("L", (9, 9)).save(tmp_path / "a.png")
    with pytest.raises(InputError, match="from 8 to 4096 pixels: got 0"):
        open_source(str(tmp_path), size=0)


@pytest.mark.parametrize("options", [{"mono": "a"}, {"poly": -1}, {"seed": -1}, {"test": 2.5}])
def test_solar_options_are_whole_numbers(options):
    with pytest.raises(InputError, match="whole number of at least 0"):
        SolarCells(**options)


def test_what_sources_can_is_what_they_declare():
    can = (OnDisk, Previewed, Pictured, Surfaced, SkipsBad, Tabular, ReadByBackbone, ReadByNeighbours)
    kinds = {
        Table("t"): (OnDisk, Tabular),
        ImageFolder("f"): (OnDisk, Previewed, Pictured, SkipsBad, ReadByBackbone),
        SolarCells(): (Previewed, ReadByBackbone),
        RgbXyz("r"): (OnDisk, Previewed, Pictured, Surfaced, SkipsBad, ReadByBackbone),
        PointClouds("p"): (OnDisk, Previewed, Pictured, Surfaced),
        Cube("c"): (OnDisk,),
        Idx("i"): (OnDisk,),
        Nodes("g"): (OnDisk, Tabular, ReadByNeighbours),
        ArrayFile("a"): (OnDisk,),
        Digits(): (),
        RareDigits(): (),
        LongTail(Digits()): (),
        InMemory(): (),
    }
    assert {type(source) for source in kinds} == {e.member for e in registry.entries("source").values()}
    for source, expected in kinds.items():
        assert tuple(each for each in can if isinstance(source, each)) == expected


def test_every_option_of_the_command_line_is_a_field_of_some_source():
    """And is read from the text that a person writes."""
    has = {field.name for e in registry.entries("source").values() for field in fields(e.member)}
    assert {field.name for field in fields(SourceOptions)} <= has
    asked = SourceOptions(labels="y", columns='a,"b, c"', skip_bad=False, size=0).asked()
    assert asked == {"labels": "y", "columns": 'a,"b, c"', "size": 0}
    assert Table("t", columns='a, "b, c"') == Table("t", columns=("a", "b, c"))
    assert Cube("c", bad_bands="0-3, 107,108") == Cube("c", bad_bands=((0, 3), 107, 108))
    assert ImageFolder("f", read="resnet18", layers="4, 10").layers == (4, 10)
    with pytest.raises(InputError, match="a column has no name"):
        Table("t", columns="a,,b")
    with pytest.raises(InputError, match="cannot read the bands '3-x'"):
        Cube("c", bad_bands="1,3-x")
    with pytest.raises(InputError, match="cannot read the layers"):
        ImageFolder("f", layers="first")


def test_a_source_that_is_registered_is_found(tmp_path, monkeypatch):
    """Nothing but the class itself names it: what it recognises, what is usual, and which options it has."""
    monkeypatch.setitem(registry._entries, "source", dict(registry._entries["source"]))

    @registry.register("source", "Notes")
    @dataclass(frozen=True, repr=False)
    class Notes(PathSource):
        reads = "notes (.note)"
        pages: int = 1
        labels: str | None = None

        @classmethod
        def recognises(cls, path, options):
            return Match.CERTAIN if path.suffix == ".note" else Match.NONE

        @classmethod
        def usual(cls, options):
            return {"pages": 7}

    (tmp_path / "a.note").touch()
    assert open_source(tmp_path / "a.note") == Notes(str(tmp_path / "a.note"), pages=7)
    assert open_source(tmp_path / "a.note", pages=2, labels="y").pages == 2
    with pytest.raises(InputError, match="size does not apply to Notes") as caught:
        open_source(tmp_path / "a.note", size=3)
    assert caught.value.hint == "Notes takes labels, pages"
    (tmp_path / "a.docx").touch()
    with pytest.raises(InputError, match="of no kind") as caught:
        open_source(tmp_path / "a.docx")
    assert "notes (.note)" in caught.value.hint


def test_maps_are_of_a_backbone_that_names_no_blocks(monkeypatch):
    networks = image_samples.backbones()
    monkeypatch.setattr(networks, "map_layers", lambda read: (1, 2))
    monkeypatch.setattr(networks, "deep_layers", lambda read: (8, 9))
    cells = SolarCells(read="resnet18")
    assert (with_maps(cells).layers, with_maps(cells, deep=True).layers) == ((1, 2), (8, 9))
    for source in (SolarCells(read="pixels"), SolarCells(read="resnet18", layers=(4,)), Table("t"), Cube("c")):
        assert with_maps(source, deep=True) == source

"""Detectors of hyperspectral scenes against independent implementations, and score maps that survive interruptions."""

import errno
import json
import os

import numpy as np
import pytest
import scipy.io
import torch

from tailwise.cli.main import run as command
from tailwise.core import inference, registry
from tailwise.core.context import Scenes
from tailwise.core.data import Data
from tailwise.errors import InputError
from tailwise.runs.store import open_run
from tailwise.training.fit import fit
from tailwise.weights.default import parse_weighting
from tailwise.workflows import score, score_cube

RNG = np.random.default_rng(0)
HEIGHT, WIDTH, BANDS = 23, 19, 9
MIXING = RNG.normal(size=(BANDS, BANDS)) * np.geomspace(1, 0.01, BANDS)
CUBE = (RNG.normal(size=(HEIGHT, WIDTH, BANDS)) @ MIXING.T + 5).astype(np.float32)
MAP_INFO = "map info = {UTM, 1.000, 1.000, 500000.000,\n 4649000.000, 30.0, 30.0, 16, North}"


def data_of(*cubes):
    samples = torch.cat([torch.from_numpy(cube.reshape(-1, 1, cube.shape[2])) for cube in cubes])
    scenes = Scenes(samples, tuple(cube.shape[:2] for cube in cubes))
    return Data(samples, [str(i) for i in range(len(samples))], context=scenes)


def fitted(name, data, **settings):
    detector = registry.find("detector", name)(**settings)
    fit(detector, data)
    return detector


def scores(name, data, **settings):
    return inference.score(fitted(name, data, **settings), data)


def test_global_rx_is_that_of_spectral():
    spectral = pytest.importorskip("spectral")
    expected = spectral.rx(CUBE.astype(np.float64)).ravel()
    assert np.allclose(scores("rx", data_of(CUBE)).numpy(), expected, rtol=1e-6)


def test_a_constant_band_and_a_copied_one_change_nothing():
    copied = np.concatenate([CUBE, np.full_like(CUBE[..., :1], 3.0), CUBE[..., :1]], axis=2)
    assert torch.allclose(scores("rx", data_of(copied)), scores("rx", data_of(CUBE)), rtol=1e-5)


def test_sub_space_rx_does_not_feel_the_leading_components():
    detector = fitted("rx", data_of(CUBE), leading=2)
    leading = np.linalg.eigh(np.cov(CUBE.reshape(-1, BANDS).T.astype(np.float64)))[1][:, -2:]
    moved = (CUBE + 7 * leading.sum(1)).astype(np.float32)
    a, b = (inference.score(detector, data_of(cube)) for cube in (CUBE, moved))
    assert torch.allclose(a, b, rtol=1e-3, atol=1e-3)
    assert float((scores("rx", data_of(CUBE)) - a).min()) > 0


def test_kernel_rx_finds_the_middle_of_a_ring():
    angle = RNG.uniform(0, 2 * np.pi, 400)
    ring = np.stack([np.cos(angle), np.sin(angle)], axis=1) + 0.05 * RNG.normal(size=(400, 2))
    ring[0] = 0
    data = data_of(ring.reshape(20, 20, 2).astype(np.float32))
    assert int(scores("rx", data).argmin()) == 0
    assert int(scores("rx", data, features=200).argmax()) == 0


@pytest.mark.parametrize("windows", [(3, 9), (1, 5), (5, 7)])
def test_local_rx_is_that_of_spectral_up_to_the_border(windows):
    spectral = pytest.importorskip("spectral")
    expected = spectral.rx(CUBE.astype(np.float64), window=windows).ravel()
    found = scores("local-rx", data_of(CUBE), inner=windows[0], outer=windows[1]).numpy()
    assert np.allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("name", ["local-rx", "collaborative"])
def test_any_pixels_in_any_order_and_of_several_scenes(name):
    both = data_of(CUBE, CUBE[:12, ::-1].copy())
    detector = fitted(name, both)
    whole = torch.cat([inference.score(detector, data_of(cube)) for cube in (CUBE, CUBE[:12, ::-1].copy())])
    chosen = torch.randperm(len(both), generator=torch.Generator().manual_seed(0))[:50]
    assert torch.allclose(inference.score(detector, both), whole, rtol=1e-5)
    assert torch.allclose(inference.score(detector, both.take(chosen)), whole[chosen], rtol=1e-5)
    assert torch.allclose(inference.score(detector, both.take(chosen).take([3]), 7), whole[chosen[3:4]], rtol=1e-5)


def test_local_rx_where_windows_lack_directions():
    """Half of the scene lies in fewer directions than there are bands; which ones, only whole windows can tell."""
    spectral = pytest.importorskip("spectral")
    # Whole numbers, so that single precision holds the mixtures exactly.
    cube = np.rint(40 * CUBE.astype(np.float64))
    cube[:, :12] = cube[:, :12, :5] @ RNG.integers(-3, 4, (5, BANDS))
    cube[11, 5] += RNG.integers(-99, 99, BANDS)  # one pixel that sticks out of its background's directions
    expected = spectral.rx(cube, window=(3, 7))
    found = scores("local-rx", data_of(cube.astype(np.float32)), inner=3, outer=7).reshape(HEIGHT, WIDTH)
    assert np.allclose(found, expected, rtol=1e-5)


def test_local_rx_where_nothing_varies():
    """In a filled border the background has no spread; half in it, the directions that have some are measured."""
    cube = CUBE.copy()
    cube[:, :12] = 0
    found = scores("local-rx", data_of(cube), inner=3, outer=9).reshape(HEIGHT, WIDTH)
    assert bool(torch.isfinite(found).all())
    assert float(found[10, :5].abs().max()) == 0
    assert float(found[10, 15]) > 0
    assert float(scores("local-rx", data_of(np.full_like(CUBE, 3.0))).abs().max()) == 0


def test_collaborative_is_ridge_regression_on_the_window():
    inner, outer, regularisation = 3, 7, 0.1
    found = scores("collaborative", data_of(CUBE), inner=inner, outer=outer, regularisation=regularisation)
    row, column = 11, 8
    window = CUBE[row - 3 : row + 4, column - 3 : column + 4].astype(np.float64)
    background = np.array([window[i, j] for i in range(7) for j in range(7) if max(abs(i - 3), abs(j - 3)) > 1])
    length = np.linalg.norm(background, axis=1).mean()
    y, x = CUBE[row, column] / length, background / length
    penalty = np.sqrt(regularisation) * np.diag(np.linalg.norm(x - y, axis=1))
    system = np.concatenate([x.T, np.ones((1, len(x))), penalty])
    mixture = np.linalg.lstsq(system, np.concatenate([y, [1], np.zeros(len(x))]), rcond=None)[0]
    assert float(found[row * WIDTH + column]) == pytest.approx(np.linalg.norm(y - mixture @ x), rel=1e-4)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: scores("local-rx", Data(torch.randn(30, 1, 4), range(30))), "not the pixels of a cube"),
        (lambda: scores("local-rx", data_of(CUBE), inner=3, outer=3), "inner < outer"),
        (lambda: scores("local-rx", data_of(CUBE), outer=8), "odd whole number from 1 to 9999: got 8"),
        (lambda: scores("local-rx", data_of(CUBE), inner=1, outer=3), "8 pixels between the windows 1 and 3"),
        (lambda: scores("local-rx", data_of(CUBE[:3, :5].copy())), "6 pixels lie between the windows in this scene"),
        (lambda: scores("rx", data_of(CUBE), leading=9), "cannot leave 9 of 9 components out"),
        (lambda: scores("rx", data_of(CUBE), features=-1), "got -1"),
        (lambda: scores("collaborative", data_of(CUBE), regularisation=0.0), "must be a number above 0"),
        (lambda: Scenes(torch.zeros(6, 1, 2), ((2, 2),)), "do not hold 6 pixels"),
    ],
)
def test_what_is_refused(make, said):
    with pytest.raises(InputError, match=said):
        make()


def test_what_looks_around_cannot_be_weighed():
    with pytest.raises(InputError, match="cannot be weighed"):
        fit(registry.find("detector", "local-rx")(), data_of(CUBE), parse_weighting("Rarity()"))


def write_envi(folder, values=CUBE, name="scene"):
    """A BIL cube written byte by byte, with map information."""
    height, width, bands = values.shape
    (folder / f"{name}.img").write_bytes(np.ascontiguousarray(values.transpose(0, 2, 1)).astype("<f4").tobytes())
    (folder / f"{name}.hdr").write_text(
        f"ENVI\nsamples = {width}\nlines = {height}\nbands = {bands}\nheader offset = 0\nfile type = ENVI Standard\n"
        f"data type = 4\ninterleave = bil\nbyte order = 0\n{MAP_INFO}\nwavelength = {{{', '.join('5' * bands)}}}\n"
    )
    return folder / f"{name}.hdr"


@pytest.fixture(scope="module")
def rx_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rx")
    np.save(folder / "scene.npy", CUBE)
    assert command(["fit", str(folder / "scene.npy"), "--detector", "rx", "--out", str(folder / "run")]) == 0
    return folder / "run"


def test_fit_and_score_a_scene_by_its_surroundings(tmp_path, capsys):
    np.save(tmp_path / "scene.npy", CUBE)
    out = tmp_path / "run"
    assert command(["fit", str(tmp_path / "scene.npy"), "--detector", "LocalRX(outer=9)", "--out", str(out)]) == 0
    table = open_run(out).scores()
    expected = scores("local-rx", data_of(CUBE), outer=9).numpy()
    assert table["sample"].tolist()[WIDTH + 2] == "1,2"
    assert np.allclose(table.score, expected, rtol=1e-5)
    assert command(["score", str(out), str(tmp_path / "scene.npy"), "--out", str(tmp_path / "map.npy")]) == 0
    assert np.allclose(np.load(tmp_path / "map.npy").ravel(), expected, rtol=1e-5)
    assert capsys.readouterr().out.endswith("map.npy\n")


@pytest.mark.parametrize("name", ["map.hdr", "map.mat", "map.npy", "map.tif", "map.zarr"])
def test_a_map_in_every_format(rx_run, tmp_path, name):
    pytest.importorskip("spectral")
    header, out = write_envi(tmp_path), tmp_path / name
    score_cube.write_map(rx_run, str(header), out)
    if name.endswith(".hdr"):
        image = pytest.importorskip("spectral.io.envi").open(str(out))
        assert image.metadata["map info"][3:5] == ["500000.000", "4649000.000"]
        assert "wavelength" not in image.metadata
        found = np.fromfile(out.with_suffix(".img"), "<f4").reshape(HEIGHT, WIDTH)
        assert np.array_equal(np.asarray(image.open_memmap())[..., 0], found)
    elif name.endswith(".mat"):
        found = scipy.io.loadmat(out)["scores"]
    elif name.endswith(".zarr"):
        found = pytest.importorskip("zarr").open(str(out), mode="r")["scores"][:]
        with pytest.raises(InputError, match="not written over"):
            score_cube.write_map(rx_run, str(header), out)
    else:
        found = np.load(out) if name.endswith(".npy") else pytest.importorskip("tifffile").imread(out)
    assert np.allclose(found.ravel(), score.score_data(rx_run, str(header)).score, rtol=1e-5)
    assert not list(tmp_path.glob(".writing*"))


class Interrupted(BaseException):
    pass


def interrupt_after(monkeypatch, blocks):
    """Let so many blocks be scored, and give the list of those that are."""
    seen, real = [], score_cube._scores

    def scored(detector, samples, index, *rest):
        if len(seen) == blocks:
            raise Interrupted
        seen.append(int(index[0]))
        return real(detector, samples, index, *rest)

    monkeypatch.setattr(score_cube, "_scores", scored)
    return seen


@pytest.fixture
def interrupted(rx_run, tmp_path, monkeypatch):
    """A map of blocks of 2 rows that stopped after 4 of them, in the midst of writing the fifth."""
    pytest.importorskip("spectral")
    monkeypatch.setattr(score_cube, "_BLOCK_ENTRIES", 2 * WIDTH * BANDS)
    header = write_envi(tmp_path)
    with monkeypatch.context() as patch:
        interrupt_after(patch, 4)
        with pytest.raises(Interrupted):
            score_cube.write_map(rx_run, str(header), tmp_path / "map.hdr")
    assert not (tmp_path / "map.hdr").exists()
    with open(tmp_path / ".writing-map.hdr.part", "ab") as part:
        part.write(b"torn!")
    return header


def test_an_interrupted_map_is_resumed_to_the_same_bytes(rx_run, tmp_path, monkeypatch, interrupted):
    seen = interrupt_after(monkeypatch, 100)
    score_cube.write_map(rx_run, str(interrupted), tmp_path / "map.hdr")
    assert seen == list(range(4 * 2 * WIDTH, HEIGHT * WIDTH, 2 * WIDTH))
    score_cube.write_map(rx_run, str(interrupted), tmp_path / "whole.hdr")
    for suffix in (".hdr", ".img"):
        assert (tmp_path / f"map{suffix}").read_bytes() == (tmp_path / f"whole{suffix}").read_bytes()


def test_a_part_of_a_cube_that_was_changed_is_not_resumed(rx_run, tmp_path, monkeypatch, interrupted):
    write_envi(tmp_path, CUBE[::-1])
    seen = interrupt_after(monkeypatch, 100)
    score_cube.write_map(rx_run, str(interrupted), tmp_path / "map.hdr")
    assert seen[0] == 0
    found = np.fromfile(tmp_path / "map.img", "<f4")
    assert np.allclose(found, score.score_data(rx_run, str(interrupted)).score, rtol=1e-5)


def test_a_damaged_note_of_what_a_part_belongs_to_starts_again(rx_run, tmp_path, monkeypatch, interrupted):
    facts = tmp_path / ".writing-map.hdr.json"
    facts.write_text(json.dumps({**json.loads(facts.read_text()), "block": 1}))
    seen = interrupt_after(monkeypatch, 100)
    score_cube.write_map(rx_run, str(interrupted), tmp_path / "map.hdr")
    assert seen[0] == 0


def test_bad_pixels_leave_nothing(rx_run, tmp_path, monkeypatch):
    pytest.importorskip("spectral")
    monkeypatch.setattr(score_cube, "_BLOCK_ENTRIES", 2 * WIDTH * BANDS)
    monkeypatch.setattr("tailwise.sources.cube.IN_MEMORY_BYTES", 10)
    cube = CUBE.copy()
    cube[10, 3, 2] = np.nan
    header = write_envi(tmp_path, cube)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(InputError, match="pixel 10,3 holds NaN"):
        score_cube.write_map(rx_run, str(header), tmp_path / "map.hdr")
    assert sorted(tmp_path.iterdir()) == before


def test_maps_that_are_refused(rx_run, tmp_path):
    np.save(tmp_path / "scene.npy", CUBE)
    np.save(tmp_path / "other.npy", CUBE)
    for data, out, said in (
        (tmp_path / "scene.npy", tmp_path / "scene.npy", "take the place of the data"),
        (tmp_path, tmp_path / "map.hdr", "a map is of one cube"),
        (tmp_path / "scene.npy", tmp_path / "missing" / "map.hdr", "cannot write"),
    ):
        with pytest.raises(InputError, match=said):
            score_cube.write_map(rx_run, str(data), out)
    assert np.array_equal(np.load(tmp_path / "scene.npy"), CUBE)
    for asked, said in (({"threshold": np.nan}, "threshold must be a number"), ({"batch_size": 0}, "above 0")):
        with pytest.raises(InputError, match=said):
            score_cube.write_map(rx_run, str(tmp_path / "scene.npy"), tmp_path / "map.hdr", **asked)
    assert {path.name for path in tmp_path.iterdir()} == {"scene.npy", "other.npy"}


@pytest.mark.parametrize("name", [".writing-map.hdr.part", ".writing-map.hdr.json", ".writing-map.hdr.lock"])
def test_a_planted_link_is_not_written_through(rx_run, tmp_path, name):
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / name).symlink_to(tmp_path / "notes.txt")
    np.save(tmp_path / "scene.npy", CUBE)
    with pytest.raises(InputError, match="is a link"):
        score_cube.write_map(rx_run, str(tmp_path / "scene.npy"), tmp_path / "map.hdr")
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_data_of_another_header_are_not_replaced(rx_run, tmp_path):
    """map.img may belong to map.img.hdr; where map.hdr is there too, both are an earlier map."""
    np.save(tmp_path / "scene.npy", CUBE)
    (tmp_path / "map.img").write_text("mine")
    with pytest.raises(InputError, match=r"map\.img is there without map\.hdr"):
        score_cube.write_map(rx_run, str(tmp_path / "scene.npy"), tmp_path / "map.hdr")
    assert (tmp_path / "map.img").read_text() == "mine"
    for _ in range(2):
        score_cube.write_map(rx_run, str(tmp_path / "scene.npy"), tmp_path / "other.hdr")
    assert not list(tmp_path.glob(".writing*"))


@pytest.mark.parametrize("way", ["_write_envi", "_write_numpy", "_write_mat"])
def test_a_full_disk_leaves_the_old_map(rx_run, tmp_path, monkeypatch, way):
    ending = {"_write_envi": "hdr", "_write_numpy": "npy", "_write_mat": "mat"}[way]
    np.save(tmp_path / "scene.npy", CUBE)
    out = tmp_path / f"map.{ending}"
    score_cube.write_map(rx_run, str(tmp_path / "scene.npy"), out)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full(*_):
        raise OSError(errno.ENOSPC, "full")

    with monkeypatch.context() as patch:
        patch.setattr(
            score_cube.Part, "_fill", lambda self, *rest: (_filled(self, *rest), patch.setattr(os, "fsync", full))
        )
        with pytest.raises(InputError, match="disk is full"):
            score_cube.write_map(rx_run, str(tmp_path / "scene.npy"), out, threshold=1.0)
    assert {n: b for n, b in ((p.name, p.read_bytes()) for p in tmp_path.iterdir()) if n in before} == before
    score_cube.write_map(rx_run, str(tmp_path / "scene.npy"), out, threshold=1.0)
    assert not list(tmp_path.glob(".writing*"))


_filled = score_cube.Part._fill


def test_blocks_from_the_file_are_those_in_memory(tmp_path, monkeypatch):
    pytest.importorskip("spectral")
    monkeypatch.setattr("tailwise.sources.cube.IN_MEMORY_BYTES", 10)
    data = registry.parse(f"Cube({str(write_envi(tmp_path))!r})", ("source",))[0].load_all().data
    assert not data.in_memory
    for index in (torch.arange(5, 200), torch.tensor([7, 8, 10]), torch.arange(0)):
        assert torch.equal(data.read(index), torch.from_numpy(CUBE.reshape(-1, 1, BANDS))[index])

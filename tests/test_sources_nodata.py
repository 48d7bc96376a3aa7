"""Pixels that hold no data, however a format says it: they neither train nor score, and the others are as alone."""

import base64
import struct

import numpy as np
import pandas as pd
import pytest
import scipy.io
import torch

from tailwise.cli.main import run as command
from tailwise.core import inference, registry
from tailwise.core.context import Scenes
from tailwise.core.data import Data
from tailwise.errors import InputError
from tailwise.runs.store import open_run
from tailwise.sources import cube as sources_cube
from tailwise.sources.cube import Cube
from tailwise.training.fit import fit

RNG = np.random.default_rng(1)
HEIGHT, WIDTH, BANDS = 12, 11, 6
VALUES = RNG.integers(1_000, 3_000, (HEIGHT, WIDTH, BANDS))
VALUES[2, 3, 1] = 0  # a dark band measures 0
# A flight line: its borders are slanted, and it has a hole.
EMPTY = np.abs(np.arange(WIDTH) - np.arange(HEIGHT)[:, None] / 2 - 2) > 4
EMPTY[5, 4] = True
ENVI_TYPES = {"u1": 1, "i2": 2, "i4": 3, "f4": 4, "f8": 5, "u2": 12, "u4": 13, "i8": 14, "u8": 15}


def cube_with(value, dtype):
    cube = VALUES.astype(dtype)
    cube[EMPTY] = value
    return cube


def write_envi(path, cube, more="", high_byte_first=False):
    path.with_suffix(".img").write_bytes(
        cube.astype(cube.dtype.newbyteorder(">" if high_byte_first else "<")).tobytes()
    )
    path.write_text(
        f"ENVI\nsamples = {cube.shape[1]}\nlines = {cube.shape[0]}\nbands = {cube.shape[2]}\ninterleave = bip\n"
        f"data type = {ENVI_TYPES[cube.dtype.str[1:]]}\nbyte order = {int(high_byte_first)}\n{more}"
    )
    return path


def envi(value, dtype, text, high_byte_first=False):
    return lambda folder: write_envi(
        folder / "a.hdr", cube_with(value, dtype), f"Data Ignore Value = {text}\n", high_byte_first
    )


def tiff(value, dtype, text, **options):
    def write(folder):
        bands = np.ascontiguousarray(np.moveaxis(cube_with(value, dtype), 2, 0))
        tags = [(42113, "s", 0, text, True)]
        pytest.importorskip("tifffile").imwrite(
            folder / "a.tif", bands, photometric="minisblack", extratags=tags, **options
        )
        return folder / "a.tif"

    return write


def zarr(value, dtype, fill=None, version=3, **attributes):
    def write(folder):
        store = pytest.importorskip("zarr").open_group(str(folder / "a.zarr"), mode="w", zarr_format=version)
        array = store.create_array("cube", data=cube_with(value, dtype), chunks=(3, WIDTH, BANDS), fill_value=fill)
        array.attrs.update(attributes)
        return folder / "a.zarr"

    return write


def matlab_7_3(value, dtype, fill=None, **attributes):
    def write(folder):
        h5py = pytest.importorskip("h5py")
        with h5py.File(folder / "a.mat", "w") as file:
            array = file.create_dataset("cube", data=cube_with(value, dtype).T, fillvalue=fill)
            array.attrs.update(attributes)
        return folder / "a.mat"

    return write


def arrays(value, dtype, **more):
    def write(folder):
        np.savez(folder / "a.npz", cube=cube_with(value, dtype), **more)
        return folder / "a.npz"

    return write


def matlab_5(folder):
    scipy.io.savemat(folder / "a.mat", {"cube": cube_with(-1, "f8"), "NoData": -1})
    return folder / "a.mat"


def unfinished_store(folder):
    """Chunks that were never written read as zeros."""
    store = pytest.importorskip("zarr").open_group(str(folder / "a.zarr"), mode="w")
    array = store.create_array("cube", shape=VALUES.shape, dtype="u2", chunks=(1, 1, BANDS))
    for row, column in np.argwhere(~EMPTY).tolist():
        array[row, column] = VALUES[row, column]
    return folder / "a.zarr"


FLOAT_LEAST = -3.4028234663852886e38
WRITERS = {
    "envi -9999": envi(-9999, "f4", "-9999"),
    "envi -9999.0 of int16, high byte first": envi(-9999, "i2", "-9999.0", high_byte_first=True),
    "envi 0 of uint16": envi(0, "u2", "0"),
    "envi 65535": envi(65535, "u2", "6.5535e4"),
    "envi nan": envi(np.nan, "f4", "nan"),
    "envi NaN, and a value that is not there": envi(np.nan, "f8", "-9999"),
    "envi the least float, shortened": envi(np.float32(FLOAT_LEAST), "f4", "-3.40282347e+38"),
    "envi the largest uint64": envi(2**64 - 1, "u8", str(2**64 - 1)),
    "tiff -9999": tiff(-9999, "i2", "-9999"),
    "tiff 0, planes": tiff(0, "u2", "0", planarconfig="separate"),
    "tiff nan": tiff(np.nan, "f4", "nan"),
    "zarr fill": zarr(-9999, "i2", fill=-9999),
    "zarr fill nan": zarr(np.nan, "f4", fill=np.nan),
    "zarr attribute": zarr(-1, "f4", _FillValue=-1),
    "zarr 2 as of xarray": zarr(65535, "u2", fill=65535, version=2),
    "zarr 3 as of xarray": zarr(-9999, "f8", fill=0.0, _FillValue=base64.b64encode(struct.pack("<d", -9999)).decode()),
    "zarr missing_value": zarr(-5, "i4", missing_value=-5),
    "zarr chunks never written": unfinished_store,
    "matlab 7.3 attribute": matlab_7_3(-9999, "f4", _FillValue=np.float32(-9999)),
    "matlab 7.3 fill": matlab_7_3(0, "u2", fill=0),
    "matlab 5": matlab_5,
    "npz scalar": arrays(-9999, "f4", nodata=-9999),
    "npz NaN": arrays(np.nan, "f4"),
}


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("name", WRITERS)
def test_what_holds_no_data_does_not_train(tmp_path, monkeypatch, name, streamed):
    if streamed:
        monkeypatch.setattr(sources_cube, "IN_MEMORY_BYTES", 10)
        monkeypatch.setattr(sources_cube, "_BLOCK_ENTRIES", 4 * BANDS)
    problem = Cube(str(WRITERS[name](tmp_path))).load()
    valid = torch.from_numpy(VALUES[~EMPTY].astype(np.float32))[:, None]
    train = problem.train
    assert torch.equal(train.read(torch.arange(len(train))), valid)
    assert list(train.names) == [f"{row},{column}" for row, column in np.argwhere(~EMPTY).tolist()]
    assert f"trains on {len(valid)} pixels of " in problem.facts.notes[0]
    assert f"{EMPTY.sum()} of {EMPTY.size} pixels hold no data" in problem.facts.notes[1]


def test_a_value_that_is_asked_for(tmp_path):
    np.save(tmp_path / "a.npy", cube_with(-1, "i4"))
    assert len(Cube(str(tmp_path / "a.npy")).load().train) == EMPTY.size
    source = Cube(str(tmp_path / "a.npy"), nodata="-1")
    assert len(source.load().train) == (~EMPTY).sum()
    assert registry.parse(repr(source), ("source",)) == (source,)
    with pytest.raises(InputError, match="nodata = 'none' is no number"):
        Cube(str(tmp_path / "a.npy"), nodata="none")


def test_a_value_that_nobody_declares_is_told(tmp_path):
    cube = cube_with(-9999, "f4")
    np.save(tmp_path / "a.npy", cube)
    count = EMPTY.sum()
    note = f"{count} of {EMPTY.size} pixels are -9999 in all bands, and count as measured"
    assert Cube(str(tmp_path / "a.npy")).load().facts.notes[-1].startswith(note)
    arguments = ["fit", str(tmp_path / "a.npy"), "--detector", "rx", "--nodata=-9999", "--out", str(tmp_path / "run")]
    assert command(arguments) == 0
    assert len(open_run(tmp_path / "run").scores()) == EMPTY.size - count
    np.save(tmp_path / "a.npy", VALUES)
    assert len(Cube(str(tmp_path / "a.npy")).load().facts.notes) == 1


def test_bands_left_out_do_not_make_a_pixel_hold_data(tmp_path):
    cube = cube_with(-9999, "f4")
    cube[:, :, 2] = 7
    source = Cube(str(write_envi(tmp_path / "a.hdr", cube, "data ignore value = -9999\n")))
    with pytest.raises(InputError, match=r"pixel 0,7 holds -9999, which means no data, in some bands \(\d+ such"):
        source.load()
    assert len(Cube(source.path, bad_bands=(2,)).load().train) == (~EMPTY).sum()


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(("value", "said"), [(-9999, "pixel 3,4 holds -9999"), (np.nan, "pixel 3,4 holds NaN")])
def test_single_bands_without_data_are_refused(tmp_path, monkeypatch, value, said, streamed):
    cube = cube_with(-9999, "f4")
    cube[3, 4, 2] = value
    path = write_envi(tmp_path / "a.hdr", cube, "data ignore value = -9999\n")
    monkeypatch.setattr(sources_cube, "IN_MEMORY_BYTES", 10 if streamed else 1_000_000)
    with pytest.raises(InputError, match=said):
        Cube(str(path)).load()


def test_a_cube_without_any_data_is_refused(tmp_path):
    path = write_envi(tmp_path / "a.hdr", np.zeros((3, 4, 5), "f4"), "data ignore value = 0\n")
    with pytest.raises(InputError, match=r"all 12 pixels of .* hold no data"):
        Cube(str(path)).load()


def test_a_value_that_is_no_number_is_refused(tmp_path):
    path = write_envi(tmp_path / "a.hdr", np.ones((3, 4, 5), "f4"), "data ignore value = nothing\n")
    with pytest.raises(InputError, match=r"a\.hdr: data ignore value = 'nothing' is no number"):
        Cube(str(path)).load()


def test_labels_and_folders(tmp_path):
    labels = np.zeros((HEIGHT, WIDTH), bool)
    labels[6, 5] = labels[0, -1] = True  # the second holds no data
    for part in ("train", "test"):
        (tmp_path / part).mkdir()
        np.savez(tmp_path / part / "a.npz", cube=cube_with(np.nan, "f4"), gt=labels)
    problem = Cube(str(tmp_path)).load()
    assert len(problem.train) == len(problem.test.data) == (~EMPTY).sum()
    assert [problem.test.data.names[i] for i in np.flatnonzero(problem.test.labels)] == ["test/a.npz:6,5"]
    everything = Cube(str(tmp_path)).load_all()
    assert len(everything.every_name) == 2 * EMPTY.size
    assert {everything.every_name[0], everything.every_name[EMPTY.size]} == {"train/a.npz:0,0", "test/a.npz:0,0"}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Runs of a cube whose first third holds no data, and of the other two thirds alone."""
    folder = tmp_path_factory.mktemp("runs")
    cube = RNG.normal(size=(30, 30, 4)).astype("f4")
    cube[20, 25] += 4
    np.save(folder / "valid.npy", cube[:, 10:])
    cube[:, :10] = -9999
    write_envi(folder / "whole.hdr", cube, "data ignore value = -9999\n")
    for name in ("valid.npy", "whole.hdr"):
        assert command(["fit", str(folder / name), "--detector", "rx", "--out", str(folder / name[:5])]) == 0
    return folder


def test_scores_are_those_of_the_valid_pixels_alone(runs):
    whole, valid = open_run(runs / "whole"), open_run(runs / "valid")
    assert np.array_equal(whole.scores().score, valid.scores().score)
    assert whole.settings.threshold == valid.settings.threshold
    assert whole.scores()["sample"][0] == "0,10"


@pytest.mark.parametrize("streamed", [False, True])
def test_tables_and_maps_have_nan_where_there_is_no_data(runs, tmp_path, monkeypatch, capsys, streamed):
    monkeypatch.setattr(sources_cube, "IN_MEMORY_BYTES", 10 if streamed else 10**9)
    monkeypatch.setattr("tailwise.workflows.score_cube._BLOCK_ENTRIES", 7 * 30 * 4)
    for name in ("s.csv", "m.npy", "m.hdr"):
        arguments = ["score", str(runs / "whole"), str(runs / "whole.hdr"), "--out", str(tmp_path / name)]
        assert command(arguments) == 0
    assert "300 of 900 pixels hold no data and are left out" in capsys.readouterr().err
    table, scores = pd.read_csv(tmp_path / "s.csv"), np.load(tmp_path / "m.npy")
    assert table["sample"].tolist() == [f"{i // 30},{i % 30}" for i in range(900)]
    assert np.isnan(scores[:, :10]).all()
    assert np.isfinite(scores[:, 10:]).all()
    assert np.unravel_index(np.nanargmax(scores), scores.shape) == (20, 25)
    np.testing.assert_allclose(table.score.to_numpy().reshape(30, 30), scores, rtol=1e-5)
    assert not table.flagged[table.score.isna()].any()
    assert table.flagged[20 * 30 + 25]
    np.testing.assert_array_equal(np.fromfile(tmp_path / "m.img", "<f4"), scores.ravel())
    assert "data ignore value = nan" in (tmp_path / "m.hdr").read_text()
    # The map of scores is itself a cube of one band, whose gaps hold no data.
    assert len(Cube(str(tmp_path / "m.hdr")).load().train) == 600


def data_of(cube):
    pixels = torch.from_numpy(cube.reshape(-1, 1, cube.shape[2]))
    place = (~pixels[:, 0, 0].isnan()).nonzero().flatten()
    return Data(pixels[place], [str(i) for i in place.tolist()], context=Scenes(pixels, (cube.shape[:2],), place))


def windows(cube, inner, outer):
    """Each valid pixel, and the valid pixels between its windows, by a plain loop."""
    height, width, _ = cube.shape
    for row, column in np.argwhere(~np.isnan(cube[..., 0])).tolist():
        inside = []
        for side in (outer, inner):
            top = min(max(row - side // 2, 0), height - side)
            left = min(max(column - side // 2, 0), width - side)
            inside.append({(r, c) for r in range(top, top + side) for c in range(left, left + side)})
        around = [cube[place] for place in inside[0] - inside[1] if not np.isnan(cube[place][0])]
        yield cube[row, column], np.array(around).reshape(-1, cube.shape[2])


def test_no_window_of_local_rx_takes_what_holds_no_data():
    cube = RNG.normal(size=(17, 14, 4)).astype("f4")
    cube[np.abs(np.arange(14) - np.arange(17)[:, None] / 2) > 4] = np.nan
    detector = registry.find("detector", "local-rx")(inner=3, outer=7)
    data = data_of(cube)
    fit(detector, data)
    expected = []
    for pixel, around in windows(cube.astype(float), 3, 7):
        apart = pixel - around.mean(0) if len(around) > 4 else np.full(4, np.nan)
        expected.append(apart @ np.linalg.inv(np.cov(around.T)) @ apart if len(around) > 4 else np.nan)
    np.testing.assert_allclose(inference.score(detector, data).numpy(), expected, rtol=1e-4)


def test_no_window_of_collaborative_takes_what_holds_no_data():
    """A scene with fewer pixels in the window's own shape: the same system, solved over the valid pixels alone."""
    cube = 2 + RNG.random(size=(13, 12, 4)).astype("f4")
    cube[np.abs(np.arange(12) - np.arange(13)[:, None] / 2) > 5] = np.nan
    detector = registry.find("detector", "collaborative")(inner=3, outer=7)
    data = data_of(cube)
    fit(detector, data)
    found = inference.score(detector, data).numpy()
    for score, (pixel, around) in zip(found, windows(cube.astype(float), 3, 7), strict=True):
        if not len(around):
            assert np.isnan(score)
            continue
        size = np.linalg.norm(around, axis=1).mean()
        y, x = pixel / size, around / size
        # Least squares of stacked rows: the mixture, its sum of 1, and the penalty of distant spectra.
        apart = ((x - y) ** 2).sum(1)
        penalty = np.sqrt(1e-2 * (apart + 1e-6 * max(apart.mean(), 1e-12)))
        rows = np.vstack([x.T, np.ones(len(x)), np.diag(penalty)])
        mixture = np.linalg.lstsq(rows, np.concatenate([y, [1], np.zeros(len(x))]), rcond=None)[0]
        assert score == pytest.approx(np.linalg.norm(y - mixture @ x), rel=1e-4, abs=1e-6)


def test_a_pixel_alone_in_the_void_has_no_score_and_the_fit_is_whole(tmp_path):
    cube = RNG.normal(size=(30, 30, 3)).astype("f4")
    cube[:, :12] = np.nan
    cube[4, 2] = 1
    np.save(tmp_path / "a.npy", cube)
    out = tmp_path / "run"
    assert command(["fit", str(tmp_path / "a.npy"), "--detector", "LocalRX(outer=7)", "--out", str(out)]) == 0
    table = open_run(out).scores().set_index("sample")
    assert table.score[table.score.isna()].index.tolist() == ["4,2"]
    assert np.isfinite(open_run(out).settings.threshold)

"""Cubes: the same pixels from every format, in memory or streamed; calibration against known reflectances."""

import numpy as np
import pytest
import scipy.io
import torch
from PIL import Image

from tailwise.core.registry import parse
from tailwise.errors import InputError
from tailwise.sources import cube as sources_cube
from tailwise.sources.auto import open_source
from tailwise.sources.cube import Cube

RNG = np.random.default_rng(0)
VALUES = RNG.integers(0, 4_000, (4, 5, 6)).astype(np.uint16)
WAVES = np.array([400, 500.5, 600, 700, 800, 900])
MASK = np.zeros((4, 5), np.uint8)
MASK[1, 2] = MASK[3, 4] = 1


def write(path, values=VALUES, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".mat":
        scipy.io.savemat(path, {"data": values, "wavelengths": WAVES[:, None], **options})
    elif path.suffix == ".npz":
        np.savez(path, data=values, wavelengths=WAVES, **options)
    elif path.suffix == ".npy":
        np.save(path, values)
    elif path.suffix == ".tif":
        pytest.importorskip("tifffile").imwrite(path, np.moveaxis(values, 2, 0), photometric="minisblack")
    elif path.suffix == ".zarr":
        store = pytest.importorskip("zarr").open_group(str(path), mode="w")
        store.create_array("reflectance", data=values, chunks=(3, 5, 2), dimension_names=("y", "x", "wavelength"))
        store.create_array("wavelength", data=WAVES)
        for name, array in options.items():
            store.create_array(name, data=array)
    else:
        envi = pytest.importorskip("spectral.io.envi")
        header = {"wavelength": (WAVES / 1_000).tolist(), "wavelength units": "Micrometers", **options}
        envi.save_image(str(path), values, interleave=header.pop("layout", "bil"), dtype=values.dtype, metadata=header)
    return str(path)


def expected(values=VALUES):
    return torch.from_numpy(values.astype(np.float32).reshape(-1, 1, values.shape[2]))


@pytest.mark.parametrize("name", ["a b.mat", "ä.npz", "a.npy", "a.tif", "a.hdr", "a b.zarr"])
def test_every_format_gives_the_same_pixels(tmp_path, name):
    problem = Cube(write(tmp_path / name)).load()
    assert torch.equal(problem.train.samples, expected())
    assert problem.layout == {"height": 4, "width": 5}
    assert [problem.train.names[i] for i in (0, 7, -1)] == ["0,0", "1,2", "3,4"]
    assert list(problem.train.names)[:6] == ["0,0", "0,1", "0,2", "0,3", "0,4", "1,0"]
    if name[-3:] not in ("npy", "tif"):
        assert problem.train.features == ("400", "500.5", "600", "700", "800", "900")
    assert problem.test is None


@pytest.mark.parametrize(
    ("measure", "first"), [("Nanometers", "90"), ("Micrometers", "90000"), ("um", "90000"), ("Unknown", "90000")]
)
def test_the_header_of_envi_says_what_wavelengths_are_measured_in(tmp_path, measure, first):
    pytest.importorskip("spectral")
    (tmp_path / "a.img").write_bytes(VALUES.astype("<f4").tobytes())
    (tmp_path / "a.hdr").write_text(
        "ENVI\nsamples = 5\nlines = 4\nbands = 6\nheader offset = 0\ndata type = 4\ninterleave = bip\nbyte order = 0\n"
        f"wavelength units = {measure}\nwavelength = {{90, 91, 92, 93, 94, 95}}\n"
    )
    assert Cube(str(tmp_path / "a.hdr")).load().train.features[0] == first


def test_a_zarr_store_is_read_by_rows_and_its_mask_is_known(tmp_path, monkeypatch):
    source = open_source(write(tmp_path / "a.zarr", gt=MASK))
    assert isinstance(source, Cube)
    assert source.load().test.labels.tolist() == MASK.ravel().astype(bool).tolist()
    monkeypatch.setattr(sources_cube, "IN_MEMORY_BYTES", 10)
    streamed = source.load().train
    assert not streamed.in_memory
    for index in ([19, 3, 3, 7], range(6, 17)):
        assert torch.equal(streamed.read(torch.tensor(index)), expected()[list(index)])
    write(tmp_path / "folder/b.npy")
    write(tmp_path / "folder/c.zarr")
    assert torch.equal(open_source(tmp_path / "folder").load().train.read(torch.tensor([19, 20])), expected()[[19, 0]])


def test_a_store_as_xarray_writes_it(tmp_path):
    zarr = pytest.importorskip("zarr")
    store = zarr.open_group(str(tmp_path / "a.zarr"), mode="w", zarr_format=2)
    cube = store.create_array("refl", data=np.moveaxis(VALUES, 2, 0), chunks=(6, 3, 5))
    cube.attrs.update({"_ARRAY_DIMENSIONS": ["wavelength", "y", "x"], "scale_factor": 0.5})
    store.create_array("wavelength", data=WAVES)
    train = Cube(str(tmp_path / "a.zarr")).load().train
    assert torch.equal(train.samples, expected() * 0.5)
    assert train.features[1] == "500.5"
    cube.attrs["add_offset"] = 3.0
    with pytest.raises(InputError, match=r"moved by 3\.0"):
        Cube(str(tmp_path / "a.zarr")).load()


def test_stores_that_are_refused(tmp_path):
    write(tmp_path / "a.zarr")
    (chunk,) = list((tmp_path / "a.zarr/reflectance").rglob("c/0/0/0"))
    chunk.write_bytes(b"torn")
    with pytest.raises(InputError, match="cannot read"):
        Cube(str(tmp_path / "a.zarr")).load()
    (tmp_path / "b.zarr").mkdir()
    with pytest.raises(InputError, match="cannot open"):
        Cube(str(tmp_path / "b.zarr")).load()
    numcodecs = pytest.importorskip("numcodecs")
    zarr = pytest.importorskip("zarr")
    zarr.create_array(
        str(tmp_path / "c.zarr"), data=VALUES.astype(np.uint8), zarr_format=2, compressors=numcodecs.Pickle()
    )
    # zarr reads no numbers through a codec for objects; nothing here asks it for arrays of another kind.
    with pytest.raises(InputError, match="cannot open"):
        Cube(str(tmp_path / "c.zarr")).load()


@pytest.mark.parametrize("block", [0, 512])
def test_matlab_7_3(tmp_path, block):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "a.mat", "w", userblock_size=block) as file:
        file["cube"], file["gt"] = VALUES.T, MASK.T
    everything = Cube(str(tmp_path / "a.mat")).load_all()
    assert torch.equal(everything.data.samples, expected())
    assert np.array_equal(everything.labels.reshape(4, 5), MASK == 1)


@pytest.mark.parametrize("layout", ["bip", "bil", "bsq"])
def test_envi_streams_the_same_pixels(tmp_path, monkeypatch, layout):
    monkeypatch.setattr(sources_cube, "IN_MEMORY_BYTES", 10)
    train = Cube(write(tmp_path / "a.hdr", layout=layout)).load().train
    assert not train.in_memory
    index = torch.tensor([19, 3, 3, 8])
    assert torch.equal(train.read(index), expected()[index])
    assert torch.equal(train.take([4, 2]).read(torch.tensor([1])), expected()[[2]])


def test_the_data_file_of_an_envi_pair(tmp_path):
    write(tmp_path / "a.hdr")
    assert torch.equal(Cube(str(tmp_path / "a.img")).load().train.samples, expected())


def test_labels_of_the_scene(tmp_path):
    problem = Cube(write(tmp_path / "a.mat", map=MASK)).load()
    assert problem.test.labels.reshape(4, 5).tolist() == (MASK == 1).tolist()
    assert "single scene" in problem.facts.notes[0]
    assert len(problem.train) == len(problem.test.data) == 20


def test_labels_by_name_or_path(tmp_path):
    source = Cube(write(tmp_path / "a.mat", targets=MASK), labels="targets")
    assert source.load().test.labels.sum() == 2
    assert Cube(source.path).load().test is None
    Image.fromarray(MASK * 255).save(tmp_path / "m.png")
    np.save(tmp_path / "m.npy", MASK)
    for name in ("m.png", "m.npy"):
        assert Cube(source.path, labels=str(tmp_path / name)).load().test.labels.sum() == 2
    np.save(tmp_path / "m.npy", MASK.T)
    with pytest.raises(InputError, match=r"mask of .* is \[5, 4\]: the cube is 4 x 5"):
        Cube(source.path, labels=str(tmp_path / "m.npy")).load()


def test_bad_bands_leave_their_wavelengths_out(tmp_path):
    source = Cube(write(tmp_path / "a.hdr", bbl=[1, 1, 1, 1, 1, 0]), bad_bands=[0, [2, 3]])
    train = source.load().train
    assert train.features == ("500.5", "800")
    assert torch.equal(train.samples, expected()[:, :, [1, 4]])
    assert parse(repr(source), ("source",)) == (source,)
    with pytest.raises(InputError, match=r"\(4, 6\) is not among the bands 0 to 5"):
        Cube(source.path, bad_bands=((4, 6),)).load()
    with pytest.raises(InputError, match="all 6 bands"):
        Cube(source.path, bad_bands=((0, 5),)).load()


@pytest.mark.parametrize("streamed", [False, True])
def test_calibration_returns_the_reflectance(tmp_path, monkeypatch, streamed):
    reflectance = RNG.random((4, 5, 6))
    dark, gain = RNG.random((5, 6)) * 10, 50 + RNG.random((5, 6))
    gain[2, 3] = 0
    raw = write(tmp_path / "raw.npy", reflectance * gain + dark)
    white = write(tmp_path / "white.npy", np.repeat((gain + dark)[None], 3, 0))
    black = write(tmp_path / "dark.npy", np.repeat(dark[None], 7, 0))
    monkeypatch.setattr(sources_cube, "IN_MEMORY_BYTES", 0 if streamed else 1_000)
    train = Cube(raw, white=white, dark=black).load().train
    wanted = reflectance.copy()
    wanted[:, 2, 3] = 0
    np.testing.assert_allclose(train.read(torch.arange(20)).numpy(), wanted.reshape(20, 1, 6), atol=1e-5)


@pytest.mark.parametrize(("level", "dark"), [(0.0, None), (1e-40, None), (-3.0, None), (5.0, 9.0)])
def test_a_white_reference_without_light_is_refused_by_name(tmp_path, level, dark):
    """Divided by it, everything was 0 or beyond all numbers."""
    raw, white = write(tmp_path / "raw.npy"), write(tmp_path / "white.npy", np.full((1, 5, 6), level))
    black = None if dark is None else write(tmp_path / "dark.npy", np.full((1, 5, 6), dark))
    with pytest.raises(InputError, match=r"white\.npy is nowhere brighter than"):
        Cube(raw, white=white, dark=black).load()


def test_references_must_fit(tmp_path):
    raw = write(tmp_path / "raw.npy")
    with pytest.raises(InputError, match="has 4 bands"):
        Cube(raw, white=write(tmp_path / "w.npy", VALUES[:, :, :4])).load()
    with pytest.raises(InputError, match="is 3 pixels wide"):
        Cube(raw, dark=write(tmp_path / "w.npy", VALUES[:, :3])).load()


def test_a_folder_of_cubes(tmp_path, monkeypatch):
    write(tmp_path / "b10.npy", VALUES[:2])
    write(tmp_path / "b2.npy")
    source = Cube(str(tmp_path))
    problem = source.load()
    assert torch.equal(problem.train.samples, torch.cat([expected(), expected(VALUES[:2])]))
    assert [problem.train.names[i] for i in (19, 20)] == ["b2.npy:3,4", "b10.npy:0,0"]
    names = problem.train.take(range(1, 30, 3)).names
    assert list(names) == [names[i] for i in range(10)]
    assert names[2:9:3] == [names[i] for i in (2, 5, 8)]
    assert [scene["height"] for scene in problem.layout["cubes"]] == [4, 2]
    monkeypatch.setattr(sources_cube, "IN_MEMORY_BYTES", 10)
    index = torch.tensor([25, 1, 19, 20])
    assert torch.equal(source.load().train.read(index), problem.train.samples[index])
    write(tmp_path / "c.npy", VALUES[:, :, :3])
    with pytest.raises(InputError, match=r"c\.npy has 3 bands, b2\.npy has 6"):
        source.load()


def test_training_and_test_folders(tmp_path):
    write(tmp_path / "train/a.npy")
    write(tmp_path / "test/b.npy", VALUES[::-1])
    Image.fromarray(MASK * 255).save(tmp_path / "test/b_mask.png")
    source = Cube(str(tmp_path))
    problem = source.load()
    assert torch.equal(problem.train.samples, expected())
    assert torch.equal(problem.test.data.samples, expected(VALUES[::-1].copy()))
    assert problem.test.labels.sum() == 2
    assert source.load_all().labels.tolist() == MASK.ravel().astype(bool).tolist() + [False] * 20
    write(tmp_path / "test/c.npy")
    with pytest.raises(InputError, match=r"test/c\.npy has no mask"):
        source.load()


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"x": np.eye(3)}, r"no array with 3 axes .*x \[3, 3\]"),
        ({"x": VALUES, "y": VALUES}, "several arrays with 3 axes: x, y.*key="),
        ({"x": np.zeros((0, 2, 3))}, "nothing is in it"),
    ],
)
def test_which_array_is_the_cube(tmp_path, arrays, said):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(InputError, match=said):
        Cube(str(tmp_path / "a.npz")).load()


def test_key_chooses(tmp_path):
    np.savez(tmp_path / "a.npz", first=VALUES, second=VALUES[:, :, ::-1])
    assert torch.equal(Cube(str(tmp_path / "a.npz"), key="first").load().train.samples, expected())
    with pytest.raises(InputError, match="did you mean 'second'"):
        Cube(str(tmp_path / "a.npz"), key="secnd").load()


@pytest.mark.parametrize("streamed", [False, True])
def test_nan_pixels_are_named(tmp_path, monkeypatch, streamed):
    values = VALUES.astype(np.float32)
    values[2, 1, 3] = np.nan
    path = write(tmp_path / "a.npy", values)
    monkeypatch.setattr(sources_cube, "IN_MEMORY_BYTES", 0 if streamed else 1_000)
    with pytest.raises(InputError, match=r"pixel 2,1 holds NaN"):
        Cube(path).load().train.read(torch.arange(20))
    assert Cube(path, bad_bands=(3,)).load().train.read(torch.arange(20)).isfinite().all()


@pytest.mark.parametrize("name", ["a.mat", "a.hdr", "a.npz", "a.tif"])
def test_broken_files(tmp_path, name):
    (tmp_path / name).write_bytes(b"not a cube at all" * 20)
    with pytest.raises(InputError, match="cannot"):
        Cube(str(tmp_path / name)).load()


def test_envi_without_its_data(tmp_path):
    write(tmp_path / "a.hdr")
    (tmp_path / "a.img").unlink()
    with pytest.raises(InputError, match="data file lies beside"):
        Cube(str(tmp_path / "a.hdr")).load()


def test_at_keeps_bands_and_calibration():
    source = Cube("a.mat", bad_bands=(1,), white="w.npy", labels="gt.png")
    assert source.at("b.mat") == Cube("b.mat", bad_bands=(1,), white="w.npy")


def test_a_mask_of_another_size(tmp_path):
    np.savez(tmp_path / "c.npz", cube=VALUES, mask=np.zeros((2, 2)))
    with pytest.raises(InputError, match=r"mask is \[2, 2\]: the cube is"):
        Cube(tmp_path / "c.npz").load()


def test_a_cut_envi_file(tmp_path):
    path = write(tmp_path / "c.hdr")
    data = next(p for p in tmp_path.iterdir() if p.suffix != ".hdr")
    data.write_bytes(data.read_bytes()[:-1])
    with pytest.raises(InputError, match=f"holds {data.stat().st_size} bytes.*{data.stat().st_size + 1}"):
        Cube(path).load()

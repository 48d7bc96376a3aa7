"""Cubes in other formats than ENVI: which axis holds the bands, what is no cube, and how damaged files are refused."""

import json

import numpy as np
import pytest
import scipy.io
import scipy.sparse
import torch
from PIL import Image

from tailwise.errors import InputError
from tailwise.sources.auto import open_source
from tailwise.sources.cube import Cube, is_reference
from tailwise.sources.cube_files import is_stack

VALUES = np.random.default_rng(3).random((7, 9, 6)).astype("<f4")
WAVES = np.linspace(400, 900, 6)


def pixels(values=VALUES):
    return torch.from_numpy(values.reshape(-1, 1, values.shape[2]).astype(np.float32))


def read(path):
    return Cube(str(path)).load().train


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("ending", ["npz", "mat", "zarr", "7.3.mat"])
def test_the_axis_of_the_bands_is_as_long_as_the_wavelengths(tmp_path, axis, ending):
    cube, path = np.moveaxis(VALUES, 2, axis), tmp_path / f"a.{ending}"
    mask = np.eye(7, 9)
    if ending == "npz":
        np.savez(path, cube=cube, wavelengths=WAVES, gt=mask)
    elif ending == "mat":
        scipy.io.savemat(path, {"cube": cube, "Wavelength": WAVES[:, None], "gt": mask})
    elif ending == "7.3.mat":
        with pytest.importorskip("h5py").File(path, "w") as file:
            file["cube"], file["wavelengths"], file["gt"] = cube.T, WAVES, mask.T
    else:
        store = pytest.importorskip("zarr").open_group(str(path), mode="w")
        store.create_array("cube", data=np.ascontiguousarray(cube), chunks=(2, 2, 2))
        store.create_array("wavelength", data=WAVES)
        store.create_array("gt", data=mask)
    problem = Cube(str(path)).load()
    assert torch.equal(problem.train.samples, pixels())
    assert problem.train.features == ("400", "500", "600", "700", "800", "900")
    assert problem.test.labels.reshape(7, 9).tolist() == (mask == 1).tolist()


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_fit_says_the_sizes_that_it_read(tmp_path, axis):
    np.save(tmp_path / "a.npy", np.moveaxis(VALUES, 2, axis))
    height, width, bands = np.moveaxis(VALUES, 2, axis).shape
    said = f"trains on {height * width} pixels of a.npy ({height} x {width} pixels of"
    assert Cube(str(tmp_path / "a.npy")).load().facts.notes == (f"{said} {bands} bands)",)
    assert Cube(str(tmp_path / "a.npy"), bad_bands="1").load().facts.notes == (f"{said} {bands - 1} of {bands} bands)",)


def test_wavelengths_that_fit_no_axis_or_two_are_refused(tmp_path):
    np.savez(tmp_path / "a.npz", cube=VALUES, wavelengths=np.arange(5))
    with pytest.raises(InputError, match=r"wavelengths has 5 entries, and cube is \[7, 9, 6\]: no axis is as long"):
        read(tmp_path / "a.npz")
    np.savez(tmp_path / "a.npz", cube=np.zeros((6, 6, 4)), wavelengths=WAVES)
    with pytest.raises(InputError, match=r"wavelengths has 6 entries, and cube is \[6, 6, 4\]: two axes are as long"):
        read(tmp_path / "a.npz")
    # Where the last axis fits, it holds the bands.
    np.savez(tmp_path / "a.npz", cube=VALUES[:6, :6], wavelengths=WAVES, wavelength_step=100.0)
    assert torch.equal(read(tmp_path / "a.npz").samples, pixels(np.ascontiguousarray(VALUES[:6, :6])))


TIFFS = {
    "pages": {"first": True},
    "planes": {"first": True, "planarconfig": "separate"},
    "planes in strips": {"first": True, "planarconfig": "separate", "rowsperstrip": 2},
    "planes in tiles, packed": {"first": True, "planarconfig": "separate", "tile": (16, 16), "compression": "zlib"},
    "planes without a note of axes": {"first": True, "planarconfig": "separate", "metadata": None},
    "samples of a pixel together": {"first": False, "planarconfig": "contig"},
    "together in tiles": {"first": False, "planarconfig": "contig", "tile": (16, 16), "metadata": None},
    "high byte first": {"first": True, "planarconfig": "separate", "byteorder": ">"},
    "large": {"first": True, "planarconfig": "separate", "bigtiff": True},
}


@pytest.mark.parametrize("name", TIFFS)
def test_bands_of_a_tiff_however_they_are_stored(tmp_path, name):
    options = dict(TIFFS[name])
    cube = np.ascontiguousarray(np.moveaxis(VALUES, 2, 0)) if options.pop("first") else VALUES
    byteorder, big = options.pop("byteorder", "<"), options.pop("bigtiff", False)
    with pytest.importorskip("tifffile").TiffWriter(tmp_path / "a.tif", byteorder=byteorder, bigtiff=big) as file:
        file.write(cube, photometric="minisblack", **options)
    assert is_stack(tmp_path / "a.tif")
    source = open_source(tmp_path / "a.tif")
    assert isinstance(source, Cube)
    assert torch.equal(source.load().train.samples, pixels())


@pytest.mark.parametrize("flagged", [False, True])
@pytest.mark.parametrize("inside", [False, True])
def test_smaller_copies_are_no_bands(tmp_path, flagged, inside):
    """A colour picture and a cube, each with five smaller copies as pages of their own or below the first page."""
    tifffile = pytest.importorskip("tifffile")
    cube = np.random.default_rng(0).integers(0, 255, (64, 64, 6), dtype="u1")
    kind = {"subfiletype": 1} if flagged or inside else {}
    for name, values, options in (
        ("picture.tif", np.ascontiguousarray(cube[..., :3]), {"photometric": "rgb"}),
        ("cube.tif", cube, {"photometric": "minisblack", "planarconfig": "contig"}),
    ):
        with tifffile.TiffWriter(tmp_path / name) as file:
            file.write(values, subifds=5 if inside else None, **options)
            for level in range(1, 6):
                file.write(np.ascontiguousarray(values[:: 2**level, :: 2**level]), **kind, **options)
    assert not is_stack(tmp_path / "picture.tif")
    assert not isinstance(open_source(tmp_path / "picture.tif"), Cube)
    assert is_stack(tmp_path / "cube.tif")
    assert torch.equal(read(tmp_path / "cube.tif").samples, pixels(cube))


def test_a_mask_beside_a_cube_with_brackets_in_its_name(tmp_path):
    for name, count in (("scan[1]", 5), ("scan1", 63), ("a*b", 4), ("axxb", 63), ("q?", 3), ("qq", 63), ("[!a]", 2)):
        np.save(tmp_path / f"{name}.npy", VALUES)
        np.save(tmp_path / f"{name}_mask.npy", np.arange(63).reshape(7, 9) < count)
    for name, count in (("scan[1]", 5), ("a*b", 4), ("q?", 3), ("[!a]", 2)):
        assert Cube(str(tmp_path / f"{name}.npy")).load().test.labels.sum() == count


REFERENCES = [
    "dark.hdr", "Dark_1.hdr", "DARKREF_scan1.hdr", "WHITEREF_scan1.hdr", "scan_dark.npy", "scan-White-2.mat",
    "whiteReference.npz", "scan1_DarkRef.hdr", "2020-01-01_WhiteRef_3.tif", "calibration01.hdr", "CALIB.npy",
    "dark/0001.npy",
    "train/White Reference/3.npy", "darkFrame.npy", "x/WHITE_PANEL.npy", "darkcurrent12.hdr",
]  # fmt: skip
SCANS = [
    "scan.hdr",
    "Whitman_3.npy",
    "0001.npy",
    "train/a.npy",
    "bread3.npz",
    "darker_side/3.npy",
    "semidark.npy",
    "ward.npy",
]


@pytest.mark.parametrize("name", REFERENCES)
def test_names_of_references(name):
    assert is_reference(name)


@pytest.mark.parametrize("name", SCANS)
def test_names_of_scans(name):
    assert not is_reference(name)


def test_references_beside_scans_do_not_train_unless_they_are_asked_for(tmp_path):
    for name, values in (("a", VALUES), ("b", VALUES[::-1]), ("DARKREF_a", VALUES[:2, :, :3]), ("a_white", VALUES + 1)):
        np.save(tmp_path / f"{name}.npy", values)
    problem = Cube(str(tmp_path)).load()
    assert torch.equal(problem.train.samples, torch.cat([pixels(), pixels(VALUES[::-1].copy())]))
    assert problem.facts.notes == (
        "trains on 126 pixels of 2 cubes of 6 bands: a.npy 63 (7 x 9), b.npy 63 (7 x 9)",
        "not read as scans, because their names say that they are references: a_white.npy, DARKREF_a.npy; --white and "
        "--dark calibrate by them",
    )
    asked = Cube(str(tmp_path), white=str(tmp_path / "a_white.npy")).load()
    white = (VALUES + 1).astype(np.float64).mean(0).astype(np.float32)
    np.testing.assert_allclose(asked.train.samples[:63].numpy(), pixels(VALUES / white).numpy(), rtol=1e-6)
    assert "DARKREF_a.npy" in asked.facts.notes[-1]
    assert "a_white" not in asked.facts.notes[-1]
    assert len(read(tmp_path / "a_white.npy")) == 63
    for name in ("a.npy", "b.npy"):
        (tmp_path / name).unlink()
    with pytest.raises(InputError, match=r"holds no cubes but references: a_white\.npy, DARKREF_a\.npy"):
        Cube(str(tmp_path)).load()


def hdf5(path):
    return pytest.importorskip("h5py").File(path, "w")


def test_axes_of_a_file_that_matlab_did_not_write_are_told_of(tmp_path, caplog):
    with hdf5(tmp_path / "a.mat") as file:
        file["cube"] = VALUES
    assert open_source(tmp_path / "a.mat").load().train.sample_shape == (1, 7)
    assert [record.getMessage() for record in caplog.records] == [
        f"{tmp_path / 'a.mat'}: nothing says that MATLAB wrote this, and it is read as MATLAB writes: "
        "6 x 9 pixels of 7 bands; if they are 7 x 9 pixels of 6 bands, "
        "save the cube as [height, width, bands] in a .npy or .npz file"
    ]
    np.save(tmp_path / "a.npy", VALUES)
    assert read(tmp_path / "a.npy").sample_shape == (1, 6)
    (tmp_path / "a.npy").unlink()
    (tmp_path / "b.mat").write_bytes((tmp_path / "a.mat").read_bytes())
    Cube(str(tmp_path)).load()
    assert "a.mat and 1 more: " in caplog.records[-1].getMessage()
    assert len(caplog.records) == 2


@pytest.mark.parametrize("sign", ["attribute", "block", "wavelengths"])
def test_axes_are_in_no_doubt_where_the_file_says_what_they_are(tmp_path, caplog, sign):
    path = tmp_path / "a.mat"
    with pytest.importorskip("h5py").File(path, "w", userblock_size=512) as file:
        file["cube"] = VALUES.T
        if sign == "attribute":
            file["cube"].attrs["MATLAB_class"] = np.bytes_("single")
        if sign == "wavelengths":
            file["wavelengths"] = WAVES
    if sign == "block":
        path.write_bytes(b"MATLAB 7.3 MAT-file".ljust(512, b"\0") + path.read_bytes()[512:])
    assert torch.equal(read(path).samples, pixels())
    assert not caplog.records


def test_a_mask_that_fits_the_other_reading_is_refused_with_what_to_do(tmp_path):
    with hdf5(tmp_path / "a.mat") as file:
        file["cube"], file["map"] = VALUES, np.zeros((7, 9))
    with pytest.raises(InputError, match=r"map is \[9, 7\]: the cube is 6 x 9 \(save the cube as \[height, "):
        read(tmp_path / "a.mat")


def test_links_inside_a_file_are_followed_and_none_leads_out(tmp_path):
    h5py = pytest.importorskip("h5py")
    with hdf5(tmp_path / "private.h5") as file:
        file["x"] = VALUES.T
    (tmp_path / "raw.bin").write_bytes(VALUES.tobytes())
    with hdf5(tmp_path / "inside.mat") as file:
        file["group/deep/x"] = VALUES.T
        file["group/short"] = h5py.SoftLink("deep/x")
        file["cube"] = h5py.SoftLink("/group/short")
        file["nowhere"], file["circle"] = h5py.SoftLink("/missing/x"), h5py.SoftLink("/circle")
    assert torch.equal(read(tmp_path / "inside.mat").samples, pixels())

    def external(file):
        file["cube"] = h5py.ExternalLink("private.h5", "x")

    def soft_over_external(file):
        file["other"] = h5py.SoftLink("/hidden/out")
        file["hidden/out"] = h5py.ExternalLink("private.h5", "x")

    def soft_into_external(file):
        file["cube"] = h5py.SoftLink("/hidden/out/x")
        file["hidden/out"] = h5py.ExternalLink("private.h5", "/")

    def storage(file):
        file.create_dataset("cube", VALUES.T.shape, "<f4", external=[(str(tmp_path / "raw.bin"), 0, VALUES.nbytes)])

    def virtual(file):
        layout = h5py.VirtualLayout(VALUES.T.shape, "<f4")
        layout[...] = h5py.VirtualSource(str(tmp_path / "private.h5"), "x", VALUES.T.shape)
        file.create_virtual_dataset("cube", layout)

    for number, write in enumerate((external, soft_over_external, soft_into_external, storage, virtual)):
        path = tmp_path / f"{number}.mat"
        with hdf5(path) as file:
            write(file)
        with pytest.raises(InputError, match=rf"{number}\.mat: the array \w+ lies in another file, .*(private|raw)"):
            read(path)


def huge_npy(folder):
    head = np.lib.format.magic(1, 0)
    text = b"{'descr': '<f8', 'fortran_order': False, 'shape': (10000000, 10000000, 1000000), }\n"
    (folder / "a.npy").write_bytes(head + len(text).to_bytes(2, "little") + text + b"\0" * 80)
    return folder / "a.npy"


def huge_npz(folder):
    import zipfile

    with zipfile.ZipFile(folder / "a.npz", "w") as archive:
        archive.writestr("cube.npy", huge_npy(folder).read_bytes())
    return folder / "a.npz"


def huge_hdf5(folder):
    with hdf5(folder / "a.mat") as file:
        file.create_dataset("cube", (10**7, 10**7, 10**6), "f8", chunks=(10, 10, 10))
    return folder / "a.mat"


def huge_zarr(folder):
    store = pytest.importorskip("zarr").open_group(str(folder / "a.zarr"), mode="w")
    store.create_array("cube", shape=(10**7, 10**7, 10**6), dtype="f8", chunks=(10, 10, 10))
    return folder / "a.zarr"


def huge_list_of_zarr(folder):
    store = pytest.importorskip("zarr").open_group(str(folder / "a.zarr"), mode="w")
    store.create_array("cube", data=VALUES)
    store.create_array("wavelength", shape=(10**15,), dtype="f8", chunks=(10,))
    return folder / "a.zarr"


@pytest.mark.parametrize("make", [huge_npy, huge_npz, huge_hdf5, huge_zarr, huge_list_of_zarr])
def test_sizes_that_cannot_be_are_refused_before_memory_is_asked_for(tmp_path, make):
    path = make(tmp_path)
    with pytest.raises(InputError, match=r"a\.\w+.*bytes"):
        read(path)


def originals(folder):
    np.save(folder / "a.npy", VALUES)
    np.savez_compressed(folder / "a.npz", cube=VALUES, wavelengths=WAVES)
    scipy.io.savemat(folder / "a.mat", {"cube": VALUES, "wavelengths": WAVES}, do_compression=True)
    with hdf5(folder / "b.mat") as file:
        file.create_dataset("cube", data=VALUES.T, compression="gzip")
    tifffile = pytest.importorskip("tifffile")
    tifffile.imwrite(folder / "a.tif", np.moveaxis(VALUES, 2, 0), photometric="minisblack", compression="zlib")
    return [folder / name for name in ("a.npy", "a.npz", "a.mat", "b.mat", "a.tif")]


@pytest.mark.parametrize("which", range(5))
def test_damaged_files_are_read_or_refused_by_name(tmp_path, which):
    path = originals(tmp_path)[which]
    whole, rng = path.read_bytes(), np.random.default_rng(which)
    for trial in range(60):
        damaged = bytearray(whole)
        if trial % 3 == 0:
            del damaged[int(rng.integers(len(damaged))) :]
        else:  # most faults of interest lie in the first bytes
            for place in rng.integers(min(len(damaged), 400 if trial % 3 == 1 else len(damaged)), size=4):
                damaged[place] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            Cube(str(path)).load()
            refused = path.name
        except InputError as error:
            refused = str(error)
        assert path.name in refused


def test_damaged_stores_are_refused_by_name(tmp_path):
    store = pytest.importorskip("zarr").open_group(str(tmp_path / "a.zarr"), mode="w")
    store.create_array("cube", data=VALUES)
    path = next((tmp_path / "a.zarr/cube").glob("zarr.json"))
    facts = json.loads(path.read_text())
    for change in (
        {"shape": [-1, 5, 5]}, {"shape": "many"}, {"data_type": "float999"}, {"codecs": []}, {"chunk_grid": None},
        {"attributes": {"scale_factor": "two"}}, {"attributes": {"scale_factor": 0}},
        {"attributes": {"_FillValue": "?"}},
        {"fill_value": "none"}, {"shape": [0, 5, 5]},
    ):  # fmt: skip
        path.write_text(json.dumps({**facts, **change}))
        with pytest.raises(InputError, match=r"a\.zarr"):
            read(tmp_path / "a.zarr")
    path.write_text("{")
    with pytest.raises(InputError, match=r"a\.zarr"):
        read(tmp_path / "a.zarr")


def test_pages_of_unequal_photographs_are_no_cube(tmp_path):
    pages = [Image.fromarray(np.zeros((8 + n, 8), "u1")) for n in range(6)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    assert not is_stack(tmp_path / "a.tif")


@pytest.mark.parametrize("compressed", [False, True])
def test_a_mat_file_of_every_sort_of_variable_is_read(tmp_path, compressed):
    values = np.random.default_rng(0).random((4, 5, 6))
    cells = np.empty((1, 2), dtype=object)
    cells[0, 0], cells[0, 1] = "text", np.eye(2)
    others = {
        "a_struct": {"x": 1, "y": {"z": np.zeros(0)}}, "cells": cells, "words": "wörter", "complex": 1j * np.eye(3),
        "sparse": scipy.sparse.eye(4).tocsc(), "truth": np.array([True]), "small": np.int8(3),
        "a" * 31: np.zeros((2, 2)),
    }  # fmt: skip
    scipy.io.savemat(tmp_path / "a.mat", {"cube": values, **others}, do_compression=compressed)
    read = Cube(str(tmp_path / "a.mat")).load().train.read(torch.arange(20))
    np.testing.assert_allclose(read.numpy().reshape(4, 5, 6), values, rtol=1e-6)


@pytest.mark.parametrize("code", [0, 8, 10, 15, 19, 20, 141, 60_000])
def test_a_mat_file_with_a_type_that_there_is_not_is_refused(tmp_path, code):
    """The reader of scipy ends the process at some of them."""
    path = tmp_path / "a.mat"
    scipy.io.savemat(path, {"cube": np.random.default_rng(0).random((4, 5, 6))})
    content = bytearray(path.read_bytes())
    data = content.rindex(np.uint32([9, 4 * 5 * 6 * 8]).tobytes())
    content[data : data + 4] = np.uint32(code).tobytes()
    path.write_bytes(content)
    with pytest.raises(InputError, match=rf"an element is of the type {code}"):
        Cube(str(path)).load()

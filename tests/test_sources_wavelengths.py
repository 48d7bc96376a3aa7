"""Cubes whose bands lie elsewhere are not read together, nor by a run of other bands."""

import numpy as np
import pytest

import tailwise
from tailwise.errors import InputError
from tailwise.sources.cube import Cube
from tailwise.workflows.adapt import adapt_run
from tailwise.workflows.drift import drift_of
from tailwise.workflows.score_cube import write_map

VALUES = np.random.default_rng(4).random((6, 8, 5)).astype("<f4")
WAVES = np.linspace(400, 800, 5)
OTHERS = {
    "reversed": (WAVES[::-1], r"from 800 to 400 nm.*from 400 to 800 nm.*same bands in another order: store them in"),
    "another camera": (WAVES + 600, r"from 1000 to 1400 nm.*from 400 to 800 nm.*use cubes of the same bands"),
    "one band elsewhere": ([400, 500, 650, 700, 800], "one band is at 650 nm instead of 600"),
}


def write(path, waves=WAVES, bad=None, units="Nanometers"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_suffix(".img").write_bytes(VALUES.tobytes())
    lines = [
        "ENVI", "lines = 6", "samples = 8", "bands = 5", "data type = 4", "interleave = bip", "byte order = 0",
        *([] if waves is None else [f"wavelength = {{{', '.join(map(str, waves))}}}", f"wavelength units = {units}"]),
        *([] if bad is None else [f"bbl = {{{', '.join('0' if band in bad else '1' for band in range(5))}}}"]),
    ]  # fmt: skip
    path.write_text("\n".join(lines) + "\n")
    return str(path)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bands")
    return tailwise.fit(write(folder / "own.hdr"), detector="gaussian", out=str(folder / "run"))


@pytest.mark.parametrize("name", OTHERS)
def test_a_run_refuses_cubes_of_other_bands(run, tmp_path, name):
    waves, said = OTHERS[name]
    path = write(tmp_path / "new.hdr", waves)
    for use in (
        lambda: run.score(path),
        lambda: run.samples(Cube(path), on_demand=True),
        lambda: write_map(run.path, path, tmp_path / "map.npy"),
        lambda: drift_of(run.path, path),
        lambda: adapt_run(run.path, path, tmp_path / "adapted", "auto", True, 0, False, ""),
    ):
        with pytest.raises(InputError, match=rf"new\.hdr.*{said}"):
            use()


@pytest.mark.parametrize(
    ("waves", "units"),
    [
        (WAVES, "Nanometers"),
        (WAVES / 1_000, "Micrometers"),
        (WAVES * 1.004, "nm"),
        (None, ""),
        (WAVES[::-1], "Index"),
        ([400, np.nan, 600, 700, np.inf], "nm"),
    ],
)
def test_a_run_takes_cubes_of_its_bands_and_of_none_that_are_known(run, tmp_path, waves, units):
    path = write(tmp_path / "new.hdr", waves, units=units)
    assert run.score(path).score.tolist() == run.score(run.source()).score.tolist()
    assert len(run.score(VALUES.reshape(-1, 1, 5))) == 48


@pytest.mark.parametrize("name", OTHERS)
def test_a_folder_of_cubes_of_other_bands_is_refused(tmp_path, name):
    waves, said = OTHERS[name]
    write(tmp_path / "a.hdr")
    write(tmp_path / "b.hdr", waves)
    source = Cube(str(tmp_path))
    for read in (source.load, source.load_all, source.load_on_demand, source.scenes):
        with pytest.raises(InputError, match=rf"b\.hdr has bands.*{said}"):
            read()


def test_cubes_that_test_have_the_bands_of_those_that_train(tmp_path):
    write(tmp_path / "train/a.hdr")
    write(tmp_path / "test/b.hdr", WAVES[::-1])
    with pytest.raises(InputError, match=r"test/b\.hdr has bands from 800 to 400 nm, train/a\.hdr from 400"):
        Cube(str(tmp_path)).load()


def test_cubes_of_a_folder_that_leave_out_other_bands_are_refused(tmp_path):
    for name, bad in (("a", None), ("b", (1,)), ("c", (1, 2, 4))):
        write(tmp_path / f"{name}.hdr", bad=bad)
    with pytest.raises(InputError, match=r"b\.hdr leaves out 1 as bad, a\.hdr none \(--bad-bands=1-2,4 leaves these"):
        Cube(str(tmp_path)).load()
    assert Cube(str(tmp_path), bad_bands="1-2,4").load().train.features == ("400", "700")


def test_a_reference_of_other_bands_is_refused(tmp_path):
    white = write(tmp_path / "white.hdr", WAVES[::-1])
    with pytest.raises(InputError, match=r"reference .*white\.hdr has bands from 800 to 400 nm.*another order"):
        Cube(write(tmp_path / "a.hdr"), white=white).load()


def test_labelled_anomalies_of_other_bands_are_refused(tmp_path):
    source, other = Cube(write(tmp_path / "a.hdr")), write(tmp_path / "b.hdr", WAVES[::-1])
    with pytest.raises(InputError, match=r"b\.hdr has bands from 800 to 400 nm, the training data from 400"):
        tailwise.fit(source, detector="dev-net", anomalies=other, out=str(tmp_path / "run"))

"""Damaged files and absurd options: refused in one line that names them, never a traceback."""

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from tailwise.benchmark import rows
from tailwise.cli.main import run
from tailwise.core.context import Scenes
from tailwise.core.data import Data
from tailwise.core.modality import ROW, SPECTRUM
from tailwise.core.registry import find, parse
from tailwise.detectors.components import cubic_cost
from tailwise.errors import InputError, reading
from tailwise.runs import store
from tailwise.runs.files import file_digest
from tailwise.sources.image_files import read_picture
from tailwise.training.options import Training

ROOT = Path(__file__).parents[1]
FUZZ = [sys.executable, str(ROOT / "benchmarks" / "fuzz_files.py"), "--processes", "1"]
# One of each family of readers; all kinds are read by `python benchmarks/fuzz_files.py`.
KINDS = [
    "png",
    "jpeg",
    "tiff",
    "npy",
    "npz",
    "cube-mat",
    "cube-envi",
    "csv",
    "parquet",
    "idx",
    "review",
    "run-json",
    "forged-parquet",
    "forged-safetensors",
]


def fuzzed(tmp_path, *options):
    command = [*FUZZ, "--keep", str(tmp_path / "kept"), *options]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    return done.returncode, f"{done.stdout}\n{done.stderr}"


def test_a_few_damaged_files_of_each_family(tmp_path):
    status, output = fuzzed(tmp_path, "--files", "42", "--seed", "3", "--kinds", *KINDS)
    assert status == 0, output
    *_, total = [line for line in output.splitlines() if line.startswith("| all")]
    read, refused, *failures, _ = (float(cell) for cell in total.strip("| ").split("|")[1:])
    assert read + refused == 42
    assert refused >= 10
    assert not any(failures)


def test_a_few_absurd_options(tmp_path):
    status, output = fuzzed(tmp_path, "--options", "--files", "60", "--seed", "3")
    assert status == 0, output


def said(capsys, *words):
    """The error and the hint of a command that is refused."""
    assert run(list(words)) == 2
    lines = capsys.readouterr().err.splitlines()
    return next(line for line in lines if line.startswith("error: ")), next(
        line for line in lines if line.startswith("hint: ")
    )


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "parts.csv"
    pd.DataFrame(np.random.default_rng(0).normal(size=(30, 2)), columns=["a", "b"]).to_csv(path, index=False)
    return str(path)


@pytest.mark.parametrize(
    "error", [KeyError("head"), OverflowError("too large"), RecursionError("deep"), OSError("cut")]
)
def test_whatever_a_library_raises_names_the_file(error):
    with pytest.raises(InputError, match=r"^cannot read x\.bin: ") as caught, reading("x.bin", "fetch it again"):
        raise error
    assert caught.value.hint == "fetch it again"


def test_a_library_that_says_nothing_or_too_much():
    with pytest.raises(InputError, match="ZeroDivisionError"), reading("x.bin", "fetch it again"):
        raise ZeroDivisionError
    with pytest.raises(InputError) as caught, reading("x.bin", "fetch it again"):
        raise ValueError("y" * 1_000_000)
    assert len(caught.value.message) < 1_000


def test_what_we_refuse_ourselves_names_the_file_and_keeps_its_hint():
    with pytest.raises(InputError, match=r"^x\.bin: too few rows") as caught, reading("x.bin", "fetch it again"):
        raise InputError("too few rows")
    assert caught.value.hint == "fetch it again"
    with pytest.raises(InputError, match=r"^x\.bin is empty") as caught, reading("x.bin", "fetch it again"):
        raise InputError("x.bin is empty", "choose another")
    assert caught.value.hint == "choose another"


def test_memory_that_is_not_there_is_no_broken_file():
    with pytest.raises(MemoryError), reading("x.bin", "fetch it again"):
        raise MemoryError


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--threads", "99999999999"), ("--threads", "0"), ("--threads", "-1"), ("--threads", "4097"),
        ("--epochs", "99999999999"), ("--epochs", "1e308"), ("--epochs", "nan"), ("--lr", "nan"), ("--lr", "1e400"),
        ("--batch-size", "9" * 400), ("--false-alarms", "nan"), ("--false-alarms", "1e308"), ("--seed", "-1"),
        ("--seed", "1" + "0" * 20), ("--cross", "1"), ("--smoothing", "nan"), ("--max-memory", "9" * 5_000 + "x"),
        ("--weighting", "Clip(1e-300, 1e300)" * 2), ("--weighting", "not " * 2_000 + "x"),
        ("--weighting", "(" * 2_000 + ")" * 2_000), ("--weighting", "x" * 1_000_000),
        ("--weighting", f"Importance(alpha={'9' * 5_000})"), ("--refine", "Iterate(judge=1)"),
        ("--refine", "Purify(judge=(1, 2))"), ("--scores", "LocalScores(neighbours='x')"), ("--detector", ""),
        ("--detector", "Patches(detector=3)"), ("--detector", "Patches(" * 300 + ")" * 300), ("--columns", ","),
        ("--layers", "9" * 5_000), ("--size", "9" * 5_000), ("--bad-bands", "9" * 5_000),
        ("--labels", "a\0b"), ("--out", "\0"), ("--batch-size", "0.5"),
        ("--anomalies", "³"), ("--reviewed", "\ud800"), ("--log", "mlflow\ud800"),
    ],
)  # fmt: skip
def test_absurd_options_are_refused(table, tmp_path, capsys, option, value):
    base = ["--detector", "gaussian", "--out", str(tmp_path / "run")]
    words = [word for word in base if option not in base] + [f"{option}={value}"]
    error, hint = said(capsys, "fit", table, *words)
    assert len(error) < 5_000
    assert len(hint) > len("hint: ")
    assert not (tmp_path / "run").exists()


def test_absurd_shares_of_finished_runs(table, tmp_path, capsys):
    folder = str(tmp_path / "run")
    assert run(["fit", table, "--detector", "gaussian", "--out", folder]) == 0
    capsys.readouterr()
    for words in (
        ["score", folder, table, "--false-discoveries=1e308"],
        ["score", folder, table, "--false-discoveries=0"],
        ["score", folder, table, f"--out={tmp_path / 'scores.xls'}"],
        ["thresholds", folder, "--false-alarms=1e308"],
        ["thresholds", folder, "--false-alarms=-1"],
        ["thresholds", folder, "--per-day=inf"],
        ["compare", folder, "[" * 2_000],
        ["bench", "smoke", "--processes=99999999999"],
        ["fit", "ArrayFile('x', modality=(1,))"],
        ["fit", "Table('x', centre='\\x00')"],
        ["fit", table, f"--detector=Patches(neighbourhood={2**63 - 1})"],
        ["explain", folder, f"--seed={10**20}"],
        ["bench", "smoke", "--data=\ud800"],
        ["fit", f"ArrayFile({10**20}, normal=1e10)"],
    ):
        said(capsys, *words)
    # A share so small that nothing can reach it flags nothing.
    assert run(["score", folder, table, "--false-discoveries=1e-308"]) == 0


def test_what_is_absurd_is_refused_where_it_is_made():
    for options in ({"threads": 10**11}, {"threads": 0}, {"epochs": 10**9}, {"device": 3}):
        with pytest.raises(InputError):
            Training(**options)
    assert Training(threads=4_096, epochs=1_000_000).epochs == 1_000_000
    # A float takes whole numbers of any size, of which arithmetic takes only those of the machine.
    assert parse(f"Gaussian(shift={10**20})", ("density",))[0].shift == 1e20


def test_spellings_are_nested_as_deep_as_is_of_use():
    assert parse("Clip(0.1, ((((10)))))", ("step",)) == parse("Clip(0.1, 10)", ("step",))
    for deep in ("Clip(" * 50 + ")" * 50, "-" * 50 + "1", "(" * 50 + "1," + "),1" * 50):
        with pytest.raises(InputError):
            parse(deep, ("step",))


def read_or_refused(read, name):
    """What is damaged may be read all the same; where it is not, it is named."""
    try:
        read()
    except InputError as error:
        if name not in error.message:
            raise


def photos(folder):
    folder.mkdir()
    chance = np.random.default_rng(0)
    for number in range(4):
        values = chance.integers(0, 255, (16, 16), dtype=np.uint8)
        Image.fromarray(values).save(folder / f"{number}.tif", compression="tiff_lzw")
    return folder


@pytest.mark.parametrize("damage", ["strip", "tags", "cut"])
def test_libraries_say_nothing_of_a_broken_tiff_themselves(tmp_path, capfd, damage):
    folder = photos(tmp_path / "photos")
    content = bytearray((folder / "1.tif").read_bytes())
    if damage == "strip":
        content[8:40] = bytes(range(200, 232))
    elif damage == "tags":
        content[-30:] = b"\xff" * 30
    else:
        del content[60:]
    (folder / "1.tif").write_bytes(content)
    read_or_refused(lambda: read_picture(folder / "1.tif", None, 1), "1.tif")
    assert capfd.readouterr().err == ""


def test_a_cube_that_tifffile_complains_of_is_one_warning(tmp_path, caplog, capfd):
    tifffile = pytest.importorskip("tifffile", reason="needs tifffile (tailwise[hyperspectral])")
    from tailwise.sources.cube import Cube

    path = tmp_path / "cube.tif"
    tifffile.imwrite(path, np.random.default_rng(0).normal(size=(6, 8, 9)).astype(np.float32), photometric="minisblack")
    content = bytearray(path.read_bytes())
    # The second tag of the first page is of a type that there is not.
    offset = int.from_bytes(content[4:8], "little")
    content[offset + 2 + 12 * 8 + 2] = 250
    path.write_bytes(content)
    read_or_refused(lambda: Cube(str(path)).load(), "cube.tif")
    foreign = [record for record in caplog.records if record.name != "tailwise"]
    assert not foreign
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1" + bytes(100) + b"PAR1", b"x" * 2_000])
@pytest.mark.parametrize("command", ["score", "thresholds", "drift", "compare", "explain"])
def test_a_table_of_a_run_that_is_sealed_but_broken(table, tmp_path, capsys, content, command):
    folder = tmp_path / "run"
    assert run(["fit", table, "--detector", "gaussian", "--out", str(folder)]) == 0
    (folder / "scores.parquet").write_bytes(content)
    settings = json.loads((folder / "settings.json").read_text())
    settings["digests"]["scores.parquet"] = file_digest(folder / "scores.parquet")
    (folder / "settings.json").write_text(json.dumps({**settings, "seal": store.seal(settings)}))
    words = [table] if command in ("score", "drift") else []
    if command == "compare":
        words = [str(tmp_path / "other")]
        assert run(["fit", table, "--detector", "gaussian", "--out", words[0]]) == 0
    capsys.readouterr()
    assert "scores.parquet" in said(capsys, command, str(folder), *words)[0]


@pytest.mark.parametrize(
    "line",
    [
        "[" * 100_000,
        "\xff\xfe",
        "{",
        "3",
        "null",
        '{"settings": 1}',
        '{"settings": {}}',
        '{"settings": {}, "status": []}',
        '{"a": ' * 3_000,
    ],
)
def test_rows_that_are_no_rows_are_left_out(tmp_path, line):
    path = tmp_path / "rows.jsonl"
    good = {"settings": {"a": 1}, "status": "ok"}
    path.write_bytes(f"{line}\n{json.dumps(good)}\n".encode("latin-1"))
    assert rows.read_rows(path) == [good]


def test_a_mask_that_claims_more_than_it_holds(tmp_path):
    from tailwise.sources.cube import Cube

    cube = np.random.default_rng(0).normal(size=(8, 9, 6)).astype(np.float32)
    np.save(tmp_path / "scan.npy", cube)
    np.save(tmp_path / "scan_mask.npy", np.zeros((8, 9), np.uint8))
    content = (tmp_path / "scan_mask.npy").read_bytes().replace(b"(8, 9)", b"(9999999999, 9999)")
    (tmp_path / "scan_mask.npy").write_bytes(content)
    with pytest.raises(InputError, match="scan_mask"):
        Cube(str(tmp_path / "scan.npy")).load_all()


def test_torch_is_left_as_it_was_by_a_refused_fit(table, tmp_path):
    before = torch.get_num_threads()
    assert run(["fit", table, "--threads", "99999999999", "--out", str(tmp_path / "run")]) == 2
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(("side", "count"), [(100_000, 1), (5_000, 10_000), (10**9, 1), (2, 10**15)])
def test_what_would_take_days_is_refused_with_an_estimate(side, count):
    with pytest.raises(InputError, match=r"takes about [\d,]+ hours") as caught:
        cubic_cost.announce("a covariance", side, count)
    assert caught.value.hint == "choose fewer columns"


def test_what_takes_minutes_says_so_and_what_takes_seconds_nothing(caplog):
    caplog.set_level("INFO", "tailwise")
    cubic_cost.announce("a small covariance", 2_000)
    assert not caplog.records
    cubic_cost.announce("a covariance", 10_000, fewer="bands")
    assert "a covariance takes about 4 minutes" in caplog.text
    assert "fewer bands" in caplog.text


@pytest.mark.parametrize("detector", ["gaussian(shrinkage=0.0)", "rx", "local-rx", "collaborative"])
def test_detectors_of_cubic_cost_announce_it(detector, monkeypatch):
    asked = []
    monkeypatch.setattr(cubic_cost, "announce", lambda what, side, *_, **__: asked.append((what, side)))
    name, _, options = detector.partition("(")
    made = find("detector", name)(**({"shrinkage": 0.0} if options else {}))
    samples = torch.randn(400, 4, generator=torch.Generator().manual_seed(0))
    names = [str(place) for place in range(400)]
    data = Data(samples, names, modality=ROW)
    if name != "gaussian":
        spectra = samples[:, None]
        data = Data(spectra, names, modality=SPECTRUM, context=Scenes(spectra, ((20, 20),)))
    made.start(data.sample_shape, data.modality)
    made.solve(data, torch.ones(len(data)))
    sides = {"gaussian": 4, "rx": 4, "local-rx": 4, "collaborative": 11**2 - 5**2}
    assert [side for _, side in asked] == [sides[name]]


def test_few_rows_of_many_columns_are_done_in_seconds(tmp_path):
    path = str(tmp_path / "wide.npy")
    np.save(path, np.random.default_rng(0).normal(size=(12, 2_500)))
    started = time.process_time()
    assert run(["fit", path, "--detector", "gaussian", "--out", str(tmp_path / "run")]) in (0, 3)
    assert time.process_time() - started < 60


def test_what_is_wrong_with_a_table_names_its_file(tmp_path, capsys):
    path = tmp_path / "marked.csv"
    frame = pd.DataFrame({"a": [1.0, 2.0, 3.0, 4.0], "label": ["good", "bad", "good", None]})
    frame.to_csv(path, index=False)
    assert "marked.csv: label: row 3" in said(capsys, "fit", str(path), "--labels", "label")[0]
    frame.assign(a=[1.0, np.inf, 3.0, 4.0]).to_csv(path, index=False)
    assert "marked.csv" in said(capsys, "weigh", str(path), "--column", "a")[0]
    frame.assign(a=[1.0, 1e200, 3.0, 4.0]).to_csv(path, index=False)
    assert "marked.csv: row 1, column 'a'" in said(capsys, "fit", str(path), "--columns", "a")[0]


@pytest.mark.parametrize(("before", "after"), [("batch_size = 64", "batch_size = nan"), ('name = "mine"', "name = [")])
def test_what_is_wrong_with_a_suite_names_its_file(tmp_path, capsys, before, after):
    suite = 'name = "mine"\n[draws]\n[profiles]\n[training]\nbatch_size = 64\n[sources]\n'
    (tmp_path / "mine.toml").write_text("grids = []\n" + suite.replace(before, after))
    words = ["bench", str(tmp_path / "mine.toml"), "--rows", str(tmp_path / "rows.jsonl")]
    assert "mine.toml" in said(capsys, *words)[0]


@pytest.mark.parametrize("name", ["~", "~root", "https:/localhost/x", "s3:/bucket"])
def test_names_that_pandas_takes_for_something_else_are_folders(table, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    assert run(["fit", table, "--detector", "gaussian", "--out", name]) == 0
    assert (tmp_path / name / "settings.json").is_file()
    assert run(["score", name, table, "--out", f"{name}.csv"]) == 0
    assert run(["weigh", f"{name}.csv", "--out", f"{name}.parquet"]) == 0
    assert run(["fit", f"./{name}.parquet", "--columns", "score", "--detector", "gaussian", "--out", "other"]) == 0


def test_the_largest_seed_is_one_for_every_judge(table, tmp_path):
    assert run(["triage", table, "--seed", str(2**63 - 1), "--parts", "2", "--out", str(tmp_path / "sheet")]) == 0


def test_a_network_beyond_all_memory_is_refused(table, tmp_path, capsys):
    words = ["fit", table, f"--detector=AutoEncoder(code={2**63 - 1})", "--epochs=1", "--out", str(tmp_path / "run")]
    assert "not enough memory" in said(capsys, *words)[0]

"""The kinds of files that tailwise reads: small good ones of each, and the commands that read them.

A kind makes its files in a folder. Of these, the ones that match `damaged` are damaged, one a case. A command's words
may hold IN (that folder), OUT (a folder that is not there yet, the only place where a command may write) and GOOD (a
folder of good data and runs that all kinds share).
"""

from __future__ import annotations

import gzip
import importlib.util
import json
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

SEED = 7
_ROWS, _SIDE = 40, 16
_CUBE = (8, 9, 6)
_FIT = "--out OUT/run --false-alarms 0.1"


@dataclass(frozen=True)
class Kind:
    """One kind of files.

    Attributes:
        make: writes good files into a folder.
        commands: each reads them.
        damaged: a pattern of the files that are damaged.
        needs: packages that have to be installed.
        seals: whether the run that the files are is sealed again after the damage, as a forger does.
    """

    make: Callable[[Path], None]
    commands: tuple[str, ...]
    damaged: str = "**/*"
    needs: tuple[str, ...] = ()
    seals: bool = False

    @property
    def missing(self) -> str:
        """The first package that is not installed, or ""."""
        return next((name for name in self.needs if importlib.util.find_spec(name) is None), "")


def make_good(folder: Path, run: Callable[[list[str]], int], exports: bool) -> None:
    """Good data and runs that all kinds share, and an export; `run` runs a command and gives its status."""
    table(folder / "parts.csv")
    cube, rows = folder / "cube.npy", folder / "rows.npy"
    table(rows)
    np.save(cube, _cube())
    photos(folder / "photos", lambda image, path: image.save(path.with_suffix(".png")))
    for name, data, options in (
        ("table-run", folder / "parts.csv", "--detector gaussian --labels label --groups line --per-cluster --cross 2"),
        ("plain-run", folder / "parts.csv", "--detector gaussian --scores own --columns width,height,mass"),
        ("neighbours-run", folder / "parts.csv", "--detector nearest-neighbours --scores own --columns width,mass"),
        ("net-run", folder / "parts.csv", "--detector autoencoder --labels label --groups line --epochs 2"),
        ("array-run", rows, "--detector gaussian"),
        ("cube-run", cube, "--detector rx"),
        ("photo-run", folder / "photos", "--read pixels --size 8 --channels 1 --detector patches --epochs 1"),
        ("colour-run", folder / "photos", "--read pixels --size 8 --channels 3 --detector gaussian"),
    ):
        status = run(["fit", str(data), "--out", str(folder / name), *options.split()])
        if status not in (0, 3):
            raise RuntimeError(f"the good run {name} ends with status {status}")
    if exports and not _MISSING_ONNX:
        run(["export", str(folder / "plain-run"), "--out", str(folder / "model.onnx")])
    _suite(folder)


def table(path: Path) -> None:
    """Three columns, a group and a label."""
    frame = _frame()
    if path.suffix in (".csv", ".tsv"):
        frame.to_csv(path, index=False, sep="\t" if path.suffix == ".tsv" else ",")
    elif path.suffix == ".parquet":
        frame.to_parquet(path, index=False)
    elif path.suffix == ".xlsx":
        frame.to_excel(path, index=False)
    elif path.suffix == ".npy":
        np.save(path, frame.to_numpy()[:, :3].astype(float))
    else:
        np.savez(path, X=frame.to_numpy()[:, :3].astype(float), y=(frame["label"] != "good").to_numpy())


def photos(folder: Path, save: Callable[[Image.Image, Path], None]) -> None:
    """24 grey squares in MVTec layout, with masks."""
    chance = np.random.default_rng(SEED)
    for part, count in (("train/good", 16), ("test/good", 4), ("test/hole", 4)):
        (folder / part).mkdir(parents=True)
        for number in range(count):
            values = chance.integers(100, 140, (_SIDE, _SIDE, 3), dtype=np.uint8)
            if part == "test/hole":
                values[4:8, 4:8] = 0
                mask = np.zeros((_SIDE, _SIDE), np.uint8)
                mask[4:8, 4:8] = 255
                truth = folder / "ground_truth" / "hole"
                truth.mkdir(parents=True, exist_ok=True)
                Image.fromarray(mask).save(truth / f"{number:03}_mask.png")
            save(Image.fromarray(values), folder / part / f"{number:03}")


def _frame() -> pd.DataFrame:
    chance = np.random.default_rng(SEED)
    frame = pd.DataFrame(chance.normal(size=(_ROWS, 3)), columns=["width", "height", "mass"])
    frame["line"] = np.where(chance.random(_ROWS) < 0.5, "a", "b")
    frame["label"] = np.where(np.arange(_ROWS) % 8 == 7, "bad", "good")
    frame.loc[frame["label"] == "bad", "mass"] += 5
    return frame


def _cube() -> np.ndarray:
    cube: np.ndarray = np.random.default_rng(SEED).normal(1, 0.1, _CUBE).astype(np.float32)
    cube[2, 3] += 2
    return cube


def _mask() -> np.ndarray:
    mask = np.zeros(_CUBE[:2], np.uint8)
    mask[2, 3] = 1
    return mask


def _image(suffix: str, **options: Any) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        photos(folder / "photos", lambda image, path: image.save(path.with_suffix(suffix), **options))

    return make


def _by_tifffile(folder: Path, colour: bool, **options: Any) -> None:
    import tifffile

    def save(image: Image.Image, path: Path) -> None:
        values = np.asarray(image).astype(np.uint16) * 200
        values = values if colour else values[..., 0]
        if options.get("planarconfig") == "separate":
            values = np.moveaxis(values, 2, 0)
        tifffile.imwrite(path.with_suffix(".tif"), values, **options)

    photos(folder / "photos", save)


def _deep_png(folder: Path) -> None:
    photos(
        folder / "photos",
        lambda image, path: Image.fromarray(np.asarray(image)[..., 0].astype(np.uint16) * 200).save(
            path.with_suffix(".png")
        ),
    )


def _array_images(folder: Path) -> None:
    photos(folder / "photos", lambda image, path: np.save(path.with_suffix(".npy"), np.asarray(image)))


def _tables(suffix: str) -> Callable[[Path], None]:
    return lambda folder: table(folder / f"parts{suffix}")


def _cube_tiff(folder: Path) -> None:
    import tifffile

    tifffile.imwrite(folder / "cube.tif", np.moveaxis(_cube(), 2, 0), photometric="minisblack")


def _cube_mat(folder: Path) -> None:
    import scipy.io

    scipy.io.savemat(folder / "cube.mat", {"data": _cube(), "map": _mask(), "wavelengths": np.arange(6.0) + 400})


def _cube_hdf5(folder: Path) -> None:
    import h5py

    with h5py.File(folder / "cube.mat", "w") as file:
        data = file.create_dataset("data", data=_cube().T, chunks=(3, 4, 4), compression="gzip")
        data.attrs["_FillValue"] = -9999.0
        file["map"] = _mask().T
        file["soft"] = h5py.SoftLink("/map")


def _cube_envi(folder: Path) -> None:
    cube = _cube()
    cube.tofile(folder / "cube.img")
    np.save(folder / "white.npy", np.full(_CUBE[2], 2.0, np.float32))
    height, width, bands = _CUBE
    (folder / "cube.hdr").write_text(
        f"ENVI\ndescription = {{a scan}}\nsamples = {width}\nlines = {height}\nbands = {bands}\nheader offset = 0\n"
        "data type = 4\ninterleave = bip\nbyte order = 0\ndata ignore value = -9999\nwavelength units = nm\n"
        f"wavelength = {{{', '.join(str(400 + band) for band in range(bands))}}}\nbbl = {{1, 1, 1, 1, 1, 1}}\n"
        "map info = {UTM, 1, 1, 100, 200, 2, 2, 32, North, WGS-84, units=Meters}\n"
    )


def _cube_zarr(folder: Path) -> None:
    import zarr

    group = zarr.open_group(str(folder / "cube.zarr"), mode="w")
    data = group.create_array("data", shape=_CUBE, chunks=(4, 9, 6), dtype="f4")
    data[:] = _cube()
    data.attrs["scale_factor"] = 0.5
    mask = group.create_array("map", shape=_CUBE[:2], chunks=_CUBE[:2], dtype="u1")
    mask[:] = _mask()


def _idx(folder: Path) -> None:
    chance = np.random.default_rng(SEED)
    for name, count in (("train", 20), ("t10k", 10)):
        pixels, digits = chance.bytes(count * 64), bytes(int(digit) for digit in chance.integers(0, 2, count))
        (folder / f"{name}-images-idx3-ubyte").write_bytes(struct.pack(">4B3I", 0, 0, 8, 3, count, 8, 8) + pixels)
        packed = gzip.compress(struct.pack(">4BI", 0, 0, 8, 1, count) + digits)
        (folder / f"{name}-labels-idx1-ubyte.gz").write_bytes(packed)


def _lists(folder: Path) -> None:
    """Texts that go with data: names of anomalies, groups of images."""
    photos(folder / "photos", lambda image, path: image.save(path.with_suffix(".png")))
    names = sorted(f"train/good/{number:03}.png" for number in range(16))
    (folder / "anomalies.txt").write_text("\n".join(names[:3]) + "\n")
    pd.DataFrame({"sample": names[:3]}).to_csv(folder / "anomalies.csv", index=False)
    every = [path.relative_to(folder / "photos").as_posix() for path in (folder / "photos").rglob("*.png")]
    pd.DataFrame({"file": every, "group": ["a", "b"] * (len(every) // 2)}).to_csv(
        folder / "photos" / "groups.csv", index=False
    )


def _review(folder: Path) -> None:
    """A sheet of `triage` with verdicts; the good one lies beside the runs."""
    table(folder / "parts.csv")
    frame = pd.DataFrame({"sample": [str(row) for row in range(_ROWS)], "verdict": ["anomaly", "normal"] * 20})
    frame.to_csv(folder / "review.csv", index=False)


_SUITE = """
name = "mine"
reported = false
calibration = 0.1
[draws]
development = [1]
confirmation = [101]
[profiles.default]
draws = 0
[training]
epochs = 2
batch_size = 64
[sources.digits]
source = "Digits()"
normals = 2
largest = 30
test = 5
anomalies = 5
[weightings]
auto = "auto"
[[grids]]
name = "tail"
sources = ["digits"]
detectors = ["gaussian"]
weightings = ["uniform", "auto"]
scores = ["own"]
imbalances = [5]
contaminations = [0.0]
yardsticks = false
"""


def _suite(folder: Path) -> None:
    """A suite of one draw, and of none in its usual profile; and rows."""
    (folder / "mine.toml").write_text(_SUITE)
    (folder / "rows.jsonl").write_text(
        json.dumps({"suite": "mine", "status": "ok", "settings": {"a": 1}, "part": "development", "commit": ""}) + "\n"
    )


def _onnx_backbone(folder: Path) -> None:
    import onnx

    values = onnx.helper.make_tensor_value_info
    pool = onnx.helper.make_node("AveragePool", ["x"], ["y"], kernel_shape=[2, 2], strides=[2, 2])
    graph = onnx.helper.make_graph(
        [pool],
        "halves",
        [values("x", onnx.TensorProto.FLOAT, [1, 3, 8, 8])],
        [values("y", onnx.TensorProto.FLOAT, [1, 3, 4, 4])],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)], ir_version=8)
    (folder / "net.onnx").write_bytes(model.SerializeToString())


def _runtime_data(folder: Path) -> None:
    table(folder / "parts.csv")
    table(folder / "parts.npy")


def _nothing(folder: Path) -> None:
    """The runs are copied by `fuzz_files.prepared`."""


_MISSING_ONNX = any(importlib.util.find_spec(name) is None for name in ("onnx", "onnxruntime", "onnxscript"))
_ONNX, _TIFF = ("onnx", "onnxruntime", "onnxscript"), ("tifffile",)
_PIXELS = "--read pixels --size 8 --detector gaussian"
# Few of the commands are fits, which spend their time on the pictures of the report.
_PHOTOS = (
    f"fit IN/photos {_PIXELS} --channels 1 {_FIT}",
    "score GOOD/photo-run IN/photos --out OUT/scores.csv --maps OUT/maps",
    "drift GOOD/photo-run IN/photos",
    "score GOOD/colour-run IN/photos --out OUT/scores.csv --skip-bad",
    "score GOOD/colour-run IN/photos --out OUT/scores.csv",
    f"fit IN/photos {_PIXELS} --channels 3 --skip-bad {_FIT}",
    "triage IN/photos --read pixels --size 8 --channels 1 --detector gaussian --parts 2 --out OUT/triage",
    "explain GOOD/photo-run IN/photos --worst 1",
)
_NEEDY = "--read pixels --size 8 --detector dev-net --epochs 1"
_OF_TABLE = "--labels label --groups line --detector gaussian"


def _on_table(name: str, options: str = _OF_TABLE) -> tuple[str, ...]:
    return (
        f"fit IN/{name} {options} {_FIT}",
        f"score GOOD/table-run IN/{name} --out OUT/scores.csv",
        f"drift GOOD/table-run IN/{name} --out OUT/drift.json",
        f"triage IN/{name} --columns width,mass --out OUT/triage --parts 2",
        f"score GOOD/net-run IN/{name} --out OUT/scores.csv",
        *([f"weigh IN/{name} --column mass --out OUT/weights.csv"] if name.endswith((".csv", ".parquet")) else []),
        f"explain GOOD/table-run IN/{name} --worst 1",
    )


def _on_array(name: str) -> tuple[str, ...]:
    return (
        f"score GOOD/array-run IN/{name} --out OUT/scores.csv",
        f"triage IN/{name} --detector gaussian --out OUT/triage --parts 2",
        f"drift GOOD/array-run IN/{name}",
    )


def _on_cube(name: str, options: str = "") -> tuple[str, ...]:
    return (
        f"fit IN/{name} --detector rx {options} {_FIT}",
        f"score GOOD/cube-run IN/{name} --out OUT/map.hdr",
        f"score GOOD/cube-run IN/{name} --out OUT/scores.csv",
        f"drift GOOD/cube-run IN/{name}",
    )


_ON_RUN = (
    "score IN/run GOOD/parts.csv --out OUT/scores.csv",
    "report IN/run --out OUT/report.html",
    "report IN/run --out OUT/report.md",
    "thresholds IN/run",
    "drift IN/run GOOD/parts.csv",
    "explain IN/run --worst 1",
    "explain IN/run --weights",
    "compare IN/run GOOD/table-run",
    "compare GOOD/table-run IN/run --out OUT/compared.html",
    "verify IN/run",
)
_RUN_FILES = {"json": "json", "parquet": "parquet", "safetensors": "safetensors", "jsonl": "jsonl"}

KINDS: dict[str, Kind] = {
    "png": Kind(_image(".png"), _PHOTOS, "photos/**/*.png"),
    "png16": Kind(_deep_png, _PHOTOS, "photos/t*/**/*.png"),
    "jpeg": Kind(_image(".jpg"), _PHOTOS, "photos/t*/**/*.jpg"),
    "bmp": Kind(_image(".bmp"), _PHOTOS, "photos/t*/**/*.bmp"),
    "gif": Kind(_image(".gif"), _PHOTOS, "photos/t*/**/*.gif"),
    "ppm": Kind(_image(".ppm"), _PHOTOS, "photos/t*/**/*.ppm"),
    "webp": Kind(_image(".webp", lossless=True), _PHOTOS, "photos/t*/**/*.webp"),
    "jpeg2000": Kind(_image(".jp2"), _PHOTOS, "photos/t*/**/*.jp2"),
    "tiff": Kind(_image(".tif"), _PHOTOS, "photos/t*/**/*.tif"),
    "tiff-lzw": Kind(_image(".tif", compression="tiff_lzw"), _PHOTOS, "photos/t*/**/*.tif"),
    "tiff16": Kind(lambda folder: _by_tifffile(folder, False), _PHOTOS, "photos/t*/**/*.tif", _TIFF),
    "tiff16-planes": Kind(
        lambda folder: _by_tifffile(folder, True, photometric="rgb", planarconfig="separate"), _PHOTOS,
        "photos/t*/**/*.tif", _TIFF,
    ),
    "npy-images": Kind(_array_images, _PHOTOS, "photos/t*/**/*.npy"),
    "idx": Kind(_idx, (f"fit IN --detector gaussian {_FIT}", f"fit IN --normal 1 --detector gaussian {_FIT}")),
    "csv": Kind(_tables(".csv"), _on_table("parts.csv")),
    "tsv": Kind(_tables(".tsv"), _on_table("parts.tsv")),
    "parquet": Kind(_tables(".parquet"), _on_table("parts.parquet")),
    "xlsx": Kind(_tables(".xlsx"), _on_table("parts.xlsx"), needs=("openpyxl",)),
    "npz": Kind(_tables(".npz"), (f"fit IN/parts.npz --detector gaussian {_FIT}", *_on_array("parts.npz"))),
    "npy": Kind(_tables(".npy"), (f"fit IN/parts.npy --detector gaussian {_FIT}", *_on_array("parts.npy"))),
    "cube-npy": Kind(lambda folder: np.save(folder / "cube.npy", _cube()), _on_cube("cube.npy")),
    "cube-npz": Kind(lambda folder: np.savez(folder / "c.npz", data=_cube(), map=_mask()), _on_cube("c.npz")),
    "cube-tiff": Kind(_cube_tiff, _on_cube("cube.tif"), needs=_TIFF),
    "cube-mat": Kind(_cube_mat, _on_cube("cube.mat")),
    "cube-hdf5": Kind(_cube_hdf5, _on_cube("cube.mat"), needs=("h5py",)),
    "cube-envi": Kind(_cube_envi, _on_cube("cube.hdr", "--white IN/white.npy")),
    "cube-zarr": Kind(_cube_zarr, _on_cube("cube.zarr"), needs=("zarr",)),
    "lists": Kind(
        _lists,
        (
            f"fit IN/photos {_NEEDY} --anomalies IN/anomalies.txt {_FIT}",
            f"fit IN/photos {_NEEDY} --anomalies IN/anomalies.csv {_FIT}",
            f"fit IN/photos {_PIXELS} --groups groups.csv {_FIT}",
        ),
        "**/*.[ct][sx][vt]",
    ),
    "review": Kind(
        _review,
        (
            f"fit IN/parts.csv --columns width,mass --detector gaussian --reviewed IN/review.csv {_FIT}",
            "triage IN/parts.csv --columns width,mass --out OUT/triage --reviewed IN/review.csv --parts 2",
        ),
        "review.csv",
    ),
    **{f"run-{name}": Kind(_nothing, _ON_RUN, f"run/*.{suffix}") for name, suffix in _RUN_FILES.items()},
    **{f"forged-{name}": Kind(_nothing, _ON_RUN, f"run/*.{suffix}", seals=True) for name, suffix in _RUN_FILES.items()},
    "suite": Kind(_suite, ("bench IN/mine.toml --rows OUT/rows.jsonl --processes 1",), "mine.toml"),
    "rows": Kind(_suite, ("bench IN/mine.toml --rows IN/rows.jsonl --processes 1",), "rows.jsonl"),
    "onnx": Kind(
        _nothing,
        (
            "verify GOOD/plain-run IN/model.onnx",
            "runtime IN/model.onnx GOOD/parts.csv --out OUT/scores.csv",
            "runtime IN/model.onnx GOOD/rows.npy --out OUT/scores.csv",
        ),
        needs=_ONNX,
    ),
    "runtime-data": Kind(
        _runtime_data,
        (
            "runtime GOOD/model.onnx IN/parts.csv --out OUT/scores.csv",
            "runtime GOOD/model.onnx IN/parts.npy --out OUT/scores.csv",
        ),
        needs=_ONNX,
    ),
    "onnx-backbone": Kind(
        _onnx_backbone,
        ("triage GOOD/photos --read IN/net.onnx --size 8 --detector gaussian --parts 2 --out OUT/triage",),
        needs=_ONNX,
    ),
}  # fmt: skip


def sealed_again(run: Path) -> None:
    """Digests and seal of a run as if its files had always been so."""
    from tailwise.runs.files import file_digest
    from tailwise.runs.settings import seal

    place = run / "settings.json"
    with suppress(ValueError, RecursionError, TypeError):
        settings = json.loads(place.read_text(encoding="utf-8"))
        if not isinstance(settings, dict):
            return
        if isinstance(settings.get("digests"), dict):
            settings["digests"] = {
                name: file_digest(run / name) for name in settings["digests"] if (run / name).is_file()
            }
        place.write_text(json.dumps({**settings, "seal": seal(settings)}))

"""Are scores of more data than memory the same by workers of Dask and Ray, in little memory, and what does a kill cost?

    python benchmarks/engines.py run [--engines dask ray] [--data parquet zarr] [--gigabytes 10] [--kills 2]
    python benchmarks/engines.py page

Generated in a temporary folder (--folder), and deleted at the end: parquet files of 256 columns of float32, half a
gigabyte each, in row groups of 65,536 rows; or a zarr cube of float32, 2,500 x 200 bands, in chunks of 100 x 250
pixels, both uncompressed. A gaussian with own scores is fitted on the first part of it. Then `tailwise score` runs with
two workers, some of which are killed (SIGKILL) while they work. The largest resident memory of each worker (VmHWM) is
read every tenth of a second. Some parts are compared, bit for bit, with scores by the run in one process of the same
rows, read in another way. Rows go to benchmarks/results/engines.jsonl, the page to benchmarks/engines.md.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

# Set before torch is imported: afterwards it is too late.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pandas as pd
import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from tailwise import open_run
from tailwise.benchmark import rows
from tailwise.benchmark.tables import table

RESULTS = Path(__file__).parent / "results" / "engines.jsonl"
PAGE = Path(__file__).parent / "engines.md"
COLUMNS, GROUP, FILE_ROWS = 256, 65_536, 8 * 65_536
WIDTH, BANDS, CHUNK = 2_500, 200, (100, 250)
FITTED, WORKERS, COMPARED = 20_000, 2, 3
OPTIONS = ("--detector", "gaussian", "--scores", "own", "--weighting", "", "--no-clusters", "--no-report")
# How the workers of each engine are called among the processes of the command.
CALLED = {"dask": "spawn_main", "ray": "ray::"}
HEAD = """# Scores of more data than memory, by workers

Written by `python benchmarks/engines.py page` from results/engines.jsonl. A gaussian on generated float32,
uncompressed: parquet files of 256 columns, or a zarr cube of 200 bands; what was just written lay mostly in the
system's cache. `tailwise score` with two workers of one thread each, its start (about 10 s) included, on a machine of
two cores that other work shared (rows have the load); `local` is one process. Memory is the largest resident memory
that any worker held, those started after a kill included. Scores of the parts compared are equal to the last bit, in
all columns.

"""
HEADINGS = ["data", "GB", "engine", "seconds", "peak MB of a worker", "workers killed", "parts", "compared", "equal"]


def write_parquet(folder: Path, gigabytes: float) -> Path:
    """Files of normal rows in five kinds."""
    (folder / "data").mkdir()
    generator = np.random.default_rng(0)
    noise = generator.standard_normal((GROUP, COLUMNS), dtype=np.float32)
    centres = generator.normal(scale=3, size=(5, COLUMNS)).astype(np.float32)
    left, number = round(gigabytes * 1e9 / (4 * COLUMNS)), 0
    names = [f"x{i:03d}" for i in range(COLUMNS)]
    while left:
        schema = pa.schema([(name, pa.float32()) for name in names])
        path = folder / "data" / f"part-{number}.parquet"
        with pq.ParquetWriter(path, schema, compression="none", use_dictionary=False) as writer:
            for _ in range(min(FILE_ROWS, left) // GROUP + (min(FILE_ROWS, left) % GROUP > 0)):
                size = min(GROUP, left)
                # The same noise in another order and of another width: drawn anew it would take longer than scoring.
                block = noise[generator.permutation(GROUP)[:size]] * np.float32(generator.uniform(0.8, 1.2))
                block += centres[generator.integers(0, 5, size)]
                writer.write_table(pa.table(list(np.ascontiguousarray(block.T)), schema=schema), row_group_size=GROUP)
                left -= size
        number += 1
    first = pq.ParquetFile(folder / "data" / "part-0.parquet").read_row_group(0)
    pq.write_table(first[:FITTED], folder / "fit.parquet")
    return folder / "fit.parquet"


def write_zarr(folder: Path, gigabytes: float) -> Path:
    """Mixtures of five smooth spectra with noise."""
    import zarr

    height = max(1, round(gigabytes * 1e9 / (4 * WIDTH * BANDS) / CHUNK[0])) * CHUNK[0]
    store = zarr.open_group(str(folder / "data.zarr"), mode="w")
    cube = store.create_array(
        "cube", shape=(height, WIDTH, BANDS), chunks=(*CHUNK, BANDS), dtype="float32", compressors=None
    )
    generator = np.random.default_rng(0)
    spectra = generator.random((5, BANDS)).cumsum(1).astype(np.float32) / BANDS
    noise = 0.01 * generator.standard_normal((CHUNK[0] * WIDTH, BANDS), dtype=np.float32)
    for first in range(0, height, CHUNK[0]):
        block = generator.dirichlet(np.ones(5), len(noise)).astype(np.float32) @ spectra
        block += noise[generator.permutation(len(noise))]
        cube[first : first + CHUNK[0]] = block.reshape(CHUNK[0], WIDTH, BANDS)
        if first == 0:
            np.save(folder / "fit.npy", block[:FITTED].reshape(-1, 100, BANDS))
    return folder / "fit.npy"


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "tailwise", *words]


class Watched:
    """A command with its workers: the largest memory of each, and kills while they work."""

    def __init__(self, words: Sequence[str], engine: str, parts: Path, pattern: str, kills: Sequence[int]) -> None:
        self.engine, self.parts, self.pattern = engine, parts, pattern
        self.kills, self.killed, self.peaks = list(kills), 0, dict[int, float]()
        began = time.perf_counter()
        with subprocess.Popen(words, stdout=subprocess.DEVNULL) as process:
            while process.poll() is None:
                time.sleep(0.1)
                self._look(psutil.Process(process.pid))
        self.seconds, self.status = time.perf_counter() - began, process.returncode

    def _look(self, process: psutil.Process) -> None:
        found = dict(self._workers(process))
        for pid, peak in found.items():
            self.peaks[pid] = max(peak, self.peaks.get(pid, 0.0))
        if self.kills and len(list(self.parts.glob(self.pattern))) >= self.kills[0] and found:
            os.kill(max(found, key=lambda pid: found[pid]), signal.SIGKILL)  # the one that works
            self.kills.pop(0)
            self.killed += 1

    def _workers(self, process: psutil.Process) -> Iterator[tuple[int, float]]:
        """Pid and peak MB of each worker, or of the command itself where it has none."""
        try:
            each = [process] if self.engine == "local" else process.children(recursive=True)
        except psutil.Error:
            return
        for worker in each:
            try:
                said = " ".join(worker.cmdline())
                status = Path(f"/proc/{worker.pid}/status").read_text()
            except (psutil.Error, OSError):
                continue  # it has just ended
            if self.engine == "local" or CALLED[self.engine] in said:
                held = next((line for line in status.splitlines() if line.startswith("VmHWM")), "VmHWM: 0 kB")
                yield worker.pid, int(held.split()[1]) / 1e3


def measure(engine: str, data: str, gigabytes: float, kills: int, folder: Path) -> dict[str, Any]:
    """What a row holds beside its settings; the data lies in the folder."""
    run, out = folder / "run", folder / ("scores" if data == "parquet" else "map.npy")
    source = folder / ("data" if data == "parquet" else "data.zarr")
    bits = folder.glob(".writing-*")
    for bit in bits:
        raise SystemExit(f"{bit} is left of another command")
    parts = _parts(source, data)
    words = command("score", str(run), str(source), "--out", str(out))
    words += [] if engine == "local" else ["--engine", engine, "--workers", str(WORKERS)]
    at = [max(1, round(parts * (number + 1) / (kills + 1))) for number in range(kills)]
    watched = Watched(words, engine, folder, ".writing-*/part-*", at)
    if watched.status:
        return {"status": "failed", "error": f"the command ended with {watched.status}"}
    compared, equal = (_compared_rows if data == "parquet" else _compared_map)(run, source, out)
    left = sorted(path.name for path in folder.glob(".writing-*"))
    return {
        "status": "ok", "seconds": round(watched.seconds, 1), "killed": watched.killed, "parts": parts,
        "peak_mb": [round(peak) for peak in sorted(watched.peaks.values(), reverse=True)],
        "compared": compared, "equal": equal, "left_behind": left,
    }  # fmt: skip


def _parts(source: Path, data: str) -> int:
    """How many parts there will be; only when to kill depends on it."""
    if data == "parquet":
        count = sum(pq.read_metadata(path).num_rows for path in source.glob("*.parquet"))
        return -(-count // (32_000_000 // (4_096 * COLUMNS) * 4_096))
    return -(-int(_cube(source).shape[0]) // CHUNK[0])


def _cube(source: Path) -> Any:
    import zarr

    return zarr.open_group(str(source), mode="r")["cube"]


def _compared_rows(run: Path, source: Path, out: Path) -> tuple[int, bool]:
    """How many parts are compared with scores of the same rows as a DataFrame, and whether they are the same."""
    opened, ends = open_run(run), np.cumsum([0, *(pq.read_metadata(p).num_rows for p in _sorted(source))])
    files, starts = _sorted(out), np.cumsum([0, *(pq.read_metadata(p).num_rows for p in _sorted(out))])
    assert ends[-1] == starts[-1]
    chosen = np.unique(np.linspace(0, len(files) - 1, COMPARED).astype(int)).tolist()
    for part in chosen:
        first, last = int(starts[part]), int(starts[part + 1])
        touched = [k for k in range(len(ends) - 1) if ends[k] < last and ends[k + 1] > first]
        frame = pd.concat([pd.read_parquet(_sorted(source)[k]) for k in touched], ignore_index=True)
        frame.index = pd.RangeIndex(int(ends[touched[0]]), int(ends[touched[0]]) + len(frame))
        if not opened.score(frame.loc[first : last - 1]).equals(pd.read_parquet(files[part])):
            return len(chosen), False
    return len(chosen), True


def _sorted(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.parquet"), key=lambda path: int(path.stem.rpartition("-")[2]))


def _compared_map(run: Path, source: Path, out: Path) -> tuple[int, bool]:
    """The same of ten rows of pixels, a block each, as an array."""
    opened, cube, found = open_run(run), _cube(source), np.load(out)
    assert found.shape == cube.shape[:2]
    starts = np.unique(np.linspace(0, cube.shape[0] // 10 - 1, COMPARED).astype(int) * 10).tolist()
    same = [
        np.array_equal(
            opened.score(np.asarray(cube[row : row + 10]).reshape(-1, 1, BANDS)).score.to_numpy(dtype=np.float32),
            found[row : row + 10].ravel(),
        )
        for row in starts
    ]
    return len(starts), all(same)


def append(engines: Sequence[str], kinds: Sequence[str], gigabytes: float, kills: int, place: Path | None) -> None:
    """Rows of each kind of data by each engine; what is generated serves all engines."""
    if place is not None:
        place.mkdir(parents=True, exist_ok=True)
    for data in kinds:
        with tempfile.TemporaryDirectory(dir=place) as scratch:
            folder = Path(scratch)
            fitted = (write_parquet if data == "parquet" else write_zarr)(folder, gigabytes)
            subprocess.run(command("fit", str(fitted), *OPTIONS, "--out", str(folder / "run")), check=True)
            for engine in engines:
                made = measure(engine, data, gigabytes, 0 if engine == "local" else kills, folder)
                settings = {"engine": engine, "data": data, "gigabytes": gigabytes, "workers": WORKERS, "kills": kills}
                row = {"settings": settings, **made, "load": round(os.getloadavg()[0], 1), "cores": os.cpu_count()}
                rows.append(RESULTS, row | {"commit": rows.commit(), "versions": rows.versions()})
                print(json.dumps(row), flush=True)
                for path in folder.glob("scores/*"):
                    path.unlink()


def page(every: Sequence[dict[str, Any]]) -> str:
    lines = []
    for row in sorted(every, key=lambda row: [row["settings"][name] for name in ("data", "gigabytes", "engine")]):
        settings = row["settings"]
        named = [settings["data"], f"{settings['gigabytes']:g}", settings["engine"]]
        if row["status"] != "ok":
            lines.append([*named, row["error"], *[""] * 5])
            continue
        told = [f"{row['seconds']:.0f}", f"{max(row['peak_mb']):,}", str(row["killed"]), str(row["parts"])]
        lines.append([*named, *told, str(row["compared"]), "yes" if row["equal"] else "no"])
    return f"{HEAD}{table(HEADINGS, lines)}\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "page"))
    parser.add_argument("--engines", nargs="+", choices=("local", "dask", "ray"), default=["dask", "ray"])
    parser.add_argument("--data", nargs="+", choices=("parquet", "zarr"), default=["parquet", "zarr"])
    parser.add_argument("--gigabytes", type=float, default=10.0)
    parser.add_argument("--kills", type=int, default=2)
    parser.add_argument("--folder", type=Path)
    chosen = parser.parse_args()
    if chosen.what == "run":
        append(chosen.engines, chosen.data, chosen.gigabytes, chosen.kills, chosen.folder)
    else:
        PAGE.write_text(page(rows.read_rows(RESULTS)), encoding="utf-8")


if __name__ == "__main__":
    main()

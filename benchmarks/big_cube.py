"""Scores a cube larger than memory with `tailwise score`, kills and resumes it, and compares the maps byte by byte.

python benchmarks/big_cube.py [--height 4000] [--width 2500] [--bands 200] [--detector rx] [--interleave bil]

The cube, float32 in ENVI format, is written in blocks of rows into a temporary folder (--folder) and deleted at the
end; the default is 8 GB. The detector is fitted on a crop of 120 x 120 pixels. A line of JSON for each step, with its
seconds and, for those of tailwise, the largest memory that the process held, mapped files included.
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
from pathlib import Path

import numpy as np

ROWS = 50
CROP = 120
MAP_INFO = "map info = {UTM, 1.000, 1.000, 500000.000, 4649000.000, 3.0000000000e+01, 3.0000000000e+01, 16, North}"


def write_cube(folder: Path, height: int, width: int, bands: int, interleave: str) -> Path:
    """Mixtures of five smooth spectra with noise; the materials lie in broad stripes."""
    generator = np.random.default_rng(0)
    materials = generator.random((5, bands)).cumsum(1).astype(np.float32) / bands
    with open(folder / "cube.img", "wb") as file:
        file.truncate(height * width * bands * 4)
        for first in range(0, height, ROWS):
            rows = min(ROWS, height - first)
            place = (first + np.arange(rows))[:, None] + np.arange(width)
            share = np.stack([1 + np.cos(place / (40 + 17 * k) + k) for k in range(5)], axis=-1).astype(np.float32)
            block = share @ materials
            block += 0.01 * generator.standard_normal(block.shape, dtype=np.float32)
            if interleave == "bil":
                file.seek(first * width * bands * 4)
                file.write(np.ascontiguousarray(block.transpose(0, 2, 1)).tobytes())
            else:
                for band in range(bands):
                    file.seek((band * height + first) * width * 4)
                    file.write(np.ascontiguousarray(block[:, :, band]).tobytes())
            if first == 0:
                np.save(folder / "crop.npy", block.repeat(-(-CROP // rows), axis=0)[:CROP, :CROP])
    header = folder / "cube.hdr"
    header.write_text(
        f"ENVI\nsamples = {width}\nlines = {height}\nbands = {bands}\nheader offset = 0\nfile type = ENVI Standard\n"
        f"data type = 4\ninterleave = {interleave}\nbyte order = 0\n{MAP_INFO}\n"
    )
    return header


def run(arguments: list[str], kill_after: float | None = None) -> dict[str, float | int]:
    """Run tailwise, killed after so many seconds; its status, seconds and largest memory."""
    started = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "tailwise", *arguments], stdout=subprocess.DEVNULL)
    if kill_after is not None:
        time.sleep(kill_after)
        process.send_signal(signal.SIGKILL)
    _, status, used = os.wait4(process.pid, 0)
    return {
        "status": os.waitstatus_to_exitcode(status),
        "seconds": round(time.perf_counter() - started, 1),
        "cpu_seconds": round(used.ru_utime + used.ru_stime, 1),
        "peak_megabytes": used.ru_maxrss // 1024,
    }


def measure(folder: Path, options: argparse.Namespace) -> None:
    started = time.perf_counter()
    header = write_cube(folder, options.height, options.width, options.bands, options.interleave)
    size = (folder / "cube.img").stat().st_size
    show("write the cube", gigabytes=size / 1e9, seconds=round(time.perf_counter() - started, 1))
    fitted = str(folder / "run")
    show("fit on a crop", **run(["fit", str(folder / "crop.npy"), "--detector", options.detector, "--out", fitted]))
    whole, parted = folder / "whole.hdr", folder / "parted.hdr"
    found = run(["score", fitted, str(header), "--out", str(whole)])
    show("score", detector=options.detector, **found)
    for share in (0.3, 0.7):
        killed = run(["score", fitted, str(header), "--out", str(parted)], kill_after=share * found["seconds"])
        part = folder / ".writing-parted.hdr.part"
        show("killed", pixels_done=part.stat().st_size // 4 if part.exists() else None, **killed)
    show("resumed", **run(["score", fitted, str(header), "--out", str(parted)]))
    maps = [np.memmap(path.with_suffix(".img"), mode="r") for path in (whole, parted)]
    show(
        "compare",
        same_bytes=bool(np.array_equal(maps[0], maps[1])),
        same_header=whole.read_bytes() == parted.read_bytes(),
        map_info_kept=MAP_INFO in whole.read_text(),
        left_behind=sorted(path.name for path in folder.glob(".writing*")),
    )


def show(step: str, **facts: object) -> None:
    print(json.dumps({"step": step, **facts}), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--height", type=int, default=4_000)
    parser.add_argument("--width", type=int, default=2_500)
    parser.add_argument("--bands", type=int, default=200)
    parser.add_argument("--detector", default="rx")
    parser.add_argument("--interleave", choices=("bil", "bsq"), default="bil")
    parser.add_argument("--folder", type=Path)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=chosen.folder) as made:
        measure(Path(made), chosen)

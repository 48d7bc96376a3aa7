"""The scores of a cube as a map in a format of its own, written block by block and resumed after an interruption.

Scores go to a part file beside the map, in whole blocks, so that a block is either there or done again; the map takes
its place at the end. What the part file belongs to is kept beside it: a part of another run, of another cube or of one
that was changed since is not resumed.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..core import inference, messages
from ..core.context import Scenes
from ..core.data import Data
from ..core.detector import Detector
from ..errors import InputError
from ..runs.files import MODEL, NO_LINK, cannot_write, file_digest, prepared, refuse_link, write
from ..runs.result_folder import made_whole
from ..runs.scorer import open_run
from ..sources import envi
from ..sources.paths import find_path

# Numbers of the cube that are read at a time.
_BLOCK_ENTRIES = 8_000_000
_BYTES = 4
# What an ENVI header says of where on Earth and of when; it is taken along word for word.
_KEPT = (
    "map info", "projection info", "coordinate system string", "geo points", "pixel size", "rpc info",
    "x start", "y start", "acquisition time", "sensor type",
)  # fmt: skip


def write_map(
    run: Path,
    data: str,
    out: Path,
    threshold: float | None = None,
    batch_size: int | None = None,
    device: str = "cpu",
) -> Path:
    """Write the scores of one cube as a map [height, width], float32; see `commands.score`. `out` is returned.

    Raises:
        InputError: it is not one cube, it is not what the run was fitted on, or the map cannot be written there.
    """
    if batch_size is not None and batch_size < 1:
        raise InputError(f"batch_size must be above 0: got {batch_size}")
    if not out.parent.is_dir():
        raise InputError(f"cannot write {out}: there is no folder {out.parent}")
    opened = open_run(run)
    source = opened.source_like(data)
    samples = opened.samples(source).data
    sizes = samples.context.sizes if isinstance(samples.context, Scenes) else ()
    if len(sizes) != 1:
        holds = f"{len(sizes)} of them" if sizes else "something else"
        raise InputError(f"a map is of one cube: {data} holds {holds}", "write a table to a .csv or .parquet file")
    path = find_path(source.path)  # type: ignore[attr-defined]
    header = envi.header_of(path)
    files = _files_of(out)
    if any(file.resolve() in {path.resolve(), header and header.resolve()} for file in files):
        raise InputError(f"{out} would take the place of the cube itself", "choose another --out")
    if out.is_dir():
        raise InputError(
            f"{out} is there already, and a folder is not written over", "remove it, or choose another --out"
        )
    if files[-1].exists() and not out.exists():
        raise InputError(
            f"{files[-1]} is there without {out.name}, and may be another's", "remove it, or choose another --out"
        )
    detector = opened.detector_on(device)
    height, width = sizes[0]
    rows = max(1, _BLOCK_ENTRIES // (width * samples.sample_shape[1]))
    belongs = {
        "model": file_digest(opened.path / MODEL),
        "detector": opened.settings.detector,
        "source": repr(source),
        "files": [(str(p), p.stat().st_size, p.stat().st_mtime_ns) for p in _beside(path) if p not in files],
        "shape": [height, *samples.sample_shape, width],
        "batch_size": batch_size,
        "block": rows,
        "device": device,
    }
    part = Part(out, belongs, rows * width)
    part.fill(height * width, lambda index: _scores_of_pixels(detector, samples, index, batch_size, device))
    limit = opened.settings.threshold if threshold is None else threshold
    _WRITERS[out.suffix](part.path, out, _Map(height, width, limit, header, len(samples) < height * width))
    part.discard()
    return out


class Part:
    """The scores so far, float32 little-endian, and what they belong to."""

    def __init__(self, out: Path, belongs: dict[str, Any], block: int) -> None:
        self.path = out.with_name(f".writing-{out.name}.part")
        self.facts = out.with_name(f".writing-{out.name}.json")
        self.lock = out.with_name(f".writing-{out.name}.lock")
        self.belongs = json.dumps(belongs, sort_keys=True)
        self.block = block

    def fill(self, samples: int, scores: Callable[[torch.Tensor], np.ndarray]) -> None:
        """Score block after block, from the first that is not there yet.

        Raises:
            InputError: another process is at it, or the disk does not take it. Bad data leaves no part behind.
        """
        from filelock import FileLock, Timeout

        for path in (self.path, self.facts, self.lock):
            refuse_link(path)
        try:
            with FileLock(self.lock, timeout=0):
                self._fill(samples, scores)
        except Timeout as error:
            raise InputError(
                f"another process is writing {self.path.name}", "wait for it, or choose another"
            ) from error
        except OSError as error:
            raise cannot_write(self.path, error) from error
        except InputError:
            self.discard()
            raise

    def discard(self) -> None:
        for path in (self.path, self.facts, self.lock):
            with suppress(OSError):
                path.unlink(missing_ok=True)

    def _fill(self, samples: int, scores: Callable[[torch.Tensor], np.ndarray]) -> None:
        done = self._done(samples)
        if done:
            messages.progress(f"resuming after {done:,} of {samples:,} pixels")
        else:
            self.path.unlink(missing_ok=True)
            write(self.facts, self.belongs.encode())
        with open(os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | NO_LINK, 0o666), "ab") as file:
            file.truncate(done * _BYTES)
            for start in range(done, samples, self.block):
                found = scores(torch.arange(start, min(start + self.block, samples)))
                file.write(found.astype("<f4").tobytes())
                file.flush()
                os.fsync(file.fileno())

    def _done(self, samples: int) -> int:
        """How many scores of a part like this one can be kept: whole blocks only."""
        try:
            if not self.facts.is_file() or self.facts.read_text() != self.belongs:
                return 0
            facts = self.path.stat()
            if facts.st_nlink > 1:
                return 0  # a second name of another file, which is not written to
            found = facts.st_size // _BYTES
        except (OSError, ValueError):
            return 0
        return samples if found >= samples else found // self.block * self.block


@dataclass(frozen=True)
class _Map:
    """What a map's file says besides the scores."""

    height: int
    width: int
    threshold: float
    header: Path | None
    has_gaps: bool


def _scores(detector: Detector, samples: Data, index: torch.Tensor, batch_size: int | None, device: str) -> np.ndarray:
    """[k] of the pixels at these places, which follow each other."""
    if detector.looks_around:
        with torch.no_grad():
            return detector.score(samples.batch(index).to(device)).cpu().numpy()
    block = Data(samples.read(index), range(len(index)), modality=samples.modality)  # type: ignore[arg-type]
    return inference.score(detector, block, batch_size).numpy()


def _scores_of_pixels(
    detector: Detector, samples: Data, index: torch.Tensor, batch_size: int | None, device: str
) -> np.ndarray:
    """[k] of the pixels of the cube at these places, which follow each other; NaN for those that hold no data."""
    place = samples.context.place if isinstance(samples.context, Scenes) else None
    if place is None:
        return _scores(detector, samples, index, batch_size, device)
    scores = np.full(len(index), np.nan, dtype=np.float32)
    first, last = torch.searchsorted(place, torch.stack([index[0], index[-1] + 1])).tolist()
    if last > first:
        valid = torch.arange(first, last)
        scores[(place[valid] - index[0]).numpy()] = _scores(detector, samples, valid, batch_size, device)
    return scores


def _write_envi(part: Path, out: Path, facts: _Map) -> None:
    lines = [
        "ENVI",
        f"description = {{anomaly scores, higher is more anomalous; flagged above {facts.threshold!r}}}",
        f"samples = {facts.width}",
        f"lines = {facts.height}",
        "bands = 1",
        "header offset = 0",
        "file type = ENVI Standard",
        "data type = 4",
        "interleave = bsq",
        "byte order = 0",
        "band names = {anomaly score}",
        *(["data ignore value = nan"] if facts.has_gaps else []),
        *_kept_lines(facts.header),
    ]
    # Two files cannot take their places in one step: nothing but the two steps is left to be interrupted.
    with prepared(out, ("\n".join(lines) + "\n").encode("utf-8", "surrogateescape")):
        os.replace(part, out.with_suffix(".img"))


def _write_numpy(part: Path, out: Path, facts: _Map) -> None:
    buffer = io.BytesIO()
    np.save(buffer, _read(part, facts))
    write(out, buffer.getvalue())


def _write_mat(part: Path, out: Path, facts: _Map) -> None:
    import scipy.io

    buffer = io.BytesIO()
    scipy.io.savemat(buffer, {"scores": _read(part, facts), "threshold": facts.threshold})
    write(out, buffer.getvalue())


def _write_tiff(part: Path, out: Path, facts: _Map) -> None:
    try:
        import tifffile
    except ImportError as error:
        raise InputError("TIFF maps need the package tifffile", "pip install 'tailwise[hyperspectral]'") from error
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, _read(part, facts), photometric="minisblack")
    write(out, buffer.getvalue())


def _write_zarr(part: Path, out: Path, facts: _Map) -> None:
    try:
        import zarr
    except ImportError as error:
        raise InputError("zarr maps need the package zarr", "pip install 'tailwise[zarr]'") from error
    with made_whole(out) as unfinished:
        try:
            store = zarr.open_group(str(unfinished), mode="w")
            store.create_array("scores", data=_read(part, facts), dimension_names=("y", "x"))
            store.attrs["threshold"] = facts.threshold
        except OSError as error:
            raise cannot_write(out, error) from error


_WRITERS: dict[str, Callable[[Path, Path, _Map], None]] = {
    ".hdr": _write_envi,
    ".mat": _write_mat,
    ".npy": _write_numpy,
    ".tif": _write_tiff,
    ".tiff": _write_tiff,
    ".zarr": _write_zarr,
}
SUFFIXES = tuple(_WRITERS)


def _read(part: Path, facts: _Map) -> np.ndarray:
    return np.fromfile(part, dtype="<f4").reshape(facts.height, facts.width)


def _kept_lines(header: Path | None) -> list[str]:
    """Those entries of an ENVI header that hold for the map too; a value in braces may run over lines."""
    if header is None:
        return []
    return [f"{name} = {value}" for name, value in envi.read_header(header).items() if name in _KEPT]


def _files_of(out: Path) -> list[Path]:
    return [out, out.with_suffix(".img")] if out.suffix == ".hdr" else [out]


def _beside(path: Path) -> list[Path]:
    """The file and those of the same name with another ending, such as an ENVI header and its data; of a store, all."""
    if path.is_dir():
        return sorted(p for p in path.rglob("*") if p.is_file())
    return sorted(p for p in path.parent.iterdir() if p.stem == path.stem and p.is_file())

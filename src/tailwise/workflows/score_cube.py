"""The scores of a cube as a map in a format of its own, written block by block and resumed after an interruption.

Scores go to a part file beside the map, in whole blocks, so that a block is either there or done again; the map takes
its place at the end. What the part file belongs to is kept beside it: a part of another run, of another cube or of one
that was changed since is not resumed.
"""

from __future__ import annotations

import functools
import io
import itertools
import json
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..core import inference, messages
from ..core.context import Scenes
from ..core.data import Batch, Data
from ..core.detector import Detector
from ..core.modality import SPECTRUM
from ..core.problem import Source
from ..core.readers import read
from ..errors import InputError
from ..integrations import engines
from ..runs.files import MODEL, NO_LINK, alone, cannot_write, file_digest, prepared, refuse_link, write
from ..runs.outputs import check_file
from ..runs.result_folder import made_whole
from ..runs.scorer import Run, open_run
from ..sources import envi
from ..sources.cube import Cube
from ..sources.paths import find_path
from .parts import Asked, Parts, beside, check_unchanged, digest_of, settled

# Numbers of the cube that are read at a time.
_BLOCK_ENTRIES = 8_000_000
_BYTES = 4
# Blocks that a worker scores in one task.
_BLOCKS = 8
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
    options: engines.Options = engines.Options(),  # noqa: B008 (a frozen value)
) -> Path:
    """Write the scores of one cube as a map [height, width], float32; see `commands.score`. `out` is returned.

    Raises:
        InputError: it is not one cube, it is not what the run was fitted on, or the map cannot be written there.
    """
    options.check()
    opened, source, asked = settled(Asked(str(run), data, threshold, batch_size=batch_size, device=device), {})
    scenes = _scene(opened, source, data)
    path = find_path(source.path)  # type: ignore[attr-defined]
    header = envi.header_of(path)
    files = _files_of(out)
    for file in files:
        check_file(file, source, *([] if header is None else [header]))
    if files[-1].exists() and not out.exists():
        raise InputError(
            f"{files[-1]} is there without {out.name}, and may be another's", "remove it, or choose another --out"
        )
    detector = opened.detector_on(device)
    height, width = scenes.sizes[0]
    together = int(getattr(scenes.pixels, "stored_together", 1))
    rows = _rows_of_block(max(1, _BLOCK_ENTRIES // (width * scenes.pixels.shape[2])), together)
    belongs = {
        "model": file_digest(opened.path / MODEL),
        "detector": opened.settings.detector,
        "source": repr(source),
        "files": [(str(p), p.stat().st_size, p.stat().st_mtime_ns) for p in beside(path) if p not in files],
        "shape": [height, *scenes.pixels.shape[1:], width],
        "batch_size": batch_size,
        "block": rows,
        "device": device,
    }
    part = Part(out, belongs, rows * width)
    if options.engine == "local":
        part.fill(height * width, lambda index: _scores_of_pixels(detector, scenes, index, batch_size, device))
    else:
        in_part = -(-_BLOCKS * rows // together) * together * width  # whole blocks, and whole chunks of a store
        _fill_by_workers(part, in_part, height * width, asked, belongs, options)
    check_unchanged(asked, opened, source, {})
    limit = opened.settings.threshold if threshold is None else threshold
    missing = _count_missing(part.path)
    if missing == height * width:
        part.discard()
        raise InputError(
            f"all {missing:,} pixels of {path} hold no data", "correct the value that its file declares as no data"
        )
    if missing:
        messages.note(f"{missing:,} of {height * width:,} pixels hold no data and are left out")
    _WRITERS[out.suffix](part.path, out, _Map(height, width, limit, header, missing > 0))
    part.discard()
    return out


@dataclass(frozen=True)
class MapPart:
    """Pixels `start` to `stop` of a cube, which are scored in blocks of so many, and the file that the scores go to."""

    asked: Asked
    start: int
    stop: int
    block: int
    path: str


def score_pixels(part: MapPart) -> int:
    """Write the scores of one part of a map; how many there are. A task: any process may do it, at any time."""
    asked, (detector, scenes) = part.asked, _opened(part.asked)
    blocks = [
        torch.arange(first, min(first + part.block, part.stop)) for first in range(part.start, part.stop, part.block)
    ]
    scores = [_scores_of_pixels(detector, scenes, block, asked.batch_size, asked.device) for block in blocks]
    write(Path(part.path), np.concatenate(scores).astype("<f4").tobytes())
    return part.stop - part.start


def _rows_of_block(rows: int, together: int) -> int:
    """So many rows, or fewer, that what is stored together is whole blocks, or blocks are whole of it."""
    if together <= rows:
        return rows - rows % together
    return next(fewer for fewer in range(rows, 0, -1) if together % fewer == 0)


def _fill_by_workers(
    part: Part, size: int, pixels: int, asked: Asked, belongs: dict[str, Any], options: engines.Options
) -> None:
    """Fill the part with what workers make of the same blocks, `size` pixels in a file of their own until then."""
    asked = replace(asked, stamp=digest_of([belongs, size]))
    parts = Parts(part.out, asked.stamp, ".f32")
    items = [
        MapPart(asked, start, stop, part.block, str(parts.path(number).absolute()))
        for number, (start, stop) in enumerate(itertools.pairwise([*range(0, pixels, size), pixels]))
    ]
    with parts.held():
        with engines.started(options) as engine:
            parts.fill(engine, score_pixels, items, _is_whole)
        part.fill(pixels, lambda index: _scores_in(items, size, index))
        parts.discard()


def _is_whole(path: Path, part: MapPart) -> bool:
    return path.is_file() and path.stat().st_size == (part.stop - part.start) * _BYTES


def _scores_in(items: Sequence[MapPart], size: int, index: torch.Tensor) -> np.ndarray:
    """[k] of the pixels at these places, which follow each other in one part of this size."""
    first, part = int(index[0]), items[int(index[0]) // size]
    return np.fromfile(part.path, dtype="<f4", count=len(index), offset=(first - part.start) * _BYTES)


@functools.lru_cache(maxsize=1)
def _opened(asked: Asked) -> tuple[Detector, Scenes]:
    """The detector and the cube, opened once a process."""
    run = open_run(asked.run, read_only=True)
    return run.detector_on(asked.device), _scene(run, run.source_like(asked.data), asked.data)


def _scene(run: Run, source: Source, data: str) -> Scenes:
    """The cube's pixels, of which none is read yet.

    Raises:
        InputError: it is not one cube, or not what the run was fitted on.
    """
    scenes = source.scenes() if isinstance(source, Cube) else None
    if scenes is None or len(scenes.sizes) != 1:
        holds = f"{len(scenes.sizes)} of them" if scenes else "something else"
        raise InputError(f"a map is of one cube: {data} holds {holds}", "write a table to a .csv or .parquet file")
    features = scenes.pixels.features  # type: ignore[union-attr]
    run.check_shape(tuple(scenes.pixels.shape[1:]), SPECTRUM, repr(source), features)
    return scenes


class Part:
    """The scores so far, float32 little-endian, and what they belong to."""

    def __init__(self, out: Path, belongs: dict[str, Any], block: int) -> None:
        self.out = out
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
        for path in (self.path, self.facts):
            refuse_link(path)
        try:
            with alone(self.lock, self.path):
                self._fill(samples, scores)
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


def _scores(
    detector: Detector, pixels: torch.Tensor, place: torch.Tensor, scenes: Scenes, batch_size: int | None, device: str
) -> np.ndarray:
    """[k] of pixels [k, 1, bands] at these places, in rising order."""
    if detector.looks_around:
        with torch.no_grad():
            return detector.score(Batch(pixels, place, scenes.take(place)).to(device)).cpu().numpy()
    block = Data(pixels, range(len(place)), modality=SPECTRUM)  # type: ignore[arg-type]
    return inference.score(detector, block, batch_size).numpy()


def _scores_of_pixels(
    detector: Detector, scenes: Scenes, index: torch.Tensor, batch_size: int | None, device: str
) -> np.ndarray:
    """[k] of the pixels of the cube at these places, which follow each other; NaN for those that hold no data."""
    pixels = read(scenes.pixels, index)
    valid = ~pixels[:, 0, 0].isnan()
    scores = np.full(len(index), np.nan, dtype=np.float32)
    if bool(valid.any()):
        scores[valid.numpy()] = _scores(detector, pixels[valid], index[valid], scenes, batch_size, device)
    return scores


def _count_missing(part: Path) -> int:
    """How many pixels of a part hold no data."""
    scores = np.memmap(part, dtype="<f4", mode="r")
    starts = range(0, len(scores), _BLOCK_ENTRIES)
    return sum(int(np.isnan(scores[start : start + _BLOCK_ENTRIES]).sum()) for start in starts)


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

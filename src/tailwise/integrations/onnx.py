"""A run as one ONNX file: samples in, scores out, with local scores, the threshold and the maps in the graph.

What the file needs to be used and checked travels in its metadata: the shape of a sample, the threshold, what made it,
and the run's fingerprint. The package tailwise-runtime (in runtime/) reads it without torch.
"""

from __future__ import annotations

import base64
import importlib.util
import json
import logging
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional

from .. import __version__
from ..calibration import score_maps
from ..core import inference
from ..core.data import Batch
from ..core.detector import Detector
from ..errors import InputError, reading
from ..runs import fingerprint
from ..runs.files import regular_file, write
from ..runs.fingerprint import TOLERANCE, Fingerprint
from ..runs.scorer import open_run

KEY = "tailwise"
_NEEDED = ("onnx", "onnxscript", "onnxruntime")
_FORMAT = 1
_OPSET = 18
# Numbers of samples at which the file is tried; the fastest is what the loader takes at a time.
_BATCHES = (1, 4, 16, 64, 256, 1_024)
_SLOW_SECONDS = 0.25
# scipy's Gaussian filter ends at so many standard deviations.
_FILTER_ENDS = 4.0


def export(run: Path, to: str, out: Path) -> Path:
    """Write a run's detector as an ONNX file, whose scores have been compared; see `commands.export`.

    Raises:
        InputError: the run's detector has no graph of one sample alone, or the scores of the file are not the run's.
    """
    if to != "onnx":
        raise InputError(f"a run is exported to onnx: got {to!r}", "leave --to out, or say --to onnx")
    if out.suffix != ".onnx":
        raise InputError(f"an ONNX file is called .onnx: got {out.name}")
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(f"export needs {' and '.join(missing)}", "pip install 'tailwise[onnx]'")
    opened = open_run(run)
    settings = opened.settings.as_dict()
    write(out, to_onnx(opened.detector(), settings, opened.fingerprint()))
    if own := _own_thresholds(settings):
        warnings.warn(
            f"the file flags above one threshold, {opened.settings.threshold:.6g}, not above the thresholds of the "
            f"run's {len(own)} kinds: the graph does not know the kind of a sample (the metadata lists the thresholds)",
            stacklevel=2,
        )
    return out


def to_onnx(detector: Detector, settings: Mapping[str, Any], kept: Fingerprint | None = None) -> bytes:
    """The content of the ONNX file of a fitted detector, with the settings of its run and its fingerprint."""
    if fingerprint.looks_around(detector):
        raise InputError(
            f"{settings['detector']} cannot be exported: it scores a pixel by the scene around it, and a file "
            "takes samples alone",
            "score cubes with tailwise score, or export a run of rx or another detector of single spectra",
        )
    if centre := settings.get("centre"):
        names = settings.get("features") or range(len(centre))
        shifted = [(str(name), at) for name, at in zip(names, centre, strict=True) if at]
        raise InputError(
            f"a run of column {shifted[0][0]!r} cannot be exported: its spread is small beside its size, and an ONNX "
            f"file of single-precision samples would lose it ({len(shifted)} such columns)",
            f"subtract {shifted[0][1]:.17g} from it in the data, and fit again",
        )
    kept = kept or _made_up(detector)
    graph = Graph(detector, settings["threshold"], float(settings.get("smoothing", 0.0))).eval()
    model = _traced(graph, kept.samples.float())
    facts = _facts(settings, graph, kept)
    facts["batch_size"] = _compare(_bytes(model, facts), graph, kept)
    return _bytes(model, facts)


class Graph(nn.Module):
    """What is traced: samples [n, *sample] -> scores [n], whether they are flagged [n], and the smoothed map [n, h, w].

    A second input says whether maps are wanted; where they are not, they are nought. In the file it need not be given.
    """

    def __init__(self, detector: Detector, threshold: float, smoothing: float) -> None:
        super().__init__()
        self.detector, self.threshold, self.smoothing = detector, threshold, smoothing
        gradients = any(isinstance(part, Detector) and part.maps_are_gradients for part in detector.modules())
        self.with_maps = detector.has_maps and not gradients

    @property
    def outputs(self) -> list[str]:
        return ["score", "flagged", *(["map"] if self.with_maps else [])]

    @property
    def inputs(self) -> list[str]:
        return ["samples", *(["with_map"] if self.with_maps else [])]

    def forward(self, samples: Tensor, with_map: Tensor | None = None) -> tuple[Tensor, ...]:
        batch = Batch(samples, torch.arange(samples.shape[0], device=samples.device))
        read = self.detector.read(batch, map=with_map is not None)
        scores = read.score.float()
        found = (scores, scores.double() > self.threshold)
        if with_map is None:
            return found
        shown = torch.cond(
            with_map,
            lambda maps: _smoothed(maps, self.smoothing),
            lambda maps: maps.new_zeros(_enlarged(maps)),
            (read.map.float(),),
        )
        return (*found, shown)


@dataclass(frozen=True)
class Verdict:
    """What `verify` found: a row for each sample, with the score that was kept, the one now and their difference."""

    table: pd.DataFrame
    what: str

    @property
    def differing(self) -> int:
        """How many scores differ by more than 1e-4, as a share."""
        return int((~(self.table["difference"] <= TOLERANCE)).sum())

    def __str__(self) -> str:
        worst = self.table["difference"].max()
        if not self.differing:
            return f"{self.what} gives the {len(self.table)} scores of the fit (largest difference {worst:.2g})"
        rows = self.table.to_string(index=False, float_format=lambda value: f"{value:.6g}")
        return f"{rows}\n{self.what} gives {self.differing} of {len(self.table)} scores otherwise than the fit"


def verify(run: Path, file: Path | None = None) -> Verdict:
    """Compare the scores of a run, or of a file exported from it, with those of the fit; see `commands.verify`.

    Raises:
        InputError: the run has no fingerprint, or the file is not an ONNX file of such samples.
    """
    opened = open_run(run)
    kept = opened.fingerprint()
    if kept is None:
        if fingerprint.looks_around(opened.untrained_detector()):
            raise InputError(f"{run} has no fingerprint: its detector scores a pixel by the scene around it")
        raise InputError(f"{run} was made before runs had fingerprints", "fit again to have one")
    if file is None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # opening a run says in a line what is shown here in a table
            detector = opened.detector()
        found = fingerprint.of(detector, kept.samples).scores
    else:
        found = torch.from_numpy(_scores_of(session(file), kept.samples.float().numpy()))
    differences = kept.differences(found)
    table = pd.DataFrame(
        {
            "sample": np.arange(len(found)),
            "fitted": kept.scores.double().numpy(),
            "now": found.double().numpy(),
            "difference": differences.numpy(),
        }
    )
    return Verdict(table, str(file or run))


def session(file: Path | bytes, threads: int = 1) -> Any:
    """An onnxruntime session on the CPU.

    Raises:
        InputError: onnxruntime is not installed, or it cannot read the file.
    """
    if importlib.util.find_spec("onnxruntime") is None:
        raise InputError("onnxruntime is needed to run an ONNX file", "pip install 'tailwise[onnx]'")
    if isinstance(file, Path):
        regular_file(file)
    runtime = importlib.import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.enable_mem_pattern = False  # of no use where every batch may have another size
    options.log_severity_level = 3
    with reading(file if isinstance(file, Path) else "the file", "export the run again"):
        return runtime.InferenceSession(
            str(file) if isinstance(file, Path) else file, options, providers=["CPUExecutionProvider"]
        )


def _scores_of(opened: Any, samples: np.ndarray) -> np.ndarray:
    given: dict[str, Any] = {opened.get_inputs()[0].name: samples}
    if any(value.name == "with_map" for value in opened.get_overridable_initializers()):
        given["with_map"] = np.array(False)
    try:
        scores = np.asarray(opened.run(["score"], given)[0])
    except Exception as error:  # its errors share no class but this
        raise InputError(
            f"the ONNX file does not take samples of shape {list(samples.shape[1:])}: {error}",
            "give a file that tailwise export wrote of this run",
        ) from error
    if scores.shape != samples.shape[:1] or scores.dtype.kind != "f":
        raise InputError(
            f"the ONNX file gives {scores.dtype} of shape {list(scores.shape)} for {len(samples)} samples",
            "give a file that tailwise export wrote of this run",
        )
    return scores


def _made_up(detector: Detector) -> Fingerprint:
    """For a run that kept none: samples that are noise, with the detector's scores of them."""
    shape = (fingerprint.COUNT, *detector.sample_shape)
    return fingerprint.of(detector, torch.randn(shape, generator=torch.Generator().manual_seed(0)))


def _enlarged(scores: Tensor) -> tuple[int, int, int]:
    count, height, width = scores.shape
    factor = score_maps.enlargement((height, width), 0.0)[0]
    return count, height * factor, width * factor


def _smoothed(scores: Tensor, smoothing: float) -> Tensor:
    """What `maps.smoothed` makes of maps [n, h, w], in operations that a graph can hold."""
    height, width = scores.shape[1:]
    factor, deviation = score_maps.enlargement((height, width), smoothing)
    # The lower of two in the middle is the median, for which ONNX has no operation.
    usual = scores.flatten(1).topk(height * width // 2 + 1).values[:, -1:, None]
    if factor > 1:
        scores = functional.interpolate(scores[:, None], (height * factor, width * factor), mode="bilinear")[:, 0]
    if not deviation:
        return scores
    reach = int(_FILTER_ENDS * deviation + 0.5)
    kernel = (-0.5 * (torch.arange(-reach, reach + 1, dtype=torch.float64) / deviation) ** 2).exp()
    kernel = (kernel / kernel.sum()).float()
    return _filtered(scores - usual, kernel) / _filtered(torch.ones_like(scores[:1]), kernel).sqrt() + usual


def _filtered(scores: Tensor, kernel: Tensor) -> Tensor:
    """Maps [n, h, w] under a filter along both axes, 0 outside."""
    padded = functional.pad(scores[:, None], [len(kernel) // 2] * 4)
    return functional.conv2d(functional.conv2d(padded, kernel[None, None, :, None]), kernel[None, None, None])[:, 0]


def _traced(graph: Graph, samples: Tensor) -> Any:
    """The model of a graph, as onnx has it, for any number of samples."""
    # A batch of one would be taken for a constant.
    samples = samples[:4] if len(samples) > 1 else samples.repeat(2, *(1,) * (samples.dim() - 1))
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            graph, (samples, torch.tensor(True)) if graph.with_maps else (samples,), dynamo=True,
            dynamic_shapes=({0: torch.export.Dim("n")}, *([None] if graph.with_maps else [])),
            input_names=graph.inputs, output_names=graph.outputs, opset_version=_OPSET, verbose=False,
            custom_translation_table={torch.ops.tailwise.solve.default: _solved},
        )  # fmt: skip
    assert program is not None
    return program.model_proto


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what torch's exporter says of its own inner workings: of packages that it would like, and of itself."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)


def _solved(matrices: Any, right: Any) -> Any:
    """`tracing.solve` in ONNX: elimination without exchanges, as positive definite systems need none.

    Samples go last, so that each step is a few operations on long runs of numbers. The row of each pivot goes to the
    end, and its column is dropped; after as many steps as rows the solution is what is left.
    """
    op = getattr(importlib.import_module("onnxscript"), f"opset{_OPSET}")
    k = right.shape[1]
    columns = op.Unsqueeze(op.Transpose(right, perm=[1, 0]), [1])
    rows = op.Concat(op.Transpose(matrices, perm=[1, 2, 0]), columns, axis=1)  # [k, k + 1, n]
    for step in range(k):
        last = k + 1 - step
        first = op.Div(op.Slice(rows, [0, 1], [1, last], [0, 1]), op.Slice(rows, [0, 0], [1, 1], [0, 1]))
        if k > 1:
            taken = op.Mul(op.Slice(rows, [1, 0], [k, 1], [0, 1]), first)
            rows = op.Concat(op.Sub(op.Slice(rows, [1, 1], [k, last], [0, 1]), taken), first, axis=0)
        else:
            rows = first
    return op.Transpose(op.Squeeze(rows, [1]), perm=[1, 0])


def _facts(settings: Mapping[str, Any], graph: Graph, kept: Fingerprint) -> dict[str, Any]:
    scale = score_maps.Scale.of(settings) if graph.with_maps else None
    return {
        "format": _FORMAT,
        "tailwise": __version__,
        "versions": {name: importlib.import_module(name).__version__ for name in ("torch", *_NEEDED)},
        "made_with": settings.get("versions"),
        "detector": settings["detector"],
        "scores": settings.get("scores", "own"),
        "source": settings.get("source", ""),
        "sample_shape": list(graph.detector.sample_shape),
        "features": settings.get("features") or [],
        "threshold": settings["threshold"],
        "thresholds": _own_thresholds(settings),
        "map_threshold": None if scale is None else scale.threshold,
        "fingerprint": settings.get("fingerprint"),
        "fingerprint_samples": _text(kept.samples),
        "fingerprint_scores": _text(kept.scores),
        "tolerance": TOLERANCE,
    }


def _own_thresholds(settings: Mapping[str, Any]) -> dict[str, float]:
    """The threshold of each kind, where a run has them; a graph of samples cannot choose among them."""
    if not (settings.get("per_cluster") or settings.get("per_group")):
        return {}
    return {str(row["kind"]): float(row["threshold"]) for row in settings["thresholds"]}


def _text(values: Tensor) -> dict[str, Any]:
    """An array as JSON can hold it, little-endian."""
    array = values.numpy().astype(f"<f{values.element_size()}")
    return {"type": array.dtype.str, "shape": list(array.shape), "base64": base64.b64encode(array.tobytes()).decode()}


def _bytes(model: Any, facts: dict[str, Any]) -> bytes:
    """The file of a model with its facts.

    Raises:
        InputError: it would be larger than an ONNX file may be.
    """
    onnx = importlib.import_module("onnx")
    named = onnx.ModelProto()
    named.CopyFrom(model)
    del named.metadata_props[:]
    named.metadata_props.add(key=KEY, value=json.dumps(facts))
    named.producer_name, named.producer_version = KEY, __version__
    if any(value.name == "with_map" for value in named.graph.input):
        # An input that has a value need not be given.
        named.graph.initializer.append(onnx.numpy_helper.from_array(np.array(True), "with_map"))
    for node in named.graph.node:
        del node.metadata_props[:]  # the paths of the source files that it was traced from
        node.ClearField("doc_string")
    try:
        return named.SerializeToString()
    except ValueError as error:
        raise InputError(
            f"the run is too large for one ONNX file: {error}", "use a smaller memory or fewer dims"
        ) from error


def _compare(content: bytes, graph: Graph, kept: Fingerprint) -> int:
    """Hold the file's scores and maps against the detector's own; how many samples at a time it is fastest with."""
    opened = session(content)
    data = kept.data
    samples = data.read(torch.arange(len(data)))
    found = dict(zip(graph.outputs, opened.run(graph.outputs, {"samples": samples.numpy()}), strict=True))
    worst = float(kept.differences(torch.from_numpy(found["score"])).max())
    if worst > TOLERANCE:
        raise InputError(
            f"the exported file would give other scores, by up to {100 * worst:.2g} %: nothing was written",
            "tailwise verify shows whether the run still gives the scores of its fit",
        )
    if graph.with_maps:
        expected = np.stack(list(score_maps.of_data(graph.detector, data, graph.smoothing)))
        gap = float(np.abs(found["map"] - expected).max() / max(np.abs(expected).max(), 1e-12))
        if gap > TOLERANCE:
            raise InputError(f"the exported file would give other maps, by {100 * gap:.2g} %: nothing was written")
    return _fastest(opened, samples)


def _fastest(opened: Any, samples: Tensor) -> int:
    best, size = float("inf"), 1
    for count in _BATCHES:
        if count > inference.batch_size_for(tuple(samples.shape[1:])):
            break
        some = samples[torch.arange(count) % len(samples)].numpy()
        seconds = []
        for _ in range(3):
            # Of this thread alone: on a busy machine only short runs are left in peace.
            start = time.thread_time()
            _scores_of(opened, some)
            seconds.append(time.thread_time() - start)
        if min(seconds) / count < best:
            best, size = min(seconds) / count, count
        if min(seconds) > _SLOW_SECONDS:
            break
    return size

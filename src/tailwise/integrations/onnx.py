"""A run as one ONNX file: samples in, scores out, with local scores, the threshold and the maps in the graph.

The file of a run of pictures takes these, decoded and resized: normalisation and the network that reads them are in the
graph. Pictures are resized by Pillow while they are read, there as here, and never in the graph: no operation of ONNX
rounds as Pillow does. What the file needs to be used and checked travels in its metadata: the shape of a sample, how
pictures are resized, the threshold, what made it, and the run's fingerprint. The package tailwise-runtime (in runtime/)
reads it without torch.
"""

from __future__ import annotations

import base64
import importlib.util
import json
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from .. import __version__
from ..calibration import score_maps
from ..core import inference
from ..core.detector import Detector
from ..core.problem import FromPictures
from ..errors import InputError, reading
from ..runs import fingerprint
from ..runs.files import regular_file, write
from ..runs.fingerprint import TOLERANCE, Fingerprint
from ..runs.outputs import check_file
from ..runs.scorer import Run, open_run
from . import onnx_graph
from .extras import need
from .onnx_graph import WITH_MAP, Graph

KEY = "tailwise"
_NEEDED = ("onnx", "onnxscript", "onnxruntime")
# Of samples, and of pictures.
_FORMAT, _FORMAT_OF_PICTURES = 1, 2
# What scores of pictures may differ by, as a share: between a picture and its score lies a whole network.
PICTURE_TOLERANCE = 1e-3
# Numbers of samples at which the file is tried; the fastest is what the loader takes at a time.
_BATCHES = (1, 4, 16, 64, 256, 1_024)
_SLOW_SECONDS = 0.25


def export(run: Path, to: str, out: Path) -> Path:
    """Write a run's detector as an ONNX file, whose scores have been compared; see `commands.export`.

    Raises:
        InputError: the run's detector has no graph of one sample alone, or the scores of the file are not the run's.
    """
    if to != "onnx":
        raise InputError(f"a run is exported to onnx: got {to!r}", "leave --to out, or say --to onnx")
    if out.suffix != ".onnx":
        raise InputError(f"an ONNX file is called .onnx: got {out.name}")
    check_file(out)
    need("export", _NEEDED, "onnx")
    opened = open_run(run)
    settings = {**opened.settings.as_dict(), "marks": opened.number_marks}
    write(out, to_onnx(opened.detector(), settings, opened.fingerprint(), _reader(opened)))
    if own := _own_thresholds(settings):
        warnings.warn(
            f"the file flags above one threshold, {opened.settings.threshold:.6g}, not above the thresholds of the "
            f"run's {len(own)} kinds: the graph does not know the kind of a sample (the metadata lists the thresholds)",
            stacklevel=2,
        )
    return out


@dataclass(frozen=True)
class Reader:
    """What makes a run's samples of pictures [n, height, width, channels] uint8, and the ONNX file that it is made of,
    None where it is a network of torch."""

    module: nn.Module
    network: bytes | None = None


def to_onnx(
    detector: Detector, settings: Mapping[str, Any], kept: Fingerprint | None = None, reader: Reader | None = None
) -> bytes:
    """The content of the ONNX file of a fitted detector, with the settings of its run and its fingerprint.

    With a reader the file takes the fingerprint's pictures, and others like them.
    """
    if detector.looks_around:
        raise InputError(
            f"{settings['detector']} cannot be exported: it scores a sample by the scene or graph around it, and a "
            "file takes samples alone",
            "score with tailwise score, or export a run of a detector of single samples, such as rx or gaussian",
        )
    parts = [part for part in detector.modules() if isinstance(part, Detector)]
    if reason := next((part.not_exported for part in parts if part.not_exported), ""):
        raise InputError(f"{settings['detector']} cannot be exported: {reason}", "score with tailwise score")
    if centre := settings.get("centre"):
        names = settings.get("features") or range(len(centre))
        shifted = [(str(name), at) for name, at in zip(names, centre, strict=True) if at]
        raise InputError(
            f"a run of column {shifted[0][0]!r} cannot be exported: its spread is small beside its size, and an ONNX "
            f"file of single-precision samples would lose it ({len(shifted)} such columns)",
            f"subtract {shifted[0][1]:.17g} from it in the data, and fit again",
        )
    kept = kept or _made_up(detector)
    kept = kept if reader is None else kept.pictured
    module = None if reader is None else reader.module
    graph = Graph(detector, settings["threshold"], float(settings.get("smoothing", 0.0)), module).eval()
    model = onnx_graph.traced(graph, _given(kept), None if reader is None else reader.network)
    facts = _facts(settings, graph, kept)
    facts["batch_size"] = _compare(_bytes(model, facts), graph, kept)
    return _bytes(model, facts)


def _reader(run: Run) -> Reader | None:
    """What reads the pictures of a run of pictures that kept some of them."""
    source, kept = run.source(), run.fingerprint()
    if kept is None or not isinstance(source, FromPictures):
        return None
    if kept.pictures is None:
        warnings.warn(
            f"the file takes samples, not pictures: {run.path} holds no pictures to check it by (it was fitted by an "
            "earlier version, or its images have more than 8 bits or other channels than grey or colour)",
            stacklevel=3,
        )
        return None
    return Reader(source.network(), run.backbone())


def _given(kept: Fingerprint) -> Tensor:
    """What a file is given for a fingerprint: its pictures, or else its samples."""
    return kept.samples.float() if kept.pictures is None else kept.pictures


@dataclass(frozen=True)
class Verdict:
    """What `verify` found: a row for each sample, with the score that was kept, the one now and their difference."""

    table: pd.DataFrame
    what: str
    tolerance: float = TOLERANCE

    @property
    def differing(self) -> int:
        """How many scores differ by more than the tolerance, as a share."""
        return int((~(self.table["difference"] <= self.tolerance)).sum())

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
        if opened.untrained_detector().looks_around:
            raise InputError(f"{run} has no fingerprint: its detector scores a sample by what is around it")
        raise InputError(f"{run} was made before runs had fingerprints", "fit again to have one")
    if file is None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # opening a run says in a line what is shown here in a table
            detector = opened.detector()
        found = fingerprint.of(detector, kept.samples).scores
    else:
        opened_file = session(file)
        kept = kept.pictured if _takes_pictures(opened_file) else replace(kept, pictures=None)
        found = torch.from_numpy(_scores_of(opened_file, _given(kept).numpy()))
    differences = kept.differences(found)
    table = pd.DataFrame(
        {
            "sample": np.arange(len(found)),
            "fitted": kept.scores.double().numpy(),
            "now": found.double().numpy(),
            "difference": differences.numpy(),
        }
    )
    return Verdict(table, str(file or run), TOLERANCE if kept.pictures is None or file is None else PICTURE_TOLERANCE)


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


def _takes_pictures(opened: Any) -> bool:
    return any(value.type == "tensor(uint8)" for value in opened.get_inputs())


def _scores_of(opened: Any, samples: np.ndarray) -> np.ndarray:
    given: dict[str, Any] = {opened.get_inputs()[0].name: samples}
    if any(value.name == WITH_MAP for value in opened.get_overridable_initializers()):
        given[WITH_MAP] = np.array(False)
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


def _facts(settings: Mapping[str, Any], graph: Graph, kept: Fingerprint) -> dict[str, Any]:
    scale = score_maps.Scale.of(settings) if graph.with_maps else None
    of_pictures = graph.reader is not None
    given = _given(kept)
    return {
        "format": _FORMAT_OF_PICTURES if of_pictures else _FORMAT,
        "tailwise": __version__,
        "versions": {name: importlib.import_module(name).__version__ for name in ("torch", *_NEEDED)},
        "made_with": settings.get("versions"),
        "detector": settings["detector"],
        "scores": settings.get("scores", "own"),
        "source": settings.get("source", ""),
        "sample_shape": list(given.shape[1:]),
        "pictures": {"resize": "bilinear"} if of_pictures else None,
        "features": settings.get("features") or [],
        "marks": settings.get("marks", ""),
        "threshold": settings["threshold"],
        "thresholds": _own_thresholds(settings),
        "map_threshold": None if scale is None else scale.threshold,
        "map_usual": None if scale is None else scale.usual,
        "fingerprint": settings.get("fingerprint"),
        "fingerprint_samples": _text(given if of_pictures else kept.samples),
        "fingerprint_scores": _text(kept.scores),
        "tolerance": PICTURE_TOLERANCE if of_pictures else TOLERANCE,
    }


def _own_thresholds(settings: Mapping[str, Any]) -> dict[str, float]:
    """The threshold of each kind, where a run has them; a graph of samples cannot choose among them."""
    if not (settings.get("per_cluster") or settings.get("per_group")):
        return {}
    return {str(row["kind"]): float(row["threshold"]) for row in settings["thresholds"]}


def _text(values: Tensor) -> dict[str, Any]:
    """An array as JSON can hold it, little-endian."""
    array = values.numpy() if values.dtype == torch.uint8 else values.numpy().astype(f"<f{values.element_size()}")
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
    if any(value.name == WITH_MAP for value in named.graph.input):
        # An input that has a value need not be given.
        named.graph.initializer.append(onnx.numpy_helper.from_array(np.array(True), WITH_MAP))
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
    data, given = kept.data, _given(kept)
    found = dict(zip(graph.outputs, opened.run(graph.outputs, {graph.inputs[0]: given.numpy()}), strict=True))
    tolerance = TOLERANCE if graph.reader is None else PICTURE_TOLERANCE
    worst = float(kept.differences(torch.from_numpy(found["score"])).max())
    if worst > tolerance:
        raise InputError(
            f"the exported file would give other scores, by up to {100 * worst:.2g} %: nothing was written",
            "tailwise verify shows whether the run still gives the scores of its fit",
        )
    if graph.with_maps:
        expected = np.stack(list(score_maps.of_data(graph.detector, data, graph.smoothing)))
        gap = float(np.abs(found["map"] - expected).max() / max(np.abs(expected).max(), 1e-12))
        if gap > tolerance:
            raise InputError(f"the exported file would give other maps, by {100 * gap:.2g} %: nothing was written")
    return _fastest(opened, given)


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

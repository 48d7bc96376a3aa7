"""What an exported file computes: a detector traced by torch, with the network that reads pictures before it."""

from __future__ import annotations

import importlib
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..calibration import score_maps
from ..core.data import Batch
from ..core.detector import Detector
from ..errors import InputError
from ..numerics import export_ops

OPSET = 18
SAMPLES, PICTURES, WITH_MAP = "samples", "pictures", "with_map"
# scipy's Gaussian filter ends at so many standard deviations.
_FILTER_ENDS = 4.0
# Before every name of a network in the file, and before those around it.
_IN_NETWORK, _AROUND = "network/", "around/"


class Graph(nn.Module):
    """What is traced: samples [n, *sample] -> scores [n], whether they are flagged [n], and the smoothed map [n, h, w].

    A second input says whether maps are wanted; where they are not, they are nought. In the file it need not be given.

    Args:
        detector: fitted, with its local scores.
        threshold: samples that score above it are flagged.
        smoothing: of maps, as a share of their longer side.
        reader: makes the samples of pictures [n, height, width, channels] uint8, which are then the input.
    """

    def __init__(self, detector: Detector, threshold: float, smoothing: float, reader: nn.Module | None = None) -> None:
        super().__init__()
        self.detector, self.threshold, self.smoothing, self.reader = detector, threshold, smoothing, reader
        gradients = any(isinstance(part, Detector) and part.maps_are_gradients for part in detector.modules())
        self.with_maps = detector.has_maps and not gradients

    @property
    def outputs(self) -> list[str]:
        return ["score", "flagged", *(["map"] if self.with_maps else [])]

    @property
    def inputs(self) -> list[str]:
        return [SAMPLES if self.reader is None else PICTURES, *([WITH_MAP] if self.with_maps else [])]

    def forward(self, given: Tensor, with_map: Tensor | None = None) -> tuple[Tensor, ...]:
        samples = given if self.reader is None else self.reader(given)
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


def traced(graph: Graph, given: Tensor, network: bytes | None = None) -> Any:
    """The model of a graph, as onnx has it, for any number of samples like those given.

    `network` is the ONNX file that the graph's reader is made of, where it is made of one.
    """
    content = None if network is None else importlib.import_module("onnx").load_model_from_string(network)
    # A batch of one would be taken for a constant.
    given = given[:4] if len(given) > 1 else given.repeat(2, *(1,) * (given.dim() - 1))
    with quiet(), torch.no_grad():
        program = torch.onnx.export(
            graph, (given, torch.tensor(True)) if graph.with_maps else (given,), dynamo=True,
            dynamic_shapes=({0: torch.export.Dim("n")}, *([None] if graph.with_maps else [])),
            input_names=graph.inputs, output_names=graph.outputs, verbose=False,
            opset_version=max(OPSET, 0 if content is None else _opset(content)),
            custom_translation_table={torch.ops.tailwise.solve.default: _solved},
        )  # fmt: skip
    assert program is not None
    model = program.model_proto
    return model if content is None else _with_network(model, content)


@contextmanager
def quiet() -> Iterator[None]:
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


def _opset(model: Any) -> int:
    """The version of ONNX's own operations that a model is written in."""
    return max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=OPSET)


def _with_network(model: Any, network: Any) -> Any:
    """The model with a network in the place that the trace left for it: each image goes through it by itself.

    A network may be made for one image alone, so it is the body of a Scan over the images.

    Raises:
        InputError: its operations cannot be written as those of the model's version.
    """
    onnx = importlib.import_module("onnx")
    opset = _opset(model)
    try:
        if _opset(network) != opset:
            network = onnx.version_converter.convert_version(network, opset)
        # Names are of the whole file: the network's must not be the model's.
        network = onnx.compose.add_prefix(network, _IN_NETWORK)
    except Exception as error:  # what the converter raises shares no class but this
        raise InputError(
            f"the network that reads the images cannot be put into the file: {error}",
            f"write it with opset {opset}, or read the images by another backbone",
        ) from error
    domain, kind = export_ops.NETWORK.split("::")
    (place,) = (node for node in model.graph.node if (node.domain, node.op_type) == (domain, kind))
    made = {name: value for name, value in zip(place.output, network.graph.output, strict=False) if name}
    body = _of_one_image(network.graph, list(made.values()))
    place.CopyFrom(onnx.helper.make_node("Scan", list(place.input), list(made), body=body, num_scan_inputs=1))
    model.functions.extend(network.functions)
    kept = [entry for entry in model.opset_import if entry.domain != domain]
    kept += [entry for entry in network.opset_import if entry.domain not in {one.domain for one in kept}]
    del model.opset_import[:]
    model.opset_import.extend(entry for entry in kept if entry.domain != "ai.onnx")
    model.ir_version = max(model.ir_version, network.ir_version)
    return model


def _of_one_image(network: Any, made: list[Any]) -> Any:
    """The network's graph from an image [channels, height, width] to some of its outputs, without their first axis."""
    onnx = importlib.import_module("onnx")
    weights = {tensor.name for tensor in network.initializer}
    (given,) = (value.name for value in network.input if value.name not in weights)
    first = onnx.helper.make_tensor(f"{_AROUND}first", onnx.TensorProto.INT64, [1], [0])
    image = onnx.helper.make_tensor_value_info(f"{_AROUND}image", onnx.TensorProto.FLOAT, None)
    outputs = [
        onnx.helper.make_tensor_value_info(f"{_AROUND}{value.name}", value.type.tensor_type.elem_type, None)
        for value in made
    ]
    nodes = [onnx.helper.make_node("Unsqueeze", [image.name, first.name], [given]), *network.node]
    nodes += [
        onnx.helper.make_node("Squeeze", [value.name, first.name], [output.name])
        for value, output in zip(made, outputs, strict=True)
    ]
    return onnx.helper.make_graph(
        nodes, "network", [image], outputs, [*network.initializer, first],
        sparse_initializer=network.sparse_initializer,
    )  # fmt: skip


def _enlarged(scores: Tensor) -> tuple[int, int, int]:
    count, height, width = scores.shape
    factor = score_maps.enlargement((height, width), 0.0)[0]
    return count, height * factor, width * factor


def _smoothed(scores: Tensor, smoothing: float) -> Tensor:
    """What `score_maps.smoothed` makes of maps [n, h, w], in operations that a graph can hold."""
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
    # Joined to zeros: what pads is taken into the convolution, whose border OpenVINO then leaves unwritten.
    padded = scores[:, None]
    for axis in (2, 3):
        outside = torch.zeros_like(padded.narrow(axis, 0, 1)).repeat_interleave(len(kernel) // 2, axis)
        padded = torch.cat([outside, padded, outside], axis)
    return functional.conv2d(functional.conv2d(padded, kernel[None, None, :, None]), kernel[None, None, None])[:, 0]


def _solved(matrices: Any, right: Any) -> Any:
    """`export_ops.solve` in ONNX: elimination without exchanges, as positive definite systems need none.

    Samples go last, so that each step is a few operations on long runs of numbers. The row of each pivot goes to the
    end, and its column is dropped; after as many steps as rows the solution is what is left.
    """
    op = getattr(importlib.import_module("onnxscript"), f"opset{OPSET}")
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

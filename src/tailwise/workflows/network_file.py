"""A network that reads pictures as an ONNX file, such as a run keeps beside its detector."""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import Tensor, nn

from ..backbones import norms
from ..backbones.networks import Backbone
from ..backbones.pictures import OfPictures
from ..integrations import onnx_graph
from ..integrations.extras import need

_NEEDED = ("onnx", "onnxscript", "onnxruntime")
# The file takes images in 0..1 as they are: what the network is used to is in the graph.
_AS_THEY_ARE = {"mean": "0,0,0", "scale": "1,1,1"}


def to_onnx(network: OfPictures, height: int, width: int) -> bytes:
    """The content of a file of one of our networks, for images [1, 3, height, width] of this size.

    Its maps have the numbers that the network's blocks have.

    Raises:
        InputError: packages that write and read such files are missing.
    """
    need("a network with other batch norms", _NEEDED, "onnx")
    assert network.features is not None
    of_all = network.features.pooled
    blocks = _Blocks(norms.of(network), of_all).eval()
    with onnx_graph.quiet(), torch.no_grad():
        program = torch.onnx.export(
            blocks, (torch.zeros(1, 3, height, width),), dynamo=True, verbose=False, opset_version=onnx_graph.OPSET
        )
    assert program is not None
    model: Any = program.model_proto
    importlib.import_module("onnx").helper.set_model_props(
        model, {f"tailwise.{key}": value for key, value in _AS_THEY_ARE.items()}
    )
    content: bytes = model.SerializeToString()
    return content


class _Blocks(nn.Module):
    """The maps after the blocks that are taken, or after each up to the last of these."""

    def __init__(self, network: Backbone, only_taken: bool) -> None:
        super().__init__()
        taken = network.taken if only_taken else tuple(range(max(network.taken) + 1))
        self.network = Backbone(network.stem, network.blocks, taken, network.scaled, network.margin)

    def forward(self, images: Tensor) -> list[Tensor]:
        return self.network.maps(images)

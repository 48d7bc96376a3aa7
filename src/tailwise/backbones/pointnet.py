"""PointNet (Qi et al., CVPR 2017) without its transforming networks: what it says of each point, by a file of weights.

The file is safetensors, with layers feature_model.conv1 to conv4 and bn1 to bn4, as trained on ModelNet40 with the axes
(x, z, -y). It is named by the environment variable TAILWISE_POINTNET: a run names no file.
"""

from __future__ import annotations

import functools
import hashlib
import os

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from ..errors import InputError, reading

FILE = "TAILWISE_POINTNET"
# Numbers of each point, after the fourth layer; the fifth is only for the maximum over the cloud.
SIZE = 128
_WIDTHS = (3, 64, 64, 64, SIZE)
_EPSILON = 1e-5


def point_features(points: np.ndarray) -> np.ndarray:
    """[n, 128] float32 of points [n, 3], which are centred and scaled to the unit sphere first.

    Raises:
        InputError: no file is named, or it does not hold these weights.
    """
    points = points - points.mean(0)
    points = points / max(float(np.linalg.norm(points, axis=1).max()), 1e-30)
    values = torch.from_numpy(np.stack([points[:, 0], points[:, 2], -points[:, 1]], 1)).float()
    for weight, bias in _layers(path()):
        values = torch.addmm(bias, values, weight.T).relu()
    return values.numpy()


def path() -> str:
    """The file that the environment names.

    Raises:
        InputError: it names none.
    """
    found = os.environ.get(FILE, "")
    if not os.path.isfile(found):
        raise InputError(
            f"no file {found!r} of PointNet's weights" if found else "PointNet needs a file of its weights",
            f"{FILE} names a safetensors file of them",
        )
    return found


@functools.cache
def digest(path: str) -> str:
    """What features depend on besides the points."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()[:32]


@functools.cache
def _layers(path: str) -> tuple[tuple[Tensor, Tensor], ...]:
    """Weight and bias of each layer, its normalisation folded in."""
    with reading(path, "weights of a PointNet were needed: feature_model.conv1.weight and so on, in safetensors"):
        state = safetensors.torch.load_file(path)
        return tuple(_layer(state, number) for number in range(1, len(_WIDTHS)))


def _layer(state: dict[str, Tensor], number: int) -> tuple[Tensor, Tensor]:
    weight, bias = (state[f"feature_model.conv{number}.{name}"].float() for name in ("weight", "bias"))
    gain, shift, mean, variance = (
        state[f"feature_model.bn{number}.{name}"].float() for name in ("weight", "bias", "running_mean", "running_var")
    )
    scale = gain / (variance + _EPSILON).sqrt()
    shape = _WIDTHS[number], _WIDTHS[number - 1]
    return weight.reshape(shape) * scale[:, None], (bias - mean) * scale + shift

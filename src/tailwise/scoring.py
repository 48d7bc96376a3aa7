"""Scores and places of a whole data set, batch by batch, and the device that they are computed on."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from . import neighbours, tracing
from .detector import Detector
from .errors import InputError
from .problem import Batch, Data

_SCORE_BATCH = 4_096
_SCORE_ENTRIES = 20_000_000
# Units [channels, height, width] of more channels are feature maps; pictures have fewer.
_PICTURE_CHANNELS = 16


def score(detector: Detector, data: Data, batch_size: int | None = None) -> Tensor:
    """Scores [n] on the CPU, float32. They do not depend on the batch size."""
    return over_batches(detector, data, detector.score, batch_size)


def embed(detector: Detector, data: Data, batch_size: int | None = None) -> Tensor:
    """The detector's places [n, d] of the units, on the CPU."""
    return over_batches(detector, data, detector.embed, batch_size)


@torch.no_grad()
def over_batches(
    detector: Detector, data: Data, function: Callable[[Batch], Tensor], batch_size: int | None = None
) -> Tensor:
    """What `function` gives for each unit [n, ...], in evaluation mode, on the CPU, float32."""
    was_training = detector.training
    detector.eval()
    device = device_of(detector)
    size = batch_size or batch_size_for(data.unit_shape)
    results = [function(batch.to(device)).float().cpu() for batch in data.batches(size)]
    detector.train(was_training)
    return torch.cat(results)


def batch_size_for(unit_shape: tuple[int, ...], most: int = _SCORE_BATCH) -> int:
    """How many units of this shape are held at once."""
    return max(1, min(most, _SCORE_ENTRIES // math.prod(unit_shape)))


def embedding_of(data: Data, dims: int = 32) -> Tensor:
    """Where weightings look for neighbours: principal components [n, dims] of the units themselves.

    They told kinds apart better than a detector's own bottleneck, and they stand still while it trains. Spectra are
    compared by their angle, as materials are (Kruse et al. 1993): brightness is light and shade.
    """
    return neighbours.principal_components(_small(data), dims)


def embedding_beside(new: Data, data: Data, dims: int = 32) -> tuple[Tensor, Tensor]:
    """Places of new units [q, dims] and of `data` [n, dims], both in the embedding of `data`."""
    small = _small(data)
    return neighbours.principal_components(_small(new), dims, of=small), neighbours.principal_components(small, dims)


def _small(data: Data) -> Tensor:
    if data.in_memory and not is_map(data.unit_shape):
        small = data.units
        assert isinstance(small, Tensor)
    else:
        small = torch.cat([shrunk(batch.units) for batch in data.batches(64)])
    return by_angle(small) if len(data.unit_shape) == 2 else small


def place(detector: Detector, device: str) -> None:
    """Move a detector to "cpu", "cuda" or "mps"."""
    check_device(device)
    if device == "mps":
        detector.float()  # MPS has no double precision
    detector.to(device)


def device_of(detector: Detector) -> torch.device:
    """Where the detector's tensors are; the CPU where it has none."""
    return next((t.device for t in (*detector.parameters(), *detector.buffers())), torch.device("cpu"))


def check_device(device: str) -> None:
    """Raise an InputError unless tensors can be made on this device."""
    if device.partition(":")[0] not in ("cpu", "cuda", "mps"):
        raise InputError(f"there is no device {device!r}", 'use "cpu", "cuda" or "mps"')
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"the device {device!r} cannot be used: {reason}", 'use "cpu"') from error


def is_map(unit_shape: tuple[int, ...]) -> bool:
    """Whether units of this shape are feature maps rather than pictures."""
    return len(unit_shape) == 3 and unit_shape[0] > _PICTURE_CHANNELS


def by_angle(spectra: Tensor) -> Tensor:
    """Spectra [n, 1, bands] of length 1, so that distances between them are those of their angles."""
    return nn.functional.normalize(spectra.float(), dim=2)


def shrunk(images: Tensor) -> Tensor:
    """Images of at most 32 x 32, of feature maps the channels' means: enough to tell kinds apart, small enough to
    keep."""
    if is_map(tuple(images.shape[1:])):
        # Converted first: in a graph, a mean that names its type is taken before it.
        return images.to(tracing.precise(images.device)).mean((2, 3)).to(images)
    return nn.functional.adaptive_avg_pool2d(images, 32) if images.dim() == 4 and images.shape[-1] > 32 else images

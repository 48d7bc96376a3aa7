"""What a sample is, and what follows from that."""

from __future__ import annotations

from torch import Tensor, nn

from ..numerics import export_ops

# Samples [channels, height, width] of more channels are feature maps; pictures have fewer.
_PICTURE_CHANNELS = 16


def is_map(sample_shape: tuple[int, ...]) -> bool:
    """Whether samples of this shape are feature maps rather than pictures."""
    return len(sample_shape) == 3 and sample_shape[0] > _PICTURE_CHANNELS


def by_angle(spectra: Tensor) -> Tensor:
    """Spectra [n, 1, bands] of length 1, so that distances between them are those of their angles."""
    return nn.functional.normalize(spectra.float(), dim=2)


def shrunk(images: Tensor) -> Tensor:
    """Images of at most 32 x 32, of feature maps the channels' means: enough to tell kinds apart, small enough to
    keep."""
    if is_map(tuple(images.shape[1:])):
        # Converted first: in a graph, a mean that names its type is taken before it.
        return images.to(export_ops.precise(images.device)).mean((2, 3)).to(images)
    return nn.functional.adaptive_avg_pool2d(images, 32) if images.dim() == 4 and images.shape[-1] > 32 else images

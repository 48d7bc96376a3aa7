"""What a sample is, and what follows from it: how samples are compared, shown, divided into parts and made small.

A modality is a frozen value that `Data` carries and a run's settings name, so that nothing has to guess it again:

    >>> find("spectrum") is SPECTRUM
    True
    >>> infer((3, 64, 64)) is IMAGE
    True
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError, did_you_mean
from ..numerics import export_ops, shapley

# Pictures of samples for neighbour search are at most so many pixels wide.
_SMALL_SIDE = 32
# An explanation speaks of so many windows of bands, and of so many cells along each side of an image.
_WINDOWS, _CELLS = 32, 8
# Grey, colour, and colour with transparency: what a bare array [n, channels, h, w] of so many is taken for.
_PICTURE_CHANNELS = (1, 3, 4)

_USUAL = "the usual choice for what is no table"


@dataclass(frozen=True)
class Modality:
    """What a sample is. Every default here holds for rows; other modalities override what differs.

    Attributes:
        name: as a run's settings spell it.
        plural: what several samples are called.
        form: the axes of a sample, in words.
        features: what its numbers are called: features, bands or channels.
        parts: what an explanation divides it into.
        grid: along how many axes neighbouring entries belong together: 0 of a row, 1 of a spectrum, 2 of an image.
        units_differ: features have units of measure of their own, so each is standardised before samples are compared.
        local_scores: whether scores are read against neighbours unless the user says otherwise.
        continuum: samples blend into each other instead of falling into kinds.
        scattered: what follows each other in a map is not beside each other, so nothing of it is smoothed or drawn as a
            picture.
        detector: which one scores samples where nobody names one; docs/decisions/0011-defaults.md says why.
        detector_reason: the same in a few words.
    """

    name: str = "row"
    plural: str = "rows"
    form: str = "[features]"
    features: str = "features"
    parts: str = "features"
    grid: int = 0
    units_differ: bool = True
    local_scores: bool = True
    continuum: bool = False
    scattered: bool = False
    detector: str = "nearest-neighbours"
    detector_reason: str = "on long tails as good as the autoencoder, and needs no epochs"

    @property
    def spatial(self) -> bool:
        """Whether a sample is [channels, height, width], so that a map can say where in it something is."""
        return self.grid == 2

    def fits(self, sample_shape: tuple[int, ...]) -> bool:
        """Whether a sample of this shape can be one."""
        return len(sample_shape) == 1

    @property
    def small(self) -> Modality:
        """What a sample is once it is `shrunk`."""
        return self

    def shrunk(self, samples: Tensor) -> Tensor:
        """Samples [n, *sample] small enough to keep, large enough to tell kinds apart: [n, *small sample]."""
        return samples

    def compared(self, samples: Tensor) -> Tensor:
        """Shrunk samples [n, ...] whose distances say how alike they are."""
        return samples

    def by_place(self, samples: Tensor) -> Tensor:
        """[n, *sample] -> [n, places, d]: an image has a vector of channels at each place, anything else is one."""
        return samples.flatten(1)[:, None]

    def over_channels(self, values: Tensor) -> Tensor:
        """[n, *sample] -> [n, *space]: the mean over channels, at each feature, band or pixel."""
        return values

    def space(self, sample_shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of what is said of each place of a sample."""
        return sample_shape

    def picture(self, sample: Tensor) -> Tensor | None:
        """A sample as people look at it, [1 or 3, height, width] in about 0..1; None where it is no picture."""
        return None

    def feature_names(self, sample_shape: tuple[int, ...], given: tuple[str, ...] = ()) -> tuple[str, ...]:
        """Names of the features, bands or channels; () where nothing names them and numbers would say nothing."""
        return given

    def divided(
        self, sample_shape: tuple[int, ...], names: tuple[str, ...] = ()
    ) -> tuple[Tensor, list[dict[str, Any]]]:
        """Which part each entry of a sample belongs to [*sample], and for each part its `name` and place.

        A part is a feature; a window of bands, with its first and last of `bands`; or a cell of an even grid over the
        image, with its `box` in shares of the height and width.
        """
        names = names or tuple(f"feature {i}" for i in range(sample_shape[0]))
        return torch.arange(sample_shape[0]), [{"name": name} for name in names]


@dataclass(frozen=True)
class _Spectrum(Modality):
    def fits(self, sample_shape: tuple[int, ...]) -> bool:
        return len(sample_shape) == 2 and sample_shape[0] == 1

    def compared(self, samples: Tensor) -> Tensor:
        """Of length 1, so that distances are those of angles: brightness is light and shade (Kruse et al. 1993)."""
        return nn.functional.normalize(samples.float(), dim=2)

    def over_channels(self, values: Tensor) -> Tensor:
        return values.mean(1)

    def feature_names(self, sample_shape: tuple[int, ...], given: tuple[str, ...] = ()) -> tuple[str, ...]:
        return given or tuple(f"band {i}" for i in range(sample_shape[1]))

    def divided(
        self, sample_shape: tuple[int, ...], names: tuple[str, ...] = ()
    ) -> tuple[Tensor, list[dict[str, Any]]]:
        part = shapley.windows(sample_shape[1], _WINDOWS)
        rows = [_window((part == i).nonzero().flatten().tolist(), names) for i in range(int(part.max()) + 1)]
        return part[None].expand(sample_shape), rows


@dataclass(frozen=True)
class _Image(Modality):
    def fits(self, sample_shape: tuple[int, ...]) -> bool:
        return len(sample_shape) == 3

    def shrunk(self, samples: Tensor) -> Tensor:
        """Of at most 32 x 32 pixels."""
        height, width = samples.shape[-2:]
        if max(height, width) <= _SMALL_SIDE:
            return samples
        small = min(height, _SMALL_SIDE), min(width, _SMALL_SIDE)
        return nn.functional.adaptive_avg_pool2d(samples, small)

    def by_place(self, samples: Tensor) -> Tensor:
        return samples.flatten(2).transpose(1, 2)

    def over_channels(self, values: Tensor) -> Tensor:
        return values.mean(1)

    def space(self, sample_shape: tuple[int, ...]) -> tuple[int, ...]:
        return sample_shape[1:]

    def picture(self, sample: Tensor) -> Tensor | None:
        """The first three of 3 or 4 channels; of other numbers above 1 their mean, stretched over 0..1."""
        if len(sample) in (3, 4):
            return sample[:3]
        grey = sample.mean(0, keepdim=True)
        if len(sample) == 1:
            return grey
        return (grey - grey.min()) / (grey.max() - grey.min()).clamp_min(1e-12)

    def feature_names(self, sample_shape: tuple[int, ...], given: tuple[str, ...] = ()) -> tuple[str, ...]:
        return tuple(f"channel {i}" for i in range(sample_shape[0]))

    def divided(
        self, sample_shape: tuple[int, ...], names: tuple[str, ...] = ()
    ) -> tuple[Tensor, list[dict[str, Any]]]:
        part = shapley.grid(sample_shape[1], sample_shape[2], _CELLS)
        across = min(_CELLS, sample_shape[2])
        rows = [_cell(part == i, i, across) for i in range(int(part.max()) + 1)]
        return part[None].expand(sample_shape), rows


@dataclass(frozen=True)
class _FeatureMap(_Image):
    @property
    def small(self) -> Modality:
        return ROW

    def shrunk(self, samples: Tensor) -> Tensor:
        """The channels' means."""
        # Converted first: in a graph, a mean that names its type is taken before it.
        return samples.to(export_ops.precise(samples.device)).mean((2, 3)).to(samples)

    def feature_names(self, sample_shape: tuple[int, ...], given: tuple[str, ...] = ()) -> tuple[str, ...]:
        return ()


@dataclass(frozen=True)
class _PointCloud(_FeatureMap):
    def fits(self, sample_shape: tuple[int, ...]) -> bool:
        return len(sample_shape) == 3 and sample_shape[2] == 1

    def picture(self, sample: Tensor) -> Tensor | None:
        return None


ROW = Modality()
# The pixels of a scene are a continuum with sparse borders rather than separate kinds, and an anomaly is often several
# pixels that excuse each other: read against their neighbours, spectra lost most of what detectors knew.
SPECTRUM = _Spectrum(
    "spectrum", "spectra", "[1, bands]", "bands", "bands", 1, units_differ=False, local_scores=False, continuum=True,
    detector="autoencoder", detector_reason=_USUAL,
)  # fmt: skip
IMAGE = _Image(
    "image", "images", "[channels, height, width]", "channels", "patches", 2, units_differ=False,
    detector="autoencoder", detector_reason=_USUAL,
)  # fmt: skip
# A small defect hardly moves the mean of a map's channels, which is what maps are compared by.
FEATURE_MAP = _FeatureMap(
    "feature map", "feature maps", "[channels, height, width]", "channels", "patches", 2,
    units_differ=False, local_scores=False,
    detector="patch-ensemble", detector_reason="ahead of each of its parts on most sets, and says where a defect is",
)  # fmt: skip
# What is said of a point is in no grid: a point has neighbours in space, not in the list of points.
POINT_CLOUD = _PointCloud(
    "point cloud", "point clouds", "[channels, points, 1]", "channels", "points", 2,
    units_differ=False, local_scores=False, scattered=True,
    detector="patch-memory", detector_reason="the memory of normal points, BTF on geometry alone",
)  # fmt: skip
SPATIAL = (IMAGE, FEATURE_MAP)
_MODALITIES = {each.name: each for each in (ROW, SPECTRUM, IMAGE, FEATURE_MAP, POINT_CLOUD)}


def find(name: str) -> Modality:
    """The modality of this name, such as "row", "spectrum", "image" or "feature map".

    Raises:
        InputError: there is none.
    """
    if name not in _MODALITIES:
        raise InputError(f"no modality is called {name!r}", did_you_mean(name, tuple(_MODALITIES)))
    return _MODALITIES[name]


def infer(sample_shape: tuple[int, ...]) -> Modality:
    """What the samples of a bare array are, by the shape of one: the only place where a shape is asked.

    [d] is a row, [1, bands] a spectrum, [1, 3 or 4, height, width] an image. Whatever could be something else has to
    be named.

    Raises:
        InputError: the shape is that of several modalities, or of none.
    """
    shape = list(sample_shape)
    if len(shape) == 1:
        return ROW
    if len(shape) == 2 and shape[0] == 1:
        return SPECTRUM
    if len(shape) == 3 and shape[0] in _PICTURE_CHANNELS:
        return IMAGE
    if len(shape) == 2:
        raise InputError(
            f"samples of shape {shape} may be point clouds, time series or several spectra each: none of these is read",
            f"flatten each to a row [{shape[0] * shape[1]}], or give one spectrum a sample as [n, 1, bands]",
        )
    if len(shape) == 3 and shape[2] in _PICTURE_CHANNELS and shape[2] < min(shape[:2]):
        raise InputError(
            f"samples of shape {shape} may be images whose channels come last, or feature maps of {shape[0]} channels",
            f"put channels first, [n, {shape[2]}, {shape[0]}, {shape[1]}], or say which: modality='feature map'",
        )
    if len(shape) == 3:
        raise InputError(
            f"samples of shape {shape} may be images of {shape[0]} channels or feature maps",
            "say which: modality='image' or modality='feature map'",
        )
    raise InputError(
        f"samples of shape {shape} are nothing that can be read",
        "needed are rows [d], spectra [1, bands], or images [channels, height, width]",
    )


def _window(bands: list[int], names: tuple[str, ...]) -> dict[str, Any]:
    first, last = (names[band] if names else str(band) for band in (bands[0], bands[-1]))
    said = first if first == last else f"{first} to {last}"
    return {"name": f"{said} nm" if names else f"band {said}", "bands": [bands[0], bands[-1]]}


def _cell(inside: Tensor, number: int, across: int) -> dict[str, Any]:
    return {"name": f"row {number // across + 1}, column {number % across + 1}", "box": box_of(inside)}


def box_of(inside: Tensor) -> dict[str, float]:
    """Where the true pixels of a mask [height, width] lie, as shares of the height and width."""
    rows, columns = (inside.any(axis).nonzero().flatten().tolist() for axis in (1, 0))
    height, width = inside.shape
    return {
        "top": rows[0] / height, "bottom": (rows[-1] + 1) / height,
        "left": columns[0] / width, "right": (columns[-1] + 1) / width,
    }  # fmt: skip

"""Student and teacher: a small network learns a frozen one's feature pyramid on normal images and fails on others.

Wang et al., BMVC 2021 (feature pyramid matching). Departures: the student is a plain pyramid of convolutions, not
the teacher's architecture, whose batch normalisation would couple samples and whose steps cost more; the teacher's
channels are standardised first, because loud ones would drown the others; and the levels are those whose maps other
detectors see, two of EfficientNet-Lite0 where the paper has three of a ResNet-18. With a random teacher it is random
network distillation (Burda et al., ICLR 2019).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from ..backbones.networks import check_name
from ..core.bounds import Count
from ..core.data import Batch, Data
from ..core.detector import Reading, ReadsOnce
from ..core.identity import sample_digests
from ..core.modality import FEATURE_MAP, SPATIAL
from ..core.registry import register
from ..errors import InputError
from ..numerics import export_ops
from .components.frozen import frozen_backbone
from .components.standardise import Standardise

# Channels of a random teacher, level by level.
_RANDOM = (16, 32, 64)
# The teacher's maps are the same in every epoch; of so many bytes they are kept while training.
_KEPT_BYTES = 1_000_000_000


@register("detector", "student-teacher")
class StudentTeacher(ReadsOnce):
    """One less the cosine between the student's and the teacher's features at each position of its levels.

    A sample's loss is the sum over levels of the mean over positions, its map the product over levels, as in the paper,
    and its score the map's maximum.

    Args:
        teacher: the name of a backbone, not a file, for images of 1 or 3 channels in 0..1; its weights are not saved
            with the detector. None is a random pyramid, which takes any image, knows nothing, and is saved.
        width: channels of the student's first stage; each stage after it has twice as many.
    """

    modalities = SPATIAL

    def __init__(self, teacher: str | None = None, width: Count = 16) -> None:
        super().__init__()
        if teacher is not None:
            check_name(teacher)
        self.teacher = teacher
        self.width = width

    def build(self, sample_shape: tuple[int, ...]) -> None:
        self._kept = _Kept(_KEPT_BYTES)
        self.standardise = Standardise(sample_shape, self.modality)
        self.frozen = self._teacher(sample_shape)
        with torch.no_grad():
            self.shapes = [tuple(maps.shape[1:]) for maps in self.frozen(torch.zeros(1, *sample_shape))]
        self.of_teacher = nn.ModuleList(Standardise(shape, FEATURE_MAP) for shape in self.shapes)
        self.student = _Student(sample_shape, self.shapes, self.width)

    def _teacher(self, sample_shape: tuple[int, ...]) -> nn.Module:
        if self.teacher is None:
            return _random_pyramid(sample_shape[0])
        hint = "give pixels to student-teacher, not features: the teacher makes its own"
        return frozen_backbone(self.teacher, sample_shape, "the teacher", hint)

    def prepare(self, data: Data, w: Tensor) -> None:
        self.standardise.learn(data, w)
        for level, standardise in enumerate(self.of_teacher):
            standardise.learn(Data(_Level(self, data, level), data.names, modality=FEATURE_MAP), w)  # type: ignore[operator]

    def losses(self, batch: Batch) -> Tensor:
        return torch.stack([gap.flatten(1).mean(1) for gap in self._gaps(batch, self._learnt(batch))]).sum(0)

    def read(self, batch: Batch, score: bool = True, map: bool = False, embedding: bool = False) -> Reading:
        """The student sees the images once: the score is the map's maximum, the embedding averages each of its maps."""
        learnt = self._learnt(batch)
        read: dict[str, Tensor] = {}
        if score or map:
            size = self.sample_shape[1:]
            gaps = [nn.functional.interpolate(gap[:, None], size, mode="bilinear") for gap in self._gaps(batch, learnt)]
            joined = torch.stack(gaps).prod(0)[:, 0]
            read = {"score": joined.flatten(1).amax(1)} if score else {}
            read |= {"map": joined} if map else {}
        if embedding:
            read["embedding"] = torch.cat([maps.mean((2, 3)) for maps in learnt], 1)
        return Reading(**read)

    def _learnt(self, batch: Batch) -> list[Tensor]:
        return self.student(self.standardise(batch.samples))

    def _gaps(self, batch: Batch, learnt: list[Tensor]) -> list[Tensor]:
        """[n, height, width] at each level, 0 to 2."""
        known = [of(maps) for of, maps in zip(self.of_teacher, self._known(batch.samples), strict=True)]
        return [1 - torch.cosine_similarity(a, b, dim=1) for a, b in zip(learnt, known, strict=True)]

    @torch.no_grad()
    def _known(self, samples: Tensor) -> list[Tensor]:
        """The teacher's maps [n, channels, height, width], level by level; those of training are computed once."""
        see = self.frozen if self.teacher else lambda images: self.frozen(self.standardise(images))
        # Weighting scores the same images between epochs, in evaluation mode.
        looked_up = (self.training or self._kept.maps) and not export_ops.tracing()
        return self._kept.look_up(samples, see, keep=self.training) if looked_up else see(samples)


class _Kept:
    """Maps of images seen before, found by the images' content, up to a number of bytes."""

    def __init__(self, most: int) -> None:
        self.left = most
        self.maps: dict[bytes, list[Tensor]] = {}

    def look_up(self, samples: Tensor, see: Callable[[Tensor], list[Tensor]], keep: bool) -> list[Tensor]:
        keys = sample_digests(samples)
        unseen = [i for i, key in enumerate(keys) if key not in self.maps]
        found = {key: self.maps[key] for key in keys if key in self.maps}
        if unseen:
            for i, *maps in zip(unseen, *see(samples[unseen]), strict=True):
                found[keys[i]] = maps
                if keep:
                    self._keep(keys[i], maps)
        return [torch.stack(maps) for maps in zip(*(found[key] for key in keys), strict=True)]

    def _keep(self, key: bytes, maps: list[Tensor]) -> None:
        size = sum(part.nbytes for part in maps)
        if size <= self.left and key not in self.maps:
            self.left -= size
            self.maps[key] = [part.clone() for part in maps]


class _Level:
    """One level of the teacher's maps of many images: a Reader."""

    def __init__(self, detector: StudentTeacher, data: Data, level: int) -> None:
        self.detector, self.data, self.level = detector, data, level
        self.shape: tuple[int, ...] = (len(data), *detector.shapes[level])

    def __getitem__(self, index: Tensor) -> Tensor:
        samples = self.data.read(index).to(next(self.detector.parameters()).device)
        return self.detector._known(samples)[self.level].cpu()


class _Pyramid(nn.Module):
    """The results of stages, each of which takes the result of the one before."""

    def __init__(self, stages: Sequence[nn.Module]) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)

    def forward(self, images: Tensor) -> list[Tensor]:
        maps = []
        for stage in self.stages:
            images = stage(images)
            maps.append(images)
        return maps


def _random_pyramid(channels: int) -> nn.Module:
    sizes = (channels, *_RANDOM)
    return _Pyramid([_halving(a, b) for a, b in itertools.pairwise(sizes)]).requires_grad_(False)


def _halving(before: int, after: int, refined: bool = False) -> nn.Module:
    """A stage that halves height and width, rounding up; `refined` by a second convolution."""
    layers = [nn.Conv2d(before, after, 3, 2, 1), nn.ReLU()]
    layers += [nn.Conv2d(after, after, 3, 1, 1), nn.ReLU()] if refined else []
    for layer in layers:
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    return nn.Sequential(*layers)


class _Student(nn.Module):
    """Halving stages, and at each of the teacher's sizes a head with the teacher's channels.

    Raises:
        InputError: the teacher's maps are not the sample's size halved some times.
    """

    def __init__(self, sample_shape: tuple[int, ...], shapes: Sequence[tuple[int, ...]], width: int) -> None:
        super().__init__()
        size, before = tuple(sample_shape[1:]), sample_shape[0]
        stages: list[nn.Module] = []
        heads: list[nn.Module] = []
        self.at: list[int] = []
        for channels, *wanted in shapes:
            while size != tuple(wanted) and min(size) > 1:
                after = width * 2 ** len(stages)
                stages.append(_halving(before, after, refined=bool(stages)))
                size, before = tuple((side + 1) // 2 for side in size), after
            if size != tuple(wanted):
                raise InputError(f"the teacher's maps of {wanted} are not {list(sample_shape[1:])} halved some times")
            self.at.append(len(stages) - 1)
            heads.append(nn.Conv2d(before, channels, 1))
        self.pyramid, self.heads = _Pyramid(stages), nn.ModuleList(heads)

    def forward(self, images: Tensor) -> list[Tensor]:
        maps = self.pyramid(images)
        return [head(maps[at]) for head, at in zip(self.heads, self.at, strict=True)]

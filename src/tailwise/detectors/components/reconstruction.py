"""Reconstruction of images by diffusion: noise one up to a step, denoise it, and see what has changed.

AnoDDPM (Wyatt et al., CVPR workshops 2022) with the deterministic steps of DDIM (Song et al., ICLR 2021), on pixels.
What has changed is seen by features and by pixels, as in GLAD (Yao et al., ECCV 2024).
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor, nn

from ...core import inference
from ...core.bounds import Bounds, Count, NotNegative, Share, Widths
from ...core.data import Batch, Data
from ...core.detector import Detector, Reading, ReadsOnce
from ...core.modality import IMAGE
from ...errors import InputError
from ...numerics import counter_rng
from . import diffusion
from .frozen import frozen_backbone
from .losses import squared_error, top_mean
from .pseudo_anomalies import altered_images
from .standardise import Standardise

# Share of the training samples that are kept out, for what is measured on normals once the network is trained.
_HELD_OUT = 0.05
# The lowest and the highest hash of those that are kept out, where none is.
_NONE_HELD_OUT = (0, -1)
# Smaller images have next to no map in a backbone.
_LEAST_SIDE = 64
# So many pixels go through the networks at once.
_PIXELS = 1 << 18
# Differences are told from rounding, which a batch changes, from here on.
_ROUNDING = 1e-4
# No step of training draws its anomalies by this number.
_CONTRAST_STEP = -1
# Streams of random numbers, beside those of pseudo-anomalies.
_STEP_STREAM, _NOISE_STREAM = 50, 51

Step = Annotated[int, Bounds(at_least=1, at_most=diffusion.STEPS - 1)]


@dataclass(frozen=True, eq=False)
class Rebuilt:
    """What denoising gives.

    Attributes:
        images: [n, c, h, w], standardised.
        closed: [n], the step at which the input was looked at again, 0 where never.
        highest: [n], the largest difference of input and reconstruction, of all passes at which they are compared,
            whether or not the input was looked at again before; 0 where they never are.
    """

    images: Tensor
    closed: Tensor
    highest: Tensor


class Reconstructing(ReadsOnce):
    """What `diffusion` and `glad` share: training, denoising, and how an image differs from its reconstruction.

    A subclass may teach another lesson (`_lesson`), adapt the steps (`_adapted`) and measure more on kept-out normals
    (`_measure`). Parameters are described in `diffusion`.

    Raises:
        InputError: widths are not multiples of 8, or there are more passes than steps.
    """

    modalities = (IMAGE,)
    weighed_by_loss = True
    average_decay = 0.999
    cosine_schedule = True
    # Passes over the data grow with it, and each of these networks takes minutes to hours of a CPU.
    usual_steps = (1_500, 64)
    usual_lr = 2e-3
    not_exported = "a score takes dozens of passes of a network, each of which depends on the one before"
    alphas: Tensor
    noise: Tensor
    smallest: Tensor
    largest: Tensor
    held_out: Tensor
    usual: Tensor
    steps: Tensor

    def __init__(
        self,
        start_step: Step = 300,
        passes: Count = 25,
        widths: Widths = (24, 48, 72),
        backbone: str | None = None,
        pixels: NotNegative = 1.0,
        top: Share = 0.02,
    ) -> None:
        super().__init__()
        if passes > start_step:
            raise InputError(f"more passes ({passes}) than steps to {start_step}", "take fewer passes")
        if not widths or any(width % diffusion.GROUPS for width in widths):
            raise InputError(f"widths must be multiples of {diffusion.GROUPS}: got {widths}")
        self.start_step = start_step
        self.passes = passes
        self.widths = widths
        self.backbone = backbone
        self.pixels = pixels
        self.top = top

    @classmethod
    def for_contracts(cls) -> Detector:
        return cls(passes=2, widths=(8, 16))

    def build(self, sample_shape: tuple[int, ...]) -> None:
        channels = sample_shape[0]
        self.standardise = Standardise(sample_shape, self.modality)
        self.denoiser = diffusion.Denoiser(sample_shape, self.widths)
        self.features = self._features(sample_shape)
        self.register_buffer("alphas", diffusion.cumulative_alphas(), persistent=False)
        self.register_buffer("noise", torch.randn(sample_shape))
        self.register_buffer("smallest", torch.full((channels, 1, 1), -torch.inf))
        self.register_buffer("largest", torch.full((channels, 1, 1), torch.inf))
        self.register_buffer("held_out", torch.tensor(_NONE_HELD_OUT))
        self.register_buffer("usual", torch.ones(2))
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    def _features(self, sample_shape: tuple[int, ...]) -> nn.Module:
        if self.backbone is None:
            return diffusion.TextureNetwork(sample_shape[0])
        if min(sample_shape[1:]) < _LEAST_SIDE:
            raise InputError(
                f"a backbone sees images of {_LEAST_SIDE} pixels and more: got samples of shape {list(sample_shape)}",
                "leave the backbone out, or read larger images",
            )
        return frozen_backbone(self.backbone, sample_shape, "the backbone", "leave the backbone out")

    def prepare(self, data: Data, w: Tensor) -> None:
        """Moments and range of the pixels, and which samples are kept out: those of neighbouring hashes."""
        self.standardise.learn(data, w)
        if isinstance(self.features, diffusion.TextureNetwork):
            self.features.learn()
        w = w.cpu()
        hashes = torch.empty(len(data), dtype=torch.long)
        smallest, largest = torch.full((2, *self.smallest.shape), torch.inf)
        for batch in data.batches(256):
            hashes[batch.index] = counter_rng.seeds_of(batch.samples)
            present = batch.samples[w[batch.index] > 0]
            if len(present):
                smallest = torch.minimum(smallest, present.amin((0, 2, 3))[:, None, None])
                largest = torch.minimum(largest, -present.amax((0, 2, 3))[:, None, None])
        self.smallest, self.largest = (self.standardise(end.to(self.noise)) for end in (smallest, -largest))
        self.held_out = _kept_out(hashes, w.double()).to(self.held_out)

    def _held_out(self, samples: Tensor) -> Tensor:
        """[n] bool: which samples are kept out; copies of one are alike."""
        hashes, (lowest, highest) = counter_rng.seeds_of(samples), self.held_out
        return (hashes >= lowest) & (hashes <= highest)

    def losses(self, batch: Batch) -> Tensor:
        """Mean squared error of the predicted noise, 0 for samples that are kept out; in evaluation mode what the score
        would be if images were rebuilt in one pass."""
        samples = self.standardise(batch.samples)
        if not self.training:
            return torch.cat([self._loss_of_one_pass(part) for part in _parts(samples)])
        seeds = counter_rng.seeds_of(batch.samples, int(self.steps))
        self.steps += 1
        step = (counter_rng.uniforms(seeds, 1, _STEP_STREAM)[:, 0] * diffusion.STEPS).long()
        noise = counter_rng.normals(seeds, self.noise.numel(), _NOISE_STREAM).view_as(samples)
        noised, target = self._lesson(samples, noise, step, seeds)
        return squared_error(target, self.denoiser(noised, step)) * ~self._held_out(batch.samples)

    def _loss_of_one_pass(self, samples: Tensor) -> Tensor:
        step = self._loss_step
        noised = self._noised(samples, self.noise, step)
        estimate = self._estimate(noised, self._predicted(noised, step), step)
        return top_mean(self._joined(self._gaps(samples, estimate), self.usual), self.top)

    @property
    def _loss_step(self) -> int:
        """The step that one pass starts from: where normal images are last noised to."""
        return self.start_step

    def _lesson(self, samples: Tensor, noise: Tensor, step: Tensor, seeds: Tensor) -> tuple[Tensor, Tensor]:
        """Noised images [n, c, h, w], and what the network is to predict for them."""
        return self._noised(samples, noise, step), noise

    def _noised(self, samples: Tensor, noise: Tensor, step: Tensor | int) -> Tensor:
        left, added = self._scales(step)
        return left * samples + added * noise

    def _scales(self, step: Tensor | int) -> tuple[Tensor, Tensor]:
        """By what image and noise are multiplied at a step, or at steps [n]."""
        alpha = self.alphas[step].view(-1, 1, 1, 1)
        return alpha.sqrt(), (1 - alpha).sqrt()

    def _estimate(self, noised: Tensor, noise: Tensor, step: int) -> Tensor:
        """The image within noised ones; as usual (Ho et al., NeurIPS 2020), its values stay within those of images."""
        left, added = self._scales(step)
        return torch.minimum(torch.maximum((noised - added * noise) / left, self.smallest), self.largest)

    @torch.no_grad()
    def settle(self, data: Data, w: Tensor) -> None:
        """Mean differences by features and by value of the samples that are kept out."""
        kept = torch.cat([self._held_out(batch.samples.to(self.noise.device)).cpu() for batch in data.batches(256)])
        index = (kept & (w.cpu() > 0)).nonzero().flatten()
        if tuple(self.held_out.tolist()) == _NONE_HELD_OUT:
            index = (w.cpu() > 0).nonzero().flatten()
        if len(index):  # else, where training went on with other samples, what was measured before stands
            with inference.evaluating(self):
                self._measure(data.take(index), w.cpu()[index])

    def _measure(self, held_out: Data, w: Tensor) -> None:
        """Set what is measured on samples that are kept out, of these weights [n]."""
        each = inference.over_batches(self, held_out, lambda batch: self.differences(batch.samples)[0].mean((2, 3)))
        self.usual = ((w[:, None] * each).sum(0) / w.sum()).clamp_min(_ROUNDING).to(self.usual)

    def read(self, batch: Batch, score: bool = True, map: bool = False, embedding: bool = False) -> Reading:
        """Images are rebuilt once."""
        read = {"embedding": batch.samples.flatten(1)} if embedding else {}
        if score or map:
            joined = self._joined(self.differences(batch.samples)[0], self.usual)
            read |= {"score": top_mean(joined, self.top)} if score else {}
            read |= {"map": joined} if map else {}
        return Reading(**read)

    @torch.no_grad()
    def differences(self, samples: Tensor) -> tuple[Tensor, Rebuilt]:
        """By how much images [n, c, h, w] and their reconstructions differ, by features and by value [n, 2, h, w], and
        the reconstructions."""
        rebuilt = self.rebuild(samples)
        pairs = zip(_parts(self.standardise(samples)), _parts(rebuilt.images), strict=True)
        return torch.cat([self._gaps(part, images) for part, images in pairs]), rebuilt

    @torch.no_grad()
    def rebuild(self, samples: Tensor) -> Rebuilt:
        """Images [n, c, h, w], in their own values, as the network rebuilds them."""
        parts = [self._rebuild(self.standardise(part)) for part in _parts(samples)]
        return Rebuilt(*(torch.cat([getattr(part, name) for part in parts]) for name in vars(parts[0])))

    def _rebuild(self, samples: Tensor) -> Rebuilt:
        noised = self._noised(samples, self.noise, self.start_step)
        rebuilt = Rebuilt(samples, *samples.new_zeros(2, len(samples)))
        for step, following in itertools.pairwise(self._path()):
            predicted = self._predicted(noised, step)
            seen = Rebuilt(self._estimate(noised, predicted, step), rebuilt.closed, rebuilt.highest)
            rebuilt = self._adapted(seen, samples, predicted, step)
            noised = self._noised(rebuilt.images, predicted, following)
        return rebuilt

    def contrast(self, batch: Batch) -> Tensor:
        """Made anomalies [n, c, h, w], one of each image; their textures are of the others."""
        samples = self.standardise(batch.samples)
        made, _ = altered_images(samples, counter_rng.seeds_of(batch.samples, _CONTRAST_STEP), samples)
        return self.standardise.undo(made)

    def _path(self) -> list[int]:
        """The steps of the passes, and 0."""
        return [round(self.start_step * (1 - done / self.passes)) for done in range(self.passes + 1)]

    def _adapted(self, seen: Rebuilt, samples: Tensor, predicted: Tensor, step: int) -> Rebuilt:
        """What denoising goes on from after a step at which `seen` was estimated; here that itself."""
        return seen

    def _predicted(self, noised: Tensor, step: int) -> Tensor:
        return self.denoiser(noised, torch.full((len(noised),), step, device=noised.device))

    def _gaps(self, samples: Tensor, rebuilt: Tensor) -> Tensor:
        """[n, 2, h, w]: by how much standardised images differ, by features and by value."""
        maps = zip(self._maps(samples), self._maps(rebuilt), strict=True)
        size = self.sample_shape[1:]
        by_features = torch.stack([diffusion.resized(diffusion.unlikeness(a, b), size) for a, b in maps]).sum(0)
        return torch.stack([by_features, (samples - rebuilt).abs().mean(1)], 1)

    def _joined(self, gaps: Tensor, units: Tensor) -> Tensor:
        """[n, h, w]: both differences [n, 2, h, w] in such units [2], joined."""
        by_features, by_value = (gaps / units[:, None, None]).unbind(1)
        return (by_features + self.pixels * by_value) / (1 + self.pixels)

    def _maps(self, standardised: Tensor) -> list[Tensor]:
        """Feature maps of standardised images, from fine to coarse."""
        return self.features(standardised if self.backbone is None else self.standardise.undo(standardised))


def _parts(samples: Tensor) -> tuple[Tensor, ...]:
    """Images [n, c, h, w], as many at once as go through the networks together."""
    return samples.split(max(1, _PIXELS // math.prod(samples.shape[2:])))


def _kept_out(hashes: Tensor, w: Tensor) -> Tensor:
    """[2]: the lowest and the highest hash of the samples [n] that are kept out.

    Of all runs of neighbouring hashes that hold a twentieth of the weight it is the one that holds the least more, and
    of several the one of the lowest hashes. Copies have one hash and stay together, so a weight of k is as k copies.
    None is kept out where less than half of the weight would be left to learn from, as of copies of one image.
    """
    distinct, place = hashes[w > 0].unique(return_inverse=True)
    until = torch.zeros(len(distinct), dtype=w.dtype).index_add_(0, place, w[w > 0]).cumsum(0)
    before = torch.cat([until.new_zeros(1), until[:-1]])
    last = torch.searchsorted(until, before + _HELD_OUT * until[-1] * (1 - 1e-9))
    last = last[last < len(until)]  # the highest hashes may hold less than a twentieth
    held = until[last] - before[: len(last)]
    first = int((held <= held.min() * (1 + 1e-9)).nonzero()[0])
    if 2 * held[first] > until[-1]:
        return hashes.new_tensor(_NONE_HELD_OUT)
    return torch.stack([distinct[first], distinct[last[first]]])

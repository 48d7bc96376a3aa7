"""GLAD: diffusion that takes as many steps as an image needs, and keeps the normal parts of it.

Yao et al., ECCV 2024 (arXiv 2406.07487), in small: on pixels, without an autoencoder before and a text prompt beside
the network. Departures: nothing is set by a class's test images; the limit of the difference is a quantile over normal
images that are not learnt from; one start and one lower step serve all; textures come from `pseudo_anomalies`; whether
an image and its reconstruction differ is told as the score tells it, by features of all layers and by value, where the
published difference is that of the last layer's features (LOG.md has what that costs small images); the mask is
stretched over 0..1, where the published one stays above 1/2 and so never keeps a part of the input fully.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from torch import Tensor

from ..core import inference
from ..core.bounds import Bounds, Count, NotNegative, Share, Widths
from ..core.data import Data
from ..core.detector import Detector
from ..core.registry import register
from ..errors import InputError
from ..numerics import counter_rng
from .components import diffusion
from .components.adaptive_deviation import lenders
from .components.losses import top_mean
from .components.pseudo_anomalies import altered_images
from .components.reconstruction import Rebuilt, Reconstructing, Step

# Share of the kept-out normals that differ by less than the limit.
_LEVEL = 0.9
# The limit is one of their differences, which rounding changes with the batch that an image is in.
_ABOVE_ROUNDING = 1 + 1e-4
# Share of the pixels, those that differ most, whose mean says how much two images differ.
_PLACES = 0.1
# Half of the samples are learnt from as they are.
_ALTERED, _ALTERED_STREAM = 0.5, 52


@register("detector", "glad", needs={"diffusers": "diffusion"})
class GLAD(Reconstructing):
    """How far an image lies from its reconstruction, which keeps what is normal in it.

    Images are noised up to `start_step` and denoised until reconstruction and input, under the same noise, differ by
    more than a limit. From there on the reconstruction goes on from both: from the input where the two agree, and from
    what was rebuilt elsewhere. An image that has not differed once steps are below `lowest_step` goes on from the input
    alone, and keeps its details. The limit is what nine of ten kept-out normals do not reach.

    The network learns to predict the noise and the anomaly: half of the training images carry a made one, which it is
    to take away. What else it does, and how it is trained, is as for `diffusion`.

    Args:
        start_step: the step that images are noised to.
        lowest_step: the step below which an image that has not differed is looked at again; at 0 it never is.
        mask: how the reconstruction and the input are joined. "minmax": in proportion to their difference, of which the
            smallest in an image is 0 and the largest 1; "sigmoid": as published, by the logistic curve of the
            difference; "none": the input is taken as a whole, so that the number of steps alone is adapted.
        anomaly_oriented: whether made anomalies are learnt to be taken away; without it training is that of
            `diffusion`.
        passes, widths, backbone, pixels, top: as in `diffusion`.

    Raises:
        InputError: the lower step is not below the start, or no pass is below it.
    """

    limit: Tensor
    units: Tensor
    bank: Tensor

    def __init__(
        self,
        start_step: Step = 750,
        lowest_step: Annotated[int, Bounds(at_least=0, at_most=diffusion.STEPS - 1)] = 250,
        mask: Literal["minmax", "sigmoid", "none"] = "minmax",
        anomaly_oriented: bool = True,
        passes: Count = 25,
        widths: Widths = (24, 48, 72),
        backbone: str | None = None,
        pixels: NotNegative = 1.0,
        top: Share = 0.02,
    ) -> None:
        super().__init__(start_step, passes, widths, backbone, pixels, top)
        if lowest_step >= start_step:
            raise InputError(f"lowest_step must be below start_step {start_step}: got {lowest_step}")
        self.lowest_step = lowest_step
        if lowest_step and not self._last_step:
            raise InputError(
                f"of {passes} passes from step {start_step} none is below lowest_step {lowest_step}",
                f"take more passes, or a lowest_step above {self._path()[-2]}",
            )
        self.mask = mask
        self.anomaly_oriented = anomaly_oriented

    @classmethod
    def for_contracts(cls) -> Detector:
        return cls(start_step=400, lowest_step=250, passes=4, widths=(8, 16))

    def build(self, sample_shape: tuple[int, ...]) -> None:
        super().build(sample_shape)
        self.register_buffer("limit", torch.tensor(torch.inf))
        self.register_buffer("units", torch.ones(2))  # of the differences that are held to the limit
        self.register_buffer("bank", torch.zeros(2, *sample_shape), persistent=False)

    def remember(self, data: Data, w: Tensor) -> None:
        self.bank = self.standardise(lenders(data, w).to(self.bank.device))

    @property
    def _loss_step(self) -> int:
        return self._last_step or self.start_step

    def _lesson(self, samples: Tensor, noise: Tensor, step: Tensor, seeds: Tensor) -> tuple[Tensor, Tensor]:
        """Of an image with an anomaly a, noised to sqrt(A) (x + a) + sqrt(1 - A) e, the target is
        e + sqrt(A / (1 - A)) a: taken away, it leaves x.

        As in the published code a is t / 1,000 of the made anomaly, or small steps would ask for the impossible.
        """
        if not self.anomaly_oriented:
            return super()._lesson(samples, noise, step, seeds)
        made, _ = altered_images(samples, seeds, self.bank)
        alters = counter_rng.uniforms(seeds, 1, _ALTERED_STREAM)[:, 0] < _ALTERED
        share = (step / diffusion.STEPS * alters).view(-1, 1, 1, 1)
        anomaly = share * (made - samples)
        left, added = self._scales(step)
        return self._noised(samples + anomaly, noise, step), noise + left / added * anomaly

    def _measure(self, held_out: Data, w: Tensor) -> None:
        """First the limit, by images that nothing stops, and in units of these; then what is usual with it."""
        self.limit = torch.full_like(self.limit, torch.inf)
        super()._measure(held_out, w)
        self.units = self.usual.clone()
        highest = inference.over_batches(self, held_out, lambda batch: self.rebuild(batch.samples).highest)
        self.limit = _ABOVE_ROUNDING * diffusion.weighted_quantile(highest, w, _LEVEL).to(self.limit)
        super()._measure(held_out, w)

    def _adapted(self, seen: Rebuilt, samples: Tensor, predicted: Tensor, step: int) -> Rebuilt:
        # At the start both are one image, and differ by rounding.
        if step < self._last_step or step == self.start_step:
            return seen
        # The input as one step back from it would show it, under the noise of the start and the same prediction.
        original = self._estimate(self._noised(samples, self.noise, step), predicted, step)
        is_open = seen.closed == 0
        if step < self.lowest_step:
            images = torch.where(is_open[:, None, None, None], original, seen.images)
            return Rebuilt(images, torch.where(is_open, step, seen.closed), seen.highest)
        gap = self._joined(self._gaps(original, seen.images), self.units)
        difference = top_mean(gap, _PLACES)
        closes = is_open & (difference > self.limit)
        joined = torch.lerp(original, seen.images, self._kept_rebuilt(gap)[:, None])
        return Rebuilt(
            torch.where(closes[:, None, None, None], joined, seen.images),
            torch.where(closes, step, seen.closed),
            torch.maximum(seen.highest, difference),
        )

    @property
    def _last_step(self) -> int:
        """The first step below the lowest: none is open after it."""
        return next((step for step in self._path() if step < self.lowest_step), 0)

    def _kept_rebuilt(self, gap: Tensor) -> Tensor:
        """[n, h, w]: the share of the reconstruction, where it differs from the input by a gap [n, h, w]."""
        if self.mask == "none":
            return torch.zeros_like(gap)
        if self.mask == "sigmoid":
            return gap.sigmoid()
        low, high = gap.amin((1, 2), keepdim=True), gap.amax((1, 2), keepdim=True)
        return (gap - low) / (high - low).clamp_min(1e-12)

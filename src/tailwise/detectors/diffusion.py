"""Reconstruction by diffusion from a fixed step; see `components.reconstruction`.

AnoDDPM (Wyatt et al., CVPR workshops 2022) with the deterministic steps of DDIM (Song et al., ICLR 2021), on pixels and
with Gaussian noise. The networks are those of diffusers, made small. `glad` differs from it in nothing but its training
target and its steps.
"""

from __future__ import annotations

from ..core.registry import register
from .components.reconstruction import Reconstructing


@register("detector", "diffusion", needs={"diffusers": "diffusion"})
class Diffusion(Reconstructing):
    """How far an image lies from its reconstruction, by features and by pixels.

    Images are noised up to the step `start_step` of 1,000, with the same noise for all, and denoised in `passes`
    passes. At each pixel the reconstruction differs by features (one less the cosine, summed over layers) and by value;
    each is divided by its mean over a twentieth of the training images, which is not learnt from (over all of them,
    learnt from, where most are copies of one image). An image's score is the mean of the largest differences.

    A score takes `passes` passes of the network, so weights are made from the losses of one. It learns slowly: it takes
    1,500 steps of 64 images at a learning rate of 0.002 unless told otherwise. Parameters are averaged and the learning
    rate falls along a cosine, unless hooks are given to `fit`.

    Args:
        start_step: the step that images are noised to. The higher it is, the larger the anomalies that vanish, and the
            more normal details vanish with them.
        passes: of the network, for each image.
        widths: channels of the network, from the finest resolution to the coarsest; multiples of 8.
        backbone: name of the network whose features are compared, for images of 64 pixels and more with 1 or 3
            channels in 0..1; None is a small one that was taught to tell generated textures apart.
        pixels: what the difference by value counts, where that by features counts 1.
        top: share of an image's pixels, the most different, whose mean is its score.

    Raises:
        InputError: widths are not multiples of 8, or there are more passes than steps.
    """

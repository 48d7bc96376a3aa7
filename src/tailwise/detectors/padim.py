"""PaDiM: a Gaussian at each position of a feature map, in few dimensions (Defard et al., ICPR workshops 2021)."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import pad

from ..core import inference
from ..core.bounds import Count, Positive, Share
from ..core.data import Batch, Data
from ..core.detector import Reading, ReadsOnce
from ..core.identity import digests
from ..core.modality import SPATIAL
from ..core.registry import register
from .components.covariance import distances, weighted_moments, whitening
from .components.losses import top_count, top_mean
from .components.standardise import Standardise

# Less of a distance's bound than this is rounding.
_LEAST_REST = 1e-3
# Which share of an image's places says how far border and inside reach.
_FARTHEST = 0.1
# Numbers of the maps that are read at once.
_STEP_ENTRIES, _STEP = 16_000_000, 32
# Finer grids share a Gaussian among neighbouring positions: each holds d x d numbers, and more images tell it.
_MOST_GAUSSIANS = 2_000


@register("detector", "padim")
class PaDiM(ReadsOnce):
    """Squared Mahalanobis distance of each position's channels to that position's normals.

    Of many channels a random few are kept, drawn once by the fit's seed. The paper's constants are 100 channels (for
    a ResNet-18) and 0.01 added to every variance. Here channels are first given variance 1, so that what is added means
    the same whatever the backbone, and it is 0.1: a hundred images tell so many variances badly. Means and covariances
    are weighted, distances at the border are put on the scale of those inside, and an image's score is the mean of its
    largest distances, not the largest alone. It is computed once, with the weights known beforehand: those that scores
    would give hardly move it. In a map of more than 2,000 positions squares of 2 x 2, 4 x 4 or more share a Gaussian.

    Args:
        dims: how many channels are kept; all where there are no more.
        added: what is added to the variance of each channel, so that fewer images than channels are enough.
        top: share of an image's positions, the farthest, whose mean distance is its score; 0 takes the farthest alone.
    """

    modalities = SPATIAL
    wants_maps = True
    solve_once = True
    kept: Tensor
    mean: Tensor
    whitening: Tensor
    count: Tensor
    scale: Tensor
    cell: int

    def __init__(self, dims: Count = 100, added: Positive = 0.1, top: Share = 0.01) -> None:
        super().__init__()
        self.dims = dims
        self.added = added
        self.top = top

    def build(self, sample_shape: tuple[int, ...]) -> None:
        self.standardise = Standardise(sample_shape, self.modality)
        channels = sample_shape[0]
        few = torch.randperm(channels)[: self.dims].sort().values if channels > self.dims else torch.arange(channels)
        self.register_buffer("kept", few)  # [d]
        self.cell = _cell(*sample_shape[1:])
        self.register_buffer("mean", torch.zeros(1))  # [cells, d]
        self.register_buffer("whitening", torch.zeros(1))  # [cells, d, d]
        self.register_buffer("count", torch.ones(1))  # how many samples of equal weight tell as much
        self.register_buffer("scale", torch.ones(1))  # [positions], what their distances are divided by

    def solve(self, data: Data, w: Tensor) -> Tensor:
        self.standardise.learn(data, w)
        device = self.mean.device
        mean, covariance = weighted_moments(data, w, lambda batch: self._vectors(batch.to(device)).double(), self._step)
        covariance.diagonal(dim1=1, dim2=2).add_(self.added)
        self.mean = mean.float().to(device)
        self.whitening = _whitening(covariance).float().to(device)
        self.count = _effective_count(data, w).reshape(1).to(self.count)
        return self._scaled_left_out(data, w)

    @property
    def _step(self) -> int:
        """How many images are read at once."""
        return max(1, min(_STEP, _STEP_ENTRIES // math.prod(self.sample_shape)))

    def read(self, batch: Batch, score: bool = True, map: bool = False, embedding: bool = False) -> Reading:
        """One distance a position is for score and map; the embedding is the mean of the kept channels."""
        vectors = self._vectors(batch)
        read: dict[str, Tensor] = {}
        if score or map:
            apart = self._apart(vectors)  # [n, p]
            if score:
                read["score"] = top_mean(apart, self.top)
            if map:
                read["map"] = apart.unflatten(1, self.sample_shape[1:])
        if embedding:
            read["embedding"] = vectors.unflatten(0, (-1, self.cell**2)).mean((1, 2))
        return Reading(**read)

    def score_left_out(self, batch: Batch) -> Tensor:
        """Scores of training images, each as if it had had no say in means and covariances.

        By the formulas of Sherman, Morrison and Woodbury; what is added to the variances is taken to be small beside
        them.
        """
        return top_mean(self._apart_left_out(batch) / self.scale, self.top)

    def prototypes(self) -> Tensor:
        """The mean of each position."""
        return self.mean

    def parts(self, samples: Tensor) -> Tensor:
        """The kept channels of each position [b, p, d]."""
        return self.modality.by_place(self.standardise.some(samples, self.kept))

    def _apart(self, vectors: Tensor) -> Tensor:
        """Squared distances [n, p], on one scale for border and inside."""
        return self._by_position(distances(vectors, self.mean, self.whitening)) / self.scale

    def _apart_left_out(self, batch: Batch) -> Tensor:
        """Squared distances [n, p] of training images, each as if it had not been learnt; not divided by the scale."""
        vectors, n = self._vectors(batch), self.count.clamp_min(2)
        if self.cell > 1:
            return self._by_position(self._without_own(vectors, n))
        apart = distances(vectors, self.mean, self.whitening)
        # The formula of equal weights: no distance exceeds n - 1 there. Of fewer images than dimensions most are near.
        return n / (n - 1) * apart / (1 - apart / (n - 1)).clamp_min((1 / n).clamp_max(_LEAST_REST))

    def _scaled_left_out(self, data: Data, w: Tensor) -> Tensor:
        """Learn the scale; scores [n] as `score_left_out` gives them, from the same pass.

        The scale is how far the border's farthest tenth lies over that of the inside, of images that are left out,
        where this is above 1; elsewhere 1. What is cut off at an edge differs from image to image, and zeros are a part
        of what the network sees there, so border places vary less evenly than a Gaussian: two to four times too many
        highest places lay there.
        """
        height, width = self.sample_shape[1:]
        outer = torch.ones(height, width, dtype=torch.bool)
        outer[1:-1, 1:-1] = False
        outer = outer.flatten().to(self.mean.device)
        self.scale = torch.ones(height * width).to(self.mean)
        if min(int(outer.sum()), int((~outer).sum())) < 1 / _FARTHEST:
            return inference.over_batches(self, data, self.score_left_out)
        count = top_count(height * width, self.top)

        def farthest(batch: Batch) -> Tensor:
            """Of both parts the farthest tenth's mean, then the distances of which the score is made."""
            apart = self._apart_left_out(batch)
            parts = [apart[:, part] for part in (outer, ~outer)]
            means = [top_mean(part, _FARTHEST)[:, None] for part in parts]
            return torch.cat([*means, *(part.topk(min(count, part.shape[1])).values for part in parts)], 1)

        found = inference.over_batches(self, data, farthest)
        border, inside = (w.double() / w.double().sum()).cpu() @ found[:, :2].double()
        beyond = (border / inside.clamp_min(1e-12)).clamp_min(1).to(self.scale)
        self.scale[outer] = beyond
        at_border, others = found[:, 2:].tensor_split([min(count, int(outer.sum()))], 1)
        return torch.cat([at_border / beyond.cpu(), others], 1).topk(count).values.mean(1)

    def _without_own(self, vectors: Tensor, n: Tensor) -> Tensor:
        """Squared distances [b * m, cells] of vectors whose image gave m of the n m vectors of each cell.

        Without them a covariance C is (n C - V'V / m) / (n - 1); what they add to the mean is left out.
        """
        several = self.cell**2
        white = ((vectors - self.mean).transpose(0, 1) @ self.whitening).unflatten(1, (-1, several))  # [c, b, m, d]
        between = white @ white.mT / (several * n)
        identity = torch.eye(several, device=between.device, dtype=between.dtype)
        # (1 - G)^-1 G of the matrix G of inner products has the distances along its diagonal.
        without = torch.linalg.solve((1 + 1 / n) * identity - between, between).diagonal(dim1=2, dim2=3)
        return ((n - 1) * several * without).flatten(1).T

    def _vectors(self, batch: Batch) -> Tensor:
        """Kept channels [n * m, cells, d], standardised: the m positions that share a Gaussian one after the other."""
        values, side = self.standardise.some(batch.samples, self.kept), self.cell
        if side == 1:
            return self.modality.by_place(values)
        height, width = values.shape[2:]
        if height % side or width % side:
            values = pad(values, (0, -width % side, 0, -height % side), mode="replicate")
        parts = values.unflatten(3, (-1, side)).unflatten(2, (-1, side))  # [n, d, rows, m, columns, m]
        return parts.permute(0, 3, 5, 2, 4, 1).flatten(3, 4).flatten(0, 2)

    def _by_position(self, apart: Tensor) -> Tensor:
        """Distances [n * m, cells] in the order of positions [n, p]."""
        height, width = self.sample_shape[1:]
        side = self.cell
        if side == 1:
            return apart
        parts = apart.unflatten(1, (-(-height // side), -1)).unflatten(0, (-1, side, side))
        return parts.permute(0, 3, 1, 4, 2).flatten(3, 4).flatten(1, 2)[:, :height, :width].flatten(1)


def _cell(height: int, width: int) -> int:
    """The side of the squares of positions that share a Gaussian."""
    side = 1
    while -(-height // side) * -(-width // side) > _MOST_GAUSSIANS:
        side *= 2
    return side


def _effective_count(data: Data, w: Tensor) -> Tensor:
    """How many samples of equal weight tell as much; copies of a sample are one of a larger weight."""
    place: dict[bytes, int] = {}
    each = torch.tensor([place.setdefault(digest, len(place)) for digest in digests(data)])
    mass = torch.zeros(len(place), dtype=torch.float64).index_add_(0, each, w.double().cpu())
    return mass.sum().square() / mass.square().sum()


def _whitening(covariance: Tensor) -> Tensor:
    """Matrices after which vectors have these covariances [positions, d, d] as identities.

    Triangular ones, a tenth of the work of `covariance.whitening`, unless too little was added to tell variances from
    0.
    """
    factor, failed = torch.linalg.cholesky_ex(covariance)
    if bool(failed.any()):
        return whitening(covariance)
    identity = torch.eye(covariance.shape[1], dtype=covariance.dtype, device=covariance.device)
    return torch.linalg.solve_triangular(factor, identity.expand_as(covariance), upper=False).mT.contiguous()

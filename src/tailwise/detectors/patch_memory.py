"""A memory of normal patches (PatchCore, Roth et al., CVPR 2022), thinned, if asked without losing rare kinds.

The samples are feature maps; a patch is the mean of a map's 3 x 3 neighbourhood, or a larger one. The memory is a
k-centre coreset, chosen greedily (Gonzalez 1985). Departures from the paper: what lies outside the map counts as the
mean of all positions, not as zero; the greedy choice is exact but made in rounds, one matrix product for many patches;
of large images a twentieth of the memory is drawn at random before it;
with `keep_tail` it is made twice, and the second time the patches of images that the others cover badly, which are the
rare kinds, count as farther away; and an image's score is the mean of its farthest patches. TailedCore (CVPR 2025)
keeps rare kinds by another road, and finds them by neighbours between whole images. Denoising by local outlier factors
follows SoftPatch (NeurIPS 2022).
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from ..core.bounds import Bounds, Count, CountFromZero, NotNegative, OddSide, Share
from ..core.data import Batch, Data
from ..core.detector import Detector, Reading
from ..core.identity import digests
from ..core.modality import POINT_CLOUD, SPATIAL
from ..core.registry import register
from ..errors import InputError
from ..numerics import export_ops, neighbours
from .components import pooling
from .components.channel_groups import groups_of, variance_of_groups
from .components.coreset import BLOCK_ENTRIES, directed, directions, k_centres, relative_squares
from .components.outlier_factor import outlier_factors

# The part of the allowed memory that one block of patches may fill: copies of it are made, and torch needs its own.
_BLOCK_SHARE = 0.2
# A block keeps so many times its part of the memory for the final choice.
_OVERSAMPLED = 3.0
# But no fewer than this, so that a block with more kinds than others is not starved.
_LEAST_KEPT = 1_000
_OUTLIER_NEIGHBOURS = 6
# Images covered worse than this, relative to the median, are of rare kinds: denoising does not touch their patches.
_RARE = 1.15
# What is this near, as a share of a patch's size, is the same patch.
_SAME_PATCH = 1e-5
# No image is stretched more than this.
_MOST_STRETCH = 10.0
# Neighbouring positions of a grid of more than so many tell much the same: then so many patches of all images, drawn at
# random, are chosen from, and so many pairs of a patch and one of the memory are looked at for an image (LOG.md).
_FINE_GRID, _CANDIDATES, _PAIRS = 2_000, 500_000, 12_000_000
# Of such a memory this share is drawn at random before: the farthest patches alone may leave out what most of an image
# looks like, which is then nearly as far from the memory as a defect (LOG.md).
_DRAWN = 0.05


@register("detector", "patch-memory")
class PatchMemory(Detector):
    """Mean distance of an image's farthest patches to the nearest of a memory of normal patches.

    Equal samples are taken once. The memory covers what is there, however often, so a weight above 0 changes only this:
    patches of an image of weight w count as farther away by the square root of w. It is computed once, with the weights
    known beforehand; those that scores would give are not waited for.

    Args:
        share: of all patches of distinct images, how many are kept.
        most: but no more than this, which bounds the time of scoring; of maps of more than 2,000 positions, as of large
            images, 12 million over the positions and at least 1,000.
        keep_tail: how strongly patches of rare kinds of image are kept. An image's mean distance to the memory of the
            other images, relative to the usual one and to this power, enlarges its patches' distances in a second
            choice. 0 is the plain coreset; about 2 helps some rare kinds and costs elsewhere (LOG.md).
        top: share of an image's patches, the farthest, whose mean distance is its score; 0 takes the farthest alone.
            A larger share finds large, weak defects better, and small ones less well.
        reweigh: neighbours in the memory that the image's score is re-weighed by, as in the paper; 0 leaves it out.
        denoise: share of patches, those of the largest local outlier factor, that are left out before the choice.
            Images of rare kinds are spared.
        standardise: give every channel the same spread; otherwise all are divided by one number.
        neighbourhood: side of the square of positions that are averaged to a patch. 5 finds large, weak defects better
            than 3, and small ones less exactly. Points of clouds are not averaged.
        max_memory: bytes that a fit may take, such as "2GB". More images than fit are thinned in blocks, then together.
    """

    modalities = (*SPATIAL, POINT_CLOUD)
    wants_maps = True
    solve_once = True
    memory: Tensor
    owner: Tensor
    mean: Tensor
    scale: Tensor
    radius: Tensor

    def __init__(
        self,
        share: Annotated[float, Bounds(above=0, at_most=1)] = 0.01,
        most: Count = 20_000,
        keep_tail: NotNegative = 0.0,
        top: Share = 0.005,
        reweigh: CountFromZero = 0,
        denoise: Annotated[float, Bounds(at_least=0, below=1)] = 0.0,
        standardise: bool = False,
        neighbourhood: OddSide = 3,
        max_memory: str = "2GB",
    ) -> None:
        super().__init__()
        self.bytes = _bytes(max_memory)
        self.share = share
        self.most = most
        self.keep_tail = keep_tail
        self.top = top
        self.reweigh = reweigh
        self.denoise = denoise
        self.standardise = standardise
        self.neighbourhood = neighbourhood
        self.max_memory = max_memory

    def build(self, sample_shape: tuple[int, ...]) -> None:
        channels = sample_shape[0]
        self.register_buffer("memory", torch.zeros(1, channels))  # [m, channels], centred and scaled
        self.register_buffer("owner", torch.zeros(1, dtype=torch.long))  # [m], which image a patch was seen in
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("scale", torch.ones(channels))
        self.register_buffer("radius", torch.zeros(1))  # within which a patch of training has one of the memory

    @torch.no_grad()
    def solve(self, data: Data, w: Tensor) -> None:
        distinct = self._distinct(data.take((w > 0).nonzero().flatten().cpu()), w[w > 0].double().cpu())
        self.mean, self.scale = distinct.mean.to(self.memory), distinct.scale.to(self.memory)
        stretch = (distinct.mass / distinct.mass.mean()).sqrt().float().to(self.memory)
        spared = torch.ones_like(stretch, dtype=torch.bool)
        self._choose(distinct, stretch, spared)
        if (not self.keep_tail and not self.denoise) or len(distinct.data) < 3:
            return
        cover = self._cover(distinct.data)
        stretch = stretch * (_relative(cover.mean(1)) ** self.keep_tail).clamp(1 / _MOST_STRETCH, _MOST_STRETCH)
        # The median, because a hidden anomaly fills a part of its image and a rare kind the whole.
        self._choose(distinct, stretch, _relative(cover.median(1).values) > _RARE if self.denoise else spared)

    def _choose(self, distinct: _Distinct, stretch: Tensor, spared: Tensor) -> None:
        """Fill the memory; `stretch` [n] of the images, and those [n] that are not denoised."""
        images, positions = len(distinct.data), math.prod(self.sample_shape[1:])
        wanted = min(self.most, max(1, round(self.share * images * positions)))
        asked, drawn = positions, 0.0
        if positions > _FINE_GRID:
            drawn = _DRAWN
            wanted = min(wanted, max(1_000, _PAIRS // positions))
            asked = positions if self.denoise else min(positions, max(1, _CANDIDATES // images))
        blocks = torch.arange(images).split(max(1, self._block_images * positions // asked))
        kept = []
        for block in blocks:
            part = float(stretch[block].sum() / stretch.sum())
            enough = max(math.ceil(_OVERSAMPLED * wanted * part), _LEAST_KEPT)
            enough = wanted if len(blocks) == 1 else enough
            patches, owner = self._block(distinct.data, block, spared, asked)
            usual = torch.ones_like(owner, dtype=torch.bool)
            part_of = _Chosen(patches, owner, stretch[owner], usual, self.radius.new_zeros(()))
            kept.append(part_of.thinned(enough, drawn))
        chosen = kept[0] if len(kept) == 1 else _Chosen.joined(kept).thinned(wanted, drawn)
        self.memory, self.owner = chosen.patches.contiguous(), chosen.owner
        self.radius = chosen.radius.to(self.memory).reshape(1)

    def _cover(self, images: Data) -> Tensor:
        """How far [n, positions] an image's patches are from the nearest of the memory that is of another image."""
        found = []
        for batch in images.batches(max(1, BLOCK_ENTRIES // math.prod(self.sample_shape))):
            for index, patches in zip(batch.index.tolist(), self.parts(batch.samples.to(self.memory)), strict=True):
                others = self.owner != index
                found.append(self._nearest(patches, others if bool(others.any()) else None)[0])
        return torch.stack(found)

    @torch.no_grad()
    def update(self, data: Data, w: Tensor) -> None:
        """Add what is new in more normals: their patches, farthest first, until all lie within the radius."""
        first = int(self.owner.max()) + 1
        for batch in data.take((w > 0).nonzero().flatten().cpu()).batches(max(1, self._block_images)):
            for image, patches in zip(batch.index.tolist(), self.parts(batch.samples.to(self.memory)), strict=True):
                near = self._nearest(patches)[0]
                added: list[int] = []
                while float(near.max()) > float(self.radius) and len(added) < len(patches):
                    added.append(int(near.argmax()))
                    near = torch.minimum(near, (patches - patches[added[-1]]).norm(dim=1))
                self.memory = torch.cat([self.memory, patches[added]])
                self.owner = torch.cat([self.owner, torch.full_like(self.owner[:1], first + image).expand(len(added))])

    def score(self, batch: Batch) -> Tensor:
        return self.read(batch).score

    def score_left_out(self, batch: Batch) -> Tensor:
        """Scores of training images, each without its own patches in the memory."""
        found = [(patches, *self._left_out(patches)) for patches in self.parts(batch.samples.to(self.memory))]
        return torch.cat([self._of_image(*(each[None] for each in image)) for image in found])

    def map_left_out(self, batch: Batch) -> Tensor:
        """Maps of training images, each without its own patches in the memory."""
        found = [self._left_out(patches)[0] for patches in self.parts(batch.samples.to(self.memory))]
        return torch.stack(found).to(self.memory).unflatten(1, batch.samples.shape[2:])

    def _left_out(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        """As `_nearest`, of the patches [p, channels] of an image, whose own do not count if it has some in the
        memory."""
        distances, indices = self._nearest(patches)
        # One of its patches that is in the memory tells which image this is.
        own = self.owner[indices[distances <= _SAME_PATCH * patches.norm(dim=1)]].unique()
        others = ~torch.isin(self.owner, own)
        if len(own) and bool(others.any()):
            # The rest are nearest to another image's patch already.
            asked = ~others[indices]
            distances[asked], indices[asked] = self._nearest(patches[asked], others)
        return distances, indices

    def _of_image(self, patches: Tensor, distances: Tensor, indices: Tensor) -> Tensor:
        """Scores [b] from patches [b, positions, channels], their distances and their nearest of the memory."""
        farthest = distances.topk(max(1, round(self.top * distances.shape[1])), 1)
        scores = farthest.values.mean(1).to(patches)
        if not self.reweigh or len(self.memory) < 2:
            return scores
        rows, place = torch.arange(scores.shape[0], device=scores.device), farthest.indices[:, 0]
        return scores * self._rarity(patches[rows, place], distances[rows, place].to(patches), indices[rows, place])

    def score_map(self, batch: Batch) -> Tensor:
        return self.read(batch, score=False, map=True).map

    def embed(self, batch: Batch) -> Tensor:
        """The mean patch."""
        return self.read(batch, score=False, embedding=True).embedding

    def read(self, batch: Batch, score: bool = True, map: bool = False, embedding: bool = False) -> Reading:
        """Patches are looked up once for score and map."""
        patches = self.parts(batch.samples.to(self.memory))
        read: dict[str, Tensor] = {}
        if score or map:
            distances, indices = self._nearest(patches.flatten(0, 1))
            if score:
                shape = patches.shape[:2]
                read["score"] = self._of_image(patches, distances.reshape(shape), indices.reshape(shape))
            if map:
                read["map"] = distances.to(patches).reshape(patches.shape[0], *batch.samples.shape[2:])
        if embedding:
            read["embedding"] = patches.mean(1)
        return Reading(**read)

    @property
    def _block_images(self) -> int:
        """How many images' patches are held at once."""
        channels, positions = self.sample_shape[0], math.prod(self.sample_shape[1:])
        return int(_BLOCK_SHARE * self.bytes / (4 * positions * (channels + (directions(channels) or channels))))

    def prototypes(self) -> Tensor:
        """The memory."""
        return self.memory

    def parts(self, samples: Tensor) -> Tensor:
        """Centred and scaled patches [b, positions, channels] of maps [b, channels, h, w]."""
        centred = (samples - self.mean[:, None, None]).div_(self.scale[:, None, None])
        return pooling.padded_means(centred, 1 if self.modality.scattered else self.neighbourhood)

    def _distinct(self, data: Data, w: Tensor) -> _Distinct:
        """The distinct samples in order, their weights, and moments of their positions."""
        place: dict[bytes, int] = {}
        first: list[int] = []
        mass: list[float] = []
        sums, squares = torch.zeros(1), torch.zeros(1)
        for index, digest in enumerate(digests(data)):
            if digest not in place:
                place[digest] = len(first)
                first.append(index)
                mass.append(0.0)
            mass[place[digest]] += float(w[index])
        distinct = data.take(first)
        for batch in distinct.batches(max(1, BLOCK_ENTRIES // math.prod(self.sample_shape))):
            positions = batch.samples.double()
            sums = sums + positions.sum((0, 2, 3))
            squares = squares + positions.square_().sum((0, 2, 3))
        count = len(first) * math.prod(self.sample_shape[1:])
        mean = sums / count
        variance = (squares / count - mean.square()).clamp_min(0)
        # Sums of squares are exact to about this share of the mean's square.
        constant = variance <= 1e-10 * mean.square().clamp_min(1e-20)
        if not self.standardise:
            variance = variance_of_groups(variance, groups_of(data.features, len(variance)))
        scale = torch.where(constant | (variance <= 0), 1.0, variance.sqrt())
        return _Distinct(distinct, torch.tensor(mass), mean, scale)

    def _block(self, images: Data, block: Tensor, spared: Tensor, asked: int) -> tuple[Tensor, Tensor]:
        """Patches [m, channels] of the images of a block, `asked` of each, less the outliers, and which image each is
        of."""
        positions, channels = math.prod(self.sample_shape[1:]), self.sample_shape[0]
        patches = self.memory.new_empty(len(block), asked, channels)
        step = max(1, BLOCK_ENTRIES // math.prod(self.sample_shape))
        for batch in images.take(block).batches(step):
            found = self.parts(batch.samples.to(patches))
            if asked < positions:
                found = torch.stack(
                    [_drawn(each, asked, int(i)) for each, i in zip(found, block[batch.index], strict=True)]
                )
            patches[batch.index.to(patches.device)] = found
        owner = block.to(patches.device).repeat_interleave(asked)
        if not self.denoise or bool(spared[block].all()):
            return patches.flatten(0, 1), owner
        kept = self._inliers(patches, spared[block]).flatten()
        return patches.flatten(0, 1)[kept], owner[kept]

    def _inliers(self, patches: Tensor, spared: Tensor) -> Tensor:
        """Which patches [b, positions] stay: all of the spared images, and of the others the least outlying."""
        kept = torch.ones(patches.shape[:2], dtype=torch.bool, device=patches.device)
        judged = ~spared.to(patches.device)
        if len(patches) > 2 and bool(judged.any()):
            factors = outlier_factors(patches.transpose(0, 1), _OUTLIER_NEIGHBOURS).T
            ranks = factors[judged].flatten().sort().values
            kept[judged] = factors[judged] <= ranks[min(len(ranks) - 1, int((1 - self.denoise) * len(ranks)))]
        return kept

    def _nearest(self, patches: Tensor, among: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Distance [p] of patches [p, channels] to the nearest of the memory, and which it is [p]; `among` [m] names
        those that count."""
        norms = self.memory.square().sum(1)
        if among is not None:
            norms = torch.where(among, norms, torch.inf)
        found, exact = [], []
        for block, squared in relative_squares(patches, self.memory, norms):
            # A quarter of the time of `argmin`.
            nearest = squared.min(1).indices
            # From the difference itself: the product form loses the digits of small distances.
            off = (block - self.memory[nearest]).square_()
            exact.append(off.sum(1, dtype=export_ops.precise(patches.device)).sqrt())
            found.append(nearest)
        return torch.cat(exact), torch.cat(found)

    def _rarity(self, patches: Tensor, distances: Tensor, indices: Tensor) -> Tensor:
        """The paper's factor [b] for the farthest patches [b, channels] with their nearest memory patches: one less the
        share of the distance in a softmax over the memory patches around the nearest. Distances are a channel's."""
        around = min(self.reweigh, len(self.memory))
        near = neighbours.nearest(self.memory[indices], self.memory, around)[1]  # [b, around], the patch itself first
        to_near = (patches[:, None] - self.memory[near]).norm(dim=2) / math.sqrt(patches.shape[1])
        own = distances[:, None] / math.sqrt(patches.shape[1])
        return 1 - (own - torch.logsumexp(to_near, 1, keepdim=True)).exp()[:, 0]


@dataclass(frozen=True)
class _Distinct:
    data: Data
    mass: Tensor  # [n]
    mean: Tensor  # [channels]
    scale: Tensor  # [channels]


@dataclass(frozen=True)
class _Chosen:
    """Patches [m, channels] with their images [m], their stretch [m], and whether each was drawn from all alike [m]."""

    patches: Tensor
    owner: Tensor
    stretch: Tensor
    usual: Tensor
    radius: Tensor

    @classmethod
    def joined(cls, parts: list[_Chosen]) -> _Chosen:
        return cls(
            torch.cat([part.patches for part in parts]),
            torch.cat([part.owner for part in parts]),
            torch.cat([part.stretch for part in parts]),
            torch.cat([part.usual for part in parts]),
            torch.stack([part.radius for part in parts]).max(),
        )

    def thinned(self, count: int, drawn: float) -> _Chosen:
        """The `count` patches of a greedy k-centre choice, a share of which is drawn at random before."""
        first = _drawn(self.usual.nonzero().flatten(), math.ceil(drawn * count), 0) if drawn else None
        picks, radius = k_centres(directed(self.patches), self.stretch.to(self.patches), count, first)
        usual = torch.zeros_like(self.usual[picks])
        usual[: 0 if first is None else len(first)] = True
        return _Chosen(self.patches[picks], self.owner[picks], self.stretch[picks], usual, self.radius + radius)


def _drawn(rows: Tensor, count: int, seed: int) -> Tensor:
    """So many rows at random, in their order."""
    kept = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))[:count].sort().values
    return rows[kept.to(rows.device)]


def _relative(values: Tensor) -> Tensor:
    return values / values.median().clamp_min(1e-12)


def _bytes(text: str) -> float:
    """A size such as "2GB" or "500 MB" in bytes.

    Raises:
        InputError: it is not one.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)B?\s*", str(text).upper())
    if found is None or float(found[1]) <= 0:
        raise InputError(f"max_memory is a size such as '2GB': got {text!r}")
    return float(found[1]) * 1000.0 ** (("", "K", "M", "G", "T").index(found[2]))

"""3DzAL: patches of points and point feature histograms, for parts of kinds that were never seen.

Wang, Peng & Fu, WACV 2025 (arXiv 2412.04304). Their code and formulas are not published, so the losses and the score
are our reconstruction of what the paper says of them. A small network learns that normal patches are alike, that
pseudo-anomalies made of other surfaces are not, and that it is to say something else than the histograms; another tells
both apart, and is asked about patches that were moved a step against it. Ours: patches of the other parts count as
normal too, without which neither network says anything of unseen parts (LOG.md, 2026-11-30).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cosine_similarity, normalize

from ..core import inference
from ..core.bounds import Bounds, Count, NotNegative, Share
from ..core.context import Measured
from ..core.data import Batch, Data
from ..core.detector import Reading
from ..core.modality import FEATURE_MAP, POINT_CLOUD, Modality
from ..core.registry import find, register
from ..errors import InputError
from ..numerics.counter_rng import seeds_of, uniforms
from ..numerics.metrics import auroc
from .components.patch_defects import salience, turned, with_defects
from .components.two_modalities import TwoModalities, digests_of, halves, measured_cells, reading_of

# What is learnt of a patch, and the layers that see each of its points.
_WIDTH, _POINTWISE = 64, (32, 64)
_TEMPERATURE = 0.2
# Patches at a step, half of them of other parts where there are any; fragments and patches of each other part that are
# kept, of so many scans.
_PATCHES, _FRAGMENTS, _NORMALS, _SCANS = 24, 256, 768, 16
# A patch's points vary about so much along its surface and off it: its coordinates are divided by it.
_ALONG, _OFF = 1 / 3, 1 / 9
# Of a scan's cells, how many of the highest activation fragments are taken from.
_SALIENT = 0.1
_STEP = 8
# Patches that a network sees at once.
_BLOCK = 256


@register("detector", "zero-shot-patches")
class ZeroShotPatches(TwoModalities):
    """Distances of histograms and of learnt patches to memories of normal ones, and a classifier's word.

    Samples have histograms first, and then where each cell is and the points around it, as `RgbXyz(path,
    use="patches")` and `PointClouds(path, use="patches")` give them. Unless told otherwise it takes 300
    steps of 8 samples.

    Args:
        geometry: how many of the last channels are points, 3 for each and 3 for the cell; None goes by their names.
        others: folders of scans or clouds of other parts, without labels. Their fragments make pseudo-anomalies, and
            their patches count as normal beside the sample's. They are read once, when a fit begins, and what is needed
            of them is kept with the run. Without any, fragments are those of training samples.
        salient: take fragments where the activation of an untrained network is highest; otherwise anywhere.
        seed: of the untrained network.
        learnt: how much distances of learnt patches count beside those of histograms.
        classified: how much the classifier's chance of an anomaly counts; a normal cell's distance counts 1.
        perturbation: each point moves so far along each axis, in shares of the patch's radius, to where the classifier
            sees more of an anomaly: normal patches resist. 0 asks about patches as they are.
        share: of all cells, how many each memory keeps.
        top: share of a sample's cells, the farthest, whose mean is its score.
    """

    modalities: tuple[Modality, ...] = (FEATURE_MAP, POINT_CLOUD)
    second_group = "patch:"
    usual_steps = (300, 8)
    cosine_schedule = True
    not_exported = "its score follows a gradient of its own, which no graph of operations holds"
    fragments: Tensor
    of_others: Tensor
    mix: Tensor
    usual: Tensor
    steps: Tensor

    def __init__(
        self,
        geometry: Count | None = None,
        others: tuple[str, ...] = (),
        salient: bool = True,
        seed: Annotated[int, Bounds(at_least=0)] = 0,
        learnt: NotNegative = 1.0,
        classified: NotNegative = 1.0,
        perturbation: NotNegative = 0.01,
        share: Share = 0.1,
        top: Share = 0.005,
    ) -> None:
        super().__init__()
        self.geometry = geometry
        self.others = others
        self.salient = salient
        self.seed = seed
        self.learnt = learnt
        self.classified = classified
        self.perturbation = perturbation
        self.share = share
        self.top = top

    def make(self, first: int, rest: int) -> None:
        if rest < 6 or rest % 3:
            raise InputError(
                f"{rest} channels are no points: 3 for the cell's place and 3 for each point around it were needed",
                'RgbXyz(path, use="patches") gives them',
            )
        points = rest // 3 - 1
        self.encoder, self.classifier = PointNet(_WIDTH), PointNet(1)
        mix = torch.randn(first, _WIDTH, generator=torch.Generator().manual_seed(self.seed)) / _WIDTH**0.5
        self.register_buffer("mix", mix)
        self.register_buffer("fragments", torch.zeros(0, points, 3))
        self.register_buffer("of_others", torch.zeros(0, first + 3 * points))  # histograms and points of patches
        self.register_buffer("usual", torch.ones(2))
        self.histograms, self.embedded = self._memory(first), self._memory(_WIDTH)
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    def prepare(self, data: Data, w: Tensor) -> None:
        self.part_channels(data)
        if len(self.fragments):  # of a run that is opened again
            return
        found = [_read(folder, self.sample_shape, self.modality) for folder in self.others]
        parts = [self._kept(each, torch.ones(len(each))) for each in found] or [self._kept(data, w)]
        self.fragments = torch.cat([self._fragments(part) for part in parts]).to(self.first.device)
        if found:
            self.of_others = torch.cat([self._normals(part) for part in parts]).to(self.first.device)

    def restore(
        self, sample_shape: tuple[int, ...], state: Mapping[str, Tensor], modality: Modality | None = None
    ) -> None:
        # Runs of before kept no count of steps.
        super().restore(sample_shape, {"steps": torch.zeros((), dtype=torch.long), **state}, modality)
        if not len(self.fragments):  # or whoever goes on training would read the folders that a run names
            raise InputError(f"the saved state does not fit {self!r}: it has no fragments", "fit again")

    def losses(self, batch: Batch) -> Tensor:
        """The sum of contrast, redundancy and classification, of some of the sample's own patches and of others'."""
        seeds = seeds_of(self._places(batch.samples), int(self.steps))
        rows, seen = self._drawn(batch, seeds, _PATCHES // 2 if len(self.of_others) else _PATCHES)
        if len(self.of_others):
            draws = uniforms(seeds, _PATCHES // 2, 47) * len(self.of_others)
            rows = torch.cat([rows, self.of_others[draws.long()]], 1)
            seen = torch.cat([seen, torch.ones_like(draws, dtype=torch.bool)], 1)
        histograms, patches = rows[..., : self.split], rows[..., self.split :].unflatten(2, (-1, 3))
        normal = turned(patches, seeds, 43)
        spoilt = with_defects(turned(patches, seeds, 44), self.fragments, seeds)
        self.steps += self.training
        near, far = (normalize(self.encoder(each), dim=2) for each in (normal, spoilt))
        learnt = _contrast(near, far, seen) + _redundancy(near @ self.mix.T, histograms, seen)
        return learnt + self._classification(normal, spoilt, seen)

    @torch.no_grad()
    def settle(self, data: Data, w: Tensor) -> None:
        """Fill the memories, and measure the usual distances on halves that did not fill them."""
        w = w.double().cpu()
        place = (w > 0).nonzero().flatten()
        data, w = data.take(place), w[place]
        with inference.evaluating(self):
            maps = [self._maps(batch.to(self.first.device)).cpu() for batch in data.batches(_STEP)]
        seen = torch.cat([measured_cells(batch, self.split) for batch in data.batches(_STEP)])
        both = Data(torch.cat(maps), data.names, (), Measured(seen.unflatten(1, self.sample_shape[1:])), self.modality)
        names = [name for batch in data.batches(_STEP) for name in digests_of(batch, self.split)]
        for number, memory in enumerate((self.histograms, self.embedded)):
            part = self._part_of(both, number)
            self.usual[number] = self._held_out(part, w, seen, names)
            memory.solve(part, w)

    def read(self, batch: Batch, score: bool = True, map: bool = False, embedding: bool = False) -> Reading:
        maps = self._maps(batch)
        fused = self._fused(batch, maps) if score or map else None
        return reading_of(fused, self.top, score, map, maps.mean((2, 3)) if embedding else None)

    def embed(self, batch: Batch) -> Tensor:
        """The mean histogram and the mean learnt patch."""
        return self.read(batch, score=False, embedding=True).embedding

    def parts_of_score(self, batch: Batch) -> dict[str, Tensor]:
        """Maps [b, *space] of what the score is made of, each before it is weighed: distances of histograms and of what
        was learnt, and the classifier's chances of patches moved and as they are."""
        return self._parts(batch, self._maps(batch)) | {"classified as it is": self._classified(batch, 0.0)}

    def self_checks(self, batch: Batch) -> list[tuple[str, bool, float, str]]:
        """Whether the classifier tells defects that it was not trained on from normal patches."""
        with torch.no_grad():
            seeds = seeds_of(self._places(batch.samples), -1)
            rows, seen = self._drawn(batch, seeds, _PATCHES)
            patches = rows[..., self.split :].unflatten(2, (-1, 3))
            found = [self.classifier(each)[..., 0] for each in (patches, with_defects(patches, self.fragments, seeds))]
        labels = torch.stack([torch.zeros_like(seen), torch.ones_like(seen)])
        kept = torch.stack([seen, seen])
        told = auroc(labels[kept].cpu().numpy(), torch.stack(found)[kept].cpu().numpy())
        return [("pseudo-anomalies are told from patches", told > 0.6, told, f"with an AUROC of {told:.2f}")]

    @classmethod
    def for_contracts(cls) -> ZeroShotPatches:
        return cls(geometry=12)

    def _fused(self, batch: Batch, maps: Tensor) -> Tensor:
        """[b, h, w]: distances of a normal cell count 1; cells that were not measured are as the nearest that was."""
        parts = self._parts(batch, maps)
        joined = (parts["histograms"] + self.learnt * parts["learnt"]) / (1 + self.learnt)
        return joined + self.classified * parts["classified"]

    def _parts(self, batch: Batch, maps: Tensor) -> dict[str, Tensor]:
        parts = {"histograms": maps[:, : self.split], "learnt": maps[:, self.split :]}
        memories: dict[str, Any] = {"histograms": self.histograms, "learnt": self.embedded}
        found = {
            name: memories[name].score_map(Batch(part, batch.index)) / self.usual[number]
            for number, (name, part) in enumerate(parts.items())
        }
        return found | {"classified": self._classified(batch, self.perturbation)}

    def _classified(self, batch: Batch, perturbation: float) -> Tensor:
        """[b, h, w]: the chance of an anomaly, of patches moved a step towards anomalies (Goodfellow et al. 2015)."""
        patches = self._points(batch.samples)
        if perturbation:
            with torch.enable_grad():
                asked = patches.detach().requires_grad_()
                # Of log(1 + e^logit), the cost of calling a patch normal.
                (gradient,) = torch.autograd.grad(nn.functional.softplus(self.classifier(asked)).sum(), asked)
            patches = patches + perturbation * gradient.sign()
        return self.classifier(patches)[..., 0].sigmoid().unflatten(1, self.sample_shape[1:])

    def _maps(self, batch: Batch) -> Tensor:
        """[b, histograms and learnt channels, h, w]."""
        learnt = normalize(self.encoder(self._points(batch.samples)), dim=2).transpose(1, 2)
        return torch.cat([batch.samples[:, : self.split], learnt.unflatten(2, self.sample_shape[1:])], 1)

    def _places(self, samples: Tensor) -> Tensor:
        """Where cells are [b, 3, h, w]."""
        return samples[:, self.split : self.split + 3]

    def _points(self, samples: Tensor) -> Tensor:
        """Patches [b, cells, points, 3] of samples."""
        return samples[:, self.split + 3 :].flatten(2).transpose(1, 2).unflatten(2, (-1, 3))

    def _drawn(self, batch: Batch, seeds: Tensor, many: int) -> tuple[Tensor, Tensor]:
        """Histograms and points [b, m, channels] of so many cells, measured ones first, and which these are [b, m]."""
        seen = measured_cells(batch, self.split)
        draws = uniforms(seeds, seen.shape[1], 45) + 2.0 * ~seen
        place = draws.topk(min(many, seen.shape[1]), largest=False).indices
        return self._rows(batch.samples, place), seen.gather(1, place)

    def _rows(self, samples: Tensor, place: Tensor) -> Tensor:
        """Histograms and points [b, m, channels] of the cells at `place` [b, m]."""
        cells = torch.cat([samples[:, : self.split], samples[:, self.split + 3 :]], 1).flatten(2)
        return cells.gather(2, place[:, None].expand(-1, cells.shape[1], -1)).transpose(1, 2)

    def _classification(self, normal: Tensor, spoilt: Tensor, seen: Tensor) -> Tensor:
        """[b]: cross entropy of telling normal patches from spoilt ones."""
        logits = torch.stack([self.classifier(each)[..., 0] for each in (normal, spoilt)], 1)  # [b, 2, m]
        truth = torch.zeros_like(logits)
        truth[:, 1] = 1
        costs = binary_cross_entropy_with_logits(logits, truth, reduction="none").mean(1)
        return (costs * seen).sum(1) / seen.sum(1).clamp_min(1)

    def _kept(self, data: Data, w: Tensor) -> Batch:
        """Some of the samples, by their content, which copies and other orders of the data do not change."""
        digests = [name for batch in data.batches(_STEP) for name in digests_of(batch, self.split)]
        place = {name: i for i, name in enumerate(digests) if float(w[i]) > 0}
        return data.batch(torch.tensor([place[name] for name in sorted(place)[:_SCANS]]))

    def _fragments(self, kept: Batch) -> Tensor:
        """Points [k, points, 3] of an even choice of the most salient cells, or of all measured ones."""
        places, seen = self._places(kept.samples), measured_cells(kept, self.split)
        values = salience(places, seen.unflatten(1, places.shape[2:]), self.seed).flatten(1)
        if not self.salient:
            values = uniforms(seeds_of(self._places(kept.samples), self.seed), seen.shape[1], 46)
        chosen = self._rows(
            kept.samples, _ranked(values, seen, _FRAGMENTS // len(kept), _SALIENT if self.salient else 1)
        )
        return chosen[..., self.split :].flatten(0, 1).unflatten(1, (-1, 3))

    def _normals(self, kept: Batch) -> Tensor:
        """Histograms and points [k, channels] of an even choice of measured cells."""
        seen = measured_cells(kept, self.split)
        values = uniforms(seeds_of(self._places(kept.samples), self.seed), seen.shape[1], 48)
        return self._rows(kept.samples, _ranked(values, seen, _NORMALS // len(kept), 1)).flatten(0, 1)

    def _part_of(self, both: Data, number: int) -> Data:
        channels = slice(0, self.split) if number == 0 else slice(self.split, None)
        assert isinstance(both.samples, Tensor)
        return Data(both.samples[:, channels].contiguous(), both.names, (), both.context, self.modality)

    def _held_out(self, part: Data, w: Tensor, seen: Tensor, names: list[bytes]) -> float:
        """The mean distance of measured cells to a memory of the other half of the samples."""
        total, count = 0.0, 0.0
        for inside, outside in halves(names):
            memory = self._memory(part.sample_shape[0]).to(self.first.device)
            memory.solve(part.take(inside), w[inside])
            for batch in part.take(outside).batches(_STEP):
                found = memory.score_map(batch.to(self.first.device)).flatten(1).double().cpu()
                share = w[outside][batch.index][:, None] * seen[outside][batch.index]
                total, count = total + float((found * share).sum()), count + float(share.sum())
        return max(total / count, 1e-9) if count else 1.0

    def _memory(self, channels: int) -> Any:
        memory = find("detector", "patch-memory")(share=self.share, top=self.top, neighbourhood=1)
        memory.start((channels, *self.sample_shape[1:]), self.modality)
        return memory


def _contrast(near: Tensor, far: Tensor, seen: Tensor) -> Tensor:
    """[b]: how little normal patches [b, m, d] of a sample are alike, beside their likeness to its spoilt ones."""
    alike = near @ near.transpose(1, 2) / _TEMPERATURE  # [b, m, m]
    against = (near @ far.transpose(1, 2) / _TEMPERATURE).masked_fill(~seen[:, None], -1e4).logsumexp(2)
    pairs = seen[:, :, None] & seen[:, None] & ~torch.eye(seen.shape[1], dtype=torch.bool, device=seen.device)
    costs = torch.logaddexp(alike, against[..., None]) - alike
    return (costs * pairs).sum((1, 2)) / pairs.sum((1, 2)).clamp_min(1)


def _redundancy(mixed: Tensor, histograms: Tensor, seen: Tensor) -> Tensor:
    """[b]: squared cosine of what was learnt, mixed [b, m, d], and of histograms [b, m, d] about the sample's mean."""
    mask = seen[..., None].to(histograms)
    middle = (histograms * mask).sum(1, keepdim=True) / mask.sum(1, keepdim=True).clamp_min(1)
    squared = cosine_similarity(histograms - middle, mixed, dim=2).square()
    return (squared * seen).sum(1) / seen.sum(1).clamp_min(1)


def _read(folder: str, sample_shape: tuple[int, ...], modality: Modality) -> Data:
    """The normal scans or clouds of a folder of other parts, as the training samples were read."""
    source = "PointClouds" if modality == POINT_CLOUD else "RgbXyz"
    data: Data = find("source", source)(folder, use="patches").load().train
    if data.sample_shape[0] != sample_shape[0]:
        raise InputError(
            f"patches of {folder} have {data.sample_shape[0]} channels, those of training {sample_shape[0]}",
            'read both with use="patches"',
        )
    return data


def _ranked(values: Tensor, seen: Tensor, many: int, share: float) -> Tensor:
    """Places [b, many] of an even choice among the `share` of seen cells [b, cells] that have the highest values."""
    order = values.masked_fill(~seen, -torch.inf).argsort(1, descending=True)
    among = seen.sum(1, keepdim=True).mul(share).long().clamp_min(1)
    many = max(1, min(many, seen.shape[1]))
    return order.gather(1, torch.arange(many, device=seen.device) * among // many)


class PointNet(nn.Module):
    """What is said of a patch [..., points, 3]: the same network for each point, and the largest of what it finds (Qi
    et al., CVPR 2017)."""

    spread: Tensor

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.register_buffer("spread", torch.tensor([_ALONG, _ALONG, _OFF]), persistent=False)
        first, second = _POINTWISE
        self.each = nn.Sequential(nn.Linear(3, first), nn.ReLU(), nn.Linear(first, second), nn.ReLU())
        self.all = nn.Sequential(nn.Linear(second, _WIDTH), nn.ReLU(), nn.Linear(_WIDTH, outputs))

    def forward(self, patches: Tensor) -> Tensor:
        """[..., outputs]."""
        flat = patches.flatten(0, -3) / self.spread
        found = [self.all(self.each(block).amax(1)) for block in flat.split(_BLOCK)]
        return torch.cat(found).unflatten(0, patches.shape[:-2])

"""Local scores: a sample is compared with the most similar training samples, so that rare kinds are not outvoted.

One threshold for all kinds is fair only if their scores are on one scale. They are not: a detector rebuilds a rare kind
worse, and the samples of a sparse kind lie farther apart. Local scores wrap a fitted detector and need no labels of the
kinds. The idea is local density-based score normalisation (Wilkinghoff et al. 2025, arXiv 2509.10951); docs/theory.md
says how ours differs. We chose the rule on development draws; LOG.md has the figures, also of what we left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated

import torch
from torch import Tensor, nn

from ..core import inference
from ..core.bounds import Bounds, Count
from ..core.data import Batch, Data
from ..core.detector import Around, Detector, Peaked, Reading
from ..core.modality import Modality
from ..core.registry import Value, parse_one, register
from ..errors import InputError
from ..numerics import export_ops, left_out
from ..numerics import neighbours as numerics_neighbours
from ..numerics.neighbours import beyond
from ..weights.steps import Importance

# A random part of a larger training set is searched: kinds that matter have more than one sample in it.
_MOST_SAMPLES = 20_000
_MOST_AXES = 512
# Above this many numbers axes come from the products of samples, where these are fewer.
_WIDE = 2_048
# As a share of the largest variance.
_NO_VARIANCE = 1e-9
# Share of the mean variance added to each axis before whitening, so that empty axes do not drown the others.
_SHRINKAGE = 0.05
# What the cues look at, in their order.
CUES = (
    "the detector's score",
    "distance to neighbours",
    "distance to the flat through neighbours",
    "distance to neighbours, whitened",
    "distance relative to the neighbours' own",
)
# Consistent for the standard deviation of a Gaussian.
_MAD_TO_STD = 1.4826
# From so many numbers a sample on, as of pictures and their features: hardly any anomalies lie together, so more of the
# neighbours' level is taken off, and whitened distances tell more than those along the features.
_MANY = 128
_SHARE_OF_FEW, _SHARE_OF_MANY = 0.2, 0.75
# Of so few rows each neighbour counts, and as much of the level is taken off as tells a sample's own (LOG.md).
_FEW_ROWS = 500
# Which of the cues count, by their places: whitening few features drowns the few that tell, and what is divided by each
# neighbour's own distance says of many numbers what the plain distance says, and is fairer to rare kinds (LOG.md).
_CUES_OF_FEW, _CUES_OF_MANY = [0, 1, 2], [0, 2, 3, 4]
# Of maps, whose means over all places say little: whitened, a rare kind lies as far away as a defect (LOG.md).
_CUES_OF_MAPS = [0, 2, 4]
# Where the level around pictures explains so much of the variance of their scores, there are kinds of them: a rare one
# is as far from the rest as most defects are, so distances count what lies beyond this only (LOG.md).
_EXPLAINED, _BEYOND = 1 / 3, 3.0
_WHITENED = 3
# About where thresholds lie. In an image that far out, places count from where the farthest of a usual normal lie
# (LOG.md has the figures of other numbers).
_PLACES_COUNT_FROM = 2.0


@register("scores", "LocalScores")
@dataclass(frozen=True, repr=False)
class LocalScores(Value):
    """The mean of standardised cues, each a log quantity of the sample less a share of its mean over neighbours.

    The cues are the detector's score; the distance to the flat through the `neighbours` nearest samples (features
    standardised; as in local hyperplane distances, Vincent & Bengio 2001); and a distance to the samples themselves. Of
    fewer than 128 numbers this is the distance to the `nearest`-th neighbour. Of more it is twofold: that distance
    among whitened samples, and the distances to the nearest, each divided by what is usual around that neighbour, of
    which the second smallest counts: one hidden anomaly among the samples excuses nobody. Of the means of maps the
    whitened distance is left out: it does not tell a rare kind from a defect. Where neighbours explain a third of the
    variance of the detector's scores of maps, these are of kinds, and the other distances count where they are far out
    alone. Each cue is centred and scaled by median and median absolute deviation over the training samples, each as if
    it had not been learnt, so the result is about 0 for a usual normal of any kind and 3 is far out.

    After local density-based score normalisation (Wilkinghoff et al. 2025, arXiv 2509.10951), which divides a
    nearest-neighbour distance by the mean of the reference sample's own nearest-neighbour distances, or subtracts it.
    Here several cues are normalised, the detector's score among them, and medians put them on one scale.

    Args:
        neighbours: how many training samples a score is compared with.
        nearest: which neighbour's distance is used, and how many such distances it is compared with.
        share: how much of the neighbours' level is taken off: 0 compares with all samples alike, 1 with the neighbours
            alone. None takes 0.2 of samples of fewer than 128 numbers, and 0.75 of others; of at most 500 rows of as
            many numbers it takes 0.75 to 1, by how well neighbours tell a sample's own level.
    """

    neighbours: Count = 20
    nearest: Count = 5
    share: Annotated[float, Bounds(at_least=0, at_most=1)] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.nearest > self.neighbours:
            raise InputError(f"LocalScores needs nearest <= neighbours: got {self.nearest} and {self.neighbours}")

    def share_of(self, numbers: int) -> float:
        """How much of the neighbours' level is taken off scores of samples of so many numbers."""
        if self.share is not None:
            return self.share
        return _SHARE_OF_MANY if numbers >= _MANY else _SHARE_OF_FEW

    def fit(
        self, detector: Detector, data: Data, seed: int = 0, base: Tensor | None = None, raw: Tensor | None = None
    ) -> LocallyScored:
        """Look at the training samples with a detector that is fitted on them.

        Args:
            base: [n] base weights of the training; what has the weight 0 is nobody's neighbour.
            raw: [n] the detector's `score_left_out` of the samples, where that is known.

        Raises:
            InputError: fewer than 2 samples.
        """
        order = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed))
        trained = torch.ones(len(data), dtype=torch.bool) if base is None else base[order] > 0
        if int(trained.sum()) < 2:
            raise InputError(f"at least 2 training samples are needed to compare with: got {int(trained.sum())}")
        kept, beyond = (part.sort().values for part in order[trained].tensor_split([_MOST_SAMPLES]))
        absent = order[~trained].sort().values
        scored = LocallyScored(self, detector)
        scored.training_scores = torch.empty(len(data))
        scored.training_scores[kept] = scored.learn(data.take(kept), None if raw is None else raw[kept])
        if len(beyond):
            part = data.take(beyond)
            own = inference.over_batches(detector, part, detector.score_left_out) if raw is None else raw[beyond]
            scored.training_scores[beyond] = scored.local(part, own)
        if len(absent):
            scored.training_scores[absent] = inference.score(scored, data.take(absent))
        return scored


# What serves pixels and features, autoencoders and Deep SVDD alike.
AUTO = LocalScores()
# Kinds of pictures may have ten of them, and what is beyond these is of other kinds (LOG.md).
OF_MAPS = LocalScores(neighbours=10, share=0.85)


def parse(text: str) -> LocalScores | None:
    """The local scores that print as `text`; "own" is none of them and "auto" the library's default."""
    if text.strip() == "own":
        return None
    return AUTO if text.strip() == "auto" else parse_one(text, "scores")


def choose(text: str, modality: Modality, detector: Detector) -> LocalScores | None:
    """The local scores of this spelling for such samples: "auto" asks modality and detector, and leaves spectra, most
    feature maps, and what a detector says of a sample's surroundings as they are."""
    if text.strip() != "auto":
        return parse(text)
    if modality.spatial and detector.local_weight > 0:
        return OF_MAPS
    return AUTO if modality.local_scores and not detector.looks_around else None


def wrapped(detector: Detector, text: str) -> Detector:
    """An unfitted detector in the local scores of this spelling, to be restored; "own" gives the detector itself."""
    rule = parse(text)
    return detector if rule is None else LocallyScored(rule, detector)


class LocallyScored(Around):
    """A fitted detector whose scores are local.

    `training_scores` [n] are of the samples that it was fitted on; a restored one has none.
    """

    training_scores: Tensor
    scores: Tensor
    cues: Tensor
    share: Tensor
    of_kinds: Tensor
    middle: Tensor
    spread: Tensor

    def __init__(self, rule: LocalScores, detector: Detector) -> None:
        super().__init__(detector)
        self.rule = rule
        self.memory = Memory(rule)
        self._floor: float | None = None
        self._usual = (0.0, 1.0)  # middle and spread of the detector's own scores, on the scale they are compared on
        self._share = 0.0
        self._of_kinds = False
        self.register_buffer("raw", torch.zeros(1))  # [m], the detector's own scores of the training samples
        self.register_buffer("scores", torch.zeros(1), persistent=False)  # [m], on the scale they are compared on
        self.register_buffer(
            "cues", torch.zeros(len(CUES), 1)
        )  # [5, m], of each training sample as if it had not been learnt
        self.register_buffer("share", torch.zeros(()))  # of the neighbours' level, which is taken off
        # Whether the samples are maps of several kinds.
        self.register_buffer("of_kinds", torch.zeros((), dtype=torch.bool))
        self.register_buffer("middle", torch.zeros(len(CUES)))
        self.register_buffer("spread", torch.ones(len(CUES)))

    @torch.no_grad()
    def learn(self, data: Data, raw: Tensor | None = None) -> Tensor:
        """Remember these training samples, of which the detector says `raw` [n] as `score_left_out`, and how their
        cues are distributed; their scores."""
        self.sample_shape, self.modality = data.sample_shape, data.modality
        samples = torch.cat(
            [self._flat(batch) for batch in data.batches(inference.batch_size_for(data.sample_shape, 1_024))]
        )
        self.raw = inference.over_batches(self.detector, data, self.detector.score_left_out) if raw is None else raw
        self._compare_with(self.raw)
        standardise = self.modality.small.units_differ
        self.memory.whitens = _WHITENED in self._heard(samples.shape[1])
        near, local = self.memory.learn(samples, standardise)
        fold = left_out.folds_of(*samples.shape)
        if fold is None:
            parts = _Parts.of(self.scores, self.scores[near], local)
        else:
            parts = self._left_out(samples, fold, standardise)
        self._share = self._share_for(parts, *samples.shape)
        self.share = self.raw.new_tensor(self._share)
        self._of_kinds = self.detector.local_weight > 0 and parts.explained() >= _EXPLAINED
        self.of_kinds = torch.tensor(self._of_kinds)
        cues = parts.cues(self._share)
        self.cues = cues.to(self.raw)
        middle, spread = middle_and_spread(cues)
        self.middle, self.spread = middle.to(self.raw), spread.to(self.raw)
        scores = self._mean(self._standard(cues)).to(self.raw)
        inference.place(self, str(inference.device_of(self.detector)))
        return scores

    def local(self, data: Data, own: Tensor) -> Tensor:
        """Local scores [n] of samples with such scores [n] of the wrapped detector."""
        return inference.over_batches(self, data, lambda batch: self._local(batch, own[batch.index.cpu()]))

    def score(self, batch: Batch) -> Tensor:
        return self.read(batch).score

    def read(self, batch: Batch, score: bool = True, map: bool = False, embedding: bool = False) -> Reading:
        """The wrapped detector's places and map, on its own scale. Where the detector knows its peaks, a map reaches no
        farther than the sample's local score says: a sample that is far from all others of its kind has places that are
        flagged, and what is usual for a rare kind has none."""
        held = map and isinstance(self.detector, Peaked)
        read = self.detector.read(batch, score or held, map, embedding)
        if not (score or held):
            return read
        local = self._local(batch, read.score)
        if held:
            highest = self._peak(local).to(read.map)
            read = replace(read, map=torch.minimum(read.map, highest.reshape(-1, *[1] * (read.map.ndim - 1))))
        return replace(read, score=local if score else read.score[:0])

    def _peak(self, local: Tensor) -> Tensor:
        """The highest place [sample] that a map has by these local scores."""
        assert isinstance(self.detector, Peaked)
        middle, spread = self._usual
        own = middle + spread * (local - _PLACES_COUNT_FROM)
        return self.detector.peak_at(own if self._floor is None else own.exp())

    def named_cues(self, batch: Batch) -> dict[str, Tensor]:
        """Each of `CUES` that has a say, standardised, as far as it counts, times its share of the say; the score is
        their mean."""
        cues = self._counted(self._of(batch, self.detector.score(batch)))
        shares = self._say / self._say.mean()
        return {
            CUES[place]: share * cues[place] for place, share in zip(self._with_a_say, shares.tolist(), strict=True)
        }

    def _local(self, batch: Batch, own: Tensor) -> Tensor:
        return self._mean(self._of(batch, own)).to(self.scores)

    def _of(self, batch: Batch, scores: Tensor) -> Tensor:
        """[5, sample]: cues of samples with these scores of the wrapped detector."""
        near, local, own = self.memory(self._flat(batch).to(self.scores))
        cues = _Parts.of(self._scaled(scores.to(self.scores)), self.scores[near], local).cues(self._share)
        return self._standard(torch.where(own < 0, cues, self.cues[:, own].to(cues)))

    def _left_out(self, samples: Tensor, fold: Tensor, standardise: bool) -> _Parts:
        """Of training samples by memories of the others, those of their fold [m] left out."""
        found: list[_Parts] = []
        fold = fold.to(samples.device)
        for each in range(int(fold.max()) + 1):
            memory = Memory(self.rule, self.memory.whitens).to(samples.device)
            others = self.scores[fold != each]
            placed, numbers = samples, samples.shape[1]
            if wide := numbers > _WIDE and numbers > 2 * len(samples):
                mean, scale = _middle_and_scale(samples[fold != each], standardise)
                placed = _coordinates((samples - mean) / scale)
            memory.learn(placed[fold != each], standardise and not wide, numbers)
            near, local, _ = memory(placed[fold == each])
            found.append(_Parts.of(self.scores[fold == each], others[near], local))
        order = fold.argsort(stable=True).argsort()
        joined = (torch.cat([getattr(each, name) for each in found], -1) for name in ("values", "levels", "relative"))
        return _Parts(*(part[..., order] for part in joined))

    def _share_for(self, parts: _Parts, samples: int, numbers: int) -> float:
        """How much of the neighbours' level is taken off."""
        share = self.rule.share_of(numbers)
        rows = self.modality.local_scores and not self.modality.spatial
        if self.rule.share is not None or numbers < _MANY or samples > _FEW_ROWS or not rows:
            return _rounded(share)
        return _rounded(max(share, float(parts.slopes().mean())))

    def count_as(self, other: LocallyScored, wholly: bool = False) -> None:
        """Standardise the detector's own score by the middle and spread of another's from now on.

        Of few samples with many features, what a detector has learnt scores far below what it has not, and by how much
        differs between trainings. Distances are those of samples left out: each memory has its own scale for them.
        `wholly` takes the other's for these too: the distances between copies of a thing tell none of new things, and
        differ as much between memories. What samples are of is the other's to say too.
        """
        self._of_kinds, self.of_kinds = other._of_kinds, other.of_kinds.to(self.raw.device)
        cues = len(CUES) if wholly else 1
        self.middle = torch.cat([other.middle[:cues].to(self.middle), self.middle[cues:]])
        self.spread = torch.cat([other.spread[:cues].to(self.spread), self.spread[cues:]])

    def restore(
        self, sample_shape: tuple[int, ...], state: Mapping[str, Tensor], modality: Modality | None = None
    ) -> None:
        # Runs of before this was told have not looked.
        super().restore(sample_shape, {"of_kinds": self.of_kinds, **state}, modality)
        self._share = _rounded(float(self.share))
        self._of_kinds = bool(self.of_kinds)
        self._compare_with(self.raw)
        self.memory.whitens = _WHITENED in self._with_a_say
        self.memory.project()

    def _flat(self, batch: Batch) -> Tensor:
        return self.modality.shrunk(batch.samples).flatten(1)

    def _compare_with(self, raw: Tensor) -> None:
        self._floor = Importance().floor(raw)
        self.scores = self._scaled(raw).to(raw)
        middle, spread = middle_and_spread(self.scores[None])
        self._usual = (float(middle), float(spread))

    def _scaled(self, scores: Tensor) -> Tensor:
        """On a logarithmic scale where no training score is negative."""
        precise = scores.to(export_ops.precise(scores.device))
        return precise if self._floor is None else precise.clamp_min(self._floor).log()

    def _standard(self, cues: Tensor) -> Tensor:
        return (cues - self.middle[:, None]) / self.spread[:, None]

    @property
    def _with_a_say(self) -> list[int]:
        return self._heard(self.memory.samples.shape[1])

    def _heard(self, numbers: int) -> list[int]:
        """Places of the cues that count for samples of so many numbers."""
        if self.detector.local_weight > 0:
            return _CUES_OF_MAPS
        return _CUES_OF_MANY if numbers >= _MANY else _CUES_OF_FEW

    @property
    def _say(self) -> Tensor:
        """How much each of these counts: all alike, but where distances see little of what the detector sees."""
        return torch.tensor([max(1, self.detector.local_weight)] + [1] * (len(self._with_a_say) - 1)).double()

    def _mean(self, standard: Tensor) -> Tensor:
        say = (self._say / self._say.sum()).to(standard)
        return (say[:, None] * self._counted(standard)[self._with_a_say]).sum(0)

    def _counted(self, standard: Tensor) -> Tensor:
        """Of standardised cues [5, n] what counts."""
        if not self._of_kinds:
            return standard
        return torch.cat([standard[:1], (standard[1:] - _BEYOND).clamp_min(0)])


@dataclass(frozen=True)
class _Parts:
    """What cues are made of.

    Attributes:
        values: [4, n], the detector's score and the three distances of `Surroundings`, logarithmic.
        levels: [4, n], the mean of each over the neighbours.
        relative: [n], the second smallest of the distances to the neighbours less these neighbours' levels.
    """

    values: Tensor
    levels: Tensor
    relative: Tensor

    @classmethod
    def of(cls, scores: Tensor, of_neighbours: Tensor, local: tuple[Tensor, Tensor, Tensor]) -> _Parts:
        """Scores [n] with their neighbours' [n, many], and what a `Memory` says of the same samples."""
        reach, usual, relative = local
        levels = torch.cat([of_neighbours.to(usual).mean(1)[None], usual])
        return cls(torch.cat([scores.to(reach)[None], reach]), levels, relative)

    def cues(self, share: float) -> Tensor:
        """[5, n]: values less a share of the levels, and what is relative already."""
        return torch.cat([self.values - share * self.levels, self.relative[None].to(self.values)])

    def explained(self) -> float:
        """The share of the variance of the detector's scores that the level around the samples explains."""
        score, level = (part[0].double() - part[0].double().mean() for part in (self.values, self.levels))
        common = float((score * level).sum())
        return max(0.0, common) ** 2 / max(float(score.square().sum() * level.square().sum()), 1e-24)

    def slopes(self) -> Tensor:
        """By least squares, how much of its neighbours' level is in a sample's own, of each value that has a say: [3].

        The distance along the features has none where there are many.
        """
        values, levels = (part[[0, 2, 3]] for part in (self.values, self.levels))
        off = levels - levels.mean(1, keepdim=True)
        return ((values * off).sum(1) / off.square().sum(1).clamp_min(1e-12)).clamp(0, 1)


@dataclass(frozen=True)
class Surroundings:
    """Where samples [n] lie among the training samples.

    Attributes:
        distances: [3, n], to the few-th neighbour, to the flat through the many nearest samples, and to the few-th
            neighbour among whitened samples.
        near: the neighbours [n, many] that each of the three is compared with.
        nearest: distances [n, many] to the first of them.
        own: which training sample each is itself [n], -1 being none.
    """

    distances: Tensor
    near: list[Tensor]
    nearest: Tensor
    own: Tensor


class Memory(nn.Module):
    """The training samples in two spaces, and how far each lies from its neighbours, which a new sample is held to.

    `reach` is on a logarithmic scale, and of each sample without itself; `level` is the mean of the first of its three
    over a sample and its few neighbours, so that of a lone one it is not its own.

    Args:
        rule: how many neighbours are looked up.
        whitens: whether neighbours are looked up among whitened samples too; otherwise these distances are 0.
    """

    samples: Tensor
    mean: Tensor
    scale: Tensor
    whitening: Tensor
    reach: Tensor
    level: Tensor
    floor: Tensor
    whitened: Tensor

    def __init__(self, rule: LocalScores, whitens: bool = True) -> None:
        super().__init__()
        self.rule = rule
        self.whitens = whitens
        self.register_buffer("samples", torch.zeros(1, 1))  # [m, d], standardised
        self.register_buffer("mean", torch.zeros(1))
        self.register_buffer("scale", torch.ones(1))
        self.register_buffer("whitening", torch.zeros(1, 1))  # [d, many]
        self.register_buffer("reach", torch.zeros(3, 1))  # [distances, m]
        self.register_buffer("level", torch.zeros(1))  # [m]
        self.register_buffer("floor", torch.ones(3))
        # Follows from the above.
        self.register_buffer("whitened", torch.zeros(1, 1), persistent=False)

    def learn(
        self, samples: Tensor, standardise: bool, numbers: int | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
        """Remember samples [m, d]. Of each without itself: its neighbours [m, many], and its local distances."""
        self.remember(samples, standardise, numbers)
        around = self._surroundings((self.samples, self.whitened))
        self._set_floor(around)
        self.reach = self._log(around.distances).to(samples)
        few = self.reach[0][around.near[0][:, : self.rule.nearest]]
        self.level = torch.cat([self.reach[0][:, None], few], 1).mean(1)
        return around.near[0], self._local(around)

    def remember(self, samples: Tensor, standardise: bool, numbers: int | None = None) -> None:
        """Place samples [m, d] in both spaces; they are coordinates of so many numbers, d where that is not said."""
        self.mean, self.scale = _middle_and_scale(samples, standardise)
        self.samples = (samples - self.mean) / self.scale
        values, axes = _principal(self.samples)
        if numbers and numbers > samples.shape[1]:
            # Of the many directions that these samples do not vary in, coordinates hold but those of other samples.
            axes = axes * (values > _NO_VARIANCE * values[0])
        added = _SHRINKAGE * values.sum() / (numbers or samples.shape[1])
        self.whitening = axes / (values + added).clamp_min(1e-12).sqrt()
        self.project()

    def _set_floor(self, around: Surroundings) -> None:
        # A duplicate's distance of zero has no logarithm: a hundredth of the usual one stands in for less than that.
        self.floor = (0.01 * around.distances.median(1).values).clamp_min(1e-12).to(self.samples)

    def forward(self, samples: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor], Tensor]:
        """For samples [n, d] their neighbours among the training samples [n, many], their local distances, and which
        training sample each is itself [n], -1 being none."""
        around = self._surroundings(self.spaces_of(samples))
        return around.near[0], self._local(around), around.own

    def reach_within(self, index: Tensor) -> Tensor:
        """What `reach` is [3, k] of the remembered samples at `index` [k], whose usual distances are those of all."""
        around = self._surroundings((self.samples[index], self.whitened[index]))
        self._set_floor(around)
        return self._log(around.distances).to(self.samples)

    def reach_of(self, spaces: tuple[Tensor, Tensor]) -> Tensor:
        """What `reach` is of the training samples, of samples in these spaces: [3, n]."""
        return self._log(self._surroundings(spaces).distances)

    def project(self) -> None:
        """Put the training samples into the other space."""
        self.whitened = self._whiten(self.samples)

    def spaces_of(self, samples: Tensor) -> tuple[Tensor, Tensor]:
        """Samples [n, d] standardised, and whitened."""
        standard = (samples - self.mean) / self.scale
        return standard, self._whiten(standard)

    def _whiten(self, standard: Tensor) -> Tensor:
        # In double precision, so that no other way of adding up gives other distances, however alike they all are.
        precise = standard.to(export_ops.precise(standard.device))
        return (precise @ self.whitening.to(precise)).to(standard)

    def _surroundings(self, asked: tuple[Tensor, Tensor]) -> Surroundings:
        """Where samples in these spaces lie. None is its own neighbour, so a training sample scores the same whenever
        it is scored."""
        many = min(self.rule.neighbours, len(self.samples) - 1)
        few = min(self.rule.nearest, many)
        rows: list[Tensor] = []
        near: list[Tensor] = []
        own = nearest = torch.zeros(0)
        for points, known, k in zip(asked, (self.samples, self.whitened), (many, few), strict=True):
            distances, indices = numerics_neighbours.nearest(points, known, k + 1, centred=True)
            if not near:
                same = numerics_neighbours.coinciding(distances, points)[:, 0]
                own = torch.where(same, indices[:, 0], -1)
            distances, indices = numerics_neighbours.without_self(distances, indices, own)
            nearest = distances if not near else nearest
            rows.append(distances[:, few - 1])
            near.append(indices)
            if not self.whitens:
                rows.append(torch.zeros_like(rows[0]))
                near.append(indices[:, :few])
                break
        flat = beyond(asked[0], self.samples, near[0])
        return Surroundings(torch.stack([rows[0], flat, rows[1]]), [near[0], near[0], near[1]], nearest, own)

    def _log(self, distances: Tensor) -> Tensor:
        return torch.maximum(distances, self.floor[:, None]).log()

    def _local(self, around: Surroundings) -> tuple[Tensor, Tensor, Tensor]:
        """Log distances [3, n], the mean [3, n] of the nearest samples' own, and the second smallest [n] of the
        distances to the nearest less those samples' levels."""
        reach, few = self._log(around.distances), around.near[-1].shape[1]
        of_each = zip(self.reach.to(reach), around.near, strict=True)
        usual = [own[of[:, :few]].mean(1) for own, of in of_each]
        by_level = torch.maximum(around.nearest, self.floor[0]).log().to(reach) - self.level[around.near[0]].to(reach)
        second = by_level.topk(min(2, by_level.shape[1]), dim=1, largest=False).values[:, -1]
        return reach, torch.stack(usual), second


def _rounded(share: float) -> float:
    """A share as it is again after it was kept in single precision."""
    return round(share, 3)


def robust_deviations(values: Tensor) -> Tensor:
    """Rows [k, n] as deviations from their medians, in robust standard deviations."""
    middle, spread = middle_and_spread(values)
    return (values - middle[:, None]) / spread[:, None]


def middle_and_spread(values: Tensor) -> tuple[Tensor, Tensor]:
    """Medians [k] of rows [k, n], and their median absolute deviations on the scale of a standard deviation."""
    middle = values.median(1).values
    spread = _MAD_TO_STD * (values - middle[:, None]).abs().median(1).values
    return middle, torch.where(spread > 0, spread, values.std(1, correction=0).clamp_min(1e-12))


def _middle_and_scale(samples: Tensor, standardise: bool) -> tuple[Tensor, Tensor]:
    """Means [d] of samples [m, d] and what their numbers are divided by [d]."""
    std = samples.std(0, correction=0)
    # Features differ in their units of measure; pixels and bands do not.
    useful = (std > 1e-6 * std.max().clamp_min(1e-30)) & standardise
    return samples.mean(0), torch.where(useful, std, 1.0)


def _coordinates(samples: Tensor) -> Tensor:
    """Samples [m, d] as [m, m], as far from each other and from flats through each other as they are, for fewer numbers
    take less time."""
    values, axes = torch.linalg.eigh(numerics_neighbours.products(samples, samples))
    return (axes * values.clamp_min(0).sqrt()).to(samples)


def _principal(standard: Tensor) -> tuple[Tensor, Tensor]:
    """Variances [k], falling, and axes [d, k] of the leading principal components."""
    part = standard[:: max(1, len(standard) // 5_000)]
    some = standard.shape[1] > 2 * _MOST_AXES
    kept = min(_MOST_AXES if some else min(part.shape), *part.shape)
    if part.shape[1] > _WIDE and part.shape[1] > 2 * len(part):
        # Of fewer wide samples the products among them say the same, in a tenth of the time.
        values, among = torch.linalg.eigh(numerics_neighbours.products(part, part))
        values, among = values.flip(0)[:kept].clamp_min(0), among.flip(1)[:, :kept]
        axes = part.T @ (among * values.clamp_min(1e-12 * float(values.max())).rsqrt()).to(part)
        return values.to(part) / len(part), axes
    if some:
        # The decomposition of all axes would take three times as long.
        axes = numerics_neighbours.leading_axes(part, kept)
        return (part @ axes).square().mean(0), axes
    _, singular, axes = torch.linalg.svd(part, full_matrices=False)
    return singular[:kept].square() / len(part), axes[:kept].T

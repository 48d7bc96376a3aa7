"""TUNE: fewer false alarms on kinds of normal nodes that a graph classifier has never seen.

After Pan et al. (AAAI 2026, arXiv 2511.07023), from its abstract and notes of readers; docs/methods/tune.md says what
is ours and what was put right.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import scipy
import torch
from torch import Tensor, nn

from ...core.bounds import Bounds, Count, CountFromZero, NotNegative, Share
from ...core.context import Graph
from ...core.data import Batch, graph_of
from ...core.detector import Around, Detector, PassesMessages
from ...core.registry import Value, register
from ...core.seeding import seeded
from ...errors import InputError
from ...numerics import metrics
from ..adapt import Adapted, Asked

# The share of nodes that is confidently normal in either branch, the second among those of the first.
_CONFIDENT = 0.7
_WIDTH, _RATE = 64, 1e-3
_MOST_EPOCHS = 20
_PUBLISHED_EPOCHS, _PUBLISHED_ALONE = 200, 0.5
# The veto: by how much nodes alone may tell the run's own labelled anomalies worse (AUROC), how well the ranking of
# confident nodes has to survive, and what the others have to score less in the mean.
_MOST_LOST, _LEAST_RANK, _LEAST_FALL = 0.03, 0.95, 0.0
# The aligner stops before the ranking of confident nodes falls below this.
_RANK_HELD = 0.99
_TINY = 1e-10


@register("adaptation", "TUNE")
@dataclass(frozen=True, repr=False)
class TUNE(Value):
    """An aligner of attributes and an estimator of clean neighbourhoods around a frozen graph classifier.

    The aligner moves attributes until what the network makes of a node with its neighbours is what the estimator makes
    of the node alone; the score is a mean of both readings. Confidently normal nodes stay where they are. Held-out
    nodes have no say and stay neighbours.

    Args:
        mode: "stable", which starts from no change, is warmed up, and stops early; or "published", the loop as others
            describe it, which is for comparison: it has no veto, and on real graphs it cost up to .43 AUROC.
        epochs: at most so many; None is 20 in stable mode and 200 in published.
        most_moved: stop before attributes have moved by this share of their size; of no say in published mode.
        alone: how much the reading of nodes alone counts in the score; half in published mode.
        warm_up: steps of the estimator before the aligner moves; none in published mode.
        kept_near: how strongly attributes are kept where they are.
    """

    mode: Literal["stable", "published"] = "stable"
    epochs: Count | None = None
    most_moved: Annotated[float, Bounds(above=0, at_most=1)] = 0.1
    alone: Share = 0.25
    warm_up: CountFromZero = 0
    kept_near: NotNegative = 0.0

    def adapt(self, asked: Asked) -> Adapted:
        detector = _classifier(asked.detector)
        if detector is None:
            raise InputError(
                f"TUNE cannot adapt {asked.name}: it is for detectors that classify the nodes of a graph",
                "use another --method; graph-classifier can be adapted",
            )
        stable = self.mode == "stable"
        if stable and (vetoed := _not_told_alone(asked, detector)):
            return vetoed
        with seeded(int(torch.randint(1 << 31, (1,), generator=asked.generator))):
            tuned = Tuned.around(asked.detector, stable, self._alone)
        batch = asked.target.batch(torch.arange(len(asked.target)))
        graph = graph_of(batch, "TUNE")
        frozen = [parameter for parameter in asked.detector.parameters() if parameter.requires_grad]
        for parameter in frozen:
            parameter.requires_grad_(False)
        try:
            moved, epochs, confident = self._learn(tuned, graph)
        finally:
            for parameter in frozen:
                parameter.requires_grad_(True)
        after = tuned.score(batch).double().numpy()
        figures = {"moved": moved, "epochs": float(epochs), "confident": float(confident.sum())}
        return self._judged(asked, tuned, after, confident.numpy(), figures)

    def wrap(self, detector: Detector) -> Detector:
        return Tuned(detector, self._alone)

    @property
    def _alone(self) -> float:
        return self.alone if self.mode == "stable" else _PUBLISHED_ALONE

    def _learn(self, tuned: Tuned, graph: Graph) -> tuple[float, int, Tensor]:
        """How far attributes moved, after how many epochs, and which of the nodes asked for [n] are confidently normal.

        The aligner's and the estimator's steps alternate."""
        stable, network, asked = self.mode == "stable", tuned.network, graph.asked
        x = network.attributes(graph.nodes)
        with torch.no_grad():
            beside, alone = network.logit(network.placed(x, graph)), network.logit(network.placed_alone(x))
        limits = _confident_below(alone[asked], beside[asked])
        confident = (alone[asked] <= limits[0]) & (beside[asked] <= limits[1])
        if stable:
            tuned.limits = limits
        chosen = asked[confident]
        estimator = torch.optim.Adam(tuned.estimator.parameters(), lr=_RATE)
        aligner = torch.optim.Adam(tuned.aligner.parameters(), lr=_RATE)
        unsure = tuned.unsure(alone, beside)

        def estimate() -> None:
            with torch.no_grad():
                there = tuned.moved(x, unsure)
                clean, alone = network.placed(there, graph)[chosen], network.placed_alone(there)[chosen]
            _step(estimator, divergence(tuned.estimator(alone), clean))

        def loss() -> Tensor:
            there = tuned.moved(x, unsure)
            with torch.no_grad():
                clean = tuned.estimator(network.placed_alone(there))[asked]
            placed = network.placed(there, graph)[asked]
            if not stable:
                return divergence(placed, clean)
            higher = nn.functional.softplus(network.logit(placed) - network.logit(clean)).mean()
            return higher + self.kept_near * (there - x).square().sum() / len(x)

        for _ in range(self.warm_up if stable else 0):
            estimate()
        moved, epochs = 0.0, 0
        for _ in range(self.epochs or (_MOST_EPOCHS if stable else _PUBLISHED_EPOCHS)):
            estimate()
            before = [parameter.detach().clone() for parameter in tuned.aligner.parameters()]
            _step(aligner, loss())
            with torch.no_grad():
                there = tuned.moved(x, unsure)
                now = float((there - x).norm() / x.norm().clamp_min(_TINY))
                held = _rank_kept(beside[chosen], network.logit(network.placed(there, graph))[chosen])
                if stable and (now > self.most_moved or held < _RANK_HELD):
                    for parameter, value in zip(tuned.aligner.parameters(), before, strict=True):
                        parameter.copy_(value)
                    break
                moved, epochs = now, epochs + 1
        return moved, epochs, confident

    def _judged(
        self, asked: Asked, tuned: Tuned, after: np.ndarray, confident: np.ndarray, figures: dict[str, float]
    ) -> Adapted:
        """What was learnt, unless confident nodes are ranked otherwise by it, or the others do not score lower."""
        before = asked.scores
        kept = _rank_kept(torch.from_numpy(before[confident]), torch.from_numpy(after[confident]))
        rest = ~confident
        fell = float(_chance(before[rest]).mean() - _chance(after[rest]).mean()) if rest.any() else 0.0
        figures |= {"rank_kept": kept, "others_fell": fell}
        said = (
            f"the ranking of {int(confident.sum())} confident nodes is kept at {kept:.3f} (Spearman), and the others "
            f"score {abs(fell):.4f} {'lower' if fell > 0 else 'higher'} in the mean"
        )
        if self.mode == "published" or (kept >= _LEAST_RANK and fell > _LEAST_FALL):
            return Adapted(tuned, True, said, figures)
        return Adapted(asked.detector, False, f"no gain: {said} ({_LEAST_RANK:g} and lower are needed)", figures)


class Tuned(Around):
    """A frozen graph classifier behind an aligner, beside an estimator."""

    limits: Tensor

    def __init__(self, detector: Detector, alone: float) -> None:
        super().__init__(detector)
        self.alone = alone
        self.needs_context = Graph

    @classmethod
    def around(cls, detector: Detector, stable: bool, alone: float) -> Tuned:
        """Around a fitted detector; from no change at all in stable mode."""
        made = cls(detector, alone)
        made.sample_shape, made.modality = detector.sample_shape, detector.modality
        made._make(stable)
        return made.eval()

    def build(self, sample_shape: tuple[int, ...]) -> None:
        super().build(sample_shape)
        self._make(True)

    def _make(self, stable: bool) -> None:
        width = self.sample_shape[0]
        hidden = self.network.placed_alone(torch.zeros(1, width)).shape[1]
        self.aligner = nn.Sequential(
            nn.Linear(width, _WIDTH), nn.ReLU(), nn.Linear(_WIDTH, _WIDTH), nn.ReLU(), nn.Linear(_WIDTH, width)
        )
        self.estimator = nn.Linear(hidden, hidden)
        # Below both its logits, alone and with neighbours, a node is confidently normal, and stays where it is.
        self.register_buffer("limits", torch.full((2,), -torch.inf))
        if stable:
            with torch.no_grad():
                for parameter in (*self.aligner[-1].parameters(), self.estimator.bias):
                    parameter.zero_()
                self.estimator.weight.copy_(torch.eye(hidden))

    @property
    def network(self) -> PassesMessages:
        found = _classifier(self.detector)
        assert found is not None
        return found

    def unsure(self, alone: Tensor, beside: Tensor) -> Tensor:
        """Which nodes [N] of these logits are not confidently normal."""
        return (alone > self.limits[0]) | (beside > self.limits[1])

    def moved(self, attributes: Tensor, unsure: Tensor) -> Tensor:
        """Attributes [N, d] where the aligner moves those of nodes that are unsure [N]."""
        return attributes + unsure[:, None] * self.aligner(attributes)

    def aligned(self, graph: Graph) -> Tensor:
        """Attributes [N, d] of all nodes, as the network is to read them."""
        network, x = self.network, self.network.attributes(graph.nodes)
        logits = (network.logit(placed) for placed in (network.placed_alone(x), network.placed(x, graph)))
        return self.moved(x, self.unsure(*logits))

    def score(self, batch: Batch) -> Tensor:
        """The logit of the weighted mean of both branches' chances [sample]."""
        graph = graph_of(batch, "TUNE")
        with torch.no_grad():
            there = self.aligned(graph)
            branches = self.network.placed(there, graph), self.estimator(self.network.placed_alone(there))
            beside, alone = map(self.network.logit, branches)
            return combined(beside, alone, self.alone)[graph.asked].to(batch.samples)

    def embed(self, batch: Batch) -> Tensor:
        graph = graph_of(batch, "TUNE")
        with torch.no_grad():
            return self.network.placed(self.aligned(graph), graph)[graph.asked]


def combined(one: Tensor, other: Tensor, share: float = 0.5) -> Tensor:
    """The logit of the mean of two chances, the other's `share` of it, from their logits [n]; none is so sure that it
    has no logit."""
    both = torch.stack([one, other]).double()
    weights = both.new_tensor([1 - share, share]).log()[:, None]
    for_it, against = (torch.logsumexp(nn.functional.logsigmoid(each) + weights, 0) for each in (both, -both))
    return for_it - against


def _classifier(detector: Detector) -> PassesMessages | None:
    """The network of a detector whose scores are its own."""
    return detector if isinstance(detector, PassesMessages) else None


def _not_told_alone(asked: Asked, detector: PassesMessages) -> Adapted | None:
    """The veto before: no adaptation where nodes alone do not tell the run's own labelled anomalies."""
    beside, alone = detector.told_apart()
    # Of a detector that knows neither, what comes after has to tell.
    if not beside - alone > _MOST_LOST:
        return None
    reason = (
        f"nodes alone are no reading to trust: they told the run's own anomalies with an AUROC of {alone:.3f}, "
        f"and {beside:.3f} with their neighbours; at most {_MOST_LOST:g} less is needed"
    )
    return Adapted(asked.detector, False, reason, {"told_beside": beside, "told_alone": alone})


def _confident_below(alone: Tensor, beside: Tensor) -> Tensor:
    """The logits [2] below which nodes [n] are confidently normal: low alone, and then low with their neighbours."""
    first = alone.argsort()[: max(1, math.ceil(_CONFIDENT * len(alone)))]
    second = beside[first].sort().values[: max(1, math.ceil(_CONFIDENT * len(first)))]
    return torch.stack([alone[first].max(), second.max()])


def _rank_kept(before: Tensor, after: Tensor) -> float:
    """Spearman's correlation of two scores [n]; of nodes that all score alike no ranking is kept."""
    return float(np.nan_to_num(metrics.rank_correlation(before.numpy(), after.numpy())))


def divergence(u: Tensor, v: Tensor) -> Tensor:
    """KL(u | v), the mean over rows [n, k] of sigmoids that are made to add up to 1."""
    first, second = (each.sigmoid() / each.sigmoid().sum(1, keepdim=True) for each in (u, v))
    return (first * ((first + _TINY).log() - (second + _TINY).log())).sum(1).mean()


def _step(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()


def _chance(logits: np.ndarray) -> np.ndarray:
    found: np.ndarray = scipy.special.expit(logits)
    return found

"""What looks at all samples at once: which of them train nobody, and which are odd in data that nobody vouches for.

Suspects are training samples far out by what looks at all samples at once, yet close to a few others.

Hidden anomalies of one sort lie together and excuse each other: whatever looks at neighbours finds them usual. What
looks at all samples at once does not. A sample that is far out by both stays, because it excuses nobody. A rare kind of
normal is no suspect as long as the covariance of all samples knows it: of a share p of the samples the distance is at
most sqrt((1 - p) / p) (after Mahalanobis 1936; the masking of outliers, Rousseeuw & van Zomeren 1990), which is what
keeps kinds of a few per cent. We chose both limits on development draws; LOG.md has the figures.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ..core import inference
from ..core.data import Data
from ..errors import InputError
from ..weights.steps import rejection_threshold, usual_deviation
from .local_scores import LocalScores, Memory, middle_and_spread, robust_deviations

# In robust deviations of all samples.
_FAR, _NEAR = 5.0, 3.0
# About two standard deviations of scores lie below; see `triage`.
_HIGH = 3.0
# More than this share are not a few that slipped in.
_MOST = 0.15
_FEWEST = 20
# A lump of anomalies up to this size does not excuse its members.
_LARGE_LUMP = 20
_PART = 20_000
# What is usual is told by so many samples in all, drawn, and by at least so many of a part.
_USUAL, _USUAL_OF_PART = 8_000, 1_000
# Data looks unlabelled where more than this share, and so many, of at most so many samples are odd by so many robust
# deviations of oddness.
_ODD, _MOST_ODD, _FEWEST_ODD, _LOOKED_AT = 5.0, 0.04, 5, 2_000


@torch.no_grad()
def find(data: Data) -> Tensor:
    """Which samples [n] are suspects; none where samples have no local scores, or are fewer than 20.

    A larger set is looked at in random parts of at most 20,000 samples; of more than 8,000 in all, a random 8,000 say
    how far apart samples usually are, at least 1,000 of each part.
    """
    found = torch.zeros(len(data), dtype=torch.bool)
    if not data.modality.local_scores:
        return found
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(0))
    parts = order.tensor_split(-(-len(data) // _PART))
    for part in parts:
        if len(part) >= _FEWEST:
            found[part] = _among(data.take(part), max(_USUAL_OF_PART, _USUAL // len(parts)))
    return found if float(found.float().mean()) <= _MOST else torch.zeros_like(found)


def _among(data: Data, usual: int = _USUAL) -> Tensor:
    """Suspects among all of at most 20,000 samples, `usual` of which say how far apart samples are."""
    memory = _placed(data, LocalScores.nearest)
    suspect = robust_deviations(memory.whitened.norm(dim=1)[None])[0] > _FAR
    far = suspect.nonzero().flatten()
    if len(far):
        drawn = torch.randperm(len(data), generator=torch.Generator().manual_seed(0))[:usual]
        reach = memory.reach_within(torch.cat([drawn, far]))
        middle, spread = (each[:, None] for each in middle_and_spread(reach[:, : len(drawn)]))
        suspect[far] = ((reach[:, len(drawn) :] - middle) / spread).mean(0) < _NEAR
    return suspect


def standing(scores: Tensor) -> Tensor:
    """How many usual deviations each score [n] lies above the median; 0 where all are equal."""
    # Scores of a detector are positive and skewed; those read against a sample's like are neither.
    scores = scores.log() if float(scores.min()) > 0 else scores
    deviation = float(usual_deviation(scores)) / 0.6745
    return (scores - scores.median()) / deviation if deviation > 0 else torch.zeros_like(scores)


def out_of_line(standings: Tensor) -> Tensor:
    """Which of these [n] are far above the rest."""
    return standings > max(rejection_threshold(standings), _HIGH)


class Oddness:
    """How odd a sample is among all of these, where nobody says that they are normal.

    A sample is odd if any of three finds it so: an isolation forest (Liu et al. 2008), the Mahalanobis distance, or the
    distance to the 20th neighbour, each in robust deviations, the latter two on a logarithmic scale. They are joined by
    the logarithm of their summed exponentials. No rare kind is protected here: among unlabelled samples nothing tells
    one from a lump of anomalies. A larger set is looked at in random parts of at most 20,000 samples, of which the
    first scores other samples.

    Args:
        data: the samples [n].
        seed: of the forest, and of the parts.

    Attributes:
        training_scores: [n] float64, of these samples; higher is odder.

    Raises:
        InputError: fewer than 3 samples.

    Examples:
        >>> from tailwise import Data
        >>> rows = torch.randn(200, 3, generator=torch.Generator().manual_seed(0))
        >>> oddness = Oddness(Data(rows, range(200)))
        >>> oddness.score(Data(torch.tensor([[0.0, 0.0, 0.0], [9.0, 9.0, 9.0]]), "ab")).diff().item() > 5
        True
    """

    def __init__(self, data: Data, seed: int = 0) -> None:
        if len(data) < 3:
            raise InputError(f"at least 3 samples are needed to say which is odd: got {len(data)}")
        order = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed))
        self.training_scores = torch.empty(len(data), dtype=torch.float64)
        for number, part in enumerate(order.tensor_split(-(-len(data) // _PART))):
            view = _View(data.take(part), seed)
            self.training_scores[part] = view.training_scores
            if number == 0:
                self._view = view

    def score(self, data: Data) -> Tensor:
        """[m] float64. One of the samples that it looked at scores as it did then, up to rounding."""
        return torch.cat([self._view.score(samples) for samples in _batches_of(data)])


class _View:
    """What looks at all of at most 20,000 samples at once."""

    @torch.no_grad()
    def __init__(self, data: Data, seed: int) -> None:
        from sklearn.ensemble import IsolationForest  # its import takes as long as all else that a fit imports

        memory = _memory_of(data, _LARGE_LUMP)
        self._forest = IsolationForest(random_state=seed % 2**32).fit(memory.samples.numpy())
        odd = self._three(memory.samples, memory.whitened, memory.reach)
        self._middle, self._spread = middle_and_spread(odd)
        self.training_scores = self._joined(odd)
        # In single precision the last digits of a score change with the samples that it is computed beside.
        self._memory = memory.double()

    @torch.no_grad()
    def score(self, samples: Tensor) -> Tensor:
        """[n] of samples [n, d]."""
        spaces = self._memory.spaces_of(samples.double())
        return self._joined(self._three(*spaces, self._memory.reach_of(spaces)))

    def _three(self, standard: Tensor, whitened: Tensor, reach: Tensor) -> Tensor:
        """[3, n]: what the forest, the covariance and the neighbours say of samples in the spaces of the memory."""
        return torch.stack([
            torch.from_numpy(-self._forest.score_samples(standard.numpy())),
            whitened.norm(dim=1).double().clamp_min(1e-12).log(),
            reach[0].double(),
        ])  # fmt: skip

    def _joined(self, odd: Tensor) -> Tensor:
        return ((odd - self._middle[:, None]) / self._spread[:, None]).logsumexp(0)


def count_odd(data: Data, rare: Tensor, seed: int = 0) -> tuple[int, int]:
    """How many of how many samples are odd and in no rare kind, or suspects; looked at are at most 2,000, drawn.

    Args:
        rare: [n] bool, which samples are in a rare kind.
    """
    chosen = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed))[:_LOOKED_AT]
    if len(chosen) < _FEWEST:
        return 0, len(chosen)
    sample = data.take(chosen)
    odd = robust_deviations(Oddness(sample, seed).training_scores[None])[0] > _ODD
    return int(((odd & ~rare[chosen]) | _among(sample)).sum()), len(chosen)


def are_many(odd: int, of: int) -> bool:
    """Whether so many odd samples are more than slip into data that is declared normal."""
    return odd >= _FEWEST_ODD and odd > _MOST_ODD * of


def _memory_of(data: Data, neighbour: int) -> Memory:
    """The samples in spaces where they can be compared, with distances to this neighbour."""
    memory = Memory(LocalScores(nearest=neighbour))
    memory.learn(torch.cat(list(_batches_of(data))), data.modality.small.units_differ)
    return memory


def _placed(data: Data, neighbour: int) -> Memory:
    """The same without the distances."""
    memory = Memory(LocalScores(nearest=neighbour))
    memory.remember(torch.cat(list(_batches_of(data))), data.modality.small.units_differ)
    return memory


def _batches_of(data: Data) -> Iterator[Tensor]:
    """The samples, small and flat, in batches [b, d]."""
    for batch in data.batches(inference.batch_size_for(data.sample_shape, 1_024)):
        yield data.modality.shrunk(batch.samples).flatten(1)

"""What looks at all samples at once: which of them train nobody, and which are odd in data that nobody vouches for.

Suspects are training samples far out by what looks at all samples at once, yet close to a few others.

Hidden anomalies of one sort lie together and excuse each other: whatever looks at neighbours finds them usual. What
looks at all samples at once does not. A sample that is far out by both stays, because it excuses nobody. A rare kind of
normal is no suspect as long as the covariance of all samples knows it: of a share p of the samples the distance is at
most sqrt((1 - p) / p) (after Mahalanobis 1936; the masking of outliers, Rousseeuw & van Zomeren 1990), which is what
keeps kinds of a few per cent. We chose both limits on development draws; LOG.md has the figures.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..core import inference
from ..core.data import Data
from ..errors import InputError
from .local_scores import LocalScores, Memory, robust_deviations

# In robust deviations of all samples.
_FAR, _NEAR = 5.0, 3.0
# More than this share are not a few that slipped in.
_MOST = 0.15
_FEWEST = 20
# A lump of anomalies up to this size does not excuse its members.
_LARGE_LUMP = 20
_PART = 20_000


@torch.no_grad()
def find(data: Data) -> Tensor:
    """Which samples [n] are suspects; none where samples have no local scores, or are fewer than 20.

    A larger set is looked at in random parts of at most 20,000 samples.
    """
    found = torch.zeros(len(data), dtype=torch.bool)
    if not data.modality.local_scores:
        return found
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(0))
    for part in order.tensor_split(-(-len(data) // _PART)):
        if len(part) >= _FEWEST:
            found[part] = _among(data.take(part))
    return found if float(found.float().mean()) <= _MOST else torch.zeros_like(found)


def _among(data: Data) -> Tensor:
    memory = _memory_of(data)
    far = robust_deviations(memory.whitened.norm(dim=1)[None])[0]
    return (far > _FAR) & (robust_deviations(memory.reach).mean(0) < _NEAR)


@torch.no_grad()
def oddness(data: Data, seed: int = 0) -> Tensor:
    """How odd each sample [n] is among all of them (float64), where nobody says that they are normal.

    A sample is odd if any of three finds it so: an isolation forest (Liu et al. 2008), the Mahalanobis distance, or the
    distance to the 20th neighbour, each in robust deviations, the latter two on a logarithmic scale. They are joined by
    the logarithm of their summed exponentials. No rare kind is protected here: among unlabelled samples nothing tells
    one from a lump of anomalies. A larger set is looked at in random parts of at most 20,000 samples.

    Raises:
        InputError: fewer than 3 samples.
    """
    from sklearn.ensemble import IsolationForest  # its import takes as long as all else that a fit imports

    if len(data) < 3:
        raise InputError(f"at least 3 samples are needed to say which is odd: got {len(data)}")
    odd = torch.empty(len(data), dtype=torch.float64)
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed))
    for part in order.tensor_split(-(-len(data) // _PART)):
        memory = _memory_of(data.take(part), _LARGE_LUMP)
        forest = IsolationForest(random_state=seed % 2**32).fit(memory.samples.numpy())
        rows = torch.stack([
            torch.from_numpy(-forest.score_samples(memory.samples.numpy())),
            memory.whitened.norm(dim=1).double().clamp_min(1e-12).log(),
            memory.reach[0].double(),
        ])  # fmt: skip
        odd[part] = robust_deviations(rows).logsumexp(0)
    return odd


def _memory_of(data: Data, neighbour: int = LocalScores.nearest) -> Memory:
    """The samples in spaces where they can be compared, with distances to this neighbour."""
    batches = data.batches(inference.batch_size_for(data.sample_shape, 1_024))
    samples = torch.cat([data.modality.shrunk(batch.samples).flatten(1) for batch in batches])
    memory = Memory(LocalScores(nearest=neighbour))
    memory.learn(samples, data.modality.small.units_differ)
    return memory

"""Losses that keep one number per unit, and the importance-weighted loss as a module for anyone's training loop."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .errors import InputError
from .weights import Context, Importance, Weighting, check_finite, effective_sample_size, weighted_mean


def squared_error(units: Tensor, rebuilt: Tensor) -> Tensor:
    """Mean squared difference over each unit's own axes: [n, ...], [n, ...] -> [n]."""
    # One operation where the formula spelled out is two; small networks feel each.
    return nn.functional.mse_loss(rebuilt, units, reduction="none").flatten(1).mean(1)


def absolute_error(units: Tensor, rebuilt: Tensor) -> Tensor:
    """Mean absolute difference over each unit's own axes: [n, ...], [n, ...] -> [n]."""
    return (units - rebuilt).abs().flatten(1).mean(1)


def spectral_angle(units: Tensor, rebuilt: Tensor) -> Tensor:
    """Angle in radians between two spectra: [n, ...], [n, ...] -> [n]; blind to brightness (Kruse et al. 1993)."""
    cosine = torch.cosine_similarity(units.flatten(1), rebuilt.flatten(1), dim=1)
    # arccos has an infinite slope at 1, which a perfect reconstruction would meet.
    return cosine.clamp(-1 + 1e-6, 1 - 1e-6).arccos()


def distance_to(centre: Tensor, codes: Tensor) -> Tensor:
    """Mean squared distance of codes [n, d] to the centre [d] -> [n]."""
    return (codes - centre).square().mean(1)


def deviation_loss(deviation: Tensor, target: Tensor | float, margin: float) -> Tensor:
    """(1 - t) |dev| + t max(0, margin - dev): deviations [n] in standard deviations of the prior, t [n] in 0..1 -> [n].

    t is 0 for a normal unit, 1 for an anomaly (Pang et al., KDD 2019), and between for soft targets (Das et al. 2025).
    """
    return (1 - target) * deviation.abs() + target * (margin - deviation).clamp_min(0)


def focal_loss(logits: Tensor, truth: Tensor, gamma: float = 2.0) -> Tensor:
    """Mean of (1 - q)^gamma (-ln q), q the probability of the truth: logits and truth (0 or 1) [n, ...] -> [n].

    Easy places count little, so that the many untouched ones do not drown the few that matter (Lin et al. 2017).
    """
    cross_entropy = nn.functional.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    return ((1 - (-cross_entropy).exp()) ** gamma * cross_entropy).flatten(1).mean(1)


def top_mean(maps: Tensor, share: float = 0.1) -> Tensor:
    """Mean of the highest `share` of each map's positions, at least one: [n, ...] -> [n].

    Multiple-instance learning: an image is as anomalous as its most anomalous places.
    """
    flat = maps.flatten(1)
    return flat.topk(max(1, int(share * flat.shape[1])), dim=1).values.mean(1)


class ImportanceWeightedLoss(nn.Module):
    """Reduce a batch's unreduced losses with weights that draw the score distribution towards the target.

        criterion = ImportanceWeightedLoss()
        loss = criterion(losses)            # losses [b], one a unit; scores may be given when they differ
        loss.backward()

    The densities are fitted on the newest scores, kept in a ring buffer that travels with the module's state. Until
    `warmup` scores have been seen every weight is 1: the scores of an untrained network mean nothing.

    Args:
        weighting: a Weighting or its spelling; steps that need a unit's own past cannot be used.
        buffer: how many scores are kept; about one epoch is a good choice.
        warmup: how many scores are seen before weighing begins; None is twice the buffer.
        divide_by: see `weighted_mean`.
    """

    newest: Tensor  # [buffer]
    seen: Tensor  # scalar count

    def __init__(
        self,
        weighting: Weighting | str = Weighting(Importance()),  # noqa: B008 (a frozen value)
        *,
        buffer: int = 4_096,
        warmup: int | None = None,
        divide_by: str = "weight",
    ) -> None:
        super().__init__()
        self.weighting = Weighting.parse(weighting) if isinstance(weighting, str) else weighting
        if self.weighting.needs_past:
            raise InputError(
                "Accumulate needs each unit's own past: a batch carries none", "leave it out, or use tailwise.fit"
            )
        if buffer < 2:
            raise InputError(f"the buffer must hold at least 2 scores: got {buffer}")
        self.warmup = 2 * buffer if warmup is None else warmup
        self.divide_by = divide_by
        self.effective_sample_share = 1.0  # of the newest batch, for logging
        self.register_buffer("newest", torch.zeros(buffer))
        self.register_buffer("seen", torch.zeros((), dtype=torch.long))

    def forward(self, losses: Tensor, scores: Tensor | None = None, embedding: Tensor | None = None) -> Tensor:
        """Losses [b], scores [b] (the losses unless given) and embedding [b, d] -> the weighted mean, a scalar."""
        scores = (losses if scores is None else scores).detach()
        if losses.dim() != 1:
            raise InputError(f"one loss per unit: got {tuple(losses.shape)}", "use reduction='none' and mean the rest")
        if scores.shape != losses.shape:
            raise InputError(f"one score per loss: got {tuple(scores.shape)} for {tuple(losses.shape)}")
        check_finite(scores, "scores")  # one that is not would stay in the memory
        if self.training:
            self._remember(scores)
        w = self._weights(scores, embedding)
        self.effective_sample_share = effective_sample_size(w) / len(w)
        return weighted_mean(losses, w, self.divide_by)

    def _weights(self, scores: Tensor, embedding: Tensor | None) -> Tensor:
        if int(self.seen) < max(self.warmup, 2) or len(scores) < 2:
            return torch.ones_like(scores)
        reference = self.newest[: int(self.seen)].to(scores)
        return self.weighting(Context(scores, reference, None if embedding is None else embedding.detach()))

    def _remember(self, scores: Tensor) -> None:
        place = (self.seen + torch.arange(len(scores), device=self.seen.device)) % len(self.newest)
        # Within a batch longer than the buffer only the newest scores stay.
        keep = slice(max(0, len(scores) - len(self.newest)), None)
        self.newest[place[keep]] = scores[keep].to(self.newest)
        self.seen += len(scores)

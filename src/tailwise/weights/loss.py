"""The importance-weighted loss as a module for anyone's training loop."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..core import messages
from ..core.validation import check_finite
from ..errors import InputError
from .default import parse_weighting
from .steps import Importance
from .weighting import Context, Weighting, effective_sample_size, weighted_mean

# A small set of samples is seen often before a buffer is full twice, and would not be weighed until training ends.
_USUAL_WARMUP = 1_024


class ImportanceWeightedLoss(nn.Module):
    """Reduce a batch's unreduced losses with weights that draw the score distribution towards the target.

    The densities are fitted on the newest scores, kept in a ring buffer that travels with the module's state. Until
    `warmup` scores have been seen every weight is 1: the scores of an untrained network mean nothing. A note
    says so at the first batch.

    Args:
        weighting: a Weighting or its spelling; steps that need a sample's own past cannot be used.
        buffer: how many scores are kept; about one epoch is a good choice.
        warmup: how many scores are seen before weighing begins; None is twice the buffer, at most 1,024.
        divide_by: see `weighted_mean`.

    Examples:
        >>> criterion = ImportanceWeightedLoss(buffer=4, warmup=8)
        >>> model = torch.nn.Linear(3, 3)
        >>> for _ in range(3):
        ...     batch = torch.arange(12.0).reshape(4, 3)
        ...     losses = (model(batch) - batch).square().mean(1)  # [4], one for each sample
        ...     criterion(losses).backward()
        >>> criterion.effective_sample_share <= 1
        True
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
        self.weighting = parse_weighting(weighting) if isinstance(weighting, str) else weighting
        if self.weighting.needs_past:
            raise InputError(
                "Accumulate needs each sample's own past: a batch carries none", "leave it out, or use tailwise.fit"
            )
        if buffer < 2:
            raise InputError(f"the buffer must hold at least 2 scores: got {buffer}")
        self.warmup = min(2 * buffer, _USUAL_WARMUP) if warmup is None else warmup
        self.divide_by = divide_by
        self.effective_sample_share = 1.0  # of the newest batch, for logging
        self.register_buffer("newest", torch.zeros(buffer))
        self.register_buffer("seen", torch.zeros((), dtype=torch.long))

    def forward(self, losses: Tensor, scores: Tensor | None = None, embedding: Tensor | None = None) -> Tensor:
        """Losses [b], scores [b] (the losses unless given) and embedding [b, d] -> the weighted mean, a scalar."""
        scores = (losses if scores is None else scores).detach()
        # Quantiles and densities want single precision at least, whatever a loop computes its losses in.
        scores = scores.to(losses.device, torch.promote_types(scores.dtype, torch.float32))
        if losses.dim() != 1:
            raise InputError(
                f"one loss per sample: got {tuple(losses.shape)}", "use reduction='none' and mean the rest"
            )
        if scores.shape != losses.shape:
            raise InputError(f"one score per loss: got {tuple(scores.shape)} for {tuple(losses.shape)}")
        check_finite(scores, "scores")  # one that is not would stay in the memory
        if self.training:
            if not int(self.seen) and self.warmup > len(scores):
                messages.note(
                    f"every weight is 1 until {self.warmup:,} scores have been seen; the option warmup begins earlier"
                )
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

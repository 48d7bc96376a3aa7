"""A block that adapts the cells of a map to each other, beginning as the identity."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

_MOST_HEADS = 4


class Adaptor(nn.Module):
    """One pre-norm transformer block (attention, then a network of twice the width), both on a residual path.

    What each adds is zero at the start, so an adaptor that has learnt nothing leaves its cells as they are.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = next(heads for heads in range(_MOST_HEADS, 0, -1) if width % heads == 0)
        self.before_attention, self.before_network = nn.LayerNorm(width), nn.LayerNorm(width)
        self.looked_up = nn.Linear(width, 3 * width)
        self.joined = nn.Linear(width, width)
        self.network = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        for last in (self.joined, self.network[2]):
            nn.init.zeros_(last.weight)  # type: ignore[arg-type]
            nn.init.zeros_(last.bias)  # type: ignore[arg-type]

    def forward(self, cells: Tensor, seen: Tensor) -> Tensor:
        """Cells [b, cells, width], of which those `seen` [b, cells] are looked at -> adapted cells."""
        mask = (seen | ~seen.any(1, keepdim=True))[:, None, None]
        query, key, value = self.looked_up(self.before_attention(cells)).unflatten(2, (3, self.heads, -1)).unbind(2)
        query, key, value = (part.transpose(1, 2) for part in (query, key, value))
        found = scaled_dot_product_attention(query, key, value, attn_mask=mask).transpose(1, 2).flatten(2)
        cells = cells + self.joined(found)
        return cells + self.network(self.before_network(cells))

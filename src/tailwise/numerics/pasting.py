"""Defects made on pictures by pasting a part of a picture elsewhere in it (CutPaste, Li et al., CVPR 2021)."""

from __future__ import annotations

import math
from typing import TypeAlias

import torch
from torch import Tensor

Sides: TypeAlias = tuple[tuple[float, float], tuple[float, float]]
# Two sides of rectangles that are cut and pasted, least and most, as shares of a picture's side: small, large, long.
RECTANGLES: tuple[Sides, ...] = (((0.02, 0.04), (0.02, 0.04)), ((0.05, 0.12), (0.05, 0.12)), ((0.01, 0.01), (0.2, 0.2)))


def pasted(picture: Tensor, sides: Sides, seed: int) -> Tensor:
    """A picture [height, width, channels] with a rectangle of it pasted elsewhere.

    Args:
        sides: the least and the most of either side of the rectangle, as shares of the picture's (the geometric mean of
            both); which of them is upright is drawn.
    """
    generator = torch.Generator().manual_seed(seed)
    wholes = picture.shape[:2]
    draws = torch.rand(7, generator=generator).tolist()
    shares = [least + (most - least) * draw for (least, most), draw in zip(sides, draws[:2], strict=True)]
    scale = math.sqrt(math.prod(wholes))
    lengths = [round(share * scale) for share in (shares if draws[2] < 0.5 else shares[::-1])]  # fmt: skip
    high, wide = (min(max(2, length), whole // 2) for length, whole in zip(lengths, wholes, strict=True))
    rooms = (wholes[0] - high + 1, wholes[1] - wide + 1)
    top, left, to_top, to_left = (int(draw * room) for draw, room in zip(draws[3:], rooms * 2, strict=True))
    result = picture.clone()
    result[to_top : to_top + high, to_left : to_left + wide] = picture[top : top + high, left : left + wide]
    return result

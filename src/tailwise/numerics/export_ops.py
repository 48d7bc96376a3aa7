"""What a graph is traced of where the code that runs at once cannot be: with blocks, matrix solvers and the like.

While `torch.export` follows a function, sizes of batches are symbols and values are not known.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

# What stands in a graph for a network that is a file: whoever writes the graph puts the network there.
NETWORK = "tailwise::Network"


def tracing() -> bool:
    """Whether a graph is being made, in place of results."""
    return torch.compiler.is_compiling()


def blocks(rows: Tensor, size: int) -> tuple[Tensor, ...]:
    """The rows in parts of at most `size`; in a graph all at once, because their number is not known."""
    return (rows,) if tracing() else rows.split(size)


def solve(matrices: Tensor, right: Tensor) -> Tensor:
    """Solutions [n, k] of symmetric positive definite systems [n, k, k], [n, k]."""
    # Outside a graph torch's own: the first call of our operation imports torch's compiler, which takes a second.
    if tracing():
        return solve_in_graph(matrices, right)
    factor, failed = torch.linalg.cholesky_ex(matrices)
    if failed.any():  # but for rounding they are positive definite
        return torch.linalg.solve(matrices, right)
    return torch.cholesky_solve(right[..., None], factor)[..., 0]


@torch.library.custom_op("tailwise::solve", mutates_args=())
def solve_in_graph(matrices: Tensor, right: Tensor) -> Tensor:
    """`solve` as an operation of its own, because ONNX has none for it: what writes a graph says how it is done
    there."""
    return torch.linalg.solve(matrices, right)


@solve_in_graph.register_fake
def _(matrices: Tensor, right: Tensor) -> Tensor:
    return torch.empty_like(right)


def network_in_graph(images: Tensor, shapes: Sequence[Sequence[int]]) -> Sequence[Tensor]:
    """The place of a network that makes of images [n, ...] float32 values [n, *shape], one for each of the shapes."""
    return torch.onnx.ops.symbolic_multi_out(
        NETWORK, (images,), dtypes=[torch.float32] * len(shapes),
        shapes=[(images.shape[0], *shape) for shape in shapes], version=1,
    )  # fmt: skip


def smallest(values: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k smallest values [n, k] of each row [n, m] in their order, and their places; the first of equal ones first.

    ONNX's TopK keeps that order by its definition; torch's keeps none.
    """
    if tracing():
        found = values.topk(k, 1, largest=False)
        return found.values, found.indices
    if values.device.type != "cpu":
        ordered, places = values.sort(dim=1, stable=True)
        return ordered[:, :k], places[:, :k]
    numbers = values.detach().numpy()
    # Four times as fast as an order that keeps equal ones apart, which few rows need.
    order = np.argsort(numbers, axis=1)
    lowest = np.take_along_axis(numbers, order[:, : k + 1], axis=1)
    odd = ~(lowest[:, 1:] > lowest[:, :-1]).all(1)
    order[odd] = np.argsort(numbers[odd], axis=1, kind="stable")
    places = torch.from_numpy(np.ascontiguousarray(order[:, :k]))
    return values.gather(1, places), places


def precise(device: torch.device) -> torch.dtype:
    """What sums are taken in where a last digit decides: double precision, which MPS has not."""
    return torch.float32 if device.type == "mps" else torch.float64

"""Crossmodal feature mapping (Costanzino et al., CVPR 2024), in small: what one modality says of the other.

Two networks learn on normal parts to foretell geometry from the photograph, and the photograph's features from
geometry, cell by cell. Where both fail, something is there that normal parts do not have. No memory is kept.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..core.bounds import Count, Share
from ..core.data import Batch, Data
from ..core.detector import Reading
from ..core.registry import register
from ..errors import InputError
from .components.two_modalities import Cells, TwoModalities, measured_cells, reading_of


@register("detector", "cross-modal-mapping")
class CrossModalMapping(TwoModalities):
    """Product of the two errors of foretelling one modality from the other, at each cell.

    A sample's loss is the mean over measured cells of the two squared errors, of channels with variance 1; the paper
    takes cosines, which do not see how large a feature is, and features of transformers. A sample without any measured
    cell is refused: `paired-memories` and `cross-modal-maps` score such by the photograph alone.

    Args:
        geometry: how many of the last channels are geometry; None goes by their names, as `RgbXyz` gives them.
        hidden: units of both networks' layers.
        top: share of a sample's cells, the worst, whose mean is its score.
    """

    def __init__(self, geometry: Count | None = None, hidden: Count = 128, top: Share = 0.01) -> None:
        super().__init__()
        self.geometry = geometry
        self.hidden = hidden
        self.top = top

    def make(self, first: int, rest: int) -> None:
        self.cells = Cells(first + rest)
        self.to_geometry, self.to_photograph = (
            nn.Sequential(
                nn.Linear(a, self.hidden), nn.GELU(), nn.Linear(self.hidden, self.hidden), nn.GELU(),
                nn.Linear(self.hidden, b),
            )
            for a, b in ((first, rest), (rest, first))
        )  # fmt: skip

    def prepare(self, data: Data, w: Tensor) -> None:
        self.part_channels(data)
        self.cells.learn(data, w, self.split)

    def losses(self, batch: Batch) -> Tensor:
        errors, measured = self._errors(batch)
        return (errors.sum(0) * measured).sum(1) / measured.sum(1).clamp_min(1)

    def read(self, batch: Batch, score: bool = True, map: bool = False, embedding: bool = False) -> Reading:
        """Cells that were not measured score 0: nothing is said of them."""
        product = self._product(batch) if score or map else None
        return reading_of(product, self.top, score, map, self.embed(batch) if embedding else None)

    def _product(self, batch: Batch) -> Tensor:
        """[b, h, w]: the product of both errors."""
        errors, measured = self._errors(batch)
        if not bool(measured.any(1).all()):
            raise InputError(
                f"{int((~measured.any(1)).sum())} samples have no measured point: {type(self).__name__} needs some",
                "leave them out, or use paired-memories, which scores them by their photograph",
            )
        return (errors.clamp_min(1e-12).sqrt().prod(0) * measured).unflatten(1, self.sample_shape[1:])

    def _errors(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Mean squared errors [2, b, cells] of what is foretold, and where there is something to foretell."""
        cells = self.cells(batch.samples)
        photograph, geometry = cells[..., : self.split], cells[..., self.split :]
        errors = torch.stack(
            [
                (self.to_geometry(photograph) - geometry).square().mean(2),
                (self.to_photograph(geometry) - photograph).square().mean(2),
            ]
        )
        return errors, measured_cells(batch, self.split)

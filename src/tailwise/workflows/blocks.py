"""Which blocks of a backbone read a folder's pictures, where nobody says: told by defects made on good ones.

The usual blocks look at parts of a thing, finer ones at details of a few pixels, which the usual ones blur. Which are
better depends on the pictures: fine ones win on drawings of thin lines, and lose on surfaces. So a rectangle of a good
picture is pasted elsewhere in it (CutPaste, Li et al., CVPR 2021), and the blocks that tell such pictures from good
ones better are taken. No label and no test picture is looked at. To choose blocks by it is ours (LOG.md).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ..backbones import networks
from ..core import inference, messages, progress
from ..core.data import Data
from ..core.modality import FEATURE_MAP
from ..core.problem import FromPictures, Problem, ReadByBackbone, Source
from ..numerics import metrics
from ..numerics.pasting import RECTANGLES, Sides, pasted
from .request import AUTO, Request, make_detector

# Good pictures that defects are made on, and others that are remembered, at most; of fewer nothing is chosen.
_MADE_ON, _REMEMBERED, _LEAST = 30, 40, 30
# The share of farthest places that a picture's score is the mean of, by the usual blocks and by fine ones.
TOP, FINE_TOP = 0.005, 0.001
FINE_DETECTOR = f"PatchMemory(top={FINE_TOP})"
# Patches that are remembered.
_PATCHES = 500
# Mean AUROC by which fine blocks must be ahead (LOG.md).
MARGIN = 0.02
# Only where the usual ones all but guess: defects pasted in have sharper edges than most, which flatters fine blocks.
GUESSING = 0.57


@dataclass(frozen=True)
class Decided:
    """The request and the problem with the blocks that are taken, and why these; "" where nothing was chosen."""

    request: Request
    problem: Problem
    reason: str = ""


def decided(request: Request, problem: Problem) -> Decided:
    """What is fitted where the user names no detector: fine blocks with a memory of patches where the usual ones all
    but guess which pictures hold a made defect, and fine ones do not; otherwise what was asked for."""
    source = request.source
    fine = finer(source) if request.detector.strip() == AUTO else None
    as_asked = Decided(request, problem)
    if fine is None or len(problem.train) < _LEAST:
        return as_asked
    made = MadeDefects.of(source, problem.train, request.seed)
    usual = None if made is None else made.told(source, problem.train, TOP)
    if made is None or usual is None or usual >= GUESSING:
        return as_asked
    reread = read_again(fine, problem)
    told = made.told(fine, reread.train, FINE_TOP)
    if not prefers_fine(usual, told):
        return as_asked
    reason = f"defects made on good pictures are told with AUROC {told:.2f}, by the usual blocks with {usual:.2f}"
    return Decided(replace(request, source=fine, detector=FINE_DETECTOR), reread, reason)


def prefers_fine(usual: float, fine: float) -> bool:
    """Whether fine blocks are taken, by the AUROC with which the usual and fine ones tell made defects."""
    return usual < GUESSING and fine > usual + MARGIN


def finer(source: Source) -> Source | None:
    """The same pictures by fine blocks of their backbone; None unless the source reads them by its usual ones."""
    if not (isinstance(source, FromPictures) and isinstance(source, ReadByBackbone)) or not source.layers:
        return None
    fine = networks.fine_layers(source.read)
    return source.reading_maps(fine) if fine and source.layers == networks.map_layers(source.read) else None


def read_again(source: Source, problem: Problem) -> Problem:
    """The samples of a problem as another source reads them, by their names."""
    with messages.said_before():
        read = source.load()
    test = problem.test
    if test is not None:
        assert read.test is not None
        test = replace(test, data=_named(read.test.data, test.data))
    train = _named(read.train, problem.train)
    return replace(problem, train=train, test=test, facts=read.facts, layout=read.layout)


def _named(read: Data, wanted: Data) -> Data:
    place = read.places
    return read.take([place[str(name)] for name in wanted.names])


@dataclass(frozen=True, eq=False)
class MadeDefects:
    """Good pictures that defects are pasted into, and others that are remembered.

    Attributes:
        pictures: [n, height, width, 1 or 3] uint8.
        on: which training samples they are.
        kept: which are remembered.
    """

    pictures: Tensor
    on: list[int]
    kept: list[int]
    seed: int

    @classmethod
    def of(cls, source: Source, data: Data, seed: int) -> MadeDefects | None:
        """Drawn from a source's training samples; None where their pictures cannot be decoded to 8 bits."""
        assert isinstance(source, FromPictures)
        drawn = np.random.default_rng(seed).permutation(len(data)).tolist()
        count = min(_MADE_ON, len(data) // 2)
        pictures = source.decoded([str(data.names[i]) for i in drawn[:count]])
        return None if pictures is None else cls(pictures, drawn[:count], drawn[count:][:_REMEMBERED], seed)

    def told(self, source: Source, data: Data, top: float) -> float:
        """The AUROC of pictures with a made defect against good ones, a mean over sorts of defects: by a memory of the
        patches that `data`, the source's training samples, have."""
        assert isinstance(source, FromPictures)
        memory = make_detector(f"PatchMemory(top={top}, most={_PATCHES})")
        memory.start(data.sample_shape, data.modality)
        kept = data.take(self.kept)
        inference.solved(memory, kept, torch.ones(len(kept)))
        network = source.network()

        def scored(place: int, sides: Sides) -> float:
            with torch.no_grad():
                sample = network(pasted(self.pictures[place], sides, self.seed + place)[None])
            return float(inference.score(memory, Data(sample, ["made"], modality=FEATURE_MAP)))

        good = inference.score(memory, data.take(self.on)).numpy()
        labels = np.repeat([False, True], len(good))
        cases = [(place, sides) for sides in RECTANGLES for place in range(len(good))]
        made = [scored(*case) for case in progress.over(cases, "comparing blocks")]
        sorts = np.array(made).reshape(len(RECTANGLES), -1)
        return float(np.mean([metrics.auroc(labels, np.concatenate([good, sort])) for sort in sorts]))

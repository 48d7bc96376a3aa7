"""Which blocks of a backbone read a folder's pictures, where nobody says: told by defects made on good ones.

The usual blocks look at parts of a thing, finer ones at details of a few pixels, which the usual ones blur. Which are
better depends on the pictures: fine ones win on drawings of thin lines, and lose on surfaces. So a rectangle of a good
picture is pasted elsewhere in it (CutPaste, Li et al., CVPR 2021), and the blocks that tell such pictures from good
ones better are taken. No label and no test picture is looked at. To choose blocks by it is ours (LOG.md).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
import torch
from torch import Tensor

from ..backbones import networks
from ..core import inference, messages, progress
from ..core.data import Data
from ..core.modality import FEATURE_MAP
from ..core.problem import FromPictures, Problem, ReadByBackbone, Source
from ..detectors.components.pseudo_anomalies import RECTANGLES, pasted
from ..detectors.patch_memory import PatchMemory
from ..numerics import metrics
from .request import AUTO, Request

# Good pictures that defects are made on, and others that are remembered, at most; of fewer nothing is chosen.
_MADE_ON, _REMEMBERED, _LEAST = 30, 40, 30
# The share of farthest places that a picture's score is the mean of, and patches that are remembered.
_TOP, _FINE_TOP, _PATCHES = 0.005, 0.001, 500
# Mean AUROC by which fine blocks must be ahead (LOG.md).
_MARGIN = 0.02
# Only where the usual ones all but guess: defects pasted in have sharper edges than most, which flatters fine blocks.
_GUESSING = 0.57


@dataclass(frozen=True)
class Told:
    """How well defects made on good pictures are told, mean AUROC: by a source's usual blocks, and by fine ones."""

    usual: float
    fine: float

    @property
    def prefers_fine(self) -> bool:
        return self.usual < _GUESSING and self.fine > self.usual + _MARGIN

    @property
    def reason(self) -> str:
        return f"defects made on good pictures are told with AUROC {self.fine:.2f} (usual blocks {self.usual:.2f})"


@dataclass(frozen=True)
class Decided:
    """The request and the problem with the blocks that are taken, and why these; "" where nothing was chosen."""

    request: Request
    problem: Problem
    reason: str = ""


def decided(request: Request, problem: Problem) -> Decided:
    """What is fitted where the user names no detector: fine blocks with a memory of patches where these tell made
    defects better, and otherwise what was asked for."""
    fine = finer(request.source) if request.detector.strip() == AUTO else None
    if fine is None or len(problem.train) < _LEAST:
        return Decided(request, problem)
    reread = read_again(fine, problem)
    told = judge(request.source, fine, problem.train, reread.train, request.seed)
    if told is None or not told.prefers_fine:
        return Decided(request, problem)
    return Decided(replace(request, source=fine, detector=repr(PatchMemory(top=_FINE_TOP))), reread, told.reason)


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
    place = {str(name): index for index, name in enumerate(read.names)}
    return read.take([place[str(name)] for name in wanted.names])


def judge(usual: Source, fine: Source, seen: Data, reread: Data, seed: int = 0) -> Told | None:
    """What both sources' blocks tell of defects made on some of the samples, `seen` by the one and `reread` by the
    other; None where the pictures cannot be decoded again."""
    drawn = np.random.default_rng(seed).permutation(len(seen))
    made_on = min(_MADE_ON, len(seen) // 2)
    on, kept = drawn[:made_on].tolist(), drawn[made_on:][:_REMEMBERED].tolist()
    assert isinstance(usual, FromPictures)
    pictures = usual.decoded([str(seen.names[i]) for i in on])
    if pictures is None:
        return None
    made = [[pasted(picture, sides, seed + i) for i, picture in enumerate(pictures)] for sides in RECTANGLES]
    return Told(
        _told(usual, PatchMemory(top=_TOP, most=_PATCHES), seen.take(kept), seen.take(on), made),
        _told(fine, PatchMemory(top=_FINE_TOP, most=_PATCHES), reread.take(kept), reread.take(on), made),
    )


def _told(source: Source, memory: PatchMemory, kept: Data, good: Data, made: list[list[Tensor]]) -> float:
    """The mean AUROC over sorts of made pictures against good ones, by a memory of others."""
    assert isinstance(source, FromPictures)
    memory.start(kept.sample_shape, kept.modality)
    memory.solve(kept, torch.ones(len(kept)))
    network = source.network()

    def scored(picture: Tensor) -> float:
        with torch.no_grad():
            sample = network(picture[None])
        return float(inference.score(memory, Data(sample, ["made"], modality=FEATURE_MAP)))

    of_good = inference.score(memory, good).numpy()
    of_made = np.array([scored(each) for each in progress.over(list(chain(*made)), "comparing blocks")])
    labels = np.repeat([False, True], len(of_good))
    return float(
        np.mean([metrics.auroc(labels, np.concatenate([of_good, each])) for each in of_made.reshape(len(made), -1)])
    )

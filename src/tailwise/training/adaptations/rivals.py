"""What adaptations have to beat: nothing, moments of each channel, statistics of batch norms made anew, and the
likeliest normals added to the memory."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch

from ...core.bounds import Bounds
from ...core.detector import Detector, Updatable
from ...core.registry import Value, register
from ...errors import InputError
from .. import adapt


@register("adaptation", "Nothing")
@dataclass(frozen=True, repr=False)
class Nothing(Value):
    """Leave the detector as it is; the thresholds, clusters and report become those of the target."""

    def adapt(self, asked: adapt.Asked) -> adapt.Adapted:
        figures = {"gap_before": adapt.gap(asked.scores, asked.source.scores)}
        return adapt.Adapted(asked.detector, False, "nothing was to be adapted", figures)

    def wrap(self, detector: Detector) -> Detector:
        return detector


@register("adaptation", "Moments")
@dataclass(frozen=True, repr=False)
class Moments(Value):
    """Give each channel of the target the mean and the deviation that it had among the old normals.

    With them the divergence (KL) of two Gaussians of independent channels is 0. Anomalies move both. Of pictures and
    spectra the old ones are those of the at most 16 samples that a run keeps.
    """

    def adapt(self, asked: adapt.Asked) -> adapt.Adapted:
        adapt.check_alone(asked, "Moments")
        known = adapt.source_samples(asked, "Moments")
        if vetoed := adapt.nothing_to_gain(asked):
            return vetoed
        then, now = adapt.by_channel(known), adapt.by_channel(asked.target.read(torch.arange(len(asked.target))))
        stretch = then[1] / now[1]
        made = adapt.Realigned.around(asked.detector, stretch, then[0] - stretch * now[0])
        return adapt.accepted(asked, made, {})

    def wrap(self, detector: Detector) -> Detector:
        return adapt.Realigned(detector)


@register("adaptation", "Statistics")
@dataclass(frozen=True, repr=False)
class Statistics(Value):
    """Make the statistics of batch norms anew, of the network that reads pictures; nothing is trained.

    At each norm the target's pictures get the mean and the deviation that the old ones have there.
    So statistics made anew act where those before were of the old pictures (Schneider et al., NeurIPS 2020). The old
    ones are the at most 16 that a run keeps. Anomalies move both.
    """

    def adapt(self, asked: adapt.Asked) -> adapt.Adapted:
        adapt.check_alone(asked, "Statistics")
        seen = adapt.pictured(asked, "Statistics")
        if vetoed := adapt.nothing_to_gain(asked):
            return vetoed
        return adapt.accepted(asked, asked.detector, {}, seen.with_statistics(1.0))

    def wrap(self, detector: Detector) -> Detector:
        return detector


@register("adaptation", "Update")
@dataclass(frozen=True, repr=False)
class Update(Value):
    """Add the target samples that score lowest to the detector's memory, as `tailwise update` does.

    Args:
        keep: the share of the target samples that is added.
    """

    keep: Annotated[float, Bounds(above=0, at_most=1)] = 0.7

    def adapt(self, asked: adapt.Asked) -> adapt.Adapted:
        if not isinstance(asked.detector, Updatable):
            local = " with local scores" if asked.detector.trained is not asked.detector else ""
            raise InputError(
                f"Update cannot adapt {asked.name}{local}, which takes in no more samples",
                "fit patch-memory with --scores own, or use another --method",
            )
        if vetoed := adapt.nothing_to_gain(asked):
            return vetoed
        lowest = asked.lowest(self.keep)
        made = copy.deepcopy(asked.detector)
        made.update(asked.target.take(np.sort(lowest)), torch.ones(len(lowest)))
        return adapt.accepted(asked, made, {"added": float(len(lowest))})

    def wrap(self, detector: Detector) -> Detector:
        return detector

"""One fit, as asked for, and what its texts mean."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..calibration import conformal, score_maps
from ..core import inference, registry, validation
from ..core.context import Graph
from ..core.detector import Detector
from ..core.modality import FEATURE_MAP, ROW, Modality
from ..core.problem import Problem, ReadByBackbone, ReadByNeighbours, Source
from ..errors import InputError
from ..integrations import trackers
from ..training import cleaning
from ..training.local_scores import parse
from ..training.options import Training
from ..weights.default import parse_weighting
from ..weights.weighting import Weighting


def check_options(false_alarms: float, cross: int | None, max_group_fpr: float | None) -> None:
    """Raise an InputError unless these options can be used."""
    validation.check_share(false_alarms, "false_alarms")
    if cross is not None and (cross < 0 or cross == 1):
        raise InputError(f"cross must be 0 or at least 2: got {cross}", "5 is usual")
    if max_group_fpr is not None:
        validation.check_share(max_group_fpr, "max_group_fpr")


AUTO = "auto"
_SPELLED = ("source", "detector", "weighting", "scores", "training")
# Where a fit is logged is no part of it: it may be resumed with another log.
_APART = ("log",)


@dataclass(frozen=True)
class Request:
    """One fit, as asked for. See `commands.fit` for what the fields mean."""

    source: Source
    detector: str = "auto"
    weighting: str = "auto"
    scores: str = "auto"
    false_alarms: float = 0.05
    training: Training = Training()  # noqa: RUF009 (a frozen value)
    balance: bool = False
    per_cluster: bool = False
    per_group: bool = False
    whole_groups: bool = False
    cross: int | None = None
    max_group_fpr: float | None = None
    refine: str = ""
    keep_suspects: bool = False
    anomalies: str = ""
    reviewed: str = ""
    smoothing: float = score_maps.SMOOTHING
    seed: int = 0
    no_report: bool = False
    no_clusters: bool = False
    log: str = ""
    command: str = ""

    def check(self) -> tuple[Detector, Weighting]:
        """The detector and the weighting, once every option has been found usable."""
        check_options(self.false_alarms, self.cross, self.max_group_fpr)
        if self.per_cluster and self.per_group:
            raise InputError(
                "thresholds are set for each cluster or for each group, not both", "choose --per-cluster or --per-group"
            )
        if self.per_cluster and self.no_clusters:
            raise InputError("a threshold for each cluster needs clusters", "leave out --no-clusters, or --per-cluster")
        if self.whole_groups and (self.per_group or self.balance):
            raise InputError(
                "whole_groups says that a group is one part, seen several times, and these are held out together: they "
                "have no thresholds or weights of their own",
                "leave out --whole-groups, or --per-group and --balance",
            )
        if self.training.patience and (self.parts or self.per_cluster or self.per_group):
            raise InputError(
                "patience needs held-out samples, but with --cross no sample is held out",
                "leave --patience out, or use --cross 0",
            )
        validation.check_seed(self.seed)
        score_maps.check_smoothing(self.smoothing)
        inference.check_device(self.training.device)
        parse(self.scores)
        cleaning.parse(self.refine)
        trackers.parse(self.log, Path())
        return make_detector(self.detector), parse_weighting(self.weighting)

    def decided(self, modality: Modality, samples: int) -> Request:
        """The same with what "auto" stands for with so many samples of this sort: a detector's name, and folds."""
        detector = self.detector
        if detector.strip() == AUTO:
            detector = modality.detector
        cross = self.cross
        if cross is None:
            own = self.per_cluster or self.per_group
            made = make_detector(detector)
            alone = made.left_out_is_new and not self.refine
            usual = conformal.usual_folds(samples, self.false_alarms, alone, own)
            # What learns nothing of its samples scores them as it scores new ones.
            learns = own or not made.ignores_weights
            cross = usual if learns and not self.training.patience else 0
        return replace(self, detector=detector, cross=cross)

    @property
    def parts(self) -> int:
        """The number of folds of cross-fitting; with 0 some samples are held out instead."""
        return self.cross or 0


def make_detector(text: str) -> Detector:
    """A detector from its name or its spelling; "auto" is that of rows until data is seen."""
    return registry.parse_one(ROW.detector if text.strip() == AUTO else text, "detector")


def wants_maps(text: str) -> bool | None:
    """Whether images are read as feature maps for this detector; None for "auto": where a backbone is known to have
    them."""
    return None if text.strip() == AUTO else make_detector(text).wants_maps


def named_for(text: str, source: Source) -> str:
    """The spelling of a detector; of "auto" that of maps, where the source reads images as maps."""
    maps = text.strip() == AUTO and isinstance(source, ReadByBackbone) and bool(source.layers)
    return FEATURE_MAP.detector if maps else text


def read_for(detector: str, source: Source) -> Source:
    """The source as this detector reads it: what looks at a graph itself takes nodes without what is around them."""
    if not isinstance(source, ReadByNeighbours):
        return source
    return source.reading_around(make_detector(detector).needs_context is not Graph)


def with_setting(text: str, name: str, value: Any) -> str:
    """The spelling of a detector with one of its settings changed.

    Raises:
        InputError: it has no such setting.
    """
    detector = make_detector(text)
    if name not in detector.settings():
        raise InputError(f"{text} has no setting {name}", f"leave --{name.replace('_', '-')} out")
    return repr(type(detector)(**detector.settings() | {name: value}))


_CUBE_HINT = (
    "give a folder of images; if pixels are the samples, save the cube as a .npy or .npz array [height, width, bands], "
    "or as a TIFF of 5 bands or more"
)


def check_training(problem: Problem, source: Source) -> None:
    """Raise an InputError where no detector can learn from the training data: it says what the data was taken for."""
    where, train = str(getattr(source, "path", "")), problem.train
    if len(train) < 2 and where:
        samples = problem.facts.samples
        raise InputError(
            f"{where} was read as {samples}, and holds {len(train)}: at least 2 are needed to learn what is normal",
            _CUBE_HINT if samples == "images" else "",
        )
    validation.check_samples(train, where=where)

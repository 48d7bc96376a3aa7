"""The one place where a finished detector and its tables become a run, for whatever makes or changes one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch

from ..calibration import conformal
from ..calibration.by_kind import Calibration
from ..calibration.clusters import Clusters
from ..core.data import Data
from ..core.detector import Detector
from ..core.problem import Source
from ..report.report_page import to_html
from ..runs import fingerprint, group_gate, store
from ..runs.scorer import Run
from ..runs.table import of_table


@dataclass(frozen=True, eq=False)
class Parts:
    """What a run is made of.

    Attributes:
        detector: fitted, with its local scores.
        trained: the samples that it was trained on; some of them become the run's fingerprint, drawn by `seed`.
        table: the score table of the training samples, calibrated.
        history: a row for each epoch.
        clusters: those of the training samples, None where none were looked for.
        test: the table of the test samples.
        backbone: the ONNX file that reads the images, None where none was named.
        places: where the data lies; see `runs.places`.
        source: where the samples come from, for their pictures.
    """

    detector: Detector
    trained: Data
    table: pd.DataFrame
    history: Iterable[Mapping[str, float]]
    clusters: Clusters | None
    seed: int
    test: pd.DataFrame | None = None
    backbone: bytes | None = None
    places: Mapping[str, str] = field(default_factory=dict)
    source: Source | None = None


def held_out_of(
    samples: int, false_alarms: float, generator: torch.Generator, things: torch.Tensor | None = None
) -> np.ndarray:
    """Places, in order, of the samples that are held out for the threshold; those of one of the `things` [n] together,
    as long as no more are held out than without them."""
    count = conformal.held_out_count(samples, false_alarms)
    order = torch.randperm(samples, generator=generator)
    if things is None:
        return order[:count].sort().values.numpy()
    held = torch.zeros(samples, dtype=torch.bool)
    for place in order.tolist():
        alike = things == things[place]
        if int((held | alike).sum()) <= count:
            held |= alike
    return held.nonzero().flatten().numpy()


def calibrate(settings: dict[str, Any], table: pd.DataFrame, kinds: np.ndarray | None = None) -> Calibration:
    """Put the thresholds into the settings and, with the kind [n] of each sample, its own into the table."""
    calibration = of_table(table)
    settings["threshold"] = calibration.threshold(settings["false_alarms"])
    settings["thresholds"] = calibration.table(settings["false_alarms"])
    if kinds is not None:
        table["threshold"] = calibration.thresholds_of(kinds, settings["false_alarms"], len(table))
    return calibration


def hold_to_limit(settings: dict[str, Any], table: pd.DataFrame, test: pd.DataFrame | None) -> None:
    """Put into the settings whether each group keeps the limit of false alarms that was asked for."""
    limit = settings.get("max_group_fpr")
    settings["group_fpr"] = group_gate.check_group_fpr(table, test, settings["threshold"], limit)


def write_run(
    writer: store.Writer, settings: dict[str, Any], parts: Parts, summarise: Callable[[], dict[str, Any]]
) -> Run:
    """Write the run whole, with the page of its report unless that was declined."""
    summary = summarise()
    page = None if settings.get("no_report") else to_html(summary)
    samples = fingerprint.choose(parts.detector, parts.trained, parts.seed)
    pictures = None
    if samples is not None and parts.source is not None:
        pictures = fingerprint.pictures_of(parts.source, parts.trained, parts.seed, len(samples))
    return writer.finish(
        settings, parts.detector, parts.table, parts.history, summary, page, parts.clusters, parts.test,
        samples, parts.backbone, parts.places, pictures,
    )  # fmt: skip

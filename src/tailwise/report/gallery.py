"""The samples of a report that one should look at, each beside its score map: false alarms, misses, catches, kinds."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pandas as pd

from ..calibration import score_maps
from ..calibration.score_maps import Scale
from ..core.data import Data
from ..core.detector import Detector
from ..core.problem import Problem, Source
from ..errors import InputError
from ..runs.table import by_size, over, with_finite_scores
from . import heat_maps, pictures, selection

_SHOWN, _KINDS = 8, 12
_GAP = 4


def of_run(
    detector: Detector, source: Source, problem: Problem, train: pd.DataFrame, test: pd.DataFrame | None,
    threshold: float, scale: Scale, smoothing: float,
) -> dict[str, Any]:  # fmt: skip
    """Sections of samples with a picture and its map, and pictures of the highest-scored training samples by name.

    Args:
        train, test: the tables of `contents.Tables`, a row a sample in the data's order.
        threshold: of the samples' scores; `scale` has that of their pixels.
    """
    sections = []
    if test is not None and problem.test is not None:
        masks = problem.test.masks
        for title, said, rows in chosen(test, threshold):
            drawn = _drawn(detector, source, problem.test.data, masks, rows.index.tolist(), scale, smoothing)
            sections.append({"title": title, "said": said, "samples": _samples(rows, drawn, threshold)})
    highest = selection.highest(with_finite_scores(train.assign(place=np.arange(len(train))))[0])
    drawn = _drawn(detector, source, problem.train, None, highest["place"].tolist(), scale, smoothing)
    return {
        "scale": {"usual": scale.usual, "threshold": scale.threshold, "full": scale.full},
        "colours": [_hex(score, scale) for score in np.linspace(scale.usual, scale.full, 41)],
        "sections": sections,
        "training": {sample: found["picture"] for sample, found in zip(highest["sample"], drawn, strict=True) if found},
    }


def chosen(test: pd.DataFrame, threshold: float) -> list[tuple[str, str, pd.DataFrame]]:
    """What to look at among the test samples: a title, what it means, and rows whose index is the sample's place."""
    test = test.reset_index(drop=True)
    test = test[np.isfinite(test["score"].to_numpy(dtype=float))].sort_values("score", ascending=False, kind="stable")
    anomalous, normal = (test[(test["label"] == value).fillna(False).astype(bool)] for value in (True, False))
    above = over(test, threshold)
    if normal.empty and anomalous.empty:
        return [("Highest-scored test samples", "They have no labels.", test.head(_KINDS))]
    found = []
    if len(alarms := normal[above[normal.index]]):
        found.append(
            ("Worst false alarms", "Good samples above the threshold, the highest first.", alarms.head(_SHOWN))
        )
    else:
        found.append(("Nearest to a false alarm", "No good sample is above the threshold.", normal.head(_SHOWN // 2)))
    misses, catches = anomalous[~above[anomalous.index]][::-1], anomalous[above[anomalous.index]]
    found.append(("Worst misses", "Anomalies that are not above the threshold, the lowest first.", misses.head(_SHOWN)))
    found.append(
        (
            "Typical catches",
            "Anomalies above the threshold, from the middle of the scores of each kind.",
            _typical(catches),
        )
    )
    if "group" in test and normal["group"].nunique() > 1:
        rows = normal[~normal["group"].duplicated()].head(_KINDS)
        found.append(("Every kind of normal", "The highest-scored good sample of each group.", rows))
    return [section for section in found if len(section[2])]


def _typical(catches: pd.DataFrame) -> pd.DataFrame:
    """A few samples in the middle of each kind's scores, kinds told apart by the folder of their samples."""
    folder = catches["sample"].map(lambda sample: str(PurePosixPath(str(sample)).parent))
    kinds = [catches[folder == name] for name in by_size(folder)[:_SHOWN]]
    if not kinds:
        return catches
    each = max(1, _SHOWN // len(kinds))
    places = [np.unique(np.linspace(0, len(kind) - 1, each + 2)[1:-1].round().astype(int)) for kind in kinds]
    return pd.concat([kind.iloc[place] for kind, place in zip(kinds, places, strict=True)])


def _drawn(
    detector: Detector, source: Source, data: Data, masks: Sequence[np.ndarray | None] | None, places: Sequence[int],
    scale: Scale, smoothing: float,
) -> list[dict[str, Any]]:  # fmt: skip
    """Picture and flagged share of each sample; nothing for one whose picture went away since."""
    if not len(places):
        return []
    picture, backdrop = pictures.small_pictures_of(source, data), pictures.backdrops_of(source, data)
    found: list[dict[str, Any]] = []
    for place, scores in zip(places, score_maps.of_data(detector, data.take(places), smoothing), strict=True):
        found.append({})
        with suppress(InputError):
            left = picture(place)
            over = backdrop(place, left)
            right = heat_maps.overlay(over.picture, over.laid(scores), scale)
            mask = None if masks is None else masks[place]
            left = heat_maps.truth(left, over.marked(mask))
            gap = np.full((len(left), _GAP, 3), 255, dtype=np.uint8)
            uri = pictures.data_uri(np.concatenate([left, gap, right], 1))
            flagged = float((scores > scale.threshold).mean())
            found[-1] = {"picture": uri, "flagged": flagged, "highest": float(scores.max())}
    return found


def _samples(rows: pd.DataFrame, drawn: list[dict[str, Any]], threshold: float) -> list[dict[str, Any]]:
    columns = ["sample", "score", "threshold", "rejected", *(["group"] if "group" in rows else [])]
    rows = rows.assign(threshold=rows.get("threshold", threshold), rejected=over(rows, threshold))
    return [row | found for row, found in zip(rows[columns].to_dict("records"), drawn, strict=True) if found]


def _hex(score: float, scale: Scale) -> str:
    *colour, opacity = heat_maps.colours(np.array(score), scale)
    mixed = [round(float(opacity * channel + (1 - opacity) * 128)) for channel in colour]
    return "#{:02x}{:02x}{:02x}".format(*mixed)

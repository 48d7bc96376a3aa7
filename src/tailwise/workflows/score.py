"""Scores and maps of new data by a run."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from ..calibration import score_maps
from ..core.data import Data
from ..core.modality import SPECTRUM
from ..core.problem import ReadByBackbone, Source
from ..core.seeding import seeded
from ..core.validation import check_samples, check_scoring, check_seed
from ..errors import InputError
from ..runs.scorer import Run, open_run
from .weigh import check_table, write_table


def score_data(
    run: Path,
    data: str,
    threshold: float | None = None,
    skip_bad: bool = False,
    batch_size: int | None = None,
    seed: int = 0,
    device: str = "cpu",
    map_folder: Path | None = None,
    map_threshold: float | None = None,
    false_discoveries: float | None = None,
    out: Path | None = None,
) -> pd.DataFrame:
    """Scores of every sample of `data`, written to `out` too where it is named, and their maps in a folder; see
    `commands.score`."""
    check_scoring(batch_size, threshold, false_discoveries)
    if map_threshold is not None and not math.isfinite(map_threshold):
        raise InputError(f"map_threshold must be finite: got {map_threshold}")
    check_seed(seed)
    opened = open_run(run)
    source = opened.source_like(data, skip_bad)
    if out is not None:
        check_table(out, source)
    if map_folder is not None:
        _check_maps(opened)
        from . import map_files  # reads and draws pictures, which most scoring does not

        map_files.check_folder(map_folder, source)
    labelled = opened.samples(source)
    samples = labelled.data
    check_samples(samples, least=1, where=data)
    with seeded(seed, device):
        if map_folder is None:
            scores = opened.scores_of(samples, batch_size, device)
        else:
            scores = _write_maps(map_folder, opened, samples, source, map_threshold, batch_size, device)
    table = opened.table_of(labelled, scores, threshold, false_discoveries)
    if labelled.every_name is not None:
        table = with_every_name(table, labelled.every_name)
    if out is not None:
        write_table(table, out)
    return table


def with_every_name(table: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """The table with rows for samples that hold no data too: their numbers are missing, and they are not flagged."""
    whole = table.set_index("sample").reindex(list(names)).rename_axis("sample").reset_index()
    return whole.assign(flagged=whole["flagged"].eq(True))


def _check_maps(run: Run) -> None:
    if not run.detector().has_maps:
        raise InputError(
            f"the run's detector has no score maps of its samples: {run.settings.detector}", _instead_of_maps(run)
        )


def _instead_of_maps(run: Run) -> str:
    """What shows where the anomaly is in samples like the run's."""
    if isinstance(run.source(), ReadByBackbone) or run.modality.spatial:
        return "fit the images again with --detector patch-ensemble, whose scores have maps"
    if run.modality == SPECTRUM:
        return "the scores of a cube are its map: --out NAME.hdr, .mat, .npy or .tif in place of --maps"
    return "maps are of images; tailwise explain says which columns raise a score"


def _write_maps(
    folder: Path,
    run: Run,
    samples: Data,
    source: Source,
    threshold: float | None,
    batch_size: int | None,
    device: str,
) -> np.ndarray:
    """Write the map of each sample; the scores [n], which the same pass gives."""
    from ..report import pictures
    from . import map_files

    detector = run.detector_on(device)
    scale = run.map_scale
    if scale is None:
        raise InputError(f"{run.path} was made before runs had a threshold for maps", "fit again")
    scale = scale if threshold is None else score_maps.Scale(min(scale.usual, threshold), threshold)
    scores: list[float] = []

    def maps() -> Iterator[np.ndarray]:
        for score, found in score_maps.with_scores(detector, samples, run.settings.smoothing, batch_size):
            scores.append(score)
            yield found

    map_files.write_maps(folder, samples, maps(), scale, pictures.backdrops_of(source, samples))
    return np.array(scores)

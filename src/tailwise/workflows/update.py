"""More normals for a finished run: the detector takes them in without being fitted again."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from ..calibration import clustering
from ..calibration.clusters import Clusters
from ..core import embedding, inference
from ..core.data import Data
from ..core.detector import Detector, Updatable
from ..core.identity import digest, digest_of
from ..core.validation import check_samples
from ..errors import InputError, reading
from ..report.summary import update_summary
from ..runs import store
from ..runs.files import REPORT_DATA, RESTORE
from ..runs.scorer import Run, as_kept, open_run
from ..sources.auto import open_source, spelled
from . import assembly, reviews


def update_run(
    run: Path, more: str, out: Path, seed: int, overwrite: bool, command: str, reviewed: Path | None = None
) -> Run:
    """A new run of `run`'s detector with the normals of `more` added; see `commands.update`."""
    store.check_apart(run, out, overwrite)
    opened = open_run(run)
    source = open_source(more) if spelled(more) else opened.source().at(more)
    detector = opened.detector()
    if not isinstance(detector, Updatable):
        local = " with local scores" if opened.settings.scores != "own" else ""
        local += " that was adapted" if opened.settings.wrappers else ""
        name = type(detector.trained).__name__
        raise InputError(
            f"{name}{local} cannot take in more samples: it is fitted as a whole",
            "fit again with all data; of images patch-memory with --scores own takes in more",
        )
    if opened.settings.has_own_thresholds:
        raise InputError("a run with a threshold for each kind cannot take in more samples", "fit again with all data")
    # Test data beside the new samples is not looked at: it is not what the run was tested on.
    problem = replace(source.load(), test=None)
    if reviewed is not None:
        problem, _ = reviews.apply(problem, reviews.read(reviewed))
    data = problem.train.about(opened.centre)
    problem = replace(problem, train=data)
    opened.check_shape(data.sample_shape, data.modality, str(more), data.features)
    check_samples(data, least=1, where=more)
    settings = opened.settings.as_dict()
    with store.hold(out, overwrite) as writer:
        # A single sample is taken in.
        held = assembly.held_out_of(len(data), settings["false_alarms"], torch.Generator().manual_seed(seed))
        chosen = np.setdiff1d(np.arange(len(data)), held)
        first, clusters = inference.score(detector, data), opened.clusters()
        detector.update(data.take(chosen), torch.ones(len(chosen)))
        rows = _rows(detector, data, held, first.double().numpy(), opened.scores(), clusters)
        table = pd.concat([opened.scores(), rows], ignore_index=True)
        assembly.calibrate(settings, table)
        assembly.hold_to_limit(settings, table, None)
        settings |= {
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "command": command,
            "fingerprint": _joined(settings["fingerprint"], digest_of(data)),
            # The detector has changed since it scored the test data, and those scores are not kept.
            "test_fingerprint": None,
            "n_train": settings["n_train"] + len(chosen),
            "n_held_out": settings["n_held_out"] + len(held),
            "updates": [*settings.get("updates", []), {"source": repr(as_kept(source)), "samples": len(data)}],
        }
        writer.start(settings, overwrite)
        parts = assembly.Parts(
            detector,
            data.take(chosen),
            table,
            opened.history(),
            clusters,
            seed,
            backbone=opened.backbone(),
            places=opened.places(),
            source=source,
        )

        def summarise() -> dict[str, Any]:
            with reading(opened.path / REPORT_DATA, RESTORE):
                return update_summary(opened, settings, source, problem, rows, table)

        return assembly.write_run(writer, settings, parts, summarise)


def _rows(
    detector: Detector, data: Data, held: np.ndarray, first: np.ndarray, before: pd.DataFrame, clusters: Clusters | None
) -> pd.DataFrame:
    """A row for each new sample, as in scores.parquet. `first` are the scores before the update."""
    after = inference.score(detector, data).double().numpy()
    out = np.isin(np.arange(len(data)), held)
    known = set(before["sample"])
    rounds = sum(name.startswith("+") for name in known)
    names = [f"+{rounds}/{name}" if name in known else name for name in data.names]
    found = clustering.find(embedding.embedding_of(data)).numpy() if len(data) > 2 else np.full(len(data), -1)
    rows = pd.DataFrame({"sample": names, "score": after})
    for column, values in (("trained_score", after), ("first_score", first), ("weight", np.ones(len(data)))):
        rows[column] = np.where(out, np.nan, values)
    rows["held_out"] = out
    if "calibration" in before:
        # Earlier scores are those of the fit: a larger memory can only have lowered them, so they err to the side of
        # fewer false alarms.
        rows["calibration"] = np.where(out, after, np.nan)
    if "left_out" in before:
        rows["left_out"] = False
    # Kinds are found among the new samples alone, and numbered on.
    rows["cluster"] = np.where(found < 0, -1, found + 1 + int(before["cluster"].max()))
    if clusters is not None:
        # The run's kinds stay those of its fit: what is new to them stays unknown to them.
        placed = clusters.place(data)
        rows["cluster_as_new"], rows["unknown_as_new"] = placed.nearest.numpy(), placed.unknown.numpy()
    if "group" in before:
        rows["group"] = "added"
    return rows


def _joined(first: str, second: str) -> str:
    return digest(f"{first} {second}".encode()).hex()

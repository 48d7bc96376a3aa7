"""Drift of a data set from the training data of a run: what `tailwise drift` does."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from . import calibrating, drift, findings, scoring, storage
from .errors import InputError
from .kinds import Kinds
from .problem import check_units
from .workflow import source_like, units_like

_EXAMPLES = 3


def drift_of(
    run: Path,
    data: str,
    out: Path | None = None,
    level: float = drift.LEVEL,
    skip_bad: bool = False,
    batch_size: int | None = None,
    device: str = "cpu",
) -> drift.Drift:
    """What changed from the training data of a run to `data`; see `commands.drift`."""
    if out is not None and out.suffix not in (".json", ".md"):
        raise InputError(f"drift is written as .json or .md: got {out.name}")
    if batch_size is not None and batch_size < 1:
        raise InputError(f"batch_size must be above 0: got {batch_size}")
    opened = storage.open_run(run)
    kinds, table = opened.kinds(), opened.scores()
    if kinds is None or "mode_as_new" not in table:
        raise InputError(f"{opened.path} was made before runs kept their kinds", "fit again")
    units = units_like(opened, source_like(opened, data, skip_bad))
    check_units(units, least=1)
    detector = opened.detector()
    scoring.place(detector, device)
    with torch.random.fork_rng():
        scores = scoring.score(detector, units, batch_size).double().numpy()
    placed = kinds.place(units)
    batch = drift.Sample(placed.mode.numpy(), placed.unknown.numpy(), scores, placed.along.numpy())
    if findings.crossed(table):
        calibrating.say("note: scores are not compared: the run held no units out; with --cross 0 a fit does")
    found = drift.drift(reference_of(table, kinds), batch, level=level, examples=examples_of(table))
    if out is not None:
        text = found.to_markdown() if out.suffix == ".md" else json.dumps(found.as_dict(), indent=1) + "\n"
        storage.write(out, text.encode("utf-8", "backslashreplace"))
    return found


def reference_of(table: pd.DataFrame, kinds: Kinds) -> drift.Sample:
    """What a batch is held against: training units as if they were new, with the scores of those that were held out,
    and the places that were kept. Out-of-fold scores are of other detectors than the one that scores the batch: they
    lie a little higher, which a large batch would tell, and are left out."""
    held = table["score"].where(table["held_out"].astype(bool))
    scores = held.to_numpy(dtype=float)
    places = kinds.along(len(table)).numpy()
    return drift.Sample(table["mode_as_new"].to_numpy(), table["unknown_as_new"].to_numpy(dtype=bool), scores, places)


def examples_of(table: pd.DataFrame) -> dict[int, list[str]]:
    """For each mode the names of the units whose scores are in the middle of its own."""
    examples = {}
    for mode, part in table.groupby("mode"):
        off = (part["score"] - part["score"].median()).abs().to_numpy()
        examples[int(str(mode))] = (
            part["unit"].astype(str).to_numpy()[np.argsort(off, kind="stable")][:_EXAMPLES].tolist()
        )
    return examples

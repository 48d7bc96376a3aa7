"""Drift of a data set from the training data of a run: what `tailwise drift` does."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from ..calibration import drift
from ..core import inference
from ..core.validation import check_units
from ..errors import InputError
from ..runs import files, scorer, store
from ..runs.scorer import source_like, units_like
from ..runs.table import crossed, examples_of, reference_of


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
    opened = store.open_run(run)
    kinds, table = opened.kinds(), opened.scores()
    if kinds is None or "mode_as_new" not in table:
        raise InputError(f"{opened.path} was made before runs kept their kinds", "fit again")
    units = units_like(opened, source_like(opened, data, skip_bad))
    check_units(units, least=1)
    detector = opened.detector()
    inference.place(detector, device)
    with torch.random.fork_rng():
        scores = inference.score(detector, units, batch_size).double().numpy()
    placed = kinds.place(units)
    batch = drift.Sample(placed.mode.numpy(), placed.unknown.numpy(), scores, placed.along.numpy())
    if crossed(table):
        scorer.say("note: scores are not compared: the run held no units out; with --cross 0 a fit does")
    found = drift.drift(reference_of(table, kinds), batch, level=level, examples=examples_of(table))
    if out is not None:
        text = found.to_markdown() if out.suffix == ".md" else json.dumps(found.as_dict(), indent=1) + "\n"
        files.write(out, text.encode("utf-8", "backslashreplace"))
    return found

"""Drift of a data set from the training data of a run: what `tailwise drift` does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from ..calibration import drift
from ..calibration.clusters import Clusters
from ..core import messages
from ..core.data import Data
from ..core.seeding import seeded
from ..core.validation import check_samples
from ..errors import InputError
from ..report import drift_page
from ..runs import files
from ..runs.outputs import check_file
from ..runs.plain_json import to_json
from ..runs.scorer import Run, open_run
from ..runs.table import cross_fitted, examples_of, reference_of

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
    opened = open_run(run)
    source = opened.source_like(data, skip_bad)
    if out is not None:
        check_file(out, source)
    placed_by(opened)
    samples = opened.samples(source).data
    check_samples(samples, least=1, where=data)
    with seeded(device=device):
        scores = opened.scores_of(samples, batch_size, device)
    found = since_fit(opened, samples, scores, data, level)
    if out is not None:
        text = drift_page.to_markdown(found) if out.suffix == ".md" else to_json(found.as_dict()) + "\n"
        files.write(out, text.encode("utf-8", "backslashreplace"))
    return found


def placed_by(opened: Run) -> Clusters:
    """The clusters of a run, which place new samples."""
    clusters = opened.clusters()
    if clusters is None or "cluster_as_new" not in opened.scores():
        raise InputError(f"{opened.path} keeps no clusters", "fit again, without --no-clusters")
    return clusters


def since_fit(opened: Run, samples: Data, scores: np.ndarray, where: str, level: float) -> drift.Drift:
    """What changed from the training data of an open run to samples with these scores [n]; `where` names them."""
    clusters, table = placed_by(opened), opened.scores()
    if bad := int((~np.isfinite(scores)).sum()):
        raise InputError(f"{where}: {bad} of {len(scores)} scores are no finite numbers", "leave out what lies far out")
    placed = clusters.place(samples)
    batch = drift.Population(placed.nearest.numpy(), placed.unknown.numpy(), scores, placed.along.numpy())
    if cross_fitted(table):
        messages.note(
            "scores are not compared, because the run held no samples out; fit with --cross 0 to compare them"
        )
    return drift.drift(
        reference_of(table, clusters), batch, level=level, examples=_examples(batch, samples.names, table)
    )


def _examples(batch: drift.Population, names: Sequence[str], table: pd.DataFrame) -> dict[int, list[str]]:
    """For each cluster the names of new samples in it, those unlike every training sample first, then the most usual;
    of training samples, marked so, where no new sample is in it."""
    examples = {cluster: [f"{name} (training)" for name in old] for cluster, old in examples_of(table).items()}
    for cluster in np.unique(batch.clusters).tolist():
        places = np.flatnonzero(batch.clusters == cluster)
        off = np.abs(batch.scores[places] - np.median(batch.scores[places]))
        order = np.lexsort((off, ~batch.unknown[places]))[:_EXAMPLES]
        examples[int(cluster)] = [str(names[place]) for place in places[order]]
    return examples

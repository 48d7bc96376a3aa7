"""Does data that a fit takes for normal look as if nobody vouched for it?

Many odd rows that are no rare kind say so. That is no proof. We chose the limits on generated tables; LOG.md has how
often they speak of clean ones, and what they miss. A feature that looks like labels is named by the source.
"""

from __future__ import annotations

import pandas as pd
import torch

from ..core.data import Data
from ..core.modality import ROW
from ..core.problem import OnDisk, Problem, Source
from ..report.numbers import quoted
from ..sources.memory import InMemory
from ..training import suspects
from .request import Request

# A cluster of at most this share of the samples is a rare kind, of which nothing tells whether it is normal.
_RARE = 0.1


def sentence(request: Request, problem: Problem, table: pd.DataFrame) -> str:
    """Why the training data looks unlabelled and what to do, in one line; "" where nothing says so.

    Nothing is said of samples that somebody has vouched for: with labels, a review, --keep-suspects or --refine.

    Args:
        table: a row a training sample, in order: `cluster`, as of `runs.table.Split.table`.
    """
    declared = problem.test is not None and problem.test.labels is not None
    if request.no_clusters:
        return ""  # rare kinds would count as odd
    if declared or request.reviewed or request.keep_suspects or request.refine or problem.train.modality != ROW:
        return ""
    reason = _many_odd(problem.train, table["cluster"])
    if not reason:
        return ""
    return f"looks unlabelled: {reason}. If nobody vouches for the data: {_command(request.source)}"


def _many_odd(data: Data, cluster: pd.Series) -> str:
    sizes = cluster.map(cluster.value_counts())
    rare = torch.from_numpy(((cluster >= 0) & (sizes <= _RARE * len(cluster))).to_numpy(copy=True))
    odd, looked_at = suspects.count_odd(data, rare)
    if not suspects.are_many(odd, looked_at):
        return ""
    return f"{odd} of {looked_at} rows ({odd / looked_at:.0%}) are far from the rest and in no kind of their own"


def _command(source: Source) -> str:
    if isinstance(source, InMemory):
        return "tailwise.triage(data)"
    plain = isinstance(source, OnDisk) and repr(source) == repr(type(source)(source.path))  # type: ignore[call-arg]
    return f"tailwise triage {quoted(source.path if plain else repr(source))} --out review"  # type: ignore[attr-defined]

"""Tables of scores: weights for anyone's, and a way out to CSV and parquet."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from ..core.validation import check_finite
from ..errors import InputError, did_you_mean, reading
from ..runs import files
from ..runs.outputs import check_file
from ..runs.sheets import read_csv, to_csv
from ..sources.paths import regular_file
from ..weights.default import parse_weighting
from ..weights.weighting import Context


def weigh_table(path: Path, column: str | None, weighting: str) -> pd.DataFrame:
    """A table of scores with a column of weights added; see `commands.weigh`."""
    table = _read_table(path)
    numeric = [str(name) for name in table.select_dtypes("number").columns]
    if not numeric or not len(table):
        raise InputError(f"{path} has no column of numbers", "a column of scores was needed, one row a sample")
    if column is None:
        column = "score" if "score" in numeric else numeric[0] if len(numeric) == 1 else None
    if column is None:
        raise InputError(f"{path} has {len(numeric)} numeric columns: {', '.join(numeric[:8])}", "name one by --column")
    if column not in numeric:
        raise InputError(f"{path} has no numeric column {column!r}", did_you_mean(column, numeric))
    scores = torch.tensor(table[column].to_numpy(dtype=np.float64))
    check_finite(scores, f"{path}: the scores {column!r}")
    return table.assign(weight=parse_weighting(weighting)(Context(scores, scores)).numpy())


def check_table(out: Path, *read: Any) -> None:
    """Raise an InputError where a table cannot be written under this name: before anything else is; `read` is what it
    is made from, as for `check_file`."""
    if out.suffix not in (".csv", ".parquet"):
        raise InputError(
            f"a table is written as .csv or .parquet: got {out.name}",
            "scores can also be a folder of parquet (a name without an ending), or those of a cube a map: .hdr, .mat, "
            ".npy, .tif or .zarr",
        )
    check_file(out, *read)


def write_table(table: pd.DataFrame, out: Path) -> None:
    """Write a .csv or .parquet file, whole or not at all."""
    check_table(out)
    buffer = io.BytesIO()
    if out.suffix == ".parquet":
        table.to_parquet(buffer, index=False)
    else:
        buffer.write(to_csv(table).encode())
    files.write(out, buffer.getvalue())


def _read_table(path: Path) -> pd.DataFrame:
    regular_file(path)
    with reading(path, "a CSV or parquet file with a column of scores was needed"):
        return pd.read_parquet(path.absolute()) if path.suffix == ".parquet" else read_csv(path)

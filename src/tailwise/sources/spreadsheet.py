"""The first sheet of an Excel file, whose cells are read as the fields of a text file are."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from .delimited import Writing
from .header import layout_of
from .numerals import marks_of, numeric_columns

if TYPE_CHECKING:
    import pandas as pd


def read_spreadsheet(path: Path, writing: Writing, wanted: Sequence[str] = ()) -> pd.DataFrame:
    """The rows of the first sheet, columns of numbers as numbers; see `delimited.read_delimited`.

    Raises:
        InputError: openpyxl is not installed, the file is broken, or the sheet is no table.
    """
    import pandas as pd

    if importlib.util.find_spec("openpyxl") is None:
        raise InputError(f"{path.name} needs openpyxl", "pip install 'tailwise[excel]', or save the sheet as CSV")
    with pd.ExcelFile(path, engine="openpyxl") as book:
        sheets = [str(name) for name in book.sheet_names]
        cells = pd.read_excel(book, sheets[0], header=None, dtype=object, keep_default_na=False)
    if len(sheets) > 1:
        warnings.warn(f"{path}: of {len(sheets)} sheets the first, {sheets[0]!r}, is read", stacklevel=2)
    texts = cells.map(_text)
    filled = texts != ""
    texts = texts.loc[filled.any(axis=1), filled.any(axis=0)]
    rows = texts.to_numpy().tolist()
    if len(rows) < 2:
        raise InputError(f"{path} has no rows", "the first sheet needs a row of names and rows of values")
    layout = layout_of(rows, str(path), wanted)
    if twice := [name for place, name in enumerate(layout.names) if name in layout.names[:place]]:
        raise InputError(f"{path} has two columns called {twice[0]!r}", "rename one")
    frame = pd.DataFrame(rows[layout.first :]).iloc[:, : len(layout.names)].set_axis(list(layout.names), axis=1)
    columns = {name: frame[name].tolist() for name in frame}
    marks = marks_of(columns, writing.decimal, writing.thousands, str(path), writing.usual())
    return numeric_columns(frame, marks, str(path))


def _text(cell: Any) -> str:
    return "" if cell is None or cell != cell else str(cell).strip()

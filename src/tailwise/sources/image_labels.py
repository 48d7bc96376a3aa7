"""Files beside images that may call some of them anomalies: tables of labels, and annotations of single images."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from ..errors import InputError, listed, printable
from .labels import looks_like_words
from .paths import list_files

_TABLES, _ANNOTATIONS = (".csv", ".tsv"), (".json", ".xml", ".txt")
# Tables that are looked at, and bytes of each.
_MOST_TABLES, _MOST_BYTES = 5, 20_000_000


def doubt_of_tables(root: Path, names: Sequence[str]) -> InputError | None:
    """Why these images should not all train: a table beside them calls some of them normal and others not."""
    for name in list_files(root, _TABLES)[:_MOST_TABLES]:
        column, anomalies, normals = _labels_in(root / name, names)
        if column:
            return InputError(
                f"{root}: {printable(name)} calls {anomalies} of these images anomalies and {normals} normal by its "
                f"column {column!r}, and all would train: tables of labels are not read for images",
                "sort the images into folders good and bad, or move the table away if all are normal",
            )
    return None


def doubt_of_annotations(root: Path, names: Sequence[str]) -> str:
    """A sentence where some of these images, and not all, have a file of annotations of their own; or ""."""
    beside = {name.rpartition(".")[0] for name in list_files(root, _ANNOTATIONS)}
    some = [name for name in names if name.rpartition(".")[0] in beside]
    if not 0 < len(some) < len(names):
        return ""
    return (
        f"{len(some)} of {len(names)} images in {root} have a file of annotations beside them ({listed(some, 3)}), and "
        "train as the others do: if it marks defects, move these images to a folder bad and the others to good"
    )


def _labels_in(path: Path, names: Sequence[str]) -> tuple[str, int, int]:
    """The column of a table that says which of these images are normal, how many are not, and how many are; or ""."""
    try:
        if path.stat().st_size > _MOST_BYTES:
            return "", 0, 0
        text = path.read_text(encoding="utf-8-sig")
        first = text.partition("\n")[0]
        mark = max(",;\t", key=first.count)
        header, *rows = list(csv.reader(text.splitlines(), delimiter=mark)) or [[]]
    except (OSError, ValueError, csv.Error):
        return "", 0, 0  # no table that could be read for images
    known = {form for name in names for form in _forms(name)}
    rows = [row for row in rows if len(row) == len(header)]
    columns = list(zip(*rows, strict=True)) if rows else []
    named = next((column for column in columns if sum(bool(_forms(v) & known) for v in column) > len(column) / 2), None)
    if named is None:
        return "", 0, 0
    at = [place for place, value in enumerate(named) if _forms(value) & known]
    for title, column in zip(header, columns, strict=True):
        judged = looks_like_words([column[place] for place in at], title) if column is not named else None
        if judged:
            return title, *judged
    return "", 0, 0


def _forms(name: str) -> set[str]:
    """How a table may name an image: by its path, its file's name, or that without its suffix."""
    last = name.replace("\\", "/").rpartition("/")[2].strip()
    return {last, last.rpartition(".")[0] or last} if last else set()

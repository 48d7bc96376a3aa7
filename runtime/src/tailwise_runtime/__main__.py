"""python -m tailwise_runtime model.onnx photos/ --out scores.csv. Exit status 0, or 2 for what cannot be used."""

from __future__ import annotations

import argparse
import csv
import io
import math
import re
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from . import Model, ModelError, __version__, load
from .files import check_file, replace


def main(arguments: Sequence[str] | None = None) -> int:
    """Score samples and write a table: sample, score, threshold, flagged."""
    parser = argparse.ArgumentParser(prog="tailwise-runtime", description=main.__doc__)
    parser.add_argument("model", type=Path, help="a file that tailwise export wrote")
    parser.add_argument(
        "samples",
        type=Path,
        help="a folder of pictures, or one; an .npy array [n, *sample]; or a .csv with the columns of the fit",
    )
    parser.add_argument("--out", type=Path, help="a .csv file; standard output otherwise")
    parser.add_argument(
        "--maps",
        type=Path,
        help="a folder for the map, overlay and mask of each picture; of an array an .npy file [n, height, width]",
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--version", action="version", version=__version__)
    options = parser.parse_args(arguments)
    maps = options.maps
    try:
        if options.out is not None:
            check_file(options.out, "--out", options.samples, options.model)
        model = load(options.model, options.threads)
        if model.takes_pictures and options.samples.suffix.lower() != ".npy":
            model.check_pictures()
            from . import folders

            names, scores = folders.score(model, options.samples, maps)
            _write(options.out, model, names, scores)
            return 0
        if maps is not None:
            maps = maps if maps.suffix == ".npy" else Path(f"{maps}.npy")
            check_file(maps, "--maps", options.samples)
        samples = _read(options.samples, model)
        try:
            scores = model.score(samples)
        except ModelError as error:
            raise ModelError(f"{options.samples}: {error.message}", error.hint) from error
        if maps is not None:
            buffer = io.BytesIO()
            np.save(buffer, model.maps(samples), allow_pickle=False)
            replace(maps, buffer.getvalue())
        _write(options.out, model, list(map(str, range(len(scores)))), scores)
    except ModelError as error:
        return _refused(error.message, error.hint)
    except MemoryError as error:
        return _refused(f"not enough memory: {error}", "score fewer samples at once")
    except OSError as error:
        return _refused(f"{error.filename or 'the system'}: {error.strerror or error}", "check the paths")
    return 0


def _refused(message: str, hint: str) -> int:
    # On one line each, and nothing in a name steers the terminal.
    for what, text in (("error", message), ("hint", hint)):
        shown = "".join(letter if letter.isprintable() else " " for letter in text)
        print(f"{what}: {' '.join(shown.split())}", file=sys.stderr)
    return 2


def _read(path: Path, model: Model) -> np.ndarray:
    wanted = f"give an .npy array of shape [{', '.join(map(str, ('n', *model.sample_shape)))}]"
    wanted += ", or a .csv" if model.features else ", samples as the run's source reads them"
    if path.is_dir():
        raise ModelError(f"{path} is a folder", wanted)
    if not path.is_file():
        # Reading a pipe or a device may wait for ever.
        raise ModelError(f"{path} is no regular file" if path.exists() else f"no file {path}", wanted)
    if path.suffix.lower() != ".csv":
        try:
            with path.open("rb") as file:
                loaded = np.load(file, allow_pickle=False)
        except Exception as error:  # what numpy raises on broken files is not a closed list
            raise ModelError(f"{path} is not an array of numbers: {error}", wanted) from error
        if not isinstance(loaded, np.ndarray) or loaded.dtype.kind not in "buif":
            raise ModelError(f"{path} holds something that is not numbers", wanted)
        return loaded
    if not model.features:
        raise ModelError("the model knows no names of columns", "give an .npy array")
    header, rows, sep = _table(path)
    if missing := [name for name in model.features if name not in header]:
        raise ModelError(f"{path} lacks the columns {missing}", "name the columns as those of the fit")
    places = [(name, header.index(name)) for name in model.features]
    texts = [[row[place] for _, place in places] for row in rows]
    if model.marks and model.marks[0] != sep:
        texts = _plain(texts, model.marks)
    return np.array(
        [
            [_number(text, f"row {i}, column {name} of {path}") for (name, _), text in zip(places, row, strict=True)]
            for i, row in enumerate(texts)
        ],
        dtype=np.float32,
    )


# What else people write where these stand between thousands.
_ALIKE = {" ": " \u00a0\u2009\u202f", "'": "'\u2019"}


def _plain(rows: list[list[str]], marks: str) -> list[list[str]]:
    """Numbers as Python writes them, where all of them can be read with the marks of the fit; or as they are."""
    decimal = marks[0]
    between = marks[1:] or (".", "")[decimal == "."]
    parted = rf"\d{{1,3}}(?:[{re.escape(_ALIKE.get(between, between))}]\d{{3}})+|" if between else ""
    point = re.escape(decimal)
    number = re.compile(rf"[+-]?(?:(?:{parted}\d+)(?:{point}\d*)?|{point}\d+)(?:[eE][+-]?\d+)?")
    if not all(number.fullmatch(text.strip()) for row in rows for text in row):
        return rows
    gone = {ord(mark): None for mark in _ALIKE.get(between, between)}
    return [[text.strip().translate(gone).replace(decimal, ".") for text in row] for row in rows]


def _table(path: Path) -> tuple[list[str], list[list[str]], str]:
    """The names of the columns, the rows below them, which have as many fields, and what separates these."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            first = file.readline()
            file.seek(0)
            # Where commas are decimal signs, spreadsheets part columns by semicolons.
            sep = max(",;\t", key=first.count)
            # Strict: a quote that is never closed would take the rows below it for a part of one field.
            lines = [line for line in csv.reader(file, delimiter=sep, skipinitialspace=True, strict=True) if line]
    except UnicodeDecodeError as error:
        raise ModelError(f"{path} is not text in UTF-8: {error}", "save it in UTF-8") from error
    except csv.Error as error:
        raise ModelError(
            f"{path} cannot be read as CSV: {error}", "is it another format than its name says?"
        ) from error
    if len(lines) < 2:
        raise ModelError(f"{path} has no rows", "a row of names and rows of numbers are needed")
    header, rows = _without_empty_last(lines[0], lines[1:])
    if twice := [name for place, name in enumerate(header) if name.strip() and name in header[:place]]:
        raise ModelError(f"{path} has two columns called {twice[0]!r}", "rename one")
    for i, row in enumerate(rows):
        if len(row) != len(header):
            raise ModelError(
                f"row {i} of {path} needs as many fields as the header, {len(header)}: got {len(row)}",
                "mend the row, or the header: each column has one name",
            )
    return header, rows, sep


def _without_empty_last(header: list[str], rows: list[list[str]]) -> tuple[list[str], list[list[str]]]:
    """The same where all rows, or the header, end in a separator with nothing behind it."""
    if not header[-1].strip() and all(len(row) == len(header) - 1 for row in rows):
        return header[:-1], rows
    if all(len(row) == len(header) + 1 and not row[-1].strip() for row in rows):
        return header, [row[:-1] for row in rows]
    return header, rows


def _number(text: str, where: str) -> float:
    # Python takes 1_5 for 15.
    with suppress(ValueError):
        if "_" not in text and math.isfinite(value := float(text)):
            return value
    raise ModelError(f"{where} is not a number: {text!r}", "correct it, or drop the row")


def _write(path: Path | None, model: Model, names: Sequence[str], scores: np.ndarray) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["sample", "score", "threshold", "flagged"])
    for name, score in zip(names, scores.astype(float).tolist(), strict=True):
        writer.writerow([_cell(name), repr(score), repr(model.threshold), score > model.threshold])
    if path is None:
        sys.stdout.write(text.getvalue())
    else:
        replace(path, text.getvalue().encode())


def _cell(name: str) -> str:
    """A name as the cell of a CSV file, which no spreadsheet runs and no terminal obeys."""
    if name.isprintable() and not name.startswith(tuple("=+-@'")):
        return name
    letters = name.replace("\\", "\\\\")
    shown = (letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in letters)
    return f"'{''.join(shown)}"


if __name__ == "__main__":
    sys.exit(main())

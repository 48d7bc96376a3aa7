"""python -m tailwise_runtime model.onnx samples.npy --out scores.csv. Exit status 0, or 2 for what cannot be used."""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from . import Model, ModelError, __version__, load


def main(arguments: Sequence[str] | None = None) -> int:
    """Score samples and write a table: sample, score, threshold, flagged."""
    parser = argparse.ArgumentParser(prog="tailwise-runtime", description=main.__doc__)
    parser.add_argument("model", type=Path, help="a file that tailwise export wrote")
    parser.add_argument("samples", type=Path, help="an .npy array [n, *sample], or a .csv with the columns of the fit")
    parser.add_argument("--out", type=Path, help="a .csv file; standard output otherwise")
    parser.add_argument("--maps", type=Path, help="an .npy file for the score maps [n, height, width]")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--version", action="version", version=__version__)
    options = parser.parse_args(arguments)
    try:
        model = load(options.model, options.threads)
        samples = _read(options.samples, model)
        scores = model.score(samples)
        if options.maps is not None:
            np.save(options.maps, model.maps(samples), allow_pickle=False)
        _write(options.out, model, scores)
    except (ModelError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _read(path: Path, model: Model) -> np.ndarray:
    if path.suffix.lower() != ".csv":
        try:
            return np.load(path, allow_pickle=False)
        except ValueError as error:
            raise ModelError(f"{path} is not an array of numbers: {error}") from error
    if not model.features:
        raise ModelError("the model knows no names of columns")
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            header = file.readline()
            file.seek(0)
            # Where commas are decimal signs, spreadsheets part columns by semicolons.
            rows = list(csv.DictReader(file, delimiter=max(",;\t", key=header.count)))
    except UnicodeDecodeError as error:
        raise ModelError(f"{path} is not text in UTF-8: {error}") from error
    if not rows:
        raise ModelError(f"{path} has no rows")
    if missing := [name for name in model.features if name not in rows[0]]:
        raise ModelError(f"{path} lacks the columns {missing}")
    return np.array(
        [
            [_number(row[name], f"row {i}, column {name} of {path}") for name in model.features]
            for i, row in enumerate(rows)
        ],
        dtype=np.float32,
    )


def _number(text: str | None, where: str) -> float:
    try:
        return float(text or "")
    except ValueError:
        raise ModelError(f"{where} is not a number: {text!r}") from None


def _write(path: Path | None, model: Model, scores: np.ndarray) -> None:
    lines = ["sample,score,threshold,flagged"]
    for sample, score in enumerate(scores.astype(float).tolist()):
        lines.append(f"{sample},{score!r},{model.threshold!r},{score > model.threshold}")
    text = "\n".join(lines) + "\n"
    if path is None:
        sys.stdout.write(text)
    else:
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())

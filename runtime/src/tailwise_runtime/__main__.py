"""python -m tailwise_runtime model.onnx units.npy --out scores.csv. Exit status 0, or 2 for what cannot be used."""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from . import Model, ModelError, __version__, load


def main(arguments: Sequence[str] | None = None) -> int:
    """Score units and write a table: unit, score, threshold, flagged."""
    parser = argparse.ArgumentParser(prog="tailwise-runtime", description=main.__doc__)
    parser.add_argument("model", type=Path, help="a file that tailwise export wrote")
    parser.add_argument("units", type=Path, help="an .npy array [n, *unit], or a .csv with the columns of the fit")
    parser.add_argument("--out", type=Path, help="a .csv file; standard output otherwise")
    parser.add_argument("--maps", type=Path, help="an .npy file for the score maps [n, height, width]")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--version", action="version", version=__version__)
    options = parser.parse_args(arguments)
    try:
        model = load(options.model, options.threads)
        units = _read(options.units, model)
        scores = model.score(units)
        if options.maps is not None:
            np.save(options.maps, model.maps(units), allow_pickle=False)
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
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    missing = [name for name in model.features if rows and name not in rows[0]]
    if missing or not model.features:
        raise ModelError(f"{path} lacks the columns {missing}" if missing else "the model knows no names of columns")
    try:
        return np.array([[float(row[name]) for name in model.features] for row in rows], dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise ModelError(f"{path} holds what is no number: {error}") from error


def _write(path: Path | None, model: Model, scores: np.ndarray) -> None:
    lines = ["unit,score,threshold,flagged"]
    for unit, score in enumerate(scores.astype(float).tolist()):
        lines.append(f"{unit},{score!r},{model.threshold!r},{score > model.threshold}")
    text = "\n".join(lines) + "\n"
    if path is None:
        sys.stdout.write(text)
    else:
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())

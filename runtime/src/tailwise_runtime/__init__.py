"""Scores of anomaly detectors that tailwise exported to ONNX, with onnxruntime and numpy; Pillow reads pictures."""

from __future__ import annotations

import base64
import importlib.util
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

__version__ = "0.1.0"
__all__ = ["Model", "ModelError", "load"]

# Format 2 may take pictures.
_FORMAT = 2
_EXPORT_AGAIN = "write the file again: tailwise export RUN --out model.onnx"


class ModelError(ValueError):
    """The file cannot be used, or the samples are not of its kind: what came, what was needed, and what to do next."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(f"{message} ({hint})" if hint else message)
        self.message, self.hint = message, hint


class Model:
    """An exported detector. `load` makes one.

    Attributes:
        sample_shape: the shape of a sample; samples are [n, *sample_shape]. Pictures are [height, width, channels].
        takes_pictures: whether samples are pictures (uint8), which `read` makes of files.
        features: names of the columns of a table, in their order; () for anything else or where they are not known.
        threshold: samples that score above it are flagged.
        marks: the decimal mark and what stands between thousands in the table of the fit, as in ",."; "" if not known.
        map_threshold: pixels of a map that lie above it are flagged; None where there are no maps.
        map_usual: the median pixel of normals; None where there are no maps.
        facts: what else the file says of itself, such as the detector and the versions that made it.
    """

    def __init__(self, session: onnxruntime.InferenceSession, facts: dict[str, Any]) -> None:
        self._session = session
        self._outputs = [output.name for output in session.get_outputs()]
        self.facts = facts
        self.sample_shape: tuple[int, ...] = tuple(facts["sample_shape"])
        self.features: tuple[str, ...] = tuple(facts["features"])
        self.marks: str = facts.get("marks") or ""
        self.threshold = float(facts["threshold"])
        self.map_threshold: float | None = facts["map_threshold"]
        self.map_usual: float | None = facts.get("map_usual")
        self.takes_pictures = facts.get("pictures") is not None
        self._input = "pictures" if self.takes_pictures else "samples"
        if self.takes_pictures and (len(self.sample_shape) != 3 or self.sample_shape[2] not in (1, 3)):
            raise ValueError(f"pictures are of shape {list(self.sample_shape)}")
        self._kept = (
            _array(facts.pop("fingerprint_samples")).astype(np.uint8 if self.takes_pictures else np.float32),
            _array(facts.pop("fingerprint_scores")).astype(float),
        )
        if self._kept[1].shape != self._kept[0].shape[:1] or self._kept[0].shape[1:] != self.sample_shape:
            raise ValueError(f"samples {list(self._kept[0].shape)} are stored with scores {list(self._kept[1].shape)}")

    @property
    def has_maps(self) -> bool:
        """Whether `maps` says where in a sample the anomaly is."""
        return "map" in self._outputs

    def score(self, samples: np.ndarray) -> np.ndarray:
        """Scores [n], float32, of samples [n, *sample_shape]; higher is more anomalous."""
        return self._run(("score",), samples)[0]

    def flagged(self, samples: np.ndarray) -> np.ndarray:
        """Which samples [n] score above the threshold."""
        return self._run(("flagged",), samples)[0]

    def maps(self, samples: np.ndarray) -> np.ndarray:
        """Where the score comes from [n, height, width], float32, enlarged and smoothed as the run's own maps are."""
        return self.scores_and_maps(samples)[1]

    def scores_and_maps(self, samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What `score` and `maps` give, in one pass."""
        if not self.has_maps:
            raise ModelError(f"{self.facts['detector']} was exported without maps", "score without maps")
        scores, maps = self._run(("score", "map"), samples)
        return scores, maps

    def read(self, files: Sequence[str | Path]) -> np.ndarray:
        """Pictures [n, *sample_shape] uint8 of image files, upright, resized by Pillow as the fit resized its own.

        Raises:
            ModelError: the model takes no pictures, Pillow is missing, or a file is no picture of 8 bits a channel.
        """
        self.check_pictures()
        from . import pictures

        decoded = (pictures.decode(Path(file), self.sample_shape[2]) for file in files)
        rows = [pictures.fitted(picture, self.sample_shape) for picture in decoded]
        return np.stack(rows) if rows else np.zeros((0, *self.sample_shape), np.uint8)

    def verify(self) -> float:
        """How far the scores of the stored samples are from those of the fit: the largest difference, as a share.

        A difference is a share of the score, or of the median of their magnitudes where that is larger.
        """
        samples, expected = self._kept
        found = self.score(samples).astype(float)
        size = np.maximum(np.abs(expected), np.median(np.abs(expected))).clip(1e-12)
        worst = float((np.abs(found - expected) / size).max())
        return worst if np.isfinite(worst) else float("inf")

    def batches(self, count: int) -> Iterator[slice]:
        """The parts of so many samples that are computed at once; at least one, which may be empty."""
        step = max(1, int(self.facts["batch_size"]))
        return (slice(start, min(count, start + step)) for start in range(0, max(1, count), step))

    def check_pictures(self) -> None:
        """Raise a ModelError unless the model takes pictures and Pillow is there to read them."""
        if not self.takes_pictures:
            raise ModelError("the model takes samples, not pictures", "give an array of samples as those of the fit")
        if importlib.util.find_spec("PIL") is None:
            raise ModelError("reading pictures needs Pillow", "pip install 'tailwise-runtime[pictures]'")

    def _run(self, outputs: tuple[str, ...], samples: np.ndarray) -> list[np.ndarray]:
        samples = np.asarray(samples)
        if samples.shape[1:] != self.sample_shape or samples.ndim != len(self.sample_shape) + 1:
            needed = ", ".join(["n", *map(str, self.sample_shape)])
            raise ModelError(
                f"{self._input} [{needed}] are needed: got shape {list(samples.shape)}",
                "model.read makes them of files" if self.takes_pictures else "give samples as those of the fit",
            )
        if self.takes_pictures and not len(samples):
            # A network that looks at one picture after another looks at no fewer than one.
            blank = np.zeros((1, *self.sample_shape), np.uint8)
            return [result[:0] for result in self._of_batch(outputs, blank)]
        parts = [self._of_batch(outputs, samples[part]) for part in self.batches(len(samples))]
        return [each[0] if len(each) == 1 else np.concatenate(each) for each in zip(*parts, strict=True)]

    def _of_batch(self, outputs: tuple[str, ...], samples: np.ndarray) -> list[np.ndarray]:
        part = self._checked(samples)
        # Maps are smoothed only where they are asked for.
        given = {self._input: part, **({"with_map": np.array("map" in outputs)} if self.has_maps else {})}
        try:
            results = [np.asarray(result) for result in self._session.run(list(outputs), given)]
        except Exception as error:  # its errors share no class but this
            raise ModelError(f"the model cannot score: {error}", _EXPORT_AGAIN) from error
        for output, result in zip(outputs, results, strict=True):
            axes = 3 if output == "map" else 1
            if result.ndim != axes or len(result) != len(part) or result.dtype.kind not in "fb":
                raise ModelError(
                    f"the model gives {result.dtype} of shape {list(result.shape)} as {output}", _EXPORT_AGAIN
                )
        return results

    def _checked(self, samples: np.ndarray) -> np.ndarray:
        if self.takes_pictures:
            if samples.dtype != np.uint8:
                raise ModelError(f"pictures are bytes (uint8): got {samples.dtype}", "model.read makes them of files")
            return np.ascontiguousarray(samples)
        try:
            with np.errstate(over="ignore"):  # what float32 cannot hold is infinite, and refused below
                part = np.ascontiguousarray(samples, dtype=np.float32)
        except (TypeError, ValueError) as error:
            raise ModelError(f"samples are not numbers: {error}", "give an array of numbers") from error
        if not np.isfinite(part).all():
            raise ModelError("a sample holds NaN or infinity", "fill or drop missing values first")
        return part


def load(path: str | Path, threads: int = 1, check: bool = True) -> Model:
    """Open a file that `tailwise export` wrote.

    Args:
        path: the .onnx file.
        threads: how many the computation may use.
        check: score the stored samples, and refuse the file if any score is not the one of the fit.

    Raises:
        ModelError: the file cannot be read, no tailwise wrote it, or its scores differ here.
    """
    path = Path(path)
    if not path.is_file():
        raise ModelError(f"no file {path}", "give the .onnx file that tailwise export wrote")
    if not 0 < threads < 1 << 10:
        raise ModelError(f"threads must be from 1 to 1023: got {threads}", "leave it out")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.enable_mem_pattern = False  # of no use where every batch may have another size
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors share no class but this
        raise ModelError(f"{path} cannot be opened as ONNX: {error}", _EXPORT_AGAIN) from error
    facts = _facts(path, session)
    try:
        model = Model(session, facts)
    except (ValueError, TypeError, KeyError, AttributeError) as error:  # the metadata are whatever their writer likes
        raise ModelError(f"{path} holds facts that cannot be: {error}", _EXPORT_AGAIN) from error
    if check:
        worst = model.verify()
        if worst > model.facts["tolerance"]:
            raise ModelError(
                f"{path} gives other scores here than when it was made, by up to {100 * worst:.2g} %: its threshold "
                f"may not hold (made with {model.facts['versions']}, this is onnxruntime {onnxruntime.__version__})",
                "load it with check=False to look at it",
            )
    return model


def _facts(path: Path, session: onnxruntime.InferenceSession) -> dict[str, Any]:
    try:
        facts = json.loads(session.get_modelmeta().custom_metadata_map.get("tailwise") or "")
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path} was not written by tailwise export: it lacks its facts", _EXPORT_AGAIN) from error
    known = facts.get("format") if isinstance(facts, dict) else None
    if type(known) is int and known > _FORMAT:
        raise ModelError(f"{path} was written by tailwise {facts.get('tailwise')}", "upgrade tailwise-runtime")
    wrong = [name for name, fits in _NEEDED.items() if not fits(facts.get(name))] if known else ["format"]
    if wrong:
        raise ModelError(f"{path} lacks a usable {', '.join(wrong)}", _EXPORT_AGAIN)
    return facts


def _is_number(value: Any) -> bool:
    # Compared, because a whole number of JSON may be larger than any float; NaN is below nothing.
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e300


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 < value < 1 << 31


def _is_list(value: Any, fits: Callable[[Any], bool]) -> bool:
    return isinstance(value, list) and all(map(fits, value))


# What each fact must be. Whoever hands over a file can write anything into it.
_NEEDED: dict[str, Callable[[Any], bool]] = {
    "format": _is_count,
    "sample_shape": lambda value: _is_list(value, _is_count) and bool(value),
    "features": lambda value: _is_list(value, lambda name: isinstance(name, str)),
    "threshold": _is_number,
    "map_threshold": lambda value: value is None or _is_number(value),
    "map_usual": lambda value: value is None or _is_number(value),
    "pictures": lambda value: value is None or value == {"resize": "bilinear"},
    "marks": lambda value: value is None or (isinstance(value, str) and len(value) <= 2),
    "batch_size": _is_count,
    "tolerance": lambda value: _is_number(value) and 0 < value < 1,
    "detector": lambda value: isinstance(value, str),
    "versions": lambda value: isinstance(value, dict),
    "fingerprint_samples": lambda value: isinstance(value, dict),
    "fingerprint_scores": lambda value: isinstance(value, dict),
}


def _array(value: dict[str, Any]) -> np.ndarray:
    if value.get("type") not in ("<f2", "<f4", "<f8", "|u1") or not _is_list(value.get("shape"), _is_count):
        raise ValueError(f"a stored array is of type {value.get('type')!r} and shape {value.get('shape')!r}")
    return np.frombuffer(base64.b64decode(value["base64"]), value["type"]).reshape(value["shape"])

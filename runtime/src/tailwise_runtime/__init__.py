"""Scores of anomaly detectors that tailwise exported to ONNX, with onnxruntime and numpy alone."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

__version__ = "0.1.0"
__all__ = ["Model", "ModelError", "load"]

_FORMAT = 1
_INPUT = "samples"
_EXPORT_AGAIN = "write the file again: tailwise export RUN --out model.onnx"


class ModelError(ValueError):
    """The file cannot be used, or the samples are not of its kind: what came, what was needed, and what to do next."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(f"{message} ({hint})" if hint else message)
        self.message, self.hint = message, hint


class Model:
    """An exported detector. `load` makes one.

    Attributes:
        sample_shape: the shape of a sample; samples are [n, *sample_shape].
        features: names of the columns of a table, in their order; () for anything else or where they are not known.
        threshold: samples that score above it are flagged.
        map_threshold: pixels of a map that lie above it are flagged; None where there are no maps.
        facts: what else the file says of itself, such as the detector and the versions that made it.
    """

    def __init__(self, session: onnxruntime.InferenceSession, facts: dict[str, Any]) -> None:
        self._session = session
        self._outputs = [output.name for output in session.get_outputs()]
        self.facts = facts
        self.sample_shape: tuple[int, ...] = tuple(facts["sample_shape"])
        self.features: tuple[str, ...] = tuple(facts["features"])
        self.threshold = float(facts["threshold"])
        self.map_threshold: float | None = facts["map_threshold"]
        self._kept = (
            _array(facts.pop("fingerprint_samples")).astype(np.float32),
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
        return self._run("score", samples)

    def flagged(self, samples: np.ndarray) -> np.ndarray:
        """Which samples [n] score above the threshold."""
        return self._run("flagged", samples)

    def maps(self, samples: np.ndarray) -> np.ndarray:
        """Where the score comes from [n, height, width], float32, enlarged and smoothed as the run's own maps are."""
        if not self.has_maps:
            raise ModelError(f"{self.facts['detector']} was exported without maps", "score without maps")
        return self._run("map", samples)

    def verify(self) -> float:
        """How far the scores of the stored samples are from those of the fit: the largest difference, as a share.

        A difference is a share of the score, or of the median of their magnitudes where that is larger.
        """
        samples, expected = self._kept
        found = self.score(samples).astype(float)
        size = np.maximum(np.abs(expected), np.median(np.abs(expected))).clip(1e-12)
        worst = float((np.abs(found - expected) / size).max())
        return worst if np.isfinite(worst) else float("inf")

    def _run(self, output: str, samples: np.ndarray) -> np.ndarray:
        samples = np.asarray(samples)
        if samples.shape[1:] != self.sample_shape or samples.ndim != len(self.sample_shape) + 1:
            needed = ", ".join(["n", *map(str, self.sample_shape)])
            raise ModelError(
                f"samples [{needed}] are needed: got shape {list(samples.shape)}", "give samples as those of the fit"
            )
        step = max(1, int(self.facts["batch_size"]))
        parts = [
            self._of_batch(output, samples[start : start + step]) for start in range(0, max(1, len(samples)), step)
        ]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _of_batch(self, output: str, samples: np.ndarray) -> np.ndarray:
        try:
            with np.errstate(over="ignore"):  # what float32 cannot hold is infinite, and refused below
                part = np.ascontiguousarray(samples, dtype=np.float32)
        except (TypeError, ValueError) as error:
            raise ModelError(f"samples are not numbers: {error}", "give an array of numbers") from error
        if not np.isfinite(part).all():
            raise ModelError("a sample holds NaN or infinity", "fill or drop missing values first")
        # Maps are smoothed only where they are asked for.
        given = {_INPUT: part, **({"with_map": np.array(output == "map")} if self.has_maps else {})}
        try:
            result = np.asarray(self._session.run([output], given)[0])
        except Exception as error:  # its errors share no class but this
            raise ModelError(f"the model cannot score: {error}", _EXPORT_AGAIN) from error
        axes = 3 if output == "map" else 1
        if result.ndim != axes or len(result) != len(part) or result.dtype.kind not in "fb":
            raise ModelError(f"the model gives {result.dtype} of shape {list(result.shape)} as {output}", _EXPORT_AGAIN)
        return result


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
    "batch_size": _is_count,
    "tolerance": lambda value: _is_number(value) and 0 < value < 1,
    "detector": lambda value: isinstance(value, str),
    "versions": lambda value: isinstance(value, dict),
    "fingerprint_samples": lambda value: isinstance(value, dict),
    "fingerprint_scores": lambda value: isinstance(value, dict),
}


def _array(value: dict[str, Any]) -> np.ndarray:
    if value.get("type") not in ("<f2", "<f4", "<f8") or not _is_list(value.get("shape"), _is_count):
        raise ValueError(f"a stored array is of type {value.get('type')!r} and shape {value.get('shape')!r}")
    return np.frombuffer(base64.b64decode(value["base64"]), value["type"]).reshape(value["shape"])

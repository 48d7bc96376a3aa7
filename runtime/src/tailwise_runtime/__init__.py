"""Scores of anomaly detectors that tailwise exported to ONNX, with onnxruntime and numpy alone."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

__version__ = "0.1.0"
__all__ = ["Model", "ModelError", "load"]

_FORMAT = 1
_INPUT = "samples"


class ModelError(ValueError):
    """The file cannot be used, or the samples are not of its kind: what came, and what was needed."""


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
        self._kept = (
            _array(facts.pop("fingerprint_samples")).astype(np.float32),
            _array(facts.pop("fingerprint_scores")),
        )
        self.facts = facts
        self.sample_shape: tuple[int, ...] = tuple(facts["sample_shape"])
        self.features: tuple[str, ...] = tuple(map(str, facts["features"]))
        self.threshold = float(facts["threshold"])
        self.map_threshold: float | None = facts["map_threshold"]

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
            raise ModelError(f"{self.facts['detector']} was exported without maps")
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
            raise ModelError(f"samples [{needed}] are needed: got shape {list(samples.shape)}")
        step = max(1, int(self.facts["batch_size"]))
        parts = [
            self._of_batch(output, samples[start : start + step]) for start in range(0, max(1, len(samples)), step)
        ]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _of_batch(self, output: str, samples: np.ndarray) -> np.ndarray:
        try:
            part = np.ascontiguousarray(samples, dtype=np.float32)
        except (TypeError, ValueError) as error:
            raise ModelError(f"samples are not numbers: {error}") from error
        if not np.isfinite(part).all():
            raise ModelError("a sample holds NaN or infinity: fill or drop missing values first")
        # Maps are smoothed only where they are asked for.
        given = {_INPUT: part, **({"with_map": np.array(output == "map")} if self.has_maps else {})}
        return self._session.run([output], given)[0]


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
        raise ModelError(f"no file {path}")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.enable_mem_pattern = False  # of no use where every batch may have another size
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors share no class but this
        raise ModelError(f"{path} cannot be opened as ONNX: {error}") from error
    model = Model(session, _facts(path, session))
    if check:
        worst = model.verify()
        if worst > model.facts["tolerance"]:
            raise ModelError(
                f"{path} gives other scores here than when it was made, by up to {100 * worst:.2g} %: its threshold "
                f"may not hold (made with {model.facts['versions']}, this is onnxruntime {onnxruntime.__version__}); "
                "load it with check=False to look at it"
            )
    return model


def _facts(path: Path, session: onnxruntime.InferenceSession) -> dict[str, Any]:
    text = session.get_modelmeta().custom_metadata_map.get("tailwise")
    try:
        facts = json.loads(text or "")
        known = facts["format"]
    except (ValueError, TypeError, KeyError) as error:
        raise ModelError(f"{path} was not written by tailwise export: it lacks its facts") from error
    if known > _FORMAT:
        raise ModelError(f"{path} was written by tailwise {facts.get('tailwise')}: upgrade tailwise-runtime")
    return facts


def _array(value: dict[str, Any]) -> np.ndarray:
    return np.frombuffer(base64.b64decode(value["base64"]), value["type"]).reshape(value["shape"])

"""Anomaly detection when the normal data is real: long-tailed, contaminated, shifted.

Names are imported when they are first used, so that `tailwise --help` does not wait for torch.
"""

from importlib import import_module as _import_module

__version__ = "0.1.0"
_HOMES = {
    "importance_weights": "weights.default",
    "Weighting": "weights.weighting",
    "weighted_mean": "weights.weighting",
    "effective_sample_size": "weights.weighting",
    "ImportanceWeightedLoss": "weights.loss",
    "Data": "core.data",
    "Problem": "core.problem",
    "Labelled": "core.problem",
    "Detector": "core.detector",
    "fit": "cli.commands",
    "triage": "cli.commands",
    "adapt": "cli.commands",
    "Training": "training.options",
    "Reweighted": "integrations.scikit_learn",
    "AnomalyDetector": "integrations.scikit_learn",
    "AsPyOD": "integrations.pyod",
    "open_source": "sources.auto",
    "open_run": "runs.scorer",
    "InputError": "errors",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'tailwise' has no attribute {name!r}")
    return getattr(_import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return __all__

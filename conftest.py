"""Modules that need an extra which is not installed have no doctests to run."""

import importlib.util

_SERVES = ("integrations/http", "integrations/service_metrics", "workflows/serve", "workflows/served_run")
_PACKAGES = ("starlette", "uvicorn", "prometheus_client")

collect_ignore = []
if not all(importlib.util.find_spec(name) for name in _PACKAGES):
    collect_ignore = [f"src/tailwise/{name}.py" for name in _SERVES]

"""Scripts are loaded in one way, and tests keep features in a folder of their own, never in the user's cache."""

import atexit
import importlib.util
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

_FOLDER = tempfile.TemporaryDirectory(prefix="tailwise-tests-")
atexit.register(_FOLDER.cleanup)
os.environ["TAILWISE_CACHE"] = _FOLDER.name


@pytest.fixture(scope="session")
def module_of() -> Callable[[Path], ModuleType]:
    """The module that a file is, whether or not it belongs to a package."""

    def loaded(path: Path) -> ModuleType:
        spec = importlib.util.spec_from_file_location(f"loaded_{path.stem}", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
        return module

    return loaded

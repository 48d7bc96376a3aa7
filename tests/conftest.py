"""Tests keep features in a folder of their own, never in the user's cache."""

import os
import tempfile

_FOLDER = tempfile.TemporaryDirectory(prefix="tailwise-tests-")
os.environ["TAILWISE_CACHE"] = _FOLDER.name

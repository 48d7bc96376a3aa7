"""Every example runs by itself and prints what it says it prints."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("[0-9][0-9]_*.py"))
NUMBER = re.compile(r"\d+\.\d+")
# Sums are taken in another order on another processor, and training carries that on.
TOLERANCE = 0.1
# Examples that meet a package which is not in requirements.lock.
NEEDS = {"04_pyod": "pyod"}


def expected_output(text):
    return [line.removeprefix("# ") for line in text.rpartition("# Expected output:\n")[2].splitlines()]


def test_there_are_examples():
    assert len(EXAMPLES) >= 3


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_short_and_prints_what_it_says(path, tmp_path):
    text = path.read_text(encoding="utf-8")
    if (needed := NEEDS.get(path.stem)) and importlib.util.find_spec(needed) is None:
        pytest.skip(f"{path.name} needs {needed}")
    assert len(text.splitlines()) < 60
    settings = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "error"}
    done = subprocess.run(
        [sys.executable, path], cwd=tmp_path, env=settings, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    printed, expected = done.stdout.splitlines(), expected_output(text)
    assert [NUMBER.sub("#", line) for line in printed] == [NUMBER.sub("#", line) for line in expected]
    for found, said in zip(NUMBER.findall(done.stdout), NUMBER.findall("\n".join(expected)), strict=True):
        assert float(found) == pytest.approx(float(said), abs=TOLERANCE)
    assert not list(tmp_path.iterdir())

"""The guide's Python runs as it stands, and its commands are commands."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tailwise.cli import main

GUIDE = (Path(__file__).parents[1] / "docs" / "guide.md").read_text(encoding="utf-8")
COMMANDS = [line.replace("\\\n", "") for line in re.findall(r"^    (tailwise (?:.*\\\n)?.*)$", GUIDE, re.MULTILINE)]


def test_the_python_of_the_guide_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    generator = np.random.default_rng(0)
    parts = pd.DataFrame(generator.normal(size=(150, 3)), columns=["width", "height", "mass"])
    parts.to_csv("new_parts.csv", index=False)
    parts.assign(board=np.arange(150) % 3, note="ok").to_csv("parts.csv", index=False)
    names: dict[str, object] = {}
    for block in re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL):
        exec(block, names)
    assert (tmp_path / "runs" / "python" / "report.html").is_file()


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_of_the_guide_takes_its_options(line: str) -> None:
    _, name, *_ = words = shlex.split(line)
    command, bound, _ = main.app.parse_args(words[1:], exit_on_error=False, print_error=False)
    assert command.__name__ == name
    assert bound.arguments


def test_the_guide_has_commands() -> None:
    assert len(COMMANDS) > 10

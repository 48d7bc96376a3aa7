"""The smoke profile of benchmarks/attack_run.py: runs that were made to attack, handed to every command."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "attack_run.py"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="commands are run in forks")
def test_nothing_of_a_run_that_was_made_to_attack_acts(tmp_path: Path) -> None:
    some = ["--every", "211", "--most", "1", "--seconds", "60"]
    command = [sys.executable, str(SCRIPT), str(tmp_path / "scratch"), *some]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    *_, last, taken = done.stdout.strip().splitlines()
    kind, attacks, commands, refused, ended, *faults = last.split()
    assert kind == "all"
    assert int(attacks) >= 30
    assert int(commands) == int(attacks) == int(refused) + int(ended)
    assert set(faults) == {"0"}
    assert "attacks" in taken

"""The page "Put it in the line": its shell is run in order, its files are what their readers take."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tailwise.cli import main

PAGE = (Path(__file__).parents[1] / "docs" / "put-it-in-the-line.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


@pytest.mark.skipif(not all(map(shutil.which, ("bash", "curl"))), reason="bash and curl run the page's commands")
def test_the_commands_of_the_page_do_what_it_says(tmp_path: Path) -> None:
    pytest.importorskip("starlette", reason="needs tailwise[serve]")
    random = np.random.default_rng(0)
    for name, count in (("parts", 300), ("new_parts", 40)):
        values = random.normal(size=(count, 3))
        pd.DataFrame(values, columns=["width", "height", "mass"]).to_csv(tmp_path / f"{name}.csv", index=False)
    shim = tmp_path / "bin" / "tailwise"
    shim.parent.mkdir()
    shim.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m tailwise "$@"\n')
    shim.chmod(0o755)
    script = "".join(blocks("sh")).replace("8008", str(free_port()))
    # The service must not outlive a command that fails.
    script = f"set -eum\ntrap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n{script}"
    environment = os.environ | {"PATH": f"{shim.parent}:{os.environ['PATH']}", "no_proxy": "127.0.0.1"}
    done = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr + done.stdout
    assert '"status":"ok"' in done.stdout
    seals = re.findall(r'"name":"parts","fingerprint":"(\w+)"', done.stdout)
    assert len(seals) == 2
    assert seals[0] != seals[1]
    assert re.search(r'"samples":\[\{"sample":"0".*"flagged":true', done.stdout)
    assert len(pd.read_csv(tmp_path / "scores.csv")) == 40
    assert "tailwise_samples_total{" in done.stdout


def _in_files() -> list[str]:
    """Commands of the container file, the units and the prose."""
    found = [" ".join(re.findall(r'"([^"]*)"', line)) for line in re.findall(r"^ENTRYPOINT (.*)$", PAGE, re.M)]
    found += [line.partition("bin/")[2] for line in re.findall(r"^ExecStart=(.*)$", PAGE, re.M)]
    return found + re.findall(r"`(tailwise (?:fit|update) [^`]*--reviewed[^`]*)`", PAGE)


@pytest.mark.parametrize("line", _in_files())
def test_a_command_takes_its_options(line: str) -> None:
    words = shlex.split(line)
    if "--out" not in words and words[1] == "fit":
        words += ["--out", "run"]
    command, bound, _ = main.app.parse_args(words[1:], exit_on_error=False, print_error=False)
    assert command.__name__ == words[1]
    assert bound.arguments


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze reads units")
@pytest.mark.parametrize("unit", range(2))
def test_systemd_understands_the_units(unit: int, tmp_path: Path) -> None:
    text = blocks("ini")[unit].replace("/opt/tailwise/bin/tailwise", sys.executable)
    (tmp_path / "tailwise.service").write_text(text)
    command = ["systemd-analyze", "verify", "--man=no", str(tmp_path / "tailwise.service")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    about = [line for line in done.stderr.splitlines() if "tailwise.service" in line]
    assert about == []


def test_the_container_file_has_what_it_copies() -> None:
    (text,) = blocks("dockerfile")
    words = [line.split()[0] for line in text.splitlines() if not line.startswith(" ")]
    assert words[0] == "FROM"
    assert set(words) <= {"FROM", "RUN", "COPY", "USER", "ENV", "EXPOSE", "HEALTHCHECK", "ENTRYPOINT"}
    copied = re.search(r"^COPY (\S+) (\S+)$", text, re.M)
    assert copied is not None
    assert copied[2] in text.partition("ENTRYPOINT")[2]
    assert f"ln -s parts-1 {copied[1]}" in PAGE

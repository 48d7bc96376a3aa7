"""A run whose detector comes from a module of the user opens where that is imported, never by the run itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

MODULE = '''
import torch
from tailwise.core.detector import Detector
from tailwise.core.modality import ROW
from tailwise.core.registry import register

open("imported.txt", "w").close()


@register("detector", "far")
class Far(Detector):
    """Squared distance to the mean."""

    modalities = (ROW,)

    def build(self, sample_shape):
        self.register_buffer("mean", torch.zeros(sample_shape))

    def solve(self, data, w):
        self.mean = ((w / w.sum())[:, None] * data.read(torch.arange(len(data)))).sum(0)

    def score(self, batch):
        return (batch.samples - self.mean).square().sum(1)
'''


def tailwise(folder: Path, *words: str, modules: str = "") -> subprocess.CompletedProcess[str]:
    settings = {**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path, str(folder)]), "TAILWISE_IMPORT": modules}
    return subprocess.run(
        [sys.executable, "-m", "tailwise", *words],
        cwd=folder,
        env=settings,
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("own")
    (place / "my_detectors.py").write_text(MODULE, encoding="utf-8")
    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(80, 3)), columns=list("abc"))
    frame.to_csv(place / "rows.csv", index=False)
    fitted = tailwise(place, "fit", "rows.csv", "--detector", "far", "--out", "run", modules="my_detectors")
    assert fitted.returncode == 0, fitted.stderr
    assert "Far comes from the module my_detectors" in fitted.stderr
    assert "TAILWISE_IMPORT" in fitted.stderr
    return place


@pytest.mark.parametrize("command", [["score", "run", "rows.csv"], ["explain", "run"], ["verify", "run"]])
def test_it_opens_where_the_user_names_the_module(folder: Path, command: list[str]) -> None:
    done = tailwise(folder, *command, modules="my_detectors")
    assert done.returncode == 0, done.stderr


def test_without_it_nothing_is_imported_and_the_way_on_is_told(folder: Path) -> None:
    (folder / "imported.txt").unlink()
    done = tailwise(folder, "score", "run", "rows.csv")
    assert done.returncode == 2
    assert "no detector is called 'Far'" in done.stderr
    assert "TAILWISE_IMPORT" in done.stderr
    assert not (folder / "imported.txt").exists()
    assert "my_detectors" not in json.dumps(json.loads((folder / "run" / "settings.json").read_text()))


def test_a_module_that_cannot_be_imported_is_named(folder: Path) -> None:
    done = tailwise(folder, "score", "run", "rows.csv", modules="no_such_module")
    assert done.returncode == 2
    assert "TAILWISE_IMPORT names 'no_such_module'" in done.stderr

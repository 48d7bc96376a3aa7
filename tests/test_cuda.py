"""What is fitted, scored and weighed on a CUDA device is what a CPU gives; without one these tests are skipped."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import torch

import tailwise
from tailwise.cli.main import run as cli
from tailwise.core import inference, registry
from tailwise.core.detector import Mapping2d, Trainable
from tailwise.core.modality import IMAGE, ROW, SPECTRUM, Modality
from tailwise.runs.files import tensor_bytes
from tailwise.testing import Case
from tailwise.training.fit import fit
from tailwise.training.local_scores import AUTO, wrapped
from tailwise.training.options import Training
from tailwise.weights.default import parse_weighting
from tailwise.weights.loss import ImportanceWeightedLoss

DEVICE = "cuda"
pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device is at hand")

# Feature maps are computed as images are.
SHAPES = {ROW: (12,), SPECTRUM: (1, 20), IMAGE: (2, 12, 10)}
CASES = [
    pytest.param(name, modality, id=f"{name}-{modality.name}")
    for name in registry.entries("detector")
    for modality in registry.find("detector", name).modalities
    if modality in SHAPES
]
# Sums in another order, and the fast inverse square roots of a GPU.
TOLERANCE = 2e-3


def alike(found: torch.Tensor | np.ndarray, expected: torch.Tensor | np.ndarray) -> None:
    """Equal up to rounding, relative to the largest."""
    found, expected = np.asarray(found, dtype=float), np.asarray(expected, dtype=float)
    assert found.shape == expected.shape
    assert np.isfinite(found).all()
    assert np.abs(found - expected).max() <= TOLERANCE * max(1e-12, np.abs(expected).max())


@pytest.mark.parametrize(("name", "modality"), CASES)
def test_a_detector_fitted_there_scores_as_on_a_cpu(name: str, modality: Modality) -> None:
    case = Case(registry.find("detector", name).for_contracts, SHAPES[modality], modality)
    data, fresh = case.data(), case.data(20, seed=7)
    detector = case.make()
    weighting = parse_weighting("" if detector.ignores_weights else "Importance()")
    training = Training(epochs=4, device=DEVICE)
    outcome = fit(detector, data, weighting, training, anomalies=case.anomalies(detector))
    assert inference.device_of(detector).type == DEVICE
    assert outcome.scores.device.type == outcome.weights.device.type == "cpu"
    scores = inference.score(detector, fresh)
    mapping = isinstance(detector, Mapping2d) and detector.has_maps
    maps = inference.over_batches(detector, fresh, detector.score_map) if mapping else None
    state = safetensors.torch.load(tensor_bytes(detector.state_dict(), {}))
    again = case.make()
    again.restore(data.sample_shape, state, data.modality)
    alike(scores, inference.score(again.eval(), fresh))
    if maps is not None:
        gaps = (maps - inference.over_batches(again, fresh, again.score_map)).abs() / maps.abs().max()
        # Convolutions there round to ten bits, and where that takes a unit across zero a map of gradients jumps by a
        # few hundredths, as it does on a CPU when samples change by a thousandth: a few images may differ.
        assert float(gaps.flatten(1).amax(1).quantile(0.8)) <= TOLERANCE


@pytest.mark.parametrize(("name", "modality"), CASES)
def test_local_scores_there_are_those_of_a_cpu(name: str, modality: Modality) -> None:
    case = Case(registry.find("detector", name).for_contracts, SHAPES[modality], modality)
    if case.make().needs_context:
        pytest.skip("samples with surroundings have no local scores")
    data, fresh = case.data(), case.data(20, seed=7)
    trained = case.make()
    fit(trained, data, training=Training(epochs=4, device=DEVICE), anomalies=case.anomalies(trained))
    scored = AUTO.fit(trained, data).eval()
    again = wrapped(case.make(), "auto")
    again.restore(data.sample_shape, safetensors.torch.load(tensor_bytes(scored.state_dict(), {})), data.modality)
    alike(inference.score(scored, fresh), inference.score(again.eval(), fresh))


@pytest.mark.parametrize(("name", "modality"), CASES)
def test_mixed_precision_learns_there(name: str, modality: Modality) -> None:
    case = Case(registry.find("detector", name).for_contracts, SHAPES[modality], modality)
    if not isinstance(case.make(), Trainable):
        pytest.skip("it takes no steps")
    data = case.data()
    detector = case.make()
    training = Training(epochs=20, device=DEVICE, mixed_precision=True)
    outcome = fit(detector, data, training=training, anomalies=case.anomalies(detector))
    assert torch.isfinite(outcome.scores).all()


def test_a_fit_on_a_cpu_leaves_the_device_asleep() -> None:
    code = (
        "import numpy as np, tailwise, torch\n"
        "x = np.random.default_rng(0).normal(size=(60, 3)).astype('f4')\n"
        "tailwise.fit(x, detector='autoencoder', training=tailwise.Training(epochs=2))\n"
        "assert not torch.cuda.is_initialized()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_weights_in_ones_own_loop_there() -> None:
    criterion = ImportanceWeightedLoss(buffer=64, warmup=64).to(DEVICE)
    generator = torch.Generator().manual_seed(0)
    for _ in range(4):
        losses = torch.rand(32, generator=generator).exp().to(DEVICE).requires_grad_()
        loss = criterion(losses)
        loss.backward()
    assert loss.device.type == DEVICE
    weights = criterion._weights(losses.detach(), None)
    on_cpu = criterion.cpu()._weights(losses.detach().cpu(), None)
    alike(weights.cpu(), on_cpu)


def table(path: Path, seed: int) -> str:
    """Rows of two kinds, one of them rare."""
    generator = np.random.default_rng(seed)
    rows = generator.normal(size=(300, 6)) + 6 * (np.arange(300) % 10 == 0)[:, None]
    pd.DataFrame(rows, columns=list("abcdef")).to_csv(path, index=False)
    return str(path)


@pytest.mark.parametrize("detector", ["auto", "autoencoder", "nearest-neighbours"])
def test_commands_there_give_what_they_give_on_a_cpu(detector: str, tmp_path: Path) -> None:
    run, normal, later = tmp_path / "run", table(tmp_path / "normal.csv", 0), table(tmp_path / "later.csv", 1)
    assert cli(["fit", normal, "--out", str(run), "--detector", detector, "--device", DEVICE]) == 0
    scores = []
    for device in (DEVICE, "cpu"):
        out = tmp_path / f"{device}.csv"
        assert cli(["score", str(run), later, "--out", str(out), "--device", device]) == 0
        scores.append(pd.read_csv(out))
    alike(scores[0]["score"], scores[1]["score"])
    assert (scores[0]["flagged"] == scores[1]["flagged"]).mean() > 0.99
    assert cli(["drift", str(run), later, "--device", DEVICE]) in (0, 1)


def test_pictures_there_give_what_they_give_on_a_cpu(tmp_path: Path) -> None:
    from PIL import Image

    generator = np.random.default_rng(0)
    folder = tmp_path / "good"
    folder.mkdir()
    for number in range(24):
        values = generator.normal(120, 12, (64, 80, 3)).clip(0, 255).astype(np.uint8)
        Image.fromarray(values).save(folder / f"{number:02}.png")
    run = tmp_path / "run"
    assert cli(["fit", str(folder), "--out", str(run), "--device", DEVICE]) == 0
    opened = tailwise.open_run(run)
    on_gpu, on_cpu = (opened.score(str(folder), device=device)["score"] for device in (DEVICE, "cpu"))
    alike(on_gpu, on_cpu)

"""Exported files against torch on one thread: seconds of import, and throughput of every detector; JSON lines.

python benchmarks/export_speed.py [--repeats 5] [--samples 512] [--training 2000] [--dims 1 2 3] [NAME ...]

The loader's import is that of tailwise-runtime in a fresh process, beside those of numpy and torch. For throughput each
registered detector is fitted for an epoch on generated rows, spectra and images, with its own scores and with local
ones, exported, and both are given the same fresh samples in turn; `ratio` is torch's time over the file's, and
`largest_difference` that between their scores, as a share of the score. A detector without a file says why.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

import timing  # sets the number of threads: first

import torch  # isort: skip

from tailwise.core import inference, registry
from tailwise.core.data import Data
from tailwise.core.detector import Detector
from tailwise.core.modality import FEATURE_MAP, IMAGE, ROW, SPECTRUM, Modality
from tailwise.errors import InputError
from tailwise.integrations import onnx
from tailwise.runs import fingerprint
from tailwise.testing import Case
from tailwise.training import local_scores
from tailwise.training.fit import fit
from tailwise.training.options import Training

RUNTIME = Path(__file__).parents[1] / "runtime" / "src"
sys.path.insert(0, str(RUNTIME))
import tailwise_runtime  # noqa: E402

SHAPES = {ROW: (20,), SPECTRUM: (1, 100), IMAGE: (3, 64, 64), FEATURE_MAP: (32, 28, 28)}


def measure_import(repeats: int) -> None:
    def fresh(statement: str) -> None:
        code = f"import sys; sys.path.insert(0, {str(RUNTIME)!r}); {statement}"
        subprocess.run([sys.executable, "-c", code], check=True)

    statements = {
        "tailwise_runtime": "import tailwise_runtime; assert 'torch' not in sys.modules",
        "numpy": "import numpy",
        "torch": "import torch",
        "nothing": "",
    }
    jobs = {name: partial(fresh, statement) for name, statement in statements.items()}
    timing.show("export_import", timing.interleaved(jobs, repeats), ("tailwise_runtime", "torch"))


def measure(name: str, modality: Modality, rule: local_scores.LocalScores | None, options: argparse.Namespace) -> None:
    member = registry.find("detector", name)
    case = Case(member, SHAPES[modality], modality)
    facts = {"detector": name, "samples": list(SHAPES[modality]), "local": rule is not None}
    detector: Detector = member()
    data = case.data(options.training)
    try:
        fit(detector, data, training=Training(epochs=1), anomalies=case.anomalies(detector))
        fitted = detector.eval() if rule is None else rule.fit(detector.eval(), data)
        kept = fingerprint.choose(fitted, data)
        content = onnx.to_onnx(
            fitted, {"detector": name, "threshold": 0.0}, None if kept is None else fingerprint.of(fitted, kept)
        )
    except InputError as error:
        print(json.dumps({"benchmark": "export_speed", **facts, "refused": error.message}), flush=True)
        return
    with tempfile.NamedTemporaryFile(suffix=".onnx") as file:
        file.write(content)
        file.flush()
        model = tailwise_runtime.load(file.name)
    fresh = case.data(options.samples, seed=7)
    samples = fresh.read(torch.arange(len(fresh)))
    fresh = Data(samples, fresh.names, modality=modality)
    expected, found = inference.score(fitted, fresh), torch.from_numpy(model.score(samples.numpy()))
    seconds = timing.interleaved(
        {"torch": lambda: inference.score(fitted, fresh), "file": lambda: model.score(samples.numpy())}, options.repeats
    )
    worst = ((expected - found).abs() / expected.abs().clamp_min(1e-12)).max()
    apart = ((expected - found).abs() / expected.abs().median()).max()
    timing.show(
        "export_speed", seconds, ("torch", "file"), **facts, batch_size=model.facts["batch_size"],
        bytes=len(content), largest_difference=float(f"{worst:.2g}"), of_the_median=float(f"{apart:.2g}"),
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="detectors; by default all")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--samples", type=int, default=512)
    parser.add_argument("--training", type=int, default=2_000)
    names = [modality.name for modality in SHAPES]
    parser.add_argument("--modalities", nargs="*", default=names, choices=names)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if not options.names:
        measure_import(options.repeats)
    for name in options.names or registry.entries("detector"):
        member: type[Detector] = registry.find("detector", name)
        for modality in member.modalities:
            for rule in (None, local_scores.AUTO) if modality.name in options.modalities else ():
                measure(name, modality, rule, options)


if __name__ == "__main__":
    main()

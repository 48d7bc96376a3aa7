"""patch-memory in figures, JSON lines: speed to be held against anomalib's Patchcore, memory, and rare kinds.

    python benchmarks/patch_memory.py speed IMAGES [--weights FILE.safetensors] [--as-published]   ResNet-18 of given or
        random weights; as published, an image's score is that of its farthest patch, re-weighed
    python benchmarks/patch_memory.py memory [--images 4000] [--side 330] [--most 2GB]   generated images; peak memory
    python benchmarks/patch_memory.py tail [--few 5] [--draws 201 202 203]        a rare kind of solar cell, rejected

IMAGES holds train/good and test/{good,bad}. Threads: one. CPU seconds, because other work on the machine does not count
in them.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from tailwise.backbones import networks
from tailwise.core import inference
from tailwise.core.data import Data
from tailwise.detectors.patch_memory import PatchMemory
from tailwise.numerics import metrics
from tailwise.sources.auto import open_source
from tailwise.sources.solar import SolarCells
from tailwise.training.fit import fit

RESNET = "benchmark-resnet18"
FALSE_ALARMS = 0.05


class Block(nn.Module):
    """Two convolutions and a shortcut (He et al. 2016); names are those of published weights."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        short = [nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after)]
        self.downsample = nn.Sequential(*short) if stride > 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        return (y + self.downsample(x)).relu()


class ResNet18(nn.Module):
    """The maps after its second and third layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.layer1 = nn.Sequential(Block(64, 64, 1), Block(64, 64, 1))
        self.layer2 = nn.Sequential(Block(64, 128, 2), Block(128, 128, 1))
        self.layer3 = nn.Sequential(Block(128, 256, 2), Block(256, 256, 1))

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.layer1(self.maxpool(self.bn1(self.conv1(x)).relu()))
        second = self.layer2(x)
        return [second, self.layer3(second)]


def speed(images: Path, weights: Path | None, as_published: bool) -> None:
    """Seconds of a fit and milliseconds of a score, from files to scores; the cache of features is a new one."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TAILWISE_CACHE"] = folder
        _speed(images, weights, as_published)


def _speed(images: Path, weights: Path | None, as_published: bool) -> None:
    torch.manual_seed(0)
    network = ResNet18()
    if weights is not None:
        import safetensors.torch

        network.load_state_dict(safetensors.torch.load_file(weights))
    networks.add(RESNET, network.to(memory_format=torch.channels_last))  # type: ignore[call-overload]
    for run in ("first", "features cached"):
        started = time.process_time()
        source = open_source(str(images), read=RESNET, layers=(0, 1), size=256)
        problem = source.load()
        samples = problem.train.read(torch.arange(len(problem.train)))
        read = time.process_time() - started
        detector = PatchMemory(top=0.0, reweigh=9) if as_published else PatchMemory()
        data = Data(samples, problem.train.names)
        fit(detector, data)
        fitted = time.process_time() - started
        show(
            what="speed", run=run, images=len(data), shape=tuple(samples.shape[1:]), memory=len(detector.memory),
            features_cpu_s=round(read, 2), fit_cpu_s=round(fitted, 2), peak_mb=peak(),
        )  # fmt: skip
    files = sorted((images / "test").rglob("*.png"))
    extract = networks.mapped(RESNET, (0, 1))
    milliseconds, scores, labels = [], [], []
    from tailwise.sources.image_files import read_picture

    for path in files:
        picture = read_picture(path, 256, 3)[None]
        started = time.process_time()
        maps = extract(picture)
        batch = next(Data(maps, ["0"]).batches(1))
        scores.append(float(detector.score(batch)))
        milliseconds.append(1000 * (time.process_time() - started))
        labels.append(path.parent.name != "good")
    show(
        what="latency", images=len(files), cpu_ms=round(statistics.median(milliseconds), 1),
        auroc=round(float(roc_auc_score(labels, scores)), 4),
    )  # fmt: skip


def memory(images: int, side: int, most: str) -> None:
    """Peak memory of `tailwise fit` of so many images."""
    with tempfile.TemporaryDirectory() as folder:
        generator = np.random.default_rng(0)
        across, down = np.meshgrid(np.arange(side), np.arange(side))
        for number in range(images):
            phase, tilt = generator.uniform(0, 6), generator.uniform(-0.05, 0.05)
            wave = 128 + 80 * np.sin((across + tilt * down) / (4 + number % 5) + phase)
            picture = wave[..., None] + generator.normal(0, 8, (side, side, 3))
            Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(Path(folder) / f"{number}.jpg", quality=90)
        command = [
            sys.executable,
            "-c",
            "from tailwise.cli import main; main()",
            "fit",
            folder,
            "--detector",
            "patch-memory",
        ]
        command += ["--size", str(side), "--max-memory", most, "--out", f"{folder}/run"]
        # A process of its own, as people run it: what was needed to make the images is not counted.
        subprocess.run(command, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL)
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        show(
            what="memory", images=images, side=side, max_memory=most, cpu_s=round(used.ru_utime + used.ru_stime, 1),
            peak_mb=used.ru_maxrss // 1024,
        )  # fmt: skip


def tail(few: int, draws: list[int]) -> None:
    """200 good mono cells and a few poly: good poly cells rejected where 5 % of good mono ones are, and AUROC."""
    everything = SolarCells(read="efficientnet-lite0", layers=networks.map_layers("efficientnet-lite0")).load_all()
    assert everything.labels is not None
    assert everything.groups is not None
    for draw in draws:
        generator = np.random.default_rng(draw)
        good = {
            kind: generator.permutation(np.flatnonzero(~everything.labels & (everything.groups == kind)))
            for kind in ("mono", "poly")
        }
        train = everything.data.take(np.concatenate([good["mono"][:200], good["poly"][:few]]))
        test = np.concatenate([good["mono"][200:400], good["poly"][few:][:200], np.flatnonzero(everything.labels)])
        for keep_tail in (0.0, 2.25):
            detector = PatchMemory(keep_tail=keep_tail)
            fit(detector, train)
            scores = inference.score(detector, everything.data.take(test)).numpy()
            labels, kind = everything.labels[test], everything.groups[test]
            limit = np.quantile(scores[~labels & (kind == "mono")], 1 - FALSE_ALARMS)
            show(
                what="tail", draw=draw, few=few, keep_tail=keep_tail, auroc=round(metrics.auroc(labels, scores), 4),
                poly_rejected=round(float((scores[~labels & (kind == "poly")] > limit).mean()), 3),
                defects_caught=round(float((scores[labels] > limit).mean()), 3),
            )  # fmt: skip


def show(**row: object) -> None:
    print(json.dumps(row), flush=True)


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    each = commands.add_parser("speed")
    each.add_argument("images", type=Path)
    each.add_argument("--weights", type=Path)
    each.add_argument("--as-published", action="store_true")
    each = commands.add_parser("memory")
    each.add_argument("--images", type=int, default=4_000)
    each.add_argument("--side", type=int, default=330)
    each.add_argument("--most", default="2GB")
    each = commands.add_parser("tail")
    each.add_argument("--few", type=int, default=5)
    each.add_argument("--draws", type=int, nargs="+", default=[201, 202, 203])
    given = vars(parser.parse_args())
    torch.set_num_threads(1)
    jobs: dict[str, Callable[..., None]] = {"speed": speed, "memory": memory, "tail": tail}
    jobs[given.pop("command")](**given)


if __name__ == "__main__":
    main()

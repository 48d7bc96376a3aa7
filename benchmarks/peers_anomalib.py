"""The default for pictures beside anomalib's Patchcore and Padim: same pictures, size, backbone and blocks.

A draw is 200 good pictures (of solar cells 200 of one kind and 10 or 5 of the other); all test pictures test. anomalib
gets EfficientNet-Lite0 as a module, with the weights and the blocks that ours reads, and keeps its own settings (Padim:
100 channels, as ours). Seconds are of the CPU with one thread, from decoded pictures on: what the network takes is in
them, what cross-fitting and reports of `tailwise fit` take is not (`--command` measures it).

    python -m venv peers && peers/bin/pip install "anomalib==2.7.*" "torch>=2.10" torchvision ".[images,solar]"
    THP_MEM_ALLOC_ENABLE=1 peers/bin/python benchmarks/peers_anomalib.py [CONTENDER ...] [--sets SET ...] [--within 224]
    python benchmarks/peers_anomalib.py page

Rows go to benchmarks/results/images/peers.jsonl, one that is there is not computed again, and `page` writes
benchmarks/image-peers.md. Labels, masks and kinds are read by the metrics only.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

# Set before torch is imported: afterwards it is too late.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from torch import Tensor, nn

from tailwise.backbones import networks
from tailwise.benchmark import rows
from tailwise.benchmark.tables import table
from tailwise.calibration import score_maps
from tailwise.core import registry
from tailwise.core.data import Data
from tailwise.core.modality import FEATURE_MAP
from tailwise.core.problem import Labelled, Problem, Source
from tailwise.numerics import metrics, pixel_metrics
from tailwise.runs.files import write as write_file
from tailwise.sources import image_headers, image_samples
from tailwise.sources.auto import open_source
from tailwise.sources.paths import find_path, list_files
from tailwise.sources.solar import SolarCells
from tailwise.training import local_scores
from tailwise.weights.default import choose_weighting
from tailwise.weights.weighting import Weighting
from tailwise.workflows import blocks
from tailwise.workflows.fit import fit_run, fitter
from tailwise.workflows.request import AUTO, Request

RESULTS = Path(__file__).parent / "results" / "images" / "peers.jsonl"
PAGE = Path(__file__).parent / "image-peers.md"
BACKBONE = "efficientnet-lite0"
TRAIN, BATCH = 200, 32
FOLDERS = {"magnetic-tile": "magnetic_tile", "tire": "mvtec3d_tire", "boards": "deeppcb"}
CELLS = {"solar-cells 200:10": 10, "solar-cells 200:5": 5}
SETS = (*FOLDERS, *CELLS)
CONTENDERS = (
    "default", "plain", "padim", "patch-memory", "anomalib Padim", "anomalib Patchcore 1 %", "anomalib Patchcore 10 %",
)  # fmt: skip
SPELLINGS = {"default": AUTO, "plain": "patch-ensemble"}
CAUGHT = 0.8
HEAD = """# The default for pictures beside anomalib

Written by `benchmarks/peers_anomalib.py` from results/images/peers.jsonl. anomalib 2.7 with the same EfficientNet-Lite0
as a module (blocks 4 and 10), on the same decoded pictures; 200 good ones of a folder are drawn, or 60 or 100, and all
test pictures test. `default` is what `tailwise fit FOLDER` does, which reads boards by block 2 (a folder chooses by
defects made on its good pictures). A set is read at its own size, as the pictures are, and at about as many pixels as a
square of 224 has (224 in the set's name), where a coreset of 10 % can be paid. `plain` is the detector that the default
is for most folders, `padim` and `patch-memory` are its parts: these three have their own scores and no weights. A draw
decides the training pictures, padim's channels and the first patch of a coreset, so all contenders depend on it.
Seconds are of the CPU with one thread, the network's among them, on a machine that others used: compare those of one
set and size. Rare good ones are polycrystalline cells, and boards of the third of kinds that trained on least; they and
others are rejected at the score that catches 80 % of the defects. `detected` and `rejected` are shares of the defects
and of the good pictures that `tailwise fit` flags without options (5 % are asked for; draw 0); anomalib has no
threshold that needs no labels of defects. The last column is the share of good pictures with the highest pixel of their
map in its outer part (of equal ones each counts), of that part's share of the pixels.
Large pages of memory are used for anomalib (THP_MEM_ALLOC_ENABLE=1), without which its coresets take three times as
long.
"""
HEADINGS = [
    "set", "good", "contender", "pixels", "draws", "image AUROC", "range", "pixel AUROC", "AUPRO 0.3", "fit, CPU s",
    "ms a picture", "peak MB", "rare rejected", "others rejected", "detected", "rejected",
    "highest at the border",
]  # fmt: skip
_CELL = ("set", "within", "train", "contender")
# Scores [n] of a batch of pictures, and their maps [n, h, w].
Reader = Callable[[Tensor], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Draw:
    """What is fitted and tested on; pictures [n, h, w, 3] are decoded, at the size that the default reads."""

    source: Source
    problem: Problem
    train: Tensor
    test: Tensor
    layers: tuple[int, ...]


def draw_of(of: str, seed: int, count: int, within: int = 0) -> Draw:
    """The pictures of one draw, with about as many pixels as a square of `within` has, 0 being the default's own size;
    those of boards name their board, for the figures alone."""
    if of in CELLS:
        source: Any = SolarCells(
            mono=200, poly=CELLS[of], seed=seed, layers=networks.map_layers(BACKBONE), size=within or None
        )
        folder: Any = source.at(str(files("elpv_dataset") / "data"))
        if not within:
            folder = folder.reading_maps(source.layers)
            source = replace(source, size=max(folder.size))
        problem = source.load()
    else:
        groups = "groups.csv" if of == "boards" else None
        path = find_path(f"images/{FOLDERS[of]}")
        source = folder = open_source(path, maps=None, groups=groups, size=size_within(path, within))
        problem = source.load()
        chosen = np.sort(np.random.default_rng(seed).permutation(len(problem.train))[:count])
        kinds = None if problem.train_groups is None else problem.train_groups[chosen]
        problem = replace(problem, train=problem.train.take(chosen), train_groups=kinds)
    assert problem.test is not None
    train, test = (folder.decoded(list(map(str, data.names))) for data in (problem.train, problem.test.data))
    return Draw(source, problem, train, test, source.layers)


def size_within(folder: Path, side: int) -> tuple[int, int] | None:
    """Height and width of about as many pixels as a square of `side` has, in the shape of most pictures; None for 0."""
    shape = image_headers.median_shape(image_headers.headers(folder, list_files(folder, (".png", ".jpg"))[:200]))
    return None if not side or shape is None else image_headers.fitted(shape, side, 32)


def ours(draw: Draw, spelling: str, seed: int, chooses: bool = True) -> Reader:
    """A detector fitted as `tailwise fit` fits it: "auto" as without options, but for the choice of blocks where it
    does not choose, any other with its own scores and without weights; and what reads pictures with it."""
    request = Request(draw.source, detector=spelling, seed=seed)
    request = blocks.decided(request, draw.problem).request if chooses else request
    network = image_samples.of_pictures(BACKBONE, request.source.layers)  # type: ignore[attr-defined]
    maps = torch.cat([network(part) for part in draw.train.split(BATCH)])
    data = Data(maps, draw.problem.train.names, modality=FEATURE_MAP)
    request = request.decided(data.modality, len(data))
    detector = registry.parse_one(request.detector, "detector")
    rule = local_scores.choose(request.scores, data.modality, detector) if spelling == AUTO else None
    weighting = choose_weighting(request.weighting, detector, data.modality, rule is not None)
    fit = fitter(request, weighting if spelling == AUTO else Weighting(), rule)
    fitted = fit(data, torch.ones(len(data)), seed).detector

    def read(pictures: Tensor) -> tuple[np.ndarray, np.ndarray]:
        batch = Data(network(pictures), [str(place) for place in range(len(pictures))], modality=FEATURE_MAP)
        pairs = list(score_maps.with_scores(fitted, batch))
        return np.array([score for score, _ in pairs]), np.stack([found for _, found in pairs])

    return read


def command(draw: Draw, seed: int, scores: np.ndarray) -> dict[str, float]:
    """`tailwise fit` itself: its seconds, how far its scores of the test are from these, as a share of their spread,
    and the shares of defects and of good pictures that it flags."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.process_time()
        run = fit_run(Request(draw.source, seed=seed), Path(folder) / "run", problem=draw.problem)
        seconds = time.process_time() - start
        tested = run.test_scores()
    assert tested is not None
    found = tested["score"].to_numpy()
    flagged = found > run.settings.threshold
    labels = np.asarray(draw.problem.test.labels).astype(bool)  # type: ignore[union-attr]
    return {
        "detected": float(flagged[labels].mean()),
        "rejected": float(flagged[~labels].mean()),
        "command_seconds": round(seconds, 2),
        "command_differs": float(np.abs(found - scores).max() / scores.std()),
    }


class Stages(nn.Module):
    """The stem and blocks of the backbone that ours reads, in two parts with names."""

    def __init__(self, network: networks.Backbone) -> None:
        super().__init__()
        first, last = network.taken
        self.scaled, self.stem = network.scaled, network.stem
        self.fine = nn.Sequential(*network.blocks[: first + 1])
        self.coarse = nn.Sequential(*network.blocks[first + 1 : last + 1])

    def forward(self, images: Tensor) -> Tensor:
        return self.coarse(self.fine(self.stem(self.scaled(images))))


def theirs(draw: Draw, name: str, seed: int) -> Reader:
    """What reads pictures, once a model of anomalib is fitted."""
    torch.manual_seed(seed)
    network = networks.backbone(BACKBONE, draw.layers)
    assert isinstance(network, networks.Backbone)
    model = make_model(name, Stages(network))
    model.train()
    for part in draw.train.split(BATCH):
        model(as_images(part))
    if name == "anomalib Padim":
        model.fit()
    else:
        model.subsample_embedding(float(name.split()[2]) / 100)
    model.eval()

    @torch.no_grad()
    def read(pictures: Tensor) -> tuple[np.ndarray, np.ndarray]:
        found = model(as_images(pictures))
        return found.pred_score.flatten().double().numpy(), found.anomaly_map[:, 0].numpy()

    return read


def make_model(name: str, network: nn.Module) -> Any:
    from anomalib.models.image.padim.torch_model import PadimModel
    from anomalib.models.image.patchcore.torch_model import PatchcoreModel

    layers = ["fine", "coarse"]
    if name == "anomalib Padim":
        return PadimModel(layers=layers, backbone=network, pre_trained=False, n_features=100)
    return PatchcoreModel(layers=layers, backbone=network, pre_trained=False)


def as_images(pictures: Tensor) -> Tensor:
    return pictures.permute(0, 3, 1, 2).float() / 255


def measure(name: str, of: str, seed: int, count: int, within: int, whole: bool = False) -> dict[str, Any]:
    draw = draw_of(of, seed, count, within)
    test = draw.problem.test
    assert test is not None
    rows.reset_peak_memory()
    start = time.process_time()
    reader = theirs(draw, name, seed) if name.startswith("anomalib") else ours(draw, SPELLINGS.get(name, name), seed)
    fitted = time.process_time()
    found = [reader(part) for part in draw.test.split(BATCH)]
    done = time.process_time()
    peak = rows.peak_memory_mb()
    scores = np.concatenate([each for each, _ in found])
    labels = np.asarray(test.labels).astype(bool)
    row = {
        "status": "ok",
        "train": len(draw.train),
        "size": list(draw.train.shape[1:3]),
        "image_auroc": metrics.auroc(labels, scores),
        "image_aupr": metrics.aupr(labels, scores),
        "fit_seconds": round(fitted - start, 2),
        "score_ms": round(1_000 * (done - fitted) / len(scores), 2),
        "peak_memory_mb": peak,
    }
    row |= at_border([scored for _, maps in found for scored in maps], labels)
    row |= of_pixels(test, labels, [scored for _, maps in found for scored in maps])
    row |= of_rare_kinds(draw.problem, labels, scores)
    return row | (command(draw, seed, scores) if name == "default" and whole else {})


def at_border(maps: list[np.ndarray], labels: np.ndarray) -> dict[str, float]:
    """The share of good pictures with the highest pixel of their map in its outer part, as wide as one of 28 places a
    side, and the share of pixels that lie there."""
    outer = np.ones(maps[0].shape, dtype=bool)
    wide = round(max(outer.shape) / 28)
    outer[wide:-wide, wide:-wide] = False
    # A map that is held to its picture's score is flat there: each of its highest pixels counts.
    highest = [outer[scores == scores.max()].mean() for scores, bad in zip(maps, labels, strict=True) if not bad]
    return {"good_highest_at_border": float(np.mean(highest)), "border_share": float(outer.mean())}


def of_pixels(test: Labelled, labels: np.ndarray, maps: list[np.ndarray]) -> dict[str, float]:
    """Figures of the maps; none where no defect has a mask."""
    masks = test.masks
    if masks is None:
        return {}

    def pairs() -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
        for anomalous, mask, scores in zip(labels, masks, maps, strict=True):
            if not anomalous or mask is not None:
                found = score_maps.nearest(mask, scores.shape) if anomalous and mask is not None else None
                yield scores, found

    pixels = pixel_metrics.gather(pairs())
    return {"pixel_auroc": pixel_metrics.pixel_auroc(pixels), "aupro_0.3": pixel_metrics.aupro(pixels)}


def of_rare_kinds(problem: Problem, labels: np.ndarray, scores: np.ndarray) -> dict[str, float]:
    """How many good pictures of rare and of other kinds are rejected where 80 % of the defects are caught.

    Rare are the kinds that trained on least, a third of all at most but one at least.
    """
    assert problem.test is not None
    if problem.train_groups is None or problem.test.groups is None:
        return {}
    trained, tested = np.asarray(problem.train_groups), np.asarray(problem.test.groups)
    kinds = sorted(set(tested[~labels]), key=lambda kind: (trained == kind).sum())
    rare = np.isin(tested, kinds[: max(1, len(kinds) // 3)])
    caught = np.quantile(scores[labels], 1 - CAUGHT, method="lower")
    return {
        "rare_rejected": float((scores[~labels & rare] >= caught).mean()),
        "others_rejected": float((scores[~labels & ~rare] >= caught).mean()),
        "rare_tested": int((~labels & rare).sum()),
        "rare_trained": int(np.isin(trained, tested[rare]).sum()),
    }


def page() -> str:
    """The rows as one table: means over draws, and the range of the image AUROC."""
    found = [row for row in rows.read_rows(RESULTS) if row["status"] == "ok"]
    lines = []
    for of, within in ((of, within) for of in SETS for within in (0, 224)):
        for count in sorted({row["settings"]["train"] for row in found}):
            for name in CONTENDERS:
                asked = (of, within, count, name)
                here = [row for row in found if tuple(row["settings"].get(key, 0) for key in _CELL) == asked]
                if here:
                    size = " x ".join(map(str, here[0]["size"]))
                    called = f"{of}, {within}" if within else of
                    lines.append([called, str(here[0]["train"]), name, size, str(len(here)), *figures(here)])
    return f"{HEAD}\n{table(HEADINGS, lines)}\n"


def figures(here: list[dict[str, Any]]) -> list[str]:
    auroc = [row["image_auroc"] for row in here]
    quality = [mean(here, figure, 3) for figure in ("image_auroc", "pixel_auroc", "aupro_0.3")]
    costs = [
        mean(here, figure, digits) for figure, digits in (("fit_seconds", 1), ("score_ms", 0), ("peak_memory_mb", 0))
    ]
    rare = [mean(here, figure, 2) for figure in ("rare_rejected", "others_rejected", "detected", "rejected")]
    border = " of ".join(mean(here, figure, 2) for figure in ("good_highest_at_border", "border_share"))
    return [quality[0], f"{min(auroc):.3f} to {max(auroc):.3f}", *quality[1:], *costs, *rare, border]


def mean(here: list[dict[str, Any]], figure: str, digits: int) -> str:
    values = [row[figure] for row in here if figure in row]
    return f"{np.mean(values):.{digits}f}" if values else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("contenders", nargs="*", default=CONTENDERS, metavar="CONTENDER")
    parser.add_argument("--sets", nargs="+", default=SETS, choices=SETS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--train", type=int, default=TRAIN, help="good pictures of a folder that are trained on")
    parser.add_argument("--within", type=int, default=0, help="about so many pixels a side; 0: the default's own size")
    parser.add_argument("--command", action="store_true", help="also run `tailwise fit` itself for the default")
    asked = parser.parse_args()
    if asked.contenders == ["page"]:
        write_file(PAGE, page().encode())
        return
    done = {rows.key(row["settings"]) for row in rows.read_rows(RESULTS) if rows.is_done(row)}
    for of in asked.sets:
        for seed in asked.seeds:
            for name in asked.contenders:
                settings = {"contender": name, "set": of, "seed": seed, "train": asked.train, "within": asked.within}
                if rows.key(settings) in done:
                    continue
                with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
                    row = pool.submit(measure, name, of, seed, asked.train, settings["within"], asked.command).result()
                row = {"settings": settings, **row, "commit": rows.commit(), "versions": rows.versions()}
                if name.startswith("anomalib"):
                    row["versions"]["anomalib"] = importlib.metadata.version("anomalib")
                rows.append(RESULTS, row)
                print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()

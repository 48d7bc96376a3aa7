"""Photographs with geometry: rivals, two memories and LSFA on generated features and on scans of parts3d.

    TAILWISE_DATA=DIRECTORY python benchmarks/three_d.py generator [METHOD ...] [--seeds 4 5 6 7]
    TAILWISE_DATA=DIRECTORY python benchmarks/three_d.py parts [METHOD ...] [--parts ...] [--seeds 0 1 2]
    TAILWISE_DATA=DIRECTORY python benchmarks/three_d.py pairs [METHOD ...]
    python benchmarks/three_d.py memory FOLDER [--scans 200] [--side 400]
    python benchmarks/three_d.py page

"generator" makes features of two modalities that share a smooth latent and each have a nuisance of their own in every
image; a defect changes 2 x 2 cells of one modality. "parts" are the five parts of parts3d, "pairs" train on one part
and test on another (defects that geometry can show). AUROC of images and of cells. "memory" writes scans, fits them as
`tailwise fit` does, and prints seconds and the largest memory.
"""

from __future__ import annotations

import argparse
import functools
import json
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.nn.functional import adaptive_max_pool2d, avg_pool2d

from tailwise.benchmark import rows
from tailwise.benchmark.comparisons import bootstrapped
from tailwise.benchmark.tables import table
from tailwise.core import inference
from tailwise.core.context import Measured
from tailwise.core.data import Data
from tailwise.core.modality import FEATURE_MAP
from tailwise.core.problem import Labelled, Problem
from tailwise.core.registry import parse_one
from tailwise.detectors.components.losses import top_mean
from tailwise.numerics.metrics import auroc
from tailwise.runs import files
from tailwise.sources.rgb_xyz import RgbXyz
from tailwise.training import fit as training_fit

ROOT = Path(__file__).parent
RESULTS, PAGE = ROOT / "results" / "three-d.jsonl", ROOT / "three-d.md"
PARTS = ("plate_holes", "angle_block", "featuretype", "idler_riser", "octagonal_pocket")
DEFECTS = ("dent", "bump", "groove", "hole", "stain", "combined")
# What a class of other parts shares with the one that was trained on.
SHAPES = ("good", "dent", "bump", "hole", "groove")
_MEMORY = "PatchMemory()"
# The detector, and which modalities it reads.
METHODS = {
    "RGB alone": (_MEMORY, "rgb"),
    "FPFH alone": (_MEMORY, "xyz"),
    "concatenation as it is (BTF)": ("PatchMemory()", "unnamed"),
    "concatenation, modalities alike": (_MEMORY, "both"),
    "two memories, mean": ("PairedMemories(fusion='mean')", "both"),
    "two memories, tails": ("PairedMemories()", "both"),
    "compactness only, mean of adapted": ("CrossModalMaps(consistency=0, given=False, fusion='mean')", "both"),
    "compactness only, tails of adapted": ("CrossModalMaps(consistency=0, given=False)", "both"),
    "compactness only": ("CrossModalMaps(consistency=0)", "both"),
    "consistency only, mean of adapted": ("CrossModalMaps(compactness=0, given=False, fusion='mean')", "both"),
    "consistency only, tails of adapted": ("CrossModalMaps(compactness=0, given=False)", "both"),
    "consistency only": ("CrossModalMaps(compactness=0)", "both"),
    "LSFA, mean of adapted": ("CrossModalMaps(given=False, fusion='mean')", "both"),
    "LSFA, tails of adapted": ("CrossModalMaps(given=False)", "both"),
    "LSFA": ("CrossModalMaps()", "both"),
    "CFM, small": ("CrossModalMapping()", "both"),
    "patch-ensemble, the default": ("PatchEnsemble()", "both"),
    "FPFH alone, larger memory": ("PatchMemory(share=0.1, neighbourhood=1)", "xyz"),
    "zero-shot-patches": ("ZeroShotPatches()", "patches"),
    "zero-shot-patches, uniform anchors": ("ZeroShotPatches(salient=False)", "patches"),
    "zero-shot-patches, no other parts": ("ZeroShotPatches()", "patches"),
}
PAIRED = (
    "RGB alone", "FPFH alone", "FPFH alone, larger memory", "concatenation as it is (BTF)",
    "concatenation, modalities alike", "zero-shot-patches",
)  # fmt: skip
# What is read off one zero-shot-patches: weights of histograms, of what was learnt and of the classifier, and whether
# it was asked about patches that were moved. The first is FPFH alone, by the same memory. Of seed 0 the classifier in
# full was not read.
READINGS = {
    "FPFH": (1.0, 0.0, 0.0, True),
    "learnt": (0.0, 1.0, 0.0, True),
    "mean": (0.5, 0.5, 0.0, True),
    "mean and classifier as it is": (0.5, 0.5, 0.3, False),
    "mean and classifier, perturbed": (0.5, 0.5, 0.3, True),
    "mean and classifier in full as it is": (0.5, 0.5, 1.0, False),
    "mean and classifier in full, perturbed": (0.5, 0.5, 1.0, True),
    "classifier as it is": (0.0, 0.0, 1.0, False),
    "classifier, perturbed": (0.0, 0.0, 1.0, True),
}
ADAPTED = tuple(name for name, (spelling, _) in METHODS.items() if spelling.startswith("CrossModalMaps"))
GENERATED = ("two memories, mean", "two memories, tails", *ADAPTED, "CFM, small")
STEPPED = (
    *ADAPTED, "CFM, small", "zero-shot-patches", "zero-shot-patches, uniform anchors",
    "zero-shot-patches, no other parts",
)  # fmt: skip
HEAD = """# Photographs with geometry

Written by `benchmarks/three_d.py` from results/three-d.jsonl: mean AUROC over parts and seeds, one thread. parts3d is
generated: CAD models, scanned and spoilt by a program. No figure here carries over to real scans. The part
plate_holes was looked at when defaults were chosen. Methods without a row were not run. "measured" is the AUROC of
cells of which the scanner measured enough; the others have the score of the nearest that was measured. Of seed 0
zero-shot-patches counted its classifier .3, in later rows 1. On parts, what is not trained gives the same on every
seed.
"""


def generated(seed: int, train: int = 40, test: int = 40) -> Problem:
    """Maps [128, 10, 10] of two modalities of 64 channels, half of the tested with a defect in one of them."""
    generator = torch.Generator().manual_seed(seed)
    count = train + test
    latent = avg_pool2d(torch.randn(count, 6, 12, 12, generator=generator), 3, 1) * 3
    maps = []
    for _ in range(2):
        mix, own = torch.randn(64, 6, generator=generator) / 6**0.5, torch.randn(64, 24, generator=generator) / 24**0.5
        nuisance = torch.einsum("cd,nd->nc", own, 1.5 * torch.randn(count, 24, generator=generator))
        shown = torch.einsum("cd,ndhw->nchw", mix, latent) + nuisance[:, :, None, None]
        maps.append(shown + 0.3 * torch.randn(shown.shape, generator=generator))
    masks = [np.zeros((10, 10), bool) for _ in range(test)]
    for place in range(0, test, 2):
        row, column = torch.randint(0, 9, (2,), generator=generator).tolist()
        change = 2.0 * torch.randn(64, 1, 1, generator=generator)
        maps[place // 2 % 2][train + place, :, row : row + 2, column : column + 2] += change
        masks[place][row : row + 2, column : column + 2] = True
    names = [*(f"rgb:{i}" for i in range(64)), *(f"xyz:{i}" for i in range(64))]
    data = Data(torch.cat(maps, 1), list(map(str, range(count))), tuple(names), modality=FEATURE_MAP)
    labels = np.arange(test) % 2 == 0
    tested = Labelled(data.take(range(train, count)), labels, masks=masks)
    return Problem(data.take(range(train)), facts=None, test=tested)  # type: ignore[arg-type]


@functools.lru_cache(maxsize=len(PARTS))
def part_of(name: str, use: str) -> Problem:
    """One part of parts3d as these modalities."""
    problem = RgbXyz(f"parts3d/{name}", use="both" if use == "unnamed" else use).load()  # type: ignore[arg-type]
    if use != "unnamed" or problem.test is None:
        return problem
    test = replace(problem.test, data=replace(problem.test.data, features=()))
    return replace(problem, train=replace(problem.train, features=()), test=test)


@dataclass(frozen=True, eq=False)
class Fitted:
    """A detector, what fitting it found, and how long it took."""

    detector: Any
    checks: list[str]
    cpu_seconds: float


def fitted(spelling: str, train: Data, seed: int, others: tuple[str, ...] = ()) -> Fitted:
    """The fitted detector of this spelling; `others` of one that reads other parts."""
    detector = parse_one(spelling, "detector")
    if others:
        detector.others = others
    began = time.process_time()
    outcome = training_fit.fit(detector, train, seed=seed)
    checks = [f"{check.name}: {check.message}" for check in outcome.checks if not check.ok]
    return Fitted(detector, checks, time.process_time() - began)


def judged(of: Fitted, test: Labelled, kinds: np.ndarray | None) -> dict[str, Any]:
    """A row of figures."""
    began = time.process_time()
    scores, maps = [], []
    for reading in inference.readings(of.detector, test.data, 16, map=True):
        scores.append(reading.score)
        maps.append(reading.map)
    found: dict[str, Any] = {"cpu_seconds": round(of.cpu_seconds + time.process_time() - began, 1)}
    score, map_ = torch.cat(scores).numpy(), torch.cat(maps).numpy()
    found |= placed(test, score, map_)
    if kinds is not None:
        good = score[kinds == "good"]
        for kind in sorted(set(kinds) - {"good"}):
            bad = score[kinds == kind]
            found[str(kind)] = auroc(np.repeat([False, True], [len(good), len(bad)]), np.concatenate([good, bad]))
    return found | {"checks": of.checks}


def placed(test: Labelled, score: np.ndarray, map_: np.ndarray) -> dict[str, float]:
    """AUROC of images, of cells, and of those cells that were measured, where the data say which were."""
    assert test.masks is not None
    cells = np.stack([_cells(mask, map_.shape[1:]) for mask in test.masks])
    found = {"image": auroc(np.asarray(test.labels), score), "cell": auroc(cells.ravel(), map_.ravel())}
    if isinstance(test.data.context, Measured):
        seen = test.data.context.cells.numpy()
        found["measured"] = auroc(cells[seen], map_[seen])
    return found


@torch.no_grad()
def read_off(detector: Any, test: Labelled) -> dict[str, dict[str, float]]:
    """Figures of everything that `READINGS` names."""
    parts = [detector.parts_of_score(batch) for batch in test.data.batches(16)]
    part = {name: torch.cat([each[name] for each in parts]) for name in parts[0]}
    found = {}
    for name, (histograms, learnt, classified, perturbed) in READINGS.items():
        chance = part["classified" if perturbed else "classified as it is"]
        map_ = histograms * part["histograms"] + learnt * part["learnt"] + classified * chance
        found[name] = placed(test, top_mean(map_, detector.top).numpy(), map_.numpy())
    return found


def _cells(mask: np.ndarray | None, size: tuple[int, ...]) -> np.ndarray:
    """Which cells hold a pixel of a defect."""
    if mask is None:
        return np.zeros(size, bool)
    return adaptive_max_pool2d(torch.from_numpy(mask.astype(np.float32))[None, None], size)[0, 0].numpy() > 0


def kinds_of(test: Labelled) -> np.ndarray:
    return np.array([name.split("/")[1] for name in test.data.names])


class Rows:
    """Figures of one setting after another; fits that differ in how memories are fused alone are made once."""

    def __init__(self) -> None:
        self.before: tuple[Any, Fitted] | None = None

    def __call__(self, settings: dict[str, Any]) -> dict[str, Any]:
        spelling, use = METHODS[settings["method"]]
        what, seed = settings["what"], settings["seed"]
        if what == "generator":
            problem = generated(seed)
            tested, kinds, others = problem.test, None, others_of(settings)
        else:
            problem = part_of(settings["part"], use)
            tested = problem.test if what == "parts" else part_of(settings["on"], use).test
            assert tested is not None
            if what == "pairs":
                tested = tested.take(np.flatnonzero(np.isin(kinds_of(tested), SHAPES)))
            kinds, others = kinds_of(tested), others_of(settings)
        assert tested is not None
        of = self._fitted(spelling, problem.train, seed, others, settings)
        found = judged(of, tested, kinds)
        return found | ({"readings": read_off(of.detector, tested)} if use == "patches" else {})

    def _fitted(
        self, spelling: str, train: Data, seed: int, others: tuple[str, ...], settings: dict[str, Any]
    ) -> Fitted:
        if not spelling.startswith(("PairedMemories", "CrossModalMaps")):
            return fitted(spelling, train, seed, others)
        asked = parse_one(spelling, "detector")
        fusion, asked.fusion = asked.fusion, "tails"
        given = getattr(asked, "given", None)
        if given is not None:
            asked.given = True
        key = (repr(asked), {name: value for name, value in settings.items() if name != "method"})
        if self.before is None or self.before[0] != key:
            self.before = (key, fitted(repr(asked), train, seed))
        detector = self.before[1].detector
        for each in (detector, *(getattr(detector, name, detector) for name in ("memories", "given_memories"))):
            each.fusion = fusion
        if given is not None:
            detector.given = given
        return self.before[1]


def others_of(settings: dict[str, Any]) -> tuple[str, ...]:
    """Folders of the parts that are neither trained nor tested on, for a detector that reads such."""
    method = settings["method"]
    if settings["what"] != "pairs" or METHODS[method][1] != "patches" or method.endswith("no other parts"):
        return ()
    return tuple(f"parts3d/{part}" for part in PARTS if part not in (settings["part"], settings["on"]))


def planned(asked: argparse.Namespace) -> list[dict[str, Any]]:
    """Settings of the rows that are asked for."""
    usual = {"generator": GENERATED, "pairs": PAIRED}
    names = asked.methods or usual.get(asked.what) or [name for name in METHODS if METHODS[name][1] != "patches"]
    found: list[dict[str, Any]] = []
    for seed in asked.seeds:
        here: list[dict[str, str]] = [{}]
        if asked.what == "parts":
            here = [{"part": part} for part in asked.parts]
        elif asked.what == "pairs":
            here = [{"part": a, "on": b} for a in asked.parts for b in PARTS if a != b]
        for where in here:
            for name in names:
                if asked.what == "generator" or name in STEPPED or seed == asked.seeds[0]:
                    found.append({"what": asked.what, "method": name, "seed": seed} | where)
    return found


def page() -> str:
    found = rows.read_rows(RESULTS)
    text = HEAD
    for what, title in (
        ("generator", "Generated features: what the adaptors learn"),
        ("parts", "parts3d, each part by itself"), ("pairs", "parts3d, classes that were never seen"),
    ):  # fmt: skip
        here = [row for row in found if row["settings"]["what"] == what]
        columns = ("image", "cell", *{"parts": DEFECTS, "pairs": ("measured",)}.get(what, ()))
        lines = []
        for name in METHODS:
            of = [row for row in here if row["settings"]["method"] == name]
            if of:
                means = [f"{np.mean([row[column] for row in of if column in row]):.3f}" for column in columns]
                lines.append([name, str(len(of)), *means, f"{np.median([row['cpu_seconds'] for row in of]):.0f}"])
        if lines:
            text += f"\n## {title}\n\n{table(['method', 'rows', *columns, 'CPU seconds'], lines)}\n"
    return text + readings_of([row for row in found if "readings" in row])


def readings_of(found: list[dict[str, Any]]) -> str:
    """A table for each method and seed, and for all seeds, of what is read off it, paired with its own FPFH."""
    text = ""
    asked = dict.fromkeys((row["settings"]["method"], (row["settings"]["seed"],)) for row in found)
    for method in dict.fromkeys(method for method, _ in asked):
        seeds = tuple(seed for name, each in asked if name == method for seed in each)
        asked |= {(method, seeds): None} if len(seeds) > 1 else {}
    for method, seeds in asked:
        of = [row for row in found if row["settings"]["method"] == method and row["settings"]["seed"] in seeds]
        lines = [_reading_line(name, [row for row in of if name in row["readings"]]) for name in READINGS]
        head = ["score", "rows", "image", "cell", "measured", "lowest pair", "measured, over FPFH", "not below"]
        said = f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"
        text += f"\n### {method}, {said}: what each part of the score gives\n\n{table(head, [x for x in lines if x])}\n"
    return text


def _reading_line(name: str, of: list[dict[str, Any]]) -> list[str]:
    """Means of one part of the score; the interval is over pairs of parts, whose seeds are averaged first."""
    if not of:
        return []
    gains: dict[tuple[str, str], list[float]] = {}
    for row in of:
        gain = row["readings"][name]["measured"] - row["readings"]["FPFH"]["measured"]
        gains.setdefault((row["settings"]["part"], row["settings"]["on"]), []).append(gain)
    here = [row["readings"][name] for row in of]
    means = [f"{np.mean([row[column] for row in here]):.3f}" for column in ("image", "cell", "measured")]
    lowest = min(row["measured"] for row in here)
    not_below = np.mean(np.concatenate(list(gains.values())) >= 0)
    over = bootstrapped([np.array([np.mean(each) for each in gains.values()])])
    return [name, str(len(of)), *means, f"{lowest:.3f}", str(over), f"{not_below:.2f}"]


def memory(folder: Path, scans: int, side: int) -> dict[str, Any]:
    """Scans of a wavy plate, written and fitted in a process of its own."""
    import tifffile

    generator = np.random.default_rng(0)
    for name in ("rgb", "xyz"):
        (folder / "train/good" / name).mkdir(parents=True, exist_ok=True)
    y, x = np.meshgrid(np.linspace(-1, 1, side), np.linspace(-1, 1, side), indexing="ij")
    for number in range(scans):
        z = 2 + 0.05 * np.sin(5 * x + generator.normal(0, 0.1)) + generator.normal(0, 0.002, x.shape)
        xyz = np.stack([x, y, z], 2).astype(np.float32)
        xyz[x**2 + y**2 > 0.9] = 0
        grey = (120 + 50 * np.sin(7 * y) + generator.normal(0, 5, x.shape)).clip(0, 255).astype(np.uint8)
        Image.fromarray(np.repeat(grey[..., None], 3, 2)).save(folder / f"train/good/rgb/{number:03d}.png")
        tifffile.imwrite(folder / f"train/good/xyz/{number:03d}.tiff", xyz, photometric="rgb")
    code = (
        "import sys, resource; from tailwise.cli.main import run\n"
        "code = run(sys.argv[1:]); usage = resource.getrusage(resource.RUSAGE_SELF)\n"
        "print(code, usage.ru_maxrss / 1e6, usage.ru_utime + usage.ru_stime)"
    )
    out = folder.with_name(folder.name + "-run")
    asked = [sys.executable, "-c", code, "fit", str(folder), "--out", str(out), "--overwrite"]
    done = subprocess.run(asked, capture_output=True, text=True, check=True)
    exit_code, gigabytes, seconds = done.stdout.split()[-3:]
    found = {"scans": scans, "side": side, "exit": int(exit_code), "gigabytes": float(gigabytes)}
    return found | {"cpu_seconds": round(float(seconds), 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("generator", "parts", "pairs", "memory", "page"))
    parser.add_argument("methods", nargs="*")
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=PARTS)
    parser.add_argument("--seeds", nargs="+", type=int, default=None)
    parser.add_argument("--scans", type=int, default=200)
    parser.add_argument("--side", type=int, default=400)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    if asked.what == "page":
        files.write(PAGE, page().encode())
        return
    if asked.what == "memory":
        print(json.dumps(memory(Path(asked.methods[0]), asked.scans, asked.side)))
        return
    asked.seeds = asked.seeds or ([4, 5, 6, 7] if asked.what == "generator" else [0, 1, 2])
    done = {rows.key(row["settings"]) for row in rows.read_rows(RESULTS) if rows.is_done(row)}
    figures = Rows()
    for settings in planned(asked):
        if rows.key(settings) in done:
            continue
        row = {
            "settings": settings,
            "status": "ok",
            **figures(settings),
            "commit": rows.commit(),
            "versions": rows.versions(),
        }
        rows.append(RESULTS, row)
        print(json.dumps(row), file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()

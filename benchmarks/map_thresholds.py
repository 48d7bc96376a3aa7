"""Do score maps flag the defect and spare good pictures? The default's maps at the run's own threshold, beside the best
that each map could do.

    python benchmarks/map_thresholds.py run [SET ...] [--seeds SEED ...]
    python benchmarks/map_thresholds.py page
    python benchmarks/map_thresholds.py overlays

A draw is 200 good training pictures of a set, or fewer, fitted as `tailwise fit` does without options; its run's
threshold is for 5 % of good pictures with a flagged pixel. Of more than 300 test pictures 150 good and 150 defective
ones are drawn, the same for all draws. A region is a connected part of a defect's mask at the picture's own size. What
a map could do is read at the threshold that leaves exactly 5 % or 10 % of the good test pictures with a flagged pixel,
which no user has.
Rows go to benchmarks/results/images/map_thresholds.jsonl, one that is there is not computed again, and `page` writes
benchmarks/map-thresholds.md. `overlays` draws eight made pictures (those of the sets may not be passed on) into
docs/maps.jpg. Labels and masks are read by the figures only. One thread.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

# Set before torch is imported: afterwards it is too late.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import scipy
import torch
from PIL import Image

from tailwise.benchmark import rows
from tailwise.benchmark.tables import table
from tailwise.calibration import score_maps
from tailwise.core.detector import Detector
from tailwise.core.problem import Labelled, Problem
from tailwise.detectors.patch_ensemble import PatchEnsemble
from tailwise.numerics import metrics
from tailwise.runs.files import write as write_file
from tailwise.sources.auto import open_source
from tailwise.sources.paths import find_path
from tailwise.training.local_scores import LocallyScored
from tailwise.workflows import blocks
from tailwise.workflows.fit import fit_run
from tailwise.workflows.request import Request
from tailwise.workflows.score import score_data

RESULTS = Path(__file__).parent / "results" / "images" / "map_thresholds.jsonl"
PAGE = Path(__file__).parent / "map-thresholds.md"
DRAWING = Path(__file__).parents[1] / "docs" / "maps.jpg"
FOLDERS = {"tiles": "magnetic_tile", "tires": "mvtec3d_tire", "boards": "deeppcb"}
SEEDS = (10, 11, 12)
TRAIN, MOST_TESTED, TESTED, ASKED = 200, 300, 150, (0.05, 0.1)
# Pixels of a picture that count as the defect's surroundings: maps are coarser than masks.
AROUND = 5
HELD = "default"
TOUCHING = np.ones((3, 3), dtype=bool)
HEAD = """# Do maps flag the defect and spare good pictures?

Written by `benchmarks/map_thresholds.py` from results/images/map_thresholds.jsonl. The good pictures of a draw are
fitted by `tailwise fit` without options; tires have 25 good test pictures, the others 150 and as many defective ones. A
region of a defect is found where any of its pixels is flagged; masks of boards are differences of two pictures and fall
into many small pieces. `clean area` is the share of pixels outside of defects that is flagged in defective pictures,
`on a defect` the share of flagged spots there that touch one. Means over draws, the range beside.

## At the run's own threshold, for 5 % of good pictures
"""
OWN = [
    "set", "good", "draws", "regions found", "range", "good pictures flagged", "range", "defective pictures flagged",
    "clean area", "on a defect", "image AUROC",
]  # fmt: skip
CEILING = """
## What each map could do

Regions found where exactly 5 % | 10 % of the good test pictures have a flagged pixel. The default's map is the smaller
of both, held to what the picture's local score says. The last column is the share of good pictures with the highest
pixel of their map in its outer part, of that part's share of the pixels.
"""


@dataclass(frozen=True, eq=False)
class Judged:
    """What maps say of test pictures: the highest pixel of each good one, and of each region, with its kind of defect;
    and how many good ones have it in the outer part, of whose share."""

    good: np.ndarray
    region: np.ndarray
    kind: np.ndarray
    border: tuple[float, float]

    @classmethod
    def of(cls, maps: Iterable[np.ndarray], test: Labelled) -> Judged:
        assert test.masks is not None
        assert test.labels is not None
        good: list[float] = []
        highest: list[float] = []
        kinds: list[str] = []
        outer: list[float] = []
        share = 0.0
        for name, label, mask, scores in zip(test.data.names, test.labels, test.masks, maps, strict=True):
            if not label:
                edge = border_of(scores.shape)
                good.append(float(scores.max()))
                outer.append(float(edge[scores == scores.max()].mean()))  # a map that is held is flat at its top
                share = float(edge.mean())
            elif mask is not None:
                number, count = scipy.ndimage.label(mask, TOUCHING)
                highest += list(scipy.ndimage.maximum(at_size(scores, mask.shape), number, range(1, count + 1)))
                kinds += [str(name).split("/")[-2]] * count
        return cls(np.array(good), np.array(highest), np.array(kinds), (float(np.mean(outer)), share))

    def best(self, asked: float) -> np.ndarray:
        """Which regions are found at the threshold that exactly this share of good pictures passes."""
        return self.region > np.sort(self.good)[::-1][int(asked * len(self.good))]


def border_of(shape: tuple[int, ...]) -> np.ndarray:
    """The outer part [h, w] of a map, as wide as one of 28 places a side."""
    outer, wide = np.ones(shape, dtype=bool), round(max(shape) / 28)
    outer[wide:-wide, wide:-wide] = False
    return outer


def at_size(scores: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    return score_maps.resized(torch.from_numpy(scores)[None], (size[0], size[1]))[0].numpy()


def problem_of(of: str, seed: int, count: int) -> tuple[Any, Problem, Labelled]:
    """The source, the training pictures of a draw without a test, and the test."""
    source = open_source(find_path(f"images/{FOLDERS[of]}"), maps=None)
    problem = source.load()
    chosen = np.sort(np.random.default_rng(seed).permutation(len(problem.train))[:count])
    assert problem.test is not None
    return source, replace(problem, train=problem.train.take(chosen), test=None), few_of(problem.test)


def few_of(test: Labelled) -> Labelled:
    """All test pictures, or as many of each sort as say enough."""
    labels = np.asarray(test.labels).astype(bool)
    if len(labels) <= MOST_TESTED:
        return test
    generator = np.random.default_rng(99)
    drawn = [generator.permutation(np.flatnonzero(labels == sort))[:TESTED] for sort in (True, False)]
    return test.take(np.sort(np.concatenate(drawn)))


def measure(of: str, seed: int, count: int) -> dict[str, Any]:
    source, problem, test = problem_of(of, seed, count)
    start = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        run = fit_run(Request(source, seed=seed), Path(folder) / "run", problem=problem)
        seconds = time.process_time() - start
        detector, scale, threshold = run.detector(), run.map_scale, run.calibration().threshold(ASKED[0])
        assert scale is not None
        # The run may read by other blocks than the source did.
        test = blocks.read_again(run.source(), replace(problem, test=test)).test or test
        pairs = list(score_maps.with_scores(detector, test.data))
    scores, maps = np.array([score for score, _ in pairs]), [each for _, each in pairs]
    labels = np.asarray(test.labels).astype(bool)
    held = Judged.of(maps, test)
    return {
        "status": "ok", "train": len(problem.train), "good": int((~labels).sum()), "regions": len(held.region),
        "fit_seconds": round(seconds, 1), "image_auroc": metrics.auroc(labels, scores),
        "good_rejected": float((scores[~labels] > threshold).mean()),
        "defective_rejected": float((scores[labels] > threshold).mean()),
        "regions_found": float((held.region > scale.threshold).mean()),
        "good_flagged": float((held.good > scale.threshold).mean()),
        "defective_flagged": float(np.mean([maps[i].max() > scale.threshold for i in np.flatnonzero(labels)])),
        **cleanness(maps, test, scale.threshold),
        "maps": {HELD: could(held)} | {
            name: could(Judged.of(score_maps.of_data(part, test.data), test))
            for name, part in parts_of(detector).items()
        },
    }  # fmt: skip


def parts_of(detector: Detector) -> dict[str, Detector]:
    """The detectors whose maps the default's is made of: none where it is one memory of fine blocks."""
    if not isinstance(detector, LocallyScored):
        return {}
    assert isinstance(detector.detector, PatchEnsemble)
    both = detector.detector
    return {"the smaller of both": both, "padim": both.positions, "patch-memory": both.patches}


def could(judged: Judged) -> dict[str, Any]:
    """The best that a map could do, over all regions and of each kind of defect, and its highest at the border."""
    found = {str(asked): judged.best(asked) for asked in ASKED}
    kinds = {str(kind): float(found["0.1"][judged.kind == kind].mean()) for kind in np.unique(judged.kind)}
    share = {asked: float(each.mean()) for asked, each in found.items()}
    return {"found": share, "kinds": kinds, "at_border": judged.border[0], "border_share": judged.border[1]}


def cleanness(maps: list[np.ndarray], test: Labelled, threshold: float) -> dict[str, float]:
    """What is flagged in defective pictures: the share of pixels outside of defects, and of spots that touch one."""
    assert test.masks is not None
    area, spots, right = [], 0, 0
    for scores, mask in zip(maps, test.masks, strict=True):
        if mask is None or not mask.any():
            continue
        near = scipy.ndimage.binary_dilation(mask, iterations=AROUND)
        flagged = at_size(scores, mask.shape) > threshold
        number, count = scipy.ndimage.label(flagged, TOUCHING)
        area.append(float(flagged[~near].mean()))
        spots += count
        right += len(set(number[near].tolist()) - {0})
    return {"clean_area": float(np.mean(area)), "on_defect": right / max(spots, 1)}


def page() -> str:
    """The rows as two tables."""
    found = [row for row in rows.read_rows(RESULTS) if row["status"] == "ok"]
    own, best = [], []
    counts = sorted({row["settings"]["train"] for row in found})
    for of, count in itertools.product(FOLDERS, counts):
        here = [row for row in found if (row["settings"]["set"], row["settings"]["train"]) == (of, count)]
        if not here:
            continue
        shares = [[row[name] for row in here] for name in ("regions_found", "good_flagged")]
        spread = [text for each in shares for text in (f"{np.mean(each):.2f}", f"{min(each):.2f} to {max(each):.2f}")]
        rest = [mean(here, name, 2) for name in ("defective_flagged", "clean_area", "on_defect")]
        own.append([of, str(count), str(len(here)), *spread, *rest, mean(here, "image_auroc", 3)])
        for name in dict.fromkeys(name for row in here for name in row["maps"]):
            maps = [row["maps"][name] for row in here if name in row["maps"]]
            best.append([of, str(count), f"{name} ({len(maps)} draws)", *could_do(maps)])
    headings = ["set", "good", "map", "regions at 5 % / 10 %", "of each kind at 10 %", "highest at the border"]
    return f"{HEAD}\n{table(OWN, own)}\n{CEILING}\n{table(headings, best)}\n"


def could_do(maps: list[dict[str, Any]]) -> list[str]:
    shares = " / ".join(f"{np.mean([each['found'][str(asked)] for each in maps]):.2f}" for asked in ASKED)
    kinds = ", ".join(f"{kind} {np.mean([each['kinds'][kind] for each in maps]):.2f}" for kind in maps[0]["kinds"])
    return [shares, kinds, f"{mean(maps, 'at_border', 2)} of {mean(maps, 'border_share', 2)}"]


def mean(here: list[dict[str, Any]], figure: str, digits: int) -> str:
    return f"{np.mean([row[figure] for row in here]):.{digits}f}"


def drawing() -> Image.Image:
    """Six scratched plates of discs and two good ones, as they are drawn, with what a run of 60 good ones flags."""
    import image_limits

    generator = np.random.default_rng(0)

    def made(count: int, scratches: int = 0) -> list[np.ndarray]:
        places = [image_limits.free_places(generator, image_limits.DISCS) for _ in range(count)]
        return [image_limits.drawn(generator, each, scratches) for each in places]

    with tempfile.TemporaryDirectory() as folder:
        image_limits.write(Path(folder) / "good", made(60))
        tests = image_limits.write(Path(folder) / "new", [*made(6, scratches=1), *made(2)])
        run = fit_run(Request(open_source(str(Path(folder) / "good"), maps=None)), Path(folder) / "run")
        score_data(run.path, str(tests), map_folder=Path(folder) / "maps")
        shown = [Image.open(path).convert("RGB") for path in sorted((Path(folder) / "maps").rglob("*.overlay.png"))]
    side = image_limits.SIDE
    sheet = Image.new("RGB", (4 * side, 2 * side))
    for place, overlay in enumerate(shown):
        sheet.paste(overlay.crop((0, 0, side, side)), (place % 4 * side, place // 4 * side))
    return sheet


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "page", "overlays"))
    parser.add_argument("sets", nargs="*", default=tuple(FOLDERS), metavar="SET")
    parser.add_argument("--seeds", nargs="+", type=int, default=SEEDS)
    parser.add_argument("--train", type=int, default=TRAIN, help="good pictures that are trained on")
    asked = parser.parse_args()
    if asked.what == "overlays":
        drawing().save(DRAWING, quality=80)
        return
    if asked.what == "page":
        write_file(PAGE, page().encode())
        return
    done = {rows.key(row["settings"]) for row in rows.read_rows(RESULTS) if rows.is_done(row)}
    for seed in asked.seeds:
        for of in asked.sets:
            settings = {"set": of, "seed": seed, "train": asked.train}
            if rows.key(settings) not in done:
                row = {"settings": settings, **measure(of, seed, asked.train)}
                row |= {"commit": rows.commit(), "versions": rows.versions()}
                rows.append(RESULTS, row)
                print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()

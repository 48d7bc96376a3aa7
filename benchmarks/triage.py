"""Triage of contaminated training images with a rare kind of normal among them, JSON lines.

    python benchmarks/triage.py [tiles|cells ...] [--seeds 11 12 13 14 15 16]

Of 500 good pictures a fiftieth is of a rare kind, and a tenth of all are defective ones. The rare kind of the tiles
is made of good ones, turned and darkened; that of the cells is the other sort of cell, by turns mono and poly, and
defective cells are of both. What `tailwise triage` ranks first is held against the labels, which it does not see.
Sets are looked for in TAILWISE_DATA. Seeds 1 to 16 were looked at before the defaults were chosen as they are.
"""

from __future__ import annotations

import argparse
import json
import time

import numpy as np
import torch

from tailwise.backbones import networks
from tailwise.core.data import Data
from tailwise.core.problem import Facts, Labelled, Problem, Source
from tailwise.report import review
from tailwise.sources.images import ImageFolder
from tailwise.sources.solar import SolarCells
from tailwise.workflows import triage
from tailwise.workflows.request import Request

BACKBONE, LAYERS = "efficientnet-lite0", networks.deep_layers("efficientnet-lite0")
GOOD, RARE, HIDDEN = 500, 0.02, 0.1
EFFORT = 0.15


def tiles(generator: np.random.Generator) -> tuple[Source, torch.Tensor, np.ndarray]:
    source = ImageFolder("images/magnetic_tile", read=BACKBONE, layers=LAYERS)
    everything = source.load_all()
    names = np.array(everything.data.names)
    assert everything.labels is not None
    good = generator.permutation(np.flatnonzero(np.char.startswith(names, "train/good/")))
    rare, frequent = good[: counts()[1]], good[counts()[1] :][: counts()[0]]
    bad = generator.permutation(np.flatnonzero(everything.labels))[: counts()[2]]
    pixels = ImageFolder("images/magnetic_tile", read="pixels", size=224).load_all().data
    turned = 0.7 * pixels.read(torch.from_numpy(rare)).rot90(1, (2, 3))
    maps = networks.mapped(BACKBONE, LAYERS)(turned)
    return source, torch.cat([taken(everything, frequent), maps, taken(everything, bad)]), kinds()


def cells(generator: np.random.Generator) -> tuple[Source, torch.Tensor, np.ndarray]:
    source = SolarCells(read=BACKBONE, layers=LAYERS)
    everything = source.load_all()
    assert everything.labels is not None
    assert everything.groups is not None
    frequent, rare = ("mono", "poly") if generator.random() < 0.5 else ("poly", "mono")
    chosen = []
    for kind, count in ((frequent, counts()[0]), (rare, counts()[1])):
        chosen.append(generator.permutation(np.flatnonzero(~everything.labels & (everything.groups == kind)))[:count])
    chosen.append(generator.permutation(np.flatnonzero(everything.labels))[: counts()[2]])
    return source, taken(everything, np.concatenate(chosen)), kinds()


def counts() -> tuple[int, int, int]:
    """How many good ones of the frequent and of the rare kind, and defective ones."""
    total = round(GOOD / (1 - HIDDEN))
    rare = round(RARE * total)
    return GOOD - rare, rare, total - GOOD


def kinds() -> np.ndarray:
    return np.repeat(["frequent", "rare", "defective"], counts())


def taken(everything: Labelled, index: np.ndarray) -> torch.Tensor:
    return everything.data.read(torch.from_numpy(index))


def run(name: str, seed: int) -> dict[str, object]:
    generator = np.random.default_rng(seed)
    source, samples, truth = {"tiles": tiles, "cells": cells}[name](generator)
    order = generator.permutation(len(samples))
    data = Data(samples[torch.from_numpy(order)], [str(i) for i in range(len(samples))])
    truth = truth[order]
    request = Request(source=source, detector=triage.detector_for(source), weighting="", scores="own", seed=seed)
    started = time.process_time()
    sheet = triage.triage(request, problem=Problem(data, Facts(name))).sheet
    of = truth[sheet["sample"].astype(int)]
    called = (sheet["verdict"] == review.PROBABLY_ANOMALY).to_numpy()
    first = of[: round(EFFORT * len(of))]
    row: dict[str, object] = {"set": name, "seed": seed, "detector": request.detector, "samples": len(of)}
    row["found_in_first_15_percent"] = round((first == "defective").sum() / (of == "defective").sum(), 3)
    row |= {f"{kind}_called_anomaly": round(float(called[of == kind].mean()), 3) for kind in np.unique(of)}
    return row | {"cpu_s": round(time.process_time() - started, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="*", default=["tiles", "cells"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[21, 22, 23, 24, 25, 26])
    asked = parser.parse_args()
    torch.set_num_threads(1)
    for name in asked.sets:
        for seed in asked.seeds:
            print(json.dumps(run(name, seed)), flush=True)


if __name__ == "__main__":
    main()

"""Are hidden kinds of normal found, rare ones too, and is a new kind called unknown? JSON lines.

    python benchmarks/clusters.py [mnist|boards|objects ...] [--seeds 51 52 53 54 55 56 57 58 59 60]

A draw takes five digits of MNIST, ten of the eleven boards, or six objects of MVTec-AD (ResNet-18 features), in sizes
that fall off geometrically to a rarest kind of 1 to 2 % (of the boards: those there are, one of them thinned to that).
One more kind is left out and asked for as the new one. Labels only judge. A row holds

    ari             the adjusted Rand index of the found clusters and the hidden kinds
    rare_found      whether one cluster holds more than half of the rarest kind, which is more than half of that cluster
    false_unknown   the share of fresh normals, in the proportions of training, that are called unknown
    new_unknown     the share of the new kind that is called unknown

Sets are looked for in TAILWISE_DATA. Seeds 1 to 5 were looked at when the defaults were chosen, and 11 to 50
before they were chosen as they are.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.metrics import adjusted_rand_score

from tailwise.benchmark import draws
from tailwise.benchmark.suites import SourceSettings
from tailwise.calibration.clusters import UNKNOWN, Clusters
from tailwise.core.data import Data

OBJECTS = (
    "bottle", "cable", "capsule", "carpet", "grid", "hazelnut", "leather", "metal_nut", "pill", "screw", "tile",
    "toothbrush", "transistor", "wood", "zipper",
)  # fmt: skip
SETS = {
    "mnist": SourceSettings("Idx(path='idx/mnist')", normals=5, largest=2_000),
    "boards": SourceSettings(
        "ImageFolder(path='images/deeppcb', groups='groups.csv', size=224, channels=1)", features="efficientnet-lite0"
    ),
    "objects": SourceSettings(
        "Table(path='tabular/mvtec_resnet18/MVTec-AD_{group}.npz')", groups=OBJECTS, normals=6, largest=500
    ),
}
FRESH = 0.2


@dataclass(frozen=True, eq=False)
class Draw:
    """Samples of a draw: training, fresh normals in the same proportions, and the new kind; the kinds of the first."""

    train: Data
    kinds: np.ndarray
    fresh: Data
    new: Data
    rarest: str


def draw(name: str, seed: int) -> Draw:
    """The draw of this seed from all normals of a set."""
    settings = SETS[name]
    pool = draws.load(settings, "")
    generator = np.random.default_rng(seed)
    assert pool.groups is not None
    normal = np.full(len(pool.data), True) if pool.labels is None else ~pool.labels
    known = generator.permutation(np.unique(pool.groups[normal]))
    count = settings.normals or len(known) - 1
    members = {kind: generator.permutation(np.flatnonzero(normal & (pool.groups == kind))) for kind in known}
    share = generator.uniform(0.01, 0.02)
    # Kinds of few samples cannot be the frequent ones.
    order = sorted(known[:count], key=lambda kind: -min(len(members[kind]), settings.largest))
    sizes = _sizes([int(len(members[kind]) / (1 + FRESH)) for kind in order], settings, share)
    parts = [members[kind][: round(size * (1 + FRESH))] for kind, size in zip(order, sizes, strict=True)]
    train = np.sort(np.concatenate([part[:size] for part, size in zip(parts, sizes, strict=True)]))
    fresh = np.concatenate([part[size:] for part, size in zip(parts, sizes, strict=True)])
    new = np.concatenate([members[kind][:1_000] for kind in known[count : count + 1]])
    data = pool.data
    return Draw(data.take(train), pool.groups[train], data.take(fresh), data.take(new), order[-1])


def _sizes(available: list[int], settings: SourceSettings, share: float) -> list[int]:
    """Samples of each kind, the last one rarest with this share of all."""
    if settings.normals is None:
        return [*available[:-1], min(available[-1], round(share / (1 - share) * sum(available[:-1])))]
    place = np.arange(len(available)) / (len(available) - 1)
    low, high = 1.0, 1_000.0
    for _ in range(50):  # the fall for which the last has that share
        fall = (low * high) ** 0.5
        shares = fall**-place
        low, high = (fall, high) if shares[-1] / shares.sum() > share else (low, fall)
    most = min([settings.largest, *(count / part for count, part in zip(available, shares, strict=True))])
    return [max(2, round(most * part)) for part in shares]


def run(name: str, seed: int) -> dict[str, object]:
    drawn = draw(name, seed)
    started = time.process_time()
    kinds = Clusters.learn(drawn.train, seed=seed)
    assert kinds.training is not None
    found = kinds.training.numpy()
    fresh, new = kinds.of(drawn.fresh).numpy(), kinds.of(drawn.new).numpy()
    seconds = round(time.process_time() - started, 2)
    _, sizes = np.unique(drawn.kinds, return_counts=True)
    row: dict[str, object] = {
        "set": name,
        "seed": seed,
        "samples": len(found),
        "kinds": len(sizes),
        "clusters": kinds.count,
    }
    row |= {"rarest": drawn.rarest, "rarest_samples": int((drawn.kinds == drawn.rarest).sum())}
    row["rarest_share"] = round(float((drawn.kinds == drawn.rarest).mean()), 4)
    row["ari"] = round(float(adjusted_rand_score(drawn.kinds, found)), 3)
    row["rare_found"] = holds(found, drawn.kinds == drawn.rarest)
    row["false_unknown"] = round(float((fresh == UNKNOWN).mean()), 3)
    row["new_unknown"] = round(float((new == UNKNOWN).mean()), 3)
    return row | {"cpu_s": seconds}


def holds(found: np.ndarray, rare: np.ndarray) -> bool:
    """Whether one cluster holds more than half of the rare kind, which is more than half of that cluster."""
    clusters, counts = np.unique(found[rare & (found >= 0)], return_counts=True)
    if not len(clusters):
        return False
    most = clusters[counts.argmax()]
    return bool(counts.max() > rare.sum() / 2 and counts.max() > (found == most).sum() / 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="*", default=[*SETS])
    parser.add_argument("--seeds", nargs="+", type=int, default=[*range(51, 61)])
    asked = parser.parse_args()
    torch.set_num_threads(1)
    for name in asked.sets:
        for seed in asked.seeds:
            print(json.dumps(run(name, seed)), flush=True)


if __name__ == "__main__":
    main()

"""Does drift name the right kind, and stay silent where nothing changed? JSON lines.

    python benchmarks/drift.py [--seeds 11 12 13] [--batch 1000] [--unshifted 100] [--detector gaussian]

A run is fitted on five digits of MNIST, long-tailed as in benchmarks/clusters.py. Batches are drawn from digits that
were not trained on, in the same proportions: unchanged; with every picture, or only those of the second most frequent
digit, dimmed; with twice the share of the rarest found cluster; and with twice that of the rarest digit, which may be
no cluster. The right cluster of a digit is the one that holds most of its training samples; a part is any cluster that
is mostly the rarest digit. Labels only judge. MNIST is looked for in TAILWISE_DATA. Seeds 1 to 5 are for choosing.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from clusters import SETS, draw, holds

from tailwise.benchmark import draws
from tailwise.calibration import drift as calibration_drift
from tailwise.calibration.clusters import Clusters
from tailwise.calibration.drift import Drift, Population
from tailwise.core import inference
from tailwise.core.data import Data
from tailwise.core.detector import Detector
from tailwise.core.problem import Facts, Problem
from tailwise.runs import store
from tailwise.runs.table import reference_of
from tailwise.sources.idx import Idx
from tailwise.workflows.fit import fit_run
from tailwise.workflows.request import Request

DIMMED = 0.7
_MOST = 4_000


def run(seed: int, batch: int, unshifted: int, detector: str) -> dict[str, object]:
    drawn = draw("mnist", seed)
    pool = draws.load(SETS["mnist"], "")
    assert pool.groups is not None
    left = np.setdiff1d(np.arange(len(pool.data)), np.array(drawn.train.names, dtype=int))
    names, counts = np.unique(drawn.kinds, return_counts=True)
    shares = dict(zip(names.tolist(), (counts / counts.sum()).tolist(), strict=True))
    second = names[counts.argsort()[-2]]
    with tempfile.TemporaryDirectory() as folder:
        train = replace(drawn.train, names=[str(name) for name in drawn.train.names])
        request = Request(source=Idx("idx/mnist"), detector=detector, seed=seed)
        opened = fit_run(request, Path(folder) / "run", problem=Problem(train, Facts("mnist")))
        left = left[np.isin(pool.groups[left], names)]
        judge = Judge(opened, pool.data, pool.groups, left, np.random.default_rng(10_000 + seed), batch)
        found = opened.scores()["cluster"].to_numpy()
    own = {kind: int(np.bincount(found[(drawn.kinds == kind) & (found >= 0)]).argmax()) for kind in names}
    row: dict[str, object] = {"seed": seed, "detector": detector, "batch": batch, "clusters": int(found.max()) + 1}
    row["unshifted"] = unshifted
    row["alarms"] = sum(judge.drift(shares).alarm for _ in range(unshifted))
    dimmed = [judge.drift(shares, dim=second) for _ in range(10)]
    row["one_dimmed_named"] = [each.name for each in dimmed[0].named]
    row["one_dimmed_right_of_10"] = sum(bool(one.named) and one.named[0].cluster == own[second] for one in dimmed)
    row["all_dimmed_named"] = [each.name for each in judge.drift(shares, dim="all").named]
    smallest = int(found.max())  # clusters are numbered by falling size
    twice = [judge.drift(shares, doubled=smallest) for _ in range(10)]
    row["smallest_cluster_samples"] = int((found == smallest).sum())
    row["smallest_cluster_doubled_named_of_10"] = sum(smallest in [each.cluster for each in one.named] for one in twice)
    row["smallest_cluster_doubled_first_of_10"] = sum(
        bool(one.named) and one.named[0].cluster == smallest for one in twice
    )
    rare = drawn.rarest
    doubled = [judge.drift(shares | {rare: 2 * shares[rare]}) for _ in range(10)]
    row["rare_is_a_cluster"] = holds(found, drawn.kinds == rare)
    row["rare_share"] = round(shares[rare], 4)
    row["doubled_named_of_10"] = sum(own[rare] in [each.cluster for each in one.named] for one in doubled)
    row["doubled_alarms_of_10"] = sum(one.alarm for one in doubled)
    parts = [cluster for cluster in range(found.max() + 1) if (drawn.kinds[found == cluster] == rare).mean() > 0.5]
    row["doubled_part_named_of_10"] = sum(any(each.cluster in parts for each in one.named) for one in doubled)
    row["doubled_first_of_10"] = sum(one.rows[1].cluster == own[rare] for one in doubled)
    return row


class Judge:
    """Draws batches and holds them against a run. Samples are placed and scored once, at most 4,000 of a digit."""

    def __init__(
        self,
        opened: store.Run,
        data: Data,
        kinds: np.ndarray,
        left: np.ndarray,
        generator: np.random.Generator,
        size: int,
    ) -> None:
        found = opened.clusters()
        assert found is not None
        self.generator, self.size, detector = generator, size, opened.detector()
        self.reference = reference_of(opened.scores(), found)
        chosen = [generator.permutation(left[kinds[left] == kind])[:_MOST] for kind in np.unique(kinds)]
        ends = np.cumsum([len(part) for part in chosen])
        self.of = {k: np.arange(end - len(c), end) for k, c, end in zip(np.unique(kinds), chosen, ends, strict=True)}
        samples = data.read(torch.from_numpy(np.concatenate(chosen)))
        self.samples = [self._sample(found, detector, samples * light) for light in (1, DIMMED)]

    def _sample(self, found: Clusters, detector: Detector, samples: torch.Tensor) -> Population:
        data = Data(samples, [str(i) for i in range(len(samples))])
        placed, scores = found.place(data), inference.score(detector, data).double().numpy()
        return Population(placed.nearest.numpy(), placed.unknown.numpy(), scores, placed.along.numpy())

    def drift(self, shares: dict[str, float], dim: str = "", doubled: int | None = None) -> Drift:
        """Of a batch with these shares of the digits; of a cluster that is doubled, others are added."""
        total = sum(shares.values())
        counts = self.generator.multinomial(self.size, [share / total for share in shares.values()])
        parts = []
        for kind, count in zip(shares, counts, strict=True):
            chosen = self.generator.choice(self.of[kind], count, replace=False)
            parts.append((self.samples[dim in (kind, "all")], chosen))
        if doubled is not None:
            parts.append((self.samples[0], self._more(doubled, np.concatenate([chosen for _, chosen in parts]))))
        names = ("clusters", "unknown", "scores", "places")
        columns = (np.concatenate([getattr(sample, name)[chosen] for sample, chosen in parts]) for name in names)
        return calibration_drift.drift(self.reference, Population(*columns))

    def _more(self, cluster: int, chosen: np.ndarray) -> np.ndarray:
        """As many other samples of a cluster as there are among the chosen; samples twice where there are too few
        others."""
        there = self.samples[0].clusters == cluster
        count = int(there[chosen].sum())
        others = np.setdiff1d(np.flatnonzero(there), chosen)
        if len(others) >= count:
            return self.generator.choice(others, count, replace=False)
        return self.generator.choice(np.flatnonzero(there), count, replace=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", nargs="+", type=int, default=[11, 12, 13])
    parser.add_argument("--batch", type=int, default=1_000)
    parser.add_argument("--unshifted", type=int, default=100)
    parser.add_argument("--detector", default="gaussian")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    for seed in asked.seeds:
        print(json.dumps(run(seed, asked.batch, asked.unshifted, asked.detector)), flush=True)


if __name__ == "__main__":
    main()

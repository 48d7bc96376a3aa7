"""Do thresholds keep their promise on real sets? False alarms over 200 splits, of all normals and of each kind.

    python benchmarks/guarantees.py --seeds 1,2 > rows.jsonl
    python benchmarks/guarantees.py --page benchmarks/results/guarantees.jsonl > benchmarks/guarantees.md

A detector is trained once a seed. The normals that it was not trained on, with kinds as frequent as in training, are
split 200 times into calibration and test: that is the chance over which split conformal prediction promises.
CrossFitted thresholds, whose calibration is the training samples, are measured once a seed, on the same normals. Kinds
are known for measuring only, but for the threshold "known kinds", which is what --per-group does.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import stats

from tailwise.benchmark import draws
from tailwise.benchmark.rows import read_all
from tailwise.benchmark.suites import SourceSettings, read_suite
from tailwise.calibration import conformal
from tailwise.calibration.by_kind import Calibration
from tailwise.calibration.clusters import Clusters
from tailwise.core import inference, registry
from tailwise.core.data import Data
from tailwise.runs import scorer
from tailwise.training import cross_fitting, local_scores
from tailwise.training import fit as training_fit
from tailwise.training.cross_fitting import Fitted
from tailwise.weights.default import parse_weighting

SUITE = Path(__file__).parent / "suites" / "long_tail.toml"
SPLITS, ALPHAS, ENOUGH, MOST_EXTRA = 200, (0.01, 0.05, 0.1), 50, 300
# Name in the suite, imbalance (None is as given), largest kind.
SETS: dict[str, tuple[str, float | None, int]] = {
    "solar cells 400:40": ("solar-poly-rare", 10, 400),
    "mnist, 5 digits 100:1": ("mnist", 100, 1_000),
    "circuit boards": ("circuit-boards", None, 0),
    "mvtec objects 20:1": ("mvtec-objects", 20, 200),
}
# Detector, weighting, scores; plain is the detector alone.
DETECTORS = {
    "plain gaussian": ("gaussian", "", ""),
    "gaussian": ("gaussian", "auto", "auto"),
    "autoencoder": ("AutoEncoder(dense=True)", "auto", "auto"),
}


@dataclass(frozen=True, eq=False)
class Drawn:
    """Training normals; others with kinds as frequent; more of the rarest kind; anomalies."""

    train: Data
    train_groups: np.ndarray
    fresh: Data
    fresh_groups: np.ndarray
    rare: Data | None
    rarest: str
    anomalies: Data


def drawn(name: str, seed: int) -> Drawn:
    """Half of each kind's normals or more are kept back; the long tail is the same in both parts."""
    chosen, imbalance, largest = SETS[name]
    settings: SourceSettings = read_suite(SUITE).sources[chosen]
    pool = draws.load(settings, "")
    assert pool.groups is not None
    generator = np.random.default_rng(seed)
    labels = np.zeros(len(pool.data), dtype=bool) if pool.labels is None else np.asarray(pool.labels).astype(bool)
    order = list(settings.order or generator.permutation(np.unique(pool.groups[~labels])))
    if settings.normals and len(order) > settings.normals:
        order = order[: settings.normals]
    members = {k: generator.permutation(np.flatnonzero((pool.groups == k) & ~labels)) for k in order}
    if imbalance is None:
        sizes = {k: len(own) // 2 for k, own in members.items()}
    else:
        falling = largest * imbalance ** (-np.arange(len(order)) / (len(order) - 1))
        sizes = {k: min(round(size), len(members[k]) * 7 // 10) for k, size in zip(order, falling, strict=True)}
    share = min(1.0, *((len(members[k]) - sizes[k]) / sizes[k] for k in order))
    train = np.concatenate([members[k][: sizes[k]] for k in order])
    fresh = np.concatenate([members[k][sizes[k] : sizes[k] + round(share * sizes[k])] for k in order])
    rarest = min(order, key=lambda k: sizes[k])
    rare = np.setdiff1d(members[rarest], np.concatenate([train, fresh]))[:MOST_EXTRA]
    odd = labels & np.isin(pool.groups, order) if labels.any() else ~np.isin(pool.groups, order)
    odd = odd if odd.any() else labels
    anomalies = generator.permutation(np.flatnonzero(odd))[:1_000]
    take = pool.data.take
    return Drawn(
        take(train),
        pool.groups[train],
        take(fresh),
        pool.groups[fresh],
        take(rare) if len(rare) else None,
        str(rarest),
        take(anomalies),
    )


def fitter(detector: str, weighting: str, rule: str) -> Any:
    """What trains a detector, with local scores where there is a rule."""

    def fit(data: Data, base: torch.Tensor, seed: int) -> Fitted:
        made = registry.parse_one(detector, "detector")
        chosen = parse_weighting(weighting, data.modality)
        outcome = training_fit.fit(made, data, chosen, base_weights=base, seed=seed)
        return Fitted.read_by(local_scores.parse(rule), made, outcome, data, base, seed)

    return fit


def rows_of(name: str, detector: str, seed: int, cross_fitted: bool) -> Iterator[dict[str, Any]]:
    """A row for each threshold and alpha: held out, and cross-fitted."""
    found = drawn(name, seed)
    fit = fitter(*DETECTORS[detector])
    final = fit(found.train, torch.ones(len(found.train)), seed)
    kinds = scorer.closest(Clusters.learn(found.train, seed))
    own = {
        part: (inference.score(final.detector, data).double().numpy(), kinds.of(data).numpy())
        for part, data in (("fresh", found.fresh), ("rare", found.rare), ("anomalies", found.anomalies))
        if data is not None
    }  # fmt: skip
    about = {"set": name, "detector": detector, "seed": seed, "draws": "development" if seed <= 10 else "confirmation"}
    for row in held_out(found, own, np.random.default_rng(seed)):
        yield about | {"calibrated": "held out"} | row
    if cross_fitted:
        for row in cross(found, fit, final, own, kinds, seed):
            yield about | {"calibrated": "cross-fitted"} | row


def held_out(found: Drawn, own: dict[str, Any], generator: np.random.Generator) -> Iterator[dict[str, Any]]:
    size = len(found.fresh)
    scores, fresh_found = own["fresh"]
    tallies = {(way, alpha): Tally(found, own) for way in ("one", "found kinds", "known kinds") for alpha in ALPHAS}
    for _ in range(SPLITS):
        order = generator.permutation(size)
        calibration, test = order[: size // 2], order[size // 2 :]
        for way, calibrated, kinds in ways(scores, fresh_found, found.fresh_groups, calibration):
            for alpha in ALPHAS:
                tallies[way, alpha].add(calibrated, kinds, alpha, calibration, test)
    for (way, alpha), tally in tallies.items():
        yield {"threshold": way, "alpha": alpha, "splits": SPLITS} | tally.row(alpha)


def ways(
    scores: np.ndarray, found: np.ndarray, known: np.ndarray, calibration: np.ndarray
) -> Iterator[tuple[str, Calibration, np.ndarray | None]]:
    """Each way to a threshold, calibrated on some of the samples, with the kinds of all."""
    yield "one", Calibration(scores[calibration]), None
    yield "found kinds", Calibration(scores[calibration], found[calibration]), found
    yield "known kinds", Calibration(scores[calibration], known[calibration]), known


class Tally:
    """Counts of flagged test normals, of all and of each kind with enough calibration samples, over splits."""

    def __init__(self, found: Drawn, own: dict[str, Any]) -> None:
        self.found, self.own = found, own
        self.rates: list[float] = []
        self.kinds: dict[tuple[str, Any], list[tuple[int, int]]] = {}
        self.rare: list[float] = []
        self.caught: list[float] = []
        self.sizes = (0, 0)

    def add(
        self, calibrated: Calibration, kinds: np.ndarray | None, alpha: float, calibration: np.ndarray, test: np.ndarray
    ) -> None:
        scores, fresh_found = self.own["fresh"]
        limits = calibrated.thresholds_of(None if kinds is None else kinds[test], alpha, len(test))
        flagged = scores[test] > limits
        self.sizes = len(calibration), len(test)
        self.rates.append(float(flagged.mean()))
        for basis, each in (("known", self.found.fresh_groups), ("found", fresh_found)):
            for kind in np.unique(each[calibration]):
                here = each[test] == kind
                if (each[calibration] == kind).sum() >= ENOUGH and here.any():
                    self.kinds.setdefault((basis, kind), []).append((int(flagged[here].sum()), int(here.sum())))
        self.add_others(calibrated, kinds, alpha)
        rarest = self.found.fresh_groups[test] == self.found.rarest
        if "rare" not in self.own and rarest.any():
            self.rare.append(float(flagged[rarest].mean()))

    def add_others(self, calibrated: Calibration, kinds: np.ndarray | None, alpha: float) -> None:
        """Normals of the rarest kind, and anomalies. Of those no kind is known: they are held to the kind found."""
        known = kinds is not None and kinds.dtype.kind in "US"
        for part, shares in (("rare", self.rare), ("anomalies", self.caught)):
            if part in self.own and not (known and part == "anomalies"):
                scores, found = self.own[part]
                names = None if kinds is None else np.full(len(scores), self.found.rarest) if known else found
                shares.append(float((scores > calibrated.thresholds_of(names, alpha, len(scores))).mean()))

    def row(self, alpha: float) -> dict[str, Any]:
        calibration, test = self.sizes
        # Over many splits the chance of the calibration averages out; over one it does not (Beta-binomial law).
        above = calibration + 1 - math.ceil((calibration + 1) * (1 - alpha) - 1e-9)
        law = stats.binom(test, alpha) if len(self.rates) > 1 else stats.betabinom(test, above, calibration + 1 - above)
        low, high = law.ppf([0.025, 0.975]) / test
        rate = float(np.mean(self.rates))
        row: dict[str, Any] = {
            "calibration": calibration, "test": test, "rate": rate, "low": low, "high": high,
            "within": bool(low <= rate <= high), "at_most": bool(rate <= high),
        }  # fmt: skip
        for basis in ("known", "found"):
            shares = [
                sum(count for count, _ in counts) / sum(of for _, of in counts)
                for (each, _), counts in self.kinds.items() if each == basis and len(counts) >= len(self.rates) / 2
            ]  # fmt: skip
            row |= {f"worst_{basis}": max(shares, default=None), f"{basis}_kinds": len(shares)}
        row["rare_rejected"] = float(np.mean(self.rare)) if self.rare else None
        row["caught"] = float(np.mean(self.caught)) if self.caught else None
        return row


def cross(
    found: Drawn, fit: Any, final: Fitted, own: dict[str, Any], kinds: Clusters, seed: int
) -> Iterator[dict[str, Any]]:
    """Thresholds of out-of-fold scores, and CV+, which asks the detectors of all parts; tested on all others."""
    asked: list[np.ndarray] = []

    def watched(data: Data, base: torch.Tensor, seed: int) -> Fitted:
        fitted = fit(data, base, seed)
        asked.append(inference.score(fitted.detector, found.fresh).double().numpy())
        return fitted

    part = cross_fitting.parts_of(len(found.train), conformal.FOLDS, seed)
    left_out = cross_fitting.left_out(watched, found.train, torch.ones(len(found.train)), part, seed, final).scores
    size, own_kinds = len(found.train), kinds.of(found.train).numpy()
    # Calibration samples are appended to the fresh ones, so that one table of scores and kinds serves both.
    together = Drawn(
        found.train, found.train_groups, found.fresh, np.concatenate([found.fresh_groups, found.train_groups]),
        found.rare, found.rarest, found.anomalies,
    )  # fmt: skip
    scores = np.concatenate([own["fresh"][0], left_out])
    found_clusters = np.concatenate([own["fresh"][1], own_kinds])
    calibration, test = np.arange(len(found.fresh), len(scores)), np.arange(len(found.fresh))
    for way, calibrated, each in ways(scores, found_clusters, together.fresh_groups, calibration):
        for alpha in ALPHAS:
            tally = Tally(together, own | {"fresh": (scores, found_clusters)})
            tally.add(calibrated, each, alpha, calibration, test)
            yield {"threshold": way, "alpha": alpha, "splits": 1} | tally.row(alpha)
    p = conformal.cross_p_values(left_out, part.numpy(), np.stack(asked, 1))
    for alpha in ALPHAS:
        yield {
            "threshold": "CV+", "alpha": alpha, "splits": 1, "calibration": size, "test": len(p),
            "rate": float((p <= alpha).mean()),
        }  # fmt: skip


def page(rows: list[dict[str, Any]]) -> str:
    """The rows as a page: confirmation draws where there are any."""
    shown = [row for row in rows if row["draws"] == "confirmation"] or rows
    seeds = sorted({row["seed"] for row in shown})
    lines = [
        "# Do thresholds keep their promise?", "",
        f"Written from results/guarantees.jsonl by benchmarks/guarantees.py: {shown[0]['draws']} draws, seeds "
        f"{', '.join(map(str, seeds))},", f"means over seeds. Where samples are held out, {SPLITS} splits a seed,",
        "where they are cross-fitted, one. The interval (95 %) is the binomial one of alpha for a test of that size;",
        "where cross-fitted, the Beta-binomial one of a held-out calibration of that size.",
        "Kinds count where they have 50 or more calibration samples in half of the splits; the worst kind is that",
        "of the mean over these, in the worst seed. `rarest` is the share of good samples of the rarest kind that is",
        "rejected, `caught` that of anomalies. The plain detector is neither weighed nor read locally. CV+ asks the",
        "detectors of all parts.",
        "Where cross-fitted, a worst kind is one test of often 50 samples: mostly chance.", "", *_kept(shown), "",
        "| set | detector | calibrated | threshold | alpha | rate | interval | worst found kind | worst known kind | "
        "rarest | caught |", "|" + "---|" * 11,
    ]  # fmt: skip
    seen: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in shown:
        seen.setdefault(tuple(row[k] for k in ("set", "detector", "calibrated", "threshold", "alpha")), []).append(row)
    for key, own in seen.items():
        interval = f"{own[0]['low']:.3f} to {own[0]['high']:.3f}" if "low" in own[0] else ""
        lines.append(
            f"| {' | '.join(map(str, key))} | {_mean(own, 'rate')} | {interval} | {_worst(own, 'worst_found')} | "
            f"{_worst(own, 'worst_known')} | {_mean(own, 'rare_rejected')} | {_mean(own, 'caught')} |"
        )
    return "\n".join(lines) + "\n"


def _kept(rows: list[dict[str, Any]]) -> list[str]:
    """Held out, of every set, detector and seed: how often the rate lies within, and kinds are above 1.5 alpha."""
    lines = ["Held out, over sets, detectors and seeds; the highest is the worst kind's rate by alpha.", ""]
    lines.append(
        "| threshold | alpha | within the interval | found kinds above 1.5 alpha | highest | known kinds | highest |"
    )
    lines.append("|" + "---|" * 7)
    for threshold in ("one", "found kinds", "known kinds"):
        for alpha in ALPHAS:
            own = [r for r in rows if (r["calibrated"], r["threshold"], r["alpha"]) == ("held out", threshold, alpha)]
            cells = [threshold, str(alpha), f"{sum(row['within'] for row in own)} of {len(own)}"]
            for basis in ("worst_found", "worst_known"):
                worst = [row[basis] / alpha for row in own if row[basis] is not None]
                cells += [f"{sum(each > 1.5 for each in worst)} of {len(worst)}", f"{max(worst, default=0):.2f}"]
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def _mean(rows: list[dict[str, Any]], name: str) -> str:
    values = [row[name] for row in rows if row.get(name) is not None]
    return f"{np.mean(values):.3f}" if values else ""


def _worst(rows: list[dict[str, Any]], name: str) -> str:
    values = [row[name] for row in rows if row.get(name) is not None]
    return f"{max(values):.3f}" if values else ""


def measured(options: argparse.Namespace) -> Iterable[dict[str, Any]]:
    for seed in map(int, options.seeds.split(",")):
        for name in [each for each in SETS if options.sets in each]:
            for detector in options.detectors.split(","):
                cross_fitted = detector in options.cross_fitted.split(",")
                yield from rows_of(name, detector, seed, cross_fitted)


def _plain(value: Any) -> Any:
    return round(float(value), 5) if isinstance(value, float | np.floating) and math.isfinite(value) else value


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="1,2")
    parser.add_argument("--sets", default="", help="only sets with this in their name")
    parser.add_argument("--detectors", default=",".join(DETECTORS))
    parser.add_argument(
        "--cross-fitted",
        default="plain gaussian,gaussian",
        help="detectors that are also cross-fitted: six trainings each",
    )
    parser.add_argument("--page", type=Path, help="write the page of these rows instead")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    if chosen.page:
        sys.stdout.write(page(read_all(chosen.page)))
    else:
        for row in measured(chosen):
            print(json.dumps({name: _plain(value) for name, value in row.items()}), flush=True)

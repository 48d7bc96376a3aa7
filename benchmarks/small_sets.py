"""What do the defaults do for a small shop: 30 to 500 pooled features of images, fewer than they have numbers?

    TAILWISE_DATA=FOLDER python benchmarks/small_sets.py run --rows benchmarks/results/small-sets.jsonl
    python benchmarks/small_sets.py page --rows benchmarks/results/small-sets.jsonl > benchmarks/small-sets.md

A split trains on n good images, drawn at random from solar cells (d = 496, of the package elpv-dataset) or from MVTec's
objects (d = 512): six of them, drawn as the long-tail suite draws them, or all fifteen. Other good ones and defective
ones test, and five batches of 100 more good ones ask for drift. "default" is `tailwise.fit` with no option; "own" and
"local" read the same trained detector by its own scores and by fully local ones, LocalScores(share=1); "held out" is
the fit with --cross 0. Rows are appended; a split that has its row is not done again. The defaults were chosen on
other splits of the same images (LOG.md).
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import scipy
import torch
from sklearn.metrics import roc_auc_score

import tailwise
from tailwise.benchmark import draws
from tailwise.benchmark.rows import append, commit, read_all
from tailwise.benchmark.suites import read_suite
from tailwise.calibration import conformal
from tailwise.core import inference
from tailwise.runs.scorer import Run
from tailwise.training.local_scores import LocalScores
from tailwise.workflows.drift import drift_of

SUITE = Path(__file__).parent / "suites" / "long_tail.toml"
# The source in the suite, and how many of its kinds are drawn; 0 is all.
SETS = {
    "solar cells": ("solar-poly-rare", 0), "six MVTec objects": ("mvtec-objects", 6),
    "fifteen MVTec objects": ("mvtec-objects", 0),
}  # fmt: skip
SIZES = (30, 60, 100, 200, 500)
SEEDS = tuple(range(200, 220))
ALPHA = 0.05
MOST_TESTED, BATCHES, BATCH = 500, 5, 100
Rows = list[dict[str, Any]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "page"))
    parser.add_argument("--rows", type=Path, required=True)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--sizes", nargs="+", type=int, default=list(SIZES))
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    options = parser.parse_args()
    if options.what == "page":
        print(page(read_all(options.rows)), end="")
        return
    torch.set_num_threads(1)
    logging.getLogger("tailwise").setLevel(logging.ERROR)  # what it says of small sets is what is measured here
    done = {(row["set"], row["n"], row["seed"]) for row in read_all(options.rows)}
    for name in options.sets:
        for seed in options.seeds:  # every size of a seed before the next seed, so that an interrupted run is whole
            good, bad = images_of(name, seed)
            for n in options.sizes:
                if (name, n, seed) not in done:
                    row = {"set": name, "n": n, "seed": seed} | measure(good, bad, n, seed)
                    append(options.rows, row)
                    print(name, n, seed, file=sys.stderr)


def images_of(name: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Pooled features [n, d] of all good images, and of all defective ones, of the kinds that this seed draws."""
    source, count = SETS[name]
    pool = draws.load(read_suite(SUITE).sources[source], "")
    assert pool.labels is not None
    assert pool.groups is not None
    samples = torch.cat([batch.samples for batch in pool.data.batches(4_096)]).numpy()
    kinds = np.random.default_rng(seed).permutation(np.unique(pool.groups))
    of_kinds, bad = np.isin(pool.groups, kinds[: count or None]), pool.labels.astype(bool)
    return samples[of_kinds & ~bad], samples[of_kinds & bad]


def measure(good: np.ndarray, bad: np.ndarray, n: int, seed: int) -> dict[str, Any]:
    """The figures of one split."""
    generator = np.random.default_rng(seed)
    good, bad = generator.permutation(good), generator.permutation(bad)[:MOST_TESTED]
    train, rest = good[:n], good[n:]
    batches = rest[: BATCHES * BATCH].reshape(BATCHES, -1, good.shape[1])
    new = rest[BATCHES * BATCH :][:MOST_TESTED]
    labels = np.arange(len(new) + len(bad)) >= len(new)
    test = np.concatenate([new, bad])
    with tempfile.TemporaryDirectory() as folder:
        run = tailwise.fit(train, out=Path(folder) / "run")
        held_out = tailwise.fit(train, out=Path(folder) / "held_out", cross=0)
        drifts = [_drifts(run, batch, Path(folder) / "batch.npy") for batch in batches]
        scored, by_held_out = run.score(test), held_out.score(test)
        figures = {f"auroc_{way}": roc_auc_score(labels, scores) for way, scores in _read_otherwise(run, train, test)}
        figures |= {
            "auroc_default": roc_auc_score(labels, scored["score"]),
            "median": float(scored["score"][~labels].median()),
            **_rates(scored, labels, ""),
            **_rates(by_held_out, labels, "_held_out"),
            "caught_alike": _caught_alike(scored, by_held_out, labels),
            "fitted_flagged": float(run.score(train)["flagged"].mean()),
            "unknown": float((scored["cluster"][~labels] == "unknown").mean()),
        }
        outcome = run.outcome()
    low, high = law(outcome["calibrated_on"], len(new))
    return {
        **{name: round(float(value), 5) for name, value in figures.items()},
        "drifts": drifts, "calibrated_on": outcome["calibrated_on"], "tested": len(new), "bad": len(bad),
        "low": round(low, 5), "high": round(high, 5),
        "inside": bool(low <= figures["false_alarms"] <= high), "commit": commit(),
    }  # fmt: skip


def _read_otherwise(run: Run, train: np.ndarray, test: np.ndarray) -> Iterable[tuple[str, np.ndarray]]:
    """Scores of test samples by the run's trained detector: its own, and fully local."""
    learnt, asked = run.samples(train).data, run.samples(test).data
    detector = run.detector().trained
    yield "own", inference.score(detector, asked).numpy()
    base = torch.from_numpy(~run.scores()["suspect"].to_numpy(dtype=bool)).float()
    yield "local", inference.score(LocalScores(share=1.0).fit(detector, learnt, 0, base), asked).numpy()


def _drifts(run: Run, batch: np.ndarray, path: Path) -> bool:
    np.save(path, batch)
    return drift_of(run.path, str(path)).alarm


def _rates(scored: Any, labels: np.ndarray, suffix: str) -> dict[str, float]:
    flagged = scored["flagged"].to_numpy(dtype=bool)
    return {f"false_alarms{suffix}": flagged[~labels].mean(), f"caught{suffix}": flagged[labels].mean()}


def _caught_alike(scored: Any, other: Any, labels: np.ndarray) -> float:
    """What the one catches at as many false alarms as the other has."""
    rate, scores = other["flagged"].to_numpy(dtype=bool)[~labels].mean(), scored["score"].to_numpy(dtype=float)
    return float((scores[labels] > np.quantile(scores[~labels], 1 - rate)).mean())


def law(calibrated_on: int, tested: int) -> tuple[float, float]:
    """Between which rates of a test the false alarms of 95 % of calibrations lie: Beta-binomial, of the law that the
    fit's summary states."""
    beta = conformal.law_of_false_alarms(calibrated_on, ALPHA, crossed=True)
    low, high = scipy.stats.betabinom(tested, *beta.args).ppf([0.025, 0.975]) / tested
    return float(low), float(high)


def page(rows: Rows) -> str:
    """The rows as a page: a table for each set, and which bounds are missed."""
    seeds = sorted({row["seed"] for row in rows})
    lines = [
        "# What the defaults do on small sets", "",
        "Written from results/small-sets.jsonl by benchmarks/small_sets.py, which says how each figure is made: "
        f"{len(seeds)} seeds, {seeds[0]} to {seeds[-1]}.",
        "Means over splits, with the worst split in brackets. The threshold asks for 5 % false alarms; `promised`",
        "is the most that the fit's summary says of so many calibration samples, `law` what their threshold gives",
        "in the mean. `lead` is the default's AUROC less the better of own and local scores, both in the mean. `in",
        "law` counts splits whose rate lies between the 2.5 % and 97.5 % of the law that the fit states, with the",
        "chance of the test. A threshold held out rests on fewer samples: of the fewest it promises less, and what",
        "it catches more there it catches at more false alarms; `caught alike` is what the default's scores catch",
        "at as many. Batches of drift hold 100 good images; the alarms of one split's batches depend on each other.",
        "",
    ]  # fmt: skip
    for name in dict.fromkeys(row["set"] for row in rows):
        of_set = [row for row in rows if row["set"] == name]
        lines += [f"## {name}", "", *_table(of_set), "", "Bounds that are missed:", "", *_missed(of_set), ""]
    return "\n".join(lines)


def _table(rows: Rows) -> list[str]:
    head = ("n", "splits", "default", "own", "local", "lead", "median new normal", "promised", "law", "false alarms",
            "in law", "caught", "held out: promised", "false alarms", "caught", "caught alike",
            "fitted flagged", "unknown", "drift alarms")  # fmt: skip
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for n, own in _by_size(rows):
        cells = [str(n), str(len(own)), *(f"{_mean(own, f'auroc_{way}'):.3f}" for way in ("default", "own", "local"))]
        cells += [f"{_lead(own):+.3f}", _with_worst(own, "median"), f"{_promised(own):.3f}", f"{_by_law(own):.3f}"]
        cells += [_with_worst(own, "false_alarms")]
        cells += [f"{sum(row['inside'] for row in own)} of {len(own)}", f"{_mean(own, 'caught'):.2f}"]
        held_out = conformal.promised(conformal.held_out_count(n, ALPHA), ALPHA)
        of_held_out = (held_out, _mean(own, "false_alarms_held_out"))
        cells += [*(f"{share:.3f}" for share in of_held_out), f"{_mean(own, 'caught_held_out'):.2f}"]
        cells += [_alike(own)]
        cells += [_with_worst(own, "fitted_flagged"), _with_worst(own, "unknown")]
        cells += [f"{sum(map(sum, (row['drifts'] for row in own)))} of {sum(len(row['drifts']) for row in own)}"]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _missed(rows: Rows) -> list[str]:
    """Each missed bound in a line; the bounds are those of means over splits, and every median."""
    missed = []
    for n, own in _by_size(rows):
        fewest = int(scipy.stats.binom(len(own), 0.95).ppf(0.025))
        inside, drifts = sum(row["inside"] for row in own), np.concatenate([row["drifts"] for row in own])
        medians = [row["median"] for row in own]
        rate, gain = _mean(own, "false_alarms"), _mean(own, "caught") - _mean(own, "caught_held_out")
        flagged, unknown = _mean(own, "fitted_flagged"), _mean(own, "unknown")
        checks = {
            f"the default's AUROC is {-_lead(own):.3f} below the better of own and local (.005 allowed)": (
                _lead(own) >= -0.005
            ),
            f"median new normal {max(medians, key=abs):.2f} in the worst split (-1 to 1)": max(map(abs, medians)) <= 1,
            f"false alarms inside the law in {inside} of {len(own)} splits ({fewest} wanted)": inside >= fewest,
            f"false alarms {rate:.3f} (within .02 of the {_promised(own):.3f} promised; by law {_by_law(own):.3f})": (
                abs(rate - _promised(own)) <= 0.02
            ),
            f"{-gain:.2f} fewer caught than held out (.03 allowed), which has "
            f"{_mean(own, 'false_alarms_held_out'):.3f} false alarms ({_alike(own)} at as many)": (gain >= -0.03),
            f"{flagged:.3f} of the fitted samples flagged ({2 * ALPHA} allowed)": flagged <= 2 * ALPHA,
            f"{unknown:.3f} of new normals unknown (.07 allowed)": unknown <= 0.07,
            f"drift alarms {drifts.sum()} of {len(drifts)} (7 % allowed)": drifts.mean() <= 0.07,
        }
        missed += [f"- n = {n}: {text}" for text, kept in checks.items() if not kept]
    return missed or ["- none"]


def _by_size(rows: Rows) -> list[tuple[int, Rows]]:
    return [(n, [row for row in rows if row["n"] == n]) for n in sorted({row["n"] for row in rows})]


def _mean(rows: Rows, name: str) -> float:
    return float(np.mean([row[name] for row in rows]))


def _promised(rows: Rows) -> float:
    """The share of false alarms that the fits promise, in the mean."""
    return float(np.mean([conformal.promised(row["calibrated_on"], ALPHA) for row in rows]))


def _by_law(rows: Rows) -> float:
    """The share of false alarms that the law of the fits' thresholds has in the mean."""
    return float(np.mean([conformal.law_of_false_alarms(row["calibrated_on"], ALPHA).mean() for row in rows]))


def _alike(rows: Rows) -> str:
    """What is caught at as many false alarms; rows of before 29 November 2026 do not say it."""
    return f"{_mean(rows, 'caught_alike'):.2f}" if all("caught_alike" in row for row in rows) else "-"


def _lead(rows: Rows) -> float:
    return _mean(rows, "auroc_default") - max(_mean(rows, "auroc_own"), _mean(rows, "auroc_local"))


def _with_worst(rows: Rows, name: str) -> str:
    worst = max((row[name] for row in rows), key=abs)
    return f"{_mean(rows, name):.3f} ({worst:.3f})"


if __name__ == "__main__":
    main()

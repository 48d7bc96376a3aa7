"""Does `tailwise watch` stay silent where nothing changes, and how soon does it see what does? JSON lines.

    python benchmarks/watch.py [--seeds 11 12 13 14] [--streams 20] [--looks 1000] [--batch 50] [--before 0]
    python benchmarks/watch.py --page results/watch.jsonl

A run is fitted on 3,000 pictures of MNIST of all digits but one, with the seed's draw of digits and pictures; detectors
without training time. Streams are drawn from 6,000 other pictures, with replacement: then all samples of a stream are
exchangeable given the run. Silent: so many looks, each after three samples; the share of streams in which anything is
called at all, against the level. Changes, each from the first batch on, or after so many without: the digit that was
left out comes as one of ten; or one digit is dimmed to .4 of its brightness. The fixed test is `tailwise drift` on all
samples since the change, at the same level, asked once: how many batches it needs is the smallest number at which it
sees the change in half, or in .8, of as many draws. The watch may look after every batch, and does. Seeds 1 to 5 are
for choosing. MNIST is looked for in TAILWISE_DATA; without it the digits of scikit-learn stand in, at half the numbers.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import tailwise
from tailwise.benchmark import rows as benchmark_rows
from tailwise.calibration import drift
from tailwise.calibration.drift import Population
from tailwise.calibration.martingales import Martingales, planned
from tailwise.errors import InputError
from tailwise.runs.table import reference_of
from tailwise.sources.auto import open_source

LEVEL = 0.05
_DIMMED, _SHARE = 0.4, 0.1
_MOST = 80
# Samples of a look where nothing changes.
_A_LOOK = 3
_POWERS = (0.5, 0.8)


def pictures() -> tuple[np.ndarray, np.ndarray, int]:
    """Pictures [n, 1, h, w] of 0 to 1, their digits [n], and how many to train on."""
    try:
        every = open_source("idx/mnist").load_all()
    except InputError:
        from sklearn.datasets import load_digits

        found = load_digits()
        return found.images[:, None].astype(np.float32) / 16, found.target, 700
    import torch

    assert every.groups is not None
    chosen = np.random.default_rng(0).permutation(len(every.data))[:16_000]
    samples = every.data.read(torch.from_numpy(chosen)).numpy()
    return samples, np.asarray(every.groups)[chosen].astype(int), 3_000


class Case:
    """A run, and what it says of pictures: usual ones, those of the digit it does not know, and dimmed ones."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.seed = seed
        samples, digits, count = pictures()
        random = np.random.default_rng(seed)
        self.new, self.dim = random.permutation(10)[:2].tolist()
        order = random.permutation(len(samples))
        known = order[digits[order] != self.new]
        run = tailwise.fit(samples[known[:count]], detector="nearest-neighbours", cross=0, out=folder / "run")
        clusters = run.clusters()
        assert clusters is not None

        def population(chosen: np.ndarray) -> Population:
            data = run.samples(chosen).data
            placed = clusters.place(data)
            return Population(placed.nearest.numpy(), placed.unknown.numpy(), run.scores_of(data), placed.along.numpy())

        pool = known[count : 3 * count]
        self.usual = population(samples[pool])
        self.is_dim = digits[pool] == self.dim
        self.dimmed = population(_DIMMED * samples[pool[self.is_dim]])
        self.unknown = population(samples[order[digits[order] == self.new][: count // 2]])
        self.reference = reference_of(run.scores(), clusters)
        kinds, counts = np.unique(self.reference.clusters, return_counts=True)
        self.shares = dict(zip(kinds.tolist(), (counts / counts.sum()).tolist(), strict=True))

    def watch(self, seed: int) -> Martingales:
        assert self.reference.places is not None
        axes = self.reference.places.shape[1]
        found = Martingales(planned(self.shares, float(self.reference.unknown.mean()), LEVEL, axes), seed)
        found.remember(self.reference)
        return found

    def batch(self, random: np.random.Generator, count: int, change: str) -> Population:
        """So many samples, in no order; `change` is "", "new" or "dimmed"."""
        drawn = random.integers(0, len(self.usual), count)
        if change == "new":
            other = random.random(count) < _SHARE
            place = random.integers(0, len(self.unknown), count)
            return _mixed(self.usual, self.unknown, drawn, place, other)
        if change == "dimmed":
            place = np.cumsum(self.is_dim)[drawn] - 1
            return _mixed(self.usual, self.dimmed, drawn, place, self.is_dim[drawn])
        return _mixed(self.usual, self.usual, drawn, drawn, np.zeros(count, dtype=bool))


def _mixed(a: Population, b: Population, at_a: np.ndarray, at_b: np.ndarray, from_b: np.ndarray) -> Population:
    """Samples [n] of b where it says so, else of a."""
    at_b = np.where(from_b, at_b, 0)

    def part(name: str) -> np.ndarray:
        left, right = getattr(a, name)[at_a], getattr(b, name)[at_b]
        return np.where(from_b[:, None] if left.ndim > 1 else from_b, right, left)

    return Population(part("clusters"), part("unknown"), part("scores"), part("places"))


def _joined(parts: Sequence[Population]) -> Population:
    names = ("clusters", "unknown", "scores", "places")
    return Population(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def silent(case: Case, streams: int, looks: int) -> dict[str, Any]:
    seed = case.seed
    called, first = [], []
    for stream in range(streams):
        random, watch = np.random.default_rng((seed, stream)), case.watch(stream)
        for look in range(looks):
            if found := watch.observe(case.batch(random, _A_LOOK, "")):
                called += [test.name for test in found]
                first.append(look + 1)
                break
    return {
        "what": "silent", "seed": seed, "streams": streams, "looks": looks, "batch": _A_LOOK, "level": LEVEL,
        "streams_with_calls": len(first), "called": called, "first_looks": first, "tests": len(watch.tests),
    }  # fmt: skip


def changes(case: Case, streams: int, batch: int, before: int) -> Iterator[dict[str, Any]]:
    seed = case.seed
    for change in ("new", "dimmed"):
        delays, names, early = [], [], 0
        for stream in range(streams):
            random, watch = np.random.default_rng((seed, stream, 1)), case.watch(stream)
            if _called_early(watch, case, random, batch, before):
                early += 1
                continue
            found = None
            for look in range(_MOST):
                if called := watch.observe(case.batch(random, batch, change)):
                    found = look + 1
                    names += [called[0].name]
                    break
            delays.append(found)
        power = {}
        for count in range(1, _MOST + 1):
            hits = [_fixed(case, (seed, stream, 2), batch, count, change) for stream in range(streams)]
            power[count] = float(np.mean(hits))
            if power[count] >= max(_POWERS):
                break
        reached = [1e9 if delay is None else delay for delay in delays]
        row: dict[str, Any] = {
            "what": "changes", "seed": seed, "change": change, "digit": int(case.new if change == "new" else case.dim),
            "streams": streams, "batch": batch, "before": before, "level": LEVEL, "early": early,
            "delays": delays, "called": sorted(set(names)), "fixed_power": power,
        }  # fmt: skip
        for share in _POWERS:
            needed = next((count for count, hit in power.items() if hit >= share), None)
            at = float(np.quantile(reached, share, method="higher"))
            row[f"fixed_{share}"], row[f"watch_{share}"] = needed, at if at < 1e9 else None
        yield row


def _fixed(case: Case, seed: tuple[int, ...], batch: int, count: int, change: str) -> bool:
    # The same draw at every count, longer or shorter.
    random = np.random.default_rng(seed)
    return drift.drift(
        case.reference, _joined([case.batch(random, batch, change) for _ in range(count)]), level=LEVEL
    ).alarm


def _called_early(watch: Martingales, case: Case, random: np.random.Generator, batch: int, before: int) -> bool:
    """Whether anything is called in so many batches without a change."""
    return sum(len(watch.observe(case.batch(random, batch, ""))) for _ in range(before)) > 0


def page(rows: Sequence[dict[str, Any]]) -> str:
    parts = [_HEAD]
    if quiet := [row for row in rows if row["what"] == "silent"]:
        keys = ("seed", "streams", "looks", "batch", "streams_with_calls", "level")
        head = ["seed", "streams", "looks", "samples a look", "streams with a call", "level"]
        parts += ["## Nothing changes\n", *_table(head, [[row[key] for key in keys] for row in quiet])]
        of, called = (sum(row[key] for row in quiet) for key in ("streams", "streams_with_calls"))
        parts.append(f"{called} of {of} streams ({100 * called / of:.1f} %) had a call at any of their looks.\n")
    changed = [row for row in rows if row["what"] == "changes"]
    for before in sorted({row["before"] for row in changed}):
        parts += _changes([row for row in changed if row["before"] == before], before)
    return "\n".join(parts).rstrip() + "\n"


def _changes(rows: Sequence[dict[str, Any]], before: int) -> list[str]:
    keys = [f"{who}_{share}" for share in _POWERS for who in ("fixed", "watch")]
    lines = [
        [row["seed"], row["change"], row["digit"], *(_count(row[key]) for key in keys), ", ".join(row["called"][:3])]
        for row in rows
    ]
    head = ["seed", "change", "digit", "fixed test, half", "watch, half", "fixed test, .8", "watch, .8", "called first"]
    parts = [
        f"## A change {f'after {before} batches' if before else 'from the first batch on'}\n",
        *_table(head, lines),
    ]
    for share in _POWERS:
        both = [(row[f"watch_{share}"], row[f"fixed_{share}"]) for row in rows]
        ratios = [watch / fixed for watch, fixed in both if watch and fixed]
        within = sum(ratio <= 2 for ratio in ratios)
        middle = f"; the ratio's mean is {np.mean(ratios):.2f}, its largest {max(ratios):.2f}" if ratios else ""
        parts.append(
            f"Within twice the batches of the fixed test, in {share:g} of the draws: {within} of {len(rows)}{middle}."
        )
    return [*parts, ""]


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(map(str, line)) + " |" for line in lines] + [""]


def _count(value: float | None) -> str:
    return f"over {_MOST}" if value is None else f"{value:.0f}"


_HEAD = """# How soon a watch sees a change, and how seldom it errs

Written from results/watch.jsonl by benchmarks/watch.py, which says how streams are drawn and what the fixed test is.
Numbers of a change are batches of 50 samples.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[11, 12, 13, 14])
    parser.add_argument("--streams", type=int, default=20)
    parser.add_argument("--looks", type=int, default=1_000)
    parser.add_argument("--batch", type=int, default=50)
    parser.add_argument("--before", type=int, default=0)
    parser.add_argument("--page", type=Path)
    options = parser.parse_args()
    if options.page:
        print(page(benchmark_rows.read_all(options.page)), end="")
        return
    for seed in options.seeds:
        with tempfile.TemporaryDirectory() as folder:
            case = Case(seed, Path(folder))
        for row in changes(case, options.streams, options.batch, options.before):
            print(json.dumps(row), flush=True)
        if options.looks:
            print(json.dumps(silent(case, options.streams, options.looks)), flush=True)


if __name__ == "__main__":
    main()

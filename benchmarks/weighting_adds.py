"""What does weighting add to whatever else is on, for every detector and kind of data, and what does it cost?

    TAILWISE_DATA=FOLDER python benchmarks/weighting_adds.py run rows labelled images spectra loops cost
    python benchmarks/weighting_adds.py page > benchmarks/weighting-adds.md

A pair is one draw of a long tail, one detector and one way to read scores, with the default's weights and without,
trained on the same samples from the same seed. `rows` are features and pixels as rows, `labelled` the detectors that
are told ten anomalies, `images` solar cells as pixels and maps (200 mono, 20 poly), `spectra` generated cubes with a
rare legitimate material, `loops` other people's: a network of torch with ImportanceWeightedLoss, and scikit-learn's
estimators in Reweighted. `cost` times `tailwise.fit` as it is, weights off because scores are local, against
weighting="". Rows are appended; a cell that has its row is not done again. weighting_adds_page.py says which other
files the page is made of. The defaults were chosen on other draws (1 to 12 of the suite).
"""

from __future__ import annotations

import argparse
import itertools
import logging
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.ensemble import IsolationForest
from sklearn.neighbors import KernelDensity, LocalOutlierFactor
from sklearn.preprocessing import StandardScaler

import tailwise
from tailwise.backbones import networks
from tailwise.benchmark import draws, measures, rows
from tailwise.benchmark.draws import Draw
from tailwise.benchmark.runner import Job, run_methods
from tailwise.benchmark.suites import AS_GIVEN, Conditions, Method, SourceSettings, Suite, read_suite
from tailwise.core.data import Data
from tailwise.core.modality import SPECTRUM
from tailwise.errors import InputError
from tailwise.sources.solar import SolarCells
from tailwise.training.options import Training

HOME = Path(__file__).parent
ROWS = HOME / "results" / "weighting-adds.jsonl"
SUITE = replace(read_suite(HOME / "suites" / "long_tail.toml"), name="weighting-adds")
DRAWS = tuple(range(106, 111))
LOCAL, LOSS = "LocalScores()", "Importance()"
TAILS: dict[str, float | str] = {
    "digits": 20, "mvtec-objects": 100, "solar-poly-rare": 10, "solar-mono-rare": 10, "circuit-boards": AS_GIVEN,
    "cifar10-features": 100, "mnist": 100, "fashion-mnist": 100,
}  # fmt: skip
ON_ROWS = ("nearest-neighbours", "gaussian", "autoencoder", "deep-svdd")
ON_MAPS = ("padim", "patch-memory", "feature-autoencoder", "feature-svdd")
ON_PIXELS = {"autoencoder": "AutoEncoder()", "deep-svdd": "DeepSVDD()", "student-teacher": "StudentTeacher()"}
ON_SPECTRA = ("rx", "gaussian", "nearest-neighbours", "autoencoder", "deep-svdd")
# Steps are few, because a pair needs the same budget and not the best one.
FEW_STEPS = Training(epochs=100, lr=0.002)
Row = dict[str, Any]


@dataclass(frozen=True)
class Work:
    """The methods of one draw, how it is made, and what scores it where that is no detector of ours."""

    suite: Suite
    conditions: Conditions
    methods: Sequence[Method]
    make: Callable[[], Draw]
    score: Callable[[Method, Draw], np.ndarray] | None = None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "page"))
    parser.add_argument("kinds", nargs="*", help=f"of {', '.join([*WORK, 'cost'])}; all where none is named")
    parser.add_argument("--rows", type=Path, default=ROWS)
    parser.add_argument("--draws", nargs="+", type=int, default=list(DRAWS))
    parser.add_argument("--sources", nargs="+", help="only these long tails")
    options = parser.parse_args()
    if options.what == "page":
        from weighting_adds_page import gathered, page

        print(page(gathered(options.rows)), end="")
        return
    torch.set_num_threads(1)
    logging.getLogger("tailwise").setLevel(logging.ERROR)
    for kind in options.kinds or [*WORK, "cost"]:
        if kind == "cost":
            cost(options.rows)
            continue
        for draw in options.draws:
            for work in WORK[kind](draw):
                if not options.sources or work.conditions.source in options.sources:
                    do(work, options.rows)


def do(work: Work, place: Path) -> None:
    """Append the rows that are not there yet."""
    done = {rows.key(row["settings"]) for row in rows.read_rows(place) if rows.is_done(row)}
    left = tuple(m for m in work.methods if rows.key(work.suite.settings(work.conditions, m)) not in done)
    if not left:
        return
    job, started = Job(work.suite, work.conditions, left, place), time.perf_counter()
    try:
        draw = work.make()
    except InputError as error:
        print(f"skipped {work.conditions.source}: {error.message}", file=sys.stderr)
        return
    if work.score is None:
        run_methods(job, draw)
    else:
        for method in left:
            begun = time.process_time()
            scores = work.score(method, draw)
            job.append(
                method, "ok", {"seconds_fit": time.process_time() - begun} | measures.measure(draw, scores, None)
            )
    said = f"{work.conditions.source}, draw {work.conditions.draw}, {len(left)} rows"
    print(f"{said}, {time.perf_counter() - started:.0f} s", file=sys.stderr)


def pairs(detectors: Sequence[str], scores: Sequence[str] = ("own", LOCAL), on: str = "auto") -> list[Method]:
    return [Method(*each) for each in itertools.product(detectors, ("uniform", on), scores)]


def work_on_rows(draw: int) -> Iterator[Work]:
    yield from _tails(SUITE, draw, list(TAILS), pairs(ON_ROWS))


def work_on_labelled(draw: int) -> Iterator[Work]:
    suite = replace(SUITE, labelled=10, training=FEW_STEPS)
    yield from _tails(
        suite, draw, ["digits", "mvtec-objects", "solar-poly-rare"], pairs(("dev-net", "multi-cue", "adl"))
    )


def work_on_loops(draw: int) -> Iterator[Work]:
    methods = [*pairs(("own loop",), ("own",), "loss"), *pairs(list(ESTIMATORS), ("own",))]
    suite = replace(SUITE, weightings={**SUITE.weightings, "loss": LOSS})
    yield from _tails(suite, draw, ["digits", "mvtec-objects", "solar-poly-rare", "mnist"], methods, by_others)


def _tails(suite: Suite, draw: int, sources: Sequence[str], methods: list[Method], score: Any = None) -> Iterator[Work]:
    for source in sources:
        conditions, settings = Conditions(source, "confirmation", draw, TAILS[source], 0.0), suite.sources[source]

        def make(settings: SourceSettings = settings, conditions: Conditions = conditions) -> Draw:
            return draws.make(draws.load(settings, ""), settings, conditions, suite.calibration, suite.labelled)

        yield Work(suite, conditions, methods, make, score)


def work_on_images(draw: int) -> Iterator[Work]:
    maps = networks.map_layers("efficientnet-lite0")
    cells = SolarCells(mono=200, poly=20, test=300, seed=draw)
    for name, source, detectors in (
        ("solar cells as maps", replace(cells, layers=maps), dict(zip(ON_MAPS, ON_MAPS, strict=True))),
        ("solar cells as pixels", replace(cells, read="pixels", size=64), ON_PIXELS),
    ):
        suite = _suite(name, repr(source), detectors, Training(epochs=20))
        conditions = Conditions(name, "confirmation", draw, 10, 0.0)
        yield Work(suite, conditions, pairs(list(detectors)), lambda source=source: cells_of(source))  # type: ignore[misc]


def cells_of(source: SolarCells) -> Draw:
    problem = source.load()
    assert problem.test is not None
    assert problem.test.labels is not None
    return Draw(
        problem.train, problem.train_groups, None, problem.test.data, problem.test.labels, problem.test.groups,
        ("mono", "poly"),
    )  # fmt: skip


def work_on_spectra(draw: int) -> Iterator[Work]:
    detectors = dict(zip(ON_SPECTRA, ON_SPECTRA, strict=True))
    for name, alike in (("generated cube", False), ("generated cube, anomalies alike", True)):
        suite = _suite(name, name, detectors, Training(), "scene")
        conditions = Conditions(name, "confirmation", draw, AS_GIVEN, 0.0)
        yield Work(suite, conditions, pairs(ON_SPECTRA), lambda alike=alike: cube(draw, alike))  # type: ignore[misc]


def cube(seed: int, alike: bool, side: int = 50, bands: int = 60) -> Draw:
    """A scene of four materials, 80 % to 1 %, and 20 pixels that are in part of something else: each of its own, or all
    of the same, so that they are as alike as a rare material is."""
    generator = np.random.default_rng(seed)
    spectra = 0.5 + generator.normal(size=(24, bands)).cumsum(1) / 12  # smooth, as spectra are; 20 are anomalous
    material = generator.choice(4, side**2, p=(0.80, 0.14, 0.05, 0.01))
    odd = np.zeros(side**2, dtype=bool)
    odd[generator.choice(np.flatnonzero(material < 3), 20, replace=False)] = True
    pixels = spectra[material] * (1 + 0.05 * generator.standard_normal((side**2, 1)))
    pixels[odd] = 0.9 * pixels[odd] + 0.1 * spectra[4] if alike else 0.95 * pixels[odd] + 0.05 * spectra[4:]
    pixels += 0.01 * generator.standard_normal(pixels.shape)
    data = Data(torch.from_numpy(pixels[:, None].astype(np.float32)), range(side**2), modality=SPECTRUM)  # type: ignore[arg-type]
    names = material.astype(str)
    order = tuple(map(str, range(4)))
    return Draw(data, np.where(odd, "", names), None, data, odd, names, order, in_sample=True)


def _suite(name: str, source: str, detectors: dict[str, str], training: Training, split: str = "groups") -> Suite:
    sources, weightings = {name: SourceSettings(source, split=split)}, {"uniform": "", "auto": "auto"}
    return Suite(SUITE.name, {}, sources, weightings, (), {}, detectors, 0.0, training=training)


ESTIMATORS: dict[str, Callable[[], Any]] = {
    "Reweighted(KernelDensity)": lambda: KernelDensity(bandwidth="scott"),
    "Reweighted(IsolationForest)": lambda: IsolationForest(max_samples=128, random_state=0),
    "Reweighted(LocalOutlierFactor)": lambda: LocalOutlierFactor(novelty=True),
}


def by_others(method: Method, draw: Draw) -> np.ndarray:
    """Test scores of a person's own network or of an estimator, weighed or not; features are standardised."""
    train, test = (
        torch.cat([b.samples.flatten(1) for b in data.batches(4_096)]).numpy() for data in (draw.train, draw.test)
    )
    scaler = StandardScaler().fit(train)
    train, test = scaler.transform(train), scaler.transform(test)
    if method.detector in ESTIMATORS:
        weighting = "" if method.weighting == "uniform" else "auto"
        model = tailwise.Reweighted(ESTIMATORS[method.detector](), weighting, random_state=0).fit(train)
        return -model.score_samples(test)
    return own_loop(train, test, method.weighting != "uniform")


def own_loop(train: np.ndarray, test: np.ndarray, weighed: bool, epochs: int = 60) -> np.ndarray:
    """A loop as a person writes it: an autoencoder of torch, Adam, and the loss that README names."""
    torch.manual_seed(0)
    samples = torch.from_numpy(train).float()
    net = torch.nn.Sequential(
        torch.nn.Linear(samples.shape[1], 128), torch.nn.ReLU(), torch.nn.Linear(128, 16), torch.nn.ReLU(),
        torch.nn.Linear(16, 128), torch.nn.ReLU(), torch.nn.Linear(128, samples.shape[1]),
    )  # fmt: skip
    criterion = tailwise.ImportanceWeightedLoss() if weighed else torch.mean
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    for _ in range(epochs):
        for batch in torch.randperm(len(samples)).split(128):
            optimizer.zero_grad()
            criterion((net(samples[batch]) - samples[batch]).square().mean(1)).backward()
            optimizer.step()
    with torch.no_grad():
        asked = torch.from_numpy(test).float()
        return (net(asked) - asked).square().mean(1).double().numpy()


WORK: dict[str, Callable[[int], Iterator[Work]]] = {
    "rows": work_on_rows, "labelled": work_on_labelled, "images": work_on_images, "spectra": work_on_spectra,
    "loops": work_on_loops,
}  # fmt: skip


def cost(place: Path, repeats: int = 5) -> None:
    """A row of the CPU seconds of a fit as it is by default, weights off, and of one with weighting=""; A B A B, after
    one of each that is not timed."""
    X = np.random.default_rng(0).normal(size=(500, 32))
    done = {rows.key(row["settings"]) for row in rows.read_rows(place)}
    for detector in ("nearest-neighbours", "gaussian", "autoencoder"):
        settings = {"cost of": detector, "rows": list(X.shape), "repeats": repeats}
        if rows.key(settings) in done:
            continue
        seconds: dict[str, list[float]] = {"auto": [], "": []}
        for _ in range(repeats + 1):
            for weighting, spent in seconds.items():
                with tempfile.TemporaryDirectory() as folder:
                    started = time.process_time()
                    tailwise.fit(X, detector=detector, weighting=weighting, out=Path(folder) / "run")
                    spent.append(round(time.process_time() - started, 4))
        facts = {"seconds_off": seconds["auto"][1:], "seconds_plain": seconds[""][1:], "commit": rows.commit()}
        rows.append(place, {"suite": SUITE.name, "status": "ok", **facts, "settings": settings})


if __name__ == "__main__":
    main()

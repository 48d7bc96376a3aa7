"""Diffusion on small images: fixed and adaptive steps, plain and anomaly-oriented training, weights on a long tail.

    TAILWISE_DATA=DIRECTORY python benchmarks/diffusion.py draws FOLDER
    python benchmarks/diffusion.py run [--device cuda] [--data FOLDER] [--rows FILE] [--jobs 18] [--only glad ...]
    python benchmarks/diffusion.py page

`draws` writes what each task trains and tests on, so that `run` needs neither the data sets nor their packages; without
`--data` they are drawn from TAILWISE_DATA. A task trains one network and reads it in several ways; tasks are processes
of their own, and a row that is there is not computed again. With `--states` a training that was cut off goes on.

Sets: Fashion-MNIST with one class normal, and magnetic tiles at 48 pixels. Seeds below 10 are development draws, others
fresh: other classes, and the other half of the tiles' test images. Test labels and masks are read by the metrics only.
Long tail: five kinds of Fashion-MNIST, 1,000 to 10 samples, judged on the rarest kind against the other five.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import os
import time
import traceback
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

# Set before torch is imported: afterwards it is too late.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# isort: split
import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tailwise.backbones import networks
from tailwise.benchmark import draws, rows
from tailwise.benchmark.suites import Conditions, SourceSettings
from tailwise.benchmark.tables import table
from tailwise.core import inference, registry
from tailwise.core.data import Data
from tailwise.core.modality import FEATURE_MAP, IMAGE
from tailwise.detectors.components.losses import top_mean
from tailwise.detectors.components.pseudo_anomalies import altered_images
from tailwise.numerics import counter_rng, metrics, pixel_metrics
from tailwise.runs.store import Checkpoint
from tailwise.sources.images import ImageFolder
from tailwise.training.fit import fit, start
from tailwise.training.optimizer import FlatAdam
from tailwise.training.options import Training
from tailwise.weights.default import parse_weighting
from tailwise.weights.weighting import Weighting

ROOT = Path(__file__).parent
RESULTS, PAGE = ROOT / "results" / "diffusion.jsonl", ROOT / "diffusion.md"
DEVELOPMENT, FRESH = (0, 1, 2), (10, 11, 12)
FASHION, TILES, TAIL, LARGE = "fashion-mnist", "magnetic-tile", "fashion-mnist, long tail", "magnetic-tile, 64 px"
SETS, SIZES = (FASHION, TILES, TAIL, LARGE), {TILES: 48, LARGE: 64}
BATCH, RATE, STEPS = 64, 2e-3, 1_500
TRAINED, TESTED = 1_000, 300
PLAIN, ORIENTED = "GLAD(anomaly_oriented=False)", "GLAD()"
WEIGHTED = "Importance(), Smooth(), Rarity(), Accumulate(), Clip()"
# Ways to read one trained network; the rest of a spelling, its training, is the network's.
READINGS = (
    "Diffusion(start_step=750)", "Diffusion(start_step=500)", "Diffusion()", "Diffusion(start_step=150)",
    *(
        f"GLAD(start_step={start}, lowest_step={lowest}, mask={mask!r})"
        for start, lowest in ((750, 350), (750, 250), (750, 200), (500, 200), (400, 100))
        for mask in ("none", "minmax", "sigmoid")
    ),
)  # fmt: skip
# What is chosen on development draws without another pass: what values count beside features, and the score's share.
BY_VALUE, TOPS = (0.0, 0.5, 1.0, 2.0, 1e6), (0.005, 0.02, 0.05, 0.1, 0.3, 1.0)
LESSON_STEPS = (300, 500)
# As they come, where nothing is chosen: on the long tail, and for costs.
ALONE = ("Diffusion()", "GLAD()")
PEERS = ("autoencoder", "padim")
BACKBONE, BACKBONE_SIDE = "efficientnet-lite0", 224
CPU_STEPS, CPU_IMAGES = 3, 32
# An unfinished training is written this often.
SECONDS_BETWEEN_CHECKPOINTS = 60.0


@dataclass(frozen=True, eq=False)
class Sets:
    """What a task trains and tests on, each image [1, h, w] uint8; masks are of the images' size, or absent."""

    train: np.ndarray
    test: np.ndarray
    labels: np.ndarray
    masks: np.ndarray | None = None
    rarest: np.ndarray | None = None

    def data(self, part: str) -> Data:
        images = getattr(self, part)
        return Data(torch.from_numpy(images.copy()).float() / 255, [str(i) for i in range(len(images))], modality=IMAGE)

    def fewer(self, trained: int | None, tested: int | None) -> Sets:
        """So many images of each part at most; where fewer test, they are drawn, always the same ones."""
        chosen = np.random.default_rng(0).permutation(len(self.test))[:tested] if tested else np.arange(len(self.test))
        masks, rarest = (None if each is None else each[chosen] for each in (self.masks, self.rarest))
        return Sets(self.train[:trained], self.test[chosen], self.labels[chosen], masks, rarest)

    def write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(path, **{name: value for name, value in vars(self).items() if value is not None})


def drawn(of: str, seed: int, folder: Path | None) -> Sets:
    """The draw of a set, from a folder of draws or anew."""
    if folder is not None:
        with np.load(folder / f"{of}-{seed}.npz") as held:
            return Sets(**{name: held[name] for name in held.files})
    return {FASHION: one_class, TAIL: long_tail}[of](seed) if of in (FASHION, TAIL) else tiles(SIZES[of], seed)


def one_class(seed: int) -> Sets:
    """One class is normal, another one for each seed; the others are anomalies."""
    pool = draws.load(SourceSettings("Idx(path='idx/fashion-mnist')"), "")
    assert pool.groups is not None
    generator = np.random.default_rng(seed)
    kind = np.unique(pool.groups)[(seed % 10 + 3 * (seed // 10)) % 10]
    normal, other = (generator.permutation(np.flatnonzero((pool.groups == kind) == one)) for one in (True, False))
    test = np.concatenate([normal[:TESTED], other[:TESTED]])
    return Sets(
        _bytes(pool.data.read(torch.from_numpy(normal[TESTED : TESTED + TRAINED]))),
        _bytes(pool.data.read(torch.from_numpy(test))), np.arange(len(test)) >= TESTED,
    )  # fmt: skip


def long_tail(seed: int) -> Sets:
    """Five kinds, each of fewer samples than the one before; the other five are anomalies."""
    settings = SourceSettings("Idx(path='idx/fashion-mnist')", normals=5, largest=1_000, anomalies=500)
    draw = draws.make(draws.load(settings, ""), settings, Conditions(TAIL, "", seed, 100, 0.0), 0.0)
    assert draw.test_groups is not None
    train, test = (part.read(torch.arange(len(part))) for part in (draw.train, draw.test))
    return Sets(_bytes(train), _bytes(test), draw.labels, rarest=(draw.test_groups == draw.order[-1]) & ~draw.labels)


def tiles(side: int, seed: int) -> Sets:
    """Three quarters of the good tiles, another choice for each seed, and one half of the test images."""
    problem = ImageFolder("images/magnetic_tile", read="pixels", size=side, channels=1).load()
    assert problem.test is not None
    assert problem.test.labels is not None
    assert problem.test.masks is not None
    generator = np.random.default_rng(seed)
    train = generator.permutation(len(problem.train))[: 3 * len(problem.train) // 4]
    half = np.random.default_rng(0).permutation(len(problem.test.data))[int(seed >= min(FRESH)) :: 2]
    masks = [_mask(problem.test.masks[i], side) for i in half.tolist()]
    return Sets(
        _bytes(problem.train.read(torch.from_numpy(train))), _bytes(problem.test.data.read(torch.from_numpy(half))),
        np.asarray(problem.test.labels)[half].astype(bool), np.stack(masks),
    )  # fmt: skip


def _bytes(images: Tensor) -> np.ndarray:
    return (images * 255).round().to(torch.uint8).numpy()


def _mask(mask: Any, side: int) -> np.ndarray:
    """[side, side] bool: where any of a mask is."""
    if mask is None:
        return np.zeros((side, side), bool)
    whole = (torch.as_tensor(np.asarray(mask)) > 0).float()[None, None]
    return torch.nn.functional.adaptive_max_pool2d(whole, (side, side))[0, 0].bool().numpy()


@dataclass(frozen=True)
class Task:
    """One network to train on one draw, and how: where it runs and what becomes of its rows is not part of it."""

    of: str
    seed: int
    training: str
    steps: int
    weighting: str = ""
    mixed_precision: bool = False
    batch: int = BATCH
    tested: int | None = None

    def settings(self, reading: str) -> dict[str, Any]:
        settings: dict[str, Any] = {"set": self.of, "seed": self.seed, "training": self.training, "steps": self.steps}
        settings |= {"weighting": self.weighting} if self.weighting else {}
        settings |= {"mixed_precision": True} if self.mixed_precision else {}
        settings |= {"batch": self.batch} if self.batch != BATCH else {}
        settings |= {"tested": self.tested} if self.tested else {}
        return settings | {"reading": reading}

    @property
    def readings(self) -> tuple[str, ...]:
        if self.training in PEERS:
            return (self.training,)
        if self.of == TAIL:
            return ALONE
        return ALONE[1:] if self.of == LARGE else (*READINGS, *(f"lesson, {step}" for step in LESSON_STEPS))

    @property
    def name(self) -> str:
        return f"{self.of}-{self.seed}-{self.training}-{'weighted' if self.weighting else 'plain'}"


def tasks(seeds: tuple[int, ...], steps: int, only: tuple[str, ...]) -> list[Task]:
    """Those of development first, and the longest of them."""
    found = []
    for group in ([seed for seed in seeds if seed < min(FRESH)], [seed for seed in seeds if seed >= min(FRESH)]):
        pairs = itertools.product(group, (ORIENTED, PLAIN))
        found += [("glad", Task(TILES, seed, training, steps)) for seed, training in pairs]
        found += [("tail", Task(TAIL, seed, ORIENTED, steps, way)) for seed in group for way in (WEIGHTED, "")]
        pairs = itertools.product(group, (ORIENTED, PLAIN))
        found += [("glad", Task(FASHION, seed, training, steps)) for seed, training in pairs]
        found += [
            ("large", Task(LARGE, 0, ORIENTED, steps, mixed_precision=mixed)) for mixed in (False, True) if 0 in group
        ]
        found += [("peers", Task(of, seed, peer, 0)) for of in (TILES, FASHION) for seed in group for peer in PEERS]
    return [task for name, task in found if name in only]


def run(task: Task, options: argparse.Namespace) -> str:
    """Train one network, read it in every way that has no row yet, and write the rows; a failure is a row."""
    torch.set_num_threads(1)
    done = {rows.key(row["settings"]) for row in rows.read_rows(options.rows) if rows.is_done(row)}
    asked = [reading for reading in task.readings if reading.startswith(tuple(options.readings))]
    left = [reading for reading in asked if rows.key(task.settings(reading)) not in done]
    if not left:
        return f"{task.name}: was there"

    def write(reading: str, row: dict[str, Any]) -> None:
        beside = {"device": options.device, "commit": rows.commit(), "versions": rows.versions()}
        rows.append(options.rows, {"settings": task.settings(reading), **row, **beside})

    started = time.perf_counter()
    try:
        sets = drawn(task.of, task.seed, options.data).fewer(options.most, task.tested or options.most)
        if task.training in PEERS:
            write(task.training, {"status": "ok"} | peer(task, sets))
            return f"{task.name}: {time.perf_counter() - started:.0f} s"
        detector, facts = trained(task, sets, options)
        for reading in left:
            made = lesson(detector, sets, reading) if reading.startswith("lesson") else read(detector, sets, reading)
            write(reading, {"status": "ok"} | facts | made)
    except Exception as error:
        write(left[0], {"status": "failed", "error": f"{type(error).__name__}: {error}"})
        return f"{task.name}: {traceback.format_exc(limit=-4)}"
    return f"{task.name}: {time.perf_counter() - started:.0f} s"


def trained(task: Task, sets: Sets, options: argparse.Namespace) -> tuple[Any, dict[str, Any]]:
    """The network, from its file where it was trained before, and what its training took."""
    detector: Any = registry.parse_one(task.training, "detector")
    # Nobody reads how a fit scores its own training images; every reading sets its own passes.
    detector.passes = 1
    data = sets.data("train")
    kept = None if options.states is None else options.states / f"{task.name}.safetensors"
    if kept is not None and kept.is_file():
        state = load_file(kept)
        detector.restore(data.sample_shape, {name: value.to(_type(value)) for name, value in state.items()}, IMAGE)
        inference.place(detector, options.device)
        return detector.eval(), {}
    on_gpu = options.device.startswith("cuda")
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    training = Training(
        epochs=max(1, round(task.steps * task.batch / len(data))), batch_size=task.batch, lr=RATE,
        device=options.device, mixed_precision=task.mixed_precision,
    )  # fmt: skip
    weighting = parse_weighting(task.weighting, IMAGE) if task.weighting else Weighting()
    keeper = None
    if kept is not None:
        kept.parent.mkdir(parents=True, exist_ok=True)
        settings = rows.key(task.settings(""))
        keeper = Checkpoint(kept.with_suffix(".unfinished"), settings, SECONDS_BETWEEN_CHECKPOINTS)
    goes_on = keeper is not None and keeper.path.is_file()
    started, cpu = time.perf_counter(), time.process_time()
    outcome = fit(detector, data, weighting, training, seed=task.seed, keeper=keeper)
    facts = {
        "train": len(data), "train_seconds": round(time.perf_counter() - started, 1),
        "train_cpu_seconds": round(time.process_time() - cpu, 1), "loss": outcome.history[-1]["loss"],
        "failed_checks": [check.message for check in outcome.checks if not check.ok],
        "peak_memory_mb": round(torch.cuda.max_memory_allocated() / 2**20) if on_gpu else rows.peak_memory_mb(),
    }  # fmt: skip
    if goes_on:
        facts = {name: value for name, value in facts.items() if "seconds" not in name}
    if keeper is not None and kept is not None:
        state = detector.state_dict()
        # Parameters in half precision, which is enough to read them; moments and limits as they are.
        save_file({n: (v.half() if n.startswith("denoiser.") else v).cpu() for n, v in state.items()}, kept)
        keeper.path.unlink(missing_ok=True)
    return detector.eval(), facts


def _type(value: Tensor) -> torch.dtype:
    return torch.float32 if value.dtype == torch.float16 else value.dtype


def another(detector: Any, reading: str) -> Any:
    """The same network, read in another way."""
    made: Any = registry.parse_one(reading, "detector")
    state = dict(detector.state_dict())
    if reading.startswith("Diffusion"):
        state = {name: value for name, value in state.items() if name not in ("limit", "units")}
    made.restore(detector.sample_shape, state, IMAGE)
    return made.to(inference.device_of(detector)).eval()


def read(detector: Any, sets: Sets, reading: str) -> dict[str, Any]:
    """Figures of one way to read a network; what it measures on kept-out normals is measured anew."""
    made, train, test = another(detector, reading), sets.data("train"), sets.data("test")
    made.settle(train, torch.ones(len(train)))
    started, cpu = time.perf_counter(), time.process_time()
    parts = []
    with torch.no_grad():
        for batch in test.batches(256):
            gaps, rebuilt = made.differences(batch.samples.to(made.noise.device))
            parts.append((gaps.cpu(), rebuilt.closed.cpu()))
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu
    gaps, closed = torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts]).numpy()
    error, differences = gaps[:, 1].mean((1, 2)).numpy(), gaps / made.usual.cpu()[:, None, None]
    score = top_mean(differences.mean(1), made.top).numpy()
    normal = ~sets.labels
    row: dict[str, Any] = {
        "image_auroc": metrics.auroc(sets.labels, score), "test": len(score),
        "normal_error": float(error[normal].mean()), "anomalous_error": float(error[~normal].mean()),
        "score_ms": round(1_000 * seconds / len(score), 2), "score_cpu_ms": round(1_000 * cpu_seconds / len(score), 2),
    }  # fmt: skip
    if made.__class__.__name__ == "GLAD":
        limit = float(made.limit)
        row |= {
            "limit": limit, "closed_normal": float(closed[normal].mean()),
            "closed_anomalous": float(closed[~normal].mean()),
            "above_limit_normal": float((closed[normal] >= made.lowest_step).mean()),
            "above_limit_anomalous": float((closed[~normal] >= made.lowest_step).mean()),
        }  # fmt: skip
    row["by_choice"] = {}
    for by_value in BY_VALUE:
        maps = (differences[:, 0] + by_value * differences[:, 1]) / (1 + by_value)
        for top in TOPS:
            row["by_choice"][f"{by_value:g}, {top:g}"] = metrics.auroc(sets.labels, top_mean(maps, top).numpy())
        row["by_choice"][f"{by_value:g}, pixels"] = _pixel_auroc(maps, sets)
        if by_value == 1.0 and sets.masks is not None:
            row["pixel_auroc"] = _pixel_auroc(maps, sets)
    if sets.rarest is not None:
        chosen = sets.rarest | sets.labels
        row["rarest_auroc"] = metrics.auroc(sets.labels[chosen], score[chosen])
        row["rarest_error"] = float(error[sets.rarest].mean())
    return row


def _pixel_auroc(maps: Tensor, sets: Sets) -> float | None:
    if sets.masks is None:
        return None
    known = (~sets.labels) | sets.masks.any((1, 2))
    pairs = [(maps[i].numpy(), sets.masks[i]) for i in np.flatnonzero(known).tolist()]
    return pixel_metrics.pixel_auroc(pixel_metrics.gather(pairs))


def lesson(detector: Any, sets: Sets, reading: str) -> dict[str, Any]:
    """How far the estimate of one pass lies from the clean image, where a made anomaly was noised with it."""
    step = int(reading.rpartition(" ")[2])
    normals = sets.test[~sets.labels]
    samples = (torch.from_numpy(normals.copy()).float() / 255).to(inference.device_of(detector))
    seeds = counter_rng.seeds_of(samples, 7)
    with torch.no_grad():
        clean = detector.standardise(samples)
        bank = detector.standardise(samples[:64])
        made, mask = altered_images(clean, seeds, bank)
        noise = counter_rng.normals(seeds, clean[0].numel(), 60).view_as(clean)
        noised = detector._noised(made, noise, step)
        predicted = detector.denoiser(noised, torch.full((len(clean),), step, device=clean.device))
        error = (detector._estimate(noised, predicted, step) - clean).abs().mean(1)
    return {"error": float(error.mean()), "error_inside": float(error[mask].mean()), "test": len(clean)}


def peer(task: Task, sets: Sets) -> dict[str, Any]:
    """The autoencoder on the same pixels, or padim on a backbone's maps of the same pictures, enlarged."""
    train, test = sets.data("train"), sets.data("test")
    cpu = time.process_time()
    if task.training == "padim":
        train, test = (_mapped(part) for part in (train, test))
    detector: Any = registry.parse_one(task.training, "detector")
    fit(detector, train, training=Training(batch_size=32), seed=task.seed)
    fitted = time.process_time()
    score = inference.score(detector, test).numpy()
    done = time.process_time()
    row: dict[str, Any] = {
        "image_auroc": metrics.auroc(sets.labels, score), "test": len(score),
        "train_cpu_seconds": round(fitted - cpu, 1), "score_cpu_ms": round(1_000 * (done - fitted) / len(score), 2),
    }  # fmt: skip
    if sets.masks is not None:
        maps = inference.over_batches(detector, test, detector.score_map)
        size = sets.masks.shape[1:]
        maps = torch.nn.functional.interpolate(maps[:, None], size, mode="bilinear", align_corners=False)[:, 0]
        row["pixel_auroc"] = _pixel_auroc(maps, sets)
    return row


def _mapped(data: Data) -> Data:
    features = networks.features(BACKBONE, networks.map_layers(BACKBONE))
    side = (BACKBONE_SIDE, BACKBONE_SIDE)
    maps = [
        features(torch.nn.functional.interpolate(batch.samples, side, mode="bilinear", align_corners=False)).half()
        for batch in data.batches(16)
    ]
    return Data(torch.cat(maps).float(), data.names, modality=FEATURE_MAP)


def cpu_seconds(options: argparse.Namespace) -> None:
    """What a step of training and the score of an image take on one thread of this CPU, a row for each set."""
    torch.set_num_threads(1)
    for of in (FASHION, TILES):
        data, row = drawn(of, 0, options.data).data("train").take(range(BATCH)), {}
        for training in (PLAIN, ORIENTED):
            detector: Any = registry.parse_one(training, "detector")
            start(detector, data)
            optimizer, batch, took = FlatAdam(detector.train(), RATE, 0.0), next(data.batches(BATCH)), []
            for _ in range(CPU_STEPS):
                started = time.process_time()
                optimizer.backward(detector.losses(batch).mean())
                optimizer.step()
                took.append(time.process_time() - started)
            row[f"{training} step"] = round(min(took), 3)
        for reading in ALONE:
            made = another(detector, reading)
            started = time.process_time()
            inference.score(made, data.take(range(min(CPU_IMAGES, len(data)))))
            row[f"{reading} ms"] = round(1_000 * (time.process_time() - started) / CPU_IMAGES, 1)
        settings = {"set": of, "what": "seconds of a CPU"}
        beside = {"commit": rows.commit(), "versions": rows.versions()}
        rows.append(options.rows, {"settings": settings, "status": "ok", **row, **beside})
        print(of, row, flush=True)


HEAD = f"""\
# Diffusion on small images

Written by `benchmarks/diffusion.py` from results/diffusion.jsonl. One network a set, seed and training; every line of
a training reads the same networks. A fixed step is `diffusion`, adaptive ones are `glad`, whose limit comes from
kept-out normals alone. AUROC of images and pixels, mean over the draws with the range; error is that of reconstructed
normal test images, in deviations of a pixel; the steps at which normal and anomalous images were closed; CPU seconds of
a whole training (a measured step of {BATCH} images on one thread, times the steps) and milliseconds of an image.
Compare lines of as many draws; of fewer, the others were not read in that way.
Development draws (seeds {DEVELOPMENT}) were looked at when defaults were chosen, fresh ones (seeds {FRESH}: other
classes, other test images) were not.
"""
WAYS = {PLAIN: "plain", ORIENTED: "anomaly-oriented"}
COLUMNS = [
    "training", "reading", "draws", "image AUROC", "range", "pixel AUROC", "error on normals", "closed, normal",
    "closed, anomalous", "fit, CPU s", "CPU ms an image",
]  # fmt: skip
Row = dict[str, Any]


def page(found: list[Row]) -> str:
    """The tables, from the rows that are there."""
    done = [row for row in found if row["status"] == "ok"]
    text = HEAD
    for of, (name, seeds) in itertools.product((FASHION, TILES), (("development", DEVELOPMENT), ("fresh", FRESH))):
        here = [row for row in _of(done, set=of) if row["settings"].get("seed") in seeds and "image_auroc" in row]
        tables = [_budget(spent) + table(COLUMNS, _lines(done, of, spent)) for spent in _by_budget(here)]
        text += _section(f"{of}, {name} draws", "\n\n".join(tables))
    text += _section("What the training target does", _lessons(done))
    text += _section("Long tail: the rarest of five kinds", _tail(done))
    return text + _section("64 pixels on a GPU", _large(done))


def _section(title: str, text: str) -> str:
    return f"\n## {title}\n\n{text}\n" if text else ""


def _of(found: list[Row], **settings: Any) -> list[Row]:
    return [row for row in found if all(row["settings"].get(name) == value for name, value in settings.items())]


def _by_budget(here: list[Row]) -> list[list[Row]]:
    """The rows of each budget of training, the largest first, with those of peers on the same draws.

    Networks that were read by fixed steps alone have tables of their own: a line of theirs would be a mean over other
    draws than the one below it.
    """
    adapted = {_network(row) for row in here if _is_adapted(row)}
    spent: dict[tuple[bool, int, int], list[Row]] = {}
    for row in here:
        if row["settings"]["steps"]:
            spent.setdefault((_network(row) in adapted, _images(row), row["test"]), []).append(row)
    return [spent[key] + _peers_of(spent[key], here) for key in sorted(spent, reverse=True)]


def _peers_of(found: list[Row], here: list[Row]) -> list[Row]:
    """The rows of peers on the draws and the test images of these rows."""
    draws = {(row["settings"]["seed"], row["test"]) for row in found}
    return [row for row in here if not _images(row) and (row["settings"]["seed"], row["test"]) in draws]


def _is_adapted(row: Row) -> bool:
    return row["settings"]["reading"].startswith("GLAD")


def _network(row: Row) -> str:
    """The network that a row read, as one text."""
    return rows.key(row["settings"] | {"reading": ""})


def _images(row: Row) -> int:
    """How many images a network was trained on, copies counted; 0 of a peer."""
    return int(row["settings"]["steps"] * row["settings"].get("batch", BATCH))


def _budget(here: list[Row]) -> str:
    """What the rows of a table spent on each network, and how many images judge it."""
    ours = next(row for row in here if row["settings"]["steps"])
    alone = "" if any(map(_is_adapted, here)) else "; networks that were read by fixed steps alone"
    return f"{_trained(ours)}; {ours['test']} test images{alone}.\n\n"


def _trained(row: Row) -> str:
    return f"{row['settings']['steps']:,} steps of {row['settings'].get('batch', BATCH)} images"


def _lines(found: list[Row], of: str, here: list[Row]) -> list[list[str]]:
    cpu: Any = next(iter(_of(found, set=of, what="seconds of a CPU")), None)
    lines = []
    for training, reading in itertools.product((PLAIN, ORIENTED), READINGS):
        chosen = _of(here, training=training, reading=reading)
        if chosen:
            name = ALONE[not reading.startswith("Diffusion")]
            spent = chosen[0]["settings"]["steps"] * chosen[0]["settings"].get("batch", BATCH) / BATCH
            cost = ["", ""] if cpu is None else [f"{cpu[f'{training} step'] * spent:.0f}", f"{cpu[f'{name} ms']:.0f}"]
            lines.append([WAYS[training], reading, *_figures(chosen), *cost])
    for name in PEERS:
        chosen = _of(here, training=name)
        if chosen:
            cost = [_mean(chosen, "train_cpu_seconds", 0), _mean(chosen, "score_cpu_ms", 1)]
            lines.append(["", name, *_figures(chosen), *cost])
    return lines


def _figures(chosen: list[Row]) -> list[str]:
    each = [row["image_auroc"] for row in chosen]
    figures = [("pixel_auroc", 3), ("normal_error", 3), ("closed_normal", 0), ("closed_anomalous", 0)]
    spread = f"{min(each):.3f} to {max(each):.3f}"
    return [
        str(len(each)), _mean(chosen, "image_auroc", 3), spread, *(_mean(chosen, *figure) for figure in figures),
    ]  # fmt: skip


def _mean(chosen: list[Row], figure: str, digits: int) -> str:
    each = [row[figure] for row in chosen if row.get(figure) is not None]
    return f"{np.mean(each):.{digits}f}" if each else ""


def _lessons(found: list[Row]) -> str:
    """Errors of the estimate of one pass, a line a set, budget and step: mean over seeds, and in how many it is the
    smaller."""
    lines = []
    read = [row for row in found if str(row["settings"].get("reading", "")).startswith("lesson")]
    budgets = sorted({_images(row) for row in read}, reverse=True)
    for of, images, step in itertools.product((FASHION, TILES), budgets, LESSON_STEPS):
        here = [row for row in _of(read, set=of, reading=f"lesson, {step}") if _images(row) == images]
        plain, oriented = (
            {row["settings"]["seed"]: row for row in _of(here, training=training)} for training in (PLAIN, ORIENTED)
        )
        both = sorted(plain.keys() & oriented.keys())
        if both:
            said = [
                f"{np.mean([each[seed][figure] for seed in both]):.3f}"
                for figure in ("error", "error_inside") for each in (plain, oriented)
            ]  # fmt: skip
            nearer = sum(oriented[seed]["error"] < plain[seed]["error"] for seed in both)
            lines.append([of, _trained(oriented[both[0]]), str(step), *said, f"{nearer} of {len(both)}"])
    head = [
        "set",
        "trained",
        "step",
        "plain",
        "anomaly-oriented",
        "plain, inside",
        "anomaly-oriented, inside",
        "nearer",
    ]
    explained = (
        "Made anomalies on normal test images are noised to a step, and the clean image is estimated in one pass: mean "
        "absolute error, over the image and inside the anomaly; the last column counts the seeds in which the "
        "anomaly-oriented network is nearer.\n\n"
    )
    return explained + table(head, lines) if lines else ""


def _tail(found: list[Row]) -> str:
    lines = []
    for reading, weighting in itertools.product(ALONE, ("", WEIGHTED)):
        read = _of(found, set=TAIL, reading=reading)
        chosen = [row for row in read if row["settings"].get("weighting", "") == weighting]
        by_seed = {row["settings"]["seed"]: row for row in chosen}
        if by_seed:
            each = [f"{by_seed[seed]['rarest_auroc']:.3f}" for seed in sorted(by_seed)]
            whole = [_mean(chosen, figure, 3) for figure in ("rarest_auroc", "image_auroc", "rarest_error")]
            cost = _mean(chosen, "train_cpu_seconds", 0)
            lines.append([reading, "weighted" if weighting else "plain", *whole, " ".join(each), cost])
    head = ["reading", "training", "AUROC of the rarest kind", "AUROC of all", "its error", "each draw", "fit, CPU s"]
    weights = f"Weights: `{WEIGHTED}`, from the losses of one pass.\n\n"
    return f"{_budget(_of(found, set=TAIL))}{weights}{table(head, lines)}" if lines else ""


def _large(found: list[Row]) -> str:
    lines = [
        [
            "mixed" if row["settings"].get("mixed_precision") else "single", str(row["train"]),
            f"{row['settings']['steps']:,}", f"{row['train_seconds']:.0f}", f"{row['peak_memory_mb']}",
            f"{row['score_ms']:.1f}", f"{row['image_auroc']:.3f}", f"{row['pixel_auroc']:.3f}",
        ]
        for row in _of(found, set=LARGE) if "train_seconds" in row
    ]  # fmt: skip
    head = ["precision", "images", "steps", "fit, s", "peak MB", "ms an image", "image AUROC", "pixel AUROC"]
    return table(head, lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("draws", "run", "cpu-seconds", "page"))
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--data", type=Path, help="a folder that `draws` wrote")
    parser.add_argument("--rows", type=Path, default=RESULTS)
    parser.add_argument("--states", type=Path, help="a folder for the trained networks, and to take them from")
    parser.add_argument("--seeds", nargs="+", type=int, default=[*DEVELOPMENT, *FRESH])
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--batch", type=int, default=BATCH, help="images of a step")
    parser.add_argument("--sets", nargs="+", default=SETS, choices=SETS)
    parser.add_argument("--trainings", nargs="+", default=[""], help="only those that begin so")
    parser.add_argument("--most", type=int, help="so many images of each draw at most: a trial")
    parser.add_argument("--tested", type=int, help="so many test images at most")
    parser.add_argument("--readings", nargs="+", default=[""], help="only those that begin so")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--only", nargs="+", default=["glad", "tail"], choices=("large", "glad", "tail", "peers"))
    options = parser.parse_args()
    if options.what == "draws":
        for of, seed in itertools.product((FASHION, TILES, TAIL), options.seeds):
            drawn(of, seed, None).write(options.folder / f"{of}-{seed}.npz")
        drawn(LARGE, 0, None).write(options.folder / f"{LARGE}-0.npz")
    elif options.what == "run":
        asked = [
            replace(task, batch=options.batch, tested=options.tested)
            for task in tasks(tuple(options.seeds), options.steps, tuple(options.only))
            if task.of in options.sets and task.training.startswith(tuple(options.trainings))
        ]
        with ProcessPoolExecutor(options.jobs, multiprocessing.get_context("spawn")) as pool:
            for done in as_completed([pool.submit(run, task, options) for task in asked]):
                print(done.result(), flush=True)
    elif options.what == "cpu-seconds":
        cpu_seconds(options)
    else:
        PAGE.write_text(page(rows.read_rows(options.rows)), encoding="utf-8")


if __name__ == "__main__":
    main()

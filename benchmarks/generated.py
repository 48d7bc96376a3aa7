"""Rows on generated data: long-tailed tables of a given generator, and cubes with a legitimate rare material.

    python benchmarks/generated.py tables long_tail_table.py   # a file with synth(scenario, seed=) and digits(...)
    python benchmarks/generated.py cubes rare_material_cube.py hyperspectral/abu

The generator files are not part of this project: they are given, and run. Rows go to results/, as those of a suite do.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.cluster import KMeans

from tailwise.benchmark import rows
from tailwise.benchmark.draws import Draw
from tailwise.benchmark.page import write_page
from tailwise.benchmark.runner import Job, run_methods
from tailwise.benchmark.suites import AS_GIVEN, Conditions, Method, SourceSettings, Suite
from tailwise.core import registry
from tailwise.core.data import Data

HOME = Path(__file__).parent
DETECTORS = ("autoencoder", "deep-svdd", "gaussian", "nearest-neighbours")
HELD_OUT = 0.1
SHARES = (0.80, 0.14, 0.05, 0.01)
SIDE, ANOMALIES = 150, 60
# Half anomaly, half whatever lies around it: a whole anomalous pixel is found by everyone.
MIXED = 0.5
BRIGHTNESS = 0.05


def table_draw(generator: Any, scenario: str, seed: int) -> Draw:
    """A tenth of the training rows is held out for the threshold."""
    maker, _, name = scenario.rpartition(" ")
    train, kinds, test, labels, test_groups = getattr(generator, maker or "synth")(name, seed=seed)
    held = np.sort(np.random.default_rng(seed).permutation(len(train))[: int(HELD_OUT * len(train))])
    kept = np.setdiff1d(np.arange(len(train)), held)
    named = [str(kind) for kind in np.unique(test_groups[test_groups >= 0])]
    order = tuple(sorted(named, key=lambda kind: -int((kinds == int(kind)).sum())))
    return Draw(
        _data(train[kept]), _names(kinds[kept]), _data(train[held]),
        _data(test), labels.astype(bool), _names(test_groups), order,
    )  # fmt: skip


def cube_draw(cube: np.ndarray, material: np.ndarray, anomalous: np.ndarray) -> Draw:
    """A scene, its anomalies inside: pixels [h, w, bands], material [h, w], anomalous [h, w]."""
    pixels = _data(cube.reshape(-1, 1, cube.shape[-1]).astype(np.float32))
    kinds = material.ravel().astype(str)
    order = tuple(str(k) for k in np.argsort(-np.bincount(material.ravel())))
    train_groups = np.where(anomalous.ravel(), "", kinds)
    return Draw(pixels, train_groups, None, pixels, anomalous.ravel(), kinds, order, in_sample=True)


def given_cube(path: Path) -> Draw:
    """The cube that a script makes before it measures anything."""
    made: dict[str, Any] = {}
    code = path.read_text().partition("from spectral import rx")[0].replace("resource, spectral,", "resource,")
    exec(compile(code, str(path), "exec"), made)
    return cube_draw(made["Y"], made["lab"], made["an"])


def cube_of_spectra(scene: Path, seed: int) -> Draw:
    """Materials are clusters of a real scene's normal spectra; anomalies are mixtures with its labelled ones."""
    (source,) = registry.parse(f"Cube(path={str(scene)!r})", ("source",))
    found = source.load_all()
    spectra = torch.cat([batch.samples[:, 0] for batch in found.data.batches(4_096)]).double().numpy()
    normal, odd = spectra[~found.labels], spectra[found.labels]
    generator = np.random.default_rng(seed)
    shape = normal / np.linalg.norm(normal, axis=1)[:, None]
    clusters = KMeans(len(SHARES), n_init=4, random_state=seed).fit(shape)
    distance = clusters.transform(shape).min(1)
    # Materials are pure: the half of each cluster that is nearest to its centre.
    cores = [np.flatnonzero(clusters.labels_ == k) for k in range(len(SHARES))]
    cores = [own[distance[own] <= np.median(distance[own])] for own in cores]
    counts = [round(share * SIDE**2) for share in SHARES]
    order = generator.permutation(len(SHARES))
    material = np.repeat(np.arange(len(SHARES)), counts)
    cube = np.concatenate([generator.choice(normal[cores[k]], n) for k, n in zip(order, counts, strict=True)])
    # A pixel that is drawn twice is not the same twice.
    cube = cube * (1 + BRIGHTNESS * generator.standard_normal((len(cube), 1)))
    anomalous = np.zeros(len(cube), dtype=bool)
    anomalous[generator.choice(np.flatnonzero(material < len(SHARES) - 1), ANOMALIES, replace=False)] = True
    cube[anomalous] = (1 - MIXED) * cube[anomalous] + MIXED * generator.choice(odd, ANOMALIES)
    shape = (SIDE, SIDE)
    return cube_draw(cube.reshape(*shape, -1), material.reshape(shape), anomalous.reshape(shape))


def append(suite: str, source: str, seed: int, made: Any, methods: list[Method], detectors: dict[str, str]) -> None:
    """Rows of the methods that have none yet."""
    weightings = {"uniform": "", "auto": "auto"}
    split = "kinds" if suite == "long-tail-tables" else "scene"
    settings = SourceSettings(source, split=split)
    described = Suite(suite, {}, {source: settings}, weightings, (), {}, detectors, HELD_OUT, per_cluster=True)
    conditions = Conditions(source, "confirmation", seed, AS_GIVEN, 0.0)
    place = HOME / "results" / f"{suite}.jsonl"
    done = {rows.key(row["settings"]) for row in rows.read_rows(place) if rows.is_done(row)}
    left = tuple(m for m in methods if rows.key(described.settings(conditions, m)) not in done)
    if left:
        run_methods(Job(described, conditions, left, place), made())
        write_page(place)
        print(f"{suite}: {source}, seed {seed}, {len(left)} rows", flush=True)


def tables(path: Path, seeds: list[int], scenarios: list[str]) -> None:
    generator = _module(path)
    cross_fitted = [Method(*each) for each in itertools.product(DETECTORS, ("uniform", "auto"), ("", "auto"))]
    methods = [*cross_fitted, *map(Method, ("LOF", "kNN", "per-group kNN"))]
    for seed, scenario in itertools.product(seeds, scenarios):
        append("long-tail-tables", scenario, seed, lambda s=scenario, k=seed: table_draw(generator, s, k), methods, {})


def cubes(path: Path, scenes: Path, seeds: list[int]) -> None:
    methods = [Method(d, w, "") for d in ("autoencoder", "gaussian") for w in ("uniform", "auto")]
    append("rare-material", "given cube", 0, lambda: given_cube(path), methods, {})
    for seed, scene in zip(itertools.cycle(seeds), sorted(scenes.glob("*.mat")), strict=False):
        append(
            "rare-material",
            f"spectra of {scene.stem}",
            seed,
            lambda p=scene, k=seed: cube_of_spectra(p, k),
            methods,
            {},
        )


def _data(samples: np.ndarray) -> Data:
    return Data(torch.from_numpy(samples), range(len(samples)))  # type: ignore[arg-type]


def _names(kinds: np.ndarray) -> np.ndarray:
    return np.where(kinds < 0, "", kinds.astype(str))


def _module(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("tables", "cubes"))
    parser.add_argument("paths", type=Path, nargs="+")
    parser.add_argument("--seeds", default="11,12,13,14,15")
    parser.add_argument("--scenarios", default="longtail,lt_contam,digits lt_contam")
    options = parser.parse_args()
    chosen = [int(seed) for seed in options.seeds.split(",")]
    torch.set_num_threads(1)
    if options.what == "tables":
        tables(options.paths[0], chosen, options.scenarios.split(","))
    else:
        cubes(options.paths[0], options.paths[1], chosen)

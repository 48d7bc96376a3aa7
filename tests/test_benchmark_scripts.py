"""The scripts of small sets, thresholds and what weighting adds: they run, tiny, and their pages say what rows say."""

import ast
import importlib
import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tailwise.benchmark import draws
from tailwise.weights.default import AUTO

ROOT = Path(__file__).parents[1]
Row = dict[str, Any]


def _unknown_names(script: Path) -> list[str]:
    """What a script reads of the library's modules and does not find there."""
    tree = ast.parse(script.read_text(encoding="utf-8"))
    modules, missing = {}, []
    for found in ast.walk(tree):
        if not isinstance(found, ast.ImportFrom) or (found.module or "").split(".")[0] != "tailwise":
            continue
        home = importlib.import_module(str(found.module))
        for alias in found.names:
            member = _member(home, alias.name)
            if member is None:
                missing.append(f"{found.module}.{alias.name}")
            elif isinstance(member, ModuleType):
                modules[alias.asname or alias.name] = member
    for read in ast.walk(tree):
        if isinstance(read, ast.Attribute) and isinstance(read.value, ast.Name) and read.value.id in modules:
            home = modules[read.value.id]
            if _member(home, read.attr) is None:
                missing.append(f"{home.__name__}.{read.attr}")
    return missing


def _member(home: ModuleType, name: str) -> Any:
    if not hasattr(home, name) and hasattr(home, "__path__"):
        with suppress(ModuleNotFoundError):
            importlib.import_module(f"{home.__name__}.{name}")
    return getattr(home, name, None)


@pytest.mark.parametrize("script", sorted((ROOT / "benchmarks").glob("*.py")), ids=lambda script: script.stem)
def test_a_script_reads_names_that_the_library_has(script: Path) -> None:
    assert _unknown_names(script) == []


def test_a_name_that_is_gone_is_found(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("from tailwise.benchmark import rows\nfrom tailwise.core import there_never_was\nrows.mend(1)\n")
    assert _unknown_names(script) == ["tailwise.core.there_never_was", "tailwise.benchmark.rows.mend"]


@pytest.fixture(scope="module")
def small_sets(module_of: Callable[[Path], ModuleType]) -> ModuleType:
    return module_of(ROOT / "benchmarks" / "small_sets.py")


@pytest.fixture(scope="module")
def thresholds(module_of: Callable[[Path], ModuleType]) -> ModuleType:
    return module_of(ROOT / "benchmarks" / "thresholds.py")


@pytest.fixture(scope="module")
def weighting_adds(module_of: Callable[[Path], ModuleType]) -> ModuleType:
    return module_of(ROOT / "benchmarks" / "weighting_adds.py")


@pytest.fixture(scope="module")
def image_limits(module_of: Callable[[Path], ModuleType]) -> ModuleType:
    return module_of(ROOT / "benchmarks" / "image_limits.py")


@pytest.fixture(scope="module")
def weighting_page(module_of: Callable[[Path], ModuleType]) -> ModuleType:
    return module_of(ROOT / "benchmarks" / "weighting_adds_page.py")


@pytest.mark.parametrize(
    ("script", "rows", "page"),
    [
        ("small_sets", "small-sets.jsonl", "small-sets.md"),
        ("thresholds", "thresholds.jsonl", "thresholds.md"),
        ("image_limits", "image_limits.jsonl", "image_limits.md"),
        ("weighting_page", "weighting-adds.jsonl", "weighting-adds.md"),
    ],
)
def test_the_page_is_that_of_the_rows(script: str, rows: str, page: str, request: pytest.FixtureRequest) -> None:
    module, path = request.getfixturevalue(script), ROOT / "benchmarks" / "results" / rows
    every = module.gathered(path) if script == "weighting_page" else module.read_all(path)
    assert (ROOT / "benchmarks" / page).read_text() == module.page(every)


@pytest.mark.parametrize(("script", "page"), [("serve_load", "serve"), ("watch", "watch")])
def test_the_page_of_what_runs_in_the_line_is_that_of_the_rows(
    script: str, page: str, module_of: Callable[[Path], ModuleType]
) -> None:
    if script == "serve_load":
        pytest.importorskip("uvicorn", reason="needs tailwise[serve]")
    module, home = module_of(ROOT / "benchmarks" / f"{script}.py"), ROOT / "benchmarks"
    every = module.benchmark_rows.read_all(home / "results" / f"{page}.jsonl")
    assert (home / f"{page}.md").read_text() == module.page(every)


def test_a_change_of_the_watch_is_of_the_share_that_is_asked_for(module_of: Callable[[Path], ModuleType]) -> None:
    script = module_of(ROOT / "benchmarks" / "watch.py")
    case = script.Case.__new__(script.Case)
    kinds = np.zeros(50, int)
    case.usual = script.Population(kinds, kinds > 0, np.arange(50.0), np.zeros((50, 2)))
    case.unknown = script.Population(kinds[:9] + 1, kinds[:9] == 0, np.arange(9.0) + 100, np.ones((9, 2)))
    case.is_dim = np.arange(50) % 5 == 0
    case.dimmed = script.Population(kinds[:10], kinds[:10] > 0, np.arange(10.0) + 200, np.ones((10, 2)))
    random = np.random.default_rng(0)
    for change, share, low in (("", 0.0, 100), ("new", 0.1, 100), ("dimmed", 0.2, 200)):
        scores = case.batch(random, 4_000, change).scores
        assert (scores >= low).mean() == pytest.approx(share, abs=0.025)
    # The picture that takes the place of one that is dimmed is that one.
    whole = case.batch(np.random.default_rng(1), 500, "dimmed").scores
    before = case.batch(np.random.default_rng(1), 500, "").scores
    assert np.array_equal(np.where(before % 5 == 0, 200 + before // 5, before), whole)


def test_large_photos_differ_by_their_defect_alone(module_of: Callable[[Path], ModuleType]) -> None:
    large = module_of(ROOT / "benchmarks" / "large_photos.py")
    good, bad = (large.photo(3, defect, (500, 600)) for defect in (False, True))
    apart = np.abs(np.asarray(good[0], int) - np.asarray(bad[0], int)).max(2)
    # Light and tint are drawn after the defect: elsewhere the photos are alike but for these.
    row, column = bad[1]
    inside = apart[row - 10 : row + 10, column - 10 : column + 10]
    assert good[1] is None
    assert inside.max() > 30 > 8 > np.median(apart)
    assert (ROOT / "benchmarks" / "large-photos.md").read_text() == large.page()


def test_the_page_of_peers_of_pictures_is_that_of_the_rows(module_of: Callable[[Path], ModuleType]) -> None:
    script = module_of(ROOT / "benchmarks" / "peers_anomalib.py")
    assert script.PAGE.read_text() == script.page()


@pytest.fixture
def made_defects(module_of: Callable[[Path], ModuleType], monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")  # it reads pictures as other scripts do
    return module_of(ROOT / "benchmarks" / "made_defects.py")


def test_the_page_of_made_defects_is_that_of_the_rows(made_defects: ModuleType) -> None:
    assert made_defects.PAGE.read_text() == made_defects.page()


def test_a_choice_of_blocks_is_right_where_real_defects_agree(made_defects: ModuleType) -> None:
    rows = [
        {"fine": fine, "real_usual": 0.8, "real_fine": real} for fine, real in ((True, 0.9), (False, 0.9), (False, 0.7))
    ]
    assert made_defects.summary(rows) == (
        "Right in 2 of 3 draws; the usual blocks always would be in 1, fine ones in 2. "
        "Mean AUROC: 0.833 as chosen, 0.800 by the usual blocks, 0.833 by fine ones."
    )


def test_the_page_of_diffusion_is_that_of_the_rows(module_of: Callable[[Path], ModuleType]) -> None:
    script = module_of(ROOT / "benchmarks" / "diffusion.py")
    assert script.PAGE.read_text() == script.page(script.rows.read_rows(script.RESULTS))


def test_the_page_of_growth_is_that_of_the_rows(module_of: Callable[[Path], ModuleType]) -> None:
    script = module_of(ROOT / "benchmarks" / "scale.py")
    assert script.PAGE.read_text() == script.page(script.rows.read_rows(script.RESULTS))


def test_the_exponent_of_growth_is_that_of_the_size_before(module_of: Callable[[Path], ModuleType]) -> None:
    script = module_of(ROOT / "benchmarks" / "scale.py")
    grown = [
        {"settings": {"method": "x", "rows": rows, "columns": 32, "seed": 0}, "status": "ok", "auroc": 1.0,
         "fit": rows**1.5, "score": float(rows), "peak_mb": 1} for rows in (10_000, 100)
    ]  # fmt: skip
    assert "| x | 10,000 x 32 | 1000000.0 | 1.50 | 10000.0 | 1.00 | 1 | 1.000 |" in script.page(grown)


def test_the_page_of_thresholds_of_maps_is_that_of_the_rows(module_of: Callable[[Path], ModuleType]) -> None:
    script = module_of(ROOT / "benchmarks" / "map_thresholds.py")
    assert script.PAGE.read_text() == script.page()


def test_a_split_of_easy_rows_keeps_every_bound(small_sets: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Defects ten deviations away are all caught, and the good ones of a plain cloud are what they are."""
    monkeypatch.setattr(small_sets, "BATCH", 60)
    generator = np.random.default_rng(0)
    good, bad = generator.normal(size=(700, 6)).astype(np.float32), generator.normal(10, 1, (50, 6)).astype(np.float32)
    row = small_sets.measure(good, bad, 60, 0)
    assert min(row["auroc_default"], row["auroc_own"], row["auroc_local"]) > 0.99
    assert row["caught"] == row["caught_held_out"] == 1
    assert row["tested"] == 700 - 60 - 5 * 60
    assert len(row["drifts"]) == 5
    assert json.loads(json.dumps(row)) == row
    page = small_sets.page([row | {"set": "cloud", "n": 60, "seed": 0}])
    assert ("in the worst split" in page) == (abs(row["median"]) > 1)
    assert len({line.count("|") for line in page.splitlines() if line.startswith("|")}) == 1  # a cell for each heading


def small_row(n: int, seed: int, **changed: Any) -> Row:
    """A row that keeps every bound, but for what is changed."""
    rates = {"false_alarms": 0.05, "caught": 0.5, "false_alarms_held_out": 0.05, "caught_held_out": 0.5}
    scores = {"auroc_default": 0.9, "auroc_own": 0.9, "auroc_local": 0.8, "median": 0.2}
    rest = {"fitted_flagged": 0.05, "unknown": 0.05, "drifts": [False] * 5, "inside": True, "calibrated_on": 60}
    return {"set": "cells", "n": n, "seed": seed, **rates, **scores, **rest, **changed}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"auroc_own": 0.906}, "the default's AUROC is 0.006 below"),
        ({"median": -1.2}, "median new normal -1.20"),
        ({"inside": False}, "inside the law in 0 of 4 splits"),
        ({"false_alarms": 0.08}, "false alarms 0.080 (within .02 of the 0.050 promised; by law 0.049)"),
        (
            {"false_alarms": 0.05, "calibrated_on": 9},
            "false alarms 0.050 (within .02 of the 0.100 promised; by law 0.100)",
        ),
        ({"caught": 0.4}, "0.10 fewer caught than held out (.03 allowed), which has 0.050 false alarms"),
        ({"fitted_flagged": 0.11}, "0.110 of the fitted samples flagged"),
        ({"unknown": 0.08}, "0.080 of new normals unknown"),
        ({"drifts": [True, False]}, "drift alarms 4 of 8"),
    ],
)
def test_each_missed_bound_is_said(small_sets: ModuleType, changed: Row, said: str) -> None:
    kept = [small_row(30, seed) for seed in range(4)]
    assert "- none" in small_sets.page(kept)
    missed = [line for line in small_sets.page([*kept, *(small_row(60, s, **changed) for s in range(4))]).splitlines()
              if line.startswith("- n = ")]  # fmt: skip
    assert len(missed) == 1
    assert missed[0].startswith("- n = 60: ")
    assert said in missed[0]


def pictures(folder: Path, names: list[str], grey: int, seed: int) -> list[Path]:
    """Small noisy squares of one grey."""
    generator = np.random.default_rng(seed)
    folder.mkdir(exist_ok=True)
    for name in names:
        noisy = np.clip(generator.normal(grey, 6, (16, 16)), 0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(folder / name)
    return [folder / name for name in names]


def test_a_folder_of_images_is_measured(
    thresholds: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """White squares among grey ones: all caught where none trained, and rows are not made twice."""
    monkeypatch.setattr(thresholds, "GOOD", 24)
    monkeypatch.setattr(thresholds, "WAYS", {"default": None})
    monkeypatch.setattr(
        thresholds.tailwise, "fit", lambda images, **given: fit(f"ImageFolder({str(images)!r}, size=16)", **given)
    )
    cells = []
    for name, count, grey in (("good", 40, 100), ("bad", 12, 220)):
        files = pictures(tmp_path / name, [f"cell{grey}-{i}.png" for i in range(count)], grey, count)
        stacked = np.stack([np.asarray(Image.open(file).convert("RGB")) for file in files])
        cells.append(thresholds.Cells(files, stacked.transpose(0, 3, 1, 2).astype(np.float32) / 255))
    good, bad = cells
    rows = list(thresholds.rows_of(good, bad, 0, ["gaussian"]))
    assert [row["planted"] for row in rows] == [0, 2]
    assert rows[0]["caught"] == 1
    assert rows[0]["tested"] == 16
    assert rows[1]["suspects"] + rows[1]["raising"] + rows[1]["highest"] > 0
    assert not list(thresholds.rows_of(good, bad, 0, ["gaussian"], [thresholds.place_of(row) for row in rows]))


def fit(*given: Any, **options: Any) -> Any:
    from tailwise.cli.commands import fit as command

    return command(*given, **options)


def threshold_row(seed: int, way: str, planted: int, rate: float, caught: float) -> Row:
    named = {"suspects": planted, "raising": 0, "highest": planted, "falsely_named": 0, "calibrated_on": 60}
    place = {"seed": seed, "detector": "gaussian", "threshold_by": way, "planted": planted}
    return place | named | {"false_alarms": rate, "caught": caught}


def test_spread_and_fall_are_those_of_the_rows(thresholds: ModuleType) -> None:
    rows = []
    for seed in range(11):  # the 10 % and 90 % quantiles of eleven rates are the second and the tenth
        rows += [threshold_row(seed, "default", 0, 0.01 * seed, 0.5), threshold_row(seed, "default", 2, 0, 0.4)]
        rows += [threshold_row(seed, "held out", 0, 0.02 * seed, 0.5), threshold_row(seed, "held out", 2, 0, 0.5)]
    page = thresholds.page(rows)
    assert "| gaussian | default | 60 | 0.050 | 0.010 | 0.090 | 0.080 | 0.50 | 0.500 |" in page
    assert "spread 0.50 times held out's (at most .5): kept" in page
    assert "detection falls by 20.0 % with two defects (at most 10 %): missed" in page


def test_pairs_of_a_tiny_draw_make_a_page(
    weighting_adds: ModuleType, weighting_page: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every sort of work on small draws, and the page of nothing but these rows."""
    monkeypatch.setattr(weighting_page, "REUSED", ())
    monkeypatch.setattr(weighting_page, "FEWEST_PAIRS", 1)
    place = tmp_path / "rows.jsonl"
    tails = [w for w in weighting_adds.work_on_rows(1) if w.conditions.source == "digits"]
    loops = [w for w in weighting_adds.work_on_loops(1) if w.conditions.source == "digits"]
    cubes, _ = weighting_adds.work_on_spectra(1)
    some = [
        (tails[0], "gaussian", tails[0].make),
        (loops[0], "own loop", loops[0].make),
        (loops[0], "Reweighted(KernelDensity)", loops[0].make),
        (cubes, "rx", lambda: weighting_adds.cube(1, False, side=20, bands=12)),
    ]
    for _ in range(2):  # the second time nothing is left to do
        for work, detector, make in some:
            methods = [method for method in work.methods if method.detector == detector]
            weighting_adds.do(weighting_adds.replace(work, methods=methods, make=make), place)
    rows = [json.loads(line) for line in place.read_text().splitlines()]
    assert [row["status"] for row in rows] == ["ok"] * 12
    page = weighting_page.page(weighting_page.gathered(place))
    for line in ("| gaussian | own | 1 | 1 |", "| gaussian | local | 1 | 1 |", "| own loop |", "| rx | own | 1 | 1 |"):
        assert line in page
    assert "| rx | local |" in page


def test_the_own_loop_learns(weighting_adds: ModuleType) -> None:
    normal = np.random.default_rng(0).normal(size=(200, 4)) @ np.random.default_rng(1).normal(size=(4, 12))
    for weighed in (False, True):
        scores = weighting_adds.own_loop(normal[:150], np.concatenate([normal[150:], 5 + normal[150:]]), weighed, 10)
        assert scores[50:].mean() > 2 * scores[:50].mean()


def pair_row(draw: int, weighting: str, aupr: float, **changed: Any) -> Row:
    spelled = {"weighting": repr(AUTO) if weighting == "auto" else "", "scores": "own", "draw": draw, "aupr": aupr}
    place = {
        "suite": "long-tail",
        "status": "ok",
        "source": "digits",
        "draw": draw,
        "imbalance": 20,
        "contamination": 0,
    }
    seconds = 2.0 if aupr > 0.5 else 1.0
    own = {"detector": "autoencoder", "weighting": weighting, "scores": "own", "seconds_fit": seconds}
    return place | own | {"metrics": {"aupr": aupr}, "settings": spelled} | changed


def test_a_default_that_the_interval_does_not_ask_for_is_named(weighting_page: ModuleType, tmp_path: Path,
                                                               monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    monkeypatch.setattr(weighting_page, "REUSED", ())
    for gain, says in ((0.1, "on"), (0.002, "off"), (-0.1, "off")):
        rows = [pair_row(draw, "uniform", 0.5) for draw in range(3)]
        rows += [pair_row(draw, "auto", 0.5 + gain + 0.001 * draw) for draw in range(3)]
        # One draw of another set has no say. Weights that are spelled otherwise than today's are no pair of today's.
        rows += [pair_row(7, weighting, aupr, source="other") for weighting, aupr in (("uniform", 0.9), ("auto", 0.1))]
        rows.append(pair_row(0, "auto", 0.0, settings={"weighting": "Importance(), Clip()", "scores": "own"}))
        place = tmp_path / f"{gain}.jsonl"
        place.write_text("".join(json.dumps(row) + "\n" for row in rows))
        page = weighting_page.page(weighting_page.gathered(place))
        assert f"| autoencoder | own | 1 | 3 | {gain + 0.001:+.3f} [" in page
        assert f"| on | {says} |" in page
        assert ("- nowhere" in page) == (says == "on")


def test_what_weights_cost_is_a_row(
    weighting_adds: ModuleType, weighting_page: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weighting_page, "REUSED", ())
    monkeypatch.setattr(weighting_adds.tailwise, "fit", lambda *given, **options: None)
    for _ in range(2):
        weighting_adds.cost(tmp_path / "rows.jsonl", repeats=2)
    rows = weighting_page.gathered(tmp_path / "rows.jsonl")
    assert [row["settings"]["cost of"] for row in rows] == ["nearest-neighbours", "gaussian", "autoencoder"]
    assert len((tmp_path / "rows.jsonl").read_text().splitlines()) == 3


def test_a_cube_has_its_materials(weighting_adds: ModuleType) -> None:
    draw = weighting_adds.cube(0, True)
    assert isinstance(draw, draws.Draw)
    shares = np.bincount(draw.test_groups.astype(int)) / len(draw.labels)
    assert shares == pytest.approx([0.80, 0.14, 0.05, 0.01], abs=0.02)
    assert draw.labels.sum() == 20
    assert draw.train is draw.test

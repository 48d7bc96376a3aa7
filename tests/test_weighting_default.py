"""Weights are on by default exactly where rows show that they add something."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from tailwise import AnomalyDetector
from tailwise.cli.main import run as command
from tailwise.core import registry
from tailwise.core.modality import FEATURE_MAP, IMAGE, ROW, SPECTRUM, Modality
from tailwise.weights.default import AUTO, AUTO_SPECTRA, choose_weighting, parse_weighting
from tailwise.weights.weighting import Weighting

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
DETECTORS = sorted(registry.entries("detector"))


@pytest.fixture(scope="module")
def asked_for(module_of: Callable[[Path], ModuleType]) -> set[tuple[str, str, Modality]]:
    page = module_of(BENCHMARKS / "weighting_adds_page.py")
    return page.asked_for(page.gathered(BENCHMARKS / "results" / "weighting-adds.jsonl"))


@pytest.mark.parametrize("name", DETECTORS)
def test_weights_are_on_exactly_where_rows_ask_for_them(name: str, asked_for: set[tuple[str, str, Modality]]) -> None:
    detector = registry.find("detector", name)()
    for modality in (ROW, SPECTRUM, IMAGE, FEATURE_MAP):
        for scores in ("own", "local"):
            on = bool(choose_weighting("auto", detector, modality, scores == "local").steps)
            assert on == ((name, scores, modality) in asked_for), (scores, modality.plural)


def test_the_page_shows_no_tail_that_asks_for_more_or_less() -> None:
    """By another road: the lines of the page, the interval of every long tail above 0 or the default off."""
    text = (BENCHMARKS / "weighting-adds.md").read_text(encoding="utf-8")
    lows: dict[tuple[str, str, str, str], list[tuple[float, float]]] = {}
    for section in text.split("\n## ")[1:]:
        title = section.partition("\n")[0]
        if ("long-tailed" not in title and "rare material" not in title) or "hidden" in title:
            continue
        sort = "spectra" if "material" in title else "rows"
        for line in section.splitlines():
            entries = [entry.strip() for entry in line.split("|")[1:-1]]
            if len(entries) == 10 and entries[8] in ("on", "off"):
                mean, low = map(float, re.findall(r"^([+-][\d.]+) \[([+-][\d.]+),", entries[4])[0])
                lows.setdefault((sort, entries[0], entries[1], entries[8]), []).append((mean, low))
    assert {default for *_, default in lows} == {"on", "off"}
    for (*_, default), each in lows.items():
        worth = all(mean >= 0.005 and low >= 0 for mean, low in each)
        assert worth if default == "on" else any(mean <= 0.005 or low <= 0 for mean, low in each)


@pytest.mark.parametrize("page", ["defaults.md", "theory.md"])
def test_pages_name_the_detectors_that_are_weighed(page: str) -> None:
    text = re.sub(r"\s+", " ", (BENCHMARKS.parent / "docs" / page).read_text(encoding="utf-8"))
    named = re.search(r"([\w-]+ and [\w-]+) of rows.{,60}?([\w-]+, [\w-]+ and [\w-]+) of spectra", text)
    assert named is not None
    for names, modality in zip(named.groups(), (ROW, SPECTRUM), strict=True):
        weighed = {name for name in DETECTORS if ("own", modality) in registry.find("detector", name).weights_add_to}
        assert set(re.split(", | and ", names)) == weighed


@pytest.mark.parametrize(
    ("text", "modality", "weighting"),
    [("auto", ROW, AUTO), ("auto", SPECTRUM, AUTO_SPECTRA), ("", ROW, Weighting()), ("Clip()", ROW, None)],
)
def test_what_is_named_is_done(text: str, modality: Modality, weighting: Weighting | None) -> None:
    """Whatever the detector, and beside local scores too, but for "auto", which is the detector's to say."""
    expected = parse_weighting("Clip()") if weighting is None else weighting
    assert choose_weighting(text, registry.find("detector", "nearest-neighbours")(), modality) == expected
    if text != "auto":
        for name in DETECTORS:
            assert choose_weighting(text, registry.find("detector", name)(), modality, True) == expected


def test_a_fit_weighs_by_its_detector(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
    np.save(tmp_path / "rows.npy", rows)
    for detector, weighted in (("nearest-neighbours", True), ("deep-svdd", False)):
        out = tmp_path / detector
        options = ["--detector", detector, "--scores", "own", "--cross", "0", "--epochs", "3", "--warmup", "1"]
        assert command(["fit", str(tmp_path / "rows.npy"), *options, "--out", str(out)]) in (0, 3)
        assert bool(json.loads((out / "settings.json").read_text())["weighting"]) == weighted
        estimator = AnomalyDetector(detector, scores="own", keep_suspects=True).fit(rows)
        assert (np.ptp(estimator.weights_[estimator.weights_ > 0]) > 0) == weighted

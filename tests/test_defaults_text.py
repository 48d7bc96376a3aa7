"""docs/defaults.md has every option of `fit` that does something unasked, with the value that the code has."""

from __future__ import annotations

import inspect
import re
from dataclasses import fields
from pathlib import Path

import pytest

from tailwise.calibration import conformal, drift, score_maps
from tailwise.cli import commands
from tailwise.core import modality
from tailwise.sources.options import SourceOptions
from tailwise.training.local_scores import LocalScores
from tailwise.training.options import Training

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "defaults.md").read_text(encoding="utf-8")
ROWS = {row[0]: row for line in PAGE.splitlines() if (row := [cell.strip() for cell in line.split("|")[1:-1]])}
BUNDLES = {"training": Training, "reading": SourceOptions}


def defaults() -> dict[str, object]:
    """The options of the command line, bundles opened, and what they are where nobody gives them."""
    asked = {name: each.default for name, each in inspect.signature(commands.fit).parameters.items() if name != "data"}
    opened = {field.name: field.default for name in BUNDLES for field in fields(BUNDLES[name])}
    return {name: value for name, value in {**asked, **opened}.items() if name not in BUNDLES}


def row_of(name: str) -> list[str]:
    return ROWS[f"`--{name.replace('_', '-')}`"]


@pytest.mark.parametrize("name", sorted(name for name, value in defaults().items() if value is not None))
def test_every_option_with_a_default_is_on_the_page(name: str) -> None:
    value, shown = defaults()[name], row_of(name)[1]
    if isinstance(value, bool):
        assert shown.startswith("on" if value else "off")
    elif isinstance(value, float):
        assert float(re.findall(r"[\d.]+(?:e-\d+)?", shown)[0]) == value
    elif isinstance(value, int):
        assert str(value) in shown
    else:
        spelled = value or '""'
        assert f"`{spelled}`" in shown


def test_every_option_whose_help_says_what_is_usual_is_on_the_page() -> None:
    docs = [inspect.getdoc(each) or "" for each in (commands.fit, *BUNDLES.values())]
    described = {
        match[1]: match[2]
        for text in docs
        for match in re.finditer(r"^    (\w+): (.*(?:\n        .*)*)", text, re.MULTILINE)
    }
    assert len(described) > 40
    usual = {name for name, text in described.items() if "default" in text} - {*BUNDLES, "data"}
    assert {"epochs", "warmup", "cross", "layers", "out", "columns"} <= usual
    for name in usual:
        assert len(row_of(name)[1]) > 2


def test_the_page_has_no_option_that_fit_lacks() -> None:
    named = {name.strip("`-").replace("-", "_") for name in ROWS if name.startswith("`--")}
    assert named <= {*defaults()}


def test_every_row_says_what_chose_it() -> None:
    entries = (ROOT / "LOG.md").read_text(encoding="utf-8")
    for name, row in ROWS.items():
        assert len(row) == 4
        for date, question in re.findall(r'(20\d\d-\d\d-\d\d), "([^"]+)"', row[3]):
            assert re.search(rf"^## {date}  {re.escape(question)}", entries, re.MULTILINE), (name, question)
        for link in re.findall(r"\]\(([^)]+)\)", row[3]):
            assert (ROOT / "docs" / link).exists(), link


def test_values_without_an_option_are_those_of_the_code() -> None:
    share = LocalScores()
    assert f"share`: {share.share_of(127):g} of".replace("0.", ".") in PAGE
    assert f"{share.share_of(128):g} from there on".replace("0.", ".") in PAGE
    assert f"`LocalScores(neighbours={share.neighbours}, nearest={share.nearest})`" in PAGE
    assert f"{conformal.FOLDS} folds where" in PAGE
    # 200 samples are held out of 2,000, and no cross-fitting is needed from there on.
    assert [conformal.usual_folds(n, 0.05) for n in (1_990, 2_000)] == [conformal.FOLDS, 0]
    assert drift.LEVEL == 0.05
    assert score_maps.SMOOTHING == 0.009
    assert f"`auto`: {modality.ROW.detector} for rows" in PAGE
    assert {each.detector for each in (modality.IMAGE, modality.SPECTRUM)} == {"autoencoder"}
    assert f"`auto`: {modality.FEATURE_MAP.detector} for images that a backbone reads" in PAGE
    assert [Training().epochs_for(n) for n in (10, 256 * 60, 170_000, 1_000_000, 10_000_000)] == [300, 30, 30, 5, 3]

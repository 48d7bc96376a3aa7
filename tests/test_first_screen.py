"""The tables of README and docs/theory.md are those of the rows, formed by another road than docs/first_screen.py."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
BLOCK = (ROOT / "README.md").read_text(encoding="utf-8").split("<!-- defaults:begin -->")[1].split("<!-- defaults:")[0]
CELLS = {
    row[0]: [[float(number) for number in re.findall(r"\d\.\d{3}", cell)] for cell in row[1:]]
    for line in BLOCK.splitlines()
    if line.startswith("|") and (row := [cell.strip() for cell in line.strip("|").split("|")])
}
PEERS = ("plain", "kNN", "LOF", "isolation forest")
# What the long-tail suite trains on without options: networks on pictures, neighbours on features.
PICTURES = ("mnist", "fashion-mnist", "cifar10-raw")


def by_table(hidden: bool) -> pd.DataFrame:
    """Means over draws: a row for each table, a column for each figure and method."""
    rows = pd.read_json(RESULTS / "defaults.jsonl", lines=True).query("task == 'fit'")
    chosen = rows[(rows["hidden"] > 0) == hidden].replace({"method": {"default": "tailwise fit"}})
    return chosen.pivot_table(index="table", columns="method", values=["auroc", "aupr"])


def by_source() -> pd.DataFrame:
    rows = pd.read_json(RESULTS / "long-tail.jsonl", lines=True)
    rows = rows[(rows["imbalance"].astype(str) == "100") & (rows["contamination"] == 0) & (rows["status"] == "ok")]
    rows = rows[rows["part"] == "confirmation"].join(pd.json_normalize(rows["metrics"]).set_index(rows.index))
    # Of a method that was measured with several settings the newest ones count.
    settings = pd.json_normalize(rows["settings"]).set_index(rows.index)
    rows["spelled"] = settings.filter(["weighting", "scores", "suspects"]).fillna("").astype(str).agg(" ".join, axis=1)
    newest = rows.groupby(["source", "detector", "weighting", "scores"])["spelled"].transform("last")
    rows = rows[rows["spelled"] == newest]
    usual = np.where(rows["source"].isin(PICTURES), "autoencoder", "nearest-neighbours")
    way = rows["weighting"] + " " + rows["scores"]
    named = np.where(way == "auto auto", "tailwise fit", np.where(way == "uniform own", "plain", ""))
    rows = rows.assign(method=np.where(rows["detector"] == usual, named, rows["detector"]))
    default = rows.loc[rows["method"] == "tailwise fit", ["source", "draw"]]
    rows = rows.merge(default, on=["source", "draw"])
    return rows[rows["method"].isin(["tailwise fit", *PEERS])].pivot_table(
        index="source", columns="method", values=["auroc", "aupr"]
    )


THINGS = {0: by_source, 1: lambda: by_table(False), 2: lambda: by_table(True)}


@pytest.mark.parametrize("thing", THINGS)
def test_the_table_of_the_readme_is_that_of_the_rows(thing: int) -> None:
    means = THINGS[thing]()
    for name in ("tailwise fit", *PEERS):
        shown = CELLS[name][thing]
        if shown:
            expected = [means[figure, name].mean() for figure in ("auroc", "aupr")]
            assert shown == pytest.approx(expected, abs=5.1e-4)
        else:
            assert (thing, name) == (0, "isolation forest")


@pytest.mark.parametrize("thing", THINGS)
@pytest.mark.parametrize("figure", ["auroc", "aupr"])
def test_no_peer_is_better_by_more_than_the_interval(thing: int, figure: str) -> None:
    of_set = THINGS[thing]()[figure]
    for name in of_set.columns.drop("tailwise fit"):
        less = of_set[name] - of_set["tailwise fit"]
        assert less.mean() - 1.96 * less.sem() <= 0, name
    assert "Nothing is better than `tailwise fit` without options" in BLOCK


def test_the_table_of_the_theory_is_that_of_the_rows() -> None:
    """nearest-neighbours, whose four figures are means over sources of means of pairs."""
    rows = pd.read_json(RESULTS / "long-tail.jsonl", lines=True)
    rows = rows[(rows["status"] == "ok") & (rows["part"] == "confirmation") & (rows["contamination"] == 0)]
    rows = rows[(rows["imbalance"].astype(str) != "1") & (rows["detector"] == "nearest-neighbours")]
    rows = rows[rows["groups"].str.len() > 0]
    settings = pd.json_normalize(rows["settings"]).set_index(rows.index)
    rows = rows.join(pd.json_normalize(rows["metrics"]).set_index(rows.index))
    rows["spelled"] = settings["weighting"] + settings["scores"]
    rows["way"] = rows["weighting"] + " " + rows["scores"]
    newest = rows.groupby(["source", "way"])["spelled"].transform("last")
    rows = rows[rows["spelled"] == newest]
    text = (ROOT / "docs" / "theory.md").read_text(encoding="utf-8")
    (line,) = re.findall(r"^\| nearest-neighbours \| (.*) \|$", text, re.MULTILINE)
    shown = [float(cell.split()[0]) for cell in line.split(" | ")]
    for place, (way, figure) in enumerate(
        (way, figure) for way in ("auto own", "uniform auto") for figure in ("aupr", "auroc_rarest")
    ):
        values = rows.pivot_table(index=["source", "draw"], columns="way", values=figure)
        less = (values[way] - values["uniform own"]).dropna()
        assert shown[place] == pytest.approx(less.groupby("source").mean().mean(), abs=5.1e-4)

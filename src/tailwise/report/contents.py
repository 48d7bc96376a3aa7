"""What a report is made of: sections that are declared, each in its own file of `sections`, and their figures."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pandas as pd

from ..runs.table import with_finite_scores


@dataclass(frozen=True, eq=False)
class Tables:
    """What the sections of a report are made from.

    Attributes:
        settings: how the run was made; `samples` names what is scored, `weighting` is its spelling ("" is uniform).
        train: `sample`, `score`, `trained_score` (of the detector alone), `first_score` (before any weighing),
            `weight`, `held_out`, `cluster` (-1 is none) and, where kinds are known, `group`.
        test: `sample`, `score`, `label` (True is an anomaly, missing is unknown) and, where kinds are known, `group`.
        threshold: samples that score above it are rejected.
        false_alarms: the share of normals that the threshold was meant to reject.
        history: a row an epoch with `epoch`, `loss`, `score_mean`, `effective_sample_share`, `seconds`.
        checks: `name`, `ok`, `value` and `message` of each self-check.
        data_checks: what `data_checks.of_problem` says of the data.
        notes: sentences for the reader.
        thumbnails: data URI of a picture by sample name; `selection.samples_to_show` lists those that are used.
        examples: a line of text by sample name, for samples without a picture.
        copies: how many test samples equal a training one. They are left out of `test` and `pixels`, unless all do.
        pixels: what `labelled_results.pixel_results` says of the test samples' maps.
        gallery: what `gallery.of_run` has drawn.
    """

    settings: Mapping[str, Any]
    train: pd.DataFrame
    test: pd.DataFrame | None
    threshold: float
    false_alarms: float
    history: Sequence[Mapping[str, Any]] = ()
    checks: Sequence[Mapping[str, Any]] = ()
    data_checks: Sequence[Mapping[str, Any]] = ()
    notes: Sequence[str] = ()
    thumbnails: Mapping[str, str] = field(default_factory=dict)
    examples: Mapping[str, str] = field(default_factory=dict)
    copies: int = 0
    pixels: Mapping[str, Any] | None = None
    gallery: Mapping[str, Any] | None = None

    def finite(self) -> Tables:
        """The tables without samples that have no finite score, and a note of how many training samples those are."""
        train, dropped = with_finite_scores(self.train)
        note = [f"{dropped} samples have no finite score and are left out"] if dropped else []
        test = None if self.test is None else with_finite_scores(self.test)[0]
        return replace(self, train=train, test=test, notes=[*self.notes, *note])


# What a figure says in words, and what draws it on axes.
Drawing = tuple[str, Callable[[Any], Any]]
Section = Callable[[Tables], Mapping[str, Any]]
Figures = Callable[[Mapping[str, Any]], Mapping[str, Drawing]]
_sections: dict[str, Section] = {}
_figures: dict[str, Figures] = {}


def section(function: Section) -> Section:
    """Declare a section: what it returns becomes part of the summary, under keys that no other section has.

    The tables have finite scores only. Values are plain: numbers, text, None, and lists and dicts of these.
    """
    _sections[f"{function.__module__}.{function.__name__}"] = function
    return function


def figures(function: Figures) -> Figures:
    """Declare the figures of a section: from the summary to drawings by name, those that there is something for."""
    _figures[f"{function.__module__}.{function.__name__}"] = function
    return function


def made_from(tables: Tables) -> dict[str, Any]:
    """What every declared section says of the tables, by key."""
    summary: dict[str, Any] = {}
    for name, make in _declared(_sections):
        made = make(tables)
        if twice := summary.keys() & made.keys():
            raise ValueError(f"two sections of the report say {min(twice)!r}: the second is {name}")
        summary |= made
    return summary


def drawings(summary: Mapping[str, Any]) -> dict[str, Drawing]:
    """Every declared figure of a summary, by name."""
    return {name: drawing for _, draw in _declared(_figures) for name, drawing in draw(summary).items()}


def _declared(members: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    home = importlib.import_module(f"{__package__}.sections")
    for module in pkgutil.iter_modules(home.__path__):
        importlib.import_module(f"{home.__name__}.{module.name}")
    return iter(sorted(members.items()))

"""Suites: which data, methods and draws are compared, as written in a TOML file.

A suite names sources, detectors, weightings and scores by their spellings, and combines them in grids. A cell is
one method on one draw of one source. Development draws are for choosing defaults, confirmation draws for reporting
them; a suite keeps their seeds apart and every row says which it belongs to.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from itertools import product
from pathlib import Path
from typing import Any

from ..core import registry
from ..errors import InputError, did_you_mean, reading
from ..runs.file_names import check_name
from ..runs.files import regular_file
from ..training import cleaning
from ..training.local_scores import parse
from ..training.options import Training
from ..weights.default import AUTO, AUTO_SPECTRA, parse_weighting

PARTS = ("development", "confirmation")
ORACLE = "oracle"
YARDSTICKS = ("LOF", "isolation forest", "kNN", "normalised kNN", "per-group kNN")
AS_GIVEN = "as given"
_SPLITS = ("groups", "halves", "scene")


@dataclass(frozen=True)
class SourceSettings:
    """A suite's source: where the samples come from, and how a draw is made of them.

    Attributes:
        source: spelling of the source; {group} or {scene} in it stand for each of `groups` or for one of `scenes`.
        groups: read once for each and pooled; the kind of a sample is the reading that it came from.
        scenes: a draw takes one of them, by its seed.
        split: "groups" draws normal kinds and thins them to a long tail, "halves" trains on the normal pixels of one
            half of a cube and tests on the other, "scene" trains and tests on all pixels, anomalies inside.
        normals: how many kinds are normal, drawn; None is all. In a source without labels the others are anomalies.
        order: the normal kinds, frequent first, instead of a drawn order.
        largest: samples of the most frequent kind, fewer where the kinds at hand do not allow so many.
        test: the most test samples of a normal kind; no more than three tenths of the kind are taken.
        anomalies: the most anomalies in the test.
        flatten: samples are handed over as rows.
        features: images become pooled features of this backbone, kept in the cache; "" leaves them.
        size: images are resized to size x size before the backbone; None leaves them.
        draws: how many draws, whatever the profile says; None follows the profile.
    """

    source: str
    groups: tuple[str, ...] = ()
    scenes: tuple[str, ...] = ()
    split: str = "groups"
    normals: int | None = None
    order: tuple[str, ...] = ()
    largest: int = 2_000
    test: int = 200
    anomalies: int = 1_000
    flatten: bool = False
    features: str = ""
    size: int | None = None
    draws: int | None = None

    def __post_init__(self) -> None:
        if self.split not in _SPLITS:
            raise InputError(f"split {self.split!r} is not known", did_you_mean(self.split, _SPLITS))
        for name in ("groups", "scenes", "order"):
            object.__setattr__(self, name, tuple(getattr(self, name)))


@dataclass(frozen=True)
class Grid:
    """Everything in it is combined with everything else; `yardsticks` adds the reference methods to each draw.

    `draws` is the most draws of each source, whatever the profile says; None follows the profile.
    """

    name: str
    sources: tuple[str, ...]
    detectors: tuple[str, ...]
    weightings: tuple[str, ...] = ("uniform",)
    scores: tuple[str, ...] = ("own",)
    refinements: tuple[str, ...] = ("",)
    imbalances: tuple[float | str, ...] = (AS_GIVEN,)
    contaminations: tuple[float, ...] = (0.0,)
    draws: int | None = None
    yardsticks: bool = True

    def __post_init__(self) -> None:
        for each in fields(self):
            if isinstance(getattr(self, each.name), list):
                object.__setattr__(self, each.name, tuple(getattr(self, each.name)))


@dataclass(frozen=True)
class Profile:
    """How much of a suite is run: the first `draws` of each source, in these grids; () is all of them."""

    draws: int
    grids: tuple[str, ...] = ()


@dataclass(frozen=True)
class Conditions:
    """What every method of one draw shares."""

    source: str
    part: str
    draw: int
    imbalance: float | str
    contamination: float


@dataclass(frozen=True)
class Method:
    """What is compared. A yardstick has no weighting, no local scores and no refinement."""

    detector: str
    weighting: str = ""
    scores: str = "own"
    refinement: str = ""

    @property
    def is_yardstick(self) -> bool:
        return self.detector in YARDSTICKS

    @property
    def is_default(self) -> bool:
        """Whether it is what `tailwise fit` does with this detector where nothing else is asked for."""
        return self.weighting == self.scores == "auto" and not self.refinement


@dataclass(frozen=True)
class Suite:
    """A suite file.

    Attributes:
        name: names the file of its rows, and its page.
        detectors: spellings, by the names that grids and tables use; a name that is not here is the registry's own.
        calibration: share of the training samples held out for a threshold, 0 for none.
        training: how every detector is trained.
        labelled: how many anomalies, in neither training nor test, a detector that needs labels is told.
        per_cluster: whether local scores also get a threshold that should hold for every cluster.
        reported: whether its rows are worth a page; those of a mere check stay out of results/.
    """

    name: str
    draws: Mapping[str, tuple[int, ...]]
    sources: Mapping[str, SourceSettings]
    weightings: Mapping[str, str]
    grids: tuple[Grid, ...]
    profiles: Mapping[str, Profile]
    detectors: Mapping[str, str] = field(default_factory=dict)
    calibration: float = 0.0
    training: Training = Training()  # noqa: RUF009 (a frozen value)
    labelled: int = 0
    per_cluster: bool = False
    reported: bool = True

    def cells(self, profile: str, part: str) -> dict[Conditions, list[Method]]:
        """Every cell once: the methods of each draw, draws of one source side by side.

        Raises:
            InputError: no such profile or part.
        """
        _among(profile, self.profiles, "profile")
        _among(part, self.draws, "part")
        chosen = self.profiles[profile]
        grids = [grid for grid in self.grids if not chosen.grids or grid.name in chosen.grids]
        cells: dict[Conditions, dict[Method, None]] = {}
        for source in self.sources:
            count = self.sources[source].draws or chosen.draws
            for grid in grids:
                most = min(count, grid.draws or count)
                for draw in self.draws[part][:most] if source in grid.sources else ():
                    for imbalance, contamination in product(grid.imbalances, grid.contaminations):
                        conditions = Conditions(source, part, draw, imbalance, contamination)
                        cells.setdefault(conditions, {}).update(dict.fromkeys(_methods(grid)))
        return {conditions: list(methods) for conditions, methods in cells.items()}

    def settings(self, conditions: Conditions, method: Method) -> dict[str, Any]:
        """All that decides a cell's result, but the code: two cells with the same settings are the same cell.

        Names are spelled out, so that a default that has changed since makes a new cell.
        """
        source = {k: v for k, v in asdict(self.sources[conditions.source]).items() if k != "draws"}
        spelled = {
            "detector": self.detector_spelled(method.detector),
            "weighting": self.weighting_spelled(method.weighting, spectra=source["split"] != "groups"),
            "scores": scores_spelled(method.scores),
        }
        common: dict[str, Any] = {"calibration": self.calibration, "fit": self.training.changed()}
        common |= {"per_cluster": True} if self.per_cluster else {}
        if method.is_default and source["split"] == "groups":
            spelled["weighting"], common["suspects"] = "", "left out"
        # Only what is used, so that cells of suites without it stay the cells that they were.
        common |= {"labelled": self.labelled} if self.labelled else {}
        common |= {"refinement": refinement_spelled(method.refinement)} if method.refinement else {}
        return json.loads(json.dumps({**asdict(conditions), "source": source, **spelled, **common}))

    def detector_spelled(self, name: str) -> str:
        """The detector that a name of the suite stands for; a yardstick is itself."""
        if name in YARDSTICKS:
            return name
        text = self.detectors.get(name, name)
        return _or_itself(lambda: ", ".join(map(repr, registry.parse(text, ("detector",)))), text)

    def weighting_text(self, name: str) -> str:
        """What a name of the suite stands for: steps, "auto", "oracle", or "" for uniform."""
        return self.weightings.get(name, "") if name else ""

    def weighting_spelled(self, name: str, spectra: bool = False) -> str:
        """The same with its steps spelled out, as "auto" is for these samples."""
        text = self.weighting_text(name)
        if text == "auto":
            return repr(AUTO_SPECTRA if spectra else AUTO)
        return text if text == ORACLE else _or_itself(lambda: repr(parse_weighting(text)), text)


def scores_spelled(text: str) -> str:
    """The spelling of local scores; the text itself where this version has none."""
    return "own" if text == "own" else _or_itself(lambda: repr(parse(text)), text)


def refinement_spelled(text: str) -> str:
    """The refinement's own spelling; the text itself where this version has none."""
    return _or_itself(lambda: repr(cleaning.parse(text)), text)


def read_suite(path: Path) -> Suite:
    """The suite in a TOML file.

    Raises:
        InputError: it cannot be read, names what it does not define, or its name cannot be a file's.
    """
    with reading(f"the suite {path}", "benchmarks/suites/smoke.toml is one"):
        content = tomllib.loads(regular_file(path).read_text(encoding="utf-8"))
    try:
        suite = Suite(
            name=check_name(content.pop("name", path.stem), "a suite"),
            draws={part: tuple(seeds) for part, seeds in content.pop("draws").items()},
            sources={name: SourceSettings(**table) for name, table in content.pop("sources").items()},
            weightings={"uniform": "", **content.pop("weightings", {})},
            grids=tuple(Grid(**table) for table in content.pop("grids")),
            profiles={n: Profile(t["draws"], tuple(t.get("grids", ()))) for n, t in content.pop("profiles").items()},
            training=Training(**content.pop("training", {})),
            **content,
        )
        _check(suite)
    except InputError as error:
        raise InputError(f"the suite {path}: {error.message}", error.hint) from error
    except (TypeError, KeyError, AttributeError) as error:
        raise InputError(
            f"the suite {path} lacks or misspells a setting: {error}", "benchmarks/suites/smoke.toml has every kind"
        ) from error
    return suite


def _check(suite: Suite) -> None:
    for part in suite.draws:
        _among(part, PARTS, "part of the draws")
    if shared := set.intersection(*(set(suite.draws.get(part, ())) for part in PARTS)):
        raise InputError(f"the seed {min(shared)} is both a development and a confirmation draw")
    for grid in suite.grids:
        for source in grid.sources:
            _among(source, suite.sources, "source of the suite")
        for weighting in grid.weightings:
            _among(weighting, suite.weightings, "weighting of the suite")
    for profile in suite.profiles.values():
        for name in profile.grids:
            _among(name, [grid.name for grid in suite.grids], "grid of the suite")


def _methods(grid: Grid) -> Iterator[Method]:
    yield from (Method(*names) for names in product(grid.detectors, grid.weightings, grid.scores, grid.refinements))
    if grid.yardsticks:
        yield from map(Method, YARDSTICKS)


def _among(name: str, names: Any, group: str) -> None:
    if name not in names:
        raise InputError(f"no {group} is called {name!r}", did_you_mean(name, names))


def _or_itself(spell: Any, text: str) -> str:
    """A spelling that cannot be read is kept as it is: its cells then say why they failed."""
    try:
        return spell()
    except InputError:
        return text

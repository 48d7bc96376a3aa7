"""The settings of a run, typed: what was asked for, what data it was fitted on, what the fit made, what the file is.

settings.json holds them flat. Whoever writes a file can also seal it, so every field is looked at when it is read.
"""

from __future__ import annotations

import functools
import hashlib
import json
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, TypedDict, Union

from ..calibration.score_maps import SMOOTHING
from ..core.bounds import Chance, Count, CountFromZero, Share
from ..errors import InputError
from ..training.options import Training
from .files import RESTORE, SETTINGS, read_json
from .plain_json import plain

FORMAT = 1


class CheckRow(TypedDict):
    """As `training.checks.Check`."""

    name: str
    ok: bool
    value: float | None
    message: str


class ThresholdRow(TypedDict):
    """As a row of `Calibration.table`."""

    kind: str
    normals: int
    false_alarms: float
    threshold: float
    promised: float
    low: float
    high: float
    reachable: float
    guaranteed: bool


class ShareRow(TypedDict):
    """As a row of `group_gate.shares`."""

    name: str
    count: int
    of: int
    share: float | None
    low: float
    high: float


class LimitRow(TypedDict):
    """As `group_gate.check_group_fpr` gives."""

    limit: float
    kinds: tuple[ShareRow, ...]
    test: tuple[ShareRow, ...]
    broken: tuple[str, ...]
    too_few: tuple[str, ...]


class UpdateRow(TypedDict):
    """Normals that were added."""

    source: str
    samples: int


class KindRow(TypedDict):
    """A kind of the target of an adaptation: how many of its samples the old run flags, and the new one."""

    name: str
    size: int
    before: int
    after: int


class AdaptationRow(TypedDict):
    """An adaptation to other data: of which run, by what spelling, whether it changed the detector and why, what its
    threshold promises in a sentence, figures by name, and the target's kinds, all samples first."""

    run: str
    source: str
    samples: int
    method: str
    adapted: bool
    reason: str
    promise: str
    drift: str
    figures: dict[str, float]
    kinds: tuple[KindRow, ...]


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What was asked for beside how to train; see `commands.fit`. A resumed fit asks for the same, `command` apart."""

    false_alarms: Chance = 0.05
    balance: bool = False
    per_cluster: bool = False
    per_group: bool = False
    cross: CountFromZero | None = None
    max_group_fpr: Chance | None = None
    refine: str = ""
    keep_suspects: bool = False
    whole_groups: bool = False
    anomalies: str = ""
    reviewed: str = ""
    smoothing: Share = SMOOTHING
    no_report: bool = False
    no_clusters: bool = False
    seed: CountFromZero = 0
    command: str = ""


@dataclass(frozen=True, kw_only=True)
class Described:
    """What was fitted on what: spellings of source, detector, weighting and scores, and facts of the data.

    `modality` says what a sample is, `centre` what is taken off each before the detector reads it; `fingerprint` and
    `test_fingerprint` are digests of the training and test samples.
    """

    created: str = ""
    source: str
    detector: str
    weighting: str = ""
    scores: str
    samples: str = "samples"
    licence: str = ""
    citation: str = ""
    notes: tuple[str, ...] = ()
    modality: str
    sample_shape: tuple[Count, ...]
    features: tuple[str, ...] = ()
    centre: tuple[float, ...] | None = None
    fingerprint: str | None = None
    test_fingerprint: str | None = None
    versions: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Made:
    """What the fit came to.

    `threshold` is of all samples, `thresholds` the rows of `Calibration.table`; `map_usual` and `map_threshold` are
    of pixels, None where the detector has no maps; `rounds` are of a refinement, `updates` the normals added since,
    `adaptations` what it was adapted to, in their order;
    `group_fpr` is what `group_gate.check_group_fpr` says; `detector_reason` is why "auto" chose the detector, "" where
    it did not; `unlabelled` is why the data looks unlabelled, "" where nothing says so.
    """

    checks: tuple[CheckRow, ...]
    n_train: CountFromZero = 0
    n_held_out: CountFromZero = 0
    n_suspects: CountFromZero = 0
    rounds: tuple[dict[str, str | float], ...] = ()
    threshold: float
    thresholds: tuple[ThresholdRow, ...] = ()
    map_usual: float | None = None
    map_threshold: float | None = None
    seconds: float | None = None
    group_fpr: LimitRow | None = None
    detector_reason: str = ""
    unlabelled: str = ""
    updates: tuple[UpdateRow, ...] = ()
    adaptations: tuple[AdaptationRow, ...] = ()


@dataclass(frozen=True, kw_only=True)
class OfTheFile:
    """What the file says of itself and of those beside it: SHA-256 `digests` by name; `home`, the run's folder when it
    was made, and the `places` of its data then, by what the source calls them (see `places`)."""

    format: int = FORMAT
    status: str = "complete"
    digests: dict[str, str] = field(default_factory=dict)
    home: str = ""
    places: dict[str, str] = field(default_factory=dict)
    seal: str = ""


# Fields come in the order of the file: from the last of these to the first.
@dataclass(frozen=True, kw_only=True)
class Settings(OfTheFile, Made, Described, Training, Asked):
    """Everything that a finished run says of itself."""

    @property
    def n_samples(self) -> int:
        """How many samples the data held: those that trained, were held out, or were left out as suspects."""
        return self.n_train + self.n_held_out + self.n_suspects

    @classmethod
    def of(cls, values: Mapping[str, Any], where: str) -> Settings:
        """Settings from what a file holds; fields that this version does not know are left out.

        Raises:
            InputError: fields are missing or not of their type; `where` and the fields are named.
        """
        wrong = sorted(
            each.name
            for each in fields(cls)
            if (_needed(each) and each.name not in values)
            or (each.name in values and not _fits(values[each.name], _types()[each.name]))
        )
        if wrong:
            raise InputError(f"{where} lacks a usable {', '.join(wrong)}", RESTORE)
        known = [each.name for each in fields(cls) if each.name in values]
        given: dict[str, Any] = {
            name: tuple(values[name]) if isinstance(values[name], list) else values[name] for name in known
        }
        try:
            return cls(**given)
        except InputError as error:
            raise InputError(f"{where}: {error.message}", RESTORE) from error

    def as_dict(self) -> dict[str, Any]:
        """As a report and settings.json hold them, less what describes the file; parts that a fit may lack are left
        out where it lacks them."""
        own = {each.name for each in fields(OfTheFile)}
        values = {each.name: getattr(self, each.name) for each in fields(self) if each.name not in own}
        lacking = {name for name in _MAY_LACK if values[name] in (None, ())}
        return plain({name: value for name, value in values.items() if name not in lacking})

    @property
    def wrappers(self) -> list[str]:
        """Spellings of the adaptations that changed the detector, the first innermost."""
        return [row["method"] for row in self.adaptations if row["adapted"]]

    @property
    def failed_checks(self) -> list[str]:
        """Names of the self-checks that failed."""
        return [check["name"] for check in self.checks if not check["ok"]]

    @property
    def has_own_thresholds(self) -> bool:
        """Whether clusters or groups have thresholds of their own."""
        return self.per_cluster or self.per_group


_MAY_LACK = ("map_usual", "map_threshold", "updates", "adaptations")


def read_settings(path: Path) -> dict[str, Any]:
    """What settings.json of a finished or unfinished run holds, checked for version, seal and status.

    Raises:
        InputError: it is not such a file, a newer version made it, or it was changed by hand.
    """
    settings = read_json(path / SETTINGS)
    if not isinstance(settings, dict) or type(settings.get("format")) is not int or settings["format"] < 1:
        raise InputError(f"{path / SETTINGS} is not the settings of a run", "fit again")
    if settings["format"] > FORMAT:
        versions = settings.get("versions")
        made = versions.get("tailwise", "?") if isinstance(versions, dict) else "?"
        raise InputError(
            f"{path} was made by tailwise {made} (run format {settings['format']}, this one reads up to {FORMAT})",
            "upgrade tailwise",
        )
    if settings.get("seal") != seal(settings):
        raise InputError(f"{path / SETTINGS} was changed after the fit", RESTORE)
    if not isinstance(settings.get("status"), str):
        raise InputError(f"{path / SETTINGS} lacks a usable status", RESTORE)
    return settings


def seal(settings: Mapping[str, Any]) -> str:
    """A digest of everything in the settings but the seal itself."""
    return digest({k: v for k, v in settings.items() if k != "seal"})


def digest(value: Mapping[str, Any]) -> str:
    """SHA-256 of what JSON makes of the value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _needed(each: Any) -> bool:
    return each.default is MISSING and each.default_factory is MISSING


@functools.cache
def _types() -> dict[str, Any]:
    return typing.get_type_hints(Settings)


def _fits(value: Any, declared: Any) -> bool:
    """Whether what JSON holds is of the declared type; a whole number is a float too, and a list a tuple."""
    origin, parts = typing.get_origin(declared), typing.get_args(declared)
    if declared is Any:
        return True
    if typing.is_typeddict(declared):
        parts_of = typing.get_type_hints(declared)
        return isinstance(value, dict) and all(
            name in value and _fits(value[name], part) for name, part in parts_of.items()
        )
    if origin in (Union, types.UnionType):
        return any(_fits(value, part) for part in parts)
    if origin is Literal:
        return value in parts
    if origin is tuple:
        return isinstance(value, (list, tuple)) and all(_fits(item, parts[0]) for item in value)
    if origin is dict:
        return isinstance(value, dict) and all(isinstance(k, str) and _fits(v, parts[1]) for k, v in value.items())
    return _PLAIN_TYPES[declared](value)


_LARGEST = 1e300
_PLAIN_TYPES: dict[Any, Callable[[Any], bool]] = {
    bool: lambda value: isinstance(value, bool),
    int: lambda value: isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 63,
    # Compared, because a whole number of JSON may be larger than any float; NaN is below nothing.
    float: lambda value: isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < _LARGEST,
    str: lambda value: isinstance(value, str),
    type(None): lambda value: value is None,
}

"""A run opened once: detector with local scores, calibration, clusters, thresholds and the scale of its maps.

Whatever scores with a run does it here: `score`, `explain`, `drift`, `export`, `update`. A file of the run is read when
it is first needed, and never again.
"""

from __future__ import annotations

import functools
import json
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ..calibration import conformal, score_maps
from ..calibration.by_kind import ALL, Calibration
from ..calibration.clusters import Clusters, names_of
from ..core import inference, messages
from ..core.data import Data
from ..core.detector import Detector
from ..core.modality import ROW, SPECTRUM, Modality, find
from ..core.problem import Labelled, ReadByBackbone, SkipsBad, Source
from ..core.registry import parse
from ..core.validation import check_samples, check_scoring
from ..errors import InputError, reading
from ..sources.arrays import array_like
from ..sources.auto import open_source, spelled
from ..sources.image_samples import backbones
from ..sources.paths import regular_file
from ..sources.table import Table
from ..sources.wavelengths import check_wavelengths, wavelengths_of
from ..training import adapt, local_scores
from . import display, fingerprint, places
from .exchange import settle
from .files import (
    BACKBONE,
    CLUSTERS,
    FILES,
    FINGERPRINT,
    HISTORY,
    MODEL,
    REPORT_DATA,
    RESTORE,
    SCORES,
    SETTINGS,
    TEST_SCORES,
    file_digest,
    read_json,
    read_tensors,
)  # fmt: skip
from .fingerprint import TOLERANCE, Fingerprint
from .settings import Settings, read_settings
from .table import check_table, check_test_table, group_column, of_table

T = TypeVar("T")


def _once(read: Callable[[Run], T]) -> Callable[[Run], T]:
    """A method whose answer is kept, so that no file is read twice; nobody changes what it gives."""
    name = f"_{read.__name__}"

    @functools.wraps(read)
    def answer(run: Run) -> T:
        if name not in vars(run):
            setattr(run, name, read(run))
        result: T = getattr(run, name)
        return result

    return answer


class Run:
    """A finished run, open for scoring and reading.

    Attributes:
        path: its folder.
        settings: what was asked for, and what the fit came to.
    """

    def __init__(self, path: Path, settings: Settings) -> None:
        self.path = path
        self.settings = settings

    def __repr__(self) -> str:
        return f"<Run {self.path}: {display.sentence(self.settings)}>"

    def _repr_html_(self) -> str:
        return display.html(str(self.path), self.settings, self.scores())

    def outcome(self) -> dict[str, Any]:
        """What the fit came to, as `tailwise fit --json` prints it: what trained, the threshold with what it promises,
        what to look at, and what to do next."""
        return display.outcome(str(self.path), self.settings, self.scores())

    def score(
        self,
        data: Any,
        *,
        threshold: float | None = None,
        false_discoveries: float | None = None,
        skip_bad: bool = False,
        batch_size: int | None = None,
        device: str = "cpu",
    ) -> pd.DataFrame:
        """A row for each sample of new data, as `tailwise score` writes it.

        Args:
            data: an array or tensor [n, *sample], a DataFrame with the run's columns, a path, a source or its spelling.
            threshold: flag above this score instead of the run's thresholds.
            false_discoveries: flag so that at most this share of the flagged samples is normal.
            skip_bad: skip unreadable images instead of refusing them.
            batch_size: samples scored at once; scores change by rounding only.
            device: "cpu", "cuda" or "mps".

        Returns:
            A DataFrame with `sample`, `score` (higher is more anomalous), `threshold`, `flagged`, `p_value` (the chance
            that a normal scores at least as high), `standardised` (above 3.0 lies .00135 of normals), `cluster` (the
            cluster it is most like) and, where thresholds are of clusters or groups, `held_to`.

        Raises:
            InputError: the samples are not of the shape that the run was fitted on, or hold what is no finite number;
                or an option means nothing, such as a threshold that is no number.

        Examples:
            >>> import numpy as np, tailwise, tempfile
            >>> normals = np.random.default_rng(0).normal(size=(200, 3))
            >>> run = tailwise.fit(normals, detector="gaussian", out=tempfile.mkdtemp())
            >>> run.score([[0.0, 0.0, 0.0], [9.0, 9.0, 9.0]]).flagged.tolist()
            [False, True]
        """
        check_scoring(batch_size, threshold, false_discoveries)
        samples = self.samples(data, skip_bad)
        check_samples(samples.data, least=1)
        return self.table_of(samples, self.scores_of(samples.data, batch_size, device), threshold, false_discoveries)

    def scores_of(self, data: Data, batch_size: int | None = None, device: str = "cpu") -> np.ndarray:
        """Scores [n] of samples, float64."""
        check_scoring(batch_size)
        return inference.score(self.detector_on(device), data, batch_size).double().numpy()

    def table_of(
        self,
        samples: Labelled,
        scores: np.ndarray,
        threshold: float | None = None,
        false_discoveries: float | None = None,
    ) -> pd.DataFrame:
        """What the run says of scores [n] that it gave these samples; see `score`."""
        check_scoring(None, threshold, false_discoveries)
        calibration, kinds = self.calibration(), self._kinds_of(samples)
        limits = np.full(len(scores), self.settings.threshold if threshold is None else threshold)
        if threshold is None and kinds is not None:
            limits = calibration.thresholds_of(kinds, self.settings.false_alarms, len(scores))
        p = calibration.p_values(scores, kinds)
        flagged = scores > limits
        if false_discoveries is not None:
            flagged = self._discoveries(p, false_discoveries)
        columns: dict[str, Any] = {
            "sample": list(samples.data.names), "score": scores, "threshold": limits, "flagged": flagged,
            "p_value": p, "standardised": calibration.standardised(scores, kinds),
        }  # fmt: skip
        clusters = self.clusters()
        if clusters is not None:
            columns["cluster"] = names_of(clusters.of(samples.data))
        if kinds is not None:
            columns["held_to"] = self._held_to(kinds)
        return pd.DataFrame(columns)

    def _held_to(self, kinds: np.ndarray) -> np.ndarray:
        """Whose threshold [n] applies to samples of these kinds; a warning where it is not their group's."""
        if not self.settings.per_group:
            return kinds
        shown = held_to(kinds, self.calibration())
        warn_of_unseen(kinds[(shown == ALL) & (kinds != ALL)])
        return shown

    def _discoveries(self, p: np.ndarray, share: float) -> np.ndarray:
        """Which samples [n] of these p-values are flagged so that at most this share of them is normal."""
        flagged = conformal.benjamini_hochberg(p, share)
        normals = len(self.calibration().scores)
        needed = len(p) * conformal.reachable(normals) / share
        if not flagged.any() and needed > 1 and math.isfinite(needed):
            messages.note(
                f"nothing is flagged: at least {math.ceil(needed)} of {len(p)} samples would have to score above all "
                f"{normals} calibration normals; use more of these, or a smaller batch"
            )
        return flagged

    def _kinds_of(self, samples: Labelled) -> np.ndarray | None:
        """The cluster or group [n] that new samples are held to; None where the threshold is one for all."""
        if self.settings.per_cluster:
            return kinds_of(samples, self._closest())
        if not self.settings.per_group:
            return None
        if samples.groups is None:
            messages.warning(
                "the run has a threshold for each group, but this data names no groups: one threshold is used for all"
            )
        return kinds_of(samples, None)

    @_once
    def _closest(self) -> Clusters | None:
        clusters = self.clusters()
        return None if clusters is None else closest(clusters)

    def samples(self, data: Any, skip_bad: bool = False, on_demand: bool = False) -> Labelled:
        """Every sample of new data, read as the run's own data was, with what is known of it; those of a source that is
        `ReadOnDemand` when they are asked for, if they are to be read `on_demand`.

        Raises:
            InputError: they are not of the shape that the run was fitted on.
        """
        if isinstance(data, (str, Path)):
            return self.samples(self.source_like(str(data), skip_bad))
        if isinstance(data, pd.DataFrame):
            source = self.source()
            table = source if isinstance(source, Table) else Table("the frame", columns=self.settings.features)
            labelled, named = table.of_frame(data), "the frame"
        elif hasattr(data, "load_all"):
            labelled, named = data.load_on_demand() if on_demand else data.load_all(), repr(data)
        else:
            self.check_shape(tuple(np.shape(data)[1:]), self.modality, "the array")
            return Labelled(array_like(data, self.modality, self.settings.features, self.centre))
        samples = labelled.data
        self.check_shape(samples.sample_shape, samples.modality, named, samples.features)
        return replace(labelled, data=samples.about(self.centre))

    def check_shape(
        self, shape: tuple[int, ...], modality: Modality, named: str, features: tuple[str, ...] = ()
    ) -> None:
        """Raise an InputError unless samples of this shape and sort are such as the run was fitted on.

        Spectra whose features are wavelengths must also be of the run's.
        """
        expected = self.settings.sample_shape
        if shape != expected or modality != self.modality:
            raise InputError(
                f"the run was fitted on {self.modality.plural} of shape {list(expected)}: {named} has "
                f"{modality.plural} of shape {list(shape)}",
                "score data of the same kind: as many columns, channels or bands",
            )
        if modality == SPECTRUM:
            own, other = wavelengths_of(self.settings.features), wavelengths_of(features)
            check_wavelengths(own, other, "the run", named)

    @property
    def modality(self) -> Modality:
        """What a sample of the run is."""
        return find(self.settings.modality)

    @property
    def centre(self) -> Tensor | None:
        """[*sample]: what is taken off samples before the detector reads them."""
        centre = self.settings.centre
        return None if centre is None else torch.tensor(centre, dtype=torch.float64)

    def source_like(self, data: str, skip_bad: bool = False) -> Source:
        """The source of what is at `data`, read as the run's own data was."""
        source = self.source()
        if skip_bad and isinstance(source, SkipsBad):
            source = source.skipping_bad()
        return open_source(data) if spelled(data) else source.at(data)

    def table_at(self, path: str) -> Table:
        """A table, read as the run's own was, or by the run's features where that was none."""
        own = self.source()
        return own.at(path) if isinstance(own, Table) else Table(path, columns=self.settings.features)

    @property
    def number_marks(self) -> str:
        """The marks of numbers in the table that the run was fitted on; see `Table.number_marks`."""
        source = self.source()
        return source.number_marks if isinstance(source, Table) else ""

    @_once
    def source(self) -> Source:
        """Where the training data came from.

        Raises:
            InputError: its images are read by a file that is not the run's own, or by what is no plain name of a model.
        """
        source: Source = places.at_places(self._spelled("source"), self.places())
        if not isinstance(source, ReadByBackbone):
            return source
        if source.read == BACKBONE:
            return source.read_by(str(self._checked(BACKBONE)))
        backbones().check_name(source.read)
        return source

    def places(self) -> dict[str, str]:
        """Where the data that the fit named lies now, by what the source calls it; see `runs.places`."""
        return places.now(self.settings.places, self.settings.home, self.path)

    def backbone(self) -> bytes | None:
        """The ONNX file that reads the images, None where none was named for it."""
        return self._checked(BACKBONE).read_bytes() if BACKBONE in self.settings.digests else None

    @_once
    def detector(self) -> Detector:
        """The trained detector, with its local scores, ready to score."""
        path = self._checked(MODEL)
        stored = self.fingerprint()
        with reading(path, RESTORE):
            detector = local_scores.wrapped(self.untrained_detector(), self.settings.scores)
            detector = adapt.wrapped(detector, self.settings.wrappers)
            detector.restore(self.settings.sample_shape, read_tensors(path)[0], self.modality)
            detector = detector.eval()
            if stored is not None:
                self._compare(stored, detector)
            elif not detector.looks_around:
                fingerprint.of(detector, torch.zeros(1, *self.settings.sample_shape))  # what cannot score is told here
        return detector

    def detector_on(self, device: str) -> Detector:
        """The trained detector on "cpu", "cuda" or "mps"; it stays there."""
        detector = self.detector()
        if device != str(inference.device_of(detector)):
            inference.place(detector, device)
        return detector

    def untrained_detector(self) -> Detector:
        """A detector as the settings spell it, without what it learnt."""
        detector: Detector = self._spelled("detector")
        return detector

    def _spelled(self, kind: str) -> Any:
        with reading(self.path / SETTINGS, RESTORE):
            try:
                values = parse(getattr(self.settings, kind), (kind,))
            except InputError as error:
                if not error.message.startswith(f"no {kind} is called"):
                    raise
                raise InputError(
                    f"{self.path}: {error.message}",
                    f"import the module of this {kind} first; the command line imports those in TAILWISE_IMPORT",
                ) from error
            if len(values) != 1:
                raise InputError(f"{self.path / SETTINGS} spells {len(values)} {kind}s: one was needed", "fit again")
            return values[0]

    @_once
    def fingerprint(self) -> Fingerprint | None:
        """Samples with the scores that the fit gave them; None in a run of an earlier version or of scenes."""
        if FINGERPRINT not in self.settings.digests:
            return None
        path = self._checked(FINGERPRINT)
        with reading(path, RESTORE):
            stored = fingerprint.read(path, self.modality)
            if tuple(stored.samples.shape[1:]) != self.settings.sample_shape or not stored.samples.isfinite().all():
                raise InputError(f"{path} holds samples of shape {list(stored.samples.shape[1:])}, or no finite ones")
            return stored

    def _compare(self, stored: Fingerprint, detector: Detector) -> None:
        scores = fingerprint.of(detector, stored.samples).scores
        if not scores.isfinite().all():
            raise InputError(f"{self.path / MODEL} gives scores that are no finite numbers")
        worst = float(stored.differences(scores).max())
        if worst > TOLERANCE:
            made = ", ".join(f"{name} {version}" for name, version in self.settings.versions.items())
            warnings.warn(
                f"{self.path} gives other scores than when it was made, by up to {100 * worst:.2g} % "
                f"(made with {made}): its threshold may not hold; tailwise verify shows the scores",
                stacklevel=4,
            )

    @_once
    def scores(self) -> pd.DataFrame:
        """The training samples; see `runs.table` for the columns."""
        path = self._checked(SCORES)
        with reading(path, RESTORE):
            return check_table(pd.read_parquet(path.absolute()), self.settings.n_samples)

    @_once
    def test_scores(self) -> pd.DataFrame | None:
        """The test samples: sample, score, label, and group where known; None where there were none. For evaluation."""
        if TEST_SCORES not in self.settings.digests:
            return None
        path = self._checked(TEST_SCORES)
        with reading(path, RESTORE):
            return check_test_table(pd.read_parquet(path.absolute()))

    @_once
    def calibration(self) -> Calibration:
        """What the run says of new normals: p-values, and a threshold for any share of false alarms."""
        with reading(self.path / SCORES, RESTORE):
            return of_table(self.scores())

    @_once
    def clusters(self) -> Clusters | None:
        """The clusters among the training samples; None for a run made before they were stored."""
        if CLUSTERS not in self.settings.digests:
            return None
        path = self._checked(CLUSTERS)
        with reading(path, RESTORE):
            clusters = Clusters.restore(read_tensors(path)[0], self.modality)
            if clusters.rows.numel() and int(clusters.rows.max()) >= len(self.scores()):
                raise InputError(f"clusters name sample {int(clusters.rows.max())} of {len(self.scores())}")
            return clusters

    def own_samples(self) -> tuple[Tensor | None, bool]:
        """Normals [k, *sample] that the run keeps, and whether they are all or a fair draw of many; None without any.

        Rows are read back from where the clusters place them; of other samples the fingerprint has a few.
        """
        clusters = self.clusters()
        if clusters is not None and self.modality == ROW:
            rows = clusters.samples()
            if rows is not None:
                return rows, True
        kept = self.fingerprint()
        return (None if kept is None else kept.samples.float()), False

    @property
    def map_scale(self) -> score_maps.Scale | None:
        """What a pixel of a score map means; None where the detector has no maps."""
        return score_maps.Scale.of(vars(self.settings))

    @_once
    def history(self) -> list[dict[str, float]]:
        """A row for each epoch."""
        path = self._checked(HISTORY)
        with reading(path, RESTORE):
            rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
            for row in rows:
                if not isinstance(row, dict) or not all(value is None or _is_number(value) for value in row.values()):
                    raise InputError(f"{path} holds a row that is not of an epoch")
            return rows

    @_once
    def report(self) -> dict[str, Any]:
        """What the report shows, as plain values."""
        content = read_json(self._checked(REPORT_DATA))
        if not isinstance(content, dict) or "scores" not in content or "settings" not in content:
            raise InputError(f"{self.path / REPORT_DATA} is not the report of a run", RESTORE)
        return content

    def _checked(self, name: str) -> Path:
        path = self.path / name
        if not path.exists():
            raise InputError(f"{self.path} has lost its {name}", "fit again")
        if file_digest(regular_file(path)) != self.settings.digests.get(name):
            raise InputError(f"{path} was changed after the fit", "restore it, or fit again")
        return path


def open_run(path: str | Path, read_only: bool = False) -> Run:
    """Open a complete run.

    Args:
        path: its folder.
        read_only: write nothing there, not even to finish an exchange for its successor that a crash interrupted.

    Raises:
        InputError: no run is there, its fit is unfinished, a newer version made it, or it was changed by hand.

    Examples:
        >>> import numpy as np, tailwise, tempfile
        >>> folder = tempfile.mkdtemp()
        >>> fitted = tailwise.fit(np.random.default_rng(0).normal(size=(200, 3)), detector="gaussian", out=folder)
        >>> tailwise.open_run(folder).settings.threshold == fitted.settings.threshold
        True
    """
    path = Path(path)
    if not read_only:
        settle(path, FILES)
    if not (path / SETTINGS).is_file():
        raise InputError(f"{path} is not a run: it has no {SETTINGS}", "make one with: tailwise fit DATA --out RUN")
    settings = read_settings(path)
    if settings["status"] != "complete":
        raise InputError(f"the fit in {path} has not finished", "run the same tailwise fit command again to resume it")
    return Run(path, Settings.of(settings, str(path / SETTINGS)))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e300


def as_kept(source: Source) -> Source:
    """The source as settings spell it: an ONNX file that reads its images is kept in the run, under the run's name."""
    by_file = isinstance(source, ReadByBackbone) and backbones().is_file(source.read)
    return source.read_by(BACKBONE) if by_file else source  # type: ignore[attr-defined, no-any-return]


def kinds_of(labelled: Labelled, clusters: Clusters | None) -> np.ndarray | None:
    """The kind [n] whose threshold applies to each sample: its cluster, else its group; "" is none, None where none
    are. `clusters` are as `closest` gives them."""
    if clusters is not None:
        return np.array(names_of(clusters.of(labelled.data)))
    return None if labelled.groups is None else np.asarray(labelled.groups).astype(str)


def closest(clusters: Clusters) -> Clusters:
    """The same clusters, but every sample is of the one that it is nearest to.

    Odd samples would be a kind of their own otherwise, whose high scores excuse whatever is odd.
    """
    members = clusters.clusters >= 0
    if not members.any():
        members = torch.ones_like(members)
    unlimited = torch.full_like(clusters.limit, torch.inf)
    parts = {name: getattr(clusters, name)[members] for name in ("places", "rows", "clusters", "usual")}
    return replace(clusters, **parts, limit=unlimited)


@dataclass(frozen=True, eq=False)
class Limits:
    """What each sample is held to, as columns of its table: its cluster, else its group, and its threshold.

    `clusters` are as `closest` gives them.
    """

    calibration: Calibration
    clusters: Clusters | None
    false_alarms: float

    def __call__(self, labelled: Labelled) -> dict[str, np.ndarray]:
        kinds = kinds_of(labelled, self.clusters)
        columns = {"threshold": self.calibration.thresholds_of(kinds, self.false_alarms, len(labelled.data))}
        if kinds is None:
            return columns
        return {"held_to": kinds if self.clusters is not None else held_to(kinds, self.calibration)} | columns


def held_to(groups: np.ndarray, calibration: Calibration) -> np.ndarray:
    """Whose threshold each sample is held to: its group's, or "all" where that calibrates none."""
    seen = np.isin(groups, [] if calibration.kinds is None else calibration.kinds)
    return np.where(seen, groups.astype(object), ALL).astype(str)


def warn_of_unseen(groups: np.ndarray) -> None:
    """Warn of samples of groups that calibrate no threshold, "" being of none."""
    names, counts = np.unique(groups[groups != ""], return_counts=True)
    said = [f"{name!r} ({count})" for name, count in zip(names.tolist(), counts.tolist(), strict=True)]
    if said:
        messages.warning(
            f"the run has no threshold of its own for the {'group' if len(said) == 1 else 'groups'} "
            f"{', '.join(said[:6])}{f' and {len(said) - 6} more' if len(said) > 6 else ''}: these samples are held to "
            "the threshold of all"
        )
    if missing := int((groups == "").sum()):
        messages.warning(f"{missing} samples name no group and are held to the threshold of all")


def table_of_test(detector: Detector, test: Labelled, limits: Limits | None) -> pd.DataFrame:
    """A row for each test sample: its score, its label and, where known, its group."""
    table = pd.DataFrame(
        {"sample": list(test.data.names), "score": inference.score(detector, test.data).double().numpy()}
    )
    table["label"] = pd.array([None] * len(table) if test.labels is None else test.labels.astype(bool), dtype="boolean")
    if test.groups is not None:
        table["group"] = group_column(test.groups)
    return table if limits is None else table.assign(**limits(test))

"""A run that keeps an eye on what arrives: what `tailwise watch` does.

What arrives is scored, counted by the cluster that it is most like, and bet on (`calibration.martingales`). What a
person should look at is gathered in a sheet that `fit` and `update` take.
"""

from __future__ import annotations

import json
import math
import os
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pandas as pd
import torch

from ..calibration import martingales
from ..calibration.drift import Population, name_of
from ..calibration.martingales import PLACE, SHARE, UNKNOWN, Martingales, SequentialTest
from ..core import messages
from ..core.modality import ROW
from ..core.problem import Labelled, joined
from ..core.seeding import seeded
from ..core.validation import check_scoring, check_seed
from ..errors import InputError, reading
from ..report import watch_page
from ..report.review import PROBABLY_ANOMALY, PROBABLY_RARE
from ..runs import files
from ..runs.outputs import check_apart
from ..runs.scorer import Run, open_run
from ..runs.sheets import read_csv, to_csv
from ..runs.table import reference_of
from .arrivals import Arrivals, Came, watched
from .drift import placed_by
from .watch_ledger import Ledger

LEDGER, PAGE, SHEET, ROWS = "watch.sqlite", "watch.html", "review.csv", "kept.csv"
_WEBHOOK_SECONDS = 10.0
# The page takes a second to draw.
_SECONDS_BETWEEN_PAGES = 10.0
# With 190 of them an axis, places of training samples were as those of new ones (LOG.md).
_SAMPLES_AN_AXIS = 50
# What is kept of the table of scores.
_KEPT = ("sample", "score", "p_value", "flagged")
# Rows of the page's table of tests.
_SHOWN = 20


@dataclass(frozen=True)
class Watched:
    """What a watch has come to.

    Attributes:
        called: what this command called, in words.
        samples: how many were counted, by this command and those before.
        page: where it is shown.
        before: how many tests were called before this command.
    """

    called: tuple[str, ...]
    samples: int
    page: Path
    before: int = 0

    @property
    def alarm(self) -> bool:
        """Whether normal has changed, or something new has come."""
        return bool(self.called)

    def __str__(self) -> str:
        said = "; ".join(dict.fromkeys(self.called))
        if not said:
            said = f"nothing new was called, {self.before} tests before" if self.before else "no change was seen"
        return f"{self.samples} samples: {said}\n{self.page}"


def watch(
    run: Path,
    place: str,
    out: Path,
    level: float,
    once: bool,
    every: float,
    settle: float,
    webhook: str | None,
    keep: int,
    batch_size: int | None,
    seed: int,
    device: str,
) -> Watched:
    """Watch what arrives at a place until something has changed, or for ever; see `commands.watch`."""
    check_seed(seed)
    check_scoring(batch_size)
    if not (0 < every < math.inf and 0 <= settle < math.inf and keep >= 0):
        raise InputError(f"every must be above 0, settle and keep 0 or more: got {every:g}, {settle:g} and {keep}")
    if webhook is not None and urlsplit(webhook).scheme not in ("http", "https"):
        raise InputError(f"a webhook is an http or https address: got {webhook!r}")
    opened = open_run(run)
    arrivals = watched(opened, place, settle)
    for name in (PAGE, LEDGER, ROWS, SHEET):
        check_apart(out / name, arrivals.path)
    with _kept_to_one(out):
        watch = _Watch(opened, arrivals, out, level, keep, batch_size, seed, device)
        try:
            return watch.until_called(once, every, webhook)
        finally:
            watch.ledger.close()


@contextmanager
def _kept_to_one(out: Path) -> Iterator[None]:
    """The folder, made if it is missing, for this process alone."""
    from filelock import FileLock, Timeout  # costs a tenth of a second

    try:
        out.mkdir(parents=True, exist_ok=True)
        lock = FileLock(out / files.LOCK, timeout=0)
        lock.acquire()
    except Timeout as error:
        raise InputError(f"another watch is writing to {out}", "stop it, or choose another --out") from error
    except OSError as error:
        raise files.cannot_write(out, error) from error
    try:
        yield
    finally:
        lock.release()


class _Watch:
    """A watch under way: the run, what arrives, and what was counted."""

    def __init__(
        self,
        run: Run,
        arrivals: Arrivals,
        out: Path,
        level: float,
        keep: int,
        batch_size: int | None,
        seed: int,
        device: str,
    ) -> None:
        self.run, self.arrivals, self.out, self.keep = run, arrivals, out, keep
        self.batch_size, self.device, self.level = batch_size, device, level
        self.clusters = placed_by(run)
        earlier = reference_of(run.scores(), self.clusters)
        self.axes = _axes(earlier)
        earlier = replace(earlier, places=None if earlier.places is None else earlier.places[:, : self.axes])
        self.usual = {kind: float((earlier.clusters == kind).mean()) for kind in np.unique(earlier.clusters).tolist()}
        # Links are not followed: one can stand where a place was that has been moved.
        place = os.path.abspath(arrivals.path)
        self.ledger = Ledger(out / LEDGER, {"run": run.settings.seal, "level": level, "seed": seed, "place": place})
        tests = martingales.planned(self.usual, float(earlier.unknown.mean()), level, self.axes)
        self.bets = Martingales(tests, seed)
        self.bets.remember(earlier)
        if not np.isfinite(earlier.scores).any():
            messages.note("the run held no samples out: later scores are compared with those of what arrives first")
        if (state := self.ledger.bets()) is not None:
            self.bets.remember(_population(self.ledger.samples()))
            self.bets.restore(state)
        self.kept = len(self.ledger.kept())
        self._drawn = 0.0

    def until_called(self, once: bool, every: float, webhook: str | None) -> Watched:
        """Look again and again; `once` ends when all is counted. Without a webhook a call ends it too."""
        called: list[SequentialTest] = []
        before = int((self.bets.called > 0).sum())
        try:
            while True:
                came = self.arrivals.new(self.ledger)
                found = self._count(came) if came else []
                called += found
                if came:
                    self._show(found, always=False)
                if webhook is not None:
                    self._tell(webhook)
                if (found and webhook is None) or (once and not came):
                    break
                if not came:
                    time.sleep(every)
        finally:
            self._show([], always=True)
        return Watched(tuple(map(_said, called)), self.bets.samples, self.out / PAGE, before)

    def _count(self, came: Sequence[Came]) -> list[SequentialTest]:
        """Enter what came into the ledger; the tests that it calls."""
        came, whole, scores = self._scored(came)
        samples: list[tuple[int, str, float, float, bool, int, bool, list[float]]] = []
        kept: list[tuple[int, dict[str, Any]]] = []
        called: list[SequentialTest] = []
        if whole is not None:
            table, placed = self.run.table_of(whole, scores), self.clusters.place(whole.data)
            places = placed.along.numpy()[:, : self.axes]
            new = Population(placed.nearest.numpy(), placed.unknown.numpy(), scores, places)
            called = self.bets.observe(new)
            of = [place for place, each in enumerate(came) if each.labelled for _ in range(len(each.labelled.data))]
            columns = (table["sample"], table["score"], table["p_value"], table["flagged"])
            samples = list(
                zip(of, *(column.tolist() for column in (*columns, new.clusters, new.unknown, places)), strict=True)
            )
            kept = self._to_look_at(whole, new, table)
        for each in came:
            if each.arrival.refused:
                messages.warning(f"not counted: {each.arrival.refused}")
        evidence = dict(zip((test.name for test in self.bets.tests), self.bets.evidence().tolist(), strict=True))
        calls = [(test.name, test.aspect, test.cluster, self.bets.samples) for test in called]
        self.ledger.enter([each.arrival for each in came], samples, kept, self.bets.state, evidence, calls)
        self.kept += len(kept)
        return called

    def _scored(self, came: Sequence[Came]) -> tuple[list[Came], Labelled | None, np.ndarray]:
        """What came, its samples as one, and their scores [n]; without what has no finite score, which is refused."""
        parts = [each.labelled for each in came if each.labelled is not None]
        if not parts:
            return list(came), None, np.zeros(0)
        whole = joined(parts)
        with seeded(device=self.device):
            scores = self.run.scores_of(whole.data, self.batch_size, self.device)
        found, finite, start = [], np.isfinite(scores), 0
        for each in came:
            stop = start + (0 if each.labelled is None else len(each.labelled.data))
            if not finite[start:stop].all():
                finite[start:stop] = False
                reason = f"{each.arrival.file}: its scores are no finite numbers"
                each = Came(replace(each.arrival, refused=reason))
            found.append(each)
            start = stop
        kept = np.flatnonzero(finite)
        return found, whole.take(kept) if len(kept) else None, scores[kept]

    def _to_look_at(self, labelled: Labelled, new: Population, table: pd.DataFrame) -> list[tuple[int, dict[str, Any]]]:
        """Places of samples that are flagged or unlike all, as many as there is room for, with their numbers if they
        are rows."""
        odd = np.flatnonzero(table["flagged"].to_numpy(dtype=bool) | new.unknown)[: self.keep - self.kept]
        if self.run.modality != ROW or labelled.data.context is not None or not len(odd):
            return [(place, {}) for place in odd.tolist()]
        chosen = labelled.data.take(odd)
        values = chosen.original(chosen.read(torch.arange(len(odd)))).tolist()
        return [(place, {"values": row}) for place, row in zip(odd.tolist(), values, strict=True)]

    def _show(self, called: Sequence[SequentialTest], always: bool) -> None:
        """The page and the sheet, as they are now."""
        now = time.monotonic()
        if not (always or called or now - self._drawn > _SECONDS_BETWEEN_PAGES):
            return
        self._drawn = now
        self._write_sheet()
        files.write(self.out / PAGE, watch_page.to_html(self._summary()).encode("utf-8", "backslashreplace"))

    def _write_sheet(self) -> None:
        """Append what is new to the sheet, which a person may have edited; rows that are kept are written beside it."""
        kept = self.ledger.kept()
        if not kept:
            return
        rows = "values" in kept[0]
        if rows:
            features = self.run.settings.features or tuple(f"x{i}" for i in range(len(kept[0]["values"])))
            table = pd.DataFrame([each["values"] for each in kept], columns=list(features))
            files.write(self.out / ROWS, to_csv(table).encode())
        sheet = pd.DataFrame(
            {
                "sample": [str(each["place"] - 1) if rows else each["name"] for each in kept],
                "order": [each["place"] for each in kept],
                "score": [each["score"] for each in kept],
                "verdict": [PROBABLY_ANOMALY if each["flagged"] else PROBABLY_RARE for each in kept],
                "cluster": [each["cluster"] for each in kept],
                "p_value": [each["p_value"] for each in kept],
                "from": [each["name"] for each in kept],
            }
        )
        _append(self.out / SHEET, sheet)

    def _summary(self) -> dict[str, Any]:
        """What the page shows, as plain data."""
        counts = self.ledger.counts()
        total = int(counts["samples"].sum()) if len(counts) else 0
        rows = []
        for cluster, usual in sorted(self.usual.items()):
            now = counts[counts["cluster"] == cluster]
            count, flagged, unknown = (int(now[name].sum()) for name in ("samples", "flagged", "unknown"))
            rows.append(
                {"name": name_of(cluster), "usual": usual, "samples": count, "flagged": flagged}
                | {"share": count / total if total else None, "unknown": unknown, "of": total}
            )
        looks = self.ledger.looks()
        evidence = [json.loads(text) for text in looks["evidence"]]
        tests: list[dict[str, Any]] = [
            {"name": test.name, "evidence": float(now), "called": int(at), "needed": 1 / test.level}
            for test, now, at in zip(self.bets.tests, self.bets.evidence(), self.bets.called, strict=True)
        ]
        return {
            "run": self.run.path.absolute().name,
            "samples": total,
            "level": self.level,
            "rows": rows,
            "tests": sorted(tests, key=lambda test: -test["evidence"])[:_SHOWN],
            "calls": [
                _said_of(call) | {"at": call["at"], "samples": int(call["samples"])}
                for call in _dicts(self.ledger.calls())
            ],
            "looks": looks["samples"].tolist(),
            "evidence": {name: [look[name] for look in evidence] for name in (evidence[-1] if evidence else {})},
            "kept": self.kept,
            "room": self.keep,
            "sheet": SHEET,
            "refused": _dicts(self.ledger.refused()),
        }

    def _tell(self, webhook: str) -> None:
        """Call the webhook of what it has not heard; where it does not answer it is called again later."""
        calls = [call for call in _dicts(self.ledger.calls()) if not call["told"]]
        if not calls:
            return
        content = {
            "run": self.run.path.absolute().name,
            "samples": self.bets.samples,
            "calls": [_said_of(call) | {"at_sample": int(call["samples"]), "time": call["at"]} for call in calls],
        }
        request = urllib.request.Request(webhook, json.dumps(content).encode(), {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=_WEBHOOK_SECONDS):
                self.ledger.told(call["test"] for call in calls)
        except (OSError, ValueError) as error:
            messages.warning(f"the webhook did not take {len(calls)} calls, and is called again: {error}")


def _population(samples: pd.DataFrame) -> Population:
    clusters, unknown, scores = (samples[name].to_numpy() for name in ("cluster", "unknown", "score"))
    places = np.array(samples["place"].tolist(), dtype=float).reshape(len(samples), -1)
    return Population(clusters, unknown.astype(bool), scores.astype(float), places)


def _axes(earlier: Population) -> int:
    """Along how many axes places are compared: all that are kept, or none where so few samples lie closer to their own
    axes than new ones do."""
    axes = 0 if earlier.places is None else earlier.places.shape[1]
    return axes if len(earlier) >= _SAMPLES_AN_AXIS * axes else 0


def _append(path: Path, sheet: pd.DataFrame) -> None:
    """Add the rows of samples that the sheet at this path does not name; what stands there stays as it is."""
    if not path.exists():
        files.write(path, to_csv(sheet).encode())
        return
    with reading(path, "put its columns back, or move it away"):
        there = read_csv(path, dtype=str, keep_default_na=False)
        new = sheet[~sheet["sample"].isin(there["sample"])].reindex(columns=there.columns)
    if len(new):
        before = path.read_bytes().rstrip(b"\r\n") + b"\n"
        files.write(path, before + to_csv(new).partition("\n")[2].encode())


def _said(test: SequentialTest) -> str:
    return _sentence(test.aspect, test.cluster)


def _said_of(call: dict[str, Any]) -> dict[str, Any]:
    cluster = None if pd.isna(call["cluster"]) else int(call["cluster"])
    return {"test": call["test"], "what": _sentence(call["aspect"], cluster)}


def _sentence(aspect: str, cluster: int | None) -> str:
    """What a call says, in words."""
    if aspect == UNKNOWN:
        return "something new comes: more samples than usual are unlike every training sample"
    name = name_of(cluster)
    changed = {SHARE: f"how often {name} comes", PLACE: f"where {name} lies"}.get(aspect, f"the scores of {name}")
    return f"normal has changed: {changed}"


def _dicts(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]

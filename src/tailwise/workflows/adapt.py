"""A finished run adapted to data whose normals have changed, without labels: what `tailwise adapt` does."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
import torch

from ..backbones import norms
from ..backbones.pictures import OfPictures
from ..calibration import conformal, drift, score_maps
from ..calibration.clusters import Clusters, names_of
from ..core import inference, messages
from ..core.data import Data
from ..core.detector import PassesMessages
from ..core.identity import digest_of
from ..core.problem import Facts, FromPictures, Problem, Source
from ..core.seeding import seeded
from ..core.validation import check_samples
from ..errors import InputError, reading
from ..report.summary import adaptation_summary
from ..runs import places, store
from ..runs.files import BACKBONE, REPORT_DATA, RESTORE
from ..runs.scorer import Run, as_kept, open_run
from ..runs.settings import AdaptationRow, KindRow
from ..runs.table import cross_fitted
from ..sources.memory import in_memory
from ..training import adapt
from . import assembly, network_file
from .density_ratio import Carried, carried_threshold
from .drift import placed_by, since_fit

# Of fewer there is nothing to hold out.
_FEWEST = 10
# So many kinds of the target are told of, the largest first.
_KINDS = 20
AUTO = "auto"


def adapt_run(
    run: Path, target: Any, out: Path, method: str, force: bool, seed: int, overwrite: bool, command: str
) -> Run:
    """A new run of `run`'s detector, adapted to the samples of `target`; see `commands.adapt`."""
    store.check_apart(run, out, overwrite)
    opened = open_run(run)
    chosen = method_for(method, opened)
    if opened.settings.has_own_thresholds:
        raise InputError("a run with a threshold for each kind cannot be adapted", "fit it without them, or fit again")
    placed_by(opened)
    source, named = _source_of(target, opened)
    data = opened.samples(source if isinstance(target, str | Path) else target).data
    check_samples(data, least=_FEWEST, where=named)
    with seeded():
        before = opened.scores_of(data)
    changed = since_fit(opened, data, before, named, drift.LEVEL)
    if not changed.alarm and not force:
        raise InputError(str(changed), "there is nothing to adapt to; with --force it is done all the same")
    settings = opened.settings.as_dict()
    with store.hold(out, overwrite) as writer, TemporaryDirectory() as folder:
        asked, held = _asked(opened, source, data, before, settings["false_alarms"], seed)
        made = chosen.adapt(asked)
        backbone = opened.backbone()
        if made.pictured is not None:
            backbone = _written(made.pictured, Path(folder) / BACKBONE)
            source = source.read_by(str(Path(folder) / BACKBONE))  # type: ignore[attr-defined]
            data = opened.samples(source).data
            asked = replace(asked, target=data.take(np.setdiff1d(np.arange(len(data)), held)))
        after = inference.score(made.detector, data).double().numpy()
        clusters = Clusters.learn(data, seed)
        # What the detector has not learnt from sets the threshold: all, where nothing was learnt.
        unseen = np.isin(np.arange(len(data)), held) | (not made.adapted)
        table = _table(data, held, before, after, clusters).assign(calibration=np.where(unseen, after, np.nan))
        assembly.calibrate(settings, table)
        assembly.hold_to_limit(settings, table, None)
        if made.detector.has_maps:
            normals = data.take(np.flatnonzero(unseen))
            scale = score_maps.learn_scale(made.detector, normals, settings["false_alarms"], settings["smoothing"])
            settings |= scale.settings()
        carried = _carried(opened, made, data, settings["false_alarms"], seed)
        promised = f"{promise(int(unseen.sum()), settings['false_alarms'])}. {said_of(carried)}"
        row = AdaptationRow(
            run=str(run), source=repr(as_kept(source)), samples=len(data), method=repr(chosen), adapted=made.adapted,
            reason=made.reason, promise=promised, drift=_in_a_line(changed),
            figures=made.figures | _other_thresholds(opened, after, carried),
            kinds=_kinds(clusters, before > opened.settings.threshold, after > settings["threshold"]),
        )  # fmt: skip
        settings |= {
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "command": command,
            "source": repr(as_kept(source)),
            "fingerprint": digest_of(data),
            # The detector has changed since it scored the test data, and those scores are not kept.
            "test_fingerprint": None,
            "n_train": len(asked.target),
            "n_held_out": len(held),
            "n_suspects": 0,
            "unlabelled": "",
            "adaptations": [*settings.get("adaptations", []), row],
        }
        writer.start(settings, overwrite)
        parts = assembly.Parts(
            made.detector, asked.target, table, opened.history(), clusters, seed,
            backbone=backbone, places=places.of_source(source), source=source,
        )  # fmt: skip

        def summarise() -> dict[str, Any]:
            with reading(opened.path / REPORT_DATA, RESTORE):
                return adaptation_summary(settings, opened.history(), source, Problem(data, Facts(named)), table)

        adapted = assembly.write_run(writer, settings, parts, summarise)
    _tell(row)
    return adapted


def _asked(
    opened: Run, source: Source, data: Data, before: np.ndarray, false_alarms: float, seed: int
) -> tuple[adapt.Asked, np.ndarray]:
    """What an adaptation is given of samples with these scores [n], and places of those that are held out."""
    generator = torch.Generator().manual_seed(seed)
    held = assembly.held_out_of(len(data), false_alarms, generator)
    taken = np.setdiff1d(np.arange(len(data)), held)
    known = adapt.Source(opened.calibration().scores, *opened.own_samples())
    target = data.take(taken)

    def pictured() -> adapt.Pictured | None:
        pictures = source.decoded(target.names) if isinstance(source, FromPictures) else None
        if pictures is None:
            return None
        assert isinstance(source, FromPictures)
        network = source.network()
        assert isinstance(network, OfPictures)
        kept = opened.fingerprint()
        return norms.Pictured(pictures, network, None if kept is None else kept.pictures)

    return adapt.Asked(opened.detector(), target, before[taken], known, generator, pictured), held


def _written(seen: adapt.Pictured, path: Path) -> bytes:
    """The content of the ONNX file that is written of the network which reads pictures from now on."""
    assert isinstance(seen, norms.Pictured)
    height, width = seen.pictures.shape[1:3]
    content = network_file.to_onnx(seen.network, height, width)
    path.write_bytes(content)
    return content


def _source_of(target: Any, opened: Run) -> tuple[Source, str]:
    """What a target is read by, and its name."""
    if isinstance(target, str | Path):
        return opened.source_like(str(target)), str(target)
    if hasattr(target, "load_all"):
        return target, repr(target)
    return in_memory(target, {})[0], "the target"


def method_for(method: str, opened: Run) -> adapt.Adaptation:
    """The adaptation of this spelling; "auto" is TUNE for what classifies nodes and RADA for anything else."""
    if method.strip() != AUTO:
        return adapt.parse(method)
    return adapt.parse("TUNE" if isinstance(opened.untrained_detector(), PassesMessages) else "RADA")


def _carried(
    opened: Run, made: adapt.Adapted, data: Data, false_alarms: float, seed: int
) -> tuple[Carried, int] | None:
    """A threshold from the old calibration scores and how many samples of the target are unlike every old one, for
    which it promises nothing; None where the old scores are not of this detector, or not of the sample alone."""
    aligned = isinstance(made.detector, adapt.Realigned) or made.pictured is not None
    table = opened.scores()
    learnt_all = not (cross_fitted(table) or table["held_out"].any())
    if opened.detector().looks_around or (made.adapted and not aligned) or "calibration" not in table or learnt_all:
        return None
    clusters, scores = placed_by(opened), table["calibration"].to_numpy(dtype=float)
    calibrating = clusters.rows.numpy()[np.isfinite(scores[clusters.rows.numpy()])]
    if made.adapted and isinstance(made.detector, adapt.Realigned):
        data = made.detector.aligned_data(data)
    placed = clusters.place(data)
    unlike, new = placed.unknown.numpy(), placed.along.numpy()
    old = clusters.along(len(table)).numpy()[calibrating]
    return carried_threshold(scores[calibrating], old, new[~unlike], false_alarms, seed), int(unlike.sum())


def said_of(carried: tuple[Carried, int] | None) -> str:
    """What the old calibration scores promise, in a sentence."""
    if carried is None:
        return "The old calibration scores are not of this detector, or not of a sample alone: they promise nothing"
    threshold, unlike = carried
    beside = f"; of {unlike} samples that are unlike every old one nothing is promised by it" if unlike else ""
    return f"{str(threshold)[0].upper()}{str(threshold)[1:]}{beside}"


def _other_thresholds(opened: Run, after: np.ndarray, carried: tuple[Carried, int] | None) -> dict[str, float]:
    """Thresholds that the run does not use, by name."""
    found = {"threshold_if_alike": _if_alike(opened, after)}
    if carried is not None:
        found |= {"effective_old_scores": carried[0].effective, "unlike_every_old_sample": float(carried[1])}
        if carried[0].threshold is not None:
            found["threshold_carried"] = carried[0].threshold
    return found


def _if_alike(opened: Run, after: np.ndarray) -> float:
    """The old threshold moved as far as the lower quarter of the scores has moved: right if the target's normals score
    as the old ones do but for that, of which there is no proof."""
    old = opened.calibration().scores
    return float(opened.settings.threshold + np.quantile(after, 0.25) - np.quantile(old, 0.25))


def promise(unseen: int, false_alarms: float) -> str:
    """What a threshold from so many samples of a target promises, which nobody vouches for."""
    share = conformal.promised(unseen, false_alarms)
    low, high = conformal.range_of_false_alarms(unseen, false_alarms)
    return (
        f"the old threshold is void; the new one comes from {unseen} samples of the target that the detector has not "
        "learnt, and flags at most "
        f"{100 * share:.3g} % of new samples like these in the mean ({100 * low:.2g} to {100 * high:.2g} % at 95 %). "
        "Normals among them are flagged no more often, as long as anomalies do not score lower than normals. Of kinds "
        "that the target lacks nothing is promised; the more anomalies it holds, the fewer are caught"
    )


def _table(data: Data, held: np.ndarray, before: np.ndarray, after: np.ndarray, clusters: Clusters) -> pd.DataFrame:
    """A row for each sample of the target, as in scores.parquet. `before` and `after` are the scores of both runs."""
    assert clusters.training is not None
    assert clusters.training_as_new is not None
    out = np.isin(np.arange(len(data)), held)
    table = pd.DataFrame({"sample": list(map(str, data.names)), "score": after})
    for column, values in (("trained_score", after), ("first_score", before), ("weight", np.ones(len(data)))):
        table[column] = np.where(out, np.nan, values)
    table["held_out"], table["suspect"] = out, False
    table["cluster"] = clusters.training.numpy()
    table["cluster_as_new"] = clusters.training_as_new.nearest.numpy()
    table["unknown_as_new"] = clusters.training_as_new.unknown.numpy()
    return table


def _kinds(clusters: Clusters, before: np.ndarray, after: np.ndarray) -> tuple[KindRow, ...]:
    """How many samples were flagged [n] and are now: of all, then of each cluster of the target."""
    assert clusters.training is not None
    names = np.array(names_of(clusters.training))
    of_kind = [("all", np.ones(len(names), dtype=bool)), *((name, names == name) for name in np.unique(names))]
    rows = [
        KindRow(name=str(name), size=int(of.sum()), before=int(before[of].sum()), after=int(after[of].sum()))
        for name, of in of_kind
    ]
    return (rows[0], *sorted(rows[1:], key=lambda row: (-row["size"], row["name"]))[:_KINDS])


def _in_a_line(changed: drift.Drift) -> str:
    return "; ".join(line.strip() for line in str(changed).splitlines())


def _tell(row: AdaptationRow) -> None:
    """What came of it, what the threshold promises, and which kinds are flagged more."""
    if row["adapted"]:
        messages.note(f"adapted by {row['method']}: {row['reason']}")
    else:
        messages.note(f"detector unchanged; only the threshold is new ({row['method']}: {row['reason']})")
    messages.note(row["promise"])
    messages.note(
        "if the target's normals score as the old ones do but for one shift, which nothing proves, the threshold is "
        f"{row['figures']['threshold_if_alike']:.4g} (tailwise score --threshold)"
    )
    for kind in worse(row):
        messages.warning(
            f"cluster {kind['name']} of the target: {kind['before']} of {kind['size']} samples were flagged, and "
            f"{kind['after']} are now"
        )


def worse(row: AdaptationRow) -> list[KindRow]:
    """Kinds of the target that are flagged more often by the new run, where the whole is not."""
    whole = row["kinds"][0]
    return [kind for kind in row["kinds"][1:] if kind["after"] > kind["before"] and whole["after"] <= whole["before"]]

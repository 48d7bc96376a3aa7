"""Why does a sample score what it does, and why was a training sample weighed up or down?

For a score: the most similar training samples of the same cluster, and what raises it: the features of a row, the
bands of a spectrum, the patches and the flagged regions of an image, the neighbours of a node. For a weight: what each
step of the weighting did to it. Everything is a plain dict first; `explanation_page` lays it out. It needs the
training data again, which the run names and a fingerprint recognises.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import scipy
import torch
from torch import Tensor

from ..calibration import score_maps
from ..calibration.clusters import UNKNOWN, names_of
from ..core import inference, messages
from ..core.context import Graph
from ..core.data import Batch, Data
from ..core.detector import Detector, MeanOfCues
from ..core.embedding import embedding_beside, embedding_of
from ..core.identity import digest_of
from ..core.modality import IMAGE, ROW, box_of
from ..core.problem import FromPictures, Labelled, OnDisk, ReadByBackbone, Source
from ..errors import InputError, did_you_mean
from ..numerics import graphs, neighbours, shapley
from ..runs.places import in_working_folder
from ..runs.scorer import Run
from ..weights.default import parse_weighting
from ..weights.steps import Importance
from ..weights.weighting import Context, unit_mean

# So many nearest normals are shown, and averaged into what is usual.
_NEAREST = 5
_REGIONS = 3
_LISTED = 12
# The edges to so many neighbours of a node are cut, one at a time.
_LINKS = 20
# So many pictures go through a backbone at once.
_PICTURES = 8
# A sample this near in the embedding, as a share of its distance from the middle, and of the same name is itself.
_ROUNDING = 1e-5
# A replay of the weighting that is off by more than this factor is told of.
_REPLAYED = 1.1


@dataclass(frozen=True, eq=False)
class Known:
    """A run with the training samples that it was fitted on, read again.

    Attributes:
        table: a row a sample of `data`, as in scores.parquet.
        notes: what is not as it was when the run was made.
    """

    run: Run
    detector: Detector
    source: Source
    data: Data
    table: pd.DataFrame
    notes: tuple[str, ...]

    @property
    def samples(self) -> Labelled:
        """The training samples, with their groups if there are any."""
        groups = self.table["group"].fillna("").to_numpy().astype(str) if "group" in self.table else None
        return Labelled(self.data, groups=groups)

    @cached_property
    def sizes(self) -> dict[int, int]:
        """How many training samples each cluster holds."""
        return {int(kind): int(size) for kind, size in self.table["cluster"].value_counts().items()}

    def kind(self, cluster: int) -> dict[str, Any] | None:
        """A cluster and its size; None for samples that belong to none."""
        size, of = self.sizes.get(cluster, 0), len(self.table)
        return None if cluster < 0 else {"name": cluster, "size": size, "of": of, "share": size / of}


def reopen(run: Run, training_data: str | None = None) -> Known:
    """Read the training data of a run again.

    A run that somebody else made can name any file of its reader. Without `training_data` it is read where the run
    says, but outside the current folder only what the fit itself saw is shown.

    Args:
        run: the run.
        training_data: where its training data lies now.

    Raises:
        InputError: none of its samples is there any more; or the data lies outside the current folder, and is not what
            the fit saw.
    """
    source = run.source() if training_data is None else run.source_like(training_data)
    if isinstance(source, OnDisk) and repr(source) != run.settings.source:
        messages.note(f"the training data is read from {source.path}")
    train = source.load().train
    table = run.scores()
    place = train.places
    there = table["sample"].astype(str).isin(place).to_numpy()
    places = [place[str(name)] for name in table["sample"][there]]
    data = train if places == list(range(len(train))) else train.take(places)
    same = bool(places) and digest_of(data) == run.settings.fingerprint
    if training_data is None and not (same or in_working_folder(source)):
        path = source.path if isinstance(source, OnDisk) else repr(source)
        raise InputError(
            f"{run.path} says that its training data is {path}, outside the current folder, and that is not what the "
            "fit saw",
            f"a run from somebody else can name any file of yours; --training-data {path} shows it all the same",
        )
    if not there.any():
        raise InputError(
            f"none of the samples that {run.path} was fitted on is in {source!r} any more",
            "explanations need the training data: put it back, say where it is by --training-data, or fit again",
        )
    if data.sample_shape != run.settings.sample_shape:
        raise InputError(f"{source!r} now holds samples of shape {list(data.sample_shape)}", "put the data back")
    notes = []
    if not there.all():
        notes.append(f"{(~there).sum()} of the run's {len(there)} samples are not in {source!r}: they are left out")
    elif not same:
        notes.append("the training data has changed since the fit, so the most similar samples may differ")
    return Known(run, run.detector(), source, data, table[there].reset_index(drop=True), tuple(notes))


def explain_score(
    known: Known, samples: Labelled, name: str, seed: int = 0, source: Source | None = None
) -> dict[str, Any]:
    """Why the sample of this name in `samples` scores what it does; of what is known of samples only groups are looked
    at. `source` has read the samples; with it, pictures that were read as pooled features are explained by their
    places.

    Keys: `sample`, `score`, `threshold` that it is held to, `flagged`, `p_value`, by how many `calibration_normals`,
    whether it is `unlike` every training sample; `kind` of normal that it is nearest to; `nearest` samples of that
    kind, whose own nearest are at the `usual_distance`; `usual`, the score of their average; `cues` of a local score;
    `drivers` with the `contribution` of each part to score less usual; `regions` of the detector's map; `links` of a
    node, by how much each neighbour raises its score; `notes`.
    """
    at = _place(samples.data, name)
    one = samples.data.take([at])
    score = float(inference.score(known.detector, one)[0])
    groups = None if samples.groups is None else samples.groups[[at]]
    held = known.run.table_of(Labelled(one, groups=groups), np.array([score])).iloc[0]
    near, distances, usual, cluster = _nearest(known, one)
    notes = list(known.notes)
    found: dict[str, Any] = {
        "sample": str(name),
        "score": score,
        "threshold": float(held["threshold"]),
        "flagged": bool(held["flagged"]),
        "p_value": float(held["p_value"]),
        "calibration_normals": len(known.run.calibration().scores),
        "unlike": held.get("cluster") == names_of(torch.tensor([UNKNOWN]))[0],
        "kind": known.kind(cluster),
        "nearest": [
            {"sample": str(known.table["sample"][i]), "distance": distance, "score": float(known.table["score"][i])}
            for i, distance in zip(near, distances, strict=True)
        ],
        "usual_distance": usual,
    }
    found["cues"] = _cues(known.detector, one)
    if known.detector.looks_around:
        notes.append(
            "the score depends on the samples around this one, so it is not divided among the parts of the sample"
        )
        found |= {"usual": None, "drivers": None}
    elif _is_pooled(known.source):
        found |= _drivers_in_picture(known, source, str(one.names[0]), found["nearest"][0]["sample"], seed)
        if found["drivers"] is None:
            notes.append(
                "the score of pooled features is not divided among places, because the pictures are not at hand"
            )
    else:
        reference = known.data.read(torch.tensor(near)).mean(0)
        found |= drivers(known.detector, one, reference, seed)
    found["regions"] = _regions(known, one)
    found["links"] = links(known.detector, samples.data, at, seed)
    return found | {"notes": notes}


def explain_weights(known: Known, names: Sequence[str]) -> list[dict[str, Any]]:
    """Why the training samples of these names were weighed as they were.

    Keys: `sample`, `weight`, `held_out`, `first_score`, `trained_score`, `score`, and the `quantiles` of the first two
    among the samples trained on; `kind`; `density` of first scores there against the target's; `rounds`, the first and
    the last, whose `steps` have the weight `before` and `after`; `sentence`; `notes`.
    """
    fitted = known.table[~known.table["held_out"]].reset_index(drop=True)
    replays = _replays(known, fitted)
    return [_weight(known, fitted, replays, str(name)) for name in names]


def worst_samples(known: Known, samples: Data, count: int) -> list[str]:
    """Names of the samples with the highest scores, highest first."""
    scores = inference.score(known.detector, samples)
    order = scores.argsort(descending=True, stable=True)[:count]
    return [str(samples.names[i]) for i in order.tolist()]


def extreme_weights(known: Known, count: int) -> list[str]:
    """Names of the training samples that were weighed up most, and of those weighed down most."""
    fitted = known.table[~known.table["held_out"]].sort_values("weight", ascending=False, kind="stable")
    up, down = fitted["sample"].head(count), fitted["sample"].tail(count)[::-1]
    return list(dict.fromkeys([str(name) for name in [*up, *down]]))


def _place(samples: Data, name: str) -> int:
    names = [str(each) for each in samples.names]
    if str(name) not in names:
        raise InputError(f"no sample is called {str(name)!r}", _hint(str(name), names))
    return names.index(str(name))


def _hint(name: str, names: Sequence[str]) -> str:
    """The closest name, but not a list of thousands."""
    said = did_you_mean(name, names)
    return (
        said if said.startswith("did") or len(names) <= _LISTED else "samples are named as `tailwise score` prints them"
    )


def _nearest(known: Known, one: Data) -> tuple[list[int], list[float], float, int]:
    """Places of the training samples most like the sample, of its kind; their distances; how far their own nearest are,
    in the mean; and the kind. The sample itself is none of them."""
    new, places = embedding_beside(one, known.data)
    distance, first = (found[0, 0] for found in neighbours.nearest(new, places, 1))
    same_name = str(known.table["sample"][int(first)]) == str(one.names[0])
    itself = same_name and float(distance) <= _ROUNDING * max(1.0, float(new.norm()))
    clusters = known.table["cluster"].to_numpy()
    cluster = int(clusters[int(first)])
    # What belongs to no kind is held against everything.
    allowed = np.flatnonzero(clusters == cluster) if cluster >= 0 else np.arange(len(clusters))
    if itself and len(allowed) > 1:
        allowed = allowed[allowed != int(first)]
    distances, indices = neighbours.nearest(new, places[allowed], min(_NEAREST, len(allowed)))
    near = allowed[indices[0].numpy()]
    around = neighbours.nearest(places[near], places[allowed], min(_NEAREST + 1, len(allowed)))
    others = neighbours.without_self(*around, indices[0])[0]
    return near.tolist(), distances[0].tolist(), float(others.mean()) if others.numel() else 0.0, cluster


def _cues(detector: Detector, one: Data) -> list[dict[str, Any]] | None:
    """The parts of a local score, which is their mean; None for a detector's own."""
    if not isinstance(detector, MeanOfCues):
        return None
    names: list[str] = []

    def stacked(batch: Batch) -> Tensor:
        cues = detector.named_cues(batch)
        names[:] = cues
        return torch.stack(list(cues.values()), 1)

    values = inference.over_batches(detector, one, stacked)[0].tolist()
    return [{"name": name, "value": value} for name, value in zip(names, values, strict=True)]


def _ordered(
    named: list[dict[str, Any]], gained: list[float], part: Tensor, values: Tensor, usual: Tensor
) -> list[dict[str, Any]]:
    """A row for each part: what is known of it, its mean here and at the usual, and what it adds, the most first."""
    rows = [
        known | {"value": float(values[part == i].mean()), "usual": float(usual[part == i].mean()), "contribution": g}
        for i, (known, g) in enumerate(zip(named, gained, strict=True))
    ]
    return sorted(rows, key=lambda row: -abs(row["contribution"]))


def _is_pooled(source: Source) -> bool:
    """Whether samples are pooled features of pictures, whose numbers say nothing to people."""
    return isinstance(source, ReadByBackbone) and source.read != "pixels" and not source.layers


def _drivers_in_picture(known: Known, source: Source | None, name: str, normal: str, seed: int) -> dict[str, Any]:
    """As `drivers`, on the way from the picture of the most similar normal to the sample's own; the score is that of
    what the backbone makes of each picture between. None where the pictures cannot be had."""
    none: dict[str, Any] = {"usual": None, "drivers": None}
    if not (isinstance(source, FromPictures) and isinstance(known.source, FromPictures)):
        return none
    pictures = [source.decoded([name]), known.source.decoded([normal])]
    if pictures[0] is None or pictures[1] is None or pictures[0].shape != pictures[1].shape:
        return none
    sample, reference = (each[0].permute(2, 0, 1).float() / 255 for each in pictures if each is not None)
    network = known.source.network().eval()

    @torch.no_grad()
    def features(images: Tensor) -> Tensor:
        return torch.cat([network(255 * part.permute(0, 2, 3, 1)) for part in images.split(_PICTURES)])

    def score(images: Tensor) -> Tensor:
        return inference.score(known.detector, Data(features(images), list(map(str, range(len(images)))), modality=ROW))

    part, named = IMAGE.divided(tuple(sample.shape))
    gained = shapley.contributions(score, sample, reference, part, 1, seed).tolist()
    rows = _ordered(named, gained, part, sample, reference)
    return {
        "usual": float(score(reference[None])[0]),
        "drivers": {"what": IMAGE.parts, "steps": 1, "rows": rows, "of_picture": normal},
    }


def drivers(detector: Detector, one: Data, reference: Tensor, seed: int) -> dict[str, Any]:
    """The score of the reference, and what each part of the sample adds to it on the way to the sample's own."""
    sample = one.read(torch.tensor([0]))[0]
    part, named = one.modality.divided(one.sample_shape, one.features)

    def score(samples: Tensor) -> Tensor:
        return inference.score(detector, Data(samples, list(map(str, range(len(samples)))), modality=one.modality))

    steps = shapley.steps_for(len(named), sample.numel())
    gained = shapley.contributions(score, sample, reference, part, steps, seed).tolist()
    rows = _ordered(named, gained, part, one.original(sample), one.original(reference))
    return {
        "usual": float(score(reference[None])[0]),
        "drivers": {
            "what": one.modality.parts,
            "steps": steps,
            "rows": rows,
        },
    }


def links(detector: Detector, samples: Data, at: int, seed: int = 0) -> dict[str, Any] | None:
    """By how much each neighbour raises the score of the node at this place among samples: the score less what it is
    without the edge between them. Of many neighbours 20 are drawn; None of what is no node, and of one that is read
    alone.

    Keys: `of`, how many neighbours there are; `rows` with `sample` and `contribution`, the most first.
    """
    graph = samples.context
    one = samples.take([at])
    hops = 0 if not isinstance(graph, Graph) else math.prod(one.sample_shape) // graph.nodes[0].numel() - 1
    if not isinstance(graph, Graph) or not (hops or detector.looks_around):
        return None
    node, edges = int(graph.asked[at]), graph.edges.numpy()
    near = np.unique(np.concatenate([edges[0][edges[1] == node], edges[1][edges[0] == node]]))
    drawn = np.sort(np.random.default_rng(seed).permutation(near)[:_LINKS]).tolist()
    names = dict(zip(graph.asked.tolist(), map(str, samples.names), strict=True))
    score = float(inference.score(detector, one)[0])
    rows = []
    for other in drawn:
        without = _without(one, graph, ~graphs.between(edges, node, other), hops, node)
        added = score - float(inference.score(detector, without)[0])
        rows.append({"sample": names.get(other, str(other)), "contribution": added})
    return {"of": len(near), "rows": sorted(rows, key=lambda row: -row["contribution"])}


def _without(one: Data, graph: Graph, kept: np.ndarray, hops: int, node: int) -> Data:
    """A node as it is with the edges that are kept [E]."""
    samples = one.read(torch.tensor([0]))
    edges, weights = graph.edges[:, kept], None if graph.weights is None else graph.weights[kept]
    if hops:
        row = torch.from_numpy(
            graphs.with_neighbours_at(
                graph.nodes.numpy(), edges.numpy(), hops, node, None if weights is None else weights.numpy()
            )
        )
        samples = (row - (0.0 if one.centre is None else one.centre)).float()[None]
    context = replace(graph, edges=edges, weights=weights, place=torch.tensor([node]))
    return replace(one, samples=samples, context=context)


def _where(box: dict[str, float]) -> str:
    spans = (("left", "right"), ("top", "bottom"))
    across, down = (sorted({f"{100 * box[side]:.0f}" for side in sides}, key=float) for sides in spans)
    return f"{' to '.join(across)} % from the left, {' to '.join(down)} % from the top"


def _regions(known: Known, one: Data) -> list[dict[str, Any]] | None:
    """The regions of the detector's map above its threshold, worst first; the worst place where nothing is."""
    scale = known.run.map_scale
    if scale is None or not known.detector.has_maps:
        return None
    found = next(iter(score_maps.of_data(known.detector, one, known.run.settings.smoothing)))
    flagged = found > scale.threshold
    if not flagged.any():
        flagged = found == found.max()
    scattered = known.detector.modality.scattered
    labelled, count = (flagged.astype(int), 1) if scattered else scipy.ndimage.label(flagged)
    rows: list[dict[str, Any]] = []
    for number in range(1, count + 1):
        inside = labelled == number
        box, highest = box_of(torch.from_numpy(inside)), float(found[inside].max())
        rows.append(
            {
                "name": f"{int(inside.sum())} points" if scattered else _where(box),
                "box": box,
                "highest": highest,
                "flagged": highest > scale.threshold,
            }
            | {"share": float(inside.mean()), "threshold": scale.threshold}
        )
    return sorted(rows, key=lambda row: -row["highest"])[:_REGIONS]


@dataclass(frozen=True, eq=False)
class _Replay:
    """The weighting applied once more, step by step, to one of a run's columns of scores [n].

    `weights` [n] before any step, after each, and after balancing.
    """

    column: str
    steps: tuple[Any, ...]
    names: tuple[str, ...]
    weights: tuple[Tensor, ...]

    def at(self, place: int) -> list[dict[str, Any]]:
        """What each step did to the weight of the sample at this place."""
        own = [float(w[place]) for w in self.weights]
        return [
            {"step": name, "before": before, "after": after}
            for name, before, after in zip(self.names, own[:-1], own[1:], strict=True)
        ]


def _replays(known: Known, fitted: pd.DataFrame) -> list[_Replay]:
    """The weighting of the first scores and, if that gives back the run's weights more nearly, of the last.

    A closed-form detector that was computed twice was weighed by its first scores alone; a trained one, by its last
    ones. Empty where there is nothing to replay.
    """
    settings = known.run.settings
    weighting = parse_weighting(settings.weighting)
    stored = torch.from_numpy(fitted["weight"].to_numpy(dtype=float).copy()).float()
    if not weighting.steps or not bool(torch.isfinite(stored).all()):
        return []
    base = _base(fitted, settings.balance)
    embedding = None
    if weighting.needs_embedding:
        chosen = np.flatnonzero(~known.table["held_out"].to_numpy())
        embedding = embedding_of(known.data.take(chosen), base=base)
    found, off = [], []
    for column in ("first_score", "trained_score"):
        scores = torch.from_numpy(fitted[column].to_numpy(dtype=float).copy()).float()
        # By the end a weighting that accumulates has gathered the weights that the run holds.
        past = weighting.needs_past and column == "trained_score"
        previous = stored / base.clamp_min(1e-12) if past else None
        present = base != 0
        seen = Context(scores, scores, embedding, previous, int(past)).of(present)
        traced = [unit_mean(torch.zeros(len(base)).masked_scatter(present, w)) for w in weighting.trace(seen)]
        names = tuple(repr(step) for step in weighting.steps)
        if settings.balance:
            traced.append(unit_mean(traced[-1] * base))
            names = (*names, "groups balanced")
        off.append(float((_log(traced[-1]) - _log(stored)).abs().mean()))
        found.append(_Replay(column, weighting.steps, names, tuple(traced)))
    return found if off[1] < off[0] else found[:1]


def _log(w: Tensor) -> Tensor:
    return w.clamp_min(1e-3).log()


def _base(fitted: pd.DataFrame, balance: bool) -> Tensor:
    """Base weights [n] of a fit: those of balanced groups, 0 for suspects."""
    base = torch.ones(len(fitted))
    if balance and "group" in fitted:
        count = fitted.groupby("group")["group"].transform("count").to_numpy(dtype=float)
        base = torch.from_numpy(1 / count).float()
    if "suspect" in fitted:
        base = base * torch.from_numpy(~fitted["suspect"].to_numpy(dtype=bool))
    return unit_mean(base)


def _weight(known: Known, fitted: pd.DataFrame, replays: Sequence[_Replay], name: str) -> dict[str, Any]:
    every = known.table["sample"].astype(str)
    if name not in set(every):
        raise InputError(f"no training sample is called {name!r}", _hint(name, every.tolist()))
    row = known.table[every == name].iloc[0]
    numbers = {key: _number(row[key]) for key in ("weight", "score", "first_score", "trained_score")}
    found: dict[str, Any] = {"sample": name, "held_out": bool(row["held_out"]), **numbers}
    found |= {"kind": known.kind(int(row["cluster"])), "quantiles": {}, "density": None, "rounds": []}
    notes = list(known.notes)
    if not found["held_out"]:
        at = int(np.flatnonzero(fitted["sample"].astype(str) == name)[0])
        columns = {key: fitted[key].to_numpy(dtype=float) for key in ("first_score", "trained_score")}
        found["quantiles"] = {key: float((scores < scores[at]).mean()) for key, scores in columns.items()}
        found["rounds"] = [{"scores": replay.column, "steps": replay.at(at)} for replay in replays]
        if replays:
            importance = next((step for step in replays[0].steps if isinstance(step, Importance)), None)
            scores = torch.tensor(columns["first_score"])
            found["density"] = None if importance is None else _densities(importance, scores, at)
            notes += _doubts(found)
    return found | {"sentence": _sentence(found), "notes": notes}


def _densities(importance: Importance, scores: Tensor, at: int) -> dict[str, float] | None:
    scaled, _ = importance.scale(scores, scores)
    if float(scaled.max() - scaled.min()) <= 1e-6 * max(float(scaled.abs().max()), 1e-30):
        return None
    own = scaled[at : at + 1]
    density, target = (float(fit(scaled).log_prob(own).exp()) for fit in (importance.density, importance.target))
    return {"scores": density, "target": target, "ratio": target / max(density, 1e-300)}


def _doubts(found: dict[str, Any]) -> list[str]:
    weight, replayed = found["weight"], found["rounds"][-1]["steps"][-1]["after"]
    if weight and replayed and max(weight / replayed, replayed / weight) <= _REPLAYED:
        return []
    return [
        f"the steps give {replayed:.3g} from the stored scores, but the run's weight is {weight:.3g}: earlier rounds, "
        "parts of samples or a refinement, which the run does not store, changed it too"
    ]


def _sentence(found: dict[str, Any]) -> str:
    if found["held_out"]:
        return "It was held out to set the threshold. It did not train and has no weight."
    weight = found["weight"]
    if weight is None:
        return "It has no weight, because it did not train."
    place = "above" if weight > 1.02 else "below" if weight < 0.98 else "about"
    first, last = (100 * found["quantiles"][key] for key in ("first_score", "trained_score"))
    text = f"Its weight is {weight:.3g}, {place} the mean of 1."
    text += f" Before weighting, {first:.0f} % of the training samples scored lower; after training, {last:.0f} %."
    if density := found["density"]:
        ratio = density["ratio"]
        text += f" The target holds {ratio:.2g} times as many scores like its first one as the training data."
    if kind := found["kind"]:
        text += f" It belongs to cluster {kind['name']}, which holds {kind['size']} of {kind['of']} samples."
    else:
        text += " It belongs to no cluster."
    if found["rounds"]:
        most = max(found["rounds"][0]["steps"], key=lambda step: abs(_factor(step)))
        text += f" At the start, {most['step']} had the largest effect: it changed the weight from "
        text += f"{most['before']:.3g} to {most['after']:.3g}."
    return text


def _factor(step: dict[str, Any]) -> float:
    """What a step multiplied the weight by, as a logarithm."""
    return float(np.log(max(step["after"], 1e-9) / max(step["before"], 1e-9)))


def _number(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None

"""What adapting a finished detector to changed normals gains: TUNE on graphs, RADA on pictures, and their rivals.

    TAILWISE_DATA=DIRECTORY python benchmarks/adapt.py graphs [--of block ...] [--seeds ...]
    TAILWISE_DATA=DIRECTORY python benchmarks/adapt.py tiles|textures|pacs|boards [--shares 0 0.3 0.6] [--seeds ...]
        [--methods ...]
    python benchmarks/adapt.py thresholds
    python benchmarks/adapt.py page

Graphs: the rarest class is the anomalies (those of the training graph are labelled), another class is normal and
unseen: it is absent from the training graph and in the target. Half of all other nodes are the training graph, half the
target. Cora and CiteSeer are those with injected anomalies, without the injected nodes. Attributes are 64 principal
components. "block" is a generated block model, "block, none unseen" one without an unseen class. Labels are read by the
metric only.

Tiles: a run of good tiles meets good and bad ones under the corruptions of Hendrycks & Dietterich at severity 3. So do
boards, whose kinds are told apart, and generated textures. PACS: a run of photographs of one class meets paintings and
cartoons of all.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import warnings
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

# isort: split
import numpy as np
import pandas as pd
import scipy.io
import scipy.ndimage
import scipy.sparse
import torch
from PIL import Image
from torch import Tensor

from tailwise.backbones import networks, norms
from tailwise.backbones.pictures import OfPictures
from tailwise.benchmark import rows
from tailwise.benchmark.tables import table
from tailwise.calibration import conformal
from tailwise.calibration.clusters import Clusters, Placed
from tailwise.core import inference, registry
from tailwise.core.context import Graph
from tailwise.core.data import Data
from tailwise.core.modality import FEATURE_MAP, ROW
from tailwise.core.problem import Labelled
from tailwise.numerics import graphs, metrics
from tailwise.runs import files
from tailwise.sources.graph_files import read_graph
from tailwise.sources.paths import find_path
from tailwise.training import adapt
from tailwise.training import fit as training_fit
from tailwise.training.adaptations import tune
from tailwise.training.options import Training
from tailwise.workflows import density_ratio

ROOT = Path(__file__).parent
RESULTS, PAGE = ROOT / "results" / "adapt.jsonl", ROOT / "adapt.md"
BLOCK, ALL_SEEN = "block", "block, none unseen"
GRAPHS = {
    BLOCK: "", ALL_SEEN: "", "Cora": "injected/cora.mat", "CiteSeer": "injected/citeseer.mat",
    "chameleon": "chameleon_filtered.npz", "squirrel": "squirrel_filtered.npz", "BlogCatalog": "blogcatalog.npz",
}  # fmt: skip
COMPONENTS, SHARE = 64, 0.95
AS_GADBENCH = Training(epochs=100, lr=0.01)
VARIANTS = ("none", "auxiliary", "mean", "main", "full", "default", "published")


def block_model(seed: int, unseen: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Attributes [N, 16], edges and classes: four classes of normals, the last of which may be absent, and -1 the
    anomalies, which lie between and are joined to any."""
    generator = np.random.default_rng(seed)
    sizes = [300, 300, 300, 200 if unseen else 0]
    y = np.repeat([0, 1, 2, 3, -1], [*sizes, 80])
    centres = generator.normal(size=(5, 16)) * 0.7

    x = centres[y] + generator.normal(size=(len(y), 16))
    same = (y[:, None] == y[None]) & (y[:, None] >= 0)
    drawn = generator.random((len(y), len(y))) < np.where(same, 0.012, 0.002)
    return x.astype(np.float32), np.stack(np.nonzero(np.triu(drawn, 1))), y


def real_graph(of: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Attributes, edges and classes of a graph, the rarest class being -1."""
    found = read_graph(find_path(f"graph/{GRAPHS[of]}"))
    x, edges, y = found.x, found.edges, found.said[found.labels]
    if "Class" in found.said:  # of those with injected anomalies the others
        kept = np.flatnonzero(y == 0)
        place = np.full(len(y), -1)
        place[kept] = np.arange(len(kept))
        x, y = x[kept], found.said["Class"][kept]
        edges = place[edges[:, (place[edges] >= 0).all(0)]]
    values = torch.from_numpy(x)
    torch.manual_seed(0)
    u, s, _ = torch.pca_lowrank(values, min(COMPONENTS, values.shape[1]))
    _, y, counts = np.unique(y, return_inverse=True, return_counts=True)
    return (u * s).numpy(), edges, np.where(y == counts.argmin(), -1, y)


def split(of: str, seed: int) -> tuple[Data, np.ndarray, Data, np.ndarray, int]:
    """The training graph with its classes, the target with its own, and which class is unseen."""
    if of in (BLOCK, ALL_SEEN):
        x, edges, y = block_model(seed, of == BLOCK)
        unseen = 3
    else:
        x, edges, y = real_graph(of)
        others = np.unique(y[y >= 0])
        unseen = int(others[seed % len(others)])
    generator = np.random.default_rng(seed)
    trains = (generator.random(len(y)) < 0.5) & (y != unseen)
    parts = [_part(x, edges, np.flatnonzero(chosen)) for chosen in (trains, ~trains)]
    return parts[0], y[trains], parts[1], y[~trains], unseen


def _part(x: np.ndarray, edges: np.ndarray, nodes: np.ndarray) -> Data:
    place = np.full(len(x), -1)
    place[nodes] = np.arange(len(nodes))
    inside = place[edges][:, (place[edges] >= 0).all(0)]
    tidied = graphs.tidied(inside, len(nodes), False)
    values = torch.from_numpy(x[nodes])
    return Data(values, [str(i) for i in nodes], (), Graph(values, torch.from_numpy(tidied.edges)), ROW)


def graph_rows(of: str, seed: int) -> Iterable[tuple[str, dict[str, Any]]]:
    """Figures of each variant."""
    train, y_train, target, y, unseen = split(of, seed)
    known = np.flatnonzero(y_train < 0)
    normal = train.take(np.flatnonzero(y_train >= 0))
    detector: Any = registry.parse_one("graph-classifier", "detector")
    training_fit.fit(
        detector,
        normal,
        training=AS_GADBENCH,
        seed=seed,
        anomalies=Labelled(train.take(known), np.ones(len(known), bool)),
    )
    detector.eval()
    before = {name: value.clone() for name, value in detector.state_dict().items()}
    scores = inference.score(detector, target).double().numpy()

    def adapted(method: tune.TUNE) -> adapt.Adapted:
        source = adapt.Source(inference.score(detector, normal).double().numpy())
        drawn = torch.Generator().manual_seed(seed)
        return method.adapt(adapt.Asked(detector, target, scores, source, drawn))

    default, published = adapted(tune.TUNE()), adapted(tune.TUNE(mode="published"))
    veto = tune._MOST_LOST, tune._LEAST_RANK, tune._LEAST_FALL
    tune._MOST_LOST, tune._LEAST_RANK, tune._LEAST_FALL = 1.0, -2.0, -2.0  # the same without its veto
    full = adapted(tune.TUNE())
    tune._MOST_LOST, tune._LEAST_RANK, tune._LEAST_FALL = veto
    graph = target.context
    assert isinstance(graph, Graph)
    x = detector.attributes(graph.nodes)
    with torch.no_grad():
        plain = [detector.logit(h) for h in (detector.placed(x, graph), detector.placed_alone(x))]
        main = detector.logit(detector.placed(_aligned(full.detector, graph), graph))
    found = {
        "none": scores, "auxiliary": plain[1].numpy(), "main": main.numpy(),
        "mean": tune.combined(*plain).numpy(),
        "full": inference.score(full.detector, target).numpy(),
        "default": inference.score(default.detector, target).numpy(),
        "published": inference.score(published.detector, target).numpy(),
    }  # fmt: skip
    same = all(torch.equal(value, before[name]) for name, value in detector.state_dict().items())
    for name in VARIANTS:
        made = {"default": default, "full": full, "main": full, "published": published}.get(name)
        yield name, _figures(found[name], y, unseen) | {
            "adapted": None if made is None else made.adapted,
            "figures": {} if made is None else made.figures, "detector_unchanged": same,
        }  # fmt: skip


def _aligned(detector: Any, graph: Graph) -> Any:
    return detector.aligned(graph)


def _figures(scores: np.ndarray, y: np.ndarray, unseen: int) -> dict[str, Any]:
    """AUROC, and how many of the unseen normals lie above what 5 % of the seen ones do."""
    limit = np.quantile(scores[(y >= 0) & (y != unseen)], SHARE)
    new = scores[y == unseen]
    return {"auroc": metrics.auroc(y < 0, scores), "unseen_flagged": float((new > limit).mean()) if len(new) else None}


CORRUPTIONS: dict[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {
    "clean": lambda x, _: x,
    "brightness": lambda x, _: x + 0.3,
    "contrast": lambda x, _: (x - x.mean()) * 0.2 + x.mean(),
    "defocus": lambda x, _: _defocused(x),
    "noise": lambda x, generator: x + generator.normal(0, 0.18, x.shape),
}
SIDE, LAYERS, NORMALS, HELD, ADAPTED, TESTED = 160, (4, 10), 80, 20, 40, 40
KEPT = 16  # normals that a run keeps
# The share of good pictures flagged at which kinds are compared.
FLAGGED = 0.1
METHODS = (
    "Nothing()", "Moments()", "Sinkhorn()", "RADA()", "RADA(assignment='plain')",
    "RADA(steps=60, rate=0.005, start='source')",
    "RADA(assignment='mutual', steps=60, rate=0.005, start='source')",
    "RADA(assignment='partial', steps=60, rate=0.005, start='source')",
    "RADA(steps=60, parameters='norm')", "RADA(steps=60, parameters='norm', statistics='target')",
    "RADA(statistics='mixed')", "Statistics()", "Update(keep=0.7)",
)  # fmt: skip
SHARES = (0.0, 0.3, 0.6)


def _defocused(x: np.ndarray, radius: float = 3.0) -> np.ndarray:
    """Blurred by a disk."""
    reach = np.arange(-3, 4)
    disk = (reach[:, None] ** 2 + reach[None] ** 2 <= radius**2).astype(float)
    return np.stack([scipy.ndimage.convolve(each, disk / disk.sum(), mode="nearest") for each in x])


@dataclass(frozen=True)
class Pictures:
    """Pictures of parts, as a source knows them and as they are after a change.

    Attributes:
        shifts: the changes, the first of which is none.
        good, bad: what is there under a change; the same things where the change is made here.
        picture: a thing under a change, [3, SIDE, SIDE] in 0..1.
        kinds: the kind of a good one, where kinds are told apart.
    """

    shifts: tuple[str, ...]
    good: Callable[[str], list[Any]]
    bad: Callable[[str], list[Any]]
    picture: Callable[[Any, str], np.ndarray]
    kinds: Callable[[Any], str] | None = None

    def pictures(self, things: list[Any], shift: str) -> Tensor:
        """[n, SIDE, SIDE, 3] in the 8 bits that they are stored in."""
        read = [np.round(self.picture(each, shift).clip(0, 1) * 255) for each in things]
        return torch.from_numpy(np.stack(read).transpose(0, 2, 3, 1).astype(np.uint8))

    def _drawn(self, shift: str, seed: int) -> tuple[list[Any], list[Any]]:
        """Good and bad things in drawn orders, which are those of every change where the things are."""
        generator = np.random.default_rng(seed)
        good, bad = self.good(shift), self.bad(shift)
        return [good[i] for i in generator.permutation(len(good))], [bad[i] for i in generator.permutation(len(bad))]

    def rows(self, seed: int, asked: Iterable[dict[str, Any]]) -> Iterable[tuple[dict[str, Any], dict[str, Any]]]:
        """Settings and figures of each change, share of anomalies and method that is asked for."""
        asked = list(asked)
        network = OfPictures(networks.features("efficientnet-lite0", LAYERS))
        first = self.shifts[0]
        good = self._drawn(first, seed)[0]
        learnt = min(NORMALS, len(good) * 5 // 8)
        train, held = good[:learnt], good[learnt : learnt + HELD]
        learnt_from = self.pictures(train, first)
        normals = _maps(learnt_from, network)
        detector = registry.parse_one("PatchMemory(share=0.05, most=1500)", "detector")
        training_fit.fit(detector, normals, seed=seed)
        calibration = inference.score(detector, _maps(self.pictures(held, first), network)).double().numpy()
        source = adapt.Source(calibration, normals.read(torch.arange(KEPT)))
        for shift in dict.fromkeys(each["corruption"] for each in asked):
            good, bad = self._drawn(shift, seed)
            rest = [each for each in good if each not in train and each not in held]
            tested = min(TESTED, len(rest) // 2)
            test, labels = rest[:tested] + bad[:tested], np.arange(2 * tested) >= tested
            others = rest[tested:][:ADAPTED]
            shown = self.pictures(test, shift)
            target = self.pictures([*others, *bad[tested:][:ADAPTED]], shift)
            read, unlabelled = _maps(shown, network), _maps(target, network)
            for each in (each for each in asked if each["corruption"] == shift):
                odd = round(each["share"] * len(others))
                chosen = [*range(len(others) - odd), *range(len(others), len(others) + odd)]
                some = unlabelled.take(chosen)
                scores = inference.score(detector, some).double().numpy()
                drawn = torch.Generator().manual_seed(seed)
                seen = partial(norms.Pictured, target[chosen], network, learnt_from[:KEPT])
                made = adapt.parse(each["method"]).adapt(adapt.Asked(detector, some, scores, source, drawn, seen))
                now = _maps(shown, made.pictured.network) if isinstance(made.pictured, norms.Pictured) else read
                found = inference.score(made.detector, now).numpy()
                figures = {"auroc": metrics.auroc(labels, found), "adapted": made.adapted, "figures": made.figures}
                if self.kinds is not None:
                    figures["flagged"] = _flagged([self.kinds(each) for each in test[:tested]], found[:tested])
                yield each, figures


def _maps(pictures: Tensor, network: OfPictures) -> Data:
    """Feature maps of pictures [n, SIDE, SIDE, 3]."""
    assert network.features is not None
    with torch.no_grad():
        read = [network.features(each.permute(0, 3, 1, 2).float() / 255) for each in pictures.split(16)]
    return Data(torch.cat(read), [str(i) for i in range(len(pictures))], modality=FEATURE_MAP)


def _flagged(kinds: list[str], scores: np.ndarray) -> dict[str, tuple[int, int]]:
    """Of each kind of good pictures how many score above nine tenths of all, and how many there are."""
    above = scores > np.quantile(scores, 1 - FLAGGED)
    return {kind: (int(above[np.array(kinds) == kind].sum()), kinds.count(kind)) for kind in sorted(set(kinds))}


def _opened(path: Path, shift: str) -> np.ndarray:
    """A picture under a corruption, whose noise follows from its name."""
    picture = Image.open(path).convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    return _corrupted(np.asarray(picture, dtype=np.float64).transpose(2, 0, 1) / 255, shift, path.name)


def _corrupted(picture: np.ndarray, shift: str, name: str) -> np.ndarray:
    return CORRUPTIONS[shift](picture, np.random.default_rng(zlib.crc32(name.encode())))


def _of_folder(name: str, kinds: Callable[[Path], str] | None = None) -> Pictures:
    home = Path(os.environ["TAILWISE_DATA"]) / "images" / name
    good = sorted((home / "train" / "good").glob("*")) + sorted((home / "test" / "good").glob("*"))
    bad = sorted(path for path in (home / "test").glob("*/*") if path.parent.name != "good")
    return Pictures(tuple(CORRUPTIONS), lambda _: good, lambda _: bad, _opened, kinds)


def _boards() -> Pictures:
    home = Path(os.environ["TAILWISE_DATA"]) / "images" / "deeppcb"
    boards = dict(zip(*pd.read_csv(home / "groups.csv")[["file", "board"]].to_numpy().T, strict=True))
    return _of_folder("deeppcb", lambda path: boards[str(path.relative_to(home))])


def _pacs(seed: int) -> Pictures:
    """One class is normal, as photographs, and later as paintings or cartoons; the others are anomalies."""
    home = Path(os.environ["TAILWISE_DATA"]) / "images" / "pacs"
    classes = sorted(path.name for path in (home / "photo").iterdir())
    normal = classes[seed % len(classes)]

    def of(domain: str, names: list[str]) -> list[Path]:
        return [path for name in names for path in sorted((home / domain / name).glob("*"))]

    return Pictures(
        ("photo", "art_painting", "cartoon"), lambda domain: of(domain, [normal]),
        lambda domain: of(domain, [name for name in classes if name != normal]), lambda path, _: _opened(path, "clean"),
    )  # fmt: skip


def _textures(seed: int) -> Pictures:
    """Noise of one spectrum, one texture a seed, and with a patch of another in it."""
    good, bad = [(seed, i, False) for i in range(NORMALS + HELD + 2 * TESTED)], [(seed, i, True) for i in range(80)]

    def picture(thing: tuple[int, int, bool], shift: str) -> np.ndarray:
        of, number, odd = thing
        generator = np.random.default_rng([of, number, odd])
        widths = np.random.default_rng(of).uniform(0.7, 4, (2, 2))
        made, other = (_noise(width, generator) for width in widths)
        if odd:
            side, (top, left) = generator.integers(12, 30), generator.integers(0, SIDE - 30, 2)
            made[:, top : top + side, left : left + side] = other[:, top : top + side, left : left + side]
        return _corrupted(made, shift, str(thing))

    return Pictures(tuple(CORRUPTIONS), lambda _: good, lambda _: bad, picture)


def _noise(width: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """[3, SIDE, SIDE] around a half: grey noise, smoothed by a Gaussian of so many pixels each way."""
    made = scipy.ndimage.gaussian_filter(generator.normal(size=(SIDE, SIDE)), width, mode="wrap")
    return np.repeat((0.5 + 0.15 * made / made.std())[None], 3, 0)


NAMES = {"tiles": "magnetic tiles", "textures": "generated textures", "pacs": "PACS", "boards": "circuit boards"}
# What is adapted, by its name: from a seed.
PICTURES: dict[str, Callable[[int], Pictures]] = {
    "tiles": lambda _: _of_folder("magnetic_tile"), "textures": _textures, "pacs": _pacs, "boards": lambda _: _boards(),
}  # fmt: skip


# How the target of generated rows differs: in the scale and the level of each feature, in how common its kinds of
# normal are, or by a kind that the old data lacks.
CHANGES = {"light": (0.6, 0.3, 0.1, 0), "shares": (0.2, 0.3, 0.5, 0), "new kind": (0.4, 0.2, 0.1, 0.3)}
OLD_KINDS, KIND_SPREADS = CHANGES["light"], np.array([1, 1, 1.6, 1])
THRESHOLD_METHODS = {
    "light": ("Moments()", "RADA(steps=100, rate=0.02, start='source')"),
    "shares": ("Nothing()",), "new kind": ("Nothing()",),
}  # fmt: skip
LIMIT, DRAWN = 0.05, 100


def threshold_row(change: str, method: str, share: float) -> dict[str, Any]:
    """Of many draws of a target, how much of its fresh normals the new threshold flags, and the one carried over."""
    found = [_threshold_draw(change, method, share, draw) for draw in range(DRAWN)]
    given = [each for each in found if each["carried_flagged"] is not None]
    figures: dict[str, Any] = {"auroc": None, "adapted": None, "draws": DRAWN, "given": len(given)}
    for name in ("flagged", "caught", "unlike", "carried_flagged", "carried_flagged_alike", "carried_caught"):
        values = [each[name] for each in (given if name.startswith("carried") else found)]
        figures[name] = float(np.mean(values)) if values else None
        figures[f"{name}_spread"] = float(np.std(values) / len(values) ** 0.5) if values else None
    return figures


def _threshold_draw(change: str, method: str, share: float, draw: int) -> dict[str, Any]:
    generator = np.random.default_rng(draw)
    centres = 3 * generator.normal(size=(4, 4))
    stretch, shift = generator.uniform(0.7, 1.4, 4), 2 * generator.normal(size=4)
    if change != "light":
        stretch, shift = np.ones(4), np.zeros(4)

    def normals(count: int, shares: tuple[float, ...]) -> np.ndarray:
        kind = generator.choice(4, count, p=shares)
        return centres[kind] + generator.normal(size=(count, 4)) * KIND_SPREADS[kind, None]

    def anomalies(count: int) -> np.ndarray:
        return 6 * generator.normal(size=(count, 4))

    train, held_out = _rows_of(normals(200, OLD_KINDS)), _rows_of(normals(100, OLD_KINDS))
    detector = registry.parse_one("nearest-neighbours", "detector")
    training_fit.fit(detector, train, seed=draw)
    calibration = inference.score(detector, held_out).double().numpy()
    source = adapt.Source(calibration, train.read(torch.arange(len(train))), True)
    odd = round(share * 100)
    x = np.concatenate([normals(100 - odd, CHANGES[change]), anomalies(odd)])[generator.permutation(100)]
    target = _rows_of(x * stretch + shift)
    chosen, held = target.take(range(70)), target.take(range(70, 100))
    scores = inference.score(detector, chosen).double().numpy()
    drawn = torch.Generator().manual_seed(draw)
    made = adapt.parse(method).adapt(adapt.Asked(detector, chosen, scores, source, drawn)).detector
    limit = conformal.conformal_threshold(inference.score(made, held).double().numpy(), LIMIT)
    clusters = Clusters.learn(held_out, draw)

    def placed(data: Data) -> Placed:
        return clusters.place(made.aligned_data(data) if isinstance(made, adapt.Realigned) else data)

    unlike = placed(target).unknown.numpy()
    carried = density_ratio.carried_threshold(
        calibration[clusters.rows], clusters.along(100).numpy()[clusters.rows], placed(target).along.numpy()[~unlike],
        LIMIT, draw,
    ).threshold  # fmt: skip
    fresh = [_rows_of(each * stretch + shift) for each in (normals(500, CHANGES[change]), anomalies(500))]
    found = [inference.score(made, each).numpy() for each in fresh]
    figures: dict[str, Any] = {"flagged": float((found[0] > limit).mean()), "caught": float((found[1] > limit).mean())}
    names = ("carried_flagged", "carried_caught", "carried_flagged_alike")
    figures |= {"unlike": float(unlike.mean())} | dict.fromkeys(names)
    if carried is not None:
        above = [each > carried for each in found]
        alike = ~placed(fresh[0]).unknown.numpy()
        values = above[0].mean(), above[1].mean(), (above[0] & alike).mean()
        figures |= dict(zip(names, map(float, values), strict=True))
    return figures


def _rows_of(x: np.ndarray) -> Data:
    return Data(torch.from_numpy(x.astype(np.float32)), [str(i) for i in range(len(x))], modality=ROW)


HEAD = """# Adapting to normals that have changed

Written by `benchmarks/adapt.py` from results/adapt.jsonl; its head says how. AUROC, mean over seeds. Of TUNE, "mean" is
the plain mean of both branches without aligner, "main" the aligned network, "full" both without veto, "default" what
`tailwise adapt` does. Seeds 0 to 5 of the block model and 0 to 2 of the others chose which attributes move, when it
stops, and the veto by the old graph's labelled anomalies.
"""
THRESHOLDS = f"""
## Thresholds made anew at 5 %, on fresh normals of the target

Generated rows of {len(OLD_KINDS) - 1} kinds, {DRAWN} draws: 200 rows learnt, 100 old ones to calibrate, 100 of the
target, of which 30 are held out. The target's features are scaled and shifted ("light"), its kinds are otherwise common
("shares"), or three tenths are a kind that the old data lacks. "Held out" is the threshold of an adapted run; it
promises at most .05 of the target's samples. "Carried over" is from old calibration scores by weighted conformal
prediction; it promises .05 of normals that are not unlike every old sample, and nothing of the others. Means with their
standard errors.

"""
# Draws of pictures that chose nothing.
FRESH = {"textures": range(20, 24), "tiles": range(3, 6)}
DRAWS = {"development": range(3), "fresh": range(110, 116)}


def page() -> str:
    found = [row for row in rows.read_rows(RESULTS) if row["status"] == "ok"]
    graph = [row for row in found if row["settings"]["part"] == "graphs"]
    text = HEAD
    for draw, seeds in DRAWS.items():
        here = [row for row in graph if row["settings"]["seed"] in seeds]
        if here:
            text += f"\n## TUNE on graphs, {draw} draws\n\n{_graphs(here)}\n"
            text += "\nUnseen normals above what 5 % of the seen ones score above:\n\n"
            text += f"{_graphs(here, 'unseen_flagged')}\n"
    if limits := [row for row in found if row["settings"]["part"] == "thresholds"]:
        text += THRESHOLDS + _limits(limits) + "\n"
    for part, share, fresh in product(PICTURES, SHARES, (False, True)):
        here = [
            row for row in found
            if (row["settings"]["part"], row["settings"].get("share")) == (part, share)
            and (row["settings"]["seed"] in FRESH.get(part, ())) == fresh
        ]  # fmt: skip
        if here:
            named = f"{NAMES[part]}{', fresh draws' if fresh else ''}"
            text += f"\n## RADA on {named}, {share:.0%} anomalies in the adaptation set\n\n{_pictures(here)}\n"
        if here and "flagged" in here[0]:
            text += f"\nShare of each kind's good pictures flagged where a tenth of all are:\n\n{_kinds(here)}\n"
    return text


def _limits(limits: list[dict[str, Any]]) -> str:
    def mean(row: dict[str, Any], name: str) -> str:
        return "none" if row[name] is None else f"{row[name]:.3f} +- {row[f'{name}_spread']:.3f}"

    names = ("flagged", "caught", "unlike", "carried_flagged_alike", "carried_flagged", "carried_caught")
    head = (
        "target differs in", "method", "anomalies", "held out: normals flagged", "anomalies caught",
        "target unlike all old", "carried over: normals flagged that are like old ones", "all normals flagged",
        "anomalies caught", "given",
    )  # fmt: skip
    lines = [
        [
            row["settings"]["change"], row["settings"]["method"], f"{row['settings']['share']:.0%}",
            *(mean(row, name) for name in names), f"{row['given']} of {row['draws']}",
        ]
        for row in limits
    ]  # fmt: skip
    return table(list(head), lines)


def _graphs(here: list[dict[str, Any]], figure: str = "auroc") -> str:
    lines = []
    for of in GRAPHS:
        cells = []
        for name in VARIANTS:
            values = [
                row[figure] for row in here
                if (row["settings"]["of"], row["settings"]["variant"]) == (of, name) and row[figure] is not None
            ]  # fmt: skip
            cells.append(f"{np.mean(values):.3f}" if values else "")
        made = [
            row["adapted"] for row in here if (row["settings"]["of"], row["settings"]["variant"]) == (of, "default")
        ]
        if any(cells):
            lines.append([of, *cells, f"{sum(made)} of {len(made)}"])
    return table(["graph", *VARIANTS, "adapted by default"], lines)


def _pictures(here: list[dict[str, Any]]) -> str:
    """AUROC of each method under each change, and its mean over the changes."""
    shifts = list(dict.fromkeys(row["settings"]["corruption"] for row in here))
    lines = []
    for method in METHODS:
        of_method = [row for row in here if row["settings"]["method"] == method]
        if not of_method:
            continue
        cells = [
            float(np.mean([row["auroc"] for row in of_method if row["settings"]["corruption"] == shift]))
            for shift in shifts
        ]
        seeds = len({row["settings"]["seed"] for row in of_method})
        made = [row["adapted"] for row in of_method if row["settings"]["corruption"] != shifts[0]]
        shown = [*cells, float(np.mean(cells[1:]))]
        lines.append([method, *(f"{cell:.3f}" for cell in shown), f"{sum(made)} of {len(made)}", str(seeds)])
    return table(["method", *shifts, "mean of the shifts", "adapted", "seeds"], lines)


def _kinds(here: list[dict[str, Any]]) -> str:
    """Of each kind's good pictures the share flagged where a tenth of all are, over changes and seeds."""
    kinds = sorted({kind for row in here for kind in row["flagged"]})
    lines = []
    for method in METHODS:
        of_method = [
            row["flagged"] for row in here
            if row["settings"]["method"] == method and row["settings"]["corruption"] != "clean"
        ]  # fmt: skip
        counts = [np.sum([each.get(kind, (0, 0)) for each in of_method], axis=0) for kind in kinds]
        if of_method:
            lines.append([method, *(f"{flagged / of:.2f}" if of else "" for flagged, of in counts)])
    return table(["method", *kinds], lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("graphs", *PICTURES, "thresholds", "page"))
    parser.add_argument("--of", nargs="+", default=list(GRAPHS), choices=list(GRAPHS))
    parser.add_argument("--shares", nargs="+", type=float, default=list(SHARES))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    asked = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    if asked.part == "graphs":
        for of in asked.of:
            for seed in asked.seeds:
                settings = {"part": "graphs", "of": of, "seed": seed}
                if not _known(settings | {"variant": VARIANTS[-1]}):
                    for variant, figures in graph_rows(of, seed):
                        _keep(settings | {"variant": variant}, figures)
    elif asked.part in PICTURES:
        for seed in asked.seeds:
            pictures, of = PICTURES[asked.part](seed), {"part": asked.part, "seed": seed}
            missing = [
                settings
                for settings in _pictured(pictures.shifts, asked.shares, asked.methods)
                if not _known(of | settings)
            ]
            for settings, figures in pictures.rows(seed, missing):
                _keep(of | settings, figures)
    elif asked.part == "thresholds":
        for change, methods in THRESHOLD_METHODS.items():
            for method in methods:
                for share in SHARES:
                    settings = {"part": "thresholds", "change": change, "method": method, "share": share}
                    if not _known(settings):
                        _keep(settings, threshold_row(change, method, share))
    files.write(PAGE, page().encode())


def _pictured(shifts: tuple[str, ...], shares: list[float], methods: list[str]) -> list[dict[str, Any]]:
    """Settings of rows of pictures."""
    return [
        {"corruption": shift, "share": share, "method": method}
        for shift, share, method in product(shifts, shares, methods)
    ]


def _known(settings: dict[str, Any]) -> bool:
    """Whether there is a row of these settings."""
    return any(row["settings"] == settings for row in rows.read_rows(RESULTS))


def _keep(settings: dict[str, Any], figures: dict[str, Any]) -> None:
    row = {"settings": settings, "status": "ok", **figures, "commit": rows.commit(), "versions": rows.versions()}
    rows.append(RESULTS, row)
    print(
        json.dumps({"settings": settings, "auroc": row["auroc"], "adapted": row["adapted"]}),
        file=sys.stderr,
        flush=True,
    )


if __name__ == "__main__":
    main()

"""Draw the figures of docs/theory.md: python docs/figures.py. Generated data, fixed seeds, a few seconds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes

from tailwise.core import inference
from tailwise.core.data import Data
from tailwise.core.registry import parse
from tailwise.detectors.autoencoder import AutoEncoder
from tailwise.numerics.neighbours import walk_spread
from tailwise.report import plots
from tailwise.runs.files import write
from tailwise.training.fit import fit
from tailwise.weights.default import parse_weighting
from tailwise.weights.densities import KDE, Gaussian
from tailwise.weights.steps import Importance
from tailwise.weights.weighting import Context, Weighting, effective_sample_size

DOCS = Path(__file__).parent
COLOURS = (plots.GREY, plots.BLUE, plots.ORANGE, plots.RED)
Drawing = Callable[[Axes], Axes]


def skewed() -> torch.Tensor:
    """Log scores of frequent kinds at 0 and of a rare one three widths to the right."""
    generator = torch.Generator().manual_seed(0)
    return torch.cat([torch.randn(4_000, generator=generator), 4 + 0.7 * torch.randn(120, generator=generator)])


def place_of_the_target(axes: Axes) -> Axes:
    """The relative ratio over the scores, for targets at different places and of different widths."""
    scores = skewed()
    grid = torch.linspace(-3, 6, 300)
    for colour, (shift, scale) in zip(COLOURS, ((0, 1), (1, 1), (2, 1), (2, 2)), strict=True):
        step = Importance(target=Gaussian(shift=float(shift), scale=float(scale)), log=False)
        w = step(torch.ones_like(grid), Context(grid, scores))
        mean = step(torch.ones_like(scores), Context(scores, scores)).mean()
        axes.plot(grid, w / mean, color=colour, linewidth=1.5, label=f"shift {shift}, scale {scale}")
    return _lines(axes, "log score", "weight")


def densities(axes: Axes) -> Axes:
    """The scores' density and the targets."""
    scores = skewed()
    grid = torch.linspace(-3, 6, 300)
    axes.fill_between(grid, KDE()(scores).log_prob(grid).exp(), color=plots.BLUE, alpha=0.25, label="scores")
    for colour, (shift, scale) in zip(COLOURS, ((0, 1), (1, 1), (2, 1), (2, 2)), strict=True):
        target = Gaussian(shift=float(shift), scale=float(scale))(scores)
        axes.plot(grid, target.log_prob(grid).exp(), color=colour, linewidth=1.5, label=f"shift {shift}, scale {scale}")
    return _lines(axes, "log score", "density")


def bound(axes: Axes) -> Axes:
    """Largest weight and effective sample share against alpha."""
    scores = skewed()
    alphas = np.linspace(0.01, 1, 40)
    found = []
    for alpha in alphas:
        w = Importance(alpha=float(alpha), log=False)(torch.ones_like(scores), Context(scores, scores))
        found.append((float(w.max() * alpha), effective_sample_size(w) / len(w)))
    axes.plot(alphas, [x for x, _ in found], color=plots.ORANGE, linewidth=1.5, label="largest ratio x alpha")
    axes.plot(alphas, [x for _, x in found], color=plots.BLUE, linewidth=1.5, label="effective sample share")
    return _lines(axes, "alpha", "share")


def rare_and_hard() -> tuple[torch.Tensor, np.ndarray, torch.Tensor]:
    """Places [n, 8], kinds and scores: a frequent easy kind, a frequent hard one, and a rare easy one."""
    generator = torch.Generator().manual_seed(0)
    sizes, hardness = (900, 540, 60), (0.0, 1.5, 0.3)
    kinds = np.repeat(["frequent", "hard", "rare"], sizes)
    centres = 12 * torch.eye(3, 8).repeat_interleave(torch.tensor(sizes), 0)
    places = centres + torch.randn(sum(sizes), 8, generator=generator)
    scores = torch.repeat_interleave(torch.tensor(hardness), torch.tensor(sizes))
    return places, kinds, (scores + 0.4 * torch.randn(len(scores), generator=generator)).exp()


def what_sees_what(axes: Axes) -> Axes:
    """Mean weight of each kind by the score alone, by the walk alone, and by both."""
    places, kinds, scores = rare_and_hard()
    chains = ("Importance()", "Rarity(power=0.75)", "Importance(), Smooth(), Rarity(power=0.75), Clip()")
    names = ("score", "walk", "both")
    for place, (chain, colour) in enumerate(zip(chains, COLOURS[1:], strict=True)):
        w = Weighting(*parse(chain, ("step", "density")))(Context(scores, scores, places)).numpy()
        means = [w[kinds == kind].mean() for kind in ("frequent", "hard", "rare")]
        axes.bar(np.arange(3) + 0.27 * (place - 1), means, 0.25, color=colour, label=names[place])
    axes.axhline(1, color=plots.GREY, linewidth=1, linestyle=(0, (4, 2)))
    axes.set_xticks(range(3), ["frequent, easy", "frequent, hard", "rare, easy"])
    axes.set_ylabel("mean weight")
    axes.legend(frameon=False)
    return axes


def cut_off(axes: Axes) -> Axes:
    """How far walks from a rare kind and from the border of a continuum get with their length."""
    generator = torch.Generator().manual_seed(0)
    cloud = torch.randn(1_500, 4, generator=generator) * torch.tensor([4.0, 1.0, 1.0, 1.0])
    rare = 14 + 0.5 * torch.randn(60, 4, generator=generator)
    points, lengths = torch.cat([cloud, rare]), range(2, 13)
    border = (cloud.norm(dim=1) > cloud.norm(dim=1).quantile(0.96)).nonzero()[:, 0]
    reach = [walk_spread(points, doublings) for doublings in lengths]
    axes.plot(lengths, [float(r[border].median()) for r in reach], color=plots.BLUE, label="border of a continuum, 4 %")
    axes.plot(lengths, [float(r[1_500:].median()) for r in reach], color=plots.ORANGE, label="a rare kind, 4 %")
    axes.set_yscale("log")
    return _lines(axes, "doublings of the walk", "share of samples reached")


def options(axes: Axes) -> Axes:
    """Change of AUROC against the frequent and the rare kinds, chain by chain, on a generated table."""
    chains = {
        "shift 0": "Importance(target=Gaussian(shift=0.0))", "shift 1": "Importance(target=Gaussian(shift=1.0))",
        "default target": "Importance()", "+ smooth": "Importance(), Smooth()",
        "+ accumulate": "Importance(), Smooth(), Accumulate(), Clip()", "+ rarity (auto)": "auto",
        "focal": "Focal()", "median rejection": "Trim(share=0.5)",
    }  # fmt: skip
    found = {
        name: np.mean([_heads_and_tails(chain, seed) for seed in range(3)], axis=0) for name, chain in chains.items()
    }
    plain = np.mean([_heads_and_tails("", seed) for seed in range(3)], axis=0)
    places = np.arange(len(found))[::-1]
    for column, (name, colour) in enumerate((("frequent kinds", plots.BLUE), ("rare kinds", plots.ORANGE))):
        values = [value[column] - plain[column] for value in found.values()]
        axes.barh(places + 0.2 - 0.4 * column, values, 0.38, color=colour, label=name)
    axes.axvline(0, color=plots.GREY, linewidth=1)
    axes.set_yticks(places, list(found))
    axes.set_xlabel("AUROC less that of uniform training")
    axes.legend(frameon=False)
    return axes


def _heads_and_tails(chain: str, seed: int) -> tuple[float, float]:
    """AUROC of an autoencoder against the three frequent and the three rare of eight kinds, 50:1."""
    generator = np.random.default_rng(seed)
    centres = 1.6 * generator.normal(size=(8, 32))
    flats = generator.normal(size=(8, 4, 32)) / 2

    def drawn(kind: int, count: int, noise: float) -> np.ndarray:
        return (
            centres[kind]
            + 1.5 * generator.normal(size=(count, 4)) @ flats[kind]
            + noise * generator.normal(size=(count, 32))
        )

    sizes = (1_500 * 50.0 ** (-np.arange(8) / 7)).round().astype(int)
    train = np.concatenate([drawn(kind, size, 0.6) for kind, size in enumerate(sizes)])
    normal = [drawn(kind, 100, 0.6) for kind in range(8)]
    odd = np.concatenate([drawn(kind, 40, 1.5) for kind in range(8)])
    detector = AutoEncoder()
    fit(detector, _data(train), parse_weighting(chain), seed=seed)
    scores = [inference.score(detector, _data(part)).numpy() for part in (*normal, odd)]
    own = [float((scores[-1][:, None] > part).mean()) for part in scores[:-1]]
    return float(np.mean(own[:3])), float(np.mean(own[-3:]))


def _data(samples: np.ndarray) -> Data:
    return Data(torch.from_numpy(samples.astype(np.float32)), [str(i) for i in range(len(samples))])


def _lines(axes: Axes, x: str, y: str) -> Axes:
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.legend(frameon=False)
    return axes


FIGURES: dict[str, dict[str, Drawing]] = {
    "theory-target.svg": {"Targets": densities, "Weights that they give": place_of_the_target},
    "theory-bound.svg": {"The relative ratio": bound},
    "theory-rare.svg": {"What each weight sees": what_sees_what, "How far walks get": cut_off},
    "theory-options.svg": {"What each option does": options},
}


if __name__ == "__main__":
    for name, drawings in FIGURES.items():
        write(DOCS / name, plots.picture(drawings, (9.2, 3.2) if len(drawings) > 1 else (6.4, 3.2), share_y=False))

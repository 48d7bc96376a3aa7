"""The page of the contamination suite: what hidden anomalies cost, and what each method gives back, from rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from matplotlib.axes import Axes

from ..report.page import in_markdown
from .comparisons import Change, Row, bootstrapped, in_order, reported
from .tables import SIGNED, table

SUITE = "contamination"
_DEVIATION_NETWORKS = ("adl", "deviation", "dev-net", "multi-cue")
_WORTH, _AT, _STEEP = 0.02, 0.1, 50
_HEAD = """# Contaminated training data

{signed} {name}.jsonl. Anomalies are hidden among the training samples; those
shown in the test, those hidden and the ten that `dev-net` and `multi-cue` are told have none in common.
On one draw every method gets the same samples, seed and budget. `trim` and `loe` are told a share of a tenth, whatever
is hidden; `Purify` a fifth; `Iterate` is told nothing. With a `judge` samples go by distances, not by the detector that
is trained on the rest. Budgets are a third of the default. `deviation` is
the network of `adl` without its soft targets. In brackets: 95 % intervals over draws, paired with the plain detector.
"""


def page(rows: Sequence[Row], name: str = SUITE, picture: str = "") -> str:
    """The page as Markdown: of the suite `name`, with the link `picture`."""
    shown, apart = _compared(rows)
    flat = [row for row in shown if row["imbalance"] == 1]
    steep = [row for row in shown if row["imbalance"] == _STEEP]
    part = f"\nReported are {shown[0]['part']} draws.\n" if shown else "\nThere are no finished rows yet.\n"
    others = f"{apart} rows of an earlier budget, or of a method that ran on one set,"
    part += f"\n{others} are in the file and not in the tables.\n" if apart else ""
    part += f"\n![AUROC against the share of hidden anomalies]{picture}\n" if picture else ""
    sections = {
        "AUROC by share of hidden anomalies, mean over sets": _by_share(flat),
        f"What is given back at {_AT:.0%}": _given_back(flat),
        f"AUROC by set at {_AT:.0%}": _by_set(flat),
        f"Long-tailed, {_STEEP}:1": _long_tail(steep),
        "What did not run": _not_run(rows),
    }
    head = _HEAD.format(signed=SIGNED, name=in_markdown(name))
    return head + part + "".join(f"\n## {title}\n\n{text}\n" for title, text in sections.items() if text)


def _compared(rows: Sequence[Row]) -> tuple[list[Row], int]:
    """The reported rows of the newest budget, without methods of one set where others have more: their mean over sets
    would be of other sets; and how many others there are."""
    shown = reported(rows)
    newest = [row for row in shown if row["settings"]["fit"] == shown[-1]["settings"]["fit"]]
    sets: dict[tuple[str, ...], set[str]] = {}
    for row in newest:
        sets.setdefault(_method(row), set()).add(row["source"])
    most = max(map(len, sets.values()), default=0)
    compared = [row for row in newest if len(sets[_method(row)]) > 1 or most == 1]
    return compared, sum(row["status"] == "ok" for row in rows) - len(compared)


def panels(rows: Sequence[Row]) -> dict[str, Callable[[Axes], Axes]]:
    """AUROC against the share of hidden anomalies, by the title of each panel; nothing without rows."""
    flat = [row for row in _compared(rows)[0] if row["imbalance"] == 1]
    detectors = in_order(row["detector"] for row in flat)
    panel_detectors = {
        "autoencoder": ["autoencoder"],
        "nearest neighbours": ["nearest-neighbours"],
        "deviation networks": [name for name in detectors if name in _DEVIATION_NETWORKS],
    }
    named = {name for names in panel_detectors.values() for name in names}
    panel_detectors["other detectors"] = [name for name in detectors if name not in named]
    rows_of = {title: [row for row in flat if row["detector"] in names] for title, names in panel_detectors.items()}
    return {title: partial(_draw, shown) for title, shown in rows_of.items() if shown}


def _draw(rows: list[Row], axes: Axes) -> Axes:
    shares = sorted({row["contamination"] for row in rows})
    for method in in_order(map(_method, rows)):
        of_method = [row for row in rows if _method(row) == method]
        means = [_mean([row for row in of_method if row["contamination"] == share]) for share in shares]
        label = ", ".join(part for part in method[1:] if part) or "plain"
        several = len({row["detector"] for row in rows}) > 1
        axes.plot([100 * share for share in shares], means, marker="o", markersize=3, linewidth=1.4)
        axes.lines[-1].set_label(f"{method[0]}{'' if label == 'plain' else ', ' + label}" if several else label)
    axes.set_xlabel("hidden anomalies, % of the training data")
    axes.set_ylabel("AUROC, mean over sets")
    axes.legend(frameon=False, fontsize=7)
    return axes


def _method(row: Row) -> tuple[str, ...]:
    weighting = "" if row["weighting"] in ("", "uniform") else row["weighting"]
    return row["detector"], weighting, row.get("refinement", ""), "local" if row["scores"] != "own" else ""


def _plain_of(method: tuple[str, ...]) -> tuple[str, ...]:
    return method[0], "", "", ""


def _by_share(rows: list[Row]) -> str:
    shares = sorted({row["contamination"] for row in rows})
    lines = []
    for method in in_order(map(_method, rows)):
        cells = []
        for share in shares:
            at_share = [row for row in rows if row["contamination"] == share]
            mean = _mean([row for row in at_share if _method(row) == method])
            gained = _change(at_share, method, _plain_of(method))
            plain = method == _plain_of(method)
            cells.append(f"{mean:.3f}" + ("" if plain or not gained.count else f" ({gained})"))
        sets = len({row["source"] for row in rows if _method(row) == method})
        lines.append([*method, str(sets), *cells])
    head = ["detector", "weighting", "refinement", "scores", "sets", *(f"{share:.0%}" for share in shares)]
    return table(head, lines)


def _given_back(rows: list[Row]) -> str:
    """The share of the cost that a method gives back, over the sets where the cost is worth speaking of."""
    lines = []
    for method in in_order(map(_method, rows)):
        plain = _plain_of(method)
        cost, back = [], []
        for source in in_order(row["source"] for row in rows) if method != plain else ():
            at = {m: _mean(_of(rows, source, m, _AT)) for m in (method, plain)}
            lost = _mean(_of(rows, source, plain, 0.0)) - at[plain]
            if lost >= _WORTH and np.isfinite(at[method]):
                cost.append(lost)
                back.append(at[method] - at[plain])
        if cost:
            lines.append(
                [
                    *method[:3],
                    str(len(cost)),
                    f"{np.mean(cost):.3f}",
                    f"{np.mean(back):+.3f}",
                    f"{np.sum(back) / np.sum(cost):.0%}",
                ]
            )
    head = [
        "detector",
        "weighting",
        "refinement",
        f"sets where it cost {_WORTH} or more",
        "cost",
        "given back",
        "share",
    ]
    return table(head, lines) if lines else ""


def _by_set(rows: list[Row]) -> str:
    contaminated = [row for row in rows if row["contamination"] == _AT]
    sources = in_order(row["source"] for row in contaminated)
    lines = [
        [*method[:3], *(_figure(_mean(_of(contaminated, source, method, _AT))) for source in sources)]
        for method in in_order(map(_method, contaminated))
    ]
    return table(["detector", "weighting", "refinement", *sources], lines) if lines else ""


def _long_tail(rows: list[Row]) -> str:
    """AUROC and that of the rarest kind, clean and contaminated: what cleans data cuts its tail off."""
    lines = []
    shares = sorted({row["contamination"] for row in rows})
    for method in in_order(map(_method, rows)):
        cells = []
        for share in shares:
            for metric in ("auroc", "auroc_rarest"):
                at_share = [row for row in rows if row["contamination"] == share]
                gained = _change(at_share, method, _plain_of(method), metric)
                mean = _mean([row for row in at_share if _method(row) == method], metric)
                cells.append(_figure(mean) + ("" if method == _plain_of(method) else f" ({gained})"))
        lines.append([*method, *cells])
    head = [f"{name}, {share:.0%}" for share in shares for name in ("AUROC", "rarest kind")]
    return table(["detector", "weighting", "refinement", "scores", *head], lines) if lines else ""


def _not_run(rows: Sequence[Row]) -> str:
    counts: dict[tuple[str, str], int] = {}
    for row in rows:
        if row["status"] != "ok":
            counts[row["status"], row["error"]] = counts.get((row["status"], row["error"]), 0) + 1
    lines = [[status, str(count), error] for (status, error), count in sorted(counts.items())]
    return table(["status", "cells", "reason"], lines) if lines else "Nothing: every cell has its figures."


def _of(rows: list[Row], source: str, method: tuple[str, ...], share: float) -> list[Row]:
    return [r for r in rows if r["source"] == source and _method(r) == method and r["contamination"] == share]


def _mean(rows: list[Row], metric: str = "auroc") -> float:
    """Mean over sources of the mean over draws."""
    values: dict[str, list[float]] = {}
    for row in rows:
        values.setdefault(row["source"], []).append(row["metrics"].get(metric, np.nan))
    return float(np.mean([np.mean(each) for each in values.values()])) if values else float("nan")


def _change(rows: list[Row], method: tuple[str, ...], base: tuple[str, ...], metric: str = "auroc") -> Change:
    differences: dict[str, list[float]] = {}
    values = {(_method(row), row["source"], row["draw"]): row["metrics"].get(metric) for row in rows}
    for (which, source, draw), value in values.items():
        other = values.get((base, source, draw))
        if which == method and value is not None and other is not None:
            differences.setdefault(source, []).append(value - other)
    return bootstrapped([np.array(each) for each in differences.values()])


def _figure(value: float) -> str:
    return f"{value:.3f}" if np.isfinite(value) else ""

"""Draw docs/architecture.svg, the floor plan of the package, from its imports: python docs/architecture.py.

A box is a folder; it says what the folder's docstring says first. A folder stands one floor above the highest that it
imports. An arrow is an import; one that follows from others is left out.
"""

from __future__ import annotations

import ast
import io
import textwrap
from graphlib import TopologicalSorter
from pathlib import Path

import matplotlib
import matplotlib.patches
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

ROOT = Path(__file__).parents[1]
PACKAGE, PICTURE = ROOT / "src" / "tailwise", ROOT / "docs" / "architecture.svg"
FACES = {"__init__", "__main__"}
# Where a folder stands on its floor, from left to right. A folder that is missing here is an error: nobody is hidden.
COLUMNS = {
    "errors": 1.5, "numerics": 1.5, "core": 1.0, "backbones": 2.5,
    "weights": 0, "calibration": 1, "sources": 2, "detectors": 3,
    "training": 0, "runs": 1, "report": 1, "testing": 2.2, "integrations": 0.3, "benchmark": 1.7,
    "workflows": 0.3, "cli": 1.0,
}  # fmt: skip
_WIDTH, _HEIGHT = 0.92, 0.66
_INK, _LINE, _FILL = "#22262b", "#858b94", "#e8eff7"


def folders() -> dict[str, list[Path]]:
    """The files of each folder, and of each module beside the folders."""
    files: dict[str, list[Path]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        top = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if top not in FACES:
            files.setdefault(top, []).append(path)
    return files


def imports(path: Path) -> set[str]:
    """The folders that a file imports from by a relative import, as all files of the package do."""
    depth = len(path.relative_to(PACKAGE).parts)
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level == depth:
            names |= {node.module.split(".")[0]} if node.module else {alias.name for alias in node.names}
    return names


def arrows() -> dict[str, set[str]]:
    """Which folders each folder imports."""
    files = folders()
    return {name: set().union(*map(imports, paths)) & set(files) - {name} for name, paths in files.items()}


def floors(graph: dict[str, set[str]]) -> dict[str, int]:
    """The floor of each folder, counted from 0; a circle raises graphlib.CycleError."""
    floor: dict[str, int] = {}
    for name in TopologicalSorter(graph).static_order():
        floor[name] = max((floor[below] + 1 for below in graph[name]), default=0)
    return floor


def direct(graph: dict[str, set[str]]) -> dict[str, set[str]]:
    """The arrows that do not follow from others (the transitive reduction)."""
    below: dict[str, set[str]] = {}
    for name in TopologicalSorter(graph).static_order():
        below[name] = graph[name].union(*(below[other] for other in graph[name]))
    return {name: {to for to in tos if not any(to in below[other] for other in tos)} for name, tos in graph.items()}


def purpose(name: str) -> str:
    """The first sentence of the folder's or the module's docstring."""
    folder = PACKAGE / name / "__init__.py"
    path = folder if folder.exists() else PACKAGE / f"{name}.py"
    return (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").split("\n")[0].rstrip(".")


def draw(axes: Axes) -> Axes:
    """The floor plan; the ids of its parts are `folder` and `folder-imported`."""
    graph = arrows()
    place = {name: (COLUMNS[name], floor) for name, floor in floors(graph).items()}
    for name, others in sorted(direct(graph).items()):
        for other in sorted(others):
            (x, y), (to_x, to_y) = place[name], place[other]
            arrow = axes.annotate(
                "", (to_x, to_y + _HEIGHT / 2), (x, y - _HEIGHT / 2),
                arrowprops={"arrowstyle": "-|>", "color": _LINE, "linewidth": 1, "shrinkA": 0, "shrinkB": 0},
            )  # fmt: skip
            assert arrow.arrow_patch is not None
            arrow.arrow_patch.set_gid(f"{name}-{other}")
    for name, (x, y) in sorted(place.items()):
        box = axes.add_patch(
            matplotlib.patches.FancyBboxPatch(
                (x - _WIDTH / 2, y - _HEIGHT / 2), _WIDTH, _HEIGHT,
                boxstyle="round,pad=0,rounding_size=0.06", facecolor=_FILL, edgecolor=_LINE, linewidth=0.8,
            )
        )  # fmt: skip
        box.set_gid(name)
        axes.text(x, y + 0.19, name, ha="center", va="center", fontsize=9.5, fontweight="bold", color=_INK)
        axes.text(x, y - 0.1, textwrap.fill(purpose(name), 36), ha="center", va="center", fontsize=6.8, color=_INK)
    axes.set_xlim(-0.5, 3.5)
    axes.set_ylim(-0.45, max(floor for _, floor in place.values()) + 0.45)
    axes.set_axis_off()
    return axes


def svg() -> str:
    """The picture, the same bytes for the same imports and the same matplotlib."""
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "architecture", "font.family": "sans-serif"}):
        figure = Figure(figsize=(9.6, 9.2), facecolor="white")
        draw(figure.add_axes((0, 0, 1, 1)))
        target = io.BytesIO()
        FigureCanvasSVG(figure).print_svg(target, metadata={"Date": None, "Creator": None})
    return "\n".join(line.rstrip() for line in target.getvalue().decode().splitlines()) + "\n"


if __name__ == "__main__":
    PICTURE.write_text(svg(), encoding="utf-8")
    graph = arrows()
    print(
        f"{len(graph)} folders on {1 + max(floors(graph).values())} floors, "
        f"{sum(map(len, graph.values()))} arrows, {sum(map(len, direct(graph).values()))} drawn"
    )

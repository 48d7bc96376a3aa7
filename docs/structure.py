"""Print the shape of the code: folders, floors and arrows of its imports, lengths of files and functions, and the
longest parameter lists.

    python docs/structure.py [SRC]
"""

from __future__ import annotations

import ast
import statistics
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

SRC = Path(__file__).parents[1] / "src" / "tailwise"
LONGEST = 10


def folder_of(path: Path, root: Path) -> str:
    """The folder under `root` that a module is in; a module of `root` itself is a folder of its own."""
    parts = path.relative_to(root).parts
    return parts[0] if len(parts) > 1 else Path(parts[0]).stem


def imported_modules(path: Path, root: Path) -> Iterator[Path]:
    """The files that a module imports from under `root`."""
    package = path.relative_to(root.parent).parts[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.ImportFrom) or (node.level == 0 and (node.module or "").split(".")[0] != root.name):
            continue
        start = package[: len(package) - node.level + 1] if node.level else ()
        base = root.parent.joinpath(*start, *(node.module or "").split("."))
        for target in [base, *(base / alias.name for alias in node.names)]:
            if target.with_suffix(".py").is_file():
                yield target.with_suffix(".py")
            elif target == base and (target / "__init__.py").is_file() and target != root:
                yield target / "__init__.py"


def arrows(root: Path) -> dict[str, set[str]]:
    """The folders that each folder imports from."""
    result: dict[str, set[str]] = {}
    for path in sorted(root.rglob("*.py")):
        folder = folder_of(path, root)
        others = {folder_of(module, root) for module in imported_modules(path, root)}
        result.setdefault(folder, set()).update(others - {folder, "__init__"})
    return {folder: others for folder, others in result.items() if folder not in ("__init__", "__main__")}


def floors(graph: dict[str, set[str]]) -> int | None:
    """How many floors the folders stand on, each above all that it imports; None where they import in a circle."""
    floor: dict[str, int] = {}
    try:
        for folder in TopologicalSorter(graph).static_order():
            floor[folder] = 1 + max((floor[other] for other in graph.get(folder, ())), default=0)
    except CycleError:
        return None
    return max(floor.values(), default=0)


def functions(root: Path) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Every function and method, with "file:line name"."""
    for path in sorted(root.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield f"{path.relative_to(root)}:{node.lineno} {node.name}", node


def parameters(node: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    """The names of a function's parameters, without self and cls."""
    arguments = node.args
    names = [each.arg for each in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
    return [name for name in names if name not in ("self", "cls")]


def spread(lengths: list[int]) -> str:
    """Median and 90th percentile."""
    if len(lengths) < 2:
        return f"median and p90 {sum(lengths)}"
    return f"median {statistics.median(lengths):g}, p90 {statistics.quantiles(lengths, n=10)[-1]:g}"


def report(root: Path) -> str:
    graph = arrows(root)
    files = [len(path.read_text(encoding="utf-8").splitlines()) for path in sorted(root.rglob("*.py"))]
    every = list(functions(root))
    lengths = [(node.end_lineno or node.lineno) - node.lineno + 1 for _, node in every]
    longest = sorted(((len(parameters(node)), place) for place, node in every), key=lambda pair: (-pair[0], pair[1]))
    return "\n".join(
        [
            f"folders: {len(graph)}",
            f"floors: {floors(graph) or 'none, they import in a circle'}",
            f"arrows: {sum(map(len, graph.values()))}",
            f"files: {len(files)}, {sum(files)} lines; {spread(files)} lines",
            f"functions: {len(lengths)}; {spread(lengths)} lines",
            "longest parameter lists:",
            *(f"  {count:2} {place}" for count, place in longest[:LONGEST]),
        ]
    )


if __name__ == "__main__":
    print(report(Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else SRC))

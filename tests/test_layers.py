"""Layers are folders: each imports only from those that its row names, and none of them in a circle."""

from __future__ import annotations

import ast
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "src" / "tailwise"

GROUND = {"errors", "numerics", "core"}
# The four wings, of which none knows another, and what brings them together.
MAY_IMPORT = {
    "errors": set(),
    "numerics": {"errors"},
    "core": {"errors", "numerics"},
    "backbones": GROUND,
    "weights": GROUND,
    "calibration": GROUND,
    "sources": GROUND | {"backbones"},
    "detectors": GROUND | {"backbones"},
    "training": GROUND | {"weights"},
    "runs": GROUND | {"training", "calibration", "sources"},
    "report": GROUND | {"runs", "training", "calibration", "weights", "sources"},
    "integrations": GROUND | {"report", "runs", "training", "calibration", "weights"},
    "benchmark": GROUND | {"report", "runs", "training", "calibration", "weights", "backbones"},
    "workflows": GROUND
    | {"integrations", "report", "runs", "training", "calibration", "weights", "sources", "backbones"},
    "cli": GROUND | {"workflows", "benchmark", "integrations", "report", "runs", "training", "calibration", "sources"},
    "testing": GROUND | {"runs", "training", "weights"},
}
# The package's own face, `python -m tailwise`, and its version, which every folder may read.
FACES = {"__init__", "__main__"}
# What the ground is made of; only backbones and above read files.
THIRD_PARTY_OF_THE_GROUND = {"torch", "numpy", "scipy"}
INPUT_OUTPUT = {"pathlib", "os", "io", "json", "csv", "shutil", "tempfile", "urllib", "pickle", "sqlite3"}
WITHOUT_FILES = {"numerics", "core", "weights", "calibration"}

FILES = sorted(ROOT.rglob("*.py"))


def dotted(path: Path) -> tuple[str, ...]:
    """("detectors", "gaussian") for detectors/gaussian.py; ("detectors",) for the package itself."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts


def imports(path: Path) -> list[tuple[str, ...]]:
    """Every module that a file imports, wherever the import stands: ("numpy", "linalg"), ("tailwise", "weights")."""
    package = path.relative_to(ROOT).parts[:-1]
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [tuple(alias.name.split(".")) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = ("tailwise", *package[: len(package) - node.level + 1]) if node.level else ()
            stem = (*above, *(node.module.split(".") if node.module else ()))
            # `from . import neighbours` names a module; `from .weighting import Context` what is in one.
            found += [(*stem, alias.name) if is_module((*stem, alias.name)) else stem for alias in node.names]
    return found


def is_module(name: tuple[str, ...]) -> bool:
    target = ROOT.joinpath(*name[1:])
    return name[0] == "tailwise" and (target.with_suffix(".py").exists() or target.is_dir())


def ours(path: Path) -> list[tuple[str, ...]]:
    """The imports of our own modules, without the package's name."""
    return [name[1:] for name in imports(path) if name[0] == "tailwise" and len(name) > 1]


def registers(name: tuple[str, ...]) -> bool:
    file = ROOT.joinpath(*name).with_suffix(".py")
    return file.exists() and "\n@register(" in file.read_text(encoding="utf-8")


def arrows(paths: list[Path]) -> dict[tuple[str, ...], set[tuple[str, ...]]]:
    """What each module imports of ours, less the face of the folder that it stands in."""
    graph = {dotted(path): {name for name in ours(path) if name != dotted(path)} for path in paths}
    return {name: {to for to in others if to != name[:-1]} for name, others in graph.items()}


def floors(graph: dict[tuple[str, ...], set[tuple[str, ...]]]) -> int:
    """How many floors the modules need, each above all that it imports; a circle raises graphlib.CycleError."""
    height: dict[tuple[str, ...], int] = {}
    for name in TopologicalSorter(graph).static_order():
        height[name] = 1 + max((height[below] for below in graph.get(name, ())), default=0)
    return max(height.values())


def named(path: Path) -> str:
    return ".".join(dotted(path))


def test_every_file_stands_in_a_folder_with_a_row() -> None:
    assert {dotted(path)[0] for path in FILES} == set(MAY_IMPORT) | FACES


@pytest.mark.parametrize("path", [path for path in FILES if dotted(path)[0] not in FACES], ids=named)
def test_a_folder_imports_only_what_its_row_names(path: Path) -> None:
    folder = dotted(path)[0]
    assert {name[0] for name in ours(path)} - {folder} <= MAY_IMPORT[folder]


def test_no_folder_and_no_module_stands_in_a_circle() -> None:
    """`floors` raises where there is a circle; that it does is tested below."""
    folders = {(folder,): {(other,) for other in others} for folder, others in MAY_IMPORT.items()}
    graph = arrows(FILES)
    inside = {(name[0], to[0]) for name, others in graph.items() for to in others if name[0] not in FACES}
    upwards = {(folder, to) for folder, to in inside if folder != to and to not in MAY_IMPORT[folder]}
    print(
        f"{len(folders)} folders on {floors(folders)} floors; {len(graph)} modules on {floors(graph)} floors, "
        f"{sum(map(len, graph.values()))} arrows, {len(upwards)} upwards"
    )
    assert not upwards
    assert floors(folders) <= len(folders)


def test_a_circle_would_be_seen() -> None:
    with pytest.raises(CycleError):
        floors({("a",): {("b",)}, ("b",): {("a",)}})


@pytest.mark.parametrize("path", [path for path in FILES if dotted(path)[0] in WITHOUT_FILES], ids=named)
def test_the_ground_is_torch_numpy_scipy_without_files(path: Path) -> None:
    others = {name[0] for name in imports(path)} - {"tailwise"}
    assert others - set(sys.stdlib_module_names) <= THIRD_PARTY_OF_THE_GROUND
    assert not others & INPUT_OUTPUT
    calls = [node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    assert not [call for call in calls if isinstance(call, ast.Name) and call.id == "open"]


@pytest.mark.parametrize("path", [path for path in FILES if dotted(path)[0] == "detectors"], ids=named)
def test_no_detector_imports_a_registered_peer(path: Path) -> None:
    """Files may share components, which are nobody's name."""
    assert not [name for name in ours(path) if name[0] == "detectors" and registers(name)]


def test_the_package_imports_nothing_by_itself() -> None:
    assert imports(ROOT / "__init__.py") == [("importlib",)]


def test_a_broken_layer_would_be_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reader of imports understands each way in which a file can name a module of ours."""
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    (tmp_path / "sources").mkdir()
    (tmp_path / "weights.py").touch()
    file = tmp_path / "sources" / "images.py"
    file.write_text(
        "import tailwise.weights\nfrom tailwise import weights\nfrom .. import weights\n"
        "from ..weights import Context\nfrom . import Cube\ndef later():\n    import numpy.linalg\n"
    )
    assert ours(file) == [("weights",)] * 4 + [("sources",)]
    assert imports(file)[-1] == ("numpy", "linalg")

"""Which module may import which: the layer table as data, held against the imports that the files really make."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "src" / "tailwise"

# A module imports from its own layer and those below; nothing below layer 3 knows layer 3.
LAYERS = {
    0: {"errors", "registry", "densities", "neighbours", "weights", "losses", "metrics", "pixel_metrics", "thresholds"}
    | {"calibration", "modes", "problem", "detector", "moments", "windows", "cues", "pseudo_anomalies", "tracing"},
    1: {"nets", "deviation", "mobilenet", "backbones", "features", "detectors", "sources"},
    2: {"training", "scoring", "optimizer", "alignment", "crossing", "checks", "refine", "adaptation", "benchmark"}
    | {"storage", "files", "maps", "gradients", "kinds", "drift", "fingerprints", "attribution"},
    3: {
        "estimator",
        "report",
        "findings",
        "wording",
        "decisions",
        "data_checks",
        "comparing",
        "plots",
        "previews",
        "overlays",
        "map_files",
        "gallery",
        "explaining",
        "trackers",
        "pyod_face",
        "explanation_pages",
        "benchmark_sections",
        "benchmark_tables",
        "contamination_tables",
        "tables",
        "scene_maps",
        "spelling",
        "reviews",
        "triage",
        "workflow",
        "calibrating",
        "updating",
        "drifting",
        "exporting",
        "demonstration",
        "commands",
        "cli",
        "testing",
    },
}
LAYER_OF = {module: layer for layer, modules in LAYERS.items() for module in modules}

# Layer 1 keeps to itself, but for this: networks are there for detectors to be made of, and frozen ones for sources to
# read images with, through the cache of their features, and for students to learn from.
WITHIN_LAYER_1 = {("detectors", "nets"), ("sources", "backbones"), ("sources", "features"), ("features", "backbones")}
WITHIN_LAYER_1 |= {("detectors", "backbones"), ("backbones", "mobilenet")}
WITHIN_LAYER_1 |= {("detectors", "deviation"), ("deviation", "nets")}
# Detectors and sources do not know that weights or training exist; losses are plain functions of units.
UNKNOWN_TO_LAYER_1 = {"weights"}
# Layer 2 meets detectors and sources by protocol and by registered name only.
UNKNOWN_TO_LAYER_2 = {"detectors", "sources"}
THIRD_PARTY_OF_LAYER_0 = {"torch", "numpy", "scipy"}
INPUT_OUTPUT = {"pathlib", "os", "io", "json", "csv", "shutil", "tempfile", "urllib", "pickle", "sqlite3"}

FILES = sorted(path for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py")


def dotted(path: Path) -> tuple[str, ...]:
    """("detectors", "gaussian") for detectors/gaussian.py; ("detectors",) for the package itself."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return parts[:-1] if parts[-1] == "__init__" else parts


def imports(path: Path) -> list[tuple[str, ...]]:
    """Every module that a file imports, wherever the import stands: ("numpy", "linalg"), ("tailwise", "weights")."""
    package = dotted(path) if path.name == "__init__.py" else dotted(path)[:-1]
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [tuple(alias.name.split(".")) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = ("tailwise", *package[: len(package) - node.level + 1]) if node.level else ()
            stem = (*above, *(node.module.split(".") if node.module else ()))
            # `from . import neighbours` names a module; `from .weights import Context` what is in one.
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


def named(path: Path) -> str:
    return ".".join(dotted(path))


def test_every_module_has_a_layer() -> None:
    assert {dotted(path)[0] for path in FILES} <= set(LAYER_OF)


@pytest.mark.parametrize("path", FILES, ids=named)
def test_no_import_from_a_higher_layer(path: Path) -> None:
    layer = LAYER_OF[dotted(path)[0]]
    assert {name for name in ours(path) if LAYER_OF[name[0]] > layer} == set()


@pytest.mark.parametrize("path", [path for path in FILES if LAYER_OF.get(dotted(path)[0]) == 0], ids=named)
def test_layer_0_is_torch_numpy_scipy_without_files(path: Path) -> None:
    others = {name[0] for name in imports(path)} - {"tailwise"}
    assert others - set(sys.stdlib_module_names) <= THIRD_PARTY_OF_LAYER_0
    assert not others & INPUT_OUTPUT
    calls = [node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    assert not [call for call in calls if isinstance(call, ast.Name) and call.id == "open"]


@pytest.mark.parametrize("path", [path for path in FILES if LAYER_OF.get(dotted(path)[0]) == 1], ids=named)
def test_layer_1_knows_neither_its_peers_nor_weights(path: Path) -> None:
    own = dotted(path)
    for name in ours(path):
        assert name[0] not in UNKNOWN_TO_LAYER_1
        if LAYER_OF[name[0]] == 1 and name[0] != own[0]:
            assert (own[0], name[0]) in WITHIN_LAYER_1, f"{named(path)} imports {'.'.join(name)}"
        else:
            # Within a folder files may share what is nobody's name; a registered peer they may not.
            assert name[0] != own[0] or not registers(name), f"{named(path)} imports its peer {'.'.join(name)}"


@pytest.mark.parametrize("path", [path for path in FILES if LAYER_OF.get(dotted(path)[0]) == 2], ids=named)
def test_layer_2_never_names_a_detector_or_source(path: Path) -> None:
    assert not {name[0] for name in ours(path)} & UNKNOWN_TO_LAYER_2


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

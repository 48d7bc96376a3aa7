"""What the project as a whole promises: versions that agree, documented names, quick help, no pickle, a true README."""

from __future__ import annotations

import ast
import doctest
import inspect
import io
import json
import os
import re
import subprocess
import symtable
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest

import tailwise
from tailwise.core import registry
from tailwise.workflows import demo

ROOT = Path(__file__).parents[1]
DEMO_RESULTS = ROOT / "benchmarks" / "results" / "demo.json"
SOURCES = sorted((ROOT / "src" / "tailwise").rglob("*.py"))
PICKLERS = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}


def run_python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_citation_and_changelog_name_the_package_version() -> None:
    cited = re.search(r"^version: (\S+)$", (ROOT / "CITATION.cff").read_text(encoding="utf-8"), re.MULTILINE)
    assert cited is not None
    assert cited[1] == tailwise.__version__
    assert f"## [{tailwise.__version__}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", tailwise.__all__)
def test_public_name_imports_and_is_documented(name: str) -> None:
    member = getattr(tailwise, name)
    # A dataclass without a docstring is given its signature as one.
    assert member.__doc__
    assert not member.__doc__.startswith(f"{name}(")


@pytest.mark.parametrize("name", tailwise.__all__)
def test_public_name_has_an_example_that_doctest_runs(name: str) -> None:
    examples = doctest.DocTestParser().get_examples(getattr(tailwise, name).__doc__)
    assert examples
    assert any(example.want for example in examples)


def test_editors_and_type_checkers_are_told_the_same_names() -> None:
    tree = ast.parse((ROOT / "src" / "tailwise" / "__init__.pyi").read_text(encoding="utf-8"))
    told = {
        (alias.asname, found.module)
        for found in ast.walk(tree)
        if isinstance(found, ast.ImportFrom) and found.level
        for alias in found.names
    }
    assert told == set(tailwise._HOMES.items())


def test_an_unknown_public_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'importance_weight'"):
        tailwise.importance_weight  # noqa: B018


@pytest.mark.parametrize("kind", ["detector", "source", "step", "density"])
def test_registered_names_are_documented(kind: str) -> None:
    for name, entry in registry.entries(kind).items():
        assert inspect.cleandoc(entry.member.__doc__ or "").startswith(f"{name}(") is False, name
        assert (entry.member.__doc__ or "").strip(), name


def test_importing_the_package_does_not_import_torch() -> None:
    loaded = run_python(
        "import sys, tailwise; print([name for name in ('torch', 'numpy', 'pandas') if name in sys.modules])"
    )
    assert loaded.strip() == "[]"


def test_help_answers_within_half_a_second() -> None:
    """Of processor time, in the fastest of a few: the clock also counts what else the machine does."""
    seconds = []
    for _ in range(4):
        before = os.times()
        shown = run_python("from tailwise.cli.main import main; main(['--help'])")
        after = os.times()
        seconds.append(after.children_user + after.children_system - before.children_user - before.children_system)
        assert "tailwise" in shown
        if min(seconds) < 0.5:
            return
    assert min(seconds) < 0.5


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT / "src").as_posix())
def test_nothing_is_unpickled_or_executed(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            assert not {alias.name.split(".")[0] for alias in node.names} & PICKLERS
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            assert (node.module or "").split(".")[0] not in PICKLERS
        elif isinstance(node, ast.Call):
            check_call(node)


def check_call(call: ast.Call) -> None:
    options = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
    called = ast.unparse(call.func)
    assert called not in ("eval", "exec"), ast.unparse(call)
    assert called not in ("pd.read_pickle", "pandas.read_pickle"), ast.unparse(call)
    if called == "torch.load":
        assert options.get("weights_only") == "True", ast.unparse(call)
    if called in ("np.load", "numpy.load"):
        assert options.get("allow_pickle") == "False", ast.unparse(call)
    assert options.get("allow_pickle", "False") == "False", ast.unparse(call)


@pytest.mark.parametrize(
    "line",
    ["np.load(path)", "np.load(path, allow_pickle=True)", "torch.load(path)", "eval(text)", "pd.read_pickle(path)"],
)
def test_an_unsafe_call_would_be_seen(line: str) -> None:
    call = ast.parse(line).body[0].value  # type: ignore[attr-defined]
    with pytest.raises(AssertionError):
        check_call(call)


REFERENCE = re.compile(r"`([a-z_]\w*(?:\.\w+)+)`")
FILE_ENDINGS = ("py", "json", "csv", "parquet", "safetensors", "html", "md", "toml", "npy", "npz", "onnx")
PACKAGES = {"tailwise", *re.findall(r'"(\w+)[>=]=', (ROOT / "pyproject.toml").read_text(encoding="utf-8"))}


def names_of_modules() -> dict[tuple[str, ...], set[str]]:
    """What each module and package of ours has at its top, by its path in the package."""
    found: dict[tuple[str, ...], set[str]] = {}
    for path in SOURCES:
        place = path.relative_to(ROOT / "src" / "tailwise").with_suffix("").parts
        place = place[:-1] if place[-1] == "__init__" else place
        symbols = symtable.symtable(path.read_text(encoding="utf-8"), str(path), "exec").get_symbols()
        bound = {each.get_name() for each in symbols if each.is_assigned() or each.is_imported()}
        found.setdefault(place, set()).update(bound)
        if place:
            found.setdefault(place[:-1], set()).add(place[-1])
    return found


def stale_references(text: str, modules: dict[tuple[str, ...], set[str]]) -> list[str]:
    """The `module.name` in a file that no module has. Another package's are not looked up, nor attributes of what the
    file itself calls so."""
    tree = ast.parse(text)
    own = {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
    own |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    stale = []
    for reference in REFERENCE.findall(text):
        first, *rest = reference.split(".")
        if rest[-1] in FILE_ENDINGS or first in own | PACKAGES or first in sys.stdlib_module_names:
            continue
        homes = [place for place in modules if place[-1:] == (first,)]
        while len(rest) > 1 and (below := [(*home, rest[0]) for home in homes if (*home, rest[0]) in modules]):
            homes, rest = below, rest[1:]
        if not any(rest[0] in modules[home] for home in homes):
            stale.append(reference)
    return stale


def test_texts_name_what_modules_have() -> None:
    modules = names_of_modules()
    stale = {path.name: stale_references(path.read_text(encoding="utf-8"), modules) for path in SOURCES}
    assert {name: references for name, references in stale.items() if references} == {}


def test_a_reference_to_what_is_gone_would_be_seen() -> None:
    text = "# `intervals.share_of` `findings.share_of` `runs.table.Split` `runs.table.Cut` `settings.json` `os.path`"
    assert stale_references(text, names_of_modules()) == ["findings.share_of", "runs.table.Cut"]


def test_every_detector_file_registers_and_so_meets_the_contracts(module_of: Callable[[Path], ModuleType]) -> None:
    files = {path.stem for path in (ROOT / "src" / "tailwise" / "detectors").glob("*.py")} - {"__init__"}
    registered = registry.entries("detector").values()
    assert files == {entry.member.__module__.rpartition(".")[2] for entry in registered}
    cases = module_of(ROOT / "tests" / "test_detectors.py").CASES
    # Those that need named modalities have their contracts beside them.
    makers = {
        maker
        for name in ("test_two_modalities.py", "test_zero_shot_patches.py")
        for maker in module_of(ROOT / "tests" / name).MAKERS
    }
    elsewhere = {name for name, entry in registry.entries("detector").items() if entry.member in makers}
    assert {case.values[0] for case in cases} | elsewhere == set(registry.entries("detector"))


def listed_files() -> set[str]:
    """The paths of the README's file list: `path  what it is`, one a line; {a,b}.py lists two."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    block = re.search(r"^## Files\n.*?^```\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert block is not None
    return {line.split("  ")[0].strip() for line in block[1].splitlines() if line.strip()}


def test_files_listed_in_the_readme_exist() -> None:
    listed = listed_files()
    assert len(listed) > 20
    assert {path for path in listed if not (ROOT / path).exists()} == set()


def test_the_readme_lists_every_folder_of_the_package() -> None:
    package = ROOT / "src" / "tailwise"
    folders = {f"src/tailwise/{path.parent.name}/" for path in package.glob("*/__init__.py")}
    files = {f"src/tailwise/{path.name}" for path in package.glob("[!_]*.py")}
    assert (folders | files) - listed_files() == set()


def test_the_readme_shows_the_demo_results_that_are_kept() -> None:
    """Means and ranges are formed here in another way than in the library, from the file of rows."""
    rows = pd.read_json(io.StringIO(json.dumps(json.loads(DEMO_RESULTS.read_text(encoding="utf-8"))["rows"])))
    block = (ROOT / "README.md").read_text(encoding="utf-8").partition("<!-- demo:begin -->")[2]
    block = block.partition("<!-- demo:end -->")[0]
    lines = [line for line in block.splitlines() if line.startswith("|")]
    found = {line.split("|")[1].strip(): line for line in lines}
    for column, title in demo.FIGURES.items():
        spread = rows.groupby("method")[column].agg(["mean", "min", "max"])
        place = next(line for line in lines if title in line).split("|").index(f" {title} ")
        for method in demo.METHODS:
            shown = re.findall(r"\d\.\d{3}", found[method].split("|")[place])
            assert [float(number) for number in shown] == pytest.approx(spread.loc[method].to_list(), abs=5.1e-4)
    assert f"draws {rows['draw'].min()} to {rows['draw'].max()}" in block
    pictures = re.findall(r"!\[.+\]\((.+)\)", block)
    assert [(ROOT / picture).suffix for picture in pictures if (ROOT / picture).exists()] == [".svg"]


def test_the_floor_plan_shows_the_imports_of_today(module_of: Callable[[Path], ModuleType]) -> None:
    """The ids of the picture's arrows, closed under "imports", are the imports that the layer test reads."""
    layers = module_of(ROOT / "tests" / "test_layers.py")
    imports: dict[str, set[str]] = {}
    for path in layers.FILES:
        folder = layers.dotted(path)[0]
        if folder not in layers.FACES:
            imports.setdefault(folder, set()).update(name[0] for name in layers.ours(path) if name[0] != folder)
    picture = (ROOT / "docs" / "architecture.svg").read_text(encoding="utf-8")
    drawn = set(re.findall(r'<g id="([a-z]+)-([a-z]+)">', picture))
    assert set(re.findall(r'<g id="([a-z]+)">', picture)) == set(imports)
    assert drawn <= {(name, other) for name, others in imports.items() for other in others}
    reached = {name: {name} for name in imports}
    for _ in imports:
        for name, other in drawn:
            reached[name] |= reached[other]
    assert {name: others - reached[name] for name, others in imports.items() if others - reached[name]} == {}


def test_the_lock_pins_every_version_and_names_no_server() -> None:
    lines = [line for line in (ROOT / "requirements.lock").read_text().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines)
    names = {line.partition("==")[0].lower() for line in lines}
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    wanted = re.findall(r'"([A-Za-z0-9_-]+)[>=]=', project)
    # timm brings torchvision along, which nothing here runs with.
    assert {name.lower() for name in wanted} - {"setuptools", "timm"} <= names

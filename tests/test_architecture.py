"""The rules of the house that a machine can see. Which room imports which is lint-imports' part."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import tensorkeep

ROOT = Path(__file__).resolve().parent.parent
SRC = ROOT / "src" / "tensorkeep"
MODULES = sorted(SRC.rglob("*.py"))
LATE = {"numpy", "torch", "rich"}  # slow to import: only inside the functions that need them
WITH_TORCH = {"live", "training", "shipping", "registries"}
PUBLIC = {
    "__version__",
    "Checkpoint",
    *("Int8Linear", "KeepBest", "KeepEvery", "KeepLast", "KeepWithin", "Run"),
    "Limits",
    "TensorRef",
    "TensorkeepError",
    "convert",
    "diff",
    "empty_weights",
    "guard",
    "inspect",
    "load",
    "load_into",
    "load_model",
    "match",
    "open",
    "prove_resume",
    "quantize",
    "replace_linear",
    "safe_globals",
    "save",
    "scan",
    "set_lr",
    "verify",
}
RUNNERS = {"eval", "exec", "compile", "__import__"}
IMPORTERS = {"import_module", "run_path", "run_module"}
# Names, verbs and edits of our own, imported when first used; what the caller names to be run.
BY_TABLE = {
    *("__init__.py", "cli/main.py", "edits/registry.py"),
    *("live/modules.py", "live/trusting.py", "live/hooks.py", "training/proving_child.py"),
}
UNPICKLERS = {"pickle", "_pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"}


def name_of(path: Path) -> str:
    """The module's path below the package, for the ids of tests."""
    return str(path.relative_to(SRC))


every_module = pytest.mark.parametrize("path", MODULES, ids=name_of)


def tree(path: Path) -> ast.Module:
    """The module's syntax tree."""
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imported(node: ast.AST) -> list[str]:
    """The absolute modules that an import statement names."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
        return [node.module]
    return []


def run_at_import(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes that run when a module is imported: not function bodies, not TYPE_CHECKING."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        yield child
        yield from run_at_import(child)


def in_cli(path: Path) -> bool:
    """Whether the module belongs to the room that may print and read the environment."""
    return path.relative_to(SRC).parts[0] in {"cli", "cli.py", "__main__.py"}


@every_module
def test_no_file_is_longer_than_400_lines(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400


@every_module
def test_slow_libraries_are_not_imported_with_the_module(path: Path) -> None:
    roots = {name.split(".")[0] for node in run_at_import(tree(path)) for name in imported(node)}
    # Those rooms are torch's, and imported by who wants it: not by the public face, nor the CLI.
    late = LATE - {"torch"} if path.relative_to(SRC).parts[0] in WITH_TORCH else LATE
    assert not roots & late


@every_module
def test_torch_stays_in_the_upper_rooms(path: Path) -> None:
    roots = {name.split(".")[0] for node in ast.walk(tree(path)) for name in imported(node)}
    assert "torch" not in roots or path.relative_to(SRC).parts[0] in WITH_TORCH


@every_module
def test_the_public_face_is_for_others(path: Path) -> None:
    # A room that imports the package itself reaches every other room, and lint-imports,
    # which looks below the package, does not see it.
    rooms = {module.stem for module in SRC.iterdir()}
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            assert "tensorkeep" not in imported(node), f"line {node.lineno}"
        if imported(node) == ["tensorkeep"] and isinstance(node, ast.ImportFrom):
            assert {alias.name for alias in node.names} <= rooms, f"line {node.lineno}"


@every_module
def test_nothing_unpickles_or_evaluates(path: Path) -> None:
    for node in ast.walk(tree(path)):
        roots = {name.split(".")[0] for name in imported(node)}
        if isinstance(node, ast.ImportFrom) and [a.name for a in node.names] == ["UnpicklingError"]:
            continue  # an error class unpickles nothing
        assert not roots & UNPICKLERS, f"line {node.lineno} imports {roots & UNPICKLERS}"
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in RUNNERS, f"line {node.lineno} calls {called}"
            importer = called.rpartition(".")[2] in IMPORTERS
            assert not importer or name_of(path) in BY_TABLE, f"line {node.lineno}"


@every_module
def test_only_the_cli_prints_and_reads_the_environment(path: Path) -> None:
    spoken = re.compile(r"print|(sys\.)?std(out|err)(\.buffer)?\.write|click\.echo|os\.getenv")
    for node in ast.walk(tree(path)):
        if in_cli(path):
            break
        if isinstance(node, ast.Call):
            assert not spoken.fullmatch(ast.unparse(node.func)), f"line {node.lineno}"
        if isinstance(node, ast.Attribute):
            assert ast.unparse(node) != "os.environ", f"line {node.lineno}"


@every_module
def test_no_error_is_swallowed(path: Path) -> None:
    for node in ast.walk(tree(path)):
        if not isinstance(node, ast.ExceptHandler):
            continue
        broad = (ast.unparse(node.type) if node.type else "") in {"", "Exception", "BaseException"}
        inside = [child for statement in node.body for child in ast.walk(statement)]
        raised = any(isinstance(child, ast.Raise) for child in inside)
        handed_on = any(isinstance(child, ast.Name) and child.id == node.name for child in inside)
        assert raised or handed_on or not broad, f"line {node.lineno}"


@pytest.mark.parametrize(
    "folder",
    sorted({path.parent for path in MODULES}),
    ids=name_of,
)
def test_a_folder_says_what_it_is(folder: Path) -> None:
    assert ast.get_docstring(tree(folder / "__init__.py")), folder


def test_no_folder_shadows_torch() -> None:
    for top in ("src", "tests", "examples", "bench", "docs"):
        assert not [path for path in (ROOT / top).rglob("torch") if path.is_dir()]


def test_pickles_do_not_know_torch() -> None:
    for path in sorted((SRC / "pickles").rglob("*.py")):
        assert "torch" not in path.read_text(encoding="utf-8").lower(), path.name


def test_public_names_are_these() -> None:
    assert set(tensorkeep.__all__) == PUBLIC
    for name in PUBLIC:
        assert getattr(tensorkeep, name).__doc__, f"tensorkeep.{name} has no docstring"


def test_package_is_typed() -> None:
    assert (SRC / "py.typed").exists()

"""The floors of src/ltkd: a file imports from its own floor and lower ones only, and no two files import each other."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from .conftest import PROJECT

PACKAGE = PROJECT / "src" / "ltkd"
FLOORS = [  # from the ground up; those of one line do not import each other
    ["errors", "console"],
    ["ranks"],
    ["files", "ranges", "choices", "settings", "machine"],
    ["losses", "data", "models", "optimization"],
    ["results", "task_losses"],
    ["methods"],
    ["config"],
    ["loop"],
    ["setup"],
    ["runs"],
    ["carry", "sweep"],
    ["tables"],
    ["report"],
    ["deploy"],
    ["benchmark", "commands"],
]
HEIGHT = {name: height for height, names in enumerate(FLOORS) for name in names}


def module_of(path: Path) -> str:
    """The name below ltkd: config.load, losses of losses/__init__.py; empty for the package itself."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imported(source: str, modules=frozenset(MODULES)) -> set[str]:
    """The modules of the package that a file's import statements name, wherever in it they stand."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports name the whole path"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            # a name of a module, or a module
            found |= {name if name.removeprefix("ltkd.") in modules else node.module for name in names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {name.removeprefix("ltkd").lstrip(".") for name in found if name.partition(".")[0] == "ltkd"}


ARROWS = {name: imported(path.read_text()) - {name} for name, path in MODULES.items()}


def height(module: str) -> int:
    return HEIGHT[module.partition(".")[0]] if module else -1


def goes_down(start: str, end: str) -> bool:
    same_folder = start.partition(".")[0] == end.partition(".")[0]
    return same_folder or height(end) < height(start)


def test_every_folder_has_a_floor():
    assert {name.partition(".")[0] for name in MODULES if name} == HEIGHT.keys()


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module or "ltkd")
def test_a_file_imports_from_its_own_floor_and_lower_ones(module):
    assert ARROWS[module] <= MODULES.keys()
    assert not [end for end in sorted(ARROWS[module]) if not goes_down(module, end)]


def test_no_two_files_import_each_other_by_whatever_way():
    assert len(list(TopologicalSorter(ARROWS).static_order())) == len(MODULES)  # raises CycleError, naming the files


def test_what_is_wrong_is_found():
    source = (
        "def later():\n    from ltkd.runs import build\n    import ltkd.errors\nfrom ltkd.losses import kd\nimport os\n"
    )
    assert imported(source) == {"runs.build", "errors", "losses"}
    assert not goes_down("losses.logit", "runs.build")
    assert not goes_down("losses.logit", "models.output")
    assert goes_down("runs.build", "errors")

"""Every name of torch in the code exists: what only a GPU runs is read here, where a slip would stay for long."""

import ast
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = sorted([*(ROOT / "src").rglob("*.py"), *(ROOT / "scripts").glob("*.py")])


def dotted(node: ast.AST) -> str | None:
    """torch.cuda.synchronize, of an attribute of an attribute of a name; None of any other expression."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (left := dotted(node.value)) is not None:
        return f"{left}.{node.attr}"
    return None


def exists(name: str) -> bool:
    parts = name.split(".")
    found = importlib.import_module(parts[0])
    for number, part in enumerate(parts[1:], 2):
        if not hasattr(found, part):
            try:
                importlib.import_module(".".join(parts[:number]))  # a module that nobody has imported yet
            except ImportError:
                return False
        found = getattr(found, part)
    return True


def torch_names(source: str) -> set[str]:
    names = {dotted(node) for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Attribute)}
    return {name for name in names if name is not None and name.split(".")[0] in ("torch", "torchvision")}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_torch_has_every_name_that_is_used(path):
    assert not [name for name in sorted(torch_names(path.read_text(encoding="utf-8"))) if not exists(name)]


def test_a_slip_is_found():
    source = "def name(device):\n    return torch.cuda.getdevice_name(device) if device else torch.cuda.Stream().x"
    assert sorted(torch_names(source)) == ["torch.cuda", "torch.cuda.Stream", "torch.cuda.getdevice_name"]
    assert exists("torch.cuda.Stream")
    assert not exists("torch.cuda.getdevice_name")

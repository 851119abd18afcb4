"""The package as a library: its front door, and the examples of docs/library.md."""

import re
import subprocess
import sys

import pytest

import ltkd
from ltkd import losses

from .conftest import PROJECT


def test_the_examples_of_the_page_run(tmp_path, monkeypatch):
    """One after the other in one namespace, as a reader would type them."""
    page = (PROJECT / "docs/library.md").read_text(encoding="utf-8")
    examples = re.findall(r"^```python\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    assert len(examples) == 5
    monkeypatch.chdir(tmp_path)
    namespace = {}
    for example in examples:
        exec(compile(example, "docs/library.md", "exec"), namespace)
    assert (tmp_path / "outputs" / "main").is_dir()


def test_every_name_of_the_front_door_is_there():
    for name in dir(ltkd):
        assert getattr(ltkd, name) is not None
    assert ltkd.kd is losses.kd
    with pytest.raises(ImportError, match="no_such_thing"):
        from ltkd import no_such_thing  # noqa: F401


def test_the_package_itself_imports_nothing_heavy():
    program = "import ltkd, sys; from ltkd import results; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], timeout=600).returncode == 0

"""The names of a run's files."""

import ast

from ltkd.results.files import RunFiles

from ..conftest import PROJECT


def test_no_other_file_spells_them(tmp_path):
    names = {path.name for path in vars(RunFiles(tmp_path)).values() if path.suffix}
    assert {"result.json", "last.ckpt", "metrics.jsonl"} <= names
    others = {"files.py": names, "pack.py": {"manifest.json"}}  # a pack is a zip with a manifest of its own
    for path in [*(PROJECT / "src").rglob("*.py"), *(PROJECT / "scripts").glob("*.py")]:
        nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        spelled = {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}
        assert not spelled & names - others.get(path.name, set()), path


def test_runs_are_found_below_a_folder_but_not_in_hidden_ones(tmp_path):
    for name in ("b/c/result.json", "a/status.json", "a/result.json", ".trial/x/result.json", "d/metrics.jsonl"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert [files.folder for files in RunFiles.below(tmp_path)] == [tmp_path / "a", tmp_path / "b" / "c"]

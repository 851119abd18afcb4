"""Gives the commands bad input: each must say in one line what is wrong, end with 2, and train nothing."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from ltkd.drill.process import Running
from ltkd.drill.report import Report
from ltkd.results.files import RunFiles

FILES = RunFiles(Path())

NAME = "bad input"
# a run whose data or teacher is refused, which shows when they are read, keeps a note of it: `results.py` names it
NOTES = {path.name for path in (FILES.lock, FILES.status, FILES.log, FILES.manifest)}


def misuse(folder: Path, inputs: Mapping[str, Sequence[str]], report: Report) -> None:
    """Tries every command line; DRILL in it is `folder`."""
    make_bad_files(folder)
    for name, words in inputs.items():
        command = [word.replace("DRILL", str(folder)) for word in words]
        if not command[0].endswith(".py"):
            command.insert(0, "src/train.py")
        outputs = folder / "outputs"
        if takes_settings(command[0]):
            command.append(f"output_root={outputs}")
        ended = Running(command).finish()
        written = [path for path in outputs.rglob("*") if path.is_file() and path.name not in NOTES]
        wrong = [
            text
            for text, is_wrong in {
                f"exit code {ended.code}": ended.code != 2,
                f"{len(ended.error_lines)} lines on standard error": len(ended.error_lines) != 1,
                "not an error line": not ended.errors.startswith("error: "),
                f"wrote {', '.join(path.name for path in written)}": written,
            }.items()
            if is_wrong
        ]
        report.count(NAME, f"{name}: {', '.join(wrong)}; {' '.join(command)}; {ended}" if wrong else None)
        shutil.rmtree(outputs, ignore_errors=True)


def takes_settings(script: str) -> bool:
    return Path(script).stem in ("train", "sweep", "reproduce", "tune", "choose")


def make_bad_files(folder: Path) -> None:
    (folder / "empty").mkdir(parents=True, exist_ok=True)
    (folder / "list.yaml").write_text("[1, 2]\n")
    table = "name: {name}\ntitle: {name}\nstudy: {name}\nbase: []\nrows: {{method: {{KD: method=kd}}}}\nseeds: [0]\n"
    (folder / "table.yaml").write_text(table.format(name="table"))
    (folder / "bad_table.yaml").write_text(table.format(name="bad_table") + "column: {}\n")
    (folder / "cut.safetensors").write_bytes(b'\x40\x00\x00\x00\x00\x00\x00\x00{"weight": {')

"""The commands that are killed, and the phase of its life that each is in, read off the files that it has written."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ltkd.drill.same import is_complete
from ltkd.results.files import RunFiles

TINY = [
    "run.progress=none",
    "run.threads=1",
    "device=cpu",
    "teacher=resnet8",
    "student=resnet8",
    "recipe.warmup_epochs=0",
]
TABLE = """
name: {name}
title: Two methods on the digits
study: {name}
base: [recipe.epochs={epochs}]
rows: {{method: {{none: method=ce, KD: method=kd}}}}
seeds: [0]
"""


@dataclass(frozen=True)
class Subject:
    """A command to kill."""

    name: str
    command: Callable[[Path], list[str]]  # that has its outputs in a folder
    phases: tuple[str, ...]
    phase: Callable[[Path], str | None]  # that the outputs in a folder are in; None: finished


def training(epochs: int) -> Subject:
    """One run with all four phases: teacher, cache of its logits, student, second stage of its classifier."""

    def command(outputs: Path) -> list[str]:
        # a wide border: many crops, so that the cache takes a while to fill
        settings = [
            "study=drill",
            "method=kd",
            f"recipe.epochs={epochs}",
            "cache.mode=fill",
            "dataset.crop_padding=2",
            f"student.retraining={{name: crt, epochs: {epochs}}}",
        ]
        return ["src/train.py", *TINY, *settings, f"output_root={outputs}"]

    phases = ("training of the teacher", "filling of its cache", "training of the student", "retraining")

    def phase(outputs: Path) -> str | None:
        teachers, students = RunFiles.below(outputs / "teachers"), RunFiles.below(outputs / "drill")
        if not any(files.result.exists() for files in teachers):
            return phases[0]
        if not any(is_complete(path) for files in teachers for path in files.logits.glob("*/about.json")):
            return phases[1]
        if any(files.result.exists() for files in students):
            return None
        return phases[3] if any(files.retraining.folder.exists() for files in students) else phases[2]

    return Subject("training", command, phases, phase)


def table(folder: Path, epochs: int) -> Subject:
    """A table of two runs, one of them with a teacher; its file lies in `folder`."""
    path = folder / "two_methods.yaml"
    path.write_text(TABLE.format(name=path.stem, epochs=epochs), encoding="utf-8")
    phases = ("first run of a table", "second run of a table")

    def command(outputs: Path) -> list[str]:
        return ["scripts/reproduce.py", f"table={path}", "jobs=1", *TINY, f"output_root={outputs}"]

    def phase(outputs: Path) -> str | None:
        done = sum(files.result.exists() for files in RunFiles.below(outputs / path.stem))
        return phases[done] if done < len(phases) else None

    return Subject("table", command, phases, phase)


def statuses(outputs: Path) -> dict[Path, str]:
    """The status of each run below a folder, as text: it names the process that works, and says running."""
    return {files.status: files.status.read_text() for files in RunFiles.below(outputs) if files.status.exists()}


def at_work(outputs: Path, before: dict[Path, str]) -> bool:
    """True where a run is under way that was not, or not by this process, when `before` was taken."""
    return any('"running"' in text and before.get(path) != text for path, text in statuses(outputs).items())

"""Starts several processes on the same runs: each run is trained by one of them, with the same bits as alone."""

import signal
from pathlib import Path

from ltkd.drill.process import Running
from ltkd.drill.report import Report
from ltkd.drill.same import contents, differences
from ltkd.drill.subjects import TINY, Subject, at_work
from ltkd.errors import EXIT_BUSY
from ltkd.results.files import RunFiles

CROWDS = (2, 4, 8)
LAST_EPOCH = "{role} resnet8: epoch {epochs}/{epochs} "  # in the log, of each training to the end


def two_on_one_run(subject: Subject, folder: Path, report: Report) -> None:
    """The second process on a busy run leaves it alone, with an exit code of its own."""
    name = "two processes on one run"
    alone, outputs = folder / "alone", folder / "two"
    Running(subject.command(alone)).finish()
    first = Running(subject.command(outputs))
    ended = None
    while ended is None and not at_work(outputs, {}):
        ended = first.wait(0.03)
    if ended is None:
        first.send(signal.SIGSTOP)  # it keeps its lock however long the second takes to start
    second = Running(subject.command(outputs)).finish()
    if ended is None:
        first.send(signal.SIGCONT)
        ended = first.finish()
    wrong = [f"the first: {ended}"] if ended.code != 0 else []
    wrong += [f"the second: {second}"] if second.code != EXIT_BUSY or second.errors else []
    wrong += [f"other than alone: {path}" for path in differences(contents(alone), contents(outputs))]
    report.count(name, "; ".join(wrong) or None)
    report.row(name).notes.append(f"the second ends with {EXIT_BUSY}")


def on_one_grid(folder: Path, epochs: int, report: Report) -> None:
    """2, 4 and 8 processes on a grid of four runs and a teacher; afterwards the same command finds all of them done."""
    grid = ["src/train.py", "-m", *TINY, f"recipe.epochs={epochs}", "study=grid", "method=ce,kd", "seed=0,1"]
    expected: dict[str, str] = {}
    for crowd in (1, *CROWDS):
        outputs = folder / f"{crowd} processes"
        command = [*grid, f"output_root={outputs}"]
        started = [Running(command) for _ in range(crowd)]
        ended = [running.finish() for running in started]
        again = Running(command).finish()
        # 1: another process worked on some job
        wrong = [str(process) for process in ended if process.code not in (0, 1) or "Traceback" in process.errors]
        wrong += [f"afterwards: {again}"] if again.code != 0 else []
        wrong += [f"trained {count} times: {run}" for run, count in _trainings(outputs, epochs).items() if count != 1]
        expected = expected or contents(outputs)
        wrong += [f"other than alone: {path}" for path in differences(expected, contents(outputs))]
        if crowd > 1 or wrong:
            report.count(f"{crowd} processes on one grid", "; ".join(wrong) or None)


def _trainings(outputs: Path, epochs: int) -> dict[str, int]:
    """How often each run was trained to its end, by the logs."""
    counts = {}
    for files in RunFiles.below(outputs):
        place = files.folder.relative_to(outputs)
        role = "teacher" if place.parts[0] == "teachers" else "student"
        counts[str(place)] = files.log.read_text().count(LAST_EPOCH.format(role=role, epochs=epochs))
    return counts

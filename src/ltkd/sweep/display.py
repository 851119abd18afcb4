"""Shows how a sweep goes: a line per running job, redrawn on a terminal and repeated now and then elsewhere."""

import shutil
import sys
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TextIO

from tqdm import tqdm

from ltkd.config.identity import NetworkRun
from ltkd.errors import UserError
from ltkd.loop.tracking import latest_metrics
from ltkd.runs.directory import RunDirectory
from ltkd.sweep.jobs import Job, JobOutcome

REDRAW_SECONDS = 0.5
LINE_SECONDS = 60  # between two plain lines of a job
CLEAR_BELOW = "\x1b[J"


class Display:
    """Says when a job starts and ends, and where each running one is. A silent one has no stream."""

    def __init__(self, stream: TextIO | None = sys.stdout) -> None:
        self.stream = stream
        self.live = stream is not None and stream.isatty()
        self.total = 0
        self.ended_jobs: list[JobOutcome] = []
        self.paces: dict[Path, Pace] = {}  # by the directory of the run
        self.drawn = 0  # lines of the live block on the screen
        self.next_drawing = 0.0

    def begin(self, ended_before: list[JobOutcome], waiting: list[Job], num_workers: int) -> None:
        self.total = len(ended_before) + len(waiting)
        self.ended_jobs = list(ended_before)
        counts = f"{self.total} runs: {len(ended_before)} ended before, {len(waiting)} to run"
        self._say(f"{counts}, {num_workers} at a time" if waiting else counts)
        for outcome in ended_before:
            if outcome.status == "failed":
                self._say(f"failed: {outcome.job.label}: {outcome.reason}")

    def started(self, job: Job) -> None:
        self.paces[job.run.directory] = Pace(job)
        if not self.live:
            self._say(f"started: {job.label}")

    def ended(self, outcome: JobOutcome) -> None:
        self.ended_jobs.append(outcome)
        about = accuracy(outcome.job) if outcome.status == "done" else outcome.reason
        count = f"{len(self.ended_jobs)}/{self.total}"
        self._say(f"{outcome.status}: {outcome.job.label}: {about}  ({count}, {_clock(outcome.seconds)})")

    def again(self, outcome: JobOutcome) -> None:
        self._say(f"started again: {outcome.job.label}: {outcome.reason}")

    def refresh(self, running: list[Job]) -> None:
        """Writes when it is time; called often."""
        now = time.monotonic()
        if self.live and now >= self.next_drawing:
            self.next_drawing = now + REDRAW_SECONDS
            self._erase()
            width, height = shutil.get_terminal_size()
            shown = running[: max(height - 2, 1)]  # what has scrolled away could not be drawn over
            lines = [f"  {job.label}: {self.paces[job.run.directory].text()}" for job in shown]
            lines.append(f"  {len(self.ended_jobs)} of {self.total} ended, {len(running)} running")
            lines = [line[: width - 1] for line in lines]
            self.drawn = len(lines)
            self._write("\n".join(lines) + "\n")
        elif not self.live:
            for job in running:
                pace = self.paces[job.run.directory]
                if now >= pace.next_line:
                    pace.next_line = now + LINE_SECONDS
                    self._say(f"{job.label}: {pace.text()}")

    def close(self) -> None:
        self._erase()

    def _say(self, line: str) -> None:
        if self.stream is not None:
            self._erase()
            self.next_drawing = 0.0
            self._write(f"{line}\n")

    def _erase(self) -> None:
        if self.drawn:
            lines, self.drawn = self.drawn, 0
            self._write(f"\x1b[{lines}F{CLEAR_BELOW}")

    def _write(self, text: str) -> None:
        """A stream that breaks (`| tee` ended by the same Ctrl-C, a full disk) costs the display, not the jobs."""
        try:
            if self.stream is not None:
                self.stream.write(text)
                self.stream.flush()
        except OSError:
            self.stream, self.live, self.drawn = None, False, 0


class Pace:
    """Describes a job's progress: the network under way, its epochs, the time that is left for it."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.next_line = time.monotonic() + LINE_SECONDS
        self.since: tuple[Path, int, float] | None = None  # run directory, epoch and time of the first look at it

    def text(self) -> str:
        run, epochs = self._under_way()
        metrics = latest_metrics(run.directory)
        name = f"{run.role} {run.network.name}"
        if metrics is None:
            return f"{name} starts"
        epoch, now = metrics["epoch"], time.monotonic()
        if self.since is None or self.since[0] != run.directory:
            self.since = (run.directory, epoch, now)
        _, first_epoch, first_time = self.since
        time_left = ""
        if epoch > first_epoch:
            time_left = f"  ({_clock((now - first_time) / (epoch - first_epoch) * (epochs - epoch))} left)"
        return f"{name} epoch {epoch}/{epochs}  loss {metrics['train/loss']:.3f}{_accuracies(metrics)}{time_left}"

    def _under_way(self) -> tuple[NetworkRun, int]:
        trained = (teacher for teacher in self.job.teachers if not teacher.files.result.exists())
        run = next(trained, self.job.run)
        return run, self.job.config.recipe_of(run.network).epochs


def _accuracies(metrics: dict[str, Any]) -> str:
    """Reads the accuracy on the validation split where there is one: who tunes should not look at the test part."""
    for part in ("validation", "test"):
        if f"{part}/accuracy" in metrics:
            return f"  {part} {metrics[f'{part}/accuracy']:.1f}"
    return ""


def accuracy(job: Job) -> str:
    """The headline of a finished run."""
    try:
        result = RunDirectory(job.run).finished_result()
    except UserError as error:
        return str(error)
    if result is None:
        return f"{job.run.files.result} cannot be read"
    last = result["accuracy"]["last"]
    name, record = ("validation", last["validation"]) if "validation" in last else ("test", last)
    groups = (f"{group} {value:.2f}" for group, value in record["per_group"].items() if value is not None)
    return f"{name} {record['all']:.2f} ({', '.join(groups)})"


def summary(outcomes: Iterable[JobOutcome]) -> str:
    """Counts jobs by outcome and lists the incomplete ones with their reason and where to read more."""
    unique = {outcome.job.run.directory: outcome for outcome in outcomes}.values()
    counts = Counter(outcome.status for outcome in unique)
    lines = [", ".join(f"{count} {status}" for status, count in counts.items())]
    lines += [
        f"  {outcome.status}: {outcome.job.label}: {outcome.reason}  [{outcome.job.console}]"
        for outcome in unique
        if not outcome.complete
    ]
    if not all(outcome.complete for outcome in unique):
        lines.append("the same command again goes on where this one ended")
    return "\n".join(lines)


def _clock(seconds: float) -> str:
    return tqdm.format_interval(seconds)

"""Kills a command at random moments and begins it again: in the end it must have the outputs of an undisturbed one."""

import shlex
import shutil
import signal
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from random import Random

from ltkd.drill.process import LONGEST, Ended, Running
from ltkd.drill.report import Report
from ltkd.drill.same import contents, differences
from ltkd.drill.subjects import Subject, at_work, statuses

POLL_SECONDS = 0.03
KILLS_OF_A_LIFE = 5  # that are aimed at; those whose phase has passed are left out
SIGNALS = {  # name, and the exit codes of a process that it ended
    signal.SIGKILL: ("kill -9", {-signal.SIGKILL}),
    signal.SIGTERM: ("SIGTERM", {-signal.SIGTERM, 128 + signal.SIGTERM, 128 + signal.SIGINT}),
    signal.SIGINT: ("Ctrl-C", {-signal.SIGINT, 128 + signal.SIGINT}),
}


@dataclass(frozen=True)
class Kill:
    phase: str | None  # that it fell into; None: the command had done all
    number: signal.Signals
    after: float  # seconds
    ended: Ended

    @property
    def failure(self) -> str | None:
        """What was wrong with the way in which the process ended."""
        name, codes = SIGNALS[self.number]
        if self.ended.code not in codes:
            return f"{name} in the {self.phase}: {self.ended}"
        return f"{name} in the {self.phase}: traceback" if "Traceback" in self.ended.errors else None

    def __str__(self) -> str:
        return f"{SIGNALS[self.number][0]} in the {self.phase} after {self.after:.2f} s"


class Killer:
    """Kills one subject below a folder until every phase of it had `each` kills."""

    def __init__(self, subject: Subject, folder: Path, moments: Random, report: Report) -> None:
        self.subject, self.folder, self.moments, self.report = subject, folder, moments, report
        self.kills: Counter[str] = Counter()
        self.signals: dict[str, Counter[str]] = {phase: Counter() for phase in subject.phases}

    def run(self, per_phase: int) -> None:
        for phase in self.subject.phases:
            self.report.row(f"killed in the {phase}")
        outputs = self.folder / "undisturbed"
        durations, ended = self._watch(outputs)
        self.expected = contents(outputs)
        if ended.code != 0:
            self.report.count(f"killed in the {self.subject.phases[0]}", f"undisturbed: {ended}")
            return
        for life in range(3 * per_phase):  # enough, unless what should be hit is over too fast
            if lacking := [phase for phase in self.subject.phases if self.kills[phase] < per_phase]:
                self._live(self.folder / f"life {life}", lacking, durations)
        for phase in self.subject.phases:
            row = self.report.row(f"killed in the {phase}")
            row.notes.append(", ".join(f"{count} {name}" for name, count in sorted(self.signals[phase].items())))

    def _watch(self, outputs: Path) -> tuple[dict[str, float], Ended]:
        """Runs the command undisturbed and measures the seconds of each phase, from when it is at work."""
        running = Running(self.subject.command(outputs))
        durations = dict.fromkeys(self.subject.phases, 0.0)
        start = time.monotonic()
        ended = None
        while ended is None and time.monotonic() - start < LONGEST:
            phase, before = self.subject.phase(outputs), time.monotonic()
            ended = running.wait(POLL_SECONDS)
            if phase is not None and at_work(outputs, {}):
                durations[phase] += time.monotonic() - before
        return durations, ended or running.finish()

    def _live(self, outputs: Path, lacking: list[str], durations: dict[str, float]) -> None:
        """Kills one run some times, lets it end, compares; outputs that are not as they should be stay."""
        aims = self.moments.choices(lacking, k=KILLS_OF_A_LIFE)
        kills: list[Kill] = []
        for aim in sorted(aims, key=self.subject.phases.index):
            phase = self.subject.phase(outputs)
            if phase is None:
                break
            if self.subject.phases.index(phase) <= self.subject.phases.index(aim):
                kills.append(self._kill(outputs, aim, self.moments.uniform(0, durations[aim])))
        ended = Running(self.subject.command(outputs)).finish()
        counted = [kill for kill in kills if kill.phase is not None]
        wrong = [kill.failure for kill in counted if kill.failure]
        wrong += [f"begun again it ended with {ended}"] if ended.code != 0 else []
        wrong += [f"other than undisturbed: {path}" for path in differences(self.expected, contents(outputs))]
        failure = f"{'; '.join(wrong)} (kills: {', '.join(map(str, kills))}; outputs in {outputs}; " if wrong else None
        if failure:
            failure += f"command: {shlex.join(self.subject.command(outputs))})"
        for kill in counted:
            self.kills[kill.phase] += 1
            self.signals[kill.phase][SIGNALS[kill.number][0]] += 1
            self.report.count(f"killed in the {kill.phase}", failure)
            failure = failure and "the same run as above"
        if not counted and failure:
            self.report.count(f"killed in the {self.subject.phases[-1]}", failure)
        if not wrong:
            shutil.rmtree(outputs)

    def _kill(self, outputs: Path, aim: str, after: float) -> Kill:
        """Starts the command and kills it so many seconds after it is at work in the phase aimed at, or a later one."""
        number = self.moments.choice(list(SIGNALS))
        before, start = statuses(outputs), time.monotonic()
        running = Running(self.subject.command(outputs))
        ended = None
        while ended is None and time.monotonic() - start < LONGEST:
            phase = self.subject.phase(outputs)
            if at_work(outputs, before) and (phase is None or not self._is_before(phase, aim)):
                ended = running.wait(after)
                break
            ended = running.wait(POLL_SECONDS)
        if ended is not None:  # by itself
            return Kill(None if ended.code == 0 else self.subject.phase(outputs), number, after, ended)
        running.send(number)
        phase = self.subject.phase(outputs)  # now, not before: the last file may be written in between
        return Kill(phase, number, after, running.finish())

    def _is_before(self, phase: str, other_phase: str) -> bool:
        return self.subject.phases.index(phase) < self.subject.phases.index(other_phase)

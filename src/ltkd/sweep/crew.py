"""Starts several jobs in one process, where they take turns on one GPU and share its data.

The process runs serve.py. Both talk in lines of JSON: a job goes in as {"overrides", "console", "run"}, and
{"run", "code"} comes out when it ends.
"""

import contextlib
import ctypes
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ltkd.sweep.jobs import Job

POLL_SECONDS = 0.1
DIE_WITH_PARENT = 1  # prctl's PR_SET_PDEATHSIG
BROKEN = 70  # exit code (EX_SOFTWARE) of a process in which nothing can be trained any more


class Crew:
    """A process for up to `places` jobs at a time; its members are in it until they end.

    number_format: settings that hold for the whole process, so that its jobs must have them in common.
    """

    def __init__(self, places: int, environment: Mapping[str, str], console: Path, number_format: object) -> None:
        self.number_format = number_format
        self.codes: dict[str, int] = {}  # of the jobs that ended, by their run's directory
        with open(console, "ab") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "ltkd.sweep.serve", str(places)],
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                text=True,
                start_new_session=True,
                preexec_fn=end_with_parent(),
            )
        threading.Thread(target=self._listen, daemon=True).start()

    def start(self, job: Job, overrides: Sequence[str]) -> "Member":
        """Have the process take on a job. BrokenPipeError where it has just died."""
        key = str(job.run.directory)
        self.codes.pop(key, None)
        request = {"overrides": list(overrides), "console": str(job.console), "run": key}
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return Member(self, key)

    @property
    def lives(self) -> bool:
        return self.process.poll() is None

    def close(self) -> None:
        """Let the process end once its jobs have."""
        with contextlib.suppress(OSError):
            self.process.stdin.close()

    def _listen(self) -> None:
        for line in self.process.stdout:
            reply = json.loads(line)
            self.codes[reply["run"]] = reply["code"]


class Member:
    """A job in the process of a crew, with what `subprocess.Popen` has for one in a process of its own."""

    def __init__(self, crew: Crew, key: str) -> None:
        self._crew, self._key = crew, key
        self.pid = crew.process.pid

    def poll(self) -> int | None:
        """Return the job's exit code, or that of the process where this ended first; None while it runs."""
        alone = self._crew.process.poll()
        return self._crew.codes.get(self._key, alone)

    @property
    def returncode(self) -> int | None:
        return self.poll()

    @property
    def is_broken(self) -> bool:
        """True where the job did not end by itself: its process did, or another job has spoiled it."""
        return self._crew.codes.get(self._key, BROKEN) == BROKEN

    def terminate(self) -> None:
        self._crew.process.terminate()

    def kill(self) -> None:
        self._crew.process.kill()

    def wait(self) -> int | None:
        while self.poll() is None:
            time.sleep(POLL_SECONDS)
        return self.poll()


def end_with_parent() -> Callable[[], None] | None:
    """Asks, in a new process on Linux, for a SIGTERM when the parent dies, even by `kill -9`."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl
    return lambda: prctl(DIE_WITH_PARENT, signal.SIGTERM)

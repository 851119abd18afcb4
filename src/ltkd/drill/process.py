"""Starts the project's commands as a user does, waits for their end or sends them a signal."""

import multiprocessing
import os
import resource
import runpy
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[3]
LONGEST = 600  # seconds; what takes longer hangs
WHOLE_EVERY = 8  # of so many commands one is a process of its own from the start

_server = multiprocessing.get_context("forkserver")
_server.set_forkserver_preload(
    ["ltkd.commands.launch", "ltkd.report", "ltkd.sweep", "sklearn.datasets", "torch._dynamo"]
)
_started = 0
_running: set["Running"] = set()
_stopped = False


@dataclass(frozen=True)
class Ended:
    code: int  # exit code; minus the signal's number where one ended it
    output: str
    errors: str

    @property
    def error_lines(self) -> list[str]:
        return [line for line in self.errors.splitlines() if line.strip()]

    def __str__(self) -> str:
        text = " / ".join((self.error_lines or self.output.strip().splitlines())[-3:])
        return f"exit code {self.code}: {text[:400]}"


class Running:
    """A command, such as src/train.py seed=1, that was started in the project's folder as a session of its own.

    Most are forked off a process that has imported the libraries, which saves seconds each; a few are started anew.
    file_size: bytes after which the system refuses to write on in a file, as a full disk does.
    """

    def __init__(self, command: Sequence[str], *, file_size: int | None = None) -> None:
        global _started
        if _stopped:
            raise KeyboardInterrupt
        _started += 1
        self.command = list(command)
        self._folder = Path(tempfile.mkdtemp(prefix="drill-"))
        streams = [str(self._folder / name) for name in ("output", "errors")]
        arguments = (self.command, streams, file_size)
        if _started % WHOLE_EVERY:
            self._process = _server.Process(target=_run, args=arguments, daemon=True)
            self._process.start()
        else:
            program = f"from ltkd.drill.process import _run; _run{arguments!r}"
            self._process = subprocess.Popen([sys.executable, "-c", program], cwd=PROJECT)
        _running.add(self)
        if _stopped:  # meanwhile
            self.send(signal.SIGKILL)

    def wait(self, seconds: float = LONGEST) -> Ended | None:
        """Returns how it ended; None where it goes on after so many seconds."""
        if isinstance(self._process, subprocess.Popen):
            try:
                code = self._process.wait(seconds)
            except subprocess.TimeoutExpired:
                return None
        else:
            self._process.join(seconds)
            code = self._process.exitcode
            if code is None:
                return None
        _running.discard(self)
        streams = [self._folder / name for name in ("output", "errors")]
        texts = [stream.read_text(errors="replace") if stream.exists() else "" for stream in streams]
        shutil.rmtree(self._folder)
        return Ended(code, *texts)

    def send(self, number: int) -> None:
        os.kill(self._process.pid, number)

    def finish(self) -> Ended:
        """Waits for the end; what hangs is killed, which its exit code says."""
        ended = self.wait()
        if ended is None:
            self.send(signal.SIGKILL)
            ended = self.wait()
        return ended


def stop_all() -> None:
    """Kills all commands that run, and lets no further one start."""
    global _stopped
    _stopped = True
    for running in list(_running):
        running.send(signal.SIGKILL)


def _run(command: list[str], streams: list[str], file_size: int | None) -> None:
    os.setsid()
    os.chdir(PROJECT)
    os.environ["WANDB_MODE"] = "disabled"
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number, stream in enumerate(streams, start=1):
        os.dup2(os.open(stream, os.O_WRONLY | os.O_CREAT), number)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if file_size is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, file_size))
    sys.argv = command
    sys.path.insert(0, str(PROJECT / Path(command[0]).parent))
    runpy.run_path(command[0], run_name="__main__")

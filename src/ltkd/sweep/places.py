"""Starts jobs in their places: processes of their own, or one process for those that share a GPU."""

import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from ltkd.config.schema import Config
from ltkd.errors import UserError
from ltkd.loop.precision import TINY_IMAGE
from ltkd.methods import method_class
from ltkd.sweep.crew import Crew, Member, end_with_parent
from ltkd.sweep.jobs import Job

TRAIN = Path(__file__).resolve().parents[2] / "train.py"


@dataclass
class Worker:
    """A job that runs."""

    job: Job
    slot: int
    process: subprocess.Popen | Member
    started: float = field(default_factory=time.monotonic)

    @property
    def is_broken(self) -> bool:
        """True where the process of several jobs ended before this one did."""
        return isinstance(self.process, Member) and self.process.is_broken


class Places:
    """The places that jobs run in: `number` of them, which take turns on the GPUs.

    gpus: as CUDA_VISIBLE_DEVICES names them. together: the jobs of one GPU whose steps are captured are in one process.
    """

    def __init__(self, number: int, threads: int, gpus: list[str], *, together: bool) -> None:
        self.number, self.threads, self.gpus = number, threads, gpus
        self.together = together
        self.crews: dict[int, Crew] = {}  # by the number of the GPU, or 0 where there is none
        self.alone: set[Path] = set()  # the runs of jobs that get a process of their own

    def start(self, job: Job, slot: int) -> Worker:
        """Start a job in that place. UserError where its console cannot be written."""
        environment = os.environ | {"OMP_NUM_THREADS": str(self.threads)}
        overrides = [*job.overrides, "run.progress=lines"]
        if job.config.run.threads == "auto" and job.config.dataset.image_size > TINY_IMAGE:
            overrides.append(f"run.threads={self.threads}")
        gpu = slot % max(len(self.gpus), 1)
        named = job.config.device not in ("auto", "cuda")  # a device was asked for by number
        if self.gpus and not named:
            environment["CUDA_VISIBLE_DEVICES"] = self.gpus[gpu]
        try:
            job.console.parent.mkdir(parents=True, exist_ok=True)
            open(job.console, "ab").close()  # so that it fails here, where a message can be given
            member = None
            alone = job.run.directory in self.alone or (self.gpus and named) or not _is_captured(job.config)
            if self.together and not alone:
                member = self._member(job, overrides, gpu, environment)
            return Worker(job, slot, member or _process(job, overrides, environment))
        except OSError as error:
            message = f"{job.console}: cannot be written ({error.strerror}); choose another output_root"
            raise UserError(message) from error

    def _member(self, job: Job, overrides: list[str], gpu: int, environment: dict[str, str]) -> Member | None:
        """Give the job to the process of its GPU; None where that cannot take it."""
        crew = self.crews.get(gpu)
        number_format = job.config.precision.tf32  # a switch of the process
        if crew is None or not crew.lives:
            per_gpu = -(-self.number // max(len(self.gpus), 1))
            crew = self.crews[gpu] = Crew(per_gpu, environment, job.console, number_format)
        if crew.number_format != number_format:
            return None
        try:
            return crew.start(job, overrides)
        except BrokenPipeError:
            return None

    def close(self) -> None:
        """Wait for the processes to end, which they do once their jobs have."""
        for crew in self.crews.values():
            crew.close()
            crew.process.wait()


def _is_captured(config: Config) -> bool:
    """True where the student's step is a CUDA graph on a GPU: launched one by one, its operations would hold all up.

    A compiled step is not, though it is captured too: what torch.compile has made for one training of a process it uses
    for the next, whose last digits would be others than alone.
    """
    eager = not method_class(config.method_name).capturable or config.recipe_of(config.student).sam
    return config.run.step in ("auto", "graph") and not eager


def _process(job: Job, overrides: list[str], environment: dict[str, str]) -> subprocess.Popen:
    with open(job.console, "ab") as console:
        # a session of its own: Ctrl-C reaches the sweep alone, which hands it on
        return subprocess.Popen(
            [sys.executable, TRAIN, *overrides],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=end_with_parent(),
        )

"""Run jobs as processes, some at a time.

Every job is `python src/train.py OVERRIDES`: locked, resumed and skipped as a single run is, and a crash costs that job
alone. Several on one GPU whose steps are captured are in one process (`Crew`); where that ends early, they go on in
processes of their own.
"""

import contextlib
import math
import os
import signal
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch

from ltkd.data import files_of
from ltkd.errors import EXIT_BUSY, UserError
from ltkd.files import read_json
from ltkd.loop.graph import CaptureFailed
from ltkd.loop.interrupt import StopRequest
from ltkd.machine import num_cores
from ltkd.runs.directory import RunDirectory
from ltkd.sweep.crew import Member
from ltkd.sweep.display import Display
from ltkd.sweep.jobs import Job, JobOutcome, check_jobs
from ltkd.sweep.places import Places, Worker

POLL_SECONDS = 0.1
OUT_OF_TIME = 124  # exit code, as that of `timeout`


def run_sweep(
    jobs: Iterable[Sequence[str]],
    *,
    num_workers: int | None = None,
    devices: Sequence[int] | None = None,
    minutes: float | None = None,
    display: Display | None = None,
) -> list[JobOutcome]:
    """Calls `run_jobs` for overrides. UserError, before anything runs, when the configuration of any job is wrong."""
    return run_jobs(check_jobs(jobs), num_workers=num_workers, devices=devices, minutes=minutes, display=display)


def run_jobs(
    jobs: Sequence[Job],
    *,
    num_workers: int | None = None,
    devices: Sequence[int] | None = None,
    minutes: float | None = None,
    display: Display | None = None,
    together: bool | None = None,
) -> list[JobOutcome]:
    """Run each job, `num_workers` at a time, and say how each ended, in the order given.

    num_workers: by default one per GPU or, where there is none, per CPU core. The cores are shared out evenly.
    devices: the GPUs to use, counted as torch counts them here, by default all; the workers take turns on them.
    together: those of one GPU whose steps are captured are in one process, by default where there are several of them;
    else each is in its own.

    Finished runs are skipped, unfinished ones resumed; jobs that are the same run are run once. Jobs that train a
    teacher come first. A teacher that several jobs need is trained by the first of them: the others are held back
    meanwhile, and the workers take different ones.
    SIGTERM and Ctrl-C are handed on: the jobs save their state and end, and no further one is started; a second Ctrl-C
    kills them. After `minutes` they are told to save and end just so.
    A job whose step cannot be captured in a CUDA graph is started once more without one, which gives the same numbers.
    One that finds no memory in the process of several is started once more in its own, after those that still wait.
    """
    end = math.inf if minutes is None else time.monotonic() + 60 * minutes
    gpus = _visible_gpus(devices)
    _refuse_two_data_sets_of_one_run(jobs)
    outcomes = {job.run.directory: outcome for job in jobs if (outcome := _ended_before(job)) is not None}
    waiting = list({job.run.directory: job for job in jobs if job.run.directory not in outcomes}.values())
    num_workers = min(num_at_a_time(num_workers, devices), max(len({job.run.directory for job in jobs}), 1))
    # not by what is left: a run goes on with as many threads as it began with, or its last bits could differ
    threads = max(1, num_cores() // num_workers)
    num_workers = min(num_workers, max(len(waiting), 1))
    display = display or Display()
    display.begin(list(outcomes.values()), waiting, num_workers)
    shares_gpus = bool(gpus) and num_workers > len(gpus)
    places = Places(num_workers, threads, gpus, together=shares_gpus if together is None else together)
    running: list[Worker] = []
    with StopRequest() as stop:
        try:
            told_to_stop = False
            while running or (waiting and not told_to_stop):
                ending = _ending(stop, end)
                while len(running) < num_workers and not ending and (job := _next_job(waiting, running)):
                    waiting.remove(job)
                    slot = min(set(range(num_workers)) - {worker.slot for worker in running})
                    display.started(job)
                    try:
                        running.append(places.start(job, slot))
                    except UserError as error:
                        outcomes[job.run.directory] = JobOutcome(job, "failed", str(error))
                        display.ended(outcomes[job.run.directory])
                if ending and not told_to_stop:
                    told_to_stop = True
                    for worker in running:
                        worker.process.terminate()
                time.sleep(POLL_SECONDS)
                for worker in [worker for worker in running if worker.process.poll() is not None]:
                    running.remove(worker)
                    # a signal to the whole process group reaches the jobs before they are told here
                    outcome = _how_it_ended(worker, _ending(stop, end))
                    if outcome.status == "failed" and worker.is_broken:
                        places.alone.add(worker.job.run.directory)
                        waiting.insert(0, worker.job)
                        display.again(outcome)
                        continue
                    if outcome.status == "failed" and _lacks_memory_beside_others(worker):
                        places.alone.add(worker.job.run.directory)
                        waiting.append(worker.job)
                        display.again(outcome)
                        continue
                    if outcome.status == "failed" and _lacks_only_a_graph(worker):
                        waiting.insert(0, _without_a_graph(worker.job))
                        display.again(outcome)
                        continue
                    outcomes[worker.job.run.directory] = outcome
                    display.ended(outcome)
                display.refresh([worker.job for worker in running])
        except KeyboardInterrupt:  # a second Ctrl-C
            for worker in running:
                worker.process.kill()
            raise
        finally:
            for worker in running:  # only after a second Ctrl-C or an error of our own; they may save then
                worker.process.terminate()
            for worker in running:
                worker.process.wait()
            places.close()
            display.close()
    not_started = _ending(stop, end)
    return [outcomes.get(job.run.directory) or JobOutcome(job, not_started, "not started") for job in jobs]


def _ending(stop: StopRequest, end: float) -> Literal["stopped", "out of time"] | None:
    """Why no further job is started and the running ones are to end; None while there is no reason."""
    if stop.signal is not None:
        return "stopped"
    return "out of time" if time.monotonic() >= end else None


def _refuse_two_data_sets_of_one_run(jobs: Sequence[Job]) -> None:
    """UserError for jobs that would be one run by their settings, and read their images from different folders."""
    seen: dict[Path, Job] = {}
    for job in jobs:
        first = seen.setdefault(job.run.directory, job)
        folders = [files_of(twin.config.dataset, Path(twin.config.data_root)) for twin in (first, job)]
        if folders[0] != folders[1]:
            raise UserError(
                f"{first.label} and {job.label}: the same settings, but images from {folders[0]} and {folders[1]}; "
                "give one of them another dataset.name"
            )


def exit_code(outcomes: Iterable[JobOutcome]) -> int:
    """Returns 0 when all is done, 130 after a stop, 124 when the time was up before all was done, else 1."""
    statuses = {outcome.status for outcome in outcomes}
    if "stopped" in statuses:
        return 128 + signal.SIGINT
    if "out of time" in statuses:
        return OUT_OF_TIME
    return 0 if statuses <= {"done", "skipped"} else 1


def num_at_a_time(num_workers: int | None = None, devices: Sequence[int] | None = None) -> int:
    """Number of jobs that `run_jobs` would run side by side, if there are as many."""
    return num_workers or len(_visible_gpus(devices)) or num_cores()


def _visible_gpus(devices: Sequence[int] | None) -> list[str]:
    """Translates the GPUs to the names that CUDA_VISIBLE_DEVICES has; UserError for one that is not there."""
    count = torch.cuda.device_count()
    listed = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if count else []
    names = [name.strip() for name in listed if name.strip()]
    if len(names) < count:
        names = [str(index) for index in range(count)]
    absent = [index for index in devices or [] if not 0 <= index < count]
    if absent:
        known_devices = f"0 to {count - 1}" if count else "none"
        raise UserError(f"devices: no GPU {', '.join(map(str, absent))} here; there are: {known_devices}")
    return [names[index] for index in (range(count) if devices is None else devices)]


def _ended_before(job: Job) -> JobOutcome | None:
    try:
        directory = RunDirectory(job.run)
        if directory.finished_result() is None:
            return None
        directory.check_source()
    except UserError as error:
        return JobOutcome(job, "failed", str(error))
    return JobOutcome(job, "skipped", "finished before")


def _next_job(waiting: list[Job], running: list[Worker]) -> Job | None:
    """The job to start now; None where all would only wait for a teacher which a running job trains, or is about to.

    Of the first turn that has any, first those that train a teacher, the one that most jobs wait for: meanwhile the
    other workers have jobs that need none. Else in the order given.
    """

    def missing_teachers(job: Job) -> set[Path]:
        return {teacher.directory for teacher in job.teachers if not teacher.files.result.exists()}

    in_training = set().union(*(missing_teachers(worker.job) for worker in running))
    missing = {job.run.directory: missing_teachers(job) for job in waiting}
    ready = [job for job in waiting if not missing[job.run.directory] & in_training]
    wanted = Counter(teacher for teachers in missing.values() for teacher in teachers)
    return max(
        ready, key=lambda job: (-job.turn, sum(wanted[teacher] for teacher in missing[job.run.directory])), default=None
    )


def _how_it_ended(worker: Worker, ending: Literal["stopped", "out of time"] | None) -> JobOutcome:
    job, code, seconds = worker.job, worker.process.returncode, time.monotonic() - worker.started
    try:
        if RunDirectory(job.run).finished_result() is not None:
            return JobOutcome(job, "done", None, seconds)
    except UserError as error:
        return JobOutcome(job, "failed", str(error), seconds)
    if code == EXIT_BUSY:
        return JobOutcome(job, "busy", f"another process works on {job.run.directory}", seconds)
    if ending:
        return JobOutcome(job, ending, "goes on from its last checkpoint", seconds)
    return JobOutcome(job, "failed", _reason(worker), seconds)


def _lacks_only_a_graph(worker: Worker) -> bool:
    return worker.job.config.run.step == "auto" and _error(worker).startswith(f"{CaptureFailed.__name__}: ")


def _lacks_memory_beside_others(worker: Worker) -> bool:
    return isinstance(worker.process, Member) and _error(worker).startswith(f"{torch.OutOfMemoryError.__name__}: ")


def _without_a_graph(job: Job) -> Job:
    config = replace(job.config, run=replace(job.config.run, step="eager"))
    return replace(job, overrides=[*job.overrides, "run.step=eager"], config=config)


def _error(worker: Worker) -> str:
    """Returns the error that the run's status has, "KIND: MESSAGE"; empty where it has none of this process."""
    with contextlib.suppress(UserError):
        status = read_json(worker.job.run.files.status)
        if status.get("process") == worker.process.pid:
            return status.get("error") or ""
    return ""


def _reason(worker: Worker) -> str:
    """Explains a failure: by the run's status, or else the signal that ended it, or else its last words."""
    code = worker.process.returncode
    if code < 0:
        hint = " (out of memory?)" if code == -signal.SIGKILL else ""
        return f"killed by {signal.Signals(-code).name}{hint}"
    if error := _error(worker):
        return error.removeprefix("UserError: ")
    lines = worker.job.console.read_text(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), f"exit code {code}")

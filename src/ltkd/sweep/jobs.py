"""The jobs of a sweep: expanded from overrides, checked all together before the first is started."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hydra import initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from ltkd.config.compose import CONFIGURATION, compose_values, parse_overrides
from ltkd.config.identity import NetworkRun, student_run, teacher_run
from ltkd.config.load import load_config
from ltkd.config.schema import Config
from ltkd.errors import UserError, one_or_list


@dataclass(frozen=True)
class Job:
    """One run, checked: its overrides, and where it and the teachers that it needs are stored."""

    overrides: list[str]
    label: str  # what the user sees: the overrides that not all jobs share
    config: Config
    run: NetworkRun
    teachers: list[NetworkRun]
    turn: int = 0  # those of a lower one start first, whichever waits for a teacher

    @classmethod
    def of(cls, overrides: list[str], label: str, config: Config) -> "Job":
        """The job of overrides that `config` was made of."""
        teachers = [config.teacher, *config.extra_teachers] if config.needs_teacher else []
        return cls(
            overrides, label, config, student_run(config), [teacher_run(config, teacher) for teacher in teachers]
        )

    @property
    def console(self) -> Path:
        """The file with all output of the job's processes, the last words of a crash too."""
        return self.run.files.console


@dataclass(frozen=True)
class JobOutcome:
    """The outcome of a job. `stopped`, `out of time`: the sweep ended first. `busy`: another process works on it."""

    job: Job
    status: Literal["done", "skipped", "failed", "stopped", "out of time", "busy"]
    reason: str | None = None
    seconds: float = 0.0

    @property
    def complete(self) -> bool:
        return self.status in ("done", "skipped")


def expand_overrides(overrides: Sequence[str]) -> list[list[str]]:
    """The overrides of each run of a grid, as `train.py -m` would expand them, in its order. UserError as Hydra's."""
    parse_overrides(overrides)
    try:
        with initialize_config_dir(str(CONFIGURATION), version_base="1.3"):
            # the loader knows the choices of each group, which `method=glob(*)` asks for
            parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
            [batch] = BasicSweeper.split_arguments(parser.parse_overrides(list(overrides)), max_batch_size=None)
    except HydraException as error:
        raise UserError(str(error)) from error
    return [list(job) for job in batch]


def check_jobs(jobs: Iterable[Sequence[str]]) -> list[Job]:
    """Compose and check every job's overrides. UserError with all that is wrong, each message once."""
    jobs = [list(overrides) for overrides in jobs]
    shared = set.intersection(*map(set, jobs)) if len(jobs) > 1 else set()
    checked: list[Job] = []
    errors: dict[str, list[str]] = {}
    for overrides in jobs:
        label = " ".join(override for override in overrides if override not in shared) or "run"
        try:
            checked.append(Job.of(overrides, label, load_config(compose_values(*overrides))))
        except UserError as error:
            errors.setdefault(str(error), []).append(label)
    if errors:
        lines = [f"{labels[0]}{_and_others(len(labels) - 1)}: {message}" for message, labels in errors.items()]
        raise UserError(one_or_list("nothing was run:", lines))
    return checked


def _and_others(count: int) -> str:
    return f" (and {count} more)" if count else ""

"""Plans a table: what is done, what is left to run, and how long that may take."""

import contextlib
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from pathlib import Path
from statistics import mean
from typing import Any

from tabulate import tabulate
from tqdm import tqdm

from ltkd.config.identity import NetworkRun
from ltkd.config.schema import Wandb
from ltkd.data import why_unavailable
from ltkd.errors import UserError
from ltkd.loop.tracking import latest_metrics
from ltkd.machine import resolve_device
from ltkd.results.files import RunFiles
from ltkd.results.read import read_result
from ltkd.sweep import Job
from ltkd.tables.table import Table, TableRun, compose_runs

STATES = ("done", "to resume", "to run", "no data")
MANY_CELLS = 60  # a plan of more has a line for each column
TAG_LENGTH = 64  # of W&B's tags at most


@dataclass(frozen=True)
class Plan:
    """The runs of a table, sorted by state: done, to resume, to run, without data."""

    table: Table
    runs: list[TableRun]

    @cached_property
    def states(self) -> list[str]:
        return [_state(run) for run in self.runs]

    @cached_property
    def left(self) -> list[TableRun]:
        return [run for run, state in zip(self.runs, self.states, strict=True) if state in ("to resume", "to run")]

    @cached_property
    def networks_left(self) -> list[NetworkRun]:
        """Students to train and the teachers that they lack, each once."""
        teachers = [teacher for run in self.left for teacher in run.teachers]
        networks = [*_missing(teachers), *(run.student for run in self.left)]
        return list({network.directory: network for network in networks}.values())

    def jobs(self, *, by_seed: bool = False) -> list[Job]:
        """The runs that are left as jobs: cell by cell, or every cell of the first seed, then of the next."""
        jobs = [job_of(self.table, run) for run in self.left]
        if not by_seed:
            return jobs
        turns = {seeds: turn for turn, seeds in enumerate(product(self.table.split_seeds, self.table.seeds))}
        jobs = [replace(job, turn=turns[run.split_seed, run.seed]) for job, run in zip(jobs, self.left, strict=True)]
        return sorted(jobs, key=lambda job: job.turn)

    def other_runs(self, overrides: Iterable[str]) -> list[TableRun]:
        """The table's runs beside these, with the same overrides where a cell takes them."""
        overrides, planned = list(overrides), {_place(run) for run in self.runs}
        table_runs = []
        for cell in self.table.cells:
            with contextlib.suppress(UserError):  # what is set for the chosen cells need not be for this one
                table_runs += compose_runs(self.table, overrides, cells=[cell])
        return [run for run in table_runs if _place(run) not in planned]

    def text(self, seconds: "Speeds", num_at_a_time: int = 1) -> str:
        """Describes how much of each cell is done, with an estimate of the time left."""
        counts: dict[str, dict[str, int]] = defaultdict(lambda: dict.fromkeys(STATES, 0))
        cells = {run.cell.label for run in self.runs}
        for run, state in zip(self.runs, self.states, strict=True):
            label = run.cell.label if len(cells) <= MANY_CELLS else f"... | {run.cell.column_label}"
            counts[label][state] += 1
        shown = [state for state in STATES if any(state_counts[state] for state_counts in counts.values())]
        body = [[label, *(state_counts[state] or "" for state in shown)] for label, state_counts in counts.items()]
        body.append(["all", *(self.states.count(state) for state in shown)])
        size = f"{len(cells)} cells, {len(self.runs)} runs"
        lines = [f"{self.table.title} (table {self.table.name}): {size}", ""]
        lines += [tabulate(body, headers=["runs", *shown], tablefmt="simple", disable_numparse=True), ""]
        absent = {
            why: None for run in self.runs if (why := why_unavailable(run.config.dataset, Path(run.config.data_root)))
        }
        lines += absent
        if self.networks_left:
            lines.append(seconds.estimate(self.networks_left, min(num_at_a_time, len(self.left))))
        return "\n".join(lines)


def job_of(table: Table, run: TableRun) -> Job:
    """The run as a sweep's job. In W&B it has the table, the row and the column as tags, to group by."""
    config = run.config
    seeds = [f"split {run.split_seed}"] * (len(table.split_seeds) > 1) + [f"seed {run.seed}"]
    names = filter(None, [f"table {table.name}", run.cell.row_label, run.cell.column_label])
    tags = [*config.wandb.tags, *(name[:TAG_LENGTH] for name in names)]
    quoted = ",".join('"' + tag.replace("\\", "").replace('"', "") + '"' for tag in dict.fromkeys(tags))
    return Job.of([*run.overrides, f"wandb.tags=[{quoted}]"], f"{run.cell.label} {' '.join(seeds)}", config)


def wandb_sweep(table: Table, arguments: list[str], wandb: Wandb) -> dict[str, Any]:
    """The definition that `wandb sweep` takes: reproduce.py with `arguments`, for each cell and seed of the table."""
    parameters = {
        "cell": [cell.label for cell in table.cells if cell.overrides is not None],
        "seed": table.seeds,
        "split_seed": table.split_seeds,
    }
    return {
        "name": table.name,
        "description": table.title,
        "project": wandb.project,
        **({"entity": wandb.entity} if wandb.entity else {}),
        "program": "scripts/reproduce.py",
        "method": "grid",
        "parameters": {name: {"values": values} for name, values in parameters.items()},
        "command": ["${env}", "${interpreter}", "${program}", *arguments, "${args_no_hyphens}"],
    }


def _place(run: TableRun) -> tuple:
    return run.cell.label, run.split_seed, run.seed


def _state(run: TableRun) -> str:
    try:
        if run.result() is not None:
            return "done"
    except UserError:  # damaged: the run says so itself
        return "to run"
    if _why_unavailable(run):
        return "no data"
    return "to resume" if run.student.files.checkpoint.exists() else "to run"


def _why_unavailable(run: TableRun) -> str | None:
    return why_unavailable(run.config.dataset, Path(run.config.data_root))


def _epochs_left(run: NetworkRun) -> int:
    """Counts the epochs that a run to resume still lacks by its metrics, which may be a little ahead of its checkpoint.

    Of a training in two stages all: how far it is in which of them is not looked at.
    """
    resumed = run.files.checkpoint.exists() and run.network.retraining is None
    latest = latest_metrics(run.directory) if resumed else None
    done = latest.get("epoch", 0) if isinstance(latest, dict) else 0
    return run.config.recipe_of(run.network).epochs - done


def _missing(teachers: Iterable[NetworkRun]) -> list[NetworkRun]:
    return [
        teacher
        for teacher in teachers
        if not teacher.files.result.exists() and getattr(teacher.network, "checkpoint", None) is None
    ]


class Speeds:
    """Estimates how long runs take by those that have finished under a folder on the same type of device."""

    def __init__(self, output_root: Path, device: str) -> None:
        on_cpu = resolve_device(device).type == "cpu"
        seconds: dict[tuple, list[float]] = defaultdict(list)  # of an epoch
        for files in RunFiles.below(output_root):
            with contextlib.suppress(UserError, KeyError, TypeError):  # not of this version
                result = read_result(files.result)
                epochs = result["accuracy"]["last"]["epoch"]
                if epochs and result["device"].startswith("cpu") == on_cpu:
                    names = result["dataset"], result["teacher"], result["student"]
                    spent = max(result["train_seconds"], result["wall_seconds"]) / epochs
                    for kind in {(*names, result["method"]), names}:
                        seconds[kind].append(spent)
        self.seconds = {kind: mean(values) for kind, values in seconds.items()}

    def of(self, run: NetworkRun) -> float | None:
        """Estimates what is left of the run: by runs of the same data, networks and method, else of another method."""
        names = run.names
        pair = names["dataset"], names["teacher"], names["student"]
        epoch = self.seconds.get((*pair, names["method"])) or self.seconds.get(pair)
        return None if epoch is None else epoch * _epochs_left(run)

    def estimate(self, runs: list[NetworkRun], num_at_a_time: int = 1) -> str:
        known = [seconds for run in runs if (seconds := self.of(run)) is not None]
        unknown = len(runs) - len(known)
        text = f"{len(runs)} networks to train"
        if not known:
            return f"{text}; how long that takes is unknown: none of the kind has finished here"
        text += f", about {tqdm.format_interval(sum(known))} one after the other"
        if num_at_a_time > 1:
            side_by_side = max(sum(known) / num_at_a_time, *known)  # the longest is not divided
            text += f", {tqdm.format_interval(side_by_side)} or more with {num_at_a_time} at a time"
        return f"{text}, and {unknown} of a kind that has not finished here yet" if unknown else text

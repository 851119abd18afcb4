"""Collects result.json files into tables of means over seeds. Knows no torch, so that it starts at once."""

import csv
import io
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from tabulate import tabulate

from ltkd.errors import UserError
from ltkd.results.files import RunFiles
from ltkd.results.read import (
    KINDS,
    POST_HOC,
    accuracy,
    cell_text,
    correction,
    flatten,
    how_it_ended,
    read_result,
    teacher_of,
)

LEARNED_FROM_VALIDATION = "(trained on the validation images too)"  # in a row's settings


@dataclass
class SeedGroup:
    """Runs that differ in nothing but their seeds."""

    names: dict[str, Any]  # dataset, teacher, student, method
    identity: dict[str, Any]  # of one of the runs
    group_names: list[str]
    settings: str = ""  # what tells it from cells of the same names
    teacher_seed: int | None = None  # where that tells it from another cell
    runs: list[dict[str, Any]] = field(default_factory=list)

    def values(self, kind: str, group: str | None) -> list[float]:
        """The accuracy of each run, over all classes or in a group; runs without it are left out."""
        values = [accuracy(run, kind, group) for run in self.runs]
        return [value for value in values if value is not None]

    @property
    def label(self) -> str:
        return " ".join(filter(None, [*self.names.values(), self.settings]))

    @property
    def learned_from_validation(self) -> bool:
        return any(run.get("learned_from_validation") for run in self.runs)


@dataclass(frozen=True)
class Collection:
    cells: list[SeedGroup]
    incomplete: list[str]  # a line for each run that has no result and for each seed that a cell lacks


def collect(folders: Iterable[Path]) -> Collection:
    """Read every result.json and status.json below `folders`. A run found twice (same hash) counts once.

    Runs share a cell when they differ in seeds alone. Where a seed is there twice, with two teachers, there is a cell
    for each teacher's seed: n counts independent runs. The teachers that the students had have rows too.
    """
    runs: dict[str, dict[str, Any]] = {}
    unfinished = []
    for folder in folders:
        for files in RunFiles.below(folder):
            if not files.result.exists():
                unfinished.append(how_it_ended(files.status))
                continue
            try:
                run = read_result(files.result)
            except UserError as error:
                unfinished.append(f"unreadable: {error}")
            else:
                runs[run["cell"] + run["hash"]] = run
    for run in list(runs.values()):
        if run.get("teacher_result"):
            teacher = teacher_of(run)
            runs.setdefault(teacher["cell"] + teacher["hash"], teacher)

    repeated = _cells_with_a_repeated_seed(runs.values())
    cells: dict[tuple, SeedGroup] = {}
    for run in runs.values():
        names = {key: run[key] for key in ("dataset", "teacher", "student", "method")}
        teacher_seed = _teacher_seed(run) if run["cell"] in repeated else None
        identity = run["identity"] | {"evaluate_every": run["evaluate_every"]}
        cell = cells.setdefault((run["cell"], teacher_seed), SeedGroup(names, identity, run["group_names"]))
        cell.teacher_seed = teacher_seed
        cell.runs.append(run)
    _name_settings(list(cells.values()))
    ordered = sorted(cells.values(), key=_order)
    return Collection(ordered, unfinished + _missing_seeds(ordered))


def _teacher_seed(run: dict[str, Any]) -> int | None:
    return (run["identity"].get("teacher") or {}).get("seed")


def _cells_with_a_repeated_seed(runs: Iterable[dict[str, Any]]) -> set[str]:
    seeds = Counter((run["cell"], run["seed"]) for run in runs)
    return {cell for (cell, _), count in seeds.items() if count > 1}


def _order(cell: SeedGroup) -> tuple:
    dataset, teacher, student, method = cell.names.values()
    # numbers in the settings as numbers: temperature=4 before temperature=16
    parts = re.split(r"(\d+(?:\.\d+)?)", cell.settings)
    settings = [float(part) if i % 2 else part for i, part in enumerate(parts)]
    return (dataset, student or "", method != "teacher", teacher or "", method, settings)


def _name_settings(cells: list[SeedGroup]) -> None:
    """Names the settings in which cells with the same names differ; so no two different cells look alike.

    A value that most of them have goes without saying: the rows of an ablation show what was changed.
    """
    alike = defaultdict(list)
    for cell in cells:
        alike[tuple(cell.names.values())].append(cell)
    for same in alike.values():
        flat = [flatten(_chosen(cell.identity)) | _teacher_seed_setting(cell) for cell in same]
        for key in sorted({key for one in flat for key in one}):
            values = [json.dumps(one[key]) if key in one else "" for one in flat]  # null is not the same as not there
            common, count = Counter(values).most_common(1)[0]
            # what student and teacher share (data, recipe) is said once
            shared = key.removeprefix("teacher.")
            if shared != key and all(one.get(key) == one.get(shared) for one in flat):
                continue
            for cell, one, value in zip(same, flat, values, strict=True):
                if key in one and count < len(same) and not (value == common and count > len(same) / 2):
                    cell.settings = f"{cell.settings} {key.removeprefix('method.')}={_shown(one[key])}".strip()


def _shown(value: Any) -> str:
    return "null" if value is None else str(value)


def _chosen(identity: dict[str, Any]) -> dict[str, Any]:
    """Leaves out the further teachers: they follow from the method's settings, the teacher and the student."""
    return {key: value for key, value in identity.items() if key != "further_teachers"}


def _teacher_seed_setting(cell: SeedGroup) -> dict[str, Any]:
    return {} if cell.teacher_seed is None else {"teacher.seed": cell.teacher_seed}


def _missing_seeds(cells: list[SeedGroup]) -> list[str]:
    """Names seeds that some cells of one study, data set, student and length have and others lack."""
    students = [cell for cell in cells if cell.names["student"]]
    seeds = defaultdict(set)

    def question(cell: SeedGroup) -> tuple:
        epochs = cell.identity["recipe"]["epochs"]  # a table of longer trainings may have fewer seeds
        return cell.runs[0]["study"], cell.names["dataset"], cell.names["student"], epochs

    for cell in students:
        seeds[question(cell)] |= {run["seed"] for run in cell.runs}
    lines = []
    for cell in students:
        absent = sorted(seeds[question(cell)] - {run["seed"] for run in cell.runs})
        if absent:
            lines.append(f"missing: {cell.label} seed {', '.join(map(str, absent))}")
    return lines


def summary_rows(cells: list[SeedGroup], kind: str) -> list[dict[str, Any]]:
    """Returns a flat row per cell: names, settings, n, mean and sample deviation of each accuracy (None: n/a)."""
    groups = list(dict.fromkeys(group for cell in cells for group in cell.group_names))
    cells = [part for cell in cells for part in _by_tau(cell, kind)]
    rows = []
    for cell in cells:
        settings = f"{cell.settings} {LEARNED_FROM_VALIDATION}" if cell.learned_from_validation else cell.settings
        row = {**cell.names, "settings": settings.strip(), "accuracy": kind, "n": len(cell.values(kind, None))}
        for group in (None, *groups):
            values = cell.values(kind, group) if group is None or group in cell.group_names else []
            row[f"{group or 'all'}"] = mean(values) if values else None
            row[f"{group or 'all'} std"] = stdev(values) if len(values) > 1 else None
        rows.append(row)
    return rows


def _by_tau(cell: SeedGroup, kind: str) -> list[SeedGroup]:
    """Splits a cell by the tau that its runs were corrected with post hoc, which is no part of a run's identity.

    Where validation images chose it, the choice is the correction, whatever tau it led to.
    """
    if kind not in POST_HOC:
        return [cell]
    parts = defaultdict(list)
    for run in cell.runs:
        if corrected := correction(run, kind):
            chosen = corrected["chosen_by"] == "validation"
            parts["tau by validation" if chosen else f"tau={corrected['tau']:g}"].append(run)
    if len(parts) < 2:
        return [cell]
    return [replace(cell, settings=f"{cell.settings} {tau}".strip(), runs=parts[tau]) for tau in sorted(parts)]


def markdown(cells: list[SeedGroup], kind: str) -> str:
    """Writes the table and what it shows: mean ± sample standard deviation; a single run has no deviation."""
    rows = summary_rows(cells, kind)
    if not rows:
        return "no finished run"
    fixed = [
        key for key in ("dataset", "teacher", "student", "method", "settings", "n") if any(row[key] for row in rows)
    ]
    accuracies = [key.removesuffix(" std") for key in rows[0] if key.endswith(" std")]
    body = [
        [row[key] if row[key] not in (None, "") else "-" for key in fixed]
        + [cell_text(row[key], row[f"{key} std"]) for key in accuracies]
        for row in rows
    ]
    table = tabulate(body, headers=[*fixed, *accuracies], tablefmt="github", disable_numparse=True)
    return f"{KINDS[kind]}; mean ± standard deviation over n runs\n\n{table}"


def comma_separated(cells: list[SeedGroup], kind: str) -> str:
    """Writes the same as CSV, unrounded."""
    rows = summary_rows(cells, kind)
    file = io.StringIO()
    writer = csv.DictWriter(file, fieldnames=list(rows[0]) if rows else ["n"])
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()

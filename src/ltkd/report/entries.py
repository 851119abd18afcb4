"""Reads a table's runs for a report, each with its result or the reason for its lack, and refuses mixtures."""

import json
import shlex
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ltkd.config.identity import without_seeds
from ltkd.errors import UserError
from ltkd.report.curves import read_metrics
from ltkd.results.read import CORRECTED, correction, flatten, how_it_ended
from ltkd.results.teachers import conflicting_teachers
from ltkd.tables.table import Cell, Table, TableRun


@dataclass(frozen=True)
class Entry:
    """One seed of a cell: its result, or why there is none."""

    cell: Cell
    seed: int
    split_seed: int
    result: dict[str, Any] | None
    ended: str = ""  # how the run ended, where it has no result
    command: str = ""  # for it
    directory: Path | None = None  # where its curves are
    teacher_directory: Path | None = None

    @property
    def missing(self) -> str:
        """How the run ended, and the command for it."""
        return "; ".join(filter(None, (self.ended, self.command)))

    @property
    def pair(self) -> tuple[int, int]:
        return self.split_seed, self.seed


def entries_of(runs: Iterable[TableRun]) -> list[Entry]:
    """Reads the results from the runs' directories. A damaged result costs only itself."""
    return [_entry(run) for run in runs]


def _entry(run: TableRun) -> Entry:
    student = run.student
    teacher = run.teachers[0].directory if run.teachers else None
    entry = Entry(run.cell, run.seed, run.split_seed, None, directory=student.directory, teacher_directory=teacher)
    try:
        result = run.result()
        if result is not None:
            return replace(entry, result=result)
        status = student.files.status
        ended = how_it_ended(status) if status.exists() else "not started"
    except UserError as error:
        ended = str(error)
    return replace(entry, ended=ended, command=f"python src/train.py {shlex.join(run.overrides)}")


def with_readable_curves(entries: Iterable[Entry]) -> tuple[list[Entry], list[str]]:
    """Drops the folders whose metrics.jsonl is damaged, and names them: such runs count, without curves."""
    readable, damaged = [], {}
    for entry in entries:
        folders = {"directory": entry.directory, "teacher_directory": entry.teacher_directory}
        for key, folder in folders.items() if entry.result else ():
            if folder not in damaged:
                try:
                    read_metrics(folder)
                    damaged[folder] = ""
                except UserError as error:
                    damaged[folder] = f"curves of {entry.cell.label} seed {entry.seed}: {error}"
            if damaged[folder]:
                entry = replace(entry, **{key: None})
        readable.append(entry)
    return readable, [line for line in damaged.values() if line]


def refuse_mixture(cell: Cell, entries: list[Entry], table: Table) -> None:
    """Raises UserError when runs of a cell differ in more than seeds; it names both and every difference."""
    if not entries:
        return
    first, *other_entries = entries
    expected = _comparable(first.result, table)
    for entry in other_entries:
        actual = _comparable(entry.result, table)
        apart = {"split_sha256"} if entry.split_seed != first.split_seed else set()
        keys = [key for key in sorted(expected.keys() | actual.keys()) if expected.get(key) != actual.get(key)]
        differences = [f"{key}: {_short(expected, key)} and {_short(actual, key)}" for key in keys if key not in apart]
        if differences:
            raise UserError(
                f"table {table.name}, {cell.label}: {first.result['directory']} and {entry.result['directory']} "
                f"differ in more than the seed and are not put into one cell ({'; '.join(differences)})"
            )


def _comparable(result: dict[str, Any], table: Table) -> dict[str, Any]:
    """Returns all that the runs of a cell must agree in, flat."""
    identity = without_seeds(result["identity"])
    identity = flatten(without_split_seeds(identity) if len(table.split_seeds) > 1 else identity)
    measured = ("schema_version", "evaluate_every", "group_names", "groups", "class_counts", "split_sha256")
    if tau := _tau_of(result, table):
        identity["tau"] = tau
    return identity | {key: result[key] for key in measured}


def _tau_of(result: dict[str, Any], table: Table) -> str | None:
    """Names the correction of the table's accuracy, if there is one. All taus that validation images chose are one."""
    if table.accuracy not in CORRECTED or not (corrected := correction(result, table.accuracy)):
        return None
    chosen_by = corrected["chosen_by"]
    return chosen_by if chosen_by == "validation" else f"{corrected['tau']} ({chosen_by})"


def refuse_different_taus(table: Table, entries: list[Entry]) -> None:
    """Raises UserError when rows of a table of corrected accuracies were corrected in different ways."""
    labels = {}
    for entry in entries:
        if entry.result and (tau := _tau_of(entry.result, table)):
            labels.setdefault(tau, entry.cell.label)
    if len(labels) > 1:
        rows = " and ".join(f"{label} with tau {tau}" for tau, label in labels.items())
        raise UserError(
            f"table {table.name}: {table.accuracy} of its rows does not compare: {rows}; a finished run keeps its tau, "
            "so run the table in a study of its own"
        )


def refuse_different_teachers(table: Table, entries: list[Entry]) -> None:
    """Raises UserError when rows of a table were taught by a teacher that was trained several times."""
    if conflicts := conflicting_teachers(entry.result for entry in entries if entry.result):
        lines = "\n".join(conflicts.values())
        raise UserError(
            f"table {table.name}: its students do not compare; keep one teacher and run the other's again\n{lines}"
        )


def without_split_seeds(value: Any) -> Any:
    """Removes the split seeds of the network and its teachers from an identity."""
    if isinstance(value, dict):
        return {key: without_split_seeds(inner) for key, inner in value.items() if key != "split_seed"}
    return [without_split_seeds(inner) for inner in value] if isinstance(value, list) else value


def _short(values: dict[str, Any], key: str) -> str:
    text = json.dumps(values[key]) if key in values else "nothing"
    return text if len(text) <= 40 else f"{text[:37]}..."

"""A paper's table as data: cells -> composed runs -> the results that are there.

table = load_table("cifar100_lt_main")
for run in compose_runs(table, ["device=cuda"]):     one for each cell, split seed and seed
    run.overrides                                    for train.py
    run.student.directory, run.teachers              where it and its teachers lie (ltkd.config.identity.NetworkRun)
    run.result()                                     result.json, if it is there and of this identity, or None
"""

import itertools
import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, Any, Literal

from annotated_types import MinLen

from ltkd.config.compose import compose_variants
from ltkd.config.identity import NetworkRun, student_run, teacher_run
from ltkd.config.load import load_config
from ltkd.config.schema import Config, Seed
from ltkd.errors import UserError
from ltkd.results.read import KINDS
from ltkd.results.result import Result
from ltkd.runs.directory import RunDirectory

ROLE = "role"  # beside the axes, in `at` of a published value
TEACHER = "teacher"
OF_VALIDATION = ("validation", "selected")  # accuracies that only runs with held-out images have
OF_THE_TABLE = ("study", "seed", "dataset.split_seed")  # keys that nobody else may set

Axes = dict[str, Annotated[dict[str, str | list[str] | None], MinLen(1)]]


@dataclass(frozen=True)
class Published:
    """Accuracies of a paper, in %, over all classes ("all") or in a group."""

    source: str
    at: dict[str, str]  # axis -> label, and role -> teacher
    values: dict[str, float]


@dataclass(frozen=True)
class Cell:
    """A row in a column: runs that differ in their seeds alone."""

    row: dict[str, str]  # axis -> label
    column: dict[str, str]
    overrides: list[str] | None  # without seeds; None: nothing is run, there are published values only
    is_baseline: bool

    @property
    def row_label(self) -> str:
        return ", ".join(self.row.values())

    @property
    def column_label(self) -> str:
        return ", ".join(self.column.values())

    @property
    def label(self) -> str:
        return " | ".join(filter(None, [self.row_label, self.column_label]))


@dataclass(frozen=True)
class Table:
    """The checked content of a table's file; ltkd.tables.file says what each key means."""

    name: str
    title: str
    study: str
    base: list[str]
    rows: Annotated[Axes, MinLen(1)]
    seeds: Annotated[list[Seed], MinLen(1)]
    columns: Axes = field(default_factory=dict)
    accuracy: Literal[tuple(KINDS)] = "last"  # type: ignore[valid-type]  # pydantic reads it when it runs
    without: list[dict[str, str]] = field(default_factory=list)
    split_seeds: Annotated[list[Seed], MinLen(1)] = field(default_factory=lambda: [0])
    teachers: Literal["shared", "per_seed"] = "shared"
    baselines: list[str] = field(default_factory=list)
    published: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    notes: str = ""

    @cached_property
    def cells(self) -> list[Cell]:
        """The cells column by column, each in the order of the rows."""
        cells = []
        for column, row in itertools.product(_choices(self.columns), _choices(self.rows)):
            at = {axis: label for axis, label, _ in (*column, *row)}
            if any(selection.items() <= at.items() for selection in self.without):
                continue
            parts = [overrides for _, _, overrides in (*column, *row)]
            is_run = None not in parts
            cells.append(
                Cell(
                    row={axis: at[axis] for axis in self.rows},
                    column={axis: at[axis] for axis in self.columns},
                    overrides=[*self.base, f"study={self.study}", *itertools.chain(*parts)] if is_run else None,
                    is_baseline=any(label in self.baselines for _, label, _ in row),
                )
            )
        return cells

    @property
    def keys_of_cells(self) -> set[str]:
        """The keys that rows and columns set."""
        labels = itertools.chain(self.rows.values(), self.columns.values())
        return {
            key_of(override) for choices in labels for part in choices.values() for override in overrides_of(part) or []
        }

    def published_at(self, at: Mapping[str, str], role: str | None = None) -> list[Published]:
        """The published values of a cell (at = cell.row | cell.column), or of a column's teacher (role = TEACHER)."""
        return [
            Published(source, entry["at"], {group: value for group, value in entry.items() if group != "at"})
            for source, entries in self.published.items()
            for entry in entries
            if entry["at"].get(ROLE) == role and entry["at"].items() <= (dict(at) | {ROLE: role}).items()
        ]

    def seed_values(self) -> list[dict[str, int]]:
        """The seeds of each run of a cell, by configuration key."""
        of_the_teacher = ["teacher.seed"] if self.teachers == "per_seed" else []
        return [
            {"dataset.split_seed": split_seed, **dict.fromkeys(["seed", *of_the_teacher], seed)}
            for split_seed, seed in itertools.product(self.split_seeds, self.seeds)
        ]


@dataclass(frozen=True)
class TableRun:
    """One seed of one cell, checked: what would be trained, and where it lies."""

    cell: Cell
    overrides: list[str]  # for train.py
    config: Config

    @property
    def seed(self) -> int:
        return self.config.seed

    @property
    def split_seed(self) -> int:
        return self.config.dataset.split_seed

    @cached_property
    def student(self) -> NetworkRun:
        return student_run(self.config)

    @cached_property
    def teachers(self) -> list[NetworkRun]:
        """The teachers that have to be there before the student is trained; none for a method without a teacher."""
        if not self.config.needs_teacher:
            return []
        return [teacher_run(self.config), *(teacher_run(self.config, extra) for extra in self.config.extra_teachers)]

    def result(self) -> Result | None:
        """The finished run's result.json, None where there is none. UserError when it is damaged or another's."""
        return RunDirectory(self.student).finished_result()


def compose_runs(table: Table, overrides: Iterable[str] = (), *, cells: Iterable[Cell] | None = None) -> list[TableRun]:
    """Every run of the table, or of some of its cells: cell by cell, in a cell split seed by split seed, seed by seed.

    `overrides` (output_root=..., device=...) hold for all of them and win over the table's base; study, seeds and what
    tells its cells apart are the table's. A cell of published values only has no run. UserError names the cell whose
    overrides do not compose.
    """
    overrides = list(overrides)
    fixed = [*OF_THE_TABLE, *(["teacher.seed"] if table.teachers == "per_seed" else []), *table.keys_of_cells]
    for key in map(key_of, overrides):
        # the choice of a group (dataset=...) leaves what is set below it as it is; a mapping given for a key would not
        if key in fixed or ("." in key and any(fixed_key.startswith(f"{key}.") for fixed_key in fixed)):
            raise UserError(f"{key}: the table {table.name} says it; for another one make a table of your own")
    runs = []
    seeds = table.seed_values()
    with _each_warning_once(logging.getLogger("ltkd.config.load")):
        for cell in (cell for cell in (table.cells if cells is None else cells) if cell.overrides is not None):
            without_seeds = [*cell.overrides, *overrides]
            try:
                for seed, values in zip(seeds, compose_variants(without_seeds, seeds), strict=True):
                    all_overrides = [*without_seeds, *(f"{key}={value}" for key, value in seed.items())]
                    config = load_config(values)
                    if table.accuracy in OF_VALIDATION and not config.dataset.holds_out:
                        raise UserError(
                            f"accuracy: {table.accuracy} needs held-out images, and dataset.validation_per_class is 0; "
                            "add dataset.validation_per_class=20 to the table's base"
                        )
                    runs.append(TableRun(cell, all_overrides, config))
            except UserError as error:
                raise UserError(f"table {table.name}, {cell.label}: {error}") from error
    return runs


def key_of(override: str) -> str:
    """Returns the key that the override sets."""
    return override.lstrip("+~").partition("=")[0]


AxisLabel = tuple[str, str, list[str] | None]  # axis, label, overrides


def _choices(axes: Axes) -> Iterator[tuple[AxisLabel, ...]]:
    """The product of the axes: a label on each."""
    return itertools.product(
        *([(axis, label, overrides_of(part)) for label, part in axes[axis].items()] for axis in axes)
    )


def overrides_of(overrides: str | list[str] | None) -> list[str] | None:
    """Lists what a label of a table's file stands for: one override or several; None where nothing is run."""
    return [overrides] * bool(overrides) if isinstance(overrides, str) else overrides


@contextmanager
def _each_warning_once(logger: logging.Logger) -> Iterator[None]:
    """Lets a warning that holds for each of a hundred runs be said once."""
    messages: set[str] = set()

    def is_new(record: logging.LogRecord) -> bool:
        message = record.getMessage()
        new = message not in messages
        messages.add(message)
        return new

    logger.addFilter(is_new)
    try:
        yield
    finally:
        logger.removeFilter(is_new)

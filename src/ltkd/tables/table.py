"""A paper's table as data: conf/table/NAME.yaml -> cells -> composed runs -> the results that are there.

name, title        the file's name, and what the table shows
study              first folder below output_root; tables with the same study share their runs
accuracy           which figure of result.json, last, validation, selected ... (results.KINDS); default: last
base               overrides of every cell, as on the command line of train.py
rows, columns      axes, {AXIS: {LABEL: overrides}}; the product of the axes makes the rows (columns), and a row
                   in a column is a cell. Overrides are a list or one string ("": none); null: nothing is run
                   there, the row has published values only. A row's overrides win over a column's
without            cells that are left out, each a selection {AXIS: LABEL, ...}; what it does not name is any
seeds              seeds of the runs in a cell
split_seeds        with several, each is combined with each seed; default: [0]
teachers           shared: one teacher (teacher.seed as it is) for all seeds; per_seed: one of the same seed
baselines          labels: the rows that the others are compared with
published          {SOURCE: [{at: {AXIS: LABEL, ...}, all: 42.48, tail: 13.38}, ...]}: `at` says for which cells
                   (an axis that it does not name: any), with {role: teacher} for the teacher's own figures
notes              text for below the table

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
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import MinLen
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from ltkd.config.bind import bind
from ltkd.config.compose import CONFIGURATION, compose_variants
from ltkd.config.identity import NetworkRun, student_run, teacher_run
from ltkd.config.load import load_config
from ltkd.config.schema import Config, Seed
from ltkd.errors import UserError, unknown_name
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
    """Figures of a paper, in %, over all classes ("all") or in a group."""

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
    """The checked content of a table's file; the module's docstring says what each key means."""

    name: str
    title: str
    study: str
    base: list[str]
    rows: Annotated[Axes, MinLen(1)]
    seeds: Annotated[list[Seed], MinLen(1)]
    columns: Axes = field(default_factory=dict)
    accuracy: Literal[tuple(KINDS)] = "last"
    without: list[dict[str, str]] = field(default_factory=list)
    split_seeds: Annotated[list[Seed], MinLen(1)] = field(default_factory=lambda: [0])
    teachers: Literal["shared", "per_seed"] = "shared"
    baselines: list[str] = field(default_factory=list)
    published: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    notes: str = ""

    @cached_property
    def cells(self) -> list[Cell]:
        """Column by column, each in the order of the rows."""
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
        return {key_of(override) for choices in labels for part in choices.values() for override in _listed(part) or []}

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
        return [teacher_run(self.config), *(teacher_run(self.config, one) for one in self.config.extra_teachers)]

    def result(self) -> Result | None:
        """The finished run's result.json, None where there is none. UserError when it is damaged or another's."""
        return RunDirectory(self.student).finished_result()


def list_tables() -> list[str]:
    return sorted(path.stem for path in (CONFIGURATION / "table").glob("*.yaml"))


def load_table(name: str | None) -> Table:
    """The table of conf/table/NAME.yaml, or of a file of your own given by its path (ending in .yaml).

    UserError where no name is given, and with all that is wrong in the file, a line each; overrides are checked by
    `compose_runs`.
    """
    if not name:
        raise UserError(f"table: missing; add table=NAME, one of: {', '.join(list_tables())}")
    path = Path(name) if name.endswith(".yaml") else CONFIGURATION / "table" / f"{name}.yaml"
    if not path.is_file():
        raise unknown_name("table", name, list_tables())
    try:
        values = OmegaConf.to_container(OmegaConf.load(path), resolve=True)
    except (OmegaConfBaseException, YAMLError, OSError) as error:
        raise UserError(f"{path}: cannot be read ({error})") from error
    if not isinstance(values, dict):
        raise UserError(f"{path}: should be a mapping of keys to values")
    errors: list[str] = []
    arguments = bind(Table, _with_text_labels(values), "", errors)
    if not errors:
        table = Table(**arguments)
        errors += _errors(table, path)
    if errors:
        raise UserError("\n".join([f"{path}:", *(f"  {line}" for line in errors)]))
    return table


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
        if key in fixed or ("." in key and any(own.startswith(f"{key}.") for own in fixed)):
            raise UserError(f"{key}: the table {table.name} says it; for another one make a table of your own")
    runs = []
    seeds = table.seed_values()
    with _each_warning_once(logging.getLogger("ltkd.config.load")):
        for cell in (one for one in (table.cells if cells is None else cells) if one.overrides is not None):
            without_seeds = [*cell.overrides, *overrides]
            try:
                for seed, values in zip(seeds, compose_variants(without_seeds, seeds), strict=True):
                    all_overrides = [*without_seeds, *(f"{key}={value}" for key, value in seed.items())]
                    config = load_config(values)
                    if table.accuracy in OF_VALIDATION and config.dataset.validation_per_class == 0:
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


Choice = tuple[str, str, list[str] | None]  # axis, label, overrides


def _choices(axes: Axes) -> Iterator[tuple[Choice, ...]]:
    """The product of the axes: a choice on each."""
    return itertools.product(*([(axis, label, _listed(part)) for label, part in axes[axis].items()] for axis in axes))


def _listed(overrides: str | list[str] | None) -> list[str] | None:
    return [overrides] * bool(overrides) if isinstance(overrides, str) else overrides


def _with_text_labels(values: dict[str, Any]) -> dict[str, Any]:
    """Labels that YAML reads as numbers or truth values (100, on) are text like all others.

    What is not of the expected shape stays as it is: `bind` says what is wrong with it.
    """

    def text(mapping: Any, *, keys: bool) -> Any:
        if not isinstance(mapping, dict):
            return mapping
        return {str(k): v for k, v in mapping.items()} if keys else {k: str(v) for k, v in mapping.items()}

    def entry(value: Any) -> Any:
        return value | {"at": text(value["at"], keys=False)} if isinstance(value, dict) and "at" in value else value

    values = dict(values)
    for key in {"rows", "columns"} & values.keys():
        axes = values[key]
        values[key] = {a: text(labels, keys=True) for a, labels in axes.items()} if isinstance(axes, dict) else axes
    if isinstance(values.get("without"), list):
        values["without"] = [text(selection, keys=False) for selection in values["without"]]
    if isinstance(values.get("published"), dict):
        values["published"] = {
            source: [entry(one) for one in entries] if isinstance(entries, list) else entries
            for source, entries in values["published"].items()
        }
    return values


def _errors(table: Table, path: Path) -> Iterator[str]:
    """Checks what the keys must satisfy together."""
    if table.name != path.stem:
        yield f"name: should be the file's, {path.stem!r}, got {table.name!r}"
    for axis in table.rows.keys() & table.columns.keys():
        yield f"columns.{axis}: is an axis of the rows already"
    for key, seeds in (("seeds", table.seeds), ("split_seeds", table.split_seeds)):
        if len(set(seeds)) < len(seeds):
            yield f"{key}: {seeds} has one twice"
    for label, parts in (
        item for axes in (table.rows, table.columns) for labels in axes.values() for item in labels.items()
    ):
        for override in _listed(parts) or []:
            if "=" not in override and not override.startswith("~"):
                yield f"{label}: should be an override, key=value, got {override!r}"
    if all(cell.overrides is None for cell in table.cells):
        yield "rows: none is run, all are there for published values alone"
    row_labels = {label for labels in table.rows.values() for label in labels}
    for label in table.baselines:
        if label not in row_labels:
            yield str(unknown_name("baselines", label, row_labels))
    for selection in table.without:
        yield from _errors_of_selection("without", selection, table)
    for source, entries in table.published.items():
        for entry in entries:
            key = f"published.{source}"
            at, figures = entry.get("at"), {name: value for name, value in entry.items() if name != "at"}
            if not isinstance(at, dict):
                yield f"{key}: should have `at`, which cells it is of, got {entry}"
                continue
            if at.get(ROLE, TEACHER) != TEACHER:
                yield f"{key}: {ROLE} can be {TEACHER!r} only, got {at[ROLE]!r}"
            yield from _errors_of_selection(key, {axis: label for axis, label in at.items() if axis != ROLE}, table)
            for name, value in figures.items():
                if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 100:
                    yield f"{key}: {name} should be a figure in %, got {value!r}"
            if not figures:
                yield f"{key}: has no figure at {at}"


def _errors_of_selection(key: str, selection: Mapping[str, str], table: Table) -> Iterator[str]:
    axes = table.rows | table.columns
    for axis, label in selection.items():
        if axis not in axes:
            yield str(unknown_name(key, axis, axes))
        elif label not in axes[axis]:
            yield str(unknown_name(f"{key}.{axis}", label, axes[axis]))


@contextmanager
def _each_warning_once(logger: logging.Logger) -> Iterator[None]:
    """Lets a warning that holds for each of a hundred runs be said once."""
    said: set[str] = set()

    def is_new(record: logging.LogRecord) -> bool:
        message = record.getMessage()
        return not (message in said or said.add(message))

    logger.addFilter(is_new)
    try:
        yield
    finally:
        logger.removeFilter(is_new)

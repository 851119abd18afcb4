"""Reads a paper's table from conf/table/NAME.yaml and checks it.

name, title        the file's name, and what the table shows
study              first folder below output_root; tables with the same study share their runs
accuracy           which of result.json, last, validation, selected ... (results.KINDS); default: last
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
                   (an axis that it does not name: any), with {role: teacher} for the teacher's own values
notes              text for below the table
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from ltkd.config.bind import bind
from ltkd.config.compose import CONFIGURATION
from ltkd.errors import UserError, one_or_list, unknown_name
from ltkd.tables.table import ROLE, TEACHER, Table, overrides_of


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
        raise UserError(one_or_list(f"{path}:", errors))
    return table


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
            source: [entry(numbers) for numbers in entries] if isinstance(entries, list) else entries
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
        for override in overrides_of(parts) or []:
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
            at, values = entry.get("at"), {name: value for name, value in entry.items() if name != "at"}
            if not isinstance(at, dict):
                yield f"{key}: should have `at`, which cells it is of, got {entry}"
                continue
            if at.get(ROLE, TEACHER) != TEACHER:
                yield f"{key}: {ROLE} can be {TEACHER!r} only, got {at[ROLE]!r}"
            yield from _errors_of_selection(key, {axis: label for axis, label in at.items() if axis != ROLE}, table)
            for name, value in values.items():
                if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 100:
                    yield f"{key}: {name} should be an accuracy in %, got {value!r}"
            if not values:
                yield f"{key}: has no accuracy at {at}"


def _errors_of_selection(key: str, selection: Mapping[str, str], table: Table) -> Iterator[str]:
    axes = table.rows | table.columns
    for axis, label in selection.items():
        if axis not in axes:
            yield str(unknown_name(key, axis, axes))
        elif label not in axes[axis]:
            yield str(unknown_name(f"{key}.{axis}", label, axes[axis]))

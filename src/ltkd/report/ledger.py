"""The runs behind published numbers, small enough to be tracked, and the tables of README and docs made from them.

outputs/ledger/TABLE/*.json has one file per run: what its result.json says, less what no table needs. In a page a
table stands between `<!-- table:NAME -->` and `<!-- end -->`: `<!-- table:NAME differences -->` for the differences to
the best baseline as well, `<!-- table:NAME logit_adjusted -->` for what that correction after training makes of the
same runs. `python scripts/ledger.py --write` writes what is between.
"""

import functools
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ltkd.errors import UserError
from ltkd.files import write_json
from ltkd.report.content import Report, make_report
from ltkd.report.entries import Entry
from ltkd.report.text import readme_correction, readme_table
from ltkd.results.read import POST_HOC, read_result
from ltkd.tables.table import Table, compose_runs, load_table

PROJECT = Path(__file__).resolve().parents[3]
LEDGER = PROJECT / "outputs" / "ledger"
PAGES = (PROJECT / "README.md", PROJECT / "docs" / "results.md")  # those with tables
MARKED = re.compile(r"(<!-- table:(\S+?)(?: (\w+))? -->\n)(.*?)(<!-- end -->)", re.DOTALL)
SHOWN = ("differences", *POST_HOC)  # what may stand beside the name
OPENING = "<!-- table:"

KEPT = (
    "schema_version", "role", "study", "dataset", "teacher", "student", "method", "label", "hash", "cell", "seed",
    "split_seed", "group_names", "class_counts", "groups", "split_sha256", "parameters", "multiply_adds",
    "wall_seconds", "train_seconds", "images_per_second", "device", "threads", "versions", "git", "finished",
    "weights_sha256", "identity", "evaluate_every",
)  # fmt: skip
KEPT_OF_TEACHER = ("hash", "cell", "seed", "parameters", "evaluate_every", "weights_sha256")
KEPT_OF_ACCURACY = ("epoch", "all", "per_group", "validation")  # class by class it would be long


def record(table: Table, entries: list[Entry], output_root: Path, ledger: Path = LEDGER) -> list[Path]:
    """Write the finished entries' files. What was there for the same cell and seeds is replaced, other runs stay.

    UserError, before anything is written, for runs that are not what the table's file says: the command that stands
    below a published table is its name alone.
    """
    folder, written = ledger / table.name, []
    contents = [(entry, _stripped(entry, output_root)) for entry in entries if entry.result is not None]
    hashes = _hashes(table, (content for _, content in contents))
    for entry, content in contents:
        if content["hash"] != hashes[_place(content)]:
            raise UserError(
                f"table {table.name}, {entry.cell.label} seed {entry.seed}: its run is not what the table's file says; "
                "put what was changed into a table file of your own"
            )
    before = {_place(result): path for path, result in _read(folder)}
    for entry, content in contents:
        path = folder / f"{_file_name(entry.cell.label)}-{entry.directory.name}.json"
        write_json(path, content)
        written.append(path)
        old = before.get(_place(content), path)
        if old != path:
            old.unlink(missing_ok=True)
    return written


def _file_name(label: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "_", label.lower()).strip("_")


def ledger_entries(table: Table, ledger: Path = LEDGER) -> list[Entry]:
    """One entry for each seed of each cell, as from the runs' own folders.

    UserError where the ledger has more, and where what it has is no longer what the table's file says.
    """
    found = {_place(result): (path, result) for path, result in _read(ledger / table.name)}
    hashes = _hashes(table, (result for _, result in found.values()))
    entries = []
    for cell in (cell for cell in table.cells if cell.overrides is not None):
        for seeds in table.seed_values():
            place = _key(cell.row, cell.column, seeds["dataset.split_seed"], seeds["seed"])
            path, result = found.pop(place, (None, None))
            if result and result["hash"] != hashes[place]:
                raise UserError(
                    f"{path}: is a run of another configuration than table {table.name} has now; run it again"
                )
            entries.append(Entry(cell, seeds["seed"], seeds["dataset.split_seed"], result, "not in the ledger"))
    for path, _ in found.values():
        raise UserError(f"{path}: the table {table.name} has no such cell or seed; remove the file or change the table")
    return entries


def _hashes(table: Table, results: Iterable[dict[str, Any]]) -> dict[tuple, str]:
    """By place, the hash of the run that the table's file describes. Only of the results' cells: composing is slow."""
    wanted = [result["cell_of_table"] for result in results]
    cells = [cell for cell in table.cells if {"row": cell.row, "column": cell.column} in wanted]
    return {
        _key(run.cell.row, run.cell.column, run.split_seed, run.seed): run.student.hash
        for run in compose_runs(table, cells=cells)
    }


def with_tables(text: str, ledger: Path = LEDGER) -> str:
    """The text with every marked table made anew from the ledger."""

    @functools.cache  # a table may stand there several times
    def report_of(name: str) -> Report:
        content = load_table(name)
        if not (ledger / content.name).is_dir():
            raise UserError(
                f"table {name}: not in the ledger; python scripts/ledger.py table={name} puts its runs there"
            )
        return make_report(content, ledger_entries(content, ledger))

    def table(match: re.Match) -> str:
        opening, name, shown, _, end = match.groups()
        if shown not in (None, *SHOWN):
            raise UserError(f"table {name}: {shown!r} beside its name; known: {', '.join(SHOWN)}")
        report = report_of(name)
        text = readme_correction(report, shown) if shown in POST_HOC else readme_table(report, differences=bool(shown))
        return f"{opening}{text}\n{end}"

    if len(MARKED.findall(text)) < text.count(OPENING):
        raise UserError("a marked table has no <!-- end -->, or its marker does not stand on a line of its own")
    return MARKED.sub(table, text)


def _stripped(entry: Entry, output_root: Path) -> dict[str, Any]:
    result = entry.result
    teacher = result["teacher_result"]
    return {
        "cell_of_table": {"row": entry.cell.row, "column": entry.cell.column},
        **{key: result[key] for key in KEPT},
        "accuracy": _figures(result["accuracy"]),
        "post_hoc": _post_hoc(result),
        "teacher_result": teacher
        and {key: teacher[key] for key in KEPT_OF_TEACHER if key in teacher}
        | {"accuracy": _figures(teacher["accuracy"]), "post_hoc": _post_hoc(teacher)},
        # no place on anybody's machine
        "directory": entry.directory.resolve().relative_to(output_root.resolve()).as_posix(),
    }


def _figures(accuracy: dict[str, Any]) -> dict[str, Any]:
    return {kind: record and _kept(record) for kind, record in accuracy.items()}


def _post_hoc(result: dict[str, Any]) -> dict[str, Any]:
    figures = result.get("post_hoc") or {}
    return {
        kind: one and {"tau": one["tau"], "chosen_by": one["chosen_by"], "test": _kept(one["test"])}
        for kind, one in figures.items()
    }


def _kept(record: dict[str, Any]) -> dict[str, Any]:
    small = {key: record[key] for key in KEPT_OF_ACCURACY if key in record}
    return small | ({"validation": _kept(small["validation"])} if "validation" in small else {})


def _read(folder: Path) -> list[tuple[Path, dict[str, Any]]]:
    return [(path, read_result(path)) for path in sorted(folder.glob("*.json"))]


def _place(result: dict[str, Any]) -> tuple:
    cell = result["cell_of_table"]
    return _key(cell["row"], cell["column"], result["split_seed"], result["seed"])


def _key(row: dict[str, str], column: dict[str, str], split_seed: int, seed: int) -> tuple:
    return tuple(row.items()), tuple(column.items()), split_seed, seed

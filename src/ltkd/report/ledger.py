"""Keeps the runs behind published numbers, small enough to be tracked, and makes the tables of README and docs of them.

outputs/ledger.jsonl has one line per run, however many tables show it: its result.json, less what no table needs, and
in "tables" those that it was recorded for. In a page a table stands between `<!-- table:NAME -->` and `<!-- end -->`:
`<!-- table:NAME differences -->` for the differences to the best baseline as well, `<!-- table:NAME brief -->` for the
rows that have run and a legend, `<!-- table:NAME logit_adjusted -->` for what that correction after training makes of
the same runs. `python scripts/ledger.py --write` writes what is between.
"""

import functools
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ltkd.errors import UserError
from ltkd.files import write_text
from ltkd.report.content import Report, make_report
from ltkd.report.entries import Entry, entries_of
from ltkd.report.markdown import brief_table, readme_correction, readme_table
from ltkd.results.read import POST_HOC, check_version
from ltkd.results.regroup import policy_of
from ltkd.tables.file import load_table
from ltkd.tables.table import Table, TableRun, compose_runs

PROJECT = Path(__file__).resolve().parents[3]
LEDGER = PROJECT / "outputs" / "ledger.jsonl"
PAGES = (PROJECT / "README.md", PROJECT / "docs" / "results.md")  # those with tables
MARKED = re.compile(r"(<!-- table:(\S+?)(?: (\w+))? -->\n)(.*?)(<!-- end -->)", re.DOTALL)
SHOWN = ("differences", "brief", *POST_HOC)  # what may stand beside the name
OPENING = "<!-- table:"

KEPT = (
    "schema_version", "role", "study", "dataset", "teacher", "student", "method", "label", "hash", "cell", "seed",
    "split_seed", "group_names", "class_counts", "groups", "split_sha256", "parameters", "multiply_adds",
    "wall_seconds", "train_seconds", "images_per_second", "device", "threads", "versions", "git", "finished",
    "weights_sha256", "identity", "evaluate_every",
)  # fmt: skip
KEPT_IF_THERE = ("group_policy", "reads_groups", "learned_from_validation", "sessions")  # older results lack some
KEPT_OF_TEACHER = ("hash", "cell", "seed", "parameters", "evaluate_every", "weights_sha256")
KEPT_OF_ACCURACY = ("epoch", "all", "mean_per_class", "per_group", "validation")  # class by class it would be long


def record(table: Table, entries: Iterable[Entry], output_root: Path, ledger: Path = LEDGER) -> int:
    """Write the finished entries' lines and return their number; what was there of the same runs is replaced.

    Runs that were recorded for this table and are no longer in it are its own no more. UserError, before anything is
    written, for runs that are not those of the table's file: the command below a published table is its name alone.
    """
    described = {_place(run) for run in compose_runs(table)}
    recorded = {}
    for entry in entries:
        if entry.result is None:
            continue
        place = entry.directory.resolve().relative_to(output_root.resolve()).as_posix()
        if place not in described:
            raise UserError(
                f"table {table.name}, {entry.cell.label} seed {entry.seed}: its run is not what the table's file says; "
                "put what was changed into a table file of your own"
            )
        recorded[place] = _stripped(entry.result, place)
    lines = read_ledger(ledger)
    for line in lines.values():
        line["tables"] = [name for name in line["tables"] if name != table.name or line["directory"] in described]
    for place, line in recorded.items():
        lines[place] = {"tables": sorted({*lines.get(place, {}).get("tables", []), table.name}), **line}
    texts = [json.dumps(line, allow_nan=False) for _, line in sorted(lines.items()) if line["tables"]]
    write_text(ledger, "".join(f"{text}\n" for text in texts))
    return len(recorded)


def trained_or_kept(table: Table, runs: list[TableRun], ledger: Path = LEDGER) -> tuple[list[Entry], str]:
    """The entries of the runs' own folders; where none has a result, the ledger's, and a sentence that says so."""
    entries = entries_of(runs)
    if any(entry.result for entry in entries):
        return entries, ""
    recorded = ledger_entries(table, runs, ledger)
    if not any(entry.result for entry in recorded):
        return entries, ""
    return recorded, (
        f"kept in outputs/{ledger.name}, since none of the table's has finished in {runs[0].config.output_root}/; "
        "the ledger has no curves and no accuracies of single classes"
    )


def read_ledger(ledger: Path = LEDGER) -> dict[str, dict[str, Any]]:
    """The kept results by their directory below output_root. UserError, naming the line, where the file is damaged."""
    results = {}
    for number, text in enumerate(ledger.read_text(encoding="utf-8").splitlines() if ledger.exists() else (), 1):
        try:
            result = check_version(json.loads(text), ledger)
            results[result["directory"]] = result
        except (ValueError, KeyError) as error:
            raise UserError(f"{ledger}: line {number} is damaged ({error})") from error
    return results


def ledger_entries(table: Table, runs: Iterable[TableRun] | None = None, ledger: Path = LEDGER) -> list[Entry]:
    """An entry for each of the runs (default: all of the table), its result the ledger's, as from a run's own folder.

    UserError where a run that was recorded for the table is not what the table's file says now.
    """
    recorded = read_ledger(ledger)
    if runs is None:
        runs = compose_runs(table)
        gone = {place for place, result in recorded.items() if table.name in result["tables"]} - {
            _place(run) for run in runs
        }
        if gone:
            raise UserError(
                f"{ledger}: {min(gone)} is a run of another configuration than table {table.name} has now; run it again"
            )
    return [_kept_entry(run, recorded.get(_place(run))) for run in runs]


def _kept_entry(run: TableRun, result: dict[str, Any] | None) -> Entry:
    ended = "not in the ledger"
    if result is not None and policy_of(result) != run.config.dataset.groups:
        # without accuracies class by class it cannot be given in others
        result, ended = None, f"in the ledger for other groups, {policy_of(result)}"
    return Entry(run.cell, run.seed, run.split_seed, result, ended)


def _place(run: TableRun) -> str:
    return run.student.directory.relative_to(run.config.output_root).as_posix()


def with_tables(text: str, ledger: Path = LEDGER) -> str:
    """The text with every marked table made anew from the ledger."""

    @functools.cache  # a table may stand there several times
    def report_of(name: str) -> Report:
        content = load_table(name)
        if not any(content.name in result["tables"] for result in read_ledger(ledger).values()):
            raise UserError(
                f"table {name}: not in the ledger; python scripts/ledger.py table={name} puts its runs there"
            )
        return make_report(content, ledger_entries(content, ledger=ledger))

    def table(match: re.Match) -> str:
        opening, name, shown, _, end = match.groups()
        if shown not in (None, *SHOWN):
            raise UserError(f"table {name}: {shown!r} beside its name; known: {', '.join(SHOWN)}")
        report = report_of(name)
        if shown in POST_HOC:
            text = readme_correction(report, shown)
        else:
            text = brief_table(report) if shown == "brief" else readme_table(report, differences=bool(shown))
        return f"{opening}{text}\n{end}"

    if len(MARKED.findall(text)) < text.count(OPENING):
        raise UserError("a marked table has no <!-- end -->, or its marker does not stand on a line of its own")
    return MARKED.sub(table, text)


def _stripped(result: dict[str, Any], place: str) -> dict[str, Any]:
    teacher = result["teacher_result"]
    return {
        **{key: result[key] for key in KEPT},
        **{key: result[key] for key in KEPT_IF_THERE if key in result},
        "accuracy": _accuracies(result["accuracy"]),
        "post_hoc": _post_hoc(result),
        "teacher_result": teacher
        and {key: teacher[key] for key in KEPT_OF_TEACHER}
        | {"accuracy": _accuracies(teacher["accuracy"]), "post_hoc": _post_hoc(teacher)},
        "directory": place,  # below output_root: no place on anybody's machine
    }


def _accuracies(accuracy: dict[str, Any]) -> dict[str, Any]:
    return {kind: record and _kept(record) for kind, record in accuracy.items()}


def _post_hoc(result: dict[str, Any]) -> dict[str, Any]:
    return {
        kind: corrected and {key: corrected[key] for key in ("tau", "chosen_by")} | {"test": _kept(corrected["test"])}
        for kind, corrected in (result["post_hoc"] or {}).items()
    }


def _kept(record: dict[str, Any]) -> dict[str, Any]:
    small = {key: record[key] for key in KEPT_OF_ACCURACY if key in record}
    return small | ({"validation": _kept(small["validation"])} if "validation" in small else {})

"""What a table's runs say: means, differences to the best baseline, published values, what is missing."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ltkd.engine.run_directory import STATUS
from ltkd.errors import UserError
from ltkd.identity import without_seeds
from ltkd.results import POST_HOC, accuracy, flatten, how_it_ended, teacher_of
from ltkd.statistics import PairedDifference, Summary, paired_difference, summarize
from ltkd.tables import TEACHER, Cell, Table, TableRun

ALL = "all"
NAMED_ROWS = 4  # that one of several teachers is told from the others by
SPLIT_KEYS = ("dataset.split_seed", "teacher.dataset.split_seed")  # differ in a cell of several split seeds


@dataclass(frozen=True)
class Entry:
    """One seed of a cell: its result, or why there is none."""

    cell: Cell
    seed: int
    split_seed: int
    result: dict[str, Any] | None
    missing: str = ""  # how the run ended, and the command for it
    directory: Path | None = None  # where its curves are
    teacher_directory: Path | None = None

    @property
    def pair(self) -> tuple[int, int]:
        return self.split_seed, self.seed


@dataclass(frozen=True)
class Difference:
    """To the baseline that has the highest mean in this figure among those of the column."""

    against: str
    paired: PairedDifference


@dataclass(frozen=True)
class Figure:
    """Of a row, over all classes or in a group."""

    summary: Summary | None
    values: dict[tuple[int, int], float]  # (split seed, seed) -> accuracy
    published: list[tuple[float, int]]  # value, number of its source
    difference: Difference | None = None


@dataclass(frozen=True)
class Corrected:
    """The same networks, corrected after training."""

    taus: list[tuple[float, str]]  # value and what chose it: setting, validation, default
    summaries: dict[str, Summary | None]  # "all" and the groups


@dataclass(frozen=True)
class Row:
    """A cell, or the teacher that cells of the column had."""

    names: dict[str, str]  # axis -> label
    role: str  # teacher | baseline | method
    entries: list[Entry]  # finished ones; of a teacher one for each teacher
    figures: dict[str, Figure]  # "all" and the groups
    corrected: dict[str, "Corrected"]  # by kind, where results have it

    @property
    def label(self) -> str:
        return ", ".join(filter(None, self.names.values()))

    @property
    def n(self) -> int:
        return len(self.entries)


@dataclass(frozen=True)
class Column:
    names: dict[str, str]
    groups: list[str]
    rows: list[Row]

    @property
    def label(self) -> str:
        return ", ".join(f"{axis} {label}" if label.isdecimal() else label for axis, label in self.names.items())

    @property
    def figure_names(self) -> list[str]:
        return [ALL, *self.groups]


@dataclass(frozen=True)
class Report:
    table: Table
    columns: list[Column]
    sources: list[str]  # of published values; numbered from 1
    facts: dict[str, str]  # what the head of the page says
    missing: list[str]


def entries_of(runs: Iterable[TableRun]) -> list[Entry]:
    """What lies in the runs' directories. A damaged result costs only itself."""
    return [_entry(run) for run in runs]


def _entry(run: TableRun) -> Entry:
    student = run.student
    teacher = run.teachers[0].directory if run.teachers else None
    entry = Entry(run.cell, run.seed, run.split_seed, None, "", student.directory, teacher)
    try:
        result = run.result()
        if result is not None:
            return replace(entry, result=result)
        status = student.directory / STATUS
        ended = how_it_ended(status) if status.exists() else "not started"
    except UserError as error:
        ended = str(error)
    return replace(entry, missing=f"{ended}; python src/train.py {' '.join(map(_quoted, run.overrides))}")


def _quoted(override: str) -> str:
    return f"'{override}'" if set(override) & set(" {}[]$") else override


def make_report(table: Table, entries: Iterable[Entry]) -> Report:
    """UserError when runs of one cell differ in more than their seeds."""
    entries = list(entries)
    for cell in table.cells:
        refuse_mixture(cell, [entry for entry in entries if entry.cell is cell and entry.result], table)
    sources = list(table.published)
    columns = []
    for names in dict.fromkeys(tuple(cell.column.items()) for cell in table.cells):
        cells = [cell for cell in table.cells if tuple(cell.column.items()) == names]
        columns.append(_column(table, dict(names), cells, entries, sources))
    missing = [
        f"{entry.cell.label} seed {entry.seed}{f' split {entry.split_seed}' if len(table.split_seeds) > 1 else ''}: "
        f"{entry.missing}"
        for entry in entries
        if entry.result is None
    ]
    return Report(table, columns, sources, _facts(table, [e.result for e in entries if e.result]), missing)


def refuse_mixture(cell: Cell, entries: list[Entry], table: Table) -> None:
    """UserError naming both runs and all in which they differ, unless that is seeds alone."""
    if not entries:
        return
    first, *others = entries
    expected = _comparable(first.result, table)
    for other in others:
        found = _comparable(other.result, table)
        apart = {"split_sha256"} if other.split_seed != first.split_seed else set()
        keys = [key for key in sorted(expected.keys() | found.keys()) if expected.get(key) != found.get(key)]
        differences = [f"{key}: {_short(expected, key)} and {_short(found, key)}" for key in keys if key not in apart]
        if differences:
            raise UserError(
                f"table {table.name}, {cell.label}: {first.result['directory']} and {other.result['directory']} "
                f"differ in more than the seed and are not put into one cell ({'; '.join(differences)})"
            )


def _comparable(result: dict[str, Any], table: Table) -> dict[str, Any]:
    """All that runs of a cell must agree in, flat."""
    identity = flatten(without_seeds(result["identity"]))
    if len(table.split_seeds) > 1:
        identity = {key: value for key, value in identity.items() if key not in SPLIT_KEYS}
    measured = ("schema_version", "evaluate_every", "group_names", "groups", "class_counts", "split_sha256")
    if table.accuracy in POST_HOC and (figures := (result.get("post_hoc") or {}).get(table.accuracy)):
        chosen_by = figures["chosen_by"]
        identity["tau"] = chosen_by if chosen_by == "validation" else f"{figures['tau']} ({chosen_by})"
    return identity | {key: result[key] for key in measured}


def _short(values: dict[str, Any], key: str) -> str:
    text = json.dumps(values[key]) if key in values else "nothing"
    return text if len(text) <= 40 else f"{text[:37]}..."


def _column(table: Table, names: dict[str, str], cells: list[Cell], entries: list[Entry], sources: list[str]) -> Column:
    finished = [entry for entry in entries if entry.result and any(entry.cell is cell for cell in cells)]
    published = [
        group
        for role in (None, TEACHER)
        for cell in cells
        for one in table.published_at(cell.row | cell.column, role)
        for group in one.values
        if group != ALL
    ]
    groups = list(dict.fromkeys([group for entry in finished for group in entry.result["group_names"]] or published))

    def row(row_names: dict[str, str], role: str, of_the_row: list[Entry], at: dict[str, str]) -> Row:
        figures = {}
        for name in (ALL, *groups):
            group = None if name == ALL else name
            values = {entry.pair: accuracy(entry.result, table.accuracy, group) for entry in of_the_row}
            values = {pair: value for pair, value in values.items() if value is not None}
            known = [
                (one.values[name], sources.index(one.source) + 1)
                for one in table.published_at(at, TEACHER if role == TEACHER else None)
                if name in one.values
            ]
            figures[name] = Figure(summarize(list(values.values())), values, known)
        return Row(row_names, role, of_the_row, figures, _corrected([entry.result for entry in of_the_row], groups))

    rows = [row(*one) for one in _teachers(table, names, finished)]
    for cell in cells:
        of_the_cell = [entry for entry in finished if entry.cell is cell]
        rows.append(row(cell.row, "baseline" if cell.is_baseline else "method", of_the_cell, cell.row | cell.column))
    return Column(names, groups, _with_differences(rows, table))


def _corrected(results: list[dict[str, Any]], groups: list[str]) -> dict[str, Corrected]:
    """Only of rows all of whose runs have it: a mean over other seeds than the table's would not compare."""
    corrected = {}
    for kind in POST_HOC:
        found = [(result.get("post_hoc") or {}).get(kind) for result in results]
        if found and all(found):
            names = {ALL: None} | {group: group for group in groups}
            values = {name: [accuracy(result, kind, group) for result in results] for name, group in names.items()}
            corrected[kind] = Corrected(
                sorted({(one["tau"], one["chosen_by"]) for one in found}),
                {name: summarize([v for v in one if v is not None]) for name, one in values.items()},
            )
    return corrected


def _teachers(
    table: Table, column: dict[str, str], finished: list[Entry]
) -> list[tuple[dict[str, str], str, list[Entry], dict[str, str]]]:
    """The distinct teachers of a column's students; where there are several kinds, with the rows that each taught."""
    first_axis, *other_axes = table.rows
    kinds: dict[str, dict[str, Entry]] = {}
    taught: dict[str, list[str]] = {}
    for entry in finished:
        if entry.result.get("teacher_result"):
            teacher = teacher_of(entry.result)
            split_seed = entry.result["split_seed"]
            kinds.setdefault(teacher["cell"], {})[teacher["hash"]] = replace(
                entry, seed=teacher["seed"], split_seed=split_seed, result=entry.result | {"post_hoc": None} | teacher
            )
            taught.setdefault(teacher["cell"], []).append(entry.cell.row_label)
    rows = []
    for kind, teachers in kinds.items():
        name = f"teacher {next(iter(teachers.values())).result['teacher']}"
        if len(kinds) > 1:
            labels = list(dict.fromkeys(taught[kind]))
            more = f" and {len(labels) - NAMED_ROWS} more" if len(labels) > NAMED_ROWS else ""
            name += f" of {'; '.join(labels[:NAMED_ROWS])}{more}"
        rows.append(({first_axis: name, **dict.fromkeys(other_axes, "")}, TEACHER, list(teachers.values()), column))
    if not rows and table.published_at(column, TEACHER):
        rows.append(({first_axis: "teacher", **dict.fromkeys(other_axes, "")}, TEACHER, [], column))
    return rows


def _with_differences(rows: list[Row], table: Table) -> list[Row]:
    """Each method's rows compared, figure by figure, with the baseline that is best in that figure."""
    names = rows[0].figures if rows else {}
    best: dict[str, Row] = {}
    for name in names:
        candidates = [row for row in rows if row.role == "baseline" and row.figures[name].summary]
        if candidates:
            best[name] = max(candidates, key=lambda row: row.figures[name].summary.mean)
    compared = []
    for row in rows:
        figures = dict(row.figures)
        if row.role == "method":
            for name, baseline in best.items():
                paired = _paired(figures[name], baseline.figures[name], table)
                if paired is not None:
                    figures[name] = replace(figures[name], difference=Difference(baseline.label, paired))
        compared.append(replace(row, figures=figures))
    return compared


def _paired(figure: Figure, baseline: Figure, table: Table) -> PairedDifference | None:
    """Pairs are runs of the same split seed and seed; with several splits a pair is a split, its seeds averaged.

    Runs on one split have its images in common and are no independent evidence about other splits.
    """
    pairs = sorted(figure.values.keys() & baseline.values.keys())
    if len(table.split_seeds) > 1:
        splits = [[pair for pair in pairs if pair[0] == split] for split in sorted({split for split, _ in pairs})]
    else:
        splits = [[pair] for pair in pairs]
    first, second = (
        [sum(one.values[pair] for pair in split) / len(split) for split in splits] for one in (figure, baseline)
    )
    return paired_difference(first, second)


def _facts(table: Table, results: list[dict[str, Any]]) -> dict[str, str]:
    """What was run, on what, when: each once, however many runs share it."""

    def all_of(texts: Iterable[str]) -> str:
        return "; ".join(dict.fromkeys(texts)) or "nothing finished yet"

    finished = sorted(result["finished"][:10] for result in results)
    hours = sum(result["train_seconds"] for result in results) / 3600
    commits = (result["git"] for result in results)
    return {
        "data": all_of(_data_fact(result) for result in results),
        "recipe": all_of(_recipe_fact(result["identity"]) for result in results),
        "seeds": _seeds_fact(table),
        "hardware": all_of(result["device"] for result in results),
        "software": all_of(f"torch {r['versions']['torch']}, ltkd {r['versions']['ltkd']}" for r in results),
        "commit": all_of(
            "unknown" if git is None else f"{git['commit'][:10]}{', with changes' if git['modified'] else ''}"
            for git in commits
        ),
        "finished": " to ".join(dict.fromkeys(finished[:1] + finished[-1:])) or "nothing finished yet",
        "training time": f"{hours:.2f} hours in {len(results)} students" if results else "none yet",
    }


def _data_fact(result: dict[str, Any]) -> str:
    dataset = result["identity"]["dataset"]
    images = dict.fromkeys(result["group_names"], 0)
    classes = dict.fromkeys(result["group_names"], 0)
    for group, count in zip(result["groups"], result["class_counts"], strict=True):
        images[result["group_names"][group]] += count
        classes[result["group_names"][group]] += 1
    shape = "balanced" if dataset["imbalance"] == "none" else (
        f"{dataset['imbalance']} imbalance, factor {dataset['imbalance_factor']:g}"
    )  # fmt: skip
    groups = ", ".join(f"{name} {classes[name]} classes with {images[name]:,}" for name in images)
    held_out = dataset["validation_per_class"]
    validation = f", {held_out} per class held out for validation" if held_out else ""
    return f"{dataset['name']}, {shape}: {sum(images.values()):,} training images ({groups}){validation}"


def _recipe_fact(identity: dict[str, Any]) -> str:
    recipe, precision = identity["recipe"], identity["precision"]
    return (
        f"{recipe['name']}, {recipe['epochs']} epochs, batch {recipe['batch_size']}, learning rate "
        f"{recipe['learning_rate']:g} ({recipe['schedule']}), weight decay {recipe['weight_decay']:g}, "
        f"{precision['autocast']}{' with TF32' if precision['tf32'] else ''}"
    )


def _seeds_fact(table: Table) -> str:
    teachers = "a teacher for each seed" if table.teachers == "per_seed" else "one teacher for all"
    splits = f"split seed{'s' if len(table.split_seeds) > 1 else ''} {', '.join(map(str, table.split_seeds))}"
    return f"{', '.join(map(str, table.seeds))}; {teachers}; {splits}"

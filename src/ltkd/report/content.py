"""Computes a report from a table's runs: means, differences to the best baseline, published values, what is missing."""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from statistics import mean
from typing import Any

from ltkd.config.identity import digest, without_seeds
from ltkd.errors import unknown_name
from ltkd.methods import list_methods, method_class
from ltkd.report.entries import (
    Entry,
    refuse_different_taus,
    refuse_different_teachers,
    refuse_mixture,
    with_readable_curves,
    without_split_seeds,
)
from ltkd.report.facts import facts_of
from ltkd.results.corrections import evened_out_by
from ltkd.results.read import MEAN, POST_HOC, accuracy, accuracy_record, correction, is_unbalanced, teacher_of
from ltkd.results.statistics import PairedDifference, Summary, paired_difference, summarize
from ltkd.tables.table import TEACHER, Cell, Published, Table

ALL = "all"
NAMED_ROWS = 4  # that one of several teachers is told from the others by


@dataclass(frozen=True)
class Difference:
    """The difference to the baseline with the highest mean, of the column's `candidates`."""

    against: str
    paired: PairedDifference


@dataclass(frozen=True)
class CellValue:
    """A row's accuracy over all classes or in a group."""

    summary: Summary | None
    by_pair: dict[tuple[int, int], float]  # (split seed, seed) -> accuracy
    published: list[tuple[float, int]]  # value, number of its source
    difference: Difference | None = None
    to_each: dict[str, PairedDifference] = field(default_factory=dict)  # baseline -> difference to it


@dataclass(frozen=True)
class Corrected:
    """The accuracies of a row's networks before and after a correction of their logits."""

    taus: list[tuple[float, str]]  # value and what chose it: setting, validation, default
    raw: dict[str, Summary | None]  # "all" and the groups
    summaries: dict[str, Summary | None]  # the same, corrected
    after: str | None  # setting that had evened the classes out before: this is their second correction


@dataclass(frozen=True)
class Row:
    """A cell, or the teacher that cells of the column had."""

    names: dict[str, str]  # axis -> label
    role: str  # teacher | baseline | method
    entries: list[Entry]  # finished ones; of a teacher one for each teacher
    values: dict[str, CellValue]  # "all" and the groups
    corrected: dict[str, "Corrected"]  # by kind, where results have it
    is_run: bool = True  # or is there for its published values only

    @property
    def label(self) -> str:
        return ", ".join(filter(None, self.names.values()))

    @property
    def n(self) -> int:
        return len(self.entries)

    @property
    def learned_from_validation(self) -> bool:
        return any(entry.result.get("learned_from_validation") for entry in self.entries)

    @property
    def fidelity(self) -> str | None:
        """The method's fidelity to its paper; None for a teacher, and without a run of a method that is still there."""
        names = {entry.result["method"] for entry in self.entries} & set(list_methods())
        return method_class(names.pop()).fidelity if names and self.role != TEACHER else None

    @property
    def teacher_hashes(self) -> set[str]:
        teachers = (entry.result.get("teacher_result") for entry in self.entries)
        return {teacher["hash"] for teacher in teachers if teacher}

    @property
    def shares_teachers_in_part(self) -> bool:
        """Whether runs have some of their teachers in common, and others not."""
        identities = [entry.result["identity"] for entry in self.entries]
        teams = {
            frozenset(map(digest, [identity.get("teacher") or {}, *identity.get("further_teachers", [])]))
            for identity in identities
        }
        return any(one & other for one, other in itertools.combinations(teams, 2))

    @property
    def splits(self) -> int:
        return len({entry.split_seed for entry in self.entries})


@dataclass(frozen=True)
class Column:
    names: dict[str, str]
    groups: list[str]
    is_balanced: bool  # else the mean of the classes stands beside the accuracy per image
    rows: list[Row]
    candidates: dict[str, list[str]]  # name of a value -> the baselines that the best one was chosen from

    @property
    def label(self) -> str:
        return ", ".join(f"{axis} {label}" if label.isdecimal() else label for axis, label in self.names.items())

    @property
    def value_names(self) -> list[str]:
        return _value_names(self.groups, self.is_balanced)

    @property
    def teacher_hashes(self) -> set[str]:
        return set().union(*(row.teacher_hashes for row in self.rows))

    @property
    def left_out(self) -> list[Row]:
        """Baselines that were to be run, but have too few pairs for the best one to be chosen from them."""
        chosen_from = {name: names for name, names in self.candidates.items() if names}
        rows = [row for row in self.rows if row.role == "baseline" and row.is_run]
        return [row for row in rows if any(row.label not in names for names in chosen_from.values())]


@dataclass(frozen=True)
class Report:
    table: Table
    columns: list[Column]
    sources: list[str]  # of published values; numbered from 1
    facts: dict[str, str]  # what the head of the page says
    missing: list[str]
    missing_in_short: list[str]  # the same, with one line for the runs of a cell that ended alike


def make_report(table: Table, entries: Iterable[Entry], overrides: Iterable[str] = (), *, source: str = "") -> Report:
    """Computes all that a report of the runs says. UserError when runs of one cell differ in more than their seeds.

    overrides: those that the user gave `compose_runs`; source: a word on where the runs are from, for the head.
    """
    entries, damaged = with_readable_curves(entries)
    for cell in table.cells:
        refuse_mixture(cell, [entry for entry in entries if entry.cell is cell and entry.result], table)
    refuse_different_taus(table, entries)
    refuse_different_teachers(table, entries)
    sources = list(table.published)
    columns = []
    for names in dict.fromkeys(tuple(cell.column.items()) for cell in table.cells):
        cells = [cell for cell in table.cells if tuple(cell.column.items()) == names]
        columns.append(_column(table, dict(names), cells, entries, sources))
    absent = [entry for entry in entries if entry.result is None]
    missing = [f"{entry.cell.label} seed {_seed(table, entry)}: {entry.missing}" for entry in absent] + damaged
    in_short = _in_short(table, absent) + damaged
    facts = {"runs": source} if source else {}
    facts |= facts_of(table, [entry for entry in entries if entry.result], overrides)
    return Report(table, columns, sources, facts, missing, in_short)


def _in_short(table: Table, absent: list[Entry]) -> list[str]:
    """A line for each cell and way to end, with the seeds."""
    seeds: dict[tuple[str, str], list[str]] = {}
    for entry in absent:
        seeds.setdefault((entry.cell.label, entry.ended), []).append(_seed(table, entry))
    return [f"{label} seed {', '.join(missing_seeds)}: {ended}" for (label, ended), missing_seeds in seeds.items()]


def _seed(table: Table, entry: Entry) -> str:
    return f"{entry.seed} split {entry.split_seed}" if len(table.split_seeds) > 1 else str(entry.seed)


def _column(table: Table, names: dict[str, str], cells: list[Cell], entries: list[Entry], sources: list[str]) -> Column:
    finished = [entry for entry in entries if entry.result and any(entry.cell is cell for cell in cells)]
    published = [
        group
        for role in (None, TEACHER)
        for cell in cells
        for published in table.published_at(cell.row | cell.column, role)
        for group in published.values
        if group != ALL
    ]
    known_groups = list(dict.fromkeys(group for entry in finished for group in entry.result["group_names"]))
    for group in published if known_groups else ():
        if group not in known_groups:
            raise unknown_name(f"table {table.name}: published", group, [ALL, *known_groups])
    groups = known_groups or list(dict.fromkeys(published))
    is_balanced = not any(is_unbalanced(accuracy_record(entry.result, table.accuracy)) for entry in finished)
    value_names = _value_names(groups, is_balanced)

    def row(row_names: dict[str, str], role: str, of_the_row: list[Entry], known: list[Published], is_run: bool) -> Row:
        cells = {}
        for name in value_names:
            by_pair = _by_pair(of_the_row, table.accuracy, name)
            numbered = [
                (published.values[name], sources.index(published.source) + 1)
                for published in known
                if name in published.values
            ]
            cells[name] = CellValue(summarize(independent(by_pair, table)), by_pair, numbered)
        return Row(row_names, role, of_the_row, cells, _corrected(of_the_row, value_names, table), is_run)

    rows = [
        row(row_names, TEACHER, entries, known, True) for row_names, entries, known in _teachers(table, names, finished)
    ]
    for cell in cells:
        of_the_cell = [entry for entry in finished if entry.cell is cell]
        known = table.published_at(cell.row | cell.column)
        role = "baseline" if cell.is_baseline else "method"
        rows.append(row(cell.row, role, of_the_cell, known, cell.overrides is not None))
    candidates = {name: _candidates(rows, name, table) for name in value_names}
    labels = {name: [row.label for row in contenders] for name, contenders in candidates.items()}
    return Column(names, groups, is_balanced, _with_differences(rows, candidates, table), labels)


def _value_names(groups: list[str], is_balanced: bool) -> list[str]:
    return [ALL, *groups] if is_balanced else [ALL, MEAN, *groups]


def independent(values: dict[tuple[int, int], float], table: Table) -> list[float]:
    """Returns independent values: those of the runs or, with several splits, the mean of each split.

    Runs on one split have its images in common and are no independent evidence about other splits.
    """
    if len(table.split_seeds) == 1:
        return [values[pair] for pair in sorted(values)]
    return [mean(values[pair] for pair in values if pair[0] == split) for split in sorted({pair[0] for pair in values})]


def _corrected(entries: list[Entry], value_names: list[str], table: Table) -> dict[str, Corrected]:
    """Summarises the corrections that all runs of a row have: a mean over fewer seeds would not compare."""
    corrected = {}
    for kind in POST_HOC:
        corrections = [correction(entry.result, kind) for entry in entries]
        if corrections and all(corrections):
            corrected[kind] = Corrected(
                sorted({(record["tau"], record["chosen_by"]) for record in corrections}),
                _summaries(entries, "last", value_names, table),
                _summaries(entries, kind, value_names, table),
                evened_out_by(entries[0].result["identity"]),
            )
    return corrected


def _by_pair(entries: list[Entry], kind: str, name: str) -> dict[tuple[int, int], float]:
    """The accuracies of a kind, over all classes or in a group, of the runs that have one."""
    accuracies = {entry.pair: accuracy(entry.result, kind, None if name == ALL else name) for entry in entries}
    return {pair: value for pair, value in accuracies.items() if value is not None}


def _summaries(entries: list[Entry], kind: str, value_names: list[str], table: Table) -> dict[str, Summary | None]:
    """Summarises accuracies of a kind, over all classes and in the groups."""
    return {name: summarize(independent(_by_pair(entries, kind, name), table)) for name in value_names}


def _teachers(
    table: Table, column: dict[str, str], finished: list[Entry]
) -> list[tuple[dict[str, str], list[Entry], list[Published]]]:
    """The distinct teachers of a column's students; where there are several kinds, with the rows that each taught."""
    first_axis, *other_axes = table.rows
    kinds: dict[str, dict[str, Entry]] = {}
    taught: dict[str, list[Cell]] = {}
    for entry in finished:
        if entry.result.get("teacher_result"):
            teacher = teacher_of(entry.result)
            kind = _kind_of(teacher)
            kinds.setdefault(kind, {})[teacher["hash"]] = replace(
                entry, seed=teacher["seed"], result=entry.result | teacher
            )
            taught.setdefault(kind, []).append(entry.cell)
    # a published value is of one teacher: that of the rows that were published with it or, without such rows, the only
    # one there is
    published = table.published_at(column, TEACHER)
    theirs = [kind for kind in kinds if any(table.published_at(cell.row | cell.column) for cell in taught[kind])]
    with_rows = any(table.published_at(cell.row | cell.column) for cell in table.cells if cell.column == column)
    possible = theirs if with_rows else list(kinds)
    owner = possible[0] if len(possible) == 1 else None
    rows = []
    for kind, teachers in kinds.items():
        name = f"teacher {next(iter(teachers.values())).result['teacher']}"
        if len(kinds) > 1:
            labels = list(dict.fromkeys(cell.row_label for cell in taught[kind]))
            more = f" and {len(labels) - NAMED_ROWS} more" if len(labels) > NAMED_ROWS else ""
            name += f" of {'; '.join(labels[:NAMED_ROWS])}{more}"
        known = published if kind == owner else []
        rows.append(({first_axis: name, **dict.fromkeys(other_axes, "")}, list(teachers.values()), known))
    if published and owner is None:
        rows.append(({first_axis: "teacher", **dict.fromkeys(other_axes, "")}, [], published))
    return rows


def _kind_of(teacher: dict[str, Any]) -> str:
    """Hashes a teacher's settings without seeds and split seeds; its `cell` would tell splits apart."""
    settings = without_split_seeds(without_seeds(teacher["identity"]))
    return digest({**settings, "evaluate_every": teacher["evaluate_every"]})


def _candidates(rows: list[Row], name: str, table: Table) -> list[Row]:
    """The baselines that can be the best in a value: they have pairs with a method.

    One with a single pair is left out where others have more: it is high by chance more often than a mean, and its
    difference would have no interval. Two are enough: to leave out a strong one that lacks a run would flatter the
    methods.
    """
    methods = [row.values[name] for row in rows if row.role == "method"]
    pairs = {}
    for row in (row for row in rows if row.role == "baseline"):
        differences = [_paired(method, row.values[name], table) for method in methods]
        pairs[row.label] = max((difference.n for difference in differences if difference is not None), default=0)
    enough = min(2, max(pairs.values(), default=0)) or 1
    return [row for row in rows if row.role == "baseline" and pairs[row.label] >= enough]


def _with_differences(rows: list[Row], candidates: dict[str, list[Row]], table: Table) -> list[Row]:
    """Compares each method's rows, value by value, with every baseline and with the best of the candidates."""
    best = {
        name: max(contenders, key=lambda row: row.values[name].summary.mean)
        for name, contenders in candidates.items()
        if contenders
    }
    baselines = [row for row in rows if row.role == "baseline"]
    compared = []
    for row in rows:
        values = dict(row.values)
        for name, value in row.values.items() if row.role == "method" else ():
            differences = {baseline.label: _paired(value, baseline.values[name], table) for baseline in baselines}
            to_each = {label: paired for label, paired in differences.items() if paired is not None}
            against = best[name].label if name in best else None
            difference = Difference(against, to_each[against]) if against in to_each else None
            values[name] = replace(value, difference=difference, to_each=to_each)
        compared.append(replace(row, values=values))
    return compared


def _paired(value: CellValue, baseline: CellValue, table: Table) -> PairedDifference | None:
    """Compares runs of the same split seed and seed; with several splits a pair is a split, its seeds averaged."""
    pairs = value.by_pair.keys() & baseline.by_pair.keys()
    first, second = (
        independent({pair: cell_value.by_pair[pair] for pair in pairs}, table) for cell_value in (value, baseline)
    )
    return paired_difference(first, second)

"""Collects result.json files into tables of means over seeds. Knows no torch, so that it starts at once."""

import csv
import hashlib
import io
import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from tabulate import tabulate

from ltkd.errors import UserError
from ltkd.files import read_json
from ltkd.results.code import circumstance_notes, code_notes
from ltkd.results.corrections import evened_out_by
from ltkd.results.files import RunFiles
from ltkd.results.naming import DEFAULT, common_note, differences, of_method, outside_of_method, shown
from ltkd.results.read import (
    CORRECTED,
    KINDS,
    MEAN,
    POST_HOC,
    accuracy,
    accuracy_record,
    cell_text,
    correction,
    how_it_ended,
    is_unbalanced,
    read_result,
    teacher_of,
)
from ltkd.results.teachers import conflicting_teachers, teachers_of

DATA = ("train_data_sha256", "validation_data_sha256", "test_data_sha256", "sha256", "validation_sha256")
LEARNED_FROM_VALIDATION = "(trained on the validation images too)"  # in a row's settings


@dataclass
class SeedGroup:
    """Runs on the same images, reported for the same groups, that differ in nothing but their seeds."""

    names: dict[str, Any]  # dataset, teacher, student, method
    identity: dict[str, Any]  # of one of the runs
    group_names: list[str]
    images: str = ""  # hash of the training, validation and test images
    groups: str = ""  # the policy that makes the groups
    groups_in_doubt: bool = False  # True where another row has groups of another policy
    settings: str = ""  # what tells it from the other cells
    teacher: dict[str, str] = field(default_factory=dict)  # teacher.seed, teacher.weights, where they tell cells apart
    runs: list[dict[str, Any]] = field(default_factory=list)

    def values(self, kind: str, group: str | None) -> list[float]:
        """The accuracy of each run, over all classes or in a group; runs without it are left out."""
        values = [accuracy(run, kind, group) for run in self.runs]
        return [value for value in values if value is not None]

    @property
    def label(self) -> str:
        return " ".join(filter(None, [*self.names.values(), self.settings]))

    def column(self, group: str) -> str:
        """The column of one of its groups: groups of two policies are other classes under one name."""
        return f"{group} ({self.groups})" if self.groups_in_doubt else group

    @property
    def learned_from_validation(self) -> bool:
        return any(run.get("learned_from_validation") for run in self.runs)


@dataclass(frozen=True)
class Collection:
    cells: list[SeedGroup]
    incomplete: list[str]  # a line for each run that has no result and for each seed that a cell lacks
    notes: list[str] = field(default_factory=list)  # lines on what does not compare, or may mislead


@dataclass(frozen=True)
class _Found:
    """A run and what tells it apart beside its hash."""

    run: dict[str, Any]
    images: str
    groups: str  # policy, and the sizes of its groups where they are known

    @property
    def cell(self) -> tuple[str, str, str]:
        return self.run["cell"], self.images, self.groups


def collect(
    folders: Iterable[Path], regroup: Callable[[dict[str, Any], RunFiles], dict[str, Any]] | None = None
) -> Collection:
    """Read every result.json and status.json below `folders`, in an order of their own. A run found twice counts once.

    Runs share a cell when they differ in seeds alone and are of the same images (by their manifests) and groups. Where
    a seed is there twice, with two teachers, there is a cell for each teacher's seed: n counts independent runs; where
    a teacher was trained several times there is one for its weights. The teachers that the students had have rows too.
    regroup: changes each result as it is read.
    """
    runs: dict[tuple, _Found] = {}
    unfinished, notes = [], []
    found = {files.folder.resolve(): files for folder in folders for files in RunFiles.below(folder)}
    for _, files in sorted(found.items()):
        if not files.result.exists():
            unfinished.append(how_it_ended(files.status))
            continue
        try:
            run = read_result(files.result)
            images = _images(run, files)
            run = regroup(run, files) if regroup else run
        except UserError as error:
            unfinished.append(f"unreadable: {error}")
        else:
            _keep(runs, _Found(run, images, _groups(run, run["identity"])), notes)
    conflicts = conflicting_teachers(one.run for one in runs.values())
    notes += conflicts.values()
    for one in list(runs.values()):
        if one.run.get("teacher_result"):
            _keep(runs, replace(one, run=teacher_of(one.run)), notes)

    repeated = _cells_with_a_repeated_seed(runs.values())
    cells: dict[tuple, SeedGroup] = {}
    for one in runs.values():
        run = one.run
        names = {key: run[key] for key in ("dataset", "teacher", "student", "method")}
        teacher = _teacher_seed(run) if one.cell in repeated else {}
        teacher |= _weights_of_teachers(run, conflicts)
        identity = run["identity"] | {"evaluate_every": run["evaluate_every"]}
        new = SeedGroup(names, identity, run["group_names"], one.images, one.groups, teacher=teacher)
        cells.setdefault((*one.cell, *teacher.items()), new).runs.append(run)
    _tell_groups_apart(list(cells.values()))
    notes += _name_settings(list(cells.values()))
    ordered = sorted(cells.values(), key=_order)
    for notes_on in (code_notes, circumstance_notes):
        notes += notes_on((cell.label, cell.runs) for cell in ordered)
    return Collection(ordered, unfinished + _missing_seeds(ordered), list(dict.fromkeys(notes)))


def _images(run: dict[str, Any], files: RunFiles) -> str:
    """Hashes what the manifest says of the images; without a manifest, what the result says of the chosen rows."""
    manifest = read_json(files.manifest) if files.manifest.exists() else {"sha256": run.get("split_sha256")}
    return hashlib.sha256(json.dumps([manifest.get(key) for key in DATA]).encode()).hexdigest()[:8]


def _groups(run: dict[str, Any], identity: dict[str, Any]) -> str:
    """Names the policy of the run's groups, with the classes in each group."""
    policy = run.get("group_policy", (identity.get("dataset") or {}).get("groups"))
    counts = Counter(run.get("groups", ()))
    return f"{shown(policy)} {'/'.join(str(counts[group]) for group in sorted(counts))}".strip()


def _keep(runs: dict[tuple, _Found], one: _Found, notes: list[str]) -> None:
    """Counts a run once. Two results of one hash that differ are noted; the one found first, by its path, counts."""
    known = runs.setdefault((*one.cell, one.run["hash"]), one).run
    told = [key for key in ("all", "per_group") if _last(known, key) != _last(one.run, key)]
    hashes = [run.get("weights_sha256") for run in (known, one.run)]
    told += ["weights_sha256"] * (None not in hashes and hashes[0] != hashes[1])
    if told:
        notes.append(
            f"two results of {one.run['hash']} differ in {', '.join(told)}: {known.get('directory')} "
            f"({_last(known, 'all'):.2f}), which counts, and {one.run.get('directory')} ({_last(one.run, 'all'):.2f})"
        )


def _last(run: dict[str, Any], key: str) -> Any:
    return run["accuracy"]["last"].get(key)


def _teacher_seed(run: dict[str, Any]) -> dict[str, str]:
    seed = (run["identity"].get("teacher") or {}).get("seed")
    return {} if seed is None else {"teacher.seed": str(seed)}


def _weights_of_teachers(run: dict[str, Any], conflicts: Container[str]) -> dict[str, str]:
    """The weights of those of a student's teachers that were trained several times; empty where there is none."""
    found = [one.get("weights_sha256") or "unknown" for one in teachers_of(run) if one["hash"] in conflicts]
    return {"teacher.weights": ",".join(weights[:8] for weights in found)} if found else {}


def _cells_with_a_repeated_seed(runs: Iterable[_Found]) -> set[tuple]:
    seeds = Counter((one.cell, one.run["seed"]) for one in runs)
    return {cell for (cell, _), count in seeds.items() if count > 1}


def _tell_groups_apart(cells: list[SeedGroup]) -> None:
    """Leaves of each cell's groups the policy alone where no other row of its data has other classes in them.

    Cells then say whether their groups need a column of their own.
    """
    policies = defaultdict(set)
    for cell in cells:
        policies[cell.names["dataset"], _policy(cell)].add(cell.groups)
    for cell in cells:
        if len(policies[cell.names["dataset"], _policy(cell)]) == 1:
            cell.groups = _policy(cell)
    for cell in cells:
        cell.groups_in_doubt = len({other.groups for other in cells}) > 1


def _policy(cell: SeedGroup) -> str:
    return re.sub(r"(^| )[\d/]+$", "", cell.groups)


def _order(cell: SeedGroup) -> tuple:
    dataset, teacher, student, method = cell.names.values()
    # numbers in the settings as numbers: temperature=4 before temperature=16
    parts = re.split(r"(\d+(?:\.\d+)?)", cell.settings)
    settings = [float(part) if i % 2 else part for i, part in enumerate(parts)]
    return (dataset, student or "", method != "teacher", teacher or "", method, settings)


def _name_settings(cells: list[SeedGroup]) -> list[str]:
    """Names the settings in which cells differ, and notes what goes without saying in a row.

    Of the same data set all students' rows are compared in all settings outside of their methods, and all teachers'
    rows; rows of the same method and networks in the method's settings too.
    """
    notes = []
    alike, of_data = defaultdict(list), defaultdict(list)
    for cell in cells:
        alike[tuple(cell.names.values())].append(cell)
        of_data[cell.names["dataset"], cell.names["student"] is None].append(cell)
    for same in alike.values():
        named, _ = differences([of_method(cell.identity) | cell.teacher for cell in same])
        for cell, settings in zip(same, named, strict=True):
            cell.settings = " ".join(settings)
    for (dataset, is_teacher), same in sorted(of_data.items()):
        named, common = differences([_compared(cell, same) for cell in same], absent=DEFAULT)
        for cell, settings in zip(same, named, strict=True):
            cell.settings = " ".join(filter(None, [cell.settings, *settings]))
        notes += common_note(f"{dataset}, {'teachers' if is_teacher else 'students'}", common)
    return notes


def _compared(cell: SeedGroup, same: list[SeedGroup]) -> dict[str, str]:
    """All settings outside of the method; images and groups too, where they differ between cells of the same settings.

    The groups of the setting are those that it was trained with, whatever it is reported for.
    """

    def data(one: SeedGroup) -> str:
        return json.dumps(one.identity.get("dataset"), sort_keys=True)

    variants = {data(one): set() for one in same}
    for one in same:
        variants[data(one)].add(one.images)
    images = {"images": cell.images} if any(len(found) > 1 for found in variants.values()) else {}
    groups = {"dataset.groups": cell.groups} if cell.groups != _policy(cell) else {}
    return outside_of_method(cell.identity) | images | groups


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
    columns = list(dict.fromkeys(cell.column(group) for cell in cells for group in cell.group_names))
    unbalanced = any(is_unbalanced(accuracy_record(run, kind)) for cell in cells for run in cell.runs)
    everywhere = {"all": None} | ({MEAN: MEAN} if unbalanced else {})
    cells = [part for cell in cells for part in _by_tau(cell, kind)]
    rows = []
    for cell in cells:
        row = {**cell.names, "settings": _settings_of(cell, kind), "accuracy": kind, "n": len(cell.values(kind, None))}
        groups = everywhere | {cell.column(group): group for group in cell.group_names}
        for column in (*everywhere, *columns):
            values = cell.values(kind, groups[column]) if column in groups else []
            row[column] = mean(values) if values else None
            row[f"{column} std"] = stdev(values) if len(values) > 1 else None
        rows.append(row)
    return rows


def _settings_of(cell: SeedGroup, kind: str) -> str:
    """The cell's settings, with marks of what corrected it, and where validation images were trained on."""
    by, how = evened_out_by(cell.identity), ""
    if kind == "corrected_once":
        how = f"(corrected by {by})" if by else "(logits adjusted)"
    elif kind in POST_HOC and by:
        how = f"(second correction, after {by})"
    return " ".join(filter(None, [cell.settings, how, LEARNED_FROM_VALIDATION * cell.learned_from_validation]))


def _by_tau(cell: SeedGroup, kind: str) -> list[SeedGroup]:
    """Splits a cell by the tau that its runs were corrected with post hoc, which is no part of a run's identity.

    Where validation images chose it, the choice is the correction, whatever tau it led to.
    """
    if kind not in CORRECTED:
        return [cell]
    parts = defaultdict(list)
    for run in cell.runs:
        if corrected := correction(run, kind):
            chosen = corrected["chosen_by"] == "validation"
            parts["tau by validation" if chosen else f"tau={corrected['tau']:g}"].append(run)
    if len(parts) < 2:
        return [cell]
    return [replace(cell, settings=f"{cell.settings} {tau}".strip(), runs=parts[tau]) for tau in sorted(parts)]


def markdown(cells: list[SeedGroup], kind: str, notes: Iterable[str] = ()) -> str:
    """Writes the table and what it shows: mean ± sample standard deviation; a single run has no deviation.

    notes: lines below the table.
    """
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
    below = "".join(f"\n\n{note}" for note in notes)
    return f"{KINDS[kind]}; mean ± standard deviation over n runs\n\n{table}{below}"


def comma_separated(cells: list[SeedGroup], kind: str) -> str:
    """Writes the same as CSV, unrounded."""
    rows = summary_rows(cells, kind)
    file = io.StringIO()
    writer = csv.DictWriter(file, fieldnames=list(rows[0]) if rows else ["n"])
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()

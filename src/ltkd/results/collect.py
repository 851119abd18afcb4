"""Collects result.json files into cells of runs that differ in their seeds. Starts at once: it needs no torch."""

import hashlib
import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ltkd.errors import UserError
from ltkd.files import read_json
from ltkd.results.code import circumstance_notes, code_notes, threads_label, threads_of
from ltkd.results.files import RunFiles
from ltkd.results.naming import DEFAULT, common_note, differences, of_method, outside_of_method, shown
from ltkd.results.read import accuracy, how_it_ended, read_result, teacher_of
from ltkd.results.regroup import policy_of
from ltkd.results.teachers import conflicting_teachers, teacher_notes, teachers_of

DATA = ("train_data_sha256", "validation_data_sha256", "test_data_sha256", "sha256", "validation_sha256")


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
    by_folder = {files.folder.resolve(): files for folder in folders for files in RunFiles.below(folder)}
    for _, files in sorted(by_folder.items()):
        if not files.result.exists():
            unfinished.append(how_it_ended(files.status))
            continue
        try:
            run = read_result(files.result)
            images = _images(run, files)
        except UserError as error:
            unfinished.append(f"unreadable: {error}")
            continue
        try:
            run = regroup(run, files) if regroup else run
        except UserError as error:  # of this run's classes: others may be regrouped
            unfinished.append(f"{files.folder}: {error}")
        else:
            _keep(runs, _Found(run, images, _groups(run)), notes)
    conflicts = conflicting_teachers(finished.run for finished in runs.values())
    notes += conflicts.values()
    for finished in list(runs.values()):
        if finished.run.get("teacher_result"):
            _keep(runs, replace(finished, run=teacher_of(finished.run)), notes)

    repeated = _cells_with_a_repeated_seed(runs.values())
    cells: dict[tuple, SeedGroup] = {}
    for finished in runs.values():
        run = finished.run
        names = {key: run[key] for key in ("dataset", "teacher", "student", "method")}
        teacher = _teacher_seed(run) if finished.cell in repeated else {}
        teacher |= _weights_of_teachers(run, conflicts)
        new = SeedGroup(names, _identity(run), run["group_names"], finished.images, finished.groups, teacher=teacher)
        cells.setdefault((*finished.cell, *teacher.items()), new).runs.append(run)
    _tell_groups_apart(list(cells.values()))
    notes += _name_settings(list(cells.values()))
    ordered = sorted(cells.values(), key=_order)
    for notes_on in (code_notes, circumstance_notes, teacher_notes):
        notes += notes_on((cell.label, cell.runs) for cell in ordered)
    notes += _notes_on_split_cells(ordered)
    return Collection(ordered, unfinished + _missing_seeds(ordered), list(dict.fromkeys(notes)))


def _images(run: dict[str, Any], files: RunFiles) -> str:
    """Hashes what the manifest says of the images; without a manifest, what the result says of the chosen rows."""
    manifest = read_json(files.manifest) if files.manifest.exists() else {"sha256": run.get("split_sha256")}
    return hashlib.sha256(json.dumps([manifest.get(key) for key in DATA]).encode()).hexdigest()[:8]


def _identity(run: dict[str, Any]) -> dict[str, Any]:
    """The run's settings, without the groups where they are none of its training; older results do not say that."""
    identity = run["identity"] | {"evaluate_every": run["evaluate_every"]}
    if run.get("reads_groups", run["method"] != "teacher"):
        return identity
    dataset = {key: value for key, value in (identity.get("dataset") or {}).items() if key != "groups"}
    return identity | ({"dataset": dataset} if dataset else {})


def _groups(run: dict[str, Any]) -> str:
    """Names the policy of the run's groups, with the classes in each group."""
    counts = Counter(run.get("groups", ()))
    return f"{shown(policy_of(run))} {'/'.join(str(counts[group]) for group in sorted(counts))}".strip()


def _keep(runs: dict[tuple, _Found], finished: _Found, notes: list[str]) -> None:
    """Counts a run once. Two results of one hash that differ are noted; the one found first, by its path, counts."""
    known = runs.setdefault((*finished.cell, finished.run["hash"]), finished).run
    differing = [key for key in ("all", "per_group") if _last(known, key) != _last(finished.run, key)]
    hashes = [run.get("weights_sha256") for run in (known, finished.run)]
    differing += ["weights_sha256"] * (None not in hashes and hashes[0] != hashes[1])
    if differing:
        first, second = (_told(run, threads_of(known) != threads_of(finished.run)) for run in (known, finished.run))
        notes.append(
            f"two results of {finished.run['hash']} differ in {', '.join(differing)}: {first}, which counts, "
            f"and {second}"
        )


def _told(run: dict[str, Any], with_threads: bool) -> str:
    """A result as notes call it: its folder, accuracy and, where two differ in it, the threads of its training."""
    threads = [threads_label(counts)] if with_threads and (counts := threads_of(run)) else []
    details = [f"{_last(run, 'all'):.2f}", *threads]
    return f"{run.get('directory')} ({', '.join(details)})"


def _last(run: dict[str, Any], key: str) -> Any:
    return run["accuracy"]["last"].get(key)


def _teacher_seed(run: dict[str, Any]) -> dict[str, str]:
    seed = (run["identity"].get("teacher") or {}).get("seed")
    return {} if seed is None else {"teacher.seed": str(seed)}


def _weights_of_teachers(run: dict[str, Any], conflicts: Container[str]) -> dict[str, str]:
    """The weights of those of a student's teachers that were trained several times; empty where there is none."""
    hashes = [
        teacher.get("weights_sha256") or "unknown" for teacher in teachers_of(run) if teacher["hash"] in conflicts
    ]
    return {"teacher.weights": ",".join(weights[:8] for weights in hashes)} if hashes else {}


def _cells_with_a_repeated_seed(runs: Iterable[_Found]) -> set[tuple]:
    seeds = Counter((finished.cell, finished.run["seed"]) for finished in runs)
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
        cell.groups_in_doubt = len({peer.groups for peer in cells}) > 1


def _configuration(cell: SeedGroup) -> tuple:
    """The same for cells that differ in nothing but the groups that they are reported for."""
    return cell.runs[0]["cell"], cell.images, *cell.teacher.items()


def _notes_on_split_cells(cells: list[SeedGroup]) -> list[str]:
    """Notes where runs of one configuration stand in several rows, since they are reported for different groups."""
    policies: dict[tuple, list[str]] = defaultdict(list)
    for cell in cells:
        policies[_configuration(cell)].append(cell.groups)
    return [
        f"one configuration in {len(groups)} rows, for it is reported for different groups: {cell.label} "
        f"({'; '.join(groups)}); --groups POLICY reports all runs for one"
        for cell in cells
        if len(groups := policies.pop(_configuration(cell), ())) > 1
    ]


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
    for peers in alike.values():
        named, _ = differences([of_method(cell.identity) | cell.teacher for cell in peers])
        for cell, settings in zip(peers, named, strict=True):
            cell.settings = " ".join(settings)
    for (dataset, is_teacher), peers in sorted(of_data.items()):
        named, common = differences([_compared(cell, peers) for cell in peers], absent=DEFAULT)
        for cell, settings in zip(peers, named, strict=True):
            cell.settings = " ".join(filter(None, [cell.settings, *settings]))
        notes += common_note(f"{dataset}, {'teachers' if is_teacher else 'students'}", common)
    return notes


def _compared(cell: SeedGroup, peers: list[SeedGroup]) -> dict[str, str]:
    """All settings outside of the method; images and groups too, where they differ between cells of the same settings.

    The groups of the setting are those that it was trained with, whatever it is reported for.
    """

    def data(peer: SeedGroup) -> str:
        return json.dumps(peer.identity.get("dataset"), sort_keys=True)

    variants = {data(peer): set() for peer in peers}
    for peer in peers:
        variants[data(peer)].add(peer.images)
    images = {"images": cell.images} if any(len(variant) > 1 for variant in variants.values()) else {}
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
    finished = defaultdict(set)
    for cell in students:
        finished[_configuration(cell)] |= {run["seed"] for run in cell.runs}
    for cell in students:
        absent = sorted(seeds[question(cell)] - finished[_configuration(cell)])
        if absent:
            lines.append(f"missing: {cell.label} seed {', '.join(map(str, absent))}")
    return lines

"""Puts exported runs into an output folder, where they go on as if they had been trained there."""

import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ltkd.carry.outgoing import finished_files, unfinished_files
from ltkd.carry.parts import extract_parts
from ltkd.config.identity import digest
from ltkd.data import check_manifest
from ltkd.errors import UserError
from ltkd.files import file_sha256, read_json
from ltkd.loop.checkpoint import load_checkpoint
from ltkd.methods import method_class
from ltkd.results.files import RunFiles
from ltkd.results.read import read_result
from ltkd.results.result import Result
from ltkd.results.teachers import conflicting_teachers
from ltkd.runs.directory import RunLocked, locked


@dataclass
class Arrivals:
    """The folders of the runs that came: as finished, to be resumed, and those of which what is here was kept."""

    finished: list[Path] = field(default_factory=list)
    unfinished: list[Path] = field(default_factory=list)
    kept: list[Path] = field(default_factory=list)


def import_runs(folder: Path, output_root: Path) -> Arrivals:
    """Put the runs that `export_runs` wrote into `folder` below `output_root`.

    A finished run here stays as it is; a finished one that comes replaces an unfinished one; of two unfinished ones the
    one that is further stays. UserError, before anything is changed, when a part is missing or damaged, a run is not
    what its folder's name says or of other data than the one here, or a teacher comes with other weights than those
    that results here speak of.
    """
    try:
        output_root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".carry-", dir=output_root) as staging:
            extract_parts(folder, Path(staging))
            return _place(Path(staging), output_root)
    except OSError as error:
        raise UserError(f"{output_root}: cannot be written ({error.strerror or error})") from error


def _place(staging: Path, output_root: Path) -> Arrivals:
    pairs = [(come, RunFiles(output_root / come.folder.relative_to(staging))) for come in RunFiles.below(staging)]
    for come, here in pairs:
        _check(come, here)
    results = [*_results(RunFiles.below(output_root)), *_results(come for come, _ in pairs)]
    if conflicts := conflicting_teachers(results):
        raise UserError("\n".join(["nothing was imported, students of two teachers do not mix:", *conflicts.values()]))
    arrivals = Arrivals()
    for come, here in pairs:
        try:
            with locked(here, wait=False):
                _move(come, here, arrivals)
        except RunLocked:
            raise UserError(f"{here.folder}: another process works there; import again when it has ended") from None
    return arrivals


def _move(come: RunFiles, here: RunFiles, arrivals: Arrivals) -> None:
    if here.result.exists() or (not come.result.exists() and _progress(here) >= _progress(come)):
        arrivals.kept.append(here.folder)
    elif come.result.exists():
        _move_files(come, here, finished_files(come))
        for stage in (here, here.retraining):  # as where a run finishes
            stage.checkpoint.unlink(missing_ok=True)
        here.sessions.unlink(missing_ok=True)
        arrivals.finished.append(here.folder)
    else:
        for stage in (here.retraining, here):  # a second stage that the other had not begun
            stage.checkpoint.unlink(missing_ok=True)
        _move_files(come, here, unfinished_files(come))
        arrivals.unfinished.append(here.folder)


def _move_files(come: RunFiles, here: RunFiles, paths: list[Path]) -> None:
    for path in paths:
        if path.exists():
            target = here.folder / path.relative_to(come.folder)
            target.parent.mkdir(exist_ok=True)
            os.replace(path, target)


def _check(come: RunFiles, here: RunFiles) -> None:
    """Raise a UserError unless what came is whole, is the run of its folder, and is of the data of what is here."""
    expected = here.folder.name.rpartition("-")[2]  # s0-1a2b3c4d
    if come.result.exists():
        result = read_result(come.result)
        found = {result["hash"], digest(result["identity"])}
        if result["role"] == "teacher" and file_sha256(come.weights) != result["weights_sha256"]:
            raise UserError(f"{here.folder}: comes with other weights than its result speaks of; nothing was imported")
    else:
        found = {state["identity"] for state in _checkpoints(come)}
    if found != {expected}:
        raise UserError(f"{here.folder}: what comes is another run, {', '.join(sorted(found))}; nothing was imported")
    if come.manifest.exists() and here.manifest.exists():
        check_manifest(here.manifest, read_json(come.manifest), with_groups=_reads_groups(come))


def _reads_groups(files: RunFiles) -> bool:
    method = read_json(files.config).get("method")  # None: a teacher
    return method is not None and method_class(method["name"]).reads_groups(method)


def _results(runs: list[RunFiles] | Iterator[RunFiles]) -> Iterator[Result]:
    return (read_result(files.result) for files in runs if files.result.exists())


def _checkpoints(files: RunFiles) -> list[dict]:
    return [load_checkpoint(stage.checkpoint) for stage in (files, files.retraining) if stage.checkpoint.exists()]


def _progress(files: RunFiles) -> list[tuple[int, int]]:
    """The progress of an unfinished run: epochs and steps of each stage; empty without a checkpoint."""
    return [(saved["state"]["epoch"], saved["state"]["step"]) for saved in _checkpoints(files)]

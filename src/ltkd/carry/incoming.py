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
    pairs = [
        (incoming, RunFiles(output_root / incoming.folder.relative_to(staging))) for incoming in RunFiles.below(staging)
    ]
    for incoming, local in pairs:
        _check(incoming, local)
    results = [*_results(RunFiles.below(output_root)), *_results(incoming for incoming, _ in pairs)]
    if conflicts := conflicting_teachers(results):
        raise UserError("\n".join(["nothing was imported, students of two teachers do not mix:", *conflicts.values()]))
    arrivals = Arrivals()
    for incoming, local in pairs:
        try:
            with locked(local, wait=False):
                _move(incoming, local, arrivals)
        except RunLocked:
            raise UserError(f"{local.folder}: another process works there; import again when it has ended") from None
    return arrivals


def _move(incoming: RunFiles, local: RunFiles, arrivals: Arrivals) -> None:
    if local.result.exists() or (not incoming.result.exists() and _progress(local) >= _progress(incoming)):
        arrivals.kept.append(local.folder)
    elif incoming.result.exists():
        _move_files(incoming, local, finished_files(incoming))
        for stage in (local, local.retraining):  # as where a run finishes
            stage.checkpoint.unlink(missing_ok=True)
        local.sessions.unlink(missing_ok=True)
        arrivals.finished.append(local.folder)
    else:
        for stage in (local.retraining, local):  # a second stage that the other had not begun
            stage.checkpoint.unlink(missing_ok=True)
        _move_files(incoming, local, unfinished_files(incoming))
        arrivals.unfinished.append(local.folder)


def _move_files(incoming: RunFiles, local: RunFiles, paths: list[Path]) -> None:
    for path in paths:
        if path.exists():
            target = local.folder / path.relative_to(incoming.folder)
            target.parent.mkdir(exist_ok=True)
            os.replace(path, target)


def _check(incoming: RunFiles, local: RunFiles) -> None:
    """Raise a UserError unless what came is whole, is the run of its folder, and is of the data of what is here."""
    expected = local.folder.name.rpartition("-")[2]  # s0-1a2b3c4d
    if incoming.result.exists():
        result = read_result(incoming.result)
        identities = {result["hash"], digest(result["identity"])}
        if result["role"] == "teacher" and file_sha256(incoming.weights) != result["weights_sha256"]:
            raise UserError(f"{local.folder}: comes with other weights than its result speaks of; nothing was imported")
    else:
        identities = {state["identity"] for state in _checkpoints(incoming)}
    if identities != {expected}:
        raise UserError(
            f"{local.folder}: what comes is another run, {', '.join(sorted(identities))}; nothing was imported"
        )
    if incoming.manifest.exists() and local.manifest.exists():
        check_manifest(local.manifest, read_json(incoming.manifest), with_groups=_reads_groups(incoming))


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

"""Writes the runs of an output folder into parts that can be copied."""

import tarfile
from dataclasses import dataclass, field
from pathlib import Path

from ltkd.carry.parts import tar_in_parts
from ltkd.errors import UserError
from ltkd.results.files import RunFiles
from ltkd.results.read import read_result
from ltkd.runs.directory import RunLocked, locked


@dataclass
class Departures:
    """The folders of the exported runs, and of those left out since another process works there."""

    finished: list[Path] = field(default_factory=list)
    unfinished: list[Path] = field(default_factory=list)
    in_use: list[Path] = field(default_factory=list)


def export_runs(output_root: Path, folder: Path, part_bytes: int) -> Departures:
    """Write all runs below `output_root` into parts of at most `part_bytes` in `folder`.

    Finished: settings, manifest, metrics and result, of a teacher its weights too. Unfinished: what it is resumed from.
    Left out: weights of students, caches of logits, what W&B keeps, runs without a checkpoint. UserError when there is
    nothing to carry, a result is damaged or `folder` has parts already.
    """
    runs = RunFiles.below(output_root)
    if not any(files.result.exists() or _is_unfinished(files) for files in runs):
        raise UserError(f"{output_root}: has no run that is finished or has a checkpoint")
    departures = Departures()
    with tar_in_parts(folder, part_bytes) as tar:
        for files in runs:
            if files.result.exists():
                _add(tar, finished_files(files), output_root)
                departures.finished.append(files.folder)
                continue
            try:
                with locked(files, wait=False):  # no epoch ends while its files are read
                    if _is_unfinished(files):
                        _add(tar, unfinished_files(files), output_root)
                        departures.unfinished.append(files.folder)
            except RunLocked:
                departures.in_use.append(files.folder)
    return departures


def finished_files(files: RunFiles) -> list[Path]:
    """The files of a finished run that are carried, the result last."""
    weights = [files.weights, files.swag] if read_result(files.result)["role"] == "teacher" else []
    return [*_records(files), *_records(files.retraining), *weights, files.result]


def unfinished_files(files: RunFiles) -> list[Path]:
    """The files that a run is resumed from, of both stages where it has two, the checkpoints last."""
    stages = [files.retraining, files]
    return [
        *(path for stage in stages for path in [*_records(stage), stage.selected, stage.sessions]),
        *(stage.checkpoint for stage in stages),
    ]


def _is_unfinished(files: RunFiles) -> bool:
    return files.checkpoint.exists() and not files.result.exists()


def _records(files: RunFiles) -> list[Path]:
    return [files.config, files.manifest, files.metrics, files.log, files.status]


def _add(tar: tarfile.TarFile, paths: list[Path], output_root: Path) -> None:
    for path in paths:
        if path.exists():
            tar.add(path, path.relative_to(output_root).as_posix(), filter=_without_owner)


def _without_owner(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member

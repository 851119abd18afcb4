"""Gives finished runs the hash that their identity has today, where it was extended since they were trained.

The content of packs, image folders and image lists became a part of the identity: what was run on them before has
another hash, and would be run again. Such a run is moved when its manifest proves that it was trained on the images
that are there now; its numbers and weights stay as they are.

The groups of classes left the identity of teachers and of students whose method does not read them: what was run for
others than the default has another hash, and is moved likewise. Its result says which groups its figures are of.
"""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ltkd.config.compose import compose_values
from ltkd.config.identity import NetworkRun, student_run, teacher_run
from ltkd.config.load import load_config
from ltkd.config.schema import Config, Swag
from ltkd.data import check_manifest, load_data
from ltkd.errors import UserError
from ltkd.files import read_json, write_json
from ltkd.results.files import RunFiles
from ltkd.results.read import read_result

ADDED = ("content",)  # keys that identities of before do not have, in whatever section
OF_GROUPS = "groups"  # of a data set: as they are configured where a run reads them, else the default


@dataclass(frozen=True)
class Move:
    """A finished run whose hash is another today; `reason` says why it stays where it is, if it does."""

    files: RunFiles
    old_hash: str
    run: NetworkRun | None
    reason: str | None = None

    @property
    def folder(self) -> Path:
        return self.files.folder.with_name(f"s{self.run.seed}-{self.run.hash}")

    def line(self) -> str:
        if self.run is None:
            return f"{self.old_hash} stays: {self.files.folder} ({self.reason})"
        text = f"{self.old_hash} -> {self.run.hash}: {self.files.folder}"
        return text if self.reason is None else f"{text} stays ({self.reason})"


def find_moves(folder: Path) -> Iterator[Move]:
    """Every finished run below a folder whose hash is not what its configuration gives today."""
    for files in RunFiles.below(folder):
        if files.result.exists():
            try:
                result, settings = read_result(files.result), read_json(files.config)
                run = run_of(settings, result["role"])
            except UserError as error:
                yield Move(files, files.folder.name.rpartition("-")[2], None, str(error).replace("\n", " "))
                continue
            planned = Move(files, result["hash"], run)
            if planned.folder != files.folder:
                yield replace(planned, reason=_why_it_stays(files, result["identity"], run))


def move(planned: Move) -> None:
    """Rewrites what names the hash, then renames the folder: an interruption leaves a run that is found again."""
    files, run = planned.files, planned.run
    result = read_result(files.result)
    teachers = [teacher_run(run.config, extra) for extra in run.config.extra_teachers]
    changed = {"hash": run.hash, "cell": run.cell, "identity": run.identity, "directory": str(planned.folder)}
    changed |= {"group_policy": run.config.dataset.groups, "reads_groups": run.reads_groups}
    if result.get("teacher_result"):
        changed["teacher_result"] = _renamed(result["teacher_result"], teacher_run(run.config))
    if teachers and run.role == "student":
        pairs = zip(result["further_teacher_results"], teachers, strict=True)
        changed["further_teacher_results"] = [_renamed(teacher_result, teacher) for teacher_result, teacher in pairs]
    write_json(files.manifest, read_json(files.manifest) | {"settings": run.config.dataset.settings()})
    write_json(files.config, read_json(files.config) | {"dataset": run.settings["dataset"]})
    write_json(files.result, result | changed)
    files.folder.rename(planned.folder)


def run_of(settings: Mapping[str, Any], role: str) -> NetworkRun:
    """The run of a config.json as today's code sees it. UserError where what it names is not there any more."""
    values: dict[str, Any] = compose_values("method=kd")  # for the sections that do not concern the network
    for key, section in settings.items():
        merged = isinstance(section, Mapping) and key not in ("dataset", "method")
        values[key] = {**values[key], **section} if merged else section
    values["dataset"] = {**values["dataset"], "content": None}
    swag = values["teacher"].pop("swag", None)
    logging.disable(logging.WARNING)  # advice on settings is for those who train with them
    try:
        config = load_config(values | {"device": "cpu"})
    finally:
        logging.disable(logging.NOTSET)
    if role == "student":
        return student_run(config)
    teacher = config.teacher if swag is None else replace(config.teacher, swag=Swag(**swag))
    return teacher_run(config, teacher)


def _renamed(result: dict[str, Any], run: NetworkRun) -> dict[str, Any]:
    folder = Path(result["directory"]).with_name(f"s{run.seed}-{run.hash}")
    return result | {"hash": run.hash, "cell": run.cell, "directory": str(folder)}


def _why_it_stays(files: RunFiles, before: Mapping[str, Any], run: NetworkRun) -> str | None:
    if _comparable(run.identity) != _comparable(before):
        return "it was trained with other weights or settings than its configuration gives today"
    if (target := files.folder.with_name(f"s{run.seed}-{run.hash}")).exists():
        return f"{target} is there already, the same training"
    return _other_data(files, run.config)


def _other_data(files: RunFiles, config: Config) -> str | None:
    manifest = read_json(files.manifest)
    try:
        now = load_data(config.dataset, Path(config.data_root)).manifest()
        check_manifest(files.manifest, now | {"settings": manifest["settings"]})
    except UserError as error:
        return str(error)
    return None


def _comparable(identity: Any, section: str = "") -> Any:
    """An identity without what may differ between then and now."""
    if isinstance(identity, Mapping):
        left_out = {*ADDED, OF_GROUPS} if section == "dataset" else ADDED
        return {key: _comparable(value, key) for key, value in identity.items() if key not in left_out}
    return [_comparable(value) for value in identity] if isinstance(identity, list) else identity

"""The judge of training labels in an audit: the run's teacher where its weights are there, else the audited network."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from ltkd.deploy.description import describe_run
from ltkd.deploy.open import DeployedNetwork, classify_with
from ltkd.deploy.served import ServedNetwork
from ltkd.errors import UserError
from ltkd.results.files import RunFiles
from ltkd.results.result import TeacherResult
from ltkd.results.teachers import teachers_of
from ltkd.runs.load import FinishedRun, load_run

AUDITED = "the audited network"


@dataclass(frozen=True)
class Judge:
    """A network that is asked for its opinion of the training labels, and how the page calls it."""

    network: DeployedNetwork
    name: str = AUDITED
    from_file: bool = False  # not a network of this run: it may have been trained on other images
    no_teacher: str | None = None  # why it is not a teacher


def judge_of_run(run: FinishedRun, audited: DeployedNetwork, device: torch.device) -> Judge:
    """The teacher that the run learned from, of several the first; the audited network where it cannot be asked."""
    teachers = teachers_of(run.result)
    if not teachers:
        return Judge(audited, no_teacher="there is no teacher")
    try:
        teacher = _load(run, teachers[0])
    except UserError as error:
        return Judge(audited, no_teacher=f"the teacher cannot be asked: {error}")
    about = describe_run(teacher)
    network = DeployedNetwork(about, classify_with(ServedNetwork(teacher.model, about).eval(), device))
    several = f" (the first of {len(teachers)})" if len(teachers) > 1 else ""
    name = f"the teacher {teacher.network['name']}{several}"
    return Judge(network, name, from_file=teacher.network.get("checkpoint") is not None)


def _load(run: FinishedRun, teacher_result: TeacherResult) -> FinishedRun:
    """UserError where its folder is not there, is damaged, or has other weights than the run learned from."""
    candidates = _places(run, Path(teacher_result["directory"]))
    folder = next((candidate for candidate in candidates if RunFiles(candidate).weights.is_file()), None)
    if folder is None:
        raise UserError(f"{teacher_result['directory']} has no weights")
    teacher = load_run(folder)
    if teacher_result.get("weights_sha256") not in (None, teacher.result["weights_sha256"]):
        raise UserError(f"{folder} has other weights than the run learned from")
    return teacher


def _places(run: FinishedRun, written: Path) -> Iterator[Path]:
    """The teacher's folder as it was called in training, and beside the run where both were moved."""
    yield written
    data_network_and_name = written.parts[-3:]
    for parent in run.directory.resolve().parents:
        yield parent.joinpath("teachers", *data_network_and_name)

"""Writes result.json, all that a table or a reader needs to know of a finished run."""

import platform
from datetime import UTC, datetime

import numpy
import torch
from torch import nn

import ltkd
from ltkd.config.schema import Config
from ltkd.data import DeviceData
from ltkd.files import file_sha256, write_json
from ltkd.loop.precision import num_threads
from ltkd.loop.trainer import FitResult
from ltkd.machine import device_name, git_state
from ltkd.models import count_multiply_adds, count_parameters, save_weights
from ltkd.results.code import commit_label, threads_label, threads_of
from ltkd.results.corrections import evened_out_by
from ltkd.results.read import SCHEMA_VERSION
from ltkd.results.result import Findings, Result, TeacherResult
from ltkd.runs.directory import RunDirectory
from ltkd.setup import Setup


def write_result(
    setup: Setup,
    directory: RunDirectory,
    model: nn.Module,
    fitted: FitResult,
    teacher: Result | None,
    findings: Findings,
    wall_seconds: float,
) -> Result:
    """Write the weights, then the result: who finds the result finds everything.

    teacher: the teacher's result.
    """
    config, dataset, run = setup.config, setup.config.dataset, directory.run
    save_weights(model, directory.weights, {"hash": run.hash})  # one key: of several the order on disk is random
    shape = (dataset.channels, dataset.image_size, dataset.image_size)
    result: Result = {
        "schema_version": SCHEMA_VERSION,
        **run.names,
        "accuracy": fitted.accuracy,
        **findings,
        "evened_out_by": evened_out_by(run.identity),  # a correction after training comes second to it
        "group_names": setup.data.split.group_names,
        "class_names": setup.data.class_names,
        "class_counts": setup.data.split.class_counts.tolist(),
        "groups": setup.data.split.groups.tolist(),
        "group_policy": dataset.groups,
        "reads_groups": run.reads_groups,
        "test_counts": _class_counts(setup, setup.test),
        "validation_counts": None if setup.validation is None else _class_counts(setup, setup.validation),
        "split_sha256": setup.data.split.sha256,
        "teacher_result": None if teacher is None else teacher_in_short(teacher),
        "directory": str(directory.folder),
        "parameters": count_parameters(model),
        "multiply_adds": count_multiply_adds(model, shape),
        "wall_seconds": wall_seconds,
        "train_seconds": fitted.train_seconds,
        "images_per_second": fitted.images_per_second,
        "device": device_name(setup.device),
        "threads": torch.get_num_threads(),
        "versions": {
            "ltkd": ltkd.__version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": numpy.__version__,
        },
        "git": git_state(),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "weights_sha256": file_sha256(directory.weights),
        "identity": run.identity,
        "evaluate_every": config.run.evaluate_every,
    }
    write_json(directory.result, result)
    directory.remove_state()
    return result


def _class_counts(setup: Setup, part: DeviceData) -> list[int]:
    return torch.bincount(part.labels, minlength=setup.config.dataset.num_classes).tolist()


def teacher_in_short(result: Result) -> TeacherResult:
    """Returns what a student's result says of a teacher."""
    keys = ("hash", "cell", "seed", "directory", "accuracy", "parameters", "evaluate_every")
    later = ("post_hoc", "weights_sha256")  # which not all results have
    return {key: result[key] for key in keys} | {key: result.get(key) for key in later}


def made_by(result: Result, config: Config) -> str:
    """Names the code behind a result and, where they are others than here, its threads and the code here.

    "commit 0ab8356909 with 1 thread; here 3c65991f02 with 2 threads". On either the last digits may depend.
    """
    code = commit_label(result["git"]), commit_label(git_state())
    threads_here = {num_threads(config.run.threads, config.dataset.image_size)}
    threads = threads_of(result)
    if threads in (set(), threads_here):
        return f"commit {code[0]}" if code[0] == code[1] else f"commit {code[0]}; here {code[1]}"
    then, now = (f"{commit} with {threads_label(of)}" for commit, of in zip(code, (threads, threads_here), strict=True))
    return f"commit {then}; here {now}"

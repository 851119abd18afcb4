"""result.json: all that a table or a reader needs to know of a finished run, written last."""

import contextlib
import functools
import os
import platform
import re
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import nn

import ltkd
from ltkd.engine.run_directory import RESULT, RETRAINING, WEIGHTS
from ltkd.engine.trainer import CHECKPOINT, FitResult
from ltkd.engine.workplace import Workplace
from ltkd.files import file_sha256, write_json
from ltkd.identity import NetworkRun
from ltkd.models import count_multiply_adds, count_parameters, save_weights
from ltkd.results import SCHEMA_VERSION


def write_result(
    place: Workplace, run: NetworkRun, model: nn.Module, fitted: FitResult, teacher: dict[str, Any] | None,
    figures: dict[str, Any], wall_seconds: float,
) -> dict[str, Any]:  # fmt: skip
    """weights.safetensors, then result.json: who finds the result finds everything.

    teacher: the teacher's result; figures: further entries, what else was found out about the network.
    """
    config, dataset, directory = place.config, place.config.dataset, run.directory
    save_weights(model, directory / WEIGHTS, {"hash": run.hash})  # one key: of several the order on disk is random
    shape = (dataset.channels, dataset.image_size, dataset.image_size)
    result = {
        "schema_version": SCHEMA_VERSION,
        **run.names,
        "accuracy": fitted.accuracy,
        **figures,
        "group_names": place.data.split.group_names,
        "class_counts": place.data.split.class_counts.tolist(),
        "groups": place.data.split.groups.tolist(),
        "split_sha256": place.data.split.sha256,
        "teacher_result": None if teacher is None else teacher_in_short(teacher),
        "directory": str(directory),
        "parameters": count_parameters(model),
        "multiply_adds": count_multiply_adds(model, shape),
        "wall_seconds": wall_seconds,  # of this process; train_seconds is of all, with interruptions
        "train_seconds": fitted.train_seconds,
        "images_per_second": fitted.images_per_second,
        "device": device_name(place.device),
        "threads": torch.get_num_threads(),
        "versions": {
            "ltkd": ltkd.__version__, "python": platform.python_version(), "torch": torch.__version__,
            "numpy": numpy.__version__,
        },
        "git": git_state(),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "weights_sha256": file_sha256(directory / WEIGHTS),
        "identity": run.identity,
        "evaluate_every": config.run.evaluate_every,
    }  # fmt: skip
    write_json(directory / RESULT, result)
    for path in (directory, directory / RETRAINING):  # the state to resume from has served; the weights stay
        (path / CHECKPOINT).unlink(missing_ok=True)
    return result


def teacher_in_short(result: dict[str, Any]) -> dict[str, Any]:
    """What a student's result says of a teacher."""
    keys = ("hash", "cell", "seed", "directory", "accuracy", "parameters", "evaluate_every")
    later = ("post_hoc", "weights_sha256")  # which not all results have
    return {key: result[key] for key in keys} | {key: result.get(key) for key in later}


def device_name(device: torch.device) -> str:
    """As results and benchmarks call it: "NVIDIA H100 80GB HBM3", "cpu (the processor's model)"."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    model = platform.machine()
    with contextlib.suppress(OSError):  # not Linux: no such file
        names = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
        model = names[1] if names else model
    return f"cpu ({model})"


@functools.cache
def git_state() -> dict[str, Any] | None:
    """Commit and whether files differ from it, as first asked for in this process; None where neither is known.

    The code that runs was read when the process started: what is committed later is not what made the numbers. Outside
    a checkout the environment variable LTKD_COMMIT counts, in the form of `git describe --always --dirty --abbrev=40`.
    """

    def git(*arguments: str) -> str:
        folder = Path(__file__).parent
        return subprocess.run(
            ["git", "-C", folder, *arguments], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        return {
            "commit": git("rev-parse", "HEAD"),
            "modified": bool(git("status", "--porcelain", "--untracked-files=no")),
        }
    except (OSError, subprocess.CalledProcessError):
        given = os.environ.get("LTKD_COMMIT", "")
        return {"commit": given.removesuffix("-dirty"), "modified": given.endswith("-dirty")} if given else None

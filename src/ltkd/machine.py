"""The machine that a run is on: devices, cores, and the commit of the code."""

import contextlib
import functools
import os
import platform
import re
import subprocess
from pathlib import Path
from typing import Any

import torch

from ltkd.errors import UserError


def resolve_device(name: str) -> torch.device:
    """The torch device that `name` (auto, cpu, cuda, cuda:N) means here; UserError where it is not there."""
    available = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    if name == "auto":
        name = available[-1] if len(available) == 1 else available[1]
    if name == "cuda" and len(available) > 1:
        name = available[1]
    if name not in available:
        raise UserError(f"device: {name!r} is not there; this machine has: auto, {', '.join(available)}")
    return torch.device(name)


def device_name(device: torch.device) -> str:
    """As results and benchmarks call it: "NVIDIA H100 80GB HBM3", "cpu (the processor's model)"."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    model = platform.machine()
    with contextlib.suppress(OSError):  # not Linux: no such file
        names = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
        model = names[1] if names else model
    return f"cpu ({model})"


CODE = ("src", "conf", "pyproject.toml")  # of the project; files that are not tracked count too


@functools.cache
def git_state() -> dict[str, Any] | None:
    """Commit and whether code or settings differ from it, as first asked for in this process; None where unknown.

    The code that runs was read when the process started: what is committed later is not what made the numbers. Outside
    a checkout the environment variable LTKD_COMMIT counts, in the form of `git describe --always --dirty --abbrev=40`.
    """

    def git(*arguments: str) -> str:
        folder = Path(__file__).resolve().parents[2]
        return subprocess.run(
            ["git", "-C", folder, *arguments], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        # else the package is installed below somebody else's repository
        git("ls-files", "--error-unmatch", str(Path(__file__).resolve()))
        return {
            "commit": git("rev-parse", "HEAD"),
            "modified": bool(git("status", "--porcelain", "--", *CODE)),
        }
    except (OSError, subprocess.CalledProcessError):
        commit = os.environ.get("LTKD_COMMIT", "")
        return {"commit": commit.removesuffix("-dirty"), "modified": commit.endswith("-dirty")} if commit else None


def num_cores() -> int:
    """Cores that this process may use; of those that torchrun started, each its part of the machine's."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))

"""Shared by all tests: one thread, so that runs are comparable; composed configurations; the place of real data."""

import copy
import functools
import os
import runpy
import sys
from pathlib import Path

import pytest
import torch

from ltkd.config.compose import compose_values
from ltkd.config.load import load_config
from ltkd.config.schema import Config
from ltkd.methods import list_methods, method_class

PROJECT = Path(__file__).resolve().parents[1]

torch.set_num_threads(1)

LEARN_FROM_VALIDATION = [name for name in list_methods() if method_class(name).needs.held_out]

compose_once = functools.cache(compose_values)  # a tenth of a second each, and most tests want one of a few


def pytest_collection_modifyitems(items):
    if not torch.cuda.is_available():
        absent = pytest.mark.skip(reason="needs an NVIDIA GPU")
        for item in items:
            if item.get_closest_marker("cuda"):
                item.add_marker(absent)


@pytest.fixture
def make_config(tmp_path):
    """A checked configuration of a tiny run under tmp_path; overrides as on the command line."""

    def make(*overrides: str) -> Config:
        tiny = [
            "wandb.mode=disabled", "run.threads=1", "run.progress=none",
            "teacher=resnet8", "student=resnet8", "recipe.epochs=3", "recipe.warmup_epochs=1", "device=cpu",
        ]  # fmt: skip
        if any(f"method={name}" in overrides for name in LEARN_FROM_VALIDATION):
            tiny.append("dataset.validation_per_class=2")
        values = copy.deepcopy(compose_once(*tiny, *overrides))
        if not any(override.startswith("output_root=") for override in overrides):
            values["output_root"] = f"{tmp_path}/outputs"
        return load_config(values)

    return make


@pytest.fixture
def script(capsys):
    """Runs scripts/NAME.py in this process, which has torch already: (exit code, standard output, standard error)."""

    def run(name, *arguments):
        code = runpy.run_path(str(PROJECT / "scripts" / f"{name}.py"))["main"](list(arguments))
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def train_command(tmp_path):
    """The command line of `python src/train.py` with outputs under tmp_path."""
    return [
        sys.executable, str(PROJECT / "src" / "train.py"), f"output_root={tmp_path}/outputs", "run.threads=1",
        "teacher=resnet8", "device=cpu",
    ]  # fmt: skip


@pytest.fixture(scope="session")
def cifar100_root() -> Path:
    """The folder that holds cifar-100-python/; the test is skipped with a reason where the data is not found."""
    root = Path(os.environ.get("LTKD_DATA", PROJECT / "data"))
    if not (root / "cifar-100-python" / "train").is_file():
        pytest.skip(f"real CIFAR-100 not found under {root} (set LTKD_DATA to the folder that holds cifar-100-python)")
    return root

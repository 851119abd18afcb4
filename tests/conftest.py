"""Shared by all tests: one thread, so that runs are comparable, composed configurations, and the place of real data."""

import os
from pathlib import Path

import pytest
import torch

PROJECT = Path(__file__).resolve().parents[1]

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def cifar100_root() -> Path:
    """The folder that holds cifar-100-python/; the test is skipped with a reason where the data is not found."""
    root = Path(os.environ.get("LTKD_DATA", PROJECT / "data"))
    if not (root / "cifar-100-python" / "train").is_file():
        pytest.skip(f"real CIFAR-100 not found under {root} (set LTKD_DATA to the folder that holds cifar-100-python)")
    return root

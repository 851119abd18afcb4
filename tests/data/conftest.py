"""Data sets small enough for every test, from the project's own YAML."""

from pathlib import Path

import pytest
import yaml

from ltkd.data import DatasetConfig, load_data

CONF = Path(__file__).resolve().parents[2] / "conf" / "dataset"


@pytest.fixture
def dataset_config():
    """Reads conf/dataset/<name>.yaml, with changes."""

    def read(name, **changes):
        return DatasetConfig(**{**yaml.safe_load((CONF / f"{name}.yaml").read_text()), **changes})

    return read


@pytest.fixture
def digits(dataset_config, tmp_path):
    """digits_lt with 30 validation images per class; those of class 0 are given up by training (124 - 30)."""
    return load_data(dataset_config("digits_lt", validation_per_class=30), tmp_path)

"""Data sets small enough for every test, from the project's own YAML."""

from pathlib import Path

import pytest
import yaml

from ltkd.data import DatasetConfig, complete_settings, load_data

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


@pytest.fixture
def own_images(dataset_config):
    """Settings for images of 8 pixels a side from a folder or a list, completed from the files as a run does it."""

    def read(name="image_folder", **changes):
        settings = {"name": "own", "path": None, "image_size": 8, "crop_padding": 1, "groups": "rank_thirds"}
        lists = {} if name != "image_list" else {"train_list": None, "test_list": None}
        values = yaml.safe_load((CONF / f"{name}.yaml").read_text()) | settings | lists | changes
        return DatasetConfig(**complete_settings({key: plain(value) for key, value in values.items()}))

    def plain(value):
        return str(value) if isinstance(value, Path) else value

    return read

"""Data sets small enough for every test, from the project's own YAML."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from ltkd.config import resolvers  # noqa: F401  of the interpolations in the files
from ltkd.data import DatasetConfig, complete_settings, load_data

CONF = Path(__file__).resolve().parents[2] / "conf" / "dataset"


@pytest.fixture
def dataset_config():
    """Reads conf/dataset/<name>.yaml, with changes."""
    return lambda name, **changes: DatasetConfig(**settings(name, changes))


def settings(name, changes):
    whole = OmegaConf.create({"dataset": OmegaConf.merge(OmegaConf.load(CONF / f"{name}.yaml"), changes)})
    return OmegaConf.to_container(whole, resolve=True)["dataset"]


@pytest.fixture
def digits(dataset_config, tmp_path):
    """digits_lt with 30 validation images per class; those of class 0 are given up by training (124 - 30)."""
    return load_data(dataset_config("digits_lt", validation_per_class=30), tmp_path)


@pytest.fixture
def own_images(dataset_config):
    """Settings for images of 8 pixels a side from a folder or a list, completed from the files as a run does it."""

    def read(name="image_folder", **changes):
        small = {"name": "own", "path": None, "image_size": 8, "crop_padding": 1}
        lists = {} if name != "image_list" else {"train_list": None, "test_list": None}
        changes = {key: plain(value) for key, value in (small | lists | changes).items()}
        return DatasetConfig(**complete_settings(settings(name, changes)))

    def plain(value):
        return str(value) if isinstance(value, Path) else value

    return read

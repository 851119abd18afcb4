"""One tiny finished run on a folder of pictures, and its exported files, for all tests of this folder."""

import dataclasses

import pytest

from ltkd.config.compose import compose_values
from ltkd.config.identity import student_run
from ltkd.config.load import load_config
from ltkd.runs.run import run_experiment
from tests.data.pictures import write_folder

COUNTS = {"ant": 9, "bee": 6, "cat": 4, "dog": 3}
SIZE = 12


@dataclasses.dataclass(frozen=True)
class Example:
    """`settings` are the overrides that made the run; `photos` is its folder of images of SIZE pixels a side."""

    settings: list[str]
    photos: object
    run: object
    result: dict


@pytest.fixture(scope="session")
def example(tmp_path_factory):
    root = tmp_path_factory.mktemp("deploy")
    photos = root / "photos"
    write_folder(photos / "train", COUNTS)
    write_folder(photos / "test", dict.fromkeys(COUNTS, 3), first=100)
    settings = [
        f"output_root={root}/outputs", "wandb.mode=disabled", "run.threads=1", "run.progress=none", "device=cpu",
        "dataset=image_folder", f"dataset.path={photos}", f"dataset.image_size={SIZE}", "dataset.crop_padding=1",
        "teacher=resnet8", "student=resnet8", "recipe.epochs=2", "recipe.warmup_epochs=0", "recipe.batch_size=8",
    ]  # fmt: skip
    config = load_config(compose_values(*settings, "method=kd"))
    result = run_experiment(config)
    return Example(settings, photos, student_run(config).directory, result)

"""A folder of images, from the command line's settings to a result."""

import pytest

from ltkd.config.identity import student_run
from ltkd.data import StreamedData
from ltkd.data.streaming import StreamedFiles
from ltkd.errors import UserError
from ltkd.files import read_json
from ltkd.runs.run import run_experiment

from ..data.pictures import write, write_folder
from .killing import stopped_at


def test_a_folder_is_trained_on_and_a_changed_one_is_another(make_config, tmp_path):
    """Class d has one image, none for testing; the group that has it alone is not tested."""
    root = write_folder(tmp_path / "mine", {"a": 8, "b": 6, "c": 4, "d": 1})
    settings = [
        "method=kd", "dataset=image_folder", f"dataset.path={root}", "dataset.test_share=.25", "dataset.image_size=8",
        "dataset.crop_padding=1", "recipe.epochs=1",
    ]  # fmt: skip
    config = make_config(*settings)
    assert config.dataset.name == "mine"
    assert config.dataset.num_classes == 4
    result = run_experiment(config)
    assert result["dataset"] == "mine"
    manifest = read_json(student_run(config).directory / "manifest.json")
    assert manifest["class_counts"] == [6, 4, 3, 1]
    assert manifest["test_size"] == 5
    assert run_experiment(config)["weights_sha256"] == result["weights_sha256"]  # found again

    write(root / "a/0.png", 50)  # another picture of the same size
    changed = make_config(*settings)
    assert student_run(changed).hash != student_run(config).hash
    with pytest.raises(UserError, match=r"dataset\.content: .* is asked for, but"):
        make_config(*settings, f"+dataset.content={config.dataset.content}")


def test_streamed_training_is_the_same_killed_or_not(make_config):
    """Images in memory, streamed, and streamed with a kill in mid-epoch: the same weights."""
    settings = ["method=kd", "recipe.epochs=2", "recipe.warmup_epochs=1"]
    weights = {run_experiment(make_config(*settings))["weights_sha256"]}
    streamed = make_config(*settings, "study=streamed", "+dataset.storage=stream", "teacher.seed=0")
    assert student_run(streamed).hash == student_run(make_config(*settings)).hash
    weights.add(run_experiment(streamed)["weights_sha256"])

    killed = make_config(*settings, "study=killed", "+dataset.storage=stream")
    with stopped_at(12, StreamedData, "batch_of"):  # of 8 steps an epoch
        run_experiment(killed)
    weights.add(run_experiment(killed)["weights_sha256"])
    assert len(weights) == 1


def test_decoded_and_streamed_training_are_the_same_killed_or_not(make_config, tmp_path):
    """Files in memory, streamed by one process, and by two workers with a kill in mid-epoch; mixkd draws in it."""
    root = write_folder(tmp_path / "mine/train", {"a": 24, "b": 20, "c": 9}).parent
    write_folder(root / "test", {"a": 2, "b": 2, "c": 2}, first=100)
    settings = [
        "method=mixkd", "dataset=image_folder", f"dataset.path={root}", "dataset.image_size=8", "recipe.batch_size=8",
        "dataset.crop_padding=1", "recipe.epochs=2", "recipe.warmup_epochs=1", "recipe.augmentation=randaugment",
    ]  # fmt: skip
    weights = {run_experiment(make_config(*settings, "dataset.storage=memory"))["weights_sha256"]}
    stream = [*settings, "dataset.storage=stream", "study=streamed"]
    weights.add(run_experiment(make_config(*stream, "dataset.workers=0"))["weights_sha256"])

    killed = make_config(*stream, "dataset.workers=2", "study=killed", "teacher.seed=0")
    with stopped_at(10, StreamedFiles, "fetch"):  # of 7 steps an epoch
        run_experiment(killed)
    weights.add(run_experiment(killed)["weights_sha256"])
    assert len(weights) == 1


def test_a_content_that_is_asked_for_is_believed_where_nothing_is(make_config, tmp_path):
    """So that a table of such runs can be read; it cannot be trained on."""
    elsewhere = make_config("dataset=tiny_imagenet_lt100", f"dataset.path={tmp_path}/gone", "+dataset.content='0000'")
    assert student_run(elsewhere).identity["dataset"]["content"] == "0000"
    with pytest.raises(UserError, match=f"{tmp_path}/gone.* not there"):
        run_experiment(elsewhere)

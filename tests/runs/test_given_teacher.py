"""A teacher from a file: what it is taken for, what is refused before anything is trained, what is another run."""

import logging

import pytest
import timm
import torch
from safetensors.torch import load_file

from ltkd.config.identity import student_run, teacher_run
from ltkd.errors import UserError
from ltkd.runs.run import run_experiment

SHIFT = torch.tensor([1, 2, 3, 4, 5, 6, 7, 8, 9, 0])  # output k is class k + 1


@pytest.fixture
def teacher(make_config, tmp_path):
    """Weights of a teacher that has learnt the digits."""
    config = make_config("recipe.epochs=8")
    run_experiment(config)
    return load_file(teacher_run(config).directory / "weights.safetensors")


def test_given_weights(teacher, make_config, tmp_path, caplog):
    """One training serves all: another class order, its names, averaged weights, validation images."""
    given = ["method=kd", "recipe.epochs=2", "study=given"]
    right = run_experiment(make_config(*given, f"teacher.checkpoint={_saved(teacher, tmp_path / 'right.pth')}"))
    accuracy = right["teacher_result"]["accuracy"]["last"]["all"]
    assert accuracy > 50

    shifted = {key: value[SHIFT] if key.startswith("classifier") else value for key, value in teacher.items()}
    path = _saved(shifted, tmp_path / "shifted.pth")
    with pytest.raises(UserError, match=r"shifted\.pth: is right on .*another order of classes.*teacher\.class_names"):
        run_experiment(make_config(*given, f"teacher.checkpoint={path}"))
    names = "[" + ",".join(f"'{k}'" for k in SHIFT.tolist()) + "]"
    named = run_experiment(make_config(*given, f"teacher.checkpoint={path}", f"teacher.class_names={names}"))
    assert named["teacher_result"]["accuracy"]["last"]["all"] == pytest.approx(accuracy, abs=0.5)

    noise = {key: torch.randn_like(value) if value.ndim == 4 else value for key, value in teacher.items()}
    with pytest.raises(UserError, match=r"noise\.pth: is right on .*no more than chance"):
        run_experiment(make_config(*given, f"teacher.checkpoint={_saved(noise, tmp_path / 'noise.pth')}"))

    path = _saved({"state_dict": noise, "state_dict_ema": teacher}, tmp_path / "both.pth")
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        both = run_experiment(
            make_config(
                *given, f"teacher.checkpoint={path}", "teacher.checkpoint_key=state_dict_ema",
                "dataset.validation_per_class=5",
            )
        )  # fmt: skip
    assert both["teacher_result"]["accuracy"]["last"]["all"] == pytest.approx(accuracy, abs=0.5)
    assert "may have been trained on the 50 validation images" in caplog.text


def _saved(content, path):
    torch.save(content, path)
    return path


def test_what_is_taken_from_a_file_is_in_the_identity(make_config, tmp_path):
    path = tmp_path / "w.pth"
    path.write_bytes(b"any")
    given = ["method=kd", f"teacher.checkpoint={path}"]
    changes = [[], ["teacher.checkpoint_key=ema"], ["teacher.class_names=[a,b]"]]
    assert len({student_run(make_config(*given, *change)).hash for change in changes}) == 3
    assert not {"checkpoint_key", "class_names"} & student_run(make_config(*given)).identity["teacher"].keys()


@pytest.mark.parametrize("role", ["student", "teacher"])
def test_a_file_of_a_library_network_changed_in_place_is_another_run(make_config, tmp_path, role):
    path, hashes = tmp_path / "w.pth", set()
    changes = [
        f"{role}=timm", f"{role}.name=timm/resnet10t", f"+{role}.arguments.checkpoint_path={path}", "method=kd",
    ]  # fmt: skip
    for seed in (0, 1):
        torch.manual_seed(seed)
        torch.save(timm.create_model("resnet10t", num_classes=10, in_chans=1).state_dict(), path)
        hashes.add(student_run(make_config(*changes)).hash)
    assert len(hashes) == 2


def test_networks_that_start_at_random_keep_their_identity(make_config):
    run = student_run(make_config("method=kd", "student=timm", "student.name=timm/resnet10t"))
    assert "starting_weights" not in run.identity
    assert "starting_weights" not in run.identity["teacher"]

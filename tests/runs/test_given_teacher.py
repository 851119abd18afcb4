"""A teacher from a file: what it is taken for, what is refused before anything is trained, what is another run."""

import logging

import pytest
import timm
import torch
from safetensors.torch import load_file

from ltkd.config.identity import student_run, teacher_run
from ltkd.errors import UserError
from ltkd.runs.build import new_model
from ltkd.runs.run import run_experiment
from ltkd.setup import predict, prepare

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


def test_a_teacher_whose_training_evened_the_classes_out_is_not_corrected_again_in_silence(make_config, caplog):
    for loss, said in {"ce": 0, "balanced_softmax": 1}.items():
        trained = make_config("method=kd", "recipe.epochs=8", f"teacher.task_loss={loss}")
        run_experiment(trained)
        weights = f"{teacher_run(trained).directory}/weights.safetensors"
        caplog.clear()
        given = ["method=balanced_posterior", "method.teachers=1", "recipe.epochs=1", f"teacher.checkpoint={weights}"]
        run_experiment(make_config(*given))
        assert (
            caplog.text.count("task_loss=balanced_softmax, which evened the classes out; method=balanced_posterior")
            == said
        )
        assert caplog.text.count("which evened the classes out") == said


def test_a_teacher_that_knows_other_class_frequencies_is_told(make_config, caplog):
    trained = make_config("method=kd", "recipe.epochs=8", "dataset.imbalance=none", "dataset.imbalance_factor=1")
    run_experiment(trained)
    given = ["recipe.epochs=1", f"teacher.checkpoint={teacher_run(trained).directory}/weights.safetensors"]
    posterior = ["method=balanced_posterior", "method.teachers=1", "method.task_weight=1"]
    for settings, said in (
        (["method=kd"], 0), (posterior, 1), ([*posterior, "dataset.imbalance=none", "dataset.imbalance_factor=1"], 0)
    ):  # fmt: skip
        caplog.clear()
        run_experiment(make_config(*settings, *given))
        assert caplog.text.count("other class frequencies (124 to 124 images a class, here 124 to 6)") == said


def test_validation_images_that_a_teacher_of_our_own_has_seen_are_counted(make_config, caplog):
    """Its manifest tells: it was trained on all but 5 of the images of class 0, and 20 of them validate now."""
    trained = make_config("recipe.epochs=8", "dataset.validation_per_class=5")
    run_experiment(trained)
    given = ["method=kd", "recipe.epochs=0", f"teacher.checkpoint={teacher_run(trained).directory}/weights.safetensors"]
    run_experiment(make_config(*given, "dataset.validation_per_class=5"))
    assert "validation images" not in caplog.text
    run_experiment(make_config(*given, "dataset.validation_per_class=20"))
    assert "weights.safetensors was trained on 15 of the 200 validation images" in caplog.text


def test_a_teacher_has_its_own_normalisation_and_size(teacher, make_config, tmp_path):
    """Its logits on images normalised for the student are those on images normalised for itself."""
    path = _saved(teacher, tmp_path / "w.pth")
    other = ["method=kd", f"teacher.checkpoint={path}", "dataset.mean=[0.5]", "dataset.std=[0.2]"]
    own = make_config(*other, "teacher.mean=[0.304]", "teacher.std=[0.375]")
    theirs, ours = prepare(make_config(*other[:2])), prepare(own)
    expected = predict(
        theirs, new_model(theirs, theirs.config.teacher, 0), next(theirs.test.evaluation_batches()).images
    )
    images = next(ours.test.evaluation_batches()).images
    logits = predict(ours, new_model(ours, own.teacher, 0), images).logits
    assert torch.allclose(logits, expected.logits, atol=1e-4)
    assert not torch.allclose(
        logits, predict(ours, new_model(ours, theirs.config.teacher, 0), images).logits, atol=1e-2
    )

    larger = make_config(*other, "teacher.image_size=16")
    seen = []
    model = new_model(ours, larger.teacher, 0)
    next(iter(model.children())).register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].shape))
    predict(ours, model, images)
    assert seen[0][2:] == (16, 16)
    hashes = {student_run(make_config(*settings)).hash for settings in (other, [*other, "teacher.std=[0.2]"])}
    assert len({student_run(own).hash, student_run(larger).hash} | hashes) == 4
    with pytest.raises(UserError, match=r"teacher\.mean: 125 is not of pixel values"):
        make_config(*other, "teacher.mean=[125]")


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

"""Long-tail objectives through whole tiny runs."""

import json
import logging

import pytest

from ltkd.engine.network import new_model
from ltkd.engine.run import run_experiment
from ltkd.engine.workplace import prepare
from ltkd.identity import student_run, teacher_run
from ltkd.models import load_weights
from ltkd.models.classifier import CosineClassifier


@pytest.mark.parametrize("name", ["class_balanced", "focal", "class_balanced_focal", "ldam"])
def test_every_task_loss_trains_teacher_and_student(make_config, name):
    losses = (f"teacher.task_loss={name}", f"student.task_loss={name}")
    result = run_experiment(make_config("method=kd", "recipe.epochs=8", *losses))
    assert result["accuracy"]["last"]["all"] > 30
    assert result["teacher_result"]["accuracy"]["last"]["all"] > 30


def test_a_stored_teacher_with_a_cosine_classifier_is_built_again(make_config):
    """From its weights alone, by another run, with the scale in its logits."""
    config = make_config("method=kd", "teacher.task_loss=ldam")
    first = run_experiment(config)
    again = run_experiment(make_config("method=kd", "teacher.task_loss=ldam", "study=again"))
    assert again["weights_sha256"] == first["weights_sha256"]
    place, run = prepare(config), teacher_run(config)
    model = new_model(place, run.network, run.seed)
    load_weights(model, run.directory / "weights.safetensors")
    assert isinstance(model.classifier, CosineClassifier)
    logits = model.eval()(next(place.test.evaluation_batches(100)).images).logits
    assert 10 < logits.abs().max() <= 30


def test_deferral_comes_in_a_run(make_config):
    """The same weights until the epoch after the share; other ones then."""

    def losses_of(choice):
        config = make_config("method=ce", "recipe.epochs=4", f"student.task_loss={choice}")
        run_experiment(config)
        lines = (student_run(config).directory / "metrics.jsonl").read_text().splitlines()
        return [json.loads(line)["train/loss"] for line in lines]

    never, late = losses_of("{name:ldam,deferred:null}"), losses_of("{name:ldam,deferred:0.5}")
    assert late[:2] == never[:2]
    assert late[2] != never[2]


@pytest.mark.parametrize("role", ["teacher", "student"])
def test_sigmoids_in_a_distillation_are_warned_about(make_config, caplog, role):
    with caplog.at_level(logging.WARNING):
        make_config("method=kd", f"{role}.task_loss={{name:class_balanced_focal,gamma:2}}")
    assert f"{role}.task_loss=class_balanced_focal trains sigmoids" in caplog.text
    caplog.clear()
    make_config("method=ce", f"{role}.task_loss=class_balanced_focal")
    assert "sigmoids" not in caplog.text


def test_an_optimizer_with_an_undecayed_bias_is_resumed(make_config, monkeypatch):
    from ltkd.engine import trainer

    settings = ("method=ce", "student.task_loss=class_balanced_focal")
    expected = run_experiment(make_config(*settings, "study=whole"))
    finish = trainer._finish_epoch

    def stop(*arguments):
        finish(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(trainer, "_finish_epoch", stop)
    with pytest.raises(KeyboardInterrupt):
        run_experiment(make_config(*settings, "study=halved"))
    monkeypatch.undo()
    assert run_experiment(make_config(*settings, "study=halved"))["weights_sha256"] == expected["weights_sha256"]

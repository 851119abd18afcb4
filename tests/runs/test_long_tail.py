"""Long-tail objectives through whole tiny runs."""

import json
import logging
import os
import signal

import pytest
import torch

from ltkd.config.identity import student_run, teacher_run
from ltkd.errors import UserError
from ltkd.loop.interrupt import Interrupted
from ltkd.loop.step import Step, StepInput
from ltkd.methods import list_methods, method_class
from ltkd.models import load_weights
from ltkd.models.classifier import CosineClassifier
from ltkd.runs.build import TrainedTeacher, new_method, new_model
from ltkd.runs.run import run_experiment
from ltkd.runs.train import make_training
from ltkd.setup import prepare

from .killing import killed_after


def metrics_of(config):
    lines = (student_run(config).directory / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k != "images_per_second"} for line in lines]


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
    setup, run = prepare(config), teacher_run(config)
    model = new_model(setup, run.network, run.seed)
    load_weights(model, run.directory / "weights.safetensors")
    assert isinstance(model.classifier, CosineClassifier)
    logits = model.eval()(next(setup.test.evaluation_batches(100)).images).logits
    assert 10 < logits.abs().max() <= 30


def test_deferral_comes_in_a_run(make_config):
    """The same weights until the epoch after the share; other ones then."""

    def losses_of(choice):
        config = make_config("method=ce", "recipe.epochs=4", f"student.task_loss={choice}")
        run_experiment(config)
        return [line["train/loss"] for line in metrics_of(config)]

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


def test_a_task_loss_that_weighs_nothing_is_warned_about(make_config, caplog):
    with caplog.at_level(logging.WARNING):
        make_config("method=simkd", "student.task_loss=balanced_softmax")
    assert "student.task_loss has no effect with method.task_weight=0" in caplog.text


def test_an_optimizer_with_an_undecayed_bias_is_resumed(make_config):
    settings = ("method=ce", "student.task_loss=class_balanced_focal")
    expected = run_experiment(make_config(*settings, "study=whole"))
    with killed_after(1):
        run_experiment(make_config(*settings, "study=halved"))
    assert run_experiment(make_config(*settings, "study=halved"))["weights_sha256"] == expected["weights_sha256"]


@pytest.mark.parametrize("sampling", ["class_balanced", "square_root", "progressive"])
def test_sampling_is_resumed_in_the_middle_of_an_epoch(make_config, monkeypatch, sampling):
    choice = ("method=ce", f"recipe.sampling={sampling}")
    expected = run_experiment(make_config(*choice, "study=whole"))
    method, calls = method_class("ce"), []
    forward = method.forward

    def stop_at_the_tenth(self, *arguments):
        calls.append(1)
        if len(calls) == 10:  # 7 steps an epoch
            os.kill(os.getpid(), signal.SIGTERM)
        return forward(self, *arguments)

    monkeypatch.setattr(method, "forward", stop_at_the_tenth)
    with pytest.raises(Interrupted):
        run_experiment(make_config(*choice, "study=halved"))
    monkeypatch.undo()
    assert run_experiment(make_config(*choice, "study=halved"))["weights_sha256"] == expected["weights_sha256"]
    lines = metrics_of(make_config(*choice, "study=halved"))
    assert lines == metrics_of(make_config(*choice, "study=whole"))
    for line in lines:
        assert line["train/repeats/tail"] > 1 > line["train/repeats/head"]
        images = sum(line[f"train/repeats/{group}"] * n for group, n in images_per_group(expected).items())
        assert images == pytest.approx(sum(expected["class_counts"]))


def images_per_group(result):
    images = dict.fromkeys(result["group_names"], 0)
    for group, count in zip(result["groups"], result["class_counts"], strict=True):
        images[result["group_names"][group]] += count
    return images


def test_each_network_has_its_sampling_and_only_another_one_is_another_run(make_config):
    plain, named = make_config(), make_config("recipe.sampling={name: instance}")
    assert student_run(plain).identity == student_run(named).identity
    assert "sampling" not in student_run(plain).identity["recipe"]  # runs from before there was a choice are found
    mine = make_config("+student.recipe.sampling=class_balanced")
    assert student_run(mine).identity["recipe"]["sampling"] == "class_balanced"
    assert teacher_run(mine).identity == teacher_run(plain).identity
    power = make_config("recipe.sampling={name: power, q: 0.25}")
    assert teacher_run(power).identity["recipe"]["sampling"] == {"name": "power", "q": 0.25}
    assert "train/repeats/tail" not in training_metrics_of_one_epoch(plain)
    assert training_metrics_of_one_epoch(mine)["train/repeats/tail"] > 2


def training_metrics_of_one_epoch(config):
    run_experiment(config)
    return metrics_of(config)[0]


@pytest.mark.parametrize(
    ("overrides", "warned"),
    [
        (
            ["recipe.sampling=class_balanced", "student.task_loss=balanced_softmax"],
            "student.task_loss=balanced_softmax",
        ),
        (
            ["+teacher.recipe.sampling=square_root", "teacher.task_loss=class_balanced"],
            "teacher.task_loss=class_balanced",
        ),
        (["recipe.sampling=class_balanced", "student.task_loss=ldam"], None),
        (["student.task_loss=balanced_softmax"], None),
    ],
    ids=str,
)
def test_two_corrections_of_the_class_counts_are_warned_about(make_config, caplog, overrides, warned):
    with caplog.at_level(logging.WARNING):
        make_config(*overrides)
    assert bool(warned) == ("together they favour rare classes" in caplog.text)
    assert warned is None or warned in caplog.text


# methods that read the classifier's weights need a linear one; SimKD's student gets the teacher's instead of its own
REFUSED = {
    "bikd": "student.task_loss: method bikd weighs",
    "catkd": "needs a linear classifier",
    "simkd": "student.task_loss: method simkd deploys",
    "ssd": "hard head of method ssd is linear",
}


@pytest.mark.parametrize("name", list_methods())
def test_every_method_combines_with_ldam_or_says_why_not(make_config, name):
    """Both networks with cosine classifiers, on a class-balanced batch: one update, and all terms finite."""
    losses = ("teacher.task_loss=ldam", "student.task_loss=ldam", "recipe.sampling=class_balanced")
    if name in REFUSED:
        with pytest.raises(UserError, match=REFUSED[name]):
            step_of(make_config(f"method={name}", *losses))
        return
    step, given = step_of(make_config(f"method={name}", *losses))
    before = {key: tensor.clone() for key, tensor in step.training.model.state_dict().items()}
    metrics = step.update(given)
    assert all(value.isfinite().all() for key, value in metrics.items() if key.startswith("loss/"))
    after = step.training.model.state_dict()
    assert isinstance(step.training.model.classifier, CosineClassifier)
    assert all(tensor.isfinite().all() for tensor in after.values())
    assert not torch.equal(after["classifier.weight"], before["classifier.weight"])


def step_of(config):
    """(step, its input) of the configuration with an untrained teacher; two images of every class of the 20."""
    setup = prepare(config)
    student = new_model(setup, config.student, config.seed)
    teacher = new_model(setup, config.teacher, 1).eval().requires_grad_(False) if config.needs_teacher else None
    teacher = teacher and TrainedTeacher(teacher, None)
    further = [teacher] * len(config.extra_teachers)
    method = new_method(setup, student, teacher, len(further)).train()
    model = method.adapt_student(student).train()
    training = make_training(setup, student_run(config), model, method, teacher, further)
    optimizer = torch.optim.SGD([*model.parameters(), *method.parameters()], lr=0.01)
    method.start_epoch(training.recipe.epochs)
    generator = torch.Generator().manual_seed(0)
    plan = setup.train.draw_epoch(generator, training.sampler.order(1, 3, generator))
    choices = plan.take(slice(0, 20))
    batch = setup.train.batch_of(choices)
    assert batch.labels.bincount().tolist() == [2] * 10
    return Step(training, optimizer), StepInput(choices, second_view=batch.images)

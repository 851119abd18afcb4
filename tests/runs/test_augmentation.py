"""Runs with more than crop and flip: the live teacher, mixed labels, an interruption in the middle of an epoch."""

import copy

import pytest
import torch

from ltkd.config.identity import student_run
from ltkd.data import DeviceData
from ltkd.errors import UserError
from ltkd.methods import list_methods, method_class
from ltkd.runs.run import run_experiment
from ltkd.runs.train import make_training
from ltkd.task_losses import build_task_loss

from ..loop.test_step import Watch
from ..methods.problem import make_problem, uses_teacher
from .killing import stopped_at

STRONG = "recipe.augmentation=[randaugment,{name:cutout,length:3},mixup,cutmix]"


def test_killed_in_mid_epoch_it_ends_with_the_same_weights(make_config, caplog):
    caplog.set_level("INFO")
    settings = ["method=kd", "recipe.epochs=2", "recipe.warmup_epochs=1", STRONG]
    weights = {run_experiment(make_config(*settings))["weights_sha256"]}
    assert "teacher resnet8: runs in every step, no cache holds the views" in caplog.text
    killed = make_config(*settings, "study=killed")
    with stopped_at(12, DeviceData, "batch_of"):  # of 8 steps an epoch
        run_experiment(killed)
    weights.add(run_experiment(killed)["weights_sha256"])
    assert len(weights) == 1


def test_the_setting_names_the_run_unless_it_is_the_default(make_config):
    plain = student_run(make_config()).hash
    assert student_run(make_config("recipe.augmentation=[crop_flip]")).hash == plain
    assert student_run(make_config("recipe.augmentation=trivialaugment")).hash != plain
    large = "dataset=cifar100_lt"
    same = student_run(make_config(large, "recipe.augmentation=[{name:cutout,length:16},autoaugment]")).hash
    assert student_run(make_config(large, "recipe.augmentation=autoaugment+cutout")).hash == same


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["recipe.augmentation=cutout"], r"recipe\.augmentation: a square of 16 pixels .* images of 8; .*length: 4"),
        (["++teacher.recipe.augmentation=cutout"], r"recipe\.augmentation: a square of 16 pixels .* images of 8"),
        (["method=dkd", "recipe.augmentation=mixup"], r"method\.name: .*mixup mixes .* dkd reads the label"),
        (["student.task_loss=ldam", "recipe.augmentation=cutmix"], r"student\.task_loss: .*ldam has a margin"),
        (["++teacher.recipe.augmentation=resized_crop_flip"], r"teacher\.recipe\.augmentation: .* same kind"),
        (["recipe.augmentation=[{name:mixup,alpha:0}]"], r"recipe\.augmentation\.alpha: should be greater than 0"),
    ],
)
def test_what_does_not_go_together(make_config, settings, message):
    with pytest.raises(UserError, match=message):
        make_config(*settings)


@pytest.mark.parametrize("name", [name for name in list_methods() if uses_teacher(name)])
def test_a_method_that_takes_mixed_labels_has_no_use_for_an_images_own(name):
    """Other labels and other rows change no term but the task's; those that read them say so."""
    problem = make_problem(name)

    def terms():
        torch.manual_seed(0)
        return {key: term for key, term in problem.terms().items() if key != "task"}

    before = copy.deepcopy(problem.method.state_dict())
    first = terms()
    problem.method.load_state_dict(before)
    problem.batch.labels = 5 - problem.batch.labels
    problem.batch.index = problem.batch.index.flip(0)
    changed = any(not torch.equal(value, first[key]) for key, value in terms().items())
    assert method_class(name).reads_labels or not changed


def test_the_task_loss_of_a_mixture_is_that_of_its_soft_label():
    problem = make_problem("kd")
    method, batch = problem.method, problem.batch
    batch.partner_labels, batch.own_share = batch.labels.roll(1), torch.tensor(0.3)
    logits = problem.student(batch.images).logits.detach()
    for name in ("ce", "balanced_softmax"):
        method.task_loss = build_task_loss(name, torch.tensor([9, 8, 7, 3, 2, 1]))
        one_hot = [torch.nn.functional.one_hot(labels, 6) for labels in (batch.labels, batch.partner_labels)]
        soft = 0.3 * one_hot[0] + 0.7 * one_hot[1]
        adjusted = logits + method.task_loss.class_counts.double().log() * (name != "ce")
        expected = torch.nn.functional.cross_entropy(adjusted, soft.double())
        torch.testing.assert_close(method.task_term(logits, batch), expected)


def test_the_step_itself_can_be_captured(make_config):
    """Everything that a CUDA graph must not contain is done when the batch is fetched."""
    from ltkd.runs.build import new_method, new_model
    from ltkd.setup import prepare

    config = make_config("method=ce", STRONG)
    setup = prepare(config)
    model = new_model(setup, config.student, 0)
    train = make_training(setup, student_run(config), model, new_method(setup, model, None), None).train
    part = train.fetch(train.draw_epoch(torch.Generator()), 0, 64)
    assert part.pixels.shape == (64, 8, 8, 1)
    with Watch() as watch:
        train.batch_of(part)
    assert not watch.found
    assert all(torch.equal(one, other) for one, other in zip(part.tensors(), part.clone().tensors(), strict=True))

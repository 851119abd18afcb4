"""A correction after training is known to be the second where the training evened the classes out."""

import pytest

from ltkd.config.identity import student_run, teacher_run
from ltkd.results import corrections
from ltkd.results.corrections import evened_out_by
from ltkd.task_losses import list_task_losses, task_loss_class


@pytest.mark.parametrize(
    ("overrides", "by"),
    [
        (["method=kd"], None),
        (["method=ce", "student.retraining=crt"], "retraining=crt"),
        (["method=ce", "student.retraining={name: crt, sampling: instance}"], None),
        (["method=ce", "recipe.sampling=class_balanced"], "sampling=class_balanced"),
        (["method=kd", "student.task_loss=balanced_softmax"], "task_loss=balanced_softmax"),
        (["method=kd", "student.task_loss={name: logit_adjusted, tau: 0.0}"], None),
        (["method=ce", "student.task_loss=ldam"], "task_loss=ldam"),
        (["method=ce", "student.task_loss={name: ldam, deferred: null}"], None),
        (["method=ce", "student.task_loss=focal"], None),
        (["method=bkd"], "method=bkd"),
        (["method=tcl"], None),  # its weights are of accuracies, and leave the prior
        (["method=balanced_posterior"], "method=balanced_posterior"),
        (["method=balanced_posterior", "++student.recipe.sampling=square_root"], "method=balanced_posterior"),
        (["method=ltkd", "++student.recipe.sampling=square_root"], "sampling=square_root"),
        (["method=ltkd"], "method=ltkd"),
        (["method=ltkd", "method.rebalancing=none"], None),
        (["method=ltkd", "method.alpha=0"], None),
        # the second stage has plain labels
        (["method=ltkd", "student.retraining={name: crt, sampling: instance}"], None),
        (["student.task_loss=balanced_softmax", "student.retraining={name: lws, sampling: instance}"], None),
        (["method=cckd", "student.task_loss=balanced_softmax"], "task_loss=balanced_softmax"),
        (["method=cckd"], "method=cckd"),
        (["method=cckd", "method.student_prior=-1"], None),
        (["method=bkd", "method.weight=0"], None),
        (["method=xerm", "method.weight=0", "method.task_weight=1"], None),
        (["method=balanced_posterior", "method.weight=0"], "method=balanced_posterior"),
        (["method=ce", "++student.recipe.sampling={name: power, q: 1}"], None),
        (["method=ce", "++student.recipe.sampling={name: power, q: 0.5}"], "sampling=power"),
        (["method=ssd", "student.task_loss=balanced_softmax"], None),  # of the hard head, which is not deployed
    ],
)
def test_evened_out_by(make_config, overrides, by):
    config = make_config(*overrides)
    assert evened_out_by(student_run(config).identity) == by
    assert evened_out_by(teacher_run(config).identity) == (by if by == "sampling=class_balanced" else None)


@pytest.mark.parametrize("method", ["ssd", "simkd"])
def test_a_classifier_that_learns_from_the_teacher_alone_is_as_even_as_the_teacher(make_config, method):
    config = make_config(f"method={method}", "teacher.task_loss=balanced_softmax")
    assert evened_out_by(student_run(config).identity) == "teacher.task_loss=balanced_softmax"


def test_two_corrections_in_training_are_both_named(make_config):
    config = make_config("method=ce", "recipe.sampling=class_balanced", "student.task_loss=balanced_softmax")
    assert evened_out_by(student_run(config).identity) == "sampling=class_balanced and task_loss=balanced_softmax"


def test_the_losses_are_those_that_say_so_themselves():
    assert sorted(corrections.TASK_LOSSES) == [n for n in list_task_losses() if task_loss_class(n).corrects_prior]

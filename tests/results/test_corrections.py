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
    ],
)
def test_evened_out_by(make_config, overrides, by):
    config = make_config(*overrides)
    assert evened_out_by(student_run(config).identity) == by
    assert evened_out_by(teacher_run(config).identity) == (by if by == "sampling=class_balanced" else None)


def test_the_losses_are_those_that_say_so_themselves():
    assert sorted(corrections.TASK_LOSSES) == [n for n in list_task_losses() if task_loss_class(n).corrects_prior]

"""A correction after training is known to be the second where the training evened the classes out."""

import pytest

from ltkd.config.identity import student_run, teacher_run
from ltkd.methods import list_methods, method_class
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
        (["method=kd", "method.task_weight=0", "student.task_loss=balanced_softmax"], None),
        (["method=ce", "student.task_loss={name: ldam, deferred: 1.0}"], None),  # its weights are never in force
        (["method=ce", "student.task_loss={name: class_balanced, beta: 0.0}"], None),  # all of them are 1
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


@pytest.mark.parametrize(
    ("overrides", "by"),
    [
        (["method=kd"], "teacher.task_loss=balanced_softmax"),
        (["method=rlkd"], "teacher.task_loss=balanced_softmax"),
        (["method=crd", "method.kd_weight=1"], "teacher.task_loss=balanced_softmax"),
        (["method=crd", "method.kd_weight=0"], None),
        (["method=kd", "method.weight=0"], None),
        (["method=reviewkd"], None),  # features alone
        (["method=ltkd"], "method=ltkd"),
        (["method=kd", "student.task_loss=balanced_softmax"], "task_loss=balanced_softmax"),
    ],
)
def test_who_imitates_the_logits_of_a_balanced_teacher_is_balanced(make_config, overrides, by):
    config = make_config(*overrides, "teacher.task_loss=balanced_softmax")
    assert evened_out_by(student_run(config).identity) == by


def test_the_methods_of_features_are_those_without_a_term_on_the_teachers_logits():
    of_features = {name for name in list_methods() if needs_features(name)}
    assert of_features - set(corrections.OF_FEATURES) == {"crd", "gml", "kdiga", "okd", "simkd"}  # these have one
    assert of_features >= set(corrections.OF_FEATURES)


def needs_features(name):
    needs = method_class(name).needs
    return needs.stages or needs.embedding or needs.input_gradients


def test_two_corrections_in_training_are_both_named(make_config):
    config = make_config("method=ce", "recipe.sampling=class_balanced", "student.task_loss=balanced_softmax")
    assert evened_out_by(student_run(config).identity) == "sampling=class_balanced and task_loss=balanced_softmax"


def test_the_losses_are_those_that_say_so_themselves():
    assert sorted(corrections.TASK_LOSSES) == [n for n in list_task_losses() if task_loss_class(n).corrects_prior]

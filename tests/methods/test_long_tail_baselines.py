"""The recent long-tail baselines: what each makes of the losses, its statistics, and what it refuses."""

from dataclasses import replace

import pytest
import torch

from ltkd import losses
from ltkd.errors import UserError
from ltkd.methods import build_method
from ltkd.models.output import ModelOutput
from ltkd.task_losses import build_task_loss

from ..conftest import compose_values
from .problem import make_problem


def settings_of(name, *overrides):
    values = compose_values(f"method={name}", *overrides)["method"]
    values.pop("name")
    return values


def make(name, context, task_loss="ce", **settings):
    return build_method(name, settings_of(name) | settings, context, build_task_loss(task_loss, context.class_counts))


@pytest.mark.parametrize("name", ["bkd", "cckd", "deit_lt", "xerm"])
def test_classes_without_images_are_refused(context, name):
    counts = replace(context, class_counts=torch.tensor([9, 0, 3, 0, 2, 1]))
    with pytest.raises(UserError, match=rf"{name} needs a training image of every class; none of class 1, 3"):
        make(name, counts)


# GKL and IKL


@pytest.mark.parametrize("name", ["gkl", "ikl"])
def test_class_means_are_those_of_the_epoch_before(context, outputs, name):
    student, teacher, batch = outputs
    method = make(name, context, class_information=True, weight_temperature=2.0)
    first = method(student, teacher, batch)[name].item()
    assert torch.equal(method.class_means, torch.full((6, 6), 1 / 6))
    other = ModelOutput(teacher.logits.flip(0))
    method(student, other, batch)
    method.end_epoch(None)
    logits, labels = torch.cat((teacher.logits, other.logits)), batch.labels.repeat(2)
    expected = losses.class_mean_probabilities(logits, labels, temperature=2.0)
    torch.testing.assert_close(method.class_means, expected)
    assert method.counts.sum() == 0
    arguments = {"alpha": method.alpha, "beta": method.beta, "temperature": method.temperature}
    if name == "gkl":
        arguments["gamma"] = method.gamma
    value = getattr(losses, name)(student.logits, teacher.logits, batch.labels, expected, **arguments)
    torch.testing.assert_close(method(student, teacher, batch)[name], value)
    assert value.item() != pytest.approx(first, rel=1e-4)


def test_a_class_without_an_image_in_an_epoch_keeps_its_row(context, outputs):
    student, teacher, batch = outputs
    batch.labels = batch.labels % 4
    method = make("gkl", context, class_information=True)
    method.class_means.copy_(torch.rand(6, 6))
    before = method.class_means.clone()
    absent = [4, 5]
    method(student, teacher, batch)
    method.end_epoch(None)
    assert torch.equal(method.class_means[absent], before[absent])
    assert not torch.equal(method.class_means, before)


def test_statistics_stand_still_in_evaluation(context, outputs):
    for name, buffer in (("gkl", "counts"), ("tcl", "seen")):
        method = make(name, context).eval()
        method(*outputs)
        assert getattr(method, buffer).sum() == 0


@pytest.mark.parametrize("name", ["gkl", "tcl"])
def test_statistics_are_in_the_checkpoint_within_an_epoch(context, outputs, name):
    one, two = make(name, context), make(name, context)
    one(*outputs)
    two.load_state_dict(one.state_dict())
    for method in (one, two):
        method(*outputs)
        method.end_epoch(None)
    for value, other in zip(one.state_dict().values(), two.state_dict().values(), strict=True):
        assert torch.equal(value, other)


# settings: alpha, beta, gamma, class information
GKL_PAIRS = {
    ("resnet32x4", "resnet8x4"): (1.0, 16.0, 0.05, True),
    ("resnet56", "resnet20"): (1.0, 4.0, 0.2, True),
    ("resnet110", "resnet32"): (1.0, 4.0, 0.1, False),
    ("vgg13", "vgg8"): (1.0, 8.0, 0.2, True),
    ("vgg13", "mobilenetv2"): (4.0, 12.0, 0.1, True),
    ("wrn_40_2", "wrn_16_2"): (3.0, 20.0, 0.3, False),
    ("wrn_40_2", "wrn_40_1"): (1.0, 12.0, 0.3, False),
    ("resnet50", "mobilenetv2"): (1.0, 8.0, 0.05, True),
    ("wrn_40_2", "shufflenetv1"): (1.0, 8.0, 0.0, False),
    ("resnet32x4", "shufflenetv1"): (1.0, 8.0, 0.0, True),
    ("resnet32x4", "shufflenetv2"): (3.0, 12.0, 0.1, True),
}


@pytest.mark.parametrize("pair", GKL_PAIRS, ids="-".join)
def test_gkl_settings_of_each_pair(pair):
    values = settings_of("gkl", f"teacher={pair[0]}", f"student={pair[1]}")
    assert tuple(values[key] for key in ("alpha", "beta", "gamma", "class_information")) == GKL_PAIRS[pair]
    assert values["temperature"] == values["weight_temperature"] == 4.0


# xERM


def test_xerm_is_its_loss_alone_and_logs_the_weights(context, outputs):
    student, teacher, batch = outputs
    method = make("xerm", context)
    terms = method(student, teacher, batch)
    assert terms["task"].item() == 0
    arguments = (teacher.logits, batch.labels, context.class_counts)
    torch.testing.assert_close(terms["xerm"], losses.xerm(student.logits, *arguments, gamma=1.5))
    shares = losses.xerm_weights(*arguments, gamma=1.5)
    assert method.figures["soft_label_share"][:, 0].sum().item() == pytest.approx(shares.sum().item(), rel=1e-5)


# class-conditional KD


def test_the_teachers_prior_is_its_mean_prediction(context, outputs):
    student, teacher, batch = outputs
    method = make("cckd", context, teacher_prior="predictions")
    assert method.needs_teacher_statistics
    assert not make("cckd", context).needs_teacher_statistics
    logits = torch.randn(50, 6, generator=torch.Generator().manual_seed(1))
    logits[:, 5] = -100.0  # never predicted
    labels = torch.arange(50) % 6
    method.prepare(logits, labels)
    prior = torch.stack([logits[labels == c].softmax(1).mean(0) for c in range(6)]).mean(0)
    torch.testing.assert_close(method.prior[:5], prior[:5])
    assert method.prior[5].item() == pytest.approx(1e-4)
    expected = losses.kd(student.logits, teacher.logits - method.prior.log(), temperature=2.0)
    torch.testing.assert_close(method(student, teacher, batch)["corrected_kd"], expected)


def test_the_label_prior_is_a_logit_adjustment_of_the_teacher(context, outputs):
    student, teacher, batch = outputs
    value = make("cckd", context)(student, teacher, batch)["corrected_kd"]
    adjusted = teacher.logits - context.class_counts.log()
    torch.testing.assert_close(value, losses.kd(student.logits, adjusted, temperature=2.0))


# hard distillation


def test_class_weights_come_after_the_deferral(context, outputs):
    student, teacher, batch = outputs
    method = make("deit_lt", context)
    arguments = {
        "student_logits": student.logits, "teacher_logits": teacher.logits, "target": batch.labels,
        "class_counts": context.class_counts, "alpha": 0.5, "beta": 0.9999,
    }  # fmt: skip
    for epoch, weighted in ((1, False), (8, False), (9, True), (10, True)):
        method.start_epoch(epoch)
        expected = losses.deferred_hard_distillation(**arguments, weighted=weighted)
        torch.testing.assert_close(sum(method(student, teacher, batch).values()), expected)


# trust gate


def test_class_accuracies_are_an_average_over_epochs(context, outputs):
    student, teacher, batch = outputs
    method = make("tcl", context, momentum=0.75)
    right = teacher.logits.argmax(1) == batch.labels
    kd = losses.kd_per_image(student.logits, teacher.logits, temperature=4.0)
    torch.testing.assert_close(method(student, teacher, batch)["trusted_kd"], (kd * right).mean())  # all weights 1
    method(ModelOutput(3 * torch.eye(6)[batch.labels]), teacher, batch)  # an epoch's second batch, all right
    hits = (student.logits.argmax(1) == batch.labels).float() + 1
    method.end_epoch(None)
    for c in range(6):
        seen = batch.labels == c
        expected = 0.25 * hits[seen].mean().item() / 2 if seen.any() else 0.0
        assert method.class_accuracy[c].item() == pytest.approx(expected)
    weights = losses.accuracy_weights(method.class_accuracy)[batch.labels]
    torch.testing.assert_close(method(student, teacher, batch)["trusted_kd"], (kd * right * weights).mean())


# two heads


def test_the_deployed_head_sees_no_label_and_the_hard_head_no_teacher():
    problem = make_problem("ssd")
    method, student, classifier = problem.method, problem.student, problem.student.classifier
    terms = problem.terms()
    of_task = torch.autograd.grad(
        terms["task"], [classifier.weight, method.hard_head.weight], allow_unused=True, retain_graph=True
    )
    of_kd = torch.autograd.grad(
        terms["kd"], [classifier.weight, method.hard_head.weight], allow_unused=True, retain_graph=True
    )
    assert of_task[0] is None
    assert of_kd[1] is None
    assert of_task[1].abs().sum() > 0
    assert of_kd[0].abs().sum() > 0
    output, teacher = student(problem.batch.images), problem.teacher(problem.batch.images)
    expected = losses.two_head_distillation(
        method.hard_head(output.embedding), output.logits, teacher.logits, problem.batch.labels, temperature=2.0
    )
    torch.testing.assert_close(sum(problem.terms().values()), expected)
    assert not [name for name in student.state_dict() if "hard_head" in name]


def test_two_heads_need_a_linear_classifier_and_an_embedding(context):
    with pytest.raises(UserError, match="hard head of method ssd is linear"):
        make("ssd", context, "ldam")
    with pytest.raises(UserError, match="needs the pooled vector"):
        make("ssd", replace(context, student=ModelOutput(torch.zeros(2, 6))))


# class-balanced distillation


def test_cbd_is_its_loss_between_the_projected_and_the_teachers_vectors():
    problem = make_problem("cbd")
    output, teacher = problem.student(problem.batch.images), problem.teacher(problem.batch.images)
    whole = losses.class_balanced_distillation(
        problem.method.projection(output.embedding).relu(), output.logits, [3 * teacher.embedding],
        problem.batch.labels, alpha=0.4, beta=100.0,
    )  # fmt: skip
    torch.testing.assert_close(sum(problem.terms().values()), whole)

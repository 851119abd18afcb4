"""Losses of the data and teacher methods against values that were computed independently, in float64."""

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from ltkd import losses

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "data_teacher.json").read_text())["cases"]


def mixkd(images, target, student_weight, teacher_weight, permutation, *, lam, which):
    mixed = lam * images + (1 - lam) * images[permutation]
    student, teacher = mixed @ student_weight.T, mixed @ teacher_weight.T
    if which == "student_mixup":
        return losses.mixup_cross_entropy(student, target, target[permutation], torch.tensor(lam, dtype=student.dtype))
    return losses.logit_mse(student, teacher)


def input_gradient_alignment(images, target, student_weight, teacher_weight, *, squared):
    images = images.requires_grad_()
    student, teacher = images @ student_weight.T, images @ teacher_weight.T
    return losses.input_gradient_alignment(student, teacher, target, images, squared=squared)


def bayesian_teacher(student_logits, teacher_logit_samples, target, *, alpha, teacher_temperature, student_temperature):
    kl = losses.bayesian_teacher(
        student_logits,
        teacher_logit_samples,
        teacher_temperature=teacher_temperature,
        student_temperature=student_temperature,
    )
    return (1 - alpha) * losses.cross_entropy(student_logits, target) + alpha * kl


def skd_acceptance(student_logits, teacher_logits, *, k):
    return losses.speculative_acceptance(student_logits.argmax(1), teacher_logits, k=k)


def reward_extrapolation(student_logits, teacher_logits, reference_logits, *, reward_scale):
    """The paper's objective; up to a constant of the target it is the divergence that the method minimises."""
    log_t, log_ref = (F.log_softmax(z, dim=1) for z in (teacher_logits, reference_logits))
    constant = torch.logsumexp(log_ref + reward_scale * (log_t - log_ref), dim=1).mean()
    divergence = losses.reverse_kl_to_target(
        student_logits, teacher_logits, reference_logits, reward_scale=reward_scale
    )
    return divergence - constant


FUNCTIONS = {
    "mixkd": mixkd,
    "input_gradient_alignment": input_gradient_alignment,
    "comparative_kd": losses.comparative_kd,
    "comparative_labels": losses.comparative_labels,
    "bayesian_teacher": bayesian_teacher,
    "skd_acceptance": skd_acceptance,
    "reward_extrapolation": reward_extrapolation,
    "reverse_kl_to_target": losses.reverse_kl_to_target,
    "extrapolated_target": losses.extrapolated_target,
}
INTEGERS = {"target", "permutation", "positive_target", "negative_target"}


@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: case["name"])
def test_value_and_gradient_norm(case):
    inputs = {
        name: torch.tensor(value, dtype=torch.int64 if name in INTEGERS else torch.float64)
        for name, value in case["inputs"].items()
    }
    variable = case["gradient_with_respect_to"]
    if variable is not None:
        inputs[variable].requires_grad_()
    value = FUNCTIONS[case["function"]](**inputs, **case["kwargs"])
    if "expected" in case:
        torch.testing.assert_close(value, torch.tensor(case["expected"], dtype=value.dtype), rtol=1e-9, atol=1e-12)
        return
    (gradient,) = torch.autograd.grad(value, inputs[variable])
    assert value.item() == pytest.approx(case["value"], rel=1e-9)
    assert gradient.norm().item() == pytest.approx(case["gradient_norm"], rel=1e-9)

"""The losses of the recent baselines against values that were computed independently, in float64."""

import json
from pathlib import Path

import pytest
import torch

from ltkd import losses

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "losses_2026.json").read_text())["cases"]
INTEGERS = {"target", "validation_target", "key_target", "class_counts"}


def as_tensor(name, value):
    if name == "teacher_features" and isinstance(value[0][0], list):  # one array for each teacher
        return [as_tensor(name, array) for array in value]
    return torch.tensor(value, dtype=torch.int64 if name in INTEGERS else torch.float64)


def through_cosine_classifiers(student_features, student_weight, teacher_features, teacher_weight, **settings):
    student = losses.cosine_logits(student_features, student_weight)
    return losses.cosine_kd(student, losses.cosine_logits(teacher_features, teacher_weight), **settings)


FUNCTIONS = {
    "cosine_kd(cosine_logits(student_features, student_weight), ...)": through_cosine_classifiers,
    "lookahead_loss(weight_network)": losses.lookahead_loss,
}


@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: case["name"])
def test_value_and_gradient_norm(case):
    function = FUNCTIONS.get(case["function"]) or getattr(losses, case["function"])
    inputs = {name: as_tensor(name, value) for name, value in case["inputs"].items()}
    variable = case["gradient_with_respect_to"]
    if variable is not None:
        inputs[variable].requires_grad_()
    value = function(**inputs, **case["kwargs"])
    if "expected" in case:
        expected = torch.tensor(case["expected"], dtype=torch.float64)
        torch.testing.assert_close(torch.as_tensor(value).double(), expected, rtol=1e-9, atol=1e-13)
        return
    (gradient,) = torch.autograd.grad(value, inputs[variable])
    assert value.item() == pytest.approx(case["value"], rel=1e-9)
    assert gradient.norm().item() == pytest.approx(case["gradient_norm"], rel=1e-8)

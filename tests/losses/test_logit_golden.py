"""The logit losses against values and gradient norms computed independently, in float64."""

import json
from pathlib import Path

import pytest
import torch

from ltkd import losses

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "logit.json").read_text())
INPUTS = {
    name: torch.tensor(values, dtype=None if isinstance(values[0], int) else torch.float64)
    for name, values in GOLDEN["inputs"].items()
}
CASES = {case["name"]: case for case in GOLDEN["cases"]}


def standardized(loss):
    def on_z_scores(student_logits, teacher_logits, *args, **settings):
        return loss(losses.standardize(student_logits), losses.standardize(teacher_logits), *args, **settings)

    return on_z_scores


def dive_with_task_loss(student_logits, teacher_logits, target, class_counts, alpha, temperature, power):
    task = losses.balanced_softmax(student_logits, target, class_counts)
    return (1 - alpha) * task + alpha * losses.dive(
        student_logits, teacher_logits, temperature=temperature, power=power
    )


# The cases that are not one function of the library.
COMPOSED = {
    "kd(standardize(student), standardize(teacher))": standardized(losses.kd),
    "dkd(standardize(student), standardize(teacher), target)": standardized(losses.dkd),
    "temperature^2 * alpha_beta_divergence(standardize(student), standardize(teacher))": standardized(
        lambda *logits, temperature, **settings: (
            temperature**2 * losses.alpha_beta_divergence(*logits, temperature=temperature, **settings)
        )
    ),
    "dive": dive_with_task_loss,
}
OF_METHODS = ("ctkd", "mlkd_public_code_total")  # tested where the methods are


def cases_with(result):
    return [name for name, case in CASES.items() if result in case and not name.startswith(OF_METHODS)]


def inputs_of(case):
    return {argument: INPUTS[name].clone() for argument, name in case["inputs"].items()}


@pytest.mark.parametrize("name", cases_with("value"))
def test_value_and_gradient_norm(name):
    case = CASES[name]
    inputs = inputs_of(case)
    variable = inputs[case["gradient_with_respect_to"]].requires_grad_()
    function = COMPOSED.get(case["function"]) or getattr(losses, case["function"])
    value = function(*inputs.values(), **case["kwargs"])
    (gradient,) = torch.autograd.grad(value.sum(), variable)
    assert value.item() == pytest.approx(case["value"], rel=1e-8)
    assert gradient.norm().item() == pytest.approx(case["gradient_norm"], rel=1e-8)


@pytest.mark.parametrize("name", cases_with("expected"))
def test_array(name):
    case = CASES[name]
    function = COMPOSED.get(case["function"]) or getattr(losses, case["function"])
    expected = torch.tensor(case["expected"], dtype=torch.float64)
    torch.testing.assert_close(function(*inputs_of(case).values(), **case["kwargs"]), expected, rtol=1e-8, atol=1e-12)

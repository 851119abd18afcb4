"""Values and gradient norms that were computed independently, in float64."""

import json
from pathlib import Path

import pytest
import torch

from ltkd import losses

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "losses.json").read_text())


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=lambda case: f"{case['function']}-{case['kwargs']}")
def test_value_and_gradient_norm(case):
    exact = dict.fromkeys(("student_logits", "teacher_logits"), torch.float64)
    inputs = {name: torch.tensor(value, dtype=exact.get(name)) for name, value in GOLDEN["inputs"].items()}
    variable = inputs[case["gradient_with_respect_to"]].requires_grad_()

    value = getattr(losses, case["function"])(*(inputs[name] for name in case["args"]), **case["kwargs"])
    if "combine" in case:
        value = case["combine"]["cross"] * value[0] + case["combine"]["within"] * value[1]
    (gradient,) = torch.autograd.grad(value, variable)

    assert value.item() == pytest.approx(case["value"], rel=1e-9)
    assert gradient.norm().item() == pytest.approx(case["gradient_norm"], rel=1e-9)

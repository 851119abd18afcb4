"""Feature, relation and contrastive losses: values and gradient norms that were computed independently, in float64."""

import json
from pathlib import Path

import pytest
import torch

from ltkd import losses

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "feature.json").read_text())


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=lambda case: case["name"])
def test_value_and_gradient_norm(case):
    inputs = {name: torch.tensor(value, dtype=torch.float64) for name, value in case["inputs"].items()}
    variable = case["gradient_with_respect_to"]
    if variable is not None:
        inputs[variable].requires_grad_()

    value = getattr(losses, case["function"])(*inputs.values(), **case["kwargs"])
    if case["function"] == "abf_fuse":  # a map: the golden scalar is the mean of its squares
        value = value.square().mean()

    if "expected" in case:
        value = torch.as_tensor(value, dtype=torch.float64)
        torch.testing.assert_close(value, torch.tensor(case["expected"], dtype=torch.float64), rtol=1e-8, atol=0)
        return
    assert value.item() == pytest.approx(case["value"], rel=1e-8)
    (gradient,) = torch.autograd.grad(value, inputs[variable])
    assert gradient.norm().item() == pytest.approx(case["gradient_norm"], rel=1e-8)

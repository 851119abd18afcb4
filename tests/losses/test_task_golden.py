"""The long-tail losses against values that were computed independently, in float64."""

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from ltkd import losses
from ltkd.data import sampling

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "long_tail.json").read_text())["cases"]
SCALARS = [case for case in GOLDEN if "value" in case]
ARRAYS = [case for case in GOLDEN if "expected" in case]
FLOATS = {"logits", "features", "weight", "classifier_weight", "class_scale"}


def inputs_of(case):
    return {
        name: torch.tensor(value, dtype=torch.float64 if name in FLOATS else None)
        for name, value in case["inputs"].items()
    }


@pytest.mark.parametrize("case", SCALARS, ids=lambda case: case["name"])
def test_value_and_gradient_norm(case):
    inputs = inputs_of(case)
    variable = inputs[case["gradient_with_respect_to"]].requires_grad_()
    if "features" in inputs:  # the case has the cosine classifier in it; its weight has a column per class
        inputs = {"logits": F.normalize(inputs["features"]) @ F.normalize(inputs.pop("weight"), dim=0), **inputs}
        del inputs["features"]
    value = getattr(losses, case["function"])(**inputs, **case["kwargs"])
    (gradient,) = torch.autograd.grad(value, variable)
    assert value.item() == pytest.approx(case["value"], rel=1e-9)
    assert gradient.norm().item() == pytest.approx(case["gradient_norm"], rel=1e-9)


@pytest.mark.parametrize("case", ARRAYS, ids=lambda case: case["name"])
def test_expected_values(case):
    function = getattr(losses, case["function"], None) or getattr(sampling, case["function"])
    result = function(*inputs_of(case).values(), **case["kwargs"])
    torch.testing.assert_close(result, torch.tensor(case["expected"], dtype=torch.float64), rtol=1e-9, atol=1e-12)

"""The long-tail losses against values that were computed independently, in float64."""

import json
from pathlib import Path

import pytest
import torch

from ltkd import losses

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "long_tail.json").read_text())
EXACT = {"logits", "features", "weight", "classifier_weight", "class_scale"}


def inputs_of(case):
    return {
        name: torch.tensor(value, dtype=torch.float64 if name in EXACT else None)
        for name, value in case["inputs"].items()
    }


@pytest.mark.parametrize(
    "case", [c for c in GOLDEN["cases"] if c["function"] == "effective_number_weights"], ids=lambda c: c["name"]
)
def test_expected_values(case):
    result = getattr(losses, case["function"])(*inputs_of(case).values(), **case["kwargs"])
    torch.testing.assert_close(result, torch.tensor(case["expected"], dtype=torch.float64), rtol=1e-9, atol=0)

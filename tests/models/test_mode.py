"""The network's mode after an evaluation."""

import pytest

from ltkd.models import build_model, evaluating


def test_each_module_is_in_its_own_mode_again_whatever_is_raised():
    model = build_model("resnet8", 3).train()
    model.stages[0].eval()
    before = {name: module.training for name, module in model.named_modules()}

    def evaluate():
        with evaluating(model):
            assert not any(module.training for module in model.modules())
            raise KeyError

    with pytest.raises(KeyError):
        evaluate()
    assert {name: module.training for name, module in model.named_modules()} == before

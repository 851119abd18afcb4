import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ltkd.models import build_model

from .comparison import after_training


def slow_reference(state: dict[str, Tensor], x: Tensor, blocks_per_stage: int) -> tuple[Tensor, list[Tensor]]:
    """Logits and the plain block sums, as the paper draws the network: BN-ReLU-conv twice, no sharing."""

    def norm_relu(x: Tensor, name: str) -> Tensor:
        values = [state[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")]
        return F.relu(F.batch_norm(x, *values))

    x, sums = F.conv2d(x, state["stem.weight"], padding=1), []
    for stage in range(3):
        for position in range(blocks_per_stage):
            name = f"stages.{stage}.{position}"
            stride = 2 if stage > 0 and position == 0 else 1
            y = F.conv2d(norm_relu(x, f"{name}.norm1"), state[f"{name}.conv1.weight"], stride=stride, padding=1)
            y = F.conv2d(norm_relu(y, f"{name}.norm2"), state[f"{name}.conv2.weight"], padding=1)
            shortcut = state.get(f"{name}.shortcut.weight")
            x = y + (x if shortcut is None else F.conv2d(norm_relu(x, f"{name}.norm1"), shortcut, stride=stride))
        sums.append(x)
    pooled = norm_relu(x, "norm").mean(dim=(2, 3))
    return F.linear(pooled, state["classifier.weight"], state["classifier.bias"]), sums


@pytest.mark.parametrize(("name", "blocks"), [("wrn_16_1", 2), ("wrn_16_2", 2), ("wrn_40_1", 6)])
def test_logits_and_maps_are_the_papers(name, blocks):
    torch.manual_seed(0)
    model = after_training(build_model(name, 5))
    images = torch.randn(2, 3, 16, 16)
    logits, sums = slow_reference(model.state_dict(), images, blocks)
    output = model(images, features=True)
    torch.testing.assert_close(output.logits, logits)
    for preactivation, norm, block_sum in zip(output.preact_stages, model.preact_norms, sums, strict=True):
        torch.testing.assert_close(preactivation, norm(block_sum))


def test_the_shortcut_is_a_convolution_only_where_the_width_changes():
    with_convolution = {name for name, _ in build_model("wrn_16_1", 5).named_parameters() if "shortcut" in name}
    assert with_convolution == {"stages.1.0.shortcut.weight", "stages.2.0.shortcut.weight"}

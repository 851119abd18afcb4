import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision import models

from ltkd.models import build_model
from ltkd.models.shufflenet import shuffle

from .comparison import after_training, load_in_order


def test_shuffling_takes_one_channel_of_each_group_in_turn():
    x = torch.arange(6.0).reshape(1, 6, 1, 1).expand(2, 6, 3, 4)
    assert shuffle(x, 2)[1, :, 2, 3].tolist() == [0, 3, 1, 4, 2, 5]
    assert shuffle(x, 3)[0, :, 0, 0].tolist() == [0, 2, 4, 1, 3, 5]
    assert torch.equal(shuffle(x, 1), x)


def test_shufflenetv2_computes_what_torchvisions_does():
    torch.manual_seed(0)
    theirs = after_training(models.shufflenet_v2_x1_0(num_classes=5))
    ours = build_model("shufflenetv2", 5)
    load_in_order(ours.stages, nn.ModuleList([theirs.stage2, theirs.stage3, theirs.stage4]))
    load_in_order(nn.ModuleList([ours.last, ours.last_norm]), theirs.conv5)
    load_in_order(ours.classifier, theirs.fc)
    images = torch.randn(2, 3, 32, 32)
    output = ours.eval()(images, features=True)
    first = theirs.stage2(F.relu(ours.stem_norm(ours.stem(images))))
    second = theirs.stage3(first)
    last = theirs.conv5(theirs.stage4(second))
    for stage, expected in zip(output.stages, (first, second, last), strict=True):
        torch.testing.assert_close(stage, expected)
    torch.testing.assert_close(output.logits, theirs.fc(last.mean(dim=(2, 3))))


def slow_block(state: dict[str, Tensor], x: Tensor, stride: int, groups: int) -> Tensor:
    """A unit as the paper draws it (figure 2, b and c), each group's convolution on its own."""

    def norm(x: Tensor, name: str) -> Tensor:
        return F.batch_norm(x, *(state[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")))

    def pointwise(x: Tensor, name: str, groups: int) -> Tensor:
        pairs = zip(x.chunk(groups, dim=1), state[f"{name}.weight"].chunk(groups), strict=True)
        return torch.cat([F.conv2d(part, weight) for part, weight in pairs], dim=1)

    y = F.relu(norm(pointwise(x, "conv1", groups), "norm1"))
    parts = y.chunk(groups, dim=1)
    y = torch.stack([part[:, i] for i in range(parts[0].shape[1]) for part in parts], dim=1)
    y = norm(F.conv2d(y, state["conv2.weight"], stride=stride, padding=1, groups=y.shape[1]), "norm2")
    y = norm(pointwise(F.relu(y), "conv3", 3), "norm3")
    if stride == 1:
        return y + x
    return torch.cat([y, F.avg_pool2d(x, 3, stride=2, padding=1)], dim=1)


@pytest.mark.parametrize(("stage", "position", "groups"), [(0, 0, 1), (0, 1, 3), (1, 0, 3), (2, 3, 3)])
def test_shufflenetv1_blocks_are_the_papers(stage, position, groups):
    """But for the ReLU after the depthwise convolution, which the paper leaves out and the field's code has."""
    torch.manual_seed(0)
    block = after_training(build_model("shufflenetv1", 5).stages[stage][position])
    x = torch.randn(2, block.conv1.in_channels, 8, 8).relu()
    torch.testing.assert_close(block(x), slow_block(block.state_dict(), x, 2 if position == 0 else 1, groups))

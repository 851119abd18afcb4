import pytest
import torch
from torchvision import models

from ltkd.models import build_model

from .comparison import after_training, load_in_order


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50"])
def test_imagenet_networks_compute_what_torchvisions_do(name):
    torch.manual_seed(0)
    theirs = after_training(getattr(models, name)(num_classes=5))
    ours = build_model(f"imagenet_{name}", 5)
    load_in_order(ours, theirs)
    images = torch.randn(2, 3, 65, 64)
    torch.testing.assert_close(ours.eval()(images).logits, theirs(images))


def test_odd_sizes_and_the_shortcut_without_parameters():
    model = build_model("resnet32_a", 5, in_channels=1).eval()
    stages = model(torch.randn(2, 1, 9, 9), features=True).stages
    assert [tuple(stage.shape[1:]) for stage in stages] == [(16, 9, 9), (32, 5, 5), (64, 3, 3)]
    block = model.stages[1][0]
    x = torch.randn(1, 16, 9, 9)
    shortcut = block.shortcut(x)
    assert torch.equal(shortcut[:, 8:24], x[:, :, ::2, ::2])
    assert shortcut[:, :8].count_nonzero() == shortcut[:, 24:].count_nonzero() == 0

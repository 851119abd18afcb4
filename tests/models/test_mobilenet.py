import timm
import torch
from torch import nn
from torchvision import models

from ltkd.models import build_model

from .comparison import after_training, load_in_order


def test_mobilenetv2_blocks_compute_what_torchvisions_do():
    torch.manual_seed(0)
    rows = [[1, 16, 1, 1], [6, 24, 2, 1], [6, 32, 3, 2], [6, 64, 4, 2], [6, 96, 3, 1], [6, 160, 3, 2], [6, 320, 1, 1]]
    theirs = models.MobileNetV2(width_mult=0.5, inverted_residual_setting=rows, round_nearest=1)
    for module in list(theirs.modules()):  # the field's network has ReLU
        for name, child in module.named_children():
            if isinstance(child, nn.ReLU6):
                setattr(module, name, nn.ReLU())
    theirs = after_training(theirs).features[2:]  # torchvision's first block is without its expansion by 1
    ours = build_model("mobilenetv2", 5)
    load_in_order(nn.ModuleList([*ours.groups[1:], ours.last, ours.last_norm]), theirs)
    ours.eval()
    seen = {}
    ours.groups[1][0].register_forward_pre_hook(lambda module, inputs: seen.update(start=inputs[0]))
    output = ours(torch.randn(2, 3, 32, 32), features=True)
    x, ends = seen["start"], {2: 0, 5: 1, 12: 2}  # the blocks whose expansion is a stage's map
    for index, block in enumerate(theirs):
        if index in ends:
            torch.testing.assert_close(output.stages[ends[index]], block.conv[0](x))
        x = block(x)
    torch.testing.assert_close(output.stages[3], x)


def test_the_first_block_of_mobilenetv2_expands_by_1():
    block = build_model("mobilenetv2", 5).groups[0][0]
    assert block.expand.weight.shape == (16, 16, 1, 1)


def test_mobilenetv1_computes_what_timms_does():
    torch.manual_seed(0)
    theirs = after_training(timm.create_model("mobilenetv1_100", num_classes=5, act_layer=nn.ReLU))
    ours = build_model("mobilenetv1", 5)
    load_in_order(ours, theirs)
    images = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(ours.eval()(images).logits, theirs(images))

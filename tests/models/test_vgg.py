import pytest
import torch
from torch import nn
from torchvision.models.vgg import cfgs, make_layers

from ltkd.errors import UserError
from ltkd.models import build_model

from .comparison import after_training, load_in_order


@pytest.mark.parametrize(("name", "configuration"), [("vgg11", "A"), ("vgg13", "B")])
@pytest.mark.parametrize("side", [32, 64])
def test_maps_are_those_of_torchvisions_convolutions(name, configuration, side):
    torch.manual_seed(0)
    theirs = after_training(make_layers(cfgs[configuration], batch_norm=True)[:-1])
    poolings = [index for index, layer in enumerate(theirs) if isinstance(layer, nn.MaxPool2d)]
    ours = build_model(name, 5)
    load_in_order(ours.blocks, theirs)
    if side == 32:  # the field's form does not pool a fourth time
        theirs[poolings[-1]] = nn.Identity()
    images = torch.randn(2, 3, side, side)
    stages = ours.eval()(images, features=True).stages
    for stage, end in zip(stages, [*poolings[1:], len(theirs)], strict=True):
        torch.testing.assert_close(stage, theirs[:end](images))


@pytest.mark.parametrize(
    ("side", "sides"), [(8, [4, 2, 1, 1]), (32, [16, 8, 4, 4]), (33, [16, 8, 4, 2]), (64, [32, 16, 8, 4])]
)
def test_stages_have_four_maps(side, sides):
    stages = build_model("vgg8", 5).eval()(torch.randn(2, 3, side, side), features=True).stages
    shapes = [(width, side, side) for width, side in zip((128, 256, 512, 512), sides, strict=True)]
    assert [tuple(stage.shape[1:]) for stage in stages] == shapes


def test_too_small_images_are_an_error_that_names_the_smallest():
    with pytest.raises(UserError, match="at least 8 x 8 pixels, got 7"):
        build_model("vgg8", 5)(torch.randn(2, 3, 7, 9))

"""VGG networks (Simonyan, Zisserman 2014, arXiv 1409.1556) with batch normalisation, in the field's form for small
images: vgg8, vgg11, vgg13.

One linear classifier instead of the paper's three layers, and global average pooling before it.
"""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from ltkd.errors import UserError
from ltkd.models.layers import PositiveInt, classify, start_classifier, start_convolutions
from ltkd.models.output import ModelOutput

SMALLEST_SIDE = 8  # three poolings halve it to 1


class ConvolutionNorm(nn.Module):
    """3x3 convolution (with a bias, as in the paper) and batch normalisation, without the ReLU after it."""

    def __init__(self, in_channels: int, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, width, 3, padding=1)
        self.norm = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x))


class VGG(nn.Module):
    """Five blocks of 64/128/256/512/512 channels with 2x2 max pooling between them, global average pooling, a linear
    `classifier`.

    `forward(images [B, in_channels, H, W], features=...)`: a stage's map is the last one of a block after its ReLU and
    before the pooling, its pre-activation the normalised map before that ReLU. The first block, at full resolution, is
    the stem; the others are the four stages, of 16, 8, 4 and 4 pixels a side for images of 32: up to 32 pixels there is
    no pooling before the last block, for larger images there is. Images need 8 pixels a side.
    """

    def __init__(self, *, depths: tuple[int, ...], num_classes: int, in_channels: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList()
        channels = in_channels
        for depth, width in zip(depths, (64, 128, 256, 512, 512), strict=True):
            block = nn.ModuleList()
            for _ in range(depth):
                block.append(ConvolutionNorm(channels, width))
                channels = width
            self.blocks.append(block)
        self.classifier = nn.Linear(channels, num_classes)
        start_convolutions(self)
        start_classifier(self.classifier)

    @property
    def preact_norms(self) -> list[nn.BatchNorm2d | None]:
        """The batch normalisation whose output is each pre-activation map."""
        return [block[-1].norm for block in self.blocks[1:]]

    def forward(self, images: Tensor, *, features: bool = False) -> ModelOutput:
        side = min(images.shape[2:])
        if side < SMALLEST_SIDE:
            smallest = f"{SMALLEST_SIDE} x {SMALLEST_SIDE}"
            raise UserError(f"VGG networks take images of at least {smallest} pixels, got {side} on the shorter side")
        maps, preactivations = [], []
        x, last = images, len(self.blocks) - 1
        for index, block in enumerate(self.blocks):
            if 0 < index < last or (index == last and side > 32):
                x = F.max_pool2d(x, 2)
            for layer in block.children():
                preactivation = layer(x)
                x = F.relu(preactivation)  # not in place: the value before it is wanted too
            if features and index > 0:
                maps.append(x)
                preactivations.append(preactivation)
        return classify(self.classifier, x, maps, preactivations)


def _factory(depths: tuple[int, ...]) -> Callable[..., VGG]:
    def build(*, num_classes: PositiveInt, in_channels: PositiveInt = 3) -> VGG:
        return VGG(depths=depths, num_classes=num_classes, in_channels=in_channels)

    return build


FACTORIES: dict[str, Callable[..., VGG]] = {
    "vgg8": _factory((1, 1, 1, 1, 1)),
    "vgg11": _factory((1, 1, 2, 2, 2)),
    "vgg13": _factory((2, 2, 2, 2, 2)),
}

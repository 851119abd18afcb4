"""Wide residual networks (Zagoruyko, Komodakis 2016, arXiv 1605.07146) for small images: `wrn_<depth>_<width>`.

Three stages of 16/32/64 channels times the width, and 6 n + 4 layers: n pre-activation blocks in each stage. Any input
size works, since the last maps are pooled globally.
"""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from ltkd.models.layers import PositiveInt, classify, start_convolutions
from ltkd.models.output import ModelOutput


class PreactivationBlock(nn.Module):
    """Twice normalisation, ReLU and 3x3 convolution; where the shape changes, a plain 1x1 convolution as shortcut.

    The network applies norm1 and the first ReLU, whose result may be a stage's map, and hands over that map beside the
    sum that it was made of.
    """

    def __init__(self, in_channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, width, 3, stride, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        same_width = in_channels == width
        self.shortcut = None if same_width else nn.Conv2d(in_channels, width, 1, stride, bias=False)

    def forward(self, x: Tensor, activated: Tensor) -> Tensor:
        """activated: relu(norm1(x)), which is also what the shortcut's convolution sees."""
        residual = self.conv2(F.relu(self.norm2(self.conv1(activated))))
        return residual + (x if self.shortcut is None else self.shortcut(activated))


class WideResNet(nn.Module):
    """3x3 stem, three stages of pre-activation blocks (stride 2 from the second on), normalisation and ReLU, global
    average pooling, a linear `classifier`.

    `forward(images [B, in_channels, H, W], features=...)`. A block ends in a bare sum, so a stage's map is that sum
    after the normalisation and ReLU which come next: the first ones of the following stage, for the last stage the
    network's final ones. The pre-activation is the same map between the two. They are computed once and used by both,
    so batch normalisation sees each batch once. Three stages; the stem is not one.
    """

    def __init__(self, *, depth: int, width: int, num_classes: int, in_channels: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(in_channels, 16, 3, padding=1, bias=False)
        self.stages = nn.ModuleList()
        channels = 16
        for index in range(3):
            blocks = nn.ModuleList()
            for position in range((depth - 4) // 6):
                stride = 2 if index > 0 and position == 0 else 1
                blocks.append(PreactivationBlock(channels, 16 * 2**index * width, stride))
                channels = 16 * 2**index * width
            self.stages.append(blocks)
        self.norm = nn.BatchNorm2d(channels)
        self.classifier = nn.Linear(channels, num_classes)
        start_convolutions(self)
        nn.init.zeros_(self.classifier.bias)

    @property
    def preact_norms(self) -> list[nn.BatchNorm2d | None]:
        """The batch normalisation whose output is each pre-activation map."""
        return [*(blocks[0].norm1 for blocks in self.stages[1:]), self.norm]

    def forward(self, images: Tensor, *, features: bool = False) -> ModelOutput:
        maps, preactivations = [], []
        x = self.stem(images)
        for index, blocks in enumerate(self.stages):
            for position, block in enumerate(blocks):
                preactivation = block.norm1(x)
                activated = F.relu(preactivation)  # not in place: the value before it is wanted too
                if features and index > 0 and position == 0:
                    maps.append(activated)
                    preactivations.append(preactivation)
                x = block(x, activated)
        preactivation = self.norm(x)
        activated = F.relu(preactivation)
        if features:
            maps.append(activated)
            preactivations.append(preactivation)
        return classify(self.classifier, activated, maps, preactivations)


def _factory(depth: int, width: int) -> Callable[..., WideResNet]:
    def build(*, num_classes: PositiveInt, in_channels: PositiveInt = 3) -> WideResNet:
        return WideResNet(depth=depth, width=width, num_classes=num_classes, in_channels=in_channels)

    return build


FACTORIES: dict[str, Callable[..., WideResNet]] = {
    f"wrn_{depth}_{width}": _factory(depth, width) for depth in (16, 40) for width in (1, 2)
}

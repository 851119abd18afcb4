"""Mobile networks of depthwise separable convolutions: `mobilenetv2` (Sandler et al. 2018, arXiv 1801.04381) in the
field's form for small images, and `mobilenetv1` (Howard et al. 2017, arXiv 1704.04861) for ImageNet.

Any input size works, since the last maps are pooled globally; below 32 pixels a side the deepest maps are one pixel.
"""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from ltkd.models.layers import PositiveInt, classify, start_classifier, start_convolutions
from ltkd.models.output import ModelOutput


class InvertedResidual(nn.Module):
    """1x1 expansion, 3x3 depthwise convolution and linear 1x1 projection, each normalised; the sum with the block's
    input where the shape stays.

    The network calls `expanded` and applies the ReLU after it, whose result may be a stage's map.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, expansion: int) -> None:
        super().__init__()
        width = in_channels * expansion
        self.expand = nn.Conv2d(in_channels, width, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.depthwise = nn.Conv2d(width, width, 3, stride, padding=1, groups=width, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.project = nn.Conv2d(width, out_channels, 1, bias=False)
        self.norm3 = nn.BatchNorm2d(out_channels)
        self.same_shape = stride == 1 and in_channels == out_channels

    def expanded(self, x: Tensor) -> Tensor:
        return self.norm1(self.expand(x))

    def forward(self, x: Tensor, activated: Tensor) -> Tensor:
        """activated: relu(expanded(x))."""
        residual = F.relu(self.norm2(self.depthwise(activated)))
        residual = self.norm3(self.project(residual))
        return x + residual if self.same_shape else residual


class MobileNetV2(nn.Module):
    """3x3 stem with stride 2, inverted residual blocks, a 1x1 convolution to 1280 channels, global average pooling, a
    linear `classifier`. Half the paper's width, strides for small images, and, as in the field's code and so behind its
    published numbers, ReLU where the paper has ReLU6.

    `forward(images [B, in_channels, H, W], features=...)`. A block ends in a linear normalisation, without activation.
    So the map of a stage is what follows it: the next block's expansion after its normalisation and ReLU; for the last
    stage the final 1x1 convolution's, which is what the classifier sees before pooling. The pre-activation is the same
    map before that ReLU. Each is computed once. Stages end, as in the field's code, after the 24-, 32-, 96- and
    320-channel blocks of the paper: four maps of 72, 96, 288 and 1280 channels, of 16, 8, 4 and 2 pixels a side for
    images of 32. (The field's code hands out the linear sums instead: 12, 16, 48 and 160 channels.)
    """

    # expansion, output channels, number of blocks, stride of the first; one row per block group of the paper
    GROUPS = ((1, 8, 1, 1), (6, 12, 2, 1), (6, 16, 3, 2), (6, 32, 4, 2), (6, 48, 3, 1), (6, 80, 3, 2), (6, 160, 1, 1))
    GROUPS_AFTER_STAGES = (2, 3, 5)  # groups whose first expansion gives the stage before it its map

    def __init__(self, *, num_classes: int, in_channels: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(in_channels, 16, 3, stride=2, padding=1, bias=False)
        self.stem_norm = nn.BatchNorm2d(16)
        self.groups = nn.ModuleList()
        channels = 16
        for expansion, width, depth, first_stride in self.GROUPS:
            blocks = nn.ModuleList()
            for position in range(depth):
                blocks.append(InvertedResidual(channels, width, first_stride if position == 0 else 1, expansion))
                channels = width
            self.groups.append(blocks)
        self.last = nn.Conv2d(channels, 1280, 1, bias=False)
        self.last_norm = nn.BatchNorm2d(1280)
        self.classifier = nn.Linear(1280, num_classes)
        start_convolutions(self)
        start_classifier(self.classifier)

    @property
    def preact_norms(self) -> list[nn.BatchNorm2d | None]:
        """The batch normalisation whose output is each pre-activation map."""
        return [*(self.groups[index][0].norm1 for index in self.GROUPS_AFTER_STAGES), self.last_norm]

    def forward(self, images: Tensor, *, features: bool = False) -> ModelOutput:
        maps, preactivations = [], []
        x = F.relu(self.stem_norm(self.stem(images)))
        for index, blocks in enumerate(self.groups):
            for position, block in enumerate(blocks):
                preactivation = block.expanded(x)
                activated = F.relu(preactivation)  # not in place: the value before it is wanted too
                if features and index in self.GROUPS_AFTER_STAGES and position == 0:
                    maps.append(activated)
                    preactivations.append(preactivation)
                x = block(x, activated)
        preactivation = self.last_norm(self.last(x))
        activated = F.relu(preactivation)
        if features:
            maps.append(activated)
            preactivations.append(preactivation)
        return classify(self.classifier, activated, maps, preactivations)


class SeparableBlock(nn.Module):
    """3x3 depthwise convolution, normalisation, ReLU, 1x1 convolution, normalisation; the network applies the last
    ReLU."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(in_channels, in_channels, 3, stride, padding=1, groups=in_channels, bias=False)
        self.norm1 = nn.BatchNorm2d(in_channels)
        self.pointwise = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm2(self.pointwise(F.relu(self.norm1(self.depthwise(x)))))


class MobileNetV1(nn.Module):
    """3x3 stem with stride 2, 13 depthwise separable blocks, global average pooling, a linear `classifier`. The
    weights start as torch's layers do by themselves, as in the field's code.

    `forward(images [B, in_channels, H, W], features=...)`: a stage's map is its last block's after ReLU, its
    pre-activation the normalised map before that ReLU. Four stages, those of the field's code: the last maps of
    128, 256, 512 and 1024 channels, of 56, 28, 14 and 7 pixels a side for images of 224.
    """

    # output channels and stride of the blocks; a stage ends after each row
    STAGES = (
        ((64, 1), (128, 2), (128, 1)),
        ((256, 2), (256, 1)),
        ((512, 2), *[(512, 1)] * 5),
        ((1024, 2), (1024, 1)),
    )

    def __init__(self, *, num_classes: int, in_channels: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(in_channels, 32, 3, stride=2, padding=1, bias=False)
        self.stem_norm = nn.BatchNorm2d(32)
        self.stages = nn.ModuleList()
        channels = 32
        for rows in self.STAGES:
            blocks = nn.ModuleList()
            for width, stride in rows:
                blocks.append(SeparableBlock(channels, width, stride))
                channels = width
            self.stages.append(blocks)
        self.classifier = nn.Linear(channels, num_classes)

    @property
    def preact_norms(self) -> list[nn.BatchNorm2d | None]:
        """The batch normalisation whose output is each pre-activation map."""
        return [blocks[-1].norm2 for blocks in self.stages]

    def forward(self, images: Tensor, *, features: bool = False) -> ModelOutput:
        maps, preactivations = [], []
        x = F.relu(self.stem_norm(self.stem(images)))
        for blocks in self.stages:
            for block in blocks.children():
                preactivation = block(x)
                x = F.relu(preactivation)  # not in place: the value before it is wanted too
            if features:
                maps.append(x)
                preactivations.append(preactivation)
        return classify(self.classifier, x, maps, preactivations)


def mobilenetv2(*, num_classes: PositiveInt, in_channels: PositiveInt = 3) -> MobileNetV2:
    return MobileNetV2(num_classes=num_classes, in_channels=in_channels)


def mobilenetv1(*, num_classes: PositiveInt, in_channels: PositiveInt = 3) -> MobileNetV1:
    return MobileNetV1(num_classes=num_classes, in_channels=in_channels)


FACTORIES: dict[str, Callable[..., nn.Module]] = {"mobilenetv1": mobilenetv1, "mobilenetv2": mobilenetv2}

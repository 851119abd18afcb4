"""Networks with channel shuffling in the field's form for small images: `shufflenetv1` (Zhang et al. 2017,
arXiv 1707.01083) and `shufflenetv2` (Ma et al. 2018, arXiv 1807.11164).

Both have a 1x1 stem of stride 1 instead of the papers' 3x3 with pooling, and three stages of stride 2. Their weights
start as torch's layers do by themselves, as in the field's code. Any input size works, since the last maps are pooled
globally.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ltkd.models.layers import PositiveInt, classify
from ltkd.models.output import ModelOutput


def shuffle(x: Tensor, groups: int) -> Tensor:
    """Channels [group 0, group 1, ...] become the groups' first channels, then their second ones, and so on.

    Done on the last axis of a channels-last map, so that the next convolution finds one.
    """
    return x.permute(0, 2, 3, 1).unflatten(3, (groups, -1)).transpose(3, 4).flatten(3).permute(0, 3, 1, 2)


class GroupedBottleneck(nn.Module):
    """Grouped 1x1 convolution, shuffle, 3x3 depthwise and grouped 1x1 convolution; added to the block's input or, with
    stride 2, stacked on its average pooling. Returns the map *before* its ReLU, which the network applies."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, groups_in: int, groups_out: int) -> None:
        super().__init__()
        self.stride, self.groups = stride, groups_in
        residual_channels = out_channels - in_channels if stride == 2 else out_channels
        width = residual_channels // 4
        self.conv1 = nn.Conv2d(in_channels, width, 1, groups=groups_in, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, groups=width, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, residual_channels, 1, groups=groups_out, bias=False)
        self.norm3 = nn.BatchNorm2d(residual_channels)

    def forward(self, x: Tensor) -> Tensor:
        residual = shuffle(F.relu(self.norm1(self.conv1(x))), self.groups)
        residual = F.relu(self.norm2(self.conv2(residual)))
        residual = self.norm3(self.conv3(residual))
        if self.stride == 2:
            return torch.cat([residual, F.avg_pool2d(x, 3, stride=2, padding=1)], dim=1)
        return residual + x


class ShuffleNetV1(nn.Module):
    """1x1 stem of 24 channels, stages of 240/480/960 channels, global average pooling, a linear `classifier`; three
    groups.

    `forward(images [B, in_channels, H, W], features=...)`: a stage's map is the output of its last block after ReLU,
    its pre-activation the same sum before ReLU. Three stages, of 16, 8 and 4 pixels a side for images of 32; the stem
    is not one.
    """

    GROUPS = 3

    def __init__(self, *, num_classes: int, in_channels: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(in_channels, 24, 1, bias=False)
        self.stem_norm = nn.BatchNorm2d(24)
        self.stages = nn.ModuleList()
        channels = 24
        for index, (depth, width) in enumerate(zip((4, 8, 4), (240, 480, 960), strict=True)):
            blocks = nn.ModuleList()
            for position in range(depth):
                first = index == 0 and position == 0  # 24 channels are too few to be split into groups
                stride = 2 if position == 0 else 1
                blocks.append(GroupedBottleneck(channels, width, stride, 1 if first else self.GROUPS, self.GROUPS))
                channels = width
            self.stages.append(blocks)
        self.classifier = nn.Linear(channels, num_classes)

    @property
    def preact_norms(self) -> list[nn.BatchNorm2d | None]:
        """The last batch normalisation of each stage's last block; the shortcut is added to its output."""
        return [blocks[-1].norm3 for blocks in self.stages]

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


class SplitBlock(nn.Module):
    """Half of the channels pass as they are; the others go through 1x1, 3x3 depthwise and 1x1 convolution; shuffle.
    Returns the map *before* its ReLU, which the network applies; the half that passes is not negative, so that the ReLU
    leaves it as it is."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        width = channels // 2
        self.conv1 = nn.Conv2d(width, width, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, width, 1, bias=False)
        self.norm3 = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        kept, changed = x.chunk(2, dim=1)
        changed = F.relu(self.norm1(self.conv1(changed)))
        changed = self.norm2(self.conv2(changed))
        changed = self.norm3(self.conv3(changed))
        return shuffle(torch.cat([kept, changed], dim=1), 2)


class DownBlock(nn.Module):
    """Two branches of stride 2, each half of the output's channels, shuffled; before the ReLU, as SplitBlock."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        width = out_channels // 2
        self.left_conv1 = nn.Conv2d(in_channels, in_channels, 3, 2, padding=1, groups=in_channels, bias=False)
        self.left_norm1 = nn.BatchNorm2d(in_channels)
        self.left_conv2 = nn.Conv2d(in_channels, width, 1, bias=False)
        self.left_norm2 = nn.BatchNorm2d(width)
        self.right_conv1 = nn.Conv2d(in_channels, width, 1, bias=False)
        self.right_norm1 = nn.BatchNorm2d(width)
        self.right_conv2 = nn.Conv2d(width, width, 3, 2, padding=1, groups=width, bias=False)
        self.right_norm2 = nn.BatchNorm2d(width)
        self.right_conv3 = nn.Conv2d(width, width, 1, bias=False)
        self.right_norm3 = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        left = self.left_norm1(self.left_conv1(x))
        left = self.left_norm2(self.left_conv2(left))
        right = F.relu(self.right_norm1(self.right_conv1(x)))
        right = self.right_norm2(self.right_conv2(right))
        right = self.right_norm3(self.right_conv3(right))
        return shuffle(torch.cat([left, right], dim=1), 2)


class ShuffleNetV2(nn.Module):
    """1x1 stem of 24 channels, stages of 116/232/464 channels, a 1x1 convolution to 1024, global average pooling, a
    linear `classifier`.

    `forward(images [B, in_channels, H, W], features=...)`. A stage's map is its last block's shuffled output after
    ReLU. Its pre-activation is the same map before that ReLU; the half of the channels that only pass through the block
    are in both as they were. The last stage includes the final 1x1 convolution: its map is that one's after
    normalisation and ReLU, which is what the classifier sees before pooling, its pre-activation the map between the
    two. Three stages, of 16, 8 and 4 pixels a side for images of 32; the stem is not one. (The field's code hands out
    the 464-channel map as its last one.)
    """

    def __init__(self, *, num_classes: int, in_channels: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(in_channels, 24, 1, bias=False)
        self.stem_norm = nn.BatchNorm2d(24)
        self.stages = nn.ModuleList()
        channels = 24
        for repeats, width in zip((3, 7, 3), (116, 232, 464), strict=True):
            blocks = [DownBlock(channels, width), *(SplitBlock(width) for _ in range(repeats))]
            self.stages.append(nn.ModuleList(blocks))
            channels = width
        self.last = nn.Conv2d(channels, 1024, 1, bias=False)
        self.last_norm = nn.BatchNorm2d(1024)
        self.classifier = nn.Linear(1024, num_classes)

    @property
    def preact_norms(self) -> list[nn.BatchNorm2d | None]:
        """The last stage's is the final batch normalisation; the others have none that covers all their channels."""
        return [None, None, self.last_norm]

    def forward(self, images: Tensor, *, features: bool = False) -> ModelOutput:
        maps, preactivations = [], []
        x = F.relu(self.stem_norm(self.stem(images)))
        for index, blocks in enumerate(self.stages):
            for block in blocks.children():
                preactivation = block(x)
                x = F.relu(preactivation)  # not in place: the value before it is wanted too
            if features and index < 2:
                maps.append(x)
                preactivations.append(preactivation)
        preactivation = self.last_norm(self.last(x))
        x = F.relu(preactivation)
        if features:
            maps.append(x)
            preactivations.append(preactivation)
        return classify(self.classifier, x, maps, preactivations)


def shufflenetv1(*, num_classes: PositiveInt, in_channels: PositiveInt = 3) -> ShuffleNetV1:
    return ShuffleNetV1(num_classes=num_classes, in_channels=in_channels)


def shufflenetv2(*, num_classes: PositiveInt, in_channels: PositiveInt = 3) -> ShuffleNetV2:
    return ShuffleNetV2(num_classes=num_classes, in_channels=in_channels)


FACTORIES: dict[str, Callable[..., nn.Module]] = {"shufflenetv1": shufflenetv1, "shufflenetv2": shufflenetv2}

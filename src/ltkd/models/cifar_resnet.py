"""Residual networks for small images (He et al. 2016, arXiv 1512.03385), as the distillation field counts them.

Three-stage networks `resnet<depth>` (stem 16, stages 16/32/64) and `resnet<depth>x4` (stem 32, stages 64/128/256), the
option-A network `resnet32_a` of the long-tail field, and four-stage `resnet18` / `resnet50` (64 to 512) with a 3x3
stem of stride 1. Any input size works, since the last maps are pooled globally.
"""

from collections.abc import Callable
from typing import Annotated

import torch.nn.functional as F
from annotated_types import Ge
from torch import Tensor, nn

from ltkd.models.output import ModelOutput

PositiveInt = Annotated[int, Ge(1)]


class PaddingShortcut(nn.Module):
    """Option A of the ResNet paper: every stride-th pixel, zeros as new channels on both sides; no parameters."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        before = (out_channels - in_channels) // 2
        self.padding = (0, 0, 0, 0, before, out_channels - in_channels - before)

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, :: self.stride, :: self.stride], self.padding)


def projection_shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    """Option B of the ResNet paper: a 1x1 convolution with batch normalisation."""
    convolution = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(out_channels))


Shortcut = Callable[[int, int, int], nn.Module]


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and the shortcut. Returns the sum *before* its activation, which the network applies."""

    expansion = 1

    def __init__(self, in_channels: int, width: int, stride: int, shortcut: Shortcut) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        same_shape = stride == 1 and in_channels == width
        self.shortcut = nn.Identity() if same_shape else shortcut(in_channels, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        residual = F.relu(self.norm1(self.conv1(x)))
        return self.norm2(self.conv2(residual)) + self.shortcut(x)


class Bottleneck(nn.Module):
    """1x1, 3x3 (with the stride) and 1x1 convolution to four times the width; as BasicBlock, before the activation."""

    expansion = 4

    def __init__(self, in_channels: int, width: int, stride: int, shortcut: Shortcut) -> None:
        super().__init__()
        out_channels = self.expansion * width
        self.conv1 = nn.Conv2d(in_channels, width, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, out_channels, 1, bias=False)
        self.norm3 = nn.BatchNorm2d(out_channels)
        same_shape = stride == 1 and in_channels == out_channels
        self.shortcut = nn.Identity() if same_shape else shortcut(in_channels, out_channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        residual = F.relu(self.norm1(self.conv1(x)))
        residual = F.relu(self.norm2(self.conv2(residual)))
        return self.norm3(self.conv3(residual)) + self.shortcut(x)


class ResNet(nn.Module):
    """3x3 stem, stages of residual blocks (stride 2 from the second on), global average pooling, a linear `classifier`.

    `forward(images [B, in_channels, H, W], features=...)`: a stage's map is the output of its last block after ReLU,
    its pre-activation the same sum before ReLU; both come from one pass, so batch normalisation sees each batch once.
    The stem is not a stage.
    """

    def __init__(
        self,
        *,
        block: type[BasicBlock] | type[Bottleneck],
        depths: tuple[int, ...],
        stem_width: int,
        widths: tuple[int, ...],
        num_classes: int,
        in_channels: int,
        shortcut: Shortcut = projection_shortcut,
    ) -> None:
        super().__init__()
        self.stem = nn.Conv2d(in_channels, stem_width, 3, padding=1, bias=False)
        self.stem_norm = nn.BatchNorm2d(stem_width)
        self.stages = nn.ModuleList()
        channels = stem_width
        for index, (depth, width) in enumerate(zip(depths, widths, strict=True)):
            blocks = nn.ModuleList()
            for position in range(depth):
                stride = 2 if index > 0 and position == 0 else 1
                blocks.append(block(channels, width, stride, shortcut))
                channels = block.expansion * width
            self.stages.append(blocks)
        self.classifier = nn.Linear(channels, num_classes)
        for module in self.modules():  # batch normalisation starts at scale 1 and shift 0 by itself
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor, *, features: bool = False) -> ModelOutput:
        maps, preactivations = [], []
        x = F.relu(self.stem_norm(self.stem(images)))
        for blocks in self.stages:
            for block in blocks:
                preactivation = block(x)
                x = F.relu(preactivation)  # not in place: the value before it is wanted too
            if features:
                maps.append(x)
                preactivations.append(preactivation)
        embedding = x.mean(dim=(2, 3))
        logits = self.classifier(embedding)
        if not features:
            return ModelOutput(logits, embedding=embedding)
        return ModelOutput(logits, maps, preactivations, embedding)


def _three_stages(
    depth: int, *, stem_width: int = 16, widths: tuple[int, ...] = (16, 32, 64), **options
) -> Callable[..., ResNet]:
    """Factory of a three-stage network of `depth` layers: 6 n + 2, n basic blocks in each stage."""

    def build(*, num_classes: PositiveInt, in_channels: PositiveInt = 3) -> ResNet:
        return ResNet(
            block=BasicBlock,
            depths=((depth - 2) // 6,) * 3,
            stem_width=stem_width,
            widths=widths,
            num_classes=num_classes,
            in_channels=in_channels,
            **options,
        )

    return build


def _four_stages(block: type[BasicBlock] | type[Bottleneck], depths: tuple[int, ...]) -> Callable[..., ResNet]:
    """Factory of an ImageNet-family network with a small-image stem: 3x3, stride 1, no max pooling."""

    def build(*, num_classes: PositiveInt, in_channels: PositiveInt = 3) -> ResNet:
        return ResNet(
            block=block,
            depths=depths,
            stem_width=64,
            widths=(64, 128, 256, 512),
            num_classes=num_classes,
            in_channels=in_channels,
        )

    return build


FACTORIES: dict[str, Callable[..., ResNet]] = {
    **{f"resnet{depth}": _three_stages(depth) for depth in (8, 14, 20, 32, 44, 56, 110)},
    **{f"resnet{depth}x4": _three_stages(depth, stem_width=32, widths=(64, 128, 256)) for depth in (8, 32)},
    "resnet32_a": _three_stages(32, shortcut=PaddingShortcut),
    "resnet18": _four_stages(BasicBlock, (2, 2, 2, 2)),
    "resnet50": _four_stages(Bottleneck, (3, 4, 6, 3)),
}
